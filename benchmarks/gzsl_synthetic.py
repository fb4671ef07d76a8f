"""Zero-shot training on files of the published layout and size, with made-up features.

    NEUROAV_DATA=... python benchmarks/gzsl_synthetic.py --out runs/gzsl [--models avca stft]

Writes a benchmark tree below --out: real class lists, splits and word vectors of UCF (from
$NEUROAV_DATA/avgzsl) and one synthetic clip for every listed one, in HDF5 as published. Then trains
3 epochs x 100 batches of 64 per stage through the command line, evaluates, and prints S, U, HM and
ZSL and the seconds of each. The features are synthetic: figures say that everything works and how
long it takes, nothing about recordings.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

SETTINGS = ("train.epochs=3", "zsl.batches=100", "train.batch_size=64")


def command(*words: object) -> dict:
    """Return the JSON object that ``neuroav`` prints."""
    line = [sys.executable, "-m", "neuroav", *map(str, words), "--json"]
    done = subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of files and runs")
    parser.add_argument("--models", nargs="+", default=["avca", "stft"])
    parser.add_argument("--preset", default="main", choices=("main", "cls"))
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    from gzsl_files import write_benchmark

    root = args.out / "files"
    if not root.exists():
        source = Path(os.environ["NEUROAV_DATA"]) / "avgzsl"
        write_benchmark(root, source, "ucf-gzsl", args.preset)
    shown = command("data", "show", "ucf-gzsl", "--preset", args.preset, "--data-root", root)
    print(json.dumps({k: shown[k] for k in ("stages", "misaligned_classes", "notes")}))
    print("| model | S | U | HM | ZSL | stage 1 + 2 and evaluation, s |\n|" + "---|" * 6)
    for model in args.models:
        run, start = args.out / f"{args.preset}-{model}", time.perf_counter()
        words = [w for s in (*SETTINGS, f"data.preset={args.preset}") for w in ("--set", s)]
        command("train", "--model", model, "--data", "ucf-gzsl", "--out", run, "--data-root", root,
                "--threads", args.threads, *words)  # fmt: skip
        found = command("evaluate", run, "--data-root", root)
        cells = [f"{found[k]:.3f}" for k in ("seen", "unseen", "hm", "zsl")]
        print("| " + " | ".join([model, *cells, f"{time.perf_counter() - start:.0f}"]) + " |")


if __name__ == "__main__":
    main()
