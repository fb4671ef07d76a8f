"""S-CMRL as its released code computes it (arXiv 2502.12488), in plain torch and evaluation mode.

A second opinion on ``neuroav.models.scmrl``: nothing of ``neuroav`` is imported, tensors are named
as in the released ``state_dict``, and every formula is spelled out where it is used. Loaded by path
(``samples.load_script``). Shapes: T steps, B samples, D channels, N tokens, H heads, d = D / H.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch.nn import functional

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Setting:
    """What a state dict does not say. The defaults are the released values; with ``threshold`` 0.5
    and without ``scrambled`` it is the network as meant."""

    form: str = "spatiotemporal"
    heads: int = 16
    alpha: float = 1.5
    threshold: float = 1.0
    scrambled: bool = True
    join: str = "add"


@dataclass
class Result:
    """logits (B, K); spikes and membranes before the reset by layer, (T, B, ...); r by receiver."""

    logits: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    spikes: dict[str, torch.Tensor] = field(default_factory=dict)
    membranes: dict[str, torch.Tensor] = field(default_factory=dict)
    residuals: dict[str, torch.Tensor] = field(default_factory=dict)


def lif(current: torch.Tensor, threshold: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (spikes, membranes): half-way to the current every step, spike at >=, reset to 0."""
    u = torch.zeros_like(current[0])
    spikes, membranes = [], []
    for step in current:
        u = u + (step - u) / 2
        s = (u >= threshold).to(u.dtype)
        membranes.append(u)
        spikes.append(s)
        u = u * (1 - s)
    return torch.stack(spikes), torch.stack(membranes)


