"""Baselines: every number by hand on a small network, properties on large ones, break-even."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies_intgraph import make_deployment, random_deployments
from torch import nn

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.costs.baselines import baselines, common_formula, dense_macs
from neuroav.costs.breakeven import ALIKE, CHEAPER, DEARER, NO_EVENTS, break_even, interval
from neuroav.costs.conventional import (
    SIZES,
    DenseLayer,
    dense_layers,
    dense_traffic,
    event_layers,
    event_traffic,
    prices,
)
from neuroav.counts import Counter
from neuroav.graph import SpikingGraph
from neuroav.models.layers import Lif, LifParameters, PerStep, SpatialMean, TimeMean
from neuroav.sim import fast
from neuroav_export import compile_module

KEYS = {
    *(f"{p}_ann{e}{n}" for p in ("fp32", "int8") for e in ("", "_one_pass") for n in ("", "_7nm")),
    *(f"snn_{p}{n}" for p in ("fp32", "int8") for n in ("", "_7nm")),
    "common_formula",
}
STEPS, SAMPLES = 3, 6


def counted(deployment, inputs):
    """Return the event counts of a run."""
    counter = Counter(deployment.integer)
    for trace in fast.run(deployment, inputs):
        counter.add(trace)
    return counter.counts()


@pytest.fixture(scope="module")
def small():
    """A dense network 8 -> 5 -> 3 on spikes, and its counts."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 5), Lif(LifParameters(v_threshold=0.2)), nn.Linear(5, 3),
                        TimeMean())  # fmt: skip
    net[0].weight.data.uniform_(0.1, 1)
    inputs = {"x": (np.random.default_rng(0).random((SAMPLES, STEPS, 8)) < 0.3).astype(np.int32)}
    deployment = compile_module(net, inputs, max_count={"x": 1}, classes=("a", "b", "c"))
    return deployment, counted(deployment, inputs)


@pytest.fixture(scope="module")
def found(small):
    return baselines(*small, batch=16)


# --- by hand ------------------------------------------------------------------------------------
def test_dense_row_by_hand(found):
    row = found["int8_ann"]
    macs, weights = STEPS * (8 * 5 + 5 * 3), STEPS * (8 * 5 + 5 + 5 * 3 + 3)
    assert (row["macs"], row["acs"], row["updates"]) == (macs, 0, STEPS * 5)
    assert row["energy"]["value"] == pytest.approx(macs * (0.2 + 0.03))
    assert row["energy"]["high"] == pytest.approx(macs * (0.2 + 0.1))
    assert row["update_energy"]["value"] == pytest.approx(STEPS * 5 * (3.1 + 3 * 0.1))
    # weights once per step; inputs 8 and 5, outputs 5 and 3; a membrane of 4 bytes, both ways
    assert row["bytes"] == {
        "weights": weights,
        "activations": STEPS * (8 + 5 + 5 + 3),
        "state": STEPS * 5 * 8,
        "messages": 0,
        "dram": 0,
    }
    moved = sum(row["bytes"].values())
    assert row["memory_energy"]["value"] == pytest.approx(moved * 10 / 8)  # fits 8 KB
    # without reuse, every multiplication fetches a weight and an input; biases are left out
    served = [(8 * 5, 45, 8), (5 * 3, 18, 5)]
    fetched = STEPS * sum(max(m, w) + max(m, i) for m, w, i in served)
    alone = fetched + STEPS * (5 + 3) + STEPS * 5 * 8
    assert row["memory_energy"]["high"] == pytest.approx(alone * 10 / 8)
    shared = (weights / 16 + moved - weights) * 10 / 8
    total = row["energy"]["value"] + row["update_energy"]["value"] + shared
    assert row["batched"]["batch"] == 16
    assert row["batched"]["total"]["value"] == pytest.approx(total)


def test_float_row_moves_four_bytes(found):
    row, narrow = found["fp32_ann"], found["int8_ann"]
    assert row["energy"]["value"] == pytest.approx(row["macs"] * 4.6)
    assert row["energy"]["low"] == row["energy"]["high"]
    assert row["bytes"]["weights"] == 4 * narrow["bytes"]["weights"]
    assert row["bytes"]["state"] == narrow["bytes"]["state"]
    assert row["update_energy"]["value"] == pytest.approx(STEPS * 5 * (3.7 + 3 * 0.9))


