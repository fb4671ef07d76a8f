"""What exporting and simulating cost, against neurons, steps, batch and rate.

    python benchmarks/scaling.py --out DIR [--only size steps batch rate crema-d] [--repeats 5]

The networks are ``scmrl`` in its published form (deep stem, arXiv 2502.12488) with random weights
and a threshold of 0.35, whose norms were set on random input, so that neurons fire; rates are in
the tables. Every export
and every simulation is a process of its own with one thread, and its peak memory is that process's
(resident, so PyTorch and numba are in it). Times are medians with minimum and maximum. ``rate`` is
one layer, 64 to 64 channels, 3 x 3 kernels, 32 x 32 places, at a chosen share of messages: by whole
products, by events alone, and as the executor chooses. Writes tables (DIR/scaling.md), numbers
(scaling.json) and figures.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

SIZES = ((32, 32), (64, 32), (64, 64), (64, 128), (128, 128), (256, 128))  # D, rows = columns
# 28 steps and more need delays that Loihi 2 does not have
STEPS, BATCHES = (1, 2, 4, 8, 16, 24), (1, 2, 4, 8, 16, 32, 64)
RATES = (0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.2, 0.4)
MIDDLE = (64, 64)  # the network that steps and batch are varied on
CREMA_D = (256, 128)
SECTIONS = ("size", "steps", "batch", "rate")
Row = dict[str, Any]


def shapes(rows: int) -> dict[str, tuple[int, int, int]]:
    return {"audio": (1, rows, rows), "visual": (3, rows, rows)}


def spread(times: list[float]) -> dict[str, float]:
    return {"median_s": float(np.median(times)), "min_s": min(times), "max_s": max(times)}


def repeated(function: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Return the spread of a function's seconds, after a first call that is not counted."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return spread(times[1:])


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def warmed(width: int, rows: int, steps: int):
    """Return the network in evaluation mode, its norms set by random input."""
    import torch

    from neuroav.models import build_model
    from neuroav.training.config import ModelConfig, ScmrlConfig

    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = ModelConfig(name="scmrl", stem="deep", embed_dim=width, v_threshold=0.35)
    model = build_model(config, shapes(rows), 6, ScmrlConfig(mode="faithful", heads=16)).train()
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the mean over all passes
    with torch.no_grad():
        for _ in range(3):
            model(*(torch.poisson(torch.full((steps, 2, *s), 0.5), generator)
                    for s in shapes(rows).values()))  # fmt: skip
    return model.eval()


def counts(rows: int, steps: int, samples: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        n: rng.poisson(0.5, (samples, steps, *s)).astype(np.int32) for n, s in shapes(rows).items()
    }


def export(width: int, rows: int, steps: int, file: str) -> Row:
    """Export the network to ``file``; return seconds, bytes and peak memory."""
    from neuroav import navfile
    from neuroav_export import compile_module

    model, sample = warmed(width, rows, steps), counts(rows, steps, 2)
    before, start = peak_bytes(), time.perf_counter()
    deployment = compile_module(model, sample)
    compiled = time.perf_counter()
    navfile.save(deployment, file)
    saved = time.perf_counter()
    graph = deployment.integer
    return {
        "neurons": sum(p.neurons for p in graph.populations.values()),
        "synapses": deployment.synapses,
        "export_s": compiled - start,
        "save_s": saved - compiled,
        "file_bytes": Path(file).stat().st_size,
        "model_peak_bytes": before,
        "export_peak_bytes": peak_bytes(),
    }


def simulate(file: str, rows: int, steps: int, batch: int, repeats: int) -> Row:
    """Simulate ``batch`` samples of FILE.nav; return seconds, peak memory and the mean rate."""
    import torch

    from neuroav import integer as ig
    from neuroav import navfile
    from neuroav.sim import fast

    torch.set_num_threads(1)
    deployment, inputs = navfile.load(file), counts(rows, steps, batch)
    found = repeated(lambda: list(fast.run(deployment, inputs, batch=batch)), repeats)
    (trace,) = fast.run(deployment, inputs, batch=batch)
    lifs = [n for n, p in deployment.integer.populations.items() if isinstance(p, ig.IntLif)]
    fired = sum(int(trace.outputs[n].sum()) for n in lifs)
    return {
        **found,
        "batch": batch,
        "rate": fired / sum(trace.outputs[n].size for n in lifs),
        "peak_bytes": peak_bytes(),
    }


def layer_at(rate: float, repeats: int) -> Row:
    """Time the synapses of one layer at a share of messages, by each way."""
    import torch

    from neuroav import integer as ig
    from neuroav.sim.currents import Events, Messages, Synapses

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (64, 64, 3, 3))
    shape = (64, 32, 32)
    p = ig.IntConv2d("x", 0, weight, (1, 1), (1, 1), (1, 1), 1, 8, "mixed")
    sent = torch.from_numpy((rng.random((4, 8, *shape)) < rate).astype(np.float32))
    synapses = Synapses(p, shape, shape, "cpu")
    row: Row = {"rate": rate}
    for way, pay in (("whole", False), ("events", True), ("chosen", None)):
        patch = mock.patch.object(Events, "pay", Events.pay if pay is None else lambda *_: pay)  # noqa: B023
        with torch.inference_mode(), patch:
            row[way] = repeated(lambda: synapses.apply(Messages(sent, 1), torch.float32), repeats)
    return row


def apart(function: Callable[..., Row], *arguments: Any) -> Row:
    """Run in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def network(width: int, rows: int, steps: int, folder: Path) -> tuple[str, Row]:
    file = str(folder / f"scmrl-{width}-{rows}-{steps}.nav")
    return file, {"width": width, "rows": rows, "steps": steps} | apart(
        export, width, rows, steps, file
    )


def measure(only: list[str], folder: Path, repeats: int) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    sizes = [s for s in SIZES if "size" in only or s == CREMA_D] if "crema-d" in only else SIZES
    if "size" in only or "crema-d" in only:
        found["size"] = []
        for width, rows in sizes:
            file, row = network(width, rows, 4, folder)
            one = apart(simulate, file, rows, 4, 1, repeats)
            many = apart(simulate, file, rows, 4, 8, repeats)
            found["size"].append(row | {"one": one, "eight": many})
            Path(file).unlink()
    if "steps" in only:
        found["steps"] = []
        for steps in STEPS:
            file, row = network(*MIDDLE, steps, folder)
            found["steps"].append(row | apart(simulate, file, MIDDLE[1], steps, 4, repeats))
            Path(file).unlink()
    if "batch" in only:
        file, row = network(*MIDDLE, 4, folder)
        found["batch"] = [
            row | apart(simulate, file, MIDDLE[1], 4, batch, repeats) for batch in BATCHES
        ]
        Path(file).unlink()
    if "rate" in only:
        found["rate"] = [apart(layer_at, rate, repeats) for rate in RATES]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=(*SECTIONS, "crema-d"), default=SECTIONS)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found = measure(list(args.only), args.out, args.repeats)
    from scaling_tables import figure, tables

    text = tables(found)
    (args.out / "scaling.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (args.out / "scaling.md").write_text(text, encoding="utf-8")
    if set(SECTIONS) <= set(found):
        figure(found, args.out / "scaling.png")
    print(text)


if __name__ == "__main__":
    main()
