"""Energy: sums recomputed event by event, refused where a price is unknown, layers that add up."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placements import random_placement
from pricing import PRICES, priced_profile, quantity, random_run
from strategies_intgraph import random_deployment

from neuroav.costs import energy as en
from neuroav.costs import timing
from neuroav.counts import Counter
from neuroav.errors import StageError
from neuroav.hardware import GRADES
from neuroav.loads import LoadCounter
from neuroav.sim import fast

PERIOD = en.Estimate(2e-3, 1e-3, 4e-3, "s", "B", "a period")
ALONE = en.Estimate(5e-3, 5e-3, 5e-3, "s", "C", "a run")
SCALE = {"pJ": 1.0, "nJ": 1e3, "uJ": 1e6}
ENDS = ("low", "value", "high")
SEEDS = st.integers(0, 2**32 - 1)


def bill(counts, loads, profile, **options):
    return en.price(counts, loads, profile, period=PERIOD, alone=ALONE, **options)


def per_sample(counts, loads, steps):
    """Return events by kind of every sample, written out."""
    found = {}
    for sample in range(counts.samples):
        row = dict.fromkeys(PRICES, 0)
        for kinds in counts.synops.values():
            for kind, values in kinds.items():
                row[f"synop_{kind}"] += int(values[sample])
        row["neuron_update"] = sum(counts.updates.values()) // counts.steps * steps
        row["spike_out"] = sum(int(counts.spikes[n][sample]) for n in loads.layers)
        for layer in loads.layers.values():
            row["message_out"] += int(layer.messages[sample])
            row["hop_x"] += int(layer.hops_x[sample])
            row["hop_y"] += int(layer.hops_y[sample])
            row["chip_message"] += int(layer.chip_messages[sample])
        row["core_step"] = len(loads.neurons) * steps
        found[sample] = row
    return found


def dynamic(row, profile, end):
    """Return the dynamic energy in pJ of events by kind at one end of the band."""
    return sum(
        row[k] * getattr(getattr(profile.energy, k), end) * SCALE[getattr(profile.energy, k).unit]
        for k in row
        if k not in ("static_chip", "host_io")
    )


# --- sums --------------------------------------------------------------------------------------
@settings(max_examples=30, deadline=None, derandomize=True)
@given(SEEDS)
def test_energy_is_every_event_times_its_price(seed):
    (counts, loads), profile = random_run(seed), priced_profile(seed)
    found = bill(counts, loads, profile)
    rows = per_sample(counts, loads, counts.steps)
    assert all(row["spike_out"] > 0 and row["chip_message"] > 0 for row in rows.values())
    for end in ENDS:
        energies = [dynamic(row, profile, end) for row in rows.values()]
        assert getattr(found.streaming.dynamic, end) == pytest.approx(np.mean(energies))
        static = loads.chips * getattr(profile.energy.static_chip, end) * 1e-3  # W
        static *= getattr(PERIOD, end) * 1e12
        assert getattr(found.streaming.static, end) == pytest.approx(static)
        total = np.mean(energies) + static
        assert getattr(found.streaming.total, end) == pytest.approx(total)
    energies = [dynamic(row, profile, "value") for row in rows.values()]
    assert found.spread == pytest.approx(
        {"std": np.std(energies), "min": min(energies), "max": max(energies)}
    )
    assert found.known_part.value == pytest.approx(found.streaming.dynamic.value)
    assert found.missing == ()
    assert found.terms["static"].count == pytest.approx(loads.chips * PERIOD.value)
    for kind in en.DYNAMIC:
        term = found.terms[kind]
        each = term.unit_cost.value * SCALE[term.unit_cost.unit]
        assert term.energy.value == pytest.approx(term.count * each)


def test_one_sample_alone_updates_neurons_and_keeps_cores_until_it_has_left():
    (counts, loads), profile = random_run(5), priced_profile(5)
    assert loads.run_steps > counts.steps
    found = bill(counts, loads, profile).alone
    rows = per_sample(counts, loads, loads.run_steps)
    expected = np.mean([dynamic(row, profile, "value") for row in rows.values()])
    assert found.dynamic.value == pytest.approx(expected)
    static = loads.chips * profile.energy.static_chip.value * ALONE.value * 1e9
    assert found.static.value == pytest.approx(static)
    assert found.total.value == pytest.approx(expected + static)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(SEEDS)
def test_layers_and_active_cores_add_up_to_the_dynamic_energy(seed):
    deployment, inputs = random_deployment(seed, hidden=4, steps=4)
    graph = deployment.integer
    events, loads = Counter(graph), LoadCounter(graph, random_placement(graph, seed))
    for trace in fast.run(deployment, inputs):
        events.add(trace)
        loads.add(trace)
    counts, placed, profile = events.counts(), loads.loads(), priced_profile(seed)
    time = timing.time(placed, profile).headline
    found = en.price(counts, placed, profile, period=time.period, alone=time.seconds)
    assert found.terms["spike_out"].count > 0
    layers = [en.layer_energy(n, counts, placed, profile) for n in graph.order]
    assert all(not parts for n, parts in zip(graph.order, layers, strict=True) if n in graph.inputs)
    parts = [part for kinds in layers for part in kinds.values()]
    parts.append(found.terms["core_step"].energy)
    for end in ENDS:
        added = sum(getattr(part, end) for part in parts)
        assert added == pytest.approx(getattr(found.streaming.dynamic, end))
    assert found.alone.dynamic.value >= found.streaming.dynamic.value - 1e-6


def test_grade_of_a_sum_is_the_worst_of_what_occurs():
    counts, loads = random_run(1)
    prices = {k: quantity(k, unit, 2.0, "A") for k, unit in PRICES.items()}
    found = bill(counts, loads, priced_profile(energy=prices))
    assert found.streaming.dynamic.grade == "A"
    assert found.streaming.static.grade == "B"  # that of the run time
    assert found.streaming.total.grade == "B"
    worse = prices | {"hop_x": quantity("hop_x", "pJ", 2.0, "C")}
    assert bill(counts, loads, priced_profile(energy=worse)).streaming.dynamic.grade == "C"
    still = {n: replace(x, hops_x=x.hops_x * 0) for n, x in loads.layers.items()}
    none = bill(counts, replace(loads, layers=still), priced_profile(energy=worse))
    assert none.streaming.dynamic.grade == "A"


# --- unknown prices ----------------------------------------------------------------------------
@pytest.mark.parametrize("kind", en.DYNAMIC)
def test_an_unknown_price_refuses_the_sums_and_keeps_the_known_part(kind):
    counts, loads = random_run(2)
    whole = bill(counts, loads, priced_profile(2))
    found = bill(counts, loads, priced_profile(2, energy={kind: None}))
    for sums in (found.streaming, found.alone):
        assert sums.dynamic.value is None
        assert sums.total.value is None
        assert kind in sums.total.source
        assert f"source of {kind}" in sums.dynamic.source
        assert sums.static.value > 0
    assert found.missing == (kind,)
    assert found.spread is None
    without = whole.known_part.value - whole.terms[kind].energy.value
    assert found.known_part.value == pytest.approx(without)
    data = found.as_dict()
    assert (data["complete"], data["missing"]) == (False, [kind])
    assert data["by_source"][kind]["energy"]["value"] is None
    assert data["by_source"][kind]["count"] > 0
    assert {row["of"] for row in data["sensitivity"]} == {"known part"}


def test_an_event_that_never_occurs_needs_no_price():
    counts, loads = random_run(3)
    layers = {n: replace(x, chip_messages=x.chip_messages * 0) for n, x in loads.layers.items()}
    profile = priced_profile(3, energy={"chip_message": None})
    found = bill(counts, replace(loads, layers=layers), profile)
    term = found.terms["chip_message"]
    assert (term.count, term.energy.value, term.energy.source) == (0.0, 0.0, en.NO_EVENT)
    assert found.missing == ()
    assert found.streaming.total.value is not None
    assert found.spread["max"] > found.spread["min"] > 0


def test_unknown_static_power_refuses_the_total_alone():
    counts, loads = random_run(4)
    found = bill(counts, loads, priced_profile(energy={"static_chip": None}))
    assert found.missing == ("static",)
    assert found.streaming.dynamic.value == found.known_part.value
    assert found.streaming.total.value is None
    assert "source of static_chip" in found.streaming.total.source


def test_unknown_run_time_says_why_there_is_no_static_energy():
    counts, loads = random_run(4)
    none = en.unknown("s", "the barrier is unknown")
    found = en.price(counts, loads, priced_profile(), period=none, alone=none)
    assert "the barrier is unknown" in found.streaming.static.source
    assert found.terms["static"].count is None
    assert found.streaming.dynamic.value > 0


def test_without_a_placement_the_reason_of_the_caller_is_given():
    counts, _ = random_run(6)
    found = bill(counts, None, priced_profile(), why="needs 300 cores, the chip has 120")
    lacking = ("message_out", "hop_x", "hop_y", "chip_message", "core_step", "static")
    assert found.missing == lacking
    for kind in lacking:
        assert found.terms[kind].count is None
        assert "needs 300 cores" in found.terms[kind].energy.source
    assert "needs 300 cores" in found.streaming.total.source
    assert found.alone.dynamic.value is None
    assert found.known_part.value > 0
    layer = en.layer_energy("a", counts, None, priced_profile(), why="too large")
    assert layer["message_out"].value is None
    assert "too large" in layer["hop_y"].source
    assert layer["synop_conv"].value > 0


def test_host_events_are_listed_and_never_priced():
    counts, loads = random_run(7)
    found = bill(counts, loads, priced_profile(7))
    term = found.terms["host_io"]
    assert (term.modelled, term.count, term.energy.value) == (False, None, None)
    more = replace(counts, spikes=counts.spikes | {"in": counts.spikes["in"] * 9})
    assert bill(more, loads, priced_profile(7)).streaming.total == found.streaming.total


# --- all-in figures ----------------------------------------------------------------------------
@pytest.mark.parametrize("placed", [True, False])
def test_an_all_in_figure_holds_all_other_terms(placed):
    counts, loads = random_run(8)
    profile = priced_profile(8, scope="all_in", energy={"message_out": None, "static_chip": None})
    found = bill(counts, loads if placed else None, profile)
    synops = [found.terms[k].energy.value for k in en.SYNOPS]
    assert min(synops) > 0
    for sums in (found.streaming, found.alone):
        assert sums.total.value == pytest.approx(sum(synops))
        assert sums.static.value == 0
    assert found.terms["message_out"].energy.source == en.INCLUDED
    assert found.missing == ()
    assert found.spread["std"] > 0


# --- the JSON object ---------------------------------------------------------------------------
def test_json_object_has_the_documented_keys_in_order():
    counts, loads = random_run(9)
    data = bill(counts, loads, priced_profile(9)).as_dict()
    assert list(data) == [
        "statement", "per", "mode", "static", "dynamic", "total", "dynamic_spread", "complete",
        "missing", "known_part", "by_source", "one_at_a_time", "sensitivity",
    ]  # fmt: skip
    assert (data["statement"], data["per"], data["mode"]) == (
        "estimate, not measurement", "sample", "streaming",
    )  # fmt: skip
    assert list(data["by_source"]) == [
        "synop_conv", "synop_dense", "synop_sparse", "neuron_update", "spike_out", "message_out",
        "hop_x", "hop_y", "chip_message", "core_step", "static", "host_io",
    ]  # fmt: skip
    for row in data["by_source"].values():
        assert list(row) == ["modelled", "count", "counted_in", "unit_cost", "energy"]
        assert set(row["energy"]) == set(row["unit_cost"])
        assert set(row["energy"]) == {"value", "low", "high", "unit", "grade", "source"}
        assert row["energy"]["grade"] in GRADES
    assert list(data["one_at_a_time"]) == ["static", "dynamic", "total"]
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_sensitivity_prices_the_run_again():
    counts, loads = random_run(10)
    base = priced_profile(10)
    rows = bill(counts, loads, base).as_dict()["sensitivity"]
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)
    assert [row["share"] for row in rows] == sorted((r["share"] for r in rows), reverse=True)
    for row in rows:
        key = "static_chip" if row["kind"] == "static" else row["kind"]
        for factor, name in ((0.5, "half"), (2.0, "double")):
            price = getattr(base.energy, key)
            changed = price.model_copy(update={"value": price.value * factor})
            again = base.energy.model_copy(update={key: changed})
            found = bill(counts, loads, base.model_copy(update={"energy": again}))
            assert row[name] == pytest.approx(found.streaming.total.value), (key, name)


# --- mistakes ----------------------------------------------------------------------------------
def test_counts_and_loads_of_different_runs_are_refused():
    counts, loads = random_run(12)
    with pytest.raises(StageError, match="same run"):
        bill(counts, replace(loads, steps=3), priced_profile())
