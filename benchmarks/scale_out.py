"""What more processes bring: simulation on workers of Ray, training under torchrun.

python benchmarks/scale_out.py simulate shipped:tiny.nav --copies 200 --workers 1 --workers 2
python benchmarks/scale_out.py train --data av-digits --epochs 3

``simulate`` repeats the probe of the file, runs it with the executor ``fast`` on one thread in this
process, then on so many workers, then once more while a worker is killed, and compares digests.
``train`` starts the same training by ``torchrun`` with one process and with two, and compares
seconds per epoch and losses. Figures depend on the machine and on what else it does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import click
import numpy as np

from neuroav import navfile
from neuroav.simulate import PROBE, Samples, load_samples, resolve_deployment, run_backend
from neuroav.studies import workers as workers_module
from neuroav.studies.chunks import pack, unpack
from neuroav.studies.cluster import Workers, cluster
from neuroav.studies.workers import run_on_workers


@click.group()
def main() -> None:
    """Measure what more processes bring."""


@main.command()
@click.argument("file")
@click.option("--copies", type=int, default=50, show_default=True, help="Of the probe.")
@click.option("--batch", type=int, default=64, show_default=True)
@click.option("--workers", "counts", type=int, multiple=True, default=(1, 2), show_default=True)
@click.option("--repeat", type=int, default=3, show_default=True, help="Runs; the median counts.")
def simulate(file: str, copies: int, batch: int, counts: tuple[int, ...], repeat: int) -> None:
    """Run FILE.nav in this process and on workers."""
    import torch

    torch.set_num_threads(1)
    path = resolve_deployment(file)
    deployment = navfile.load(path)
    probe = load_samples(deployment, split=PROBE, samples=None, cache_dir=Path())
    data = Samples(
        {n: np.concatenate([v] * copies) for n, v in probe.inputs.items()},
        np.tile(probe.labels, copies),
        PROBE,
    )
    rates, digest, killed = {}, "", ""
    for _ in range(repeat + 1):  # the first warms up
        outcome = run_backend(deployment, data, "fast", batch=batch)
        rates.setdefault("in process", []).append(len(data) / outcome.seconds)
        digest = outcome.digest
    for count in counts:
        with cluster(Workers(count)) as own:
            for _ in range(repeat + 1):
                outcome = run_on_workers(own, path, deployment, data, batch=batch)
                assert outcome.digest == digest
                rates.setdefault(f"{count} workers", []).append(len(data) / outcome.seconds)
            if count == max(counts):
                killed = _with_a_kill(own, path, deployment, data, batch, digest)
    base = float(np.median(rates["in process"][1:]))
    print(f"{file}: {len(data)} samples, {deployment.neurons} neurons, batch {batch}")
    for name, values in rates.items():
        rate = float(np.median(values[1:]))
        print(f"{name:12} {rate:10.0f} samples/s  ratio {rate / base:.2f}  {spread(values[1:])}")
    print(killed)
    _head_alone(deployment, data, batch)


def spread(values: list[float]) -> str:
    """Return the range of the measured values."""
    return f"({min(values):.0f} to {max(values):.0f})"


def _with_a_kill(own, path, deployment, data, batch: int, digest: str) -> str:
    """Run once more; the worker of the second chunk is killed in the midst of it. Return a line
    about it (in the block of a cluster stdout is stderr)."""
    with tempfile.TemporaryDirectory() as folder:
        real = workers_module.simulate_chunk
        workers_module.simulate_chunk = partial(
            killing, own=Path(folder) / "killed", second=batch, work=real
        )
        try:
            start = time.perf_counter()
            outcome = run_on_workers(own, path, deployment, data, batch=batch)
        finally:
            workers_module.simulate_chunk = real
        killed = (Path(folder) / "killed").exists()
    seconds = time.perf_counter() - start
    return f"one worker killed: {killed}, digest equal: {outcome.digest == digest}, {seconds:.2f} s"


def killing(chunk, *shared, own: Path, second: int, work):
    """Simulate a chunk; the first to do the one at sample ``second`` takes its worker with it."""
    if chunk.first == second and not own.exists():
        own.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return work(chunk, *shared)


def _head_alone(deployment, data, batch: int) -> None:
    """Print how many samples a second this process can take in, from however many workers."""
    part = {n: v[:batch] for n, v in data.inputs.items()}
    from neuroav.sim import fast
    from neuroav.sim.trace import SpikeDigest, Trace

    (trace,) = fast.run(deployment, part, batch=batch, threads=1)
    packed = {n: pack(v) for n, v in trace.outputs.items()}
    whole = sum(v.size for v in trace.outputs.values()) * 4 / trace.samples
    sent = sum(len(p.content) for p in packed.values()) / trace.samples
    for where, content, size in (("this machine", trace.outputs, whole), ("others", packed, sent)):
        digest, start, taken = SpikeDigest(deployment.integer), time.perf_counter(), 0
        while time.perf_counter() - start < 1:
            digest.add(Trace(0, {n: unpack(p) for n, p in content.items()}))
            taken += trace.samples
        rate = taken / (time.perf_counter() - start)
        print(f"from workers of {where} it takes in {rate:.0f} samples/s, of {size:.0f} bytes each")


@main.command()
@click.option("--data", default="av-digits", show_default=True)
@click.option("--model", default="add", show_default=True)
@click.option("--epochs", type=int, default=3, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE")
@click.option("--cache-dir", type=click.Path(path_type=Path), default=Path("runs/cache"))
def train(data: str, model: str, epochs: int, settings: tuple[str, ...], cache_dir: Path) -> None:
    """Train the same network in one process and in two."""
    found = {}
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
                       "--nproc-per-node", str(count), "-m", "neuroav", "train", "--model", model,
                       "--data", data, "--epochs", str(epochs), "--out", f"{folder}/run",
                       "--cache-dir", str(cache_dir), "--json",
                       *(f"--set={setting}" for setting in settings)]  # fmt: skip
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True,
                                  env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
            found[count] = json.loads(done.stdout.splitlines()[-1])["history"]
    seconds = {n: float(np.median([h["seconds"] for h in hs[1:] or hs])) for n, hs in found.items()}
    print(f"{model} on {data}: seconds per epoch {seconds[1]:.2f} alone, {seconds[2]:.2f} in two, "
          f"{seconds[1] / seconds[2]:.2f} times as fast")  # fmt: skip
    for one, two in zip(found[1], found[2], strict=True):
        differences = ", ".join(
            f"{key} {one[key]:.6f} and {two[key]:.6f} ({two[key] / one[key] - 1:+.1e})"
            for key in ("loss", "val_loss")
        )
        print(f"epoch {one['epoch']}: {differences}")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    main()
