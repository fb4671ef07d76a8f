"""netx: a network that lava-dl exported (SLAYER's ``export_hdf5``) becomes a deployment.

The integers are taken as they are; nothing is quantized here. The parameters become ours as in
lava-dl 0.6.0 ``netx/hdf5.py``: decay_u = iDecay - 1, decay_v = vDecay, threshold = vThMant, biases
times 2^6. A layer keeps its number: ``layer3`` is layer/3 of the file; a file that
``writers.netx`` wrote gives its populations their names back.

* Spikes are the network's output, and a deployment ends in class scores: ``scores`` counts the
  spikes of each neuron of the last layer. A last dense layer whose neurons cannot reach their
  threshold (``block.cuba.Affine``) is the readout itself.
* An input layer with neurons is driven by biases alone in netx, gain * value + offset, written by
  the host: a host layer (``neuroav.host``) and neurons.
* Recurrent synapses reach their neurons one frame later, delays of d steps d frames later: their
  projections have a lag.
* Every sample begins with empty neurons, as netx does with ``reset_interval``; nothing that is
  delayed crosses from one sample to the next.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

import neuroav
from neuroav import hardware
from neuroav import integer as ig
from neuroav.deployment import Deployment
from neuroav.errors import ConfigError, NeuroavError, UnsupportedNode
from neuroav.fixed import Arithmetic
from neuroav.host import HostLayer, verify_host
from neuroav.quantization import Options
from neuroav.stages import verify_graph, verify_integer
from neuroav_export.passes.quantize import align
from neuroav_export.pipeline import check_single_spikes, target_problems
from neuroav_export.readers import netx_twin
from neuroav_export.readers.base import free_name
from neuroav_export.readers.hdf5 import Tree, opened
from neuroav_export.readers.netx_layers import (
    FULL,
    KIND,
    LAYERS_MOST,
    Layer,
    Neurons,
    read_layers,
    storage,
)

BIAS_SHIFT = 6  # bias_exp that netx gives every CUBA neuron
SCORES = "scores"
SCORES_MOST = 4096  # classes: their synapses are a square matrix in the real-valued twin
DT_S = 1e-3  # length of a step where nobody says: SLAYER's, 1 ms
BITS_MOST = 16  # of an input's event counts


@dataclass(frozen=True)
class Facts:
    """What a file of ``writers.netx`` says of itself; empty for other files."""

    names: tuple[str, ...] = ()
    steps: int | None = None
    dt_s: float | None = None
    input_message_bits: int | None = None


def read_netx(
    path: str | Path,
    *,
    steps: int | None = None,
    target: str = "loihi2",
    classes: Sequence[str] = (),
    input_shape: tuple[int, ...] | None = None,
    input_message_bits: int | None = None,
    dt_s: float | None = None,
) -> Deployment:
    """Return the deployment of a .net file.

    steps: frames per sample. classes: names of the last layer's neurons, numbers if empty.
    input_shape: (channels, rows, columns) or (neurons,) where the file has no input layer.
    input_message_bits: width of an event count, 0 for spikes. dt_s: seconds per frame, 1 ms if
    nobody says. A file that this program wrote says steps, width and dt_s itself.
    Raises FileFormatError, UnsupportedNode, ConfigError, ProfileError, StageError, OutOfRange.
    """
    path = Path(path)
    profile = hardware.load_profile(target)
    if problems := target_problems(profile, Options()):
        raise problems[0]
    with opened(path, KIND) as root:
        facts = _facts(root)
        layers = read_layers(root, path, input_shape)
    count = steps if steps is not None else facts.steps
    if count is None or count < 1:
        raise ConfigError(
            f"{path}: does not say how many steps a sample has, found {count}; give --steps N, "
            "as many as it was trained with"
        )
    bits = _first(input_message_bits, facts.input_message_bits, 0)
    if not 0 <= bits <= BITS_MOST:
        raise ConfigError(f"input_message_bits is {bits}, allowed 0..{BITS_MOST}")
    step_s = _first(dt_s, facts.dt_s, DT_S)
    work = Building(layers, _names(layers, facts), profile.arithmetic, count, step_s, str(path))
    work.build((1 << bits) - 1 if bits else 1)
    try:
        integer = verify_integer(work.graph(), profile.arithmetic)
        verify_host(work.host, integer, profile.arithmetic)
        real = verify_graph(work.twin.graph(work.output, count))
        if not profile.rules.graded_spikes:
            check_single_spikes(integer, profile.id)
    except NeuroavError as error:
        raise error.at(str(path)) from None
    names = _classes(classes, integer.populations[integer.output].neurons, path)
    return Deployment(integer, real, profile, names, {}, _provenance(path), host=work.host)


def _first(*values: Any) -> Any:
    return next(v for v in values if v is not None)


def _classes(classes: Sequence[str], neurons: int, path: Path) -> tuple[str, ...]:
    if classes and len(classes) != neurons:
        raise ConfigError(
            f"{path}: {len(classes)} class names for {neurons} neurons in the last layer; give as "
            "many names, or none"
        )
    return tuple(classes) or tuple(map(str, range(neurons)))


def _provenance(path: Path) -> dict[str, Any]:
    versions = {"neuroav": neuroav.__version__}
    for package in ("numpy", "h5py"):
        versions[package] = metadata.version(package)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"versions": versions, "source": {"format": "netx", "file": path.name, "sha256": digest}}


# --- what a file of ours says of itself -------------------------------------------------------
def _facts(root: Tree) -> Facts:
    if root.attribute("format") != "neuroav-netx":
        return Facts()
    try:
        names = tuple(json.loads(root.attribute("nodes") or "[]"))
        if not all(isinstance(n, str) and 0 < len(n) < 256 for n in names):
            raise ValueError("names must be short texts")
        facts = Facts(
            names,
            int(root.attribute("steps") or ""),
            float(root.attribute("dt_s") or ""),
            int(root.attribute("input_message_bits") or ""),
        )
    except (ValueError, TypeError) as error:
        raise root.problem("attributes", f"do not read ({error})", "those neuroav writes") from None
    distinct = len(set(names)) == len(names) <= LAYERS_MOST + 1
    plain = not any(set(n) & set("/\0") or set(n) <= {"."} for n in names)
    if not (distinct and plain and facts.dt_s and 0 < facts.dt_s < float("inf")):
        raise root.problem("attributes", f"say {facts!r:.200}", "different names, a positive dt_s")
    return facts


def _names(layers: Sequence[Layer], facts: Facts) -> tuple[str, ...]:
    """Return a name per layer, the input first."""
    if len(facts.names) == len(layers):
        return facts.names
    return ("input", *(f"layer{layer.number}" for layer in layers[1:]))


# --- the integer graph ------------------------------------------------------------------------
class Building:
    """Puts populations, host layers and the real-valued twin's nodes, layer by layer."""

    def __init__(
        self,
        layers: Sequence[Layer],
        names: Sequence[str],
        arith: Arithmetic,
        steps: int,
        dt_s: float,
        place: str,
    ) -> None:
        self.layers, self.names, self.arith, self.place = layers, names, arith, place
        self.steps, self.dt_s, self.output = steps, dt_s, ""
        self.populations: dict[str, ig.Population] = {}
        self.scales: dict[str, tuple[int, int]] = {}
        self.host: dict[str, HostLayer] = {}
        self.twin = netx_twin.Twin(dt_s, names)
        if (arith.input_shift, arith.decay_bits) != (BIAS_SHIFT, 12):
            raise UnsupportedNode(
                f"{place}: the target shifts synaptic input by {arith.input_shift} and has decays "
                f"of {arith.decay_bits} bits; such a file is for 6 and 12, as on Loihi"
            )

    def graph(self) -> ig.IntGraph:
        """Return the integer graph, branches aligned."""
        return align(ig.IntGraph(self.populations, self.output, self.steps, self.dt_s, self.scales))

    def put(self, name: str, population: ig.Population, scale: tuple[int, int] = (1, 1)) -> None:
        self.populations[name], self.scales[name] = population, scale

    def build(self, max_count: int) -> None:
        """Put every layer. max_count: of the input, where it has no neurons."""
        source = self._input(self.layers[0], max_count)
        for layer, name in zip(self.layers[1:], self.names[1:], strict=True):
            assert layer.neurons is not None
            last = layer is self.layers[-1]
            if self._silent(layer.neurons):
                if not (last and layer.kind == "dense" and layer.recurrent is None):
                    raise UnsupportedNode(
                        f"{self.place}: layer {layer.number}: its threshold "
                        f"{layer.neurons.threshold} is above what a membrane reaches, "
                        f"{self.arith.threshold_max}; only a last dense layer may, as class scores"
                    )
                self._readout(layer, name, source)
                return
            self._neurons(layer, name, source)
            source = name
        self._count(source)

    def _silent(self, neurons: Neurons) -> bool:
        most = (1 << (self.arith.voltage_bits - 1)) - 1
        return neurons.threshold << self.arith.input_shift >= most

    def _input(self, layer: Layer, max_count: int) -> str:
        """Put the input, and its neurons where it has some; return who sends."""
        name, following = self.names[0], self.layers[1].weight
        shape = layer.shape
        if shape is None:
            assert following is not None
            shape = (following.shape[1],)
        if layer.neurons is None:
            self.put(name, ig.IntInput(shape, (), max_count))
            self.twin.input(name, shape, max_count)
            return name
        return self._driven(layer, name, shape if len(shape) == 3 else (*shape, 1, 1))

    def _driven(self, layer: Layer, name: str, shape: tuple[int, ...]) -> str:
        """Put neurons whose biases the host writes: gain * value + offset, rounded."""
        assert layer.neurons is not None
        neurons = layer.neurons
        current = free_name(f"{name}.current", self.names)
        spikes = free_name(f"layer{layer.number}", self.names)
        channels = shape[0]
        weight = np.full((channels, 1, 1, 1), float(layer.gain))
        offset = np.full(channels, float(layer.offset))
        decay_v, threshold = int(neurons.decay_v[0]), neurons.threshold
        self.host[current] = HostLayer(
            source=name,
            source_shape=shape,
            layer=current,
            weight=weight,
            bias=offset,
            stride=(1, 1),
            padding=(0, 0),
            dilation=(1, 1),
            groups=channels,
            shape=shape,
            unit=1.0,
            top=threshold + 1,
            sends="current",
            decay_v=decay_v,
            threshold=threshold,
        )
        self.put(current, ig.IntHostCurrent(shape, (), threshold + 1))
        # netx sends these neurons nothing, so their synaptic current never decays
        only_v = Neurons(np.full(1, FULL), neurons.decay_v, threshold)
        link = ig.IntIdentity(current, 0, 1)
        self.put(spikes, _lif(shape, (link,), np.zeros(1, np.int64), only_v))
        self.twin.driven(name, current, spikes, shape, weight, offset, only_v)
        return spikes

    def _neurons(self, layer: Layer, name: str, source: str) -> None:
        assert layer.shape is not None
        assert layer.neurons is not None
        projections = self._projections(layer, name, source)
        self.put(name, _lif(layer.shape, projections, layer.bias, layer.neurons))
        self.twin.neurons(layer, name, source)

    def _projections(self, layer: Layer, name: str, source: str) -> tuple[ig.Projection, ...]:
        assert layer.weight is not None
        if layer.kind == "conv":
            stored = storage(layer.weight)
            assert stored is not None
            return (
                ig.IntConv2d(
                    source,
                    0,
                    layer.weight,
                    layer.stride,
                    layer.padding,
                    layer.dilation,
                    layer.groups,
                    *stored,
                ),
            )
        made = [_dense(source, part, lag) for lag, part in netx_twin.by_delay(layer)]
        if layer.recurrent is not None:
            made.append(_dense(name, layer.recurrent, 1))
        return tuple(made)

    # --- class scores ---
    def _count(self, source: str) -> None:
        """Put the readout that counts the spikes of the last layer."""
        neurons = self.populations[source].neurons
        if neurons > SCORES_MOST:
            raise UnsupportedNode(
                f"{self.place}: its last layer has {neurons} neurons, allowed are {SCORES_MOST} as "
                "class scores; end the network in a dense layer"
            )
        name = free_name(SCORES, {*self.names, *self.populations})
        link = ig.IntIdentity(source, 0, 1)
        readout = ig.IntReadout((neurons,), (link,), np.zeros(1, np.int64))
        self.put(name, readout, (1, self.steps))
        self.twin.count(name, source, neurons)
        self.output = name

    def _readout(self, layer: Layer, name: str, source: str) -> None:
        """Put a dense layer that never spikes: its membranes are the class scores."""
        assert layer.neurons is not None
        assert layer.shape is not None
        if max(layer.neurons.decay_i.size, layer.neurons.decay_v.size) > 1:
            raise UnsupportedNode(
                f"{self.place}: layer {layer.number}: class scores share one decay; train it with "
                "shared_param=True"
            )
        decay_i, decay_v = int(layer.neurons.decay_i[0]), int(layer.neurons.decay_v[0])
        projections = self._projections(layer, name, source)
        held_by_current = (decay_i, decay_v) == (0, FULL) and not layer.bias.any()
        if held_by_current or (decay_i, decay_v) == (FULL, 0):  # a plain sum, in synaptic inputs
            self.put(name, ig.IntReadout(layer.shape, projections, layer.bias), (1, self.steps))
            self.twin.readout(layer, name, source, plain=True)
        else:
            self._leaky_readout(layer, name, source, projections)
        self.output = name

    def _leaky_readout(
        self, layer: Layer, name: str, source: str, projections: tuple[ig.Projection, ...]
    ) -> None:
        assert layer.neurons is not None
        assert layer.shape is not None
        decay_i, decay_v = int(layer.neurons.decay_i[0]), int(layer.neurons.decay_v[0])
        if decay_i != FULL and layer.bias.any():
            raise UnsupportedNode(
                f"{self.place}: layer {layer.number}: class scores have biases behind a synaptic "
                "current; train the last layer without norm, or with current_decay=1"
            )
        kept = None if decay_i == FULL else decay_i - 1
        bias = layer.bias << BIAS_SHIFT
        leaky = ig.IntReadout(layer.shape, projections, bias, kept, decay_v, BIAS_SHIFT)
        gain = netx_twin.gain(decay_v)
        self.put(name, leaky, (gain.numerator, gain.denominator << BIAS_SHIFT))
        self.twin.readout(layer, name, source, plain=False)


