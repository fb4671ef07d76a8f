"""Pictures of digits to events: a virtual event camera looking at them with three saccades.

A picture (8x8, levels 0..16) is stretched bilinearly to 24x24 pixels on a 34x34 sensor, which then
moves along a triangle with sides of about 5 pixels, 100 ms each, as N-MNIST's camera did (Orchard
et al. 2015). A pixel fires when the logarithm of its light has changed by its threshold since its
last event: about 0.35, different for every pixel and polarity (the model of v2e, Hu et al. 2021).
Then events are dropped, background events added, and the picture's place varies by some pixels.
All constants not cited are assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from neuroav.data.ragged import Ragged

SENSOR = 34
PICTURE = 24
WINDOW_US = 300_000
CORNERS = ((-2.5, -2.2), (0.0, 2.2), (2.5, -2.2), (-2.5, -2.2))  # px; x, y of the gaze
STEPS = 60  # samples of the light per recording: 5 ms each
THRESHOLD = 0.35
MISMATCH = 0.03  # standard deviation of the threshold over pixels
DARK = 0.1  # light of an empty pixel, against 1 for a full one
_CHUNK = 64  # recordings at a time; keeps the working set in the cache of one core


@dataclass(frozen=True)
class SensorNoise:
    """One value per recording, each (N,) float64, and the jitter of all.

    drop: share of events lost. background: false events per pixel and second, Hz.
    jitter: the picture's centre is off by up to this many whole pixels each way.
    """

    drop: np.ndarray
    background: np.ndarray
    jitter: int


def gaze() -> np.ndarray:
    """Position of the sensor, (STEPS + 1, 2) pixels x and y, even speed along each saccade."""
    corner = np.linspace(0, len(CORNERS) - 1, STEPS + 1)
    knots = np.arange(len(CORNERS))
    path = np.asarray(CORNERS)
    return np.stack([np.interp(corner, knots, path[:, axis]) for axis in (0, 1)], axis=1)


def _weights(centre: np.ndarray, size: int) -> np.ndarray:
    """Bilinear weights (N, SENSOR, size) of the picture's samples at every sensor row or column."""
    pixel = np.arange(SENSOR)
    place = (pixel[None, :] - centre[:, None]) * (size / PICTURE) + (size - 1) / 2
    distance = np.abs(place[:, :, None] - np.arange(size)[None, None, :])
    return np.maximum(1 - distance, 0).astype(np.float32)


def _light(pictures: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Logarithm of the light on the sensor, (N, 34, 34) float32, pictures centred at (x, y)."""
    columns = _weights(centre[:, 0], pictures.shape[2])
    rows = _weights(centre[:, 1], pictures.shape[1])
    seen = np.matmul(np.matmul(rows, pictures), columns.transpose(0, 2, 1))
    return np.log(np.float32(DARK) + np.float32(1 - DARK) * seen)


def _signal(pictures: np.ndarray, offset: np.ndarray, thresholds: np.ndarray) -> list[np.ndarray]:
    """Noise-free events of some recordings: item, y, x, polarity, time in us, unsorted.

    pictures (N, h, w) float32 in 0..1, offset (N, 2) pixels, thresholds (2, N, 34, 34): OFF, ON.
    """
    middle = (SENSOR - 1) / 2 + offset
    path = gaze()
    memory = _light(pictures, middle - path[0])
    step_us = WINDOW_US / STEPS
    found = []
    for step in range(STEPS):
        change = _light(pictures, middle - path[step + 1]) - memory
        size = np.where(change > 0, thresholds[1], thresholds[0])
        times = np.trunc(change / size)
        memory += times * size
        item, y, x = np.nonzero(times)
        count = np.abs(times[item, y, x]).astype(np.int64)
        polarity = (times[item, y, x] > 0).astype(np.uint8)
        # Crossings within a step are spread evenly over it.
        which = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        time = (step + (which + 1) / (np.repeat(count, count) + 1)) * step_us
        found.append([np.repeat(part, count) for part in (item, y, x, polarity)] + [time])
    return [np.concatenate(part) for part in zip(*found, strict=True)]


def _recordings(
    pictures: np.ndarray, noise: SensorNoise, first: int, rngs: Sequence[np.random.Generator]
) -> Ragged:
    """Recordings ``first`` onward, one per generator, drawn from them in a fixed order."""
    shape = (2, SENSOR, SENSOR)
    offset, thresholds, extra = [], [], []
    for i, rng in enumerate(rngs, start=first):
        offset.append(rng.integers(-noise.jitter, noise.jitter + 1, 2))
        thresholds.append(rng.normal(THRESHOLD, MISMATCH, shape).astype(np.float32))
        extra.append(rng.poisson(noise.background[i] * SENSOR**2 * WINDOW_US / 1e6))
    size = np.maximum(np.stack(thresholds, axis=1), np.float32(THRESHOLD / 2))
    part = pictures[first : first + len(rngs)]
    item, y, x, polarity, time = _signal(part, np.array(offset), size)
    order = np.lexsort((x, y, time, item))
    bounds = np.searchsorted(item[order], np.arange(len(rngs) + 1))
    columns = np.stack([y, x, polarity, time.astype(np.int64)])[:, order]
    events = []
    for i, rng in enumerate(rngs):
        true = columns[:, bounds[i] : bounds[i + 1]]
        true = true[:, rng.random(true.shape[1]) >= noise.drop[first + i]]
        limits = np.array([[SENSOR], [SENSOR], [2], [WINDOW_US]])
        both = np.concatenate([true, rng.integers(0, limits, (4, extra[i]))], axis=1)
        events.append(both[:, np.argsort(both[3], kind="stable")])
    owner = np.repeat(np.arange(len(rngs)), [one.shape[1] for one in events])
    y, x, polarity, time = np.concatenate(events, axis=1)
    small = {"x": x, "y": y, "p": polarity}
    columns8 = {name: column.astype(np.uint8) for name, column in small.items()}
    return Ragged.build(owner, len(rngs), **columns8, time=time.astype(np.uint32))


def record(
    pictures: np.ndarray,
    noise: SensorNoise,
    rngs: Sequence[np.random.Generator],
    on_item: Callable[[int], None] | None = None,
) -> Ragged:
    """Events of every picture (N, h, w), levels 0..16: columns x, y, p (uint8), time (uint32, us).

    p is 1 for ON, more light. ``rngs`` holds one generator per picture, so that a recording does
    not depend on its neighbours. ``on_item(done)`` is called now and then.
    """
    scaled = pictures.astype(np.float32) / 16
    parts = []
    for first in range(0, len(pictures), _CHUNK):
        parts.append(_recordings(scaled, noise, first, rngs[first : first + _CHUNK]))
        if on_item is not None:
            on_item(min(first + _CHUNK, len(pictures)))
    return Ragged.join(parts)
