"""300 random integer graphs: the fast executor equals the reference in every output and voltage.

Each by all ways that it may choose between: whole products, events alone, and what a GPU runs.
"""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from strategies_intgraph import random_deployment, random_deployments
from ways import WAYS, forced

from neuroav import integer as ig
from neuroav.errors import ConfigError, OutOfRange
from neuroav.sim import currents, fast, populations, reference
from neuroav.sim.trace import SpikeDigest

seen: set[type] = set()
by_events: set[type] = set()


def merged(traces):
    traces = list(traces)
    return {
        **{n: np.concatenate([t.outputs[n] for t in traces]) for n in traces[0].outputs},
        **{f"v({n})": np.concatenate([t.states[n] for t in traces]) for n in traces[0].states},
    }


def run_both(deployment, inputs, batch, way=WAYS[0]):
    """Return ([reference traces], [fast traces]) merged over samples."""
    with forced(way):
        found = merged(fast.run(deployment, inputs, batch=batch, states=True))
    return merged(reference.run(deployment, inputs, states=True)), found


@settings(max_examples=300, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(random_deployments())
def test_fast_equals_reference_on_random_graphs(case):
    deployment, inputs = case
    graph = deployment.integer
    expected = merged(reference.run(deployment, inputs, states=True))
    assert any(
        expected[n].any() for n in graph.order if isinstance(graph.populations[n], ig.IntLif)
    ) or not any(isinstance(p, ig.IntLif) for p in graph.populations.values())
    for way in WAYS:
        with forced(way):
            found = merged(fast.run(deployment, inputs, batch=2, states=True))
        assert expected.keys() == found.keys()
        for name in expected:
            assert np.array_equal(expected[name], found[name]), (way, name)
    for pop in graph.populations.values():
        seen.update({type(pop), *map(type, pop.projections)})
        for p in pop.projections:
            if currents.Events.of(p, graph.populations[p.source].shape, pop.shape):
                by_events.add(type(p))


def test_the_random_graphs_covered_every_kind():
    # currents of the host need a host layer: tests/conformance/test_static_inputs.py
    assert seen == {*ig.POPULATION_CLASSES, *ig.PROJECTION_CLASSES} - {ig.IntHostCurrent}
    assert by_events == {ig.IntConv2d, ig.IntDense}


def test_short_float_formats_allowed_by_the_user_change_nothing():
    """With bfloat16 products allowed the executor computes in float64, and stays exact."""
    deployment, inputs = random_deployment(11, hidden=5, samples=5)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert not currents.float32_is_exact()
        expected, found = run_both(deployment, inputs, batch=5)
    finally:
        torch.set_float32_matmul_precision(before)
    assert currents.float32_is_exact()
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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("weight", [1, 1 << 12, 1 << 30])
def test_wide_sums_are_exact_by_every_way(way, weight):
    """Graded messages and weights that take the sums past 2^24: computed in float64."""
    graph = random_deployment(11, hidden=5, samples=4)[0].integer
    name = next(n for n in graph.order if isinstance(graph.populations[n], ig.IntReadout))
    pop = graph.populations[name]
    p = next(p for p in pop.projections if isinstance(p, (ig.IntDense, ig.IntConv2d)))
    heavy = replace(p, weight=p.weight.astype(np.int64) * weight)
    with forced(way):
        synapses = currents.Synapses(heavy, graph.populations[p.source].shape, pop.shape, "cpu")
        rng = np.random.default_rng(weight)
        sent = rng.integers(0, 50, (3, 2, *graph.populations[p.source].shape))
        messages = currents.Messages(torch.from_numpy(sent.astype(np.float64)), 50)
        found = synapses.apply(messages, torch.float64).numpy()
    light = currents.Synapses(p, graph.populations[p.source].shape, pop.shape, "cpu")
    with forced("whole products"):
        expected = light.apply(messages, torch.float64).numpy() * weight
    assert found.any()
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_threads_change_nothing_and_keep_the_order(threads, batch):
    deployment, inputs = random_deployment(11, hidden=5, samples=7)
    before, done = torch.get_num_threads(), []
    traces = list(
        fast.run(
            deployment, inputs, batch=batch, threads=threads, states=True,
            progress=lambda now, total: done.append((now, total)),
        )
    )  # fmt: skip
    assert [t.first for t in traces] == sorted(t.first for t in traces)
    assert max(t.samples for t in traces) <= min(batch, -(-7 // threads))
    assert done[-1] == (7, 7)
    assert torch.get_num_threads() == before
    expected = merged(reference.run(deployment, inputs, states=True))
    found = merged(traces)
    assert any(expected[n].any() for n in deployment.integer.order if n not in inputs)
    assert all(np.array_equal(expected[n], found[n]) for n in expected)


def test_an_error_in_a_thread_is_raised_and_the_others_end():
    deployment, inputs = random_deployment(11, hidden=5, samples=6)
    run = fast.run(deployment, inputs, batch=1, threads=2)
    with (
        mock.patch.object(populations.Layer, "output", side_effect=OutOfRange("here: too large")),
        pytest.raises(OutOfRange, match="here: too large"),
    ):
        next(run)
    next(stopped := fast.run(deployment, inputs, batch=1, threads=2))
    stopped.close()  # a caller that has seen enough
    assert list(stopped) == []


def test_memory_is_shared_by_the_threads():
    deployment, inputs = random_deployment(11, hidden=5, samples=6)
    need = fast.sample_bytes(deployment.integer)
    for memory, largest in ((4 * need, 2), (2 * need, 1), (1, 1)):
        traces = list(fast.run(deployment, inputs, memory_bytes=memory, threads=2))
        assert max(t.samples for t in traces) == largest


@pytest.mark.parametrize("device", ["tpu", "mps:0", ""])
def test_other_devices_are_refused(device):
    deployment, inputs = random_deployment(11, samples=1)
    with pytest.raises(ConfigError, match="runs on cpu or cuda"):
        next(fast.run(deployment, inputs, device=device))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU")
def test_a_gpu_gives_the_same():
    for seed in range(100):
        deployment, inputs = random_deployment(seed, hidden=8, samples=5)
        expected = merged(reference.run(deployment, inputs, states=True))
        found = merged(fast.run(deployment, inputs, device="cuda", states=True))
        assert all(np.array_equal(expected[n], found[n]) for n in expected)


def test_a_missing_gpu_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    deployment, inputs = random_deployment(11, samples=1)
    with pytest.raises(ConfigError, match="torch finds no GPU here"):
        next(fast.run(deployment, inputs, device="cuda"))
