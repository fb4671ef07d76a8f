"""The float network in ONNX Runtime decides as the real-valued executor does."""

from __future__ import annotations

import json
from dataclasses import replace

import fusion
import numpy as np
import onnx
import pytest
import samples
from onnx_runs import loop, metadata, session, whole
from strategies_intgraph import make_deployment

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.errors import UnsupportedNode
from neuroav.graph import SpikingGraph
from neuroav.shapes import output_shape
from neuroav.sim import real
from neuroav.sim.trace import collect
from neuroav.stages import ALLOWED, verify_graph
from neuroav_export import compile_module
from neuroav_export.writers import onnx as writer

seen: set[str] = set()
RUNS = {"step": loop, "unrolled": whole}


def outputs(deployment, inputs, form):
    """Return what the model gives, (samples, steps, *shape) by name."""
    model = writer.make_model(deployment, form, "float")
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True)
    seen.update(type(n).__name__ for n in deployment.real.nodes.values())
    return RUNS[form](session(model).run, model, inputs, np.float32)


def assert_close(deployment, inputs, form, alike: float = 0.99):
    """Scores agree where all spikes do, which is in nearly all samples; predictions agree."""
    graph = deployment.real
    expected, found = collect(real.run(graph, inputs)), outputs(deployment, inputs, form)
    spiking = [n for n in graph.order if isinstance(graph.nodes[n], (rn.Lif, rn.If))]
    assert spiking
    for name in spiking:
        assert 0 < expected[name].mean() < 1, name
        assert (found[name] == expected[name]).mean() > 0.999, name
    same = np.all(
        [(found[n] == expected[n]).reshape(len(found[n]), -1).all(axis=1) for n in spiking], axis=0
    )
    assert same.mean() >= alike
    a, b = found[graph.output][:, -1], expected[graph.output][:, -1]
    assert np.allclose(a[same], b[same], rtol=1e-4, atol=1e-4)
    assert (a.argmax(axis=1) == b.argmax(axis=1)).mean() >= alike
    if form == "unrolled":
        assert np.array_equal(found[writer.SCORES], a)
    for name in graph.order:
        if name in found and expected[name].shape == found[name].shape:
            assert np.allclose(found[name][same], expected[name][same], rtol=1e-4, atol=1e-4), name


@pytest.mark.parametrize("form", writer.FORMS)
def test_realistic_network(form, realistic):
    deployment, inputs, _ = realistic
    assert_close(deployment, inputs, form, alike=0.9)


@pytest.mark.parametrize("form", writer.FORMS)
def test_chain(form, chain):
    assert_close(*chain, form, alike=0.8)


def test_attention():
    model, inputs = samples.awake_scmrl(), samples.poisson_inputs(4, 4, seed=5)
    deployment = compile_module(model, inputs)
    assert_close(deployment, inputs, "unrolled", alike=0.7)
    with pytest.raises(UnsupportedNode, match=r"in a model of one step: it needs the whole sample"):
        writer.make_model(deployment, "step", "float")


def test_static_inputs_and_weighted_sums_over_a_sample():
    values = fusion.features(8)
    deployment = compile_module(fusion.awake_fusion(), values, static=fusion.NAMES)
    assert_close(deployment, values, "unrolled", alike=0.8)


def real_graph(nodes, inputs, output: str, steps: int) -> SpikingGraph:
    """Return a lowered graph; shapes follow from the nodes, those of loops from ``Input`` on."""
    shapes: dict[str, tuple[int, ...]] = {}
    while len(shapes) < len(nodes):
        for name, node in nodes.items():
            if name in shapes:
                continue
            if isinstance(node, rn.Delay) and inputs[name][0] not in shapes:
                continue
            known = [shapes[s] for s in inputs[name] if s in shapes]
            if isinstance(node, rn.Add) and known:
                known = known[:1] * 2
            elif len(known) < len(inputs[name]):
                continue
            shapes[name] = output_shape(node, known)
    graph = SpikingGraph(nodes, inputs, shapes, output, 1e-3, steps, "lowered")
    return verify_graph(graph)


