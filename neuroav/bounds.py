"""Worst-case range of every accumulator, from weights and possible inputs, before anything runs.

Interval arithmetic in execution order. A message of an input lies in 0..max_count, a spike in 0..1,
a graded sum in the interval of its synaptic sum; every range includes the 0 an accumulator starts
from. For LIF neurons the voltage has a sharp upper end, because a neuron above threshold is reset:
v' <= keep * (threshold << 6) + u + bias. Where every interval lies inside its register the network
cannot overflow on any input; where one does not, the run-time check of every executor stands guard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neuroav import integer as ig
from neuroav.errors import UnsupportedNode
from neuroav.fixed import Arithmetic, decay

Interval = tuple[int, int]


@dataclass(frozen=True)
class Bound:
    """One accumulator of a population: its possible range and its register's largest magnitude."""

    what: str
    low: int
    high: int
    limit: int

    @property
    def proven(self) -> bool:
        """Whether no input can make the accumulator leave its register."""
        return -self.limit <= self.low and self.high <= self.limit


def bounds(graph: ig.IntGraph, arith: Arithmetic) -> dict[str, tuple[Bound, ...]]:
    """Return the accumulators of every population that has some, in execution order."""
    messages: dict[str, Interval] = {}
    found: dict[str, tuple[Bound, ...]] = {}
    for name in graph.order:
        pop = graph.populations[name]
        if isinstance(pop, ig.IntInput):
            messages[name] = (0, pop.max_count)
            continue
        if pop.ports > 1 or pop.holds:
            found[name], messages[name] = _joined(graph, pop, messages, arith)
            continue
        low, high = _synaptic_sum(graph, pop, messages)
        found[name], messages[name] = _neurons(pop, low, high, graph.steps, arith)
    return found


def unproven(found: Mapping[str, tuple[Bound, ...]]) -> dict[str, list[str]]:
    """Return by population a sentence for every accumulator that some input might overflow."""
    return {
        name: [
            f"{b.what} can span {b.low}..{b.high}, the register holds -{b.limit}..{b.limit}"
            for b in parts
            if not b.proven
        ]
        for name, parts in found.items()
        if not all(b.proven for b in parts)
    }


def _joined(
    graph: ig.IntGraph, pop: ig.Population, messages: Mapping[str, Interval], arith: Arithmetic
) -> tuple[tuple[Bound, ...], Interval]:
    """Return (bounds, interval of the messages) of a population with several ports or frames."""
    payload = (1 << (arith.payload_bits - 1)) - 1
    if isinstance(pop, ig.ATTENTION_CLASSES):
        summed = pop.tokens if isinstance(pop, ig.IntSpatialAttention) else graph.steps
        span = (0, pop.cap or summed * pop.head_channels)
        return (Bound("the count of attention", *span, payload),), span
    sums = [_synaptic_sum(graph, pop, messages, port) for port in range(pop.ports)]
    spans = [(int(low.min()), int(high.max())) for low, high in sums]
    if isinstance(pop, ig.IntTimeSum):
        weights = pop.step_weights(graph.steps)
        positive, negative = int(weights[weights > 0].sum()), int(weights[weights < 0].sum())
        low, high = spans[0]  # 0 lies between them
        span = (positive * low + negative * high, positive * high + negative * low)
        message = (span[0] >> pop.shift, span[1] >> pop.shift)
        return (Bound("the count over a sample", *span, payload),), message
    assert isinstance(pop, ig.IntProduct)
    corners = [a * b for a in spans[0] for b in spans[1]]
    span = (min(corners), max(corners))
    if not pop.shift:
        return (Bound("the product", *span, payload),), span
    message = (span[0] >> pop.shift, span[1] >> pop.shift)
    return (
        Bound("the product", *span, (1 << ig.PRODUCT_BITS) - 1),
        Bound("the product's message", *message, payload),
    ), message


def _synaptic_sum(
    graph: ig.IntGraph, pop: ig.Population, messages: Mapping[str, Interval], port: int = 0
):
    """Return (low, high) of the sum at a port, int64 arrays that broadcast to the population."""
    low = high = np.zeros(1, np.int64)
    for p in pop.projections:
        if p.port != port:
            continue
        source = graph.populations[p.source].shape
        part_low, part_high = _projected(p, source, *messages[p.source], axes=len(pop.shape))
        low, high = low + part_low, high + part_high
    return low, high


