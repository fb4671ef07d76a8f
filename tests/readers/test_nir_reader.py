"""NIR graphs read as ours do what NIR's equations say by forward Euler; bad ones are refused."""

from __future__ import annotations

from itertools import pairwise

import h5py
import nir
import numpy as np
import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st
from nir_euler import SPIKING, euler

from neuroav import nodes as rn
from neuroav.errors import ConfigError, FileFormatError, NeuroavError, UnsupportedNode
from neuroav.sim import fast, real
from neuroav.sim.trace import collect
from neuroav_export.readers.nir import import_nir, read_deployment, read_nir, reads_table

DT = 1e-4
RNG = np.random.default_rng


def full(shape, **values):
    """Arrays of one value each, as NIR's neurons take them."""
    return {n: np.full(shape, float(v)) for n, v in values.items()}


def lif(n=4, tau=5e-4, r=1.0, leak=0.0, threshold=0.4, reset=0.0):
    return nir.LIF(**full(n, tau=tau, r=r, v_leak=leak, v_threshold=threshold, v_reset=reset))


def cuba(n=4, tau=6e-4, syn=3e-4, r=1.0, w_in=1.0, leak=0.0, threshold=0.3, reset=0.0):
    return nir.CubaLIF(
        **full(n, tau_mem=tau, tau_syn=syn, r=r, w_in=w_in, v_leak=leak, v_threshold=threshold,
               v_reset=reset)
    )  # fmt: skip


def affine(outputs, inputs, seed=0, gain=1.0):
    rng = RNG(seed)
    return nir.Affine(gain * rng.normal(size=(outputs, inputs)), 0.2 * rng.normal(size=outputs))


def chain(shape, *nodes, type_check=True):
    """Input 'in' -> n0 -> n1 ... -> Output 'out'."""
    named = {f"n{i}": node for i, node in enumerate(nodes)}
    names = ["in", *named, "out"]
    named = {"in": nir.Input(np.array(shape)), **named, "out": nir.Output(None)}
    return nir.NIRGraph(named, list(pairwise(names)), type_check=type_check)


def counts(shape, steps=24, batch=3, seed=1, name="in", mean=0.5):
    return {name: RNG(seed).poisson(mean, (batch, steps, *shape)).astype(np.int32)}


def check(graph, inputs, late=(), reset="value", spiking=(), **options):
    """Read, run, compare every node of the same name with forward Euler; return the graph."""
    first = next(iter(inputs.values()))
    made = read_nir(graph, **{"dt_s": DT, "steps": first.shape[1], "reset": reset, **options})
    fed = {n: v.reshape(*v.shape[:2], *made.shapes[n]) for n, v in inputs.items()}
    found = collect(real.run(made, fed))
    expected = euler(graph, inputs, made.dt_s, late, reset)
    for name in set(found) & set(expected):
        if isinstance(made.nodes[name], (rn.Conv2d, rn.Dense, rn.Scale, rn.TimeMean, rn.Li)):
            continue  # factors of the neurons may be in them
        value = expected[name].reshape(found[name].shape)
        assert np.allclose(found[name], value, rtol=1e-5, atol=1e-6), name
    for name, node in graph.nodes.items():
        if isinstance(node, SPIKING) or name in spiking:
            assert 0.01 < expected[name].mean() < 0.9, (name, expected[name].mean())
            assert np.array_equal(found[name].reshape(expected[name].shape), expected[name]), name
    source = next(a for a, b in graph.edges if isinstance(graph.nodes[b], nir.Output))
    spikes = isinstance(graph.nodes[source], SPIKING)
    last = isinstance(graph.nodes[source], (nir.LI, nir.CubaLI, nir.I))
    answer = expected[source][:, -1] if last else expected[source].mean(1)
    scores = found[made.output][:, 0]
    assert np.allclose(scores, answer.reshape(scores.shape), rtol=1e-5, atol=1e-6)
    assert np.ptp(answer) > 0
    assert spikes or last or "n" in source
    return made


