"""Damaged files of events: every one is read soundly or refused with one clear error.

    python benchmarks/event_fuzz.py [--files 100000] [--guided 0.2] [--seed 0] [--format NAME ...]

Per own format, files of ``tests/support/event_files.py`` are damaged (bits, cuts, insertions,
numbers in length fields, header lines, splices) and read in chunks of 64 or 65,536 events, half of
them in both, which must agree. A share of the files comes from atheris, guided by which branches
of the readers they reach, where atheris can be imported. A file fails by any exception but
FileFormatError and DataError, by events that are not sound, by a message that does not say where,
by more than 5 s, or, measured on every 50th file, by more than 16 MiB held at a time. The most
resident memory may grow by 64 MiB over the run. Failing files are kept below --keep. Exits 1 where
anything fails.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from event_files import KINDS, agreed, damaged, sound_files

LIMIT_S = 5.0
HELD_MIB, GROWTH_MIB = 16.0, 64.0
MEASURED_EACH, WARM = 50, 1000
CHUNKS = (64, 1 << 16)
FAILURES_KEPT = 20
MODULES = (
    "events", "records", "aedat", "aedat_header", "aedat_records", "aedat_packets", "nmnist",
    "slayer", "arrays",
)  # fmt: skip


@dataclass
class Found:
    """What became of the files of one format."""

    format: str
    way: str
    files: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    growth_mib: float = 0.0
    held_mib: float = 0.0
    slowest_ms: float = 0.0
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        return not self.failures and self.growth_mib <= GROWTH_MIB and self.held_mib <= HELD_MIB


class _Judge:
    """Reads one damaged file after the other and keeps count."""

    def __init__(self, kind: str, way: str, folder: Path, keep: Path) -> None:
        self.found, self.kind, self.keep = Found(kind, way), kind, keep
        self.path = folder / KINDS[kind].name
        self.start, self.before = time.perf_counter(), 0.0

    def __call__(self, data: bytes) -> None:
        found = self.found
        self.path.write_bytes(data)
        measured = found.files % MEASURED_EACH == 0
        if found.files == WARM:
            self.before = _most_resident_mib()
        if measured:
            tracemalloc.start()
        begin = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
        try:
            chunks = CHUNKS if found.files % 2 else CHUNKS[::-1]
            found.verdicts[agreed(self.kind, self.path, chunks, found.files % 4 < 2)] += 1
        except Exception:  # of any kind: that is what is looked for
            self._failed(data)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        found.slowest_ms = max(found.slowest_ms, 1e3 * (time.perf_counter() - begin))
        if measured:
            found.held_mib = max(found.held_mib, tracemalloc.get_traced_memory()[1] / 2**20)
            tracemalloc.stop()
        found.files += 1

    def _failed(self, data: bytes) -> None:
        count = len(self.found.failures)
        self.found.failures.append(traceback.format_exc().splitlines()[-1][:200])
        if count < FAILURES_KEPT:
            self.keep.mkdir(parents=True, exist_ok=True)
            name = f"{self.kind}-{self.found.way}-{count}"
            (self.keep / name).write_bytes(data)
            (self.keep / f"{name}.txt").write_text(traceback.format_exc())

    def done(self) -> Found:
        self.found.seconds = time.perf_counter() - self.start
        if self.before:
            self.found.growth_mib = _most_resident_mib() - self.before
        return self.found


def _most_resident_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {LIMIT_S} s")


def fuzz(kind: str, files: int, seed: int, keep: Path) -> Found:
    """Read ``files`` damaged files of a format; file N of a seed is always the same."""
    before = signal.signal(signal.SIGALRM, _too_long)
    try:
        with tempfile.TemporaryDirectory() as folder:
            rng = np.random.default_rng([seed, sorted(KINDS).index(kind)])
            good = sound_files(kind, Path(folder), rng)
            judge = _Judge(kind, "random", Path(folder), keep)
            for _ in range(files):
                judge(damaged(rng, good[int(rng.integers(len(good)))], good))
            return judge.done()
    finally:
        signal.signal(signal.SIGALRM, before)


def guided(kind: str, files: int, seed: int, keep: Path) -> Found | None:
    """The same in a process of its own that atheris guides; None without atheris."""
    try:
        import atheris  # noqa: F401
    except ImportError:
        return None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        options = [f"--files={files}", f"--seed={seed}", f"--format={kind}", f"--keep={keep}"]
        done = subprocess.run(
            [sys.executable, __file__, "--serve", str(out), *options],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if not out.exists():
            return Found(kind, "guided", failures=[f"ended: {done.stdout[-500:]}"])
        stated = json.loads(out.read_text())
    found = Found(**stated | {"verdicts": Counter(stated["verdicts"])})
    if found.files < files:
        found.failures.append(f"ended after {found.files} files: {done.stdout[-500:]}")
    return found


def _serve(kind: str, files: int, seed: int, keep: Path, out: Path) -> None:
    """Let atheris call the reader; it ends the process itself."""
    import atheris

    for name in MODULES:
        _instrumented(import_module(f"neuroav.data.formats.{name}"), atheris.instrument_func)
    signal.signal(signal.SIGALRM, _too_long)
    folder = Path(tempfile.mkdtemp(dir=out.parent))
    rng = np.random.default_rng([seed, 1, sorted(KINDS).index(kind)])
    good = sound_files(kind, folder, rng)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, data in enumerate(good):
        (corpus / str(number)).write_bytes(data[:4096])
    judge = _Judge(kind, "guided", folder, keep)

    def one(data: bytes) -> None:
        if judge.found.files < files:
            judge(bytes(data))
        if judge.found.files == files:
            out.write_text(json.dumps(vars(judge.done())))

    def mutate(data: bytes, most: int, number: int) -> bytes:
        if number % 2:
            return damaged(np.random.default_rng([seed, number]), bytes(data), good)[:most]
        return atheris.Mutate(data, most)

    # Sound and empty files are read too, before the first damaged one.
    options = [f"-runs={files + len(good) + 10}", f"-seed={seed + 1}", "-max_len=70100"]
    options.append(f"-artifact_prefix={folder}/")
    atheris.Setup(["event_fuzz", *options, "-verbosity=0", str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


def _instrumented(module: object, instrument: Callable) -> None:
    """Replace the functions of a module, and the methods of its classes, by guided ones."""
    name = module.__name__  # type: ignore[attr-defined]
    for owner in [module, *(v for v in vars(module).values() if isinstance(v, type))]:
        if isinstance(owner, type) and owner.__module__ != name:
            continue
        for value in list(vars(owner).values()):
            if getattr(value, "__module__", "") == name and hasattr(value, "__code__"):
                instrument(value)


def table(found: list[Found]) -> str:
    """Return a Markdown table."""
    lines = [
        "| format | way | files | accepted | refused | failures | most held MiB | growth MiB "
        "| slowest ms | s |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for f in found:
        lines.append(
            f"| {f.format} | {f.way} | {f.files} | {f.verdicts['accepted']} "
            f"| {f.verdicts['refused']} | {len(f.failures)} | {f.held_mib:.1f} "
            f"| {f.growth_mib:.1f} | {f.slowest_ms:.0f} | {f.seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=100_000, help="per format")
    parser.add_argument("--guided", type=float, default=0.2, help="share of them by atheris")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", action="append", choices=KINDS, help="default: all")
    parser.add_argument("--keep", type=Path, default=Path("event_fuzz_failures"))
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        _serve(args.format[0], args.files, args.seed, args.keep, args.serve)
    found: list[Found] = []
    for kind in args.format or KINDS:
        share = round(args.files * args.guided)
        by_atheris = guided(kind, share, args.seed, args.keep) if share else None
        rest = args.files - (by_atheris.files if by_atheris else 0)
        found += [fuzz(kind, rest, args.seed, args.keep), *([by_atheris] if by_atheris else [])]
        print(table(found[-2:]), flush=True)
    print(table(found))
    for one in found:
        for failure in one.failures[:FAILURES_KEPT]:
            print(f"{one.format} ({one.way}): {failure}")
    return 0 if all(one.sound for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
