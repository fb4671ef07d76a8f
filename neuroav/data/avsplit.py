"""One split of a prepared data set: frames for networks, augmentation, and the raw events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from neuroav.data.augment import Augmentation, augment_audio, augment_visual, repair
from neuroav.data.cache import Recordings
from neuroav.data.frames import Frames, bin_audio, bin_visual
from neuroav.data.ragged import Ragged
from neuroav.errors import DataError


@dataclass(frozen=True)
class AVSplit:
    """One split: fixed pairs in manifest order.

    name: train, val or test. labels (N,) int64. recordings: the whole data set; rows (N,) int64:
    this split's places in it. spec: the layout of the frames, here a ``FrameSpec``; subclasses have
    others. has_events: whether there are events behind the frames, to alter or to draw.
    """

    has_events: ClassVar[bool] = True
    name: str
    labels: np.ndarray
    recordings: Recordings
    rows: np.ndarray
    spec: Any

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
        return self._bin(*self._events(rows), self.recordings.labels[rows])

    def _events(self, rows: np.ndarray) -> tuple[Ragged | None, Ragged | None]:
        """Audio and visual events of the recordings at ``rows``, None for what the data lack."""
        both = self.recordings.audio, self.recordings.visual
        audio, visual = (events and events.take(rows) for events in both)
        return audio, visual

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
        audio, visual = self._events(rows)
        audio, visual = audio and change("audio", audio), visual and change("visual", visual)
        return self._bin(audio, visual, self.recordings.labels[rows])

    def augmented(self, augmentation: Augmentation, rng: np.random.Generator) -> Frames:
        """One epoch of training: every sound once, re-paired and altered, in manifest order.

        Deterministic given the state of ``rng``. DataError for a split other than train.
        """
        if self.name != "train":
            raise DataError(f"split {self.name!r} is never augmented: use split 'train'")
        partner = repair(self.labels, rng) if augmentation.repair else np.arange(len(self))
        meta = self.recordings.meta
        audio, _ = self._events(self.rows)
        if audio is not None:
            window, channels = meta["audio_window_us"], meta["audio_channels"]
            audio = augment_audio(audio, augmentation, window, rng, channels)
        _, visual = self._events(self.rows[partner])
        if visual is not None:
            visual = augment_visual(visual, augmentation, meta["visual_window_us"], rng)
        return self._bin(audio, visual, self.labels.copy())

    def _bin(self, audio: Ragged | None, visual: Ragged | None, labels: np.ndarray) -> Frames:
        meta, clipped = self.recordings.meta, 0
        heard = seen = None
        if audio is not None:
            window, channels = meta["audio_window_us"], meta["audio_channels"]
            heard, clipped = bin_audio(audio, self.spec, window, channels)
        if visual is not None:
            seen, lost = bin_visual(visual, self.spec, meta["visual_window_us"], meta["sensor"])
            clipped += lost
        return Frames(heard, seen, labels, clipped)

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
            "audio": whole.audio and whole.audio.one(row),
            "visual": whole.visual and whole.visual.one(row),
            "label": int(whole.labels[row]),
            "class": whole.meta["classes"][whole.labels[row]],
            "source": {name: array[row] for name, array in whole.source.items()},
            **{key: whole.meta[key] for key in sizes},
        }
