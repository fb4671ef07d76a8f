"""A recurrent NIR network in integers: do its predictions stay those of forward Euler?

12 inputs -> 38 recurrent CubaLIF with a bias in the loop -> 7 CubaLIF, 256 steps of 0.1 ms: the
layout of the Braille network of Pedersen et al., Nat. Commun. 15, 8122 (2024), on made data. Events
of a class come at 12 rates; ``--spread`` says how far classes lie apart. Hidden weights are random,
the last layer is fitted to the hidden rates (multinomial regression, L-BFGS).

    python benchmarks/nir_recurrent.py [--samples 256] [--spread 0.06] [--bits 8] [--seed 0]

Prints one JSON object per number of bits, with one scale per layer and with one per neuron:
agreement with the real-valued network by forward Euler, and both accuracies.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from itertools import pairwise

import nir
import numpy as np
import torch

from neuroav.sim import fast, real
from neuroav.sim.trace import collect
from neuroav_export.readers.nir import import_nir, read_nir

DT, INPUTS, HIDDEN, CLASSES = 1e-4, 12, 38, 7
ALPHA, BETA = 0.85, 0.92  # of current and membrane per step
STEADY = (1 - ALPHA) * (1 - BETA)  # input at which a membrane settles at 1


@dataclass(frozen=True)
class Data:
    """counts: (samples, steps, 12); labels: (samples,)."""

    counts: np.ndarray
    labels: np.ndarray


def made_data(samples: int, steps: int, spread: float, seed: int) -> Data:
    """Return events at rates 0.12 - spread .. 0.12 + spread by class and input."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, samples)
    rates = np.random.default_rng(99).uniform(0.12 - spread, 0.12 + spread, (CLASSES, INPUTS))
    events = rng.random((samples, steps, INPUTS)) < rates[labels][:, None]
    return Data(events.astype(np.int32), labels)


def cuba_lif(size: int) -> nir.CubaLIF:
    """Return neurons in which an event adds its weight to the current, as snnTorch writes them."""
    tau_syn, tau_mem = DT / (1 - ALPHA), DT / (1 - BETA)
    values = {
        "tau_syn": tau_syn, "tau_mem": tau_mem, "r": tau_mem / DT, "w_in": tau_syn / DT,
        "v_leak": 0.0, "v_threshold": 1.0,
    }  # fmt: skip
    return nir.CubaLIF(**{n: np.full(size, v) for n, v in values.items()})


def network(last: tuple[np.ndarray, np.ndarray], seed: int) -> nir.NIRGraph:
    """Return the network with the weights and bias of its last layer."""
    rng = np.random.default_rng(seed)

    def layer(inputs: int, gain: float) -> nir.Affine:
        weight = gain * rng.normal(size=(HIDDEN, inputs))
        return nir.Affine(weight, 0.005 * rng.normal(size=HIDDEN))

    nodes = {
        "input": nir.Input(np.array([INPUTS])),
        "fc1": layer(INPUTS, 0.25),
        "lif1.lif": cuba_lif(HIDDEN),
        "lif1.w_rec": layer(HIDDEN, 0.05),
        "fc2": nir.Affine(*last),
        "lif2": cuba_lif(CLASSES),
        "output": nir.Output(np.array([CLASSES])),
    }
    path = ["input", "fc1", "lif1.lif", "fc2", "lif2", "output"]
    loop = [("lif1.lif", "lif1.w_rec"), ("lif1.w_rec", "lif1.lif")]
    edges = [*pairwise(path), *loop]
    return nir.NIRGraph(nodes, edges)


def euler(graph: nir.NIRGraph, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return every node's output of the real-valued network, by forward Euler."""
    traced = read_nir(graph, dt_s=DT, steps=counts.shape[1])
    return collect(real.run(traced, {"input": counts}))


def fitted(data: Data, seed: int) -> nir.NIRGraph:
    """Return the network whose last layer tells the classes of ``data`` apart."""
    blank = network((np.zeros((CLASSES, HIDDEN)), np.zeros(CLASSES)), seed)
    rates = torch.from_numpy(euler(blank, data.counts)["lif1.lif"].mean(1)).double()
    weight = torch.zeros(CLASSES, HIDDEN, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(CLASSES, dtype=torch.float64, requires_grad=True)
    search = torch.optim.LBFGS([weight, bias], max_iter=200)

    def loss():
        search.zero_grad()
        scores = rates @ weight.T + bias
        found = torch.nn.functional.cross_entropy(scores, torch.from_numpy(data.labels))
        found = found + 2e-4 * (weight**2).sum()
        found.backward()
        return found

    search.step(loss)
    w, b = weight.detach().numpy(), bias.detach().numpy()
    scores = rates.numpy() @ w.T + b
    gain = 4 * STEADY / scores.std()  # scores into the range in which the neurons' rates follow
    return network((w * gain, (b - scores.mean()) * gain + 2 * STEADY), seed)


def measure(
    samples: int,
    steps: int = 256,
    spread: float = 0.06,
    bits: int = 8,
    seed: int = 0,
    train_samples: int = 384,
    per_channel: bool = True,
) -> dict[str, float]:
    """Return agreement and accuracies; fitted and calibrated on other samples."""
    train = made_data(train_samples, steps, spread, seed + 1)
    test = made_data(samples, steps, spread, seed + 2)
    graph = fitted(train, seed)
    found = euler(graph, test.counts)
    expected = found["scores"][:, 0].argmax(1)
    deployment = import_nir(
        graph,
        train.counts[:128],
        dt_s=DT,
        bits=bits,
        per_channel=per_channel,
        max_count={"input": 1},
    )
    integer = collect(fast.run(deployment, {"input": test.counts}))
    predicted = integer[deployment.integer.output][:, -1].argmax(1)
    ordered = np.sort(found["scores"][:, 0], 1) * steps
    return {
        "bits": bits,
        "per_channel": per_channel,
        "samples": samples,
        "steps": steps,
        "spread": spread,
        "agreement": float((predicted == expected).mean()),
        "accuracy_real": float((expected == test.labels).mean()),
        "accuracy_integer": float((predicted == test.labels).mean()),
        "hidden_rate": float(found["lif1.lif"].mean()),
        "smallest_lead_spikes": float((ordered[:, -1] - ordered[:, -2]).min()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--steps", type=int, default=256)
    parser.add_argument("--spread", type=float, default=0.06)
    parser.add_argument("--bits", type=int, nargs="+", default=[8])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for bits in args.bits:
        for per_channel in (False, True):
            found = measure(
                args.samples, args.steps, args.spread, bits, args.seed, per_channel=per_channel
            )
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
