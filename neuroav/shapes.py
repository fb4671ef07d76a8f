"""Shapes: what a real node, or a projection, gives for the shapes of its sources.

Per step and sample, axes (channel, row, column) or (feature,). ``neuroav.stages`` checks whole
graphs by these.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.errors import StageError


@singledispatch
def output_shape(node: object, sources: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the output shape of ``node`` for these source shapes; StageError if they misfit."""
    return _only(sources)


def _only(sources: list[tuple[int, ...]]) -> tuple[int, ...]:
    if len(sources) != 1:
        raise StageError(f"has {len(sources)} inputs, needs 1")
    return sources[0]


@output_shape.register
def _(node: rn.Input, sources):
    if sources:
        raise StageError("an input cannot have sources")
    return node.shape


@output_shape.register
def _(node: rn.Add, sources):
    if len(sources) < 2 or len(set(sources)) != 1:
        raise StageError(f"adds shapes {sources}, needs two or more equal shapes")
    return sources[0]


@output_shape.register
def _(node: rn.Conv2d, sources):
    return conv_shape(
        _only(sources), node.weight.shape, node.stride, node.padding, node.dilation, node.groups
    )


@output_shape.register
def _(node: rn.ConvTranspose2d, sources):
    return transposed_shape(_only(sources), node.weight.shape, node)


@output_shape.register
def _(node: rn.Reshape, sources):
    source = _only(sources)
    if int(np.prod(source)) != int(np.prod(node.shape)) or len(node.shape) not in (1, 3):
        raise StageError(f"reads {source} as {node.shape}; needs as many values, on 1 or 3 axes")
    return tuple(node.shape)


@output_shape.register
def _(node: rn.Permute, sources):
    source = _only(sources)
    if sorted(node.axes) != list(range(len(source))):
        raise StageError(f"permutes the axes of {source} by {node.axes}")
    return tuple(source[a] for a in node.axes)


@output_shape.register(rn.Lif)
@output_shape.register(rn.If)
def _(node, sources):
    shape = _only(sources)
    for what in ("tau_mem_s", "tau_syn_s", "v_threshold", "v_reset", "v_leak"):
        value = np.asarray(getattr(node, what, None), float)
        try:
            np.broadcast_to(value, shape)
        except ValueError:
            raise StageError(
                f"{what} of shape {value.shape} does not broadcast to the neurons {shape}"
            ) from None
    return shape


@output_shape.register(rn.SumPool2d)
@output_shape.register(rn.AvgPool2d)
@output_shape.register(rn.MaxPool2d)
@output_shape.register(rn.OrPool2d)
def _(node, sources):
    return pool_shape(_only(sources), node.kernel, node.stride, node.padding)


@output_shape.register(rn.Dense)
@output_shape.register(rn.Readout)
def _(node, sources):
    return dense_shape(_only(sources), node.weight.shape)


@output_shape.register
def _(node: rn.BatchNorm, sources):
    shape = _only(sources)
    if shape[0] != node.scale.shape[0]:
        raise StageError(f"has {node.scale.shape[0]} channels, its source has {shape[0]}")
    return shape


@output_shape.register(rn.SpatialMean)
@output_shape.register(rn.SpatialSum)
def _(node, sources):
    return spatial_shape(_only(sources))


@output_shape.register
def _(node: rn.Flatten, sources):
    return (int(np.prod(_only(sources))),)


@output_shape.register
def _(node: rn.Concat, sources):
    if len(sources) < 2 or len({s[1:] for s in sources}) != 1:
        raise StageError(f"joins shapes {sources}, needs two or more that differ in channels only")
    return (sum(s[0] for s in sources), *sources[0][1:])


@output_shape.register
def _(node: rn.HeadSum, sources):
    shape = _only(sources)
    check_heads(shape, node.heads)
    return (node.heads, *shape[1:])


@output_shape.register
def _(node: rn.Mask, sources):
    if len(sources) != 2 or sources[0][1:] != sources[1][1:]:
        raise StageError(f"masks shapes {sources}, needs (heads, H, W) and (C, H, W)")
    check_heads(sources[1], sources[0][0])
    return sources[1]


@output_shape.register(rn.SpatialAttention)
@output_shape.register(rn.TemporalAttention)
def _(node, sources):
    if len(sources) != 3 or len(set(sources)) != 1:
        raise StageError(f"attends over shapes {sources}, needs three equal ones: q, k, v")
    check_heads(sources[0], node.heads)
    return sources[0]


