"""Events to network input: event counts in equal spans of time.

Visual, shape (N, T, 2, S, S), axes step, polarity (0 OFF, 1 ON), row y, column x. The sensor is cut
to its central 32x32 pixels and binned 2x2 to S = 16, or left at S = 32. Step t holds the events
with ``t * W / T <= time < (t + 1) * W / T``, W the visual window (av-digits: 300 ms).

Audio, shape (N, T, C, R, F), axes step, input channel, row, fine time bin. Cochlear channel c
(0 = lowest frequency) goes to input channel ``c // R`` and row ``c % R``: with C = R = 8 an input
channel is a band of eight neighbouring cochlear channels ("band" layout). Each step spans 1 / T of
the audio window (av-digits: 640 ms, fixed for all words), in F equal fine bins.

Counts are uint8. A cell that would hold more than 255 is cut there and the excess is counted in
``Frames.clipped``. An audio cell of av-digits holds at most one spike per 3 ms, 27 at T = 1; the
fullest visual cell seen, in the preset easy at T = 1, holds 41.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroav.data.ragged import Ragged
from neuroav.errors import ConfigError

CROP = 32
MAX_STEPS = 64
MAX_COUNT = 255


@dataclass(frozen=True)
class FrameSpec:
    """Sizes of the network input; the module's text says which index is which.

    steps T 1..64. visual_size 16 or 32. audio_channels * audio_rows must divide the number of
    cochlear channels (64): neighbours are added when it is smaller. audio_fine_bins 1..64.
    ConfigError for other values.
    """

    steps: int = 8
    visual_size: int = 16
    audio_channels: int = 8
    audio_rows: int = 8
    audio_fine_bins: int = 8

    def __post_init__(self) -> None:
        _allowed("steps", self.steps, range(1, MAX_STEPS + 1))
        _allowed("audio_fine_bins", self.audio_fine_bins, range(1, 65))
        if self.visual_size not in (16, 32):
            raise ConfigError(f"visual_size {self.visual_size}: allowed are 16 and 32")
        bands = self.audio_channels * self.audio_rows
        if min(self.audio_channels, self.audio_rows) < 1 or 64 % bands:
            raise ConfigError(
                f"audio_channels {self.audio_channels} x audio_rows {self.audio_rows}: "
                "the product must divide the 64 cochlear channels"
            )

    @property
    def audio_shape(self) -> tuple[int, int, int, int]:
        """(T, C, R, F)."""
        return self.steps, self.audio_channels, self.audio_rows, self.audio_fine_bins

    @property
    def visual_shape(self) -> tuple[int, int, int, int]:
        """(T, 2, S, S)."""
        return self.steps, 2, self.visual_size, self.visual_size


def _allowed(key: str, value: int, allowed: range) -> None:
    if not isinstance(value, int) or value not in allowed:
        raise ConfigError(f"{key} {value}: allowed are {allowed[0]} to {allowed[-1]}")


@dataclass(frozen=True)
class Frames:
    """Network input: audio (N, T, C, R, F) and visual (N, T, 2, S, S) uint8, labels (N,) int64.

    Of pictures and spectrograms float32, the same in every step. None for a modality that the data
    lack. clipped: events lost because a cell was full.
    """

    audio: np.ndarray | None
    visual: np.ndarray | None
    labels: np.ndarray
    clipped: int = 0

    def __len__(self) -> int:
        return len(self.labels)


def _count(cell: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """Events per cell, uint8 ``shape``, from flat cell numbers; and how many did not fit."""
    counts = np.bincount(cell, minlength=int(np.prod(shape)))
    excess = int(np.maximum(counts - MAX_COUNT, 0).sum())
    return np.minimum(counts, MAX_COUNT).astype(np.uint8).reshape(shape), excess


def _time_bin(time: np.ndarray, bins: int, window_us: int) -> np.ndarray:
    """Number of the equal span of the window that each time (us) lies in; may be out of range."""
    return time.astype(np.int64) * bins // window_us


def bin_audio(
    events: Ragged, spec: FrameSpec, window_us: int, channels: int
) -> tuple[np.ndarray, int]:
    """Counts (N, T, C, R, F) uint8, and the events clipped; events outside the window are left out.

    events: columns channel and time, any integer type (times may be negative).
    """
    fine = _time_bin(events["time"], spec.steps * spec.audio_fine_bins, window_us)
    channel = events["channel"].astype(np.int64)
    inside = (
        (fine >= 0)
        & (fine < spec.steps * spec.audio_fine_bins)
        & (channel >= 0)
        & (channel < channels)
    )
    fine, channel, item = fine[inside], channel[inside], events.item[inside]
    band = channel * (spec.audio_channels * spec.audio_rows) // channels
    step, within = np.divmod(fine, spec.audio_fine_bins)
    rows = spec.audio_channels * spec.audio_rows
    cell = ((item * spec.steps + step) * rows + band) * spec.audio_fine_bins + within
    return _count(cell, (len(events), *spec.audio_shape))


def bin_visual(
    events: Ragged, spec: FrameSpec, window_us: int, sensor: int
) -> tuple[np.ndarray, int]:
    """Counts (N, T, 2, S, S) uint8, and the events clipped; events outside are left out.

    events: columns x, y, p and time, any integer type (places and times may be negative).
    """
    margin = (sensor - CROP) // 2
    scale = CROP // spec.visual_size
    step = _time_bin(events["time"], spec.steps, window_us)
    x = (events["x"].astype(np.int64) - margin) // scale
    y = (events["y"].astype(np.int64) - margin) // scale
    size = spec.visual_size
    inside = (step >= 0) & (step < spec.steps)
    inside &= (x >= 0) & (x < size) & (y >= 0) & (y < size)
    frame = (events.item * spec.steps + step) * 2 + events["p"]
    cell = (frame * size + y) * size + x
    return _count(cell[inside], (len(events), *spec.visual_shape))
