"""What a study still has to run: everything once, across kills, and what failed once more."""

from __future__ import annotations

import itertools

import pytest

from neuroav.errors import ConfigError
from neuroav.studies.todo import Todo, open_storage

SPACE = {"scmrl.alpha": [0.0, 0.5, 1.5], "train.seed": [0, 1], "model.name": ["add"]}
ALL = [dict(zip(SPACE, point, strict=True)) for point in itertools.product(*SPACE.values())]


def points(values):
    return [tuple(v.values()) for v in values]


def test_everything_once_then_nothing(tmp_path):
    with open_storage(tmp_path) as storage:
        todo = Todo(storage, "s", SPACE)
        given = []
        for number, point in todo.take(ALL):
            given.append(point)
            todo.finish(number, 0.5)
        assert sorted(given) == sorted(points(ALL))
    with open_storage(tmp_path) as storage:
        assert all(Todo(storage, "s", SPACE).finished(values) for values in ALL)


def test_two_kills_and_a_failure(tmp_path):
    finished = set()
    for stop in (2, 1, None):
        with open_storage(tmp_path) as storage:
            todo = Todo(storage, "s", SPACE)
            assert {tuple(v.values()) for v in ALL if todo.finished(v)} == finished
            left = [v for v in ALL if not todo.finished(v)]
            given = []
            for count, (number, point) in enumerate(todo.take(left)):
                given.append(point)
                if count == stop:
                    break  # taken, never finished: as after a kill
                if stop == 2 and count == 0:
                    todo.finish(number, None)
                else:
                    todo.finish(number, 0.1 * count)
                    finished.add(point)
            assert len(set(given)) == len(given)
            if stop is None:
                assert sorted(given) == sorted(points(left))
    assert finished == set(points(ALL))


def test_another_grid_is_another_study(tmp_path):
    wider = {**SPACE, "scmrl.alpha": [0.0, 0.5, 1.5, 2.0]}
    with open_storage(tmp_path) as storage:
        todo = Todo(storage, "s", SPACE)
        for number, _ in todo.take(ALL[:1]):
            todo.finish(number, 1.0)
        assert not any(Todo(storage, "t", wider).finished(v) for v in ALL)


def test_one_sweep_at_a_time(tmp_path):
    with open_storage(tmp_path), pytest.raises(ConfigError, match="another sweep is running"):
        open_storage(tmp_path).__enter__()
    with open_storage(tmp_path):
        pass


def test_a_path_that_sqlite_would_misread(tmp_path):
    with pytest.raises(ConfigError, match="cannot be stored"), open_storage(tmp_path / "a?b"):
        pass
