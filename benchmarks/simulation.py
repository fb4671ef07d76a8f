"""The batched integer executor against Lava, against the float network, and against the machine.

    python benchmarks/simulation.py RUN FILE.nav [--samples 256] [--lava 16] [--repeats 7]
                                    [--json OUT]

RUN is the run folder that FILE.nav was exported from. All in one process and one run, in turns:
``fast`` at several batch sizes; the float network in PyTorch with plain Norse cells, step by step,
and with all steps of a layer as one operation, at the same batch. One thread each, then all cores.
Lava runs once in each of three ways (its processes share all cores), on the first samples, start-up
left out and included. Medians with minimum and maximum, and ratios.

The machine's limit: for every layer the larger of the bytes it must move (messages read and
written once, sums written and read once, float32) over the measured copy bandwidth, and its
multiply-accumulates over the measured rate of a float32 matrix product, of one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from common import CACHE
from machine import cores, rates

from neuroav import integer as ig
from neuroav import navfile
from neuroav.models.layers import Lif
from neuroav.sim import fast, lava
from neuroav.sim.trace import SpikeDigest
from neuroav.simulate import load_samples
from neuroav.training.evaluate import load_run

BATCHES = (16, 32, 64, 128, 256)
FORWARDS = {"float, Norse cells": Lif.stepwise, "float, fused": Lif.forward}
Found = dict[str, Any]


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
    """Return the seconds per sample that one core of this machine needs at least."""
    total = 0.0
    for name in graph.order:
        pop = graph.populations[name]
        read = sum(graph.populations[p.source].neurons for p in pop.projections)
        moved = 4 * graph.steps * (read + 3 * pop.neurons)
        total += max(moved / bandwidth, graph.steps * macs(graph, name) / rate)
    return total


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def jobs(deployment, model, inputs, batches) -> dict[str, Callable[[], None]]:
    """Return what is timed, by name; every job takes all samples once."""
    count = len(next(iter(inputs.values())))

    def integers(batch: int, workers: int) -> None:
        with threads(workers):
            for _ in fast.run(deployment, inputs, batch=batch):
                pass

    def floats(batch: int, workers: int, forward) -> None:
        with threads(workers), torch.no_grad(), mock.patch.object(Lif, "forward", forward):
            for first in range(0, count, batch):
                part = [inputs[n][first : first + batch] for n in model.inputs]
                model(*(torch.from_numpy(np.moveaxis(v, 1, 0).astype(np.float32)) for v in part))

    found: dict[str, Callable[[], None]] = {}
    for workers in dict.fromkeys((1, cores())):
        for batch in batches:
            end = f", batch {batch}" + (f", {workers} threads" if workers > 1 else "")
            found[f"fast{end}"] = lambda b=batch, w=workers: integers(b, w)
            for name, forward in FORWARDS.items():
                found[name + end] = lambda b=batch, w=workers, f=forward: floats(b, w, f)
    return found


def timed(todo: dict[str, Callable[[], None]], repeats: int, samples: int) -> Found:
    """Return the spread of every job's seconds per sample, all jobs in turns."""
    times: dict[str, list[float]] = {name: [] for name in todo}
    for job in todo.values():
        job()
    for _ in range(repeats):
        for name, job in todo.items():
            start = time.perf_counter()
            job()
            times[name].append((time.perf_counter() - start) / samples)
    return {
        name: {"median_s": float(np.median(v)), "min_s": min(v), "max_s": max(v)}
        for name, v in times.items()
    }


def ratios(times: Found) -> Found:
    """Return the best batch of ``fast``, by threads, over the float forward there and at its own
    best batch."""
    found = {}
    for end in ("", f", {cores()} threads") if cores() > 1 else ("",):
        of = {n: v["median_s"] for n, v in times.items() if n.endswith("threads") == bool(end)}
        best = min((n for n in of if n.startswith("fast")), key=of.__getitem__)
        found[best] = {"seconds": of[best]}
        for name in FORWARDS:
            own = min(v for n, v in of.items() if n.startswith(name))
            found[best][f"of {name}"] = of[best] / of[best.replace("fast", name)]
            found[best][f"of {name}, its best batch"] = of[best] / own
    return found


