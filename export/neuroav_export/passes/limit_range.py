"""Give layers with wide messages a synaptic unit coarse enough for the registers.

What: runs the lowered graph on the whole sample and sets ``least_unit`` of every convolution and
dense layer, the smallest real input per integer weight at which twice the largest membrane value
seen still fits. Products of counts are the layers it matters for: their messages reach steps x
places.
Assumes: stage 'lowered'. Guarantees: nothing but ``least_unit`` changes; a layer that has one keeps
it (quantization-aware training fixed it). Unseen input that passes the margin is still an error at
run time, in every executor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from neuroav import nodes as rn
from neuroav.fixed import Arithmetic
from neuroav.graph import SpikingGraph
from neuroav.quantization import least_unit
from neuroav.sim.real import forward

_VALUES = 64_000_000  # values of all nodes that are held at a time, float64


def limit_range(
    graph: SpikingGraph, sample: Mapping[str, torch.Tensor], arith: Arithmetic
) -> SpikingGraph:
    """Return the graph with ``least_unit`` set; sample: event counts (T, B, *shape) by input."""
    layers = _layers(graph)
    peaks: dict[str, np.ndarray] = {}
    total = next(iter(sample.values())).shape[1]
    size = graph.steps * sum(int(np.prod(shape)) for shape in graph.shapes.values())
    chunk = max(1, _VALUES // size)
    for first in range(0, total, chunk):
        with torch.no_grad():
            values = forward(graph, {n: v[:, first : first + chunk] for n, v in sample.items()})
        for name in layers:
            peak = values[name].abs().transpose(0, 2).flatten(1).amax(1).numpy()  # by channel
            peaks[name] = np.maximum(peaks.get(name, 0.0), peak)
    changed: dict[str, rn.Node] = {
        name: replace(layer, least_unit=least_unit(peaks[name], fraction, arith))
        for name, (layer, fraction) in layers.items()
    }
    return graph.with_nodes(nodes=changed)


def _layers(graph: SpikingGraph) -> dict[str, tuple[rn.Conv2d | rn.Dense, float]]:
    """Return the layers that neurons read and that have no least unit, with dt / tau_mem."""
    found = {}
    for name in graph.order:
        lif, layer = graph.nodes[name], graph.nodes.get((*graph.inputs[name], "")[0])
        if not isinstance(lif, rn.Lif) or not isinstance(layer, (rn.Conv2d, rn.Dense)):
            continue
        if layer.least_unit is None:
            found[graph.inputs[name][0]] = layer, graph.dt_s / lif.tau_mem_s
    return found
