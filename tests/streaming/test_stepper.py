"""Stepping gives what the executors give, bit for bit, and keeps no more however long it runs."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies_intgraph import make_deployment, random_deployment

from neuroav import integer as ig
from neuroav.errors import ConfigError, DataError, OutOfRange, UnsupportedNode
from neuroav.navfile import load
from neuroav.sim import fast, reference
from neuroav.sim.stepping import non_causal
from neuroav.simulate import resolve_deployment
from neuroav.streaming.stepper import BACKENDS, Stepper, WindowRunner


def stepped(stepper, inputs, sample):
    """Outputs of all populations, (steps, *shape), of one sample run frame by frame."""
    stepper.reset()
    steps = len(next(iter(inputs.values()))[sample])
    found = [stepper.step({n: v[sample, t] for n, v in inputs.items()}) for t in range(steps)]
    return {n: np.stack([one[n] for one in found]) for n in found[0]}


def assert_same_as_executors(deployment, inputs):
    traces = list(reference.run(deployment, inputs))
    (batch,) = fast.run(deployment, inputs, threads=1)
    steppers = {backend: Stepper(deployment, backend) for backend in BACKENDS}
    spikes = 0
    for sample, trace in enumerate(traces):
        for backend, stepper in steppers.items():
            found = stepped(stepper, inputs, sample)
            assert list(found) == list(deployment.integer.order)
            for name, value in found.items():
                where = f"{backend}, {name}, sample {sample}"
                np.testing.assert_array_equal(value, trace.outputs[name][0], err_msg=where)
                np.testing.assert_array_equal(value, batch.outputs[name][sample], err_msg=where)
                spikes += int(np.count_nonzero(value))
    assert spikes > 0


def test_the_shipped_network_steps_as_it_runs():
    deployment = load(resolve_deployment("shipped:tiny.nav"))
    assert_same_as_executors(deployment, deployment.counts(deployment.probe.inputs))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from((1, 3, 8)))
def test_random_networks_step_as_they_run(seed, hidden, steps):
    found = random_deployment(seed, hidden=hidden, steps=steps, samples=2, holding=False)
    assert_same_as_executors(*found)


def test_the_random_networks_have_every_kind_that_can_be_stepped():
    kinds, lags = set(), set()
    for seed in range(40):
        graph = random_deployment(seed, hidden=6, steps=3, samples=1, holding=False)[0].integer
        kinds |= {type(p) for p in graph.populations.values()}
        lags |= {p.lag for q in graph.populations.values() for p in q.projections}
    holding = {ig.IntTimeSum, ig.IntTemporalAttention, ig.IntHostCurrent}
    assert kinds == set(ig.POPULATION_CLASSES) - holding
    assert {0, 1, 2, 3} <= lags


def convolutional(seed=0):
    """The shape of the demo's stem: convolutions, spikes, pooling, spatial attention, a sum."""
    rng = np.random.default_rng(seed)
    weight = (2 * rng.integers(-20, 40, (4, 2, 3, 3)), 2 * rng.integers(-20, 40, (5, 4)))
    pad = ((1, 1), (1, 1), (1, 1), 1)
    level = np.array(40)
    lif = {"bias_mantissa": np.array(0), "bias_exponent": 0, "threshold": level}
    populations = {
        "eye": ig.IntInput((2, 6, 6), (), 9),
        "cells": ig.IntLif(
            (4, 6, 6), (ig.IntConv2d("eye", 0, weight[0], *pad, 8, "mixed"),), **lif,
            decay_u=4095, decay_v=2048,
        ),
        "pool": ig.IntOr((4, 3, 3), (ig.IntPool("cells", 0, (2, 2), (2, 2), (0, 0)),)),
        "mix": ig.IntSpatialAttention(
            (4, 3, 3), tuple(ig.IntIdentity("pool", 0, 1, port=i) for i in range(3)),
            2, 3, "key-value",
        ),
        "mean": ig.IntSum((4,), (ig.IntSpatialSum("mix", 0),)),
        "head": ig.IntReadout(
            (5,), (ig.IntDense("mean", 0, weight[1], 8, "mixed"),), np.arange(5)
        ),
    }  # fmt: skip
    inputs = {"eye": rng.integers(0, 4, (3, 7, 2, 6, 6))}
    return make_deployment(populations, "head", 7), inputs


def test_a_network_like_the_demo_steps_as_it_runs():
    assert_same_as_executors(*convolutional())


