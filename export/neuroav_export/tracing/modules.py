"""Module -> node: one converter per class of layer, by the class itself.

Time constants become seconds here and in ``norse``, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from neuroav import nodes as rn
from neuroav.errors import StageError, UnsupportedModule
from neuroav.models import layers
from neuroav.models.quantized import QatLif, QatReadout, QatSynapses

INPUT = "(input)"  # what a part reads that is outside its module


@dataclass(frozen=True)
class Part:
    """One node of a module that becomes several. name: '' for the node that has the module's own
    name and is its output; reads: names of parts, or INPUT; like: part of which it has the shape,
    where that is not known yet because it closes a loop."""

    name: str
    node: rn.Node
    reads: tuple[str, ...]
    like: str = ""


@dataclass(frozen=True)
class Parts:
    """The nodes of a module that becomes several, so that each but a loop's first reads earlier."""

    parts: tuple[Part, ...]


Converted = rn.Node | Parts | None


def array(value: torch.Tensor) -> np.ndarray:
    """Return a float64 copy."""
    return value.detach().cpu().to(torch.float64).numpy().copy()


def one_or_each(value: object) -> float | np.ndarray:
    """Return a neuron parameter as a number, or as an array where it holds several."""
    tensor = torch.as_tensor(value)
    return float(tensor) if tensor.numel() == 1 else array(tensor)


def _bias(module: nn.Module) -> np.ndarray | None:
    return None if module.bias is None else array(module.bias)  # type: ignore[arg-type]


def pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    """Return (rows, columns) of a size that torch takes as one number or two."""
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _padding(m: nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d) -> tuple[int, ...]:
    if isinstance(m.padding, str) or m.padding_mode != "zeros":
        raise UnsupportedModule(
            f"padding {m.padding!r} ({m.padding_mode}); use numbers and zeros", rule="padding"
        )
    return m.padding


def _conv2d(m: nn.Conv2d) -> rn.Conv2d:
    return rn.Conv2d(
        array(m.weight),
        _bias(m),
        pair(m.stride),
        pair(_padding(m)),
        pair(m.dilation),
        m.groups,
    )


def _conv1d(m: nn.Conv1d) -> rn.Conv2d:
    """One axis is a row: (C, L) is (C, 1, L), the kernel (1, k)."""
    stride, padding, dilation = m.stride[0], _padding(m)[0], m.dilation[0]
    weight = array(m.weight)[:, :, None, :]
    return rn.Conv2d(weight, _bias(m), (1, stride), (0, padding), (1, dilation), m.groups)


def _conv_transpose2d(m: nn.ConvTranspose2d) -> rn.ConvTranspose2d:
    return rn.ConvTranspose2d(
        array(m.weight),
        _bias(m),
        pair(m.stride),
        pair(_padding(m)),
        pair(m.output_padding),
        pair(m.dilation),
        m.groups,
    )


def _batch_norm(m: nn.BatchNorm1d | nn.BatchNorm2d) -> rn.BatchNorm:
    if m.running_mean is None or m.running_var is None:
        raise UnsupportedModule(
            "batch norm without running statistics; train with track_running_stats=True",
            rule="batch-norm-statistics",
        )
    inverse = 1.0 / np.sqrt(array(m.running_var) + m.eps)
    scale = inverse if m.weight is None else inverse * array(m.weight)
    shift = -array(m.running_mean) * scale
    return rn.BatchNorm(scale, shift if m.bias is None else shift + array(m.bias))


def _lif(m: layers.Lif) -> rn.Lif:
    p = m.norse
    for name in ("tau_mem_inv", "v_th", "v_reset", "v_leak"):
        count = torch.as_tensor(getattr(p, name)).numel()
        if count != 1:
            raise UnsupportedModule(
                f"{name} holds {count} values; the neurons of a layer share one",
                rule="neuron-parameters",
            )
    return rn.Lif(
        tau_mem_s=1.0 / float(p.tau_mem_inv),
        v_threshold=float(p.v_th),
        v_reset=float(p.v_reset),
        v_leak=float(p.v_leak),
        inclusive=m.parameters_.inclusive,
    )


def _recurrent_lif(m: layers.RecurrentLif) -> Parts:
    p = m.parameters_
    neurons = rn.Lif(
        p.tau_mem_s, p.norse_threshold, inclusive=p.inclusive, tau_syn_s=m.tau_syn_s, reset=m.reset
    )
    synapses = convert("recurrent", m.recurrent)
    if not isinstance(synapses, (rn.Dense, rn.Conv2d)):
        raise UnsupportedModule(
            f"recurrent synapses are a {type(m.recurrent).__name__}; use nn.Linear or nn.Conv2d",
            rule="module",
        )
    return Parts(
        (
            Part("delay", rn.Delay(1), ("",), like=INPUT),
            Part("recurrent", synapses, ("delay",)),
            Part("current", rn.Add(), (INPUT, "recurrent")),
            Part("", neurons, ("current",)),
        )
    )


