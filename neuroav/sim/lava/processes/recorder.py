"""Recorders that write to memory-mapped files.

Lava's ring buffer sink hands its contents over one number per message; a file is a thousand times
faster to read and survives a crash. Recording does not change latencies.
"""

from __future__ import annotations

import numpy as np
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

PORTS = tuple(f"port_{i}" for i in range(16))  # one process for many sinks saves OS processes


class Recorder(AbstractProcess):
    """Writes what arrives on port i at time step t to row t - 1 of ``files[i]``.

    files: up to 16 paths of existing ``.npy`` files, arrays (steps, *shape) of an integer type.
    counter: path of an ``.npy`` file of one int64 that holds the number of finished steps, or ''.
    """

    def __init__(
        self,
        *,
        files: tuple[str, ...],
        shapes: tuple[tuple[int, ...], ...],
        counter: str = "",
        name: str | None = None,
    ) -> None:
        super().__init__(files=files, counter=counter, name=name)
        for i, port in enumerate(PORTS):  # a port without a file stays unconnected
            setattr(self, port, InPort(shape=shapes[i] if i < len(shapes) else (1,)))


@implements(proc=Recorder, protocol=LoihiProtocol)
@requires(CPU)
class PyRecorderModel(PyLoihiProcessModel):
    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        self._files = [np.load(file, mmap_mode="r+") for file in proc_params["files"]]
        counter = proc_params["counter"]
        self._counter = np.load(counter, mmap_mode="r+") if counter else np.zeros(1, np.int64)

    def run_spk(self) -> None:
        for port, file in zip(PORTS, self._files, strict=False):
            file[self.time_step - 1] = getattr(self, port).recv()
        self._counter[0] = self.time_step


for _port in PORTS:
    setattr(PyRecorderModel, _port, LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24))
