"""Static bounds hold on every run, and are reached by the input made to reach them."""

from __future__ import annotations

import numpy as np
import pytest
from accumulators import observed
from hypothesis import HealthCheck, given, settings
from strategies_intgraph import make_deployment, random_deployments

from neuroav import integer as ig
from neuroav.bounds import bounds, unproven
from neuroav.hardware import load_profile

ARITH = load_profile("loihi2").arithmetic


@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(random_deployments())
def test_every_run_stays_inside_its_bounds(case):
    deployment, inputs = case
    found = bounds(deployment.integer, ARITH)
    spans = observed(deployment, inputs)
    assert len(spans) >= len(found) > 0
    for (name, index), (low, high) in spans.items():
        bound = found[name][index]
        assert bound.low <= low, (name, bound)
        assert high <= bound.high, (name, bound)


def lif_network(weight, *, bias=0, decay_u=4095, decay_v=2048, threshold=900, steps=6, top=7):
    dense = ig.IntDense("x", 0, np.array(weight), 8, "mixed")
    lif = ig.IntLif((len(weight),), (dense,), np.array([bias]), 0, np.array([threshold]), decay_u,
                    decay_v)  # fmt: skip
    read = ig.IntDense("m", 0, np.full((2, len(weight)), 2), 8, "excitatory")
    out = ig.IntReadout((2,), (read,), np.array([-3, 5]))
    inputs = ig.IntInput((len(weight[0]),), (), top)
    return make_deployment({"x": inputs, "m": lif, "r": out}, "r", steps)


@pytest.mark.parametrize("decay_u", [4095, 1000])
def test_the_current_bound_is_reached(decay_u):
    deployment = lif_network([[20, -14, 6], [-2, 8, -30]], decay_u=decay_u)
    (current, voltage), _ = bounds(deployment.integer, ARITH).values()
    worst = {"x": np.zeros((3, 6, 3), np.int64)}
    worst["x"][0, :, [0, 2]] = 7  # the most positive sum of neuron 0
    worst["x"][1, :, [0, 2]] = 7  # the most negative sum of neuron 1
    spans = observed(deployment, worst)
    assert spans["m", 0] == (current.low, current.high)
    assert spans["m", 1][0] == voltage.low


def test_the_readout_bound_counts_steps_and_bias():
    deployment = lif_network([[20]], steps=4)
    (bound,) = bounds(deployment.integer, ARITH)["r"]
    assert (bound.low, bound.high) == (4 * -3, 4 * (2 + 5))


def test_what_cannot_be_proven_is_named():
    deployment = lif_network([[254]], top=255, decay_u=0)
    found = unproven(bounds(deployment.integer, ARITH))
    assert list(found) == ["m"]
    assert "the synaptic current can span 0.." in found["m"][0]
    assert "the register holds -8388607..8388607" in found["m"][0]
    assert unproven(bounds(lif_network([[254]], top=15).integer, ARITH)) == {}