def max_pool(kernel, stride, padding, dilation, ceil_mode, indices=False) -> rn.MaxPool2d:
    """Return the node of a max pooling; UnsupportedModule for forms without a circuit."""
    if pair(dilation) != (1, 1) or ceil_mode or indices:
        raise UnsupportedModule(
            "max pooling with dilation, ceil_mode or indices; use none of them",
            rule="max-pool-form",
        )
    return rn.MaxPool2d(pair(kernel), pair(stride or kernel), pair(padding))


def avg_pool(kernel, stride, padding, ceil_mode, include_pad, divisor) -> rn.AvgPool2d:
    """Return the node of an average pooling; UnsupportedModule for uneven windows."""
    uneven = any(pair(padding)) and not include_pad
    if ceil_mode or divisor is not None or uneven:
        raise UnsupportedModule(
            "average pooling with ceil_mode, divisor_override, or padding that does not count; "
            "use windows of one size: padding 0, or count_include_pad=True",
            rule="average-pool",
        )
    return rn.AvgPool2d(pair(kernel), pair(stride or kernel), pair(padding))


def _qat_synapses(m: QatSynapses) -> rn.Conv2d | rn.Dense:
    least = array(m.least_unit) if m.least_unit.any() else None
    if m.convolution is None:
        return rn.Dense(array(m.weight), array(m.bias), least)
    return rn.Conv2d(array(m.weight), array(m.bias), *m.convolution, least)


CONVERTERS: dict[type[nn.Module], Callable[[Any], Converted]] = {
    nn.Conv1d: _conv1d,
    nn.Conv2d: _conv2d,
    nn.ConvTranspose2d: _conv_transpose2d,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.Linear: lambda m: rn.Dense(array(m.weight), _bias(m)),
    nn.MaxPool2d: lambda m: max_pool(
        m.kernel_size, m.stride, m.padding, m.dilation, m.ceil_mode, m.return_indices
    ),
    nn.AvgPool2d: lambda m: avg_pool(
        m.kernel_size, m.stride, m.padding, m.ceil_mode, m.count_include_pad, m.divisor_override
    ),
    nn.Flatten: lambda m: rn.Flatten(),
    nn.Identity: lambda m: None,
    nn.Dropout: lambda m: None,
    nn.Dropout1d: lambda m: None,
    nn.Dropout2d: lambda m: None,
    nn.Dropout3d: lambda m: None,
    layers.Lif: _lif,
    QatSynapses: _qat_synapses,
    QatLif: _lif,
    QatReadout: lambda m: rn.Dense(array(m.weight), array(m.bias)),
    layers.Add: lambda m: rn.Add(),
    layers.SpatialMean: lambda m: rn.SpatialMean(),
    layers.Gain: lambda m: rn.Scale(m.factor),
    layers.TimeMean: lambda m: rn.TimeMean(),
    layers.Concat: lambda m: rn.Concat(),
    layers.HeadSum: lambda m: rn.HeadSum(m.heads),
    layers.MaskAttention: lambda m: rn.Mask(),
    layers.SpatialAttention: lambda m: rn.SpatialAttention(m.heads, m.scale),
    layers.TemporalAttention: lambda m: rn.TemporalAttention(m.heads, m.scale, m.scrambled),
    layers.MeanProduct: lambda m: rn.MeanProduct(),
    layers.TimeWeightedSum: lambda m: rn.TimeSum(array(m.step_weights())),
    layers.Multiply: lambda m: rn.Product(),
    layers.Delay: lambda m: rn.Delay(m.steps),
    layers.Li: lambda m: rn.Li(m.tau_mem_s, m.v_leak, m.tau_syn_s),
    layers.TimeLast: lambda m: rn.TimeLast(),
    layers.RecurrentLif: _recurrent_lif,
}
# These take frames (N, C, ...); those count axes from the front, where time is.
FRAME_LAYERS = (
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
)
TIME_LAYERS = (
    layers.Lif,
    layers.TimeMean,
    layers.Concat,
    layers.HeadSum,
    layers.MaskAttention,
    layers.SpatialAttention,
    layers.TemporalAttention,
    layers.MeanProduct,
    layers.TimeWeightedSum,
    layers.Delay,
    layers.Li,
    layers.TimeLast,
    layers.RecurrentLif,
)


def step_length(module: nn.Module) -> float | None:
    """Return dt in seconds of a layer of neurons, None for other layers."""
    if isinstance(module, (layers.Lif, layers.RecurrentLif)):
        return module.parameters_.dt_s
    if isinstance(module, layers.Li):
        return module.dt_s
    return None


def convert(qualified: str, module: nn.Module) -> Converted:
    """Return the node of a module, None if it passes its input on.

    Raises UnsupportedModule or StageError with its qualified name.
    """
    converter = CONVERTERS.get(type(module))
    if converter is None:
        allowed = ", ".join(sorted(c.__name__ for c in CONVERTERS))
        raise UnsupportedModule(
            f"{qualified}: {type(module).__name__} cannot be compiled; "
            f"supported are {allowed}, inside PerStep where stateless",
            rule="module",
        )
    try:
        return converter(module)
    except (UnsupportedModule, StageError) as error:
        raise error.at(qualified) from None
