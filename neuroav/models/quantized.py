"""Layers of quantization-aware training: deployed integers forward, straight-through backward.

``QatSynapses`` and the ``QatLif`` it feeds compute with the integers of ``neuroav.quantization``
and the equations of ``neuroav.fixed``, so the spikes in training are those of the deployment, bit
for bit. Rounding and truncation pass gradients unchanged (Bengio et al., arXiv 1308.3432), clipped
weights get none; the spike keeps Norse's surrogate. With ``quantize`` False they are the
real-valued network, which is what the compiler traces.
"""

from __future__ import annotations

from math import frexp

import numpy as np
import torch
from norse.torch.functional.threshold import threshold as norse_threshold
from torch import nn
from torch.nn import functional

from neuroav.errors import UnsupportedModule
from neuroav.fixed import Arithmetic
from neuroav.models.layers import Lif, PerStep
from neuroav.nodes import Pair
from neuroav.quantization import (
    Options,
    along,
    choose_unit,
    integer_bias,
    integer_decay,
    integer_threshold,
    integer_weights,
)


def fold(conv: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d | None):
    """Return (weight, bias) of a layer with its evaluation-mode batch norm folded in, float32."""
    weight = conv.weight.detach().double()
    bias = torch.zeros(len(weight)).double() if conv.bias is None else conv.bias.detach().double()
    if norm is not None:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = 1.0 / (norm.running_var.double() + norm.eps).sqrt()
        shift = -norm.running_mean.double() * scale
        if norm.affine:
            scale = scale * norm.weight.detach().double()
            shift = shift * norm.weight.detach().double() + norm.bias.detach().double()
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        bias = bias * scale + shift
    return weight.float(), bias.float()


