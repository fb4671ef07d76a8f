"""Projections written out as explicit synapses, one per non-zero weight."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroav import integer as ig
from neuroav.nodes import Pair


@dataclass(frozen=True, eq=False)
class Synapses:
    """Explicit synapses of one projection, int64 (synapses,) each.

    source, target: numbers of the neurons in C order. weight: never 0.
    """

    source: np.ndarray
    target: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.weight)


def unroll(projection: ig.Projection, source: ig.Shape, target: ig.Shape) -> Synapses:
    """Return every non-zero synapse of a projection between populations of these shapes."""
    numbers = np.arange(int(np.prod(source)))
    if isinstance(projection, ig.IntConv2d):
        p = projection
        return _convolution(p.weight, p.stride, p.padding, p.dilation, p.groups, source, target)
    if isinstance(projection, ig.IntConvTranspose2d):  # a convolution from the other end
        form = (projection.stride, projection.padding, projection.dilation, projection.groups)
        back = _convolution(projection.weight, *form, target, source)
        return Synapses(back.target, back.source, back.weight)
    if isinstance(projection, ig.IntPool):
        ones = np.ones((source[0], 1, *projection.kernel), np.int64)
        stride, padding = projection.stride, projection.padding
        return _convolution(ones, stride, padding, (1, 1), source[0], source, target)
    if isinstance(projection, ig.IntDense):
        to, start = np.nonzero(projection.weight)
        return Synapses(start, to, projection.weight[to, start].astype(np.int64))
    if isinstance(projection, (ig.IntIdentity, ig.IntPlace)):
        offset = projection.offset if isinstance(projection, ig.IntPlace) else 0
        weight = np.full(len(numbers), projection.weight, np.int64)
        return _without_zeros(numbers, numbers + offset, weight)
    places = int(np.prod(source if isinstance(projection, ig.IntSpatialSum) else target))
    channel = np.arange(places) // (places // source[0])
    each, unit = np.arange(places), np.ones(places, np.int64)
    if isinstance(projection, ig.IntSpatialSum):
        return Synapses(each, channel, unit)
    assert isinstance(projection, ig.IntSpread)
    return Synapses(channel, each, unit)


def _without_zeros(source: np.ndarray, target: np.ndarray, weight: np.ndarray) -> Synapses:
    some = weight != 0
    return Synapses(source[some], target[some], weight[some])


def _convolution(
    weight: np.ndarray,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    source: ig.Shape,
    target: ig.Shape,
) -> Synapses:
    """Return the synapses of a convolution, tap by tap of the kernel."""
    outputs, inputs = target[0] // groups, source[0] // groups
    found = []
    for r, c in np.ndindex(weight.shape[2:]):
        rows, from_rows = _axis(target[1], source[1], stride[0], r * dilation[0] - padding[0])
        columns, from_columns = _axis(target[2], source[2], stride[1], c * dilation[1] - padding[1])
        to, part = np.nonzero(weight[:, :, r, c])
        start = (to // outputs) * inputs + part  # a kernel holds the inputs of its own group only
        places = (rows[:, None] * target[2] + columns).reshape(-1)
        from_places = (from_rows[:, None] * source[2] + from_columns).reshape(-1)
        found.append(
            (
                (start[:, None] * (source[1] * source[2]) + from_places).reshape(-1),
                (to[:, None] * (target[1] * target[2]) + places).reshape(-1),
                np.repeat(weight[to, part, r, c].astype(np.int64), len(places)),
            )
        )
    return Synapses(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _axis(windows: int, size: int, stride: int, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Return windows that a tap reads inside the frame with, and the places that it reads there."""
    number = np.arange(windows)
    place = number * stride + offset
    inside = (place >= 0) & (place < size)
    return number[inside], place[inside]
