"""A prepared data set as networks see it: splits, frames, augmentation, and the raw events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroav.data.augment import Augmentation, augment_audio, augment_visual, repair
from neuroav.data.cache import SPLITS, Recordings
from neuroav.data.frames import Frames, FrameSpec, bin_audio, bin_visual
from neuroav.data.ragged import Ragged
from neuroav.errors import DataError, unknown_name


@dataclass(frozen=True)
class AVSplit:
    """One split: fixed pairs in manifest order.

    name: train, val or test. labels (N,) int64. recordings: the whole data set; rows (N,) int64:
    this split's places in it. spec: the layout of the frames.
    """

    name: str
    labels: np.ndarray
    recordings: Recordings
    rows: np.ndarray
    spec: FrameSpec

    def __len__(self) -> int:
        return len(self.labels)

    def _rows(self, indices: Sequence[int] | np.ndarray | None) -> np.ndarray:
        """Places in the recordings of this split's ``indices``; DataError if one is outside."""
        if indices is None:
            return self.rows
        wanted = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(wanted) and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise DataError(
                f"split {self.name!r}: samples {wanted.min()} to {wanted.max()} asked for, "
                f"allowed are 0 to {len(self) - 1}"
            )
        return self.rows[wanted]

    def frames(self, indices: Sequence[int] | np.ndarray | None = None) -> Frames:
        """Frames of the fixed pairs, unaltered: all in manifest order, or those at ``indices``."""
        rows = self._rows(indices)
        audio, visual = self.recordings.audio.take(rows), self.recordings.visual.take(rows)
        return self._bin(audio, visual, self.recordings.labels[rows])

    def altered(
        self,
        change: Callable[[str, Ragged], Ragged],
        indices: Sequence[int] | np.ndarray | None = None,
    ) -> Frames:
        """Frames as ``frames`` gives them, from events that ``change`` has altered.

        change: called with 'audio' and with 'visual' and the events of the chosen samples, in their
        order; returns as many items.
        """
        rows = self._rows(indices)
        audio = change("audio", self.recordings.audio.take(rows))
        visual = change("visual", self.recordings.visual.take(rows))
        return self._bin(audio, visual, self.recordings.labels[rows])

    def augmented(self, augmentation: Augmentation, rng: np.random.Generator) -> Frames:
        """One epoch of training: every sound once, re-paired and altered, in manifest order.

        Deterministic given the state of ``rng``. DataError for a split other than train.
        """
        if self.name != "train":
            raise DataError(f"split {self.name!r} is never augmented: use split 'train'")
        partner = repair(self.labels, rng) if augmentation.repair else np.arange(len(self))
        meta = self.recordings.meta
        audio = self.recordings.audio.take(self.rows)
        audio = augment_audio(
            audio, augmentation, meta["audio_window_us"], rng, meta["audio_channels"]
        )
        visual = self.recordings.visual.take(self.rows[partner])
        visual = augment_visual(visual, augmentation, meta["visual_window_us"], rng)
        return self._bin(audio, visual, self.labels.copy())

    def _bin(self, audio: Ragged, visual: Ragged, labels: np.ndarray) -> Frames:
        meta = self.recordings.meta
        heard, lost = bin_audio(audio, self.spec, meta["audio_window_us"], meta["audio_channels"])
        seen, lost_too = bin_visual(visual, self.spec, meta["visual_window_us"], meta["sensor"])
        return Frames(heard, seen, labels, lost + lost_too)

    def raw_events(self, index: int) -> dict[str, Any]:
        """Everything known of one pair, for plots.

        ``audio`` (channel, time), ``visual`` (x, y, p, time), times in us; ``label``, ``class``;
        the windows ``audio_window_us`` and ``visual_window_us``, ``audio_channels``, ``sensor``;
        ``source``: what it was made of (spectrogram; av-digits: picture 8x8 with levels 0..16,
        voice, ...; nmnist-fsdd: the files, voice, ...).
        """
        (row,) = self._rows([index])
        whole = self.recordings
        sizes = ("audio_window_us", "visual_window_us", "audio_channels", "sensor")
        return {
            "audio": whole.audio.one(row),
            "visual": whole.visual.one(row),
            "label": int(whole.labels[row]),
            "class": whole.meta["classes"][whole.labels[row]],
            "source": {name: array[row] for name, array in whole.source.items()},
            **{key: whole.meta[key] for key in sizes},
        }


@dataclass(frozen=True)
class AVData:
    """A data set ready for use. content_hash identifies its events; see ``neuroav.data.cache``.

    augmentation: what to alter its training recordings by, unless something else is wanted.
    """

    name: str
    preset: str
    data_seed: int
    content_hash: str
    classes: tuple[str, ...]
    spec: FrameSpec
    splits: dict[str, AVSplit]
    augmentation: Augmentation

    @classmethod
    def of(
        cls, recordings: Recordings, spec: FrameSpec, augmentation: Augmentation | None = None
    ) -> AVData:
        """The recordings seen through ``spec``, with the augmentation recommended for them."""
        meta = recordings.meta
        splits = {}
        for code, name in enumerate(SPLITS):
            rows = np.flatnonzero(recordings.split == code)
            splits[name] = AVSplit(name, recordings.labels[rows], recordings, rows, spec)
        classes = tuple(meta["classes"])
        content_hash = recordings.content_hash
        return cls(
            meta["name"],
            meta["preset"],
            meta["data_seed"],
            content_hash,
            classes,
            spec,
            splits,
            augmentation or Augmentation(),
        )

    def split(self, name: str) -> AVSplit:
        """The split ``train``, ``val`` or ``test``; DataError for another name."""
        if name not in self.splits:
            raise unknown_name("split", name, self.splits, DataError)
        return self.splits[name]
