"""Zero-shot data as networks see it: feature vectors per sample, classes held out, text per class.

A *stage* names samples as the AVCA benchmark does: ``stage_1_train``, ``stage_1_val_seen`` and
``stage_1_val_unseen`` choose a network, ``stage_2_test_seen`` and ``stage_2_test_unseen`` test it
after training on all three of stage 1. Of these follow the splits every other part of the program
knows: ``train`` (all of stage 1), ``val`` (both parts of it) and ``test``.

A sample is one vector per modality, the same in every time step, or a sequence of vectors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from neuroav.errors import DataError, unknown_name

STAGE_1_TRAIN, STAGE_1_VAL_SEEN, STAGE_1_VAL_UNSEEN = (
    "stage_1_train",
    "stage_1_val_seen",
    "stage_1_val_unseen",
)
STAGE_2_TEST_SEEN, STAGE_2_TEST_UNSEEN = "stage_2_test_seen", "stage_2_test_unseen"
STAGES = (
    STAGE_1_TRAIN,
    STAGE_1_VAL_SEEN,
    STAGE_1_VAL_UNSEEN,
    STAGE_2_TEST_SEEN,
    STAGE_2_TEST_UNSEEN,
)
_SPLITS = {
    "train": (STAGE_1_TRAIN, STAGE_1_VAL_SEEN, STAGE_1_VAL_UNSEEN),
    "val": (STAGE_1_VAL_SEEN, STAGE_1_VAL_UNSEEN),
    "test": (STAGE_2_TEST_SEEN, STAGE_2_TEST_UNSEEN),
}
ALIGNMENTS = ("by_name", "avca_compat")


@dataclass(frozen=True, eq=False)
class Features:
    """Samples. audio (N, Da), visual (N, Dv), or (N, steps, D) for sequences, float32; labels (N,)
    int64, index into the classes of the data; names (N,) str, of the clips."""

    audio: np.ndarray
    visual: np.ndarray
    labels: np.ndarray
    names: np.ndarray

    def __post_init__(self) -> None:
        sizes = {k: len(getattr(self, k)) for k in ("audio", "visual", "labels", "names")}
        if len(set(sizes.values())) != 1:
            raise DataError(f"features: parts differ in their number of samples: {sizes}")
        for kind in ("audio", "visual"):
            value = getattr(self, kind)
            if value.dtype != np.float32 or value.ndim not in (2, 3):
                raise DataError(
                    f"features {kind}: found {value.dtype} {value.shape}, needs float32 "
                    "(samples, features) or (samples, steps, features)"
                )
            if not np.isfinite(value).all():
                bad = int((~np.isfinite(value)).sum())
                raise DataError(f"features {kind}: {bad} values are NaN or infinite")

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> Features:
        """Return the samples at ``index``, in its order."""
        return Features(
            self.audio[index], self.visual[index], self.labels[index], self.names[index]
        )

    @classmethod
    def join(cls, parts: Sequence[Features]) -> Features:
        """Return all samples of all parts, one part after the other."""
        return cls(
            *(np.concatenate([getattr(p, k) for p in parts]) for k in cls.__dataclass_fields__)
        )


@dataclass(frozen=True, eq=False)
class StaticFrames:
    """What ``frames`` gives: audio and visual (N, steps, D) float32, read-only; labels (N,)."""

    audio: np.ndarray
    visual: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True, eq=False)
class ZeroShotSplit:
    """One split, in an order whose first n samples hold seen and unseen classes evenly."""

    name: str
    features: Features
    steps: int

    @property
    def labels(self) -> np.ndarray:
        return self.features.labels

    def __len__(self) -> int:
        return len(self.features)

    def frames(self, indices: Sequence[int] | np.ndarray | None = None) -> StaticFrames:
        """Return the samples as (N, steps, D), all or those at ``indices``; DataError outside."""
        part = self.features
        if indices is not None:
            wanted = np.asarray(indices, np.int64).reshape(-1)
            if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
                raise DataError(
                    f"split {self.name!r}: samples {wanted.min()} to {wanted.max()} asked for, "
                    f"allowed are 0 to {len(self) - 1}"
                )
            part = part.take(wanted)
        return StaticFrames(
            in_steps(part.audio, self.steps), in_steps(part.visual, self.steps), part.labels
        )


def data_labels(data: object, labels: np.ndarray) -> np.ndarray:
    """Return labels as places among deployed classes: those sought, of zero-shot data."""
    return np.searchsorted(data.sought, labels) if isinstance(data, ZeroShotData) else labels


def in_steps(values: np.ndarray, steps: int) -> np.ndarray:
    """Return (N, steps, D): a vector repeated (without copying it), a sequence as it is."""
    if values.ndim == 2:
        return np.broadcast_to(values[:, None], (len(values), steps, values.shape[1]))
    if values.shape[1] != steps:
        raise DataError(
            f"sequences have {values.shape[1]} steps, the network {steps}; set data.steps"
        )
    return values


@dataclass(frozen=True, eq=False)
class ZeroShotData:
    """A zero-shot data set.

    classes: by index, as the data set spells them. stages: samples of every stage of ``STAGES``.
    stage_classes: the classes of every stage, ascending int64, also where a class has no sample.
    text: embeddings (classes, E) float32, one row per class. text_compat: the rows that the AVCA
    reference loader attaches to each class (None where there is no such loader). steps: time
    steps per sample. notes: what a reader of results must know (synthetic features, for example).
    """

    name: str
    preset: str
    classes: tuple[str, ...]
    stages: Mapping[str, Features]
    stage_classes: Mapping[str, np.ndarray]
    text: np.ndarray
    text_compat: np.ndarray | None
    steps: int
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for stage in STAGES:
            labels, allowed = self.stages[stage].labels, self.stage_classes[stage]
            strange = np.setdiff1d(labels, allowed)
            if len(strange):
                names = ", ".join(self.classes[i] for i in strange[:3])
                raise DataError(f"{self.name} {stage}: samples of classes not listed: {names}")

    @cached_property
    def splits(self) -> dict[str, ZeroShotSplit]:
        return {
            name: ZeroShotSplit(name, _woven([self.stages[s] for s in stages]), self.steps)
            for name, stages in _SPLITS.items()
        }

    def split(self, name: str) -> ZeroShotSplit:
        """Return the split ``train``, ``val`` or ``test``; DataError for another name."""
        if name not in self.splits:
            raise unknown_name("split", name, self.splits, DataError)
        return self.splits[name]

    @property
    def seen(self) -> np.ndarray:
        """Classes that stage 2 trains on, ascending int64."""
        return np.union1d(self.stage_classes[STAGE_1_TRAIN], self.stage_classes[STAGE_1_VAL_UNSEEN])

    @property
    def unseen(self) -> np.ndarray:
        """Classes of the test that nothing trains on, ascending int64."""
        return self.stage_classes[STAGE_2_TEST_UNSEEN]

    @property
    def sought(self) -> np.ndarray:
        """Classes that answers of the test are sought among: seen and unseen, ascending int64."""
        return np.union1d(self.seen, self.unseen)

    def embeddings(self, alignment: str) -> np.ndarray:
        """Return the text of every class, (classes, E): 'by_name' or 'avca_compat'."""
        if alignment not in ALIGNMENTS:
            raise unknown_name("text alignment", alignment, ALIGNMENTS, DataError)
        if alignment == "by_name":
            return self.text
        if self.text_compat is None:
            raise DataError(f"{self.name}: has no text_alignment 'avca_compat', use 'by_name'")
        return self.text_compat

    @property
    def misaligned(self) -> np.ndarray:
        """Classes to which the reference loader attaches another class's text, ascending."""
        if self.text_compat is None:
            return np.zeros(0, np.int64)
        return np.flatnonzero((self.text != self.text_compat).any(axis=1))

    @cached_property
    def content_hash(self) -> str:
        """sha256 over everything a result depends on."""
        digest = hashlib.sha256(repr((self.name, self.preset, self.classes, self.steps)).encode())
        for stage in STAGES:
            part = self.stages[stage]
            names = "\n".join(map(str, part.names)).encode()
            for array in (part.audio, part.visual, part.labels, self.stage_classes[stage]):
                digest.update(repr((stage, array.shape, array.dtype.str)).encode())
                digest.update(np.ascontiguousarray(array).tobytes())
            digest.update(names)
        for text in (self.text, self.text_compat):
            digest.update(b"" if text is None else np.ascontiguousarray(text).tobytes())
        return digest.hexdigest()


def _woven(parts: Sequence[Features]) -> Features:
    """Return all samples, sample k of a part of n at place (k + 1/2) / n."""
    place = np.concatenate([(np.arange(len(p)) + 0.5) / max(len(p), 1) for p in parts])
    return Features.join(parts).take(np.argsort(place, kind="stable"))
