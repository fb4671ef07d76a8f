"""The batched integer executor against Lava, against the float network, and against the machine.

    python benchmarks/simulation.py RUN FILE.nav [--samples 256] [--lava 16] [--repeats 7]

RUN is the run folder that FILE.nav was exported from. All in one process and one run, one thread,
in turns: ``fast`` at several batch sizes; the float network in PyTorch with plain Norse cells, step
by step, and with all steps of a layer as one operation, at the same batch. Lava runs once, on the
first samples, start-up left out and included. Medians with minimum and maximum, and ratios.

The machine's limit: for every layer the larger of the bytes it must move (messages read and
written once, sums written and read once, float32) over the measured copy bandwidth, and its
multiply-accumulates over the measured rate of a float32 matrix product.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from common import CACHE

from neuroav import integer as ig
from neuroav import navfile
from neuroav.models.layers import Lif
from neuroav.sim import fast, lava
from neuroav.sim.trace import SpikeDigest
from neuroav.simulate import load_samples
from neuroav.training.evaluate import load_run

BATCHES = (16, 32, 64, 128, 256)


def digest(graph: ig.IntGraph, traces) -> str:
    found = SpikeDigest(graph)
    for trace in traces:
        found.add(trace)
    return found.hexdigest()


def macs(graph: ig.IntGraph, name: str) -> int:
    """Return multiply-accumulates of a population's synapses per step, dense."""
    pop, count = graph.populations[name], 0
    for p in pop.projections:
        if isinstance(p, ig.IntConv2d):
            count += p.weight.size * int(np.prod(pop.shape[1:]))
        elif isinstance(p, ig.IntDense):
            count += p.weight.size
        elif isinstance(pop, ig.ATTENTION_CLASSES) and p.port:
            count += pop.neurons * min(pop.head_channels, pop.summed(graph.steps))
    return count


def limit_s(graph: ig.IntGraph, bandwidth: float, rate: float) -> float:
    """Return the seconds per sample that this machine needs at least."""
    total = 0.0
    for name in graph.order:
        pop = graph.populations[name]
        read = sum(graph.populations[p.source].neurons for p in pop.projections)
        moved = 4 * graph.steps * (read + 3 * pop.neurons)
        total += max(moved / bandwidth, graph.steps * macs(graph, name) / rate)
    return total


def machine() -> tuple[float, float]:
    """Return bytes per second of a copy (read and write) and multiply-accumulates per second."""
    a, b = np.ones(1 << 26, np.float32), np.empty(1 << 26, np.float32)
    x = torch.rand(1024, 1024)
    copies, products = [], []
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(b, a)
        copies.append(2 * a.nbytes / (time.perf_counter() - start))
        start = time.perf_counter()
        x @ x
        products.append(1024**3 / (time.perf_counter() - start))
    return max(copies), max(products)


def timed(function) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--lava", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    deployment = navfile.load(args.file)
    graph = deployment.integer
    data = load_samples(deployment, split="test", samples=args.samples, cache_dir=CACHE)
    model, _, _ = load_run(args.run, cache_dir=CACHE)
    model.eval()
    count = len(data)

    def integers(batch: int) -> None:
        for _ in fast.run(deployment, data.inputs, batch=batch):
            pass

    def floats(batch: int, forward) -> None:
        with torch.no_grad(), mock.patch.object(Lif, "forward", forward):
            for first in range(0, count, batch):
                part = [data.inputs[n][first : first + batch] for n in model.inputs]
                model(*(torch.from_numpy(np.moveaxis(v, 1, 0).astype(np.float32)) for v in part))

    jobs = {f"fast, batch {b}": (lambda b=b: integers(b)) for b in BATCHES if b <= count}
    jobs |= {f"float, Norse cells, batch {b}": (lambda b=b: floats(b, Lif.stepwise))
             for b in BATCHES if b <= count}  # fmt: skip
    jobs |= {f"float, fused, batch {b}": (lambda b=b: floats(b, Lif.forward))
             for b in BATCHES if b <= count}  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    for _ in range(args.repeats):
        for name, job in jobs.items():
            times[name].append(timed(job) / count)
    medians = {name: float(np.median(v)) for name, v in times.items()}
    bandwidth, rate = machine()
    least = limit_s(graph, bandwidth, rate)
    print(
        f"{count} samples, {len(graph.order)} populations; copy {bandwidth / 1e9:.1f} GB/s, matrix "
        f"product {rate / 1e9:.1f} GMAC/s, limit {1e3 * least:.3f} ms per sample"
    )
    print("| what | ms per sample | min to max | share of the limit |\n|---|---|---|---|")
    for name, found in times.items():
        print(f"| {name} | {1e3 * medians[name]:.3f} | {1e3 * min(found):.3f} to "
              f"{1e3 * max(found):.3f} | {least / medians[name]:.2f} |")  # fmt: skip
    best = min((n for n in medians if n.startswith("fast")), key=medians.__getitem__)
    cells = medians[best.replace("fast", "float, Norse cells")]
    fused = medians[best.replace("fast", "float, fused")]
    print(f"{best}: {medians[best] / cells:.2f} of the float forward with Norse cells, "
          f"{medians[best] / fused:.2f} of the fused one")  # fmt: skip
    if args.lava:
        compare_lava(deployment, data, args.lava, medians[best])


def compare_lava(deployment, data, count: int, fast_s: float) -> None:
    """Print Lava's time per sample on the first samples, and whether the digests are equal."""
    inputs = {n: v[:count] for n, v in data.inputs.items()}
    marks: list[tuple[float, int]] = []
    start = time.perf_counter()
    traces = lava.run(deployment, inputs, progress=lambda done, _: marks.append(
        (time.perf_counter(), done)))  # fmt: skip
    slow = digest(deployment.integer, traces)
    whole = (time.perf_counter() - start) / count
    (first, done), (last, end) = marks[0], marks[-1]
    running = (last - first) / max(end - done, 1)
    quick = digest(deployment.integer, fast.run(deployment, inputs))
    print(
        f"lava, {count} samples: {1e3 * running:.0f} ms per sample running, {1e3 * whole:.0f} with "
        f"start-up; fast is {running / fast_s:.0f} and {whole / fast_s:.0f} times as fast; digests "
        f"{'equal' if slow == quick else 'DIFFER'}"
    )


if __name__ == "__main__":
    main()