LAVA = {  # how the network runs in Lava's runtime
    "Lava, its own Conv and delays, one sample at a time": {"conv": "stock", "batch": 1},
    "Lava, our Conv and delays, one sample at a time": {"batch": 1},
    "Lava, our Conv and delays, 16 samples side by side": {"batch": 16},
}


def against_lava(deployment, inputs, count: int) -> Found:
    """Return Lava's seconds per sample on the first samples, and whether the digests are equal.

    running: between the first and the last report of finished samples, null where all are reported
    at once.
    """
    found: Found = {"samples": count}
    inputs = {n: v[:count] for n, v in inputs.items()}
    quick = digest(deployment.integer, fast.run(deployment, inputs))
    for name, options in LAVA.items():
        marks: list[tuple[float, int]] = []
        start = time.perf_counter()
        traces = lava.run(deployment, inputs, **options, progress=lambda done, _, m=marks: m.append(
            (time.perf_counter(), done)))  # fmt: skip
        equal = digest(deployment.integer, traces) == quick
        whole = (time.perf_counter() - start) / count
        (first, done), (last, end) = marks[0], marks[-1]
        found[name] = {
            "running_s": (last - first) / (end - done) if end > done else None,
            "whole_s": whole,
            "digests_equal": equal,
        }
    return found


def measure(run: Path, file: Path, samples: int, with_lava: int, repeats: int) -> Found:
    deployment = navfile.load(file)
    data = load_samples(deployment, split="test", samples=samples, cache_dir=CACHE)
    model, _, _ = load_run(run, cache_dir=CACHE)
    batches = [b for b in BATCHES if b <= len(data)]
    times = timed(jobs(deployment, model.eval(), data.inputs, batches), repeats, len(data))
    bandwidth, rate = rates()
    graph = deployment.integer
    return {
        "samples": len(data),
        "populations": len(graph.order),
        "neurons": sum(p.neurons for p in graph.populations.values()),
        "copy_bytes_per_s": bandwidth,
        "macs_per_s": rate,
        "limit_s": limit_s(graph, bandwidth, rate),
        "times": times,
        "ratios": ratios(times),
        "lava": against_lava(deployment, data.inputs, with_lava) if with_lava else None,
    }


def text(found: Found) -> str:
    """Return the tables as Markdown."""
    least = found["limit_s"]
    lines = [
        f"{found['samples']} samples, {found['populations']} populations, {found['neurons']:,} "
        f"neurons; one core copies {found['copy_bytes_per_s'] / 1e9:.1f} GB/s and multiplies "
        f"{found['macs_per_s'] / 1e9:.1f} GMAC/s: {1e3 * least:.3f} ms per sample at least",
        "",
        "| what | ms per sample | min to max | limit / this |",
        "|---|---|---|---|",
    ]
    for name, times in found["times"].items():
        middle, low, high = (1e3 * times[k] for k in ("median_s", "min_s", "max_s"))
        share = f"{1e3 * least / middle:.2f}" if "threads" not in name else ""
        lines.append(f"| {name} | {middle:.3f} | {low:.3f} to {high:.3f} | {share} |")
    lines.append("")
    for best, values in found["ratios"].items():
        parts = ", ".join(f"{v:.2f} {k}" for k, v in values.items() if k != "seconds")
        lines.append(f"- {best}: {parts}")
    return "\n".join([*lines, "", *lava_lines(found)]) + "\n"


def lava_lines(found: Found) -> list[str]:
    """Return the table of Lava's times, and how many times as fast the best of ``fast`` is."""
    if not found["lava"]:
        return []
    best = {name: values["seconds"] for name, values in found["ratios"].items()}
    head = ["", f"ms per sample ({found['lava']['samples']} samples)"]
    head += [f"times slower than {name}" for name in best]
    lines = ["| " + " | ".join(head) + " | digests |", "|---" * (len(head) + 1) + "|"]
    for name in LAVA:
        one = found["lava"][name]
        equal = "equal" if one["digests_equal"] else "DIFFER"
        for key, what in (("running_s", "running"), ("whole_s", "with start-up")):
            if one[key] is not None:
                slower = (f"{one[key] / seconds:.0f}" for seconds in best.values())
                cells = (f"{name}, {what}", f"{1e3 * one[key]:.0f}", *slower, equal)
                lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--lava", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = measure(args.run, args.file, args.samples, args.lava, args.repeats)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(text(found))


if __name__ == "__main__":
    main()
