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
    common_scale,
    exact_fraction,
    integer_bias,
    integer_decay,
    integer_threshold,
    integer_weights,
)
from neuroav_export.passes.counting import attention, mask
from neuroav_export.passes.host_input import (
    HostCurrent,
    StaticInput,
    host_neurons,
    host_pool,
    refusal,
)
from neuroav_export.passes.values import Current, Term, Value, wide_values
from neuroav_export.passes.wide import product, time_sum

AnyValue = Value | Current | StaticInput | HostCurrent


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
                replace(p, delay=graph.aligned_delay(name, p.source)) for p in pop.projections
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
        self.values[name] = handler(
            self, name, node, [self.values[s] for s in self.graph.inputs[name]]
        )

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

        term = Term(value.name, np.array([float(value.scale)]), make)
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
        unit = choose_unit(weights, threshold, options, self.arith, bound)
        values = np.unique(np.concatenate([w.reshape(-1) for w in weights]))
        counting = len(values) == 1 and values[0] > 0 and least is None
        if counting:  # a power of two halves without remainder
            unit = np.full_like(unit, values[0] / (1 << (self.arith.weight_bits - 1)))
            unit = np.maximum(unit, threshold / self.arith.threshold_max)
        projections = []
        for term in current.terms:
            stored, grid, clipped = integer_weights(term.weight, unit, options, self.arith)
            self.count(name, clipped)
            projections.append(term.make(stored, options.bits, grid.mode))
        self.units[name] = unit
        return unit, tuple(projections)

    def count(self, name: str, clipped: int) -> None:
        if clipped:
            self.saturations[name] = self.saturations.get(name, 0) + clipped


