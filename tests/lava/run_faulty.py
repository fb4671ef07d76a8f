"""Script: runs small Lava networks that fail, each in another way; prints what came of each."""

import json
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np

from neuroav.errors import NeuroavError
from neuroav.sim.lava import shim


def main(folder: Path, engine: str, faults: list[str]) -> None:
    shim.prepare()
    sys.path.insert(0, str(Path(__file__).parent / "faulty"))
    from neuroav.sim.lava.guard import dump_stacks_on_request

    segments = note_segments()
    dump_stacks_on_request(folder)
    for fault in faults:
        segments.clear()
        started = time.monotonic()
        outcome = run_one(folder, engine, fault)
        outcome |= {
            "fault": fault,
            "seconds": time.monotonic() - started,
            "children": len(multiprocessing.active_children()),
            "segments": len(segments),
            "left": [s for s in segments if Path("/dev/shm", s.lstrip("/")).exists()],
        }
        print("OUTCOME " + json.dumps(outcome), flush=True)


def note_segments() -> list[str]:
    """Return a list that grows by the name of every shared memory segment Lava creates."""
    from lava.magma.runtime.message_infrastructure.shared_memory_manager import (
        SharedMemoryManager,
    )

    segments: list[str] = []
    create = SharedMemoryManager.create_shared_memory

    def note(self, size):
        segment = create(self, size)
        segments.append(segment.name)
        return segment

    SharedMemoryManager.create_shared_memory = note
    return segments


def run_one(folder: Path, engine: str, fault: str) -> dict:
    """Run one network; return the error, if any, and what its recorder wrote."""
    from neuroav.sim.lava.compiling import compile_processes
    from neuroav.sim.lava.guard import execute
    from neuroav.sim.lava.inline import execute_inline

    rows, steps = (folder / f"{engine}-{fault}-{kind}.npy" for kind in ("rows", "steps"))
    np.save(rows, np.zeros((20, 3), np.int32))
    np.save(steps, np.zeros(1, np.int64))
    outcome = {"error": "", "message": ""}
    root = NETWORKS.get(fault, chain)(fault, str(rows), str(steps))
    try:
        if engine == "inline":
            execute_inline(compile_processes(root, {}), 20, timeout_s=2.0)
        else:
            done = lambda: int(np.load(steps)[0])  # noqa: E731
            execute(root, 20, {}, folder, timeout_s=2.0, steps_done=done)
    except NeuroavError as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    return outcome | {"rows": np.load(rows).tolist()}


def chain(fault: str, rows: str, steps: str):
    """Return the source of source -> faulty process -> recorder."""
    from faulty_process import Faulty
    from lava.proc.io.source import RingBuffer

    from neuroav.sim.lava.processes.recorder import Recorder

    source = RingBuffer(data=np.arange(60).reshape(3, 20))
    culprit = Faulty(fault=fault)
    recorder = Recorder(files=(rows,), shapes=((3,),), counter=steps, name="recorder 0")
    source.s_out.connect(culprit.s_in)
    culprit.s_out.connect(recorder.port_0)
    return source


def cycle(*_: str):
    """Return one of two processes that feed each other."""
    from neuroav.sim.lava.processes.delay import Delay

    first, second = (Delay(shape=(3,), steps=1, name=name) for name in "ab")
    first.a_out.connect(second.s_in)
    second.a_out.connect(first.s_in)
    return first


def variables(*_: str):
    """Return a neuron whose voltage another process reads."""
    from lava.proc.io.sink import Read
    from lava.proc.lif.process import LIF

    neuron, reader = LIF(shape=(3,)), Read(buffer=20)
    reader.name = "reader"
    reader.connect_var(neuron.v)
    return neuron


def long(_: str, rows: str, steps: str):
    """Return the source of 1400 processes in a row, recorded after 6 delays."""
    from lava.proc.graded.process import GradedVec
    from lava.proc.io.source import RingBuffer

    from neuroav.sim.lava.processes.delay import Delay
    from neuroav.sim.lava.processes.recorder import Recorder

    source = RingBuffer(data=np.arange(60).reshape(20, 3).T)
    recorder = Recorder(files=(rows,), shapes=((3,),), counter=steps)
    port = source.s_out
    for number in range(1, 701):
        relay, delay = GradedVec(shape=(3,), vth=0), Delay(shape=(3,), steps=1)
        port.connect(relay.a_in)
        relay.s_out.connect(delay.s_in)
        port = delay.a_out
        if number == 6:
            port.connect(recorder.port_0)
    return source


NETWORKS = {"cycle": cycle, "variables": variables, "long": long}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
