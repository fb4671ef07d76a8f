"""Weights of 8 to 2 bits: after training (three calibrations, two granularities) and aware of it.

    python benchmarks/quantization.py --runs runs/av-digits/add-0 ... --out runs/quantized

Takes trained float runs (the other accuracy benchmarks leave some), measures each deployed on the
whole test set, fine-tunes each with the deployed integers at the widths of `--aware`, and prints
change of accuracy in points and agreement per sample against the float run. `--aware-per-channel`
fine-tunes with scales per channel too. `results.json` keeps every figure.
"""

from __future__ import annotations

import json
from pathlib import Path

import common
import numpy as np

from neuroav.training.checkpoint import WEIGHTS
from neuroav.training.config import load_config

FINE_TUNING = {"train.epochs": "8", "train.learning_rate": "1e-3", "train.warmup_epochs": "0.5"}


def aware_run(run: Path, out: Path, bits: int, per_channel: bool, overrides) -> Path:
    """Return a run fine-tuned from ``run`` with the deployed integers."""
    settings = {**FINE_TUNING, **overrides, "quant.aware": "true", "quant.bits": str(bits),
                "quant.per_channel": str(per_channel).lower()}  # fmt: skip
    config = load_config(file=run / "config.toml", overrides=settings)
    folder = out / f"{run.name}-{bits}{'c' if per_channel else ''}"
    return common.train_once(config, folder, init_from=run / WEIGHTS)


def measure(run: Path, out: Path, bits: int, aware: tuple[bool, ...], overrides) -> list[dict]:
    """Return one row per setting of one run and width. aware: fine-tuned per channel or not."""
    floating = common.float_answers(run)
    rows = []

    def add(kind: str, per_channel: bool, found: common.Answers) -> None:
        rows.append({
            "run": str(run), "float": floating.accuracy, "bits": bits,
            "kind": kind + (", per channel" if per_channel else ""),
            "change": 100 * (found.accuracy - floating.accuracy),
            "agreement": 100 * floating.agreement(found),
        })  # fmt: skip

    for per_channel in (False, True):
        options = {"bits": bits, "per_channel": per_channel}
        for calibration in ("max", "percentile", "mse"):
            found = common.deployed_answers(run, calibration=calibration, **options)
            add(f"after, {calibration}", per_channel, found)
        if per_channel in aware:
            tuned = aware_run(run, out, bits, per_channel, overrides)
            add("aware", per_channel, common.deployed_answers(tuned, calibration="mse", **options))
    return rows


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--bits", type=int, nargs="+", default=[8, 6, 5, 4, 3, 2])
    parser.add_argument("--aware", type=int, nargs="*", default=[8, 4, 3, 2])
    parser.add_argument("--aware-per-channel", action="store_true")
    args = parser.parse_args()
    overrides = common.overrides(args.set)
    kinds = (False, True) if args.aware_per_channel else (False,)
    work = [
        (run, args.out, bits, kinds if bits in args.aware else (), overrides)
        for run in args.runs
        for bits in args.bits
    ]
    rows = [row for part in common.in_parallel(measure, work, args.jobs) for row in part]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(rows, indent=1))
    print(f"{len(args.runs)} runs, mean float accuracy {np.mean([r['float'] for r in rows]):.4f}")
    print("| bits | quantized | change, points | agreement, % |\n|---|---|---|---|")
    for bits, kind in dict.fromkeys((r["bits"], r["kind"]) for r in rows):
        own = [r for r in rows if (r["bits"], r["kind"]) == (bits, kind)]
        change, agreement = ([r[k] for r in own] for k in ("change", "agreement"))
        print(f"| {bits} | {kind} | {np.mean(change):+.2f} +- {np.std(change):.2f} "
              f"| {np.mean(agreement):.1f} |")  # fmt: skip


if __name__ == "__main__":
    main()
