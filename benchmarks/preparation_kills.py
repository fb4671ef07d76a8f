"""Preparing killed at random moments, on the real recordings of N-MNIST: the same bytes at the end?

    NEUROAV_DATA=... python benchmarks/preparation_kills.py [--kills 20] [--jobs 2] [--seed 0]

The recordings below ``NEUROAV_DATA/nmnist`` are prepared once undisturbed, with one process and
with two, which gives the throughput. Then once more for every kill: at a random moment between the
start of the command and the end of an undisturbed run either its whole process group is killed
(SIGKILL), or one of the processes that convert; then, in the first case, it is started again. Every
file that results must be the undisturbed one, byte for byte, with no other file beside it. Exits 1
if one is not.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PICTURES = "nmnist/Train"


def plan(data_root: Path, repeat: int):
    """All recordings of N-MNIST below the root, each ``repeat`` times, visual events alone."""
    from neuroav.data.plans import Item, Plan, Source

    files = sorted((data_root / PICTURES).rglob("*.bin"))
    items = [
        Item(
            f"{file.stem}-{copy}",
            int(file.parent.name),
            ("train", "train", "val", "test")[number % 4],
            {"visual": Source(file.relative_to(data_root).as_posix())},
        )
        for copy in range(repeat)
        for number, file in enumerate(files)
    ]
    if not items:
        raise SystemExit(f"there are no recordings in {data_root / PICTURES}")
    meta = {
        "name": "nmnist", "preset": "all", "data_seed": 0, "layout": "binned",
        "classes": [str(digit) for digit in range(10)], "sensor": 34,
    }  # fmt: skip
    import preparation_kills  # by its name: the process that is killed imports it so

    return Plan(tuple(items), meta, preparation_kills.convert)


def convert(data_root: Path, item):
    """The events of one recording."""
    from neuroav.data.formats.events import read_events
    from neuroav.data.plans import Converted

    read = read_events(data_root / item.sources["visual"].file, format="nmnist")
    small = {name: read[name].astype(np.uint8) for name in ("x", "y", "p")}
    return Converted(None, small | {"time": read["time"].astype(np.uint32)})


def prepare(data_root: Path, path: Path, jobs: int, repeat: int) -> None:
    """Prepare the set into ``path``: what is killed."""
    from importlib.metadata import version

    from neuroav.data import cache, preparing

    cache.require_folder(path.parent)
    made_with = {name: version(name) for name in ("numpy", "h5py")}
    preparing.carry_out(plan(data_root, repeat), data_root, path, made_with, jobs=jobs)


def started(arguments: argparse.Namespace, path: Path, jobs: int) -> subprocess.Popen:
    """The preparation in a process group of its own."""
    words = (arguments.data_root, path, jobs, arguments.repeat)
    command = [sys.executable, __file__, "--prepare", *map(str, words)]
    return subprocess.Popen(command, start_new_session=True)


def workers_of(parent: int) -> list[int]:
    """The processes that convert for the process ``parent``, as the system lists them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            of = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if of == parent and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended meanwhile
            pass
    return sorted(found)


def files_of(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by its path there."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def one_kill(
    arguments: argparse.Namespace, folder: Path, after: float, whole: bool, rng: random.Random
) -> str | None:
    """Prepare into ``folder`` to the end, killed ``after`` seconds from the start.

    Returns what was killed and what was there then, None where there was nothing left to kill.
    """
    path = folder / "nmnist" / "all-0.h5"
    running = started(arguments, path, arguments.jobs)
    end = time.monotonic() + after
    while time.monotonic() < end and running.poll() is None:
        time.sleep(0.005)
    workers = workers_of(running.pid)
    parts = len(list(Path(f"{path}.parts").glob("[0-9]*.h5")))
    if running.poll() is not None or not (whole or workers):
        running.wait()
        return None
    if whole:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        there = "" if path.exists() else "not "
        what = f"all killed, {parts:2d} parts there, prepared file {there}there"
        running = started(arguments, path, arguments.jobs)
    else:
        os.kill(rng.choice(workers), signal.SIGKILL)
        what = f"a worker killed, {parts:2d} parts there"
    if running.wait():
        raise SystemExit(f"{what}; then it ended with {running.returncode}")
    return what


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, default=os.environ.get("NEUROAV_DATA"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=1, help="how often every recording is in it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prepare", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.prepare:
        root, path, jobs, repeat = arguments.prepare
        prepare(Path(root), Path(path), int(jobs), int(repeat))
        return
    if arguments.data_root is None:
        raise SystemExit("name the recordings with --data-root or NEUROAV_DATA")
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        truth, length = undisturbed(arguments, Path(name))
        wrong = 0
        for kill in range(arguments.kills):
            what = None
            while what is None:  # a moment when there is something to kill
                folder, after = Path(tempfile.mkdtemp(dir=name)), rng.uniform(0, length)
                what = one_kill(arguments, folder, after, kill % 2 == 0, rng)
            same = files_of(folder) == truth
            wrong += not same
            verdict = "the same files" if same else f"OTHER FILES: {sorted(files_of(folder))}"
            print(f"{kill + 1:3d}: after {after:5.2f} s {what}: {verdict}", flush=True)
    print(f"{arguments.kills} kills, {wrong} with other bytes or files left over")
    raise SystemExit(wrong > 0)


def undisturbed(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, str], float]:
    """The files of a run that nothing disturbs, and how long it takes (s); prints throughput."""
    from neuroav.data import cache

    found = []
    for jobs in sorted({1, 2, arguments.jobs}):
        path = folder / f"undisturbed-{jobs}" / "nmnist" / "all-0.h5"
        begin, before = time.monotonic(), os.times()
        if started(arguments, path, jobs).wait():
            raise SystemExit("the undisturbed preparation failed")
        took, after = time.monotonic() - begin, os.times()
        busy = after.children_user + after.children_system
        busy -= before.children_user + before.children_system
        made = cache.read(path, "")
        items, events = len(made.labels), int(made.visual.offsets[-1])
        assert np.diff(made.visual.offsets).min() > 100
        print(
            f"{jobs} jobs: {items} recordings, {events} events, {path.stat().st_size} bytes in "
            f"{took:.2f} s, start and all: {items / took:.0f} recordings/s; {busy:.2f} s of CPU",
            flush=True,
        )
        found.append((files_of(folder / f"undisturbed-{jobs}"), took))
    if any(files != found[0][0] for files, _ in found):
        raise SystemExit("the number of processes changes the bytes")
    print("same bytes for each, sha256", found[0][0]["nmnist/all-0.h5"])
    return found[-1]


if __name__ == "__main__":
    main()
