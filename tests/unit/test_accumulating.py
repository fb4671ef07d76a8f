"""Sums over a sample, products and the winner: their arithmetic at the ends of the registers."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import h5py
import numpy as np
import pytest
import samples
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies_intgraph import make_deployment

from neuroav import integer as ig
from neuroav import navfile, verify
from neuroav import nodes as rn
from neuroav import quantization as qn
from neuroav.errors import FileFormatError, OutOfRange, StageError
from neuroav.graph import SpikingGraph
from neuroav.hardware import load_profile
from neuroav.models.layers import Multiply, TimeWeightedSum
from neuroav.sim import fast, real, reference
from neuroav.sim.trace import collect
from neuroav.simulate import Samples
from neuroav.stages import verify_graph, verify_integer

ARITH = load_profile("loihi2").arithmetic
PAYLOAD = (1 << 23) - 1
EXECUTORS = (reference.run, fast.run)


def network(middle: ig.Population, steps: int, width: int = 1, top: int = 1 << 22):
    """Inputs x and y, ``width`` counts each -> relays of both signs -> ``middle``, called m."""
    relays = {f"{n}+": ig.IntSum((width,), (ig.IntIdentity(n, 0, 1),)) for n in ("x", "y")} | {
        f"{n}-": ig.IntSum((width,), (ig.IntIdentity(n, 0, -1),)) for n in ("x", "y")
    }
    inputs = {n: ig.IntInput((width,), (), top) for n in ("x", "y")}
    spikes = ig.IntWinner((width,), (ig.IntIdentity("m", 0, 1),))
    read = (ig.IntIdentity("end", 0, 1),)
    end = {"m": middle, "end": spikes, "r": ig.IntReadout((width,), read, np.zeros(1, np.int64))}
    return make_deployment({**inputs, **relays, **end}, "r", steps)


def messages(deployment, x, y=None):
    """Return what m sends, (samples, steps, neurons), the same from both executors."""
    inputs = {"x": np.asarray(x), "y": np.zeros_like(x) if y is None else np.asarray(y)}
    found = [collect(run(deployment, inputs))["m"] for run in EXECUTORS]
    assert np.array_equal(*found)
    return found[0]


def refused(deployment, x, y, message: str) -> None:
    for run in EXECUTORS:
        with pytest.raises(OutOfRange, match=message):
            list(run(deployment, {"x": np.asarray(x), "y": np.asarray(y)}))


# --- sums over a sample -----------------------------------------------------------------------
def time_sum(sign: str, weights=(), shift=0, steps=2):
    relay = (ig.IntIdentity(f"x{sign}", 0, 1),)
    return network(ig.IntTimeSum((1,), relay, weights, shift), steps)


@pytest.mark.parametrize(
    ("total", "shift", "message"),
    [(-1, 0, -1), (-1, 1, -1), (-1, 31, -1), (-2, 1, -1), (-3, 1, -2), (-4, 1, -2), (3, 1, 1),
     (-8, 3, -1), (-9, 3, -2), (7, 3, 0), (8, 3, 1), (-PAYLOAD, 23, -1), (PAYLOAD, 23, 0),
     (PAYLOAD, 22, 1), (-PAYLOAD, 0, -PAYLOAD), (PAYLOAD, 0, PAYLOAD), (0, 5, 0)],
)  # fmt: skip
def test_a_sum_is_shifted_and_rounded_down(total, shift, message):
    """The same at every step; two frames add up to ``total``."""
    sign = "-" if total < 0 else "+"
    half = abs(total) // 2
    sent = messages(time_sum(sign, (), shift), [[[half], [abs(total) - half]]])
    assert sent.reshape(-1).tolist() == [message, message]


def test_steps_count_by_their_weights():
    x = np.array([[[1], [10], [100]], [[0], [0], [7]]])
    sent = messages(time_sum("+", (3, -255, 255), 0, steps=3), x)
    assert sent[..., 0].tolist() == [[22953] * 3, [1785] * 3]
    assert (messages(time_sum("+", (3, -255, 255), 4, steps=3), x)[:, 0, 0] == [1434, 111]).all()
    assert (messages(time_sum("-", (3, -255, 255), 4, steps=3), x)[:, 0, 0] == [-1435, -112]).all()


@pytest.mark.parametrize("sign", ["+", "-"])
def test_a_sum_beyond_its_register_is_refused_whatever_the_shift(sign):
    y = [[[0], [0]]]
    found = "-8388608" if sign == "-" else "8388608"
    text = f"m: the count over a sample reached {found}, the register holds"
    refused(time_sum(sign, (), 5), [[[1 << 22], [1 << 22]]], y, text)
    refused(time_sum(sign, (1, 2), 5), [[[2], [(1 << 22) - 1]]], y, text)
    assert messages(time_sum(sign, (1, 2), 5), [[[1], [(1 << 22) - 1]]]).any()
    assert messages(time_sum("+", (2, -2), 0), [[[1 << 22], [1 << 22]]]).tolist() == [[[0], [0]]]


# --- products ---------------------------------------------------------------------------------
def product(first: str, second: str, shift=0):
    ports = (ig.IntIdentity(first, 0, 1, port=0), ig.IntIdentity(second, 0, 1, port=1))
    return network(ig.IntProduct((1,), ports, shift), 1)


@pytest.mark.parametrize(
    ("x", "y", "shift", "message"),
    [(1, 1, 1, 0), (-1, 1, 1, -1), (-1, 1, 31, -1), (-3, 1, 1, -2), (-1, -1, 1, 0), (-5, 7, 3, -5),
     (46340, 46341, 8, 8388445), (-46340, 46341, 8, -8388446), (1 << 15, 1 << 15, 8, 1 << 22),
     (4096, -2048, 0, -1 << 23), (0, -4, 2, 0), (2896, 2896, 0, 8386816)],
)  # fmt: skip
def test_a_product_is_shifted_and_rounded_down(x, y, shift, message):
    deployment = product("x-" if x < 0 else "x+", "y-" if y < 0 else "y+", shift)
    if abs(message) > PAYLOAD:
        refused(deployment, [[[abs(x)]]], [[[abs(y)]]], "m: the product reached -8388608")
        return
    assert messages(deployment, [[[abs(x)]]], [[[abs(y)]]]).item() == message


def test_products_and_their_messages_beyond_the_registers_are_refused():
    square = product("x+", "y+", 9)
    refused(square, [[[46341]]], [[[46341]]], "m: the product reached 2147488281, the register")
    refused(product("x+", "y-", 9), [[[46341]]], [[[46341]]], "m: the product reached -2147488281")
    half = product("x+", "y+", 7)
    refused(half, [[[1 << 15]]], [[[1 << 15]]], "m: the product's message reached 8388608")
    # a factor beyond 32 bits, even times nothing
    many = tuple(ig.IntIdentity("x+", 0, 255, port=0) for _ in range(3))
    wide = ig.IntProduct((1,), (*many, ig.IntIdentity("y+", 0, 1, port=1)), 3)
    x = [[[1 << 22]]]
    refused(network(wide, 1), x, [[[0]]], "m: the synaptic sum reached 3208642560, the register")


# --- the winner -------------------------------------------------------------------------------
def winner(source: str, width: int):
    return network(ig.IntWinner((width,), (ig.IntIdentity(source, 0, 1),)), 3, width)


def test_the_largest_wins_and_the_first_among_equals():
    x = np.array([[[0, 0, 0, 0], [1, 3, 3, 2], [5, 0, 5, 9]]])
    assert messages(winner("x+", 4), x).argmax(2).tolist() == [[0, 1, 3]]
    sent = messages(winner("x-", 4), x)
    assert sent.argmax(2).tolist() == [[0, 0, 1]]
    assert (sent.sum(2) == 1).all()
    assert set(np.unique(sent)) == {0, 1}
    assert (messages(winner("x+", 1), x[..., :1]) == 1).all()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_the_winner_is_argmax(seed):
    x = np.random.default_rng(seed).integers(0, 4, (3, 3, 6))
    assert np.array_equal(messages(winner("x+", 6), x).argmax(2), x.argmax(2))


def test_a_winner_in_rows_and_columns_takes_the_first_in_c_order():
    shape = (2, 2, 2)
    pops = {
        "x": ig.IntInput(shape, (), 9),
        "m": ig.IntWinner(shape, (ig.IntIdentity("x", 0, 1),)),
        "r": ig.IntReadout(shape, (ig.IntIdentity("m", 0, 1),), np.zeros(1, np.int64)),
    }
    x = np.zeros((1, 1, *shape), int)
    x[0, 0, 0, 1, 1] = x[0, 0, 1, 0, 0] = 9
    for run in EXECUTORS:
        sent = collect(run(make_deployment(pops, "r", 1), {"x": x}))["m"]
        assert sent.reshape(-1).tolist() == [0, 0, 0, 1, 0, 0, 0, 0]


# --- rules and files --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shift": -1}, r"m: shift is -1, allowed 0\.\.31"),
        ({"shift": 32}, "m: shift is 32"),
        ({"shift": 1.0}, r"m: shift is 1\.0"),
        ({"shift": True}, "m: shift is True"),
        ({"shift": "x"}, "m: shift is 'x'"),
        ({"weights": (1,)}, r"m: 1 step weights span 1\.\.1, needs 2 in -255\.\.255"),
        ({"weights": (1, 256)}, r"m: 2 step weights span 1\.\.256"),
        ({"weights": (-256, 0)}, r"m: 2 step weights span -256\.\.0"),
        ({"weights": (1.0, 2.0)}, r"m: step weights must be integers, found \(1\.0, 2\.0\)"),
        ({"weights": "12"}, "m: step weights must be integers, found '12'"),
        ({"weights": np.ones(2)}, "m: step weights must be integers"),
    ],
)
def test_stage_rules_name_what_no_register_holds(changes, message):
    graph = time_sum("+").integer
    wrong = replace(graph.populations["m"], **changes)
    with pytest.raises(StageError, match=message):
        verify_integer(replace(graph, populations={**graph.populations, "m": wrong}), ARITH)


def test_files_hold_weights_and_shifts_and_leave_defaults_out(tmp_path):
    path = tmp_path / "net.nav"
    navfile.save(time_sum("+", (3, -255), 31), path)
    pop = navfile.load(path).integer.populations["m"]
    assert (pop.weights, pop.shift) == ((3, -255), 31)
    assert type(pop.weights[0]) is int
    with h5py.File(path) as file:
        assert file.attrs["version"] == 2
    navfile.save(time_sum("+"), path)
    with h5py.File(path) as file:
        assert set(file["integer/m"].attrs) == {"class", "shape", "scale", "latency"}
        assert file.attrs["version"] == 1  # as before there were weights and shifts
    assert navfile.load(path).integer.populations["m"].weights == ()
    navfile.save(product("x+", "y+", 5), path)
    assert navfile.load(path).integer.populations["m"].shift == 5


@pytest.mark.parametrize(
    ("field", "value"),
    [("shift", 99), ("shift", -1), ("shift", 2.5), ("shift", "9"), ("shift", [1, 2]),
     ("weights", [1, 2, 3]), ("weights", [1, 1 << 40]), ("weights", [0.5, 1.0]), ("weights", 7),
     ("weights", "ab"), ("weights", [[1, 2], [3, 4]]), ("weights", [float("nan")] * 2)],
)  # fmt: skip
def test_hostile_values_in_a_file_are_one_clear_error(tmp_path, field, value):
    path = tmp_path / "net.nav"
    navfile.save(time_sum("+", (3, -255), 3), path)
    with samples.edited_hdf5(path) as file:
        file["integer/m"].attrs[field] = value
        file.attrs["content_hash"] = navfile.content_hash(file)
    with pytest.raises(FileFormatError, match=r"net\.nav: (holds an invalid network: m: |cannot)"):
        navfile.load(path)


@pytest.mark.parametrize("kind", ["time sum", "product", "winner"])
def test_verify_finds_a_changed_population_and_does_not_stumble(kind):
    deployment = {
        "time sum": time_sum("+", (3, 1), 1),
        "product": product("x+", "x+", 1),
        "winner": winner("x+", 4),
    }[kind]
    graph = deployment.integer
    source = graph.populations["m"].projections[0].source
    x = np.random.default_rng(0).integers(1, 9, (2, graph.steps, *graph.populations[source].shape))
    inputs = {"x": x, "y": 0 * x}
    outputs = {n: v.copy() for n, v in collect(reference.run(deployment, inputs)).items()}
    expected = {n: v.copy() for n, v in outputs.items()}
    assert verify.first_divergence(deployment, expected, outputs) is None
    outputs["m"][1, 0] += 1
    found = verify.first_divergence(deployment, expected, outputs)
    assert (found["node"], found["sample"], found["cause"]) == ("m", 1, "parameter")
    data = Samples(inputs, np.zeros(2, np.int64), "probe")
    assert verify.compare(deployment, data, ["reference", "fast"])["equal"]


# --- real nodes and layers --------------------------------------------------------------------
def real_graph(node, steps=3, shapes=((2,), (2,))):
    nodes = {"x": rn.Input(shapes[0]), "z": rn.Input(shapes[1]), "y": node}
    inputs = {"x": (), "z": (), "y": ("x",) if isinstance(node, rn.TimeSum) else ("x", "z")}
    return SpikingGraph(
        nodes, inputs, {"x": shapes[0], "z": shapes[1], "y": shapes[1]}, "y", 1e-3, steps
    )


def test_real_nodes_compute_what_the_layers_do():
    x = torch.arange(12.0, dtype=torch.float64).reshape(3, 2, 2) - 5
    layer = TimeWeightedSum(3).double()
    assert torch.allclose(layer(x), x.mean(0).expand_as(x))
    assert torch.allclose(TimeWeightedSum(3, learned=False)(x), x.mean(0).expand_as(x))
    assert list(TimeWeightedSum(3, learned=False).parameters()) == []
    with torch.no_grad():
        layer.logits.copy_(torch.tensor([0.0, 1.0, 3.0]))
    weights = np.exp([0.0, 1.0, 3.0]) / np.exp([0.0, 1.0, 3.0]).sum()
    node = rn.TimeSum(weights)
    verify_graph(real_graph(node))
    expected = np.tensordot(weights, x.numpy(), 1)
    assert layer(x).shape == x.shape
    for found in (layer(x), real.evaluate(node, [x], 1e-3)):
        assert np.allclose(found.detach().numpy(), expected)
    assert torch.equal(real.evaluate(rn.TimeSum(), [x], 1e-3)[1], x.sum(0))
    assert torch.equal(real.evaluate(rn.Product(), [x, x + 1], 1e-3), Multiply()(x, x + 1))
    verify_graph(real_graph(rn.Product()))
    verify_graph(real_graph(rn.Product(), shapes=((2,), (2, 4, 4))))


def test_layers_and_nodes_name_what_does_not_fit():
    with pytest.raises(ValueError, match="has weights for 4 steps, the input has 3"):
        TimeWeightedSum(4)(torch.ones(3, 1, 2))
    with pytest.raises(ValueError, match="needs 1 step and more, got 0"):
        TimeWeightedSum(0)
    with pytest.raises(ValueError, match=r"multiplies shapes \(3, 1, 2\) and \(3, 1, 1\)"):
        Multiply()(torch.ones(3, 1, 2), torch.ones(3, 1, 1))
    with pytest.raises(StageError, match="y: has 2 step weights, a sample has 3 steps"):
        verify_graph(real_graph(rn.TimeSum(np.ones(2))))
    with pytest.raises(StageError, match=r"y: multiplies shapes \[\(2,\), \(3,\)\], needs two eq"):
        verify_graph(real_graph(rn.Product(), shapes=((2,), (3,))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.ones((2, 2)),), r"weights must be \(steps,\)"),
        ((3.0,), r"weights must be \(steps,\)"),
        ((np.array([1.0, np.nan]),), "1 of 2 values are NaN"),
        ((np.zeros(3),), "weights are all 0"),
        ((None, -1.0), "peak is -1.0, must be a finite number from 0"),
        ((None, np.inf), "peak is inf"),
        ((None, "7"), "peak is '7'"),
    ],
)
def test_hostile_real_nodes_are_refused(arguments, message):
    with pytest.raises(StageError, match=f"TimeSum.*{message}"):
        rn.TimeSum(*arguments)


# --- choosing integers ------------------------------------------------------------------------
def test_step_weights_have_four_bits_unless_all_steps_count_alike():
    assert qn.integer_step_weights(None) == ((), 1)
    assert qn.integer_step_weights(np.full(7, 1 / 7)) == ((), Fraction(1, 7))
    weights, unit = qn.integer_step_weights(np.array([0.5, 0.25, -0.1, 0.0]))
    assert weights == (15, 8, -3, 0)
    assert unit == Fraction(1, 30)
    weights, unit = qn.integer_step_weights(np.array([-0.5, -0.5]))
    assert (weights, unit) == ((-15, -15), Fraction(1, 30))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.floats(0, 1e9), st.floats(1e-6, 1e3), st.integers(2, 20))
def test_a_message_drops_the_fewest_bits_that_leave_room_for_twice_the_peak(peak, unit, bits):
    unit = Fraction(unit)
    shift = qn.message_shift(peak, unit, bits)
    most = 2 * Fraction(peak) / unit
    assert most <= ((1 << bits) - 1) << shift
    assert shift == 0 or most > ((1 << bits) - 1) << (shift - 1)
    assert qn.message_shift(None, unit, bits) == 0
