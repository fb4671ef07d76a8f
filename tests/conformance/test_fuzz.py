"""benchmarks/fuzz.py counts what it ran, goes on where it stopped, and keeps what differs."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from samples import ROOT, load_script

from neuroav import integer as ig
from neuroav import navfile
from neuroav.cli.group import cli
from neuroav.errors import OutOfRange
from neuroav.sim import fast

fuzz = load_script(ROOT / "benchmarks" / "fuzz.py")
real_run = fast.run


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(fuzz, "CHUNK", 4)


def call(out, *arguments):
    """Return (exit code, summary) of a run."""
    code = fuzz.main(["--out", str(out), "--seed", "3", *map(str, arguments)])
    return code, json.loads((out / "summary.json").read_text())


def easier(deployment, inputs, **options):
    """The fast executor, wrong: every neuron fires one unit of threshold too early."""
    graph = deployment.integer
    changed = {
        n: replace(p, threshold=p.threshold - 1) if isinstance(p, ig.IntLif) else p
        for n, p in graph.populations.items()
    }
    altered = replace(deployment, integer=replace(graph, populations=changed))
    yield from real_run(altered, inputs, **options)


def test_summary_of_a_run_with_lava(tmp_path):
    code, found = call(tmp_path, "--graphs", 10, "--lava", 3)
    assert code == 0
    assert found["differences"] == []
    assert (found["graphs"], found["compared_with_fast"], found["compared_with_lava"]) == (
        10,
        10,
        3,
    )
    assert found["nodes"]["IntInput"] == 20
    assert found["nodes"]["IntReadout"] == 10
    assert set(found["nodes"]) == {c.__name__ for c in ig.POPULATION_CLASSES}
    assert found["projections"]["IntDense"] >= 10
    assert 0 < found["neurons"]["min"] < found["neurons"]["median"] < found["neurons"]["max"]
    assert 0 < found["messages"] < found["outputs"]
    assert sum(found["rates"].values()) == found["spiking_populations"] > 10
    assert 0 <= found["silent_share"] < 0.5
    assert len(found["inputs"]) > 2
    page = (tmp_path / "summary.md").read_text()
    assert "| compared with lava (outputs) | 3 |" in page


def test_a_stopped_run_goes_on_to_the_same_summary(tmp_path, monkeypatch, capsys):
    _, whole = call(tmp_path / "whole", "--graphs", 10, "--lava", 0)
    _, part = call(tmp_path / "parts", "--graphs", 10, "--lava", 0, "--minutes", 1e-9)
    assert part["graphs"] == 0
    drawn, draw = [], fuzz.draw
    monkeypatch.setattr(fuzz, "draw", lambda seed, n: drawn.append(n) or draw(seed, n))
    call(tmp_path / "parts", "--graphs", 4, "--lava", 0)
    _, found = call(tmp_path / "parts", "--graphs", 10, "--lava", 0)
    assert drawn == list(range(10))  # none twice
    assert found | {"seconds": 0} == whole | {"seconds": 0}
    with pytest.raises(SystemExit):
        fuzz.main(["--out", str(tmp_path / "parts"), "--seed", "4", "--lava", "0"])
    assert "--seed 3 --lava 0, asked for are --seed 4" in capsys.readouterr().err


def test_two_processes_run_the_same_graphs(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")  # where they find the script
    one, two = (
        call(tmp_path / jobs, "--graphs", 10, "--lava", 0, "--jobs", jobs)[1] for jobs in "12"
    )
    assert one | {"seconds": 0} == two | {"seconds": 0}


def test_a_difference_is_found_kept_and_reproduced(tmp_path, monkeypatch):
    monkeypatch.setattr(fast, "run", easier)
    code, found = call(tmp_path, "--graphs", 16, "--lava", 0)
    assert code == 1
    assert found["differences"]
    kept = [d for d in found["differences"] if "differ first in" in d["first"]]
    paths = [tmp_path / "failures" / d["file"] for d in kept]
    told = {path: path.with_suffix(".txt").read_text() for path in paths}
    path, text = next((p, t) for p, t in told.items() if '"cause": "threshold"' in t)
    assert f"neuroav verify {path} --backends reference,fast" in text
    number = int(path.name.split("-")[1])
    probe, case = navfile.load(path).probe, fuzz.draw(3, number)
    assert all(np.array_equal(probe.inputs[n], v) for n, v in case.inputs.items())
    verify = ["verify", str(path), "--backends", "reference,fast"]
    assert CliRunner().invoke(cli, verify).exit_code == 1
    monkeypatch.setattr(fast, "run", real_run)
    assert CliRunner().invoke(cli, verify).exit_code == 0
    code, again = call(tmp_path, "--graphs", 16, "--lava", 0)  # remembered, not run again
    assert (code, again["differences"]) == (1, found["differences"])


def refusing(deployment, inputs, **options):
    raise OutOfRange("p0: the synaptic current reached 8388608")


def crashing(deployment, inputs, **options):
    raise ZeroDivisionError("division by zero")


def quiet(deployment, inputs, **options):
    """Right outputs, wrong voltages."""
    for trace in real_run(deployment, inputs, **options):
        yield replace(trace, states={n: v + 1 for n, v in trace.states.items()})


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (refusing, "reference ran; fast raised OutOfRange: p0: the synaptic current"),
        (crashing, "reference ran; fast raised ZeroDivisionError: division by zero"),
        (quiet, "reference and fast have equal outputs; v("),
    ],
)
def test_errors_and_voltages_differ_too(tmp_path, monkeypatch, run, text):
    monkeypatch.setattr(fast, "run", run)
    code, found = call(tmp_path, "--graphs", 8, "--lava", 0)
    assert code == 1
    assert any(d["first"].startswith(text) for d in found["differences"])
