"""Sums over the steps of a sample. Lava has no neuron that holds a count for a whole sample."""

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


class TimeSum(AbstractProcess):
    """Adds what arrives over ``steps`` steps, times a weight per step, and sends the sum, shifted
    right and rounded down, at each of the next ``steps``.

    offset: a sample's first frame arrives at steps t with t % steps == offset. weights: int64
    (steps,). shift: bits that are dropped. limit: largest magnitude of a sum; message: of what is
    sent. samples: (first, last) time step in which sums are sent that belong to samples; outside
    the limits there raises OutOfRange.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        steps: int,
        offset: int,
        limit: int,
        message: int | None = None,
        weights: np.ndarray | None = None,
        shift: int = 0,
        samples: tuple[int, int] = (1, 1 << 62),
        name: str | None = None,
    ) -> None:
        super().__init__(
            shape=shape,
            steps=steps,
            offset=offset,
            limit=limit,
            message=limit if message is None else message,
            weights=np.ones(steps, np.int64) if weights is None else weights,
            shift=shift,
            samples=samples,
            name=name,
        )
        self.a_in = InPort(shape=shape)
        self.s_out = OutPort(shape=shape)


@implements(proc=TimeSum, protocol=LoihiProtocol)
@requires(CPU)
class PyTimeSumModel(PyLoihiProcessModel):
    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        self._sum = np.zeros(proc_params["shape"], np.int64)
        self._held = np.zeros(proc_params["shape"], np.int32)
        self._offset, self._shift = proc_params["offset"], proc_params["shift"]
        self._weights: np.ndarray = proc_params["weights"]
        self._first, self._last = proc_params["samples"]

    def run_spk(self) -> None:
        frame = (self.time_step - self._offset) % len(self._weights)
        if frame == 0:
            message = self._sum >> self._shift
            if self._first <= self.time_step <= self._last:
                self._check(message)
            self._held = message.astype(np.int32)
            self._sum[...] = 0
        self._sum += self._weights[frame] * self.a_in.recv()
        self.s_out.send(self._held)

    def _check(self, message: np.ndarray) -> None:
        given = self.proc_params
        check_range(self._sum, given["limit"], given["name"], "the count over a sample")
        check_range(message, given["message"], given["name"], "the message of the count")
