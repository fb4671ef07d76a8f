"""Reading files of events: speed against tonic and expelliarmus, memory, and equality with tonic.

    python benchmarks/event_reading.py [--events 1000000] [--rounds 7] [--recordings FOLDER]

The same random events of a DVS128 are written as AEDAT 2.0, AEDAT 3.1, N-MNIST and, by
expelliarmus, as Prophesee's DAT, a format that only it reads here and the nearest to AEDAT 2.0: 8
bytes per event, an address and a time. Readers take turns in one process with one thread; times
are of the process, medians over the rounds. tonic's AEDAT reader leaves addresses as they are, so
what decodes them is added in a row of its own. Memory is the most that a process of its own held
above what it held before, for a stream of N events and of 10 N. Equality is of every column of
every recording of N-MNIST below --recordings (default: NEUROAV_DATA).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from event_files import random_events

from neuroav.data.formats.aedat import write_aedat2, write_aedat31
from neuroav.data.formats.events import AS_STORED, DTYPES, Events, open_events, read_events
from neuroav.data.formats.nmnist import write_nmnist

STEP = 1_000_000  # events written at a time
MOST_GROWTH_MIB = 4.0  # of a stream ten times as long
Reader = Callable[[], int]


def chunks(count: int) -> Iterator[Events]:
    """``count`` random events in order of time, 10 us apart on average, a million at a time.

    So a million of them last longer than the times of N-MNIST count.
    """
    rng, start = np.random.default_rng(0), 0
    for first in range(0, count, STEP):
        events = random_events(rng, min(STEP, count - first), last=10 * STEP - 1)
        events["time"] = events["time"] + start
        start += 10 * STEP
        yield events


def written(folder: Path, count: int) -> dict[str, Path]:
    """Files of the same events by format; DAT only where expelliarmus is there."""
    paths = {name: folder / f"{name}-{count}" for name in ("aedat2", "aedat31", "nmnist", "dat")}
    write_aedat2(paths["aedat2"], chunks(count), orientation=AS_STORED)
    write_aedat31(paths["aedat31"], chunks(count))
    write_nmnist(paths["nmnist"], chunks(count))
    try:
        from expelliarmus import Wizard
    except ImportError:
        del paths["dat"]
        return paths
    events = list(chunks(count))
    table = np.empty(count, [("t", "i8"), ("x", "i2"), ("y", "i2"), ("p", "u1")])
    for ours, theirs in (("time", "t"), ("x", "x"), ("y", "y"), ("p", "p")):
        table[theirs] = np.concatenate([event[ours] for event in events])
    paths["dat"] = paths["dat"].with_suffix(".dat")
    Wizard(encoding="dat").save(fpath=paths["dat"], arr=table)
    return paths


# --- readers -----------------------------------------------------------------------------------
def stream(path: Path, form: str | None = None) -> int:
    return sum(len(chunk["x"]) for chunk in open_events(path, AS_STORED, format=form))


def whole(path: Path, form: str | None = None) -> int:
    return len(read_events(path, AS_STORED, format=form)["x"])


def tonic_aedat(path: Path, decode: bool) -> int:
    from tonic.io import get_aer_events_from_file, read_aedat_header_from_file

    version, start, _ = read_aedat_header_from_file(str(path))
    found = get_aer_events_from_file(str(path), version, start)
    if decode:
        address, shifts = found["address"], (1, 8) if version < 3 else (17, 2)
        mask = 0x7F if version < 3 else 0x7FFF
        columns = [(address >> shift & mask).astype(np.uint16) for shift in shifts]
        columns.append((address >> (version >= 3) & 1).astype(np.uint8))
        columns.append(found["timeStamp"].astype(np.int64))
    return len(found)


def tonic_nmnist(path: Path) -> int:
    from tonic.datasets import NMNIST
    from tonic.io import read_mnist_file

    return len(read_mnist_file(str(path), dtype=NMNIST.dtype))


def expelliarmus_chunks(path: Path) -> int:
    from expelliarmus import Wizard

    wizard = Wizard(encoding="dat", chunk_size=1 << 16)
    wizard.set_file(path)
    return sum(len(chunk) for chunk in wizard.read_chunk())


def expelliarmus_whole(path: Path) -> int:
    from expelliarmus import Wizard

    return len(Wizard(encoding="dat").read(path))


def readers(paths: dict[str, Path]) -> dict[str, Reader]:
    """What is timed, by its row."""
    found: dict[str, Reader] = {}
    for name in ("aedat2", "aedat31"):
        path = paths[name]
        found[f"{name}: neuroav, chunks"] = lambda path=path: stream(path)
        found[f"{name}: neuroav, whole"] = lambda path=path: whole(path)
        found[f"{name}: tonic, addresses"] = lambda path=path: tonic_aedat(path, False)
        found[f"{name}: tonic, decoded"] = lambda path=path: tonic_aedat(path, True)
    path = paths["nmnist"]
    found["nmnist: neuroav, chunks"] = lambda: stream(path, "nmnist")
    found["nmnist: neuroav, whole"] = lambda: whole(path, "nmnist")
    found["nmnist: tonic"] = lambda: tonic_nmnist(path)
    if "dat" in paths:
        found["dat: expelliarmus, chunks"] = lambda: expelliarmus_chunks(paths["dat"])
        found["dat: expelliarmus, whole"] = lambda: expelliarmus_whole(paths["dat"])
    return found


def speeds(paths: dict[str, Path], count: int, rounds: int) -> dict[str, tuple[float, ...]]:
    """Events per second of each reader: median, slowest, fastest round, without the first one."""
    todo = readers(paths)
    times: dict[str, list[float]] = {name: [] for name in todo}
    for _ in range(rounds + 1):
        for name, read in todo.items():
            start = time.process_time()
            found = read()
            times[name].append(time.process_time() - start)
            assert found == count, (name, found)
    return {
        name: (count / float(np.median(t[1:])), count / max(t[1:]), count / min(t[1:]))
        for name, t in times.items()
    }


# --- memory ------------------------------------------------------------------------------------
def _peak(path: Path, name: str) -> float:
    form = "nmnist" if name == "nmnist" else None
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")  # the most resident memory counts from here
    before = _status("VmRSS")
    if name == "dat":
        expelliarmus_chunks(path)
    else:
        stream(path, form)
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(key))


def peaks(paths: dict[str, Path]) -> dict[str, float]:
    """MiB held above the start by a process of its own per file."""
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return {name: pool.apply(_peak, (path, name)) for name, path in paths.items()}


# --- equality ----------------------------------------------------------------------------------
def equal_to_tonic(folder: Path) -> tuple[int, int]:
    """Recordings and events of N-MNIST compared; AssertionError where a column differs."""
    from tonic.datasets import NMNIST
    from tonic.io import read_mnist_file

    paths, events = sorted((folder / "nmnist").rglob("*.bin")), 0
    for path in paths:
        theirs, ours = read_mnist_file(str(path), dtype=NMNIST.dtype), read_events(path)
        for name, column in zip("xypt", DTYPES, strict=True):
            assert np.array_equal(theirs[name], ours[column]), (path, name)
        events += len(theirs)
    return len(paths), events


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--recordings", type=Path, default=os.environ.get("NEUROAV_DATA"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = written(Path(folder), args.events)
        print("| reader | million events/s | slowest to fastest |\n|---|---|---|")
        for name, (median, low, high) in speeds(paths, args.events, args.rounds).items():
            print(f"| {name} | {median / 1e6:.1f} | {low / 1e6:.1f} to {high / 1e6:.1f} |")
        short = peaks(paths)
        for path in paths.values():
            path.unlink()
        long = peaks(written(Path(folder), 10 * args.events))
    print(f"\n| stream | MiB, {args.events} events | MiB, {10 * args.events} |\n|---|---|---|")
    for name, value in short.items():
        print(f"| {name} | {value:.1f} | {long[name]:.1f} |")
    if args.recordings:
        files, events = equal_to_tonic(Path(args.recordings))
        print(f"\nequal to tonic: {files} recordings of N-MNIST, {events} events")
    own = [name for name in short if name != "dat"]
    return 0 if all(long[n] - short[n] <= MOST_GROWTH_MIB for n in own) else 1


if __name__ == "__main__":
    sys.exit(main())
