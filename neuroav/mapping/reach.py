"""Which source neurons reach a slice of a population, and how many synapses each drives in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroav import integer as ig
from neuroav.placement import Box


@dataclass(frozen=True, eq=False)
class Reach:
    """The source neurons inside ``box`` of population ``source``.

    fan: non-zero synapses that a message of each drives in the slice, int64 of the box's shape; 0
    where the slice is not reached, and no message goes there.
    """

    source: str
    box: Box
    fan: np.ndarray

    @property
    def index(self) -> tuple[slice, ...]:
        """The box as an index into an array of the source's shape."""
        return tuple(slice(first, last) for first, last in self.box)


def reach(graph: ig.IntGraph, name: str, projection: ig.Projection, box: Box) -> Reach:
    """Return what of a projection's source reaches the slice ``box`` of population ``name``.

    Summed over slices that cover the population, ``fan`` is ``synapses.fan_out``; into an attention
    it is times the state neurons that a message meets, as in ``counts``.
    """
    target = graph.populations[name]
    shape = graph.populations[projection.source].shape
    source_box, fan = _reached(projection, shape, target.shape, box)
    if isinstance(target, ig.ATTENTION_CLASSES):
        fan = fan * target.fan(graph.steps)
    return Reach(projection.source, source_box, fan)


def _reached(
    projection: ig.Projection, source: ig.Shape, target: ig.Shape, box: Box
) -> tuple[Box, np.ndarray]:
    if isinstance(projection, ig.IntConv2d):
        return _convolved(projection, source, box)
    if isinstance(projection, ig.IntConvTranspose2d):
        return _sent_back(projection, source, box)
    if isinstance(projection, ig.IntPool):
        return _pooled(projection, source, box)
    if isinstance(projection, ig.IntSpatialSum):
        return _filled((box[0], (0, source[1]), (0, source[2])), 1)
    if isinstance(projection, ig.IntSpread):
        return _filled((box[0],), int(np.prod([last - first for first, last in box[1:]])))
    if isinstance(projection, ig.IntDense):
        taken = projection.weight[_numbers(target, box)] != 0
        return whole(source), taken.sum(axis=0, dtype=np.int64).reshape(source)
    assert isinstance(projection, (ig.IntIdentity, ig.IntPlace))
    some = int(projection.weight != 0)
    if isinstance(projection, ig.IntIdentity) and source == target:
        return _filled(box, some)
    numbers = _numbers(target, box)
    if isinstance(projection, ig.IntPlace):
        numbers = numbers - projection.offset
    fan = np.zeros(int(np.prod(source)), np.int64)
    fan[numbers[(numbers >= 0) & (numbers < fan.size)]] = some
    return _trimmed(fan.reshape(source))


def whole(shape: ig.Shape) -> Box:
    """Return the box of all neurons of a population."""
    return tuple((0, size) for size in shape)


def _filled(box: Box, value: int) -> tuple[Box, np.ndarray]:
    return box, np.full([last - first for first, last in box], value, np.int64)


def _numbers(shape: ig.Shape, box: Box) -> np.ndarray:
    """Return the numbers in C order of the neurons inside a box."""
    axes = [np.arange(first, last) for first, last in box]
    return np.ravel_multi_index(np.meshgrid(*axes, indexing="ij"), shape).reshape(-1)


def _trimmed(fan: np.ndarray) -> tuple[Box, np.ndarray]:
    """Return the smallest box that holds all that is not 0, and what it holds."""
    box = []
    for axis in range(fan.ndim):
        others = tuple(a for a in range(fan.ndim) if a != axis)
        (places,) = np.nonzero(fan.any(axis=others))
        box.append((int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0))
    return tuple(box), fan[tuple(slice(first, last) for first, last in box)]


# --- windows -----------------------------------------------------------------------------------
def _window(edges: tuple[int, int], kernel: int, stride: int, padding: int, dilation: int):
    """Return first and last + 1 place under the windows numbered ``edges``, in the padding too."""
    first, last = edges
    return first * stride - padding, (last - 1) * stride - padding + dilation * (kernel - 1) + 1


