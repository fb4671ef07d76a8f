"""Robustness: trained networks under disturbances at test time, float and deployed.

Every file is run on the same samples under every disturbance; its real-valued twin and its integers
get the very same disturbed counts. What is studied are deployments rather than run folders, because
a FILE.nav holds both networks, its weight width and target, and a hash to tell which one it was; a
run folder holds no integers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from neuroav import __version__
from neuroav.errors import ConfigError, NeuroavError, OutOfRange, unknown_name
from neuroav.files import written_whole
from neuroav.report.build import wilson
from neuroav.report.format import labels
from neuroav.sim import fast, real
from neuroav.simulate import Progress, Samples, resolve_deployment
from neuroav.studies.cluster import Cluster, Workers, cluster
from neuroav.studies.conditions import BOTH, CLEAN, LEVELS, UNITS, Condition, disturbed
from neuroav.studies.parallel import carry_out
from neuroav.studies.partial import Kept, kept
from neuroav.studies.plots import COLOURS
from neuroav.studies.subjects import File, Panel, open_file, panels_of
from neuroav.studies.workers import own_recordings, received, sent_file

FILES = ("robustness.json", "robustness.svg", "robustness.png")
PARTIAL = "robustness.partial"
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
    workers: Workers | None = None,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure deployments under disturbances; write robustness.json, .svg and .png into ``out``.

    kinds: of 'noise', 'drop', 'jitter', 'missing', by default all that the data allow (drop and
    jitter need raw events, which the probe inside a file lacks). seed: of all disturbances; equal
    seeds give equal results whatever batch, jobs, workers and number of samples. workers: of Ray,
    instead of jobs; files and samples are sent to them. Returns what robustness.json holds
    (docs/studies.md). Until that is written, ``out`` holds the conditions that are done
    (``neuroav.studies.partial``), which the same call does not run again.
    Raises ConfigError, FileFormatError, DataError (files of different data), MissingDependency.
    """
    from neuroav.studies.robustness_plot import robustness_figure  # before hours of work

    out, names = Path(out), list(dict.fromkeys(map(str, paths)))
    _check(out, names, kinds, batch)
    places: dict[str, Any] = {"cache_dir": cache_dir, "data_root": data_root}
    opened = {
        name: open_file(resolve_deployment(name), label, split, samples, places, progress)
        for name, label in zip(names, labels(names), strict=True)
    }
    first = next(iter(opened.values()))
    for file in opened.values():
        file.check_same_samples(first)
    panels = panels_of(list(opened.values()), kinds)
    conditions = [CLEAN, *(c for panel in panels for c in panel.conditions)]
    files = {file.path: file for file in opened.values()}
    with kept(out / PARTIAL, _request(files.values(), seed)) as done:
        answers = _Answers(files, done, conditions, progress)
        answers.complete(
            lambda path, part: _Task(path, part, split, samples, seed, batch, **places),
            jobs,
            workers,
        )
        for file in opened.values():
            if refused := answers.found[file.path, CLEAN]["refused"]:
                raise OutOfRange(f"{file.label}: on undisturbed samples, {refused}")
    found = _results(list(opened.values()), panels, answers.found, seed)
    robustness_figure(found, out)
    with written_whole(out / FILES[0]) as part:
        part.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (out / PARTIAL).unlink(missing_ok=True)
    return found


def _request(files: Iterable[File], seed: int) -> dict[str, Any]:
    """Return what an answer depends on besides its file and condition."""
    data = next(iter(files)).data
    labels_hash = sha256(np.ascontiguousarray(data.labels).tobytes()).hexdigest()
    return {
        "version": __version__,
        "split": data.split,
        "samples": len(data),
        "labels": labels_hash,
        "seed": seed,
    }


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


def _parts(conditions: Sequence[Condition], jobs: int) -> list[tuple[Condition, ...]]:
    """Return the conditions dealt to ``jobs`` tasks, so that each gets of every kind."""
    return [tuple(conditions[i::jobs]) for i in range(min(jobs, len(conditions)))]


