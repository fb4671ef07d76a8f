"""Disturbances of test recordings: noise on event counts, lost and displaced events, silence.

Pure functions of recordings and random streams. Every sample has a stream of its own, made from a
seed, the disturbance's name and the sample's number, so a disturbed sample is the same whichever
samples are taken together. Levels of one disturbance share the stream: the noise of 0 dB is that of
10 dB but larger, and what is lost at 20 % is lost at 40 % as well.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np

from neuroav.data.ragged import Ragged
from neuroav.errors import ConfigError


def streams(seed: int, name: str, samples: Iterable[int]) -> list[np.random.Generator]:
    """Return one random stream per sample number, the same for equal arguments everywhere.

    name: of the disturbance and what it falls on, so that audio and visual get unlike noise.
    """
    kind = zlib.crc32(name.encode())  # not hash(), which differs from process to process
    return [np.random.default_rng([seed, kind, int(sample)]) for sample in samples]


def add_noise(
    counts: np.ndarray, snr_db: float, max_count: int, rngs: Sequence[np.random.Generator]
) -> np.ndarray:
    """Return ``counts`` plus white Gaussian noise, as whole counts in 0..max_count.

    counts: integers (samples, steps, *shape). The noise's power, per sample, is that of the signal
    (the mean of count^2 over all its cells, empty ones included) divided by 10^(snr_db / 10).
    Sums are rounded and clipped because a sensor sends whole, non-negative counts. So the noise
    that arrives is not what was added: below a standard deviation of about 0.1 counts rounding
    removes all of it, and in empty cells only the positive half is left. Returns int32 of the same
    shape; a sample without events stays empty.
    """
    noisy = np.empty(counts.shape, np.int32)
    for sample, (clean, rng) in enumerate(zip(counts, rngs, strict=True)):
        clean = clean.astype(np.float64)
        deviation = np.sqrt(np.mean(clean**2) / 10 ** (snr_db / 10))
        noise = rng.standard_normal(clean.shape) * deviation
        noisy[sample] = np.clip(np.rint(clean + noise), 0, max_count)
    return noisy


def add_static_noise(
    values: np.ndarray, snr_db: float, rngs: Sequence[np.random.Generator]
) -> np.ndarray:
    """Return real values plus white Gaussian noise, one picture of it repeated in every step.

    values: (samples, steps, *shape), the same in every step. The noise's power, per sample, is the
    mean of value^2 divided by 10^(snr_db / 10). Returns float64 of the same shape.
    """
    noisy = np.empty(values.shape, np.float64)
    for sample, (clean, rng) in enumerate(zip(values, rngs, strict=True)):
        deviation = np.sqrt(np.mean(clean[0].astype(np.float64) ** 2) / 10 ** (snr_db / 10))
        noisy[sample] = clean + rng.standard_normal(clean.shape[1:]) * deviation
    return noisy


def drop_events(events: Ragged, share: float, rngs: Sequence[np.random.Generator]) -> Ragged:
    """Return the recordings with every event lost with probability ``share``, independently.

    ConfigError for a share outside 0..1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share of events to drop is {share}: allowed are 0 to 1")
    return events.keep(_draw(events, rngs, np.random.Generator.random) >= share)


def jitter_events(events: Ragged, sigma_us: float, rngs: Sequence[np.random.Generator]) -> Ragged:
    """Return the recordings with every time moved by Gaussian noise of ``sigma_us`` microseconds.

    Column ``time`` becomes int64, no longer sorted; some may lie outside the window, where binning
    leaves them out. ConfigError for a negative amount.
    """
    if sigma_us < 0:
        raise ConfigError(f"time jitter is {sigma_us} us: allowed are 0 and more")
    moved = _draw(events, rngs, np.random.Generator.standard_normal) * sigma_us
    time = events["time"].astype(np.int64) + np.rint(moved).astype(np.int64)
    return Ragged({**events.columns, "time": time}, events.offsets)


def silence(counts: np.ndarray) -> np.ndarray:
    """Return counts of a sensor that sends nothing: zeros of the same shape and type."""
    return np.zeros_like(counts)


def _draw(events: Ragged, rngs: Sequence[np.random.Generator], kind) -> np.ndarray:
    """One number per event, float64 (events,), each item's from its own stream."""
    numbers = [kind(rng, count) for rng, count in zip(rngs, events.counts, strict=True)]
    return np.concatenate([np.empty(0), *numbers])
