"""Operations that move, take and join axes: what the tensors they give stand for."""

from __future__ import annotations

from math import prod
from typing import Any

import torch

from neuroav import nodes as rn
from neuroav.errors import UnsupportedModule
from neuroav_export.tracing.op import Op, as_site
from neuroav_export.tracing.values import (
    BATCH,
    FEATURE,
    TIME,
    Value,
    as_sequence,
    frame,
    order_of,
    reshaped,
)


def take_same(op: Op) -> Value:
    if op.out.shape != op.inputs[0][0].shape:
        raise op.no()
    return op.source


def take_reshape(op: Op) -> Value:
    new = tuple(op.out.shape)
    axes = reshaped(op.source.axes, op.sizes, new, op.rec.steps, op.rec.samples)
    if axes is None:
        raise op.no(
            f"makes {new} of (steps, samples and features) {op.sizes}, which tears steps or "
            "samples apart or joins them with features",
            "layout",
        )
    return op.source.on(axes)


def take_permute(op: Op) -> Value:
    def move(x: torch.Tensor) -> torch.Tensor:
        if op.func.__name__ == "__get__":  # a property: x.T, x.mT
            return op.func(x)
        return op.func(x, *op.args[1:], **op.kwargs)

    order = order_of(move, len(op.sizes))
    axes = tuple(op.source.axes[i] for i in order)
    moved = [i for i in order if op.source.axes[i] == FEATURE]
    wide = [i for i in moved if op.sizes[i] > 1]
    if wide == sorted(wide):
        return op.source.on(axes)
    if any(a != FEATURE for a in axes[axes.index(FEATURE) : len(axes) - axes[::-1].index(FEATURE)]):
        raise op.no("moves features across steps or samples", "reshape")
    if len(moved) not in (2, 3):
        raise op.no(f"moves {len(moved)} axes of features; 2 or 3 can be moved", "reshape")
    ranks = [sorted(moved).index(i) for i in moved]
    lead = tuple(a for a in axes if a != FEATURE)
    if axes[: len(lead)] != lead:
        raise op.no("moves features before steps or samples", "reshape")
    node = rn.Permute((2, 1, 0) if len(moved) == 2 else tuple(ranks))
    return as_site(op, node, lead, extra=tuple(ranks))


def take_index(op: Op) -> Value:
    parts = op.args[1] if isinstance(op.args[1], tuple) else (op.args[1],)
    return _indexed(op, _spread(parts, len(op.sizes), op))


def _spread(parts: tuple, ndim: int, op: Op) -> list[Any]:
    if any(isinstance(p, (torch.Tensor, list)) for p in parts):
        raise op.no("takes places by a list or tensor", "index")
    taken = sum(1 for p in parts if p is not None and p is not Ellipsis)
    fill = [slice(None)] * (ndim - taken)
    if not any(p is Ellipsis for p in parts):
        return [*parts, *fill]
    return [q for p in parts for q in (fill if p is Ellipsis else [p])]


def _indexed(op: Op, parts: list[Any]) -> Value:
    axes, step, at = [], None, 0
    for part in parts:
        if part is None:
            axes.append(FEATURE)
            continue
        axis, size, at = op.source.axes[at], op.sizes[at], at + 1
        if isinstance(part, slice):
            if len(range(*part.indices(size))) != size or (part.step or 1) != 1:
                raise op.no(_partial(axis), "end" if axis == TIME else "index")
            axes.append(axis)
        elif axis == TIME:
            step = int(part) % size
        elif axis != FEATURE or size != 1:
            raise op.no(f"takes one of {size} {_AXES.get(axis, 'features')}", "index")
    left = tuple(axes)
    return op.source.on(left) if step is None else frame(op.source, left, step)


_AXES = {BATCH: "samples", "TB": "frames", "BT": "frames"}


def _partial(axis: str) -> str:
    if axis == TIME:
        return "takes some of the steps; class scores are of all steps or of the last"
    return f"takes some of the {_AXES.get(axis, 'features')}"


def take_select(op: Op) -> Value:
    dim = op.argument(1, "dim") % len(op.sizes)
    return _indexed(op, [slice(None)] * dim + [op.argument(2, "index")] + _rest(op, dim))


def _rest(op: Op, dim: int) -> list[Any]:
    return [slice(None)] * (len(op.sizes) - dim - 1)


def take_unbind(op: Op) -> list[Value]:
    dim = (op.argument(1, "dim", 0) or 0) % len(op.sizes)
    whole = [slice(None)] * dim
    return [_indexed(op, [*whole, i, *_rest(op, dim)]) for i in range(op.sizes[dim])]


def take_split(op: Op) -> list[Value]:
    dim = (op.argument(2, "dim", 0) or 0) % len(op.sizes)
    if op.source.axes[dim] != TIME or any(t.shape[dim] != 1 for t in op.out):
        raise op.no("splits anything but single steps", "index")
    axes = tuple(FEATURE if i == dim else a for i, a in enumerate(op.source.axes))
    return [frame(op.source, axes, t) for t in range(len(op.out))]


def _parts(op: Op) -> list[torch.Tensor]:
    return list(op.argument(0, "tensors"))


def take_stack(op: Op) -> Value:
    dim = op.argument(1, "dim", 0) % op.out.ndim
    axes = op.source.axes
    return _in_time(op, (*axes[:dim], TIME, *axes[dim:]))


def _in_time(op: Op, axes: tuple[str, ...]) -> Value:
    """Return the sequence of frames that are joined."""
    values = [op.rec.read(t) for t in _parts(op)]
    same = {v.axes for v in values if v.terms} == {op.source.axes} and not op.source.sequence
    lags = as_sequence([v.terms for v in values], op.rec.steps) if same else None
    if lags is None:
        raise op.no("joins what are not all steps of one layer, in order", "concat")
    return Value(lags, axes)


def take_cat(op: Op) -> Value:
    parts = _parts(op)
    dim = op.argument(1, "dim", 0) % op.out.ndim
    axes = op.source.axes
    steps = len(parts) == op.rec.steps and parts[0].shape[dim] == 1 and axes[dim] == FEATURE
    if steps and not op.source.sequence:
        try:
            return _in_time(op, tuple(TIME if i == dim else a for i, a in enumerate(axes)))
        except UnsupportedModule:
            pass  # features of one step, side by side
    values = [op.rec.read(t) for t in parts]
    lead = tuple(a for a in axes if a != FEATURE)
    if axes[: len(lead)] != lead or dim != len(lead) or any(v.axes != axes for v in values):
        raise op.no("joins other axes than the first of the features, behind the samples")
    joined = (prod(op.out.shape[len(lead) :]),)
    return as_site(op, rn.Concat(), lead, list(zip(parts, values, strict=True)), joined)
