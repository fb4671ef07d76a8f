"""The NIR file, read back, holds the twin's numbers; by NIR's equations it spikes alike."""

from __future__ import annotations

import json
from dataclasses import replace
from graphlib import TopologicalSorter

import nir
import numpy as np
import pytest
import torch
from torch.nn import functional

from neuroav import navfile
from neuroav import nodes as rn
from neuroav.errors import UnsupportedNode
from neuroav.graph import SpikingGraph
from neuroav.shapes import output_shape
from neuroav.sim import real
from neuroav.sim.trace import collect
from neuroav.stages import verify_graph
from neuroav_export.writers import nir as writer


# --- NIR's equations, by forward Euler -------------------------------------------------------
def euler(graph: nir.NIRGraph, inputs, dt_s: float) -> dict[str, np.ndarray]:
    """Return every node's output (samples, steps, *shape), float64; edges that meet are added."""
    before = {n: [a for a, b in graph.edges if b == n] for n in graph.nodes}
    values: dict[str, torch.Tensor] = {}
    for name in TopologicalSorter(before).static_order():
        node = graph.nodes[name]
        if isinstance(node, nir.Input):
            values[name] = torch.from_numpy(np.moveaxis(inputs[name], 1, 0).astype(np.float64))
        else:
            values[name] = respond(node, sum(values[s] for s in before[name]), dt_s)
    return {n: np.moveaxis(v.numpy(), 0, 1) for n, v in values.items()}


def respond(node: nir.NIRNode, x: torch.Tensor, dt_s: float) -> torch.Tensor:
    """Return a node's output (T, B, *shape) by the equation in its docstring."""
    t = torch.as_tensor
    flat = x.flatten(0, 1)
    if isinstance(node, nir.Conv2d):
        geometry = [tuple(int(v) for v in p) for p in (node.stride, node.padding, node.dilation)]
        y = functional.conv2d(flat, t(node.weight), t(node.bias), *geometry, groups=node.groups)
    elif isinstance(node, nir.SumPool2d):
        window = [tuple(int(v) for v in p) for p in (node.kernel_size, node.stride, node.padding)]
        y = functional.avg_pool2d(flat, *window, divisor_override=1)
    elif isinstance(node, (nir.Affine, nir.Linear)):
        y = functional.linear(flat, t(node.weight), t(getattr(node, "bias", np.zeros(1))))
    elif isinstance(node, nir.Threshold):
        y = (flat > t(node.threshold)).double()
    elif isinstance(node, nir.Scale):
        y = flat * t(node.scale)
    elif isinstance(node, nir.Flatten):
        y = flat.flatten(1 + int(node.start_dim))  # NIR's shapes have no batch axis
    elif isinstance(node, nir.I):
        return (dt_s * t(node.r) * x).cumsum(0)
    elif isinstance(node, nir.LIF):
        return lif(node, x, dt_s)
    else:
        assert isinstance(node, nir.Output)
        return x
    return y.unflatten(0, x.shape[:2])


def lif(node: nir.LIF, x: torch.Tensor, dt_s: float) -> torch.Tensor:
    tau, r, v_leak, v_threshold, v_reset = (
        torch.from_numpy(getattr(node, n)) for n in ("tau", "r", "v_leak", "v_threshold", "v_reset")
    )
    v, spikes = v_leak.expand_as(x[0]), torch.empty_like(x)
    for step, current in enumerate(x):
        v = v + dt_s / tau * ((v_leak - v) + r * current)
        spikes[step] = v > v_threshold
        v = torch.where(spikes[step] > 0, v_reset, v)
    return spikes


def read_back(deployment, tmp_path) -> nir.NIRGraph:
    done = writer.write(deployment, tmp_path / "net.nir")
    assert done.nodes == deployment.real.order
    assert not done.left_out
    return nir.read(tmp_path / "net.nir")


