"""A small data set of files for tests of preparing: events in files, and a plan that converts them.

``events/<n>.bin`` is a file of N-MNIST (5 bytes per event), the visual side of item n; the audio
side of every item is in the one container ``sounds.csv``, a line of numbers per item. Other content
makes an item special: ``BROKEN`` (known to be broken), ``DAMAGED`` (no such file), ``KILL n`` (its
process is killed the first n times), ``SLOW``.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from neuroav.data import cache, preparing
from neuroav.data.plans import Broken, Converted, Item, Plan, Source
from neuroav.errors import DataError, FileFormatError

SOUNDS = "sounds.csv"
SPECIAL = (b"BROKEN", b"DAMAGED", b"KILL", b"SLOW")


def event_file(number: int) -> str:
    """The visual file of an item."""
    return f"events/{number:04d}.bin"


def write(root: Path, items: int, seed: int = 0) -> Path:
    """Write the files of ``items`` items; some have no events at all."""
    rng = np.random.default_rng(seed)
    (root / "events").mkdir(parents=True)
    for number in range(items):
        count = int(rng.integers(0, 60)) if number % 7 else 0
        t = np.sort(rng.integers(0, 300_000, count))
        x, y, p = rng.integers(0, (34, 34, 2), (count, 3)).T
        columns = (x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255)
        np.stack(columns, axis=1).astype(np.uint8).tofile(root / event_file(number))
    lines = [" ".join(map(str, rng.integers(0, 64, rng.integers(1, 40)))) for _ in range(items)]
    (root / SOUNDS).write_text("\n".join(lines) + "\n")
    return root


def plan(items: int, **meta) -> Plan:
    """The plan of such a data set; groups: item n is of speaker n % 4."""
    made = [
        Item(
            f"item-{number}",
            number % 10,
            ("train", "train", "val", "test")[number % 4],
            {"audio": Source(SOUNDS, str(number)), "visual": Source(event_file(number))},
            {"speaker": f"speaker-{number % 4}"},
        )
        for number in range(items)
    ]
    facts = {
        "name": "made-up", "preset": "default", "data_seed": 0, "layout": "binned",
        "classes": [str(digit) for digit in range(10)], "protocol": "clean: speakers apart",
        "filler": "x" * 100_000,  # more than a pipe holds, as the plans of real sets are
    }  # fmt: skip
    return Plan(tuple(made), {**facts, **meta}, convert)


def convert(root: Path, item: Item) -> Converted:
    """One item, as a module of a data set would do it."""
    path = root / item.sources["visual"].file
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"recording {path} is missing") from None
    if content.startswith(SPECIAL):
        content = _special(path, content)
    if len(content) % 5:
        raise FileFormatError(f"{path}: {len(content)} bytes, allowed are multiples of 5")
    x, y, high, middle, low = np.frombuffer(content, np.uint8).reshape(-1, 5).T
    t = (high.astype(np.uint32) & 127) << 16 | middle.astype(np.uint32) << 8 | low
    channels = (root / SOUNDS).read_text().splitlines()[int(item.sources["audio"].key)].split()
    heard = np.array(channels, np.uint8)
    return Converted(
        {"channel": heard, "time": np.arange(len(heard), dtype=np.uint32)},
        {"x": x, "y": y, "p": high >> 7, "time": t},
        {"size": np.array([len(content)]), "file": np.array(item.sources["visual"].file.encode())},
    )


def _special(path: Path, content: bytes) -> bytes:
    if content.startswith(b"BROKEN"):
        raise Broken(f"{path} is listed as broken by its publishers")
    if content.startswith(b"SLOW"):
        time.sleep(float(content.split()[1]))
    if content.startswith(b"KILL"):
        marks = path.with_suffix(".killed")
        before = len(marks.read_bytes()) if marks.exists() else 0
        if before < int(content.split()[1]):
            marks.write_bytes(b"x" * (before + 1))
            os.kill(os.getpid(), signal.SIGKILL)
    return b"" if not content.startswith(b"DAMAGED") else content


def carry_out(root: Path, path: Path, items: int, jobs: int = 1, **options) -> cache.Recordings:
    """Prepare the set into ``path`` and read it."""
    cache.require_folder(path.parent)
    preparing.carry_out(plan(items), root, path, {"numpy": "1"}, jobs=jobs, **options)
    return cache.read(path, "")


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


if __name__ == "__main__":  # plan_files.py ROOT PATH ITEMS JOBS: prepare in a process of its own
    import plan_files  # itself by its name: ``__main__.convert`` would be another converter

    plan_files.carry_out(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
