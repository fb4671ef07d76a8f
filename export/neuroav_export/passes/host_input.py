"""Inputs of real values: their first layer stays on the host (``neuroav.host``).

What: a static input, read by one convolution or dense layer that only neurons read, becomes a
population of currents, or of spikes, and a ``HostLayer``. Used by ``quantize``, which meets them in
order: input -> ``StaticInput``, layer -> ``HostCurrent``, neurons -> a population.

The unit is a part of the neuron's threshold: threshold / (bias_max - 1), so a current of one unit
is as fine as the bias register holds, whatever the weights are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.errors import UnsupportedNode
from neuroav.host import HostLayer
from neuroav.quantization import integer_decay, integer_threshold, neuron_threshold
from neuroav_export.passes.values import Current, Value

if TYPE_CHECKING:
    from neuroav_export.passes.quantize import Quantizer


@dataclass(frozen=True)
class StaticInput:
    """An input of real values that no layer has read yet."""

    name: str


@dataclass(frozen=True, eq=False)
class HostCurrent:
    """Synaptic input that the host computes: layer ``name`` of input ``source``."""

    name: str
    layer: rn.Conv2d | rn.Dense
    source: str


AnyValue = Value | Current | StaticInput | HostCurrent  # what a node has become


def refusal(name: str, source: str) -> UnsupportedNode:
    """Return the error of a node that reads a static input, or its layer, and cannot."""
    return UnsupportedNode(
        f"{name}: reads {source}, real values that the host computes; a static input goes to "
        "convolutions or linear layers, each read by one layer of neurons and nothing else",
        rule="static-input",
    )


def host_neurons(q: Quantizer, name: str, node: rn.Lif | rn.If, current: HostCurrent) -> Value:
    """Put the neurons that read a host layer, or their spikes if the host runs them too."""
    if q.graph.consumers(current.name) != (name,):
        raise refusal(name, current.name)
    one = not any(isinstance(v, np.ndarray) for v in vars(node).values())
    plain = isinstance(node, rn.Lif) and node.tau_syn_s is None and node.reset == "value"
    if not isinstance(node, rn.Lif) or not plain or not one:
        raise UnsupportedNode(
            f"{name}: reads a layer that the host computes; such neurons are LIF without synaptic "
            "current, with one time constant and threshold, reset to rest",
            rule="static-input",
        )
    d = q.graph.dt_s / float(node.tau_mem_s)
    real_threshold = float(neuron_threshold(node, q.graph.dt_s))
    unit = real_threshold / (q.arith.bias_max - 1)
    threshold = int(integer_threshold(real_threshold, np.array([unit]), q.arith, node.inclusive)[0])
    shape, decay = q.graph.shapes[name], integer_decay(d, q.arith)
    layer = current.layer
    conv = layer if isinstance(layer, rn.Conv2d) else rn.Conv2d(layer.weight[:, :, None, None])
    host = HostLayer(
        source=current.source,
        source_shape=q.graph.shapes[current.source],
        layer=current.name,
        weight=layer.weight,
        bias=np.zeros(len(layer.weight)) if layer.bias is None else layer.bias,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        shape=shape,
        unit=unit,
        top=threshold + 1,
        sends=q.sends,
        decay_v=decay,
        threshold=threshold,
    )
    if q.sends == "spikes":
        q.hosts[name] = host
        return q.put(name, ig.IntInput(shape, (), 1), Fraction(1))
    q.hosts[current.name] = host
    q.put(current.name, ig.IntHostCurrent(shape, (), host.top), Fraction(unit))
    neurons = ig.IntLif(
        shape,
        (ig.IntIdentity(current.name, 0, 1),),
        np.zeros(1, np.int64).reshape(-1, *[1] * (len(shape) - 1)),
        0,
        np.full([1] * len(shape), threshold, np.int64),
        (1 << q.arith.decay_bits) - 1,
        decay,
    )
    return q.put(name, neurons, Fraction(1))


def host_pool(q: Quantizer, name: str, node: rn.OrPool2d, value: Value) -> Value | None:
    """Put a pooling behind neurons that run on the host there too; None where it is the chip's."""
    host = q.hosts.get(value.name)
    if host is None or host.sends != "spikes" or q.graph.consumers(value.name) != (name,):
        return None
    del q.hosts[value.name], q.populations[value.name], q.scales[value.name]
    q.hosts[name] = replace(
        host, pool_kernel=node.kernel, pool_stride=node.stride, pool_padding=node.padding
    )
    return q.put(name, ig.IntInput(q.graph.shapes[name], (), 1), value.scale)