# --- every primitive -------------------------------------------------------------------------
EACH = {
    "affine": ((3,), (affine(5, 3), lif(5))),
    "linear": ((3,), (nir.Linear(RNG(3).normal(size=(5, 3)) + 0.3), lif(5))),
    "scale": ((4,), (nir.Scale(np.full(4, 2.5)), lif(4, threshold=0.8))),
    "scale by value": ((4,), (nir.Scale(np.array([0.5, -1.0, 2.0, 3.0])), affine(4, 4), lif(4))),
    "scale into neurons": ((4,), (nir.Scale(np.array([0.9, 1.0, 2.0, 3.0])), lif(4))),
    "conv1d": (
        (2, 9),
        (nir.Conv1d(9, RNG(4).normal(size=(3, 2, 3)), 2, 1, 1, 1, RNG(5).normal(size=3) / 5),
         lif((3, 5))),
    ),
    "conv2d": (
        (2, 5, 4),
        (nir.Conv2d((5, 4), RNG(6).normal(size=(3, 2, 3, 3)), (1, 2), (2, 1), (1, 1), 1,
                    RNG(5).normal(size=3) / 5),
         lif((3, 7, 2))),
    ),
    "conv2d same": (
        (1, 5, 5),
        (nir.Conv2d((5, 5), RNG(6).normal(size=(2, 1, 4, 4)), 1, "same", 1, 1, np.zeros(2)),
         lif((2, 5, 5))),
    ),
    "conv2d valid": (
        (1, 5, 5),
        (nir.Conv2d((5, 5), RNG(6).normal(size=(2, 1, 2, 2)), 1, "valid", 2, 1, np.zeros(2)),
         lif((2, 3, 3))),
    ),
    "sumpool": (
        (2, 4, 4),
        (nir.SumPool2d(np.array([2, 2]), np.array([2, 1]), np.array([0, 1])),
         lif((2, 2, 5), threshold=0.9)),
    ),
    "avgpool": (
        (2, 4, 4),
        (nir.AvgPool2d(np.array([2, 3]), np.array([2, 1]), np.array([1, 0])),
         lif((2, 3, 2), threshold=0.3)),
    ),
    "flatten": (
        (2, 3, 2),
        (nir.Flatten({"input": np.array([2, 3, 2])}, 0, -1), affine(4, 12), lif(4)),
    ),
    "flatten some axes": (
        (2, 3, 2),
        (nir.Flatten({"input": np.array([2, 3, 2])}, 1, -1),
         nir.Conv1d(6, RNG(4).normal(size=(3, 2, 2)), 1, 0, 1, 1, np.zeros(3)), lif((3, 5))),
    ),
    "threshold": ((4,), (affine(4, 4), nir.Threshold(np.array([0.1, 0.4, -0.1, 0.3])))),
    "delay": ((4,), (lif(4), nir.Delay(np.full(4, 3 * DT)), affine(4, 4, 2), lif(4))),
    "if": ((4,), (affine(4, 4, 7), nir.IF(**full(4, r=8000, v_threshold=0.7, v_reset=0.1)))),
    "lif": ((4,), (affine(4, 4), lif(4, r=1.5, leak=-0.1, reset=-0.3))),
    "cubalif": ((4,), (affine(4, 4, 9), cuba(4, r=2.0, w_in=1.5, leak=0.05, reset=-0.2))),
    "li": ((4,), (lif(4), affine(3, 4), nir.LI(**full(3, tau=1e-3, r=2.0, v_leak=0.1)))),
    "cubali": (
        (4,),
        (lif(4), affine(3, 4),
         nir.CubaLI(**full(3, tau_mem=1e-3, tau_syn=4e-4, r=2.0, v_leak=0.1, w_in=3.0))),
    ),
    "i": ((4,), (lif(4), affine(3, 4), nir.I(np.array([10.0, 20.0, 5.0])))),
}  # fmt: skip


@pytest.mark.parametrize("name", EACH)
def test_primitive_does_what_its_equation_says(name):
    shape, nodes = EACH[name]
    check(chain(shape, *nodes), counts(shape))


@pytest.mark.parametrize("name", EACH)
def test_primitive_comes_out_of_a_file_alike(name, tmp_path):
    shape, nodes = EACH[name]
    graph, inputs = chain(shape, *nodes), counts(shape)
    nir.write(tmp_path / "net.nir", graph)
    made = read_nir(tmp_path / "net.nir", dt_s=DT, steps=24)
    wanted = read_nir(graph, dt_s=DT, steps=24)
    fed = {n: v.reshape(*v.shape[:2], *made.shapes[n]) for n, v in inputs.items()}
    one, other = collect(real.run(made, fed)), collect(real.run(wanted, fed))
    assert one.keys() == other.keys()
    for node in one:
        assert np.array_equal(one[node], other[node]), node


