"""Layers of synapses quantized: what they bring to the neurons that read them.

Handlers of ``quantize``; nothing becomes a population here. Weights stay real: the synaptic unit
depends on all that a population reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav_export.passes.host_input import HostCurrent, StaticInput
from neuroav_export.passes.values import Current, Term

if TYPE_CHECKING:
    from neuroav_export.passes.quantize import Quantizer


def conv2d(q: Quantizer, name: str, node: rn.Conv2d, x: list) -> Current | HostCurrent:
    """Return the synaptic input that a convolution gives."""
    if isinstance(x[0], StaticInput):
        return HostCurrent(name, node, x[0].name)
    value = q.message(name, x[0])

    def make(weight: np.ndarray, bits: int, mode: str) -> ig.Projection:
        return ig.IntConv2d(
            value.name, 0, weight, node.stride, node.padding, node.dilation, node.groups, bits, mode
        )

    weight = node.weight * float(value.scale)
    term = Term(value.name, weight, make, node.least_unit, value.lag, name)
    return Current((term,), np.zeros(1) if node.bias is None else node.bias)


def conv_transpose(q: Quantizer, name: str, node: rn.ConvTranspose2d, x: list) -> Current:
    """Return the synaptic input that a transposed convolution gives."""
    value = q.message(name, x[0])

    def make(weight: np.ndarray, bits: int, mode: str) -> ig.Projection:
        return ig.IntConvTranspose2d(
            value.name,
            0,
            _turned(weight, node.groups),
            node.stride,
            node.padding,
            node.output_padding,
            node.dilation,
            node.groups,
            bits,
            mode,
        )

    weight = _turned(node.weight, node.groups) * float(value.scale)
    term = Term(value.name, weight, make, node.least_unit, value.lag, name)
    return Current((term,), np.zeros(1) if node.bias is None else node.bias)


def _turned(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return (in, out / groups, ...) weights as (out, in / groups, ...), or the other way."""
    first, second, *taps = weight.shape
    split = weight.reshape(groups, first // groups, second, *taps).swapaxes(1, 2)
    return np.ascontiguousarray(split.reshape(groups * second, first // groups, *taps))


def linear(q: Quantizer, name: str, node: rn.Dense, x: list) -> Current | HostCurrent:
    """Return the synaptic input that a dense layer gives."""
    if isinstance(x[0], StaticInput):
        return HostCurrent(name, node, x[0].name)
    return dense(q, name, node, x)


def dense(q: Quantizer, name: str, node: rn.Dense | rn.Readout, x: list) -> Current:
    """Return the synaptic input that dense weights give."""
    value = q.message(name, x[0])

    def make(weight: np.ndarray, bits: int, mode: str) -> ig.Projection:
        return ig.IntDense(value.name, 0, weight, bits, mode)

    least = node.least_unit if isinstance(node, rn.Dense) else None
    term = Term(value.name, node.weight * float(value.scale), make, least, value.lag, name)
    offset = node.weight.sum(axis=1) * float(value.offset)
    return Current((term,), np.zeros(1) if node.bias is None else node.bias, offset)
