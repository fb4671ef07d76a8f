"""Real-valued lowered graph -> integer graph, after training, per layer (tensor) scales.

What: every node that sends spikes or graded messages becomes a population; convolutions and dense
layers become projections onto the neurons they feed. Real values are integer * scale, the scale an
exact fraction carried along (spikes 1, a mean over 16 tokens 1/16, a gain folded in).

With d = dt / tau_mem, V = (v - v_leak) / d follows V' = (1 - d) V + x, fires above
(v_threshold - v_leak) / d. One synaptic unit s (real input per integer weight) per population:

    weight    = round(w / s), on the grid the synapse memory holds   (s from the largest |w|)
    bias      = round(64 b / s) = mantissa << exponent
    threshold = round((v_threshold - v_leak) / (d s))
    decay_v   = round(4096 d)

Assumes: stage 'lowered', neurons reset to v_leak. Guarantees: ``stages.verify_integer`` holds;
everything clipped is counted in ``saturations``.
Source: the neuron is lava-nc 0.10.0 ``PyLifModelBitAcc``; the weight grid ``PyDenseModelBitAcc``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.errors import UnsupportedNode
from neuroav.fixed import Arithmetic
from neuroav.graph import SpikingGraph
from neuroav.host import HostLayer, Sends
from neuroav.quantization import (
    Options,
    choose_unit,
    integer_weights,
)
from neuroav_export.passes import neurons, relays, synaptic
from neuroav_export.passes.counting import attention, mask
from neuroav_export.passes.host_input import (
    AnyValue,
    HostCurrent,
    StaticInput,
    refusal,
)
from neuroav_export.passes.values import Current, Term, Value, wide_values
from neuroav_export.passes.wide import product, time_sum


class Quantized(NamedTuple):
    """saturations: values clipped to fit, by population; hosts: layers of the host, by input;
    units: what an integer weight of 1 is worth, by population, (1,) or (channels,)."""

    integer: ig.IntGraph
    saturations: dict[str, int]
    hosts: dict[str, HostLayer]
    units: dict[str, np.ndarray]


def quantize(
    graph: SpikingGraph, arith: Arithmetic, options: Options, sends: Sends = "current"
) -> Quantized:
    """Return the integer graph and what else came of it. sends: what layers of the host send."""
    work = Quantizer(graph, arith, options.check(arith), sends)
    options.check_layers([n for n in graph.order if hasattr(graph.nodes[n], "weight")])
    for name in graph.order:
        work.visit(name)
    scales = {n: (s.numerator, s.denominator) for n, s in work.scales.items()}
    draft = ig.IntGraph(work.populations, graph.output, graph.steps, graph.dt_s, scales)
    return Quantized(align(draft), work.saturations, work.hosts, work.units)


def align(graph: ig.IntGraph) -> ig.IntGraph:
    """Return the graph with every projection's delay set so that all branches stay in step."""
    aligned = {
        name: replace(
            pop,
            projections=tuple(
                replace(p, delay=graph.aligned_delay(name, p.source, p.lag))
                for p in pop.projections
            ),
        )
        for name, pop in graph.populations.items()
    }
    return replace(graph, populations=aligned)


