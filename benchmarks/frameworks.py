"""Networks of Norse, snnTorch, SpikingJelly and Sinabs, deployed and compared spike by spike.

Each is trained in its own framework on moving bars (eight directions, events of two polarities with
noise), exported by the framework's own NIR exporter (Norse: traced), deployed with 8-bit weights
and run as integers on samples that neither training nor calibration saw.

    python benchmarks/frameworks.py [--samples 256] [--epochs 18] [--only snnTorch] [--json FILE]

Prints a Markdown table: accuracy in the framework and deployed, share of equal predictions, share
of neurons-and-steps with equal output per layer, and of samples whose spikes are all equal. The
rows "on the grid" have weights, thresholds and decays that integers hold exactly.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from framework_networks import CASES, CLASSES, GRID_CASES, SHAPE, Case, Made
from torch import nn
from torch.nn import functional

from neuroav import integer as ig
from neuroav.deployment import Deployment
from neuroav.sim import fast
from neuroav.sim.trace import collect
from neuroav_export.pipeline import compile_module
from neuroav_export.readers.nir import import_nir

STEPS = 16
GRID_STEPS = 10  # a membrane that keeps half per step is exact in 6 bits below weights of 16s
GRID_BITS = {0.5: 5, 1.0: 8}  # width of weights by decay


@dataclass(frozen=True, eq=False)
class Data:
    """counts: events (samples, steps, 2, 12, 12), 0 or 1; labels: direction, 0 to 7."""

    counts: np.ndarray
    labels: np.ndarray

    @property
    def steps_first(self) -> torch.Tensor:
        return torch.from_numpy(self.counts).float().transpose(0, 1)


def made_data(samples: int, seed: int, steps: int = STEPS) -> Data:
    """Return bars that move in one of eight directions from a random place at a random speed.

    A place that the bar enters sends an ON event with probability 0.8, one that it leaves OFF;
    0.5 % of all other places send one too.
    """
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, samples)
    angle = 2 * np.pi * labels / CLASSES + rng.normal(0, 0.1, samples)
    rows, columns = np.mgrid[: SHAPE[1], : SHAPE[2]] - (SHAPE[1] - 1) / 2
    along = np.cos(angle)[:, None, None] * columns + np.sin(angle)[:, None, None] * rows
    start = rng.uniform(-9, -5, samples)
    speed = rng.uniform(0.4, 0.9, samples) * 20 / steps
    place = start[:, None] + speed[:, None] * np.arange(steps + 1)
    covered = np.abs(along[:, None] - place[:, :, None, None]) < 1.5
    edges = np.stack([covered[:, 1:] & ~covered[:, :-1], covered[:, :-1] & ~covered[:, 1:]], 2)
    chance = np.where(edges, 0.8, 0.005)
    return Data((rng.random(chance.shape) < chance).astype(np.int32), labels)


# --- training in the framework ---------------------------------------------------------------
def wake(made: Made, data: Data, rate: float = 0.08) -> None:
    """Scale initial weights, layer by layer, until neurons spike at about ``rate``."""
    x = data.steps_first[:, :32]
    layers = [m for m in made.module.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    layers = [m for m in layers if not _recurrent(made, m)]
    with torch.no_grad():
        for number, layer in enumerate(layers):
            for _ in range(12):
                found = float(made.spikes(x)[number].mean())
                if rate / 2 < found < 2 * rate:
                    break
                layer.weight *= 1.5 if found < rate else 0.75


def _recurrent(made: Made, layer: nn.Module) -> bool:
    return any(layer is inner for n in made.neurons for inner in n.modules())


def train(made: Made, data: Data, epochs: int, batch: int = 64, rate: float = 0.08) -> None:
    """Fit spike counts of the output to the labels (cross-entropy, Adam).

    rate: of learning, relative to the spread of a layer's first weights: frameworks whose membranes
    take a tenth of their input need weights ten times as large.
    """
    x, labels = data.steps_first, torch.from_numpy(data.labels)
    layers = [m for m in made.module.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    groups = [{"params": list(m.parameters()), "lr": rate * float(m.weight.std())} for m in layers]
    optimizer = torch.optim.Adam(groups)
    batches = epochs * -(-len(labels) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, batches)
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for picked in torch.randperm(len(labels), generator=order).split(batch):
            counts = made.spikes(x[:, picked])[-1].sum(0)
            loss = functional.cross_entropy(counts / 2, labels[picked])  # leads of some spikes
            loss = loss + 0.02 * (counts.mean() - 0.2 * len(x)) ** 2  # not silent, not saturated
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


# --- weights on the integer grid -------------------------------------------------------------
def on_grid(made: Made, ties: bool) -> int:
    """Put weights, biases and thresholds on the grid of one integer unit; return the bits it needs.

    The unit of a layer is a power of two, so that the framework's float32 sums are exact. Neurons
    that spike at the threshold too get a hair more of it, unless ``ties`` says that the deployed
    ones do the same.
    """
    bits = GRID_BITS[round(made.decay, 6)]
    step, most = 1 << (9 - bits), {5: 240, 8: 254}[bits]  # of a weight, in units
    # Without leak most weights are small: the compiler takes a larger unit, off the grid, where
    # that proves that a sum cannot overflow.
    room = {5: 0.6, 8: 4.8}[bits]
    layers = [m for m in made.module.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    hair = 2.0 ** (-8 if bits == 5 else -4) if made.inclusive and not ties else 0.0
    with torch.no_grad():
        for number, (layer, neuron) in enumerate(zip(layers, made.neurons, strict=True)):
            unit = 2.0 ** np.round(np.log2(room * float(layer.weight.abs().max()) / most))
            level = (layer.weight / (unit * step)).round().clamp(-(most // step), most // step)
            level.view(-1)[level.abs().argmax()] = most // step  # the largest sets the unit
            layer.weight.copy_(level * unit * step)
            assert layer.bias is not None
            layer.bias.copy_((layer.bias / (unit * step)).round() * unit * step)
            unit *= 1 - made.decay if made.decay_input else 1.0
            unit *= 0.25 if made.average and number and len(layers) > 2 else 1.0
            level_v = round(1 / (unit * 2 * step)) * 2 * step
            made.threshold(neuron, (min(max(level_v, 2 * step), 480) + hair) * unit)
    return bits


# --- deployment and comparison ---------------------------------------------------------------
def deploy(case: Case, made: Made, sample: Data, bits: int = 8, calibration: Any = "mse"):
    """Return the deployment of a trained network."""
    graph = made.graph(sample.steps_first[:, :8])
    if graph is None:
        return compile_module(
            made.module, {"x": sample.counts}, bits=bits, calibration=calibration,
            max_count={"x": 1},
        )  # fmt: skip
    name = next(n for n, node in graph.nodes.items() if type(node).__name__ == "Input")
    return import_nir(
        graph, sample.counts, bits=bits, calibration=calibration, max_count={name: 1},
        **case.options,
    )  # fmt: skip


@dataclass(frozen=True)
class Found:
    """A row of the table. equal_layers: share of equal outputs by layer; rates: of spikes.

    agreement_more: on other samples, where they were asked for.
    """

    case: str
    samples: int
    accuracy: float
    accuracy_deployed: float
    agreement: float
    equal_layers: tuple[float, ...]
    equal_samples: float
    rates: tuple[float, ...]
    agreement_more: float | None = None


def compare(case: Case, made: Made, deployment: Deployment, data: Data) -> Found:
    """Return what the network and its deployment do on the same samples."""
    with torch.no_grad():
        expected = [s.transpose(0, 1).numpy() for s in made.spikes(data.steps_first)]
    graph = deployment.integer
    neurons = {n: p for n, p in graph.populations.items() if isinstance(p, ig.IntLif)}
    names = [n for n in graph.order if n in neurons and neurons[n].projections]  # not a bias' own
    (source,) = (n for n in graph.order if isinstance(graph.populations[n], ig.IntInput))
    found = collect(fast.run(deployment, {source: data.counts}))
    sent = [found[n].reshape(e.shape) for n, e in zip(names, expected, strict=True)]
    answers = found[graph.output][:, -1].argmax(1)
    predictions = expected[-1].sum(1).argmax(1)
    alike = np.all(
        [(s == e).reshape(len(s), -1).all(1) for s, e in zip(sent, expected, strict=True)], axis=0
    )
    return Found(
        case.name,
        len(data.labels),
        float((predictions == data.labels).mean()),
        float((answers == data.labels).mean()),
        float((predictions == answers).mean()),
        tuple(float((s == e).mean()) for s, e in zip(sent, expected, strict=True)),
        float(alike.mean()),
        tuple(float(e.mean()) for e in expected),
    )


def trained(case: Case, epochs: int, train_samples: int = 1024) -> Made:
    """Return a case's network, trained; its weights are rounded to float16 for ``--save``."""
    torch.manual_seed(0)
    made, fitting = case.make(), made_data(train_samples, seed=1)
    wake(made, fitting)
    train(made, fitting, epochs)
    restore(made, weights(made))
    return made


