"""S-CMRL's baseline ``add`` and its unimodal twins (arXiv 2502.12488 without the cross block).

Per modality: convolutional spiking stem with a position term (``neuroav.models.stems``), spiking
MLP with residual. Fusion by adding token means, linear readout, mean over time. With tokens x and
D the embedding size:

    z = x + LIF(BN(conv1x1(LIF(BN(conv1x1(x))))))  spiking MLP, hidden size ratio * D
    logits = mean_t W (gain * (mean_n z_audio + mean_n z_visual)) + b
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from neuroav.models.attention import AttentionBranch, CrossOptions
from neuroav.models.layers import Add, Gain, Lif, LifParameters, SpatialMean, TimeMean
from neuroav.models.segments import Segmented
from neuroav.models.stems import BranchShape, StemName, conv_norm, make_stem


@dataclass(frozen=True)
class Sizes:
    """What all networks of the family share. mlp_bias: biases before the batch norms of the MLP,
    as released; they change nothing that batch norm does not undo."""

    classes: int
    embed_dim: int
    mlp_ratio: int
    readout_gain: float
    neuron: LifParameters
    stem: StemName = "compact"
    mlp_bias: bool = False


class SpikingMlp(Segmented):
    """Tokens x -> x + MLP(x), two 1x1 convolutions with batch norm and LIF each."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        inner, outer = sizes.mlp_ratio * sizes.embed_dim, sizes.embed_dim
        self.fc1 = conv_norm(outer, inner, 1, sizes.mlp_bias)
        self.lif1 = Lif(sizes.neuron)
        self.fc2 = conv_norm(inner, outer, 1, sizes.mlp_bias)
        self.lif2 = Lif(sizes.neuron)
        self.residual = Add()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(self._with_residual, x)

    def _with_residual(self, x: torch.Tensor) -> torch.Tensor:
        return self.residual(x, self.lif2(self.fc2(self.lif1(self.fc1(x)))))


class Branch(nn.Module):
    """Stem, MLP and token mean of one modality: (T, B, C, H, W) -> (T, B, D).

    attention: spatial self-attention with residual before the MLP, if given.
    """

    def __init__(
        self, shape: BranchShape, sizes: Sizes, attention: CrossOptions | None = None
    ) -> None:
        super().__init__()
        self.stem = make_stem(sizes.stem, shape, sizes.embed_dim, sizes.neuron)
        self.attends = attention is not None
        if attention is not None:
            self.attention = AttentionBranch("spatial", sizes.embed_dim, sizes.neuron, attention)
            self.attended = Add()
        self.mlp = SpikingMlp(sizes)
        self.token_mean = SpatialMean()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        if self.attends:
            x = self.attended(x, self.attention(x, x))
        return self.token_mean(self.mlp(x))


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

    def __init__(self, audio: BranchShape, visual: BranchShape, sizes: Sizes) -> None:
        super().__init__()
        self.audio = Branch(audio, sizes)
        self.visual = Branch(visual, sizes)
        self.fusion = Add()
        self.head = Head(sizes.embed_dim, sizes.classes, sizes.readout_gain)

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        return self.head(self.fusion(self.audio(audio), self.visual(visual)))


class Unimodal(nn.Module):
    """One modality alone: the same branch and head. forward(x) -> (B, classes)."""

    def __init__(
        self,
        modality: str,
        shape: BranchShape,
        sizes: Sizes,
        attention: CrossOptions | None = None,
    ) -> None:
        super().__init__()
        self.inputs = (modality,)
        self.add_module(modality, Branch(shape, sizes, attention))
        self.head = Head(sizes.embed_dim, sizes.classes, sizes.readout_gain)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.get_submodule(self.inputs[0])(x))
