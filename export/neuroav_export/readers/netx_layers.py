"""The layers of a lava-dl .net file, checked one by one; ``netx`` makes a network of them.

Axes are stored (channel, row, column), the same as ours; lava-dl turns them round for Lava. What
lava-dl itself would refuse, change or ignore is an error here, with the layer's number. Source:
lava-dl 0.6.0 ``netx/hdf5.py``, ``netx/utils.py``, ``netx/blocks/process.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from neuroav.errors import StageError, UnsupportedNode
from neuroav.fixed import sign_mode, truncate_weights
from neuroav.nodes import Pair
from neuroav.shapes import conv_shape
from neuroav_export.readers.hdf5 import Tree

KIND = "a network that lava-dl exported (.net)"
NEURONS = ("CUBA", "LOIHI")
LAYERS_MOST = 4096
SIDE_MOST = 1 << 20  # neurons along an axis
DELAY_MOST = 62  # steps; lava-dl cuts longer ones
FULL = 1 << 12  # a decay of 1
INTEGRATOR_THRESHOLD = 1 << 17  # of a dense layer without neurons: never reached
# Layer types that a .net file may name and that neither lava-dl's netx nor this reader builds.
UNSUPPORTED = {
    "pool": "lava-dl's netx does not build pooling; use a convolution with stride",
    "unpool": "lava-dl's netx does not build it; use a convolution",
    "convT": "lava-dl's netx does not build transposed convolutions; use a convolution",
    "average": "lava-dl's netx does not build it; leave it out: the spikes of the last layer are "
    "counted as class scores",
    "concat": "a netx network is one chain; train one without branches",
    "add": "a netx network is one chain; train one without branches",
    "kwta": "lava-dl's netx does not build it; use a dense layer",
    "dense_comp": "complex synapses belong to resonators; use CUBA neurons",
}


@dataclass(frozen=True)
class Before:
    """What a layer reads: neurons of shape, None if unknown; flat: through a layer 'flatten';
    fed: they are the input's."""

    shape: tuple[int, ...] | None
    flat: bool = False
    fed: bool = True


