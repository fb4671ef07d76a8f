"""Recordings of unequal length in equal spans of each one's own duration, as S-CMRL bins them.

The rule is that of ``tonic.transforms.ToFrame(n_time_bins=T)``. Let a and b be the times of the
first and the last event of a recording, in whole microseconds. A step lasts ``W = (b - a) // T``
and step t holds the events with ``a + t W <= time < a + (t + 1) W``. So the event at b, and what
the division leaves over, up to T - 1 us, fall off the end. A recording shorter than T us is empty.

Visual, shape (N, T, 2, 28, 28): events per polarity (0 OFF, 1 ON), row y, column x.

Audio, shape (N, T, 1, 28, 28): events per cochlear channel; channel c is row ``c // 8`` and column
``c % 8`` of a picture of 8x8, which is drawn to 28x28 bilinearly, as
``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)`` does. The values between
are multiples of 1/196. A chip takes whole numbers, so a cell holds four times the value, rounded:
steps of a quarter event, off by at most 6/49 of an event (an eighth).

Counts are uint8. More than 255 events in a visual cell, or than 63 of one channel in a step, are
cut off and counted in ``Frames.clipped``. S-CMRL also subtracts a mean from the visual counts; here
they stay as they are, so that an empty cell sends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from neuroav.data.augment import Augmentation, repair
from neuroav.data.avsplit import AVSplit
from neuroav.data.frames import MAX_COUNT, MAX_STEPS, Frames
from neuroav.data.ragged import Ragged
from neuroav.errors import ConfigError, DataError

SIZE = 28  # pixels of a side, of both inputs
CHANNELS = 64  # of the cochlea, drawn as 8x8
QUARTERS = 4  # an audio cell counts quarters of an event
MAX_EVENTS = MAX_COUNT // QUARTERS  # of one cochlear channel in a step
_ROWS = 8
_DENOMINATOR = 14  # of the bilinear weights from 8 to 28
_CHUNK = 4096  # pictures drawn at a time: 25 MB

SHIFT_PER_UNIT = 2  # pixels of the sensor per unit of ``Augmentation.image_shift``


@dataclass(frozen=True)
class BinnedSpec:
    """steps: bins per recording, 1 to 64; ConfigError for others."""

    steps: int = 16

    def __post_init__(self) -> None:
        if not isinstance(self.steps, int) or not 1 <= self.steps <= MAX_STEPS:
            raise ConfigError(f"steps {self.steps}: allowed are 1 to {MAX_STEPS}")

    @property
    def audio_shape(self) -> tuple[int, int, int, int]:
        """(T, 1, 28, 28)."""
        return self.steps, 1, SIZE, SIZE

    @property
    def visual_shape(self) -> tuple[int, int, int, int]:
        """(T, 2, 28, 28)."""
        return self.steps, 2, SIZE, SIZE

    def layout(self) -> dict[str, str]:
        """What each axis of the frames means, in words."""
        return {
            "audio": (
                f"uint8 {self.audio_shape} = (step, input channel, row, column), quarters of an "
                "event: 64 cochlear channels as 8x8, drawn bilinearly to 28x28; steps are equal "
                "parts of each recording's own duration"
            ),
            "visual": (
                f"uint8 {self.visual_shape} = (step, polarity 0 OFF 1 ON, row y, column x) event "
                "counts; steps are equal parts of each recording's own duration"
            ),
        }


class Spans(NamedTuple):
    """When the first step of every recording begins and how long a step lasts, us, (N,) int64."""

    start: np.ndarray
    step: np.ndarray


def spans(events: Ragged, steps: int) -> Spans:
    """The spans of every recording by its own first and last event; 0, 0 for one without any."""
    start, end = np.zeros((2, len(events)), np.int64)
    filled = np.flatnonzero(events.counts)
    if len(filled):
        time = events["time"].astype(np.int64)
        # Between the starts of two recordings that hold events lie those of the first alone.
        first = events.offsets[filled]
        start[filled] = np.minimum.reduceat(time, first)
        end[filled] = np.maximum.reduceat(time, first)
    return Spans(start, (end - start) // steps)


def _step(events: Ragged, steps: int, given: Spans) -> tuple[np.ndarray, np.ndarray]:
    """Number of the step of every event, and whether it is within the recording's steps."""
    item = events.item
    after = events["time"].astype(np.int64) - given.start[item]
    width = given.step[item]
    step = np.floor_divide(after, np.maximum(width, 1))
    return step, (width > 0) & (after >= 0) & (step < steps)