def test_or_pooling_of_spikes_is_read_as_max_pooling():
    pool = nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    graph = chain((1, 4, 4), lif((1, 4, 4)), pool, nir.Threshold(np.full((1, 2, 2), 0.5)))
    made = check(graph, counts((1, 4, 4)))
    assert type(made.nodes["n2"]) is rn.MaxPool2d
    assert "n1" not in made.nodes


def test_grouped_convolution_and_rectangular_kernel():
    """NIR's own type check knows neither."""
    conv = nir.Conv2d(None, RNG(1).normal(size=(4, 1, 1, 3)), 1, (0, 1), 1, 2, np.zeros(4))
    graph = chain((2, 3, 3), conv, lif((4, 3, 3)), type_check=False)
    made = check(graph, counts((2, 3, 3)))
    assert made.nodes["n0"].groups == 2
    assert made.shapes["n1"] == (4, 3, 3)


def test_parameters_per_neuron_are_honoured():
    rng = RNG(2)
    neurons = nir.CubaLIF(
        tau_mem=rng.uniform(2e-4, 2e-3, 6), tau_syn=rng.uniform(1e-4, 1e-3, 6),
        r=rng.uniform(0.5, 3, 6), v_leak=rng.normal(size=6) / 20,
        v_threshold=rng.uniform(0.1, 0.5, 6), v_reset=rng.normal(size=6) / 10,
        w_in=rng.uniform(1, 2, 6),
    )  # fmt: skip
    made = check(chain((3,), affine(6, 3, 5, 2.0), neurons), counts((3,)))
    node = made.nodes["n1"]
    assert np.array_equal(node.v_threshold, neurons.v_threshold)
    assert np.array_equal(node.tau_mem_s, neurons.tau_mem)
    assert np.array_equal(node.v_reset, neurons.v_reset)


def test_equal_parameters_become_numbers_and_one_value_stands_for_all():
    neurons = nir.LIF(**full((), tau=5e-4, r=5.0, v_leak=0, v_threshold=1.0))  # as snnTorch writes
    graph = chain((3,), affine(6, 3), neurons, type_check=False)
    made = read_nir(graph, dt_s=DT, steps=5)
    node = made.nodes["n1"]
    assert (node.tau_mem_s, node.v_threshold, node.v_reset) == (5e-4, 1.0, 0.0)
    assert made.shapes["n1"] == (6,)
    assert np.allclose(made.nodes["n0"].weight, 5 * graph.nodes["n0"].weight)


def test_a_flattened_convolution_feeds_neurons_as_it_lies():
    conv = nir.Conv2d((3, 3), RNG(6).normal(size=(2, 1, 3, 3)), 1, 1, 1, 1, np.zeros(2))
    neurons = nir.LIF(
        tau=np.full(18, 5e-4), r=np.ones(18), v_leak=np.zeros(18),
        v_threshold=RNG(0).uniform(0.2, 0.5, 18),
    )  # fmt: skip
    flat = nir.Flatten({"input": np.array([2, 3, 3])}, 0, -1)
    made = check(chain((1, 3, 3), conv, flat, neurons, affine(3, 18), lif(3)), counts((1, 3, 3)))
    assert made.shapes["n2"] == (2, 3, 3)
    assert made.inputs["n2"] == ("n0",)


def test_reset_by_subtraction_and_inclusive_thresholds():
    graph = chain((4,), affine(4, 4), lif(4, threshold=0.3))
    made = check(graph, counts((4,)), reset="subtract")
    assert made.nodes["n1"].reset == "subtract"
    one = chain((1,), nir.IF(**full(1, r=1 / DT, v_threshold=1.0)))
    ones = {"in": np.ones((1, 4, 1), np.int32)}
    for inclusive, rate in ((False, 0.5), (True, 1.0)):
        read = read_nir(one, dt_s=DT, steps=4, inclusive=inclusive)
        assert collect(real.run(read, ones))["n0"].mean() == rate


