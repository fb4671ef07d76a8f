"""What a step and a sample cost on Lava, by engine and by copies of the network side by side.

    python benchmarks/lava_engines.py FILE.nav [--samples 32] [--repeats 3] [--batches 1 8 32]

In turns, medians: seconds until the first step is done, milliseconds per step after that, and per
sample running and with everything; the user and system time of all processes of a run per sample,
which says more on a busy machine. The digests of all runs must be equal.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from platformdirs import user_cache_dir

from neuroav import navfile
from neuroav.sim import lava
from neuroav.sim.lava import client
from neuroav.sim.lava.copies import side_by_side
from neuroav.sim.trace import SpikeDigest
from neuroav.simulate import load_samples, resolve_deployment


class Cost(NamedTuple):
    start_s: float
    step_ms: float
    running_ms: float
    whole_ms: float
    cpu_ms: float
    digest: str


def measure(deployment, inputs: dict, engine: str, batch: int) -> Cost:
    """Run once; marks are taken whenever the caller looks at the number of finished steps."""
    graph = deployment.integer
    count = len(next(iter(inputs.values())))
    marks: list[tuple[float, int]] = []
    start, used = time.perf_counter(), _cpu_s()
    watch = client._sample_progress

    def look(*arguments):
        def report(folder) -> None:
            done = folder.job(0).steps_done()
            if done and (not marks or done > marks[-1][1]):
                marks.append((time.perf_counter() - start, done))

        return report

    client._sample_progress = look
    digest = SpikeDigest(graph)
    try:
        for trace in lava.run(deployment, inputs, engine=engine, batch=batch):
            digest.add(trace)
    finally:
        client._sample_progress = watch
    whole = time.perf_counter() - start
    (first, begun), (last, done) = marks[0], marks[-1]
    step = (last - first) / max(1, done - begun)
    frames = -(-count // side_by_side(graph, count, "matmul", batch)) * graph.steps
    cpu = _cpu_s() - used
    return Cost(
        first, 1e3 * step, 1e3 * step * frames / count, 1e3 * whole / count, 1e3 * cpu / count,
        digest.hexdigest(),
    )  # fmt: skip


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    args = parser.parse_args()
    deployment = navfile.load(resolve_deployment(args.file))
    data = load_samples(
        deployment, split=None, samples=args.samples, cache_dir=Path(user_cache_dir("neuroav"))
    )
    jobs = [(engine, batch) for engine in ("runtime", "inline") for batch in args.batches]
    costs: dict[tuple[str, int], list[Cost]] = {job: [] for job in jobs}
    for _ in range(args.repeats):
        for job in jobs:
            costs[job].append(measure(deployment, data.inputs, *job))
    digests = {c.digest for found in costs.values() for c in found}
    print(f"{len(data)} samples, {args.repeats} runs each, digests "
          f"{'equal' if len(digests) == 1 else 'DIFFER'}")  # fmt: skip
    head = ("engine", "side by side", "first step after, s", "ms per step",
            "ms per sample, running", "with start and end", "CPU ms per sample")  # fmt: skip
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for (engine, batch), found in costs.items():
        start, *rest = (float(np.median(column)) for column in list(zip(*found, strict=True))[:5])
        cells = [f"{start:.1f}", *(f"{value:.1f}" for value in rest)]
        print(f"| {engine} | {batch} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
