"""Weights of the released S-CMRL code (arXiv 2502.12488, ``AudioVisualSpikformer``) for ``Scmrl``.

``released_keys`` is the table of what a released state dict holds; ``from_released`` turns one into
ours. Modalities are numbered audio 0, visual 1, and block 0 is the one in which audio receives.
Released and unused, so checked and dropped: both layer norms of a block, ``av_attention``, the
neurons ``res_lif``. A neuron's threshold and the width of its surrogate gradient are scalars of the
file; those in use must be 1 and 4, which is what ``ScmrlConfig.mode`` faithful computes with.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from neuroav.errors import ConfigError, FileFormatError
from neuroav.training.config import ModelConfig, ScmrlConfig

HEADS = 16  # of every released network, whatever its width; no tensor shows them
_PARTS = {"deep": (8, 4, 2, 1), "shallow": (2, 1)}
_MODALITIES = ("audio", "visual")
_AV_ATTENTION = 32  # hidden width of the unused av_attention


@dataclass(frozen=True)
class Layout:
    """What decides the names and shapes of a released state dict.

    alignment: trained with the alignment loss, so a linear layer and neurons make r binary.
    readout_gain: our factor before the head, which the head's weights are divided by.
    """

    embed_dim: int
    classes: int
    visual_channels: int
    audio_channels: int = 1
    stem: Literal["deep", "shallow"] = "deep"
    form: Literal["spatiotemporal", "spatial", "temporal"] = "spatiotemporal"
    alignment: bool = True
    join: Literal["add", "concat"] = "add"
    mlp_ratio: int = 4
    readout_gain: float = 1.0


@dataclass(frozen=True)
class Key:
    """One tensor of a released state dict.

    target: its name in our model, None where ours has nothing of the kind; ones: axes of length 1
    that ours has at the end; value: what a scalar must be; learned: a parameter, not a statistic.
    """

    shape: tuple[int, ...]
    target: str | None = None
    ones: int = 0
    value: float | None = None
    learned: bool = True
    whole: bool = False


Keys = Iterator[tuple[str, Key]]


def released_keys(layout: Layout) -> dict[str, Key]:
    """Return the whole table, dead keys included, by released name."""
    return dict(_all_keys(layout))


def _all_keys(layout: Layout) -> Keys:
    width = layout.embed_dim
    for number, (name, other) in enumerate((_MODALITIES, _MODALITIES[::-1])):
        yield from _stem(name, layout)
        yield from _block(f"block.{number}.", f"cross.{name}_from_{other}.", layout)
        inner = layout.mlp_ratio * width
        theirs, ours = f"mlp.{number}.mlp.", f"mlp.{name}."
        yield from _layer(f"{theirs}fc1", "", f"{ours}fc1", (inner, width, 1), bias=True)
        yield from _layer(f"{theirs}fc2", "", f"{ours}fc2", (width, inner, 1), bias=True)
    yield from _linear("av_attention.fc", (_AV_ATTENTION, width))
    for number in range(2):
        yield from _linear(f"av_attention.fcs.{number}", (width, _AV_ATTENTION))
    wide = width * (2 if layout.join == "concat" else 1)
    yield from _linear("head", (layout.classes, wide), "head.linear", ones=0)


def _stem(modality: str, layout: Layout) -> Keys:
    theirs, ours = f"{modality}_patch_embed.", f"stem.{modality}."
    width = layout.embed_dim
    inputs = layout.audio_channels if modality == "audio" else layout.visual_channels
    for number, part in enumerate(_PARTS[layout.stem]):
        shape, suffix = (width // part, inputs, 3, 3), str(number) if number else ""
        yield from _layer(f"{theirs}proj", suffix, f"{ours}conv{number}", shape)
        inputs = width // part
    yield from _layer(f"{theirs}rpe", "", f"{ours}position", (width, width, 3, 3))


def _block(theirs: str, ours: str, layout: Layout) -> Keys:
    width = layout.embed_dim
    for norm in ("norm1", "norm2"):
        yield f"{theirs}{norm}.weight", Key((width,))
        yield f"{theirs}{norm}.bias", Key((width,))
    both = layout.form == "spatiotemporal"
    for kind in ("spatial", "temporal") if both else (layout.form,):
        attention = f"{theirs}attn.{kind}_attn." if both else f"{theirs}attn."
        for name in ("q", "k", "v", "proj"):
            target = f"{ours}{kind}.{name}.conv"
            yield from _layer(f"{attention}{name}", "", target, (width, width, 1))
        yield from _neurons(f"{attention}attn_lif")
        yield from _neurons(f"{attention}res_lif", used=False)
    if layout.alignment:
        yield from _linear(f"{theirs}trans_linear", (width, width), f"{ours}linear.layer", ones=2)
        yield from _neurons(f"{theirs}trans_lif")


def _layer(
    theirs: str, suffix: str, ours: str, shape: tuple[int, ...], *, bias: bool = False
) -> Keys:
    """Yield a convolution, its batch norm and its neurons; of the neurons we keep no tensor."""
    width, statistics = shape[:1], ("running_mean", "running_var")
    conv, norm = f"{theirs}_conv{suffix}", f"{theirs}_bn{suffix}"
    yield f"{conv}.weight", Key(shape, f"{ours}.layer.conv.weight", ones=4 - len(shape))
    if bias:
        yield f"{conv}.bias", Key(width, f"{ours}.layer.conv.bias")
    for name in ("weight", "bias", *statistics):
        target = f"{ours}.layer.norm.{name}"
        yield f"{norm}.{name}", Key(width, target, learned=name not in statistics)
    name = "num_batches_tracked"
    yield f"{norm}.{name}", Key((), f"{ours}.layer.norm.{name}", learned=False, whole=True)
    yield from _neurons(f"{theirs}_lif{suffix}")


def _neurons(theirs: str, used: bool = True) -> Keys:
    yield f"{theirs}.threshold", Key((), value=1.0 if used else None)
    yield f"{theirs}.act_fun.alpha", Key((), value=4.0 if used else None)


def _linear(theirs: str, shape: tuple[int, int], ours: str | None = None, ones: int = 0) -> Keys:
    yield f"{theirs}.weight", Key(shape, ours and f"{ours}.weight", ones)
    yield f"{theirs}.bias", Key(shape[:1], ours and f"{ours}.bias")


def looks_released(names: Iterable[str]) -> bool:
    """Whether a state dict with these names comes from the released code."""
    return any(name.startswith(("audio_patch_embed.", "visual_patch_embed.")) for name in names)


def from_released(
    state: Mapping[str, torch.Tensor], layout: Layout, where: str
) -> dict[str, torch.Tensor]:
    """Return a released state dict under the names and shapes of our model.

    Convolutions over tokens (M, D, 1) and linear ones (D, D) get axes of length 1, the head's
    weights are divided by ``readout_gain``, dead keys are dropped. FileFormatError, starting with
    ``where``, lists every key that is missing, left over, misshapen, of the wrong kind of number,
    or a threshold or width other than the released one.
    """
    keys = released_keys(layout)
    problems = [f"missing {name}" for name in keys if name not in state]
    problems += [f"left over {name}" for name in state if name not in keys]
    for name, key in keys.items():
        if name in state:
            problems += _faults(name, key, state[name])
    if problems:
        raise FileFormatError(
            f"{where}: no released S-CMRL of this configuration: " + "; ".join(sorted(problems))
        )
    found = {
        key.target: state[name].reshape(key.shape + (1,) * key.ones)
        for name, key in keys.items()
        if key.target is not None
    }
    found["head.linear.weight"] = found["head.linear.weight"] / layout.readout_gain
    return found


def _faults(name: str, key: Key, tensor: torch.Tensor) -> list[str]:
    """Return what is wrong with one tensor, at most one line."""
    if tuple(tensor.shape) != key.shape:
        return [f"{name} has shape {tuple(tensor.shape)}, released is {key.shape}"]
    if key.whole == tensor.is_floating_point() or tensor.is_complex():
        kind = "whole" if key.whole else "floating-point"
        return [f"{name} is of {tensor.dtype}, released are {kind} numbers"]
    if key.value is not None and float(tensor) != key.value:
        return [f"{name} is {float(tensor):g}, the faithful network computes with {key.value:g}"]
    return []


def layout_for(
    model: ModelConfig,
    switches: ScmrlConfig,
    shapes: Mapping[str, tuple[int, int, int]],
    classes: int,
) -> Layout:
    """Return the layout of the released network that a configuration rebuilds.

    shapes: (channels, rows, columns) by modality. ConfigError lists every key that keeps the
    configured network from being the released one.
    """
    if model.name != "scmrl" or switches.mode != "faithful":
        raise ConfigError(
            "weights of the released S-CMRL fit model scmrl with scmrl.mode = 'faithful', found "
            f"model {model.name} with {switches.mode!r}; add --model scmrl --set "
            "scmrl.mode=faithful"
        )
    decay = model.dt_s / model.tau_mem_s
    wanted = [
        ("model.stem", model.stem, model.stem in _PARTS, "deep or shallow"),
        ("model.v_threshold", model.v_threshold, model.v_threshold == 1, "1"),
        ("model.tau_mem_s", model.tau_mem_s, math.isclose(decay, 0.5), "2 model.dt_s"),
        ("scmrl.form", switches.form, switches.form != "mask", "any but mask"),
        ("scmrl.heads", switches.heads, switches.heads == HEADS, f"{HEADS}"),
        ("scmrl.residual_gain", switches.residual_gain, switches.residual_gain == 1, "1"),
        ("scmrl.residual_norm", switches.residual_norm, not switches.residual_norm, "false"),
    ]
    for name, value in {
        "attention_threshold": 1.0,
        "residual_threshold": 1.0,
        "scrambled": True,
        "mlp_bias": True,
    }.items():
        found = switches.switch(name)
        wanted.append((f"scmrl.{name}", found, found == value, str(value).lower()))
    wrong = [f"{key} is {found}, not {good}" for key, found, fits, good in wanted if not fits]
    if wrong:
        raise ConfigError(
            "weights of the released S-CMRL need another network: " + "; ".join(wrong)
        )
    return Layout(
        embed_dim=model.embed_dim,
        classes=classes,
        visual_channels=shapes["visual"][0],
        audio_channels=shapes["audio"][0],
        stem=model.stem,  # type: ignore[arg-type]  # checked above
        form=switches.form,  # type: ignore[arg-type]
        alignment=switches.spiking_residual,
        join=switches.join,
        mlp_ratio=model.mlp_ratio,
        readout_gain=model.readout_gain,
    )
