"""The integer graph in ONNX: populations and projections, one step at a time or whole samples.

Convolutions and matrix products are float32 sums of whole numbers. A bound computed from the
weights and the largest message proves them exact (below 2^24); where it does not, the message is
cut into digits for which it does. Everything else is int64.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from neuroav import integer as ig
from neuroav.errors import OutOfRange, UnsupportedNode
from neuroav.fixed import Arithmetic, shift_left
from neuroav.synapses import row_sum
from neuroav_export.writers.onnx_build import Builder

EXACT = 1 << 24  # float32 holds all integers up to here
Read = Callable[[ig.Projection], str]  # the message that a projection brings


def first_reach(pop: ig.Population, arith: Arithmetic) -> int:
    """Return a bound on a population's message that needs nothing but the population."""
    if isinstance(pop, ig.IntInput):
        return pop.max_count
    return 1 if isinstance(pop, ig.SPIKING_CLASSES) else payload(arith)


def payload(arith: Arithmetic) -> int:
    """Return the largest magnitude of a graded message."""
    return (1 << (arith.payload_bits - 1)) - 1


def memoryless(pop: ig.Population) -> bool:
    """Whether a population's message depends on nothing but the synaptic sums of its step."""
    return not isinstance(pop, (ig.IntLif, ig.IntReadout)) and not pop.holds


# --- populations -----------------------------------------------------------------------------
def port_reach(graph: ig.IntGraph, pop: ig.Population, port: int, largest: dict[str, int]) -> int:
    """Return the largest magnitude of the synaptic sum at a port; largest: of messages, by name."""
    return sum(
        row_sum(p, graph.populations[p.source].shape) * largest[p.source]
        for p in pop.projections
        if p.port == port
    )


def port_parts(
    b: Builder,
    graph: ig.IntGraph,
    pop: ig.Population,
    port: int,
    largest: dict[str, int],
    read: Read,
    wanted: Callable[[ig.Projection], bool] = lambda p: True,
) -> list[str]:
    """Return the synaptic sum of every wanted projection onto a port, int64 (batch, *shape)."""
    return [
        synaptic_sum(b, p, read(p), graph.populations[p.source].shape, largest[p.source], pop.shape)
        for p in pop.projections
        if p.port == port and wanted(p)
    ]


def frame(
    b: Builder, pop: ig.Population, sums: list[str], reach: list[int], arith: Arithmetic
) -> tuple[str, int]:
    """Return (message, largest magnitude) of a population for the sums of a step at each port.

    reach: the largest magnitude of each sum.
    """
    if isinstance(pop, ig.IntSpatialAttention):
        return _attention(b, pop, sums)
    if isinstance(pop, ig.IntProduct):
        return _product(b, pop, sums, reach, payload(arith))
    a, top = sums[0], payload(arith)
    if isinstance(pop, ig.IntLif):
        return _lif(b, pop, a, arith), 1
    if isinstance(pop, ig.IntReadout):
        return _readout(b, pop, a, arith), top
    if isinstance(pop, (ig.IntOr, ig.IntAnd)):
        least = b.constant(1 if isinstance(pop, ig.IntAnd) else 0)
        spike = b.op("Greater", _checked(b, a, reach[0], arith.sum_max, pop), least)
        return b.op("Cast", spike, to=b.types.INT64), 1
    if isinstance(pop, ig.IntWinner):
        return _winner(b, pop, _checked(b, a, reach[0], top, pop)), 1
    if isinstance(pop, ig.IntSum):
        return _checked(b, a, reach[0], top, pop), min(reach[0], top)
    raise UnsupportedNode(f"{b.where}: the onnx writer cannot carry {type(pop).__name__}")


def _checked(b: Builder, x: str, reach: int, limit: int, pop: ig.Population) -> str:
    """Return x; check it where it may pass the limit. reach: the largest magnitude it can have."""
    return x if reach <= limit else b.check(x, -limit, limit, len(pop.shape))


def _product(
    b: Builder, pop: ig.IntProduct, sums: list[str], reach: list[int], top: int
) -> tuple[str, int]:
    most, largest = (1 << ig.PRODUCT_BITS) - 1, reach[0] * reach[1]
    for factor, size in zip(sums, reach, strict=True):
        _checked(b, factor, size, most, pop)
    product = b.op("Mul", *sums)
    if pop.shift:
        product = shifted(b, _checked(b, product, largest, most, pop), pop.shift)
    largest = ig.shifted(largest, pop.shift)
    return _checked(b, product, largest, top, pop), min(largest, top)


def shifted(b: Builder, x: str, shift: int) -> str:
    """Return x >> shift, rounded down."""
    part = b.constant(1 << shift)
    return b.op("Div", b.op("Sub", x, b.op("Mod", x, part)), part)


