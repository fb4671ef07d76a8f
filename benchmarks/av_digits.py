"""Accuracy of the baseline and its twins over seeds: float, deployed, and with one input permuted.

    python benchmarks/av_digits.py --out runs/av-digits [--preset default] [--seeds 0 1 2]

Trains what is not trained yet (a run folder that exists is reused or resumed), deploys `add` at 8
bits, runs the `fast` executor on the whole test set, and prints one table. `results.json` keeps
every figure.
"""

from __future__ import annotations

import json
from pathlib import Path

import common
import numpy as np

from neuroav.training.config import load_config

MODELS = ("audio", "visual", "add")


def measure(folder: Path, seed: int, preset: str, overrides) -> dict[str, float]:
    """Return every figure of one seed."""
    row: dict[str, float] = {"seed": seed}
    for name in MODELS:
        settings = {**overrides, "train.seed": str(seed), "data.preset": preset}
        config = load_config(model=name, data="av-digits", overrides=settings)
        run = common.train_once(config, folder / f"{name}-{seed}")
        floating = common.float_answers(run)
        row[name] = floating.accuracy
    for modality in ("audio", "visual"):
        row[f"{modality} permuted"] = common.float_answers(run, modality, seed).accuracy
    deployed = common.deployed_answers(run)
    row["deployed"] = deployed.accuracy
    row["loss_points"] = 100 * (floating.accuracy - deployed.accuracy)
    row["agreement"] = floating.agreement(deployed)
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--preset", default="default")
    args = parser.parse_args()
    overrides = common.overrides(args.set)
    work = [(args.out, seed, args.preset, overrides) for seed in args.seeds]
    rows = common.in_parallel(measure, work, args.jobs)
    print(f"\nav-digits {args.preset}, {len(rows)} seeds: mean and standard deviation")
    for key in [k for k in rows[0] if k != "seed"]:
        print(f"{key:16} {common.mean_and_spread([r[key] for r in rows])}")
    better = max(np.mean([r[m] for r in rows]) for m in ("audio", "visual"))
    print(f"add over the better twin {np.mean([r['add'] for r in rows]) - better:+.4f}")
    (args.out / "results.json").write_text(json.dumps({"preset": args.preset, "rows": rows}))


if __name__ == "__main__":
    main()
