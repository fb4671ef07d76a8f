"""Linear attention by binary queries, keys and values. Lava has no product of two activities that
is summed over places; built from stock AND neurons and products it needs tokens times channels
times channels per head of them (a test shows that they give the same counts).
"""

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


def capped(counts: np.ndarray, cap: int) -> np.ndarray:
    """Return counts that saturate at ``cap``; 0 is no cap."""
    return np.minimum(counts, cap) if cap else counts


class SpatialAttention(AbstractProcess):
    """Sends min(cap, q min(cap, k^T v)) over the places of the step, per head, in the same step.

    shape: (*places, channels), channels numbered (head, i); with copies > 1 (copies, *places,
    channels), and each copy is for itself. q_in, k_in, v_in: 0 or 1.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        heads: int,
        cap: int,
        copies: int = 1,
        name: str | None = None,
    ) -> None:
        super().__init__(shape=shape, heads=heads, cap=cap, copies=copies, name=name)
        self.q_in, self.k_in, self.v_in = (InPort(shape=shape) for _ in range(3))
        self.s_out = OutPort(shape=shape)


@implements(proc=SpatialAttention, protocol=LoihiProtocol)
@requires(CPU)
class PySpatialAttentionModel(PyLoihiProcessModel):
    q_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    k_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    v_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        self._shape, self._cap = proc_params["shape"], proc_params["cap"]
        heads = proc_params["heads"]
        self._split = (proc_params["copies"], -1, heads, self._shape[-1] // heads)

    def run_spk(self) -> None:
        ports = (self.q_in, self.k_in, self.v_in)
        q, k, v = (port.recv().reshape(self._split) for port in ports)
        state = capped(np.einsum("cmhi,cmhj->chij", k, v), self._cap)
        counts = capped(np.einsum("cnhi,chij->cnhj", q, state), self._cap)
        self.s_out.send(counts.reshape(self._shape).astype(np.int32))


class TemporalAttention(AbstractProcess):
    """The same over the ``steps`` steps of a sample at every place, sent over the next ``steps``.

    offset: a sample's first frame arrives at steps t with t % steps == offset. scrambled: the
    counts (head, frame, i) of a place are read as (frame, channel).
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        heads: int,
        cap: int,
        scrambled: bool,
        steps: int,
        offset: int,
        name: str | None = None,
    ) -> None:
        super().__init__(
            shape=shape,
            heads=heads,
            cap=cap,
            scrambled=scrambled,
            steps=steps,
            offset=offset,
            name=name,
        )
        self.q_in, self.k_in, self.v_in = (InPort(shape=shape) for _ in range(3))
        self.s_out = OutPort(shape=shape)


@implements(proc=TemporalAttention, protocol=LoihiProtocol)
@requires(CPU)
class PyTemporalAttentionModel(PyLoihiProcessModel):
    q_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    k_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    v_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        self._shape, self._cap = proc_params["shape"], proc_params["cap"]
        self._scrambled, self._offset = proc_params["scrambled"], proc_params["offset"]
        steps = proc_params["steps"]
        self._split = (steps, -1, proc_params["heads"], self._shape[-1] // proc_params["heads"])
        self._seen = np.zeros((3, steps, *self._shape), np.int32)
        self._answer = np.zeros((steps, *self._shape), np.int32)

    def run_spk(self) -> None:
        frame = (self.time_step - self._offset) % len(self._answer)
        if frame == 0:
            self._answer = self._attend()
        for kept, port in zip(self._seen, (self.q_in, self.k_in, self.v_in), strict=True):
            kept[frame] = port.recv()
        self.s_out.send(self._answer[frame])

    def _attend(self) -> np.ndarray:
        q, k, v = (kept.reshape(self._split) for kept in self._seen)  # (frame, place, head, i)
        state = capped(np.einsum("tnhi,tnhj->nhij", k, v), self._cap)
        counts = capped(np.einsum("tnhi,nhij->nhtj", q, state), self._cap)
        steps, places = len(self._answer), counts.shape[0]
        if self._scrambled:
            by_frame = counts.reshape(places, steps, -1).transpose(1, 0, 2)
        else:
            by_frame = counts.transpose(2, 0, 1, 3)
        return by_frame.reshape(self._answer.shape).astype(np.int32)