def bin_visual(
    events: Ragged, steps: int, given: Spans | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Counts (N, T, 2, 28, 28) uint8, and the events cut off, (N,) int64.

    events: columns x, y, p and time, any integer types. given: the spans, by default the
    recordings' own. Events outside the steps or the 28x28 pixels are left out.
    """
    step, inside = _step(events, steps, given or spans(events, steps))
    x, y = events["x"].astype(np.int64), events["y"].astype(np.int64)
    inside &= (x >= 0) & (x < SIZE) & (y >= 0) & (y < SIZE)
    frame = (events.item * steps + step) * 2 + events["p"].astype(np.int64)
    cell = ((frame * SIZE + y) * SIZE + x)[inside]
    return _counts(cell, (len(events), steps, 2, SIZE, SIZE), MAX_COUNT)


def bin_audio(
    events: Ragged, steps: int, given: Spans | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Counts per channel (N, T, 64) uint8, at most 63, and the events cut off, (N,) int64.

    events: columns channel and time, any integer types.
    """
    step, inside = _step(events, steps, given or spans(events, steps))
    channel = events["channel"].astype(np.int64)
    inside &= (channel >= 0) & (channel < CHANNELS)
    cell = ((events.item * steps + step) * CHANNELS + channel)[inside]
    return _counts(cell, (len(events), steps, CHANNELS), MAX_EVENTS)


def _counts(cell: np.ndarray, shape: tuple[int, ...], most: int) -> tuple[np.ndarray, np.ndarray]:
    counts = np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape)
    excess = np.maximum(counts - most, 0).reshape(shape[0], -1).sum(axis=1)
    return np.minimum(counts, most).astype(np.uint8), excess


def _weights() -> np.ndarray:
    """Bilinear weights (28, 8), in fourteenths: whole numbers."""
    # (i + 1/2) * 8/28 - 1/2, the place of pixel i among the 8, in fourteenths
    place = np.maximum(4 * np.arange(SIZE) - 5, 0)
    weights = np.zeros((SIZE, _ROWS))
    low, part = np.divmod(place, _DENOMINATOR)
    rows = np.arange(SIZE)
    np.add.at(weights, (rows, low), _DENOMINATOR - part)
    np.add.at(weights, (rows, np.minimum(low + 1, _ROWS - 1)), part)
    return weights


def drawn(counts: np.ndarray) -> np.ndarray:
    """Quarters of events (N, T, 1, 28, 28) uint8 from counts per channel (N, T, 64), at most 63."""
    items, steps, _ = counts.shape
    flat = counts.reshape(-1, _ROWS, _ROWS)
    weights = _weights()
    out = np.empty((len(flat), SIZE, SIZE), np.uint8)
    for first in range(0, len(flat), _CHUNK):
        part = slice(first, first + _CHUNK)
        # In 196ths, whole numbers far below 2^53: exact. 49ths of a quarter never lie half way.
        exact = weights @ flat[part].astype(np.float64) @ weights.T
        whole = _DENOMINATOR**2 // QUARTERS
        out[part] = (2 * exact.astype(np.int64) + whole) // (2 * whole)
    return out.reshape(items, steps, 1, SIZE, SIZE)


def shifted(frames: np.ndarray, reach: int, rng: np.random.Generator) -> np.ndarray:
    """Frames (N, ..., H, W), each sample moved by up to ``reach`` pixels each way, zeros behind.

    That is ``torchvision.transforms.RandomCrop(H, padding=reach)``; one draw per sample.
    """
    height, width = frames.shape[-2:]
    moves = rng.integers(0, 2 * reach + 1, (len(frames), 2))
    padded = np.zeros((*frames.shape[1:-2], height + 2 * reach, width + 2 * reach), frames.dtype)
    inner = (..., slice(reach, reach + height), slice(reach, reach + width))
    out = np.empty_like(frames)
    for sample, (row, column) in enumerate(moves):
        padded[inner] = frames[sample]
        out[sample] = padded[..., row : row + height, column : column + width]
    return out


class _Kept(NamedTuple):
    """Frames of a whole split, None where a modality lacks, and events cut off by sample."""

    audio: np.ndarray | None
    visual: np.ndarray | None
    clipped: np.ndarray


