"""Deploy a plain Norse network: its own cells, its own loop over steps, nothing of ours in it.

A recurrent network is trained a little to tell which of two sensors was first, then compiled, run
as integers and compared with the network itself. Run it with `python examples/norse_network.py`
(seconds, nothing to download).
"""

from __future__ import annotations

import norse.torch as norse
import numpy as np
import torch
from torch import nn

import neuroav

CLASSES = ("left first", "right first", "together")
STEPS, WIDTH = 16, 8


def events(count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return events (count, STEPS, 2 * WIDTH) of two sensors, and labels (count,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    rates = np.full((count, STEPS, 2, WIDTH), 0.03)
    starts = np.array([[2, 9], [9, 2], [5, 5]])[labels]
    for side in (0, 1):
        for late in range(4):
            rates[np.arange(count), starts[:, side] + late, side] = 0.7
    return {"x": (rng.random(rates.shape) < rates).reshape(count, STEPS, -1).astype(int)}, labels


class First(nn.Module):
    """Linear - recurrent LIF - linear - leaky integrator, whose last membrane is the answer."""

    def __init__(self) -> None:
        super().__init__()
        neurons = norse.LIFParameters(
            tau_mem_inv=torch.tensor(250.0), tau_syn_inv=torch.tensor(250.0), v_th=torch.tensor(0.5)
        )
        self.recurrent = norse.LIFRecurrentCell(2 * WIDTH, 24, p=neurons)
        self.fc = nn.Linear(24, 16)
        self.lif = norse.LIFBoxCell()
        self.head = nn.Linear(16, len(CLASSES))
        self.out = norse.LICell(norse.LIParameters(tau_mem_inv=torch.tensor(100.0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s1 = s2 = s3 = None
        for t in range(len(x)):
            z, s1 = self.recurrent(x[t], s1)
            z, s2 = self.lif(4 * self.fc(z), s2)
            v, s3 = self.out(self.head(z), s3)
        return v


def train(model: nn.Module) -> None:
    """Fit the network to 512 made-up events."""
    inputs, labels = events(512, seed=1)
    x = torch.from_numpy(inputs["x"]).float().transpose(0, 1)  # steps first
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for step in range(60):
        batch = slice(128 * (step % 4), 128 * (step % 4 + 1))
        loss = nn.functional.cross_entropy(model(x[:, batch]), torch.from_numpy(labels[batch]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def main() -> None:
    torch.manual_seed(0)
    model = First()
    train(model)
    x, labels = events(128, seed=2)
    net = neuroav.export(model, x, target="loihi2", classes=CLASSES, labels=labels)
    deployed, floating = net.simulate(x, labels), net.float_scores(x).argmax(1)
    print(f"float accuracy {np.mean(floating == labels):.3f}, deployed {deployed.accuracy:.3f}, "
          f"agreement {np.mean(floating == deployed.predictions):.3f}")  # fmt: skip
    print(f"reference = fast: {net.verify(x).equal}")


if __name__ == "__main__":
    main()
