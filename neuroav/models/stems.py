"""Spiking stems: event counts or images per step -> tokens, all with S-CMRL's position term.

=========  =======================================================================================
compact    conv3x3(C -> D/2) [pool 2x2 if ``pool_first``], conv3x3(D/2 -> D), pool 2x2
shallow    conv3x3(C -> D/2), conv3x3(D/2 -> D), each with pool 3x3 stride 2 (released ShallowSPS)
deep       conv3x3 to D/8, D/4, D/2, D, each with pool 3x3 stride 2 (released SPS)
=========  =======================================================================================

Every convolution is without bias and followed by batch norm and LIF, then the pool. The position
term: x = p + LIF(BN(conv3x3(p))) on the pooled spikes p, so tokens are in {0, 1, 2}.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import nn

from neuroav.errors import ConfigError
from neuroav.models.layers import Add, Lif, LifParameters, PerStep
from neuroav.models.segments import Segmented

StemName = Literal["compact", "shallow", "deep"]


@dataclass(frozen=True)
class BranchShape:
    """Input of one modality per step; ``pool_first``: pool after the first convolution too."""

    channels: int
    rows: int
    columns: int
    pool_first: bool


def conv_norm(inputs: int, outputs: int, kernel: int, bias: bool = False) -> PerStep:
    """Return a padded convolution with batch norm, applied to every step."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias)
    return PerStep(nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(outputs))))


class Stem(Segmented):
    """(T, B, C, H, W) -> tokens (T, B, D, H', W') in {0, 1, 2}.

    widths: channels of the stages; pools: the pooling layer of each, or None.
    """

    def __init__(
        self,
        channels: int,
        widths: tuple[int, ...],
        pools: tuple[nn.Module | None, ...],
        neuron: LifParameters,
    ) -> None:
        super().__init__()
        self.stages = len(widths)
        for number, (width, pool) in enumerate(zip(widths, pools, strict=True)):
            self.add_module(f"conv{number}", conv_norm(channels, width, 3))
            self.add_module(f"lif{number}", Lif(neuron))
            self.add_module(f"pool{number}", nn.Identity() if pool is None else PerStep(pool))
            channels = width
        self.position = conv_norm(channels, channels, 3)
        self.position_lif = Lif(neuron)
        self.tokens = Add()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for number in range(self.stages):
            x = self.part(partial(self._stage, number), x)
        return self.part(self._with_position, x)

    def _stage(self, number: int, x: torch.Tensor) -> torch.Tensor:
        for layer in ("conv", "lif", "pool"):
            x = self.get_submodule(f"{layer}{number}")(x)
        return x

    def _with_position(self, x: torch.Tensor) -> torch.Tensor:
        return self.tokens(x, self.position_lif(self.position(x)))


def make_stem(name: StemName, shape: BranchShape, embed_dim: int, neuron: LifParameters) -> Stem:
    """Return the stem ``name``; ConfigError if the embedding cannot be divided as it needs."""
    divisor = 8 if name == "deep" else 2
    if embed_dim % divisor:
        raise ConfigError(
            f"model.embed_dim {embed_dim}: the {name} stem needs a multiple of {divisor}"
        )
    if name == "compact":
        pools = (nn.MaxPool2d(2) if shape.pool_first else None, nn.MaxPool2d(2))
        return Stem(shape.channels, (embed_dim // 2, embed_dim), pools, neuron)
    parts = (8, 4, 2, 1) if name == "deep" else (2, 1)
    widths = tuple(embed_dim // part for part in parts)
    released = tuple(nn.MaxPool2d(3, stride=2, padding=1) for _ in widths)
    return Stem(shape.channels, widths, released, neuron)


def token_grid(name: StemName, shape: BranchShape) -> tuple[int, int]:
    """Return (rows, columns) of the tokens that a stem makes."""
    if name == "compact":
        part = 4 if shape.pool_first else 2
        return shape.rows // part, shape.columns // part
    rows, columns = shape.rows, shape.columns
    for _ in range(4 if name == "deep" else 2):
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
    return rows, columns