def assert_same(graph: SpikingGraph, made: nir.NIRGraph, inputs) -> None:
    """Every node of the twin: equal spikes, other values to rounding, scores at the last step."""
    expected, found = collect(real.run(graph, inputs)), euler(made, inputs, graph.dt_s)
    for name in graph.order:
        if name == graph.output:
            np.testing.assert_allclose(found[name][:, -1], expected[name][:, 0], rtol=1e-6)
        elif isinstance(graph.nodes[name], (rn.Lif, rn.OrPool2d)):
            assert 0 < expected[name].mean() < 1, name
            assert np.array_equal(found[name], expected[name]), name
        else:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)
    assert np.array_equal(found[writer.OUTPUT], found[graph.output])


def test_realistic_network_spikes_alike(realistic, tmp_path):
    deployment, inputs, _ = realistic
    assert_same(deployment.real, read_back(deployment, tmp_path), inputs)


def test_chain_with_every_setting_spikes_alike(chain, tmp_path):
    deployment, inputs = chain
    assert_same(deployment.real, read_back(deployment, tmp_path), inputs)


def small(nodes, inputs, steps=4, dt_s=0.002) -> SpikingGraph:
    """A lowered graph with shapes worked out."""
    draft = SpikingGraph(nodes, inputs, {}, list(nodes)[-1], dt_s, steps, "lowered")
    shapes: dict[str, tuple[int, ...]] = {}
    for name in draft.order:
        shapes[name] = output_shape(nodes[name], [shapes[s] for s in inputs[name]])
    return verify_graph(replace(draft, shapes=shapes))


def test_rest_reset_and_a_source_added_twice(chain, tmp_path):
    """v_leak and v_reset other than 0, x + x + y, a dense layer without bias on rows."""
    rng = np.random.default_rng(0)
    nodes = {
        "in": rn.Input((2, 3, 3)),
        "x": rn.Lif(0.005, 0.4, -0.2, 0.1),
        "y": rn.Lif(0.003, 0.9, 0.0, -0.3),
        "add": rn.Add(),
        "dense": rn.Dense(rng.normal(size=(4, 18))),
        "z": rn.Lif(0.004, 0.5),
        "output": rn.Readout(rng.normal(size=(3, 4)), rng.normal(size=3)),
    }
    inputs = {"in": (), "x": ("in",), "y": ("in",), "add": ("x", "y", "x"), "dense": ("add",),
              "z": ("dense",), "output": ("z",)}  # fmt: skip
    deployment = replace(chain[0], real=small(nodes, inputs))
    made = read_back(deployment, tmp_path)
    assert type(made.nodes["output_"]) is nir.Output
    counts = {"in": rng.poisson(1.0, (5, 4, 2, 3, 3))}
    expected = collect(real.run(deployment.real, counts))
    found = euler(made, counts, 0.002)
    for name in ("x", "y", "z"):
        assert 0 < expected[name].mean() < 1
        assert np.array_equal(found[name], expected[name]), name
    np.testing.assert_array_equal(found["add"], 2 * expected["x"] + expected["y"])
    np.testing.assert_allclose(found["output"][:, -1], expected["output"][:, 0], rtol=1e-6)


# --- values ----------------------------------------------------------------------------------
def test_every_number_is_the_twins(chain, tmp_path):
    graph, made = chain[0].real, read_back(chain[0], tmp_path)
    conv, lif_node = graph.nodes["conv0"], graph.nodes["lif1"]
    found = made.nodes["conv0"]
    assert found.groups == 1
    assert found.weight.shape == (6, 3, 3, 3)
    for out in range(6):  # depthwise, two outputs per channel: zeros elsewhere
        for channel in range(3):
            wanted = conv.weight[out, 0] if out // 2 == channel else np.zeros((3, 3))
            assert np.array_equal(found.weight[out, channel], wanted)
    assert np.array_equal(found.bias, conv.bias)
    assert [tuple(v) for v in (found.stride, found.padding)] == [conv.stride, conv.padding]
    assert tuple(made.nodes["conv1"].dilation) == graph.nodes["conv1"].dilation == (2, 1)
    assert not made.nodes["conv1"].bias.any()
    lif_found = made.nodes["lif1"]
    for name, value in (("tau", 5e-3), ("r", 1.0), ("v_leak", 0.0), ("v_threshold", 0.3),
                        ("v_reset", 0.0)):  # fmt: skip
        array = getattr(lif_found, name)
        assert array.shape == graph.shapes["lif1"] == (4, 4, 2)
        np.testing.assert_allclose(array, value, rtol=1e-7)
    assert lif_node.tau_mem_s == lif_found.tau[0, 0, 0]
    assert np.array_equal(made.nodes["dense"].weight, graph.nodes["dense"].weight)
    readout = graph.nodes[graph.output]
    assert np.array_equal(made.nodes["head.affine"].weight, readout.weight)
    assert np.array_equal(made.nodes["head.affine"].bias, readout.bias)
    np.testing.assert_allclose(made.nodes["head"].r, 1 / (graph.steps * graph.dt_s))
    assert made.nodes["lif0"].tau.dtype == np.float64