def weights(made: Made) -> dict[str, np.ndarray]:
    """Return the weights and biases of all layers, float16."""
    named = made.module.named_parameters()
    found = {n: p.detach().numpy() for n, p in named if n.endswith(("weight", "bias"))}
    return {n: v.astype(np.float16) for n, v in found.items()}


def restore(made: Made, saved: Mapping[str, np.ndarray]) -> None:
    """Put saved weights and biases into a network."""
    parameters = dict(made.module.named_parameters())
    with torch.no_grad():
        for name, value in saved.items():
            parameters[name].copy_(torch.from_numpy(value))


def measure(case: Case, made: Made, samples: int = 256, more: int = 0) -> Found:
    """Return the row of a trained network: deployed, run on unseen samples, and on ``more``."""
    deployment = deploy(case, made, made_data(128, seed=1))
    found = compare(case, made, deployment, made_data(samples, seed=2))
    if not more:
        return found
    others = compare(case, made, deployment, made_data(more, seed=3))
    return replace(found, agreement_more=others.agreement)


def measure_on_grid(case: Case, samples: int = 256, epochs: int = 4) -> Found:
    """Return the row of a case whose numbers are put on the grid after a little training."""
    torch.manual_seed(0)
    made, fitting = case.make(), made_data(256, seed=1, steps=GRID_STEPS)
    wake(made, fitting)
    train(made, fitting, epochs)
    bits = on_grid(made, ties=bool(case.options.get("inclusive")))
    deployment = deploy(case, made, replace(fitting, counts=fitting.counts[:128]), bits, "max")
    return compare(case, made, deployment, made_data(samples, seed=2, steps=GRID_STEPS))


