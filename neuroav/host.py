"""Layers that the host computes for inputs of real values that do not change within a sample.

A spectrogram or a picture has no events. Its first convolution (or dense layer) is computed once
per sample on the host, in float64, and enters the chip in one of two forms:

``current``  the host writes every neuron's synaptic input into its bias, once per sample;
``spikes``   the host runs the neurons too, and a max pooling behind them, and sends their spikes.

Both round the input x of a neuron to m = round(x / unit), cut to 0..top, so both give the same
spikes. The cuts change none: a neuron that gets the same m <= 0 in every step never spikes, and one
that gets m > threshold spikes in every step. The bias of step t is m * 2^6, mantissa and exponent
of Lava's LIF.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from neuroav.errors import DataError, StageError
from neuroav.fixed import Arithmetic, lif_step
from neuroav.integer import IntGraph, IntHostCurrent, IntInput
from neuroav.nodes import Pair
from neuroav.shapes import conv_shape, dense_shape, pool_shape

Sends = Literal["current", "spikes"]
SENDS: tuple[Sends, ...] = ("current", "spikes")
_CHUNK = 16  # samples whose patches are held at a time


@dataclass(frozen=True, eq=False)
class HostLayer:
    """What the host computes for one input of the integer graph.

    source: name of the real-valued input; source_shape: its shape per sample. layer: name of the
    convolution or dense layer. weight: float64 (out, in / groups, rows, columns) or (out, in);
    bias (out,). shape: of the neurons. unit: real synaptic input that m = 1 stands for. top:
    largest m. sends: 'current' or 'spikes'; for spikes decay_v and threshold are those of
    ``fixed.lif_step``, and pool_* the pooling behind the neurons, kernel (1, 1) if there is none.
    """

    source: str
    source_shape: tuple[int, ...]
    layer: str
    weight: np.ndarray
    bias: np.ndarray
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    shape: tuple[int, ...]
    unit: float
    top: int
    sends: Sends
    decay_v: int
    threshold: int
    pool_kernel: Pair = (1, 1)
    pool_stride: Pair = (1, 1)
    pool_padding: Pair = (0, 0)

    @property
    def macs(self) -> int:
        """Multiply-accumulates per sample, zero padding included."""
        return int(np.prod(self.shape)) * int(np.prod(self.weight.shape[1:]))


def encode(layer: HostLayer, values: np.ndarray, steps: int, arith: Arithmetic) -> np.ndarray:
    """Return the integers a host layer sends, int32 (samples, steps, *shape).

    values: (samples, steps, *source_shape), finite and the same in every step. DataError if not.
    """
    image = constant(values, (steps, *layer.source_shape), layer.source)
    parts = [
        _encode_chunk(layer, image[first : first + _CHUNK], steps, arith)
        for first in range(0, len(image), _CHUNK)
    ]
    return np.concatenate(parts) if parts else _encode_chunk(layer, image, steps, arith)


def constant(values: np.ndarray, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Return the one step that all steps repeat, float64 (samples, *shape[1:])."""
    values = np.asarray(values)
    if values.shape[1:] != shape:
        raise DataError(
            f"input {where!r}: shape is {values.shape}, needs (samples, "
            f"{', '.join(map(str, shape))})"
        )
    if values.dtype.kind not in "iubf" or not np.isfinite(values).all():
        raise DataError(f"input {where!r}: holds NaN or infinite values, needs finite numbers")
    if (values != values[:, :1]).any():
        raise DataError(
            f"input {where!r}: changes from step to step, but its first layer is computed once per "
            "sample on the host; repeat one picture in every step, or compile it as event counts"
        )
    return values[:, 0].astype(np.float64)


def _encode_chunk(layer: HostLayer, image: np.ndarray, steps: int, arith: Arithmetic) -> np.ndarray:
    current = np.rint(_synaptic_input(layer, image) / layer.unit)
    m = np.clip(current, 0, layer.top).astype(np.int64)
    if layer.sends == "current":
        m = m.astype(np.int32)  # one copy for all steps: a test set's would be gigabytes
        return np.broadcast_to(m[:, None], (len(m), steps, *m.shape[1:]))
    u = v = np.zeros_like(m)
    sent = []
    for _ in range(steps):
        u, v, spike = lif_step(
            u,
            v,
            m,
            0,
            decay_u=(1 << arith.decay_bits) - 1,
            decay_v=layer.decay_v,
            threshold=layer.threshold,
            arith=arith,
            where=layer.layer,
        )
        sent.append(_pooled(layer, spike.astype(np.int32)))
    return np.stack(sent, axis=1)


