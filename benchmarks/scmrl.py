"""S-CMRL against its rivals: forms, alpha, alignment loss; float and deployed, over seeds.

    python benchmarks/scmrl.py --out runs/scmrl [--presets hard unreliable] [--jobs 2]
    NEUROAV_DATA=... python benchmarks/scmrl.py --out runs/scmrl --data nmnist-fsdd [--rows ...]

Trains what is not trained yet (a run folder that exists is reused or resumed), deploys at 8 bits
what can be deployed, and prints a table per preset: mean and standard deviation of the test
accuracy, and the spike rates of the cross-modal neurons. `results.json` keeps every figure. On
nmnist-fsdd every speaker is held out once, and the spread is over speakers and seeds.
"""

from __future__ import annotations

import json
from pathlib import Path

import common
import numpy as np

from neuroav.data.nmnistfsdd import SPEAKERS
from neuroav.errors import OutOfRange
from neuroav.training.config import load_config

SELF = {"model.self_attention": "true"}
# row -> model and what differs from the defaults
ROWS: dict[str, tuple[str, dict[str, str]]] = {
    "audio": ("audio", {}),
    "visual": ("visual", {}),
    "audio, self-attention": ("audio", SELF),
    "visual, self-attention": ("visual", SELF),
    "add": ("add", {}),
    "weight-attention": ("weight-attention", {}),
    "sca": ("sca", {}),
    "cmci": ("cmci", {}),
    "scmrl": ("scmrl", {}),
    "scmrl spatial": ("scmrl", {"scmrl.form": "spatial"}),
    "scmrl temporal": ("scmrl", {"scmrl.form": "temporal"}),
    "scmrl mask": ("scmrl", {"scmrl.form": "mask"}),
    "scmrl faithful": ("scmrl", {"scmrl.mode": "faithful"}),
    "scmrl no alignment": ("scmrl", {"scmrl.alignment_weight": "0"}),
    "scmrl alpha 0": ("scmrl", {"scmrl.alpha": "0"}),
    "scmrl alpha 0, no alignment": ("scmrl", {"scmrl.alpha": "0", "scmrl.alignment_weight": "0"}),
    "scmrl alpha 0.5": ("scmrl", {"scmrl.alpha": "0.5"}),
    "scmrl alpha 1": ("scmrl", {"scmrl.alpha": "1"}),
    "scmrl alpha 2": ("scmrl", {"scmrl.alpha": "2"}),
}
NOT_DEPLOYABLE = {"weight-attention"}  # a real number weighs its spikes


def measure(folder: Path, data: str, preset: str, row: str, seed: int, overrides) -> dict:
    """Return every figure of one network."""
    model, own = ROWS[row]
    settings = {**overrides, **own, "train.seed": str(seed), "data.preset": preset}
    config = load_config(model=model, data=data, overrides=settings)
    name = row.replace(", ", "-").replace(" ", "-")
    run = common.train_once(config, folder / f"{preset}-{name}-{seed}")
    floating = common.float_answers(run)
    metrics = json.loads((run / "metrics.json").read_text())
    found = {
        "preset": preset,
        "row": row,
        "seed": seed,
        "float": floating.accuracy,
        "parameters": metrics["parameters"],
        "cross_rates": {n: r for n, r in metrics["rates"].items() if n.startswith("cross.")},
        "silent": [w.split()[0] for w in metrics["warnings"]],
    }
    if model not in NOT_DEPLOYABLE:
        try:
            deployed = common.deployed_answers(run)
            found["deployed"] = deployed.accuracy
            found["agreement"] = floating.agreement(deployed)
        except OutOfRange as error:  # the deployment gives no answer: said below the table
            found["refused"] = str(error)
    print(json.dumps(found), flush=True)
    return found


def table(results: list[dict], preset: str) -> str:
    """Return a preset's table as Markdown, rows in the order of ROWS."""
    lines = [
        "| network | float | deployed, 8 bits | agreement | rates, attention | of r | silent |",
        "|" + "---|" * 7,
    ]
    for row in ROWS:
        own = [r for r in results if (r["preset"].split("-")[0], r["row"]) == (preset, row)]
        if not own:
            continue
        cells = [row]
        for key in ("float", "deployed", "agreement"):
            values = [r[key] for r in own if key in r]
            cells.append(common.mean_and_spread(values) if values else "-")
        attention = _rates(own, ("attention_lif", "mask_lif"))
        residual = _rates(own, ("_from_audio.lif", "_from_visual.lif"))
        silent = sorted({name for r in own for name in r["silent"]})
        cells += [attention, residual, ", ".join(f"`{n}`" for n in silent) or "none"]
        lines.append("| " + " | ".join(cells) + " |")
    refused = [
        f"{r['row']}, {r['preset']}, seed {r['seed']}: {r['refused']}"
        for r in results
        if "refused" in r and r["preset"].split("-")[0] == preset
    ]
    return "\n".join([*lines, *refused])


def _rates(results: list[dict], ends: tuple[str, ...]) -> str:
    """Return the span of the rates of the layers whose names end so, over all runs."""
    found = [v for r in results for n, v in r["cross_rates"].items() if n.endswith(ends)]
    return f"{min(found):.2%} to {max(found):.2%}" if found else "-"


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--data", default="av-digits", choices=("av-digits", "nmnist-fsdd"))
    parser.add_argument("--presets", nargs="+", help="default: hard unreliable; default drop95")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW")
    parser.add_argument("--speakers", nargs="+", default=SPEAKERS, choices=SPEAKERS)
    args = parser.parse_args()
    recorded = args.data == "nmnist-fsdd"
    presets = args.presets or (["default", "drop95"] if recorded else ["hard", "unreliable"])
    overrides = common.overrides(args.set)
    work = [
        (args.out, args.data, f"{preset}-{speaker}" if speaker else preset, row, seed, overrides)
        for preset in presets
        for seed in args.seeds
        for row in args.rows
        for speaker in (args.speakers if recorded else [""])
    ]
    results = common.in_parallel(measure, work, args.jobs)
    (args.out / "results.json").write_text(json.dumps(results, indent=1))
    for preset in presets:
        seeds = len({r["seed"] for r in results})
        print(f"\n{args.data} {preset}, {seeds} seeds: mean and standard deviation\n")
        print(table(results, preset))
        best = _mean(results, preset, "scmrl")
        if best is not None:
            for row in ("add", "sca", "cmci", "weight-attention"):
                other = _mean(results, preset, row)
                if other is not None:
                    print(f"scmrl over {row}: {best - other:+.4f}")


def _mean(results: list[dict], preset: str, row: str) -> float | None:
    own = [r["float"] for r in results if (r["preset"].split("-")[0], r["row"]) == (preset, row)]
    return float(np.mean(own)) if own else None


if __name__ == "__main__":
    main()