def _winner(b: Builder, pop: ig.IntWinner, a: str) -> str:
    """1 where the flattened sum is largest, first among equals."""
    first = b.op("ArgMax", b.op("Flatten", a, axis=1), axis=1, keepdims=1)
    spikes = b.op("Cast", b.op("Equal", first, b.constant(range(pop.neurons))), to=b.types.INT64)
    return b.shaped(spikes, 0, *pop.shape)


def _attention(b: Builder, pop: ig.IntSpatialAttention, sums: list[str]) -> tuple[str, int]:
    split = (0, pop.heads, pop.head_channels, pop.tokens)
    q, k, v = (b.op("Cast", b.shaped(x, *split), to=b.types.FLOAT) for x in sums)
    state = saturated(b, b.op("Einsum", k, v, equation="bhim,bhjm->bhij"), pop.cap)
    counts = saturated(b, b.op("Einsum", q, state, equation="bhin,bhij->bhjn"), pop.cap)
    whole = b.op("Cast", counts, to=b.types.INT64)
    return b.shaped(whole, 0, *pop.shape), pop.cap or pop.tokens * pop.head_channels


def saturated(b: Builder, x: str, cap: int) -> str:
    return b.op("Min", x, b.constant(cap, np.float32)) if cap else x


def _lif(b: Builder, pop: ig.IntLif, a: str, arith: Arithmetic) -> str:
    """``fixed.lif_step``, range checks as flags."""
    one, shift, axes = 1 << arith.decay_bits, 1 << arith.input_shift, len(pop.shape)
    keep_u, keep_v = one - np.asarray(pop.decay_u) - 1, one - np.asarray(pop.decay_v)
    limit_u = (1 << (arith.current_bits - 1)) - 1
    limit_v = (1 << (arith.voltage_bits - 1)) - 1
    u = b.op("Mul", a, b.constant(shift))
    if keep_u.any():
        before = b.state("u", pop.shape)
        u = b.op("Add", _decay(b, before, keep_u, one), u)
        b.keep(before, u)
    b.check(u, -limit_u, limit_u, axes)
    v = b.op("Add", u, b.constant(shift_left(pop.bias_mantissa, pop.bias_exponent)))
    if keep_v.any():
        before = b.state("v", pop.shape)
        v = b.op("Add", _decay(b, before, keep_v, one), v)
    b.check(v, -limit_v, limit_v, axes)
    level = b.constant(pop.threshold * shift)
    spike = b.op("Greater", v, level)
    if keep_v.any():
        after = b.op("Sub", v, level) if pop.reset == "subtract" else b.constant(0)
        b.keep(before, b.op("Where", spike, after, v))
    return b.op("Cast", spike, to=b.types.INT64)


def _readout(b: Builder, pop: ig.IntReadout, a: str, arith: Arithmetic) -> str:
    one, top, axes = 1 << arith.decay_bits, payload(arith), len(pop.shape)
    keep_u, keep_v = 0 if pop.decay_u is None else one - pop.decay_u - 1, one - pop.decay_v
    entering = b.op("Mul", a, b.constant(1 << pop.input_shift)) if pop.input_shift else a
    u = b.op("Add", entering, b.constant(pop.bias))
    if keep_u:
        before = b.state("u", pop.shape)
        u = b.op("Add", _decay(b, before, np.asarray(keep_u), one), u)
        b.keep(before, u)
    if pop.leaky:
        b.check(u, -top, top, axes)
    if not keep_v:
        return u
    v = b.state("v", pop.shape)
    total = b.op("Add", _decay(b, v, np.asarray(keep_v), one), u)
    b.keep(v, total)
    return b.check(total, -top, top, axes)


def _decay(b: Builder, x: str, keep: np.ndarray, one: int) -> str:
    """Return sign(x) * floor(|x| * keep / one): ``fixed.decay`` by one - keep."""
    if (keep == one).all():
        return x
    product = b.op("Mul", b.op("Abs", x), b.constant(keep))
    return b.op("Mul", b.op("Sign", x), b.op("Div", product, b.constant(one)))


# --- projections -----------------------------------------------------------------------------
def synaptic_sum(
    b: Builder, p: ig.Projection, x: str, source: ig.Shape, largest: int, target: ig.Shape
) -> str:
    """Return the sum over weight * message of one projection, int64 (batch, *target).

    x: the message, of shape ``source``; largest: its largest magnitude.
    """
    if isinstance(p, ig.IntIdentity):
        whole = x if p.weight == 1 else b.op("Mul", x, b.constant(p.weight))
        return whole if source == target else b.shaped(whole, 0, *target)
    if isinstance(p, ig.IntSpatialSum):
        return b.op("ReduceSum", x, b.constant([2, 3]), keepdims=0)
    if isinstance(p, ig.IntSpread):
        return b.op("Expand", b.shaped(x, 0, source[0], 1, 1), b.constant([1, *target]))
    if isinstance(p, ig.IntPlace):
        size = int(np.prod(source))
        flat = b.op("Mul", b.op("Flatten", x, axis=1), b.constant(p.weight))
        return b.op("Pad", flat, b.constant([0, p.offset, 0, p.size - p.offset - size]))
    if isinstance(p, ig.IntDense):
        x = b.op("Flatten", x, axis=1)

    def product(digits: str) -> str:
        exact = _weighed(b, p, b.op("Cast", digits, to=b.types.FLOAT), source[0])
        return b.op("Cast", exact, to=b.types.INT64)

    return _in_digits(b, x, row_sum(p, source), largest, product)


