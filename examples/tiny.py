"""The whole pipeline on a network small enough to read: is it a sound, a light, or both?

A microphone and a camera of 4 x 4 event counters each. Nothing is trained, the weights are written
down. Run it with `python examples/tiny.py`; it prints what each executor decides and that they
agree. `examples/make_shipped.py` saves the same network as the package's `shipped:tiny.nav`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from neuroav.deployment import Deployment, Probe
from neuroav.models.layers import Add, Lif, LifParameters, PerStep, SpatialMean, TimeMean
from neuroav.sim import fast, reference
from neuroav.sim.trace import collect
from neuroav_export import compile_module

CLASSES = ("sound", "light", "both")
STEPS = 6


class Detector(nn.Module):
    """Per modality: 2 x 2 sums -> neurons -> OR pool; joined by addition; three class scores."""

    inputs = ("audio", "visual")

    def __init__(self) -> None:
        super().__init__()
        neuron = LifParameters(tau_mem_s=2e-3, dt_s=1e-3)
        self.audio_sum = PerStep(nn.Conv2d(1, 2, 2, bias=False))
        self.audio_lif = Lif(neuron)
        self.audio_pool = PerStep(nn.MaxPool2d(3))
        self.visual_sum = PerStep(nn.Conv2d(1, 2, 2, bias=False))
        self.visual_lif = Lif(neuron)
        self.visual_pool = PerStep(nn.MaxPool2d(3))
        self.join = Add()
        self.mean = SpatialMean()
        self.head = nn.Linear(2, 3)
        self.time_mean = TimeMean()
        with torch.no_grad():  # feature 0 is the microphone, feature 1 the camera
            for layer, feature in ((self.audio_sum.layer, 0), (self.visual_sum.layer, 1)):
                layer.weight.fill_(-0.3)
                layer.weight[feature] = 0.6
            self.head.weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0], [0.6, 0.6]]))
            self.head.bias.copy_(torch.tensor([0.0, 0.0, -0.5]))

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        sound = self.audio_pool(self.audio_lif(self.audio_sum(audio)))
        light = self.visual_pool(self.visual_lif(self.visual_sum(visual)))
        return self.time_mean(self.head(self.mean(self.join(sound, light))))


def recordings(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return 12 labelled samples: event counts (12, STEPS, 1, 4, 4) per input, labels (12,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(12) % 3
    rate = {"audio": np.where(labels != 1, 1.0, 0.05), "visual": np.where(labels != 0, 1.0, 0.05)}
    counts = {
        name: rng.poisson(r[:, None, None, None, None], (12, STEPS, 1, 4, 4)).astype(np.int32)
        for name, r in rate.items()
    }
    return counts, labels


def build() -> Deployment:
    """Return the compiled detector with its recordings inside."""
    inputs, labels = recordings()
    return compile_module(
        Detector(), inputs, target="loihi2", classes=CLASSES, probe=Probe(inputs, labels)
    )


def main() -> None:
    deployment = build()
    inputs, labels = recordings()
    graph = deployment.integer
    print(
        f"{deployment.neurons} neurons, {deployment.synapses} synapses on {deployment.profile.id}"
    )
    by_reference = collect(reference.run(deployment, inputs))
    by_fast = collect(fast.run(deployment, inputs))
    for name in graph.order:
        print(
            f"  {name:12} {type(graph.populations[name]).__name__:10} "
            f"latency {graph.latency[name]}, {int((by_fast[name] != 0).sum())} messages"
        )
    equal = all(np.array_equal(by_reference[n], by_fast[n]) for n in graph.order)
    scores = by_fast[graph.output][:, -1]
    print("decisions:", ", ".join(CLASSES[i] for i in scores.argmax(1)))
    print(
        f"right: {int((scores.argmax(1) == labels).sum())} of {len(labels)}; "
        f"reference and fast equal: {equal}"
    )


if __name__ == "__main__":
    main()
