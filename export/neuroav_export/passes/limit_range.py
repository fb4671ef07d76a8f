"""Give layers with wide messages units coarse enough for the registers.

What: runs the lowered graph on the whole sample and sets, with a margin of two,
- ``least_unit`` of every convolution and dense layer that neurons read: the smallest real input per
  integer weight at which the largest membrane value seen still fits. Products of counts are the
  layers it matters for: their messages reach steps x places;
- the same of several such layers whose sum neurons read, where one reads wide messages
  (``passes.values``), and of the readout's accumulator;
- ``peak`` of sums over a sample and products that are wide, from which their shift follows.
Assumes: stage 'lowered'. Guarantees: nothing but these changes; a layer that has a least unit keeps
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
from neuroav.quantization import accumulator_unit, least_unit
from neuroav.sim.real import evaluate, forward
from neuroav_export.passes.values import wide_values

_VALUES = 64_000_000  # values of all nodes that are held at a time, float64


def limit_range(
    graph: SpikingGraph, sample: Mapping[str, torch.Tensor], arith: Arithmetic
) -> SpikingGraph:
    """Return the graph with units and peaks set; sample: event counts (T, B, *shape) by input."""
    wide = wide_values(graph)
    neurons = _neurons(graph, wide)
    others = [name for name in graph.order if _is_measured(graph, name, wide)]
    peaks = _peaks(graph, sample, [*neurons, *others])
    changed: dict[str, rn.Node] = {}
    for name, (layers, fraction) in neurons.items():
        for layer in layers:
            node = graph.nodes[layer]
            assert isinstance(node, (rn.Conv2d, rn.Dense))
            changed[layer] = replace(node, least_unit=least_unit(peaks[name], fraction, arith))
    for name in others:
        node = graph.nodes[name]
        if isinstance(node, (rn.TimeSum, rn.Product)):
            changed[name] = replace(node, peak=float(peaks[name].max(initial=0.0)))
        elif isinstance(node, rn.Readout):
            changed[name] = replace(node, least_unit=accumulator_unit(peaks[name], arith))
    return graph.with_nodes(nodes=changed)


def _is_measured(graph: SpikingGraph, name: str, wide: frozenset[str]) -> bool:
    node = graph.nodes[name]
    if isinstance(node, rn.Readout):
        return node.least_unit is None
    return isinstance(node, (rn.TimeSum, rn.Product)) and name in wide


def _peaks(
    graph: SpikingGraph, sample: Mapping[str, torch.Tensor], watched: list[str]
) -> dict[str, np.ndarray]:
    """Return the largest |value| of every watched node, (channels,); of accumulators, a readout's,
    the largest they reach on the way."""
    peaks: dict[str, np.ndarray] = {}
    total = next(iter(sample.values())).shape[1]
    size = graph.steps * sum(int(np.prod(shape)) for shape in graph.shapes.values())
    chunk = max(1, _VALUES // size)
    for first in range(0, total, chunk):
        with torch.no_grad():
            values = forward(graph, {n: v[:, first : first + chunk] for n, v in sample.items()})
            for name in watched:
                node, value = graph.nodes[name], values[name]
                if isinstance(node, rn.Readout):
                    sources = [values[s] for s in graph.inputs[name]]
                    value = evaluate(rn.Dense(node.weight, node.bias), sources, graph.dt_s)
                    value = value.cumsum(0)
                peak = value.abs().transpose(0, 2).flatten(1).amax(1).numpy()  # by channel
                peaks[name] = np.maximum(peaks.get(name, 0.0), peak)
    return peaks


def _neurons(graph: SpikingGraph, wide: frozenset[str]) -> dict[str, tuple[tuple[str, ...], float]]:
    """Return by what neurons read: the layers without a least unit in it, and dt / tau_mem.

    A sum of layers only where one of them reads wide messages.
    """
    found = {}
    for name in graph.order:
        lif = graph.nodes[name]
        if not isinstance(lif, rn.Lif):
            continue
        (read,) = graph.inputs[name]
        layers = synaptic_layers(graph, read)
        apart = layers == [read] or any(wide & set(graph.inputs[n]) for n in layers)
        free = tuple(n for n in layers if graph.nodes[n].least_unit is None)  # type: ignore[union-attr]
        if apart and free:
            found[read] = free, graph.dt_s / lif.tau_mem_s
    return found


def synaptic_layers(graph: SpikingGraph, name: str) -> list[str]:
    """Return the convolutions and dense layers whose currents are added in ``name``."""
    node = graph.nodes[name]
    if isinstance(node, (rn.Conv2d, rn.Dense)):
        return [name]
    if not isinstance(node, (rn.Add, rn.Scale)):
        return []
    return [layer for source in graph.inputs[name] for layer in synaptic_layers(graph, source)]
