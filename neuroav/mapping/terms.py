"""Counts over boxes of neurons that are products along the axes, for every way to cut an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Table = np.ndarray | None


@dataclass(frozen=True, eq=False)
class Term:
    """A count over the neurons of a box: sum over k of the product over axes of tables[axis][:, k].

    tables: int64 (size of the axis, K), summed over the box's range; None where the count is the
    same for any range, as a kernel that all places share.
    """

    tables: tuple[Table, ...]

    @cached_property
    def _sums(self) -> tuple[Table, ...]:
        return tuple(
            None if t is None else np.concatenate([np.zeros_like(t[:1]), np.cumsum(t, axis=0)])
            for t in self.tables
        )

    @property
    def once(self) -> bool:
        """Whether slices of the same channels have it in common."""
        return any(t is None for t in self.tables)

    def of(self, boxes: np.ndarray) -> np.ndarray:
        """Return the count of every box, int64 (boxes,); boxes: int64 (boxes, axes, 2)."""
        parts = [
            along[boxes[:, axis, 1]] - along[boxes[:, axis, 0]]
            for axis, along in enumerate(self._sums)
            if along is not None
        ]
        return np.prod(parts, axis=0).sum(axis=1) if parts else np.ones(len(boxes), np.int64)

    def grid(self) -> np.ndarray:
        """Return the count of every neuron, int64 of the population's shape."""
        tables = [np.ones((1, 1), np.int64) if t is None else t for t in self.tables]
        return joined(tables)

    def parts(self, axis: int, cuts: Cuts) -> tuple[np.ndarray, np.ndarray]:
        """Return the largest part and the sum of all parts, (candidates, K) each, of an axis."""
        along = self._sums[axis]
        if along is None:
            return np.ones((len(cuts), 1), np.int64), cuts.parts[:, None]
        return cuts.largest_and_sum(along[cuts.last] - along[cuts.first])


def ones(shape: Sequence[int], factor: int = 1) -> Term:
    """Return the term that counts ``factor`` for every neuron."""
    tables = [np.ones((size, 1), np.int64) for size in shape]
    tables[0] *= factor
    return Term(tuple(tables))


def joined(along: Sequence[np.ndarray]) -> np.ndarray:
    """Return the sum over k of products of (n, K) arrays, one axis of the result from each."""
    found = along[0]
    for one in along[1:]:
        found = found[..., None, :] * one
    return found.sum(axis=-1)


@dataclass(frozen=True, eq=False)
class Cuts:
    """Every useful way to cut one axis into parts of nearly equal size.

    Candidate i has ``parts[i]`` parts; those of all candidates stand one after the other in
    ``first`` and ``last`` (half open), candidate i from ``start[i]`` on.
    """

    parts: np.ndarray
    first: np.ndarray
    last: np.ndarray
    start: np.ndarray

    def __len__(self) -> int:
        return len(self.parts)

    def edges(self, candidate: int) -> np.ndarray:
        """Return first neuron of every part, and the end, int64 (parts + 1,)."""
        begin = self.start[candidate]
        end = begin + self.parts[candidate]
        return np.append(self.first[begin:end], self.last[end - 1])

    def largest_and_sum(self, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return maximum and sum over every candidate's parts of ``value`` (all parts, ...)."""
        return (
            np.maximum.reduceat(value, self.start, axis=0),
            np.add.reduceat(value, self.start, axis=0),
        )


def cuts(size: int, unit: int = 1) -> Cuts:
    """Return the candidates for an axis of ``size`` neurons that is cut at multiples of ``unit``.

    One candidate per size of the largest part: fewer parts would not make it smaller.
    """
    units = size // unit
    parts = np.unique(-(-units // np.arange(1, units + 1)))
    edges = [np.arange(p + 1) * units // p * unit for p in parts.tolist()]
    return Cuts(
        parts.astype(np.int64),
        np.concatenate([e[:-1] for e in edges]),
        np.concatenate([e[1:] for e in edges]),
        np.concatenate([[0], np.cumsum(parts)[:-1]]).astype(np.int64),
    )
