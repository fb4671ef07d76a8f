"""One combination of a sweep: trained, evaluated, deployed, and what that gave as one row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroav import navfile
from neuroav.files import written_whole
from neuroav.sim import real
from neuroav.simulate import Progress, Samples, run_backend
from neuroav.studies.grid import FLOAT, SPLITS, check_folder
from neuroav.training.checkpoint import CONFIG, METRICS, WEIGHTS
from neuroav.training.config import RunConfig
from neuroav.training.evaluate import load_run, score
from neuroav.training.loop import train
from neuroav_export import export_run

MEASURED = "measured.json"  # in the run folder: what this module found, so that it is found once


@dataclass(frozen=True)
class Task:
    """What to do for one run folder.

    deployments: name of a deployed side -> weight width, None for as trained (else 8 bits).
    init_from: weights to start from. The rest is as ``training.loop.train`` and ``export_run``
    take it.
    """

    run: Path
    config: RunConfig
    deployments: Mapping[str, int | None]
    target: str
    cache_dir: Path
    data_root: Path | None = None
    init_from: Path | None = None


def carry_out_task(task: Task, progress: Progress | None = None) -> dict[str, Any]:
    """Train (or finish training), measure, and return the row; nothing is done twice.

    Keys: parameters, epochs, best_epoch, seconds (of training); samples by split; sides: 'float'
    and each deployment, with val and test accuracies (fractions); deployments also with
    weight_bits, agreement (share of test samples on which both sides name one class),
    spikes_per_sample, synops_per_sample (test, all populations but the inputs), neurons, synapses,
    saturations (of all nodes) and file. Raises the errors of training and export.
    """
    places: dict[str, Any] = {"cache_dir": task.cache_dir, "data_root": task.data_root}
    _train(task, places, progress)
    row = _known(task)
    missing = _missing(task, row)
    if not missing:
        return _asked(task, row)
    torch.set_num_threads(task.config.train.threads)
    model, data, _ = load_run(task.run, **places)
    frames = {split: data.split(split).frames() for split in SPLITS}
    row["samples"] = {split: len(frames[split].labels) for split in SPLITS}
    for name in missing:
        row["sides"][name] = (
            {s: _accuracy(score(model, frames[s], len(data.classes))) for s in SPLITS}
            if name == FLOAT
            else _deployed(task, name, frames, places)
        )
    with written_whole(task.run / MEASURED) as part:
        part.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")
    return _asked(task, row)


def finished_row(task: Task) -> dict[str, Any] | None:
    """Return the row of a run that needs nothing more; None where something is to be done."""
    if not (task.run / METRICS).exists() or not (task.run / WEIGHTS).exists():
        return None
    row = _known(task)
    return None if _missing(task, row) else _asked(task, row)


def _train(task: Task, places: dict[str, Any], progress: Progress | None) -> None:
    """Train unless that is done; a run cut off goes on from its last finished epoch."""
    check_folder(task.run, task.config)
    if not (task.run / METRICS).exists():
        train(
            task.config, task.run, resume=(task.run / CONFIG).exists(),
            init_from=task.init_from, progress=progress, **places,
        )  # fmt: skip


def _known(task: Task) -> dict[str, Any]:
    """Return facts of the training, and what was measured earlier of these weights and target."""
    metrics = json.loads((task.run / METRICS).read_text(encoding="utf-8"))
    weights = hashlib.sha256((task.run / WEIGHTS).read_bytes()).hexdigest()
    row = {k: metrics[k] for k in ("parameters", "epochs", "best_epoch", "seconds", "val_loss")}
    row |= {"target": task.target, "weights": weights, "sides": {}}
    path = task.run / MEASURED
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        if all(stored[key] == row[key] for key in ("target", "weights")):
            return stored
    return row


def _missing(task: Task, row: Mapping[str, Any]) -> list[str]:
    """Return the sides that are still to be measured."""
    return [name for name in (FLOAT, *task.deployments) if name not in row["sides"]]


def _asked(task: Task, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with the sides of this task only; the file keeps those of other widths."""
    return {**row, "sides": {name: row["sides"][name] for name in (FLOAT, *task.deployments)}}


def _accuracy(found: Mapping[str, Any]) -> float:
    """Return the share of right answers, exact where ``score`` gives it in single precision."""
    return float(np.trace(found["confusion"]) / found["samples"])


def _deployed(
    task: Task, name: str, frames: Mapping[str, Any], places: dict[str, Any]
) -> dict[str, Any]:
    """Deploy, run both splits on the fast executor and the test set on the real-valued twin."""
    file = task.run / f"{name.replace(' ', '-')}.nav"
    bits = task.deployments[name]
    made = export_run(task.run, target=task.target, out=file, bits=bits, **places)
    deployment = navfile.load(file)
    graph, twin = deployment.integer, deployment.real
    given = {s: {n: getattr(frames[s], n) for n in deployment.fed} for s in SPLITS}
    outcomes = {
        s: run_backend(deployment, Samples(given[s], frames[s].labels, s), "fast") for s in SPLITS
    }
    scores = [t.outputs[twin.output].reshape(t.samples, -1) for t in real.run(twin, given["test"])]
    test = outcomes["test"]
    spikes = test.counts.spikes_per_sample()
    return {
        **{s: float((outcomes[s].predictions == frames[s].labels).mean()) for s in SPLITS},
        "agreement": float((np.concatenate(scores).argmax(axis=1) == test.predictions).mean()),
        "weight_bits": made["weight_bits"],
        "spikes_per_sample": sum(v for n, v in spikes.items() if n not in graph.inputs),
        "synops_per_sample": sum(test.counts.synops_per_sample().values()),
        "neurons": made["neurons"],
        "synapses": made["synapses"],
        "saturations": sum(made["saturations"].values()),
        "file": file.name,
    }
