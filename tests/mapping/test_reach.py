"""Reach: summed over slices it is the fan-out, and it holds what simulated spikes show."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies_intgraph import random_deployment

from neuroav import integer as ig
from neuroav.mapping.reach import reach
from neuroav.placement import placed
from neuroav.synapses import fan_out

seen: set[type] = set()


def cut(rng, shape, pop):
    """Return boxes that cover a shape, cut along random axes (an attention is not cut)."""
    boxes = [tuple((0, size) for size in shape)]
    if isinstance(pop, ig.ATTENTION_CLASSES):
        return boxes
    for axis, size in enumerate(shape):
        edges = sorted({0, size, *rng.integers(0, size + 1, 2).tolist()})
        spans = list(pairwise(edges))
        boxes = [(*b[:axis], span, *b[axis + 1 :]) for b in boxes for span in spans]
    return boxes


@settings(max_examples=120, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_slices_share_the_fan_out_of_every_source_neuron(seed, cuts):
    graph = random_deployment(seed, hidden=5)[0].integer
    rng = np.random.default_rng(cuts)
    for name in placed(graph):
        pop = graph.populations[name]
        boxes = cut(rng, pop.shape, pop)
        for projection in pop.projections:
            source = graph.populations[projection.source].shape
            total = np.zeros(source, np.int64)
            for box in boxes:
                part = reach(graph, name, projection, box)
                assert part.fan.shape == tuple(b - a for a, b in part.box)
                assert part.fan.min(initial=0) >= 0
                total[part.index] += part.fan
            expected = fan_out(projection, source, pop.shape)
            if isinstance(pop, ig.ATTENTION_CLASSES):
                expected = expected * pop.fan(graph.steps)
            assert np.array_equal(total, expected), (name, projection)
            seen.add(type(projection))


def test_every_kind_of_projection_was_cut():
    assert seen == set(ig.PROJECTION_CLASSES)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("stride", "padding", "dilation"), [((2, 1), (1, 0), (1, 1)),
                                                       ((1, 3), (2, 2), (2, 1))])  # fmt: skip
def test_a_slice_of_a_convolution_is_what_single_neurons_say(groups, stride, padding, dilation):
    """Against the definition: which (input, output) pairs meet a weight that is not 0."""
    rng = np.random.default_rng(3)
    weight = rng.integers(-1, 2, (4, 4 // groups, 3, 2))
    size = (9, 8)
    rows = ig.conv_windows(size[0], 3, stride[0], padding[0], dilation[0])
    columns = ig.conv_windows(size[1], 2, stride[1], padding[1], dilation[1])
    conv = ig.IntConv2d("x", 0, weight, stride, padding, dilation, groups, 8, "mixed")
    lif = ig.IntLif((4, rows, columns), (conv,), np.array([0]), 0, np.array([1]), 0, 0)
    graph = ig.IntGraph(
        {"x": ig.IntInput((4, *size), (), 1), "y": lif}, "y", 1, 0.01, {"x": (1, 1), "y": (1, 1)}
    )
    box = ((1, 3), (1, rows), (0, columns - 1))
    expected = np.zeros((4, *size), np.int64)
    for o in range(*box[0]):
        group = o // (4 // groups)
        for y in range(*box[1]):
            for x in range(*box[2]):
                for i in range(4 // groups):
                    for r in range(3):
                        for c in range(2):
                            row = y * stride[0] - padding[0] + r * dilation[0]
                            column = x * stride[1] - padding[1] + c * dilation[1]
                            if 0 <= row < size[0] and 0 <= column < size[1] and weight[o, i, r, c]:
                                expected[group * (4 // groups) + i, row, column] += 1
    found = np.zeros_like(expected)
    part = reach(graph, "y", conv, box)
    found[part.index] = part.fan
    assert expected.any()
    assert np.array_equal(found, expected)