class Quantizer:
    """Walks the lowered graph in order; ``values`` holds what each real node has become.

    ``populations``, ``scales``, ``saturations`` and ``units`` are by name. ``visit`` takes one
    node, after its sources; it raises UnsupportedNode where the chip has nothing for it.
    """

    def __init__(
        self, graph: SpikingGraph, arith: Arithmetic, options: Options, sends: Sends = "current"
    ) -> None:
        self.graph, self.arith, self.options, self.sends = graph, arith, options, sends
        self.wide = wide_values(graph)
        self.values: dict[str, AnyValue] = {}
        self.hosts: dict[str, HostLayer] = {}
        self.populations: dict[str, ig.Population] = {}
        self.scales: dict[str, Fraction] = {}
        self.saturations: dict[str, int] = {}
        self.units: dict[str, np.ndarray] = {}

    def visit(self, name: str) -> None:
        node = self.graph.nodes[name]
        handler = _HANDLERS.get(type(node))
        if handler is None:
            raise UnsupportedNode(f"{name}: {type(node).__name__} cannot be quantized")
        sources = [self.values.get(s) or self._ahead(name, s) for s in self.graph.inputs[name]]
        self.values[name] = handler(self, name, node, sources)

    def options_of(self, name: str) -> Options:
        """Return how to choose the integers of a population's synapses."""
        return self.options

    def _ahead(self, name: str, source: str) -> Value:
        """Return what a delay in a loop reads, of neurons that come later in the order."""
        while isinstance(self.graph.nodes[source], rn.Flatten):
            (source,) = self.graph.inputs[source]
        if not isinstance(self.graph.nodes[source], (rn.Lif, rn.If)):
            raise UnsupportedNode(
                f"{name}: feeds back {source} ({type(self.graph.nodes[source]).__name__}); a loop "
                "is closed by a delay right after neurons, move it there",
                rule="loop",
            )
        return Value(source, Fraction(1))

    def put(self, name: str, population: ig.Population, scale: Fraction) -> Value:
        self.populations[name], self.scales[name] = population, scale
        return Value(name, scale)

    def message(self, name: str, value: AnyValue) -> Value:
        if isinstance(value, (StaticInput, HostCurrent)):
            raise refusal(name, value.name)
        if isinstance(value, Current):
            raise UnsupportedNode(
                f"{name}: reads synaptic currents, it needs spikes or graded "
                "messages; put neurons (Lif) before it",
                rule="current",
            )
        return value

    def current(self, name: str, given: AnyValue) -> Current:
        """Return a value as input of neurons ``name``: messages get one synapse per neuron."""
        if isinstance(given, Current):
            return given
        value = self.message(name, given)

        def make(weight: np.ndarray, bits: int, mode: str) -> ig.Projection:
            return ig.IntIdentity(value.name, 0, int(weight.reshape(-1)[0]))

        term = Term(value.name, np.array([float(value.scale)]), make, lag=value.lag)
        return Current((term,), np.zeros(1), np.array([float(value.offset)]))

    def synapses(
        self,
        name: str,
        current: Current,
        options: Options,
        threshold: float = 0.0,
        least: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[ig.Projection, ...]]:
        """Return (synaptic unit, projections) of a population; the unit is shared by all terms.

        threshold: real threshold that must fit its mantissa in the same unit, 0 for accumulators.
        least: smallest units of an accumulator, (channels,); neurons have theirs in the terms.
        """
        weights = [t.weight for t in current.terms]
        limits = [t.least for t in current.terms if t.least is not None]
        limits += [] if least is None else [least]
        bound = np.max(np.broadcast_arrays(*limits), axis=0) if limits else None
        own = [options.at(t.layer) for t in current.terms]
        unit = choose_unit(weights, threshold, options, self.arith, bound, [o.bits for o in own])
        values = np.unique(np.concatenate([w.reshape(-1) for w in weights]))
        counting = len(values) == 1 and values[0] > 0 and least is None
        if counting:  # a power of two halves without remainder
            unit = np.full_like(unit, values[0] / (1 << (self.arith.weight_bits - 1)))
            unit = np.maximum(unit, threshold / self.arith.threshold_max)
        projections = []
        for term, option in zip(current.terms, own, strict=True):
            stored, grid, clipped = integer_weights(term.weight, unit, option, self.arith)
            self.count(name, clipped)
            made = term.make(stored, option.bits, grid.mode)
            projections.append(replace(made, lag=term.lag) if term.lag else made)
        self.units[name] = unit
        return unit, tuple(projections)

    def count(self, name: str, clipped: int) -> None:
        if clipped:
            self.saturations[name] = self.saturations.get(name, 0) + clipped


# --- one handler per node class --------------------------------------------------------------
def _input(q: Quantizer, name: str, node: rn.Input, x: list) -> Value | StaticInput:
    if node.static:
        return StaticInput(name)
    return q.put(name, ig.IntInput(node.shape, (), node.max_count), Fraction(1))


_HANDLERS: dict[type, Callable[..., AnyValue]] = {
    rn.Input: _input,
    rn.Conv2d: synaptic.conv2d,
    rn.ConvTranspose2d: synaptic.conv_transpose,
    rn.Dense: synaptic.linear,
    rn.Lif: neurons.lif,
    rn.If: neurons.lif,
    rn.Li: neurons.membrane,
    rn.Delay: relays.delay,
    rn.Reshape: relays.reshape,
    rn.Permute: relays.reshape,
    rn.OrPool2d: relays.or_pool,
    rn.SumPool2d: relays.sum_pool,
    rn.Add: relays.add,
    rn.Scale: relays.scale,
    rn.SpatialSum: relays.spatial_sum,
    rn.Flatten: relays.flatten,
    rn.Readout: neurons.readout,
    rn.Concat: relays.concat,
    rn.Mask: mask,
    rn.SpatialAttention: attention,
    rn.TemporalAttention: attention,
    rn.TimeSum: time_sum,
    rn.Product: product,
}
