"""STFT's latent knowledge combiner (equations 1-4 as a third party states them).

    K_m = sum_i sigmoid(K_i x_m) * x_m            N slots K_i, (D, D) each
    P_m = ReLU(W_m K_m + b)
    K_t = a (P_a K_a + P_v K_v) + (1 - a) K_0     K_0 learned, in the place of an earlier K_t
    R_a, R_v = first two of Transformer([K_a + P_a + K_t, K_v + P_v + K_t, K_t])

``K_{t-1}`` of the paper runs over an index that is not explained; nothing is carried from sample
to sample here.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from neuroav.models.zeroshot.parts import MODALITIES, TransformerLayer

HEAD_DIM = 64


class KnowledgeCombiner(nn.Module):
    """(B, D) features by modality -> (B, D) semantic features by modality."""

    def __init__(self, width: int, slots: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.slots = nn.ModuleDict(
            {m: nn.Linear(width, slots * width, bias=False) for m in MODALITIES}
        )
        self.perceive = nn.ModuleDict({m: nn.Linear(width, width) for m in MODALITIES})
        self.prior = nn.Parameter(torch.zeros(width))
        self.balance = nn.Parameter(torch.zeros(()))  # a = sigmoid(balance)
        self.mix = TransformerLayer(width, heads, HEAD_DIM, 2 * width, dropout)

    def forward(self, features: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        known, perceived = {}, {}
        for m, x in features.items():
            gates = torch.sigmoid(self.slots[m](x)).unflatten(1, (-1, x.shape[1]))
            known[m] = gates.sum(dim=1) * x
            perceived[m] = torch.relu(self.perceive[m](known[m]))
        a = torch.sigmoid(self.balance)
        joint = sum(perceived[m] * known[m] for m in MODALITIES)
        shared = a * joint + (1 - a) * self.prior
        tokens = [known[m] + perceived[m] + shared for m in MODALITIES]
        mixed = self.mix(torch.stack([*tokens, shared], dim=1))
        return {m: mixed[:, i] for i, m in enumerate(MODALITIES)}
