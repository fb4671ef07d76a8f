"""What every operation of a running forward means for the tensors it reads: ``HANDLERS``.

A handler gets an ``Op`` and returns the value of its output, or of each of its outputs. What has
none is refused where something reads its result, so prints, counters and losses in forward do no
harm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from neuroav.errors import NeuroavError
from neuroav_export.tracing import axes as axes
from neuroav_export.tracing import sums as sums
from neuroav_export.tracing.op import Op
from neuroav_export.tracing.values import TIME, Refused, Terms, Value, as_sequence, refuse

if TYPE_CHECKING:
    from neuroav_export.tracing.steps import Recorder

_READS_DATA = frozenset(
    ("item", "bool", "int", "float", "index", "tolist", "numpy", "array", "nonzero", "contains")
)


def op_name(func: Callable[..., Any]) -> str:
    """Return the name of a function, method or property of torch, without underscores."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", name)
    return name.strip("_").lower()


def watch(rec: Recorder, func: Callable[..., Any], args: tuple, kwargs: dict, out: Any) -> None:
    """Give the outputs of an operation their values."""
    name = op_name(func)
    if name == "setitem":
        _set_item(rec, *args)
        return
    tensors = tensors_in((*args, *kwargs.values()))
    found = [(t, rec.of(t)) for t in tensors]
    known = [(t, v) for t, v in found if v is not None]
    if not known:
        return
    outs = tensors_in((out,))
    if not outs:
        if name in _READS_DATA:
            where = rec.place or "the network"
            raise refuse(
                f"{where}: forward cannot be traced: it takes {name} of a tensor; it must do the "
                "same operations whatever the data",
                "control-flow",
            )
        return
    given: list[tuple[torch.Tensor, Value]] = []
    try:
        given += [(t, rec.mended(t, v) if isinstance(v, Refused) else v) for t, v in known]
        op = Op(rec, name, func, args, kwargs, out, given)
        if kwargs.get("out") is not None:
            raise op.no("writes to out=; use what it returns", "operation")
        handler = HANDLERS.get(name)
        if handler is None:
            raise op.no()
        values = handler(op)
    except NeuroavError as error:
        values = Refused(error, tuple(given))
    for i, tensor in enumerate(outs):
        rec.values[tensor] = values[i] if isinstance(values, list) else values


def tensors_in(parts: Any) -> list[torch.Tensor]:
    """Return a tensor, or all tensors in tuples and lists."""
    if isinstance(parts, torch.Tensor):
        return [parts]
    if isinstance(parts, (tuple, list)):
        return [t for p in parts for t in tensors_in(p)]
    return []


# --- buffers -----------------------------------------------------------------------------------
@dataclass
class Buffer:
    """A tensor of forward's own that gets the output of a step at a time: ``out[t] = z``."""

    dim: int
    axes: tuple[str, ...]
    frames: dict[int, Terms] = field(default_factory=dict)

    def value(self, steps: int) -> Value | Refused:
        """Return the sequence it holds; refused unless every step is there."""
        found = [self.frames.get(t) for t in range(steps)]
        lags = None if None in found else as_sequence([f for f in found if f is not None], steps)
        if lags is None:
            return Refused(refuse("a tensor is not filled with all steps of a layer", "index"))
        return Value(lags, self.axes)


def _set_item(rec: Recorder, target: torch.Tensor, index: Any, given: Any) -> None:
    value = rec.of(given)
    if value is None and rec.of(target) is None:
        return
    parts = index if isinstance(index, tuple) else (index,)
    whole = [i for i, p in enumerate(parts) if isinstance(p, int)]
    plain = all(isinstance(p, int) or p == slice(None) or p is Ellipsis for p in parts)
    if not isinstance(value, Value) or value.sequence or len(whole) != 1 or not plain:
        error = refuse(f"{rec.place or 'the network'}: writes into a tensor", "index")
        rec.values[target] = value if isinstance(value, Refused) else Refused(error)
        return
    dim = whole[0] if Ellipsis not in parts[: whole[0]] else target.ndim - len(parts) + whole[0]
    axes = (*value.axes[:dim], TIME, *value.axes[dim:])
    if target not in rec.buffers:
        rec.buffers[target] = Buffer(dim, axes)
    rec.buffers[target].frames[int(parts[whole[0]]) % target.shape[dim]] = value.terms


_BY_HANDLER: dict[Callable[[Op], Any], str] = {
    axes.take_same: "contiguous clone detach double requires_grad data cpu alias to type type_as "
    "float half bfloat16 expand expand_as",
    axes.take_reshape: "reshape view flatten unflatten squeeze unsqueeze view_as reshape_as ravel",
    axes.take_permute: "permute transpose t swapaxes swapdims movedim moveaxis mt adjoint",
    axes.take_index: "getitem",
    axes.take_select: "select",
    axes.take_unbind: "unbind",
    axes.take_split: "split chunk tensor_split split_with_sizes",
    axes.take_stack: "stack",
    axes.take_cat: "cat concat concatenate",
    sums.take_plus: "add radd iadd",
    sums.take_minus: "sub subtract isub",
    sums.take_times: "mul multiply rmul imul",
    sums.take_over: "div divide true_divide truediv itruediv idiv",
    sums.take_negative: "neg negative",
    sums.take_mean: "mean",
    sums.take_sum: "sum",
    sums.take_adaptive_pool: "adaptive_avg_pool2d",
    sums.take_max_pool: "max_pool2d max_pool2d_with_indices",
    sums.take_avg_pool: "avg_pool2d",
    sums.take_relu: "relu",
    sums.take_dropout: "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout",
}
HANDLERS: dict[str, Callable[[Op], Any]] = {
    name: handler for handler, names in _BY_HANDLER.items() for name in names.split()
}