@output_shape.register
def _(node: rn.MeanProduct, sources):
    if len(sources) != 2 or len(set(sources)) != 1:
        raise StageError(f"multiplies means of shapes {sources}, needs two equal ones")
    spatial_shape(sources[0])
    return sources[0]


@output_shape.register
def _(node: rn.Product, sources):
    if len(sources) != 2 or sources[0] not in (sources[1], sources[1][:1]):
        raise StageError(f"multiplies shapes {sources}, needs two equal ones or (C,) and (C, H, W)")
    return sources[1]


def check_heads(shape, heads: int) -> None:
    """Raise StageError unless the channels of (C, H, W) divide into ``heads``."""
    spatial_shape(shape)
    if heads < 1 or shape[0] % heads:
        raise StageError(f"{heads} heads do not divide {shape[0]} channels")


def spatial_shape(source):
    """Return (C,) for a (C, H, W) source."""
    if len(source) != 3:
        raise StageError(f"needs (channels, rows, columns), its source is {source}")
    return source[:1]


def dense_shape(source, weight):
    """Return (out,) if the source has ``in`` neurons."""
    if int(np.prod(source)) != weight[1]:
        raise StageError(
            f"weight is {weight}, its source {source} has {int(np.prod(source))} values"
        )
    return (weight[0],)


def conv_shape(source, weight, stride, padding, dilation, groups):
    """Return (out, rows, columns) of a convolution over ``source``."""
    spatial_shape(source)
    if source[0] != weight[1] * groups or weight[0] % groups:
        raise StageError(f"weight {weight} with {groups} groups does not fit source {source}")
    size = tuple(
        ig.conv_windows(*args)
        for args in zip(source[1:], weight[2:], stride, padding, dilation, strict=True)
    )
    if min(size) < 1:
        raise StageError(f"kernel {weight[2:]} is larger than its padded source {source}")
    return (weight[0], *size)


def transposed_shape(source, weight, p):
    """Return (out, rows, columns) of a transposed convolution; weight: shape of its weights."""
    spatial_shape(source)
    if source[0] != weight[0] or weight[0] % p.groups:
        raise StageError(f"weight {weight} with {p.groups} groups does not fit source {source}")
    size = tuple(
        ig.transposed_size(*args)
        for args in zip(
            source[1:], weight[2:], p.stride, p.padding, p.dilation, p.output_padding, strict=True
        )
    )
    if min(size) < 1:
        raise StageError(f"padding {p.padding} leaves nothing of source {source}")
    return (weight[1] * p.groups, *size)


def pool_shape(source, kernel, stride, padding):
    """Return (C, rows, columns) of pooling over ``source``."""
    spatial_shape(source)
    size = tuple(
        ig.conv_windows(*args)
        for args in zip(source[1:], kernel, stride, padding, (1, 1), strict=True)
    )
    if min(size) < 1 or any(p * 2 > k for p, k in zip(padding, kernel, strict=True)):
        raise StageError(f"window {kernel} with padding {padding} does not fit source {source}")
    return (source[0], *size)


# --- projections ---
def projection_shape(projection: ig.Projection, source: tuple[int, ...]) -> tuple[int, ...]:
    """Return the target shape a projection gives for its source's shape."""
    p = projection
    if isinstance(p, ig.IntConv2d):
        return conv_shape(source, p.weight.shape, p.stride, p.padding, p.dilation, p.groups)
    if isinstance(p, ig.IntConvTranspose2d):
        return transposed_shape(source, p.weight.shape, p)
    if isinstance(p, ig.IntDense):
        return dense_shape(source, p.weight.shape)
    if isinstance(p, ig.IntPool):
        return pool_shape(source, p.kernel, p.stride, p.padding)
    if isinstance(p, ig.IntSpread):
        if len(source) != 1:
            raise StageError(f"spreads a value per channel, its source is {source}")
        return (*source, *p.places)
    if isinstance(p, ig.IntPlace):
        if not 0 <= p.offset <= p.size - int(np.prod(source)):
            raise StageError(f"offset {p.offset} does not fit {source} into {p.size}")
        return (p.size,)
    return spatial_shape(source) if isinstance(p, ig.IntSpatialSum) else source
