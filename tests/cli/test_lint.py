"""``neuroav lint``: what it prints, how it exits, and the same from a run folder."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import ANY

import fake_data
import platformdirs
import pytest
import samples

from neuroav.models import build_model
from neuroav.training import evaluate
from neuroav.training.checkpoint import CONFIG, WEIGHTS, save_weights
from neuroav.training.config import ModelConfig, QuantConfig, RunConfig, ScmrlConfig, dump_config
from neuroav.training.qat import prepare_qat

FOLDERS = {"cache_dir": platformdirs.user_cache_path("neuroav"), "data_root": None}


def finding(layer, rule="graded", severity="error", **changes):
    return {
        "layer": layer, "problem": f"{layer} is odd", "why": f"{rule} why",
        "rewrite": f"{rule} rewrite", "severity": severity, "rule": rule,
    } | changes  # fmt: skip


FOUND = [
    finding("audio"), finding("audio", "reset"), finding("fusion"),
    finding("attention", "non-causal", "note"),
]  # fmt: skip


def test_findings_stand_by_layer_with_why_and_rewrite_once(run, stand_in):
    found = {"target": "loihi1-nahuku-fit", "deployable": False, "findings": FOUND}
    lint_run = stand_in("neuroav_export:lint_run", return_value=found)
    done = run("lint", "runs/x", "--target", "loihi1")
    assert done.code == 1
    assert done.out.splitlines() == [
        "audio",
        "  error: audio is odd",
        "    why: graded why",
        "    rewrite: graded rewrite",
        "  error: audio is odd",
        "    why: reset why",
        "    rewrite: reset rewrite",
        "fusion",
        "  error: fusion is odd (see audio)",
        "attention",
        "  note: attention is odd",
        "    why: non-causal why",
        "    rewrite: non-causal rewrite",
        "3 findings, not deployable on loihi1-nahuku-fit",
    ]
    lint_run.assert_called_once_with(Path("runs/x"), target="loihi1", progress=ANY, **FOLDERS)
    done = run("lint", "runs/x", "--json")
    assert (done.code, done.json) == (1, found)
    assert lint_run.call_args.kwargs["target"] == "loihi2"


@pytest.mark.parametrize(
    ("findings", "code", "last"),
    [
        ([], 0, "deployable on loihi2"),
        (FOUND[3:], 0, "deployable on loihi2"),
        (FOUND[:1], 1, "1 finding, not deployable on loihi2"),
    ],
)
def test_the_last_line_is_the_verdict(run, stand_in, findings, code, last):
    found = {"target": "loihi2", "deployable": not code, "findings": findings}
    stand_in("neuroav_export:lint_run", return_value=found)
    done = run("lint", "runs/x")
    assert (done.code, done.out.splitlines()[-1], done.err) == (code, last, "")
    assert run("lint", "runs/x", "--json").json == found


# --- from a run folder -------------------------------------------------------------------------
@pytest.fixture
def make_run(tmp_path, monkeypatch):
    """Write a run folder of an untrained model on made-up data."""
    monkeypatch.setattr(evaluate, "load_data", fake_data.load_data)

    def make(name, quant=None, **switches):
        config = RunConfig(
            model=ModelConfig(name=name, embed_dim=8),
            scmrl=ScmrlConfig(**switches),
            quant=quant or QuantConfig(),
        )
        model = build_model(config.model, samples.SHAPES, 3, config.scmrl)
        if config.quant.aware:
            prepare_qat(model, config.quant)
        save_weights(model, tmp_path / WEIGHTS)
        (tmp_path / CONFIG).write_text(dump_config(config))
        return tmp_path

    return make


@pytest.mark.parametrize("name", ["audio", "add"])
def test_a_run_is_deployable_or_says_why(run, make_run, name):
    folder = make_run(name)
    done = run("lint", folder)
    assert (done.code, done.out) == (0, "deployable on loihi2\n")
    done = run("lint", folder, "--target", "loihi1", "--json")
    assert done.code == 1
    assert (done.json["target"], done.json["deployable"]) == ("loihi1-nahuku-fit", False)
    layers = [f["layer"] for f in done.json["findings"]]
    assert {"audio", "audio.stem.tokens", "audio.token_mean"} <= set(layers)
    assert ("fusion" in layers) is (name == "add")
    assert set(done.json["findings"][0]) == {
        "layer", "problem", "why", "rewrite", "severity", "rule",
    }  # fmt: skip


def test_notes_do_not_stop_a_run(run, make_run):
    done = run("lint", make_run("scmrl", form="temporal"))
    assert done.code == 0
    assert "  note: answers when all 4 frames are there" in done.out
    assert done.out.endswith("deployable on loihi2\n")


def test_a_run_is_checked_as_it_was_trained_to_be_quantized(run, make_run):
    folder = make_run("visual", QuantConfig(aware=True, bits=4, per_channel=True))
    assert run("lint", folder).code == 0
    found = run("lint", folder, "--target", "loihi1", "--json").json["findings"]
    assert ("(network)", "per-channel") in {(f["layer"], f["rule"]) for f in found}


def test_expected_failures_name_what_is_wrong(run, tmp_path):
    done = run("lint", tmp_path, "--json")
    assert done.code == 1
    assert "no run folder" in done.json["error"]["message"]
    done = run("lint", tmp_path, "--target", "loihi3")
    assert (done.code, done.out) == (1, "")
    assert "unknown profile 'loihi3'" in done.err
