"""Zero-shot stages with no recording in two of them.

The published splits deal out clips, and several clips are cut from one recording, so that parts of
a recording are trained on and others are tested. The clean protocol deals out *recordings*:

=========================  ==========================================  ======================
benchmark                  name of a clip                              recording
=========================  ==========================================  ======================
``ucf-gzsl``               ``v_<Class>_g<group>_c<clip>``              class and group
``vggsound-gzsl``          ``<id of the video>_<start in s, 6 digits>``  the video
``activitynet-gzsl``       ``<id of the video>_<segment>``             the video
=========================  ==========================================  ======================

Classes stay what they are. The clips of a class that is trained on in stage 1 are dealt to stage 1
training, stage 1 validation and the test of seen classes; those of a class that is validated as
unseen to that validation (which stage 2 trains on) and the test of seen classes: each class by
itself, in the shares it has as published, with a seed, by the names of the clips alone. Where one
recording has clips of several classes:

- of an unseen class of the test and another class: the clips of the other class are dropped;
- of a class validated as unseen and one trained on in stage 1: the latter clips are dropped;
- of classes alike: all its clips go where those of the first class go.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuroav.data.protocols import deal_groups
from neuroav.data.zeroshot import (
    STAGE_1_TRAIN,
    STAGE_1_VAL_SEEN,
    STAGE_1_VAL_UNSEEN,
    STAGE_2_TEST_SEEN,
    STAGE_2_TEST_UNSEEN,
    STAGES,
    Features,
)
from neuroav.errors import DataError

# benchmark -> (names of its clips, an example). Video ids are of 11 characters; some published
# names of ActivityNet hold 12.
_NAMES: dict[str, tuple[re.Pattern[str], str]] = {
    "ucf-gzsl": (re.compile(r"(v_.+_g\d+)_c\d+"), "v_Archery_g01_c06"),
    "vggsound-gzsl": (re.compile(r"(.{11})_\d{6}"), "-0iEMffOYwo_000005"),
    "activitynet-gzsl": (re.compile(r"(.{11,12})_\d+"), "38ZxXyECPPU_1"),
}
# Stages that classes of a kind are dealt to; the later kind keeps a recording that is in two.
_KINDS = (
    (STAGE_1_TRAIN, STAGE_1_VAL_SEEN, STAGE_2_TEST_SEEN),
    (STAGE_1_VAL_UNSEEN, STAGE_2_TEST_SEEN),
    (STAGE_2_TEST_UNSEEN,),
)


@dataclass(frozen=True, eq=False)
class Named:
    """Clips without their features. names: (N,) of clips; labels (N,) int64; stages (N,), of each
    clip as published."""

    names: tuple[str, ...]
    labels: np.ndarray
    stages: tuple[str, ...]


@dataclass(frozen=True)
class Dealt:
    """stages: by clip, None where it is dropped. moved: clips that are in another stage than as
    published. dropped: clips left out."""

    stages: tuple[str | None, ...]
    moved: int
    dropped: int


def recording(benchmark: str, clip: str) -> str | None:
    """Return the recording that a clip is cut from, None where its name does not tell."""
    found = _NAMES[benchmark][0].fullmatch(clip)
    return found and found[1]


def shared_recordings(
    benchmark: str, names: Sequence[str], stages: Sequence[str | None]
) -> dict[str, tuple[str, ...]]:
    """Return the recordings that are in more than one stage: recording -> its stages in order.

    Clips whose stage is None, and those whose recording is not told, are left out.
    """
    seen: dict[str, set[str]] = defaultdict(set)
    for name, stage in zip(names, stages, strict=True):
        source = recording(benchmark, name)
        if stage is not None and source is not None:
            seen[source].add(stage)
    return {
        source: tuple(sorted(found, key=STAGES.index))
        for source, found in sorted(seen.items())
        if len(found) > 1
    }


def deal(
    benchmark: str, clips: Named, stage_classes: Mapping[str, np.ndarray], data_seed: int
) -> Dealt:
    """Deal out ``clips`` as the module's text says.

    stage_classes: as in ``ZeroShotData``. DataError for a clip whose name does not tell its
    recording, and for a class with fewer recordings than stages.
    """
    sources = [_required(benchmark, name) for name in clips.names]
    labels = clips.labels.tolist()
    kinds = {label: _kind(label, stage_classes) for label in set(labels)}
    kept = _kinds_kept(sources, labels, kinds)
    by_class: dict[int, list[int]] = defaultdict(list)
    for place, (source, label) in enumerate(zip(sources, labels, strict=True)):
        if kinds[label] == kept[source]:
            by_class[label].append(place)
    stages: list[str | None] = [None] * len(labels)
    fixed: dict[str, str] = {}
    for label in sorted(by_class):
        mine = by_class[label]
        published = Counter(clips.stages[i] for i in mine)
        try:
            fixed |= _deal_class(
                [sources[i] for i in mine], published, _KINDS[kinds[label]], fixed,
                [data_seed, label],
            )  # fmt: skip
        except DataError as error:
            raise DataError(
                f"{benchmark}: clips of class number {label}: {error}; the clean protocol needs "
                "more recordings of it, the protocol as published does not"
            ) from None
        for place in mine:
            stages[place] = fixed[sources[place]]
    dropped = stages.count(None)
    moved = sum(a != b for a, b in zip(stages, clips.stages, strict=True)) - dropped
    return Dealt(tuple(stages), moved, dropped)


def _required(benchmark: str, clip: str) -> str:
    source = recording(benchmark, clip)
    if source is None:
        raise DataError(
            f"{benchmark}: clip {clip!r}: its name does not tell its recording, as "
            f"{_NAMES[benchmark][1]!r} does; the clean protocol needs the published names, "
            "the protocol as published does not"
        )
    return source


def _kind(label: int, stage_classes: Mapping[str, np.ndarray]) -> int:
    """Place in ``_KINDS`` of a class."""
    if label in stage_classes[STAGE_2_TEST_UNSEEN]:
        return 2
    return 1 if label in stage_classes[STAGE_1_VAL_UNSEEN] else 0


def _kinds_kept(sources: list[str], labels: list[int], kinds: Mapping[int, int]) -> dict[str, int]:
    """Of every recording the kind of classes of which clips are kept."""
    kept: dict[str, int] = {}
    for source, label in zip(sources, labels, strict=True):
        kept[source] = max(kinds[label], kept.get(source, 0))
    return kept


def _deal_class(
    sources: list[str],
    published: Mapping[str, int],
    allowed: tuple[str, ...],
    fixed: Mapping[str, str],
    seed: list[int],
) -> dict[str, str]:
    """Return the stages of the recordings of one class; those in ``fixed`` have theirs already."""
    wanted = {stage: float(published[stage]) for stage in allowed if published[stage]}
    free = [source for source in sources if source not in fixed]
    for source in sources:
        if source in fixed:
            wanted[fixed[source]] = max(wanted.get(fixed[source], 0.0) - 1, 0.0)
    wanted = {stage: number for stage, number in wanted.items() if number}
    if not free:
        return {}
    if not wanted:
        wanted = {stage: float(published[stage]) for stage in allowed if published[stage]}
    total = sum(wanted.values())
    shares = {stage: number / total for stage, number in wanted.items()}
    # deal_groups takes one number; a class of its own sequence keeps the draws independent.
    number = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return deal_groups(free, shares, number)


def clean_stages(
    benchmark: str,
    stages: Mapping[str, Features],
    stage_classes: Mapping[str, np.ndarray],
    data_seed: int,
) -> tuple[dict[str, Features], str]:
    """Return the samples dealt anew, in the order of classes and names, and a note that says so."""
    clips = Features.join([stages[stage] for stage in STAGES])
    published = tuple(stage for stage in STAGES for _ in range(len(stages[stage])))
    names = tuple(clips.names.tolist())
    dealt = deal(benchmark, Named(names, clips.labels, published), stage_classes, data_seed)
    order = np.lexsort((clips.names, clips.labels))
    found = np.array([stage or "" for stage in dealt.stages])[order]
    parts = {stage: clips.take(order[found == stage]) for stage in STAGES}
    return parts, (
        f"clean protocol, data seed {data_seed}: seen classes dealt out by recording, so results "
        f"are not those of published tables; {dealt.moved} of {len(names)} clips are in another "
        f"stage than as published, {dealt.dropped} are left out"
    )
