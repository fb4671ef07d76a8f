"""Deploy a network of your own: write it, train it a little, compile, simulate, compare.

Audio and video of four made-up events, a two-branch network from the layers of
`neuroav.models.layers`, a plain PyTorch loop, then `neuroav.export` and what one can do with what
it returns. Run it with `python examples/own_network.py` (seconds, nothing to download).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import neuroav
from neuroav.models.layers import Add, Gain, Lif, LifParameters, PerStep, SpatialMean, TimeMean

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
    return {n: rng.poisson(np.broadcast_to(r, shape)) for n, r in rates.items()}, labels


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


def train(model: nn.Module) -> None:
    """Fit the module to 256 made-up events."""
    inputs, labels = events(256, seed=1)
    frames = [torch.from_numpy(v).float().transpose(0, 1) for v in inputs.values()]  # time first
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(48):
        batch = slice(64 * (step % 4), 64 * (step % 4 + 1))
        scores = model(*(f[:, batch] for f in frames))
        loss = nn.functional.cross_entropy(scores, torch.from_numpy(labels[batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    torch.manual_seed(0)
    model = TwoBranches()
    train(model)
    x, labels = events(128, seed=2)
    net = neuroav.export(model, x, target="loihi2", classes=CLASSES, labels=labels)
    deployed, floating = net.simulate(x, labels), net.float_scores(x).argmax(1)
    print(f"float accuracy {np.mean(floating == labels):.3f}, deployed {deployed.accuracy:.3f}, "
          f"agreement {np.mean(floating == deployed.predictions):.3f}")  # fmt: skip
    same = net.verify(x)
    print(f"reference and fast, {same.compared} messages compared, equal: {same.equal}")
    energy = net.energy(x).total
    print(f"energy per sample {energy.value / 1e6:.2g} uJ ({energy.low / 1e6:.2g} to "
          f"{energy.high / 1e6:.2g}), grade {energy.grade}: an estimate")  # fmt: skip


if __name__ == "__main__":
    main()
