"""The caller's side: start the worker, watch it, end it whatever happens, read what it recorded."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import neuroav
from neuroav import errors
from neuroav import integer as ig
from neuroav.deployment import Deployment
from neuroav.errors import ConfigError, ExecutorError, unknown_name
from neuroav.sim.lava import shim
from neuroav.sim.lava.copies import COPIES, side_by_side
from neuroav.sim.lava.jobs import Folder, Job, Settings
from neuroav.sim.trace import Progress, Trace

TIMEOUT_S = 120.0
CONV_KINDS = ("matmul", "stock")
ENGINES = ("runtime", "inline")
_POLL_S = 0.05
_GRACE_S = 60.0  # beyond the worker's own limit: it compiles and stops without polling
_END_S = 5.0  # how long a terminated group may take


def run(
    deployment: Deployment,
    inputs: Mapping[str, np.ndarray],
    *,
    batch: int = 0,
    states: bool = False,
    conv: str = "matmul",
    engine: str = "runtime",
    timeout_s: float = TIMEOUT_S,
    progress: Progress | None = None,
) -> Iterator[Trace]:
    """Yield the Traces of a run of Lava's processes, equal to the reference executor's.

    inputs: event counts (samples, steps, *shape) by input name; all samples are streamed back to
    back through one Lava network. batch: samples per Trace, and at most as many copies of the
    network side by side in the same Lava processes; 0 for 16. The numbers of a sample are the same.
    states: also record the membrane voltage of every IntLif, after the reset (slower). conv:
    'matmul', or 'stock' for Lava's own Conv, delays and channels only (much slower). engine:
    'runtime', Lava's own, one OS process per Lava process; or 'inline', the same process models in
    one OS process without Lava's runtime (faster, docs/lava.md). timeout_s: longest time, in
    seconds, without a finished step. progress: called with (samples done, samples).

    Everything happens in a Python process of its own, in its own process group, which is gone
    with all its children, files and shared memory when this returns or raises.

    Raises DataError, MissingDependency; OutOfRange when a synaptic sum, current, voltage or
    message leaves its register, as the reference does; UnsupportedNode when the profile's
    arithmetic is not Lava's; ExecutorError when a Lava process fails, dies or stalls.
    """
    checked = deployment.counts(inputs)
    total = len(next(iter(checked.values())))
    if total == 0:
        return
    copies = side_by_side(deployment.integer, total, conv, batch)
    with _work(
        [(deployment, checked)],
        Settings(os.getpid(), 1, conv, states, timeout_s, engine, batch),
        _sample_progress(deployment.integer, total, copies, progress),
    ) as folder:
        size = batch or COPIES
        recordings = Recordings(deployment.integer, folder.job(0), checked, copies)
        for first in range(0, total, size):
            yield recordings.trace(first, min(first + size, total), states)


def run_many(
    jobs: Sequence[tuple[Deployment, Mapping[str, np.ndarray]]],
    *,
    batch: int = 0,
    conv: str = "matmul",
    engine: str = "runtime",
    timeout_s: float = TIMEOUT_S,
) -> list[dict[str, np.ndarray]]:
    """Return for every job the outputs of all populations, int32 (samples, steps, *shape).

    As ``trace_many``, which runs them.
    """
    options: dict[str, Any] = {"batch": batch, "conv": conv, "engine": engine}
    return [dict(t.outputs) for t in trace_many(jobs, timeout_s=timeout_s, **options)]


def trace_many(
    jobs: Sequence[tuple[Deployment, Mapping[str, np.ndarray]]],
    *,
    batch: int = 0,
    states: bool = False,
    conv: str = "matmul",
    engine: str = "runtime",
    timeout_s: float = TIMEOUT_S,
) -> list[Trace]:
    """Run several networks one after another in one worker: the way to run many small ones.

    Returns the Trace of all samples of every job, which needs at least one. Arguments and errors as
    in ``run``; messages name the job.
    """
    checked = [(d, d.counts(inputs)) for d, inputs in jobs]
    if not checked:
        return []
    settings = Settings(os.getpid(), len(checked), conv, states, timeout_s, engine, batch)
    found = []
    with _work(checked, settings, lambda folder: None) as folder:
        for i, (deployment, inputs) in enumerate(checked):
            graph, total = deployment.integer, len(next(iter(inputs.values())))
            copies = side_by_side(graph, total, conv, batch)
            recordings = Recordings(graph, folder.job(i), inputs, copies)
            found.append(recordings.trace(0, total, states))
    return found


@dataclass(frozen=True, eq=False)
class Recordings:
    """What a run has left behind."""

    graph: ig.IntGraph
    job: Job
    inputs: dict[str, np.ndarray]
    copies: int

    def trace(self, first: int, last: int, states: bool) -> Trace:
        """Return samples first..last-1."""
        graph = self.graph
        outputs = {
            n: self.inputs[n][first:last]
            if n in self.inputs
            else self.job.read("output", graph, n, first, last, self.copies)
            for n in graph.order
        }
        voltages = {
            n: self.job.read("voltage", graph, n, first, last, self.copies)
            for n in graph.order
            if states and isinstance(graph.populations[n], ig.IntLif)
        }
        return Trace(first, outputs, voltages)


def _sample_progress(
    graph: ig.IntGraph, total: int, copies: int, progress: Progress | None
) -> Callable[[Folder], None]:
    """Return a function that reports the number of finished samples whenever it has grown."""
    wind_up, reported = max(graph.latency.values()), 0

    def report(folder: Folder) -> None:
        nonlocal reported
        rounds = max(0, folder.job(0).steps_done() - wind_up) // graph.steps
        done = min(total, rounds * copies)
        if progress and done > reported:
            reported = done
            progress(done, total)

    return report


# --- the worker's life -----------------------------------------------------------------------
@contextlib.contextmanager
def _work(
    jobs: list[tuple[Deployment, dict[str, np.ndarray]]],
    settings: Settings,
    report: Callable[[Folder], None],
) -> Iterator[Folder]:
    """Run ``jobs`` to their end and lend the folder with their recordings."""
    for name, allowed in (("conv", CONV_KINDS), ("engine", ENGINES)):
        if getattr(settings, name) not in allowed:
            raise unknown_name(name, getattr(settings, name), allowed, ConfigError)
    if not settings.timeout_s > 0:
        raise ConfigError(f"timeout_s is {settings.timeout_s}, it must be positive")
    shim.require_lava()
    with tempfile.TemporaryDirectory(prefix="neuroav-lava-") as path:
        folder = Folder(Path(path))
        folder.write(settings)
        for i, (deployment, inputs) in enumerate(jobs):
            folder.job(i).write(deployment, inputs)
        worker = _start(folder)
        try:
            _wait(worker, folder, settings.timeout_s, report)
        finally:
            _end(worker)
        report(folder)
        yield folder


def _start(folder: Folder) -> subprocess.Popen:
    root = str(Path(neuroav.__file__).resolve().parent.parent)
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    # many small processes share few cores: threads inside each would only get in the way
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
    with open(folder.log, "wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "neuroav.sim.lava.worker", str(folder.path)],
            cwd=folder.path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # its own process group: see _end
        )


def _wait(
    worker: subprocess.Popen, folder: Folder, timeout_s: float, report: Callable[[Folder], None]
) -> None:
    """Return when the worker has done its work; raise what it left word of."""
    beat, since = -1, time.monotonic()
    while worker.poll() is None:
        report(folder)
        now = int(np.load(folder.beat, allow_pickle=False)[0])
        if now != beat:
            beat, since = now, time.monotonic()
        elif time.monotonic() - since > timeout_s + _GRACE_S:
            raise ExecutorError(
                f"the Lava worker has not responded for {timeout_s + _GRACE_S:g} s"
                f"; its last output:\n{_tail(folder.log)}"
            )
        time.sleep(_POLL_S)
    failure = folder.failure()
    if failure is not None:
        raise getattr(errors, failure["error"], ExecutorError)(failure["message"])
    if worker.returncode != 0:
        raise ExecutorError(
            f"the Lava worker ended with exit code {worker.returncode}; its last "
            f"output:\n{_tail(folder.log)}"
        )


def _tail(log: Path, characters: int = 2000) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-characters:]


def _end(worker: subprocess.Popen) -> None:
    """Leave no process of the worker's group: TERM, wait, KILL.

    TERM comes first because Python's resource tracker ignores it, outlives the others and gives
    their shared memory back; killed with them, it could not. CONT wakes stopped processes.
    """
    for signals in ((signal.SIGTERM, signal.SIGCONT), (signal.SIGKILL,)):
        deadline = time.monotonic() + _END_S
        while worker.poll() is None or _members(worker.pid):
            for number in signals:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(worker.pid, number)
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)


def _members(group: int) -> list[int]:
    """Return the process ids of a group, without zombies that nobody has waited for."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, pgrp = stat.read_text().rpartition(")")[2].split()[:3]
            if int(pgrp) == group and state != "Z":
                members.append(int(stat.parent.name))
    return members
