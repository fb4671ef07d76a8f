"""Worst-case range of every accumulator, from weights and possible inputs, before anything runs.

Interval arithmetic in execution order. A message of an input lies in 0..max_count, a spike in 0..1,
a graded sum in the interval of its channel's synaptic sum, and no message leaves its register: a
run in which one would is refused there. Every range includes the 0 an accumulator starts from, and
a padded place sends nothing. For LIF neurons the voltage has a sharp upper end: one above threshold
is reset to 0, so a step leaves at most min(v, threshold << 6), and the leak keeps order:
v' <= decay(max(0, min(v, threshold << 6))) + u + bias. Where every interval lies inside its
register the network cannot overflow on any input; where one does not, the run-time check of every
executor stands guard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neuroav import integer as ig
from neuroav.errors import UnsupportedNode
from neuroav.fixed import Arithmetic, decay
from neuroav.synapses import kernel

Interval = tuple[int, int]
Range = tuple[np.ndarray, np.ndarray]  # lowest and highest message by channel, int64; 0 in between


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
    messages: dict[str, Range] = {}
    found: dict[str, tuple[Bound, ...]] = {}
    payload = (1 << (arith.payload_bits - 1)) - 1
    for group in graph.groups:
        for name in group if graph.loops(group) else ():  # not known before what feeds back is
            pop = graph.populations[name]
            ends = (0, 1) if isinstance(pop, ig.SPIKING_CLASSES) else (-payload, payload)
            messages[name] = _by_channel(pop, *ends, arith)
    for name in graph.order:
        pop = graph.populations[name]
        if isinstance(pop, ig.IntInput):
            messages[name] = _by_channel(pop, 0, pop.max_count, arith)
            continue
        if pop.ports > 1 or pop.holds:
            found[name], (low, high) = _joined(graph, pop, messages, arith)
        else:
            found[name], (low, high) = _neurons(
                pop, *_synaptic_sum(graph, pop, messages), graph.steps, arith
            )
        messages[name] = _by_channel(pop, low, high, arith)
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


def _by_channel(pop: ig.Population, low, high, arith: Arithmetic) -> Range:
    """Return the interval of every channel's messages; low, high: of its neurons, broadcast."""
    payload = (1 << (arith.payload_bits - 1)) - 1
    ends = [
        np.broadcast_to(np.clip(v, -payload, payload).astype(np.int64), pop.shape)
        for v in (low, high)
    ]
    low, high = (v.reshape(pop.shape[0], -1) for v in ends)
    return low.min(axis=1), high.max(axis=1)


def _span(low, high) -> Interval:
    return int(np.min(low)), int(np.max(high))


def _joined(
    graph: ig.IntGraph, pop: ig.Population, messages: Mapping[str, Range], arith: Arithmetic
):
    """Return (bounds, interval of the messages) of a population with several ports or frames."""
    payload = (1 << (arith.payload_bits - 1)) - 1
    if isinstance(pop, ig.ATTENTION_CLASSES):
        summed = pop.tokens if isinstance(pop, ig.IntSpatialAttention) else graph.steps
        span = (0, pop.cap or summed * pop.head_channels)
        return (Bound("the count of attention", *span, payload),), span
    sums = [_synaptic_sum(graph, pop, messages, port) for port in range(pop.ports)]
    sums = [(low.astype(object), high.astype(object)) for low, high in sums]  # may pass 64 bits
    low, high = sums[0]  # 0 lies between them
    if isinstance(pop, ig.IntTimeSum):
        weights = pop.step_weights(graph.steps)
        positive, negative = int(weights[weights > 0].sum()), int(weights[weights < 0].sum())
        low, high = positive * low + negative * high, positive * high + negative * low
        span = _span(low, high)
        return (Bound("the count over a sample", *span, payload),), (
            low >> pop.shift,
            high >> pop.shift,
        )
    assert isinstance(pop, ig.IntProduct)
    corners = np.broadcast_arrays(*(a * b for a in sums[0] for b in sums[1]))
    low, high = np.min(corners, axis=0), np.max(corners, axis=0)
    sent = (low >> pop.shift, high >> pop.shift)
    if not pop.shift:
        return (Bound("the product", *_span(low, high), payload),), sent
    return (
        Bound("the product", *_span(low, high), (1 << ig.PRODUCT_BITS) - 1),
        Bound("the product's message", *_span(*sent), payload),
    ), sent


