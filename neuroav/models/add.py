"""S-CMRL's baseline ``add`` and its unimodal twins (arXiv 2502.12488 without the cross block).

Per modality: convolutional spiking stem with a position term, spiking MLP with residual. Fusion by
adding token means, linear readout, mean over time. With D the embedding size:

    stem:  conv3x3(C -> D/2) BN LIF [pool 2 if pool_first]  conv3x3(D/2 -> D) BN LIF pool 2
    x = p + LIF(BN(conv3x3(p)))                    position term on the pooled spikes p
    z = x + LIF(BN(conv1x1(LIF(BN(conv1x1(x))))))  spiking MLP, hidden size ratio * D
    logits = mean_t W (gain * (mean_n z_audio + mean_n z_visual)) + b
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import nn

from neuroav.models.layers import Add, Gain, Lif, LifParameters, PerStep, SpatialMean, TimeMean


@dataclass(frozen=True)
class BranchShape:
    """Input of one modality per step; ``pool_first``: pool after the first convolution too."""

    channels: int
    rows: int
    columns: int
    pool_first: bool


def _conv_norm(inputs: int, outputs: int, kernel: int) -> PerStep:
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return PerStep(nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs))))


class Stem(nn.Module):
    """Event counts (T, B, C, H, W) -> tokens (T, B, D, H', W') in {0, 1, 2}."""

    def __init__(self, shape: BranchShape, embed_dim: int, neuron: LifParameters) -> None:
        super().__init__()
        self.conv0 = _conv_norm(shape.channels, embed_dim // 2, 3)
        self.lif0 = Lif(neuron)
        self.pool0 = PerStep(nn.MaxPool2d(2)) if shape.pool_first else nn.Identity()
        self.conv1 = _conv_norm(embed_dim // 2, embed_dim, 3)
        self.lif1 = Lif(neuron)
        self.pool1 = PerStep(nn.MaxPool2d(2))
        self.position = _conv_norm(embed_dim, embed_dim, 3)
        self.position_lif = Lif(neuron)
        self.tokens = Add()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool0(self.lif0(self.conv0(x)))
        x = self.pool1(self.lif1(self.conv1(x)))
        return self.tokens(x, self.position_lif(self.position(x)))


class SpikingMlp(nn.Module):
    """Tokens x -> x + MLP(x), two 1x1 convolutions with batch norm and LIF each."""

    def __init__(self, embed_dim: int, ratio: int, neuron: LifParameters) -> None:
        super().__init__()
        self.fc1 = _conv_norm(embed_dim, ratio * embed_dim, 1)
        self.lif1 = Lif(neuron)
        self.fc2 = _conv_norm(ratio * embed_dim, embed_dim, 1)
        self.lif2 = Lif(neuron)
        self.residual = Add()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.residual(x, self.lif2(self.fc2(self.lif1(self.fc1(x)))))


class Branch(nn.Module):
    """Stem, MLP and token mean of one modality: (T, B, C, H, W) -> (T, B, D)."""

    def __init__(
        self, shape: BranchShape, embed_dim: int, ratio: int, neuron: LifParameters
    ) -> None:
        super().__init__()
        self.stem = Stem(shape, embed_dim, neuron)
        self.mlp = SpikingMlp(embed_dim, ratio, neuron)
        self.token_mean = SpatialMean()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.token_mean(self.mlp(self.stem(x)))


class Head(nn.Module):
    """Class scores from features: (T, B, D) -> (B, classes)."""

    def __init__(self, embed_dim: int, classes: int, gain: float) -> None:
        super().__init__()
        self.gain = Gain(gain)
        self.linear = nn.Linear(embed_dim, classes)
        self.time_mean = TimeMean()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.time_mean(self.linear(self.gain(x)))


class AddFusion(nn.Module):
    """Both modalities, fused by addition. forward(audio, visual) -> (B, classes)."""

    inputs = ("audio", "visual")

    def __init__(
        self,
        audio: BranchShape,
        visual: BranchShape,
        classes: int,
        embed_dim: int,
        mlp_ratio: int,
        readout_gain: float,
        neuron: LifParameters,
    ) -> None:
        super().__init__()
        self.audio = Branch(audio, embed_dim, mlp_ratio, neuron)
        self.visual = Branch(visual, embed_dim, mlp_ratio, neuron)
        self.fusion = Add()
        self.head = Head(embed_dim, classes, readout_gain)

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        return self.head(self.fusion(self.audio(audio), self.visual(visual)))


class Unimodal(nn.Module):
    """One modality alone: the same branch and head. forward(x) -> (B, classes)."""

    def __init__(
        self,
        modality: str,
        shape: BranchShape,
        classes: int,
        embed_dim: int,
        mlp_ratio: int,
        readout_gain: float,
        neuron: LifParameters,
    ) -> None:
        super().__init__()
        self.inputs = (modality,)
        self.add_module(modality, Branch(shape, embed_dim, mlp_ratio, neuron))
        self.head = Head(embed_dim, classes, readout_gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.get_submodule(self.inputs[0])(x))