def test_a_residual_sum_is_two_edges_into_one_node(realistic, tmp_path):
    graph, made = realistic[0].real, read_back(realistic[0], tmp_path)
    sums = [n for n in graph.order if isinstance(graph.nodes[n], rn.Add)]
    assert len(sums) == 5
    for name in sums:
        assert {a for a, b in made.edges if b == name} == set(graph.inputs[name])
        assert (made.nodes[name].scale == 1).all()


def test_metadata_says_that_these_are_not_the_deployed_integers(realistic, tmp_path):
    deployment = navfile.save(realistic[0], tmp_path / "net.nav")
    facts = read_back(deployment, tmp_path).metadata
    assert facts["format"] == "neuroav-nir"
    assert facts["deployment_hash"] == deployment.content_hash != ""
    assert facts["values"].startswith("real-valued twin as trained, not the quantized integers")
    assert float(facts["dt_s"]) == deployment.real.dt_s
    assert int(facts["steps"]) == 6
    assert json.loads(facts["classes"]) == list(deployment.classes)
    assert facts["output"] == deployment.real.output


def test_a_kernel_that_is_not_square_is_refused_by_name(chain, tmp_path):
    nodes = {
        "in": rn.Input((1, 4, 4)),
        "wide": rn.Conv2d(np.ones((1, 1, 1, 3))),
        "lif": rn.Lif(0.005),
        "out": rn.Readout(np.ones((2, 8)), np.zeros(2)),
    }
    inputs = {"in": (), "wide": ("in",), "lif": ("wide",), "out": ("lif",)}
    with pytest.raises(UnsupportedNode, match="wide: its kernel is 1 x 3; NIR infers"):
        writer.write(replace(chain[0], real=small(nodes, inputs)), tmp_path / "net.nir")
    assert not list(tmp_path.iterdir())


def test_a_node_of_an_earlier_stage_is_refused_by_name(chain, tmp_path):
    nodes = {"in": rn.Input((1, 4, 4)), "max": rn.MaxPool2d((2, 2), (2, 2))}
    graph = SpikingGraph(nodes, {"in": (), "max": ("in",)},
                         {"in": (1, 4, 4), "max": (1, 2, 2)}, "max", 0.001, 4)  # fmt: skip
    with pytest.raises(UnsupportedNode, match="max: the nir writer cannot carry MaxPool2d"):
        writer.write(replace(chain[0], real=graph), tmp_path / "net.nir")


# --- another reader --------------------------------------------------------------------------
def test_norse_reads_the_file_and_spikes_alike(chain, tmp_path):
    """Up to the first pooling, which Norse's reader does not know (NIR's Threshold)."""
    import norse.torch

    deployment, inputs = chain
    made = read_back(deployment, tmp_path)
    shape = np.array(deployment.real.shapes["lif0"])
    front = nir.NIRGraph(
        {n: made.nodes[n] for n in ("eye", "conv0", "lif0")}
        | {"end": nir.Output({"output": shape})},
        [("eye", "conv0"), ("conv0", "lif0"), ("lif0", "end")],
    )
    network, state, spikes = norse.torch.from_nir(front, dt=deployment.real.dt_s), None, []
    for frame in torch.from_numpy(np.moveaxis(inputs["eye"], 1, 0)).float():
        with torch.no_grad():
            out, state = network(frame, state)
        spikes.append(out)
    expected = collect(real.run(deployment.real, inputs))["lif0"]
    assert 0.01 < expected.mean() < 0.9
    assert np.array_equal(np.moveaxis(torch.stack(spikes).numpy(), 0, 1), expected)
