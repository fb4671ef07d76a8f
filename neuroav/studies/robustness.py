"""Robustness: trained networks under disturbances at test time, float and deployed.

Every file is run on the same samples under every disturbance; its real-valued twin and its integers
get the very same disturbed counts. What is studied are deployments rather than run folders, because
a FILE.nav holds both networks, its weight width and target, and a hash to tell which one it was; a
run folder holds no integers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neuroav import navfile
from neuroav.deployment import Deployment
from neuroav.errors import ConfigError, DataError, NeuroavError, OutOfRange, unknown_name
from neuroav.files import written_whole
from neuroav.report.build import wilson
from neuroav.report.format import labels
from neuroav.sim import fast, real
from neuroav.simulate import Progress, Samples, load_samples, resolve_deployment
from neuroav.studies.conditions import BOTH, CLEAN, LEVELS, RAW, UNITS, Condition, disturbed
from neuroav.studies.parallel import carry_out
from neuroav.studies.plots import COLOURS

FILES = ("robustness.json", "robustness.svg", "robustness.png")
SIDES = ("float", "deployed")
NOTES = (
    "Noise: white Gaussian, of power = the sample's mean squared count / 10^(SNR/10), is added to "
    "the event counts, then rounded and clipped to the input's range 0..max_count, because a "
    "sensor sends whole non-negative counts; 'changed' says which share of the counts that alters.",
    "Disturbances fall on test samples of networks trained without them. The published noise test "
    "of S-CMRL adds noise while training, to the visual input only, and tests on clean input: its "
    "figures and these are not comparable.",
)
NO_EVENTS = (
    "Lost and jittered events are left out: these samples are event counts, the events themselves "
    "are not in the file; choose a split of a data set."
)


@dataclass(frozen=True)
class _Task:
    """Conditions to run one file under."""

    path: Path
    conditions: tuple[Condition, ...]
    split: str | None
    samples: int | None
    seed: int
    batch: int
    cache_dir: Path
    data_root: Path | None


def run_robustness(
    paths: Sequence[str | Path],
    out: Path,
    *,
    kinds: Sequence[str] | None = None,
    samples: int | None = None,
    split: str | None = None,
    seed: int = 0,
    batch: int = 64,
    jobs: int = 1,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure deployments under disturbances; write robustness.json, .svg and .png into ``out``.

    kinds: of 'noise', 'drop', 'jitter', 'missing', by default all that the data allow (drop and
    jitter need raw events, which the probe inside a file lacks). seed: of all disturbances; equal
    seeds give equal results whatever batch, jobs and number of samples. Returns what
    robustness.json holds (docs/studies.md). Nothing is written unless everything could be made.
    Raises ConfigError, FileFormatError, DataError (files of different data), MissingDependency.
    """
    from neuroav.studies.robustness_plot import robustness_figure  # before hours of work

    out, names = Path(out), list(dict.fromkeys(map(str, paths)))
    _check(out, names, kinds, batch)
    places: dict[str, Any] = {"cache_dir": cache_dir, "data_root": data_root}
    opened = {
        name: _open(resolve_deployment(name), label, split, samples, places, progress)
        for name, label in zip(names, labels(names), strict=True)
    }
    first = next(iter(opened.values()))
    for file in opened.values():
        file.check_same_samples(first)
    panels = _panels(list(opened.values()), kinds)
    conditions = [CLEAN, *(c for panel in panels for c in panel.conditions)]
    tasks = [
        _Task(file.path, part, split, samples, seed, batch, **places)
        for file in opened.values()
        for part in _parts(list(dict.fromkeys(map(file.felt, conditions))), jobs)
    ]
    answers = _answers(tasks, jobs, progress)
    for file in opened.values():
        if refused := answers[file.path, CLEAN]["refused"]:
            raise OutOfRange(f"{file.label}: on undisturbed samples, {refused}")
    found = _results(list(opened.values()), panels, answers, seed)
    robustness_figure(found, out)
    with written_whole(out / FILES[0]) as part:
        part.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return found


