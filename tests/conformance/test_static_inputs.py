"""Pictures and spectrograms: the first layer on the host, everything behind it exact."""

from __future__ import annotations

import json
from dataclasses import replace

import faulty
import numpy as np
import onnx
import pytest
import torch

from neuroav import navfile
from neuroav.counts import Counter
from neuroav.deployment import Probe
from neuroav.errors import DataError, StageError, UnsupportedNode
from neuroav.models import build_model
from neuroav.models.layers import Lif, SpatialMean, TimeMean
from neuroav.report import write_report
from neuroav.sim import fast, lava, real, reference
from neuroav.sim.trace import collect
from neuroav.simulate import Samples
from neuroav.stages import verify_integer
from neuroav.studies.conditions import Condition, disturbed
from neuroav.training.config import ModelConfig, ScmrlConfig
from neuroav_export import compile_module, lint
from neuroav_export.writers import convert

STEPS = 4
SHAPES = {"audio": (1, 16, 16), "visual": (3, 16, 16)}
FED = tuple(SHAPES)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    found = build_model(
        ModelConfig(name="scmrl", stem="shallow", embed_dim=8), SHAPES, 3, ScmrlConfig(heads=2)
    ).eval()
    for name, layer in found.named_modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.bias.data += 0.7 if ".conv0" not in name else 0.3
    return found


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return {n: np.repeat(rng.normal(size=(8, 1, *s)), STEPS, axis=1) for n, s in SHAPES.items()}


@pytest.fixture(scope="module")
def deployments(model, pictures):
    probe = Probe(pictures, np.arange(8) % 3)
    return {
        sends: compile_module(model, pictures, static=FED, host=sends, probe=probe)
        for sends in ("current", "spikes")
    }


@pytest.mark.lava
@pytest.mark.parametrize("sends", ["current", "spikes"])
def test_all_executors_agree(deployments, pictures, sends):
    deployment = deployments[sends]
    expected = collect(reference.run(deployment, pictures))
    first = "stem.visual.lif0" if sends == "current" else "stem.visual.pool0"
    assert 0.02 < (expected[first] != 0).mean() < 0.9
    for run in (fast.run, lava.run):
        found = collect(run(deployment, pictures))
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert np.array_equal(found[name], value), name


def test_both_forms_give_the_same_spikes_behind_the_first_layer(deployments, pictures):
    current, spikes = (collect(fast.run(deployments[s], pictures)) for s in ("current", "spikes"))
    assert "stem.audio.lif0" in current
    assert "stem.audio.lif0" not in spikes
    same = current.keys() & spikes.keys()
    assert {"stem.audio.pool0", "head.linear"} <= same
    assert all(np.array_equal(current[n], spikes[n]) for n in same)


def test_first_neurons_spike_as_in_the_float_network(deployments, pictures):
    deployment = deployments["current"]
    found = collect(fast.run(deployment, pictures))
    floating = collect(real.run(deployment.real, pictures))
    for name in ("stem.audio.lif0", "stem.visual.lif0"):
        assert found[name].mean() > 0.02
        assert (found[name] != floating[name]).mean() < 0.002  # one part in 4,000 of the threshold


def test_currents_are_no_messages_and_multiplications_are_counted(deployments, pictures, tmp_path):
    deployment = deployments["current"]
    graph = deployment.integer
    counter = Counter(graph)
    for trace in fast.run(deployment, pictures):
        counter.add(trace)
    counts = counter.counts()
    assert list(graph.inputs) == ["stem.audio.conv0.conv", "stem.visual.conv0.conv"]
    for name in graph.inputs:
        assert not counts.spikes[name].any()
    assert counts.synops_per_sample()["stem.audio.lif0"] == 0
    assert counts.synops_per_sample()["stem.audio.pool0"] > 0
    places = 4 * 16 * 16
    assert deployment.host_macs == places * 9 * (1 + 3)
    file = tmp_path / "pictures.nav"
    navfile.save(deployment, file)
    write_report([file], out=tmp_path / "report", cache_dir=tmp_path)
    host = json.loads((tmp_path / "report" / "report.json").read_text())["host"]
    assert [(x["source"], x["macs"]) for x in host] == [
        ("audio", places * 9),
        ("visual", places * 27),
    ]
    assert host[0]["energy"]["value"] is None
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Computed on the host, once per sample" in page
    assert "Computed on the host" in (tmp_path / "report" / "report.md").read_text()


