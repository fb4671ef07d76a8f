"""The executable specification: what every population of an integer graph computes.

Plain int64 NumPy, one sample and one step at a time, the scalar equations of ``neuroav.fixed``.
Slow and obvious on purpose; every other executor owes it bit equality.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from neuroav import integer as ig
from neuroav.deployment import Deployment
from neuroav.errors import UnsupportedNode
from neuroav.fixed import Arithmetic, check_range, decay, lif_step, shift_left
from neuroav.sim.trace import Progress, Trace


def run(
    deployment: Deployment,
    inputs: Mapping[str, np.ndarray],
    *,
    batch: int = 1,
    states: bool = False,
    progress: Progress | None = None,
) -> Iterator[Trace]:
    """Yield a Trace per sample. inputs: event counts (samples, steps, *shape) by input name.

    batch is accepted for symmetry and ignored: the specification runs one sample at a time.
    states: also record the membrane voltage of every IntLif. Raises OutOfRange, DataError.
    """
    graph, arith = deployment.integer, deployment.profile.arithmetic
    checked = deployment.counts(inputs)
    total = len(next(iter(checked.values())))
    for sample in range(total):
        frames = {name: value[sample].astype(np.int64) for name, value in checked.items()}
        outputs, voltages = run_sample(graph, arith, frames)
        yield Trace(
            sample,
            {n: v[None].astype(np.int32) for n, v in outputs.items()},
            {n: v[None].astype(np.int32) for n, v in voltages.items()} if states else {},
        )
        if progress:
            progress(sample + 1, total)


def run_sample(graph: ig.IntGraph, arith: Arithmetic, frames: Mapping[str, np.ndarray]):
    """Return outputs and LIF voltages of one sample: two dicts of int64 (steps, *shape)."""
    outputs: dict[str, np.ndarray] = {}
    voltages: dict[str, np.ndarray] = {}
    for group in graph.groups:
        if graph.loops(group):
            _run_loop(graph, arith, group, outputs, voltages)
            continue
        (name,) = group
        pop = graph.populations[name]
        if isinstance(pop, ig.IntInput):
            outputs[name] = frames[name]
            continue
        sums = [
            np.stack([port_sum(pop, port, outputs, t) for t in range(graph.steps)])
            for port in range(pop.ports)
        ]
        outputs[name], voltage = all_steps(name, pop, sums, arith)
        if voltage is not None:
            voltages[name] = voltage
    return {name: outputs[name] for name in graph.order}, voltages


def _run_loop(graph: ig.IntGraph, arith: Arithmetic, group, outputs, voltages) -> None:
    """Add the outputs and voltages of populations that feed each other, frame by frame."""
    pops = {name: graph.populations[name] for name in group}
    states = {name: initial_state(pop) for name, pop in pops.items()}
    for name, pop in pops.items():
        outputs[name] = np.zeros((graph.steps, *pop.shape), np.int64)
        if isinstance(pop, ig.IntLif):
            voltages[name] = np.zeros_like(outputs[name])
    for t in range(graph.steps):
        for name, pop in pops.items():
            sums = [port_sum(pop, port, outputs, t) for port in range(pop.ports)]
            states[name], outputs[name][t] = frame(name, pop, states[name], sums, arith)
            if name in voltages:
                voltages[name][t] = states[name][1]


def port_sum(pop: ig.Population, port: int, outputs: Mapping[str, np.ndarray], t: int):
    """Return the synaptic sum that reaches a port with frame t, int64 of the population's shape.

    A projection with a lag brings the frame that its source had so many frames before, if any.
    """
    total = np.zeros(pop.shape, np.int64)
    for p in pop.projections:
        if p.port == port and t >= p.lag:
            total += synaptic_sum(p, outputs[p.source][t - p.lag], pop.shape)
    return total


def all_steps(name: str, pop: ig.Population, sums: list[np.ndarray], arith: Arithmetic):
    """Return (output, LIF voltage or None), int64 (steps, *shape), of one sample.

    sums: the synaptic sums (steps, *shape) at each port.
    """
    payload = (1 << (arith.payload_bits - 1)) - 1
    if isinstance(pop, ig.IntTimeSum):
        total = np.tensordot(pop.step_weights(len(sums[0])), sums[0], axes=1)
        check_range(total, payload, name, "the count over a sample")
        return np.broadcast_to(total >> pop.shift, sums[0].shape).copy(), None
    if isinstance(pop, ig.IntTemporalAttention):
        return temporal_attention(pop, *sums), None
    state, output = initial_state(pop), np.zeros_like(sums[0])
    voltage = np.zeros_like(output) if isinstance(pop, ig.IntLif) else None
    for t in range(len(output)):
        state, output[t] = frame(name, pop, state, [a[t] for a in sums], arith)
        if voltage is not None:
            voltage[t] = state[1]
    return output, voltage


def frame(name: str, pop: ig.Population, state, sums: list[np.ndarray], arith: Arithmetic):
    """Return (new state, output) of a population for one frame; sums: at each port."""
    if isinstance(pop, ig.IntSpatialAttention):
        return state, spatial_attention(pop, *sums)
    if isinstance(pop, ig.IntProduct):
        return state, product(name, pop, sums[0], sums[1], arith)
    return neuron_step(name, pop, state, sums[0], arith)


def product(
    name: str, pop: ig.IntProduct, a: np.ndarray, b: np.ndarray, arith: Arithmetic
) -> np.ndarray:
    """Return the messages of one frame, int64 of the population's shape."""
    most, payload = (1 << ig.PRODUCT_BITS) - 1, (1 << (arith.payload_bits - 1)) - 1
    for factor in (a, b):
        check_range(factor, most, name, "the synaptic sum")
    whole = check_range(a * b, most if pop.shift else payload, name, "the product")
    return check_range(whole >> pop.shift, payload, name, "the product's message")


