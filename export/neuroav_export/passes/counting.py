"""Attention quantized: nodes that count coincidences of spikes.

Handlers of ``quantize``. They have no weights to round: every synapse is 1, every scale exact.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Literal

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.graph import SpikingGraph
from neuroav.quantization import exact_fraction

if TYPE_CHECKING:
    from neuroav_export.passes.quantize import Quantizer
    from neuroav_export.passes.values import Value


def mask(q: Quantizer, name: str, node: rn.Mask, x: list) -> Value:
    """Put neurons that spike where a mask and a value do; the mask is copied to its channels."""
    gate, value = (q.message(name, v) for v in x)
    heads, shape = q.graph.shapes[q.graph.inputs[name][0]][0], q.graph.shapes[name]
    ones = np.ones((shape[0], 1, 1, 1), np.int64)
    copies = ig.IntConv2d(
        gate.name, 0, ones, (1, 1), (0, 0), (1, 1), heads, q.arith.weight_bits, "excitatory"
    )
    both = (gate.late(copies), value.late(ig.IntIdentity(value.name, 0, 1)))
    return q.put(name, ig.IntAnd(shape, both), Fraction(1))


def attention(
    q: Quantizer, name: str, node: rn.SpatialAttention | rn.TemporalAttention, x: list
) -> Value:
    """Put the counts of q (k^T v), in the form that keeps its state in fewer neurons."""
    shape, steps = q.graph.shapes[name], q.graph.steps
    values = [q.message(name, v) for v in x]
    projections = tuple(
        v.late(ig.IntIdentity(v.name, 0, 1, port=port)) for port, v in enumerate(values)
    )
    temporal = isinstance(node, rn.TemporalAttention)
    places, part = (steps if temporal else int(np.prod(shape[1:]))), shape[0] // node.heads
    common = (shape, projections, node.heads, _saturation(q.graph, name, node.scale))
    form: Literal["key-value", "score"] = "key-value" if part <= places else "score"
    population: ig.Population
    if isinstance(node, rn.TemporalAttention):
        population = ig.IntTemporalAttention(*common, form, node.scrambled)
    else:
        population = ig.IntSpatialAttention(*common, form)
    return q.put(name, population, exact_fraction(node.scale))


def _saturation(graph: SpikingGraph, name: str, scale: float) -> int:
    """Return the count at which the only reader spikes from any state, 0 if there is none such.

    The reader integrates counts alone, so its state is never negative: a count that reaches its
    threshold by itself fires, and the reset forgets what was above.
    """
    readers = graph.consumers(name)
    lif = graph.nodes[readers[0]] if len(readers) == 1 else None
    if not isinstance(lif, rn.Lif) or lif.tau_syn_s is not None or lif.reset != "value":
        return 0
    if any(np.ndim(v) for v in (lif.tau_mem_s, lif.v_threshold)) or np.any(lif.v_leak):
        return 0
    if np.any(lif.v_reset):
        return 0
    level = lif.v_threshold * lif.tau_mem_s / (graph.dt_s * scale)
    return int(np.floor(level)) + 1  # spikes where v' > level
