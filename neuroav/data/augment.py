"""Random changes of training recordings, made on their events.

The amounts are assumed; stronger masking lowered the accuracy of small networks on av-digits.
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
    a random picture of the same label. ConfigError for negative values or shares of one and more.
    """

    stretch: float = 0.06
    shift: float = 0.04
    drop: float = 0.2
    channel_shift: int = 1
    image_shift: int = 1
    repair: bool = True

    def __post_init__(self) -> None:
        for key in ("stretch", "shift", "drop"):
            if not 0 <= getattr(self, key) < 1:
                raise ConfigError(f"augmentation {key} {getattr(self, key)}: allowed are 0 to < 1")
        for key in ("channel_shift", "image_shift"):
            if getattr(self, key) not in range(9):
                raise ConfigError(f"augmentation {key} {getattr(self, key)}: allowed are 0 to 8")


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


def augment_audio(
    events: Ragged, amount: Augmentation, window_us: int, rng: np.random.Generator
) -> Ragged:
    """Changed audio events, columns channel and time int64; some may now lie outside."""
    left, time = _warped(events, amount, window_us, rng)
    shift = rng.integers(-amount.channel_shift, amount.channel_shift + 1, len(events))
    channel = left["channel"] + shift[left.item]
    return Ragged({"channel": channel, "time": time}, left.offsets)


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
