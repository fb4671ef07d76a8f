"""``neuroav sweep`` and ``neuroav robustness``: what is typed reaches the library and is shown."""

from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import ANY

import platformdirs
import pytest

FOLDERS = {"cache_dir": platformdirs.user_cache_path("neuroav"), "data_root": None}


def spread(mean, sd=None):
    return {"mean": mean, "sd": sd}


def sides(val, test):
    deployed = {"val": spread(val), "test": spread(test), "agreement": spread(0.9)}
    return {"float": {"val": spread(val, 0.01), "test": spread(test, 0.02)}, "deployed": deployed}


SWEPT = {
    "keys": ["scmrl.alpha", "train.seed"], "sides": ["float", "deployed"], "failed": 1,
    "groups": [{"values": {"scmrl.alpha": 0.5}, "runs": 2, "sides": sides(0.8, 0.75)},
               {"values": {"scmrl.alpha": 1.0}, "runs": 0, "sides": {}}],
    "best": {"values": {"scmrl.alpha": 0.5}, "sides": sides(0.8, 0.75), "why": "by validation"},
    "rows": [{"name": "alpha=1_seed=0", "state": "failed", "error": "the loss is nan"}],
}  # fmt: skip


@pytest.fixture
def run_sweep(stand_in):
    return stand_in("neuroav.studies.sweep:run_sweep", return_value=SWEPT)


def test_sweep(run, run_sweep):
    done = run(
        "sweep", "--model", "scmrl", "--data", "av-digits", "--set", "train.epochs=12", "--over",
        "scmrl.alpha=0,0.5, 1", "--over", "train.seed=0,1", "--out", "s", "--export-bits", "8", "4",
        "--jobs", 2, "--config", "c.toml", "--init-from", "w.safetensors", "--target", "loihi1",
    )  # fmt: skip
    run_sweep.assert_called_once_with(
        {"scmrl.alpha": ["0", "0.5", "1"], "train.seed": ["0", "1"]}, Path("s"), model="scmrl",
        data="av-digits", file=Path("c.toml"), overrides={"train.epochs": "12"}, deploy=True,
        export_bits=[8, 4], target="loihi1", init_from=Path("w.safetensors"), jobs=2,
        workers=None, progress=ANY, **FOLDERS,
    )  # fmt: skip
    assert done.code == 1  # one run failed
    lines = [line.split() for line in done.out.splitlines()]
    assert ["0.5", "2", "0.800", "±", "0.010", "0.800", "0.750", "±", "0.020", "0.750",
            "0.900"] in lines  # fmt: skip
    assert ["1.0", "0", "-", "-", "-", "-", "-"] in lines
    assert (
        "best on validation (0.800 ± 0.010): scmrl.alpha 0.5; its test accuracy: "
        "float 0.750 ± 0.020, deployed 0.750\n"
    ) in done.out
    assert "failed: alpha=1_seed=0: the loss is nan" in done.out


@pytest.mark.parametrize("words", [["8,4"], ["8", "4"], ["8 4"]])
def test_widths_as_people_type_them(run, run_sweep, words):
    run("sweep", "--over", "train.seed=0", "--export-bits", *words, "--out", "s")
    assert run_sweep.call_args.kwargs["export_bits"] == [8, 4]


def test_sweep_as_json(run, run_sweep):
    done = run("sweep", "--over", "train.seed=0", "--out", "s", "--no-deploy", "--json")
    assert (done.code, done.json) == (1, SWEPT)
    assert run_sweep.call_args.kwargs["deploy"] is False
    assert run_sweep.call_args.kwargs["export_bits"] == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--over", "train.seed"], "needs KEY=V1,V2,..., for example scmrl.alpha=0,0.5,1"),
        (["--over", "train.seed=1,,2"], "found 'train.seed=1,,2'"),
        (["--over", "a.b=1", "--over", "a.b=2"], "one key comes twice"),
        (["--over", "a.b=1", "--export-bits", "x"], "needs widths of 2 to 16 bits such as 8,4"),
        (["--over", "a.b=1", "--export-bits", "8", "--no-deploy"], "exclude each other"),
        (["--over", "a.b=1", "--set", "x"], "needs KEY=VALUE"),
        ([], "Missing option '--over'"),
    ],
)
def test_wrong_usage_of_sweep(run, words, message):
    done = run("sweep", *words, "--out", "s")
    assert (done.code, done.out) == (2, "")
    assert message in " ".join(done.err.split())


