"""How the axes of a projection's two populations hang together: what a part of one end sees.

A *tie* belongs to an axis of the target. For any way to cut that axis it says how many places of a
source's axis every part sees, and by how many parts every place is seen. Products over the axes
bound axons of slices that lie in a grid, without looking at single neurons; zero weights inside a
kernel are the only thing they overlook.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from neuroav import integer as ig
from neuroav.mapping.terms import Cuts, Term
from neuroav.synapses import kernel


@dataclass(frozen=True)
class Tie:
    """An axis of the target that sees, whatever its part, all that is not tied to another axis.

    source_axis: axis of the source it is tied to.
    """

    source_axis: int | None

    def seen(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        """Return how many source places the parts from ``first`` to ``last`` see, (parts,)."""
        return np.ones(len(first), np.int64)

    def seen_by(self, edges: np.ndarray) -> np.ndarray | int:
        """Return how many parts see every place of the source's axis, or each of its neurons."""
        return len(edges) - 1


@dataclass(frozen=True)
class Same(Tie):
    """Place i sees place i of the source's axis."""

    def seen(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        return last - first

    def seen_by(self, edges: np.ndarray) -> np.ndarray | int:
        return 1


@dataclass(frozen=True, eq=False)
class Window(Tie):
    """Place i sees the places of the source's axis where row i of ``matrix`` is true."""

    matrix: np.ndarray

    @cached_property
    def _sums(self) -> np.ndarray:
        sums = np.cumsum(self.matrix, axis=0, dtype=np.int32)
        return np.concatenate([np.zeros_like(sums[:1]), sums])

    def _any(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        return self._sums[last] > self._sums[first]

    def seen(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        return self._any(first, last).sum(axis=1)

    def seen_by(self, edges: np.ndarray) -> np.ndarray | int:
        return self._any(edges[:-1], edges[1:]).sum(axis=0)


@dataclass(frozen=True, eq=False)
class Rows(Tie):
    """Neuron i sees as many of the source's neurons as its row of weights has non-zero ones.

    counts: int64 (neurons,); used: source neurons with any non-zero weight.
    """

    counts: np.ndarray
    used: int

    def seen(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        along = np.concatenate([[0], np.cumsum(self.counts)])
        return np.minimum(along[last] - along[first], self.used)


@dataclass(frozen=True)
class Span(Tie):
    """Neurons from ``offset`` on see the source's ``size`` neurons, one each."""

    offset: int
    size: int

    def seen(self, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        low, high = np.maximum(first, self.offset), np.minimum(last, self.offset + self.size)
        return np.maximum(high - low, 0)

    def seen_by(self, edges: np.ndarray) -> np.ndarray | int:
        return 1


@dataclass(frozen=True, eq=False)
class Link:
    """One projection: a tie per axis of its target.

    source, target: names; shape: of the source; free: source neurons at every place of the tied
    axes, all seen by a part that sees the place.
    """

    source: str
    target: str
    shape: ig.Shape
    ties: tuple[Tie, ...]
    free: int = 1

    def axons(self, boxes: np.ndarray) -> np.ndarray:
        """Return how many source neurons every box of the target sees, int64 (boxes,)."""
        found = np.full(len(boxes), self.free, np.int64)
        for axis, tie in enumerate(self.ties):
            found *= tie.seen(boxes[:, axis, 0], boxes[:, axis, 1])
        return found

    def parts(self, axis: int, cuts: Cuts) -> tuple[np.ndarray, np.ndarray]:
        """Return the most places that a part sees, and the sum over parts, (candidates, 1) each."""
        seen = self.ties[axis].seen(cuts.first, cuts.last)[:, None]
        most, total = cuts.largest_and_sum(seen)
        return (most * self.free, total * self.free) if axis == 0 else (most, total)

    def sent(self, edges: tuple[np.ndarray, ...]) -> Term:
        """Return to how many parts of a cut target every source neuron sends, as a term."""
        tables = [np.ones((size, 1), np.int64) for size in self.shape]
        for tie, along in zip(self.ties, edges, strict=True):
            times = np.asarray(tie.seen_by(along))
            tables[tie.source_axis or 0] *= times[:, None] if times.ndim else times
        return Term(tuple(tables))


def links(graph: ig.IntGraph, name: str) -> tuple[Link, ...]:
    """Return the links of a population's projections; currents of the host are no messages."""
    target, found = graph.populations[name], []
    for p in target.projections:
        source = graph.populations[p.source]
        if not isinstance(source, ig.IntHostCurrent):
            ties, free = _ties(p, source.shape, target)
            found.append(Link(p.source, name, source.shape, ties, free))
    return tuple(found)


Windowed = ig.IntConv2d | ig.IntConvTranspose2d | ig.IntPool


def _ties(p: ig.Projection, source: ig.Shape, target: ig.Population) -> tuple[tuple[Tie, ...], int]:
    """Return the ties of every target axis, and how many source neurons hang at each place."""
    same = tuple(Same(axis) for axis in range(len(target.shape)))
    if isinstance(p, (ig.IntConv2d, ig.IntConvTranspose2d)):
        inner = conv_windows(p, source, target.shape)
        return (Window(0, channels_seen(p)), *inner), 1
    if isinstance(p, ig.IntPool):
        return (Same(0), *conv_windows(p, source, target.shape)), 1
    if isinstance(p, ig.IntSpatialSum):
        return (Same(0),), source[1] * source[2]
    if isinstance(p, ig.IntSpread):
        return (Same(0), Tie(None), Tie(None)), 1
    if isinstance(p, ig.IntDense):
        some = p.weight != 0
        return (Rows(None, some.sum(axis=1, dtype=np.int64), int(some.any(axis=0).sum())),), 1
    if isinstance(p, ig.IntPlace):
        return (Span(None, p.offset, int(np.prod(source))),), 1
    assert isinstance(p, ig.IntIdentity)
    if source != target.shape:  # other axes: as many source neurons, of no axis in common
        return tuple(Same(None) for _ in target.shape), 1
    return same, 1


def channels_seen(p: ig.IntConv2d | ig.IntConvTranspose2d) -> np.ndarray:
    """Return which input channels every output channel has a non-zero weight for, (out, in)."""
    some = (kernel(p) != 0).any(axis=(2, 3))
    out, inputs = some.shape
    found = np.zeros((out, inputs * p.groups), bool)
    for group in range(p.groups):
        rows = slice(group * out // p.groups, (group + 1) * out // p.groups)
        found[rows, group * inputs : (group + 1) * inputs] = some[rows]
    return found


def conv_windows(p: Windowed, source: ig.Shape, target: ig.Shape):
    """Return the windows along rows and columns of a convolution or pooling."""
    found = []
    for axis in (1, 2):
        places, valid = taps(p, axis, source[axis], target[axis])
        matrix = np.zeros((target[axis], source[axis]), bool)
        windows = np.broadcast_to(np.arange(target[axis])[:, None], places.shape)
        matrix[windows[valid], places[valid]] = True
        found.append(Window(axis, matrix))
    return tuple(found)


def taps(p: Windowed, axis: int, source: int, target: int):
    """Return the source place of every (window, tap) of an axis, and whether it is in the frame.

    The window of a transposed convolution is a place that its taps reach.
    """
    if isinstance(p, ig.IntConvTranspose2d):
        reached = np.arange(target)[:, None] + p.padding[axis - 1]
        reached = reached - np.arange(p.weight.shape[axis + 1]) * p.dilation[axis - 1]
        places = reached // p.stride[axis - 1]
        return places, (reached % p.stride[axis - 1] == 0) & (places >= 0) & (places < source)
    if isinstance(p, ig.IntConv2d):
        size, dilation = p.weight.shape[axis + 1], p.dilation[axis - 1]
    else:
        size, dilation = p.kernel[axis - 1], 1
    places = np.arange(target)[:, None] * p.stride[axis - 1] - p.padding[axis - 1]
    places = places + np.arange(size) * dilation
    return places, (places >= 0) & (places < source)
