"""Lava's process models give the same with Lava's runtime and in one OS process without it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from strategies_intgraph import make_deployment, random_deployment

from neuroav import integer as ig
from neuroav.errors import ConfigError, OutOfRange
from neuroav.sim import lava, reference
from neuroav.sim.lava.copies import side_by_side
from neuroav.simulate import executor

pytestmark = pytest.mark.lava

ENGINES = ("runtime", "inline")


@pytest.fixture(scope="module")
def jobs(networks):
    """Hand-made networks with all kinds and difficult values, and random ones.

    Without loops, which only Lava's runtime can run: ``test_lava_executor.py``.
    """
    names = ("every kind, 3 steps", "attention, 3 steps", "fusion, 3 steps", "decays", "identities")
    sizes = [(seed, 1 + seed % 6, (1, 3, 5, 8)[seed % 4]) for seed in range(100, 106)]
    made = {
        f"random {seed}": random_deployment(seed, hidden=hidden, steps=steps, samples=3, lags=False)
        for seed, hidden, steps in sizes
    }
    return {name: networks[name] for name in names} | made


@pytest.fixture(scope="module")
def expected(jobs):
    return {name: list(reference.run(*job, states=True)) for name, job in jobs.items()}


@pytest.fixture(scope="module")
def by_engine(jobs):
    """Traces by engine and network; copies of two samples: the third is alone in its round."""
    return {
        engine: dict(
            zip(
                jobs,
                lava.trace_many(list(jobs.values()), batch=2, states=True, engine=engine),
                strict=True,
            )
        )
        for engine in ENGINES
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_every_output_and_voltage_is_the_references(jobs, expected, by_engine, engine):
    kinds, voltages = set(), 0
    for name, (deployment, _) in jobs.items():
        found, traces = by_engine[engine][name], expected[name]
        assert found.samples == sum(t.samples for t in traces)
        for node, pop in deployment.integer.populations.items():
            value = np.concatenate([t.outputs[node] for t in traces])
            assert value.any() or isinstance(pop, ig.IntReadout), (name, node)
            assert np.array_equal(found.outputs[node], value), (name, node)
            kinds.add(type(pop))
        lifs = {n for n, p in deployment.integer.populations.items() if isinstance(p, ig.IntLif)}
        assert set(found.states) == lifs
        for node in lifs:
            value = np.concatenate([t.states[node] for t in traces])
            assert np.array_equal(found.states[node], value), (name, node)
            voltages += np.count_nonzero(value)
    assert kinds == set(ig.POPULATION_CLASSES) - {ig.IntHostCurrent}
    assert voltages > 4000


def test_both_engines_agree_with_each_other(jobs, by_engine):
    for name in jobs:
        first, second = (by_engine[engine][name] for engine in ENGINES)
        assert list(first.outputs) == list(second.outputs)
        for node, value in first.outputs.items():
            assert np.array_equal(value, second.outputs[node])
        for node, value in first.states.items():
            assert np.array_equal(value, second.states[node])


@pytest.mark.parametrize("batch", [0, 1, 3, 5, 9])
def test_samples_side_by_side_are_samples_one_after_another(batch):
    """Also where the last round is not full, and where every sample has its copy."""
    deployment, inputs = random_deployment(117, hidden=5, steps=5, samples=5)
    assert any(isinstance(p, ig.IntLif) for p in deployment.integer.populations.values())
    traces = list(lava.run(deployment, inputs, batch=batch, engine="inline"))
    assert [t.samples for t in traces] == {1: [1] * 5, 3: [3, 2]}.get(batch, [5])
    wanted = list(reference.run(deployment, inputs))
    for node in deployment.integer.order:
        value = np.concatenate([t.outputs[node] for t in wanted])
        assert value.any()
        assert np.array_equal(np.concatenate([t.outputs[node] for t in traces]), value), node


def test_copies_are_bounded_by_samples_batch_and_memory():
    def copies(outputs: int, samples: int, conv: str = "matmul", batch: int = 0) -> int:
        weights = (ig.IntDense("in", 0, np.full((outputs, 1024), 2), 8, "mixed"),)
        populations = {
            "in": ig.IntInput((1024,), (), 1),
            "out": ig.IntReadout((outputs,), weights, np.array([0])),
        }
        graph = make_deployment(populations, "out", 1).integer
        return side_by_side(graph, samples, conv, batch)

    assert [copies(4, n) for n in (1, 5, 32, 1000)] == [1, 5, 16, 16]
    assert [copies(4, 1000, batch=b) for b in (1, 7, 200)] == [1, 7, 32]  # 32^2 of 4096 weights
    assert [copies(n, 1000) for n in (16, 256, 4096)] == [16, 4, 1]
    assert copies(4, 1000, conv="stock", batch=9) == 1


def test_the_backend_of_the_command_line_is_the_inline_engine(small_network):
    reports: list[tuple[int, int]] = []
    deployment, inputs = small_network(40)
    traces = executor("lava-inline")(
        deployment, inputs, progress=lambda *report: reports.append(report)
    )
    found = np.concatenate([t.outputs["edges"] for t in traces])
    wanted = [t.outputs["edges"] for t in executor("fast")(deployment, inputs)]
    assert found.any()
    assert np.array_equal(found, np.concatenate(wanted))
    assert reports[-1] == (40, 40)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_value_out_of_its_range_is_the_same_error(engine):
    weights = (ig.IntDense("in", 0, np.full((2, 300), 254), 8, "excitatory"),)
    populations = {
        "in": ig.IntInput((300,), (), 255),
        "layer": ig.IntSum((2,), weights),
        "end": ig.IntReadout((2,), (ig.IntIdentity("layer", 0, 1),), np.array(0)),
    }
    deployment = make_deployment(populations, "end", 3)
    counts = np.zeros((2, 3, 300), int)
    counts[1, 2] = 200
    with pytest.raises(OutOfRange) as wanted:
        list(reference.run(deployment, {"in": counts}))
    with pytest.raises(OutOfRange, match=re.escape(str(wanted.value))):
        list(lava.run(deployment, {"in": counts}, engine=engine))


def test_an_unknown_engine_is_refused(small_network):
    with pytest.raises(ConfigError, match="unknown engine 'inlin'.*did you mean 'inline'"):
        list(lava.run(*small_network(1), engine="inlin"))


# --- failures of the inline engine, in Lava networks with a process that fails -------------------
FAULTS = {
    "raise": r"'culprit raise' failed: ZeroDivisionError: deliberate\n.*run_spk",
    "raise late": r"'culprit raise late' failed: ZeroDivisionError: after sending\n.*run_spk",
    "shape": r"'culprit shape' failed: AssertionError: .*Mismatch",
    "sleep": r"no progress for 2 s after step 4: Lava process 'culprit sleep' is busy .*run_spk",
    "spin": r"no progress for 2 s after step 4: Lava process 'culprit spin' is busy .*run_spk",
    "construction": r"'culprit construction' failed: ValueError: no such weights",
    "silent": r"'recorder 0' failed: RuntimeError: it waits for a message that nobody has sent",
    "cycle": r"wait for each other cannot run inline: '(a|b)' -> '(a|b)' -> '\1'; .*'runtime'",
    "variables": r"'reader' cannot run inline: .*variables can; use the engine 'runtime'",
    "learning": r"'culprit learning' failed: .*more than the spiking phase; use the engine",
}


@pytest.fixture(scope="module")
def outcomes(script, tmp_path_factory):
    output = script(
        str(Path(__file__).parent / "run_faulty.py"),
        str(tmp_path_factory.mktemp("faulty")),
        "inline",
        "none",
        "long",
        *FAULTS,
    )
    lines = re.findall(r"^OUTCOME (.*)$", output, re.MULTILINE)
    return {outcome["fault"]: outcome for outcome in map(json.loads, lines)}


@pytest.mark.parametrize("fault", FAULTS)
def test_inline_failures_name_the_process(outcomes, fault):
    outcome = outcomes[fault]
    assert outcome["error"] == "ExecutorError"
    assert re.search(FAULTS[fault], outcome["message"], re.DOTALL), outcome["message"]
    assert outcome["seconds"] < 15


def test_inline_has_no_children_and_no_shared_memory(outcomes):
    assert outcomes["none"]["error"] == ""
    assert outcomes["none"]["rows"][19] == [19, 39, 59]
    assert {(o["children"], o["segments"]) for o in outcomes.values()} == {(0, 0)}


def test_long_chains_need_no_deep_calls(outcomes):
    """Lava's own compiler ends at about 900 processes in a row."""
    assert outcomes["long"]["error"] == ""
    assert outcomes["long"]["rows"][6:] == [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(14)]
