"""Each rule of the stage table fires, and names what it found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import samples

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.errors import StageError
from neuroav.graph import SpikingGraph, topological_order
from neuroav.hardware import load_profile
from neuroav.stages import verify_graph, verify_integer
from neuroav.synapses import fan_out

ARITH = load_profile("loihi2").arithmetic


@pytest.fixture(scope="module")
def graph():
    return samples.tiny_example().build().integer


def altered(graph, name, **changes):
    pops = dict(graph.populations)
    pops[name] = replace(pops[name], **changes)
    return replace(graph, populations=pops)


def with_projection(graph, name, **changes):
    first, *rest = graph.populations[name].projections
    return altered(graph, name, projections=(replace(first, **changes), *rest))


def test_valid_graph_passes(graph):
    assert verify_integer(graph, ARITH) is graph


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("audio_lif", {"threshold": np.array([2**17])}, "threshold spans"),
        ("audio_lif", {"bias_mantissa": np.array([4096])}, "bias_mantissa spans"),
        ("audio_lif", {"bias_exponent": 8}, "bias_exponent spans"),
        ("audio_lif", {"decay_v": 4097}, "decay_v spans"),
        ("audio_lif", {"threshold": np.zeros(5, np.int64)}, "does not broadcast"),
        ("audio_lif", {"shape": (2, 4, 4)}, "gives shape"),
        ("audio_pool", {"projections": ()}, "IntOr with 0 projections"),
        ("head", {"bias": np.zeros(4, np.int64)}, "does not broadcast"),
    ],
)
def test_bad_neurons_are_named(graph, name, changes, message):
    with pytest.raises(StageError, match=f"{name}.*{message}"):
        verify_integer(altered(graph, name, **changes), ARITH)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight": np.full((2, 1, 2, 2), 255)}, "storable"),
        ({"weight": np.full((2, 1, 2, 2), 1)}, "storable"),
        ({"weight": np.full((2, 1, 2, 2), 512)}, "storable"),
        ({"sign_mode": "excitatory"}, "sign mode excitatory does not hold"),
        ({"weight_bits": 9}, "weight_bits is 9"),
        ({"delay": 1}, "delay is 1, branches align at 0"),
        ({"stride": (2, 2)}, "gives shape"),
        ({"groups": 2}, "does not fit source"),
    ],
)
def test_bad_synapses_are_named(graph, changes, message):
    with pytest.raises(StageError, match=f"audio_lif from audio: .*{message}"):
        verify_integer(with_projection(graph, "audio_lif", **changes), ARITH)


def test_unaligned_and_missing_sources_are_named(graph):
    with pytest.raises(StageError, match="nowhere: named as a source"):
        verify_integer(with_projection(graph, "join", source="nowhere"), ARITH)


def test_output_must_be_a_readout(graph):
    with pytest.raises(StageError, match="'join' is not an IntReadout"):
        verify_integer(replace(graph, output="join"), ARITH)


def test_identity_weight_must_fit(graph):
    with pytest.raises(StageError, match=r"weight 256 must be non-zero in -256\.\.255"):
        verify_integer(with_projection(graph, "join", weight=256), ARITH)


def test_loops_are_named():
    with pytest.raises(
        StageError, match="the graph has a loop without a delay: (a -> b -> a|b -> a -> b)"
    ):
        topological_order({"a": ("b",), "b": ("a",)})


def test_order_is_sources_first_then_by_name():
    assert topological_order({"z": (), "a": ("z",), "m": (), "b": ("m",)}) == ("m", "z", "a", "b")


def real_graph(node, shape=(1, 4, 4), out=(1, 4, 4), stage="traced"):
    return SpikingGraph(
        {"x": rn.Input(shape), "y": node}, {"x": (), "y": ("x",)}, {"x": shape, "y": out},
        "y", 1e-3, 2, stage,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("node", "stage", "message"),
    [
        (rn.BatchNorm(np.ones(1), np.ones(1)), "folded", "BatchNorm may not exist at stage folded"),
        (rn.MaxPool2d((2, 2), (2, 2)), "lowered", "MaxPool2d may not exist at stage lowered"),
        (rn.OrPool2d((2, 2), (2, 2)), "traced", "OrPool2d may not exist at stage traced"),
        (rn.BatchNorm(np.ones(3), np.ones(3)), "traced", "has 3 channels, its source has 1"),
        (rn.Dense(np.ones((2, 5))), "traced", "weight is .2, 5."),
        (rn.Conv2d(np.ones((1, 1, 7, 7))), "traced", "larger than its padded source"),
        (rn.SpatialMean(), "traced", r"shape is \(1, 4, 4\), its inputs give \(1,\)"),
    ],
)
def test_real_graph_rules(node, stage, message):
    with pytest.raises(StageError, match=f"y: .*{message}"):
        verify_graph(real_graph(node, stage=stage))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_in_weights_is_named(value):
    with pytest.raises(StageError, match=r"Dense\.weight: 1 of 4 values are NaN or infinite"):
        rn.Dense(np.array([[1.0, value], [0.0, 2.0]]))


def test_fan_out_counts_every_synapse_of_every_projection_kind():
    """Against a plain count over all (source, target) pairs of an unrolled matrix."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-2, 3, (4, 2, 3, 2)) * 2
    conv = ig.IntConv2d("x", 0, weight, (2, 1), (1, 0), (1, 2), 2, 8, "mixed")
    source, target = (4, 5, 7), (4, 3, 5)
    count = np.zeros(source, np.int64)
    for o, r, c in np.ndindex(target):
        for i, dr, dc in np.ndindex(2, 3, 2):
            row, column = 2 * r + dr - 1, c + 2 * dc
            if 0 <= row < 5 and 0 <= column < 7 and weight[o, i, dr, dc]:
                count[(o // 2) * 2 + i, row, column] += 1
    assert count.sum() > 100
    assert np.array_equal(fan_out(conv, source, target), count)
    pool = fan_out(ig.IntPool("x", 0, (3, 3), (2, 2), (1, 1)), (1, 4, 4), (1, 2, 2))
    assert pool[0].tolist() == [[1, 2, 1, 1], [2, 4, 2, 2], [1, 2, 1, 1], [1, 2, 1, 1]]
    dense = ig.IntDense("x", 0, np.array([[0, 2, 4], [0, 0, 6]]), 8, "excitatory")
    assert fan_out(dense, (3,), (2,)).tolist() == [0, 1, 2]


def test_attention_whose_counts_exceed_a_message_is_refused():
    arith = replace(load_profile("loihi2").arithmetic, payload_bits=4)
    shape = (8, 1, 2)  # one head of 8 channels, 2 tokens: counts up to 16
    relays = tuple(ig.IntIdentity("s", 0, 1, port=port) for port in range(3))
    graph = ig.IntGraph(
        {
            "x": ig.IntInput(shape, (), 1),
            "s": ig.IntOr(shape, (ig.IntIdentity("x", 0, 1),)),
            "a": ig.IntSpatialAttention(shape, relays, 1, 0, "key-value"),
            "out": ig.IntReadout(shape, (ig.IntIdentity("a", 0, 1),), np.zeros(1, np.int64)),
        },
        "out", 2, 0.01, {},
    )  # fmt: skip
    verify_integer(graph, load_profile("loihi2").arithmetic)
    with pytest.raises(StageError, match="a: counts reach 16, a message holds 7"):
        verify_integer(graph, arith)
