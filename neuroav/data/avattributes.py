"""The zero-shot data set ``av-attributes``: a digit heard and a digit seen, some never together.

Recordings are those of ``av-digits`` preset 'easy', each reduced to one vector per modality:
log(1 + events) of 64 cochlear channels x 8 intervals (512 features), and of 2 polarities x 16 x 16
pixels over the whole recording (512). A class is described by the strokes of the digit seen and the
sounds of the name heard (``neuroav.data.attributes``) instead of a word vector.

Preset 'default': a class is a pair (heard i, seen j), 100 in all. By (j - i) mod 10, 30 pairs are
unseen and 20 more stand for unseen ones while a network is chosen; so every sound and every picture
is trained on, but not every pair, and each modality alone tells half of the class. Pairs of
recordings are drawn with the data seed, the same number for every class.

Preset 'digits': a class is a digit, heard and seen, as recorded. Three of ten are unseen and two
stand for unseen ones, the digits that can best be told from all others by the part of their vectors
that lies in the space spanned by those of the seen digits, which is all that these can teach.

Stages take the splits of av-digits: training voices and pictures for training, validation ones for
choosing, test ones for the test; val_unseen has both training and validation recordings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.data import zeroshot as zs
from neuroav.data.attributes import class_vectors
from neuroav.data.avdata import AVData
from neuroav.data.frames import FrameSpec
from neuroav.data.speech import WORDS
from neuroav.errors import DataError, unknown_name

NAME = "av-attributes"
PRESETS = ("default", "digits")
BASE, BASE_PRESET = "av-digits", "easy"
SPEC = FrameSpec(steps=8, visual_size=16)
DIGITS = len(WORDS)
PER_CLASS = {"train": 40, "val": 5, "test": 10}  # recordings of each class of pairs
APART_UNSEEN, APART_VAL = (3, 5, 8), (2, 7)  # (seen - heard) mod 10 of pairs never trained on
UNSEEN, VAL_UNSEEN = 3, 2  # digits, of preset 'digits'


@dataclass(frozen=True, eq=False)
class _Classes:
    """names by class; vectors (C, W) float32; unseen and val_unseen: classes, ascending."""

    names: tuple[str, ...]
    vectors: np.ndarray
    unseen: np.ndarray
    val_unseen: np.ndarray

    @property
    def seen(self) -> np.ndarray:
        return np.setdiff1d(np.arange(len(self.names)), self.unseen)


def load(
    preset: str, *, steps: int, data_seed: int, cache_dir: Path, progress: Any = None
) -> zs.ZeroShotData:
    """Return the data set, preparing av-digits first if need be; ``steps``: per sample.

    Errors as ``catalogue.load``.
    """
    check_preset(preset)
    from neuroav.data.catalogue import load as load_events

    base = load_events(
        BASE,
        preset=BASE_PRESET,
        data_seed=data_seed,
        cache_dir=cache_dir,
        spec=SPEC,
        progress=progress,
    )
    return build(base, preset, steps)


def check_preset(preset: str) -> None:
    """Raise DataError unless ``preset`` is one."""
    if preset not in PRESETS:
        raise unknown_name(f"preset of {NAME}", preset, PRESETS, DataError)


def build(base: AVData, preset: str, steps: int) -> zs.ZeroShotData:
    """Return the data set made of av-digits; ``steps``: time steps per sample."""
    parts = {name: _features(base, name) for name in PER_CLASS}
    if preset == "default":
        classes = _pair_classes()
        rngs = {n: np.random.default_rng([base.data_seed, i]) for i, n in enumerate(PER_CLASS)}
        parts = {n: _pairs(part, PER_CLASS[n], rngs[n]) for n, part in parts.items()}
    else:
        classes = _digit_classes()
    return zs.ZeroShotData(
        NAME,
        preset,
        classes.names,
        *_stages(parts, classes),
        classes.vectors,
        None,
        steps,
        (f"recordings of {BASE}, preset {BASE_PRESET}: synthetic speech, pictures of 8x8 pixels",),
    )


def _features(base: AVData, split: str) -> zs.Features:
    """Return the recordings of a split as vectors; labels are digits."""
    part = base.split(split)
    frames = part.frames()
    assert frames.audio is not None
    assert frames.visual is not None
    heard = frames.audio.astype(np.float32).sum(axis=-1).reshape(len(part), -1)
    seen = frames.visual.astype(np.float32).sum(axis=1).reshape(len(part), -1)
    names = np.array([f"{split}-{i}" for i in range(len(part))])
    return zs.Features(np.log1p(heard), np.log1p(seen), part.labels.astype(np.int64), names)


def _stages(
    parts: Mapping[str, zs.Features], classes: _Classes
) -> tuple[dict[str, zs.Features], dict[str, np.ndarray]]:
    """Return samples and classes of every stage."""
    first = np.setdiff1d(classes.seen, classes.val_unseen)
    known = zs.Features.join([parts["train"], parts["val"]])
    chosen = {
        zs.STAGE_1_TRAIN: (parts["train"], first),
        zs.STAGE_1_VAL_SEEN: (parts["val"], first),
        zs.STAGE_1_VAL_UNSEEN: (known, classes.val_unseen),
        zs.STAGE_2_TEST_SEEN: (parts["test"], classes.seen),
        zs.STAGE_2_TEST_UNSEEN: (parts["test"], classes.unseen),
    }
    samples = {
        stage: part.take(np.flatnonzero(np.isin(part.labels, mine)))
        for stage, (part, mine) in chosen.items()
    }
    return samples, {stage: mine for stage, (_, mine) in chosen.items()}


# --- pairs -------------------------------------------------------------------------------------
def _pair_classes() -> _Classes:
    strokes, sounds = class_vectors()
    heard, seen = np.divmod(np.arange(DIGITS**2), DIGITS)
    vectors = np.concatenate([strokes[seen], sounds[heard]], axis=1) / np.sqrt(2)
    apart = (seen - heard) % DIGITS
    return _Classes(
        tuple(f"{WORDS[i]} heard, {WORDS[j]} seen" for i, j in zip(heard, seen, strict=True)),
        vectors.astype(np.float32),
        np.flatnonzero(np.isin(apart, APART_UNSEEN)),
        np.flatnonzero(np.isin(apart, APART_VAL)),
    )


def _pairs(part: zs.Features, per_class: int, rng: np.random.Generator) -> zs.Features:
    """Return ``per_class`` pairs of every class, round-robin, recordings drawn at random."""
    heard, seen = np.divmod(np.tile(np.arange(DIGITS**2), per_class), DIGITS)
    sound, picture = _draw(part.labels, heard, rng), _draw(part.labels, seen, rng)
    names = [f"{part.names[a]}+{part.names[v]}" for a, v in zip(sound, picture, strict=True)]
    return zs.Features(
        part.audio[sound], part.visual[picture], heard * DIGITS + seen, np.array(names)
    )


def _draw(labels: np.ndarray, wanted: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a random recording of every wanted digit."""
    members = [np.flatnonzero(labels == d) for d in range(DIGITS)]
    return np.array([rng.choice(members[d]) for d in wanted])


