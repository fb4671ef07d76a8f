"""S-CMRL: spiking cross-modal residual learning (arXiv 2502.12488), re-implemented.

Tokens of every modality (``neuroav.models.stems``) receive a residual computed from another one by
cross-modal complementary spatiotemporal spiking attention, pass an MLP and are fused:

    q = LIF(BN(W_q x)), k = LIF(BN(W_k y)), v = LIF(BN(W_v y))     x receives, y is the other one
    a = LIF(BN(W_p LIF(0.25 q (k^T v))))    over the tokens of a step: spatial
    b = the same over the steps of a token, with weights of its own: temporal
    R = mean_n a * mean_t b;  r = LIF(W R + b);  x' = x + alpha r
    logits = mean_t head(join of mean_n (x' + MLP(x')))

Two switches of the residual, off in both modes: a gain g, r = LIF(W (g R) + b), and batch norm,
r = LIF(BN(W (g R))).

``form`` spatial takes R = a, temporal R = b. ``mask`` is the co-design of linear cost: head h of
token n passes v where LIF(sum of q over the head's channels) spikes. With more than two modalities
every ordered pair has its own attention, and residuals add. With ``alpha`` 0 the attention only
feeds the alignment loss.

``mode`` sets the switches as released ('faithful') or as meant ('correct'); each may be set alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import nn

from neuroav.errors import ConfigError
from neuroav.models.add import Head, Sizes, SpikingMlp
from neuroav.models.attention import AttentionBranch, CrossOptions, MaskBranch
from neuroav.models.layers import (
    Add,
    Concat,
    Gain,
    Lif,
    LifParameters,
    MeanProduct,
    PerStep,
    SpatialMean,
)
from neuroav.models.stems import BranchShape, conv_norm, make_stem, token_grid


class CrossResidual(nn.Module):
    """r of one receiver and one source: (x, y) tokens (T, B, D, H, W) -> (T, B, D, H, W)."""

    def __init__(self, embed_dim: int, neuron: LifParameters, cross: CrossOptions) -> None:
        super().__init__()
        self.form, self.spiking = cross.form, cross.spiking
        if cross.form == "mask":
            self.mask = MaskBranch(embed_dim, neuron, cross)
        if cross.form in ("spatial", "spatiotemporal"):
            self.spatial = AttentionBranch("spatial", embed_dim, neuron, cross)
        if cross.form in ("temporal", "spatiotemporal"):
            self.temporal = AttentionBranch("temporal", embed_dim, neuron, cross)
        if cross.form == "spatiotemporal":
            self.product = MeanProduct()
        if cross.spiking:
            self.input_gain = (
                Gain(cross.residual_gain) if cross.residual_gain != 1 else nn.Identity()
            )
            self.linear = (
                conv_norm(embed_dim, embed_dim, 1)
                if cross.residual_norm
                else PerStep(nn.Conv2d(embed_dim, embed_dim, 1))
            )
            self.lif = Lif(replace(neuron, v_threshold=cross.residual_threshold, inclusive=True))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self.form == "spatiotemporal":
            r = self.product(self.spatial(x, y), self.temporal(x, y))
        else:
            r = self.get_submodule(self.form)(x, y)
        return self.lif(self.linear(self.input_gain(r))) if self.spiking else r


class CrossModal(nn.Module):
    """S-CMRL for the modalities of ``shapes``, in their order; all stems must give equal tokens.

    A subclass names them in its forward, which returns ``classify`` of them: a network on a chip
    has a fixed set of inputs.
    """

    def __init__(
        self, shapes: Mapping[str, BranchShape], sizes: Sizes, cross: CrossOptions
    ) -> None:
        super().__init__()
        self.inputs = tuple(shapes)
        if len(shapes) < 2:
            raise ConfigError(f"scmrl joins two or more modalities, found {list(shapes)}")
        if sizes.embed_dim % cross.heads:
            raise ConfigError(
                f"scmrl.heads {cross.heads}: must divide model.embed_dim {sizes.embed_dim}"
            )
        grids = {name: token_grid(sizes.stem, shape) for name, shape in shapes.items()}
        if len(set(grids.values())) != 1:
            raise ConfigError(f"tokens differ: {grids}; choose frame sizes that give equal ones")
        neuron, width = sizes.neuron, sizes.embed_dim
        self.stem = nn.ModuleDict(
            {n: make_stem(sizes.stem, s, width, neuron) for n, s in shapes.items()}
        )
        self.cross = nn.ModuleDict(
            {
                f"{x}_from_{y}": CrossResidual(width, neuron, cross)
                for x in shapes
                for y in shapes
                if x != y
            }
        )
        self.alpha = cross.alpha
        # One for every use: a synapse on a chip has one source and one target.
        self.gain = nn.ModuleDict({n: Gain(cross.alpha) for n in self.cross if cross.alpha})
        self.residual = nn.ModuleDict({n: Add() for n in self.gain})
        self.mlp = nn.ModuleDict({n: SpikingMlp(sizes) for n in shapes})
        self.token_mean = nn.ModuleDict({n: SpatialMean() for n in shapes})
        self.joins = nn.ModuleList(
            [Concat() if cross.join == "concat" else Add() for _ in range(len(shapes) - 1)]
        )
        wide = width * (len(shapes) if cross.join == "concat" else 1)
        self.head = Head(wide, sizes.classes, sizes.readout_gain)

    def classify(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes) of event counts (T, B, C, H, W) per modality."""
        return self.logits_and_residuals(*inputs)[0]

    def logits_and_residuals(
        self, *inputs: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return logits (B, classes) and r (T, B, D, H, W) by 'RECEIVER_from_SOURCE'.

        Residuals that nothing reads (alpha 0 in evaluation) are left out.
        """
        tokens = {n: self.stem[n](x) for n, x in zip(self.inputs, inputs, strict=True)}
        residuals: dict[str, torch.Tensor] = {}
        for pair, block in self.cross.items() if self.alpha or self.training else ():
            receiver, source = pair.split("_from_")
            residuals[pair] = block(tokens[receiver], tokens[source])
        features = []
        for name, x in tokens.items():
            for pair in self.residual:
                if pair.startswith(f"{name}_from_"):
                    x = self.residual[pair](x, self.gain[pair](residuals[pair]))
            features.append(self.token_mean[name](self.mlp[name](x)))
        joined = features[0]
        for join, feature in zip(self.joins, features[1:], strict=True):
            joined = join(joined, feature)
        return self.head(joined), residuals


class Scmrl(CrossModal):
    """S-CMRL for sound and pictures. forward(audio, visual) -> (B, classes)."""

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        return self.classify(audio, visual)