def test_one_pass_is_one_step_and_says_that_its_accuracy_is_unknown(found):
    row, whole = found["int8_ann_one_pass"], found["int8_ann"]
    assert STEPS * row["macs"] == whole["macs"]
    assert STEPS * row["bytes"]["weights"] == whole["bytes"]["weights"]
    assert row["bytes"]["state"] == 0
    assert "accuracy not measured here" in row["note"]


def test_spiking_row_by_hand(small, found):
    deployment, counts = small
    spikes = counts.spikes_per_sample()
    graph = deployment.integer
    (hidden,) = (n for n in graph.order if isinstance(graph.populations[n], ig.IntLif))
    assert 0.05 < counts.rates[hidden] < 0.95
    synops = sum(counts.synops_per_sample().values())
    assert synops == pytest.approx(spikes["x"] * 5 + spikes[hidden] * 3)  # no weight is 0
    row = found["snn_int8"]
    assert (row["macs"], row["updates"]) == (0, STEPS * (5 + 3))
    assert row["acs"] == pytest.approx(synops)
    assert row["energy"]["value"] == pytest.approx(synops * 0.03)
    assert row["update_energy"]["value"] == pytest.approx(
        STEPS * 5 * (3.1 + 3 * 0.1) + STEPS * 3 * 0.1
    )
    assert row["bytes"]["weights"] == pytest.approx(synops)
    assert row["bytes"]["state"] == pytest.approx(8 * (synops + STEPS * (5 + 3)))
    # read by one layer each; the input's events are written by the host
    assert row["bytes"]["messages"] == pytest.approx(4 * (spikes["x"] + 2 * spikes[hidden]))
    moved = sum(row["bytes"].values())
    assert row["memory_energy"]["value"] == pytest.approx(moved * 10 / 8)
    assert found["snn_fp32"]["bytes"]["weights"] == pytest.approx(4 * synops)


def test_common_formula_by_hand(small, found):
    row = found["common_formula"]
    assert row == common_formula(*small)
    assert row["energy"]["value"] == pytest.approx(0.9 * row["acs"] + 4.6 * row["macs"])
    assert row["acs"] > 0
    assert row["against"]["energy"]["value"] == pytest.approx(4.6 * (8 * 5 + 5 * 3))
    assert row["memory_energy"]["value"] is None
    assert "memory traffic" in row["leaves_out"]
    assert all(words in row["note"] for words in row["leaves_out"])


def test_integer_messages_are_multiplied(small):
    deployment, counts = small
    graph = deployment.integer
    source = graph.populations["x"]
    populations = {**graph.populations, "x": ig.IntInput(source.shape, (), 3)}
    wide = ig.IntGraph(populations, graph.output, graph.steps, graph.dt_s, graph.scales)
    plain = {layer.name: layer for layer in event_layers(graph, counts)}
    for layer in event_layers(wide, counts):
        reads_input = any(p.source == "x" for p in populations[layer.name].projections)
        assert layer.multiplied == (layer.synops if reads_input else 0)
        assert plain[layer.name].multiplied == 0


def test_copies_of_a_mask_read_no_weight():
    populations: dict[str, ig.Population] = {
        "gate in": ig.IntInput((1, 2, 2), (), 1),
        "value in": ig.IntInput((2, 2, 2), (), 1),
        "gate": ig.IntOr((1, 2, 2), (ig.IntIdentity("gate in", 0, 1),)),
        "value": ig.IntOr((2, 2, 2), (ig.IntIdentity("value in", 0, 1),)),
    }
    ones, twos = np.ones((2, 1, 1, 1), np.int64), np.full((3, 8), 2)
    copies = ig.IntConv2d("gate", 0, ones, (1, 1), (0, 0), (1, 1), 1, 8, "excitatory")
    populations["both"] = ig.IntAnd((2, 2, 2), (copies, ig.IntIdentity("value", 0, 1)))
    synapses = ig.IntDense("both", 0, twos, 8, "excitatory")
    populations["head"] = ig.IntReadout((3,), (synapses,), np.zeros(3, np.int64))
    deployment = make_deployment(populations, "head", 2)
    inputs = {n: np.ones((1, 2, *p.shape), np.int32) for n, p in deployment.integer.inputs.items()}
    layers = {e.name: e for e in event_layers(deployment.integer, counted(deployment, inputs))}
    assert (layers["both"].synops, layers["both"].weighted, layers["both"].weights) == (32, 0, 0)
    assert (layers["head"].weighted, layers["head"].weights) == (2 * 24, 24)


