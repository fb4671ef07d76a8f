"""The integers of a population, derived again from the real-valued twin inside the file.

The file does not hold the synaptic unit, nor which calibration chose it. Both are found by trial:
the settings that give back the file's own integers. What they do not give back was altered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product
from typing import Any, NamedTuple

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
    integer_threshold,
    integer_weights,
    neuron_decays,
    neuron_threshold,
)

REPRODUCED = 0.9  # share of a population's weights that settings must give back to be believed


@dataclass(frozen=True, eq=False)
class Term:
    """Real weight (out, ...) per message of ``source``; least: smallest unit allowed, None for any.

    lag: frames that the message comes late.
    """

    source: str
    weight: np.ndarray
    least: np.ndarray | None = None
    lag: int = 0


class Message(NamedTuple):
    """Messages m of a population, worth ``scale`` * m + ``below``, ``lag`` frames late."""

    source: str
    scale: Fraction
    below: Fraction
    lag: int = 0


@dataclass(frozen=True, eq=False)
class Synapses:
    """A population's real synaptic input: terms, and bias with what its messages round down.

    apart: whether the last term is the bias, from neurons that always spike.
    """

    terms: tuple[Term, ...]
    bias: np.ndarray = field(default_factory=lambda: np.zeros(1))
    apart: bool = False

    def times(self, factor: float) -> Synapses:
        """Return the input multiplied by a constant."""
        terms = tuple(replace(t, weight=t.weight * factor) for t in self.terms)
        return Synapses(terms, self.bias * factor)

    def late(self, steps: int) -> Synapses:
        """Return the input of so many frames ago."""
        return Synapses(tuple(replace(t, lag=t.lag + steps) for t in self.terms), self.bias)


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
        before = real.nodes[real.inputs[name][0]]
        return None if isinstance(before, rn.Li) else _layer(deployment, name, node)
    if not isinstance(node, (rn.Lif, rn.If, rn.Li)):
        return None
    found = _current(deployment, real.inputs[name][0])
    if found and isinstance(node, rn.Lif) and node.tau_syn_s is not None:
        return _with_bias_synapses(found, name, real.shapes[name])
    return found


def _with_bias_synapses(found: Synapses, name: str, shape: tuple[int, ...]) -> Synapses:
    """Return the input of neurons with a synaptic current, where the bias comes by synapses too."""
    if not found.bias.any():
        return found
    weight = np.broadcast_to(found.bias, shape[:1]).reshape(-1, 1)
    return Synapses((*found.terms, Term(f"{name}.bias", weight)), apart=True)


def _message(deployment: Deployment, name: str) -> Message | None:
    """Return what a node is messages of, None for currents."""
    graph, real = deployment.integer, deployment.real
    if name in graph.populations:
        scale = Fraction(*graph.scales[name])
        return Message(name, scale, offset(graph.populations[name], scale))
    node = real.nodes[name]
    if not isinstance(node, (rn.Scale, rn.Flatten, rn.Delay)):
        return None
    inner = _message(deployment, real.inputs[name][0])
    if inner is None or isinstance(node, rn.Flatten):
        return inner
    if isinstance(node, rn.Delay):
        return inner._replace(lag=inner.lag + node.steps)
    factor = exact_fraction(node.factor)
    return inner._replace(scale=inner.scale * factor, below=inner.below * factor)


Layer = rn.Conv2d | rn.ConvTranspose2d | rn.Dense | rn.Readout


def _layer(deployment: Deployment, name: str, node: Layer) -> Synapses | None:
    found = _message(deployment, deployment.real.inputs[name][0])
    if found is None:
        return None
    weight, bias = node.weight, np.zeros(1) if node.bias is None else node.bias
    if isinstance(node, rn.ConvTranspose2d):
        weight = turned(weight, node.groups)
    elif not isinstance(node, rn.Conv2d):
        bias = bias + weight.sum(axis=1) * float(found.below)
    term = Term(found.source, weight * float(found.scale), node.least_unit, found.lag)
    return Synapses((term,), bias)


def turned(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return (in, out / groups, ...) weights as (out, in / groups, ...), or the other way."""
    split = weight.reshape(groups, -1, *weight.shape[1:]).swapaxes(1, 2)
    return np.ascontiguousarray(split.reshape(-1, *split.shape[2:]))