@dataclass(frozen=True, eq=False)
class Neurons:
    """CUBA neurons. decay_i, decay_v: int64 (1,) or (channels,), in 1/4096; threshold in synaptic
    inputs."""

    decay_i: np.ndarray
    decay_v: np.ndarray
    threshold: int


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer with neurons, or the input.

    number: in the file. kind: 'input', 'conv' or 'dense'. shape: of its neurons, None for an input
    that does not say. neurons: None for an input that is fed spikes. bias: int64, broadcasts to
    shape, in synaptic inputs. weight: (out, in / groups, rows, columns) or (out, in). recurrent:
    (out, out) or None. delay: steps of every synapse, (out, in) or None. gain, offset: of an input
    with neurons, whose biases are gain * value + offset.
    """

    number: int
    kind: str
    shape: tuple[int, ...] | None
    neurons: Neurons | None
    bias: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    weight: np.ndarray | None = None
    recurrent: np.ndarray | None = None
    delay: np.ndarray | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    gain: int = 1
    offset: int = 0


def read_layers(root: Tree, path: Path, input_shape: tuple[int, ...] | None) -> list[Layer]:
    """Return the layers, an input first; input_shape: where the file does not say.

    Raises FileFormatError and UnsupportedNode.
    """
    tree = root.group("layer")
    count = len(tree.names)
    if not 1 <= count <= LAYERS_MOST:
        raise root.problem("layer", f"holds {count} layers", f"1..{LAYERS_MOST}")
    layers: list[Layer] = []
    before = Before(input_shape)
    for number in range(count):
        group = tree.group(str(number))
        place = f"{path}: layer {number}"
        kind = group.text("type")
        if kind == "flatten":
            before = replace(before, flat=True)
            continue
        if kind not in _READERS:
            raise _unsupported(place, kind)
        if not layers and kind != "input":
            layers.append(Layer(-1, "input", before.shape, None))
        if layers and kind == "input":
            raise group.problem("type", "is a second input", "one input, first")
        layer = _READERS[kind](group, number, place, before)
        layers.append(layer)
        before = Before(layer.shape, fed=layer.neurons is None)
    if len(layers) < 2:
        raise root.problem("layer", "holds nothing but an input", "a layer of neurons")
    return layers


def _unsupported(place: str, kind: str) -> UnsupportedNode:
    why = UNSUPPORTED.get(kind, "it is unknown to lava-dl's netx and to this reader")
    return UnsupportedNode(
        f"{place} is of type {kind!r:.40}: {why}; carried are input, conv, dense, dense_rec and "
        "flatten"
    )


# --- one function per type --------------------------------------------------------------------
def _input(group: Tree, number: int, place: str, before: Before) -> Layer:
    found = _shape(group) if "shape" in group else before.shape
    if not group.is_group("neuron"):
        return Layer(number, "input", found, None)
    if found is None:
        raise group.problem("shape", "is missing", "the shape of the input neurons")
    gain = group.number("weight", -(1 << 12), 1 << 12) if "weight" in group else 64
    offset = group.number("bias", -(1 << 12), 1 << 12) if "bias" in group else 0
    neurons = _neurons(group.group("neuron"), place)
    return Layer(number, "input", found, neurons, gain=gain, offset=offset)


def _conv(group: Tree, number: int, place: str, before: Before) -> Layer:
    if before.shape is None:
        raise UnsupportedNode(
            f"{place}: is a convolution, and no layer says what shape it reads; give the input's "
            "shape, --input-shape CHANNELS,ROWS,COLUMNS"
        )
    if group.is_group("weight"):
        raise _complex(place)
    weight = group.numbers("weight", -256, 255, (4, 5))
    if weight.ndim == 5:
        if weight.shape[4] != 1:
            raise group.problem("weight", f"has shape {weight.shape}", "1 at the end: no time axis")
        weight = weight[..., 0]
    stride, padding = _pair(group, "stride", 1), _pair(group, "padding", 0)
    dilation = _pair(group, "dilation", 1)
    groups = group.number("groups", 1, SIDE_MOST)
    shape = _shape(group)
    try:
        if before.flat:
            raise StageError("reads a flattened layer; a convolution needs rows and columns")
        made = conv_shape(before.shape, weight.shape, stride, padding, dilation, groups)
    except StageError as error:
        raise UnsupportedNode(f"{place}: {error}") from None
    if made != shape:
        raise group.problem(
            "shape", f"is {shape}", f"{made}, what its kernel gives on {before.shape}"
        )
    _storable(weight, place)
    if "delay" in group and group.numbers("delay", 0, DELAY_MOST, (0, 1)).any():
        raise UnsupportedNode(
            f"{place}: delays of a convolution are ignored by lava-dl's netx, so the network there "
            "is not the trained one; train it with delay=False"
        )
    neurons = _neurons(group.group("neuron"), place, channels=shape[0])
    return Layer(
        number,
        "conv",
        shape,
        neurons,
        _bias(group, shape),
        weight,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )


def _dense(group: Tree, number: int, place: str, before: Before) -> Layer:
    return _any_dense(group, number, place, before, recurrent=False)


def _dense_rec(group: Tree, number: int, place: str, before: Before) -> Layer:
    return _any_dense(group, number, place, before, recurrent=True)


def _any_dense(group: Tree, number: int, place: str, before: Before, recurrent: bool) -> Layer:
    source = before.shape
    if group.is_group("weight"):
        raise _complex(place)
    out = int(np.prod(_shape(group)))
    weight = _matrix(group, "weight", out)
    wanted = None if source is None else int(np.prod(source))
    if wanted not in (None, weight.shape[1]):
        raise group.problem("weight", f"has shape {weight.shape}", f"{wanted} columns, its source")
    if len(source or ()) == 3 and not (before.fed or before.flat):
        raise UnsupportedNode(
            f"{place}: reads neurons {source} with no layer 'flatten' between; lava-dl's netx "
            "cannot connect them; put block.cuba.Flatten() there"
        )
    back = _matrix(group, "weight_rec", out) if recurrent else None
    if back is not None and back.shape != (out, out):
        raise group.problem("weight_rec", f"has shape {back.shape}", f"{(out, out)}")
    _storable(weight, place)
    if back is not None:
        _storable(back, place)
    delay = _delay(group, weight.shape) if "delay" in group else None
    if delay is not None and recurrent:
        raise UnsupportedNode(
            f"{place}: is recurrent with delays, for which lava-dl's netx loses the exponent of "
            "the weights; train it with delay=False"
        )
    neurons = (
        _neurons(group.group("neuron"), place, channels=out)
        if group.is_group("neuron")
        else Neurons(np.zeros(1, np.int64), np.full(1, FULL), INTEGRATOR_THRESHOLD)
    )
    bias = _bias(group, (out,))
    return Layer(number, "dense", (out,), neurons, bias, weight, recurrent=back, delay=delay)


_READERS: dict[str, Callable[..., Layer]] = {
    "input": _input,
    "conv": _conv,
    "dense": _dense,
    "dense_rec": _dense_rec,
}


# --- their parts ------------------------------------------------------------------------------
def _shape(group: Tree) -> tuple[int, ...]:
    shape = tuple(int(n) for n in group.numbers("shape", 1, SIDE_MOST, (1,)))
    if len(shape) not in (1, 3):
        raise group.problem("shape", f"is {shape}", "(neurons,) or (channels, rows, columns)")
    return shape


def _pair(group: Tree, name: str, low: int) -> Pair:
    found = group.numbers(name, low, SIDE_MOST, (0, 1)).reshape(-1)
    if found.size not in (1, 2):
        raise group.problem(name, f"holds {found.size} numbers", "1 or 2: rows and columns")
    return int(found[0]), int(found[-1])


def _matrix(group: Tree, name: str, out: int) -> np.ndarray:
    """Return dense weights (out, in)."""
    weight = group.numbers(name, -256, 255, (1, 2))
    if weight.size == 0 or weight.size % out or weight.shape[0] not in (out, weight.size):
        raise group.problem(name, f"has shape {weight.shape}", f"{out} rows, one per neuron")
    return weight.reshape(out, -1)


def _complex(place: str) -> UnsupportedNode:
    return UnsupportedNode(
        f"{place}: has complex synapses, which belong to resonators; use CUBA neurons"
    )


def storage(weight: np.ndarray) -> tuple[int, str] | None:
    """Return the smallest width that stores the weights as they are and its sign mode.

    That of the weights' own signs, or 'mixed', which alone holds -256. None where 8 bits do not.
    """
    for mode in (sign_mode(weight), "mixed"):
        for bits in range(1, 9):
            if (truncate_weights(weight, bits, mode) == weight).all():
                return bits, mode
    return None


def _storable(weight: np.ndarray, place: str) -> None:
    if storage(weight) is None:
        odd = int((weight % 2 != 0).sum())
        raise UnsupportedNode(
            f"{place}: {odd} of {weight.size} weights are odd; synapses of both signs hold even "
            "ones in -256..254, as SLAYER's own quantization gives them: export with pre_hook_fx "
            "= neuron.quantize_8bit"
        )


def _bias(group: Tree, shape: tuple[int, ...]) -> np.ndarray:
    """Return the bias so that it broadcasts to the neurons."""
    if "bias" not in group:
        return np.zeros(1, np.int64)
    bias = group.numbers("bias", -(1 << 12) + 1, (1 << 12) - 1, (0, 1, 3))
    if bias.ndim == 3 and bias.shape == shape[::-1]:
        return bias.transpose()
    if bias.size == shape[0] and bias.ndim < 3:
        return bias.reshape(-1, *[1] * (len(shape) - 1))
    if bias.size == 1 and len(shape) == 1:
        return bias.reshape(1)
    raise group.problem("bias", f"has shape {bias.shape}", f"({shape[0]},) or {shape[::-1]}")


def _delay(group: Tree, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return the steps of every synapse (out, in), None where all are 0.

    One number per neuron of the layer counts for all its synapses, as in lava-dl; one per neuron of
    the source for those that it drives.
    """
    found = group.numbers("delay", 0, DELAY_MOST, (0, 1, 2))
    if found.size == 1:
        found = found.reshape(1, 1)
    elif found.ndim == 1 and found.size == shape[0]:
        found = found[:, None]
    elif found.ndim == 1 and found.size == shape[1]:
        found = found[None, :]
    elif found.shape != shape:
        raise group.problem(
            "delay", f"has shape {found.shape}", f"({shape[0]},), ({shape[1]},) or {shape}"
        )
    return np.broadcast_to(found, shape) if found.any() else None