def _weighed(b: Builder, p: ig.Projection, x: str, channels: int) -> str:
    """Return the sums over weights of a projection that has a kernel or a matrix, float32."""
    if isinstance(p, ig.IntDense):
        return b.op("MatMul", x, b.whole(p.weight.T))
    if isinstance(p, ig.IntPool):
        return b.pooled(x, b.whole(np.ones((channels, 1, *p.kernel), np.int64)), p, channels)
    if isinstance(p, ig.IntConv2d):
        return b.convolved(x, b.whole(p.weight), p)
    if isinstance(p, ig.IntConvTranspose2d):
        return b.transposed(x, b.whole(p.weight), p)
    raise UnsupportedNode(f"{b.where}: the onnx writer cannot carry {type(p).__name__}")


def _in_digits(b: Builder, x: str, gain: int, largest: int, product: Callable[[str], str]) -> str:
    """Return product(x), a linear function, through sums that float32 holds exactly.

    x = sum_i digit_i * base^i with digits of x's sign, and gain * (base - 1) < 2^24.
    """
    if gain * largest < EXACT:
        return product(x)
    bits = ((EXACT - 1) // gain + 1).bit_length() - 1
    if bits < 1:
        raise OutOfRange(
            f"{b.where}: weights onto one neuron add up to {gain}, float32 sums are exact below "
            f"{EXACT}; use fewer weight bits or a layer with fewer synapses"
        )
    sign, size, parts = b.op("Sign", x), b.op("Abs", x), []
    for first in range(0, largest.bit_length(), bits):
        place = b.constant(1 << first)
        digit = b.op("Mod", b.op("Div", size, place), b.constant(1 << bits))
        parts.append(b.op("Mul", product(b.op("Mul", sign, digit)), place))
    return b.total(parts)


def silence(b: Builder, like: str, axes: int, shape: ig.Shape) -> str:
    """Return zeros (batch, *shape) with the batch of ``like``, which has so many axes besides."""
    total = b.op("ReduceSum", like, b.constant(range(1, axes + 1)), keepdims=0)
    none = b.shaped(b.op("Mul", total, b.constant(0)), -1, *[1] * len(shape))
    return b.op("Add", none, b.constant(np.zeros(shape, np.int64)))


# --- one step --------------------------------------------------------------------------------
def step(b: Builder, graph: ig.IntGraph, arith: Arithmetic) -> None:
    """Add all populations of one time step."""
    lags: dict[str, int] = {}
    for pop in graph.populations.values():
        for p in pop.projections:
            lags[p.source] = max(p.lag, lags.get(p.source, 0))
    late = {n: b.history(n, graph.populations[n].shape, k) for n, k in sorted(lags.items())}
    messages: dict[str, str] = {}
    largest = {n: first_reach(p, arith) for n, p in graph.populations.items()}

    def read(p: ig.Projection) -> str:
        return late[p.source][p.lag - 1] if p.lag else messages[p.source]

    for name in graph.order:
        pop, b.where = graph.populations[name], name
        if isinstance(pop, ig.IntInput):
            b.inputs.append(b.tensor(name, "batch", *pop.shape))
            messages[name] = b.check(name, 0, pop.max_count, len(pop.shape))
            continue
        if pop.holds:
            raise UnsupportedNode(
                f"{name}: the onnx writer cannot carry {type(pop).__name__} in a model of one "
                "step: it needs the whole sample before it answers; use the unrolled form, or a "
                "causal form of attention"
            )
        ports = range(pop.ports)
        if pop.projections:
            sums = [b.total(port_parts(b, graph, pop, k, largest, read)) for k in ports]
        else:  # driven by their bias alone
            source, given = next(iter(graph.inputs.items()))
            sums = [silence(b, source, len(given.shape), pop.shape)]
        reach = [port_reach(graph, pop, k, largest) for k in ports]
        message, largest[name] = frame(b, pop, sums, reach, arith)
        messages[name] = b.op("Identity", message, result=name)
        b.outputs.append(b.tensor(name, "batch", *pop.shape))
    for name, states in late.items():
        b.remember(states, messages[name])
