"""STFT: spiking Tucker fusion transformer (arXiv 2407.08130), a re-implementation.

No equation was read from the paper itself; each component is one reading of it, most from a third
party's code, and has a switch (``StftConfig``; docs/zero-shot.md).

    phi_m = Enc_m(x_m)                           semantic: perceptron
    R_a, R_v = Knowledge(phi_a, phi_v)           latent knowledge combiner
    S_m = TimeFactor(SNN_m(x_m))                 temporal: three LIF blocks, T steps
    Y_m = Tucker(R_m, S_m);  Y = CrossModal(Y);  theta_m = Proj_m(Y_m)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from neuroav.models.layers import LifParameters
from neuroav.models.zeroshot.fusion import CrossModal, Fusion
from neuroav.models.zeroshot.knowledge import KnowledgeCombiner
from neuroav.models.zeroshot.parts import (
    MODALITIES,
    Embedded,
    InputScale,
    Reconstruction,
    TextSide,
    ZeroShotNet,
    over_time,
    perceptron,
)
from neuroav.models.zeroshot.spiking import SpikingBranch
from neuroav.training.config import StftConfig, ZeroShotConfig


class Stft(ZeroShotNet):
    """No forward: ``embed`` and ``text`` meet in ``zeroshot.search``."""

    def __init__(
        self,
        dims: Mapping[str, int],
        text_dim: int,
        steps: int,
        neuron: LifParameters,
        config: ZeroShotConfig,
        switches: StftConfig,
    ) -> None:
        super().__init__()
        width, hidden = config.embed_dim, config.hidden_dim
        enc, proj, momentum = (
            config.dropout_encoder,
            config.dropout_projection,
            config.bn_momentum,
        )
        self.steps = steps
        self.scale = nn.ModuleDict({m: InputScale(dims[m]) for m in MODALITIES})
        self.encoder = nn.ModuleDict(
            {m: perceptron(dims[m], width, enc, momentum, hidden) for m in MODALITIES}
        )
        self.knowledge = (
            KnowledgeCombiner(width, switches.knowledge_slots, switches.heads, enc)
            if switches.knowledge
            else None
        )
        self.spiking = (
            None
            if switches.snn == "none"
            else nn.ModuleDict(
                {
                    m: SpikingBranch(dims[m], hidden, width, steps, neuron, switches)
                    for m in MODALITIES
                }
            )
        )
        self.fusion = nn.ModuleDict(
            {m: Fusion(width, switches.rank, switches.fusion) for m in MODALITIES}
        )
        self.cross = CrossModal(width, switches.heads, switches.cross_modal, enc)
        self.project = nn.ModuleDict(
            {m: perceptron(width, config.output_dim, proj, momentum, hidden) for m in MODALITIES}
        )
        self.text = TextSide(text_dim, config)
        self.reconstruct = Reconstruction(width, config)

    def embed(self, inputs: Mapping[str, torch.Tensor]) -> Embedded:
        """Return the embedding of features (T, B, D) by modality; T = 1 where nothing changes."""
        scaled = {m: self.scale[m](inputs[m]) for m in MODALITIES}
        phi = {m: self.encoder[m](over_time(scaled[m])) for m in MODALITIES}
        semantic = phi if self.knowledge is None else self.knowledge(phi)
        temporal = (
            semantic
            if self.spiking is None
            else {m: self.spiking[m](scaled[m]) for m in MODALITIES}
        )
        fused = self.cross({m: self.fusion[m](semantic[m], temporal[m]) for m in MODALITIES})
        return Embedded({m: self.project[m](fused[m]) for m in MODALITIES}, phi)

    def rebuild(self, theta: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the features that the embeddings tell of, by modality."""
        return self.reconstruct(theta)
