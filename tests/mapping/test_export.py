"""A placement on its way: from a run into FILE.nav and back, into the summary, into lint."""

from __future__ import annotations

import json
from dataclasses import replace

import fake_data
import h5py
import numpy as np
import pytest
import samples
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import changed
from placements import random_placement
from strategies_intgraph import random_deployment

from neuroav import hardware, navfile
from neuroav.errors import DoesNotFit, FileFormatError, OutOfRange
from neuroav.models import build_model
from neuroav.placement import verify_placement
from neuroav.sim import fast
from neuroav.sim.trace import collect
from neuroav.training import evaluate
from neuroav.training.checkpoint import CONFIG, WEIGHTS, save_weights
from neuroav.training.config import ModelConfig, RunConfig, dump_config
from neuroav_export import compile_module, export_run, lint
from neuroav_export import run as run_module
from neuroav_export.linting import deployable
from neuroav_export.run import on_cores


# --- FILE.nav ----------------------------------------------------------------------------------
@pytest.fixture
def placed(tmp_path):
    """A deployment with a placement at random, and its file."""
    deployment, _ = random_deployment(3, hidden=4)
    deployment = replace(deployment, placement=random_placement(deployment.integer, 3))
    path = tmp_path / "net.nav"
    return navfile.save(deployment, path), path


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_any_placement_comes_back_from_a_file(tmp_path_factory, seed):
    deployment, _ = random_deployment(seed, hidden=3, steps=3, samples=1)
    placement = random_placement(deployment.integer, seed)
    path = tmp_path_factory.mktemp("nav") / "net.nav"
    saved = navfile.save(replace(deployment, placement=placement), path)
    loaded = navfile.load(path)
    assert loaded.placement == placement
    assert loaded.content_hash == saved.content_hash
    assert any(len(core.slices) > 1 for core in placement.cores) or len(placement.cores) > 1


def test_a_file_without_a_placement_has_none_and_the_hash_covers_one(placed):
    deployment, path = placed
    bare = navfile.save(replace(deployment, placement=None), path.with_name("bare.nav"))
    with h5py.File(path.with_name("bare.nav")) as file:
        assert "placement" not in file
        version = file.attrs["version"]
    with h5py.File(path) as file:
        assert file.attrs["version"] == version
    assert navfile.load(path.with_name("bare.nav")).placement is None
    first, second, *rest = deployment.placement.cores
    swapped = (replace(first, slices=second.slices), replace(second, slices=first.slices), *rest)
    other = replace(deployment, placement=replace(deployment.placement, cores=swapped))
    hashes = {navfile.save(other, path).content_hash, bare.content_hash, deployment.content_hash}
    assert len(hashes) == 3


def rewrite(file, name, change):
    """Change a dataset, and put right the content hash: damage that no hash shows."""
    table = file[f"placement/{name}"][()]
    del file[f"placement/{name}"]
    file[f"placement/{name}"] = change(table)
    file.attrs["content_hash"] = navfile.content_hash(file)


def changed_at(row, column, value):
    def change(table):
        table[row, column] = value
        return table

    return change


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("slices", lambda t: t[1:], "lie on no core or on several"),
        ("slices", changed_at(0, 0, 10_000), "a core or population that is not there"),
        ("slices", changed_at(0, 1, -2), "a core or population that is not there"),
        ("slices", changed_at(0, 3, 10_000), "has a slice"),
        ("slices", lambda t: t[:, :1], "cannot be read as a deployment"),
        ("slices", lambda t: t[:, :-1], "cannot be read as a deployment"),
        ("seats", lambda t: t[:-1], "a core or population that is not there"),
        ("seats", lambda t: t[:, :3], "cannot be read as a deployment"),
        ("seats", lambda t: t[[0] * len(t)], "two cores have the same seat"),
        ("seats", changed_at(0, 0, 999), "is not on the mesh"),
        ("populations", lambda t: np.frombuffer(b'["x"]', np.uint8), "that is not there"),
        ("populations", lambda t: np.frombuffer(b"[", np.uint8), "cannot be read as a deployment"),
    ],
)
def test_a_damaged_placement_is_refused(placed, name, change, message):
    _, path = placed
    with samples.edited_hdf5(path) as file:
        rewrite(file, name, change)
    with pytest.raises(FileFormatError, match=message):
        navfile.load(path)


def test_a_changed_placement_breaks_the_hash(placed):
    _, path = placed
    with samples.edited_hdf5(path) as file:
        file["placement/seats"][0, 3] += 1
    with pytest.raises(FileFormatError, match="content hash is .* it was changed or damaged"):
        navfile.load(path)