def _check(out: Path, names: Sequence[str], kinds: Sequence[str] | None, batch: int) -> None:
    if not names:
        raise ConfigError("no file to disturb: give one or more FILE.nav")
    if len(names) > len(COLOURS):
        raise ConfigError(
            f"{len(names)} files: at most {len(COLOURS)} can be told apart in one figure; "
            "compare fewer, or in several folders"
        )
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file, the results need a folder; choose another --out")
    for kind in kinds or ():
        if kind not in LEVELS:
            raise unknown_name("disturbance", kind, LEVELS, ConfigError)
    if batch < 1:
        raise ConfigError(f"batch is {batch}, needs at least 1")


# --- files and their samples -------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class _File:
    """One deployment and its samples, undisturbed."""

    path: Path
    label: str
    deployment: Deployment
    data: Samples

    @property
    def inputs(self) -> list[str]:
        return list(self.deployment.fed)

    def felt(self, condition: Condition) -> Condition:
        """Return what a condition is to this network: clean where it disturbs no input of it."""
        hit = [name for name in self.inputs if condition.hits(name)]
        if not hit:
            return CLEAN
        return replace(condition, on=hit[0]) if len(hit) < 2 else condition

    def check_same_samples(self, other: _File) -> None:
        """Raise DataError unless both files are run on the same recordings."""
        own, others = (f.deployment.provenance.get("data_hash") for f in (self, other))
        same = own == others and np.array_equal(self.data.labels, other.data.labels)
        if not same:
            raise DataError(
                f"{self.label}: was trained on other data than {other.label}, so they cannot be "
                "run on the same samples; compare files of one data set, preset and seed"
            )


def _open(
    path: Path,
    label: str,
    split: str | None,
    samples: int | None,
    places: dict[str, Any],
    progress: Progress | None,
) -> _File:
    deployment = navfile.load(path)
    if deployment.static:
        raise DataError(
            f"{path}: reads real values ({', '.join(sorted(deployment.static))}), and every "
            "disturbance here is one of events; use a network that reads events"
        )
    data = load_samples(deployment, split=split, samples=samples, progress=progress, **places)
    return _File(path, label, deployment, data)


# --- what to run -------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Panel:
    """One disturbance of one input, over its levels."""

    kind: str
    on: str
    conditions: tuple[Condition, ...]


def _panels(files: Sequence[_File], kinds: Sequence[str] | None) -> list[_Panel]:
    """Return the panels, in order of ``LEVELS``; DataError for kinds that the samples forbid."""
    inputs = list(dict.fromkeys(name for file in files for name in file.inputs))
    raw = files[0].data.source is not None
    if not raw and kinds and any(kind in RAW for kind in kinds):
        raise DataError(
            f"split {files[0].data.split!r}: holds event counts, and "
            f"{' and '.join(k for k in kinds if k in RAW)} needs the events before binning; "
            "choose a split of the data set, or leave it out"
        )
    places = inputs + [BOTH] * any(len(file.inputs) > 1 for file in files)
    panels = []
    for kind, levels in LEVELS.items():
        if kind not in (kinds or LEVELS) or (kind in RAW and not raw):
            continue
        if kind == "missing":
            panels.append(_Panel(kind, "", tuple(Condition(kind, name) for name in inputs)))
            continue
        for on in places:
            conditions = tuple(Condition(kind, on, level) for level in levels)
            panels.append(_Panel(kind, on, conditions))
    return panels


def _parts(conditions: Sequence[Condition], jobs: int) -> list[tuple[Condition, ...]]:
    """Return the conditions dealt to ``jobs`` tasks, so that each gets of every kind."""
    return [tuple(conditions[i::jobs]) for i in range(min(jobs, len(conditions)))]


# --- running -----------------------------------------------------------------------------------
def _answers(
    tasks: Sequence[_Task], jobs: int, progress: Progress | None
) -> dict[tuple[Path, Condition], dict[str, Any]]:
    """Return what every file gave under every condition it was run under."""
    total, answers = sum(len(task.conditions) for task in tasks), {}

    def told(path: Path, condition: Condition, answer: dict[str, Any]) -> None:
        answers[path, condition] = answer
        if progress:
            progress("disturbances", len(answers), total)

    if jobs == 1:  # in this process, which can tell of every condition as it is done
        for task in tasks:
            _run(task, partial(told, task.path))
        return answers
    for task, result in carry_out(_run, tasks, jobs):
        if isinstance(result, NeuroavError):
            raise result
        for condition, answer in result.items():
            told(task.path, condition, answer)
    return answers