def normalised(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """Batch norm of (T B, C, ...) with its stored statistics."""
    mean, var, gain, shift = (
        w[f"{name}.{part}"].reshape(1, -1, *[1] * (x.ndim - 2))
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(var + 1e-5) * gain + shift


class Network:
    """One evaluation; ``run`` fills ``result``."""

    def __init__(self, weights: Weights, setting: Setting) -> None:
        self.w, self.setting, self.result = weights, setting, Result()

    def fire(self, name: str, current: torch.Tensor, threshold: float = 1.0) -> torch.Tensor:
        spikes, membranes = lif(current, threshold)
        self.result.spikes[name], self.result.membranes[name] = spikes, membranes
        return spikes

    def layer(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Convolution, batch norm, neurons; ``name`` has a place for conv, bn and lif."""
        conv, (steps, batch) = name.format("conv"), x.shape[:2]
        kernel, bias = self.w[f"{conv}.weight"], self.w.get(f"{conv}.bias")
        folded = x.reshape(steps * batch, *x.shape[2:])
        if kernel.ndim == 4:
            out = functional.conv2d(folded, kernel, bias, padding=1)
        else:
            out = functional.conv1d(folded, kernel, bias)
        out = normalised(self.w, name.format("bn"), out)
        return self.fire(name.format("lif"), out.reshape(steps, batch, *out.shape[1:]))

    def stem(self, modality: str, x: torch.Tensor) -> torch.Tensor:
        """(T, B, C, rows, columns) -> (T, B, D, N) in {0, 1, 2}."""
        prefix = f"{modality}_patch_embed."
        for number in range(4):
            suffix = str(number) if number else ""
            if f"{prefix}proj_conv{suffix}.weight" not in self.w:
                break
            x = self.layer(f"{prefix}proj_{{}}{suffix}", x)
            pooled = functional.max_pool2d(x.flatten(0, 1), 3, stride=2, padding=1)
            x = pooled.reshape(*x.shape[:2], *pooled.shape[1:])
        return (x + self.layer(f"{prefix}rpe_{{}}", x)).flatten(3)

    def attention(self, prefix: str, kind: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """x receives, y is the other modality; (T, B, D, N) -> binary (T, B, D, N)."""
        q = self.layer(f"{prefix}q_{{}}", x)
        k = self.layer(f"{prefix}k_{{}}", y)
        v = self.layer(f"{prefix}v_{{}}", y)
        heads = self.setting.heads
        if kind == "spatial":
            o = spatial(q, k, v, heads)
        else:
            o = temporal(q, k, v, heads, self.setting.scrambled)
        s = self.fire(f"{prefix}attn_lif", o, self.setting.threshold)
        return self.layer(f"{prefix}proj_{{}}", s)

    def residual(self, block: str, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """r of ``block`` for the receiver x: (T, B, D, N)."""
        form = self.setting.form
        if form == "spatiotemporal":
            a = self.attention(f"{block}attn.spatial_attn.", "spatial", x, y)
            b = self.attention(f"{block}attn.temporal_attn.", "temporal", x, y)
            steps, tokens = a.shape[0], a.shape[3]
            r = (a.sum(3) / tokens)[:, :, :, None] * (b.sum(0) / steps)[None]
        else:
            r = self.attention(f"{block}attn.", form, x, y)
        if f"{block}trans_linear.weight" in self.w:
            weight, bias = (
                self.w[f"{block}trans_linear.weight"],
                self.w[f"{block}trans_linear.bias"],
            )
            current = functional.linear(r.movedim(2, 3), weight, bias).movedim(3, 2)
            r = self.fire(f"{block}trans_lif", current, self.setting.threshold)
        return r

    def mlp(self, number: int, x: torch.Tensor) -> torch.Tensor:
        inner = self.layer(f"mlp.{number}.mlp.fc1_{{}}", x)
        return x + self.layer(f"mlp.{number}.mlp.fc2_{{}}", inner)

    def run(self, audio: torch.Tensor, visual: torch.Tensor) -> Result:
        x, y = self.stem("audio", audio), self.stem("visual", visual)
        r_x, r_y = self.residual("block.0.", x, y), self.residual("block.1.", y, x)
        self.result.residuals = {"audio": r_x, "visual": r_y}
        alpha = self.setting.alpha
        means = [self.mlp(0, x + alpha * r_x).mean(3), self.mlp(1, y + alpha * r_y).mean(3)]
        joined = means[0] + means[1] if self.setting.join == "add" else torch.cat(means, 2)
        self.result.logits = functional.linear(
            joined.mean(0), self.w["head.weight"], self.w["head.bias"]
        )
        return self.result


def spatial(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """(q k^T) v / 4 over the tokens of every step, per head: (T, B, D, N) each."""
    steps, batch, channels, tokens = q.shape

    def split(x: torch.Tensor) -> torch.Tensor:  # -> (T, B, H, N, d)
        return x.reshape(steps, batch, heads, channels // heads, tokens).transpose(3, 4)

    scores = split(q) @ split(k).transpose(3, 4)
    out = (scores @ split(v)) * 0.25
    return out.transpose(3, 4).reshape(steps, batch, channels, tokens)


def temporal(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, scrambled: bool
) -> torch.Tensor:
    """(q k^T) v / 4 over the steps of every token, per head: (T, B, D, N) each.

    The result has the axes (N, B, H, T, d). Released, it is read as (N, B, T, D) as it lies in
    memory; as meant, heads and steps are swapped first.
    """
    steps, batch, channels, tokens = q.shape

    def split(x: torch.Tensor) -> torch.Tensor:  # -> (N, B, H, T, d)
        by_token = x.permute(3, 1, 0, 2)
        return by_token.reshape(tokens, batch, steps, heads, channels // heads).transpose(2, 3)

    scores = split(q) @ split(k).transpose(3, 4)
    out = (scores @ split(v)) * 0.25
    if not scrambled:
        out = out.transpose(2, 3)
    return out.reshape(tokens, batch, steps, channels).permute(2, 1, 3, 0)


def run(weights: Weights, setting: Setting, audio: torch.Tensor, visual: torch.Tensor) -> Result:
    """Evaluate on inputs (T, B, C, rows, columns)."""
    return Network(weights, setting).run(audio, visual)


_QKV_SHIFT = re.compile(r"\.[qkv](_bn|\.conv\.layer\.norm)\.bias$")
_TO_RESIDUAL = re.compile(r"(trans_linear|cross\.\w+\.linear\.layer)\.weight$")


def active_values(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Return random float64 weights under which every layer fires, for released or our names."""
    generator = torch.Generator().manual_seed(seed)

    def between(low: float, high: float, shape: tuple[int, ...]) -> torch.Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, dtype=torch.float64)

    def value(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        kind = name.rpartition(".")[2]
        if kind == "num_batches_tracked":
            return torch.tensor(7)
        if kind in ("threshold", "alpha"):
            return torch.tensor(1.0 if kind == "threshold" else 4.0, dtype=torch.float64)
        if len(shape) > 1:
            scale = 4.0 if _TO_RESIDUAL.search(name) else 1.0
            noise = torch.randn(shape, generator=generator, dtype=torch.float64)
            return noise * scale / (noise[0].numel() ** 0.5)
        if kind == "running_var":
            return between(0.3, 0.6, shape)
        if kind == "running_mean":
            return between(-0.2, 0.2, shape)
        if kind == "weight":
            return between(0.8, 1.4, shape)
        # The attention needs many spikes of q, k and v together.
        return between(1.8, 2.6, shape) if _QKV_SHIFT.search(name) else between(0.6, 1.4, shape)

    return {name: value(name, tuple(shape)) for name, shape in shapes.items()}