def _per_channel(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return values per channel so that they broadcast to (C, H, W) or (C,)."""
    return values if values.size == 1 else values.reshape(-1, *[1] * (len(shape) - 1))


# --- one handler per node class --------------------------------------------------------------
def _input(q: Quantizer, name: str, node: rn.Input, x: list) -> Value | StaticInput:
    if node.static:
        return StaticInput(name)
    return q.put(name, ig.IntInput(node.shape, (), node.max_count), Fraction(1))


def _conv2d(q: Quantizer, name: str, node: rn.Conv2d, x: list) -> Current | HostCurrent:
    if isinstance(x[0], StaticInput):
        return HostCurrent(name, node, x[0].name)
    value = q.message(name, x[0])

    def make(weight: np.ndarray, bits: int, mode: str) -> ig.Projection:
        return ig.IntConv2d(
            value.name, 0, weight, node.stride, node.padding, node.dilation, node.groups, bits, mode
        )

    term = Term(value.name, node.weight * float(value.scale), make, node.least_unit)
    return Current((term,), np.zeros(1) if node.bias is None else node.bias)


def _linear(q: Quantizer, name: str, node: rn.Dense, x: list) -> Current | HostCurrent:
    if isinstance(x[0], StaticInput):
        return HostCurrent(name, node, x[0].name)
    return _dense(q, name, node, x)


def _dense(q: Quantizer, name: str, node: rn.Dense | rn.Readout, x: list) -> Current:
    value = q.message(name, x[0])

    def make(weight: np.ndarray, bits: int, mode: str) -> ig.Projection:
        return ig.IntDense(value.name, 0, weight, bits, mode)

    least = node.least_unit if isinstance(node, rn.Dense) else None
    term = Term(value.name, node.weight * float(value.scale), make, least)
    offset = node.weight.sum(axis=1) * float(value.offset)
    return Current((term,), np.zeros(1) if node.bias is None else node.bias, offset)


def neuron_problems(name: str, node: rn.Lif, dt_s: float) -> list[UnsupportedNode]:
    """Return everything about a layer of neurons that the chip's neuron cannot do."""
    d, problems = dt_s / node.tau_mem_s, []
    if node.v_reset != node.v_leak:
        text = f"{name}: v_reset is {node.v_reset:g} and v_leak {node.v_leak:g}; the chip resets "
        problems.append(UnsupportedNode(text + "to rest, use equal values", rule="reset"))
    if not 0 < d <= 1:
        text = f"{name}: dt / tau_mem is {d:.4g}, needs 0 < dt / tau_mem <= 1"
        problems.append(UnsupportedNode(text, rule="time-constant"))
    if node.v_threshold <= node.v_leak:
        text = f"{name}: v_threshold is {node.v_threshold:g}, it must lie above v_leak "
        problems.append(UnsupportedNode(text + f"({node.v_leak:g})", rule="threshold"))
    return problems


def _lif(q: Quantizer, name: str, node: rn.Lif, x: list) -> Value:
    problems = neuron_problems(name, node, q.graph.dt_s)
    if problems:
        raise problems[0]
    if isinstance(x[0], HostCurrent):
        return host_neurons(q, name, node, x[0])
    d = q.graph.dt_s / node.tau_mem_s
    current, shape = q.current(name, x[0]), q.graph.shapes[name]
    real_threshold = (node.v_threshold - node.v_leak) / d
    options = q.options
    if any(t.weight.ndim < 2 for t in current.terms):  # a skip has one weight for all channels
        options = replace(options, per_channel=False)
    unit, projections = q.synapses(name, current, options, real_threshold)
    mantissa, exponent, clipped = integer_bias(current.bias + current.offset, unit, q.arith)
    q.count(name, clipped)
    threshold = integer_threshold(real_threshold, unit, q.arith, node.inclusive)
    return q.put(
        name,
        ig.IntLif(
            shape,
            projections,
            _per_channel(mantissa, shape),
            exponent,
            _per_channel(threshold, shape),
            (1 << q.arith.decay_bits) - 1,
            integer_decay(d, q.arith),
        ),
        Fraction(1),
    )


def _or_pool(q: Quantizer, name: str, node: rn.OrPool2d, x: list) -> Value:
    value = q.message(name, x[0])
    if on_host := host_pool(q, name, node, value):
        return on_host
    pool = ig.IntPool(value.name, 0, node.kernel, node.stride, node.padding)
    return q.put(name, ig.IntOr(q.graph.shapes[name], (pool,)), value.scale)


def _add(q: Quantizer, name: str, node: rn.Add, x: list) -> Value | Current:
    if any(isinstance(v, Current) for v in x):  # several synaptic inputs of one neuron layer
        parts = [q.current(name, v) for v in x]
        return Current(
            tuple(t for p in parts for t in p.terms),
            np.sum(np.broadcast_arrays(*[p.bias for p in parts]), axis=0),
            np.sum(np.broadcast_arrays(*[p.offset for p in parts]), axis=0),
        )
    x = [q.message(name, v) for v in x]
    common = common_scale([v.scale for v in x])
    projections = []
    for v in x:
        projections.append(ig.IntIdentity(v.name, 0, _relay_weight(q, name, v.scale / common)))
    return q.put(name, ig.IntSum(q.graph.shapes[name], tuple(projections)), common)


def _relay_weight(q: Quantizer, name: str, factor: Fraction) -> int:
    """Return the synapse that brings one value to the unit all values of ``name`` share."""
    if factor >= 1 << q.arith.weight_bits:
        raise UnsupportedNode(
            f"{name}: joins values of such different scales that one needs a synapse of "
            f"{int(factor)}, at most {(1 << q.arith.weight_bits) - 1}; use simpler factors",
            rule="scales",
        )
    return int(factor)


def _scale(q: Quantizer, name: str, node: rn.Scale, x: list) -> Value | Current:
    value = x[0] if isinstance(x[0], Current) else q.message(name, x[0])
    if isinstance(value, Value):
        factor = exact_fraction(node.factor)
        return Value(value.name, value.scale * factor, value.offset * factor)
    terms = tuple(replace(t, weight=t.weight * node.factor) for t in value.terms)
    return Current(terms, value.bias * node.factor, value.offset * node.factor)


def _spatial_sum(q: Quantizer, name: str, node: rn.SpatialSum, x: list) -> Value:
    value = q.message(name, x[0])
    projection = ig.IntSpatialSum(value.name, 0)
    return q.put(name, ig.IntSum(q.graph.shapes[name], (projection,)), value.scale)


def _flatten(q: Quantizer, name: str, node: rn.Flatten, x: list) -> Value:
    return q.message(name, x[0])  # neurons are numbered in C order already


def _concat(q: Quantizer, name: str, node: rn.Concat, x: list) -> Value:
    values = [q.message(name, v) for v in x]
    common = common_scale([v.scale for v in values])
    sizes = [int(np.prod(q.graph.shapes[s])) for s in q.graph.inputs[name]]
    offsets = np.cumsum([0, *sizes])
    projections = tuple(
        ig.IntPlace(v.name, 0, _relay_weight(q, name, v.scale / common), int(first), sum(sizes))
        for v, first in zip(values, offsets, strict=False)
    )
    return q.put(name, ig.IntSum((sum(sizes),), projections), common)


def _readout(q: Quantizer, name: str, node: rn.Readout, x: list) -> Value:
    # the scores of all classes are compared, so they share one unit
    options = replace(q.options, per_channel=False)
    current = _dense(q, name, node, x)
    unit, projections = q.synapses(name, current, options, least=node.least_unit)
    bias = np.rint((current.bias + current.offset) / unit).astype(np.int64)
    scale = exact_fraction(float(unit[0])) / q.graph.steps
    return q.put(name, ig.IntReadout(q.graph.shapes[name], projections, bias), scale)


_HANDLERS: dict[type, Callable[..., AnyValue]] = {
    rn.Input: _input,
    rn.Conv2d: _conv2d,
    rn.Dense: _linear,
    rn.Lif: _lif,
    rn.OrPool2d: _or_pool,
    rn.Add: _add,
    rn.Scale: _scale,
    rn.SpatialSum: _spatial_sum,
    rn.Flatten: _flatten,
    rn.Readout: _readout,
    rn.Concat: _concat,
    rn.Mask: mask,
    rn.SpatialAttention: attention,
    rn.TemporalAttention: attention,
    rn.TimeSum: time_sum,
    rn.Product: product,
}
