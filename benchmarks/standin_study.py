"""Unimodal networks, rivals and S-CMRL on the stand-in of `mnistdvs-ntidigits`, float and deployed.

    python benchmarks/standin_study.py --data-root STANDIN --out runs/standin-study [--jobs 2]

Every network is trained with every seed by the recipe, measured on the test set, exported with
8 bits and run there by the fast executor: `neuroav sweep` over the models and the seeds, in
`OUT/deployed`. `weight-attention` weighs spikes by real numbers and has no deployment; its float
runs are in `OUT/float`. The same command again goes on where a killed one stopped. Writes
`OUT/study.json`, and prints mean and standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir

from neuroav.files import written_whole
from neuroav.studies.sweep import run_sweep

MODELS = ("audio", "visual", "add", "weight-attention", "sca", "cmci", "scmrl")
FLOAT_ONLY = ("weight-attention",)
RECIPE = Path(__file__).resolve().parent.parent / "examples/recipes/mnistdvs-ntidigits-standin.toml"
FLOAT, DEPLOYED = "float", "deployed"


def rows_of(found: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per model: test accuracies, agreement and sizes over the seeds that are finished."""
    rows = []
    for model in dict.fromkeys(r["values"]["model.name"] for r in found["rows"]):
        own = [r for r in found["rows"] if r["values"]["model.name"] == model]
        done = [r for r in own if r["state"] == "finished"]
        row: dict[str, Any] = {"model": model, "seeds": len(done), "of": len(own)}
        if done:
            sides = [r["sides"] for r in done]
            row |= {
                "float": [s[FLOAT]["test"] for s in sides],
                "validation": [s[FLOAT]["val"] for s in sides],
                "parameters": done[0]["parameters"],
                "seconds": [r["seconds"] for r in done],
                "best_epoch": [r["best_epoch"] for r in done],
            }
            if deployed := [s[DEPLOYED] for s in sides if DEPLOYED in s]:
                row |= {
                    "deployed": [s["test"] for s in deployed],
                    "agreement": [s["agreement"] for s in deployed],
                    "saturations": [s["saturations"] for s in deployed],
                    "neurons": deployed[0]["neurons"],
                    "synapses": deployed[0]["synapses"],
                }
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| model | seeds | float | deployed | agreement |", "|---|---|---|---|---|"]
    for row in rows:
        cells = [_spread(row.get(key)) for key in ("float", "deployed", "agreement")]
        lines.append(f"| {row['model']} | {row['seeds']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float] | None) -> str:
    """Mean and sample standard deviation, as text."""
    if not values:
        return "-"
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.4f} +- {spread:.4f}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True, help="folder of the stand-in")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--cache-dir", type=Path, default=Path(user_cache_dir("neuroav")))
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args(arguments)

    def said(stage: str, done: int, total: int) -> None:
        if stage.startswith("sweep"):
            print(f"{stage} ({done} of {total})", flush=True)

    rows: list[dict[str, Any]] = []
    failed = []
    for folder, deploy in (("deployed", True), ("float", False)):
        models = [m for m in args.models if (m in FLOAT_ONLY) != deploy]
        if not models:
            continue
        found = run_sweep(
            # the seed first: every network once, then every network again
            {"train.seed": [str(seed) for seed in args.seeds], "model.name": models},
            args.out / folder,
            file=args.recipe,
            overrides=dict(item.split("=", 1) for item in args.set),
            deploy=deploy,
            jobs=args.jobs,
            cache_dir=args.cache_dir,
            data_root=args.data_root,
            progress=said,
        )
        rows += rows_of(found)
        failed += [row for row in found["rows"] if row["state"] == "failed"]
        rows.sort(key=lambda row: MODELS.index(row["model"]))
        with written_whole(args.out / "study.json") as part:
            part.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print("\n" + table(rows))
    for row in failed:
        print(f"failed: {row['name']}: {row['error']}")


if __name__ == "__main__":
    main()