def straight_through(real: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """Return ``rounded`` with the gradient of ``real``."""
    return real + (rounded - real).detach()


def _geometry(conv: nn.Conv2d) -> tuple[Pair, Pair, Pair, int]:
    """Return stride, padding, dilation and groups; UnsupportedModule for named paddings."""
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        raise UnsupportedModule(f"padding {conv.padding!r} ({conv.padding_mode}); use numbers")
    stride, padding, dilation = (
        (int(pair[0]), int(pair[1])) for pair in (conv.stride, conv.padding, conv.dilation)
    )
    return stride, padding, dilation, conv.groups


class QatSynapses(nn.Module):
    """Convolution or linear layer with folded norm; its output goes to one QatLif only.

    forward: messages (T, B, ...), whole numbers, to synaptic input (T, B, ...): whole numbers in
    1/64 of the synaptic unit (bias included) when quantizing, real values otherwise.
    threshold: real threshold of the neurons on the synaptic input, v_threshold / (dt / tau_mem).
    message: real value of the integer 1 that arrives. means: how often that is divided by the
    steps and places of the input too, for products of means (``layers.MeanProduct``).
    """

    def __init__(
        self,
        layer: nn.Conv2d | nn.Linear,
        norm: nn.BatchNorm2d | None,
        threshold: float,
        options: Options,
        arith: Arithmetic,
        message: float = 1.0,
        means: int = 0,
    ) -> None:
        super().__init__()
        weight, bias = fold(layer, norm)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.message, self.means = message, means
        self.convolution = _geometry(layer) if isinstance(layer, nn.Conv2d) else None
        self.threshold, self.options, self.arith = threshold, options.check(arith), arith
        self.quantize = True
        self.unit = np.ones(1)
        # kept with the weights: the unit must not move with the data once training began
        self.register_buffer("least_unit", torch.zeros(len(weight), dtype=torch.float64))
        self.least_unit: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.quantize:
            return self._apply_weights(x, self.weight, self.bias)
        places = x.shape[0] * int(np.prod(x.shape[3:])) if self.means else 1
        scale = self.message / places**self.means
        weight, bias = self._integers(scale)
        whole = straight_through(x / scale, (x / scale).round()) if scale != 1 else x
        return self._apply_weights(whole, weight * (1 << self.arith.input_shift), bias)

    def _apply_weights(self, x: torch.Tensor, weight, bias) -> torch.Tensor:
        if self.convolution is None:
            return functional.linear(x, weight, bias)
        y = functional.conv2d(x.flatten(0, 1), weight, bias, *self.convolution)
        return y.unflatten(0, x.shape[:2])

    def _integers(self, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Return integer weights and biases (1/64 units), straight-through; remember the unit.

        scale: real value of message 1.
        """
        weight = self.weight.detach().double().numpy() * scale
        bias = self.bias.detach().double().numpy()
        least = self.least_unit.numpy()
        self.unit = choose_unit([weight], self.threshold, self.options, self.arith, least)
        stored, grid, _ = integer_weights(weight, self.unit, self.options, self.arith)
        mantissa, exponent, _ = integer_bias(bias, self.unit, self.arith)
        unit = torch.from_numpy(self.unit).to(self.weight.dtype)
        real = self.weight * (scale / along_tensor(unit, self.weight.ndim))
        inside = real.clamp(grid.low * grid.step, grid.high * grid.step)  # no gradient outside
        integers = torch.from_numpy(stored).to(self.weight.dtype)
        biases = torch.from_numpy(mantissa << exponent).to(self.weight.dtype)
        shift = 1 << self.arith.input_shift
        return straight_through(inside, integers), straight_through(
            self.bias / unit * shift, biases
        )


def along_tensor(unit: torch.Tensor, axes: int) -> torch.Tensor:
    """Return a unit (1,) or (channels,) so that it broadcasts along the first of ``axes`` axes."""
    return unit.reshape(-1, *[1] * (axes - 1))


class QatLif(Lif):
    """The integer neuron of ``fixed.lif_step`` (no current memory), with Norse's surrogate.

    V' = truncate(V (2^12 - decay_v), 12) + input;  spike = V' > 64 threshold;  V = 0 where spiked.
    The surrogate sees the real distance to threshold, (V' - 64 threshold) * unit * d / 64.
    """

    def __init__(self, lif: Lif, synapses: QatSynapses) -> None:
        super().__init__(lif.parameters_)
        self._synapses = (synapses,)  # in a tuple: not a sub-module of this one

    @property
    def synapses(self) -> QatSynapses:
        """The layer whose output these neurons read."""
        return self._synapses[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        synapses = self.synapses
        if not synapses.quantize:
            return super().forward(x)
        arith, p = synapses.arith, self.parameters_
        fraction = p.dt_s / p.tau_mem_s
        keep = 1 - integer_decay(fraction, arith) / (1 << arith.decay_bits)
        exact = keep == 0 or frexp(keep)[0] == 0.5  # float32 holds v * keep only then
        dtype = x.dtype if exact else torch.float64
        shift = 1 << arith.input_shift
        level = integer_threshold(synapses.threshold, synapses.unit, arith, p.inclusive) * shift
        axes = x.ndim - 2
        top = torch.from_numpy(along(level, axes)).to(dtype)
        real = torch.from_numpy(along(synapses.unit * fraction / shift, axes)).to(dtype)
        v, spikes = torch.zeros_like(x[0], dtype=dtype), []
        for current in x.to(dtype):
            leaked = v * keep
            v = straight_through(leaked, leaked.trunc()) + current
            spike = norse_threshold((v - top) * real, p.surrogate, p.alpha)
            v = v * (1 - (spike.detach() if p.detach_reset else spike))
            spikes.append(spike)
        return torch.stack(spikes).to(x.dtype)


class QatReadout(nn.Module):
    """The linear layer of class scores with weights on the deployed grid, straight-through."""

    def __init__(self, layer: nn.Linear, options: Options, arith: Arithmetic) -> None:
        super().__init__()
        weight, bias = fold(layer, None)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.options = Options(options.bits, options.calibration, options.percentile).check(arith)
        self.arith, self.quantize = arith, True

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.quantize:
            return functional.linear(x, self.weight, self.bias)
        weight = self.weight.detach().double().numpy()
        unit = choose_unit([weight], 0.0, self.options, self.arith)
        stored, grid, _ = integer_weights(weight, unit, self.options, self.arith)
        scale = float(unit[0])
        inside = self.weight.clamp(grid.low * grid.step * scale, grid.high * grid.step * scale)
        rounded = torch.from_numpy(stored * scale).to(self.weight.dtype)
        return functional.linear(x, straight_through(inside, rounded), self.bias)


def synaptic_layer(module: nn.Module) -> tuple[nn.Conv2d | nn.Linear, nn.BatchNorm2d | None] | None:
    """Return (layer, batch norm or None) if ``module`` is what QatSynapses replaces, else None."""
    inner = module.layer if isinstance(module, PerStep) else module
    parts = list(inner) if isinstance(inner, nn.Sequential) else [inner]
    if not parts or not isinstance(parts[0], (nn.Conv2d, nn.Linear)):
        return None
    if len(parts) == 1:
        return parts[0], None
    return (
        (parts[0], parts[1]) if len(parts) == 2 and isinstance(parts[1], nn.BatchNorm2d) else None
    )