def test_file_keeps_host_layers_and_pictures(deployments, pictures, tmp_path):
    for sends, deployment in deployments.items():
        navfile.save(deployment, tmp_path / f"{sends}.nav")
        again = navfile.load(tmp_path / f"{sends}.nav")
        assert again.fed == FED
        assert again.static == set(FED)
        assert again.host.keys() == deployment.host.keys()
        assert again.probe.inputs["visual"].dtype == np.float32
        before, after = (collect(fast.run(d, pictures)) for d in (deployment, again))
        assert all(np.array_equal(before[n], after[n]) for n in before)


def test_currents_reach_neurons_only_and_one_by_one(deployments):
    deployment = deployments["current"]
    graph, arith = deployment.integer, deployment.profile.arithmetic
    verify_integer(graph, arith)
    name = "stem.audio.lif0"
    lif = graph.populations[name]
    double = replace(lif, projections=(replace(lif.projections[0], weight=2),))
    wrong = replace(graph, populations={**graph.populations, name: double})
    with pytest.raises(StageError, match="currents of the host go to neurons, one by one"):
        verify_integer(wrong, arith)


def test_events_beside_pictures(model, pictures):
    rng = np.random.default_rng(2)
    mixed = {"audio": rng.poisson(0.5, (8, STEPS, *SHAPES["audio"])), "visual": pictures["visual"]}
    deployment = compile_module(model, mixed, static=("visual",))
    assert deployment.fed == FED
    assert list(deployment.integer.inputs) == ["audio", "stem.visual.conv0.conv"]
    a, b = (collect(run(deployment, mixed)) for run in (fast.run, reference.run))
    assert all(np.array_equal(a[n], b[n]) for n in a)
    with pytest.raises(DataError, match=r"inputs are \['audio'\], the network needs"):
        collect(fast.run(deployment, {"audio": mixed["audio"]}))


def test_what_cannot_be_on_the_host_is_named(model, pictures):
    with pytest.raises(DataError, match="unknown static input 'sound': allowed are audio, visual"):
        compile_module(model, pictures, static=("sound",))
    moving = {**pictures, "visual": pictures["visual"] + np.arange(STEPS)[:, None, None, None]}
    with pytest.raises(DataError, match="input 'visual': changes from step to step"):
        compile_module(model, moving, static=FED)
    head = torch.nn.Sequential(SpatialMean(), torch.nn.Linear(1, 3))
    direct = faulty.chain(lif=Lif(), head=head, end=TimeMean())
    x = {"x": np.ones((2, STEPS, 1, 6, 6))}
    with pytest.raises(UnsupportedNode, match="lif: reads x, real values that the host computes"):
        compile_module(direct, x, static=("x",))
    assert "static-input" in {f.rule for f in lint(direct, x, static=("x",))}
    assert [f for f in lint(model, pictures, static=FED) if f.severity == "error"] == []


def test_step_model_takes_what_the_chip_gets(pictures, tmp_path):
    torch.manual_seed(0)
    switches = ScmrlConfig(heads=2, form="spatial")
    config = ModelConfig(name="scmrl", stem="shallow", embed_dim=8)
    causal = build_model(config, SHAPES, 3, switches).eval()
    convert(compile_module(causal, pictures, static=FED), "onnx", tmp_path / "step.onnx")
    taken = {x.name for x in onnx.load(tmp_path / "step.onnx").graph.input}
    assert {"stem.audio.conv0.conv", "stem.visual.conv0.conv"} <= taken
    assert not taken & set(FED)


def test_noise_on_a_picture_stays_the_same_in_every_step(deployments, pictures):
    deployment = deployments["current"]
    data = Samples(pictures, np.zeros(8, np.int64), "probe")
    noisy = disturbed(deployment, data, Condition("noise", "visual", 10.0), seed=1)
    assert np.array_equal(noisy["audio"], pictures["audio"])
    added = noisy["visual"] - pictures["visual"]
    assert (added == added[:, :1]).all()
    ratio = (pictures["visual"] ** 2).mean() / (added**2).mean()
    assert 8 < ratio < 12.5
    silent = disturbed(deployment, data, Condition("missing", "audio"), seed=1)
    assert not silent["audio"].any()
    collect(fast.run(deployment, silent))
