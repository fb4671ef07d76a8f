"""Zero-shot networks side by side: avca, stft, its controls, and stft-chip float and deployed.

    python benchmarks/zero_shot.py --out runs/zero-shot [--data av-attributes] [--jobs 2]

Trains what is not trained yet (a run folder that exists is reused or resumed), measures S, U, HM
and ZSL on the test, spike rates of every LIF layer, parameters and operations per sample, and
prints a table of means and standard deviations. `results.json` keeps every figure.
"""

from __future__ import annotations

import json
from pathlib import Path

import common

from neuroav.studies import zeroshot as study
from neuroav.training.config import load_config

# row -> model and what differs from the defaults
ROWS: dict[str, tuple[str, dict[str, str]]] = {
    "avca": ("avca", {}),
    "stft": ("stft", {}),
    "stft without a spiking branch": ("stft", {"stft.snn": "none"}),
    "stft, spiking branch frozen at random": ("stft", {"stft.snn": "frozen"}),
    "stft, ReLU units instead of neurons": ("stft", {"stft.snn": "relu"}),
    "stft-chip": ("stft-chip", {}),
}


def measure(folder: Path, data: str, row: str, seed: int, overrides) -> dict:
    """Return every figure of one network."""
    model, own = ROWS[row]
    settings = {**overrides, **own, "train.seed": str(seed)}
    config = load_config(model=model, data=data, overrides=settings)
    places = {"cache_dir": common.CACHE, "data_root": common.data_root()}
    name = row.replace(", ", "-").replace(" ", "-")
    run = study.train_once(config, folder / f"{name}-{seed}", **places)
    found = {"row": row, "seed": seed, "float": study.measure_float(run, **places)}
    if model == "stft-chip":
        found["deployed"] = study.measure_deployed(run, **places)
    print(json.dumps(found), flush=True)
    return found


def table(results: list[dict], rows: list[str]) -> str:
    """Return the results as Markdown."""
    lines = ["| network | S | U | HM | ZSL | rates | parameters |", "|" + "---|" * 7]
    for row in rows:
        for side in ("float", "deployed"):
            own = [r[side] for r in results if r["row"] == row and side in r]
            if not own:
                continue
            cells = [row if side == "float" else f"{row}, deployed"]
            cells += [common.mean_and_spread([o[k] for o in own]) for k in study.MEASURES]
            rates = [v for o in own for v in o.get("rates", {}).values()]
            cells.append(f"{min(rates):.1%} to {max(rates):.1%}" if rates else "-")
            cells.append(f"{own[0]['parameters']:,}" if "parameters" in own[0] else "-")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--data", default="av-attributes")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS, metavar="ROW")
    args = parser.parse_args()
    overrides = common.overrides(args.set)
    work = [(args.out, args.data, row, seed, overrides) for seed in args.seeds for row in args.rows]
    results = common.in_parallel(measure, work, args.jobs)
    (args.out / "results.json").write_text(json.dumps(results, indent=1))
    print(f"\n{args.data}, seeds {args.seeds}: mean and standard deviation\n")
    print(table(results, args.rows))


if __name__ == "__main__":
    main()
