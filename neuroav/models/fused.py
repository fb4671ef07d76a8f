"""All steps of a layer of Norse's LIFBox neurons as one operation, forward and backward.

Spikes and membranes are those of ``norse.torch.functional.lif_box_feed_forward_step`` bit for bit,
and so are gradients up to the order of sums; Norse's step, taken T times, is the oracle in the
tests. One pass over the input and one over its gradient replace some ten passes a step.

With u = v + f ((x + v_leak) - v), s = u > v_th, v' = (1 - s) u + s v_reset and g the gradient:

    g_u = g_v' (1 - s) + (g_s + g_v' (v_reset - u)) surrogate(u - v_th)   (no g_v' term where the
    g_x = f g_u,  g_v = (1 - f) g_u                                        reset is detached)

The loops are compiled by numba for float32 on the CPU, and are torch operations elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from norse.torch.functional.threshold import threshold


@dataclass(frozen=True)
class StepConstants:
    """What one step needs, as float32 values: factor is dt / tau_mem as Norse rounds it."""

    factor: float
    v_leak: float
    v_threshold: float
    v_reset: float
    surrogate: str
    alpha: float
    detach_reset: bool
    detach_state: bool


class FusedLif(torch.autograd.Function):
    """apply(x, constants): real (T, B, ...) -> spikes (T, B, ...) of 0. and 1."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, constants: StepConstants) -> torch.Tensor:
        c = constants
        x = _dense(x)
        spikes = torch.empty_like(x)
        membrane = torch.empty_like(x)  # u: before the reset
        _loop("forward", x)(
            *map(_flat, (x, spikes, membrane)), c.factor, c.v_leak, c.v_threshold, c.v_reset
        )
        ctx.save_for_backward(spikes, membrane)
        ctx.constants = c
        return spikes

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        spikes, membrane = ctx.saved_tensors
        c: StepConstants = ctx.constants
        slope = surrogate_slope(membrane - c.v_threshold, c.surrogate, c.alpha)
        grad = torch.empty_like(membrane).copy_(grad)  # laid out as the membrane is
        _loop("backward", grad)(
            *map(_flat, (grad, spikes, membrane, slope)),
            c.factor,
            c.v_reset,
            c.detach_reset,
            c.detach_state,
        )
        return grad, None


def surrogate_slope(distance: torch.Tensor, method: str, alpha: float) -> torch.Tensor:
    """Return the derivative that Norse's threshold function takes at ``distance``, same shape."""
    if method == "tanh":  # the default: 1 - tanh(alpha d)^2 = 4 p (1 - p), and sigmoid is quicker
        p = distance.mul_(2 * alpha).sigmoid_()
        return torch.addcmul(p, p, p, value=-1).mul_(4)
    with torch.enable_grad():
        at = distance.detach().requires_grad_()
        spikes = threshold(at, method, alpha)
        (slope,) = torch.autograd.grad(spikes, at, torch.ones_like(spikes))
    return slope


def _dense(x: torch.Tensor) -> torch.Tensor:
    """Return x, or a copy, so that the steps follow one another in memory without gaps."""
    step = x[0]
    tight = step.is_contiguous() or (
        step.ndim == 4 and step.is_contiguous(memory_format=torch.channels_last)
    )
    return x if tight and x.stride(0) == step.numel() else x.contiguous()


def _flat(x: torch.Tensor) -> torch.Tensor:
    """View (T, ...) as (T, M) in the order of memory; all of a call have the same strides."""
    return x.as_strided((x.shape[0], x[0].numel()), (x[0].numel(), 1), x.storage_offset())


def _loop(which: str, like: torch.Tensor) -> Callable[..., None]:
    if like.device.type == "cpu" and like.dtype == torch.float32:
        return _compiled()[which]
    return _forward if which == "forward" else _backward


def _forward(x, spikes, membrane, factor, v_leak, v_threshold, v_reset) -> None:
    v = torch.full_like(x[0], v_leak)
    for t in range(len(x)):
        u = torch.add(v, factor * (x[t] + v_leak - v), out=membrane[t])
        z = spikes[t].copy_(u > v_threshold)
        v = (1 - z) * u + z * v_reset


def _backward(grad, spikes, membrane, slope, factor, v_reset, detach_reset, detach_state) -> None:
    carried = torch.zeros_like(grad[0])
    for t in reversed(range(len(grad))):
        to_spike = grad[t]
        if not detach_reset:
            to_spike = to_spike + carried * (v_reset - membrane[t])
        to_membrane = carried * (1 - spikes[t]) + to_spike * slope[t]
        grad[t] = factor * to_membrane
        carried = torch.zeros_like(carried) if detach_state else (1 - factor) * to_membrane


@cache
def _compiled() -> dict[str, Callable[..., None]]:
    from neuroav.models import _fused_loops as loops

    def call(loop: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments) -> None:
            loop(*(a.numpy() if isinstance(a, torch.Tensor) else a for a in arguments))

        return run

    return {"forward": call(loops.forward), "backward": call(loops.backward)}