# --- memory -------------------------------------------------------------------------------------
def test_energy_of_memory_at_the_tables_sizes_and_between():
    cost = prices("45nm", "int8")
    expected = {0: 10, SIZES[0]: 10, 20 << 10: 15, SIZES[1]: 20, SIZES[2]: 100, 10 << 20: 100}
    for size, energy in expected.items():
        assert cost.sram_byte(size)[1] == pytest.approx(energy / 8), size
    assert prices("7nm", "int8").sram_byte(SIZES[2])[1] == pytest.approx(14 / 8)
    assert cost.dram_byte.tolist() == [1300 / 8, 1300 / 8, 2600 / 8]
    assert prices("7nm", "fp32").dram_byte.tolist() == [250 / 8, 1300 / 8, 1300 / 8]


@pytest.mark.parametrize(("weights", "from_dram"), [(1 << 20, False), ((1 << 20) + 1, True)])
def test_weights_beyond_a_megabyte_come_from_dram_once_per_pass(weights, from_dram):
    cost, reuse = prices("45nm", "int8"), np.array([1.0, 16.0, 256.0])
    layer = DenseLayer("big", weights, weights, 1000, 1000)
    alone = dense_traffic([layer], 4, cost, reuse)
    shared = dense_traffic([layer], 4, cost, reuse, batch=8)
    assert alone.bytes["dram"] == (4 * weights if from_dram else 0)
    assert shared.bytes["dram"] == alone.bytes["dram"] / 8
    assert shared.bytes["weights"] == alone.bytes["weights"] / 8
    assert shared.bytes["activations"] == alone.bytes["activations"]
    assert (alone.energy[1] > 4 * weights * 1300 / 8) == from_dram


@pytest.mark.parametrize("synops", [1e5, 1e8])
def test_events_fetch_from_dram_no_more_than_they_ask_for(small, synops):
    deployment, counts = small
    (layer, *_) = [e for e in event_layers(deployment.integer, counts) if e.weighted]
    weights, steps, cost = 3 << 20, 5, prices("45nm", "int8")
    big = SimpleNamespace(
        **{**vars(layer), "weights": weights, "weighted": synops, "synops": synops}
    )
    alone = event_traffic([big], steps, cost).bytes["dram"]
    assert alone == min(synops, steps * weights)
    shared = event_traffic([big], steps, cost, batch=10).bytes["dram"]
    assert shared == min(10 * synops, steps * weights) / 10


# --- larger networks ----------------------------------------------------------------------------
def test_attention_is_not_free_in_the_dense_network():
    steps, channels, tokens, heads = 4, 32, 16, 4
    shape = (channels, 4, 4)
    nodes = {n: rn.Input(shape, 1) for n in "qkv"}
    nodes |= {"space": rn.SpatialAttention(heads, 0.25)}
    nodes |= {"time": rn.TemporalAttention(heads, 0.25, False)}
    inputs = dict.fromkeys("qkv", ()) | dict.fromkeys(("space", "time"), tuple("qkv"))
    graph = SpikingGraph(nodes, inputs, dict.fromkeys(nodes, shape), "time", 0.01, steps)
    per_head = channels // heads
    assert dense_macs(graph) == {
        "space": 2 * steps * tokens * channels * per_head,  # k^T v first: 8 channels, 16 tokens
        "time": 2 * steps * tokens * channels * steps,  # q k^T first: 4 steps, 8 channels
    }
    (space, time) = dense_layers(graph)
    assert (space.weights, space.inputs) == (0, 3 * space.outputs)
    alone = dense_layers(graph, steps=1)[1]  # one frame sees itself
    assert alone.macs * steps == time.macs
    found = dense_traffic([space], 1, prices("45nm", "int8"), np.array([1.0, 2.0, 4.0]))
    assert found.bytes["weights"] == 0
    assert 2 * space.macs / 2 > space.inputs  # both factors are fetched
    assert found.bytes["activations"] == 2 * space.macs / 2 + space.outputs


