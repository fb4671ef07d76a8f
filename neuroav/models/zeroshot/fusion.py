"""STFT's temporal-semantic fusion and its cross-modal mixing.

Full bilinear fusion y_k = sum_ij T_ijk r_i s_j has D^3 weights; Tucker's form factorises T:

    y = W_o z,  z_k = sum_ij G_ijk (U_s r)_i (U_t s)_j     core G of rank^3, 'tucker'
    y = W_o ((U_s r) * (U_t s))                            diagonal core, 'cp'

The paper's "multi-scale" is not explained in any source that was read, and left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from neuroav.models.zeroshot.parts import MODALITIES, TransformerLayer


class Fusion(nn.Module):
    """Semantic r and temporal s, both (B, D) -> (B, D)."""

    def __init__(self, width: int, rank: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.semantic = nn.Linear(width, rank, bias=False)
        self.temporal = nn.Linear(width, rank, bias=False)
        if kind == "tucker":
            self.core = nn.Parameter(torch.randn(rank, rank, rank) / rank)
        self.out = nn.Linear(rank, width, bias=False)

    def forward(self, r: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        i, j = self.semantic(r), self.temporal(s)
        if self.kind == "cp":
            return self.out(i * j)
        return self.out(torch.einsum("bi,bj,ijk->bk", i, j, self.core))

    def full(self) -> torch.Tensor:
        """Return the bilinear form (D, D, D) that this fusion factorises: T_ijk of r_i s_j y_k."""
        u, v, w = self.semantic.weight, self.temporal.weight, self.out.weight
        if self.kind == "cp":
            return torch.einsum("ai,aj,ka->ijk", u, v, w)
        return torch.einsum("ai,bj,abc,kc->ijk", u, v, self.core, w)


class CrossModal(nn.Module):
    """Both modalities see each other: (B, D) by modality -> the same.

    'transformer': one layer over two tokens with positions, added to what comes in; 'linear': one
    linear layer from both to both, added; 'none'.
    """

    def __init__(self, width: int, heads: int, kind: str, dropout: float) -> None:
        super().__init__()
        self.kind = kind
        if kind == "transformer":
            self.position = nn.Parameter(torch.randn(2, width) / width**0.5)
            self.layer = TransformerLayer(width, heads, 64, 2 * width, dropout)
        elif kind == "linear":
            self.linear = nn.Linear(2 * width, 2 * width)

    def forward(self, features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.kind == "none":
            return dict(features)
        x = torch.stack([features[m] for m in MODALITIES], dim=1)
        if self.kind == "transformer":
            y = x + self.layer(x + self.position)
        else:
            y = x + self.linear(x.flatten(1)).unflatten(1, (2, -1))
        return {m: y[:, i] for i, m in enumerate(MODALITIES)}