def hand_made():
    """Loops, delays, synaptic currents, both resets, every way to move an axis."""
    rng = np.random.default_rng(0)

    def normal(*shape: int, size: float = 1.0) -> np.ndarray:
        return rng.normal(size=shape) * size

    taus = rng.uniform(2e-3, 9e-3, (4, 1, 1))
    nodes = {
        "in": rn.Input((2, 4, 5), 3),
        "conv": rn.Conv2d(normal(4, 1, 3, 3), normal(4), (1, 1), (1, 1), groups=2),
        "lif": rn.Lif(taus, 0.4, -0.1, 0.05, tau_syn_s=3e-3),
        "late": rn.Delay(2),
        "again": rn.Conv2d(normal(4, 4, 1, 1, size=0.3)),
        "all": rn.Add(),
        "up": rn.ConvTranspose2d(normal(4, 3, 2, 3), normal(3), (2, 1), (1, 0), (1, 1), (1, 2)),
        "if": rn.If(np.array([1.5, 0.8, 2.5]).reshape(3, 1, 1), reset="subtract"),
        "sums": rn.SumPool2d((2, 2), (2, 2)),
        "turned": rn.Permute((2, 0, 1)),
        "flat": rn.Reshape((int(np.prod((3, 3, 5))),)),
        "then": rn.Delay(3),
        "dense": rn.Dense(normal(6, 45, size=0.3), normal(6)),
        "lif2": rn.Lif(5e-3, 0.3, reset="subtract"),
        "li": rn.Li(6e-3, 0.1, 3e-3),
        "both": rn.Concat(),
        "head": rn.Readout(normal(3, 57), normal(3), tau_mem_s=8e-3, tau_syn_s=4e-3, v_leak=0.2),
    }
    inputs = {
        "in": (), "conv": ("in",), "lif": ("all",), "late": ("lif",), "again": ("late",),
        "all": ("conv", "again"), "up": ("lif",), "if": ("up",), "sums": ("if",),
        "turned": ("sums",), "flat": ("turned",), "then": ("flat",), "dense": ("then",),
        "lif2": ("dense",), "li": ("dense",), "both": ("lif2", "li", "flat"), "head": ("both",),
    }  # fmt: skip
    return nodes, inputs


@pytest.fixture(scope="module")
def odd():
    """A deployment whose twin is the network made by hand; its integers are of no account."""
    nodes, inputs = hand_made()
    graph = real_graph(nodes, inputs, "head", 8)
    stub = {
        "in": ig.IntInput((3,), (), 1),
        "head": ig.IntReadout((3,), (ig.IntIdentity("in", 0, 1),), np.zeros(1, int)),
    }
    deployment = replace(make_deployment(stub, "head", 8), real=graph)
    rng = np.random.default_rng(1)
    return deployment, {"in": rng.poisson(0.8, (10, 8, 2, 4, 5))}


@pytest.mark.parametrize("form", writer.FORMS)
def test_loops_delays_and_every_kind_of_neuron(form, odd):
    assert len([g for g in odd[0].real.groups if odd[0].real.loops(g)]) == 1
    assert_close(*odd, form, alike=0.8)


def test_states_say_what_is_kept(odd):
    model = writer.make_model(odd[0], "step", "float")
    facts = metadata(model)
    assert (facts["format"], facts["numbers"]) == ("neuroav-onnx-step", "float")
    assert facts["output"] == "head"
    assert facts["values"].startswith("real numbers as trained")
    assert set(json.loads(facts["states"])) == {
        "lif/i", "lif/v", "late/late/1", "late/late/2", "if/v", "lif2/v", "head/i", "head/v",
        "li/i", "li/v",
        "then/late/1", "then/late/2", "then/late/3",
    }  # fmt: skip
    kinds = {i.type.tensor_type.elem_type for i in (*model.graph.input, *model.graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT}


def test_the_networks_covered_every_kind():
    """``Mask`` has a network of its own below."""
    table = writer.onnx_real.CARRIES.keys()
    assert table == {c.__name__ for c in ALLOWED["lowered"]}
    assert seen | {"Mask"} == table


@pytest.mark.parametrize("form", writer.FORMS)
def test_masks(form, odd):
    rng = np.random.default_rng(3)
    nodes = {
        "in": rn.Input((4, 3, 3), 3),
        "keys": rn.Conv2d(rng.normal(size=(2, 4, 1, 1))),
        "heads": rn.Lif(2e-3, 0.5),
        "queries": rn.Lif(3e-3, 0.6),
        "masked": rn.Mask(),
        "flat": rn.Flatten(),
        "head": rn.Readout(rng.normal(size=(3, 36)), rng.normal(size=3)),
    }
    inputs = {"in": (), "keys": ("in",), "heads": ("keys",), "queries": ("in",),
              "masked": ("heads", "queries"), "flat": ("masked",), "head": ("flat",)}  # fmt: skip
    deployment = replace(odd[0], real=real_graph(nodes, inputs, "head", 8))
    assert_close(deployment, {"in": rng.poisson(1.0, (10, 8, 4, 3, 3))}, form, alike=0.8)
