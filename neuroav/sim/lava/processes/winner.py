"""Neurons of which the strongest spikes. Lava has none that compare themselves with each other."""

from __future__ import annotations

import numpy as np
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from neuroav.fixed import check_range
from neuroav.sim.lava.layout import canonical, inner


class Winner(AbstractProcess):
    """Sends 1 from the neuron with the largest input of the step, 0 from all others.

    shape: of the neurons inside Lava; with copies > 1 their number comes first, and each copy is
    for itself. Among equals the first in canonical order wins. limit: largest magnitude of an
    input. samples: (first, last) time step that is range checked; outside the limit there raises
    OutOfRange.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        limit: int,
        copies: int = 1,
        samples: tuple[int, int] = (1, 1 << 62),
        name: str | None = None,
    ) -> None:
        super().__init__(shape=shape, limit=limit, copies=copies, samples=samples, name=name)
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)


@implements(proc=Winner, protocol=LoihiProtocol)
@requires(CPU)
class PyWinnerModel(PyLoihiProcessModel):
    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        self._copies = proc_params["copies"]
        self._axes = len(proc_params["shape"]) - (self._copies > 1)
        self._first, self._last = proc_params["samples"]

    def run_spk(self) -> None:
        values = canonical(self.a_in.recv(), self._axes)
        if self._first <= self.time_step <= self._last:
            given = self.proc_params
            check_range(values, given["limit"], given["name"], "the synaptic sum")
        spikes = np.zeros(values.shape, np.int32)
        strongest = values.reshape(self._copies, -1).argmax(axis=1)
        # a view: the array was just made
        spikes.reshape(self._copies, -1)[np.arange(self._copies), strongest] = 1
        self.s_out.send(np.ascontiguousarray(inner(spikes, self._axes)))
