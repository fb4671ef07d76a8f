"""The networks that S-CMRL is compared with (arXiv 2502.12488, table of results), on the same stem.

All keep the stem, the MLP and the head of ``add``; what happens between the modalities differs.
They follow S-CMRL's released re-implementations of the cited works, read as equations:

``weight-attention``  x' = w x with one number per step, w = W2 (W1 [mean_n x, mean_n y] + b1) + b2.
``sca``               x' = LIF(BN(W_p LIF(0.25 q (k^T v)))): spatial cross-attention without a
                      residual. The released one adds a relative position bias drawn anew at random
                      in every pass to one direction; that is left out.
``cmci``              z = LIF(W_1 x + W_2 y), z' = z + MLP(z); scores from z' alone. In training
                      each modality's own features have a head and a loss of their own.

``weight-attention`` multiplies spikes by a real number, so it has no deployment.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from neuroav.models.add import Head, Sizes, SpikingMlp
from neuroav.models.attention import AttentionBranch, CrossOptions
from neuroav.models.layers import Add, Lif, PerStep, SpatialMean
from neuroav.models.stems import BranchShape, make_stem


class TokenWeight(nn.Module):
    """One real number per step that weighs x: (x, y) tokens (T, B, D, H, W) -> (T, B, D, H, W)."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(2 * embed_dim, embed_dim), nn.Linear(embed_dim, 1)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        means = torch.cat((x.mean(dim=(-2, -1)), y.mean(dim=(-2, -1))), dim=-1)
        return self.fc2(self.fc1(means))[..., None, None] * x


class Mixed(nn.Module):
    """Two stems, something between them, two MLPs, sum and head. forward(audio, visual)."""

    inputs = ("audio", "visual")

    def __init__(
        self, shapes: Mapping[str, BranchShape], sizes: Sizes, mixers: Mapping[str, nn.Module]
    ) -> None:
        super().__init__()
        self.stem = nn.ModuleDict(
            {n: make_stem(sizes.stem, s, sizes.embed_dim, sizes.neuron) for n, s in shapes.items()}
        )
        self.mix = nn.ModuleDict(mixers)
        self.mlp = nn.ModuleDict({n: SpikingMlp(sizes) for n in shapes})
        self.token_mean = nn.ModuleDict({n: SpatialMean() for n in shapes})
        self.fusion = Add()
        self.head = Head(sizes.embed_dim, sizes.classes, sizes.readout_gain)

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        x, y = self.stem["audio"](audio), self.stem["visual"](visual)
        mixed = {"audio": self.mix["audio"](x, y), "visual": self.mix["visual"](y, x)}
        a, v = (self.token_mean[n](self.mlp[n](mixed[n])) for n in self.inputs)
        return self.head(self.fusion(a, v))


def weight_attention(shapes: Mapping[str, BranchShape], sizes: Sizes) -> nn.Module:
    """Return the network ``weight-attention``."""
    return Mixed(shapes, sizes, {n: TokenWeight(sizes.embed_dim) for n in shapes})


def sca(shapes: Mapping[str, BranchShape], sizes: Sizes, cross: CrossOptions) -> nn.Module:
    """Return the network ``sca``."""
    branches = {n: AttentionBranch("spatial", sizes.embed_dim, sizes.neuron, cross) for n in shapes}
    return Mixed(shapes, sizes, branches)


class Cmci(nn.Module):
    """Cross-modality current integration. forward(audio, visual) -> (B, classes)."""

    inputs = ("audio", "visual")

    def __init__(self, shapes: Mapping[str, BranchShape], sizes: Sizes) -> None:
        super().__init__()
        width = sizes.embed_dim
        self.stem = nn.ModuleDict(
            {n: make_stem(sizes.stem, s, width, sizes.neuron) for n, s in shapes.items()}
        )
        self.current = nn.ModuleDict({n: PerStep(nn.Conv2d(width, width, 1)) for n in shapes})
        self.join = Add()
        self.join_lif = Lif(sizes.neuron)
        self.mlp = SpikingMlp(sizes)
        self.token_mean = SpatialMean()
        self.head = Head(width, sizes.classes, sizes.readout_gain)
        self.own_mlp = nn.ModuleDict({n: SpikingMlp(sizes) for n in shapes})
        self.own_head = nn.ModuleDict(
            {n: Head(width, sizes.classes, sizes.readout_gain) for n in shapes}
        )

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        return self._joint(self.stem["audio"](audio), self.stem["visual"](visual))

    def _joint(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        z = self.join_lif(self.join(self.current["audio"](x), self.current["visual"](y)))
        return self.head(self.token_mean(self.mlp(z)))

    def logits_and_own(
        self, audio: torch.Tensor, visual: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Return the logits, and those of each modality alone, which only training uses."""
        tokens = {"audio": self.stem["audio"](audio), "visual": self.stem["visual"](visual)}
        own = tuple(
            self.own_head[n](self.own_mlp[n](x).mean(dim=(-2, -1))) for n, x in tokens.items()
        )
        return self._joint(tokens["audio"], tokens["visual"]), own
