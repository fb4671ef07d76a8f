"""All steps of a layer of Norse's LIFBox neurons as one operation, forward and backward.

Spikes and membranes are those of ``norse.torch.functional.lif_box_feed_forward_step`` bit for bit,
and so are gradients up to the order of sums; Norse's step, taken T times, is the oracle in the
tests. One pass over the input and one over its gradient replace some ten passes a step, and only
the membrane is kept for the backward pass: a spike is a membrane above threshold.

With u = v + f ((x + v_leak) - v), s = u > v_th, v' = (1 - s) u + s v_reset and g the gradient:

    g_u = g_v' (1 - s) + (g_s + g_v' (v_reset - u)) surrogate(u - v_th)   (no g_v' term where the
    g_x = f g_u,  g_v = (1 - f) g_u                                        reset is detached)

The loops are compiled by numba for float32 on the CPU and shared out to as many threads as torch
has; elsewhere they are torch operations. Under autocast the neurons stay in float32.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, cast

import torch
from norse.torch.functional.threshold import threshold

SHARE = 1 << 18  # real numbers that are worth a thread


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


def lif(x: torch.Tensor, constants: StepConstants) -> torch.Tensor:
    """Return the spikes (T, B, ...), 0. and 1., of real input x (T, B, ...), differentiable.

    x is float32 or float64; half precision is taken to float32. ValueError for whole numbers.
    """
    if not x.is_floating_point():
        raise ValueError(f"neurons read float32 or float64, the input is {x.dtype}")
    if x.dtype in (torch.bfloat16, torch.float16):
        x = x.float()
    if torch.is_grad_enabled() and x.requires_grad:
        return FusedLif.apply(x, constants)
    return _forward(x, constants, keep=False)[0]


class FusedLif(torch.autograd.Function):
    """apply(x, constants): real (T, B, ...) -> spikes (T, B, ...) of 0. and 1."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, constants: StepConstants) -> torch.Tensor:
        spikes, membrane = _forward(x, constants, keep=True)
        ctx.save_for_backward(membrane)
        ctx.constants = constants
        return spikes

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (membrane,) = ctx.saved_tensors
        return _backward(grad, membrane, ctx.constants), None


def _forward(
    x: torch.Tensor, c: StepConstants, keep: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return spikes and, if ``keep``, membranes before the reset, both laid out as x is."""
    x = dense(x.detach())
    spikes = torch.empty_like(x)
    membrane = torch.empty_like(x) if keep else None
    if compiled(x):
        from neuroav.models import _fused_loops as loops

        arrays = [rows(a) for a in (x, spikes, spikes if membrane is None else membrane)]
        numbers = (keep, c.factor, c.v_leak, c.v_threshold, c.v_reset)
        loop = cast(Any, loops.forward)
        shared(lambda i, j: loop(*arrays, i, j, *numbers), x)
    else:
        _forward_steps(x, spikes, membrane, c)
    return spikes, membrane


def _backward(grad: torch.Tensor, membrane: torch.Tensor, c: StepConstants) -> torch.Tensor:
    """Return the input's gradient from that of the spikes."""
    out = torch.empty_like(membrane)
    grad = grad if same_layout(grad, membrane) else out.copy_(grad)
    if compiled(membrane):
        from neuroav.models import _fused_loops as loops

        arrays = [rows(a) for a in (grad, membrane, out)]
        numbers = (c.factor, c.v_threshold, c.v_reset, c.detach_reset, c.detach_state)
        surrogate, loop = (loops.SURROGATES[c.surrogate], c.alpha), cast(Any, loops.backward)
        shared(lambda i, j: loop(*arrays, i, j, *numbers, *surrogate), membrane)
    else:
        _backward_steps(grad, membrane, out, c)
    return out


def surrogate_slope(distance: torch.Tensor, method: str, alpha: float) -> torch.Tensor:
    """Return the derivative that Norse's threshold function takes at ``distance``, same shape."""
    if method == "tanh":  # the default: 1 - tanh(alpha d)^2 = 4 p (1 - p), and sigmoid is quicker
        p = (distance * (2 * alpha)).sigmoid_()
        return torch.addcmul(p, p, p, value=-1).mul_(4)
    with torch.enable_grad():
        at = distance.detach().requires_grad_()
        spikes = threshold(at, method, alpha)
        (slope,) = torch.autograd.grad(spikes, at, torch.ones_like(spikes))
    return slope


def dense(x: torch.Tensor) -> torch.Tensor:
    """Return x, or a copy, so that the steps follow one another in memory without gaps."""
    return x if _tight(x) else x.contiguous()


def _tight(x: torch.Tensor) -> bool:
    """Whether a step of x (T, ...) has no gaps, in whatever order, and steps follow each other."""
    expected = 1
    for stride, size in sorted(
        (s, n) for s, n in zip(x.stride()[1:], x.shape[1:], strict=True) if n > 1
    ):
        if stride != expected:
            return False
        expected *= size
    return len(x) == 1 or x.stride(0) == expected


def same_layout(x: torch.Tensor, like: torch.Tensor) -> bool:
    """Whether two tensors of one shape lie in memory in the same order, with the same gaps."""
    return x.dtype == like.dtype and all(
        a == b for a, b, size in zip(x.stride(), like.stride(), like.shape, strict=True) if size > 1
    )


def rows(x: torch.Tensor) -> Any:
    """View dense (T, ...) as an array (T, M) in the order of memory; CPU only."""
    size = x[0].numel()
    return x.as_strided((len(x), size), (size, 1), x.storage_offset()).numpy()


def compiled(x: torch.Tensor) -> bool:
    """Whether the compiled loops take this tensor."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() > 0


def shared(loop: Callable[[int, int], None], x: torch.Tensor) -> None:
    """Call ``loop(first, last)`` for parts of the neurons of x (T, ...), one a thread of torch.

    Neurons do not see one another, so results do not depend on the number of threads.
    """
    size, threads = x[0].numel(), min(torch.get_num_threads(), x.numel() // SHARE)
    if threads < 2:
        loop(0, size)
        return
    edges = [size * i // threads for i in range(threads + 1)]
    parts = [_pool(threads - 1).submit(loop, i, j) for i, j in pairwise(edges[1:])]
    loop(0, edges[1])
    for part in parts:
        part.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="neuroav-lif")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork


def _forward_steps(x, spikes, membrane, c: StepConstants) -> None:
    v = torch.full_like(x[0], c.v_leak)
    for t in range(len(x)):
        u = torch.add(v, c.factor * (x[t] + c.v_leak - v))
        z = spikes[t].copy_(u > c.v_threshold)
        if membrane is not None:
            membrane[t].copy_(u)
        v = (1 - z) * u + z * c.v_reset


def _backward_steps(grad, membrane, out, c: StepConstants) -> None:
    carried = torch.zeros_like(membrane[0])
    for t in reversed(range(len(grad))):
        u, to_spike = membrane[t], grad[t]
        if not c.detach_reset:
            to_spike = to_spike + carried * (c.v_reset - u)
        slope = surrogate_slope(u - c.v_threshold, c.surrogate, c.alpha)
        to_membrane = carried * ~(u > c.v_threshold) + to_spike * slope
        torch.mul(to_membrane, c.factor, out=out[t])
        carried = torch.zeros_like(carried) if c.detach_state else (1 - c.factor) * to_membrane