def _convolved(p: ig.IntConv2d, source: ig.Shape, box: Box) -> tuple[Box, np.ndarray]:
    taps, inputs = _taps(p, source[0], box[0])
    top, bottom = _window(box[1], taps.shape[1], p.stride[0], p.padding[0], p.dilation[0])
    left, right = _window(box[2], taps.shape[2], p.stride[1], p.padding[1], p.dilation[1])
    fan = np.zeros((len(taps), max(bottom - top, 0), max(right - left, 0)), np.int64)
    rows, columns = (last - first for first, last in box[1:])
    for r in range(taps.shape[1]):
        for c in range(taps.shape[2]):
            down, across = r * p.dilation[0], c * p.dilation[1]
            fan[
                :,
                down : down + p.stride[0] * (rows - 1) + 1 : p.stride[0],
                across : across + p.stride[1] * (columns - 1) + 1 : p.stride[1],
            ] += taps[:, r, c, None, None]
    return _cropped(fan, inputs, (top, left), source)


def _taps(p: ig.IntConv2d, channels: int, outputs: tuple[int, int]):
    """Return non-zero synapses (input channel, row, column) of a range of output channels.

    Only the input channels of the groups that the range touches, and their range.
    """
    per_group, inputs = p.weight.shape[0] // p.groups, channels // p.groups
    first, last = outputs[0] // per_group, (outputs[1] - 1) // per_group + 1
    parts = []
    for group in range(first, last):
        start, stop = max(outputs[0], group * per_group), min(outputs[1], (group + 1) * per_group)
        parts.append((p.weight[start:stop] != 0).sum(axis=0, dtype=np.int64))
    return np.concatenate(parts), (first * inputs, last * inputs)


def _sent_back(p: ig.IntConvTranspose2d, source: ig.Shape, box: Box) -> tuple[Box, np.ndarray]:
    """Return what of a transposed convolution's source reaches places ``box``, and its synapses."""
    per_group, out = source[0] // p.groups, p.weight.shape[1]
    channels = np.arange(*box[0])
    shared = np.zeros((source[0], *p.weight.shape[2:]), np.int64)
    for group in range(p.groups):
        mine = channels[channels // out == group] - group * out
        rows = slice(group * per_group, (group + 1) * per_group)
        shared[rows] = (p.weight[rows][:, mine] != 0).sum(axis=1)
    inside = []
    for axis, size in enumerate(p.weight.shape[2:]):
        place = np.arange(source[axis + 1])[:, None] * p.stride[axis] - p.padding[axis]
        place = place + np.arange(size) * p.dilation[axis]
        inside.append(((place >= box[axis + 1][0]) & (place < box[axis + 1][1])).astype(np.int64))
    return _trimmed(inside[0] @ shared @ inside[1].T)


def _pooled(p: ig.IntPool, source: ig.Shape, box: Box) -> tuple[Box, np.ndarray]:
    cover, starts = [], []
    for axis in (0, 1):
        start, stop = _window(box[axis + 1], p.kernel[axis], p.stride[axis], p.padding[axis], 1)
        count = np.zeros(stop - start, np.int64)
        first, last = box[axis + 1]
        for window in range(last - first):
            count[window * p.stride[axis] : window * p.stride[axis] + p.kernel[axis]] += 1
        cover.append(count)
        starts.append(start)
    channels = box[0][1] - box[0][0]
    fan = np.broadcast_to(cover[0][:, None] * cover[1], (channels, len(cover[0]), len(cover[1])))
    return _cropped(fan, box[0], (starts[0], starts[1]), source)


def _cropped(
    fan: np.ndarray, channels: tuple[int, int], start: tuple[int, int], source: ig.Shape
) -> tuple[Box, np.ndarray]:
    """Return the box and fan without what lies in the padding around the source's frame."""
    box, cuts = [channels], [slice(None)]
    for axis in (0, 1):
        size, first = fan.shape[axis + 1], start[axis]
        low, high = max(first, 0), min(first + size, source[axis + 1])
        high = max(high, low)
        box.append((low, high))
        cuts.append(slice(low - first, high - first))
    return tuple(box), np.ascontiguousarray(fan[tuple(cuts)])
