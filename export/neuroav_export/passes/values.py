"""What a real node has become while its graph is quantized: messages, or currents of synapses.

Messages are *exact* (spikes, counts, sums and products of counts) or *wide*: sums over a sample
that add currents or weigh their steps, and what is made of those before the next neuron. An exact
message has the unit of what it counts. A wide one has the unit of some weights, which is arbitrary,
and as many bits as it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.graph import SpikingGraph
from neuroav.quantization import even

SYNAPSES = (rn.Conv2d, rn.ConvTranspose2d, rn.Dense)
_SAME_KIND = (
    rn.TimeSum,
    rn.Product,
    rn.Add,
    rn.Scale,
    rn.Flatten,
    rn.Reshape,
    rn.Permute,
    rn.Delay,
    rn.Concat,
    rn.SpatialSum,
    rn.SumPool2d,
)


@dataclass(frozen=True)
class Value:
    """A message: population ``name`` sends integers m that stand for ``scale`` * m + ``offset``.

    offset: half of what a shift drops, as it rounds down; layers of synapses take it into the
    biases of what they feed. lag: frames by which a delay makes its readers see it late.
    """

    name: str
    scale: Fraction
    offset: Fraction = Fraction(0)
    lag: int = 0

    def late(self, projection: ig.Projection) -> ig.Projection:
        """Return a projection from this population that brings the value as late as it is."""
        return replace(projection, lag=self.lag) if self.lag else projection


@dataclass(frozen=True, eq=False)
class Term:
    """A real-valued bundle of synapses: weight per message of ``source``.

    make: integer weight, weight bits, sign mode -> projection (delay filled in later).
    least: smallest synaptic unit allowed, (channels,), None for any. lag: frames that the message
    comes late. layer: node whose weights they are, '' for the synapse of a bare message.
    """

    source: str
    weight: np.ndarray
    make: Callable[[np.ndarray, int, str], ig.Projection]
    least: np.ndarray | None = None
    lag: int = 0
    layer: str = ""


@dataclass(frozen=True, eq=False)
class Current:
    """A sum of synaptic inputs that has not met a neuron yet; bias (channels,) or 0.

    offset: what the offsets of its messages add to the bias, (channels,) or 0.
    """

    terms: tuple[Term, ...]
    bias: np.ndarray
    offset: np.ndarray = field(default_factory=lambda: np.zeros(1))


def wide_values(graph: SpikingGraph) -> frozenset[str]:
    """Return the names of the nodes of a lowered graph whose messages are wide."""
    currents: set[str] = set()
    wide: set[str] = set()
    for name in graph.order:
        node, sources = graph.nodes[name], set(graph.inputs[name])
        added = isinstance(node, (rn.Add, rn.Scale)) and sources & currents
        added = added or (isinstance(node, rn.Delay) and sources & currents)
        if added or isinstance(node, SYNAPSES):
            currents.add(name)
        elif isinstance(node, _SAME_KIND):
            begins = isinstance(node, rn.TimeSum) and not even(node.weights)
            if begins or sources & (wide | currents):
                wide.add(name)
    return frozenset(wide)
