"""Layers that remember: delays, recurrent neurons, leaky readouts; and step-by-step networks.

As in ``neuroav.models.layers`` tensors are (T, B, ...), T steps of B samples.
"""

from __future__ import annotations

from typing import Literal

import torch
from norse.torch.functional.threshold import threshold
from torch import nn

from neuroav.models.parameters import LifParameters

OverTime = Literal["mean", "sum", "last"]


class Delay(nn.Module):
    """What came ``steps`` steps ago, 0 in the first ones: (T, B, ...) -> the same."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"a delay takes 1 step and more, got {steps}")
        self.steps = steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        late = min(self.steps, len(x))
        return torch.cat((torch.zeros_like(x[:late]), x[: len(x) - late]))

    def extra_repr(self) -> str:
        return str(self.steps)


class RecurrentLif(nn.Module):
    """LIF neurons that read their own spikes of the step before through ``recurrent``.

    c = x + recurrent(spike of the step before, 0 at first)
    i' = i - (dt / tau_syn) i + c    (i' = c without tau_syn_s)
    v' = v + (dt / tau_mem) (i' - v);  spike = v' > v_threshold
    v = 0 where it spiked (``reset`` 'value'), or v' - v_threshold ('subtract').

    recurrent: ``nn.Linear`` or ``nn.Conv2d`` that keeps the shape. forward: current (T, B, ...) ->
    spikes (T, B, ...). With ``tau_syn_s`` the order is that of ``norse.torch.LIFRecurrent``.
    """

    def __init__(
        self,
        recurrent: nn.Module,
        parameters: LifParameters | None = None,
        tau_syn_s: float | None = None,
        reset: Literal["value", "subtract"] = "value",
    ) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.parameters_ = parameters or LifParameters()
        self.tau_syn_s, self.reset = tau_syn_s, reset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        p = self.parameters_
        keep = 0.0 if self.tau_syn_s is None else 1.0 - p.dt_s / self.tau_syn_s
        spike = i = v = torch.zeros_like(x[0])
        spikes = []
        for current in x:
            i = keep * i + (current + self.recurrent(spike))
            v = v + p.dt_s / p.tau_mem_s * (i - v)
            spike = threshold(v - p.norse_threshold, p.surrogate, p.alpha)
            lower = p.norse_threshold * torch.ones_like(v) if self.reset == "subtract" else v
            v = v - spike * lower
            spikes.append(spike)
        return torch.stack(spikes)

    def extra_repr(self) -> str:
        return f"{self.parameters_}, tau_syn_s={self.tau_syn_s}, reset={self.reset!r}"


class Li(nn.Module):
    """Leaky membrane without threshold: (T, B, ...) current -> (T, B, ...) membrane.

    i' = i - (dt / tau_syn) i + x  (i' = x without tau_syn_s);
    v' = v + (dt / tau_mem) ((v_leak - v) + i'), from v_leak on. As ``norse.torch.LI``.
    """

    def __init__(
        self,
        tau_mem_s: float = 1e-2,
        tau_syn_s: float | None = None,
        v_leak: float = 0.0,
        dt_s: float = 1e-3,
    ) -> None:
        super().__init__()
        self.tau_mem_s, self.tau_syn_s, self.v_leak, self.dt_s = tau_mem_s, tau_syn_s, v_leak, dt_s

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        keep = 0.0 if self.tau_syn_s is None else 1.0 - self.dt_s / self.tau_syn_s
        i, v = torch.zeros_like(x[0]), torch.full_like(x[0], self.v_leak)
        membranes = []
        for current in x:
            i = keep * i + current
            v = v + self.dt_s / self.tau_mem_s * ((self.v_leak - v) + i)
            membranes.append(v)
        return torch.stack(membranes)

    def extra_repr(self) -> str:
        return (
            f"tau_mem_s={self.tau_mem_s}, tau_syn_s={self.tau_syn_s}, "
            f"v_leak={self.v_leak}, dt_s={self.dt_s}"
        )


class TimeLast(nn.Module):
    """Value after the last step: (T, B, K) -> (B, K)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[-1]


class Steps(nn.Module):
    """A network of one step, run over all: (T, B, ...) -> class scores (B, K).

    network: called as ``out, state = network(x[t], state)``, with None at first, as
    ``norse.torch.SequentialState`` of cells is. over_time: mean or sum of its outputs over the
    steps, or the last one.
    """

    def __init__(self, network: nn.Module, over_time: OverTime = "mean") -> None:
        super().__init__()
        self.network, self.over_time = network, over_time

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, outs = None, []
        for t in range(len(x)):
            out, state = self.network(x[t], state)
            outs.append(out)
        return _collected(torch.stack(outs), self.over_time)

    def extra_repr(self) -> str:
        return f"over_time={self.over_time!r}"


class WholeSample(nn.Module):
    """A network that gives scores for every step, (T, B, ...) -> class scores (B, K).

    network: its output, or the first one of several (``norse.torch`` adds a state), is (T, B, K).
    over_time: as for ``Steps``. batch_first: the network takes and gives (B, T, ...).
    """

    def __init__(
        self, network: nn.Module, over_time: OverTime = "mean", batch_first: bool = False
    ) -> None:
        super().__init__()
        self.network, self.over_time, self.batch_first = network, over_time, batch_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.network(x.transpose(0, 1) if self.batch_first else x)
        out = out[0] if isinstance(out, tuple) else out
        return _collected(out.transpose(0, 1) if self.batch_first else out, self.over_time)

    def extra_repr(self) -> str:
        return f"over_time={self.over_time!r}, batch_first={self.batch_first}"


class BatchFirst(nn.Module):
    """A network of samples first, (B, T, ...) -> (B, K), given steps first: (T, B, ...)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x.transpose(0, 1))


def _collected(out: torch.Tensor, over_time: OverTime) -> torch.Tensor:
    if over_time == "last":
        return out[-1]
    return out.sum(0) if over_time == "sum" else out.mean(0)
