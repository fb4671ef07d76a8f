"""What the accuracy benchmarks share: train once, measure float and deployed, tabulate."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from platformdirs import user_cache_dir

from neuroav.quantization import RANGE_SAMPLES
from neuroav.sim import fast
from neuroav.training.config import RunConfig
from neuroav.training.evaluate import load_run
from neuroav.training.loop import train
from neuroav_export import compile_module

CACHE = Path(user_cache_dir("neuroav"))
CHUNK = 512  # samples whose activations are held at a time


class Answers(NamedTuple):
    """Predicted and true class of every test sample."""

    predictions: np.ndarray
    labels: np.ndarray

    @property
    def accuracy(self) -> float:
        return float((self.predictions == self.labels).mean())

    def agreement(self, other: Answers) -> float:
        return float((self.predictions == other.predictions).mean())


def train_once(config: RunConfig, run: Path, *, init_from: Path | None = None) -> Path:
    """Train into ``run`` unless it is trained to its last epoch; go on with a cut-off one."""
    if not (run / "metrics.json").exists():
        resume = (run / "last.ckpt").exists()
        train(
            config,
            run,
            resume=resume,
            init_from=None if resume else init_from,
            cache_dir=CACHE,
            data_root=data_root(),
        )
    return run


def data_root() -> Path | None:
    """Folder of recordings, from NEUROAV_DATA."""
    return Path(os.environ["NEUROAV_DATA"]) if os.environ.get("NEUROAV_DATA") else None


def float_answers(run: Path, shuffled: str | None = None, seed: int = 0) -> Answers:
    """Return the float network's answers on the test set.

    shuffled: give this modality's samples in a random order, so that they tell nothing.
    """
    model, data, _ = load_run(run, cache_dir=CACHE, data_root=data_root())
    inputs, labels = _test_inputs(model, data)
    if shuffled:
        order = np.random.default_rng(seed).permutation(len(labels))
        inputs[shuffled] = inputs[shuffled][order]
    found = []
    with torch.no_grad():
        for first in range(0, len(labels), CHUNK):
            tensors = [
                torch.from_numpy(np.moveaxis(v[first : first + CHUNK], 1, 0)).float()
                for v in inputs.values()
            ]
            found.append(model(*tensors).argmax(1).numpy())
    return Answers(np.concatenate(found), labels)


def deployed_answers(run: Path, **options: Any) -> Answers:
    """Return the deployed network's answers on the test set, by the fast executor.

    options: of ``compile_module`` (bits, calibration, per_channel).
    """
    model, data, _ = load_run(run, cache_dir=CACHE, data_root=data_root())
    inputs, labels = _test_inputs(model, data)
    val = data.split("val").frames()
    sample = {n: getattr(val, n)[:RANGE_SAMPLES] for n in model.inputs}
    deployment = compile_module(model, sample, **options)
    output = deployment.integer.output
    traces = fast.run(deployment, inputs)
    found = np.concatenate([t.outputs[output][:, -1].argmax(1) for t in traces])
    return Answers(found, labels)


def _test_inputs(model, data) -> tuple[dict[str, np.ndarray], np.ndarray]:
    frames = data.split("test").frames()
    return {name: getattr(frames, name) for name in model.inputs}, frames.labels


def in_parallel(function: Callable, arguments: Iterable[tuple], jobs: int) -> list[Any]:
    """Return the results in order; ``jobs`` processes of one thread each."""
    arguments = list(arguments)
    if jobs == 1:
        return [function(*one) for one in arguments]
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_one_thread
    ) as pool:
        return [f.result() for f in [pool.submit(function, *one) for one in arguments]]


def _one_thread() -> None:
    torch.set_num_threads(1)


def mean_and_spread(values: Sequence[float]) -> str:
    """Mean and standard deviation as text."""
    return f"{np.mean(values):.4f} +- {np.std(values):.4f}"


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser with what every accuracy benchmark takes."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each")
    return parser


def overrides(items: Sequence[str]) -> Mapping[str, str]:
    """Return KEY=VALUE texts as a mapping."""
    return dict(item.split("=", 1) for item in items)
