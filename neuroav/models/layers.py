"""Layers of a time-first spiking network: tensors are (T, B, ...), T steps of B samples.

Everything the compiler can trace is here or in ``torch.nn``: stateless ``torch.nn`` layers inside
``PerStep``, neurons as ``Lif``, and the few joins below; what has a memory besides is in
``neuroav.models.memory``.
"""

from __future__ import annotations

from functools import partial

import torch
from norse.torch.functional.lif_box import (
    LIFBoxFeedForwardState,
    LIFBoxParameters,
    lif_box_feed_forward_step,
)
from norse.torch.functional.reset import reset_value
from torch import nn

from neuroav.models.fused import StepConstants, lif
from neuroav.models.memory import BatchFirst, Delay, Li, RecurrentLif, Steps, TimeLast, WholeSample
from neuroav.models.parameters import SURROGATES, LifParameters

__all__ = [
    "SURROGATES",
    "Add",
    "BatchFirst",
    "Concat",
    "Delay",
    "Gain",
    "HeadSum",
    "Li",
    "Lif",
    "LifParameters",
    "MaskAttention",
    "MeanProduct",
    "Multiply",
    "PerStep",
    "RecurrentLif",
    "SpatialAttention",
    "SpatialMean",
    "Steps",
    "TemporalAttention",
    "TimeLast",
    "TimeMean",
    "TimeWeightedSum",
    "WholeSample",
]


def reset_detached(z, v, v_reset, v_th):
    return reset_value(z.detach(), v, v_reset, v_th)


