"""Three senses: cross-modal attention between every pair, trained, deployed and compared.

Eight made-up events; the sound tells one bit of the event, the picture another, touch the third, so
any two senses alone are right half of the time. `CrossModal` is S-CMRL for any number of senses:
every ordered pair has its own attention, residuals add, and the alignment loss runs over all pairs.
Run it with `python examples/three_modalities.py` (a minute, nothing to download); with `--lava` the
deployed network also runs in Lava's runtime.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch.nn import functional

from neuroav import verify
from neuroav.models.add import Sizes
from neuroav.models.attention import CrossOptions
from neuroav.models.layers import LifParameters
from neuroav.models.scmrl import CrossModal
from neuroav.models.stems import BranchShape
from neuroav.sim import fast
from neuroav.sim.trace import collect
from neuroav.simulate import Samples
from neuroav.training.losses import mean_alignment_loss
from neuroav_export import compile_module

SENSES = ("audio", "visual", "touch")
CLASSES = tuple(f"event {number}" for number in range(8))
STEPS, SIZE = 4, 8


def events(count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return event counts (count, STEPS, 1, SIZE, SIZE) of every sense, and labels (count,).

    Bit b of the label decides which half of sense b is active: upper or lower.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 8, count)
    found = {}
    for bit, name in enumerate(SENSES):
        rates = np.full((count, 1, 1, SIZE, SIZE), 0.1)
        upper = (labels >> bit) % 2 == 1
        rates[upper, :, :, : SIZE // 2] = 0.7
        rates[~upper, :, :, SIZE // 2 :] = 0.7
        shape = (count, STEPS, 1, SIZE, SIZE)
        found[name] = rng.poisson(np.broadcast_to(rates, shape)).astype(np.int32)
    return found, labels


class ThreeSenses(CrossModal):
    """forward names the inputs: a network on a chip has a fixed set of them."""

    def forward(self, audio: torch.Tensor, visual: torch.Tensor, touch: torch.Tensor):
        return self.classify(audio, visual, touch)


def network() -> ThreeSenses:
    """Return the untrained network."""
    shapes = {name: BranchShape(1, SIZE, SIZE, pool_first=False) for name in SENSES}
    neuron = LifParameters(detach_reset=True)
    sizes = Sizes(len(CLASSES), embed_dim=16, mlp_ratio=2, readout_gain=10.0, neuron=neuron)
    return ThreeSenses(shapes, sizes, CrossOptions(form="spatial", heads=2, alpha=1.5))


def tensors(inputs: dict[str, np.ndarray]) -> list[torch.Tensor]:
    """Return float tensors with time first, (STEPS, B, 1, SIZE, SIZE)."""
    return [torch.from_numpy(np.moveaxis(v, 1, 0)).float() for v in inputs.values()]


def train(net: ThreeSenses, inputs: dict[str, np.ndarray], labels: np.ndarray) -> None:
    """Cross-entropy and alignment of the residuals, 60 steps of 32 samples."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    target = torch.from_numpy(labels)
    for step in range(60):
        pick = np.random.default_rng(step).integers(0, len(labels), 32)
        logits, residuals = net.logits_and_residuals(*[x[:, pick] for x in tensors(inputs)])
        loss = functional.cross_entropy(logits, target[pick])
        loss = loss + mean_alignment_loss(residuals, target[pick], temperature=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()


def main() -> None:
    torch.manual_seed(0)
    net = network()
    train(net, *events(256, seed=1))
    inputs, labels = events(64, seed=2)
    deployment = compile_module(net, inputs, classes=CLASSES)
    graph = deployment.integer
    print(f"{deployment.neurons} neurons; an answer takes {graph.latency[graph.output]} steps")
    scores = collect(fast.run(deployment, inputs))[graph.output][:, -1]
    print(f"deployed, right: {(scores.argmax(1) == labels).mean():.2f}")
    for name in SENSES:
        without = {**inputs, name: np.zeros_like(inputs[name])}
        answers = collect(fast.run(deployment, without))[graph.output][:, -1].argmax(1)
        print(f"without {name}, right: {(answers == labels).mean():.2f}")
    few = Samples({n: v[:8] for n, v in inputs.items()}, labels[:8], "test")
    backends = ["reference", "fast"] + (["lava"] if "--lava" in sys.argv else [])
    found = verify.compare(deployment, few, backends)
    print(f"{' = '.join(backends)}: {found['equal']}; {found['spikes_compared']} spikes compared")


if __name__ == "__main__":
    main()
