"""Networks that the writers' tests convert: a realistic one, and a chain with every odd setting."""

from __future__ import annotations

import numpy as np
import pytest
import samples
import torch
from torch import nn

from neuroav.deployment import Deployment
from neuroav.models.layers import Lif, LifParameters, PerStep, TimeMean
from neuroav.sim import fast
from neuroav.sim.trace import collect
from neuroav_export import compile_module


@pytest.fixture(scope="session")
def realistic() -> tuple[Deployment, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The two-branch network with 32 samples and fast's outputs and voltages ('v(NAME)')."""
    model = samples.warmed_model("add", steps=6, embed_dim=16)
    inputs = samples.poisson_inputs(32, 6, seed=3)
    deployment = compile_module(model, {n: v[:4] for n, v in inputs.items()})
    return deployment, inputs, run_fast(deployment, inputs)


class Chain(nn.Module):
    """eye (3, 9, 7) -> depthwise, strided and dense layers, neurons of two kinds -> 5 scores."""

    inputs = ("eye",)

    def __init__(self) -> None:
        super().__init__()
        fast_neuron, slow_neuron = LifParameters(2e-3), LifParameters(5e-3, v_threshold=0.3)
        self.conv0 = PerStep(nn.Conv2d(3, 6, 3, stride=(1, 2), padding=(2, 1), groups=3))
        self.lif0 = Lif(fast_neuron)
        self.pool = PerStep(nn.MaxPool2d((3, 2), stride=(2, 1), padding=(1, 0)))
        self.conv1 = PerStep(nn.Conv2d(6, 4, 2, dilation=(2, 1), bias=False))
        self.lif1 = Lif(slow_neuron)
        self.flatten = PerStep(nn.Flatten())
        self.dense = nn.Linear(4 * 4 * 2, 8)
        self.lif2 = Lif(slow_neuron)
        self.head = nn.Linear(8, 5)
        self.time_mean = TimeMean()

    def forward(self, eye: torch.Tensor) -> torch.Tensor:
        x = self.lif1(self.conv1(self.pool(self.lif0(self.conv0(eye)))))
        return self.time_mean(self.head(self.lif2(self.dense(self.flatten(x)))))


@pytest.fixture(scope="session")
def chain() -> tuple[Deployment, dict[str, np.ndarray]]:
    """The compiled chain and 8 samples of 7 steps."""
    torch.manual_seed(4)
    model = Chain()
    with torch.no_grad():
        for layer in (model.conv0.layer, model.conv1.layer, model.dense):
            layer.weight.mul_(3)
    rng = np.random.default_rng(5)
    inputs = {"eye": rng.poisson(0.6, (8, 7, 3, 9, 7)).astype(np.int32)}
    return compile_module(model.eval(), inputs), inputs


def run_fast(deployment: Deployment, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    traces = list(fast.run(deployment, inputs, states=True))
    voltages = {f"v({n})": np.concatenate([t.states[n] for t in traces]) for n in traces[0].states}
    return collect(traces) | voltages


@pytest.fixture(scope="session")
def fast_outputs():
    """Return the function that gives outputs and voltages (samples, steps, *shape) by name."""
    return run_fast
