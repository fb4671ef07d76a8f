"""Synapses and state neurons counted: what a projection unrolls to, what attention keeps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neuroav import integer as ig

# which energy coefficient prices a synaptic operation of each projection class
SYNOP_KIND: dict[type, str] = {
    ig.IntConv2d: "conv",
    ig.IntConvTranspose2d: "conv",
    ig.IntPool: "conv",
    ig.IntDense: "dense",
    ig.IntIdentity: "sparse",
    ig.IntSpatialSum: "sparse",
    ig.IntSpread: "sparse",
    ig.IntPlace: "sparse",
}


def fan_out(projection: ig.Projection, source: ig.Shape, target: ig.Shape) -> np.ndarray:
    """Return for every source neuron how many non-zero synapses it drives, int64 of ``source``.

    A synaptic operation is one message meeting one non-zero synapse, so
    ``sum(messages != 0, weighted by fan_out)`` is the count of synaptic operations.
    """
    if isinstance(projection, ig.IntDense):
        return (projection.weight != 0).sum(axis=0).reshape(source).astype(np.int64)
    if isinstance(projection, (ig.IntIdentity, ig.IntPlace)):
        return np.full(source, int(projection.weight != 0), np.int64)
    if isinstance(projection, ig.IntSpread):
        return np.full(source, int(np.prod(projection.places)), np.int64)
    if isinstance(projection, ig.IntSpatialSum):
        return np.ones(source, np.int64)
    if isinstance(projection, ig.IntPool):
        taps = np.ones((source[0], 1, *projection.kernel), np.int64)
        return _conv_fan_out(
            taps, projection.stride, projection.padding, (1, 1), source[0], source, target
        )
    if isinstance(projection, ig.IntConvTranspose2d):
        return _transposed_fan_out(projection, source, target)
    assert isinstance(projection, ig.IntConv2d)
    taps = (projection.weight != 0).astype(np.int64)
    return _conv_fan_out(
        taps,
        projection.stride,
        projection.padding,
        projection.dilation,
        projection.groups,
        source,
        target,
    )


def _conv_fan_out(taps, stride, padding, dilation, groups, source: ig.Shape, target: ig.Shape):
    channels, height, width = source
    out_channels, rows, columns = target
    per_group = out_channels // groups
    # (input channel, kernel row, kernel column): synapses that share this tap
    shared = taps.reshape(groups, per_group, *taps.shape[1:]).sum(axis=1)
    shared = shared.reshape(channels, *taps.shape[2:])
    count = np.zeros((channels, height + 2 * padding[0], width + 2 * padding[1]), np.int64)
    for r in range(taps.shape[2]):
        for c in range(taps.shape[3]):
            top, left = r * dilation[0], c * dilation[1]
            count[
                :,
                top : top + stride[0] * rows : stride[0],
                left : left + stride[1] * columns : stride[1],
            ] += shared[:, r, c, None, None]
    return count[:, padding[0] : padding[0] + height, padding[1] : padding[1] + width]


def kernel(p: ig.IntConv2d | ig.IntConvTranspose2d) -> np.ndarray:
    """Return a convolution's weights as (out, in / groups, rows, columns)."""
    if isinstance(p, ig.IntConv2d):
        return p.weight
    inputs, out, *taps = p.weight.shape
    split = p.weight.reshape(p.groups, inputs // p.groups, out, *taps).swapaxes(1, 2)
    return split.reshape(p.groups * out, inputs // p.groups, *taps)


def _transposed_fan_out(p: ig.IntConvTranspose2d, source: ig.Shape, target: ig.Shape):
    shared = (p.weight != 0).sum(axis=1)  # (input channel, kernel row, kernel column)
    inside = []
    for axis, kernel in enumerate(p.weight.shape[2:]):
        place = np.arange(source[axis + 1])[:, None] * p.stride[axis] - p.padding[axis]
        place = place + np.arange(kernel) * p.dilation[axis]
        inside.append(((place >= 0) & (place < target[axis + 1])).astype(np.int64))
    return inside[0] @ shared @ inside[1].T


def synapse_count(graph: ig.IntGraph, name: str) -> int:
    """Return the number of non-zero synapses onto a population, shared weights unrolled.

    Those inside an attention count too: from q, k and v to its state, and from there on. What the
    host writes into biases needs none.
    """
    target = graph.populations[name]
    found = sum(
        int(fan_out(p, graph.populations[p.source].shape, target.shape).sum())
        for p in target.projections
        if not isinstance(graph.populations[p.source], ig.IntHostCurrent)
    )
    if isinstance(target, ig.ATTENTION_CLASSES):
        state = target.state_neurons(graph.steps)
        return found * target.fan(graph.steps) + state * target.reach(graph.steps)
    return found


def mute(graph: ig.IntGraph) -> set[str]:
    """Return what sends no messages: currents of the host, and readouts that no neuron reads."""
    read = {p.source for pop in graph.populations.values() for p in pop.projections}
    return {
        n
        for n, pop in graph.populations.items()
        if isinstance(pop, ig.IntHostCurrent) or (isinstance(pop, ig.IntReadout) and n not in read)
    }


def attention_forms(
    pop: ig.IntSpatialAttention | ig.IntTemporalAttention, steps: int
) -> dict[str, int]:
    """Return the neurons that each exact form of an attention keeps its state in.

    'coincidence': a neuron for every (token, i, j) that k and v meet in and one that q gates, and
    the sums over tokens. ``pop.form`` is the smallest of the first two; the third never is.
    """
    found: dict[str, int] = {f: replace(pop, form=f).state_neurons(steps) for f in ig.FORMS}
    width, part = pop.shape[0], pop.head_channels
    return {**found, "coincidence": 2 * pop.tokens * width * part + width * part}


def row_sum(projection: ig.Projection, source: ig.Shape) -> int:
    """Return the largest sum of |weight| that any target neuron of a projection receives.

    Times the largest message it bounds the synaptic sum.
    """
    if isinstance(projection, ig.IntConvTranspose2d):
        per_group = np.abs(projection.weight).reshape(
            projection.groups, -1, *projection.weight.shape[1:]
        )
        return int(per_group.sum(axis=(1, 3, 4)).max(initial=0))
    if isinstance(projection, (ig.IntConv2d, ig.IntDense)):
        taps = np.abs(projection.weight)
        return int(taps.sum(axis=tuple(range(1, taps.ndim))).max(initial=0))
    if isinstance(projection, (ig.IntIdentity, ig.IntPlace)):
        return abs(projection.weight)
    if isinstance(projection, ig.IntPool):
        return projection.kernel[0] * projection.kernel[1]
    if isinstance(projection, ig.IntSpatialSum):
        return source[1] * source[2]
    assert isinstance(projection, ig.IntSpread)
    return 1
