"""AVCA (Mercea et al., CVPR 2022): the float baseline, re-implemented from its released code.

    phi_m = Enc_m(x_m);  [c_a, c_v] = Transformer([phi_a + p_0, phi_v + p_1])
    theta_m = Proj_m(phi_m + c_m);  theta_w = Proj_w(w)

with one transformer layer of 3 heads x 100 and an MLP of 64. The released optimiser leaves the
position embedding p out; here every parameter is trained.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from neuroav.models.zeroshot.parts import (
    MODALITIES,
    Embedded,
    InputScale,
    Reconstruction,
    TextSide,
    TransformerLayer,
    ZeroShotNet,
    over_time,
    perceptron,
)
from neuroav.training.config import ZeroShotConfig

HEADS, HEAD_DIM, MLP = 3, 100, 64  # as released


class Avca(ZeroShotNet):
    """No forward: ``embed`` and ``text`` meet in ``zeroshot.search``. Sequences are averaged."""

    def __init__(self, dims: Mapping[str, int], text_dim: int, config: ZeroShotConfig) -> None:
        super().__init__()
        width, hidden = config.embed_dim, config.hidden_dim
        enc, proj, momentum = (
            config.dropout_encoder,
            config.dropout_projection,
            config.bn_momentum,
        )
        self.scale = nn.ModuleDict({m: InputScale(dims[m]) for m in MODALITIES})
        self.encoder = nn.ModuleDict(
            {m: perceptron(dims[m], width, enc, momentum, hidden) for m in MODALITIES}
        )
        self.position = nn.Parameter(torch.randn(2, width))
        self.cross = TransformerLayer(width, HEADS, HEAD_DIM, MLP, enc)
        self.project = nn.ModuleDict(
            {m: perceptron(width, config.output_dim, proj, momentum, hidden) for m in MODALITIES}
        )
        self.text = TextSide(text_dim, config)
        self.reconstruct = Reconstruction(width, config)

    def embed(self, inputs: Mapping[str, torch.Tensor]) -> Embedded:
        """Return the embedding of features (T, B, D) by modality."""
        phi = {m: self.encoder[m](self.scale[m](over_time(inputs[m]))) for m in MODALITIES}
        tokens = torch.stack([phi[m] for m in MODALITIES], dim=1)
        crossed = self.cross(tokens + self.position)
        theta = {m: self.project[m](phi[m] + crossed[:, i]) for i, m in enumerate(MODALITIES)}
        return Embedded(theta, phi)

    def rebuild(self, theta: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the features that the embeddings tell of, by modality."""
        return self.reconstruct(theta)