def capped(counts: np.ndarray, cap: int) -> np.ndarray:
    """Return counts that saturate at ``cap``; 0 is no cap."""
    return np.minimum(counts, cap) if cap else counts


def spatial_attention(pop: ig.IntSpatialAttention, q, k, v) -> np.ndarray:
    """Return the counts of one frame, int64 of the population's shape."""
    result = np.zeros((pop.heads, pop.head_channels, pop.tokens), np.int64)
    for h in range(pop.heads):
        qh, kh, vh = (x.reshape(result.shape)[h] for x in (q, k, v))  # (channel, token)
        state = capped(kh @ vh.T, pop.cap)  # [i, j] = sum over tokens of k_i v_j
        result[h] = capped(state.T @ qh, pop.cap)
    return result.reshape(pop.shape)


def temporal_attention(pop: ig.IntTemporalAttention, q, k, v) -> np.ndarray:
    """Return the counts of one sample, int64 (steps, *shape)."""
    steps, tokens = len(q), pop.tokens
    split = (steps, pop.heads, pop.head_channels, tokens)
    result = np.zeros((pop.heads, steps, pop.head_channels, tokens), np.int64)
    for h in range(pop.heads):
        for n in range(tokens):
            qh, kh, vh = (x.reshape(split)[:, h, :, n] for x in (q, k, v))  # (step, channel)
            state = capped(kh.T @ vh, pop.cap)
            result[h, :, :, n] = capped(qh @ state, pop.cap)
    if not pop.scrambled:
        result = result.transpose(1, 0, 2, 3)
    return result.reshape(steps, *pop.shape)


def initial_state(pop: ig.Population) -> tuple[np.ndarray, ...]:
    """Return the state before the first frame: zeros."""
    count = {ig.IntLif: 2, ig.IntReadout: 2}.get(type(pop), 0)
    return tuple(np.zeros(pop.shape, np.int64) for _ in range(count))


def neuron_step(name: str, pop: ig.Population, state, a: np.ndarray, arith: Arithmetic):
    """Return (new state, output) of a population that received the synaptic sum ``a``."""
    payload = (1 << (arith.payload_bits - 1)) - 1
    if isinstance(pop, ig.IntLif):
        bias = shift_left(pop.bias_mantissa, pop.bias_exponent)
        u, v, spike = lif_step(
            state[0],
            state[1],
            a,
            bias,
            decay_u=pop.decay_u,
            decay_v=pop.decay_v,
            threshold=pop.threshold,
            arith=arith,
            where=name,
            reset=pop.reset,
        )
        return (u, v), spike.astype(np.int64)
    if isinstance(pop, ig.IntOr):
        check_range(a, arith.sum_max, name, "the synaptic sum")
        return (), (a > 0).astype(np.int64)
    if isinstance(pop, ig.IntAnd):
        check_range(a, arith.sum_max, name, "the synaptic sum")
        return (), (a > 1).astype(np.int64)
    if isinstance(pop, ig.IntSum):
        return (), check_range(a, payload, name, "the graded message")
    if isinstance(pop, ig.IntWinner):
        check_range(a, payload, name, "the synaptic sum")
        spike = np.zeros(a.size, np.int64)
        spike[a.argmax()] = 1  # NumPy's first among equals
        return (), spike.reshape(a.shape)
    if isinstance(pop, ig.IntReadout):
        return _readout_step(name, pop, state, a, arith)
    raise UnsupportedNode(f"{name}: the reference has no meaning for {type(pop).__name__}")