# --- single digits -----------------------------------------------------------------------------
def _digit_classes() -> _Classes:
    vectors = np.concatenate(class_vectors(), axis=1) / np.sqrt(2)
    everyone = tuple(range(DIGITS))
    unseen = _best(vectors, everyone, UNSEEN)
    seen = tuple(c for c in everyone if c not in unseen)
    return _Classes(
        tuple(WORDS),
        vectors.astype(np.float32),
        np.array(unseen),
        np.array(_best(vectors, seen, VAL_UNSEEN)),
    )


def _best(vectors: np.ndarray, everyone: Sequence[int], size: int) -> tuple[int, ...]:
    """Return ``size`` of ``everyone``, those with the largest ``_margin``, the first of equals."""
    found = list(combinations(everyone, size))
    margins = [_margin(vectors, chosen, everyone) for chosen in found]
    return found[int(np.argmax(np.round(margins, 9)))]


def _margin(vectors: np.ndarray, unseen: Sequence[int], everyone: Sequence[int]) -> float:
    """Return by how much unseen classes are nearer to themselves than to any other class.

    A class is put where its part within the (affine) span of the seen ones is; distances are
    squared, and the smallest margin counts.
    """
    seen = [c for c in everyone if c not in unseen]
    middle = vectors[seen].mean(axis=0)
    _, sizes, axes = np.linalg.svd(vectors[seen] - middle, full_matrices=False)
    span = axes[sizes > 1e-9 * sizes[0]]
    margins = []
    for c in unseen:
        projected = (vectors[c] - middle) @ span.T @ span + middle
        squared = ((projected - vectors) ** 2).sum(axis=1)
        margins.append(min(squared[o] for o in everyone if o != c) - squared[c])
    return min(margins)
