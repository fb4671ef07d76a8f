"""Neurons that only add: the readout. Lava has none that starts afresh with every sample."""

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


class Accumulator(AbstractProcess):
    """v' = v + a + bias, sent at every step.

    shape: of the neurons; bias: int64, broadcasts to it. reset_interval, reset_offset: v is cleared
    before step t when t % interval == offset, as in ``LIFReset``. limit: largest magnitude of v.
    samples: (first, last) time step whose v is range checked; outside it raises OutOfRange.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        bias: np.ndarray,
        reset_interval: int,
        reset_offset: int,
        limit: int,
        samples: tuple[int, int] = (1, 1 << 62),
        name: str | None = None,
    ) -> None:
        super().__init__(
            shape=shape,
            bias=bias,
            reset_interval=reset_interval,
            reset_offset=reset_offset,
            limit=limit,
            samples=samples,
            name=name,
        )
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)


@implements(proc=Accumulator, protocol=LoihiProtocol)
@requires(CPU)
class PyAccumulatorModel(PyLoihiProcessModel):
    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        self._v = np.zeros(proc_params["shape"], np.int64)
        self._bias = proc_params["bias"]
        self._interval, self._offset = proc_params["reset_interval"], proc_params["reset_offset"]
        self._first, self._last = proc_params["samples"]

    def run_spk(self) -> None:
        if self.time_step % self._interval == self._offset:
            self._v[...] = 0
        self._v += self.a_in.recv() + self._bias
        if self._first <= self.time_step <= self._last:
            check_range(
                self._v,
                self.proc_params["limit"],
                self.proc_params["name"],
                "the readout accumulator",
            )
        self.s_out.send(self._v.astype(np.int32))
