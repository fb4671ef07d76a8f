"""SANA-FE replays our recorded spikes on our placement, and its counts and energies are ours."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from placements import random_placement
from strategies_intgraph import make_deployment, random_deployment

from neuroav import integer as ig
from neuroav.cli.group import cli
from neuroav.counts import Counter
from neuroav.errors import ConfigError, DataError, ExecutorError, MissingDependency, StageError
from neuroav.hardware import load_profile
from neuroav.loads import LoadCounter
from neuroav.placement import Core, Mesh, Placement, Slice, placed, verify_placement
from neuroav.sim import fast, reference
from neuroav.sim.sanafe import client, coefficients, compare, expected, parity
from neuroav.sim.sanafe.folder import write_folder
from neuroav.sim.sanafe.network import network
from neuroav.sim.sanafe.unroll import unroll
from neuroav.sim.trace import Trace, collect
from neuroav_export.writers import sanafe as writer

LOIHI1 = load_profile("loihi1-nahuku-fit")
ENERGY = coefficients(LOIHI1)
SEEDS = (1, 2, 3, 11, 12, 35, 70, 168)


def random_run(seed: int):
    """Return a random deployment, a placement on 4 chips, and what 2 samples do."""
    deployment, inputs = random_deployment(seed, hidden=5, steps=3, samples=2)
    placement = random_placement(deployment.integer, seed)
    return deployment, placement, collect(reference.run(deployment, inputs))


def row_by_row(graph: ig.IntGraph, mesh: Mesh, largest: int) -> Placement:
    """Return a placement: whole channels, at most ``largest`` neurons per core, row by row."""
    cores: list[Core] = []
    for name in placed(graph):
        shape = graph.populations[name].shape
        step = max(1, largest // int(np.prod(shape[1:])))
        for first in range(0, shape[0], step):
            box = ((first, min(first + step, shape[0])), *((0, size) for size in shape[1:]))
            router, slot = divmod(len(cores), mesh.cores_per_router)
            row, column = divmod(router, mesh.routers_x)
            cores.append(Core((Slice(name, box),), 0, column, row, slot))
    return verify_placement(graph, Placement("test", mesh, tuple(cores), 0))


def silence(graph: ig.IntGraph, samples: int = 1) -> dict[str, np.ndarray]:
    return {
        n: np.zeros((samples, graph.steps, *pop.shape), np.int32)
        for n, pop in graph.populations.items()
    }


def pair(steps: int, weight: np.ndarray):
    """Return input x -> a -> b -> scores, a to b by dense synapses."""
    size, none = weight.shape[1], np.zeros(1, np.int64)
    head = np.full((2, len(weight)), 2)
    lif = {
        "bias_mantissa": none,
        "bias_exponent": 0,
        "threshold": np.array([100]),
        "decay_u": 4095,
        "decay_v": 0,
    }
    return make_deployment(
        {
            "x": ig.IntInput((size,), (), 1),
            "a": ig.IntLif((size,), (ig.IntIdentity("x", 0, 2),), **lif),
            "b": ig.IntLif((len(weight),), (ig.IntDense("a", 0, weight, 8, "mixed"),), **lif),
            "scores": ig.IntReadout((2,), (ig.IntDense("b", 0, head, 8, "mixed"),), none),
        },
        "scores",
        steps,
        LOIHI1.id,
    )


# --- equal energies ------------------------------------------------------------------------------
def test_known_energies_of_a_dense_layer():
    # 1600 spikes meet 64 synapses each: 102400 x 35.5 pJ, 1600 messages x 111 pJ, 3 + 4.2 pJ a hop
    deployment = pair(100, np.full((64, 64), 2))
    graph, outputs = deployment.integer, silence(deployment.integer)
    outputs["a"][0, :, :16] = 1
    mesh = Mesh(3, 2, 1)
    seats = {"a": (0, 0), "b": (2, 1), "scores": (2, 0)}
    cores = tuple(
        Core((Slice(n, ((0, graph.populations[n].neurons),)),), 0, x, y, 0)
        for n, (x, y) in seats.items()
    )
    found = compare(deployment, Placement("test", mesh, cores, 0), outputs)
    assert found["equal"]
    assert found["sanafe"]["synapse_pj"] == pytest.approx(3.6352e6, rel=1e-12)
    assert found["sanafe"]["network_pj"] == pytest.approx(1600 * (111 + 2 * 3 + 4.2), rel=1e-12)
    soma = 103 * (64 + 64 + 2) * 72.8 + 1600 * 69.3
    assert found["sanafe"]["soma_pj"] == pytest.approx(soma, rel=1e-12)
    assert found["sanafe"]["hops"] == 1600 * 3


@pytest.mark.parametrize("seed", SEEDS)
def test_random_networks_have_equal_energies(seed):
    deployment, placement, outputs = random_run(seed)
    graph = deployment.integer
    found = compare(deployment, placement, outputs, costs=LOIHI1)
    ours = found["neuroav"]
    assert 0 < ours["fires"] < 0.9 * ours["updates"]
    assert ours["hops"] > 0
    assert found["equal"], found
    assert max(found["difference"].values()) < 1e-12
    attentions = [n for n in graph.order if isinstance(graph.populations[n], ig.ATTENTION_CLASSES)]
    assert list(found["left_out"]) == attentions


def test_random_networks_hold_every_kind_of_node():
    seen: set[type] = set()
    sinks = 0
    for seed in SEEDS:
        deployment, placement, _ = random_run(seed)
        graph = deployment.integer
        sinks += sum(not group.population for group in network(graph, placement).groups.values())
        for pop in graph.populations.values():
            seen |= {type(pop), *map(type, pop.projections)}
    assert seen == {*ig.POPULATION_CLASSES, *ig.PROJECTION_CLASSES} - {ig.IntHostCurrent}
    assert sinks > 0  # populations with synapses of several kinds


def test_three_convolutions_on_two_chips():
    rng, shapes = np.random.default_rng(1), [(2, 12, 12), (8, 12, 12), (16, 6, 6), (16, 6, 6)]
    populations: dict[str, ig.Population] = {"eye": ig.IntInput(shapes[0], (), 3)}
    names = ["eye", "conv0", "conv1", "conv2"]
    for name, source, before, shape in zip(names[1:], names, shapes, shapes[1:], strict=False):
        weight = rng.integers(-40, 90, (shape[0], before[0], 3, 3)) // 2 * 2
        weight[rng.random(weight.shape) < 0.3] = 0
        conv = ig.IntConv2d(
            source, 0, weight, (before[1] // shape[1],) * 2, (1, 1), (1, 1), 1, 8, "mixed"
        )
        populations[name] = ig.IntLif(
            shape, (conv,), np.zeros(1, np.int64), 0, np.array([400]), 4095, 1024
        )
    head = rng.integers(-50, 50, (4, 16 * 36)) * 2
    populations["head"] = ig.IntReadout(
        (4,), (ig.IntDense("conv2", 0, head, 8, "mixed"),), np.zeros(1, np.int64)
    )
    deployment = make_deployment(populations, "head", 6, LOIHI1.id)
    inputs = {"eye": rng.poisson(0.3, (2, 6, *shapes[0])).clip(0, 3).astype(np.int32)}
    outputs = collect(fast.run(deployment, inputs))
    for name in names[1:]:
        assert 0.01 < outputs[name].mean() < 0.9
    mesh = Mesh(2, 3, 1, chips_x=2)
    whole = row_by_row(deployment.integer, Mesh(4, 3, 1), 144 * 2)
    cores = tuple(dataclasses.replace(c, chip=c.x // 2, x=c.x % 2) for c in whole.cores)
    found = compare(deployment, Placement("test", mesh, cores, 0), outputs, timing="detailed")
    assert len(cores) > 6
    assert found["equal"], found
    assert found["difference"].keys() == {"synapse_pj", "soma_pj", "network_pj"}
    assert max(found["difference"].values()) < 1e-12
    assert 0 < found["step_ns"]["mean"] <= found["step_ns"]["max"]
    assert (found["timing"], found["unknown"], found["left_out"]) == ("detailed", [], {})


def test_a_core_with_more_neurons_than_a_model_of_sanafe_holds():
    deployment = pair(2, np.full((1, 2500), 2))
    graph, outputs = deployment.integer, silence(deployment.integer)
    outputs["x"][0, 0] = outputs["a"][0, 1] = outputs["b"][0, 1] = 1
    found = compare(deployment, row_by_row(graph, Mesh(3, 1, 1), 4096), outputs)
    assert found["equal"], found
    assert found["sanafe"]["synops"] == 2500 + 2500 + 2
    assert found["sanafe"]["fires"] == 2501


def test_currents_of_the_host_are_left_out():
    base = pair(2, np.full((2, 2), 2)).integer
    current = ig.IntHostCurrent((2,), (), 100)
    driven = dataclasses.replace(
        base.populations["b"],
        projections=(*base.populations["b"].projections, ig.IntIdentity("current", 1, 1)),
    )
    populations = base.populations | {"current": current, "b": driven}
    deployment = make_deployment(populations, "scores", 2, LOIHI1.id)
    outputs = silence(deployment.integer)
    outputs["a"][0, 0] = outputs["b"][0, 1] = 1
    outputs["current"] += 7
    found = compare(deployment, row_by_row(deployment.integer, Mesh(3, 1, 1), 2), outputs)
    assert found["equal"], found
    assert found["sanafe"]["synops"] == 4 + 4
    assert found["left_out"].keys() == {"current"}


# --- our side against the rest of the project ----------------------------------------------------
@pytest.mark.parametrize("seed", range(12))
def test_our_side_counts_what_the_loads_count(seed):
    deployment, placement, outputs = random_run(seed)
    graph = deployment.integer
    ours = expected(graph, placement, outputs, ENERGY)
    events, loads = Counter(graph), LoadCounter(graph, placement)
    for counter in (events, loads):
        counter.add(Trace(0, outputs))
    layers, synops = loads.loads().layers.values(), events.counts().synops
    assert ours.messages == sum(x.messages.sum() for x in layers) > 0
    assert ours.hops == sum((x.hops_x + x.hops_y).sum() for x in layers)
    assert ours.host_messages == sum(v.sum() for v in loads.loads().inputs.values())
    if not any(isinstance(p, ig.ATTENTION_CLASSES) for p in graph.populations.values()):
        assert ours.synops == sum(v.sum() for kinds in synops.values() for v in kinds.values())
        assert ours.fires == sum(events.counts().spikes[n].sum() for n in placed(graph))


@pytest.mark.parametrize("seed", range(20))
def test_unrolled_synapses_are_the_projection(seed):
    deployment, _ = random_deployment(seed, hidden=5, steps=1, samples=1)
    graph, rng = deployment.integer, np.random.default_rng(seed)
    for name in placed(graph):
        shape = graph.populations[name].shape
        for projection in graph.populations[name].projections:
            source = graph.populations[projection.source].shape
            sent = rng.integers(-9, 10, source)
            found = unroll(projection, source, shape)
            summed = np.zeros(int(np.prod(shape)), np.int64)
            np.add.at(summed, found.target, found.weight * sent.reshape(-1)[found.source])
            assert found.weight.all()
            assert np.array_equal(
                summed.reshape(shape), reference.synaptic_sum(projection, sent, shape)
            )


# --- what is not equal, not known, not there -----------------------------------------------------
@pytest.fixture(scope="module")
def small():
    deployment = pair(3, np.array([[2, 0, -4], [6, 8, 0]]))
    outputs = silence(deployment.integer)
    outputs["x"][0, :, 0] = outputs["a"][0, 1] = outputs["b"][0, 2] = 1
    return deployment, row_by_row(deployment.integer, Mesh(3, 2, 1), 2), outputs


@pytest.fixture(scope="module")
def small_replay(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sanafe") / "small"
    return folder, write_folder(*small, folder), client.replay(folder)


@pytest.mark.parametrize("field", ["synapse_j", "soma_j", "network_j", "hops", "packets", "synops",
                                   "fired", "updated"])  # fmt: skip
def test_any_difference_is_found(field, small, small_replay, monkeypatch):
    replay = small_replay[2]
    monkeypatch.setattr(parity, "replay", lambda folder, **options: replay)
    assert compare(*small)["equal"]
    value = getattr(replay, field)
    wrong = value + 1 if value.dtype.kind == "i" else value * (1 + 2e-9)
    monkeypatch.setattr(
        parity, "replay", lambda f, **o: dataclasses.replace(replay, **{field: wrong})
    )
    assert not compare(*small)["equal"]


def test_events_of_every_step(small_replay):
    _, written, replay = small_replay
    # x fires in steps 0, 1, 2; a (one step later) in step 2; b in step 4; 3 + 3 frames deep
    assert written.steps == len(replay.hops) == 6
    assert replay.fired.tolist() == [1, 1, 1 + 3, 0, 2, 0]
    assert replay.synops.tolist() == [1, 1, 1 + 4, 0, 4, 0]


def test_unknown_coefficients_stay_unknown(small, tmp_path):
    nothing = LOIHI1.energy.hop_x.model_copy(update={"value": None})
    energy = LOIHI1.energy.model_copy(update={"hop_x": nothing})
    found = compare(*small, costs=LOIHI1.model_copy(update={"energy": energy}))
    assert found["equal"]
    assert found["unknown"] == ["hop_x"]
    assert found["neuroav"]["network_pj"] is found["sanafe"]["network_pj"] is None
    assert found["neuroav"]["synapse_pj"] > 0
    write_folder(*small, tmp_path / "x", costs=LOIHI1.model_copy(update={"energy": energy}))
    assert "energy of hop_x" in (tmp_path / "x" / "arch.yaml").read_text().splitlines()[1]


def test_a_failing_child_leaves_its_last_words(small, tmp_path):
    write_folder(*small, tmp_path / "x")
    (tmp_path / "x" / "network.yaml").write_text("network: {}")
    with pytest.raises(ExecutorError, match=r"(?s)exit code 1; its last.*No neuron groups"):
        client.replay(tmp_path / "x")


def test_a_child_that_takes_too_long_is_ended(small, tmp_path):
    write_folder(*small, tmp_path / "x")
    told = tmp_path / "pid"
    (tmp_path / "x" / "run.py").write_text(
        f"import os, time; open({str(told)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    with pytest.raises(ExecutorError, match="took more than 1 s; give it fewer samples"):
        client.replay(tmp_path / "x", timeout_s=1)
    assert not Path(f"/proc/{told.read_text()}").exists()


def test_a_child_ends_with_its_parent(small, tmp_path):
    folder = tmp_path / "x"
    write_folder(*small, folder)
    with np.load(folder / "spikes.npz") as file:
        arrays = dict(file)
    np.savez(folder / "spikes.npz", **(arrays | {"steps": 10**8}))  # hours
    code = (
        "import os, subprocess, sys; child = subprocess.Popen([sys.executable, sys.argv[1], "
        "'--parent', str(os.getpid())]); print(child.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(folder / "run.py")], text=True,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    with parent:
        child = Path("/proc") / parent.stdout.readline().strip()
        assert child.exists()
        parent.kill()
    deadline = time.monotonic() + 30
    while child.exists() and (child / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_absent_package_is_named_with_its_line(small_replay, monkeypatch):
    monkeypatch.setattr(client.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'neuroav\[sanafe\]'"):
        client.replay(small_replay[0])


@pytest.mark.parametrize("options", [{"timing": "exact"}, {"timeout_s": 0}])
def test_bad_options(small_replay, options):
    with pytest.raises(ConfigError):
        client.replay(small_replay[0], **options)


def test_sanafe_is_never_imported_here():
    code = (
        "import sys, neuroav.sim.sanafe as ours; ours.client.require(); "
        "print([m for m in sys.modules if m.startswith('sanafe')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- the folder ----------------------------------------------------------------------------------
def test_folder_runs_by_itself(small, small_replay):
    folder, written, _ = small_replay
    assert {p.name for p in folder.iterdir()} == {
        "README.txt", "arch.yaml", "network.yaml", "neuroav.json", "run.py", "spikes.npz"
    }  # fmt: skip
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-P", "run.py"] if sys.version_info >= (3, 11)
                          else [sys.executable, "run.py"], cwd=folder, env=plain,
                          capture_output=True, text=True, check=True)  # fmt: skip
    shown = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    ours = expected(small[0].integer, small[1], small[2], ENERGY)
    assert shown["synapse_energy"] == f"{ours.synapse_pj * 1e-6:.6f} uJ"
    assert (int(shown["spikes"]), int(shown["hops"])) == (ours.synops, ours.hops)
    facts = json.loads((folder / "neuroav.json").read_text())
    assert facts["synapses"] == written.synapses == 3 + 4 + 4
    assert (facts["costs"], facts["energy_pj"]["hop_y"]) == (LOIHI1.id, 4.2)


def test_a_folder_is_replaced_only_if_it_is_ours(small, tmp_path):
    path = tmp_path / "made" / "x"
    write_folder(*small, path)
    (path / "stale").touch()
    write_folder(*small, path)
    assert not (path / "stale").exists()
    (path / "neuroav.json").unlink()
    with pytest.raises(ConfigError, match="is no folder written by neuroav"):
        write_folder(*small, path)
    assert (path / "arch.yaml").exists()
    assert [p.name for p in path.parent.iterdir()] == ["x"]


def test_nothing_is_left_of_a_failure(small, tmp_path, monkeypatch):
    monkeypatch.setattr("neuroav.sim.sanafe.folder.DRIVER", tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        write_folder(*small, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_misfits_are_named(small, tmp_path):
    deployment, placement, outputs = small
    with pytest.raises(DataError, match=r"outputs of b: found nothing, needed is \(samples, 3, 2"):
        write_folder(deployment, placement, {k: outputs[k] for k in "xa"}, tmp_path / "x")
    cut = dataclasses.replace(placement, cores=placement.cores[1:])
    with pytest.raises(StageError, match="neurons of a lie on no core"):
        write_folder(deployment, cut, outputs, tmp_path / "x")
    with pytest.raises(DataError, match="no probe samples"):
        writer.write(deployment, tmp_path / "x", placement=placement)
    with pytest.raises(DataError, match="at least 1"):
        write_folder(deployment, placement, {k: v[:0] for k, v in outputs.items()}, tmp_path / "x")


def test_convert_command(tmp_path):
    path = tmp_path / "tiny"
    options = ["convert", "shipped:tiny.nav", "--to", "sanafe", "--out", str(path), "--json"]
    done = CliRunner().invoke(cli, options, prog_name="neuroav")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["format"], found["left_out"]) == ("sanafe", {})
    assert {"audio", "head"} <= set(found["nodes"])
    assert found["samples"] > 0
    assert client.replay(path).synops.sum() > 0
    (path / "neuroav.json").unlink()
    done = CliRunner().invoke(cli, options[:-1], prog_name="neuroav")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