# --- running -----------------------------------------------------------------------------------
class _Answers:
    """What every file gives under every condition it feels. done: those of an earlier call."""

    def __init__(
        self,
        files: Mapping[Path, File],
        done: Kept,
        conditions: Sequence[Condition],
        progress: Progress | None,
    ) -> None:
        self._files, self._done, self._progress = files, done, progress
        self.found: dict[tuple[Path, Condition], dict[str, Any]] = {}
        self._left: dict[Path, list[Condition]] = {}
        for path, file in files.items():
            felt = list(dict.fromkeys(map(file.felt, conditions)))
            known = {c: done.get(self._key(path, c)) for c in felt}
            self.found |= {(path, c): answer for c, answer in known.items() if answer}
            self._left[path] = [c for c, answer in known.items() if not answer]
        self._total = len(self.found) + sum(map(len, self._left.values()))

    def _key(self, path: Path, condition: Condition) -> list[Any]:
        return [self._files[path].deployment.content_hash, *astuple(condition)]

    def _told(self, path: Path, condition: Condition, answer: dict[str, Any]) -> None:
        self.found[path, condition] = answer
        self._done.add(self._key(path, condition), answer)
        if self._progress:
            self._progress("disturbances", len(self.found), self._total)

    def complete(
        self,
        task: Callable[[Path, tuple[Condition, ...]], _Task],
        jobs: int,
        workers: Workers | None,
    ) -> None:
        """Run what is left in this process, in ``jobs`` processes, or on workers."""
        if workers is not None:
            with cluster(workers) as own:
                self._take(_on_workers(own, self._files, self._tasks(task, 4 * own.count)))
            return
        tasks = self._tasks(task, jobs)
        if jobs > 1:
            self._take(carry_out(_run, tasks, jobs))
            return
        for one in tasks:  # in this process, which can tell of every condition as it is done
            _run(one, partial(self._told, one.path))

    def _tasks(self, task, parts: int) -> list[_Task]:
        return [
            task(path, part)
            for path, conditions in self._left.items()
            for part in _parts(conditions, parts)
        ]

    def _take(self, results: Iterable[tuple[_Task, Any]]) -> None:
        for task, result in results:
            if isinstance(result, NeuroavError):
                raise result
            for condition, answer in result.items():
                self._told(task.path, condition, answer)


def _on_workers(
    own: Cluster, files: Mapping[Path, File], tasks: Sequence[_Task]
) -> Iterator[tuple[_Task, Any]]:
    """Run the tasks on workers, to which files and samples are sent once."""
    sent = {
        path: (
            own.share(sent_file(path)),
            file.deployment.content_hash,
            own.share(own_recordings(file.data)),
        )
        for path, file in files.items()
    }
    return own.as_finished(_run_sent, tasks, lambda task: sent[task.path])


def _run_sent(
    task: _Task, content: np.ndarray, content_hash: str, data: Samples
) -> dict[Condition, dict[str, Any]]:
    """Run the task's conditions on a worker."""
    return _run_file(File(task.path, "", received(content, content_hash), data), task, None)


def _run(
    task: _Task, told: Callable[[Condition, dict[str, Any]], None] | None = None
) -> dict[Condition, dict[str, Any]]:
    """Run one file under the task's conditions."""
    file = open_file(
        task.path, "", task.split, task.samples,
        {"cache_dir": task.cache_dir, "data_root": task.data_root}, None,
    )  # fmt: skip
    return _run_file(file, task, told)


def _run_file(
    file: File, task: _Task, told: Callable[[Condition, dict[str, Any]], None] | None
) -> dict[Condition, dict[str, Any]]:
    found: dict[Condition, dict[str, Any]] = {}
    for condition in task.conditions:
        given = disturbed(file.deployment, file.data, condition, task.seed)
        same = all(np.array_equal(given[n], file.data.inputs[n]) for n in given)
        known = found.get(CLEAN) if same else None  # weak noise, rounded away
        found[condition] = known or _ask(file, given, task.batch)
        if told:
            told(condition, found[condition])
    return found


def _ask(file: File, given: Mapping[str, np.ndarray], batch: int) -> dict[str, Any]:
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
    files: Sequence[File],
    panels: Sequence[Panel],
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


def _file_object(file: File, clean: Mapping[str, Any], samples: int) -> dict[str, Any]:
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
    panel: Panel,
    files: Sequence[File],
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
