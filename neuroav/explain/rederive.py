"""The integers of a population, derived again from the real-valued twin inside the file.

The file does not hold the synaptic unit, nor which calibration chose it. Both are found by trial:
the settings that give back the file's own integers. What they do not give back was altered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.deployment import Deployment
from neuroav.fixed import Arithmetic
from neuroav.graph import SpikingGraph
from neuroav.quantization import (
    CALIBRATIONS,
    Options,
    choose_unit,
    exact_fraction,
    integer_bias,
    integer_decay,
    integer_threshold,
    integer_weights,
)

REPRODUCED = 0.9  # share of a population's weights that settings must give back to be believed


@dataclass(frozen=True, eq=False)
class Term:
    """Real weight per message of ``source``; least: smallest unit allowed, None for any."""

    source: str
    weight: np.ndarray
    least: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Synapses:
    """A population's real synaptic input: terms, and bias with what its messages round down."""

    terms: tuple[Term, ...]
    bias: np.ndarray = field(default_factory=lambda: np.zeros(1))

    def times(self, factor: float) -> Synapses:
        """Return the input multiplied by a constant."""
        terms = tuple(replace(t, weight=t.weight * factor) for t in self.terms)
        return Synapses(terms, self.bias * factor)


@dataclass(frozen=True, eq=False)
class Derived:
    """A population as the twin gives it.

    unit: real synaptic input of integer weight 1, (1,) or (channels,). population: with the derived
    integers. settings: what gave them, None where no settings do (then ``unit`` is a fit and
    ``population`` the file's own).
    """

    unit: np.ndarray
    population: ig.Population
    settings: Options | None


def offset(pop: ig.Population, scale: Fraction) -> Fraction:
    """Return what a message rounds down on average, real: half of the bits it drops."""
    shift = getattr(pop, "shift", 0)
    return scale * ((1 << shift) - 1) / (2 << shift)


def synapses(deployment: Deployment, name: str) -> Synapses | None:
    """Return the real synaptic input of population ``name``; None where the twin has none."""
    node, real = deployment.real.nodes.get(name), deployment.real
    if isinstance(node, rn.Readout):
        return _layer(deployment, name, node)
    if not isinstance(node, rn.Lif):
        return None
    return _current(deployment, real.inputs[name][0])


def _message(deployment: Deployment, name: str) -> tuple[str, Fraction, Fraction] | None:
    """Return (population, scale, offset) of a node that is messages, None for currents."""
    graph, real = deployment.integer, deployment.real
    if name in graph.populations:
        scale = Fraction(*graph.scales[name])
        return name, scale, offset(graph.populations[name], scale)
    node = real.nodes[name]
    if not isinstance(node, (rn.Scale, rn.Flatten)):
        return None
    inner = _message(deployment, real.inputs[name][0])
    factor = exact_fraction(node.factor) if isinstance(node, rn.Scale) else Fraction(1)
    return inner and (inner[0], inner[1] * factor, inner[2] * factor)


def _layer(
    deployment: Deployment, name: str, node: rn.Conv2d | rn.Dense | rn.Readout
) -> Synapses | None:
    found = _message(deployment, deployment.real.inputs[name][0])
    if found is None:
        return None
    source, scale, below = found
    bias = np.zeros(1) if node.bias is None else node.bias
    if not isinstance(node, rn.Conv2d):
        bias = bias + node.weight.sum(axis=1) * float(below)
    return Synapses((Term(source, node.weight * float(scale), node.least_unit),), bias)


def _current(deployment: Deployment, name: str) -> Synapses | None:
    real = deployment.real
    if message := _message(deployment, name):
        source, scale, below = message
        return Synapses((Term(source, np.array([float(scale)])),), np.array([float(below)]))
    node = real.nodes[name]
    if isinstance(node, (rn.Conv2d, rn.Dense)):
        return _layer(deployment, name, node)
    parts = [_current(deployment, s) for s in real.inputs[name]]
    known = [p for p in parts if p is not None]
    if len(known) < len(parts) or not isinstance(node, (rn.Add, rn.Scale)):
        return None
    if isinstance(node, rn.Scale):
        return known[0].times(node.factor)
    bias = np.sum(np.broadcast_arrays(*[p.bias for p in known]), axis=0)
    return Synapses(tuple(t for p in known for t in p.terms), bias)


