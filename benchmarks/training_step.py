"""A training step: Norse's neurons step by step, all steps as one operation, and no neurons at all.

    python benchmarks/training_step.py [--size demo|d64|d256] [--models add scmrl] [--repeats 9]
        [--threads 1] [--allocator kept|system] [--leave-out STEP ...] [--check]

Times forward, loss, backward and optimizer of one batch of random frames, every variant in a
process of its own, in turns. ``recovered`` is the share of the time between Norse's step taken T
times, usual tensor layout, and the floor: the same network with ReLU in place of every neuron, in
the layout that is quicker for it. With one thread it is CPU time, with more wall time. --allocator:
as ``neuroav train`` sets it, or as the system has it, for all variants. --leave-out: variants, as
all hold their memory at once. --check: compare spikes and gradients with Norse's instead.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn
from turns import measure, table

from neuroav.models import build_model
from neuroav.models.layers import Lif
from neuroav.models.segments import set_recompute
from neuroav.training.config import RunConfig, load_config
from neuroav.training.losses import training_loss

CLASSES = 10
FRAMES = {"audio": (1, 128, 128), "visual": (3, 128, 128)}
# the published network's stem and heads; Norse's reset, which gradients pass
PUBLISHED = {"model.stem": "deep", "scmrl.heads": "16", "model.detach_reset": "false"}


@dataclass(frozen=True)
class Size:
    """Batch and steps, input shapes and what the configuration changes."""

    batch: int
    steps: int
    shapes: dict[str, tuple[int, int, int]]
    overrides: dict[str, str]


SIZES = {
    "demo": Size(32, 8, {"audio": (8, 8, 8), "visual": (2, 16, 16)}, {}),
    "d64": Size(16, 4, FRAMES, {**PUBLISHED, "model.embed_dim": "64"}),
    "d256": Size(8, 4, FRAMES, {**PUBLISHED, "model.embed_dim": "256"}),
}


@dataclass(frozen=True)
class Variant:
    """neurons: 'norse', 'ours' or 'relu'."""

    neurons: str
    channels_last: bool = False
    recompute: bool = False
    precision: str = "float32"


NORSE = "Norse step by step"
FLOOR = ("ReLU", "ReLU, channels last")
VARIANTS = {
    NORSE: Variant("norse"),
    "Norse, channels last": Variant("norse", True),
    "steps as one": Variant("ours"),
    "steps as one, channels last": Variant("ours", True),
    "the same, recomputed": Variant("ours", True, recompute=True),
    "the same, bfloat16": Variant("ours", True, precision="bfloat16"),
    FLOOR[0]: Variant("relu"),
    FLOOR[1]: Variant("relu", True),
}


OPTIONAL = [n for n in VARIANTS if n not in (NORSE, *FLOOR)]


class NorseLif(Lif):
    """The neurons by Norse's own step."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stepwise(x)


def network_of(
    model: str, size: Size, variant: Variant
) -> tuple[RunConfig, nn.Module, list[torch.Tensor]]:
    """Return configuration, network and inputs, the same weights and inputs for every variant."""
    torch.manual_seed(0)
    overrides = {**size.overrides, "train.precision": variant.precision}
    config = load_config(model=model, overrides=overrides)
    network = build_model(config.model, size.shapes, CLASSES, config.scmrl).train()
    for name, module in list(network.named_modules()):
        if isinstance(module, Lif) and variant.neurons != "ours":
            norse = variant.neurons == "norse"
            network.set_submodule(name, NorseLif(module.parameters_) if norse else nn.ReLU())
    if variant.channels_last:
        network.to(memory_format=torch.channels_last)
    set_recompute(network, variant.recompute)
    inputs = [
        torch.poisson(torch.full((size.steps, size.batch, *size.shapes[n]), 0.3))
        for n in network.inputs
    ]
    return config, network, inputs


def step_of(model: str, size: str, variant: Variant):
    """Return a function that takes one training step."""
    config, network, inputs = network_of(model, SIZES[size], variant)
    optimizer = torch.optim.AdamW(network.parameters())
    labels = torch.arange(SIZES[size].batch) % CLASSES

    def step() -> None:
        _, loss = training_loss(network, inputs, labels, config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def spikes_and_gradients(model: str, size: Size, variant: Variant):
    """Return spikes (bool) by layer and gradients by parameter of one batch."""
    config, network, inputs = network_of(model, size, variant)
    spikes: dict[str, torch.Tensor] = {}
    for name, module in network.named_modules():
        if isinstance(module, Lif):
            module.register_forward_hook(
                lambda m, a, out, name=name: spikes.update({name: out.detach().bool()})
            )
    training_loss(network, inputs, torch.arange(size.batch) % CLASSES, config)[1].backward()
    return spikes, {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


def check(model: str, size: Size) -> str:
    """Return how ours and bfloat16 compare with Norse's steps in the same tensor layout."""
    spikes, gradients = spikes_and_gradients(model, size, Variant("norse", True))
    count, places = (sum(f(s) for s in spikes.values()) for f in (torch.sum, torch.numel))
    lines = [f"{model}: {len(spikes)} layers of neurons, spike rate {float(count) / places:.3f}"]
    for name in list(VARIANTS)[3:6]:
        ours, found = spikes_and_gradients(model, size, VARIANTS[name])
        differ = sum(int((ours[n] != spikes[n]).sum()) for n in spikes)
        off = [float((found[n] - g).norm() / g.norm()) for n, g in gradients.items() if g.any()]
        lines.append(
            f"  {name}: {differ} of {places} spikes differ ({differ / places:.2e}); gradients of a "
            f"parameter by {np.median(off):.1e} (median), {max(off):.1e} (most) of their norm"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="demo")
    parser.add_argument("--models", nargs="+", default=["add", "scmrl"])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--allocator", choices=("kept", "system"), default="kept")
    parser.add_argument("--leave-out", nargs="+", choices=OPTIONAL, default=[], metavar="STEP")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    for model in args.models:
        if args.check:
            print(check(model, SIZES[args.size]))
            continue
        builders = {
            n: partial(step_of, model, args.size, v)
            for n, v in VARIANTS.items()
            if n not in args.leave_out
        }
        keep = args.allocator == "kept"
        found = measure(builders, repeats=args.repeats, threads=args.threads, keep_memory=keep)
        print(
            f"\n{model}, size {args.size}, allocator {args.allocator}, {args.threads} thread(s)\n"
        )
        print(table(found, NORSE, FLOOR), flush=True)


if __name__ == "__main__":
    main()
