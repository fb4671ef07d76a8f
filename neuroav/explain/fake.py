"""The fake-quantized network: the deployed integers as parameters, real numbers as state.

Every weight, bias, threshold and decay is the integer that is deployed, times its unit; nothing
else is rounded. A neuron is linear in the unit of its input, so the unit is left out: all numbers
count units of the registers, and the spikes are those of the network with the units put in.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neuroav import nodes as rn
from neuroav.deployment import Deployment
from neuroav.explain.recompute import Drive, lif, real_outputs
from neuroav.explain.twin import Twin
from neuroav.host import HostLayer
from neuroav.integer import IntGraph

Messages = Mapping[str, np.ndarray]


def fake_outputs(
    deployment: Deployment, twin: Twin, fed: Messages, folded: Messages
) -> dict[str, np.ndarray]:
    """Return what every population sends, run on its own, float64 (samples, steps, *shape).

    In integers' units, as fractions where a message would be rounded. fed: what was fed, by the
    names of ``Deployment.fed``. folded: outputs of the twin's nodes, run on their own.
    """
    graph, arith = deployment.integer, deployment.profile.arithmetic
    counts = deployment.counts(fed)
    found = {n: v.astype(np.float64) for n, v in counts.items() if n not in deployment.host}
    for group in graph.groups:
        if graph.loops(group):
            _settle(graph, group, found, len(next(iter(fed.values()))), arith)
            continue
        (name,) = group
        if layer := deployment.host.get(name):
            found[name] = host_outputs(deployment, name, layer, twin, folded)
        elif name not in found:
            found[name] = real_outputs(graph, name, graph.populations[name], found, arith)
    return found


def _settle(graph: IntGraph, group, found: dict[str, np.ndarray], samples: int, arith) -> None:
    """Add what the populations of a loop send: every round settles a frame more."""
    for name in group:
        found[name] = np.zeros((samples, graph.steps, *graph.populations[name].shape))
    for _ in range(graph.steps + 1):
        before = {name: found[name] for name in group}
        for name in group:
            found[name] = real_outputs(graph, name, graph.populations[name], found, arith)
        if all(np.array_equal(before[name], found[name]) for name in group):
            return


def host_outputs(
    deployment: Deployment, name: str, layer: HostLayer, twin: Twin, folded: Messages
) -> np.ndarray:
    """Return what a host layer sends where its currents are not rounded to whole numbers."""
    if layer.sends == "current":
        return twin.cut(name, folded[name].astype(np.float64)) / layer.unit
    real, arith = deployment.real, deployment.profile.arithmetic
    pooled = not isinstance(real.nodes[name], rn.Lif)
    neurons = real.inputs[name][0] if pooled else name
    one, shift = 1 << arith.decay_bits, 1 << arith.input_shift
    drive = Drive(
        current=np.clip(twin.input(neurons) / layer.unit, 0, layer.top) * shift,
        bias=np.zeros(1),
        level=np.full(1, float(layer.threshold * shift)),
        keep=(one - layer.decay_v) / one,
        whole=False,
    )
    spikes = lif(drive)[0].astype(np.float64)
    return twin.apply(name, [spikes]) if pooled else spikes
