"""STFT's spiking branch: three blocks of Linear, norm, global-local pooling and LIF neurons.

Neurons are Norse's LIFBox. With a dynamic threshold every sample has its own, so the steps are
taken one by one with Norse's step function; with a fixed one all steps of a layer are one operation
(``neuroav.models.layers.Lif``), the same spikes.

    P = 0.5 (P_max + P_avg) + beta P_max + (1 - beta) P_avg    over the features of a step, (B, 1)
    I' = (1 + sigmoid(P)) I            'gate'; 'paper': sigmoid(P I + I); 'mean': I + beta P_avg
    th' = 0.5 th + 0.5 clamp(0.5 sigmoid(P) + H, 0.25, 2)

H is the entropy of the layer's spikes in bits ('entropy'), or four times their rate, at most 1
('count'). No gradient goes through the threshold. The paper's own gate keeps I' below 1, under the
threshold; 'gate' is the reading of a third party.
"""

from __future__ import annotations

from functools import partial

import torch
from norse.torch.functional.lif_box import LIFBoxFeedForwardState, lif_box_feed_forward_step
from torch import nn

from neuroav.models.layers import Lif, LifParameters, PerStep
from neuroav.training.config import StftConfig

LOWEST, HIGHEST, MEMORY = 0.25, 2.0, 0.5  # of the dynamic threshold


class Pooling(nn.Module):
    """Global-local pooling of currents (T, B, D) -> gated currents and P (T, B, 1)."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.balance = nn.Parameter(torch.zeros(()))  # beta = sigmoid(balance)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        beta = torch.sigmoid(self.balance)
        average = x.mean(dim=-1, keepdim=True)
        if self.kind == "mean":
            return x + beta * average, 0.5 * average + (1 - beta) * average
        largest = x.amax(dim=-1, keepdim=True)
        pooled = 0.5 * (largest + average) + beta * largest + (1 - beta) * average
        if self.kind == "paper":
            return torch.sigmoid(pooled * x + x), pooled
        return (1 + torch.sigmoid(pooled)) * x, pooled


class DynamicLif(Lif):
    """LIFBox neurons whose threshold follows their own activity, sample by sample.

    kind: what raises it, 'entropy' or 'count'.
    """

    def __init__(self, parameters: LifParameters, kind: str) -> None:
        super().__init__(parameters)
        self.kind = kind

    def forward(self, x: torch.Tensor, pooled: torch.Tensor | None = None) -> torch.Tensor:
        """Return spikes (T, B, D) for currents (T, B, D) and their pooling (T, B, 1), or 0."""
        step = partial(lif_box_feed_forward_step, dt=self.parameters_.dt_s)
        state = LIFBoxFeedForwardState(v=self.norse.v_leak.expand_as(x[0]))
        threshold = torch.full_like(x[0, :, :1], self.parameters_.v_threshold)
        spikes = []
        for t, current in enumerate(x):
            spike, state = step(current, state, p=self.norse._replace(v_th=threshold))
            spikes.append(spike)
            gate = torch.zeros_like(threshold) if pooled is None else pooled[t]
            threshold = self._adapted(threshold, spike, gate)
        return torch.stack(spikes)

    @torch.no_grad()
    def _adapted(
        self, threshold: torch.Tensor, spike: torch.Tensor, pooled: torch.Tensor
    ) -> torch.Tensor:
        rate = spike.mean(dim=-1, keepdim=True)
        raised = _entropy(rate) if self.kind == "entropy" else (4 * rate).clamp(max=1)
        target = (0.5 * torch.sigmoid(pooled) + raised).clamp(LOWEST, HIGHEST)
        return MEMORY * threshold + (1 - MEMORY) * target


def _entropy(rate: torch.Tensor) -> torch.Tensor:
    """Return the binary entropy of a rate in bits."""
    return -(torch.special.xlogy(rate, rate) + torch.special.xlogy(1 - rate, 1 - rate)) / 0.6931472


class Block(nn.Module):
    """Linear, norm, pooling, neurons: (T, B, in) -> (T, B, out) spikes, or ReLU values.

    A current that does not change comes as T = 1 and is repeated ``steps`` times.
    """

    def __init__(
        self, inputs: int, outputs: int, steps: int, neuron: LifParameters, config: StftConfig
    ) -> None:
        super().__init__()
        self.steps = steps
        self.linear = nn.Linear(inputs, outputs)
        self.norm: nn.Module = (
            nn.LayerNorm(outputs) if config.norm == "layer" else PerStep(nn.BatchNorm1d(outputs))
        )
        if config.snn == "relu":
            self.neurons: nn.Module = nn.ReLU()
            return
        if config.pooling != "none":
            self.pooling = Pooling(config.pooling)
        dynamic = config.dynamic_threshold != "none"
        self.neurons = DynamicLif(neuron, config.dynamic_threshold) if dynamic else Lif(neuron)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        current = self.norm(self.linear(x))
        if not isinstance(self.neurons, Lif):
            return self.neurons(current)
        if len(current) == 1 and self.steps > 1:
            current = current.expand(self.steps, *current.shape[1:])
        pooled = None
        if hasattr(self, "pooling"):
            current, pooled = self.pooling(current)
        if isinstance(self.neurons, DynamicLif):
            return self.neurons(current, pooled)
        return self.neurons(current)


class TimeFactor(nn.Module):
    """STFT's time-step factor: spikes (T, B, D) -> (B, D), a weighted sum over steps.

    'sample': weights softmax_t(sum_d S_t / sqrt(D) + learned logit_t); 'fixed': softmax_t(logit_t);
    'uniform': 1 / T.
    """

    def __init__(self, kind: str, steps: int) -> None:
        super().__init__()
        self.kind = kind
        if kind != "uniform":
            self.logits = nn.Parameter(torch.zeros(steps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "uniform" or len(x) == 1:
            return x.mean(dim=0)
        score = self.logits[:, None].expand(x.shape[:2])
        if self.kind == "sample":
            score = score + x.sum(dim=2) / x.shape[2] ** 0.5
        return torch.einsum("tb,tbd->bd", torch.softmax(score, dim=0), x)


class SpikingBranch(nn.Module):
    """Features (T, B, inputs) of one modality -> temporal features (B, width)."""

    def __init__(
        self,
        inputs: int,
        hidden: int,
        width: int,
        steps: int,
        neuron: LifParameters,
        config: StftConfig,
    ) -> None:
        super().__init__()
        sizes = ((inputs, hidden), (hidden, width), (width, width))
        self.blocks = nn.Sequential(*(Block(i, o, steps, neuron, config) for i, o in sizes))
        self.time_factor = TimeFactor(
            "uniform" if config.snn == "relu" else config.time_factor, steps
        )
        if config.snn == "frozen":
            self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.time_factor(self.blocks(x))
