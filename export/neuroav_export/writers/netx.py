"""netx: the longest chain of synapses and spiking neurons behind one input, as lava-dl's HDF5.

``lava.lib.dl.netx.hdf5.Network(FILE, input_message_bits=B, reset_interval=STEPS, reset_offset=1)``
loads and runs it in Lava; B and STEPS are root attributes of the file. A netx network is one
sequence of blocks, each a Conv or a Dense with its LIF neurons. It has no sum of branches, no
graded message and no accumulator, so all of those stay out; nothing is left out silently: without
``branch``, anything but the readout left out is an error.

What netx makes of the file (lava-dl 0.6.0 ``netx/hdf5.py``, ``netx/utils.py``):
* axes: shapes are stored (channel, row, column) and reversed to (column, row, channel); a Conv's
  kernel (out, in / groups, row, column) is flipped in both axes, because Lava's Conv convolves, so
  the file holds the cross-correlation kernel; 'flatten' restores our neuron order before a Dense.
* neuron: du = iDecay - 1, dv = vDecay, vth = vThMant, one number each per layer; bias << 6, in
  whole synaptic inputs, so only multiples of 64/64 are carried (``round_bias`` makes them so).
* dense weights are shifted left as far as they fit and the sum is shifted back
  (``optimize_weight_bits``); weights that do not survive that are refused.
* time: one step per block; neurons are reset at the first frame of every sample, block by block.

Consumes the integer graph; the spikes of the nodes carried are the reference's bit for bit (with
``round_bias``: those of ``round_biases(deployment)``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from math import floor, log2
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuroav import integer as ig
from neuroav.deployment import Deployment
from neuroav.errors import ConfigError, UnsupportedNode, unknown_name
from neuroav.files import written_whole
from neuroav.fixed import Arithmetic, shift_left, sign_mode, truncate_weights
from neuroav.nodes import Pair
from neuroav.sim.lava.bounds import check_profile
from neuroav_export.writers.base import Written, facts

FORMAT, VERSION = "neuroav-netx", 1
CONSUMES = "integer"
CARRIES = {
    "IntInput": "layer `input`: its shape; feed the counts (column, row, channel)",
    "IntHostCurrent": "layer `input`: its shape; feed what `Deployment.counts` gives",
    "IntLif": "the block's CUBA neuron, if it has one projection, one threshold, biases in 64/64",
    "IntOr": "a CUBA neuron without memory and threshold 0, if it has one projection",
    "IntConv2d": "layer `conv`",
    "IntDense": "layer `dense`, after `flatten` where its source has rows",
    "IntIdentity": "layer `conv` 1 x 1 with one group per channel; flat: `dense`, diagonal",
    "IntPool": "layer `conv` of ones with one group per channel",
}
UNSUPPORTED = {
    "IntSum": "sends graded messages; netx's CUBA neurons send spikes",
    "IntReadout": "is an accumulator; netx's CUBA neurons send spikes",
    "IntSpatialSum": "ends in flat channels; netx's Conv keeps rows and columns",
    "IntConvTranspose2d": "is a transposed convolution; netx does not build those",
    "IntSpread": "leads to a product of two populations, not a chain",
    "IntPlace": "joins two populations, not a chain",
    "IntAnd": "reads two populations, not a chain",
    "IntProduct": "sends graded messages; netx's CUBA neurons send spikes",
    "IntTimeSum": "sends graded messages; netx's CUBA neurons send spikes",
    "IntWinner": "compares neurons with each other; netx's CUBA neurons know only their own sum",
    "IntSpatialAttention": "sends graded messages; netx has no attention",
    "IntTemporalAttention": "sends graded messages; netx has no attention",
}
BIAS_SHIFT = 6  # bias_exp that netx gives every CUBA neuron


def write(
    deployment: Deployment, path: str | Path, *, branch: str | None = None, round_bias: bool = False
) -> Written:
    """Write the chain behind one input of ``deployment``.

    branch: name of the input; may be left away for a network that is one chain up to its readout.
    round_bias: round biases to what netx holds; the file says for how many neurons.
    Raises UnsupportedNode listing every node left out, where ``branch`` does not accept that;
    ConfigError for an unknown branch.
    """
    check_profile(deployment.profile)
    chosen, rounded = round_biases(deployment) if round_bias else (deployment, {})
    graph, arith = chosen.integer, chosen.profile.arithmetic
    chain, left_out = find_chain(graph, arith, branch)
    top = graph.inputs[chain[0]].max_count
    notes = {
        "input": chain[0],
        "input_message_bits": 0 if top <= 1 else top.bit_length(),
        "reset_interval": graph.steps,
        "reset_offset": 1,
        "rounded_biases": {n: c for n, c in rounded.items() if n in chain},
    }
    with written_whole(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(facts(deployment, FORMAT, VERSION) | {"values": _values(notes)})
        for key, value in (notes | {"nodes": chain, "left_out": left_out}).items():
            file.attrs[key] = value if isinstance(value, (int, str)) else json.dumps(value)
        for number, layer in enumerate(_layers(graph, chain)):
            _write_tree(file.create_group(f"layer/{number}"), layer)
    return Written("netx", Path(path), tuple(chain), left_out, deployment.content_hash, notes)


def _values(notes: Mapping[str, Any]) -> str:
    rounded = "; biases of rounded_biases rounded to 64/64" if notes["rounded_biases"] else ""
    return f"quantized integers, as deployed; nothing is dequantized{rounded}"


def round_biases(deployment: Deployment) -> tuple[Deployment, dict[str, int]]:
    """Return the deployment with every bias a multiple of one synaptic input (64/64).

    And how many neurons' biases that changed, by population. No such bias is off by more than 1/2
    of a synaptic input. The result has no content hash: it is another network.
    """
    graph, changed = deployment.integer, {}
    populations = dict(graph.populations)
    for name, pop in graph.populations.items():
        if isinstance(pop, ig.IntLif):
            bias = shift_left(pop.bias_mantissa, pop.bias_exponent)
            mantissa = np.rint(bias / (1 << BIAS_SHIFT)).astype(np.int64)
            wrong = np.broadcast_to(mantissa << BIAS_SHIFT != bias, pop.shape)
            if wrong.any():
                changed[name] = int(wrong.sum())
                populations[name] = replace(pop, bias_mantissa=mantissa, bias_exponent=BIAS_SHIFT)
    rounded = replace(graph, populations=populations)
    return replace(deployment, integer=rounded, content_hash=""), changed


# --- which nodes -----------------------------------------------------------------------------
def find_chain(
    graph: ig.IntGraph, arith: Arithmetic, branch: str | None
) -> tuple[list[str], dict[str, str]]:
    """Return the longest chain from the input ``branch`` and why all other nodes are left out.

    Raises as ``write``.
    """
    inputs = list(graph.inputs)
    if branch is not None and branch not in inputs:
        raise unknown_name("branch", branch, inputs, ConfigError)
    chains: dict[str, list[str]] = {}  # longest way from an input to a node that can be carried
    reasons: dict[str, str] = {}
    for name in graph.order:
        problem = _problem(graph, name, arith)
        source = graph.populations[name].projections[:1]
        if problem is None and source and source[0].source not in chains:
            problem = f"reads {source[0].source}, which is left out"
        if problem is None:
            chains[name] = [*(chains[source[0].source] if source else []), name]
        else:
            reasons[name] = problem
    ends = [c for c in chains.values() if branch in (None, c[0])]
    chain = max(ends, key=len)
    left_out = {
        n: reasons.get(n, f"not on the chain {chain[0]} to {chain[-1]}")
        for n in graph.order
        if n not in chain
    }
    _accept(graph, chain, left_out, branch)
    return chain, left_out


def _accept(
    graph: ig.IntGraph, chain: list[str], left_out: dict[str, str], branch: str | None
) -> None:
    """Raise UnsupportedNode for an empty chain, and for a loss nobody asked for."""
    if len(chain) == 1:
        every = "; ".join(f"{n} ({why})" for n, why in left_out.items())
        raise UnsupportedNode(f"{chain[0]}: nothing behind it fits netx: {every}")
    lost = [f"{n} ({why})" for n, why in left_out.items() if n != graph.output]
    if branch is None and lost:
        raise UnsupportedNode(
            f"netx carries one chain of synapses and spiking neurons; left out would be: "
            f"{'; '.join(lost)}; accept that for one input with --branch "
            f"{' or '.join(graph.inputs)}"
        )


def _problem(graph: ig.IntGraph, name: str, arith: Arithmetic) -> str | None:
    """Return why netx cannot hold a population exactly, None if it can."""
    pop = graph.populations[name]
    if isinstance(pop, ig.IntInput):
        return None
    for part in (pop, *pop.projections):
        kind = type(part).__name__
        if kind not in CARRIES:
            return UNSUPPORTED.get(kind, f"{kind} is unknown to the netx writer")
    if len(pop.projections) != 1:
        return f"sums {len(pop.projections)} projections; a netx block has one"
    (p,) = pop.projections
    if p.lag:
        return f"reads {p.source} {p.lag} frames late; the chain here is of the same frame"
    if isinstance(p, ig.IntIdentity) and graph.populations[p.source].shape != pop.shape:
        return f"reads {p.source} on other axes; netx keeps rows and columns"
    if isinstance(pop, ig.IntLif):
        problem = _neuron_problem(pop, arith)
        if problem:
            return problem
    block = _block(graph, name)
    if block["type"] == "dense" and not _survives(block["weight"]):
        return "its dense weights do not survive lava-dl's optimize_weight_bits"
    return None


def _neuron_problem(pop: ig.IntLif, arith: Arithmetic) -> str | None:
    if pop.reset != "zero":
        return f"resets by {pop.reset!r}; netx's neurons go to zero"
    if len(np.unique(pop.decay_u)) != 1 or len(np.unique(pop.decay_v)) != 1:
        return "its neurons differ in decay; Lava's hold one per layer"
    if len(np.unique(pop.threshold)) != 1:
        return "its neurons differ in threshold; netx holds one per layer"
    bias = shift_left(pop.bias_mantissa, pop.bias_exponent)
    unit = 1 << BIAS_SHIFT
    odd = int(np.broadcast_to(bias % unit != 0, pop.shape).sum())
    if odd:
        return (
            f"{odd} of its {pop.neurons} biases are no multiple of {unit}/64 input units; "
            "--round-bias rounds them"
        )
    largest = int(np.abs(bias).max(initial=0)) >> BIAS_SHIFT
    if largest > arith.bias_max:
        return f"its biases reach {largest} input units, netx holds {arith.bias_max}"
    return None


def _survives(weight: np.ndarray) -> bool:
    """Return whether netx and Lava's Dense keep (out, in) weights as they are.

    shifted = weight << k, as far as 8 bits go; stored = the upper bits of it; sum >> k.
    Source: lava-dl 0.6.0 ``netx.utils.optimize_weight_bits``, then ``PyDenseModelBitAcc``.
    """
    high, low = int(weight.max()), int(weight.min())
    if high == low == 0:
        return False  # netx divides by the largest weight
    mixed = not (high < 0 or low >= 0)
    if mixed:
        scale = min(127 / high if high else np.inf, -128 / low)
    else:
        scale = -256 / low if high < 0 else 255 / high
    k = floor(log2(scale)) + mixed
    spare = max(n for n in range(9) if not (weight % (1 << n)).any()) - mixed
    shifted, bits = weight << k, 8 - k - spare
    mode = sign_mode(shifted)
    if bits > 8 + (mode == "mixed"):
        return False  # inhibitory with a zero and an odd weight: Lava shifts by -1, all become 0
    return bool((truncate_weights(shifted, bits, mode) == shifted).all())


# --- what is written -------------------------------------------------------------------------
Layer = dict[str, Any]  # a layer's group: arrays, numbers, texts, and such a dict for its neuron


def _layers(graph: ig.IntGraph, chain: list[str]) -> list[Layer]:
    """Return the layers of the file, first to last, with lava-dl's own keys."""
    layers: list[Layer] = [{"type": "input", "shape": np.array(graph.populations[chain[0]].shape)}]
    for source, name in pairwise(chain):
        block, pop = _block(graph, name), graph.populations[name]
        if block["type"] == "dense" and len(graph.populations[source].shape) == 3:
            layers.append({"type": "flatten", "shape": np.array(block["weight"].shape[1:])})
        layers.append(block | {"shape": np.array(pop.shape)} | _neuron(pop))
    return layers