# --- from a run --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder of an untrained model on made-up data."""
    folder = tmp_path_factory.mktemp("run")
    config = RunConfig(model=ModelConfig(name="add", embed_dim=8))
    save_weights(build_model(config.model, samples.SHAPES, 3, config.scmrl), folder / WEIGHTS)
    (folder / CONFIG).write_text(dump_config(config))
    return folder


@pytest.fixture
def export(run, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "load_data", fake_data.load_data)
    return lambda **options: export_run(run, out=tmp_path / "n.nav", cache_dir=tmp_path, **options)


def test_packed_takes_fewer_and_fuller_cores(export):
    spread, packed = export(), export(spread=False)
    assert packed["cores"] < spread["cores"]
    key = "memory_total"
    assert packed["utilisation"][key]["max"] > spread["utilisation"][key]["max"]
    assert packed["utilisation"][key]["max"] <= 1


def test_export_places_the_network_and_says_how_full_its_cores_are(export, tmp_path):
    found = export()
    deployment = navfile.load(tmp_path / "n.nav")
    verify_placement(deployment.integer, deployment.placement)
    assert found["cores"] == len(deployment.placement.cores) > 1
    assert found["chips"] == 1
    assert found["hash"] == deployment.content_hash
    full = found["utilisation"]
    assert set(full) == {"cores", "neurons", "memory_synapse", "memory_total"}
    assert full["cores"] == {"share": found["cores"] / 120}
    assert full["neurons"]["limit"] == 8192
    mean = deployment.neurons / found["cores"] / 8192
    assert full["neurons"]["mean"] == pytest.approx(mean)
    assert mean <= full["neurons"]["max"] <= 1
    json.dumps(found)


def test_export_without_a_placement(export, tmp_path):
    found = export(place=False)
    assert found["cores"] is found["chips"] is found["utilisation"] is None
    assert navfile.load(tmp_path / "n.nav").placement is None
    assert export(target="ideal")["utilisation"] is None  # has no grid of cores


def test_export_of_what_does_not_fit_names_the_way_out(export, tmp_path, monkeypatch):
    tiny = changed("loihi2", topology__cores_usable=2, core__neurons=600)
    monkeypatch.setattr(hardware, "load_profile", lambda name: tiny)
    with pytest.raises(DoesNotFit, match=r"(?s)board: needs .*`--no-place` exports it all the"):
        export()
    assert not (tmp_path / "n.nav").exists()
    assert export(place=False)["cores"] is None


# --- lint --------------------------------------------------------------------------------------
def test_lint_finds_every_limit_that_is_exceeded(monkeypatch):
    net, sample = samples.warmed_model("add"), samples.poisson_inputs(2, 4)
    assert deployable(lint(net, sample))
    tiny = changed("loihi2", core__axons_in=60, core__fan_in=70)
    monkeypatch.setattr(hardware, "load_profile", lambda name: tiny)
    compile_module(net, sample)
    found = lint(net, sample)
    assert not deployable(found)
    assert {f.rule for f in found} == {"fit"}
    problems = {f.problem.partition(":")[0] for f in found}
    assert problems == {"core.axons_in", "core.fan_in"}
    modules = dict(net.named_modules())
    assert all(f.layer in modules for f in found)
    assert all("layers of sums (IntSum) before" in f.rewrite for f in found)


def test_lint_finds_a_network_too_large_for_the_board(monkeypatch):
    tiny = changed("loihi2", topology__cores_usable=2, core__neurons=600)
    monkeypatch.setattr(hardware, "load_profile", lambda name: tiny)
    (found,) = lint(samples.warmed_model("add"), samples.poisson_inputs(2, 4))
    assert (found.layer, found.rule) == ("(network)", "fit")
    assert "allowed 2 on 1 chip" in found.problem


def test_rates_of_a_few_samples_decide_who_gets_more_cores(monkeypatch):
    deployment = compile_module(samples.warmed_model("add"), samples.poisson_inputs(4, 4))
    given = []
    monkeypatch.setattr(run_module, "map_graph", lambda *args, **_: given.append(args[2]))
    on_cores(deployment, samples.poisson_inputs(2, 4))
    (messages,) = given
    outputs = collect(fast.run(deployment, samples.poisson_inputs(2, 4)))
    for name in ("audio.stem.lif0", "visual"):
        sent = (outputs[name] != 0).sum(axis=(0, 1)) / 2
        assert sent.max() > 0
        assert np.array_equal(messages[name], sent)


def test_a_network_that_overflows_on_them_is_placed_with_equal_rates(monkeypatch):
    deployment = compile_module(samples.warmed_model("add"), samples.poisson_inputs(4, 4))
    loud = samples.poisson_inputs(2, 4, rate=60)
    with pytest.raises(OutOfRange):
        collect(fast.run(deployment, loud))
    given = []
    monkeypatch.setattr(run_module, "map_graph", lambda *args, **_: given.append(args[2]))
    on_cores(deployment, loud)
    assert given == [None]
