"""Script: runs small Lava networks that fail, each in another way; prints what came of each."""

import json
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np

from neuroav.errors import NeuroavError
from neuroav.sim.lava import shim


def main(folder: Path, faults: list[str]) -> None:
    shim.prepare()
    sys.path.insert(0, str(Path(__file__).parent / "faulty"))
    from neuroav.sim.lava.guard import dump_stacks_on_request

    segments = note_segments()
    dump_stacks_on_request(folder)
    for fault in faults:
        segments.clear()
        started = time.monotonic()
        outcome = run_one(folder, fault)
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


def run_one(folder: Path, fault: str) -> dict:
    """Run source -> faulty process -> recorder; return the error, if any, and the recording."""
    from faulty_process import Faulty
    from lava.proc.io.source import RingBuffer

    from neuroav.sim.lava.guard import execute
    from neuroav.sim.lava.processes.recorder import Recorder

    rows, steps = (folder / f"{fault}-{kind}.npy" for kind in ("rows", "steps"))
    np.save(rows, np.zeros((20, 3), np.int32))
    np.save(steps, np.zeros(1, np.int64))
    source = RingBuffer(data=np.arange(60).reshape(3, 20))
    culprit = Faulty(fault=fault)
    recorder = Recorder(files=(str(rows),), shapes=((3,),), counter=str(steps))
    source.s_out.connect(culprit.s_in)
    culprit.s_out.connect(recorder.port_0)
    outcome = {"error": "", "message": ""}
    try:
        execute(source, 20, {}, folder, timeout_s=2.0, steps_done=lambda: int(np.load(steps)[0]))
    except NeuroavError as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    return outcome | {"rows": np.load(rows).tolist()}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
