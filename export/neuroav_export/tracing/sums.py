"""Sums, factors, means and pooling: what the tensors they give stand for."""

from __future__ import annotations

from typing import Any

import torch

from neuroav import nodes as rn
from neuroav_export.tracing.modules import avg_pool, max_pool
from neuroav_export.tracing.op import Op, as_site
from neuroav_export.tracing.values import (
    FEATURE,
    TIME,
    Terms,
    Value,
    canonical,
    features,
    over_time,
    total,
)


def take_plus(op: Op, sign: float = 1.0) -> Value:
    if op.kwargs.get("alpha", 1) != 1:
        raise op.no("has a factor alpha; multiply before", "constants")
    terms: list[tuple[Terms, float]] = []
    for i, part in enumerate(op.args[:2]):
        factor = sign if i == 1 else 1.0
        value = op.rec.of(part)
        if isinstance(value, Value):
            if value.axes != op.source.axes or part.shape != op.out.shape:
                raise op.no(f"adds shapes {_shapes(op)}; add equal shapes", "shape")
            terms.append((value.terms, factor))
        elif not _zero(part) or op.out.shape != op.inputs[0][0].shape:
            raise op.no("adds a constant; use the bias of a layer", "parameter")
    return Value(total(terms), op.source.axes)


def take_minus(op: Op) -> Value:
    return take_plus(op, -1.0)


def _shapes(op: Op) -> str:
    return " and ".join(str(tuple(t.shape)) for t, _ in op.inputs)


def _zero(part: Any) -> bool:
    return not bool((part != 0).any()) if isinstance(part, torch.Tensor) else part == 0


def take_times(op: Op) -> Value:
    if len(op.inputs) == 2:
        if op.sizes != tuple(op.inputs[1][0].shape) or op.source.axes != op.inputs[1][1].axes:
            raise op.no(f"multiplies shapes {_shapes(op)}", "product")
        return as_site(op, rn.Product(), tuple(a for a in op.source.axes if a != FEATURE))
    return _scaled(op, _constant(op, op.args[1] if op.args[0] is op.inputs[0][0] else op.args[0]))


def take_over(op: Op) -> Value:
    if op.args[0] is not op.inputs[0][0] or len(op.inputs) > 1 or op.kwargs.get("rounding_mode"):
        raise op.no()
    divisor = _constant(op, op.args[1])
    if divisor == 0:
        raise op.no("divides by 0", "not-finite")
    return _scaled(op, 1.0 / divisor)


def _constant(op: Op, part: Any) -> float:
    if isinstance(part, torch.Tensor) and part.numel() != 1:
        raise op.no("multiplies by a tensor of its own; a constant is one number", "product")
    return float(part)


def _scaled(op: Op, factor: float) -> Value:
    if op.out.shape != op.inputs[0][0].shape:
        raise op.no()
    return Value(total([(op.source.terms, factor)]), op.source.axes)


def take_negative(op: Op) -> Value:
    return _scaled(op, -1.0)


def take_mean(op: Op) -> Value:
    return _reduced(op, mean=True)


def take_sum(op: Op) -> Value:
    return _reduced(op, mean=False)


def _reduced(op: Op, mean: bool) -> Value:
    ndim = len(op.sizes)
    dims = op.argument(1, "dim")
    dims = tuple(range(ndim)) if dims is None else (dims,) if isinstance(dims, int) else dims
    dims = tuple(sorted(d % ndim for d in dims))
    kept = bool(op.argument(2, "keepdim", False))
    over = [op.source.axes[d] for d in dims]
    if over == [TIME] and not kept:
        left = tuple(a for i, a in enumerate(op.source.axes) if i not in dims)
        return over_time(op.source, op.rec.steps, 1 / op.rec.steps if mean else 1.0, left)
    lead = tuple(a for a in op.source.axes if a != FEATURE)
    wide = [i for i, a in enumerate(op.source.axes) if a == FEATURE][1:]
    if list(dims) != wide or op.source.axes[: len(lead)] != lead or len(wide) not in (1, 2):
        raise op.no(
            f"is over axes {dims} of {op.sizes}; means are over all steps, or over all places of "
            "(samples, C, H, W)",
            "mean",
        )
    node = rn.SpatialMean() if mean else rn.SpatialSum()
    return as_site(op, node, lead, shape=canonical(features(op.source.axes, op.sizes))[:1])


def take_adaptive_pool(op: Op) -> Value:
    size = op.argument(1, "output_size")
    if size not in (1, (1, 1), [1, 1]):
        raise op.no(f"to {size} places; only to one: nn.AdaptiveAvgPool2d(1)", "average-pool")
    lead = _frames(op)
    return as_site(
        op, rn.SpatialMean(), lead, shape=canonical(features(op.source.axes, op.sizes))[:1]
    )


def _frames(op: Op) -> tuple[str, ...]:
    """Return the axis of samples, or of samples and steps, before (C, H, W)."""
    if len(op.sizes) != 4 or op.source.axes[1:] != (FEATURE,) * 3 or op.source.axes[0] == FEATURE:
        raise op.no(f"reads axes {op.source.axes}; needs (samples, C, H, W)", "layout")
    return op.source.axes[:1]


def take_max_pool(op: Op) -> Value:
    named = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
    defaults = (None, None, 0, 1, False, False)
    found = [op.argument(i + 1, n, d) for i, (n, d) in enumerate(zip(named, defaults, strict=True))]
    return as_site(op, max_pool(*found), _frames(op), extra=tuple(map(str, found)))


def take_avg_pool(op: Op) -> Value:
    named = (
        "kernel_size",
        "stride",
        "padding",
        "ceil_mode",
        "count_include_pad",
        "divisor_override",
    )
    defaults = (None, None, 0, False, True, None)
    found = [op.argument(i + 1, n, d) for i, (n, d) in enumerate(zip(named, defaults, strict=True))]
    return as_site(op, avg_pool(*found), _frames(op), extra=tuple(map(str, found)))


def take_relu(op: Op) -> Value:
    """Spikes are 0 and 1, so nothing happens to them."""
    sites = op.rec.sites
    for (name, _), factor in op.source.terms.items():
        node = sites[name].converted
        last = node.parts[-1].node if hasattr(node, "parts") else node
        if factor < 0 or not isinstance(last, (rn.Lif, rn.If)):
            raise op.no()
    return op.source


def take_dropout(op: Op) -> Value:
    if op.argument(2, "training", True):
        raise op.no("is on while the network is evaluated; use nn.Dropout, or training=False")
    return op.source