def _readout_step(name: str, pop: ig.IntReadout, state, a: np.ndarray, arith: Arithmetic):
    payload = (1 << (arith.payload_bits - 1)) - 1
    u, v = state
    if not pop.leaky:
        v = check_range(v + a + pop.bias, payload, name, "the readout accumulator")
        return (u, v), v
    kept = 0 if pop.decay_u is None else decay(u, pop.decay_u + 1, arith.decay_bits)
    u = kept + a * (1 << pop.input_shift) + pop.bias
    check_range(u, payload, name, "the readout's current")
    v = decay(v, pop.decay_v, arith.decay_bits) + u
    check_range(v, payload, name, "the readout accumulator")
    return (u, v), v


def synaptic_sum(p: ig.Projection, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return sum of weight * message for every target neuron, int64 of ``shape``."""
    if isinstance(p, ig.IntDense):
        return p.weight @ x.reshape(-1)
    if isinstance(p, ig.IntIdentity):
        return (p.weight * x).reshape(shape)
    if isinstance(p, ig.IntConvTranspose2d):
        return _transposed(x, p, shape)
    if isinstance(p, ig.IntSpatialSum):
        return x.sum(axis=(1, 2))
    if isinstance(p, ig.IntSpread):
        return np.broadcast_to(x[:, None, None], shape)
    if isinstance(p, ig.IntPlace):
        y = np.zeros(p.size, np.int64)
        y[p.offset : p.offset + x.size] = p.weight * x.reshape(-1)
        return y
    if isinstance(p, ig.IntPool):
        taps = np.ones((x.shape[0], 1, *p.kernel), np.int64)
        return _conv(x, taps, p.stride, p.padding, (1, 1), x.shape[0], shape)
    if isinstance(p, ig.IntConv2d):
        return _conv(x, p.weight, p.stride, p.padding, p.dilation, p.groups, shape)
    raise UnsupportedNode(f"the reference has no meaning for {type(p).__name__} from {p.source}")


def _conv(x, weight, stride, padding, dilation, groups, shape):
    """y[o, r, c] = sum over i, dr, dc of w[o, i, dr, dc] * x[i, r*s + dr*d - p, c*s + dc*d - p]."""
    out_channels, rows, columns = shape
    padded = np.pad(x, ((0, 0), (padding[0], padding[0]), (padding[1], padding[1])))
    y = np.zeros((groups, out_channels // groups, rows * columns), np.int64)
    for dr in range(weight.shape[2]):
        for dc in range(weight.shape[3]):
            top, left = dr * dilation[0], dc * dilation[1]
            window = padded[
                :,
                top : top + stride[0] * (rows - 1) + 1 : stride[0],
                left : left + stride[1] * (columns - 1) + 1 : stride[1],
            ]
            tap = weight[:, :, dr, dc].reshape(groups, out_channels // groups, -1)
            y += tap @ window.reshape(groups, -1, rows * columns)
    return y.reshape(shape)


def _transposed(x: np.ndarray, p: ig.IntConvTranspose2d, shape: tuple[int, ...]) -> np.ndarray:
    """y[o, r*s + dr*d - p, c*s + dc*d - p] = sum over i, dr, dc of w[i, o, dr, dc] * x[i, r, c]."""
    channels, height, width = x.shape
    taps = p.weight.reshape(p.groups, channels // p.groups, *p.weight.shape[1:])
    reach = [
        (size - 1) * stride + dilation * (kernel - 1) + 1 + extra
        for size, stride, dilation, kernel, extra in zip(
            x.shape[1:], p.stride, p.dilation, p.weight.shape[2:], p.output_padding, strict=True
        )
    ]
    whole = np.zeros((p.groups, p.weight.shape[1], *reach), np.int64)
    parts = x.reshape(p.groups, channels // p.groups, height * width)
    for dr in range(p.weight.shape[2]):
        for dc in range(p.weight.shape[3]):
            top, left = dr * p.dilation[0], dc * p.dilation[1]
            sent = taps[:, :, :, dr, dc].transpose(0, 2, 1) @ parts
            whole[
                :,
                :,
                top : top + p.stride[0] * (height - 1) + 1 : p.stride[0],
                left : left + p.stride[1] * (width - 1) + 1 : p.stride[1],
            ] += sent.reshape(*whole.shape[:2], height, width)
    top, left = p.padding
    rows, columns = shape[1:]
    inside = whole.reshape(shape[0], *reach)[:, top : top + rows, left : left + columns]
    return np.ascontiguousarray(inside)
