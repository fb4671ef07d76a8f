"""Layers of the host: what they send, what they refuse, and that the cuts change no spike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroav import hardware
from neuroav.errors import DataError, StageError
from neuroav.fixed import lif_step
from neuroav.host import HostLayer, encode, verify_host
from neuroav.integer import IntGraph, IntHostCurrent, IntInput
from neuroav.quantization import integer_decay

ARITH = hardware.load_profile("loihi2").arithmetic
STEPS = 6


def layer(weight, shape, source, **options):
    made = {
        "source": "x",
        "source_shape": source,
        "layer": "conv",
        "weight": weight,
        "bias": np.zeros(len(weight)),
        "stride": (1, 1),
        "padding": (0, 0),
        "dilation": (1, 1),
        "groups": 1,
        "shape": shape,
        "unit": 0.01,
        "top": 201,
        "sends": "current",
        "decay_v": integer_decay(0.5, ARITH),
        "threshold": 200,
    }
    return HostLayer(**made | options)


def repeated(image):
    return np.repeat(image[:, None], STEPS, axis=1)


@pytest.mark.parametrize(
    ("groups", "stride", "padding", "dilation"),
    [(1, (1, 1), (1, 1), (1, 1)), (2, (2, 1), (0, 2), (1, 2)), (4, (1, 3), (2, 0), (2, 1))],
)
def test_current_is_the_convolution_rounded(groups, stride, padding, dilation):
    rng = np.random.default_rng(groups)
    weight, bias = rng.normal(size=(8, 4 // groups, 3, 2)), rng.normal(size=8)
    image = rng.normal(size=(18, 4, 9, 8))  # more samples than are computed together
    expected = torch.nn.functional.conv2d(
        *map(torch.from_numpy, (image, weight, bias)), stride, padding, dilation, groups
    ).numpy()
    host = layer(
        weight, expected.shape[1:], (4, 9, 8), bias=bias, groups=groups, stride=stride,
        padding=padding, dilation=dilation,
    )  # fmt: skip
    found = encode(host, repeated(image), STEPS, ARITH)
    assert found.dtype == np.int32
    assert (found == found[:, :1]).all()
    cut = np.clip(np.rint(expected / host.unit), 0, host.top)
    assert 0.1 < (cut == 0).mean() < 0.9
    assert 0.1 < (cut == host.top).mean() < 0.9
    # another order of sums may round the other way where a sum lies half-way between integers
    assert (found[:, 0] == cut).mean() > 0.999
    assert np.abs(found[:, 0] - cut).max() <= 1
    assert host.macs == expected[0].size * weight[0].size


def test_dense_layer_is_a_product():
    rng = np.random.default_rng(0)
    weight, image = rng.integers(-3, 4, (5, 12)).astype(float), rng.integers(-9, 9, (3, 3, 2, 2))
    host = layer(weight, (5,), (3, 2, 2), unit=1.0, top=40)
    found = encode(host, repeated(image), STEPS, ARITH)
    expected = np.clip(image.reshape(3, 12) @ weight.T, 0, 40)
    assert 0 < expected.max() < 40 or (expected == 40).any()
    assert np.array_equal(found[:, 2], expected)


@settings(max_examples=200, deadline=None)
@given(
    m=st.integers(-3000, 3000),
    threshold=st.integers(1, 500),
    decay=st.integers(0, 4096),
    steps=st.integers(1, 20),
)
def test_cutting_a_constant_current_changes_no_spike(m, threshold, decay, steps):
    def spikes(current):
        u = v = np.zeros(1, np.int64)
        found = []
        for _ in range(steps):
            u, v, s = lif_step(
                u, v, np.array([current]), 0, decay_u=4095, decay_v=decay, threshold=threshold,
                arith=ARITH,
            )  # fmt: skip
            found.append(bool(s[0]))
        return found

    assert spikes(m) == spikes(min(max(m, 0), threshold + 1))


@pytest.mark.parametrize("pool", [False, True])
def test_spikes_are_those_of_the_neurons_on_the_chip(pool):
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(3, 2, 1, 1))
    image = 3 * rng.normal(size=(4, 2, 5, 7))
    host = layer(weight, (3, 5, 7), (2, 5, 7))
    current = encode(host, repeated(image), STEPS, ARITH)
    u = v = np.zeros(current[:, 0].shape, np.int64)
    expected = []
    for t in range(STEPS):
        u, v, s = lif_step(u, v, current[:, t].astype(np.int64), 0, decay_u=4095,
                           decay_v=host.decay_v, threshold=host.threshold, arith=ARITH)  # fmt: skip
        expected.append(torch.from_numpy(s.astype(np.float32)))
    if pool:
        expected = [torch.nn.functional.max_pool2d(s, 3, 2, 1) for s in expected]
    options = {"pool_kernel": (3, 3), "pool_stride": (2, 2), "pool_padding": (1, 1)} if pool else {}
    found = encode(replace(host, sends="spikes", **options), repeated(image), STEPS, ARITH)
    assert 0.1 < found.mean() < 0.9
    assert np.array_equal(found, np.stack([s.numpy() for s in expected], axis=1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, :2], r"input 'x': shape is \(2, 2, 2, 5, 7\), needs \(samples, 6, 2, 5, 7"),
        (lambda x: x * np.nan, "input 'x': holds NaN"),
        (lambda x: x.astype(str), "input 'x': holds NaN or infinite values, needs finite numbers"),
        (lambda x: x + np.arange(6)[:, None, None, None], "input 'x': changes from step to step"),
    ],
)
def test_bad_values_are_named(change, message):
    values = repeated(np.ones((2, 2, 5, 7)))
    host = layer(np.ones((3, 2, 1, 1)), (3, 5, 7), (2, 5, 7))
    with pytest.raises(DataError, match=message):
        encode(host, change(values), STEPS, ARITH)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source_shape": (2, 5, 6)}, r"weights give \(3, 5, 6\), its neurons are \(3, 5, 7\)"),
        ({"groups": 2}, "does not fit source"),
        ({"sends": "spikes"}, "sends spikes up to 1, the input takes IntHostCurrent up to 201"),
        ({"threshold": 100}, "top 201, threshold 100"),
        ({"decay_v": 5000}, "decay 5000"),
        ({"pool_kernel": (2, 2), "pool_stride": (2, 2)}, "pools currents"),
        ({"top": 200}, "sends current up to 200, the input takes IntHostCurrent up to 201"),
        ({"unit": 0.0}, "unit 0.0"),
        ({"unit": float("nan")}, "unit nan"),
        ({"weight": np.full((3, 2, 1, 1), np.inf)}, "NaN or infinite"),
        ({"pool_stride": (2, 2)}, r"gives shape \(3, 3, 4\), the input is \(3, 5, 7\)"),
    ],
)
def test_a_layer_that_does_not_fit_its_input_is_refused(change, message):
    host = layer(np.ones((3, 2, 1, 1)), (3, 5, 7), (2, 5, 7))
    graph = IntGraph({"in": IntHostCurrent((3, 5, 7), (), 201)}, "in", STEPS, 1e-3, {})
    verify_host({"in": host}, graph, ARITH)
    with pytest.raises(StageError, match=message):
        verify_host({"in": replace(host, **change)}, graph, ARITH)


def test_a_layer_without_an_input_and_an_input_without_a_layer_are_refused():
    host = layer(np.ones((3, 2, 1, 1)), (3, 5, 7), (2, 5, 7))
    events = IntGraph({"in": IntInput((3, 5, 7), (), 9)}, "in", STEPS, 1e-3, {})
    with pytest.raises(StageError, match="host layer other: fills no input"):
        verify_host({"other": host}, events, ARITH)
    currents = IntGraph({"in": IntHostCurrent((3,), (), 9)}, "in", STEPS, 1e-3, {})
    with pytest.raises(StageError, match="input in: takes currents, and no host layer"):
        verify_host({}, currents, ARITH)
