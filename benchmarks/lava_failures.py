"""Kill every process of a Lava run, one run each: what comes of it, and how soon.

    python benchmarks/lava_failures.py [FILE.nav] [--samples N]

FILE.nav defaults to ``shipped:tiny.nav``. The victim gets SIGKILL when the first sample is done.
Prints a table: the victim (names as ``ps`` shows them, cut after 15 characters), seconds from there
to the error, the error's first line. Exit code 1 if a run went on, took 30 s, did not name its
victim, or left a process or a segment of shared memory.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np

from neuroav import navfile
from neuroav.errors import ExecutorError
from neuroav.sim import lava
from neuroav.simulate import resolve_deployment

LIMIT_S = 30.0
HELPERS = {
    "runtime service": "Lava's runtime service",
    "memory manager": "Lava's shared memory manager",
    "tracker": "Python's tracker of shared memory",
    "worker": "the Lava worker",
}


def alive(pid: int) -> bool:
    """Return whether a process runs; a zombie, which only waits to be counted, does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def children(parent: int) -> list[int]:
    """Return the living children of a process."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, ppid = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(ppid) == parent and state != "Z":
            found.append(int(stat.parent.name))
    return found


def family() -> dict[str, int]:
    """Return the processes of the run that is going on, by name."""
    (worker,) = (p for p in children(os.getpid()) if children(p))
    own = Path(f"/proc/{worker}/comm").read_text()
    found = {"worker": worker}
    for pid in sorted(children(worker)):
        name = Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
        if b"tracker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            name = "tracker"
        found["memory manager" if name + "\n" == own else name] = pid
    return found


def segments(pid: int) -> set[str]:
    """Return the shared memory files a process has mapped."""
    return set(re.findall(r"/dev/shm/psm_\w+", Path(f"/proc/{pid}/maps").read_text()))


def run(job: tuple, victim: str | None) -> tuple[dict[str, int], set[str], float, str]:
    """Run, kill ``victim`` after the first sample; return the family, its shared memory, seconds,
    the error."""
    members: dict[str, int] = {}
    memory: set[str] = set()
    at = 0.0

    def strike(done: int, total: int) -> None:
        nonlocal at
        if not members:
            members.update(family())
            memory.update(*map(segments, members.values()))
            at = time.monotonic()
            if victim:
                os.kill(members[victim], signal.SIGKILL)

    message = "no error"
    try:
        for _ in lava.run(*job, batch=1, progress=strike):
            pass
    except ExecutorError as error:
        message = str(error).splitlines()[0]
    return members, memory, time.monotonic() - at, message


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", default="shipped:tiny.nav")
    parser.add_argument("--samples", type=int, default=1000)
    args = parser.parse_args()
    deployment = navfile.load(resolve_deployment(args.file))
    graph, rng = deployment.integer, np.random.default_rng(1)
    inputs = {
        n: (rng.random((args.samples, graph.steps, *p.shape)) < 0.1).astype(np.int32)
        for n, p in graph.inputs.items()
    }
    names = list(run((deployment, {n: v[:10] for n, v in inputs.items()}), None)[0])
    wrong = 0
    print("| killed | seconds | error | left |\n|---|---|---|---|")
    for name in names:
        members, memory, seconds, message = run((deployment, inputs), name)
        left = [n for n, pid in members.items() if alive(pid)]
        left += [name for name in memory if Path(name).exists()]
        named = message.startswith(HELPERS.get(name, f"Lava process '{name}"))
        wrong += bool(left) or not named or seconds > LIMIT_S
        print(f"| {name} | {seconds:.1f} | {message} | {', '.join(left) or '-'} |", flush=True)
    print(f"{len(names)} processes, {wrong} not as they should be")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