def per_channel(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return values per channel so that they broadcast to (C, H, W) or (C,)."""
    return values if values.size == 1 else values.reshape(-1, *[1] * (len(shape) - 1))


def derive(deployment: Deployment, name: str) -> Derived | None:
    """Return the population as the twin gives it; None where it has no weights or no twin."""
    pop, found = deployment.integer.populations[name], synapses(deployment, name)
    if found is None or not isinstance(pop, (ig.IntLif, ig.IntReadout)):
        return None
    if [t.source for t in found.terms] != [p.source for p in pop.projections]:
        return None
    arith, node = deployment.profile.arithmetic, deployment.real.nodes[name]
    threshold = real_threshold(node, deployment.real) if isinstance(node, rn.Lif) else 0.0
    if isinstance(deployment.integer.populations[pop.projections[0].source], ig.IntHostCurrent):
        unit = np.array([threshold / (arith.bias_max - 1)])
        made = _lif(pop, node, found.bias, unit, threshold, deployment.real, arith)
        return Derived(unit, made, Options())
    best, least = None, np.inf
    for options in _candidates(deployment, pop):
        trial = _with(pop, found, node, threshold, options, deployment.real, arith)
        wrong = _share_changed(pop, trial.population)
        if wrong < least:
            best, least = trial, wrong
        if wrong == 0:
            break
    if best is None or least > 1 - REPRODUCED:
        return Derived(_fitted(pop, found), pop, None)
    return best


def real_threshold(node: rn.Lif, graph: SpikingGraph) -> float:
    """Return the threshold on V = (v - v_leak) / d, in units of the synaptic input."""
    return (node.v_threshold - node.v_leak) / (graph.dt_s / node.tau_mem_s)


def _candidates(deployment: Deployment, pop: ig.Population) -> list[Options]:
    """Return all settings a population may have been made with, the file's own first."""
    given: Mapping[str, Any] = deployment.provenance
    widths = [p.weight_bits for p in pop.projections if hasattr(p, "weight_bits")]
    bits = widths[0] if widths else int(given.get("weight_bits", 8))
    own = (given.get("calibration"), given.get("per_channel"))
    pairs = sorted(product(CALIBRATIONS, (False, True)), key=lambda pair: pair != own)
    return [Options(bits, calibration, per_channel=each) for calibration, each in pairs]


def _with(
    pop: ig.IntLif | ig.IntReadout,
    found: Synapses,
    node: Any,
    threshold: float,
    options: Options,
    real: SpikingGraph,
    arith: Arithmetic,
) -> Derived:
    """Return the population that these settings give."""
    if isinstance(pop, ig.IntReadout) or any(t.weight.ndim < 2 for t in found.terms):
        options = replace(options, per_channel=False)
    limits = [t.least for t in found.terms if t.least is not None]
    bound = np.max(np.broadcast_arrays(*limits), axis=0) if limits else None
    weights = [t.weight for t in found.terms]
    unit = choose_unit(weights, threshold, options, arith, bound)
    values = np.unique(np.concatenate([w.reshape(-1) for w in weights]))
    if len(values) == 1 and values[0] > 0 and not (isinstance(pop, ig.IntReadout) and limits):
        unit = np.full_like(unit, values[0] / (1 << (arith.weight_bits - 1)))
        unit = np.maximum(unit, threshold / arith.threshold_max)
    parts = []
    for term, p in zip(found.terms, pop.projections, strict=True):
        stored = integer_weights(term.weight, unit, options, arith)[0]
        single = isinstance(p, ig.IntIdentity)
        parts.append(replace(p, weight=int(stored.reshape(-1)[0]) if single else stored))  # type: ignore[call-arg]
    made = replace(pop, projections=tuple(parts))
    if isinstance(made, ig.IntReadout):
        bias = np.rint(found.bias / unit).astype(np.int64)
        return Derived(unit, replace(made, bias=bias), options)
    return Derived(unit, _lif(made, node, found.bias, unit, threshold, real, arith), options)


def _lif(pop, node, bias, unit, threshold, real: SpikingGraph, arith: Arithmetic) -> ig.IntLif:
    """Return the neurons with threshold, bias and decay in this unit."""
    mantissa, exponent, _ = integer_bias(bias, unit, arith)
    level = integer_threshold(threshold, unit, arith, node.inclusive)
    return replace(
        pop,
        bias_mantissa=per_channel(mantissa, pop.shape),
        bias_exponent=exponent,
        threshold=per_channel(level, pop.shape),
        decay_u=(1 << arith.decay_bits) - 1,
        decay_v=integer_decay(real.dt_s / node.tau_mem_s, arith),
    )


def _weights(pop: ig.Population) -> np.ndarray:
    parts = [np.asarray(p.weight).reshape(-1) for p in pop.projections if hasattr(p, "weight")]
    return np.concatenate(parts)


def _share_changed(pop: ig.Population, made: ig.Population) -> float:
    """Return how unlike two populations are: share of weights, and a little for the threshold."""
    wrong = float((_weights(pop) != _weights(made)).mean())
    if isinstance(pop, ig.IntLif) and isinstance(made, ig.IntLif):
        level = np.broadcast_arrays(pop.threshold, made.threshold)
        wrong += 1e-6 * float((level[0] != level[1]).mean())
    return wrong


def _fitted(pop: ig.Population, found: Synapses) -> np.ndarray:
    """Return the unit with the least squared error between real and integer weights, (1,)."""
    real = np.concatenate([t.weight.reshape(-1) for t in found.terms])
    whole = _weights(pop).astype(np.float64)
    if len(real) != len(whole) or not whole.any():
        return np.ones(1)
    return np.array([float(real @ whole / (whole @ whole))])