def _run(
    task: _Task, told: Callable[[Condition, dict[str, Any]], None] | None = None
) -> dict[Condition, dict[str, Any]]:
    """Run one file under the task's conditions."""
    file = _open(
        task.path, "", task.split, task.samples,
        {"cache_dir": task.cache_dir, "data_root": task.data_root}, None,
    )  # fmt: skip
    found: dict[Condition, dict[str, Any]] = {}
    for condition in task.conditions:
        given = disturbed(file.deployment, file.data, condition, task.seed)
        same = all(np.array_equal(given[n], file.data.inputs[n]) for n in given)
        known = found.get(CLEAN) if same else None  # weak noise, rounded away
        found[condition] = known or _ask(file, given, task.batch)
        if told:
            told(condition, found[condition])
    return found


def _ask(file: _File, given: Mapping[str, np.ndarray], batch: int) -> dict[str, Any]:
    """Return accuracy of both sides, their agreement, and by input the share of counts changed.

    A disturbed sample may bring an accumulator out of its register, which executors refuse: then
    deployed and agreement are None, and refused says where that was.
    """
    twin, truth = file.deployment.real, file.data.labels
    traces = real.run(twin, given, batch=batch)
    floating = _named(t.outputs[twin.output].reshape(t.samples, -1) for t in traces)
    answer: dict[str, Any] = {
        "float": float((floating == truth).mean()),
        "changed": {n: float((given[n] != file.data.inputs[n]).mean()) for n in given},
    }
    try:
        output = file.deployment.integer.output
        traces = fast.run(file.deployment, given, batch=batch)
        deployed = _named(t.outputs[output][:, -1] for t in traces)
    except OutOfRange as error:
        return answer | {"deployed": None, "agreement": None, "refused": str(error)}
    return answer | {
        "deployed": float((deployed == truth).mean()),
        "agreement": float((deployed == floating).mean()),
        "refused": None,
    }


def _named(scores: Iterable[np.ndarray]) -> np.ndarray:
    """Return the class with the highest of the scores (samples, classes), for all batches."""
    return np.concatenate(list(scores)).argmax(axis=1)


# --- results -----------------------------------------------------------------------------------
def _results(
    files: Sequence[_File],
    panels: Sequence[_Panel],
    answers: Mapping[tuple[Path, Condition], dict[str, Any]],
    seed: int,
) -> dict[str, Any]:
    """Return what robustness.json holds."""
    data, deployment = files[0].data, files[0].deployment
    return {
        "split": data.split,
        "samples": len(data),
        "seed": seed,
        "classes": len(deployment.classes),
        "data_hash": deployment.provenance.get("data_hash"),
        "files": [_file_object(file, answers[file.path, CLEAN], len(data)) for file in files],
        "panels": [_panel_object(panel, files, answers) for panel in panels],
        "notes": [*NOTES, *([] if data.source else [NO_EVENTS])],
    }


def _file_object(file: _File, clean: Mapping[str, Any], samples: int) -> dict[str, Any]:
    return {
        "label": file.label.removesuffix(".nav"),
        "path": str(file.path),
        "hash": file.deployment.content_hash,
        "inputs": file.inputs,
        "clean": {side: clean[side] for side in (*SIDES, "agreement")},
        "interval_95": {side: wilson(round(clean[side] * samples), samples) for side in SIDES},
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _panel_object(
    panel: _Panel,
    files: Sequence[_File],
    answers: Mapping[tuple[Path, Condition], dict[str, Any]],
) -> dict[str, Any]:
    """Return one panel: levels, the first of which is null for clean, and one curve per file."""
    curves = []
    for file in files:
        felt = [file.felt(condition) for condition in (CLEAN, *panel.conditions)]
        points = [answers[file.path, condition] for condition in felt]
        keys = (*SIDES, "agreement", "refused")
        curve: dict[str, Any] = {key: [p[key] for p in points] for key in keys}
        curve["changed"] = {
            name: [p["changed"][name] for p in points]
            for name in file.inputs
            if panel.on in (name, BOTH, "")
        }
        curve["mean"] = {side: _mean(curve[side][1:]) for side in SIDES}
        curves.append({"file": file.label.removesuffix(".nav"), **curve})
    levels = [c.on if panel.kind == "missing" else c.level for c in panel.conditions]
    return {
        "kind": panel.kind,
        "on": panel.on,
        "unit": UNITS[panel.kind],
        "levels": [None, *levels],
        "curves": curves,
    }
