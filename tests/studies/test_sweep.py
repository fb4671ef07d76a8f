"""Sweeps: every combination once, across kills and failures; a killed one repeats nothing."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import fake_data
import pytest
import samples
import torch

from neuroav import navfile
from neuroav.errors import ConfigError, ProfileError, UnsupportedNode
from neuroav.studies import onerun, sweep
from neuroav.training import evaluate as evaluation
from neuroav.training import loop, losses

FIXED = {"model.embed_dim": "8", "train.batch_size": "24", "train.epochs": "1", "data.steps": "4"}
OVER = {"train.label_smoothing": ["0", "0.2"], "train.seed": ["0", "1"]}
NAMES = [f"label_smoothing={a}_seed={s}" for a in ("0", "0.2") for s in (0, 1)]
BITS = (8, 4)
PATCHED = (loop, evaluation, sweep)


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    for module in PATCHED:
        monkeypatch.setattr(module, "load_data", fake_data.load_data)


@pytest.fixture
def trained(monkeypatch):
    """Names of the runs that were trained, or taken up again."""
    seen = []
    real = onerun.train

    def train(config, out, **options):
        seen.append((out.name, options["resume"]))
        return real(config, out, **options)

    monkeypatch.setattr(onerun, "train", train)
    return seen


def run(out, over=None, **options):
    options = {"model": "add", "overrides": FIXED, "cache_dir": out, **options}
    return sweep.run_sweep(over or OVER, out, **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweeps") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        for module in PATCHED:
            patch.setattr(module, "load_data", fake_data.load_data)
        return out, run(out, export_bits=BITS)


def test_every_combination_is_a_run_folder_with_its_deployments(done):
    out, found = done
    assert {p.name for p in out.iterdir()} == {*NAMES, "study.db", *sweep.FILES}
    for name in NAMES:
        held = {p.name for p in (out / name).iterdir()}
        assert {"model.safetensors", "config.toml", "metrics.json", "measured.json",
                "deployed-8-bits.nav", "deployed-4-bits.nav"} <= held  # fmt: skip
        assert not [file for file in held if file.endswith(".part")]
    assert (found["finished"], found["failed"], found["combinations"]) == (4, 0, 4)


def test_figures_are_those_of_the_other_commands(done):
    out, found = done
    row = found["rows"][1]
    assert row["values"] == {"train.label_smoothing": 0.0, "train.seed": 1}
    for split in ("val", "test"):
        expected = evaluation.evaluate(out / row["name"], split=split, cache_dir=out)
        assert row["sides"]["float"][split] == pytest.approx(expected["accuracy"])
    deployment = navfile.load(out / row["name"] / "deployed-4-bits.nav")
    side = row["sides"]["deployed 4 bits"]
    assert (side["weight_bits"], side["neurons"]) == (4, deployment.neurons)
    assert 0 <= side["agreement"] <= 1
    assert side["spikes_per_sample"] > 0
    assert row["samples"] == {"val": 24, "test": 24}


def test_tables_hold_what_is_returned(done):
    out, found = done
    assert json.loads((out / "results.json").read_text()) == found
    with open(out / "results.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == NAMES
    assert float(lines[2]["deployed 8 bits test"]) == pytest.approx(
        found["rows"][2]["sides"]["deployed 8 bits"]["test"]
    )
    best = max(found["groups"], key=lambda g: g["sides"]["float"]["val"]["mean"])
    assert found["best"]["sides"]["float"]["val"] == best["sides"]["float"]["val"]


def test_again_does_nothing_and_more_values_only_what_is_new(done, trained):
    out, found = done
    again = run(out, export_bits=BITS)
    assert (trained, again) == ([], found)
    wider = {**OVER, "train.label_smoothing": ["0", "0.2", "0.3"]}
    more = run(out, wider, export_bits=BITS)
    assert sorted(trained) == [(f"label_smoothing=0.3_seed={seed}", False) for seed in (0, 1)]
    assert more["rows"][:4] == found["rows"]
    other = run(out, export_bits=(5,))  # another width: deployed anew, not trained
    assert len(trained) == 2
    assert other["sides"] == list(other["rows"][0]["sides"]) == ["float", "deployed 5 bits"]
    stored = json.loads((out / NAMES[0] / "measured.json").read_text())
    assert list(stored["sides"]) == ["float", "deployed 8 bits", "deployed 4 bits",
                                     "deployed 5 bits"]  # fmt: skip


CHILD = """
import sys
sys.path[:0] = {path!r}
import fake_data
from pathlib import Path
from neuroav.studies import sweep
from neuroav.training import evaluate, loop
for module in (loop, evaluate, sweep):
    module.load_data = fake_data.load_data
def tell(stage, done, total):
    print(stage, done, total, flush=True)
sweep.run_sweep({{"train.seed": ["0", "1"]}}, Path({out!r}), model="add", deploy=False,
                overrides={fixed!r}, cache_dir=Path({out!r}), progress=tell)
