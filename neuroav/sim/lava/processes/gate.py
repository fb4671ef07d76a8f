"""What keeps messages of one sample from the next where a projection brings them frames late."""

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


class Gate(AbstractProcess):
    """Passes messages on in the step in which they come; zeros in ``closed`` steps of a sample.

    shape: of the messages, int32. interval: steps of a sample; offset: a sample begins at step t
    when t % interval == offset, and its first ``closed`` steps send zeros.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        interval: int,
        offset: int,
        closed: int,
        name: str | None = None,
    ) -> None:
        super().__init__(shape=shape, interval=interval, offset=offset, closed=closed, name=name)
        self.s_in = InPort(shape=shape)
        self.a_out = OutPort(shape=shape)


@implements(proc=Gate, protocol=LoihiProtocol)
@requires(CPU)
class PyGateModel(PyLoihiProcessModel):
    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)

    def run_spk(self) -> None:
        data = self.s_in.recv()
        params = self.proc_params
        frame = (self.time_step - params["offset"]) % params["interval"]
        self.a_out.send(np.zeros_like(data) if frame < params["closed"] else data)