@dataclass(frozen=True)
class BinnedSplit(AVSplit):
    """One split of recordings laid out so; its frames are binned once and kept."""

    @cached_property
    def _kept(self) -> _Kept:
        return self._binned(*self._events(self.rows))

    def frames(self, indices=None) -> Frames:
        """As ``AVSplit.frames``; those of the whole split are shared: leave them as they are."""
        if indices is None:
            kept = self._kept
            return Frames(kept.audio, kept.visual, self.labels, int(kept.clipped.sum()))
        rows = self._rows(indices)  # refuses those outside
        if "_kept" not in self.__dict__:  # a few samples: bin them alone
            return self._bin(*self._events(rows), self.recordings.labels[rows])
        places, kept = np.asarray(indices, np.int64).reshape(-1), self._kept
        audio, visual = (part if part is None else part[places] for part in kept[:2])
        return Frames(audio, visual, self.labels[places], int(kept.clipped[places].sum()))

    def altered(self, change, indices=None) -> Frames:
        """As ``AVSplit.altered``. The steps stay those of the unaltered recordings, so that moved
        events may leave them, as events leave a fixed window."""
        rows = self._rows(indices)
        audio, visual = self._events(rows)
        given = [None if part is None else spans(part, self.spec.steps) for part in (audio, visual)]
        audio, visual = audio and change("audio", audio), visual and change("visual", visual)
        kept = self._binned(audio, visual, *given)
        labels = self.recordings.labels[rows]
        return Frames(kept.audio, kept.visual, labels, int(kept.clipped.sum()))

    def augmented(self, augmentation: Augmentation, rng: np.random.Generator) -> Frames:
        """One epoch of training: every sound once, pictures moved by up to ``image_shift`` units
        of two pixels, and re-paired within the label unless the protocol is as published.

        DataError for a split other than train, or an augmentation with anything else.
        """
        if self.name != "train":
            raise DataError(f"split {self.name!r} is never augmented: use split 'train'")
        _check(augmentation)
        kept, visual, clipped = self._kept, self._kept.visual, self._kept.clipped
        if visual is not None:
            if augmentation.repair and self.recordings.meta.get("protocol") != "paper":
                visual = visual[repair(self.labels, rng)]
            visual = shifted(visual, SHIFT_PER_UNIT * augmentation.image_shift, rng)
        return Frames(kept.audio, visual, self.labels.copy(), int(clipped.sum()))

    def _bin(self, audio: Ragged | None, visual: Ragged | None, labels: np.ndarray) -> Frames:
        kept = self._binned(audio, visual)
        return Frames(kept.audio, kept.visual, labels, int(kept.clipped.sum()))

    def _binned(
        self,
        audio: Ragged | None,
        visual: Ragged | None,
        audio_spans: Spans | None = None,
        visual_spans: Spans | None = None,
    ) -> _Kept:
        steps, heard, seen = self.spec.steps, None, None
        clipped = np.zeros(max(len(part) for part in (audio, visual) if part is not None), np.int64)
        if audio is not None:
            counts, lost = bin_audio(audio, steps, audio_spans)
            heard, clipped = drawn(counts), clipped + lost
        if visual is not None:
            seen, lost = bin_visual(visual, steps, visual_spans)
            clipped = clipped + lost
        return _Kept(heard, seen, clipped)

    def raw_events(self, index: int) -> dict[str, Any]:
        """As ``AVSplit.raw_events``; the windows are this recording's own durations, from 0."""
        (row,) = self._rows([index])
        whole = self.recordings
        found: dict[str, Any] = {
            "audio": whole.audio and whole.audio.one(row),
            "visual": whole.visual and whole.visual.one(row),
            "label": int(whole.labels[row]),
            "class": whole.meta["classes"][whole.labels[row]],
            "source": {name: array[row] for name, array in whole.source.items()},
            "audio_channels": CHANNELS,
            "sensor": SIZE,
        }
        for modality in ("audio", "visual"):
            events = found[modality]
            # One more than the last time, so that the last event lies within.
            last = int(events["time"].max()) if events and len(events["time"]) else 0
            found[f"{modality}_window_us"] = last + 1
        return found


def _check(augmentation: Augmentation) -> None:
    """DataError for changes that would need the events binned anew in every epoch."""
    only = ("image_shift", "repair")
    if asked := [k for k, v in vars(augmentation).items() if v and k not in only]:
        raise DataError(
            f"augmentation {', '.join(asked)}: recordings binned by their own duration take "
            "image_shift and repair only; set the others to 0"
        )
