"""Weights of 8 to 2 bits: after training (three calibrations, two granularities) and aware of it.

    python benchmarks/quantization.py --runs runs/av-digits/add-0 ... --out runs/quantized

Takes trained float runs (`benchmarks/av_digits.py` leaves some), measures each deployed on the
whole test set, fine-tunes each with the deployed integers, and prints change of accuracy in points
and agreement per sample against the float run. `results.json` keeps every figure.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_dir

from neuroav.sim import fast
from neuroav.training.checkpoint import WEIGHTS
from neuroav.training.config import load_config
from neuroav.training.evaluate import load_run
from neuroav.training.loop import train
from neuroav_export import compile_module

FINE_TUNING = {"train.epochs": "8", "train.learning_rate": "1e-3", "train.warmup_epochs": "0.5"}


def predictions(run: Path, cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return float predictions and labels of the test set."""
    model, data, _ = load_run(run, cache_dir=cache)
    frames = data.split("test").frames()
    tensors = [
        torch.from_numpy(np.moveaxis(getattr(frames, n), 1, 0)).float() for n in model.inputs
    ]
    with torch.no_grad():
        return model(*tensors).argmax(1).numpy(), frames.labels


def deployed(run: Path, cache: Path, **options) -> np.ndarray:
    """Return the deployed network's predictions on the test set, by the fast executor."""
    model, data, _ = load_run(run, cache_dir=cache)
    frames = data.split("test").frames()
    inputs = {n: getattr(frames, n) for n in model.inputs}
    few = {n: v[:4] for n, v in inputs.items()}
    deployment = compile_module(model, few, **options)
    output = deployment.integer.output
    traces = fast.run(deployment, inputs)
    return np.concatenate([t.outputs[output][:, -1].argmax(1) for t in traces])


def aware_run(run: Path, out: Path, cache: Path, bits: int, per_channel: bool) -> Path:
    """Return a run fine-tuned from ``run`` with the deployed integers."""
    folder = out / f"{run.name}-{bits}{'c' if per_channel else ''}"
    overrides = {**FINE_TUNING, "quant.aware": "true", "quant.bits": str(bits),
                 "quant.per_channel": str(per_channel).lower()}  # fmt: skip
    config = load_config(file=run / "config.toml", overrides=overrides)
    if not (folder / "metrics.json").exists():
        train(config, folder, init_from=run / WEIGHTS, cache_dir=cache)
    return folder


def compare(found: np.ndarray, floating: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return (change of accuracy in points, agreement in percent)."""
    change = 100 * float((found == labels).mean() - (floating == labels).mean())
    return change, 100 * float((found == floating).mean())


def measure(run: Path, out: Path, cache: Path, bits: list[int]) -> list[dict]:
    """Return one row per setting of one run."""
    floating, labels = predictions(run, cache)
    rows = []
    for width in bits:
        for calibration in ("max", "percentile", "mse"):
            for per_channel in (False, True):
                found = deployed(run, cache, bits=width, calibration=calibration,
                                 per_channel=per_channel)  # fmt: skip
                kind = f"after, {calibration}{', per channel' if per_channel else ''}"
                rows.append((width, kind, *compare(found, floating, labels)))
        for per_channel in (False, True):
            aware = aware_run(run, out, cache, width, per_channel)
            found = deployed(aware, cache, bits=width, calibration="mse", per_channel=per_channel)
            kind = f"aware{', per channel' if per_channel else ''}"
            rows.append((width, kind, *compare(found, floating, labels)))
    accuracy = float((floating == labels).mean())
    return [{"run": str(run), "float": accuracy, "bits": b, "kind": k, "change": c, "agreement": a}
            for b, k, c, a in rows]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 6, 5, 4, 3, 2])
    parser.add_argument("--cache-dir", type=Path, default=Path(user_cache_dir("neuroav")))
    args = parser.parse_args()
    rows = [row for run in args.runs for row in measure(run, args.out, args.cache_dir, args.bits)]
    print(f"{len(args.runs)} runs, mean float accuracy {np.mean([r['float'] for r in rows]):.4f}")
    print("| bits | quantized | change, points | agreement, % |\n|---|---|---|---|")
    for key in dict.fromkeys((r["bits"], r["kind"]) for r in rows):
        own = [r for r in rows if (r["bits"], r["kind"]) == key]
        change = np.array([r["change"] for r in own])
        agreement = np.array([r["agreement"] for r in own])
        print(f"| {key[0]} | {key[1]} | {change.mean():+.2f} +- {change.std():.2f} "
              f"| {agreement.mean():.1f} |")  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
