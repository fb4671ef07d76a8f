"""A network run in float64, as the compiler runs it to check itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

_CASTS = frozenset(("float", "half", "bfloat16", "to", "type", "type_as"))


def kept_float64(func: Callable[..., Any], args: tuple, out: Any) -> Any:
    """Return what a cast in forward gives here: float64 stays, whatever forward asks for."""
    name = getattr(func, "__name__", "")
    if name in _CASTS and isinstance(out, torch.Tensor) and out.is_floating_point():
        source = args[0]
        return source if source.dtype == torch.float64 else out.double()
    return out


class InFloat64(TorchFunctionMode):
    """While it is entered, casts between floating-point types do nothing."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return kept_float64(func, args, func(*args, **(kwargs or {})))


def run_in_float64(module: nn.Module, inputs: Iterable[torch.Tensor]) -> Any:
    """Return what ``module``, in float64, gives for inputs in float64."""
    with torch.no_grad(), InFloat64():
        return module(*inputs)


def plain_tensors_to_float64(module: nn.Module) -> None:
    """Change, in place, tensors that modules hold beside parameters and buffers."""
    for part in module.modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                setattr(part, name, value.double())


SAMPLES = 2  # one alone would look like an axis of features


def few(sample: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """Return the first samples of (steps, samples, ...) in float64, the last repeated."""
    return {
        name: torch.from_numpy(
            np.asarray(v)[:, [min(i, v.shape[1] - 1) for i in range(SAMPLES)]].astype(np.float64)
        )
        for name, v in sample.items()
    }
