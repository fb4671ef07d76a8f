"""Progress: bars on a terminal, a line now and then elsewhere, always on stderr."""

from __future__ import annotations

import pytest

from neuroav.cli import progress
from neuroav.cli.progress import Reporter


def test_nothing_is_printed_for_short_work(capsys):
    with Reporter() as report:
        for done in range(100):
            report("training", done, 100)
    assert capsys.readouterr() == ("", "")


def test_long_work_prints_a_line_now_and_then(capsys, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock) * 1.5)
    with Reporter() as report:
        for done in range(40):
            report("training, loss 0.3", done, 40)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == "neuroav: training, loss 0.3 6/40"
    assert 3 <= len(err.splitlines()) <= 8


def test_terminal_gets_bars_on_stderr(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with Reporter() as report:
        report("reading", 1, 2)
        report("training, loss 0.9", 1, 3)
        report("training, loss 0.3", 3, 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert "reading" in err
    assert "loss 0.3" in err
    assert "3/3" in err


def test_stage_whose_detail_changes_keeps_its_bar(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Reporter() as report:
        report("training, loss 0.9", 1, 3)
        report("training, loss 0.3", 2, 3)
        assert list(report._tasks) == ["training"]


def test_bars_are_cleared_when_the_work_fails(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    report = Reporter()

    def work() -> None:
        with report:
            report("training", 1, 3)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    assert report._bars is None
