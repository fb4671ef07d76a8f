"""Deploy a network of your own: write it, train it a little, compile, simulate, compare.

Audio and video of four made-up events, a two-branch network from the layers of
`neuroav.models.layers`, a plain PyTorch loop, then three calls: `compile_module`, `fast.run`,
`verify.compare`. Run it with `python examples/own_network.py` (seconds, nothing to download).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from neuroav import verify
from neuroav.models.layers import Add, Gain, Lif, LifParameters, PerStep, SpatialMean, TimeMean
from neuroav.sim import fast, real
from neuroav.sim.trace import collect
from neuroav.simulate import Samples
from neuroav_export import compile_module

CLASSES = ("clap", "flash", "door", "ball")
STEPS, SIZE = 8, 8


def events(count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return event counts (count, STEPS, 1, SIZE, SIZE) of both sensors, and labels (count,).

    A clap is loud high, a flash bright left; a door is low and right, a ball low and left: the
    sound alone cannot tell door from ball, the picture alone cannot tell flash from ball.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, count)
    rates = {n: np.full((count, 1, 1, SIZE, SIZE), 0.05) for n in ("audio", "visual")}
    half = SIZE // 2
    rates["audio"][labels == 0, :, :, :half] = 0.6
    rates["audio"][labels >= 2, :, :, half:] = 0.6
    rates["visual"][(labels == 1) | (labels == 3), :, :, :, :half] = 0.6
    rates["visual"][labels == 2, :, :, :, half:] = 0.6
    shape = (count, STEPS, 1, SIZE, SIZE)
    return {n: rng.poisson(np.broadcast_to(r, shape)).astype(np.int32)
            for n, r in rates.items()}, labels  # fmt: skip


class TwoBranches(nn.Module):
    """Per sensor: convolution, batch norm, neurons, OR pooling; fusion by addition; linear head."""

    def __init__(self) -> None:
        super().__init__()
        neuron = LifParameters(tau_mem_s=2e-3, dt_s=1e-3)
        for name in ("audio", "visual"):
            conv = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
            self.add_module(f"{name}_conv", PerStep(conv))
            self.add_module(f"{name}_lif", Lif(neuron))
            self.add_module(f"{name}_pool", PerStep(nn.MaxPool2d(2)))
        self.fusion = Add()
        self.conv = PerStep(nn.Conv2d(8, 16, 3, padding=1))
        self.lif = Lif(neuron)
        self.mean = SpatialMean()
        self.gain = Gain(10.0)  # firing rates are small numbers; this is folded away
        self.head = nn.Linear(16, len(CLASSES))
        self.time_mean = TimeMean()

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        sound = self.audio_pool(self.audio_lif(self.audio_conv(audio)))
        picture = self.visual_pool(self.visual_lif(self.visual_conv(visual)))
        joint = self.lif(self.conv(self.fusion(sound, picture)))
        return self.time_mean(self.head(self.gain(self.mean(joint))))


def tensors(inputs: dict[str, np.ndarray]) -> list[torch.Tensor]:
    """Return float tensors with time first, (STEPS, B, 1, SIZE, SIZE)."""
    return [torch.from_numpy(np.moveaxis(v, 1, 0)).float() for v in inputs.values()]


def main() -> None:
    torch.manual_seed(0)
    inputs, labels = events(256, seed=1)
    net = TwoBranches()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for step in range(48):
        batch = slice(64 * (step % 4), 64 * (step % 4 + 1))
        scores = net(*tensors({n: v[batch] for n, v in inputs.items()}))
        loss = nn.functional.cross_entropy(scores, torch.from_numpy(labels[batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    test, test_labels = events(128, seed=2)
    deployment = compile_module(net, test, target="loihi2", bits=8, classes=CLASSES)
    deployed = collect(fast.run(deployment, test))[deployment.integer.output][:, -1].argmax(1)
    floating = collect(real.run(deployment.real, test))[deployment.real.output][:, -1].argmax(1)
    found = verify.compare(deployment, Samples(test, test_labels, "test"), ["reference", "fast"])
    print(f"float accuracy {np.mean(floating == test_labels):.3f}, "
          f"deployed {np.mean(deployed == test_labels):.3f}, "
          f"agreement {np.mean(floating == deployed):.3f}")  # fmt: skip
    print(f"reference and fast, {found['spikes_compared']} messages compared, "
          f"equal: {found['equal']}")  # fmt: skip


if __name__ == "__main__":
    main()
