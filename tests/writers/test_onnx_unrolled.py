"""The model of whole samples equals the executors, whatever the network and the optimizations."""

from __future__ import annotations

import fusion
import numpy as np
import onnx
import pytest
import samples
from onnx.reference import ReferenceEvaluator
from onnx_runs import LEVELS, by_reference, loop, metadata, recurrent, session, transposed, whole
from strategies_intgraph import make_deployment, random_deployment

from neuroav import integer as ig
from neuroav import navfile
from neuroav.sim import fast
from neuroav.sim.trace import collect
from neuroav_export import compile_module
from neuroav_export.writers import convert
from neuroav_export.writers import onnx as writer

seen: set[type] = set()


def assert_equal(found, expected, graph):
    """Outputs of all populations and the class scores; no flag."""
    assert not found.pop(writer.FLAG).any()
    assert np.array_equal(found.pop(writer.SCORES), expected[graph.output][:, -1])
    assert found.keys() == {n for n in graph.order if n not in graph.inputs}
    for name, value in found.items():
        assert np.array_equal(value, expected[name]), name


def unrolled(deployment):
    model = writer.make_model(deployment, "unrolled")
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True)
    return model


@pytest.mark.parametrize("seed", range(30))
def test_random_graphs(seed, fast_outputs):
    deployment, inputs = random_deployment(seed, hidden=5)
    model = unrolled(deployment)
    found = whole(session(model).run, model, inputs)
    assert_equal(found, fast_outputs(deployment, inputs), deployment.integer)
    for pop in deployment.integer.populations.values():
        seen.update({type(pop), *map(type, pop.projections)})


def test_the_random_graphs_covered_every_kind():
    every = {*ig.POPULATION_CLASSES, *ig.PROJECTION_CLASSES}
    assert seen == every - {ig.IntHostCurrent}


@pytest.mark.parametrize("seed", range(3))
def test_random_graphs_in_onnx_own_evaluator(seed, fast_outputs):
    deployment, inputs = random_deployment(seed, hidden=3)
    model = unrolled(deployment)
    found = whole(ReferenceEvaluator(model).run, model, inputs)
    assert_equal(found, fast_outputs(deployment, inputs), deployment.integer)


@pytest.mark.parametrize(
    ("network", "evaluator"),
    [(recurrent, "onnxruntime"), (recurrent, "onnx"), (transposed, "onnxruntime")],
)
def test_loops_lags_leaks_and_resets(network, evaluator):
    deployment = network()
    rng, graph = np.random.default_rng(2), deployment.integer
    inputs = {n: rng.integers(0, 4, (5, graph.steps, *p.shape)) for n, p in graph.inputs.items()}
    expected = by_reference(deployment, inputs)
    lifs = [n for n, p in graph.populations.items() if isinstance(p, ig.IntLif)]
    assert all(0.1 < expected[n].mean() < 0.9 for n in lifs)
    model = unrolled(deployment)
    run = session(model).run if evaluator == "onnxruntime" else ReferenceEvaluator(model).run
    assert_equal(whole(run, model, inputs), expected, graph)


def test_neurons_that_live_on_their_biases():
    """A loop that nothing reaches from outside."""
    bias, level = np.array([50, 0]), np.array([60])
    across = ig.IntDense("a", 0, np.array([[0, 0], [120, 0]]), 8, "mixed", lag=1)
    graph = {
        "in": ig.IntInput((2,), (), 1),
        "a": ig.IntLif((2,), (across,), bias, 6, level, 4095, 0),
        "out": ig.IntReadout(
            (2,), (ig.IntIdentity("a", 0, 1), ig.IntIdentity("in", 1, 1)), np.zeros(1, int)
        ),
    }
    deployment = make_deployment(graph, "out", 6)
    inputs = {"in": np.ones((2, 6, 2), np.int64)}
    expected = by_reference(deployment, inputs)
    assert expected["a"][0].sum(axis=0).tolist() == [3, 2]
    model = unrolled(deployment)
    assert_equal(whole(session(model).run, model, inputs), expected, deployment.integer)


@pytest.fixture(scope="module")
def attention():
    """Spatial and temporal attention, products and sums over a sample."""
    model, inputs = samples.awake_scmrl(), samples.poisson_inputs(4, 4, seed=5)
    return compile_module(model, inputs), inputs


