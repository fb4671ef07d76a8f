"""Neurons quantized: leaky ones, those without leak, membranes without threshold, class scores.

Handlers of ``quantize``. The chip adds a bias to the membrane. Neurons with a synaptic current were
trained with a bias that the current gathers: they get it from a neuron that always spikes, and what
whole weights leave of it as a bias, at the value that the current settles to.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.errors import UnsupportedNode
from neuroav.quantization import (
    accumulator_unit,
    exact_fraction,
    integer_bias,
    integer_threshold,
    neuron_decays,
    neuron_threshold,
)
from neuroav_export.passes.host_input import HostCurrent, host_neurons
from neuroav_export.passes.synaptic import dense
from neuroav_export.passes.values import Current, Term, Value

if TYPE_CHECKING:
    from neuroav_export.passes.quantize import Quantizer


def neuron_problems(name: str, node: rn.Lif | rn.If, dt_s: float) -> list[UnsupportedNode]:
    """Return everything about a layer of neurons that the chip's neuron cannot do."""
    leak = node.v_leak if isinstance(node, rn.Lif) else 0.0
    problems = []
    if node.reset == "value" and np.any(np.asarray(node.v_reset) != leak):
        text = f"{name}: v_reset is {_shown(node.v_reset)} and v_leak {_shown(leak)}; the chip "
        problems.append(UnsupportedNode(text + "resets to rest, use equal values", rule="reset"))
    if node.reset == "subtract" and np.any(leak):
        text = f"{name}: subtracts the threshold from neurons that rest at {_shown(leak)}; use 0"
        problems.append(UnsupportedNode(text, rule="reset"))
    if node.reset == "subtract" and node.inclusive:
        text = (
            f"{name}: subtracts a threshold that it also spikes at; the chip subtracts the level "
        )
        text += "it compares with, one unit less: let it spike above the threshold only"
        problems.append(UnsupportedNode(text, rule="reset"))
    for what in ("tau_mem_s", "tau_syn_s"):
        tau = getattr(node, what, None)
        d = dt_s / np.asarray(np.inf if tau is None else tau)
        if isinstance(node, rn.Lif) and tau is not None and not np.all((d > 0) & (d <= 1)):
            short = what.removesuffix("_s")
            text = f"{name}: dt / {short} is {_shown(d)}, needs 0 < dt / {short} <= 1"
            problems.append(UnsupportedNode(text, rule="time-constant"))
    if np.any(np.asarray(node.v_threshold) <= leak):
        text = f"{name}: v_threshold is {_shown(node.v_threshold)}, it must lie above v_leak "
        problems.append(UnsupportedNode(text + f"({_shown(leak)})", rule="threshold"))
    return problems


def _shown(value: rn.Number) -> str:
    low, high = np.min(value), np.max(value)
    return f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"


def lif(q: Quantizer, name: str, node: rn.Lif | rn.If, x: list) -> Value:
    """Put leaky neurons, or neurons without leak."""
    problems = neuron_problems(name, node, q.graph.dt_s)
    if problems:
        raise problems[0]
    if isinstance(x[0], HostCurrent):
        return host_neurons(q, name, node, x[0])
    current, shape = q.current(name, x[0]), q.graph.shapes[name]
    if isinstance(node, rn.Lif) and node.tau_syn_s is not None:
        current = _with_bias_synapses(q, name, current)
    real_threshold = neuron_threshold(node, q.graph.dt_s)
    options = q.options_of(name)
    if any(t.weight.ndim < 2 for t in current.terms):  # a skip has one weight for all channels
        options = replace(options, per_channel=False)
    unit, projections = q.synapses(name, current, options, float(np.max(real_threshold)))
    bias = current.bias + current.offset
    if current.terms[-1].source == f"{name}.bias":
        bias = _left_over(node, current.terms[-1], projections[-1], unit, q.graph.dt_s)
    mantissa, exponent, clipped = integer_bias(bias, unit, q.arith)
    q.count(name, clipped)
    if np.ndim(real_threshold):
        level, by_channel = _per_neuron(real_threshold, shape), _per_channel(unit, shape)
        threshold = integer_threshold(level, by_channel, q.arith, node.inclusive)
    else:
        threshold = integer_threshold(real_threshold, unit, q.arith, node.inclusive)
        threshold = _per_channel(threshold, shape)
    decay_u, decay_v = neuron_decays(node, q.graph.dt_s, q.arith)
    return q.put(
        name,
        ig.IntLif(
            shape,
            projections,
            _per_channel(mantissa, shape),
            exponent,
            threshold,
            decay_u,
            decay_v,
            "subtract" if node.reset == "subtract" else "zero",
        ),
        Fraction(1),
    )


def _with_bias_synapses(q: Quantizer, name: str, current: Current) -> Current:
    """Return the current with its bias as synapses from neurons that always spike.

    The chip adds a neuron's bias to its membrane, behind the synaptic current that keeps all input.
    """
    bias, shape = current.bias + current.offset, q.graph.shapes[name]
    if not bias.any():
        return current
    source, flat = f"{name}.bias", len(shape) == 1
    places = (1,) if flat else (1, *shape[1:])
    one, none = np.ones([1] * len(places), np.int64), np.zeros([1] * len(places), np.int64)
    full = (1 << q.arith.decay_bits) - 1
    q.put(source, ig.IntLif(places, (), one, 0, none, full, full + 1), Fraction(1))
    weight = np.broadcast_to(bias, shape[:1]).reshape(-1, 1)

    def make(stored: np.ndarray, bits: int, mode: str) -> ig.Projection:
        if flat:
            return ig.IntDense(source, 0, stored, bits, mode)
        stored = stored.reshape(-1, 1, 1, 1)
        return ig.IntConv2d(source, 0, stored, (1, 1), (0, 0), (1, 1), 1, bits, mode)

    term = Term(source, weight, make)
    return Current((*current.terms, term), np.zeros(1))


