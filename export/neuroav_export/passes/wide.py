"""Sums over a sample and products quantized.

What: TimeSum -> accumulators, fed by synapses or by messages; Product -> neurons that multiply.
Counts stay exact: every synapse is 1, no bit is dropped. Wide values (``passes.values``) get the
synaptic unit that ``choose_unit`` gives their weights, coarser where the accumulator of 24 bits
needs it, step weights of ``STEP_WEIGHT_BITS``, and a shift: twice the largest message seen on the
sample fits ``OPERAND_BITS`` where only products read it, ``MESSAGE_BITS`` elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.errors import UnsupportedNode
from neuroav.graph import SpikingGraph
from neuroav.quantization import (
    MESSAGE_BITS,
    OPERAND_BITS,
    accumulator_unit,
    exact_fraction,
    integer_step_weights,
    message_shift,
)
from neuroav_export.passes.values import Current, Value

if TYPE_CHECKING:
    from neuroav_export.passes.quantize import Quantizer


def time_sum(q: Quantizer, name: str, node: rn.TimeSum, x: list) -> Value:
    """Put accumulators over the sample."""
    weights, step = integer_step_weights(node.weights)
    projections: tuple[ig.Projection, ...]
    if isinstance(x[0], Current):
        projections, unit = _synapses(q, name, node, x[0], step)
    else:
        value = q.message(name, x[0])
        projections, unit = (value.late(ig.IntIdentity(value.name, 0, 1)),), value.scale
    shift = _shift(q, name, node, unit * step)
    population = ig.IntTimeSum(q.graph.shapes[name], projections, weights, shift)
    return _put(q, name, population, unit * step)


def _synapses(
    q: Quantizer, name: str, node: rn.TimeSum, current: Current, step: Fraction
) -> tuple[tuple[ig.Projection, ...], Fraction]:
    """Return synapses onto accumulators and their unit; step: what a step weight of 1 is worth."""
    if current.bias.any():
        raise UnsupportedNode(
            f"{name}: sums currents with a bias over the sample, its accumulators have none; use "
            "Linear(..., bias=False) and no batch norm before it",
            rule="time-sum-bias",
        )
    # a message has one scale for all channels
    options = replace(q.options, per_channel=False)
    least = accumulator_unit(np.array([(node.peak or 0.0) / float(step)]), q.arith)
    unit, projections = q.synapses(name, current, options, least=least)
    return projections, exact_fraction(float(unit[0]))


def product(q: Quantizer, name: str, node: rn.Product, x: list) -> Value:
    """Put neurons that multiply two values of one shape, or one per channel by one per place."""
    first, second = (q.message(name, v) for v in x)
    shape = q.graph.shapes[name]
    relay: ig.Projection = ig.IntIdentity(first.name, 0, 1, port=0)
    if q.graph.shapes[q.graph.inputs[name][0]] != shape:
        relay = ig.IntSpread(first.name, 0, (shape[1], shape[2]), port=0)
    unit = first.scale * second.scale
    shift = _shift(q, name, node, unit)
    other = second.late(ig.IntIdentity(second.name, 0, 1, port=1))
    return _put(q, name, ig.IntProduct(shape, (first.late(relay), other), shift), unit)


def _put(q: Quantizer, name: str, pop: ig.IntTimeSum | ig.IntProduct, unit: Fraction) -> Value:
    """Put a population whose register counts in ``unit`` before the shift."""
    value = q.put(name, pop, unit * (1 << pop.shift))
    return replace(value, offset=unit * ((1 << pop.shift) - 1) / 2)


def _shift(q: Quantizer, name: str, node: rn.TimeSum | rn.Product, unit: Fraction) -> int:
    """Return how many bits the messages drop; unit: what 1 is worth before."""
    if name not in q.wide:
        return 0
    products = all(isinstance(q.graph.nodes[r], rn.Product) for r in readers(q.graph, name))
    return message_shift(node.peak, unit, OPERAND_BITS if products else MESSAGE_BITS)


def readers(graph: SpikingGraph, name: str) -> list[str]:
    """Return who reads a node's messages, behind what only scales or reshapes them."""
    found = []
    for reader in graph.consumers(name):
        if isinstance(graph.nodes[reader], (rn.Scale, rn.Flatten, rn.Reshape, rn.Delay)):
            found += readers(graph, reader)
        else:
            found.append(reader)
    return found
