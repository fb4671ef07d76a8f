"""A tiny CREMA-D through everything: prepared, trained, exported, simulated, verified, reported."""

from __future__ import annotations

import numpy as np
import pytest
import samples
from still_files import clip_names, cremad_tree

from neuroav import navfile
from neuroav.data import frame_spec
from neuroav.errors import DataError
from neuroav.models import build_model
from neuroav.report import write_report
from neuroav.simulate import load_samples, simulate
from neuroav.studies.robustness import run_robustness
from neuroav.training.config import load_config
from neuroav.training.evaluate import evaluate
from neuroav.training.loop import train
from neuroav.verify import verify
from neuroav_export.run import export_run, lint_run

RECIPES = samples.ROOT / "examples/recipes"
SMALL = {
    "data.preset": "clean", "data.steps": "2", "data.visual_size": "64", "data.seed": "0",
    "model.embed_dim": "8", "model.mlp_ratio": "1", "model.v_threshold": "0.2",
    "scmrl.heads": "4", "train.epochs": "1", "train.batch_size": "2",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "classes", "parameters"), [("cremad", 6, 4_204_038), ("urbansound8k-av", 10, 267_146)]
)
def test_recipes_are_the_published_networks(name, classes, parameters):
    """4.204 and 0.267 million parameters in use, those of the released code."""
    config = load_config(file=RECIPES / f"{name}.toml")
    assert config.data.name == name
    assert (config.data.preset, config.data.steps, config.data.visual_size) == ("paper", 4, 128)
    assert config.scmrl.mode == "faithful"
    assert config.train.learning_rate == 5e-3 * config.train.batch_size / 1024
    spec = frame_spec(name, steps=4, visual_size=128)
    shapes = {"audio": spec.audio_shape[1:], "visual": spec.visual_shape[1:]}
    network = build_model(config.model, shapes, classes, config.scmrl)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A run of one epoch on 12 of 24 clips of four actors, and its deployment."""
    folder = tmp_path_factory.mktemp("stills")
    cremad_tree(folder, clip_names([1001, 1002, 1003, 1004]))
    places = {"cache_dir": folder / "cache", "data_root": folder}
    metrics = train(
        load_config(file=RECIPES / "cremad.toml", overrides=SMALL), folder / "run", **places
    )
    summary = export_run(folder / "run", out=folder / "n.nav", **places)
    return folder, places, metrics, summary


def test_training_and_evaluation(job):
    folder, places, metrics, _ = job
    assert metrics["data"] == "cremad"
    assert len(metrics["history"]) == 1
    assert np.isfinite(metrics["history"][0]["loss"])
    assert evaluate(folder / "run", **places)["samples"] == 6


def test_both_inputs_are_static(job):
    folder, _, _, summary = job
    deployment = navfile.load(folder / "n.nav")
    assert deployment.fed == ("audio", "visual")
    assert deployment.static == {"audio", "visual"}
    # 3x3 kernels of 1 and 3 channels to one channel of 64x64 neurons, once per sample
    assert summary["host_macs"] == deployment.host_macs == 9 * (1 + 3) * 64 * 64
    for values in deployment.probe.inputs.values():
        assert values.dtype == np.float32
        assert (values != np.rint(values)).any()


def test_every_executor_gives_the_same_spikes(job):
    folder, places, _, _ = job
    found = verify(folder / "n.nav", backends=["reference", "fast"], samples=2, **places)
    assert found["equal"]
    assert found["spikes_compared"] > 1000
    probe = simulate(folder / "n.nav", split="probe", samples=2, **places)
    assert probe["spike_digest"] == found["digests"]["reference"] == found["digests"]["fast"]
    active = [name for name, count in probe["spikes_per_sample"].items() if count]
    assert {"stem.audio.lif3", "stem.visual.lif3", "mlp.audio.lif1"} <= set(active)


def test_samples_have_no_events(job):
    folder, places, _, _ = job
    deployment = navfile.load(folder / "n.nav")
    found = load_samples(deployment, split="test", samples=2, **places)
    assert found.source is None
    assert found.inputs["visual"].dtype == np.float32
    with pytest.raises(DataError, match="every disturbance here is one of events"):
        run_robustness([folder / "n.nav"], folder / "robustness", **places)


def test_lint_finds_nothing(job):
    folder, places, _, _ = job
    assert lint_run(folder / "run", **places)["deployable"]


def test_report_says_what_the_host_computes(job):
    folder, places, _, _ = job
    write_report([folder / "n.nav"], out=folder / "report", samples=2, **places)
    text = (folder / "report/report.md").read_text()
    assert "Computed on the host, once per sample" in text
    assert f"{9 * 64 * 64:,}".replace(",", " ") in text  # of the spectrogram
    assert (folder / "report/report.html").stat().st_size > 10_000