def _block(graph: ig.IntGraph, name: str) -> Layer:
    """Return type, weight and geometry of the synapses onto a population."""
    p = graph.populations[name].projections[0]
    source = graph.populations[p.source].shape
    if isinstance(p, ig.IntConv2d):
        return _conv(p.weight, p.stride, p.padding, p.dilation, p.groups)
    if isinstance(p, ig.IntPool):
        ones = np.ones((source[0], 1, *p.kernel), np.int64)
        return _conv(ones, p.stride, p.padding, (1, 1), source[0])
    if isinstance(p, ig.IntIdentity) and len(source) == 3:
        each = np.full((source[0], 1, 1, 1), p.weight)
        return _conv(each, (1, 1), (0, 0), (1, 1), source[0])
    if isinstance(p, ig.IntIdentity):
        weight = p.weight * np.eye(source[0], dtype=np.int64)
    else:
        assert isinstance(p, ig.IntDense)
        weight = p.weight
    outputs, inputs = weight.shape
    return {"type": "dense", "inFeatures": inputs, "outFeatures": outputs, "weight": weight}


def _conv(weight: np.ndarray, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Layer:
    return {
        "type": "conv",
        "inChannels": weight.shape[1] * groups,
        "outChannels": weight.shape[0],
        "kernelSize": np.array(weight.shape[2:]),
        "stride": np.array(stride),
        "padding": np.array(padding),
        "dilation": np.array(dilation),
        "groups": groups,
        "weight": weight,
    }


def _neuron(pop: ig.Population) -> Layer:
    """Return the neuron's group, and its bias where it has one."""
    cuba: Layer = {"type": "CUBA", "refDelay": 1, "gradedSpike": 0}
    if not isinstance(pop, ig.IntLif):  # IntOr: v = 64 a forgets all, so s = v > 0 is a > 0
        return {"neuron": cuba | {"iDecay": 4096, "vDecay": 4096, "vThMant": 0}}
    threshold = int(pop.threshold.flat[0])
    decay_u, decay_v = (int(np.unique(d)[0]) for d in (pop.decay_u, pop.decay_v))
    decays = {"iDecay": decay_u + 1, "vDecay": decay_v, "vThMant": threshold}
    bias = shift_left(pop.bias_mantissa, pop.bias_exponent) >> BIAS_SHIFT
    full = np.broadcast_to(bias, pop.shape)
    layer: Layer = {"neuron": cuba | decays}
    if not full.any():
        return layer
    by_channel = full.reshape(len(full), -1)
    if (by_channel == by_channel[:, :1]).all():
        return layer | {"bias": by_channel[:, 0]}
    return layer | {"bias": full.transpose()}  # (column, row, channel), as netx holds neurons


def _write_tree(group: h5py.Group, tree: Layer) -> None:
    for key, value in tree.items():
        if isinstance(value, dict):
            _write_tree(group.create_group(key), value)
        elif isinstance(value, str):
            group[key] = np.array([value.encode("ascii")])
        else:
            group[key] = value
