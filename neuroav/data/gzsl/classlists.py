"""Class lists and splits of the audio-visual zero-shot benchmarks, in the layout of AVCA.

In ``<set>/class-split`` (some copies: ``class_split``), for the sets UCF, VGGSound, ActivityNet:

=====================================  ========================================================
``all_class.txt``                      one class per line
``<set>_w2v_class_names.csv``          original, manual: the name as in ``all_class.txt``, and in
                                       the words of the text embedding
``{main,cls}_split/<stage>.txt``       classes of a stage, one per line: these count
``{main,cls}_split/<stage>.csv``       clips of a stage: filename, label, label_code and others
=====================================  ========================================================

The number of a class is its place in the sorted lines of ``all_class.txt``, capitals first. Names
of UCF and ActivityNet are matched without regard to case. The csv of ``cls_split`` still lists
clips of classes that its .txt drops; VGGSound was published without two of the csv.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np

from neuroav.data.zeroshot import (
    STAGE_1_TRAIN,
    STAGE_1_VAL_SEEN,
    STAGE_1_VAL_UNSEEN,
    STAGE_2_TEST_SEEN,
    STAGE_2_TEST_UNSEEN,
    STAGES,
)
from neuroav.errors import DataError, unknown_name

RELEASE = "the AVCA-GZSL release (ExplainableML/AVCA-GZSL)"
STAGE_2_TRAIN = "stage_2_train"  # the three parts of stage 1 together; no features of its own
ALL_STAGES = (*STAGES[:3], STAGE_2_TRAIN, *STAGES[3:])
FOLDERS = ("class-split", "class_split")
SPLITS = ("main_split", "cls_split")
_Name = TypeVar("_Name", int, str)
_MAX_BYTES = 64 << 20  # the largest published list has 0.6 MB


@dataclass(frozen=True)
class BenchmarkSet:
    """How a set's files are called. name: of the benchmark; folder: of its files; names: the csv of
    class names; text: the file of embeddings; ignore_case: whether class names match so."""

    name: str
    folder: str
    names: str
    text: str
    ignore_case: bool

    def key(self, class_name: str) -> str:
        """Return what two spellings of one class have in common."""
        return class_name.lower() if self.ignore_case else class_name


BENCHMARKS: dict[str, BenchmarkSet] = {
    entry.name: entry
    for entry in (
        BenchmarkSet(
            "ucf-gzsl", "UCF", "ucf_w2v_class_names.csv", "word_embeddings_ucf_normed.npy", True
        ),
        BenchmarkSet(
            "vggsound-gzsl",
            "VGGSound",
            "vggsound_w2v_class_names.csv",
            "word_embeddings_vggsound_normed.npy",
            False,
        ),
        BenchmarkSet(
            "activitynet-gzsl",
            "ActivityNet",
            "activitynet_w2v_class_names.csv",
            "word_embeddings_activity_normed.npy",
            True,
        ),
    )
}


@dataclass(frozen=True, eq=False)
class ClassLists:
    """Classes of one set and one of its splits.

    folder: of the lists. classes, manual: by number, original and manual names. stages: classes of
    each of ``ALL_STAGES``, ascending int64.
    """

    benchmark: BenchmarkSet
    split: str
    folder: Path
    classes: tuple[str, ...]
    manual: tuple[str, ...]
    stages: Mapping[str, np.ndarray]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {self.benchmark.key(name): i for i, name in enumerate(self.classes)}

    def number(self, name: str) -> int | None:
        """Return the number of a class by its original name, None where there is none."""
        return self._numbers.get(self.benchmark.key(name))


@dataclass(frozen=True, eq=False)
class Clips:
    """Clips that a csv lists: names, and labels (N,) int64."""

    names: tuple[str, ...]
    labels: np.ndarray


@dataclass(frozen=True)
class StageCount:
    """Sizes of a stage; clips is None where the csv is absent."""

    classes: int
    clips: int | None


def read_class_lists(folder: Path, benchmark: BenchmarkSet, split: str) -> ClassLists:
    """Read the lists in ``folder`` (a ``class-split``) for 'main_split' or 'cls_split'.

    DataError if a file is missing or not what its place says, or if the stages are not those of a
    zero-shot benchmark: seen classes of a test must be trained on, unseen ones must not.
    """
    if split not in SPLITS:
        raise unknown_name("class split", split, SPLITS, DataError)
    all_file = folder / "all_class.txt"
    classes = tuple(sorted(_lines(all_file)))
    lists = ClassLists(benchmark, split, folder, classes, (), {})
    if len(lists._numbers) != len(classes):
        raise DataError(f"{all_file}: {_repeated(map(benchmark.key, classes))!r} is there twice")
    manual = _manual_names(folder / benchmark.names, lists)
    stages = {stage: _stage_classes(lists, stage) for stage in STAGES}
    union = np.union1d(stages[STAGE_1_TRAIN], stages[STAGE_1_VAL_UNSEEN])
    if _stage_file(lists, STAGE_2_TRAIN, "txt").exists():
        stages[STAGE_2_TRAIN] = _stage_classes(lists, STAGE_2_TRAIN)
    else:
        stages[STAGE_2_TRAIN] = union
    _require_zero_shot(folder / split, classes, stages, union)
    return ClassLists(benchmark, split, folder, classes, manual, stages)


def read_clips(lists: ClassLists, stage: str) -> Clips | None:
    """Return the clips of the stage's classes in the order of the csv, None where it is absent.

    DataError for a csv with unknown columns, a class that the set does not have, or a label_code
    that is not the number of its label.
    """
    path = _stage_file(lists, stage, "csv")
    if not path.exists():
        return None
    wanted = set(lists.stages[stage].tolist())
    names, labels = [], []
    for line, row in _rows(path, ("filename", "label")):
        number = lists.number(row["label"])
        code = row.get("label_code", str(number))
        if number is None or code != str(number):
            raise DataError(
                f"{path} line {line}: label {row['label']!r} with label_code {code}, which "
                f"{lists.folder / 'all_class.txt'} numbers {number}; take both from {RELEASE}"
            )
        if number in wanted:
            names.append(row["filename"])
            labels.append(number)
    return Clips(tuple(names), np.array(labels, np.int64))


def stage_counts(lists: ClassLists) -> dict[str, StageCount]:
    """Return how many classes and clips every stage of ``ALL_STAGES`` has by its lists."""
    found = {}
    for stage in ALL_STAGES:
        clips = read_clips(lists, stage)
        number = None if clips is None else len(clips.names)
        found[stage] = StageCount(len(lists.stages[stage]), number)
    return found


def _stage_file(lists: ClassLists, stage: str, ending: str) -> Path:
    return lists.folder / lists.split / f"{stage}.{ending}"


def _stage_classes(lists: ClassLists, stage: str) -> np.ndarray:
    path = _stage_file(lists, stage, "txt")
    numbers = []
    for name in _lines(path):
        number = lists.number(name)
        if number is None:
            raise DataError(
                f"{path}: class {name!r} is not in {lists.folder / 'all_class.txt'}; take both "
                f"from {RELEASE}"
            )
        numbers.append(number)
    if len(set(numbers)) != len(numbers):
        raise DataError(f"{path}: class {lists.classes[_repeated(numbers)]!r} is there twice")
    return np.array(sorted(numbers), np.int64)


def _require_zero_shot(
    folder: Path, classes: tuple[str, ...], stages: Mapping[str, np.ndarray], union: np.ndarray
) -> None:
    """DataError where a class is trained on and unseen, or seen and never trained on."""
    train, unseen = stages[STAGE_1_TRAIN], stages[STAGE_2_TEST_UNSEEN]
    rules = (
        (STAGE_1_VAL_SEEN, np.setxor1d(train, stages[STAGE_1_VAL_SEEN]), "equal", STAGE_1_TRAIN),
        (
            STAGE_1_VAL_UNSEEN,
            np.intersect1d(train, stages[STAGE_1_VAL_UNSEEN]),
            "be disjoint from",
            STAGE_1_TRAIN,
        ),
        (STAGE_2_TRAIN, np.setxor1d(union, stages[STAGE_2_TRAIN]), "equal", "all of stage 1"),
        (
            STAGE_2_TEST_SEEN,
            np.setdiff1d(stages[STAGE_2_TEST_SEEN], union),
            "be among",
            STAGE_2_TRAIN,
        ),
        (STAGE_2_TEST_UNSEEN, np.intersect1d(union, unseen), "be disjoint from", STAGE_2_TRAIN),
    )
    for stage, wrong, rule, other in rules:
        if len(wrong):
            raise DataError(
                f"{folder / stage}.txt: its classes must {rule} those of {other}, "
                f"{classes[wrong[0]]!r} and {len(wrong) - 1} more break that; take the lists from "
                f"{RELEASE}"
            )


def _manual_names(path: Path, lists: ClassLists) -> tuple[str, ...]:
    """The manual name of every class, by number."""
    manual: dict[int, str] = {}
    for line, row in _rows(path, ("original", "manual")):
        number = lists.number(row["original"])
        if number is None or number in manual:
            problem = "is not in all_class.txt" if number is None else "is there twice"
            raise DataError(f"{path} line {line}: class {row['original']!r} {problem}")
        manual[number] = row["manual"]
    missing = [name for i, name in enumerate(lists.classes) if i not in manual]
    if missing:
        raise DataError(
            f"{path}: {len(missing)} classes of all_class.txt are missing, first {missing[0]!r}"
        )
    names = tuple(manual[i] for i in range(len(manual)))
    if len(set(names)) != len(names):
        raise DataError(f"{path}: manual name {_repeated(names)!r} is there twice")
    return names


def _repeated(values: Iterable[_Name]) -> _Name:
    return Counter(values).most_common(1)[0][0]


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise DataError(f"{path}: larger than {_MAX_BYTES >> 20} MB, which no class list is")
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path} is missing; it is part of {RELEASE}") from None
    except (OSError, UnicodeDecodeError) as err:
        raise DataError(f"{path} cannot be read as text: {err}") from None


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in _text(path).splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path} lists no class; take it from {RELEASE}")
    return lines


def _rows(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Every row below the header with its line; DataError unless it has the ``columns``."""
    reader = csv.DictReader(_text(path).splitlines())
    try:
        header = tuple(reader.fieldnames or ())
        if not set(columns) <= set(header):
            raise DataError(f"{path}: columns {', '.join(header)}, needs {', '.join(columns)}")
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as err:
        raise DataError(f"{path} line {reader.line_num}: {err}") from None
    for line, row in rows:
        if None in row or None in row.values():
            raise DataError(f"{path} line {line}: needs {len(header)} values; is the file cut?")
    return rows
