"""``neuroav ablate``: cumulative steps, operations counted by hand, tables, nothing done twice."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import zero_shot_data as small

from neuroav import simulate as simulating
from neuroav.errors import ConfigError
from neuroav.models.zeroshot.registry import build_zero_shot
from neuroav.report import write_report
from neuroav.studies import zeroshot as study
from neuroav.training import evaluate as evaluation
from neuroav.training import loop
from neuroav.training.zeroshot.batches import inputs_of
from neuroav.training.zeroshot.operations import counted

DIMS = {"audio": small.AUDIO, "visual": small.VISUAL}


def test_steps_add_up_to_the_chip():
    names = [s.name for s in study.STEPS]
    assert names[0] == "stft"
    assert names[-1] == "stft-chip"
    for before, after in zip(study.STEPS, study.STEPS[1:-1], strict=False):
        assert before.settings.items() < after.settings.items()
        assert len(after.settings) == len(before.settings) + 1
    last = small.config("stft", **study.STEPS[-2].settings).stft
    assert (last.time_factor, last.pooling, last.dynamic_threshold, last.fusion) == (
        "fixed", "none", "none", "cp",
    )  # fmt: skip
    assert (last.cross_modal, last.knowledge, last.norm) == ("linear", False, "batch")


def test_operations_are_those_one_counts_by_hand():
    data = small.make()
    changes = {"stft.snn": "trained", "stft.knowledge": "false", "stft.cross_modal": "none"}
    config = small.config("stft", **changes)
    network = build_zero_shot(config, DIMS, data.text, data.seen).eval()
    rows = np.arange(6)
    with torch.no_grad(), counted(network.net) as found:
        network.net.embed(inputs_of(data.split("test").features, rows))
    hidden, width, out, rank = 24, 16, 8, 5
    each = 0
    for inputs in DIMS.values():
        each += inputs * hidden + hidden * width  # encoder
        each += inputs * hidden  # first layer of the spiking branch, once
        each += 2 * width * rank + rank**2 + rank**3 + rank * width  # fusion, both sides and out
        each += width * hidden + hidden * out  # projection
    assert found.macs == 6 * each
    assert found.spikes > 0
    assert 0 < found.synops <= found.spikes * width


@pytest.fixture
def data(monkeypatch):
    made = small.make()
    for module in (loop, evaluation):
        monkeypatch.setattr(module, "load_data", lambda *_, **__: made)
    monkeypatch.setattr(simulating, "_run_data", lambda *_: made)
    return made


def test_an_ablation_is_written_and_not_repeated(tmp_path, data, monkeypatch):
    asked = {"seeds": [0], "overrides": small.SIZES, "steps": ["stft", "cp", "stft-chip"]}
    found = study.run_ablation(tmp_path, cache_dir=tmp_path, **asked)
    assert [r["name"] for r in found["rows"]] == ["stft", "cp", "stft-chip", "loihi2"]
    assert all((tmp_path / name).stat().st_size > 500 for name in study.FILES)
    table = (tmp_path / "ablation.md").read_text()
    assert table.count("\n| ") == 4
    assert "an estimate, not a measurement" in " ".join(table.split())
    first, _, chip, deployed = found["rows"]
    assert first["mean"]["macs"] > chip["mean"]["macs"] > deployed["mean"]["macs"] > 0
    assert deployed["mean"]["spikes"] > 0
    run = deployed["runs"][0]
    assert run["energy_band_pj"][0] <= run["energy_pj"] <= run["energy_band_pj"][1]
    assert json.loads((tmp_path / "ablation.json").read_text())["rows"] == found["rows"]

    def refuse(*_, **__):
        raise AssertionError("trained or measured again")

    for name in ("train", "measure_float", "measure_deployed"):
        monkeypatch.setattr(study, name, refuse)
    assert study.run_ablation(tmp_path, cache_dir=tmp_path, **asked)["rows"] == found["rows"]


def test_unknown_steps_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="allowed are"):
        study.run_ablation(tmp_path, cache_dir=tmp_path, steps=["stfd"])


def test_a_deployed_test_reports_what_the_measures_are(tmp_path, data):
    config = small.config("stft-chip")
    loop.train(config, tmp_path / "run", cache_dir=tmp_path)
    study.export_run(tmp_path / "run", out=tmp_path / "x.nav", cache_dir=tmp_path)
    found = simulating.simulate(tmp_path / "x.nav", cache_dir=tmp_path)
    assert found["samples"] == 64
    measured = study.measure_deployed(tmp_path / "run", cache_dir=tmp_path)
    assert {k: found[k] for k in study.MEASURES} == {k: measured[k] for k in study.MEASURES}
    one = simulating.simulate(tmp_path / "x.nav", samples=1, cache_dir=tmp_path)
    assert "hm" not in one  # one sample is of one kind of class only
    val = simulating.simulate(tmp_path / "x.nav", split="val", cache_dir=tmp_path)
    assert "hm" not in val


def test_the_report_says_how_unseen_classes_fared(tmp_path, data):
    loop.train(small.config("stft-chip"), tmp_path / "run", cache_dir=tmp_path)
    study.export_run(tmp_path / "run", out=tmp_path / "x.nav", cache_dir=tmp_path)
    report = write_report([tmp_path / "x.nav"], out=tmp_path / "report", cache_dir=tmp_path)
    found = report["accuracy"]["zero_shot"]
    assert found["deployed"]["hm"] == pytest.approx(
        simulating.simulate(tmp_path / "x.nav", cache_dir=tmp_path)["hm"]
    )
    assert set(found["float"]) == {"seen", "unseen", "hm", "zsl"}
    for name in ("report.html", "report.md"):
        assert "unseen" in (tmp_path / "report" / name).read_text().lower()
    host = {x["name"]: x for x in report["layers"] if x["name"].endswith("1.linear")}
    assert len(host) == 4
    assert all(x["rate_deployed"] is None and x["rate_float"] is None for x in host.values())


def test_studies_of_events_refuse_zero_shot_networks(tmp_path, data):
    from neuroav.errors import DataError
    from neuroav.studies.robustness import run_robustness
    from neuroav.studies.sweep import run_sweep

    with pytest.raises(ConfigError, match="compare val_hm"):
        run_sweep({"train.seed": ["0"]}, tmp_path / "s", model="avca", cache_dir=tmp_path)
    loop.train(small.config("stft-chip"), tmp_path / "run", cache_dir=tmp_path)
    study.export_run(tmp_path / "run", out=tmp_path / "x.nav", cache_dir=tmp_path)
    with pytest.raises(DataError, match="reads real values"):
        run_robustness([tmp_path / "x.nav"], tmp_path / "r", cache_dir=tmp_path)