def _projected(p: ig.Projection, source: tuple[int, ...], low: int, high: int, axes: int):
    """Return the interval of one projection's sum for messages in low..high.

    Padded places send nothing, so 0 always counts as a possible message.
    """
    low, high = min(low, 0), max(high, 0)
    if isinstance(p, (ig.IntConv2d, ig.IntDense)):
        taps = p.weight.reshape(len(p.weight), -1)
        positive, negative = np.maximum(taps, 0).sum(axis=1), np.minimum(taps, 0).sum(axis=1)
    else:
        count = _taps(p, source)
        weight = p.weight if isinstance(p, (ig.IntIdentity, ig.IntPlace)) else 1
        positive = np.array([max(weight, 0) * count])
        negative = np.array([min(weight, 0) * count])
    shape = (-1, *[1] * (axes - 1))
    return (
        (positive * low + negative * high).reshape(shape),
        (positive * high + negative * low).reshape(shape),
    )


def _taps(p: ig.Projection, source: tuple[int, ...]) -> int:
    """Return how many sources a target neuron of a unit-weight projection has, at most."""
    if isinstance(p, (ig.IntIdentity, ig.IntPlace, ig.IntSpread)):
        return 1
    if isinstance(p, ig.IntPool):
        return p.kernel[0] * p.kernel[1]
    if isinstance(p, ig.IntSpatialSum):
        return source[1] * source[2]
    raise UnsupportedNode(f"no bound is known for {type(p).__name__} from {p.source}")


def _neurons(pop: ig.Population, low: np.ndarray, high: np.ndarray, steps: int, arith: Arithmetic):
    """Return (bounds, interval of the messages) of a population whose sum lies in low..high."""
    payload = (1 << (arith.payload_bits - 1)) - 1
    span = (int(low.min()), int(high.max()))
    if isinstance(pop, ig.IntLif):
        return _lif(pop, low, high, steps, arith), (0, 1)
    if isinstance(pop, (ig.IntOr, ig.IntAnd)):
        return (Bound("the synaptic sum", *span, arith.sum_max),), (0, 1)
    if isinstance(pop, ig.IntSum):
        return (Bound("the graded message", *span, payload),), span
    if isinstance(pop, ig.IntWinner):
        return (Bound("the synaptic sum", *span, payload),), (0, 1)
    assert isinstance(pop, ig.IntReadout)
    most = (int(np.max(high + pop.bias)), int(np.min(low + pop.bias)))
    top, bottom = max(0, most[0] * steps), min(0, most[1] * steps)
    return (Bound("the readout accumulator", bottom, top, payload),), (bottom, top)


def _lif(
    pop: ig.IntLif, low: np.ndarray, high: np.ndarray, steps: int, arith: Arithmetic
) -> tuple[Bound, ...]:
    one, shift = 1 << arith.decay_bits, 1 << arith.input_shift
    bias = pop.bias_mantissa << pop.bias_exponent
    keep_u, keep_v = one - pop.decay_u - 1, one - pop.decay_v
    rest = pop.threshold * shift * keep_v // one  # the most that a step without a spike leaves
    u_low = u_high = v_low = v_rest = np.zeros(1, np.int64)
    spans: list[tuple[int, int, int, int]] = []
    for _ in range(steps):
        u_low = decay(u_low, one - keep_u, arith.decay_bits) + low * shift
        u_high = decay(u_high, one - keep_u, arith.decay_bits) + high * shift
        v_low = decay(np.minimum(v_low, 0), one - keep_v, arith.decay_bits) + u_low + bias
        v_high = v_rest + u_high + bias
        v_rest = np.maximum(rest, 0)
        spans.append((u_low.min(), u_high.max(), v_low.min(), v_high.max()))
    u_span = int(min(0, *(s[0] for s in spans))), int(max(0, *(s[1] for s in spans)))
    v_span = int(min(0, *(s[2] for s in spans))), int(max(0, *(s[3] for s in spans)))
    return (
        Bound("the synaptic current", *u_span, (1 << (arith.current_bits - 1)) - 1),
        Bound("the membrane voltage", *v_span, (1 << (arith.voltage_bits - 1)) - 1),
    )
