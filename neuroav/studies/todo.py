"""Which combinations of a sweep are still to run, kept by Optuna in a file that survives a kill."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import GridSampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from neuroav.errors import ConfigError
from neuroav.studies.grid import Value

STORAGE = "study.db"


class _Grid(GridSampler):
    """Optuna's grid, which would call ``study.stop`` after its last point: nobody asks further."""

    def after_trial(self, study, trial, state, values) -> None:
        """Do nothing."""


class Todo:
    """The combinations of one study that no earlier call finished.

    space: swept key -> its values. A combination is given out once per call of the sweep; one that
    failed, or was cut off, is given out again by the next call.
    """

    def __init__(self, storage: RDBStorage, name: str, space: Mapping[str, Sequence[Value]]):
        self._study = optuna.create_study(
            study_name=name, storage=storage, sampler=_Grid(space, seed=0), direction="maximize",
            load_if_exists=True,
        )  # fmt: skip
        self._keys = list(space)
        self._axes = {k: CategoricalDistribution(tuple(v)) for k, v in space.items()}
        trials = self._study.get_trials(deepcopy=False)
        self._done = {self._point(t.params) for t in trials if t.state == TrialState.COMPLETE}
        self._given: set[tuple] = set()
        self._resumed = bool(trials)
        for trial in trials:
            if trial.state == TrialState.RUNNING:  # of a call that was killed: one runs at a time
                self._study.tell(trial.number, state=TrialState.FAIL)

    def _point(self, params: Mapping[str, Value]) -> tuple[Value, ...]:
        return tuple(params[key] for key in self._keys)

    def finished(self, values: Mapping[str, Value]) -> bool:
        """Return whether an earlier call finished the combination."""
        return self._point(values) in self._done

    def take(self, todo: Sequence[Mapping[str, Value]]) -> Iterator[tuple[int, tuple[Value, ...]]]:
        """Yield (number, values in the order of the keys) until everything in ``todo`` was given.

        In a new study Optuna's grid chooses the order; it deals its first points without looking
        and takes failed ones for done, so a study taken up again is told what comes next.
        """
        left = [self._point(values) for values in todo]
        while left:
            if self._resumed:
                self._study.enqueue_trial(dict(zip(self._keys, left[0], strict=True)))
            trial = self._study.ask(dict(self._axes))
            point = self._point(trial.params)
            if point in left:
                left.remove(point)
                yield trial.number, point
            else:  # queued by a call that was killed before it took it
                self._study.tell(trial.number, state=TrialState.FAIL)

    def finish(self, number: int, value: float | None) -> None:
        """Note the validation accuracy of a combination, or None where it failed."""
        if value is None:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, value)


@contextmanager
def open_storage(folder: Path) -> Iterator[RDBStorage]:
    """Yield the storage inside ``folder``, which no other sweep may be using (ConfigError)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / STORAGE).absolute()
    if "?" in str(path):
        raise ConfigError(f"{folder}: a '?' in the path cannot be stored; choose another --out")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lock = os.open(folder, os.O_RDONLY)  # of the folder itself: the system frees it with us
    try:
        _lock(lock, folder)
        storage = RDBStorage(f"sqlite:///{path}")
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()
    finally:
        os.close(lock)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigError(
            f"{folder}: another sweep is running in this folder; wait for it or choose another one"
        ) from None