def _current(deployment: Deployment, name: str) -> Synapses | None:
    real = deployment.real
    if message := _message(deployment, name):
        term = Term(message.source, np.array([float(message.scale)]), lag=message.lag)
        return Synapses((term,), np.array([float(message.below)]))
    node = real.nodes[name]
    if isinstance(node, (rn.Conv2d, rn.ConvTranspose2d, rn.Dense)):
        return _layer(deployment, name, node)
    parts = [_current(deployment, s) for s in real.inputs[name]]
    known = [p for p in parts if p is not None]
    if len(known) < len(parts) or not isinstance(node, (rn.Add, rn.Scale, rn.Delay)):
        return None
    if isinstance(node, rn.Scale):
        return known[0].times(node.factor)
    if isinstance(node, rn.Delay):
        return known[0].late(node.steps)
    bias = np.sum(np.broadcast_arrays(*[p.bias for p in known]), axis=0)
    return Synapses(tuple(t for p in known for t in p.terms), bias)


def per_channel(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return values per channel so that they broadcast to (C, H, W) or (C,)."""
    return values if values.size == 1 else values.reshape(-1, *[1] * (len(shape) - 1))


def per_neuron(value: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return numbers of the neurons with as many axes as ``shape``, so that units multiply them."""
    array = np.asarray(value, np.float64)
    return array.reshape([1] * (len(shape) - array.ndim) + list(array.shape))


def derive(deployment: Deployment, name: str) -> Derived | None:
    """Return the population as the twin gives it; None where it has no weights or no twin."""
    pop, found = deployment.integer.populations[name], synapses(deployment, name)
    if found is None or not isinstance(pop, (ig.IntLif, ig.IntReadout)):
        return None
    if [t.source for t in found.terms] != [p.source for p in pop.projections]:
        return None
    arith, node = deployment.profile.arithmetic, deployment.real.nodes[name]
    threshold: Any = 0.0
    if isinstance(node, (rn.Lif, rn.If)):
        threshold = neuron_threshold(node, deployment.real.dt_s)
    if isinstance(deployment.integer.populations[pop.projections[0].source], ig.IntHostCurrent):
        unit = np.array([np.max(threshold) / (arith.bias_max - 1)])
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


def _candidates(deployment: Deployment, pop: ig.Population) -> list[Options]:
    """Return all settings a population may have been made with, the file's own first.

    ``bits`` is the width of synapses that keep none of their own, such as that of a bare message.
    """
    given: Mapping[str, Any] = deployment.provenance
    widths = [p.weight_bits for p in pop.projections if hasattr(p, "weight_bits")]
    bits = dict.fromkeys([int(given.get("weight_bits", 8)), *widths, 8])
    if len(widths) == len(pop.projections):
        bits = dict.fromkeys(widths[:1])
    own = (given.get("calibration"), given.get("per_channel"))
    pairs = sorted(product(CALIBRATIONS, (False, True)), key=lambda pair: pair != own)
    return [Options(b, calibration, per_channel=each) for b in bits for calibration, each in pairs]


def _with(
    pop: ig.IntLif | ig.IntReadout,
    found: Synapses,
    node: Any,
    threshold: Any,
    options: Options,
    real: SpikingGraph,
    arith: Arithmetic,
) -> Derived:
    """Return the population that these settings give; widths are those of the file's synapses."""
    if isinstance(pop, ig.IntReadout) or any(t.weight.ndim < 2 for t in found.terms):
        options = replace(options, per_channel=False)
    limits = [t.least for t in found.terms if t.least is not None]
    bound = np.max(np.broadcast_arrays(*limits), axis=0) if limits else None
    weights, level = [t.weight for t in found.terms], float(np.max(threshold))
    widths = [getattr(p, "weight_bits", options.bits) for p in pop.projections]
    unit = choose_unit(weights, level, options, arith, bound, widths)
    values = np.unique(np.concatenate([w.reshape(-1) for w in weights]))
    if len(values) == 1 and values[0] > 0 and not (isinstance(node, rn.Readout) and limits):
        unit = np.full_like(unit, values[0] / (1 << (arith.weight_bits - 1)))
        unit = np.maximum(unit, level / arith.threshold_max)
    parts = tuple(
        _stored(p, term, unit, replace(options, bits=bits), arith)
        for p, term, bits in zip(pop.projections, found.terms, widths, strict=True)
    )
    made, bias = replace(pop, projections=parts), found.bias
    if isinstance(made, ig.IntReadout):
        whole = np.rint(bias / unit * (1 << made.input_shift)).astype(np.int64)
        return Derived(unit, _readout(replace(made, bias=whole), node, real, arith), options)
    if found.apart:
        bias = _left_over(found.terms[-1], parts[-1], unit, node.tau_syn_s, real.dt_s)
    return Derived(unit, _lif(made, node, bias, unit, threshold, real, arith), options)


def _left_over(
    term: Term, made: ig.Projection, unit: np.ndarray, tau_syn_s: Any, dt_s: float
) -> np.ndarray:
    """Return what whole bias synapses leave of a bias, as the membrane's, (channels,).

    At the value it settles to: a current gathers tau_syn / dt times its input.
    """
    rest = term.weight[:, 0] - made.weight.reshape(-1) * unit  # type: ignore[attr-defined]
    gathered = np.asarray(tau_syn_s) / dt_s
    return rest * (gathered if gathered.ndim == 0 or gathered.size == rest.size else gathered.max())


def _stored(
    p: ig.Projection, term: Term, unit: np.ndarray, options: Options, arith: Arithmetic
) -> ig.Projection:
    """Return the synapses with the weights and the lag of the twin."""
    weight: Any = integer_weights(term.weight, unit, options, arith)[0]
    if isinstance(p, ig.IntConvTranspose2d):
        weight = turned(weight, p.groups)
    if isinstance(p, ig.IntIdentity):
        return replace(p, weight=int(weight.reshape(-1)[0]), lag=term.lag)
    return replace(p, weight=weight.reshape(p.weight.shape), lag=term.lag)  # type: ignore[attr-defined, call-arg]


def _readout(
    pop: ig.IntReadout, node: rn.Readout | rn.Li, real: SpikingGraph, arith: Arithmetic
) -> ig.IntReadout:
    """Return the readout with the leaks of the twin."""
    if node.tau_mem_s is None:
        return pop
    membrane = rn.Lif(node.tau_mem_s, 1.0, 0.0, 0.0, tau_syn_s=node.tau_syn_s)
    decay_u, decay_v = neuron_decays(membrane, real.dt_s, arith)
    current = None if node.tau_syn_s is None else int(decay_u)
    return replace(pop, decay_u=current, decay_v=int(decay_v))


def _lif(pop, node, bias, unit, threshold, real: SpikingGraph, arith: Arithmetic) -> ig.IntLif:
    """Return the neurons with threshold, bias and decay in this unit."""
    mantissa, exponent, _ = integer_bias(bias, unit, arith)
    if np.ndim(threshold):
        level = per_neuron(threshold, pop.shape), per_channel(unit, pop.shape)
        whole = integer_threshold(*level, arith, node.inclusive)
    else:
        whole = per_channel(integer_threshold(threshold, unit, arith, node.inclusive), pop.shape)
    decay_u, decay_v = neuron_decays(node, real.dt_s, arith)
    return replace(
        pop,
        bias_mantissa=per_channel(mantissa, pop.shape),
        bias_exponent=exponent,
        threshold=whole,
        decay_u=decay_u,
        decay_v=decay_v,
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
