"""Pieces of a simulation: consecutive samples, and what they gave, in memory or packed to travel.

Packed, spikes are bits; other numbers are of the smallest type that holds them, deflated.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from neuroav.counts import Counts


@dataclass(frozen=True, eq=False)
class Chunk:
    """Consecutive samples: number of the first, and what is fed, (samples, steps, *shape)."""

    first: int
    inputs: Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Packed:
    """An integer array: its shape, the type of what is stored ('' for single bits), the bytes."""

    shape: tuple[int, ...]
    dtype: str
    content: bytes


@dataclass(frozen=True, eq=False)
class Simulated:
    """What a chunk gave: scores (samples, classes) int64, counts, outputs by population, int32
    (samples, steps, *shape) or packed."""

    first: int
    scores: np.ndarray
    counts: Counts
    outputs: Mapping[str, np.ndarray | Packed]


def chunks(inputs: Mapping[str, np.ndarray], size: int) -> Iterator[Chunk]:
    """Yield the samples in runs of ``size``."""
    for first in range(0, len(next(iter(inputs.values()))), size):
        yield Chunk(first, {n: v[first : first + size] for n, v in inputs.items()})


def pack(x: np.ndarray) -> Packed:
    """Return an integer array as bits where all are 0 or 1, else as deflated small integers."""
    low, high = int(x.min(initial=0)), int(x.max(initial=0))
    if low == 0 and high <= 1:
        return Packed(x.shape, "", np.packbits(x.astype(bool).reshape(-1)).tobytes())
    kinds = ("<u1", "<i1", "<i2", "<i4")
    kind = next(k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max)
    return Packed(x.shape, kind, zlib.compress(x.astype(kind).tobytes(), 1))


def unpack(packed: np.ndarray | Packed) -> np.ndarray:
    """Return what was packed, int32, or what was not."""
    if isinstance(packed, np.ndarray):
        return packed
    if packed.dtype:
        flat = np.frombuffer(zlib.decompress(packed.content), packed.dtype).astype("<i4")
    else:
        places = np.frombuffer(packed.content, np.uint8)
        flat = _bits()[places].reshape(-1)[: int(np.prod(packed.shape))]
    return flat.reshape(packed.shape)


@cache
def _bits() -> np.ndarray:
    """Return the bits of every byte, int32 (256, 8): looking up is quicker than shifting."""
    every = np.arange(256, dtype=np.uint8)[:, None]
    return np.unpackbits(every, axis=1).astype("<i4")
