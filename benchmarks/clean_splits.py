"""Count who and what is in two splits, as published and clean, on the real tables.

    python benchmarks/clean_splits.py --data-root DATA [--seeds 0,1,2]

DATA holds ``cremad_tables``, ``avgzsl`` and ``nmnist``; what is absent is said and left out. Only
names are read, no recording. Prints one row per data set, protocol and kind of group: samples by
split, groups, those in more than one split, and those of them that are in the test and elsewhere.
Exits 1 where a clean protocol has one of these.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from neuroav.data import nmnistfsdd
from neuroav.data.formats.ntidigits import write_ntidigits
from neuroav.data.gzsl import BENCHMARKS, clean
from neuroav.data.gzsl.benchmark import find_class_lists
from neuroav.data.gzsl.classlists import read_clips
from neuroav.data.manifest import pairs, read
from neuroav.data.plans import Item
from neuroav.data.protocols import deal_groups
from neuroav.data.published import cremad, mnistdvs_ntidigits
from neuroav.data.published.single import NMNIST
from neuroav.data.zeroshot import STAGE_2_TEST_SEEN, STAGES
from neuroav.errors import DataError


@dataclass(frozen=True)
class Row:
    """kind: of the groups. samples: by split. shared: groups in more than one split; tested: those
    of them that are in the test."""

    data: str
    protocol: str
    kind: str
    groups: int
    samples: Mapping[str, int]
    shared: int
    tested: int
    note: str = ""

    @property
    def is_clean(self) -> bool:
        """Whether the protocol promises that nothing tested is trained on."""
        return self.protocol.startswith("clean")


Entry = tuple[str, Mapping[str, str]]  # split of a sample, and its groups by kind


def rows(
    data: str, protocol: str, samples: Iterable[Entry], tests: tuple[str, ...], note: str = ""
) -> list[Row]:
    """One row per kind of group. tests: names of the splits that test."""
    samples = list(samples)
    places: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for split, groups in samples:
        for kind, group in groups.items():
            places[kind][group].add(split)
    sizes = Counter(split for split, _ in samples)
    found = []
    for kind, of_kind in places.items():
        shared = [splits for splits in of_kind.values() if len(splits) > 1]
        # Test splits may share groups among themselves: nothing of them is trained on.
        tested = [s for s in shared if s & set(tests) and s - set(tests)]
        found.append(Row(data, protocol, kind, len(of_kind), sizes, len(shared), len(tested), note))
    return found


def _of_items(data: str, protocol: str, items: Iterable[Item], note: str = "") -> list[Row]:
    return rows(data, protocol, ((i.split, i.groups) for i in items), ("test",), note)


def cremad_rows(root: Path, seed: int) -> list[Row]:
    """CREMA-D by actor. Its published lists are not in the tables: a split of their sizes, drawn
    at random as they were, stands for them."""
    with (root / "cremad_tables" / "SentenceFilenames.csv").open(newline="") as file:
        names = [row["Filename"] for row in csv.DictReader(file)]
    actors = [cremad.parse_clip(name).actor for name in names]
    dealt = deal_groups(actors, cremad.SHARES, seed)
    order = np.random.default_rng(seed).permutation(len(names))
    trained = set(order[: cremad.PUBLISHED_SIZES["train"]].tolist())
    drawn = (
        ("train" if i in trained else "test", {"actor": actor}) for i, actor in enumerate(actors)
    )
    note = "drawn at random with the published sizes; the lists are not here"
    return [
        *rows("cremad", "paper", drawn, ("test",), note),
        *rows("cremad", "clean", ((dealt[a], {"actor": a}) for a in actors), ("test",)),
    ]


def gzsl_rows(name: str, root: Path, seed: int) -> list[Row]:
    """One of the zero-shot benchmarks by source recording, from the csv of its stages."""
    lists = find_class_lists(root, BENCHMARKS[name], "main_split")
    clips = {stage: read_clips(lists, stage) for stage in STAGES}
    absent = [stage for stage, found in clips.items() if found is None]
    names: list[str] = []
    labels: list[int] = []
    stages: list[str] = []
    for stage, found in clips.items():
        if found is not None:
            names += found.names
            labels += found.labels.tolist()
            stages += [stage] * len(found.names)
    sources = [str(clean.recording(name, clip)) for clip in names]
    dealt = clean.deal(
        name, clean.Named(tuple(names), np.array(labels), tuple(stages)), lists.stages, seed
    )
    note = f"{', '.join(absent)}.csv was not published: overlaps are at least these" * bool(absent)
    tests = (STAGE_2_TEST_SEEN, STAGES[-1])
    paper = rows(name, "paper", _entries(stages, sources), tests, note)
    leaked = _leaked(stages, sources)
    told = f"{leaked} of {stages.count(STAGE_2_TEST_SEEN)} test clips of seen classes"
    kept = [(s, r) for s, r in zip(dealt.stages, sources, strict=True) if s is not None]
    after = f"{dealt.moved} clips moved, {dealt.dropped} left out"
    return [
        *(Row(**{**vars(row), "note": "; ".join(filter(None, (told, note)))}) for row in paper),
        *rows(name, "clean", _entries([s for s, _ in kept], [r for _, r in kept]), tests, after),
    ]


def _entries(stages: Iterable[str], sources: Iterable[str]) -> list[Entry]:
    return [(s, {"recording": r}) for s, r in zip(stages, sources, strict=True)]


def _leaked(stages: list[str], sources: list[str]) -> int:
    """Test clips of seen classes whose recording other clips are trained or validated on."""
    trained = {r for s, r in zip(stages, sources, strict=True) if s in STAGES[:3]}
    return sum(
        s == STAGE_2_TEST_SEEN and r in trained for s, r in zip(stages, sources, strict=True)
    )


def fsdd_rows(_: Path, __: int) -> list[Row]:
    """Speech of FSDD: its own split by number, and the folds of nmnist-fsdd by speaker."""
    manifest = read(nmnistfsdd.MANIFEST)
    official = (
        ("test" if sound.split == "val" else "train", {"speaker": sound.speaker})
        for sound in manifest.sounds
    )
    found = rows("fsdd", "paper", official, ("test",), "official: numbers 0 to 4 are the test")
    for speaker in nmnistfsdd.SPEAKERS:
        entries = [
            (
                p.split,
                {"speaker": p.sound.speaker, "sound": p.sound.file, "picture": p.picture.file},
            )
            for p in pairs(manifest, speaker)
        ]
        note = "validation hears the training speakers"
        found += rows("nmnist-fsdd", f"clean, tests {speaker}", entries, ("test",), note)
    return found


def nmnist_rows(root: Path, seed: int) -> list[Row]:
    """N-MNIST by recording, of the part Train, which is all that the tables have."""
    plan = NMNIST.plan("train-only", seed, None, root)
    return _of_items("nmnist", "clean, Train alone", plan.items, plan.meta["notes"][0])


def standin_rows(_: Path, seed: int) -> list[Row]:
    """mnistdvs-ntidigits on the names of its stand-in: N-MNIST and FSDD, without their content."""
    manifest = read(nmnistfsdd.MANIFEST)
    with tempfile.TemporaryDirectory() as folder:
        base, number = Path(folder), Counter[int]()
        for picture in manifest.pictures:
            number[picture.label] += 1
            place = base / f"grabbed_data{picture.label}/scale4"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"mnist_{picture.label}_scale04_{number[picture.label]:04}.aedat").touch()
        sounds = defaultdict(list)
        for sound in manifest.sounds:
            digit, speaker, take = Path(sound.file).stem.split("_")
            said = f"man-{speaker[:2]}{int(take):02}-a-{'z' if digit == '0' else digit}"
            part = "test" if speaker == nmnistfsdd.SPEAKERS[-1] else "train"
            sounds[part].append((said, np.array([0]), np.array([0.0])))
        write_ntidigits(base / "n-tidigits.hdf5", sounds["train"], sounds["test"])
        found = []
        for preset in ("paper", "clean"):
            plan = mnistdvs_ntidigits.plan(preset, seed, None, base)
            note = "; ".join(n for n in plan.meta["notes"] if "training speakers" in n)
            found += _of_items("mnistdvs-ntidigits, stand-in", preset, plan.items, note)
    return found


TABLES: dict[str, Callable[[Path, int], list[Row]]] = {
    "cremad": cremad_rows,
    **{name: partial(gzsl_rows, name) for name in BENCHMARKS},
    "fsdd": fsdd_rows,
    "nmnist": nmnist_rows,
    "mnistdvs-ntidigits": standin_rows,
}


def table(found: Iterable[Row]) -> str:
    """The rows as a table of Markdown."""
    lines = [
        "| data | protocol | groups | samples by split | in two splits | in the test too | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in found:
        sizes = ", ".join(f"{split} {size}" for split, size in row.samples.items())
        lines.append(
            f"| {row.data} | {row.protocol} | {row.groups} {row.kind}s | {sizes} | {row.shared} | "
            f"{row.tested} | {row.note} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Print the table; 1 where a clean protocol tests what it trains on."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--seeds", default="0", help="data seeds, with commas between")
    given = parser.parse_args()
    failed = 0
    for seed in map(int, given.seeds.split(",")):
        found: list[Row] = []
        for name, measure in TABLES.items():
            try:
                found += measure(given.data_root, seed)
            except (DataError, OSError) as error:
                print(f"{name}: left out: {error}", file=sys.stderr)
        print(f"data seed {seed}\n\n{table(found)}\n")
        failed += sum(row.is_clean and row.tested > 0 for row in found)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
