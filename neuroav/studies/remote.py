"""Runs of a sweep on the workers of Ray.

Workers of this machine write the run folders themselves, so one that is killed goes on from the
last epoch it finished. Workers of a cluster share no files with this machine: what a run folder
holds is sent to them, with the weights to start from, and what it holds in the end comes back;
there a run whose worker is lost starts again from what was sent. Data sets are read, or prepared,
on the worker's machine at the same paths as here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from neuroav.errors import NeuroavError
from neuroav.files import written_whole
from neuroav.studies.cluster import Cluster
from neuroav.studies.onerun import Task

_INITIAL = "initial-weights"  # what a sent task starts from, with the suffix of the file


@dataclass(frozen=True, eq=False)
class SentTask:
    """A task with the files of its run folder, and the weights it starts from."""

    task: Task
    files: dict[str, bytes]
    initial: bytes | None


def on_workers(
    own: Cluster, work: Callable[[Task], dict[str, Any]], tasks: Iterable[Task]
) -> Iterator[tuple[Task, Any]]:
    """Yield every task with ``work(task)``, or its expected error, as they finish."""
    if own.here:
        yield from own.as_finished(work, map(_absolute, tasks), lambda _: ())
        return
    for sent, result in own.as_finished(_Remote(work), map(_sent, tasks), lambda _: ()):
        if not isinstance(result, NeuroavError):
            result, files = result
            _write(sent.task.run, files)
        yield sent.task, result


def _absolute(task: Task) -> Task:
    """Return the task with whole paths: workers have working folders of their own."""
    root, initial = task.data_root, task.init_from
    return replace(
        task,
        run=task.run.absolute(),
        cache_dir=task.cache_dir.absolute(),
        data_root=root and root.absolute(),
        init_from=initial and initial.absolute(),
    )


def _sent(task: Task) -> SentTask:
    initial = task.init_from.read_bytes() if task.init_from else None
    return SentTask(_absolute(task), _read(task.run), initial)


@dataclass(frozen=True)
class _Remote:
    """Does ``work`` in a temporary run folder; called with a SentTask on the worker."""

    work: Callable[[Task], dict[str, Any]]

    def __call__(self, sent: SentTask) -> tuple[dict[str, Any], dict[str, bytes]]:
        with tempfile.TemporaryDirectory() as folder:
            run, initial = Path(folder) / sent.task.run.name, sent.task.init_from
            if initial is not None and sent.initial is not None:
                initial = Path(folder) / f"{_INITIAL}{initial.suffix}"
                initial.write_bytes(sent.initial)
            if sent.files:
                _write(run, sent.files)
            row = self.work(replace(sent.task, run=run, init_from=initial))
            return row, _read(run)


def _read(run: Path) -> dict[str, bytes]:
    """Return the files of a run folder by name, none where there is none."""
    return {p.name: p.read_bytes() for p in sorted(run.glob("*")) if p.is_file()}


def _write(run: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        with written_whole(run / name) as part:
            part.write_bytes(content)