def _neurons(group: Tree, place: str, channels: int = 1) -> Neurons:
    kind = group.text("type")
    if kind not in NEURONS:
        raise UnsupportedNode(
            f"{place}: its neurons are {kind!r:.40}; carried are {', '.join(NEURONS)} (leaky "
            "integrate-and-fire), not sigma-delta, resonate-and-fire or adaptive ones; train the "
            "layer with slayer.block.cuba"
        )
    for name, allowed, why in (
        ("refDelay", 1, "the chip's neuron here has no refractory period"),
        ("gradedSpike", 0, "its spikes would carry numbers, which lava-dl's netx does not send"),
        ("wgtExp", 0, "lava-dl's netx ignores this exponent of the weights"),
        ("weight_exp", 0, "lava-dl's netx ignores this exponent; use MeanOnlyBatchNorm"),
    ):
        if name in group:
            found = group.number(name, -(1 << 20), 1 << 20)
            if found != allowed:
                raise UnsupportedNode(f"{place}: {name} is {found}, allowed is {allowed}: {why}")
    return Neurons(
        _decay(group, "iDecay", channels),
        _decay(group, "vDecay", channels),
        group.number("vThMant", 0, 1 << 24),
    )


def _decay(group: Tree, name: str, channels: int) -> np.ndarray:
    found = group.numbers(name, 0, FULL, (0, 1)).reshape(-1)
    if found.size not in (1, channels):
        raise group.problem(name, f"holds {found.size} numbers", f"1 or {channels}")
    return found[:1] if (found == found[:1]).all() else found