def test_attention_at_every_level_of_optimization(attention):
    deployment, inputs = attention
    kinds = set(map(type, deployment.integer.populations.values()))
    assert {ig.IntTemporalAttention, ig.IntSpatialAttention, ig.IntTimeSum, ig.IntProduct} < kinds
    expected = collect(fast.run(deployment, inputs))
    spikes = {n for n, p in deployment.integer.populations.items() if isinstance(p, ig.IntLif)}
    assert all(0 < expected[n].mean() < 1 for n in spikes)
    model = unrolled(deployment)
    for level in (LEVELS.ORT_DISABLE_ALL, LEVELS.ORT_ENABLE_ALL):
        found = whole(session(model, level).run, model, inputs)
        assert_equal(found, expected, deployment.integer)


def test_weighted_sums_over_a_sample():
    values = fusion.features(8)
    deployment = compile_module(fusion.awake_fusion(), values, static=fusion.NAMES)
    totals = [p for p in deployment.integer.populations.values() if isinstance(p, ig.IntTimeSum)]
    assert any(p.weights for p in totals)
    expected = collect(fast.run(deployment, values))
    model = unrolled(deployment)
    found = whole(session(model).run, model, deployment.counts(values))
    assert found[writer.SCORES].any()
    assert_equal(found, expected, deployment.integer)


def test_shipped_network_from_its_file(tmp_path):
    deployment = navfile.load(samples.ROOT / "neuroav" / "shipped" / "tiny.nav")
    convert(deployment, "onnx", tmp_path / "tiny.onnx", form="unrolled")
    model = onnx.load(tmp_path / "tiny.onnx")
    facts = metadata(model)
    assert (facts["format"], facts["numbers"]) == ("neuroav-onnx-unrolled", "integer")
    assert facts["states"] == "{}"
    inputs = deployment.counts(deployment.probe.inputs)
    found = whole(session(tmp_path / "tiny.onnx").run, model, inputs)
    assert_equal(found, collect(fast.run(deployment, deployment.probe.inputs)), deployment.integer)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.onnx"]


def test_types_are_int64_with_a_free_batch_and_all_steps(chain):
    graph = writer.make_model(chain[0], "unrolled").graph
    for info in [*graph.input, *graph.output]:
        kind = info.type.tensor_type
        assert kind.elem_type == (9 if info.name == writer.FLAG else 7)  # BOOL, INT64
        assert kind.shape.dim[0].dim_param == "batch"
        if info.name not in (writer.FLAG, writer.SCORES):
            assert kind.shape.dim[1].dim_value == chain[0].integer.steps


@pytest.mark.parametrize("step", [0, 3])
def test_flag_is_raised_for_the_samples_that_leave_a_range(step, chain):
    deployment, inputs = chain
    bad = {n: v.copy() for n, v in inputs.items()}
    bad["eye"][2, step, 0, 0, 0] = -1
    model = writer.make_model(deployment, "unrolled")
    flag = whole(session(model).run, model, bad)[writer.FLAG]
    assert np.flatnonzero(flag).tolist() == [2]


@pytest.mark.parametrize("weight", [200, -200])
def test_flag_is_raised_inside_a_loop_and_by_a_sum_over_a_sample(weight):
    own = ig.IntDense("a", 0, np.array([[weight]]), 8, "mixed", lag=1)
    graph = {
        "in": ig.IntInput((1,), (), 3),
        "a": ig.IntSum((1,), (ig.IntIdentity("in", 0, 1), own)),
        "total": ig.IntTimeSum((1,), (ig.IntIdentity("a", 0, 1),)),
        "out": ig.IntReadout((1,), (ig.IntIdentity("total", 0, 1),), np.zeros(1, int)),
    }
    deployment = make_deployment(graph, "out", 4)
    inputs = {"in": np.array([0, 1, 2, 3]).reshape(4, 1, 1).repeat(4, axis=1)}
    model = unrolled(deployment)
    flag = whole(session(model).run, model, inputs)[writer.FLAG]
    raised = []
    for sample in range(4):
        try:
            by_reference(deployment, {"in": inputs["in"][sample : sample + 1]})
            raised.append(False)
        except ArithmeticError:
            raised.append(True)
    assert flag.tolist() == raised
    assert set(raised) == {True, False}


def test_one_step_after_the_other_gives_the_same(chain):
    deployment, inputs = chain
    whole_model, step_model = (writer.make_model(deployment, form) for form in writer.FORMS[::-1])
    found = whole(session(whole_model).run, whole_model, inputs)
    steps = loop(session(step_model).run, step_model, inputs)
    assert found[writer.SCORES].any()
    both = (found.keys() & steps.keys()) - {writer.FLAG}
    assert all(np.array_equal(found[n], steps[n]) for n in both)
