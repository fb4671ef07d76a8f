"""Time training steps in processes of their own that take turns, with the memory each needs.

A process of its own has its own allocator and its own peak; turns, so that whatever else the
machine does falls on all alike.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np

from neuroav.memory import kept_memory

Step = Callable[[], None]
MIB = 1 << 20
_CODE = ("neuroav.models._fused_loops", "torch._dynamo")  # imported at their first use


class Measured(NamedTuple):
    """Times of one variant's steps; CPU time of the process with one thread, else wall time.

    peak_mib: most resident memory, above what the process held before it built the network.
    """

    times_ms: list[float]
    peak_mib: float

    @property
    def median_ms(self) -> float:
        return float(np.median(self.times_ms))


def measure(
    variants: Mapping[str, Callable[[], Step]],
    *,
    repeats: int,
    threads: int,
    keep_memory: bool,
    imports: tuple[str, ...] = (),
) -> dict[str, Measured]:
    """Return what the steps took. variants: picklable functions that build a step.

    keep_memory: with the allocator as ``neuroav train`` sets it, else as the system has it.
    imports: modules that are code of a variant and not its memory.
    """
    settings = (threads, keep_memory, (*_CODE, *imports))
    context, pipes, processes = get_context("spawn"), {}, []
    for name, build in variants.items():
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(there, build, *settings))
        process.start()
        there.close()
        pipes[name] = here
        processes.append(process)
        here.recv()  # one at a time: the first step compiles and allocates
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, pipe in pipes.items():
            pipe.send(True)
            times[name].append(pipe.recv())
    found = {}
    for name, pipe in pipes.items():
        pipe.send(False)
        found[name] = Measured(times[name], pipe.recv())
    for process in processes:
        process.join()
    return found


def _serve(
    pipe: Connection,
    build: Callable[[], Step],
    threads: int,
    keep_memory: bool,
    imports: tuple[str, ...],
) -> None:
    import torch

    for code in imports:
        import_module(code)
    torch.set_num_threads(threads)
    clock = time.process_time if threads == 1 else time.perf_counter
    with kept_memory() if keep_memory else nullcontext():
        before = _resident()
        step = build()
        step()
        pipe.send(None)
        while pipe.recv():
            start = clock()
            step()
            pipe.send(1e3 * (clock() - start))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        pipe.send((peak - before) / MIB)


def _resident() -> int:
    """Return the bytes of memory that this process holds now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def table(found: Mapping[str, Measured], slow: str, floor: tuple[str, ...]) -> str:
    """Return a Markdown table. recovered: share of the time between ``slow`` and the quickest of
    ``floor`` that a variant does not take."""
    start = found[slow].median_ms
    least = min(found[name].median_ms for name in floor)
    lines = [
        "| step | median ms | min to max | speed | recovered | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, m in found.items():
        recovered = (start - m.median_ms) / (start - least)
        lines.append(
            f"| {name} | {m.median_ms:.0f} | {min(m.times_ms):.0f} to {max(m.times_ms):.0f} "
            f"| {start / m.median_ms:.2f} | {recovered:.2f} | {m.peak_mib:.0f} |"
        )
    return "\n".join(lines)
