"""Time: recomputed core by core and step by step, and what must hold between its results."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pricing import priced_profile, quantity, random_run
from strategies_intgraph import random_deployment

from neuroav.costs import timing
from neuroav.hardware import load_profile

ENDS = ("low", "value", "high")
SEEDS = st.integers(0, 2**32 - 1)
TIMES = {"neuron_update": 2.0, "synop": 3.0, "spike_out": 5.0, "message_in": 7.0, "barrier": 100.0,
         "step_floor": 0.0}  # fmt: skip


def by_hand(loads, costs, reading, *, streaming):
    """Return the time in ns of every sample and step, core by core; costs: ns by term."""
    found = []
    for sample in range(loads.samples):
        phases = [[] for _ in range(loads.steps if streaming else loads.run_steps)]
        for step in range(loads.run_steps):
            phases[step % len(phases)].append(step)
        times = []
        for steps in phases:
            cores = []
            for core in range(loads.cores):
                events = {
                    key: sum(int(array[sample, s, core]) for s in steps)
                    for key, array in (("synop", loads.synops), ("spike_out", loads.spikes),
                                       ("message_in", loads.messages_in))
                }  # fmt: skip
                terms = [int(loads.neurons[core]) * costs["neuron_update"]]
                terms += [events[key] * costs[key] for key in events]
                cores.append(sum(terms) if reading == "additive" else max(terms))
            times.append(max(costs["step_floor"], costs["barrier"] + max(cores)))
        found.append(times)
    return np.array(found)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SEEDS, st.sampled_from(["additive", "max_affine"]))
def test_time_is_that_of_the_slowest_core_of_every_step(seed, reading):
    (_, loads), profile = random_run(seed), priced_profile(seed, combine=reading)
    assert loads.spikes.max() > 0
    found = timing.time(loads, profile)
    assert found.headline is found.readings[reading]
    times = found.headline
    for end in ENDS:
        costs = {key: getattr(getattr(profile.time, key), end) for key in TIMES}
        stream = by_hand(loads, costs, reading, streaming=True)
        alone = by_hand(loads, costs, reading, streaming=False)
        assert getattr(times.step_mean, end) == pytest.approx(stream.mean())
        assert getattr(times.step_max, end) == pytest.approx(stream.max())
        assert getattr(times.period, end) == pytest.approx(stream.sum(1).mean() * 1e-9)
        assert getattr(times.seconds, end) == pytest.approx(alone.sum(1).mean() * 1e-9)
        tail = alone[:, loads.steps :].sum(1).mean() * 1e-9
        assert getattr(times.pipeline, end) == pytest.approx(tail)
    for end, other in zip(ENDS, reversed(ENDS), strict=True):
        product = getattr(times.throughput, end) * getattr(times.period, other)
        assert product == pytest.approx(1.0)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(SEEDS)
def test_readings_differ_as_a_sum_from_its_largest_part(seed):
    _, loads = random_run(seed)
    readings = timing.time(loads, priced_profile(seed)).readings
    added, largest = readings["additive"], readings["max_affine"]
    for key in ("step_mean", "step_max", "period", "seconds"):
        more, less = getattr(added, key).value, getattr(largest, key).value
        assert less <= more <= len(timing.TERMS) * less
    assert added.throughput.value <= largest.throughput.value
    for times in readings.values():
        parts = times.bottleneck.parts
        assert sum(parts.values()) == pytest.approx(times.step_mean.value)
        assert parts[times.bottleneck.term] == max(parts.values())
        assert 0 <= times.bottleneck.core < loads.cores


def test_more_events_never_make_it_faster():
    _, loads = random_run(1)
    before = timing.time(loads, priced_profile(1)).headline
    for name in ("synops", "spikes", "messages_in"):
        more = replace(loads, **{name: getattr(loads, name) * 3})
        after = timing.time(more, priced_profile(1)).headline
        assert after.period.value > before.period.value, name
        assert after.seconds.value > before.seconds.value, name


def simple(neurons=(10, 4), **changes):
    """Return loads of one sample, two steps and a third one through the layers, two cores."""
    _, loads = random_run(0)
    events = {"synops": [[0, 0], [0, 90], [0, 0]], "spikes": [[1, 0], [0, 0], [0, 2]],
              "messages_in": [[0, 0], [0, 1], [0, 0]]} | changes  # fmt: skip
    arrays = {k: np.array([v], np.int64) for k, v in events.items()}
    return replace(loads, steps=2, neurons=np.array(neurons), **arrays)


def test_worked_example():
    found = timing.time(simple(), priced_profile(time=TIMES))
    # One sample alone: core 0 takes 20 + 5, then 20, then 20; core 1 takes 8, 8 + 270 + 7, 8 + 10.
    additive, largest = found.readings["additive"], found.readings["max_affine"]
    assert additive.seconds.value == pytest.approx((125 + 385 + 120) * 1e-9)
    assert additive.pipeline.value == pytest.approx(120e-9)
    assert largest.seconds.value == pytest.approx((120 + 370 + 120) * 1e-9)
    # Streaming: the third step falls on the first.
    assert additive.period.value == pytest.approx((125 + 385) * 1e-9)
    assert additive.step_mean.value == pytest.approx(255)
    assert additive.step_max.value == pytest.approx(385)
    assert additive.throughput.value == pytest.approx(1e9 / 510)
    assert additive.bottleneck.term == "synop"
    assert additive.bottleneck.parts == pytest.approx(
        {"neuron_update": 14, "synop": 135, "spike_out": 2.5, "message_in": 3.5, "barrier": 100,
         "step_floor": 0}
    )  # fmt: skip


def test_bottleneck_names_the_core_and_the_term():
    busy = simple(synops=[[0, 0], [0, 900], [0, 800]])
    found = timing.time(busy, priced_profile(time=TIMES)).headline.bottleneck
    assert (found.core, found.term) == (1, "synop")
    crowded = simple(neurons=(900, 4))
    found = timing.time(crowded, priced_profile(time=TIMES)).headline.bottleneck
    assert (found.core, found.term) == (0, "neuron_update")
    waiting = timing.time(simple(), priced_profile(time=TIMES | {"step_floor": 5000.0}))
    assert waiting.headline.bottleneck.term == "step_floor"
    assert waiting.headline.step_mean.value == 5000
    slow = timing.time(simple(), priced_profile(time=TIMES | {"barrier": 5000.0}))
    assert slow.headline.bottleneck.term == "barrier"


def test_a_sample_without_pipeline_streams_as_it_runs_alone():
    whole = simple(synops=[[0, 0], [0, 90]], spikes=[[1, 0], [0, 0]], messages_in=[[0, 0]] * 2)
    times = timing.time(whole, priced_profile(time=TIMES)).headline
    assert times.period.value == times.seconds.value
    assert times.pipeline.value == 0


def test_units_are_converted():
    fine = timing.time(simple(), priced_profile(time=TIMES)).headline
    coarse = TIMES | {"barrier": quantity("barrier", "us", 0.1)}
    assert timing.time(simple(), priced_profile(time=coarse)).headline.seconds == fine.seconds


# --- unknown -----------------------------------------------------------------------------------
@pytest.mark.parametrize("key", timing.NEEDED)
def test_no_time_without_the_terms_every_step_has(key):
    found = timing.time(simple(), priced_profile(time=TIMES | {key: None}))
    for times in found.readings.values():
        for name in ("step_mean", "step_max", "period", "throughput", "seconds", "pipeline"):
            assert getattr(times, name).value is None
            assert f"source of {key}" in getattr(times, name).source
        assert times.bottleneck is None


def test_unknown_time_of_spikes_and_messages_is_left_out_and_listed():
    gaps = TIMES | {"spike_out": None, "message_in": None, "step_floor": None}
    found = timing.time(simple(), priced_profile(time=gaps))
    assert found.left_out == {
        k: f"source of {k}" for k in ("spike_out", "message_in", "step_floor")
    }
    zero = TIMES | {"spike_out": 0.0, "message_in": 0.0}
    assert (
        found.headline.seconds == timing.time(simple(), priced_profile(time=zero)).headline.seconds
    )


def test_unknown_time_of_what_never_happens_is_not_listed():
    quiet = simple(spikes=[[0, 0]] * 3, messages_in=[[0, 0]] * 3)
    gaps = TIMES | {"spike_out": None, "message_in": None}
    found = timing.time(quiet, priced_profile(time=gaps))
    assert found.left_out == {}
    assert found.headline.seconds.value > 0


def test_without_a_placement_the_reason_of_the_caller_is_given():
    found = timing.time(None, priced_profile(), why="needs 300 cores")
    assert found.headline.seconds.value is None
    assert found.headline.throughput.source == "needs 300 cores"


def test_a_profile_without_times_gives_none():
    data = timing.time(simple(), load_profile("ideal")).as_dict()
    assert data["seconds"]["value"] is None
    assert data["bottleneck"] is None
    assert data["additive"]["step"]["max"]["value"] is None


def test_grade_is_the_worst_used():
    times = {k: quantity(k, "ns", v, "A") for k, v in TIMES.items()}
    assert timing.time(simple(), priced_profile(time=times)).headline.seconds.grade == "A"
    worse = times | {"message_in": quantity("message_in", "ns", 7.0, "C")}
    assert timing.time(simple(), priced_profile(time=worse)).headline.seconds.grade == "C"


# --- the JSON object ---------------------------------------------------------------------------
def test_json_object_has_the_documented_keys():
    graph = random_deployment(1, hidden=3, steps=5)[0].integer
    profile = priced_profile(time=TIMES)
    data = timing.latency_dict(graph, timing.time(simple(), profile), profile)
    assert list(data) == [
        "pipeline_steps", "steps_per_sample", "steps_to_answer", "combine", "seconds",
        "pipeline_seconds", "period", "throughput", "step", "bottleneck", "additive", "max_affine",
        "left_out", "coefficients",
    ]  # fmt: skip
    pipeline = graph.latency[graph.output]
    assert pipeline > 1
    assert [data[k] for k in list(data)[:3]] == [pipeline, 5, pipeline + 5]
    assert [data[k]["unit"] for k in ("seconds", "period", "throughput")] == ["s", "s", "1/s"]
    assert data["step"]["mean"]["unit"] == "ns"
    assert set(data["bottleneck"]) == {"core", "term", "parts_ns"}
    assert data["additive"]["seconds"] == data["seconds"]
    assert data["coefficients"]["barrier"]["value"] == 100
    assert json.loads(json.dumps(data, allow_nan=False)) == data
