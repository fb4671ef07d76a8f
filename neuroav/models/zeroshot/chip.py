"""``stft-chip``: STFT with every part in a form that neurons have.

    semantic  a = LIF(BN(W x)), LIF(BN(W a)); r = mean_t U_s s_t
    temporal  three LIF layers;               s = sum_t alpha_t U_t s_t     alpha learned, fixed
    fusion    p = r * s                       CP form of Tucker's core: one product neuron each
    mixing    h = LIF(BN(W_a p_a) + BN(W_v p_v))
    space     theta = sum_t beta_t W h_t
    search    score_c = <theta, w_c> - |w_c|^2 / 2 - b [c is seen]

The input x does not change within a sample: W x of the first layers is computed by the host once
and drives them as a bias (``neuroav.host``). Everything after it is on the chip. A class is one row
of the search; a new class is a new row. Against ``stft`` (docs/zero-shot.md): no knowledge
combiner, no pooling gate, fixed thresholds and time weights, diagonal core, one linear mixing of
both modalities in the place of the transformer, and one embedding for both, so that the search is
a matrix product (the order of half squared distances).
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

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
from neuroav.models.zeroshot.parts import (
    MODALITIES,
    Embedded,
    InputScale,
    Reconstruction,
    TextSide,
    ZeroShotNet,
)
from neuroav.training.config import ZeroShotConfig


class SpikingLayer(nn.Module):
    """Linear, batch norm over samples and steps, LIF: (T, B, in) -> (T, B, out)."""

    def __init__(self, inputs: int, outputs: int, neuron: LifParameters) -> None:
        super().__init__()
        self.linear = PerStep(nn.Linear(inputs, outputs))
        self.norm = PerStep(nn.BatchNorm1d(outputs))
        self.lif = Lif(neuron)

    def current(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lif(self.current(x))


class Summary(nn.Module):
    """Spikes (T, B, D) -> a weighted sum of their projections, the same at every step (T, B, R)."""

    def __init__(self, inputs: int, outputs: int, steps: int, learned: bool) -> None:
        super().__init__()
        self.linear = PerStep(nn.Linear(inputs, outputs, bias=False))
        self.sum = TimeWeightedSum(steps, learned=learned)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.sum(self.linear(x))


class ChipBranch(nn.Module):
    """One modality after its first layers: both paths and their product."""

    def __init__(
        self, inputs: int, steps: int, rank: int, neuron: LifParameters, config: ZeroShotConfig
    ) -> None:
        super().__init__()
        hidden, width = config.hidden_dim, config.embed_dim
        self.semantic1 = SpikingLayer(inputs, hidden, neuron)
        self.semantic2 = SpikingLayer(hidden, width, neuron)
        self.temporal1 = SpikingLayer(inputs, hidden, neuron)
        self.temporal2 = SpikingLayer(hidden, width, neuron)
        self.temporal3 = SpikingLayer(width, width, neuron)
        self.semantic = Summary(width, rank, steps, learned=False)
        self.temporal = Summary(width, rank, steps, learned=True)
        self.product = Multiply()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return p (T, B, R) of features (T, B, D)."""
        semantic = self.semantic2(self.semantic1(x))
        temporal = self.temporal3(self.temporal2(self.temporal1(x)))
        return self.product(self.semantic(semantic), self.temporal(temporal))


