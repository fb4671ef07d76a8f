"""Weights in 8 bits: the integers come back, and runtimes take no leave to round."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx_runs import LEVELS, loop, session
from strategies_intgraph import make_deployment

from neuroav import integer as ig
from neuroav.fixed import SIGN_MODES, weight_levels, weight_step
from neuroav_export.writers import onnx as writer
from neuroav_export.writers.onnx_build import narrowed

WIDE = arrays(np.int64, (3, 5), elements=st.integers(-(2**23), 2**23))


@given(WIDE)
def test_integers_come_back(weight):
    stored, factor = narrowed(weight)
    assert np.array_equal(stored.astype(np.int64) * factor, weight)


@given(st.data(), st.integers(1, 8), st.sampled_from(SIGN_MODES))
def test_synapses_of_8_bits_fit_8_bits(data, bits, mode):
    low, high = weight_levels(bits, mode)
    steps = data.draw(arrays(np.int64, (4, 6), elements=st.integers(low, high)))
    stored, factor = narrowed(steps * weight_step(bits, mode))
    assert stored.dtype.itemsize == 1
    assert np.array_equal(stored.astype(np.int64) * factor, steps * weight_step(bits, mode))


def large(seed: int):
    """A dense network of 40,000 weights and counts up to 255."""
    rng = np.random.default_rng(seed)
    first = rng.integers(-128, 128, (256, 128)) * 2
    last = rng.integers(0, 256, (10, 256)) * (-1 if seed % 2 else 1)
    mode = "inhibitory" if seed % 2 else "excitatory"
    graph = {
        "in": ig.IntInput((128,), (), 255),
        "sum": ig.IntSum((256,), (ig.IntDense("in", 0, first, 8, "mixed"),)),
        "lif": ig.IntLif((256,), (ig.IntDense("in", 0, first, 8, "mixed"),), np.zeros(1, int), 0,
                         np.array([4000]), 4095, 2048),
        "out": ig.IntReadout((10,), (ig.IntDense("lif", 0, last, 8, mode),), np.zeros(1, int)),
    }  # fmt: skip
    return make_deployment(graph, "out", 3)


@pytest.mark.parametrize("seed", range(2))
def test_large_products_are_exact_at_every_level_of_optimization(seed, fast_outputs):
    deployment = large(seed)
    rng = np.random.default_rng(seed + 100)
    inputs = {"in": rng.integers(0, 2, (4, 3, 128)) * rng.integers(0, 30, (4, 3, 128))}
    expected = fast_outputs(deployment, inputs)
    assert 0.05 < expected["lif"].mean() < 0.9
    model = writer.make_model(deployment)
    levels = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
    for level in levels:
        found = loop(session(model, getattr(LEVELS, level)).run, model, inputs)
        assert all(np.array_equal(found[n], expected[n]) for n in ("sum", "lif", "out")), level


@pytest.mark.parametrize("form", writer.FORMS)
def test_weights_are_kept_once_and_in_a_byte(form):
    deployment = large(1)
    model = writer.make_model(deployment, form)
    sizes = [len(x.raw_data) for x in model.graph.initializer]
    assert sorted(sizes)[-2:] == [10 * 256, 256 * 128]
    kinds = {x.data_type for x in model.graph.initializer if len(x.raw_data) > 1000}
    assert kinds == {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}
    assert len(model.SerializeToString()) < 1.35 * (256 * 128 + 10 * 256)
