"""A network that multiplies: two inputs of real features, low-rank fusion, class search.

Each modality becomes spikes, then a weighted sum over the sample of a projection to a few factors;
the factors of both are multiplied, and neurons that read the products give an embedding, which a
linear layer compares with every class.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from neuroav.models.layers import (
    Add,
    Lif,
    LifParameters,
    Multiply,
    PerStep,
    TimeMean,
    TimeWeightedSum,
)

STEPS, FEATURES, WIDTH, RANK, EMBEDDING, CLASSES = 8, 24, 48, 16, 64, 10
NAMES = ("audio", "visual")


class Branch(nn.Module):
    """Features (D,), the same at every step -> spikes (WIDTH,); the first layer is the host's."""

    def __init__(self) -> None:
        super().__init__()
        neuron = LifParameters(tau_mem_s=4e-3, v_threshold=0.5)
        self.first, self.lif0 = PerStep(nn.Linear(FEATURES, WIDTH)), Lif(neuron)
        linear = nn.Sequential(nn.Linear(WIDTH, WIDTH, bias=False), nn.BatchNorm1d(WIDTH))
        self.second, self.lif1 = PerStep(linear), Lif(neuron)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lif1(self.second(self.lif0(self.first(x))))


class Pair(nn.Module):
    """Elementwise product of one projection of each modality, (RANK,)."""

    def __init__(self, learned: bool) -> None:
        super().__init__()
        for name in ("left", "right"):
            setattr(self, name, nn.Linear(WIDTH, RANK, bias=False))
            setattr(self, f"{name}_sum", TimeWeightedSum(STEPS, learned))
        self.product = Multiply()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.product(self.left_sum(self.left(x)), self.right_sum(self.right(y)))


class Fusion(nn.Module):
    """(audio, visual), (T, B, FEATURES) each -> class scores (B, CLASSES)."""

    def __init__(self, learned: bool = True) -> None:
        super().__init__()
        self.audio, self.visual = Branch(), Branch()
        self.pair_a, self.pair_v = Pair(learned), Pair(learned)
        self.mix_a = PerStep(nn.Linear(RANK, EMBEDDING))
        self.mix_v = PerStep(nn.Linear(RANK, EMBEDDING))
        self.add, self.lif = Add(), Lif(LifParameters(tau_mem_s=4e-3, v_threshold=0.5))
        self.embed = nn.Linear(EMBEDDING, EMBEDDING, bias=False)
        self.theta = TimeWeightedSum(STEPS, learned)
        self.search, self.time_mean = nn.Linear(EMBEDDING, CLASSES), TimeMean()

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        a, v = self.audio(audio), self.visual(visual)
        h = self.lif(self.add(self.mix_a(self.pair_a(a, v)), self.mix_v(self.pair_v(v, a))))
        return self.time_mean(self.search(self.theta(self.embed(h))))


def features(samples: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Return random features (samples, STEPS, FEATURES), the same at every step."""
    rng = np.random.default_rng(seed)
    return {n: np.repeat(rng.normal(size=(samples, 1, FEATURES)), STEPS, axis=1) for n in NAMES}


def awake_fusion(learned: bool = True, seed: int = 0) -> Fusion:
    """Return an untrained network in evaluation mode in which every layer fires and rests."""
    torch.manual_seed(seed)
    model = Fusion(learned)
    inputs = [torch.from_numpy(np.moveaxis(v, 1, 0)).float() for v in features(64, 7).values()]
    with torch.no_grad():
        for logits in (m.logits for m in model.modules() if isinstance(m, TimeWeightedSum)):
            if logits is not None:
                logits.normal_(std=0.5)
        for branch in (model.audio, model.visual):
            branch.first.layer.weight.mul_(4)
            branch.second.layer[1].bias.add_(0.4)
        for pair in (model.pair_a, model.pair_v):
            pair.left.weight.mul_(6)
            pair.right.weight.mul_(6)
        for mix in (model.mix_a, model.mix_v):
            mix.layer.weight.mul_(4)
        model.train()
        for _ in range(30):
            model(*inputs)
    return model.eval()
