"""Answers of a study that was killed: kept, taken up, and dropped where they belong to another."""

from __future__ import annotations

import pytest

from neuroav.errors import DataError, ExecutorError
from neuroav.simulate import resolve_deployment
from neuroav.studies import robustness, robustness_plot
from neuroav.studies.partial import kept

REQUEST = {"seed": 0}


def fill(path, *answers, request=REQUEST, error=KeyboardInterrupt):
    """Keep answers in a block that ends in ``error``."""
    try:
        with kept(path, request) as found:
            for key, answer in answers:
                found.add(key, answer)
            raise error
    except error:
        pass


def known(path, *keys, request=REQUEST):
    with kept(path, request) as found:
        return [found.get(key) for key in keys]


def test_answers_survive_an_interruption(tmp_path):
    path = tmp_path / "new" / "some.partial"
    fill(path, (["a", 0.1], {"x": 1 / 3}), (["b", 2.0], {"x": None}))
    fill(path, (["c"], 3))
    assert known(path, ["a", 0.1], ["b", 2.0], ["c"], ["d"]) == [{"x": 1 / 3}, {"x": None}, 3, None]


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_a_line_that_was_cut_is_dropped(tmp_path, cut):
    path = tmp_path / "some.partial"
    fill(path, ("a", 1), ("b", 234567))
    path.write_bytes(path.read_bytes()[:-cut])
    assert known(path, "a", "b") == [1, 234567 if cut == 1 else None]  # only its end of line
    assert known(path, "a") == [1]


def test_answers_of_another_request_are_dropped(tmp_path):
    path = tmp_path / "some.partial"
    fill(path, ("a", 1))
    assert known(path, "a", request={"seed": 1}) == [None]
    path.write_bytes(b"\xff\x00 no text")
    assert known(path, "a") == [None]


def test_an_expected_error_leaves_nothing_but_lost_workers_do(tmp_path):
    path = tmp_path / "new" / "some.partial"
    fill(path, ("a", 1), error=ExecutorError)
    assert known(path, "a") == [1]
    fill(path, ("b", 1), error=DataError)
    assert not path.exists()
    path.parent.rmdir()
    fill(path, ("b", 1), error=DataError)
    assert not path.parent.exists()


def test_a_killed_study_repeats_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(robustness_plot, "robustness_figure", lambda *_: [])
    tiny = resolve_deployment("shipped:tiny.nav")
    options = {"kinds": ["noise", "missing"], "split": "probe", "cache_dir": tmp_path}
    whole = robustness.run_robustness([tiny], tmp_path / "whole", **options)
    asked = []
    real = robustness.disturbed

    def disturbed(deployment, data, condition, seed):
        if len(asked) == 6:
            raise KeyboardInterrupt
        asked.append(condition)
        return real(deployment, data, condition, seed)

    monkeypatch.setattr(robustness, "disturbed", disturbed)
    with pytest.raises(KeyboardInterrupt):
        robustness.run_robustness([tiny], tmp_path / "killed", **options)
    assert [p.name for p in (tmp_path / "killed").iterdir()] == [robustness.PARTIAL]
    first = asked.copy()
    asked[:] = [None] * 7  # from here on none is interrupted
    found = robustness.run_robustness([tiny], tmp_path / "killed", **options)
    assert found["panels"]
    assert found == whole
    assert not (tmp_path / "killed" / robustness.PARTIAL).exists()
    conditions = 1 + sum(len(panel["levels"]) - 1 for panel in whole["panels"])
    assert len(first) == 6
    assert len(asked) - 7 == conditions - 6
    assert not set(first) & set(asked)