def _synaptic_sum(
    graph: ig.IntGraph, pop: ig.Population, messages: Mapping[str, Range], port: int = 0
) -> Range:
    """Return (low, high) of the sum at a port, int64 arrays that broadcast to the population."""
    low = high = np.zeros(1, np.int64)
    for p in pop.projections:
        if p.port != port:
            continue
        source = graph.populations[p.source].shape
        part_low, part_high = _projected(p, source, pop.shape, *messages[p.source])
        low, high = low + part_low, high + part_high
    return low, high


def _projected(
    p: ig.Projection, source: ig.Shape, shape: ig.Shape, low: np.ndarray, high: np.ndarray
) -> Range:
    """Return the interval of one projection's sum; low, high: of the messages, by channel."""
    places = math.prod(source[1:])
    if isinstance(p, ig.IntConv2d):
        out, fan = p.weight.shape[:2]
        channel = np.arange(out)[:, None] // (out // p.groups) * fan + np.arange(fan)
        return _at_places(p, source, shape, *_weighed(p.weight, low[channel], high[channel]))
    if isinstance(p, ig.IntPool):
        taps = np.ones((len(low), 1, *p.kernel), np.int64)
        return _at_places(p, source, shape, *_weighed(taps, low[:, None], high[:, None]))
    if isinstance(p, ig.IntConvTranspose2d):
        taps = kernel(p)
        out, fan = taps.shape[:2]
        channel = np.arange(out)[:, None] // (out // p.groups) * fan + np.arange(fan)
        return _at_places(p, source, shape, *_weighed(taps, low[channel], high[channel]))
    if isinstance(p, ig.IntIdentity) and source != shape:  # other axes, so no channel in common
        low, high = low.min(keepdims=True), high.max(keepdims=True)
    if isinstance(p, ig.IntDense):
        return _weighed(p.weight.reshape(len(p.weight), -1, places), low, high)
    if isinstance(p, ig.IntSpatialSum):
        return low * places, high * places
    if isinstance(p, ig.IntPlace):
        parts = np.zeros((2, p.size), np.int64)
        parts[:, p.offset : p.offset + len(low) * places] = np.repeat((low, high), places, axis=1)
        low, high = parts
    elif not isinstance(p, (ig.IntIdentity, ig.IntSpread)):
        raise UnsupportedNode(f"no bound is known for {type(p).__name__} from {p.source}")
    weight = 1 if isinstance(p, ig.IntSpread) else p.weight
    ends = (weight * low, weight * high)
    column = (-1, *[1] * (len(shape) - 1))
    return np.minimum(*ends).reshape(column), np.maximum(*ends).reshape(column)


def _weighed(weight: np.ndarray, low: np.ndarray, high: np.ndarray) -> Range:
    """Return the interval of the sum over source channels, by output and tap.

    weight: (out, in, ...taps); low, high: (out or none, in). Dense synapses: (out, in, places),
    and the sum runs over the places too.
    """
    low, high = (v.reshape(*v.shape, *[1] * (weight.ndim - 2)) for v in (low, high))
    positive, negative = np.maximum(weight, 0), np.minimum(weight, 0)
    axes = (1, 2) if weight.ndim == 3 else 1
    return (
        (positive * low + negative * high).sum(axis=axes),
        (positive * high + negative * low).sum(axis=axes),
    )


def _at_places(
    p: ig.IntConv2d | ig.IntConvTranspose2d | ig.IntPool,
    source: ig.Shape,
    shape: ig.Shape,
    *taps: np.ndarray,
) -> Range:
    """Return the sums over the taps that lie inside the source, (out, rows, columns) each.

    A tap at a padded place adds nothing, so only neurons far from a border have all of them.
    """
    inside = []
    for axis, size in enumerate(taps[0].shape[1:]):
        dilation = 1 if isinstance(p, ig.IntPool) else p.dilation[axis]
        place, steps = np.arange(shape[axis + 1])[:, None], np.arange(size) * dilation
        if isinstance(p, ig.IntConvTranspose2d):  # a place is reached from whole strides away
            reach = place + p.padding[axis] - steps
            place, whole = reach // p.stride[axis], reach % p.stride[axis] == 0
        else:
            place, whole = place * p.stride[axis] - p.padding[axis] + steps, np.array(True)
        inside.append((whole & (place >= 0) & (place < source[axis + 1])).astype(np.int64))
    low, high = (inside[0] @ tap @ inside[1].T for tap in taps)
    return low, high


