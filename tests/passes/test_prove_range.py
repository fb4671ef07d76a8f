"""A slightly coarser unit where that proves a register safe, and no other change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from neuroav.bounds import bounds, unproven
from neuroav.hardware import load_profile
from neuroav.models.layers import Gain, Lif, PerStep, SpatialMean, TimeMean
from neuroav.quantization import Options
from neuroav.sim import fast, reference
from neuroav.sim.trace import collect
from neuroav_export import compile_module
from neuroav_export.passes.prove_range import MOST, prove_range
from neuroav_export.passes.quantize import quantize

ARITH = load_profile("loihi2").arithmetic


def network() -> nn.Module:
    """Eight inputs, four neurons: half the weights at either end of the grid.

    With counts of n, tau_mem 2 dt: |v| < 4 * 254 * n * 64 * 2, and the register ends at 2^23.
    """
    layer = nn.Conv2d(8, 4, 1, bias=False)
    with torch.no_grad():
        layer.weight[:] = torch.tensor([1.0, -1.0] * 4).reshape(1, 8, 1, 1)
        layer.weight[1:] *= 0.3
    head = nn.Linear(4, 3)
    torch.manual_seed(0)
    return nn.Sequential(PerStep(layer), Lif(), SpatialMean(), head, TimeMean())


def deployed(top: int):
    sample = {"x": np.random.default_rng(1).poisson(0.4, (6, 5, 8, 2, 2)).astype(np.int32)}
    return compile_module(network(), sample, max_count={"x": top}), sample


def weights(deployment) -> np.ndarray:
    return deployment.integer.populations["1"].projections[0].weight


def open_ranges(deployment) -> dict:
    return unproven(bounds(deployment.integer, ARITH))


def test_a_range_just_passed_is_closed_by_a_coarser_unit():
    plain, _ = deployed(50)
    coarse, sample = deployed(70)
    assert open_ranges(plain) == open_ranges(coarse) == {}
    assert np.abs(weights(plain)).max() == 254
    largest = np.abs(weights(coarse)).max()
    assert 254 / MOST <= largest < 254  # 4 * 254 * 70 * 64 * 2 is 8.5 % too much
    excess = 4 * 254 * 70 * 64 * 2 / (1 << 23)
    assert largest >= 254 / (excess * 1.03)  # not coarser than it must be
    threshold = coarse.integer.populations["1"].threshold
    assert threshold < plain.integer.populations["1"].threshold  # of the same unit
    found, expected = (collect(e.run(coarse, sample)) for e in (fast, reference))
    assert 0.01 < expected["1"].mean() < 0.9
    assert all(np.array_equal(found[n], expected[n]) for n in expected)


def test_a_range_far_passed_is_left_to_the_check_at_run_time():
    deployment, _ = deployed(100)
    assert np.abs(weights(deployment)).max() == 254
    (sentence,) = open_ranges(deployment)["1"]
    assert "the membrane voltage can span" in sentence


def test_a_unit_that_training_fixed_is_kept():
    deployment, _ = deployed(100)
    graph = deployment.real

    def quantized(graph):
        return quantize(graph, ARITH, Options(8, "mse"))

    near = replace(graph.nodes["x"], max_count=70)
    graph = graph.with_nodes(nodes={"x": near})
    free, found = prove_range(graph, (), ARITH, quantized)
    assert unproven(bounds(found.integer, ARITH)) == {}
    assert free.nodes["0"].least_unit.min() > graph.nodes["0"].least_unit.min()
    kept, found = prove_range(graph, ("0",), ARITH, quantized)
    assert unproven(bounds(found.integer, ARITH))
    assert np.array_equal(kept.nodes["0"].least_unit, graph.nodes["0"].least_unit)


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_per_channel_units_are_all_raised_alike(gain):
    net = network()
    net.insert(2, Gain(gain))
    sample = {"x": np.random.default_rng(1).poisson(0.4, (6, 5, 8, 2, 2)).astype(np.int32)}
    near, plain = (
        compile_module(net, sample, max_count={"x": n}, per_channel=True) for n in (70, 50)
    )
    assert open_ranges(near) == {}
    ratio = np.ravel(near.integer.populations["1"].threshold) / np.ravel(
        plain.integer.populations["1"].threshold
    )
    assert ratio.max() < 1
    assert np.ptp(ratio) < 0.03