def _dense(source: str, weight: np.ndarray, lag: int) -> ig.IntDense:
    stored = storage(weight)
    assert stored is not None
    return ig.IntDense(source, 0, weight, *stored, lag=lag)


def _lif(
    shape: tuple[int, ...],
    projections: tuple[ig.Projection, ...],
    bias: np.ndarray,
    neurons: Neurons,
) -> ig.IntLif:
    axes = [1] * (len(shape) - 1)
    decay_u, decay_v = (
        int(d[0]) if d.size == 1 else d.reshape(-1, *axes)
        for d in (neurons.decay_i - 1, neurons.decay_v)
    )
    return ig.IntLif(
        shape,
        projections,
        bias if bias.any() else np.zeros([1] * len(shape), np.int64),
        BIAS_SHIFT if bias.any() else 0,
        np.full([1] * len(shape), neurons.threshold, np.int64),
        decay_u,
        decay_v,
    )


READS: Mapping[str, str] = {
    "input": "`IntInput`; with neurons a host layer, `IntHostCurrent` and `IntLif`",
    "conv": "`IntConv2d` onto `IntLif`",
    "dense": "`IntDense` onto `IntLif`, one per delay; last and never spiking: onto `IntReadout`",
    "dense_rec": "`dense` and a second `IntDense` from its own neurons, lag 1",
    "flatten": "nothing: neurons are numbered in the same order",
}