def test_units_of_time():
    """Milliseconds in the file, or steps: unit_s says so."""
    seconds = chain((4,), affine(4, 4), lif(4), nir.Delay(np.full(4, 2 * DT)), affine(3, 4, 1, 3.0),
                    lif(3))  # fmt: skip
    in_ms = chain((4,), affine(4, 4), lif(4, tau=0.5), nir.Delay(np.full(4, 0.2)),
                  affine(3, 4, 1, 3.0), lif(3, tau=0.5))  # fmt: skip
    one = read_nir(seconds, dt_s=DT, steps=24)
    other = read_nir(in_ms, dt_s=DT, steps=24, unit_s=1e-3)
    inputs = counts((4,))
    a, b = collect(real.run(one, inputs)), collect(real.run(other, inputs))
    assert 0 < a["n4"].mean() < 1
    assert all(np.array_equal(a[n], b[n]) for n in a)


def test_edges_that_meet_are_added_and_decode_is_an_option():
    nodes = {
        "in": nir.Input(np.array([4])), "a": affine(3, 4, 1), "b": affine(3, 4, 2),
        "lif": lif(3), "skip": nir.Scale(np.ones(3)), "out": nir.Output(np.array([3])),
        "top": affine(3, 3, 4), "end": nir.LI(**full(3, tau=1e-3, r=1, v_leak=0)),
    }  # fmt: skip
    edges = [("in", "a"), ("in", "b"), ("a", "lif"), ("b", "lif"), ("lif", "skip"), ("a", "skip"),
             ("skip", "top"), ("top", "end"), ("end", "out")]  # fmt: skip
    graph = nir.NIRGraph(nodes, edges)
    made = check(graph, counts((4,)))
    assert isinstance(made.nodes["lif.sum"], rn.Add)
    assert isinstance(made.nodes["skip"], rn.Add)
    expected = euler(graph, counts((4,)), DT)["end"]
    rate = read_nir(graph, dt_s=DT, steps=24, decode="rate")
    found = collect(real.run(rate, counts((4,))))[rate.output]
    assert np.allclose(found[:, 0], expected.mean(1), rtol=1e-5)
    assert type(made.nodes[made.output]) is rn.TimeLast


# --- loops and graphs in graphs --------------------------------------------------------------
def recurrent(nested: bool):
    """4 inputs -> affine -> 5 recurrent CubaLIF with a bias in the loop -> affine -> 3 LIF."""
    cell = {"lif": cuba(5), "w_rec": affine(5, 5, 8)}
    inner = [("lif", "w_rec"), ("w_rec", "lif")]
    ends = {"fc": affine(5, 4, 3), "fc2": affine(3, 5, 4), "end": lif(3)}
    nodes = {"input": nir.Input(np.array([4])), **ends, "output": nir.Output(np.array([3]))}
    if nested:
        ports = {"input": nir.Input(np.array([5])), "output": nir.Output(np.array([5]))}
        wires = [("input", "lif"), ("lif", "output")]
        nodes["cell"] = nir.NIRGraph({**cell, **ports}, [*inner, *wires], type_check=False)
        middle = [("fc", "cell"), ("cell", "fc2")]
    else:
        nodes |= {f"cell.{n}": node for n, node in cell.items()}
        middle = [("fc", "cell.lif"), ("cell.lif", "fc2")]
        middle += [(f"cell.{a}", f"cell.{b}") for a, b in inner]
    edges = [("input", "fc"), *middle, ("fc2", "end"), ("end", "output")]
    return nir.NIRGraph(nodes, edges, type_check=False)


def test_a_recurrent_layer_reads_the_spikes_of_the_step_before():
    inputs = counts((4,), name="input")
    made = check(recurrent(nested=False), inputs, late=[("cell.lif", "cell.w_rec")])
    assert made.inputs["cell.w_rec"] == ("cell.lif.previous",)
    assert made.nodes["cell.lif.previous"].steps == 1
    found = collect(real.run(made, inputs))
    # the bias in the loop counts from the first step on
    assert np.allclose(found["cell.w_rec"][:, 0] * 3, recurrent(False).nodes["cell.w_rec"].bias)


