"""Give layers with wide messages a synaptic unit coarse enough for the registers.

What: runs the lowered graph on the sample and sets ``least_unit`` of every convolution and dense
layer, the smallest real input per integer weight at which twice the largest membrane value seen
still fits. Products of counts are the layers it matters for: their messages reach steps x places.
Assumes: stage 'lowered'. Guarantees: nothing but ``least_unit`` changes; a layer that has one keeps
it (quantization-aware training fixed it). Unseen input that passes the margin is still an error at
run time, in every executor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from neuroav import nodes as rn
from neuroav.fixed import Arithmetic
from neuroav.graph import SpikingGraph
from neuroav.quantization import least_unit
from neuroav.sim.real import forward


def limit_range(
    graph: SpikingGraph, sample: Mapping[str, torch.Tensor], arith: Arithmetic
) -> SpikingGraph:
    """Return the graph with ``least_unit`` set; sample: event counts (T, B, *shape) by input."""
    with torch.no_grad():
        values = forward(graph, sample)
    changed: dict[str, rn.Node] = {}
    for name in graph.order:
        lif, layer = graph.nodes[name], graph.nodes.get((*graph.inputs[name], "")[0])
        if not isinstance(lif, rn.Lif) or not isinstance(layer, (rn.Conv2d, rn.Dense)):
            continue
        source = graph.inputs[name][0]
        if layer.least_unit is None:
            value = values[source]
            peak = value.abs().transpose(0, 2).flatten(1).amax(1).numpy()  # by channel
            fraction = graph.dt_s / lif.tau_mem_s
            changed[source] = replace(layer, least_unit=least_unit(peak, fraction, arith))
    return graph.with_nodes(nodes=changed)