# --- table -----------------------------------------------------------------------------------
HEAD = (
    "| framework | network | accuracy | deployed | same answer | on {more} others | same output by "
    "layer | all spikes the same |\n|---|---|---|---|---|---|---|---|"
)


def row(case: Case, found: Found, grid: bool = False) -> str:
    layers = ", ".join(f"{100 * v:.2f}" for v in found.equal_layers)
    others = found.agreement_more
    more = "" if others is None else f"{100 * others:.1f} %"
    what = f"{case.network}, {case.neuron}" + (", on the grid" if grid else "")
    return (
        f"| {case.framework} {version(case.package)} | {what} | {found.accuracy:.3f} | "
        f"{found.accuracy_deployed:.3f} | {100 * found.agreement:.1f} % | {more} | {layers} % | "
        f"{100 * found.equal_samples:.1f} % |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--more", type=int, default=1024, help="other samples, for the answers")
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--rows", choices=("all", "trained", "grid"), default="all")
    parser.add_argument("--json", type=Path, help="all figures, one JSON object per line")
    parser.add_argument("--save", type=Path, help="the weights of the networks that tests use")
    args = parser.parse_args(arguments)
    print(HEAD.format(more=args.more), flush=True)
    lines, saved = [], {}
    for grid, cases in ((False, CASES), (True, GRID_CASES)):
        if args.rows == ("trained" if grid else "grid"):
            continue
        for case in (c for c in cases if args.only in c.name):
            if grid:
                found = measure_on_grid(case, args.samples)
            else:
                made = trained(case, args.epochs)
                found = measure(case, made, args.samples, args.more)
                if case.tested:
                    saved |= {f"{case.name}/{n}": v for n, v in weights(made).items()}
            print(row(case, found, grid), flush=True)
            lines.append(json.dumps(vars(found) | {"on_grid": grid}))
    if args.save:
        np.savez_compressed(args.save, **saved)
    if args.json:
        args.json.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