@pytest.mark.parametrize("where", ["memory", "file"])
def test_nested_graphs_are_opened(where, tmp_path):
    flat, graph = recurrent(nested=False), recurrent(nested=True)
    if where == "file":
        nir.write(tmp_path / "net.nir", graph)
        graph = tmp_path / "net.nir"
    one, other = (read_nir(g, dt_s=DT, steps=24) for g in (flat, graph))
    assert one.nodes.keys() == other.nodes.keys()
    assert {n: set(s) for n, s in one.inputs.items()} == {
        n: set(s) for n, s in other.inputs.items()
    }
    inputs = counts((4,), name="input")
    a, b = collect(real.run(one, inputs)), collect(real.run(other, inputs))
    assert a["end"].any()
    assert all(np.array_equal(a[n], b[n]) for n in a)


def test_a_loop_over_two_layers_is_late_only_on_its_way_back():
    nodes = {
        "in": nir.Input(np.array([4])), "fa": affine(4, 4, 1), "a": lif(), "ab": affine(4, 4, 2),
        "b": lif(), "ba": affine(4, 4, 3), "out": nir.Output(np.array([4])),
    }  # fmt: skip
    edges = [("in", "fa"), ("fa", "a"), ("a", "ab"), ("ab", "b"), ("b", "ba"), ("ba", "a"),
             ("b", "out")]  # fmt: skip
    made = check(nir.NIRGraph(nodes, edges), counts((4,)), late=[("b", "ba")])
    assert [n for n, node in made.nodes.items() if isinstance(node, rn.Delay)] == ["b.previous"]


def test_a_delay_in_the_loop_is_the_only_one():
    nodes = {
        "in": nir.Input(np.array([4])), "a": lif(), "wait": nir.Delay(np.full(4, 2 * DT)),
        "w": nir.Linear(RNG(5).normal(size=(4, 4))), "out": nir.Output(np.array([4])),
    }  # fmt: skip
    edges = [("in", "a"), ("a", "wait"), ("wait", "w"), ("w", "a"), ("a", "out")]
    graph, inputs = nir.NIRGraph(nodes, edges, type_check=False), counts((4,))
    made = read_nir(graph, dt_s=DT, steps=24)
    delays = {n: node.steps for n, node in made.nodes.items() if isinstance(node, rn.Delay)}
    assert delays == {"wait": 2}
    # the same with one step in the node and one on the edge
    nodes["wait"] = nir.Delay(np.full(4, DT))
    expected = euler(graph, inputs, DT, late=[("a", "wait")])["a"]
    found = collect(real.run(made, inputs))["a"]
    assert 0 < found.mean() < 1
    assert np.array_equal(found, expected)


def test_repeated_edges_count_once():
    graph = chain((4,), affine(4, 4), lif())
    once = read_nir(graph, dt_s=DT, steps=24)
    graph.edges.append(graph.edges[0])
    twice = read_nir(graph, dt_s=DT, steps=24)
    assert once.inputs == twice.inputs


# --- properties ------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    widths=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    kinds=st.lists(st.sampled_from(["lif", "cuba", "if"]), min_size=3, max_size=3),
    loop=st.booleans(),
)
def test_random_networks_do_what_the_equations_say(seed, widths, kinds, loop):
    rng, nodes, names, late = RNG(seed), {}, ["in"], []
    size, edges = 3, []
    for i, (n, kind) in enumerate(zip(widths, kinds, strict=False)):
        v = {f: rng.uniform(0.1, 0.6, n) for f in ("v_threshold",)} | {"v_reset": np.zeros(n)}
        tau, leak = {"v_leak": np.zeros(n)}, rng.uniform(1e-4, 2e-3, (2, n))
        if kind == "lif":
            made = nir.LIF(tau=leak[0], r=rng.uniform(0.5, 4, n), **tau, **v)
        elif kind == "cuba":
            made = nir.CubaLIF(tau_mem=leak[0], tau_syn=leak[1], r=rng.uniform(1, 4, n),
                               w_in=rng.uniform(1, 3, n), **tau, **v)  # fmt: skip
        else:
            made = nir.IF(r=rng.uniform(1e3, 1e4, n), **v)
        nodes |= {
            f"w{i}": nir.Affine(rng.normal(size=(n, size)), rng.normal(size=n)),
            f"s{i}": made,
        }
        names += [f"w{i}", f"s{i}"]
        if loop:
            nodes[f"r{i}"] = nir.Linear(rng.normal(size=(n, n)))
            edges += [(f"s{i}", f"r{i}"), (f"r{i}", f"s{i}")]
            late.append((f"s{i}", f"r{i}"))
        size = n
    names.append("out")
    nodes |= {"in": nir.Input(np.array([3])), "out": nir.Output(np.array([size]))}
    edges += pairwise(names)
    graph, inputs = nir.NIRGraph(nodes, edges, type_check=False), counts((3,), 12, 2, seed % 97)
    made = read_nir(graph, dt_s=DT, steps=12)
    found, expected = collect(real.run(made, inputs)), euler(graph, inputs, DT, late)
    for name in nodes:
        if name.startswith("s"):
            assert np.array_equal(found[name], expected[name]), name


