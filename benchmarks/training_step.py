"""A training step with all steps of a layer as one operation, against Norse's step function.

    python benchmarks/training_step.py [--models add scmrl] [--repeats 9]

Times forward, loss, backward and optimizer of one batch of 32 (av-digits frames at random, D = 32,
8 steps), one thread, in turns: Norse's step taken 8 times per layer with the usual tensor layout;
the fused steps; the fused steps with channels last, as ``neuroav train`` has them. Prints medians
with minimum and maximum, and ratios to the first.
"""

from __future__ import annotations

import argparse
import time
from unittest import mock

import numpy as np
import torch

from neuroav.models import build_model
from neuroav.models.layers import Lif
from neuroav.training.config import load_config
from neuroav.training.losses import training_loss

SHAPES = {"audio": (8, 8, 8), "visual": (2, 16, 16)}
BATCH, STEPS, CLASSES = 32, 8, 10
KINDS = ("Norse step by step", "fused", "fused, channels last")


def step_of(model: str, kind: str):
    """Return a function that takes one training step."""
    torch.manual_seed(0)
    config = load_config(model=model)
    network = build_model(config.model, SHAPES, CLASSES, config.scmrl).train()
    if kind.endswith("channels last"):
        network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters())
    inputs = [torch.poisson(torch.full((STEPS, BATCH, *SHAPES[n]), 0.3)) for n in network.inputs]
    labels = torch.arange(BATCH) % CLASSES
    forward = Lif.stepwise if kind == KINDS[0] else Lif.forward

    def step() -> None:
        with mock.patch.object(Lif, "forward", forward):
            _, loss = training_loss(network, inputs, labels, config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["add", "scmrl"])
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | step | median ms | min to max | speed |\n|---|---|---|---|---|")
    for model in args.models:
        steps = {kind: step_of(model, kind) for kind in KINDS}
        for step in steps.values():
            step()  # compiles, allocates
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for _ in range(args.repeats):
            for kind, step in steps.items():
                start = time.perf_counter()
                step()
                found[kind].append(1e3 * (time.perf_counter() - start))
        first = np.median(found[KINDS[0]])
        for kind, times in found.items():
            median = np.median(times)
            print(f"| {model} | {kind} | {median:.0f} | {min(times):.0f} to {max(times):.0f} "
                  f"| {first / median:.2f} |")  # fmt: skip


if __name__ == "__main__":
    main()
