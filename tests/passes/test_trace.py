"""Tracing: every supported module becomes its node; everything else is named."""

from __future__ import annotations

import numpy as np
import pytest
import samples
import torch
from torch import nn

from neuroav import nodes as rn
from neuroav.errors import DataError, StageError, UnsupportedModule
from neuroav.models.layers import Add, Lif, LifParameters, PerStep, SpatialMean, TimeMean
from neuroav_export.pipeline import compile_module
from neuroav_export.trace import CONVERTERS, trace


class Net(nn.Module):
    """conv - [middle] - lif - mean - head, with one module to vary."""

    def __init__(self, middle=None, neuron=None):
        super().__init__()
        self.conv = PerStep(nn.Conv2d(1, 2, 3))
        self.middle = middle or nn.Identity()
        self.lif = neuron or Lif()
        self.mean = SpatialMean()
        self.head = nn.Linear(2, 3)
        self.time_mean = TimeMean()

    def forward(self, x):
        return self.time_mean(self.head(self.mean(self.lif(self.middle(self.conv(x))))))


X = {"x": np.ones((2, 4, 1, 5, 6), np.int32)}
FRAMES = {"x": np.ones((4, 2, 1, 5, 6))}


def test_every_node_of_the_model_is_traced_with_seconds_and_shapes():
    model = samples.warmed_model("add").double()
    inputs = {n: np.moveaxis(v, 1, 0) for n, v in samples.poisson_inputs(2, 4).items()}
    graph = trace(model, inputs)
    kinds = [type(n).__name__ for n in graph.nodes.values()]
    assert kinds.count("Lif") == 10
    assert kinds.count("Conv2d") == kinds.count("BatchNorm") == 10
    assert kinds.count("MaxPool2d") == 3
    assert kinds.count("Add") == 5
    lif = graph.nodes["visual.stem.lif0"]
    assert lif == rn.Lif(2e-3, 0.35) or (lif.tau_mem_s, lif.v_threshold) == (
        pytest.approx(2e-3),
        pytest.approx(0.35),
    )
    assert (graph.dt_s, graph.steps) == (1e-3, 4)
    assert graph.shapes["visual.stem.pool0"] == (4, 8, 8)
    assert graph.input_names == ("audio", "visual")


def test_converters_cover_what_the_models_use():
    assert {nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.MaxPool2d, Lif, Add} <= set(CONVERTERS)


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (
            PerStep(nn.ReLU()),
            r"middle\.layer: ReLU cannot be compiled; supported are Add, AvgPool2d, B",
        ),
        (nn.Sequential(nn.Identity(), nn.Tanh()), r"middle\.1: Tanh cannot be compiled"),
        (
            PerStep(nn.AvgPool2d(2, ceil_mode=True)),
            r"middle\.layer: average pooling with ceil_mode",
        ),
        (PerStep(nn.MaxPool2d(2, ceil_mode=True)), r"middle\.layer: max pooling with dilation"),
        (PerStep(nn.Conv2d(2, 2, 3, padding="same")), r"middle\.layer: padding 'same'"),
        (nn.MaxPool2d(2), r"middle: MaxPool2d takes the frames of one step; use PerStep"),
        (PerStep(Lif()), r"middle\.layer: Lif needs all steps in order, PerStep mixes them"),
        (
            PerStep(nn.BatchNorm2d(2, track_running_stats=False)),
            r"middle\.layer: batch norm without running statistics",
        ),
    ],
)
def test_unsupported_modules_are_named(middle, message):
    with pytest.raises(UnsupportedModule, match=message):
        trace(Net(middle), FRAMES)


class Functions(Net):
    def forward(self, x):
        return torch.relu(super().forward(x))


class Twice(Net):
    def forward(self, x):
        y = self.lif(self.conv(x))
        return self.time_mean(self.head(self.mean(self.lif(y))))


class TwicePerStep(Net):
    def forward(self, x):
        return super().forward(self.middle(self.middle(x)))


class Branching(Net):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.x, self.rest = PerStep(nn.Conv2d(1, 2, 3)), Lif()

    def forward(self, x):
        return self.rest(self.x(x))


class Pair(Net):
    def forward(self, x):
        y = super().forward(x)
        return y, y


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Functions(), "relu: call_function relu in forward cannot be traced"),
        (Twice(), "lif: is called twice"),
        (TwicePerStep(PerStep(nn.Sequential(nn.Conv2d(1, 1, 1)))), "middle: is called twice"),
        (Branching(), r"the network: forward cannot be traced \(symbolically traced variables"),
        (nn.Sequential(Branching()), r"0: forward cannot be traced \(symbolically traced var"),
        (Named(), "x: is the name of a layer and of an input"),
        (Pair(), "returns several values"),
    ],
)
def test_unsupported_forwards_are_named(net, message):
    with pytest.raises(UnsupportedModule, match=message):
        trace(net, FRAMES)


def test_neurons_of_a_layer_share_their_parameters():
    lif = Lif()
    lif.norse = lif.norse._replace(v_th=torch.ones(2, 1, 1))
    with pytest.raises(UnsupportedModule, match="lif: v_th holds 2 values"):
        trace(Net(neuron=lif), FRAMES)


def test_sample_must_match_forward():
    with pytest.raises(UnsupportedModule, match="the sample holds 'y', which forward does not"):
        trace(Net(), {**FRAMES, "y": FRAMES["x"]})
    with pytest.raises(StageError, match=r"conv: .*does not fit source"):
        trace(Net(), {"x": np.ones((4, 2, 3, 5, 6))})


def test_mixed_time_steps_are_refused():
    net = Net(Lif(LifParameters(dt_s=2e-3)))
    with pytest.raises(UnsupportedModule, match="need one common dt"):
        trace(net, FRAMES)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones((2, 4)), "shape is .2, 4., needs"),
        (np.full((2, 4, 1, 5, 6), np.nan), "holds NaN or infinite"),
    ],
)
def test_bad_samples_are_refused(value, message):
    with pytest.raises(DataError, match=f"sample 'x': .*{message}"):
        compile_module(Net(), {"x": value})


def test_no_sample_at_all_is_refused():
    with pytest.raises(DataError, match="the sample holds no input"):
        compile_module(Net(), {})


def test_nan_in_a_weight_is_named():
    net = Net()
    with torch.no_grad():
        net.conv.layer.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(StageError, match=r"conv\.layer: Conv2d\.weight: 1 of 18 values are NaN"):
        compile_module(net, X)
