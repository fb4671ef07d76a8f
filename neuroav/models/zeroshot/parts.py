"""What zero-shot networks share: scaled inputs, perceptrons, a small transformer, the text side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from neuroav.training.config import ZeroShotConfig

MODALITIES = ("audio", "visual")


@dataclass(frozen=True)
class Embedded:
    """A batch in the common space: theta (B, E) by query; phi (B, D): features that training
    reconstructs from theta, by the same names."""

    theta: Mapping[str, torch.Tensor]
    phi: Mapping[str, torch.Tensor]


class InputScale(nn.Module):
    """y = (x - mean) * factor, per feature; both are buffers, set from training samples."""

    mean: torch.Tensor
    factor: torch.Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("factor", torch.ones(features))

    def fit(self, values: np.ndarray, scaling: str) -> None:
        """Set both from samples (N, D) or (N, steps, D); see ``ZeroShotConfig.scaling``."""
        flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
        if scaling == "standard":
            deviation = flat.std(axis=0)
            # a feature that is constant in training says nothing: leave it at 0
            factor = np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1), 0.0)
            mean = flat.mean(axis=0)
        elif scaling == "maximum":
            low, high = float(flat.min()), float(flat.max())
            mean = np.full(flat.shape[1], low)
            factor = np.full(flat.shape[1], 1 / (high - low) if high > low else 1.0)
        else:
            mean, factor = np.zeros(flat.shape[1]), np.ones(flat.shape[1])
        self.mean.copy_(torch.from_numpy(mean))
        self.factor.copy_(torch.from_numpy(factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) * self.factor


def perceptron(
    inputs: int, outputs: int, dropout: float, momentum: float, hidden: int | None = None
) -> nn.Sequential:
    """Return AVCA's embedding network: one or two times linear, batch norm, ReLU, dropout."""
    layers: list[nn.Module] = []
    if hidden is not None:
        layers += [nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU()]
        layers += [nn.Dropout(dropout)]
    layers += [nn.Linear(hidden or inputs, outputs), nn.BatchNorm1d(outputs, momentum=momentum)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Dropout(dropout))


class TextSide(nn.Module):
    """Class texts into the common space and back: (C, W) -> (C, E) -> (C, W)."""

    def __init__(self, text_dim: int, config: ZeroShotConfig) -> None:
        super().__init__()
        size, momentum = config.output_dim, config.bn_momentum
        self.project = perceptron(text_dim, size, config.dropout_text, momentum)
        self.decode = perceptron(size, text_dim, config.dropout_text, momentum)


class ZeroShotNet(nn.Module, ABC):
    """What every zero-shot network offers. scale: ``InputScale`` by modality."""

    inputs = MODALITIES
    text: TextSide
    scale: nn.ModuleDict

    @abstractmethod
    def embed(self, inputs: Mapping[str, torch.Tensor]) -> Embedded:
        """Return the embedding of features (T, B, D) by modality; T = 1 where nothing changes."""

    @abstractmethod
    def rebuild(self, theta: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return the features that embeddings (B, E) by query tell of, (B, D) by modality."""

    def fit_scale(self, values: Mapping[str, np.ndarray], scaling: str) -> None:
        """Set the scaling of the inputs from training samples by modality."""
        for modality, layer in self.scale.items():
            assert isinstance(layer, InputScale)
            layer.fit(values[modality], scaling)


class Attention(nn.Module):
    """Softmax self-attention over tokens (B, N, D), ``heads`` times ``head_dim`` wide."""

    def __init__(self, width: int, heads: int, head_dim: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * heads * head_dim, bias=False)
        self.out = nn.Sequential(nn.Linear(heads * head_dim, width), nn.Dropout(dropout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            y.unflatten(2, (self.heads, -1)).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=2)
        )
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Pre-norm attention and MLP, each with a residual: (B, N, D) -> (B, N, D)."""

    def __init__(self, width: int, heads: int, head_dim: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, head_dim, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(width, mlp),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(mlp, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Reconstruction(nn.Module):
    """From the common space back to the features of every modality."""

    def __init__(self, features: int, config: ZeroShotConfig) -> None:
        super().__init__()
        self.nets = nn.ModuleDict(
            {
                m: perceptron(config.output_dim, features, config.dropout_text, config.bn_momentum)
                for m in MODALITIES
            }
        )

    def forward(self, theta: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {m: self.nets[m](theta[m]) for m in MODALITIES}


def over_time(x: torch.Tensor) -> torch.Tensor:
    """Return the mean over steps of (T, B, D); features that do not change come as T = 1."""
    return x[0] if len(x) == 1 else x.mean(dim=0)
