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

from neuroav.fixed import check_range, decay


class Accumulator(AbstractProcess):
    """v' = v + a + bias, sent at every step; leaky ones as ``integer.IntReadout`` says.

    shape: of the neurons; bias: int64, broadcasts to it. reset_interval, reset_offset: v is cleared
    before step t when t % interval == offset, as in ``LIFReset``. limit: largest magnitude of v.
    samples: (first, last) time step whose v is range checked; outside it raises OutOfRange.
    leak: None, or (decay_u or None, decay_v, input_shift, fraction bits of the decays).
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
        leak: tuple[int | None, int, int, int] | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(
            shape=shape,
            leak=leak,
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
        self._u = np.zeros(proc_params["shape"], np.int64)
        self._v = np.zeros(proc_params["shape"], np.int64)
        self._bias = proc_params["bias"]
        self._interval, self._offset = proc_params["reset_interval"], proc_params["reset_offset"]
        self._first, self._last = proc_params["samples"]

    def run_spk(self) -> None:
        if self.time_step % self._interval == self._offset:
            self._u[...] = 0
            self._v[...] = 0
        watched = self._first <= self.time_step <= self._last
        a = self.a_in.recv().astype(np.int64)
        if self.proc_params["leak"] is None:
            self._v += a + self._bias
        else:
            self._leak(a, watched)
        if watched:
            self._check(self._v, "the readout accumulator")
        self.s_out.send(self._v.astype(np.int32))

    def _leak(self, a: np.ndarray, watched: bool) -> None:
        decay_u, decay_v, shift, bits = self.proc_params["leak"]
        kept = 0 if decay_u is None else decay(self._u, decay_u + 1, bits)
        self._u = kept + (a << shift) + self._bias
        if watched:
            self._check(self._u, "the readout's current")
        self._v = decay(self._v, decay_v, bits) + self._u

    def _check(self, value: np.ndarray, what: str) -> None:
        check_range(value, self.proc_params["limit"], self.proc_params["name"], what)
