"""Give neurons a slightly coarser unit where that proves that their registers cannot overflow.

What: quantizes the graph; where the worst case of some neurons or of the class scores
(``neuroav.bounds``) passes a register by at most a quarter, raises ``least_unit`` of the layers
they read until it does not. A quarter is a third of a bit of the weights; a register that is still
open is left to the check at run time, as it was.
Assumes: stage 'lowered', after ``limit_range``. Guarantees: nothing but these units changes; a
layer whose unit training fixed keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np

from neuroav import nodes as rn
from neuroav.bounds import Bound, bounds
from neuroav.fixed import Arithmetic
from neuroav.graph import SpikingGraph
from neuroav_export.passes.limit_range import channels, synaptic_layers
from neuroav_export.passes.quantize import Quantized
from neuroav_export.passes.values import SYNAPSES

MOST = 1.25
MARGIN = 1.005  # rounded weights may add up to a little more than the real ones
ROUNDS = 4


def prove_range(
    graph: SpikingGraph,
    fixed: Collection[str],
    arith: Arithmetic,
    quantize: Callable[[SpikingGraph], Quantized],
) -> tuple[SpikingGraph, Quantized]:
    """Return the graph with units set, and what it is quantized to.

    fixed: layers that keep their unit. quantize: the pass that follows, with its options.
    """
    found = quantize(graph)
    raised: dict[str, float] = {}
    for _ in range(ROUNDS):
        wanted = _wanted(found, graph, fixed, arith)
        wanted = {n: f for n, f in wanted.items() if f * raised.get(n, 1.0) <= MOST}
        if not wanted:
            break
        changed: dict[str, rn.Node] = {}
        for name, factor in wanted.items():
            raised[name] = factor * raised.get(name, 1.0)
            changed |= _coarser(graph, name, factor * found.units[name])
        graph = graph.with_nodes(nodes=changed)
        found = quantize(graph)
    return graph, found


def _wanted(
    found: Quantized, graph: SpikingGraph, fixed: Collection[str], arith: Arithmetic
) -> dict[str, float]:
    """Return by neurons how much coarser their unit must be, where all their layers are free."""
    wanted = {}
    for name, parts in bounds(found.integer, arith).items():
        if name not in found.units:
            continue
        layers = _layers(graph, name)
        if layers and not set(layers) & set(fixed) and not all(b.proven for b in parts):
            wanted[name] = MARGIN * max(_excess(b) for b in parts)
    return wanted


def _layers(graph: SpikingGraph, name: str) -> list[str]:
    """Return the layers whose weights are synapses onto a population."""
    if isinstance(graph.nodes[name], rn.Readout):
        return [name]
    return synaptic_layers(graph, graph.inputs[name][0])


def _excess(bound: Bound) -> float:
    return max(-bound.low, bound.high) / bound.limit


def _coarser(graph: SpikingGraph, name: str, unit: np.ndarray) -> dict[str, rn.Node]:
    """Return the layers that neurons read with a least unit of at least ``unit``."""
    changed: dict[str, rn.Node] = {}
    for layer in _layers(graph, name):
        node = graph.nodes[layer]
        assert isinstance(node, (*SYNAPSES, rn.Readout))
        least = np.broadcast_to(unit, channels(node))
        if node.least_unit is not None:
            least = np.maximum(least, node.least_unit)
        changed[layer] = replace(node, least_unit=np.array(least))
    return changed
