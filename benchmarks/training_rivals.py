"""A training step of one stem and MLP with the neurons of other frameworks.

    python -m pip install --target RIVALS --no-deps spikingjelly snntorch loguru
    PYTHONPATH=RIVALS python benchmarks/training_rivals.py [--size d64|d256] [--repeats 9]

The network is ``visual`` of training_step.py's sizes: stem, MLP, token mean, head, the same weights
and inputs. Only the neurons differ: Norse's step T times; SpikingJelly's LIFNode in multi-step mode
(the same equations, it spikes at the threshold too); snnTorch's Leaky step by step (its input
is halved by us, and it resets before the next step rather than after its own); ours; ReLU. All
have the same surrogate, a sigmoid of slope 4. Every framework runs with either tensor layout. A
framework that is not installed is left out, and named.
"""

from __future__ import annotations

import argparse
from functools import partial
from importlib.util import find_spec

import torch
from torch import nn
from training_step import SIZES, Variant, network_of
from turns import measure, table

from neuroav.models.layers import Lif
from neuroav.training.losses import training_loss

RIVALS = {"SpikingJelly": "spikingjelly.activation_based", "snnTorch": "snntorch"}


class SnnTorch(nn.Module):
    """snnTorch's neuron over all steps: (T, B, ...) -> (T, B, ...)."""

    def __init__(self) -> None:
        super().__init__()
        import snntorch
        from snntorch import surrogate

        self.cell = snntorch.Leaky(
            beta=0.5, spike_grad=surrogate.sigmoid(slope=4), reset_mechanism="zero"
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        membrane, spikes = self.cell.init_leaky(), []
        for current in x:
            spike, membrane = self.cell(0.5 * current, membrane)
            spikes.append(spike)
        return torch.stack(spikes)


class SpikingJelly(nn.Module):
    """SpikingJelly's neuron over all steps: (T, B, ...) -> (T, B, ...)."""

    def __init__(self) -> None:
        super().__init__()
        from spikingjelly.activation_based import neuron, surrogate

        self.cell = neuron.LIFNode(
            tau=2.0, surrogate_function=surrogate.Sigmoid(alpha=4.0), step_mode="m"
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.cell.reset()
        return self.cell(x)


NEURONS = {"SpikingJelly": SpikingJelly, "snnTorch": SnnTorch}


def step_of(size: str, neurons: str, channels_last: bool):
    """Return a function that takes one training step."""
    config, network, inputs = network_of("visual", SIZES[size], Variant("ours"))
    if neurons in ("norse", "relu"):
        config, network, inputs = network_of("visual", SIZES[size], Variant(neurons))
    elif neurons in NEURONS:
        for name, module in list(network.named_modules()):
            if isinstance(module, Lif):
                network.set_submodule(name, NEURONS[neurons]())
    if channels_last:
        network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters())
    labels = torch.arange(SIZES[size].batch) % 10

    def step() -> None:
        _, loss = training_loss(network, inputs, labels, config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="d64")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    missing = [
        name for name, package in RIVALS.items() if find_spec(package.partition(".")[0]) is None
    ]
    for name in missing:
        print(f"{name} is not installed and left out; see the top of this file")
    shown = {"norse": "Norse", **{n: n for n in NEURONS if n not in missing}}
    shown |= {"ours": "steps as one", "relu": "ReLU"}
    builders = {}
    for neurons, name in shown.items():
        for last in (False, True):
            title = f"{name}, channels last" if last else name
            builders[title] = partial(step_of, args.size, neurons, last)
    found = measure(
        builders,
        repeats=args.repeats,
        threads=args.threads,
        keep_memory=True,
        imports=tuple(RIVALS[name] for name in RIVALS if name not in missing),
    )
    print(f"\nvisual, size {args.size}, {args.threads} thread(s)\n")
    print(table(found, "Norse", ("ReLU", "ReLU, channels last")))


if __name__ == "__main__":
    main()