"""


def test_a_killed_sweep_goes_on_and_repeats_nothing(tmp_path, trained):
    out, fixed = tmp_path / "killed", FIXED | {"train.epochs": "2"}
    over = {"train.seed": ["0", "1"]}
    root = samples.ROOT
    path = [str(root / "tests" / "support"), str(root), str(root / "export")]
    code = CHILD.format(path=path, out=str(out), fixed=fixed)
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    finished = 0
    for line in child.stdout:
        finished += line.startswith("sweep,")
        if finished == 1 and line.startswith("training add") and line.split()[-2] == "1":
            os.kill(child.pid, signal.SIGKILL)  # in the second run, after its first epoch
            break
    child.stdout.close()
    assert child.wait(60) == -9
    partial = json.loads((out / "results.json").read_text())
    assert partial["finished"] == 1
    before, cut = sorted(partial["rows"], key=lambda row: row["state"])
    found = run(out, over, overrides=fixed, deploy=False)
    assert trained == [(cut["name"], True)]  # resumed: not from its first epoch
    assert before in found["rows"]
    assert (found["finished"], found["failed"]) == (2, 0)
    assert [row["epochs"] for row in found["rows"]] == [2, 2]


def test_a_run_that_fails_is_noted_and_tried_again(tmp_path, monkeypatch, trained):
    real = losses.functional.cross_entropy

    def cross_entropy(logits, labels, *, label_smoothing=0.0, **options):
        loss = real(logits, labels, label_smoothing=label_smoothing, **options)
        return loss * float("nan") if label_smoothing else loss

    monkeypatch.setattr(losses.functional, "cross_entropy", cross_entropy)
    over = {"train.label_smoothing": ["0", "0.2"]}
    found = run(tmp_path / "s", over, deploy=False)
    good, bad = found["rows"]
    assert (found["finished"], found["failed"]) == (1, 1)
    assert (good["state"], bad["state"]) == ("finished", "failed")
    assert "epoch 0, batch 0: the loss is nan" in bad["error"]
    assert found["best"]["values"] == {"train.label_smoothing": 0.0}
    monkeypatch.setattr(losses.functional, "cross_entropy", real)
    trained.clear()
    assert run(tmp_path / "s", over, deploy=False)["failed"] == 0
    assert [name for name, _ in trained] == ["label_smoothing=0.2"]


def test_one_deployment_as_trained_by_default(tmp_path):
    found = run(tmp_path / "s", {"train.seed": ["3"]})
    assert found["sides"] == ["float", "deployed"]
    assert found["rows"][0]["sides"]["deployed"]["weight_bits"] == 8
    assert (tmp_path / "s" / "seed=3" / "deployed.nav").exists()


def test_start_weights_reach_every_run(done, tmp_path):
    start = done[0] / NAMES[0] / "model.safetensors"
    tiny = FIXED | {"train.learning_rate": "1e-12"}
    run(tmp_path / "s", {"train.seed": ["5", "6"]}, overrides=tiny, init_from=start, deploy=False)
    from safetensors.torch import load_file

    expected = load_file(start)["head.linear.weight"]
    for seed in (5, 6):
        found = load_file(tmp_path / "s" / f"seed={seed}" / "model.safetensors")
        torch.testing.assert_close(found["head.linear.weight"], expected)


@pytest.mark.parametrize(
    ("over", "options", "error", "message"),
    [
        ({"model.embed_dim": ["8", "30"]}, {"model": "scmrl", "overrides": {}}, ConfigError,
         "combination embed_dim=30: "),
        ({"model.name": ["add", "ad"]}, {"model": None}, ConfigError, "unknown model 'ad'"),
        ({"train.epoch": ["1"]}, {}, ConfigError, "did you mean 'train.epochs'"),
        ({"train.seed": ["1"]}, {"target": "loihi3"}, ProfileError, "loihi3"),
        ({"train.seed": ["1"]}, {"export_bits": (12,)}, UnsupportedNode, "weights of 12 bits"),
        ({"quant.aware": ["true"]}, {}, ConfigError, "--init-from RUN/model.safetensors"),
    ],
)  # fmt: skip
def test_what_would_fail_later_is_found_before_anything_is_made(
    tmp_path, over, options, error, message
):
    with pytest.raises(error, match=message):
        run(tmp_path / "s", over, **options)
    assert not (tmp_path / "s").exists()


def test_runs_of_another_configuration_are_refused(done):
    with pytest.raises(ConfigError, match=r"another configuration \(train.epochs was 1, is 2\)"):
        run(done[0], overrides=FIXED | {"train.epochs": "2"})


def test_a_file_in_the_way(tmp_path):
    Path(tmp_path / "s").write_text("")
    with pytest.raises(ConfigError, match="is a file, a sweep needs a folder"):
        run(tmp_path / "s")
