"""300 random integer graphs: the fast executor equals the reference in every output and voltage."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from strategies_intgraph import random_deployment, random_deployments

from neuroav import integer as ig
from neuroav.sim import fast, reference
from neuroav.sim.trace import SpikeDigest

seen: set[type] = set()


def run_both(deployment, inputs, batch):
    """Return ([reference traces], [fast traces]) merged over samples."""
    merged = []
    for run, options in ((reference.run, {}), (fast.run, {"batch": batch})):
        traces = list(run(deployment, inputs, states=True, **options))
        merged.append(
            {
                **{n: np.concatenate([t.outputs[n] for t in traces]) for n in traces[0].outputs},
                **{f"v({n})": np.concatenate([t.states[n] for t in traces])
                   for n in traces[0].states},
            }
        )  # fmt: skip
    return merged


@settings(max_examples=300, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(random_deployments())
def test_fast_equals_reference_on_random_graphs(case):
    deployment, inputs = case
    graph = deployment.integer
    expected, found = run_both(deployment, inputs, batch=2)
    assert any(
        expected[n].any() for n in graph.order if isinstance(graph.populations[n], ig.IntLif)
    ) or not any(isinstance(p, ig.IntLif) for p in graph.populations.values())
    assert expected.keys() == found.keys()
    for name in expected:
        assert np.array_equal(expected[name], found[name]), name
    for pop in graph.populations.values():
        seen.update({type(pop), *map(type, pop.projections)})


def test_the_random_graphs_covered_every_kind():
    # currents of the host need a host layer: tests/conformance/test_static_inputs.py
    assert seen == {*ig.POPULATION_CLASSES, *ig.PROJECTION_CLASSES} - {ig.IntHostCurrent}


def test_short_float_formats_allowed_by_the_user_change_nothing():
    """With bfloat16 products allowed the executor computes in float64, and stays exact."""
    deployment, inputs = random_deployment(11, hidden=5, samples=5)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert not fast._float32_is_exact()
        expected, found = run_both(deployment, inputs, batch=5)
    finally:
        torch.set_float32_matmul_precision(before)
    assert fast._float32_is_exact()
    assert all(np.array_equal(expected[n], found[n]) for n in expected)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_digest_does_not_depend_on_batching(batch):
    deployment, inputs = random_deployment(11, hidden=5, samples=5)

    def digest(run, **options):
        total = SpikeDigest(deployment.integer)
        for trace in run(deployment, inputs, **options):
            total.add(trace)
        return total.hexdigest()

    assert digest(fast.run, batch=batch) == digest(reference.run)
