"""Layers of a time-first spiking network: tensors are (T, B, ...), T steps of B samples.

Everything the compiler can trace is here or in ``torch.nn``: stateless ``torch.nn`` layers inside
``PerStep``, neurons as ``Lif``, and the few joins below.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from norse.torch.functional.lif_box import (
    LIFBoxFeedForwardState,
    LIFBoxParameters,
    lif_box_feed_forward_step,
)
from norse.torch.functional.reset import reset_value
from torch import nn

SURROGATES = ("super", "tanh", "triangle", "heavi_erfc", "logistic", "circ")


@dataclass(frozen=True)
class LifParameters:
    """Parameters of one layer of neurons, in seconds and membrane units.

    tau_mem_s: membrane time constant; dt_s: length of a step; surrogate, alpha: Norse's threshold
    method and its width ('tanh' with alpha 2 is sech^2(2 (v - v_threshold)), S-CMRL's own);
    detach_reset: stop the gradient through the reset (Norse does not).
    """

    tau_mem_s: float = 2e-3
    dt_s: float = 1e-3
    v_threshold: float = 1.0
    surrogate: str = "tanh"
    alpha: float = 2.0
    detach_reset: bool = False


def _reset_detached(z, v, v_reset, v_th):
    return reset_value(z.detach(), v, v_reset, v_th)


class Lif(nn.Module):
    """Norse's LIFBox neuron over all steps of a sequence; state starts at v_leak.

    v' = v + (dt / tau_mem) ((v_leak - v) + x);  spike = v' > v_threshold;  reset to v_reset.
    forward: (T, B, ...) real -> (T, B, ...) of 0. and 1. Every step is
    ``norse.torch.functional.lif_box_feed_forward_step`` itself.
    """

    def __init__(self, parameters: LifParameters | None = None) -> None:
        super().__init__()
        self.parameters_ = p = parameters or LifParameters()
        self.norse = LIFBoxParameters(
            tau_mem_inv=torch.tensor(1.0 / p.tau_mem_s),
            v_th=torch.tensor(p.v_threshold),
            method=p.surrogate,
            alpha=p.alpha,
            reset_method=_reset_detached if p.detach_reset else reset_value,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = LIFBoxFeedForwardState(v=self.norse.v_leak.expand_as(x[0]))
        step = partial(lif_box_feed_forward_step, p=self.norse, dt=self.parameters_.dt_s)
        spikes = []
        for current in x:
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


class SpatialMean(nn.Module):
    """Mean over tokens: (T, B, C, H, W) -> (T, B, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=(-2, -1))


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