def _synaptic_input(layer: HostLayer, image: np.ndarray) -> np.ndarray:
    """Return the real synaptic input (samples, *shape), summed in float64."""
    if layer.weight.ndim == 2:
        return (image.reshape(len(image), -1) @ layer.weight.T + layer.bias).reshape(
            len(image), *layer.shape
        )
    windows = _windows(
        image, layer.weight.shape[2:], layer.stride, layer.padding, layer.dilation, 0.0
    )
    parts = [
        np.einsum("nirckl,oikl->norc", mine, kernel, optimize=True)
        for mine, kernel in zip(
            np.split(windows, layer.groups, axis=1),
            np.split(layer.weight, layer.groups),
            strict=True,
        )
    ]
    return np.concatenate(parts, axis=1) + layer.bias[:, None, None]


def _windows(x, kernel, stride: Pair, padding: Pair, dilation: Pair, fill) -> np.ndarray:
    """Return all windows of (samples, channels, rows, columns): two more axes, of the kernel."""
    padded = np.pad(x, ((0, 0), (0, 0), *((p, p) for p in padding)), constant_values=fill)
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    views = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    return views[:, :, :: stride[0], :: stride[1], :: dilation[0], :: dilation[1]]


def _pooled(layer: HostLayer, spikes: np.ndarray) -> np.ndarray:
    if spikes.ndim == 2:  # a dense layer: nothing has rows and columns
        return spikes
    views = _windows(spikes, layer.pool_kernel, layer.pool_stride, layer.pool_padding, (1, 1), 0)
    return views.max(axis=(-2, -1))


def sources(host: Mapping[str, HostLayer], inputs: Mapping[str, object]) -> tuple[str, ...]:
    """Return the names of what a user feeds: inputs of the graph, or the sources behind them."""
    return tuple(dict.fromkeys(host[n].source if n in host else n for n in inputs))


def verify_host(host: Mapping[str, HostLayer], graph: IntGraph, arith: Arithmetic) -> None:
    """Raise StageError listing every host layer that does not fit the input it fills."""
    problems = []
    for name, layer in host.items():
        pop = graph.inputs.get(name)
        if pop is None:
            problems.append(f"host layer {name}: fills no input of the network")
            continue
        kind, most = (IntHostCurrent, layer.top) if layer.sends == "current" else (IntInput, 1)
        if type(pop) is not kind or pop.max_count != most:
            problems.append(
                f"host layer {name}: sends {layer.sends} up to {most}, the input takes "
                f"{type(pop).__name__} up to {pop.max_count}"
            )
        try:
            shape = _sent_shape(layer)
            if shape != pop.shape:
                problems.append(f"host layer {name}: gives shape {shape}, the input is {pop.shape}")
        except StageError as error:
            problems.append(f"host layer {name}: {error}")
        if layer.sends not in SENDS or not layer.unit > 0 or not 0 < layer.top <= arith.bias_max:
            problems.append(
                f"host layer {name}: sends {layer.sends!r}, unit {layer.unit}, top {layer.top} "
                f"(allowed: {', '.join(SENDS)}; above 0; 1..{arith.bias_max})"
            )
        full = 1 << arith.decay_bits
        if layer.top != layer.threshold + 1 or not 0 <= layer.decay_v <= full:
            problems.append(
                f"host layer {name}: top {layer.top}, threshold {layer.threshold}, decay "
                f"{layer.decay_v} (allowed: threshold + 1; 0..{full})"
            )
        if not (np.isfinite(layer.weight).all() and np.isfinite(layer.bias).all()):
            problems.append(f"host layer {name}: weights are NaN or infinite")
    for name, pop in graph.inputs.items():
        if isinstance(pop, IntHostCurrent) and name not in host:
            problems.append(f"input {name}: takes currents, and no host layer gives them")
    if problems:
        raise StageError("; ".join(problems))


def _sent_shape(layer: HostLayer) -> tuple[int, ...]:
    """Return the shape of what a layer sends; StageError where its own parts do not fit."""
    if layer.pool_kernel != (1, 1) and layer.sends != "spikes":
        raise StageError("pools currents; only spikes are pooled")
    if layer.weight.ndim == 2:
        shape = dense_shape(layer.source_shape, layer.weight.shape)
    else:
        shape = conv_shape(
            layer.source_shape,
            layer.weight.shape,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
        )
    if shape != layer.shape or layer.bias.shape != shape[:1]:
        raise StageError(f"weights give {shape}, its neurons are {layer.shape}")
    if len(shape) == 1 and (layer.pool_kernel, layer.pool_stride) == ((1, 1), (1, 1)):
        return shape
    return pool_shape(shape, layer.pool_kernel, layer.pool_stride, layer.pool_padding)
