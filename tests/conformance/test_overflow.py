"""Every executor refuses an accumulator that leaves its register, naming the node."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from strategies_intgraph import make_deployment

from neuroav import integer as ig
from neuroav.errors import DataError, OutOfRange
from neuroav.sim import fast, reference

EXECUTORS = {"reference": reference.run, "fast": fast.run}


def lif(source, weight, **changes):
    values = {
        "bias_mantissa": np.zeros(1, np.int64), "bias_exponent": 0,
        "threshold": np.array([2**17 - 1]), "decay_u": 4095, "decay_v": 0,
    }  # fmt: skip
    dense = ig.IntDense(source, 0, np.array([[weight]]), 8, "mixed")
    return ig.IntLif((1,), (dense,), **{**values, **changes})


def chain(middle, steps=8):
    """input -> gain of 254 per stage -> middle -> readout."""
    amplify = ig.IntSum((1,), (ig.IntDense("x", 0, np.array([[254]]), 8, "mixed"),))
    readout = ig.IntReadout(
        (1,), (ig.IntDense("m", 0, np.array([[2]]), 8, "mixed"),), np.zeros(1, np.int64)
    )
    populations = {"x": ig.IntInput((1,), (), 255), "a": amplify, "m": middle, "r": readout}
    return make_deployment(populations, "r", steps)


CASES = {
    "current": (lif("a", 254), "m: the synaptic current reached"),
    "voltage": (lif("a", 2), "m: the membrane voltage reached"),
    "negative voltage": (lif("a", -2), "m: the membrane voltage reached -"),
    "pool": (ig.IntOr((1,), (ig.IntDense("a", 0, np.array([[254]]), 8, "mixed"),)),
             "m: the synaptic sum reached"),
    "graded": (ig.IntSum((1,), (ig.IntDense("a", 0, np.array([[254]]), 8, "mixed"),)),
               "m: the graded message reached|r: the readout accumulator reached"),
}  # fmt: skip


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("case", CASES)
def test_overflow_is_an_error_with_the_nodes_name(executor, case):
    middle, message = CASES[case]
    with pytest.raises(OutOfRange, match=message):
        list(EXECUTORS[executor](chain(middle), {"x": np.full((2, 8, 1), 255)}))


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("case", CASES)
def test_the_largest_input_that_fits_runs(executor, case):
    """Just inside the register nothing is refused, and both executors give the same numbers."""
    deployment = chain(CASES[case][0])
    inputs = {"x": np.zeros((1, 8, 1))}
    inputs["x"][0, 2] = 1
    found = [t.outputs["r"] for t in EXECUTORS[executor](deployment, inputs)]
    expected = [t.outputs["r"] for t in reference.run(deployment, inputs)]
    assert np.any(expected) or CASES[case][0].__class__ is ig.IntLif
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"y": np.zeros((1, 8, 1))}, r"inputs are \['y'\], the network needs \['x'\]"),
        ({"x": np.zeros((1, 7, 1))}, r"input 'x': shape is \(1, 7, 1\), needs \(samples, 8, 1\)"),
        ({"x": np.full((1, 8, 1), np.nan)}, "holds NaN or infinite"),
        ({"x": np.full((1, 8, 1), 0.5)}, "holds fractions"),
        ({"x": np.full((1, 8, 1), 256)}, r"counts span 0\.\.256, allowed 0\.\.255"),
        ({"x": np.full((1, 8, 1), -1)}, r"counts span -1\.\.0"),
        ({"x": np.full((1, 8, 1), "a")}, "dtype is <U1, needs integers"),
    ],
)
def test_bad_inputs_are_named(executor, inputs, message):
    deployment = chain(CASES["voltage"][0])
    with pytest.raises(DataError, match=message):
        list(EXECUTORS[executor](deployment, inputs))


def test_unequal_sample_counts_are_named():
    deployment = chain(CASES["voltage"][0])
    pops = dict(deployment.integer.populations)
    pops["y"] = ig.IntInput((1,), (), 255)
    both = replace(deployment, integer=replace(
        deployment.integer, populations=pops, scales=dict.fromkeys(pops, (1, 1))))  # fmt: skip
    with pytest.raises(DataError, match="differ in their number of samples: x has 2, y has 3"):
        list(reference.run(both, {"x": np.zeros((2, 8, 1)), "y": np.zeros((3, 8, 1))}))