def _left_over(
    node: rn.Lif | rn.If, term: Term, made: ig.Projection, unit: np.ndarray, dt_s: float
) -> np.ndarray:
    """Return what whole bias synapses leave of a bias, as the membrane's, (channels,).

    At the value it settles to: a current gathers tau_syn / dt times its input.
    """
    assert isinstance(node, rn.Lif)
    assert isinstance(made, (ig.IntDense, ig.IntConv2d))
    rest = term.weight[:, 0] - made.weight.reshape(-1) * unit
    gathered = np.asarray(node.tau_syn_s) / dt_s
    return rest * (gathered if gathered.ndim == 0 or gathered.size == rest.size else gathered.max())


def _per_neuron(value: rn.Number, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers of the neurons with as many axes as ``shape``, so that units multiply them."""
    array = np.asarray(value, np.float64)
    return array.reshape([1] * (len(shape) - array.ndim) + list(array.shape))


def _per_channel(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return values per channel so that they broadcast to (C, H, W) or (C,)."""
    return values if values.size == 1 else values.reshape(-1, *[1] * (len(shape) - 1))


def membrane(q: Quantizer, name: str, node: rn.Li, x: list) -> Value:
    """Put leaky accumulators that send what they hold in every step."""
    current = q.current(name, x[0])
    unit, projections = q.synapses(name, current, replace(q.options_of(name), per_channel=False))
    bound, shift = accumulator_unit(np.array([node.peak or 0.0]), q.arith)[0], q.arith.input_shift
    while shift and bound * (1 << shift) > unit[0]:  # the sum over the steps must fit as well
        shift -= 1
    return _leaky(q, name, node, projections, unit, current.bias + current.offset, shift)


def readout(q: Quantizer, name: str, node: rn.Readout, x: list) -> Value:
    """Put the class scores."""
    source = q.graph.nodes[q.graph.inputs[name][0]]
    if isinstance(source, rn.Li):
        return _summed(q, name, node, q.message(name, x[0]))
    # the scores of all classes are compared, so they share one unit
    options = replace(q.options_of(name), per_channel=False)
    current = dense(q, name, node, x)
    unit, projections = q.synapses(name, current, options, least=node.least_unit)
    bias, shape = current.bias + current.offset, q.graph.shapes[name]
    if node.tau_mem_s is None:
        scale = exact_fraction(float(unit[0])) / q.graph.steps
        whole = np.rint(bias / unit).astype(np.int64)
        return q.put(name, ig.IntReadout(shape, projections, whole), scale)
    membrane = rn.Li(node.tau_mem_s, node.v_leak, node.tau_syn_s)
    return _leaky(q, name, membrane, projections, unit, bias, q.arith.input_shift)


def _summed(q: Quantizer, name: str, node: rn.Readout, value: Value) -> Value:
    """Put accumulators that add up what membranes hold, for the mean over the steps."""
    factor = float(node.weight[0, 0])
    plain = node.tau_mem_s is None and not node.bias.any() and factor > 0
    if not plain or not np.array_equal(node.weight, factor * np.eye(len(node.weight))):
        raise UnsupportedNode(
            f"{name}: reads membranes without threshold by weights of its own; class scores are "
            "their last value or their mean over the steps",
            rule="end",
        )
    link = value.late(ig.IntIdentity(value.name, 0, 1))
    shape = q.graph.shapes[name]
    readout = ig.IntReadout(shape, (link,), np.zeros([1] * len(shape), np.int64))
    return q.put(name, readout, value.scale * exact_fraction(factor) / q.graph.steps)


def _leaky(
    q: Quantizer,
    name: str,
    node: rn.Li,
    projections: tuple[ig.Projection, ...],
    unit: np.ndarray,
    bias: np.ndarray,
    shift: int,
) -> Value:
    """Put leaky accumulators; shift: bits by which input is finer than the unit, as its leak
    rounds toward 0."""
    shape = q.graph.shapes[name]
    membrane = rn.Lif(node.tau_mem_s, 1 + node.v_leak, 0.0, node.v_leak, tau_syn_s=node.tau_syn_s)
    problems = neuron_problems(name, membrane, q.graph.dt_s)
    if node.v_leak:
        text = f"{name}: rests at v_leak = {node.v_leak:g}; class scores rest at 0"
        problems.append(UnsupportedNode(text, rule="reset"))
    if problems:
        raise problems[0]
    decay_u, decay_v = neuron_decays(membrane, q.graph.dt_s, q.arith)
    readout = ig.IntReadout(
        shape,
        projections,
        np.rint(bias / unit * (1 << shift)).astype(np.int64),
        None if node.tau_syn_s is None else int(decay_u),
        int(decay_v),
        shift,
    )
    gain = exact_fraction(q.graph.dt_s / node.tau_mem_s)
    return q.put(name, readout, exact_fraction(float(unit[0])) * gain / (1 << shift))
