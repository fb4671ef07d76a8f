"""Real recordings, every speaker held out once: the baseline and its twins, float and deployed.

    NEUROAV_DATA=... python benchmarks/nmnist_fsdd.py --out runs/nmnist-fsdd [--seeds 0] [--jobs 2]

Trains what is not trained yet for `nmnist-fsdd` as recorded and with 95 % of the visual events
lost, and prints mean and standard deviation over speakers (and seeds). `results.json` keeps every
figure.
"""

from __future__ import annotations

import json
from pathlib import Path

import common
import numpy as np

from neuroav.data.nmnistfsdd import SPEAKERS
from neuroav.training.config import load_config

MODELS = ("audio", "visual", "add")
KINDS = ("default", "drop95")


def measure(folder: Path, kind: str, speaker: str, model: str, seed: int, overrides) -> dict:
    """Return every figure of one network."""
    settings = {**overrides, "train.seed": str(seed), "data.preset": f"{kind}-{speaker}"}
    config = load_config(model=model, data="nmnist-fsdd", overrides=settings)
    run = common.train_once(config, folder / f"{model}-{kind}-{speaker}-{seed}")
    floating, deployed = common.float_answers(run), common.deployed_answers(run)
    row = {
        "kind": kind,
        "speaker": speaker,
        "model": model,
        "seed": seed,
        "float": floating.accuracy,
        "deployed": deployed.accuracy,
        "agreement": floating.agreement(deployed),
    }
    print(json.dumps(row), flush=True)
    return row


def main() -> None:
    parser = common.arguments(__doc__)
    parser.set_defaults(seeds=[0])
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--speakers", nargs="+", default=SPEAKERS, choices=SPEAKERS)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    args = parser.parse_args()
    overrides = common.overrides(args.set)
    work = [
        (args.out, kind, speaker, model, seed, overrides)
        for kind in args.kinds
        for seed in args.seeds
        for speaker in args.speakers
        for model in args.models
    ]
    rows = common.in_parallel(measure, work, args.jobs)
    (args.out / "results.json").write_text(json.dumps(rows, indent=1))
    print(
        "\n| visual events | model | "
        + " | ".join(args.speakers)
        + " | float | deployed | agreement |"
    )
    print("|" + "---|" * (len(args.speakers) + 5))
    for kind in args.kinds:
        for model in args.models:
            own = [r for r in rows if (r["kind"], r["model"]) == (kind, model)]
            by_speaker = [
                np.mean([r["float"] for r in own if r["speaker"] == s]) for s in args.speakers
            ]
            cells = [kind, model, *(f"{v:.3f}" for v in by_speaker)]
            cells += [common.mean_and_spread([r[k] for r in own])
                      for k in ("float", "deployed", "agreement")]  # fmt: skip
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