def check_row(row):
    """Assert what holds for every row: sums, bands, grades, units."""
    parts = [row[k] for k in ("energy", "update_energy", "memory_energy")]
    for part in (*parts, row["total"], row["batched"]["total"]):
        assert part["low"] <= part["value"] <= part["high"]
        assert part["unit"] == "pJ"
        assert part["source"]
    for end in ("low", "value", "high"):
        assert row["total"][end] == pytest.approx(sum(p[end] for p in parts))
        assert row["batched"]["total"][end] <= row["total"][end] * (1 + 1e-12)
    assert row["total"]["grade"] in "BC"


def test_rows_of_a_small_network(found):
    assert set(found) == KEYS
    assert json.loads(json.dumps(found)) == found
    for key in KEYS - {"common_formula"}:
        check_row(found[key])
        assert {"title", "note", "source", "execution"} <= set(found[key])
        if key.endswith("_7nm"):
            assert found[key]["total"]["value"] < found[key.removesuffix("_7nm")]["total"]["value"]
    titles = [row["title"] for row in found.values()]
    assert len(set(titles)) == len(titles)


@settings(max_examples=20, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(random_deployments())
def test_spiking_rows_of_random_graphs(case):
    deployment, inputs = case
    counts = counted(deployment, inputs)
    found = baselines(deployment, counts)
    synops = sum(counts.synops_per_sample().values())
    for key in ("snn_int8", "snn_fp32_7nm"):
        check_row(found[key])
        assert found[key]["acs"] + found[key]["macs"] == pytest.approx(synops)
        assert found[key]["bytes"]["weights"] <= synops * (4 if "fp32" in key else 1) + 1e-6
        assert found[key]["updates"] == sum(counts.updates.values())
    assert found["snn_int8"]["acs"] == found["common_formula"]["acs"]


def test_layers_of_the_host_are_multiplied_once_per_sample():
    torch.manual_seed(0)
    net = nn.Sequential(PerStep(nn.Conv2d(1, 4, 3, padding=1)), Lif(), PerStep(nn.MaxPool2d(2)),
                        SpatialMean(), nn.Linear(4, 3), TimeMean())  # fmt: skip
    net[0].layer.weight.data.uniform_(0.0, 1.0)
    image = np.repeat(np.random.default_rng(0).random((4, 1, 1, 6, 6)), STEPS, axis=1)
    for sends in ("current", "spikes"):
        deployment = compile_module(net, {"x": image}, static=["x"], host=sends)
        counts = counted(deployment, {"x": image})
        assert sum(counts.spikes_per_sample().values()) > 0
        row = baselines(deployment, counts)["snn_int8"]
        multiplied = sum(e.multiplied for e in event_layers(deployment.integer, counts))
        assert row["macs"] == pytest.approx(multiplied + 6 * 6 * 4 * 9)
        assert row["bytes"]["activations"] > 0
        assert row["total"]["grade"] == "C"
        on_host = STEPS * 4 * 6 * 6 if sends == "spikes" else 0
        assert row["updates"] == sum(counts.updates.values()) + on_host


# --- break-even ---------------------------------------------------------------------------------
def test_break_even_by_hand():
    found = break_even((8, 10, 12), (3, 5, 6), (20, 25, 30), rate=0.1, steps=10)
    assert found["now"]["energy"] == {"low": 11, "value": 15, "high": 18}
    assert found["now"]["ratio"] == pytest.approx(25 / 15)
    crossing = found["by_rate"]["crossing"]
    assert crossing["value"] == {"at": pytest.approx(0.1 * (25 - 5) / 10), "why": None}
    assert crossing["low"]["at"] == pytest.approx(0.1 * (20 - 6) / 12)
    assert crossing["high"]["at"] == pytest.approx(0.1 * (30 - 3) / 8)
    steps = found["by_steps"]["crossing"]
    assert steps["value"]["at"] == pytest.approx(25 / 1.5)
    assert (steps["low"]["at"], steps["high"]["at"]) == pytest.approx((20 / 1.8, 30 / 1.1))
    assert found["by_steps"]["energy"]["value"][9] == 15
    assert found["by_steps"]["baseline"]["value"] == [25.0] * 20
    multiplier = found["by_rate"]["multiplier"]
    assert found["by_rate"]["energy"]["value"][multiplier.index(1.0)] == 15
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("event", "step", "baseline", "rate", "why"),
    [
        (1, 30, 20, 0.1, DEARER),
        (1, 1, 500, 0.1, CHEAPER),
        (0, 1, 20, 0.0, NO_EVENTS),
    ],
)
def test_no_crossing_says_why(event, step, baseline, rate, why):
    bands = [(x, x, x) for x in (event, step, baseline)]
    found = break_even(*bands, rate=rate, steps=4)
    assert found["by_rate"]["crossing"]["value"] == {"at": None, "why": why}


