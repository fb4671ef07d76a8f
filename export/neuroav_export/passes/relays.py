"""What has no weights of its own, quantized: pooling, sums, shapes, delays, joins.

Handlers of ``quantize``. Every synapse here is a small whole number, every scale exact.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.errors import UnsupportedNode
from neuroav.quantization import common_scale, exact_fraction
from neuroav_export.passes.host_input import AnyValue, host_pool, refusal
from neuroav_export.passes.values import Current, Value

if TYPE_CHECKING:
    from neuroav_export.passes.quantize import Quantizer

PERMUTED_MOST = 4096  # values: their synapses are a square matrix


def or_pool(q: Quantizer, name: str, node: rn.OrPool2d, x: list) -> Value:
    """Put neurons that spike where any of a window does."""
    value = q.message(name, x[0])
    if on_host := host_pool(q, name, node, value):
        return on_host
    pool = value.late(ig.IntPool(value.name, 0, node.kernel, node.stride, node.padding))
    return q.put(name, ig.IntOr(q.graph.shapes[name], (pool,)), value.scale)


def sum_pool(q: Quantizer, name: str, node: rn.SumPool2d, x: list) -> Value:
    """Put relays of the sums over windows."""
    value = q.message(name, x[0])
    pool = value.late(ig.IntPool(value.name, 0, node.kernel, node.stride, node.padding))
    taps = node.kernel[0] * node.kernel[1]
    moved = q.put(name, ig.IntSum(q.graph.shapes[name], (pool,)), value.scale)
    return replace(moved, offset=value.offset * taps)


def delay(q: Quantizer, name: str, node: rn.Delay, x: list) -> AnyValue:
    """Return the value or current as late as it is to be."""
    if isinstance(x[0], Value):
        return replace(x[0], lag=x[0].lag + node.steps)
    if isinstance(x[0], Current):
        if x[0].bias.any() or x[0].offset.any():
            raise UnsupportedNode(
                f"{name}: delays currents with a bias, which a chip adds in every step; delay what "
                "the layer reads, or use bias=False",
                rule="delay-bias",
            )
        return replace(x[0], terms=tuple(replace(t, lag=t.lag + node.steps) for t in x[0].terms))
    raise refusal(name, x[0].name)


def reshape(q: Quantizer, name: str, node: rn.Reshape | rn.Permute, x: list) -> Value:
    """Put relays, numbered as the result is; a permutation by a matrix before them."""
    value, shape = q.message(name, x[0]), q.graph.shapes[name]
    source = q.graph.shapes[q.graph.inputs[name][0]]
    relay = ig.IntOr if _spikes(q, value.name) else ig.IntSum
    if isinstance(node, rn.Permute):
        count = int(np.prod(shape))
        if count > PERMUTED_MOST:
            raise UnsupportedNode(
                f"{name}: permutes {count} values in front of something else than a linear layer; "
                f"allowed are {PERMUTED_MOST}; permute the next layer's weights instead",
                rule="permute",
            )
        order = np.arange(count).reshape(source).transpose(node.axes).reshape(-1)
        matrix = np.eye(count, dtype=np.int64)[order]
        turn = value.late(ig.IntDense(value.name, 0, matrix, q.arith.weight_bits, "excitatory"))
        moved = q.put(f"{name}.order", relay((count,), (turn,)), value.scale)
        value = replace(moved, offset=value.offset)
    link = value.late(ig.IntIdentity(value.name, 0, 1))
    return replace(q.put(name, relay(shape, (link,)), value.scale), offset=value.offset)


def _spikes(q: Quantizer, name: str) -> bool:
    """Whether a population sends spikes; one that a loop comes back to does."""
    return name not in q.populations or isinstance(q.populations[name], ig.SPIKING_CLASSES)


def add(q: Quantizer, name: str, node: rn.Add, x: list) -> Value | Current:
    """Put relays of the sum, or join synaptic inputs of one layer of neurons."""
    if any(isinstance(v, Current) for v in x):  # several synaptic inputs of one neuron layer
        parts = [q.current(name, v) for v in x]
        return Current(
            tuple(t for p in parts for t in p.terms),
            np.sum(np.broadcast_arrays(*[p.bias for p in parts]), axis=0),
            np.sum(np.broadcast_arrays(*[p.offset for p in parts]), axis=0),
        )
    x = [q.message(name, v) for v in x]
    common = common_scale([v.scale for v in x])
    projections = []
    for v in x:
        weight = _relay_weight(q, name, v.scale / common)
        projections.append(v.late(ig.IntIdentity(v.name, 0, weight)))
    return q.put(name, ig.IntSum(q.graph.shapes[name], tuple(projections)), common)


def _relay_weight(q: Quantizer, name: str, factor: Fraction) -> int:
    """Return the synapse that brings one value to the unit all values of ``name`` share."""
    if factor >= 1 << q.arith.weight_bits:
        raise UnsupportedNode(
            f"{name}: joins values of such different scales that one needs a synapse of "
            f"{int(factor)}, at most {(1 << q.arith.weight_bits) - 1}; use simpler factors",
            rule="scales",
        )
    return int(factor)


def scale(q: Quantizer, name: str, node: rn.Scale, x: list) -> Value | Current:
    """Return the value or current times a constant."""
    value = x[0] if isinstance(x[0], Current) else q.message(name, x[0])
    if isinstance(value, Value):
        factor = exact_fraction(node.factor)
        return replace(value, scale=value.scale * factor, offset=value.offset * factor)
    terms = tuple(replace(t, weight=t.weight * node.factor) for t in value.terms)
    return Current(terms, value.bias * node.factor, value.offset * node.factor)


def spatial_sum(q: Quantizer, name: str, node: rn.SpatialSum, x: list) -> Value:
    """Put relays of the sum over places."""
    value = q.message(name, x[0])
    projection = value.late(ig.IntSpatialSum(value.name, 0))
    return q.put(name, ig.IntSum(q.graph.shapes[name], (projection,)), value.scale)


def flatten(q: Quantizer, name: str, node: rn.Flatten, x: list) -> Value:
    """Return the same value: neurons are numbered in C order already."""
    return q.message(name, x[0])  # neurons are numbered in C order already


def concat(q: Quantizer, name: str, node: rn.Concat, x: list) -> Value:
    """Put relays of one value after the other."""
    values = [q.message(name, v) for v in x]
    common = common_scale([v.scale for v in values])
    sizes = [int(np.prod(q.graph.shapes[s])) for s in q.graph.inputs[name]]
    offsets = np.cumsum([0, *sizes])
    projections = tuple(
        v.late(
            ig.IntPlace(v.name, 0, _relay_weight(q, name, v.scale / common), int(first), sum(sizes))
        )
        for v, first in zip(values, offsets, strict=False)
    )
    return q.put(name, ig.IntSum((sum(sizes),), projections), common)