# --- what cannot be stepped --------------------------------------------------------------------
def holding():
    for seed in range(100):
        deployment, inputs = random_deployment(seed, hidden=5, steps=4, samples=2)
        if non_causal(deployment.integer):
            return deployment, inputs
    raise AssertionError("no network holds")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_network_over_whole_samples_is_named_and_runs_window_by_window(backend):
    deployment, inputs = holding()
    name = non_causal(deployment.integer)[0]
    with pytest.raises(UnsupportedNode, match=rf"{name} \(Int\w+\): answers.*--mode window"):
        Stepper(deployment, backend)
    runner = WindowRunner(deployment, backend)
    for sample, trace in enumerate(reference.run(deployment, inputs)):
        found = runner.run({n: v[sample] for n, v in inputs.items()})
        assert list(found) == list(deployment.integer.order)
        for n, value in found.items():
            np.testing.assert_array_equal(value, trace.outputs[n][0])


def test_frames_that_are_none_are_refused():
    deployment, inputs = convolutional()
    stepper, good = Stepper(deployment), inputs["eye"][0, 0]
    for bad, message in (
        ({}, "the network needs"),
        ({"eye": good[:1]}, r"shape \(1, 6, 6\)"),
        ({"eye": good / 2}, "float64; needs"),
        ({"eye": good - 9}, r"span -9.*allowed 0\.\.9"),
        ({"eye": good * 9}, r"allowed 0\.\.9"),
    ):
        with pytest.raises(DataError, match=message):
            stepper.step(bad)
    assert stepper.frames == 0
    with pytest.raises(DataError, match="shape is"):
        WindowRunner(deployment).run({"eye": good})
    for kind in (Stepper, WindowRunner):
        with pytest.raises(ConfigError, match="backend is 'lava'; allowed"):
            kind(deployment, "lava")


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_accumulator_that_overflows_is_refused_by_name(backend):
    """A proof of the length of a sample does not hold for an endless one."""
    eye = ig.IntInput((1,), (), 255)
    dense = ig.IntDense("eye", 0, np.array([[254]]), 8, "excitatory")
    head = ig.IntReadout((1,), (dense,), np.zeros(1, int))
    stepper = Stepper(make_deployment({"eye": eye, "head": head}, "head", 2), backend)
    frame, limit = {"eye": np.array([255])}, (1 << 23) - 1
    for _ in range(limit // (254 * 255)):
        scores = stepper.step(frame)["head"]
    assert scores[0] <= limit
    with pytest.raises(OutOfRange, match="head: the readout accumulator reached"):
        stepper.step(frame)


# --- constant memory ---------------------------------------------------------------------------
@pytest.mark.parametrize(("backend", "frames"), [("reference", 1500), ("fast", 500)])
def test_nothing_grows_with_time(backend, frames):
    """Without a reset; benchmarks/streaming.py does the same for 200,000 frames."""
    deployment, inputs = endless()
    stepper = Stepper(deployment, backend)
    after_warm_up(stepper, inputs, 200)
    kept = stepper.state_bytes
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    spikes = after_warm_up(stepper, inputs, frames)
    gc.collect()
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert spikes > 20
    assert stepper.state_bytes == kept
    assert grown < 20_000


def after_warm_up(stepper, inputs, frames):
    spikes = 0
    for t in range(frames):
        spikes += int(stepper.step({"eye": inputs[t % len(inputs)]}, ("cells",))["cells"].sum())
    return spikes


def endless():
    """A loop with a lag and a leaky readout: may run for ever."""
    rng = np.random.default_rng(3)
    lif = {"bias_mantissa": np.array(0), "bias_exponent": 0, "threshold": np.array(30)}
    dense = ig.IntDense("eye", 0, 2 * rng.integers(-20, 40, (6, 5)), 8, "mixed")
    back = ig.IntDense("cells", 2, 2 * rng.integers(-20, 5, (6, 6)), 8, "mixed", lag=3)
    read = ig.IntDense("cells", 0, 2 * rng.integers(-20, 40, (3, 6)), 8, "mixed")
    populations = {
        "eye": ig.IntInput((5,), (), 3),
        "cells": ig.IntLif((6,), (dense, back), **lif, decay_u=4095, decay_v=1000),
        "head": ig.IntReadout((3,), (read,), np.zeros(3, int), None, 400, 0),
    }
    return make_deployment(populations, "head", 4), rng.integers(0, 3, (50, 5))
