"""Whether the integers of synapses and neurons fit the target's memories and registers.

Part of ``stages.verify_integer``, which also checks how populations fit together.
"""

from __future__ import annotations

import numpy as np

from neuroav import integer as ig
from neuroav.fixed import Arithmetic, sign_mode, truncate_weights


def weight_problems(p: ig.Projection, arith: Arithmetic) -> list[str]:
    """Return a line for everything about a projection's weights that the synapses cannot hold."""
    if isinstance(p, (ig.IntIdentity, ig.IntPlace)):
        low, high = -(1 << arith.weight_bits), (1 << arith.weight_bits) - 1
        fits = p.weight != 0 and low <= p.weight <= high
        return [] if fits else [f"weight {p.weight} must be non-zero in {low}..{high}"]
    if not isinstance(p, (ig.IntConv2d, ig.IntConvTranspose2d, ig.IntDense)):
        return []
    if not 1 <= p.weight_bits <= arith.weight_bits:
        return [f"weight_bits is {p.weight_bits}, allowed 1..{arith.weight_bits}"]
    if sign_mode(p.weight) not in (p.sign_mode, "excitatory") and p.sign_mode != "mixed":
        return [f"sign mode {p.sign_mode} does not hold these weights"]
    stored = truncate_weights(p.weight, p.weight_bits, p.sign_mode, arith.weight_bits)
    wrong = int((stored != p.weight).sum())
    return (
        [f"{wrong} weights are not storable at {p.weight_bits} bits, {p.sign_mode}"]
        if wrong
        else []
    )


def neuron_problems(name: str, pop: ig.Population, steps: int, arith: Arithmetic) -> list[str]:
    """Return a line for every number of a population that its registers cannot hold.

    steps: frames per sample.
    """
    if isinstance(pop, ig.IntReadout):
        return _readout_problems(name, pop, arith)
    if isinstance(pop, (ig.IntTimeSum, ig.IntProduct)):
        return _shift_problems(name, pop, steps)
    return _lif_problems(name, pop, arith) if isinstance(pop, ig.IntLif) else []


def _shift_problems(name: str, pop: ig.IntTimeSum | ig.IntProduct, steps: int) -> list[str]:
    problems = []
    if type(pop.shift) is not int or not 0 <= pop.shift <= ig.SHIFT_MAX:
        problems.append(f"{name}: shift is {pop.shift!r}, allowed 0..{ig.SHIFT_MAX}")
    weights = pop.weights if isinstance(pop, ig.IntTimeSum) else ()
    top = ig.STEP_WEIGHT_MAX
    if not isinstance(weights, tuple) or any(type(w) is not int for w in weights):
        problems.append(f"{name}: step weights must be integers, found {weights!r:.60}")
    elif weights and (len(weights) != steps or any(abs(w) > top for w in weights)):
        problems.append(
            f"{name}: {len(weights)} step weights span {min(weights)}..{max(weights)}, needs "
            f"{steps} in -{top}..{top}"
        )
    return problems


def _readout_problems(name: str, pop: ig.IntReadout, arith: Arithmetic) -> list[str]:
    problems = _broadcast_problem(name, "bias", pop.bias, pop.shape)
    full = 1 << arith.decay_bits
    for what, value, low, high in (
        ("decay_u", full - 1 if pop.decay_u is None else pop.decay_u, -1, full - 1),
        ("decay_v", pop.decay_v, 0, full),
        ("input_shift", pop.input_shift, 0, arith.input_shift),
    ):
        if type(value) is not int or not low <= value <= high:
            problems.append(f"{name}: {what} is {value!r}, allowed {low}..{high}")
    return problems


def _lif_problems(name: str, pop: ig.IntLif, arith: Arithmetic) -> list[str]:
    problems = _broadcast_problem(
        name, "bias_mantissa", pop.bias_mantissa, pop.shape
    ) + _broadcast_problem(name, "threshold", pop.threshold, pop.shape)
    for what in ("decay_u", "decay_v"):
        problems += _broadcast_problem(name, what, np.asarray(getattr(pop, what)), pop.shape)
    if pop.reset not in ig.RESETS:
        problems.append(f"{name}: reset is {pop.reset!r}, allowed {', '.join(ig.RESETS)}")
    checks = (
        ("bias_mantissa", pop.bias_mantissa, -arith.bias_max, arith.bias_max),
        ("bias_exponent", np.asarray(pop.bias_exponent), 0, arith.bias_exponent_max),
        ("threshold", pop.threshold, 0, arith.threshold_max),
        ("decay_u", np.asarray(pop.decay_u), -1, (1 << arith.decay_bits) - 1),
        ("decay_v", np.asarray(pop.decay_v), 0, 1 << arith.decay_bits),
    )
    for what, value, low, high in checks:
        if value.min(initial=low) < low or value.max(initial=high) > high:
            problems.append(
                f"{name}: {what} spans {value.min()}..{value.max()}, allowed {low}..{high}"
            )
    return problems


def _broadcast_problem(name: str, what: str, value: np.ndarray, shape) -> list[str]:
    try:
        np.broadcast_to(value, shape)
        return []
    except ValueError:
        return [f"{name}: {what} of shape {value.shape} does not broadcast to {shape}"]