class StftChip(ZeroShotNet):
    """No forward, as ``Stft``; ``deployable`` gives what is compiled."""

    def __init__(
        self,
        dims: Mapping[str, int],
        text_dim: int,
        steps: int,
        neuron: LifParameters,
        config: ZeroShotConfig,
        rank: int,
    ) -> None:
        super().__init__()
        self.steps = steps
        self.scale = nn.ModuleDict({m: InputScale(dims[m]) for m in MODALITIES})
        self.branch = nn.ModuleDict(
            {m: ChipBranch(dims[m], steps, rank, neuron, config) for m in MODALITIES}
        )
        self.mix = nn.ModuleDict(
            {
                m: nn.Sequential(
                    PerStep(nn.Linear(rank, config.hidden_dim)),
                    PerStep(nn.BatchNorm1d(config.hidden_dim)),
                )
                for m in MODALITIES
            }
        )
        self.join = Add()
        self.hidden = Lif(neuron)
        self.embedding = Summary(config.hidden_dim, config.output_dim, steps, learned=True)
        self.text = TextSide(text_dim, config)
        self.reconstruct = Reconstruction(config.embed_dim, config)

    def embed(self, inputs: Mapping[str, torch.Tensor]) -> Embedded:
        """Return theta 'joint' and the rates of the semantic neurons, of features (T, B, D).

        T = 1 stands for the same features in every step.
        """
        mixed, phi = [], {}
        for m in MODALITIES:
            branch, x = self.branch[m], self.scale[m](inputs[m])
            assert isinstance(branch, ChipBranch)
            semantic = branch.semantic2(self._first(branch.semantic1, x))
            temporal = branch.temporal2(self._first(branch.temporal1, x))
            temporal = branch.temporal3(temporal)
            fused = branch.product(branch.semantic(semantic), branch.temporal(temporal))
            # every step holds the same sum: the norms are computed once
            mixed.append(self.mix[m](fused[:1]))
            phi[m] = semantic.mean(dim=0)
        current = self.join(*mixed)
        spikes = self.hidden(current.expand(self.steps, *current.shape[1:]))
        return Embedded({"joint": self.embedding(spikes)[0]}, phi)

    def _first(self, layer: SpikingLayer, x: torch.Tensor) -> torch.Tensor:
        current = layer.current(x)
        if len(current) == 1:
            current = current.expand(self.steps, *current.shape[1:])
        return layer.lif(current)

    def rebuild(self, theta: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the features that the embedding tells of, by modality."""
        return self.reconstruct(dict.fromkeys(MODALITIES, theta["joint"]))


class ChipNetwork(nn.Module):
    """What is deployed: forward(audio, visual) of raw features (T, B, D) -> scores (B, C).

    The scaling of the inputs is folded into the first layers. Rows of ``search`` are classes.
    """

    inputs = MODALITIES

    def __init__(self, net: StftChip, search: nn.Linear) -> None:
        super().__init__()
        self.audio = scaled(net.branch["audio"], net.scale["audio"])
        self.visual = scaled(net.branch["visual"], net.scale["visual"])
        self.mix_audio, self.mix_visual = net.mix["audio"], net.mix["visual"]
        self.join, self.hidden, self.embedding = net.join, net.hidden, net.embedding
        self.search = PerStep(search)
        self.mean = TimeMean()

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        current = self.join(self.mix_audio(self.audio(audio)), self.mix_visual(self.visual(visual)))
        return self.mean(self.search(self.embedding(self.hidden(current))))


def class_rows(embeddings: np.ndarray, seen: np.ndarray, bias: float) -> nn.Linear:
    """Return the class search: rows w_c, biases -|w_c|^2 / 2 - bias [c in seen].

    embeddings (C, E) float; seen: indices of the seen classes.
    """
    search = nn.Linear(embeddings.shape[1], len(embeddings))
    offset = -0.5 * (embeddings.astype(np.float64) ** 2).sum(axis=1)
    offset[seen] -= bias
    with torch.no_grad():
        search.weight.copy_(torch.from_numpy(embeddings))
        search.bias.copy_(torch.from_numpy(offset))
    return search


def scaled(branch: nn.Module, scale: nn.Module) -> ChipBranch:
    """Return a copy of a branch whose first layers read unscaled features."""
    copy = deepcopy(branch)
    assert isinstance(copy, ChipBranch)
    assert isinstance(scale, InputScale)
    factor, mean = scale.factor, scale.mean
    for layer in (copy.semantic1, copy.temporal1):
        linear = layer.linear.layer
        assert isinstance(linear, nn.Linear)
        with torch.no_grad():
            linear.bias.sub_(linear.weight @ (factor * mean))
            linear.weight.mul_(factor)
    return copy
