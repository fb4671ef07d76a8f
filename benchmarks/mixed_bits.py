"""Widths of single layers under an accuracy budget: memory saved, accuracy on the test set.

    python benchmarks/mixed_bits.py --runs runs/demo/scmrl --out runs/mixed --budget 0.01

Takes trained float runs, chooses widths on the validation set (`neuroav_export.choose_bits`), and
measures on the test set, against all layers at 8, 6, 5, 4 and 3 bits. Prints the widths, the
decisions and both tables; `results.json` keeps every figure.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import common

from neuroav import hardware
from neuroav.quantization import RANGE_SAMPLES
from neuroav.training.evaluate import load_run
from neuroav_export import choose_bits, compile_module
from neuroav_export.mixed import WIDTHS, synapse_bits
from neuroav_export.run import deployed_network

UNIFORM = (8, 6, 5, 4, 3)


def measure(run: Path, budget: float, bits: tuple[int, ...]) -> dict[str, Any]:
    """Return the choice for one run and how it does on the test set."""
    model, data, _ = load_run(run, cache_dir=common.CACHE, data_root=common.data_root())
    val = data.split("val").frames()
    held_out = {n: getattr(val, n) for n in model.inputs}
    sample = {n: v[:RANGE_SAMPLES] for n, v in held_out.items()}
    most = deployed_network(model, data).max_count
    start = time.perf_counter()
    choice = choose_bits(
        model, sample, val.labels, bits, budget=budget, held_out=held_out, max_count=most
    )
    seconds = time.perf_counter() - start
    profile = hardware.load_profile("loihi2")
    floating = common.float_answers(run)
    rows = []
    ways = [(f"{b} bits everywhere", b, {}) for b in UNIFORM]
    for name, width, layer_bits in [*ways, ("by layer", choice.bits, dict(choice.layer_bits))]:
        options = {"bits": width, "calibration": "mse", "layer_bits": layer_bits, "max_count": most}
        found = common.deployed_answers(run, **options)
        integer = compile_module(model, sample, **options).integer
        rows.append({
            "way": name, "accuracy": found.accuracy, "agreement": floating.agreement(found),
            "memory_bits": synapse_bits(integer, profile),
        })  # fmt: skip
    return {
        "run": str(run), "budget": budget, "float": floating.accuracy, "seconds": seconds,
        "validation_samples": len(val.labels), "test_samples": len(floating.labels),
        "choice": asdict(choice), "decisions": choice.table(), "test": rows,
    }  # fmt: skip


def show(found: dict[str, Any]) -> None:
    """Print one run's widths, decisions and test figures as Markdown."""
    choice = found["choice"]
    trials = len(choice["sensitivity"]["rows"]) + len(choice["steps"]) + 1
    print(f"\n## {found['run']}, budget {100 * found['budget']:g} points")
    print(f"{trials} deployments on {found['validation_samples']} validation samples, "
          f"{found['seconds']:.0f} s\n")  # fmt: skip
    print("| layer | bits |\n|---|---|")
    layers = dict.fromkeys(row["layer"] for row in choice["sensitivity"]["rows"])
    for layer in layers:
        print(f"| {layer} | {choice['layer_bits'].get(layer, choice['bits'])} |")
    print(f"\n{found['decisions']}\n")
    most = found["test"][0]["memory_bits"]
    print(f"float accuracy {found['float']:.4f}, {found['test_samples']} test samples\n")
    print("| weights | accuracy | agreement | memory, kbit | of 8 bits |\n|---|---|---|---|---|")
    for row in found["test"]:
        print(f"| {row['way']} | {row['accuracy']:.4f} | {row['agreement']:.4f} "
              f"| {row['memory_bits'] / 1000:.1f} | {row['memory_bits'] / most:.1%} |")  # fmt: skip


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--budget", type=float, default=0.01, help="share of validation samples")
    parser.add_argument("--bits", type=int, nargs="+", default=list(WIDTHS))
    args = parser.parse_args()
    work = [(run, args.budget, tuple(args.bits)) for run in args.runs]
    results = common.in_parallel(measure, work, args.jobs)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(results, indent=1))
    for found in results:
        show(found)


if __name__ == "__main__":
    main()
