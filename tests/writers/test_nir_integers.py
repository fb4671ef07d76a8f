"""NIR -> ours -> NIR and back: values, spikes of the real executor, and the deployed integers."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from itertools import pairwise

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nir_euler import SPIKING, euler

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.errors import FileFormatError
from neuroav.sim import real
from neuroav.sim.trace import collect
from neuroav_export.readers.nir import import_nir, read_nir
from neuroav_export.writers import nir as writer
from neuroav_export.writers.nir_integers import integers_of

DT, STEPS = 2e-4, 16


def full(shape, **values):
    return {n: np.full(shape, float(v)) for n, v in values.items()}


def spikes_in(shape, seed=0, samples=6, name="in"):
    return {name: np.random.default_rng(seed).poisson(0.6, (samples, STEPS, *shape)).astype(int)}


def through(graph, shape, **options):
    """NIR -> deployment -> NIR; returns the deployment, the graph written, and its late edges."""
    deployment = import_nir(graph, spikes_in(shape), dt_s=DT, **options)
    made = writer.nir_graph(deployment)
    late = [(s, r) for _, s, rs in json.loads(made.metadata.get("late", "[]")) for r in rs]
    return deployment, made, late


def network(*nodes, shape):
    named = {"in": nir.Input(np.array(shape)), **{f"n{i}": n for i, n in enumerate(nodes)},
             "out": nir.Output(None)}  # fmt: skip
    names = list(named)
    return nir.NIRGraph(named, list(pairwise(names)))


def lif(n, **more):
    values = {"tau": 8e-4, "r": 1, "v_leak": 0, "v_threshold": 0.35, "v_reset": 0} | more
    return nir.LIF(**full(n, **values))


def cuba(n, **more):
    values = {"tau_mem": 8e-4, "tau_syn": 4e-4, "r": 1, "v_leak": 0, "v_threshold": 0.6,
              "v_reset": 0, "w_in": 2} | more  # fmt: skip
    return nir.CubaLIF(**full(n, **values))


def affine(out, size, seed=0, gain=1.0):
    rng = np.random.default_rng(seed)
    return nir.Affine(gain * rng.normal(size=(out, size)), 0.1 * rng.normal(size=out))


def conv(seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(3, 2, 3, 3))
    return nir.Conv2d((4, 4), weight, (1, 1), (1, 1), (1, 1), 1, 0.1 * rng.normal(size=3))


POOL = {k: np.array([2, 2]) for k in ("kernel_size", "stride")} | {"padding": np.array([0, 0])}
FLAT = nir.Flatten({"input": np.array([3, 2, 2])}, 0, -1)
ROUND = {
    "affine lif": ((4,), (affine(6, 4), lif(6))),
    "linear": ((4,), (nir.Linear(np.random.default_rng(1).normal(size=(6, 4))), lif(6))),
    "per neuron": (
        (4,),
        (affine(5, 4),
         nir.LIF(np.linspace(4e-4, 2e-3, 5), np.ones(5), np.zeros(5), np.linspace(0.2, 0.5, 5))),
    ),
    "cubalif": ((4,), (affine(6, 4), cuba(6))),
    "if": ((4,), (affine(6, 4), nir.IF(**full(6, r=1 / DT, v_threshold=1.5, v_reset=0)))),
    "conv": ((2, 4, 4), (conv(), lif((3, 4, 4)))),
    "sum pool": (
        (2, 4, 4),
        (conv(), lif((3, 4, 4)), nir.SumPool2d(**POOL), FLAT, affine(5, 12), lif(5)),
    ),
    "avg pool": (
        (2, 4, 4),
        (conv(), lif((3, 4, 4)), nir.AvgPool2d(**POOL), FLAT, affine(5, 12, 1, 2.0), lif(5)),
    ),
    "or pool": (
        (2, 4, 4),
        (conv(), lif((3, 4, 4)), nir.SumPool2d(**POOL), nir.Threshold(np.full((3, 2, 2), 0.5)),
         FLAT, affine(5, 12), lif(5)),
    ),
    "delay": ((4,), (affine(6, 4), lif(6), nir.Delay(np.full(6, 3 * DT)), affine(5, 6), lif(5))),
    "scale": (
        (4,),
        (affine(6, 4), lif(6), nir.Scale(np.full(6, 0.25)), affine(5, 6, 2, 4.0), lif(5)),
    ),
    "li": ((4,), (affine(6, 4), lif(6), affine(3, 6), nir.LI(**full(3, tau=2e-3, r=1, v_leak=0)))),
    "cubali": (
        (4,),
        (affine(6, 4), lif(6), affine(3, 6),
         nir.CubaLI(**full(3, tau_mem=2e-3, tau_syn=1e-3, r=1, v_leak=0, w_in=1))),
    ),
    "i": ((4,), (affine(6, 4), lif(6), affine(3, 6), nir.I(np.full(3, 1 / (STEPS * DT))))),
}  # fmt: skip


@pytest.mark.parametrize("name", ROUND)
def test_nir_to_ours_to_nir_keeps_values_and_spikes(name, tmp_path):
    shape, nodes = ROUND[name]
    graph = network(*nodes, shape=shape)
    _, made, late = through(graph, shape)
    nir.write(tmp_path / "net.nir", made)
    made = nir.read(tmp_path / "net.nir")
    inputs = spikes_in(shape, seed=3)
    one, other = euler(graph, inputs, DT), euler(made, inputs, DT, late)
    for node_name, node in graph.nodes.items():
        if isinstance(node, SPIKING) and node_name in made.nodes:
            assert 0.01 < one[node_name].mean() < 0.95, node_name
            assert np.array_equal(one[node_name], other[node_name].reshape(one[node_name].shape))
        if type(made.nodes.get(node_name)) is type(node):
            _same_values(node, made.nodes[node_name])


def _same_values(before, after) -> None:
    """Times, thresholds and weights equal; gains that our form fixes (r, w_in) are in weights."""
    for field in fields(before):
        value = getattr(before, field.name)
        if isinstance(value, np.ndarray) and field.name not in ("weight", "bias", "r", "w_in"):
            found = np.asarray(getattr(after, field.name))
            np.testing.assert_allclose(found, np.broadcast_to(value, found.shape), rtol=1e-12)
    if isinstance(before, (nir.LIF, nir.IF, nir.LI)) and hasattr(before, "r"):
        np.testing.assert_allclose(after.r, before.r, rtol=1e-12)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), gain=st.floats(0.5, 4.0), kind=st.sampled_from(["lif", "cuba"]))
def test_weights_come_back_as_they_were_read(seed, gain, kind):
    """With r = 1 (and w_in dt / tau_syn = 1) nothing is folded: every weight is the same number."""
    rng = np.random.default_rng(seed)
    node = lif(5) if kind == "lif" else cuba(5, w_in=2.0)
    graph = network(affine(5, 4, seed, gain), node, shape=(4,))
    inputs = {"in": rng.poisson(0.6, (6, STEPS, 4))}
    made = writer.nir_graph(import_nir(graph, inputs, dt_s=DT, calibration="max"))
    assert np.array_equal(made.nodes["n0"].weight, graph.nodes["n0"].weight)
    assert np.array_equal(made.nodes["n0"].bias, graph.nodes["n0"].bias)


# --- loops -----------------------------------------------------------------------------------
def recurrent():
    nodes = {
        "in": nir.Input(np.array([4])), "fc": affine(6, 4, 1), "lif": cuba(6),
        "rec": affine(6, 6, 2, 0.5), "fc2": affine(3, 6, 3), "end": lif(3),
        "out": nir.Output(np.array([3])),
    }  # fmt: skip
    edges = [("in", "fc"), ("fc", "lif"), ("lif", "rec"), ("rec", "lif"), ("lif", "fc2"),
             ("fc2", "end"), ("end", "out")]  # fmt: skip
    return nir.NIRGraph(nodes, edges)


def test_a_recurrent_layer_is_written_as_a_plain_loop_and_read_back_alike(tmp_path):
    deployment, made, late = through(recurrent(), (4,), reset="subtract")
    assert late == [("lif", "rec")]
    assert {("lif", "rec"), ("rec", "lif.sum"), ("lif.sum", "lif")} <= set(made.edges)
    assert not any(isinstance(n, nir.Delay) for n in made.nodes.values())
    done = writer.write(deployment, tmp_path / "net.nir")
    assert done.notes["reset_subtract"] == ["lif", "end"]
    again = read_nir(tmp_path / "net.nir")
    assert again.nodes["lif"].reset == "subtract"
    inputs = spikes_in((4,), seed=5)
    one, other = collect(real.run(deployment.real, inputs)), collect(real.run(again, inputs))
    for name in ("lif", "end", "lif.previous"):
        assert 0.01 < one[name].mean() < 0.9
        assert np.array_equal(one[name], other[name]), name
    assert np.allclose(one[deployment.real.output], other[again.output], rtol=1e-6)
    expected = euler(made, inputs, DT, late, "subtract")
    assert np.array_equal(expected["end"], one["end"])


def test_a_longer_delay_in_a_loop_keeps_its_node():
    graph = recurrent()
    graph.nodes["wait"] = nir.Delay(np.full(6, 2 * DT))
    graph.edges.remove(("lif", "rec"))
    graph.edges += [("lif", "wait"), ("wait", "rec")]
    deployment, made, late = through(graph, (4,))
    assert not late
    assert np.allclose(made.nodes["wait"].delay, 2 * DT)
    again = read_nir(made)
    inputs = spikes_in((4,), seed=5)
    one, other = collect(real.run(deployment.real, inputs)), collect(real.run(again, inputs))
    assert 0 < one["end"].mean() < 1
    assert np.array_equal(one["end"], other["end"])


# --- integers --------------------------------------------------------------------------------
def assert_same_integers(one: ig.IntGraph, other: ig.IntGraph) -> None:
    assert one.populations.keys() == other.populations.keys()
    assert (one.output, one.steps, one.dt_s) == (other.output, other.steps, other.dt_s)
    assert dict(one.scales) == dict(other.scales)
    for name, population in one.populations.items():
        _assert_same(population, other.populations[name], name)


def _assert_same(one, other, where):
    assert type(one) is type(other), where
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "projections":
            assert len(a) == len(b)
            for x, y in zip(a, b, strict=True):
                _assert_same(x, y, where)
        elif isinstance(a, np.ndarray):
            assert a.shape == b.shape
            assert a.dtype == b.dtype == np.int64
            assert np.array_equal(a, b), (where, field.name)
        else:
            assert a == b, (where, field.name)


def test_integers_come_out_of_the_file_exactly(realistic, chain, tmp_path):
    recurrent_one, _, _ = through(recurrent(), (4,))
    for deployment in (realistic[0], chain[0], recurrent_one):
        writer.write(deployment, tmp_path / "net.nir")
        assert_same_integers(deployment.integer, integers_of(tmp_path / "net.nir"))
        assert_same_integers(deployment.integer, integers_of(nir.read(tmp_path / "net.nir")))


def test_integer_weights_lie_next_to_the_real_ones(chain, tmp_path):
    deployment = chain[0]
    writer.write(deployment, tmp_path / "net.nir")
    made = nir.read(tmp_path / "net.nir")
    for layer, neurons in (("conv0", "lif0"), ("conv1", "lif1"), ("dense", "lif2")):
        projection = deployment.integer.populations[neurons].projections[0]
        found = made.nodes[layer].metadata["neuroav.weight"].reshape(projection.weight.shape)
        assert np.array_equal(found, projection.weight)
        text = json.loads(made.nodes[neurons].metadata["neuroav"])
        assert text["projections"][0]["at"] == layer
        assert text["projections"][0]["weight_bits"] == 8
        ratio = found[found != 0] / deployment.real.nodes[layer].weight[found != 0]
        assert np.median(ratio) > 0
        assert np.corrcoef(found.ravel(), deployment.real.nodes[layer].weight.ravel())[0, 1] > 0.999
    head = json.loads(made.metadata["neuroav"])
    assert head["arithmetic"]["input_shift"] == deployment.profile.arithmetic.input_shift


def test_a_file_without_integers_or_with_damaged_ones_is_refused(chain, tmp_path):
    graph = network(*ROUND["affine lif"][1], shape=(4,))
    with pytest.raises(FileFormatError, match="holds no integers"):
        integers_of(graph)
    path = tmp_path / "net.nir"
    writer.write(chain[0], path)
    with h5py.File(path, "r+") as file:
        del file["node/nodes/lif0/metadata/neuroav.threshold"]
    with pytest.raises(FileFormatError, match="cannot be read"):
        integers_of(path)


def test_nodes_that_nir_lacks_are_refused_by_name(chain):
    real_graph = chain[0].real
    nodes = dict(real_graph.nodes) | {"flatten": rn.Reshape((32, 1, 1))}
    shapes = dict(real_graph.shapes) | {"flatten": (32, 1, 1)}
    broken = replace(chain[0], real=replace(real_graph, nodes=nodes, shapes=shapes))
    with pytest.raises(Exception, match=r"flatten: gives \(32, 1, 1\); NIR can only flatten"):
        writer.nir_graph(broken)
