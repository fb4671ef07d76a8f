"""Accuracy of the baseline and its twins over seeds: float, deployed, and with one input permuted.

    python benchmarks/av_digits.py --out runs/av-digits [--preset default] [--seeds 0 1 2]

Trains what is not trained yet (a run folder that exists is reused or resumed), exports `add` at 8
bits, runs the `fast` executor on the whole test set, and prints one table. `results.json` keeps
every figure.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_dir

from neuroav import navfile
from neuroav.simulate import load_samples, run_backend
from neuroav.training.config import load_config
from neuroav.training.evaluate import load_run, score
from neuroav.training.loop import train
from neuroav_export import export_run

MODELS = ("audio", "visual", "add")


def train_once(folder: Path, model: str, seed: int, preset: str, cache: Path, overrides) -> Path:
    """Return the run folder of one model and seed, trained to its last epoch."""
    run = folder / f"{model}-{seed}"
    config = load_config(
        model=model,
        data="av-digits",
        overrides={**overrides, "train.seed": str(seed), "data.preset": preset},
    )
    if not (run / "metrics.json").exists():
        train(config, run, resume=(run / "last.ckpt").exists(), cache_dir=cache)
    return run


def permuted(run: Path, cache: Path, modality: str, seed: int) -> float:
    """Return the float test accuracy with one modality's samples in random order."""
    model, data, _ = load_run(run, cache_dir=cache)
    frames = data.split("test").frames()
    order = np.random.default_rng(seed).permutation(len(frames.labels))
    swapped = type(frames)(**{**vars(frames), modality: getattr(frames, modality)[order]})
    return score(model, swapped, len(data.classes))["accuracy"]


def deployed(run: Path, cache: Path, float_accuracy: float) -> dict[str, float]:
    """Return accuracy and agreement of the exported network on the whole test set."""
    export_run(run, out=run / "net.nav", cache_dir=cache)
    deployment = navfile.load(run / "net.nav")
    samples = load_samples(deployment, split="test", samples=None, cache_dir=cache)
    outcome = run_backend(deployment, samples, "fast")
    model, data, _ = load_run(run, cache_dir=cache)
    frames = data.split("test").frames()
    tensors = [
        torch.from_numpy(np.moveaxis(getattr(frames, n), 1, 0)).float() for n in model.inputs
    ]
    with torch.no_grad():
        predictions = model(*tensors).argmax(1).numpy()
    accuracy = float((outcome.predictions == samples.labels).mean())
    return {
        "deployed": accuracy,
        "loss_points": 100 * (float_accuracy - accuracy),
        "agreement": float((outcome.predictions == predictions).mean()),
    }


def measure(folder: Path, seed: int, preset: str, cache: Path, overrides) -> dict[str, float]:
    """Return every figure of one seed."""
    row: dict[str, float] = {"seed": seed}
    for name in MODELS:
        run = train_once(folder, name, seed, preset, cache, overrides)
        model, data, _ = load_run(run, cache_dir=cache)
        row[name] = score(model, data.split("test").frames(), len(data.classes))["accuracy"]
    run = folder / f"add-{seed}"
    row |= {f"{m} permuted": permuted(run, cache, m, seed) for m in ("audio", "visual")}
    return row | deployed(run, cache, row["add"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cache-dir", type=Path, default=Path(user_cache_dir("neuroav")))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    overrides = dict(item.split("=", 1) for item in args.set)
    rows = []
    for seed in args.seeds:
        rows.append(measure(args.out, seed, args.preset, args.cache_dir, overrides))
        print(json.dumps(rows[-1]), flush=True)
    keys = [k for k in rows[0] if k != "seed"]
    table = {k: (np.mean([r[k] for r in rows]), np.std([r[k] for r in rows])) for k in keys}
    print(f"\nav-digits {args.preset}, {len(rows)} seeds: mean and standard deviation")
    for key, (mean, spread) in table.items():
        print(f"{key:16} {mean:8.4f} +- {spread:.4f}")
    (args.out / "results.json").write_text(json.dumps({"preset": args.preset, "rows": rows}))


if __name__ == "__main__":
    main()
