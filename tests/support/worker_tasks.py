"""Pieces of work that Ray's workers can import; folders say what happened."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import fake_data

from neuroav.errors import OutOfRange
from neuroav.studies import workers
from neuroav.studies.onerun import carry_out_task


def work(task, folder):
    """Note the call, then do what the task says: see ``parallel_tasks.work``."""
    noted = Path(folder) / f"{task} {time.monotonic_ns()} {os.getpid()}"
    noted.touch()
    calls = len(list(Path(folder).glob(f"{task} *")))
    if task == "fail":
        raise OutOfRange("as asked", rule="a rule")
    if task == "die" or (task == "die once" and calls == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "defect":
        raise ZeroDivisionError("as asked")
    if isinstance(task, int):
        time.sleep(0.1 * (task == 0))  # so that later ones finish earlier
        return task * task
    return task


def dying_chunk(chunk, *shared, folder):
    """``workers.simulate_chunk``, which takes its worker with it the first time it is to do the
    chunk at sample 5."""
    noted = Path(folder) / str(chunk.first)
    if chunk.first == 5 and not noted.exists():
        noted.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return workers.simulate_chunk(chunk, *shared)


def noted_chunk(chunk, *shared, folder):
    """``workers.simulate_chunk``; a file says that it was called."""
    (Path(folder) / f"chunk {chunk.first}").touch()
    return workers.simulate_chunk(chunk, *shared)


def train_task(task, progress=None):
    """``carry_out_task`` on the made-up data; the worker of the first run dies once."""
    from neuroav.training import evaluate, loop

    loop.load_data = evaluate.load_data = fake_data.load_data
    noted = task.cache_dir / "died"
    if task.config.train.seed == 0 and not noted.exists():
        noted.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return carry_out_task(task, progress)
