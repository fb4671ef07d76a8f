"""A process that fails in a chosen way. Alone in its folder, because Lava executes its siblings."""

import os
import signal
import time

import numpy as np
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

STEP = 5


class Faulty(AbstractProcess):
    def __init__(self, *, fault: str) -> None:
        super().__init__(fault=fault, name=f"culprit {fault}")
        self.s_in = InPort(shape=(3,))
        self.s_out = OutPort(shape=(3,))


@implements(proc=Faulty, protocol=LoihiProtocol)
@requires(CPU)
class PyFaultyModel(PyLoihiProcessModel):
    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        if proc_params["fault"] == "construction":
            raise ValueError("no such weights")
        if proc_params["fault"] == "exit in construction":
            os._exit(3)

    def run_spk(self) -> None:
        data = self.s_in.recv()
        if self.time_step == STEP:
            fault = self.proc_params["fault"]
            if fault == "raise":
                raise ZeroDivisionError("deliberate")
            if fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "shape":
                data = np.zeros((3, 3), np.int32)
            if fault == "sleep":
                time.sleep(1000)
            while fault == "spin":
                pass
            if fault == "silent":
                return
        self.s_out.send(data)
        if self.time_step == STEP and self.proc_params["fault"] == "raise late":
            raise ZeroDivisionError("after sending")

    def post_guard(self) -> bool:
        """Whether to ask for another phase after the spiking phase."""
        return self.time_step == STEP and self.proc_params["fault"] == "learning"
