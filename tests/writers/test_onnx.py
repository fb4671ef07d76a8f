"""The step model, looped over frames, equals the fast executor in two runtimes."""

from __future__ import annotations

import json
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator
from strategies_intgraph import make_deployment, random_deployment

from neuroav import integer as ig
from neuroav import navfile
from neuroav.errors import MissingDependency, OutOfRange, UnsupportedNode
from neuroav.sim import fast
from neuroav_export.writers import convert
from neuroav_export.writers import onnx as writer

seen: set[type] = set()


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def loop(run, model, inputs):
    """Feed frames and states; return outputs (samples, steps, *shape) by name, states as 'NAME/v'.

    run: (wanted names or None for all, feed) -> values.
    """
    states = json.loads({p.key: p.value for p in model.metadata_props}["states"])
    shapes = {
        i.name: [d.dim_value for d in i.type.tensor_type.shape.dim[1:]] for i in model.graph.input
    }
    names = [o.name for o in model.graph.output]
    count, steps = next(iter(inputs.values())).shape[:2]
    state = {n: np.zeros((count, *shapes[n]), np.int64) for n in states}
    frames: dict[str, list[np.ndarray]] = {n: [] for n in names}
    for t in range(steps):
        feed = {n: v[:, t].astype(np.int64) for n, v in inputs.items()} | state
        for name, value in zip(names, run(None, feed), strict=True):
            frames[name].append(value)
        state = {n: frames[after][-1] for n, after in states.items()}
    return {n: np.stack(v, axis=1) for n, v in frames.items()}


def assert_equal(found, expected, graph):
    """Outputs of all populations and voltages that are states; no flag."""
    assert not found.pop(writer.FLAG).any()
    for name in graph.order:
        if name not in graph.inputs:
            assert np.array_equal(found.pop(name), expected[name]), name
    for name in list(found):
        if name.endswith("/v_next") and f"v({name[:-7]})" in expected:
            assert np.array_equal(found.pop(name), expected[f"v({name[:-7]})"]), name
    assert all(n.endswith("/u_next") or n == f"{graph.output}/v_next" for n in found)


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
    assert seen == {c for c in every if c.__name__ not in writer.UNSUPPORTED}


def test_a_population_that_needs_the_whole_sample_is_refused_by_name():
    counts = ig.IntTimeSum((2,), (ig.IntIdentity("in", 0, 1),))
    readout = ig.IntReadout((2,), (ig.IntIdentity("total", 0, 1),), np.zeros(1, int))
    graph = {"in": ig.IntInput((2,), (), 1), "total": counts, "out": readout}
    with pytest.raises(UnsupportedNode, match="total: .*IntTimeSum: needs the whole sample"):
        writer.step_model(make_deployment(graph, "out", 4))


@pytest.mark.parametrize("seed", range(3))
def test_random_graphs_in_onnx_own_evaluator(seed, fast_outputs):
    deployment, inputs = random_deployment(seed, hidden=3, holding=False)
    model = writer.step_model(deployment)
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
    model = writer.step_model(deployment)
    assert sum(n.op_type == "MatMul" for n in model.graph.node) == 4  # 2 digits, twice
    found = loop(ReferenceEvaluator(model).run, model, {"in": counts})
    assert_equal(found, fast_outputs(deployment, {"in": counts}), deployment.integer)


def test_flag_is_true_where_the_executors_refuse():
    deployment = wide(255, 300, 255)
    counts = np.zeros((2, 2, 300), np.int64)
    counts[1, 1] = 200
    model = writer.step_model(deployment)
    found = loop(ReferenceEvaluator(model).run, model, {"in": counts})
    assert found[writer.FLAG].tolist() == [[False, False], [False, True]]
    with pytest.raises(OutOfRange, match="the graded message reached|the readout"):
        list(fast.run(deployment, {"in": counts}))


@pytest.mark.parametrize("count", [-1, 256])
def test_flag_is_true_for_counts_that_cannot_be(count):
    counts = np.zeros((2, 2, 30), np.int64)
    counts[0, 1, 7] = count
    model = writer.step_model(wide(1, 30, 255))
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
    facts = {p.key: p.value for p in model.metadata_props}
    assert facts["format"] == "neuroav-onnx-step"
    assert facts["format_version"] == "1"
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
    graph = writer.step_model(chain[0]).graph
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
