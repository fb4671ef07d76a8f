"""Classification by text: the class whose embedding is nearest to a sample's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from neuroav.models.zeroshot.parts import MODALITIES, ZeroShotNet

QUERIES = ("both", "audio", "visual")


def distance(theta: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Return |theta_i - w_j|, (B, C), without the shortcut that rounds by the size of the batch."""
    return torch.cdist(theta, w, compute_mode="donot_use_mm_for_euclid_dist")


class ZeroShotClassifier(nn.Module):
    """A zero-shot network with the texts of its classes.

    forward(audio, visual) of (T, B, D) -> scores (B, C) = -(distance + bias [class is seen]).
    text (C, W) and seen (C,) belong to the data, not to the weights; ``seen_bias`` (one per entry
    of ``QUERIES``) is calibrated on validation and stored with the weights.
    """

    inputs = MODALITIES

    net: ZeroShotNet
    text: torch.Tensor
    seen: torch.Tensor
    seen_bias: torch.Tensor

    def __init__(self, net: ZeroShotNet, text: np.ndarray, seen: np.ndarray, query: str) -> None:
        super().__init__()
        self.net, self.query = net, query
        mask = torch.zeros(len(text), dtype=torch.bool)
        mask[torch.from_numpy(seen)] = True
        self.register_buffer("text", torch.from_numpy(np.array(text)), persistent=False)
        self.register_buffer("seen", mask, persistent=False)
        self.register_buffer("seen_bias", torch.zeros(len(QUERIES)))

    def class_embeddings(self) -> torch.Tensor:
        """Return the embedding of every class, (C, E)."""
        return self.net.text.project(self.text)

    def distances(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return distances to every class (B, C) by query of ``QUERIES``.

        Networks with one embedding for both modalities answer 'both' alone, by half the squared
        distance, which neurons can compute: |theta - w|^2 / 2.
        """
        theta = self.net.embed(inputs).theta
        w = self.class_embeddings()
        if "joint" in theta:
            return {"both": distance(theta["joint"], w).square() / 2}
        found = {m: distance(theta[m], w) for m in MODALITIES}
        return {"both": found["audio"] + found["visual"], **found}

    def bias_of(self, query: str) -> float:
        return float(self.seen_bias[QUERIES.index(query)])

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        found = self.distances({"audio": audio, "visual": visual})[self.query]
        return -(found + self.bias_of(self.query) * self.seen)