class Lif(nn.Module):
    """Norse's LIFBox neuron over all steps of a sequence; state starts at v_leak.

    v' = v + (dt / tau_mem) ((v_leak - v) + x);  spike = v' > v_threshold;  reset to v_reset.
    forward: (T, B, ...) real -> (T, B, ...) of 0. and 1., the same as T times
    ``norse.torch.functional.lif_box_feed_forward_step`` (``neuroav.models.fused``).
    """

    def __init__(self, parameters: LifParameters | None = None) -> None:
        super().__init__()
        self.parameters_ = p = parameters or LifParameters()
        self.norse = LIFBoxParameters(
            tau_mem_inv=torch.tensor(1.0 / p.tau_mem_s),
            v_th=torch.tensor(p.norse_threshold),
            method=p.surrogate,
            alpha=p.alpha,
            reset_method=reset_detached if p.detach_reset else reset_value,
        )

    @property
    def constants(self) -> StepConstants:
        """The numbers of one step, rounded as Norse rounds them."""
        p, norse = self.parameters_, self.norse
        return StepConstants(
            float(p.dt_s * norse.tau_mem_inv),
            float(norse.v_leak),
            float(norse.v_th),
            float(norse.v_reset),
            p.surrogate,
            p.alpha,
            p.detach_reset,
            p.detach_state,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return lif(x, self.constants)

    def stepwise(self, x: torch.Tensor) -> torch.Tensor:
        """The same by Norse's own step function, slower: what ``forward`` is compared with."""
        state = LIFBoxFeedForwardState(v=self.norse.v_leak.expand_as(x[0]))
        step = partial(lif_box_feed_forward_step, p=self.norse, dt=self.parameters_.dt_s)
        spikes = []
        for current in x:
            if self.parameters_.detach_state:
                state = LIFBoxFeedForwardState(v=state.v.detach())
            spike, state = step(current, state)
            spikes.append(spike)
        return torch.stack(spikes)

    def extra_repr(self) -> str:
        return str(self.parameters_)


class PerStep(nn.Module):
    """Apply a stateless layer to every step: (T, B, ...) -> fold T into the batch and back."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Add(nn.Module):
    """Sum of two tensors, a residual or a fusion."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class Concat(nn.Module):
    """Features side by side: (T, B, M), (T, B, N) -> (T, B, M + N)."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.cat((x, y), dim=2)


class SpatialMean(nn.Module):
    """Mean over tokens: (T, B, C, H, W) -> (T, B, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(-2, -1))


class SpatialAttention(nn.Module):
    """Linear attention over the tokens of a step, per head: scale * q (k^T v).

    forward(q, k, v): binary (T, B, C, H, W) each -> (T, B, C, H, W) multiples of ``scale``. Channel
    c belongs to head c // (C / heads); tokens are the H * W places.
    """

    def __init__(self, heads: int, scale: float = 0.25) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        qh, kh, vh = (x.flatten(3).unflatten(2, (self.heads, -1)) for x in (q, k, v))
        state = torch.einsum("tbhim,tbhjm->tbhij", kh, vh)
        return (torch.einsum("tbhin,tbhij->tbhjn", qh, state) * self.scale).reshape(q.shape)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, scale={self.scale}"


class TemporalAttention(nn.Module):
    """Linear attention over the steps of a sample at every token, per head; not causal.

    forward(q, k, v): binary (T, B, C, H, W) each -> (T, B, C, H, W) multiples of ``scale``.
    scrambled: read the result (heads, T, C / heads) of a token as (T, C) without swapping heads
    and steps, as the released S-CMRL does: slot (h T + t) d + j becomes step // C, channel % C.
    """

    def __init__(self, heads: int, scale: float = 0.25, scrambled: bool = False) -> None:
        super().__init__()
        self.heads, self.scale, self.scrambled = heads, scale, scrambled

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        qh, kh, vh = (x.flatten(3).unflatten(2, (self.heads, -1)) for x in (q, k, v))
        state = torch.einsum("tbhin,tbhjn->bhijn", kh, vh)
        out = torch.einsum("tbhin,bhijn->bhtjn", qh, state) * self.scale
        steps, channels = q.shape[0], q.shape[2]
        if self.scrambled:
            slots = out.flatten(1, 3).unflatten(1, (steps, channels))
        else:
            slots = out.transpose(1, 2).flatten(2, 3)
        return slots.transpose(0, 1).reshape(q.shape)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, scale={self.scale}, scrambled={self.scrambled}"


class MaskAttention(nn.Module):
    """Token mask of linear cost: head h of token n passes v where its mask neuron spiked.

    forward(mask, v): mask (T, B, heads, H, W), v (T, B, C, H, W), both binary -> (T, B, C, H, W).
    """

    def forward(self, mask: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return v * mask.repeat_interleave(v.shape[2] // mask.shape[2], dim=2)


class HeadSum(nn.Module):
    """Sum over the channels of each head: (T, B, C, H, W) -> (T, B, heads, H, W)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(2, (self.heads, -1)).sum(3)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"


class MeanProduct(nn.Module):
    """R[t, c, n] = mean_n' a[t, c, n'] * mean_t' b[t', c, n]: (T, B, C, H, W) twice -> the same.

    The mean over steps makes it non-causal.
    """

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a.mean(dim=(-2, -1), keepdim=True) * b.mean(dim=0, keepdim=True)


class TimeWeightedSum(nn.Module):
    """Weighted sum over all steps, at every step: y = sum_t w[t] x[t], w = softmax(logits).

    forward: (T, B, ...) -> (T, B, ...), every step the same; ValueError unless T is ``steps``.
    steps: T. learned: ``logits`` (T,) is a parameter, 0 at the start; without it w is 1 / T.
    It needs the whole sample, so it is not causal. On a chip it adds synapses directly
    (``nn.Linear(..., bias=False)``) or messages.
    """

    def __init__(self, steps: int, learned: bool = True) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"a sum over time needs 1 step and more, got {steps}")
        self.steps = steps
        self.logits = nn.Parameter(torch.zeros(steps)) if learned else None

    def step_weights(self) -> torch.Tensor:
        """Return w, (steps,), positive, of sum 1."""
        if self.logits is None:
            return torch.full((self.steps,), 1.0 / self.steps, dtype=torch.float64)
        return self.logits.softmax(0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) != self.steps:
            raise ValueError(f"has weights for {self.steps} steps, the input has {len(x)}")
        weights = self.step_weights().to(x).reshape(-1, *[1] * (x.ndim - 1))
        return (weights * x).sum(0, keepdim=True).expand_as(x)

    def extra_repr(self) -> str:
        return f"{self.steps}, learned={self.logits is not None}"


class Multiply(nn.Module):
    """Product of two tensors of one shape, element by element; ValueError for two shapes."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if x.shape != y.shape:
            raise ValueError(f"multiplies shapes {tuple(x.shape)} and {tuple(y.shape)}")
        return x * y


class Gain(nn.Module):
    """Product with a fixed positive factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor

    def extra_repr(self) -> str:
        return str(self.factor)


class TimeMean(nn.Module):
    """Mean over steps: (T, B, K) -> (B, K)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=0)
