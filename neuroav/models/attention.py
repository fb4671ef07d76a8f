"""Spiking attention from one set of tokens to another: the blocks that networks are built of."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from neuroav.models.layers import (
    HeadSum,
    Lif,
    LifParameters,
    MaskAttention,
    SpatialAttention,
    TemporalAttention,
)
from neuroav.models.segments import Segmented
from neuroav.models.stems import conv_norm

Form = Literal["spatial", "temporal", "spatiotemporal", "mask"]


@dataclass(frozen=True)
class CrossOptions:
    """The cross-modal part. attention_threshold: of the neurons on q k^T v (multiples of 0.25);
    residual_threshold: of those that make r; residual_gain: factor on R before its linear layer;
    residual_norm: batch norm after it; scrambled: see ``TemporalAttention``; spiking: r is binary,
    not R itself; join: how modalities meet at the head."""

    form: Form = "spatiotemporal"
    alpha: float = 1.5
    heads: int = 4
    attention_threshold: float = 0.5
    residual_threshold: float = 0.5
    scrambled: bool = False
    spiking: bool = True
    join: Literal["add", "concat"] = "add"
    residual_gain: float = 1.0
    residual_norm: bool = False


class Projection(nn.Module):
    """Binary tokens by a 1x1 convolution, batch norm and neurons."""

    def __init__(self, embed_dim: int, neuron: LifParameters) -> None:
        super().__init__()
        self.conv = conv_norm(embed_dim, embed_dim, 1)
        self.lif = Lif(neuron)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lif(self.conv(x))


class AttentionBranch(Segmented):
    """One attention from y to x: (x, y) tokens (T, B, D, H, W) -> binary (T, B, D, H, W)."""

    def __init__(self, kind: str, embed_dim: int, neuron: LifParameters, cross: CrossOptions):
        super().__init__()
        self.q, self.k, self.v = (Projection(embed_dim, neuron) for _ in range(3))
        self.attention: nn.Module = (
            SpatialAttention(cross.heads)
            if kind == "spatial"
            else TemporalAttention(cross.heads, scrambled=cross.scrambled)
        )
        # Sums of spikes meet the threshold exactly, often: >= as released is not > there.
        self.attention_lif = Lif(
            replace(neuron, v_threshold=cross.attention_threshold, inclusive=True)
        )
        self.proj = Projection(embed_dim, neuron)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.part(self._attend, x, y)

    def _attend(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.proj(self.attention_lif(self.attention(self.q(x), self.k(y), self.v(y))))


class MaskBranch(Segmented):
    """Mask-style attention from y to x: binary, causal, one neuron per head and token."""

    def __init__(self, embed_dim: int, neuron: LifParameters, cross: CrossOptions) -> None:
        super().__init__()
        self.q, self.v = Projection(embed_dim, neuron), Projection(embed_dim, neuron)
        self.head_sum = HeadSum(cross.heads)
        self.mask_lif = Lif(replace(neuron, v_threshold=cross.attention_threshold, inclusive=True))
        self.mask = MaskAttention()
        self.proj = Projection(embed_dim, neuron)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.part(self._attend, x, y)

    def _attend(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.proj(self.mask(self.mask_lif(self.head_sum(self.q(x))), self.v(y)))