# --- refused ---------------------------------------------------------------------------------
def refused(graph, match, error=NeuroavError, **options):
    with pytest.raises(error, match=match):
        read_nir(graph, **{"dt_s": DT, "steps": 5, **options})


def test_the_step_is_asked_for_with_the_one_that_fits():
    graph = chain((4,), affine(4, 4), lif(4, tau=5e-4, r=5.0))
    refused(graph, r"give dt_s.*\(r dt / tau = 1\) at 0.0001 s in n1", ConfigError, dt_s=None)
    refused(graph, "how many steps", ConfigError, steps=None)
    for name, value in (("dt_s", -1.0), ("dt_s", float("nan")), ("unit_s", 0.0), ("steps", 0),
                        ("reset", "soft"), ("decode", "max"), ("max_count", {"x": 1})):  # fmt: skip
        refused(
            graph, name if name != "max_count" else "'x' is no input", ConfigError, **{name: value}
        )


def test_the_step_in_the_metadata_is_used():
    graph = chain((4,), affine(4, 4), lif())
    graph.metadata = {"dt": 2e-4, "steps": "7"}
    made = read_nir(graph)
    assert (made.dt_s, made.steps) == (2e-4, 7)


BAD = {
    "step over tau": (chain((4,), lif(tau=5e-5)), "n0: tau is 5e-05.*unit_s"),
    "nan": (chain((4,), nir.Linear(np.full((4, 4), np.nan)), lif()),
            "n0: 16 of 16 values of weight"),
    "no leak": (chain((4,), lif(tau=np.inf)), "n0: 4 of 4 values of tau.*NIR's IF"),
    "sizes": (
        chain((4,), affine(4, 5), lif(), type_check=False), "n0: weight \\(4, 5\\) takes 5 values",
    ),
    "neurons": (
        chain((4,), affine(4, 4), lif(5), type_check=False), r"n1: .* has shape \(5,\), its input",
    ),
    "uneven delay": (chain((4,), lif(), nir.Delay(np.full(4, 1.5 * DT))), "is 1.5 steps"),
    "several delays": (
        chain((4,), lif(), nir.Delay(np.arange(4) * DT)),
        "n1: delays span.*one Delay node per value",
    ),
    "stack": (
        chain((2, 4), nir.Linear(np.ones((2, 3, 4))), type_check=False), "stacks of matrices",
    ),
    "li arrays": (
        chain((4,), nir.LI(np.arange(1, 5) * 1e-3, np.ones(4), np.zeros(4))), "n0: tau spans",
    ),
    "integrator inside": (chain((4,), nir.I(np.ones(4)), lif()), "n1: a LIF reads an integrator"),
    "identity": (nir.NIRGraph({"in": nir.Input(np.array([2])), "x": nir.ir.graph.Identity(
        {"output": np.array([2])})}, [("in", "x")], type_check=False), "x: is a Identity; NIR's"),
    "factor per place": (
        chain((1, 2, 2), nir.Scale(np.arange(1, 5.0).reshape(1, 2, 2)), lif((1, 2, 2))),
        "a factor of its own at every place",
    ),
    "edge": (
        nir.NIRGraph({"in": nir.Input(np.array([2]))}, [("in", "y")], type_check=False),
        "an edge names",
    ),
    "no neurons in the loop": (
        nir.NIRGraph(
            {"in": nir.Input(np.array([2])), "a": nir.Linear(np.eye(2)), "b": nir.Linear(np.eye(2)),
             "out": nir.Output(np.array([2]))},
            [("in", "a"), ("a", "b"), ("b", "a"), ("b", "out")], type_check=False,
        ),
        "a: lies on a loop without neurons or delay",
    ),
    "two outputs": (
        nir.NIRGraph(
            {"in": nir.Input(np.array([2])), "a": lif(2), "o1": nir.Output(np.array([2])),
             "o2": nir.Output(np.array([2]))},
            [("in", "a"), ("a", "o1"), ("a", "o2")],
        ),
        "has 2 outputs",
    ),
    "window": (
        chain((1, 2, 2), nir.SumPool2d(np.array([3, 3]), np.array([1, 1]), np.array([0, 0])),
              type_check=False),
        "n0: a window of 3",
    ),
    "padding": (
        chain((1, 3, 3), nir.Conv2d(None, np.ones((1, 1, 2, 2)), 2, "same", 1, 1, np.zeros(1)),
              type_check=False),
        "n0: padding 'same' with stride",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused_by_name(name):
    graph, match = BAD[name]
    refused(graph, match)


def test_output_by_name_and_inputs_without_a_shape():
    graph = BAD["two outputs"][0]
    assert read_nir(graph, dt_s=DT, steps=3, output="o2").output == "scores"
    refused(graph, "is no output", UnsupportedNode, output="o3")
    bare = nir.NIRGraph({"fc": affine(3, 4), "lif": lif(3)}, [("fc", "lif")], type_check=False)
    made = read_nir(bare, dt_s=DT, steps=3)
    assert made.shapes["input_fc"] == (4,)


def test_the_page_shows_the_table():
    page = (samples.ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    assert reads_table() in page


# --- files -----------------------------------------------------------------------------------
def old_file(path, change=lambda file: None):
    """A file as nir 0.1 wrote it: no v_reset, w_in, input_type or metadata; edges by name."""
    with h5py.File(path, "w") as file:
        file["version"] = "0.1.1"
        nodes = file.create_group("node/nodes")
        file["node/type"] = "NIRGraph"
        file["node/edges"] = np.array(
            [["input", "0"], ["0", "1"], ["1", "2"], ["2", "output"]], dtype=h5py.string_dtype()
        )
        parts = {
            "input": {"type": "Input", "shape": np.array([1, 2, 2])},
            "0": {"type": "Flatten", "start_dim": 0, "end_dim": -1},
            "1": {"type": "Affine", "weight": RNG(0).normal(size=(3, 4)), "bias": np.zeros(3)},
            "2": {"type": "CubaLIF", "tau_mem": np.full(3, 1e-3), "tau_syn": np.full(3, 5e-4),
                  "r": np.ones(3), "v_leak": np.zeros(3), "v_threshold": np.full(3, 0.1)},
            "output": {"type": "Output", "shape": np.array([3])},
        }  # fmt: skip
        for name, fields in parts.items():
            for key, value in fields.items():
                nodes.create_group(name, track_order=True) if name not in nodes else None
                nodes[name][key] = value
        change(file)
    return path


def test_an_old_file_is_read(tmp_path):
    made = read_nir(old_file(tmp_path / "old.nir"), dt_s=DT, steps=10)
    assert made.nodes["2"].tau_syn_s == 5e-4
    assert made.nodes["2"].v_reset == 0.0
    spikes = collect(real.run(made, counts((1, 2, 2), 10, name="input")))["2"]
    assert 0 < spikes.mean() < 1


def _replace(key, value):
    def change(file):
        del file[key]
        if value is not None:
            file[key] = value

    return change


HOSTILE = {
    "no node": (_replace("node", None), "node"),
    "type": (_replace("node/nodes/1/type", 5), "is no text"),
    "bytes": (_replace("node/nodes/1/weight", np.zeros((3, 4), "V3")), "holds"),
    "soft link": (_replace("node/nodes/1/weight", h5py.SoftLink("/node")), "is a SoftLink"),
    "outside": (_replace("node/nodes/1/weight", h5py.ExternalLink("x.h5", "/")), "ExternalLink"),
    "edges": (_replace("node/edges", np.zeros((3, 3))), "edges"),
    "missing": (_replace("node/nodes/1/weight", None), "1: Affine field 'weight' is missing"),
    "nan": (_replace("node/nodes/1/weight", np.full((3, 4), np.nan)), "12 of 12 values"),
    "shape": (_replace("node/nodes/1/weight", np.zeros((3, 5))), "takes 5 values"),
    "axes": (_replace("node/nodes/input/shape", np.full(9, 9)), "shape is"),
    "neurons": (_replace("node/nodes/input/shape", np.full(3, 9999)), "shape is"),
    "end": (_replace("node/nodes/0/end_dim", 2.5), "whole number"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_file_is_one_clear_error(name, tmp_path):
    change, match = HOSTILE[name]
    path = old_file(tmp_path / "bad.nir", change)
    refused(path, match, FileFormatError)


def test_cyclic_links_huge_arrays_and_names(tmp_path):
    def cycle(file):
        file["node/nodes/deep"] = file["node"]

    def huge(file):
        del file["node/nodes/1/weight"]
        file.create_dataset("node/nodes/1/weight", (1 << 20, 1 << 20), "f8", chunks=(1, 64))

    def name(file):
        file["node/nodes"].move("0", "\u202e\n")

    for change, match in ((cycle, "nested too deep"), (huge, "declares"), (name, "names are 1")):
        refused(old_file(tmp_path / "bad.nir", change), match, FileFormatError)


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_cut_file_or_another_kind_is_refused(keep, tmp_path):
    whole = old_file(tmp_path / "old.nir").read_bytes()
    (tmp_path / "cut.nir").write_bytes(whole[: int(keep * len(whole))])
    refused(
        tmp_path / "cut.nir", "cannot be read as a NIR file|declares|is missing", FileFormatError
    )
    refused(tmp_path / "none.nir", "no such file", FileFormatError)
    refused(7, "no NIR graph", FileFormatError)


# --- others' files ---------------------------------------------------------------------------
def test_the_neuron_of_the_nir_paper_spikes_as_norse_did(vectors):
    """lif_norse.nir and the recording of Norse, 1000 steps of 1e-4 s (NIR repository)."""
    rows = np.loadtxt(vectors / "nir_lif" / "lif_norse.csv", delimiter=",")
    made = read_nir(vectors / "nir_lif" / "lif_norse.nir", dt_s=1e-4, steps=len(rows))
    found = collect(real.run(made, {"input": rows[None, :, :1]}))
    assert rows[:, 2].sum() == 4
    assert np.array_equal(found["1"][0, :, 0], rows[:, 2])


def test_the_same_neuron_in_integers_spikes_as_the_chip_did(vectors):
    """lif_lava_loihi_fixed.csv is a Loihi chip, whose input came one step later."""
    silicon = np.loadtxt(vectors / "nir_lif" / "lif_lava_loihi_fixed.csv", delimiter=",")
    sample = silicon[None, :, :1].astype(np.int32)
    deployment = import_nir(vectors / "nir_lif" / "lif_norse.nir", sample, dt_s=1e-4)
    found = collect(fast.run(deployment, {"input": sample}))["1"][0, :, 0]
    assert silicon[:, 2].sum() == 4
    assert np.array_equal(np.flatnonzero(found) + 1, np.flatnonzero(silicon[:, 2]))


# --- deployed --------------------------------------------------------------------------------
def test_a_recurrent_network_keeps_its_predictions_in_integers():
    bench = samples.load_script(samples.ROOT / "benchmarks" / "nir_recurrent.py")
    found = bench.measure(128, steps=96, spread=0.11, train_samples=128)
    assert found["accuracy_real"] > 0.9
    assert 0.05 < found["hidden_rate"] < 0.5
    assert found["agreement"] >= 0.98


def test_samples_are_taken_by_name_or_alone_and_checked():
    graph = chain((4,), affine(3, 4, 1, 2.0), lif(3))
    given = counts((4,))
    one = import_nir(graph, given, dt_s=DT, classes=("a", "b", "c"))
    other = import_nir(graph, given["in"].reshape(3, 24, 2, 2), dt_s=DT)
    assert one.classes == ("a", "b", "c")
    assert one.provenance["imported"]["format"] == "nir"
    a, b = (collect(fast.run(d, given)) for d in (one, other))
    assert a["n1"].any()
    assert np.array_equal(a["n1"], b["n1"])
    bad_ones = (
        (given["in"][..., :3], "values per step are"),
        ({"x": given["in"]}, "holds"),
        (given["in"][0, 0], "needs"),
    )
    for bad, match in bad_ones:
        with pytest.raises(NeuroavError, match=match):
            import_nir(graph, bad, dt_s=DT)
    with pytest.raises(ConfigError, match="--samples"):
        read_deployment("net.nir")