def _neurons(pop: ig.Population, low: np.ndarray, high: np.ndarray, steps: int, arith: Arithmetic):
    """Return (bounds, interval of the messages) of a population whose sum lies in low..high."""
    payload = (1 << (arith.payload_bits - 1)) - 1
    span = _span(low, high)
    if isinstance(pop, ig.IntLif):
        return _lif(pop, low, high, steps, arith), (0, 1)
    if isinstance(pop, (ig.IntOr, ig.IntAnd)):
        return (Bound("the synaptic sum", *span, arith.sum_max),), (0, 1)
    if isinstance(pop, ig.IntSum):
        return (Bound("the graded message", *span, payload),), (low, high)
    if isinstance(pop, ig.IntWinner):
        return (Bound("the synaptic sum", *span, payload),), (0, 1)
    assert isinstance(pop, ig.IntReadout)
    if pop.leaky:
        return _leaky(pop, low, high, steps, arith)
    top = np.maximum(0, (high + pop.bias) * steps)
    bottom = np.minimum(0, (low + pop.bias) * steps)
    return (Bound("the readout accumulator", *_span(bottom, top), payload),), (bottom, top)


def _leaky(pop: ig.IntReadout, low, high, steps: int, arith: Arithmetic):
    """Return (bounds, interval of the messages) of leaky accumulators."""
    payload, bits = (1 << (arith.payload_bits - 1)) - 1, arith.decay_bits
    forget = 1 << bits if pop.decay_u is None else pop.decay_u + 1
    ends = []
    for side, pick in ((low, np.minimum), (high, np.maximum)):
        u = v = most_u = most_v = np.zeros(1, np.int64)
        for _ in range(steps):
            u = decay(pick(u, 0), forget, bits) + side * (1 << pop.input_shift) + pop.bias
            v = decay(pick(v, 0), pop.decay_v, bits) + u
            most_u, most_v = pick(most_u, u), pick(most_v, v)
        ends.append((most_u, most_v))
    (u_low, v_low), (u_high, v_high) = ends
    return (
        Bound("the readout's current", *_span(u_low, u_high), payload),
        Bound("the readout accumulator", *_span(v_low, v_high), payload),
    ), (v_low, v_high)


def _lif(
    pop: ig.IntLif, low: np.ndarray, high: np.ndarray, steps: int, arith: Arithmetic
) -> tuple[Bound, ...]:
    one, shift = 1 << arith.decay_bits, 1 << arith.input_shift
    bias = pop.bias_mantissa << pop.bias_exponent
    keep_u, keep_v = (np.asarray(one - d) for d in (pop.decay_u + 1, pop.decay_v))
    most = pop.threshold * shift  # that a step without a spike leaves
    u_low = u_high = v_low = v_high = np.zeros(1, np.int64)
    spans: list[tuple[int, int, int, int]] = []
    for _ in range(steps):
        u_low = decay(u_low, one - keep_u, arith.decay_bits) + low * shift
        u_high = decay(u_high, one - keep_u, arith.decay_bits) + high * shift
        v_low = decay(np.minimum(v_low, 0), one - keep_v, arith.decay_bits) + u_low + bias
        left = np.maximum(np.minimum(v_high, most), 0)  # 0 after a spike
        if pop.reset == "subtract":
            left = np.maximum(left, v_high - most)
        v_high = decay(left, one - keep_v, arith.decay_bits) + u_high + bias
        spans.append((u_low.min(), u_high.max(), v_low.min(), v_high.max()))
    u_span = int(min(0, *(s[0] for s in spans))), int(max(0, *(s[1] for s in spans)))
    v_span = int(min(0, *(s[2] for s in spans))), int(max(0, *(s[3] for s in spans)))
    return (
        Bound("the synaptic current", *u_span, (1 << (arith.current_bits - 1)) - 1),
        Bound("the membrane voltage", *v_span, (1 << (arith.voltage_bits - 1)) - 1),
    )