def test_unknown_key_offers_near_matches(run, tmp_path):
    done = run("sweep", "--over", "train.epoch=1,2", "--out", tmp_path / "s")
    assert (done.code, done.out) == (1, "")
    assert "did you mean 'train.epochs'" in done.err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("package", "words"),
    [
        ("optuna", ["sweep", "--over", "train.seed=0"]),
        ("matplotlib", ["sweep", "--over", "train.seed=0"]),
        ("matplotlib", ["robustness", "shipped:tiny.nav"]),
    ],
)
def test_a_missing_package_says_what_installs_it(run, monkeypatch, tmp_path, package, words):
    for name in [n for n in sys.modules if n.startswith(("neuroav.studies", package))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    done = run(*words, "--out", tmp_path / "s", "--json")
    assert done.code == 1
    assert done.json["error"]["type"] == "MissingDependency"
    assert f"this command needs {package}; install it with: " in done.json["error"]["message"]
    assert not (tmp_path / "s").exists()


DISTURBED = {
    "split": "test", "samples": 10, "notes": ["Not comparable."],
    "panels": [
        {"kind": "noise", "on": "audio", "unit": "dB", "levels": [None, 30.0, -10.0], "curves": [
            {"file": "add", "float": [0.9, 0.9, 0.5], "deployed": [0.9, 0.8, None],
             "mean": {"float": 0.7, "deployed": None}, "refused": [None, None, "head: too much"]}]},
        {"kind": "missing", "on": "", "unit": "", "levels": [None, "audio"], "curves": [
            {"file": "add", "float": [0.9, 0.4], "deployed": [0.9, 0.3],
             "mean": {"float": 0.4, "deployed": 0.3}, "refused": [None, None]}]},
    ],
}  # fmt: skip


def test_robustness(run, stand_in):
    study = stand_in("neuroav.studies.robustness:run_robustness", return_value=DISTURBED)
    done = run(
        "robustness", "add.nav", "audio.nav", "--out", "made", "--disturbances", "noise,missing",
        "--samples", 10, "--batch", 4, "--jobs", 2, "--seed", 3, "--split", "val",
    )  # fmt: skip
    study.assert_called_once_with(
        ("add.nav", "audio.nav"), Path("made"), kinds=["noise", "missing"], samples=10, split="val",
        seed=3, batch=4, jobs=2, workers=None, progress=ANY, **FOLDERS,
    )  # fmt: skip
    lines = [line.split() for line in done.out.splitlines()]
    assert done.code == 0
    assert ["noise", "file", "side", "clean", "30", "dB", "-10", "dB", "mean"] in lines
    assert ["audio", "add", "deployed", "90.0", "80.0", "-", "-"] in lines
    assert ["add", "float", "90.0", "40.0", "40.0"] in lines
    assert "-: no answer, head: too much" in done.out
    assert "Not comparable." in done.out
    assert done.out.endswith("made/robustness.json\nmade/robustness.svg\nmade/robustness.png\n")
    assert run("robustness", "add.nav", "--out", "made", "--json").json == DISTURBED
    assert study.call_args.kwargs["kinds"] is None


def test_unknown_disturbance_offers_near_matches(run):
    done = run("robustness", "add.nav", "--out", "made", "--disturbances", "nois")
    assert done.code == 2
    assert "did you mean 'noise'?" in " ".join(done.err.split())


ABLATED = {
    "rows": [
        {
            "title": "as published",
            "mean": dict.fromkeys(("seen", "unseen", "hm", "zsl"), 0.5)
            | {"spikes": 1234.4, "synops": 5.0, "macs": 9.0},
            "sd": dict.fromkeys(("seen", "unseen", "hm", "zsl"), 0.25),
        }
    ]
}


def test_ablate(run, stand_in):
    mock = stand_in("neuroav.studies.zeroshot:run_ablation", return_value=ABLATED)
    done = run("ablate", "--out", "a", "--seeds", "0,2", "--steps", "cp", "--set", "train.epochs=3")
    mock.assert_called_once_with(
        Path("a"), data="av-attributes", seeds=[0, 2], overrides={"train.epochs": "3"},
        target="loihi2", steps=["cp"], progress=ANY, **FOLDERS,
    )  # fmt: skip
    assert done.code == 0
    assert "as published" in done.out
    assert "1,234" in done.out
    assert run("ablate", "--out", "a", "--seeds", "0;2").code == 2
