"""The step model, looped over frames, equals the fast executor in two runtimes."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator
from onnx_runs import by_reference, loop, metadata, recurrent, session, transposed
from strategies_intgraph import make_deployment, random_deployment

from neuroav import integer as ig
from neuroav import navfile
from neuroav.errors import ConfigError, MissingDependency, OutOfRange, UnsupportedNode
from neuroav.sim import fast
from neuroav_export.writers import convert
from neuroav_export.writers import onnx as writer

seen: set[type] = set()


def assert_equal(found, expected, graph):
    """Outputs of all populations and voltages that are states; no flag."""
    assert not found.pop(writer.FLAG).any()
    for name in graph.order:
        if name not in graph.inputs:
            assert np.array_equal(found.pop(name), expected[name]), name
    for name in list(found):
        if name.endswith("/v_next") and f"v({name[:-7]})" in expected:
            assert np.array_equal(found.pop(name), expected[f"v({name[:-7]})"]), name
    own = {f"{graph.output}/{register}_next" for register in "uv"}
    assert all(n.endswith("/u_next") or "/late/" in n or n in own for n in found)


def test_realistic_network_in_onnx_runtime(realistic, tmp_path):
    deployment, inputs, expected = realistic
    done = writer.write(deployment, tmp_path / "step.onnx")
    assert done.nodes == deployment.integer.order
    assert not done.left_out
    model = onnx.load(tmp_path / "step.onnx")
    found = loop(session(tmp_path / "step.onnx").run, model, inputs)
    lifs = [n for n, p in deployment.integer.populations.items() if isinstance(p, ig.IntLif)]
    assert all(0.001 < expected[n].mean() < 0.9 for n in lifs)
    assert {f"{n}/v_next" for n in lifs} < set(found)
    assert_equal(found, expected, deployment.integer)


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_in_onnx_runtime(seed, tmp_path, fast_outputs):
    deployment, inputs = random_deployment(seed, hidden=5, holding=False)
    writer.write(deployment, tmp_path / "step.onnx")
    model = onnx.load(tmp_path / "step.onnx")
    found = loop(session(tmp_path / "step.onnx").run, model, inputs)
    assert_equal(found, fast_outputs(deployment, inputs), deployment.integer)
    for pop in deployment.integer.populations.values():
        seen.update({type(pop), *map(type, pop.projections)})


def test_the_random_graphs_covered_every_kind():
    every = {*ig.POPULATION_CLASSES, *ig.PROJECTION_CLASSES}
    every -= {ig.IntHostCurrent}  # tests/conformance/test_static_inputs.py
    assert seen == {c for c in every if not getattr(c, "holds", False)}


def test_a_population_that_needs_the_whole_sample_is_refused_by_name():
    counts = ig.IntTimeSum((2,), (ig.IntIdentity("in", 0, 1),))
    readout = ig.IntReadout((2,), (ig.IntIdentity("total", 0, 1),), np.zeros(1, int))
    graph = {"in": ig.IntInput((2,), (), 1), "total": counts, "out": readout}
    with pytest.raises(UnsupportedNode, match="total: .*IntTimeSum in a model of one step: it n"):
        writer.make_model(make_deployment(graph, "out", 4))


@pytest.mark.parametrize("seed", range(3))
def test_random_graphs_in_onnx_own_evaluator(seed, fast_outputs):
    deployment, inputs = random_deployment(seed, hidden=3, holding=False)
    model = writer.make_model(deployment)
    found = loop(ReferenceEvaluator(model).run, model, inputs)
    assert_equal(found, fast_outputs(deployment, inputs), deployment.integer)


def wide(weight: int, synapses: int, max_count: int, threshold: int = 1):
    """One dense layer whose sums may pass 2^24."""
    ones = np.full((2, synapses), weight)
    return make_deployment(
        {
            "in": ig.IntInput((synapses,), (), max_count),
            "sum": ig.IntSum((2,), (ig.IntDense("in", 0, ones, 8, "excitatory"),)),
            "out": ig.IntReadout(
                (2,), (ig.IntDense("sum", 0, np.diag([251, 1]), 8, "excitatory"),), np.zeros(1, int)
            ),
        },
        "out",
        2,
    )


def test_sums_beyond_float32_are_cut_into_digits(fast_outputs):
    deployment = wide(255, 300, 255)
    counts = np.zeros((3, 2, 300), np.int64)
    counts[0], counts[1, :, :17], counts[2, 1, 5] = 0, 1, 66
    model = writer.make_model(deployment)
    assert sum(n.op_type == "MatMul" for n in model.graph.node) == 4  # 2 digits, twice
    found = loop(ReferenceEvaluator(model).run, model, {"in": counts})
    assert_equal(found, fast_outputs(deployment, {"in": counts}), deployment.integer)


def test_flag_is_true_where_the_executors_refuse():
    deployment = wide(255, 300, 255)
    counts = np.zeros((2, 2, 300), np.int64)
    counts[1, 1] = 200
    model = writer.make_model(deployment)
    found = loop(ReferenceEvaluator(model).run, model, {"in": counts})
    assert found[writer.FLAG].tolist() == [[False, False], [False, True]]
    with pytest.raises(OutOfRange, match="the graded message reached|the readout"):
        list(fast.run(deployment, {"in": counts}))


@pytest.mark.parametrize("count", [-1, 256])
def test_flag_is_true_for_counts_that_cannot_be(count):
    counts = np.zeros((2, 2, 30), np.int64)
    counts[0, 1, 7] = count
    model = writer.make_model(wide(1, 30, 255))
    found = loop(ReferenceEvaluator(model).run, model, {"in": counts})
    assert found[writer.FLAG].tolist() == [[False, True], [False, False]]


def test_a_layer_beyond_all_digits_is_refused(tmp_path):
    ones = np.full((1, 70_000), 255)
    deployment = make_deployment(
        {
            "in": ig.IntInput((70_000,), (), 1),
            "out": ig.IntReadout(
                (1,), (ig.IntDense("in", 0, ones, 8, "excitatory"),), np.zeros(1, int)
            ),
        },
        "out",
        1,
    )
    with pytest.raises(OutOfRange, match="out: weights onto one neuron add up to 17850000"):
        writer.write(deployment, tmp_path / "step.onnx")
    assert not list(tmp_path.iterdir())


def test_metadata_says_what_the_numbers_mean(realistic, tmp_path):
    deployment = navfile.save(realistic[0], tmp_path / "net.nav")
    done = writer.write(deployment, tmp_path / "step.onnx")
    model = onnx.load(tmp_path / "step.onnx")
    onnx.checker.check_model(model, full_check=True)
    facts = metadata(model)
    assert facts["format"] == "neuroav-onnx-step"
    assert (facts["format_version"], facts["numbers"]) == ("1", "integer")
    assert facts["deployment_hash"] == deployment.content_hash == done.hash != ""
    assert json.loads(facts["classes"]) == list(deployment.classes)
    assert (int(facts["steps"]), float(facts["dt_s"])) == (6, deployment.integer.dt_s)
    assert facts["output"] == deployment.integer.output
    scales = {n: tuple(s) for n, s in json.loads(facts["scales"]).items()}
    assert scales == deployment.integer.scales
    assert "latency" not in facts
    assert "own time frame" in facts["time"]
    assert facts["values"].startswith("quantized integers")


def test_types_are_int64_with_a_free_batch(chain):
    graph = writer.make_model(chain[0]).graph
    for info in [*graph.input, *graph.output]:
        kind = info.type.tensor_type
        assert kind.elem_type == (9 if info.name == writer.FLAG else 7)  # BOOL, INT64
        assert kind.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("name", ["onnx", "nir"])
def test_absent_package_names_the_line_that_installs_it(name, chain, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=rf"{name} is not installed.*neuroav\[train\]"):
        convert(chain[0], name, tmp_path / "file")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("network", "evaluator"),
    [(recurrent, "onnxruntime"), (recurrent, "onnx"), (transposed, "onnxruntime")],
)  # onnx's own ConvTranspose fails where groups are wider than a channel
def test_loops_lags_leaks_and_resets(network, evaluator):
    deployment = network()
    inputs = counts(deployment, 5, seed=1)
    expected = by_reference(deployment, inputs)
    lifs = [n for n, p in deployment.integer.populations.items() if isinstance(p, ig.IntLif)]
    assert all(0.1 < expected[n].mean() < 0.9 for n in lifs)
    model = writer.make_model(deployment)
    onnx.checker.check_model(model, full_check=True)
    run = session(model).run if evaluator == "onnxruntime" else ReferenceEvaluator(model).run
    found = loop(run, model, inputs)
    if network is recurrent:
        states = json.loads(metadata(model)["states"])
        assert {f"rec/late/{k}" for k in range(1, 10)} <= states.keys()
        assert "left/late/1" in states
        assert "left/late/2" not in states
        assert "out/u" in states
    assert not found[writer.FLAG].any()
    for name in deployment.integer.order:
        if name not in deployment.integer.inputs:
            assert np.array_equal(found[name], expected[name]), name
        if f"v({name})" in expected and f"{name}/v_next" in found:
            assert np.array_equal(found[f"{name}/v_next"], expected[f"v({name})"]), name


def counts(deployment, samples: int, seed: int) -> dict[str, np.ndarray]:
    rng, steps = np.random.default_rng(seed), deployment.integer.steps
    return {
        n: rng.integers(0, p.max_count + 1, (samples, steps, *p.shape))
        for n, p in deployment.integer.inputs.items()
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "steps"}, "unknown form 'steps': allowed are step, unrolled; did you mean"),
        ({"numbers": "int"}, "unknown numbers 'int': allowed are float, integer"),
    ],
)
def test_unknown_options(options, message, chain, tmp_path):
    with pytest.raises(ConfigError, match=message):
        convert(chain[0], "onnx", tmp_path / "file", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", writer.FORMS)
def test_a_layer_named_like_an_output_of_the_model_is_refused(form):
    graph = {
        "in": ig.IntInput((2,), (), 1),
        writer.FLAG: ig.IntReadout((2,), (ig.IntIdentity("in", 0, 1),), np.zeros(1, int)),
    }
    with pytest.raises(UnsupportedNode, match="out_of_range: .* output of this name; rename"):
        writer.make_model(make_deployment(graph, writer.FLAG, 2), form)
