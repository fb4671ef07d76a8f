"""Random changes of training recordings, made on their events.

All amounts are assumed. The defaults are those of av-digits, where stronger ones and masking
lowered the accuracy of small networks; a data set's own are in ``DatasetInfo.augmentation``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroav.data.ragged import Ragged
from neuroav.errors import ConfigError


@dataclass(frozen=True)
class Augmentation:
    """Largest amounts; every recording draws its own, evenly, for each modality.

    stretch: relative change of time about the window's middle. shift: of the window, earlier or
    later. drop: largest share of events lost. channel_shift: cochlear channels up or down.
    image_shift: pixels of a 16x16 image, two of the sensor, each way. repair: pair every sound with
    a random picture of the same label. band_mask: neighbouring cochlear channels silenced.
    time_mask: share of the audio window silenced (both as SpecAugment does, Park et al. 2019).
    ConfigError for negative values or shares of one and more.
    """

    stretch: float = 0.06
    shift: float = 0.04
    drop: float = 0.2
    channel_shift: int = 1
    image_shift: int = 1
    repair: bool = True
    band_mask: int = 0
    time_mask: float = 0.0

    def __post_init__(self) -> None:
        for key in ("stretch", "shift", "drop", "time_mask"):
            if not 0 <= getattr(self, key) < 1:
                raise ConfigError(f"augmentation {key} {getattr(self, key)}: allowed are 0 to < 1")
        for key, most in (("channel_shift", 8), ("image_shift", 8), ("band_mask", 32)):
            if getattr(self, key) not in range(most + 1):
                raise ConfigError(
                    f"augmentation {key} {getattr(self, key)}: allowed are 0 to {most}"
                )


NONE = Augmentation(stretch=0, shift=0, drop=0, channel_shift=0, image_shift=0, repair=False)


def repair(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A permutation (N,) that moves every entry only within its label, drawn evenly.

    Every picture is used once per epoch, beside another sound of its digit.
    """
    partner = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        partner[mine] = rng.permutation(mine)
    return partner


def _warped(
    events: Ragged, amount: Augmentation, window_us: int, rng: np.random.Generator
) -> tuple[Ragged, np.ndarray]:
    """Drop events; return those left, and their stretched and shifted times (int64, us)."""
    items = len(events)
    factor = 1 + amount.stretch * rng.uniform(-1, 1, items)
    delay = amount.shift * window_us * rng.uniform(-1, 1, items)
    lost = amount.drop * rng.random(items)
    left = events.keep(rng.random(len(events["time"])) >= lost[events.item])
    item, middle = left.item, window_us / 2
    time = (left["time"] - middle) * factor[item] + middle + delay[item]
    return left, np.floor(time).astype(np.int64)


def _outside_mask(
    events: Ragged, column: str, widest: float, extent: float, rng: np.random.Generator
) -> Ragged:
    """Silence one span of ``column`` per item, as wide as up to ``widest``, within 0..extent.

    Draws nothing when ``widest`` is 0, so that a mask that is off leaves other draws as they were.
    """
    if not widest:
        return events
    width = widest * rng.random(len(events))
    start = (extent - width) * rng.random(len(events))
    place, item = events[column] + 0.5, events.item  # channel c covers c to c + 1
    return events.keep((place < start[item]) | (place >= (start + width)[item]))


def augment_audio(
    events: Ragged,
    amount: Augmentation,
    window_us: int,
    rng: np.random.Generator,
    channels: int = 64,
) -> Ragged:
    """Changed audio events, columns channel and time int64; some may now lie outside."""
    left, time = _warped(events, amount, window_us, rng)
    shift = rng.integers(-amount.channel_shift, amount.channel_shift + 1, len(events))
    channel = left["channel"] + shift[left.item]
    changed = Ragged({"channel": channel, "time": time}, left.offsets)
    changed = _outside_mask(changed, "channel", amount.band_mask, channels, rng)
    return _outside_mask(changed, "time", amount.time_mask * window_us, window_us, rng)


def augment_visual(
    events: Ragged, amount: Augmentation, window_us: int, rng: np.random.Generator
) -> Ragged:
    """Changed visual events, columns x, y, time int64 and p; some may now lie outside."""
    left, time = _warped(events, amount, window_us, rng)
    reach = 2 * amount.image_shift
    shift = rng.integers(-reach, reach + 1, (2, len(events)))
    item = left.item
    columns = {"x": left["x"] + shift[0][item], "y": left["y"] + shift[1][item]}
    return Ragged({**columns, "p": left["p"], "time": time}, left.offsets)
