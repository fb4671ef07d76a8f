"""Sweeps: train, measure and deploy every combination of configuration values; resume; sum up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroav.errors import ConfigError, NeuroavError, ProfileError
from neuroav.files import written_whole
from neuroav.hardware import load_profile
from neuroav.models import build_model, check_model_name
from neuroav.quantization import Options
from neuroav.simulate import Progress
from neuroav.studies import summary
from neuroav.studies.cluster import Workers, cluster
from neuroav.studies.grid import FLOAT, Combination, check_folder, combinations
from neuroav.studies.onerun import Task, carry_out_task, finished_row
from neuroav.studies.parallel import carry_out
from neuroav.studies.remote import on_workers
from neuroav.studies.sweep_plot import sweep_figure
from neuroav.studies.todo import Todo, open_storage
from neuroav.training.batches import check_kinds, input_shapes, load_data
from neuroav.training.config import ZERO_SHOT, DataConfig

if TYPE_CHECKING:
    from neuroav.data import AVData

FILES = ("results.json", "results.csv", "sweep.svg", "sweep.png")
DEPLOYED = "deployed"


def run_sweep(
    over: Mapping[str, Sequence[str]],
    out: Path,
    *,
    model: str | None = None,
    data: str | None = None,
    file: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    deploy: bool = True,
    export_bits: Sequence[int] = (),
    target: str = "loihi2",
    init_from: Path | None = None,
    jobs: int = 1,
    workers: Workers | None = None,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run every combination of ``over`` that ``out`` does not hold yet; return results.json's text.

    over: dotted configuration key -> texts of its values; model, data, file, overrides: the rest of
    the configuration, as ``load_config`` takes it. export_bits: weight widths to deploy at, by
    default one deployment as trained, else with 8 bits. jobs: processes, each of ``train.threads``
    threads; workers: of Ray, instead of jobs. A combination that fails is noted with its error and
    the others go on. Raises ConfigError before anything is trained where a key, value, model, data
    set, profile or folder does not fit, and the errors of preparing the data.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file, a sweep needs a folder; choose another --out")
    found = combinations(over, model=model, data=data, file=file, overrides=overrides)
    sides = _sides(deploy, export_bits)
    places: dict[str, Any] = {"cache_dir": cache_dir, "data_root": data_root}
    _check_target(target, sides)
    _check_runs(found, out, init_from)
    _check_models(found, partial(load_data, progress=progress, **places))
    tasks = {
        c.name: Task(out / c.name, c.config, sides, target, init_from=init_from, **places)
        for c in found
    }
    with open_storage(out) as storage:
        space = {key: list(dict.fromkeys(c.values[key] for c in found)) for key in over}
        todo = Todo(storage, _study_name(space, sides, target), space)
        by_name = {c.name: c for c in found}
        rows = {name: _base(c) | {"state": "waiting"} for name, c in by_name.items()}
        here = jobs == 1 and workers is None
        work = partial(carry_out_task, progress=progress if here else None)
        with _carrying(work, jobs, workers) as carry:
            for done, (name, row) in enumerate(_results(found, tasks, todo, carry), 1):
                rows[name] = _base(by_name[name]) | row
                if progress:
                    progress(f"sweep, {name} {row['state']}", done, len(found))
                results = _results_object(list(rows.values()), list(over), sides)
                _write_tables(out, results)
        return _with_figure(out, results)


@contextmanager
def _carrying(
    work: Callable[..., Any], jobs: int, workers: Workers | None
) -> Iterator[Callable[[Iterable[Task]], Iterator[tuple[Task, Any]]]]:
    """Yield what carries out tasks: in this process, in several, or on workers."""
    if workers is None:
        yield lambda tasks: carry_out(work, tasks, jobs)
        return
    with cluster(workers) as own:
        yield partial(on_workers, own, work)


# --- what would only fail hours later ----------------------------------------------------------
def _check_target(target: str, sides: Mapping[str, int | None]) -> None:
    profile = load_profile(target)
    if sides and not profile.deployable:
        raise ProfileError(f"{profile.not_ours()}; choose another --target, or --no-deploy")
    for bits in sides.values():
        Options(bits or 8).check(profile.arithmetic)


def _check_runs(found: Sequence[Combination], out: Path, init_from: Path | None) -> None:
    for one in found:
        check_folder(out / one.name, one.config)
        if one.config.quant.aware and init_from is None:
            raise ConfigError(
                "quantization-aware training starts from a trained float network: give its "
                "weights, --init-from RUN/model.safetensors"
            )


def _check_models(found: Sequence[Combination], load: Callable[[DataConfig], AVData]) -> None:
    """Prepare every data set (once, not by all processes at a time) and build every network."""
    for one in found:
        check_model_name(one.config.model.name)
        if one.config.model.name in ZERO_SHOT:
            raise ConfigError(
                f"combination {one.name}: {one.config.model.name} is a zero-shot network, and a "
                "sweep chooses by accuracy on validation, which its second stage trains on; train "
                "the combinations one by one and compare val_hm in metrics.json"
            )
        check_kinds(one.config.model.name, one.config.data.name)
    for wanted in dict.fromkeys(c.config.data for c in found):
        data = load(wanted)
        shapes = input_shapes(data.split("val").frames(np.arange(1)))
        for one in (c for c in found if c.config.data == wanted):
            try:
                build_model(one.config.model, shapes, len(data.classes), one.config.scmrl)
            except NeuroavError as error:
                raise ConfigError(f"combination {one.name}: {error}") from None


def _sides(deploy: bool, export_bits: Sequence[int]) -> dict[str, int | None]:
    """Return name -> weight width of every deployment."""
    if not deploy:
        return {}
    return {f"{DEPLOYED} {bits} bits": bits for bits in export_bits} or {DEPLOYED: None}


def _study_name(space: Mapping[str, Sequence], sides: Mapping[str, Any], target: str) -> str:
    """Return a name that differs wherever a finished combination would have to be done again."""
    key = json.dumps([space, sides, target])
    return f"{'-'.join(space)}-{sha256(key.encode()).hexdigest()[:12]}"


def _base(one: Combination) -> dict[str, Any]:
    return {"name": one.name, "values": dict(one.values)}


def _results(
    found: Sequence[Combination], tasks: Mapping[str, Task], todo: Todo, carry: Callable[..., Any]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name, row) of every combination: first what is finished, then as they finish."""
    by_values = {tuple(c.values.values()): c.name for c in found}
    left = []
    for one in found:
        row = finished_row(tasks[one.name]) if todo.finished(one.values) else None
        if row is None:
            left.append(one.values)
        else:
            yield one.name, {"state": "finished", **row}
    numbers: dict[str, int] = {}

    def wanted() -> Iterator[Task]:
        for number, values in todo.take(left):
            name = by_values[values]
            numbers[name] = number
            yield tasks[name]

    for task, result in carry(wanted()):
        if isinstance(result, NeuroavError):
            todo.finish(numbers[task.run.name], None)
            yield task.run.name, {"state": "failed", "error": str(result)}
        else:
            todo.finish(numbers[task.run.name], result["sides"][FLOAT]["val"])
            yield task.run.name, {"state": "finished", **result}


def _results_object(
    rows: Sequence[Mapping[str, Any]], keys: list[str], sides: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what results.json holds."""
    found = summary.groups(rows)
    return {
        "keys": keys,
        "sides": [FLOAT, *sides],
        "combinations": len(rows),
        "finished": sum(row["state"] == "finished" for row in rows),
        "failed": sum(row["state"] == "failed" for row in rows),
        "best": summary.best(found),
        "groups": found,
        "rows": list(rows),
    }


def _write_tables(out: Path, results: Mapping[str, Any]) -> None:
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    for name, content in (("results.json", text), ("results.csv", summary.flat(results["rows"]))):
        with written_whole(out / name) as part:
            part.write_text(content, encoding="utf-8")


def _with_figure(out: Path, results: dict[str, Any]) -> dict[str, Any]:
    """Draw the figure if there is anything to draw; return the results."""
    if results["finished"]:
        sweep_figure(results, out)
    return results
