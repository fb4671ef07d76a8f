"""What a trained scmrl does with its cross-modal residual.

    python benchmarks/residual_use.py --runs runs/scmrl/hard-scmrl-0 ...

Test accuracy of the float network as trained, with all residuals silenced, and with
those of another sample in their place; and how much of the class a linear classifier (logistic
regression on the rates of each sample, fitted on the training set) reads from the stems' tokens
and from the residuals. A residual that the network uses shows in the first three, one that carries
the class in the last two.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import common
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from neuroav.models.scmrl import CrossModal
from neuroav.training.evaluate import load_run


def answers(model: CrossModal, inputs: list[torch.Tensor], change) -> np.ndarray:
    """Return predictions with ``change`` applied to every residual (T, B, D, H, W)."""
    handles = [
        gain.register_forward_hook(lambda module, args, out: change(out))
        for gain in model.gain.values()
    ]
    with torch.no_grad():
        found = model(*inputs).argmax(1).numpy()
    for handle in handles:
        handle.remove()
    return found


def features(model: CrossModal, inputs: list[torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Return rates (B, modalities x D) of the tokens and of the residuals."""
    with torch.no_grad():
        _, residuals = model.logits_and_residuals(*inputs)
        tokens = [model.stem[n](x) for n, x in zip(model.inputs, inputs, strict=True)]
    return tuple(
        torch.cat([v.mean(dim=(0, 3, 4)) for v in values], dim=1).numpy()
        for values in (tokens, residuals.values())
    )


def measure(run: Path) -> dict[str, float]:
    """Return every figure of one run."""
    model, data, _ = load_run(run, cache_dir=common.CACHE, data_root=common.data_root())
    split = {}
    for name in ("train", "test"):
        frames = data.split(name).frames()
        tensors = [
            torch.from_numpy(np.moveaxis(getattr(frames, n), 1, 0)).float() for n in model.inputs
        ]
        split[name] = tensors, frames.labels
    inputs, labels = split["test"]
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    row = {
        "as trained": answers(model, inputs, lambda r: r),
        "silenced": answers(model, inputs, torch.zeros_like),
        "of another sample": answers(model, inputs, lambda r: r[:, order]),
    }
    found = {name: float((given == labels).mean()) for name, given in row.items()}
    train, test = (features(model, split[name][0]) for name in ("train", "test"))
    for name, x, y in zip(("class from tokens", "class from residuals"), train, test, strict=True):
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, C=0.1))
        probe.fit(x, split["train"][1])
        found[name] = float(probe.score(y, labels))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for run in args.runs:
        rows.append(measure(run))
        print(run.name, json.dumps(rows[-1]), flush=True)
    print("\n| | test accuracy |\n|---|---|")
    for key in rows[0]:
        print(f"| {key} | {common.mean_and_spread([r[key] for r in rows])} |")


if __name__ == "__main__":
    main()