def test_baseline_that_runs_every_step_has_no_crossing_over_steps():
    bands = [(x, x, x) for x in (3.0, 1.0, 20.0)]
    found = break_even(*bands, rate=0.1, steps=4, baseline_per_step=True)["by_steps"]
    assert found["crossing"]["value"] == {"at": None, "why": ALIKE}
    assert found["baseline"]["value"][:4] == [5, 10, 15, 20]


@pytest.mark.parametrize("name", ["event", "step", "baseline"])
def test_break_even_with_an_unknown_energy_gives_no_curve(name):
    bands = {n: None if n == name else (1.0, 2.0, 3.0) for n in ("event", "step", "baseline")}
    found = break_even(**bands, rate=0.1, steps=4)
    assert found["why"] == f"unknown: {name}"
    assert found["now"] is found["by_rate"] is found["by_steps"] is None


BANDS = st.tuples(*[st.floats(0.01, 1e9)] * 3).map(sorted).map(tuple)


@given(BANDS, BANDS, BANDS, st.floats(1e-4, 1.0), st.integers(1, 64))
def test_break_even_is_where_both_cost_the_same(event, step, baseline, rate, steps):
    found = break_even(event, step, baseline, rate=rate, steps=steps)
    ends = ("low", "value", "high")
    for i, end in enumerate(ends):
        at = found["by_rate"]["crossing"][end]["at"]
        if at is not None:
            assert 0 < at <= 1
            energy = event[2 - i] * at / rate + step[2 - i]
            assert energy == pytest.approx(baseline[i], rel=1e-6)
        at = found["by_steps"]["crossing"][end]["at"]
        assert (event[2 - i] + step[2 - i]) * at / steps == pytest.approx(baseline[i])
    for kind in ("by_rate", "by_steps"):
        known = [c["at"] for c in (found[kind]["crossing"][e] for e in ends) if c["at"] is not None]
        assert known == sorted(known)
    rates = found["by_rate"]["rate"]
    assert rates == sorted(rates)
    assert rates[-1] <= 1 + 1e-9
    for low, value, high in zip(*(found["by_rate"]["energy"][e] for e in ends), strict=True):
        assert low <= value <= high


def test_interval_of_an_estimate():
    assert interval({"value": 2.0, "low": 1.0, "high": 4.0}) == (1.0, 2.0, 4.0)
    assert interval({"value": 2.0, "low": None, "high": None}) == (2.0, 2.0, 2.0)
    assert interval({"value": None, "low": None, "high": None}) is None


def test_baselines_feed_the_break_even(found):
    baseline = interval(found["int8_ann_one_pass"]["total"])
    result = break_even((1e3, 1e3, 1e3), (0, 0, 0), baseline, rate=0.2, steps=STEPS)
    assert result["by_steps"]["crossing"]["value"]["at"] == pytest.approx(baseline[1] * STEPS / 1e3)
