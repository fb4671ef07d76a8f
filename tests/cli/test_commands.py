"""Each command passes what was typed to one function and shows what it returns.

The functions are replaced by stand-ins that accept only the real ones' arguments, so a command that
no longer fits its function fails here.
"""

from __future__ import annotations

from pathlib import Path
from unittest.mock import ANY

import platformdirs
import pytest

from neuroav.errors import DataError

CACHE = platformdirs.user_cache_path("neuroav")
FOLDERS = {"cache_dir": CACHE, "data_root": None}


# --- data --------------------------------------------------------------------------------------
def test_data_list_names_every_set(run):
    from neuroav.data import DATASETS

    done = run("data", "list", "--json")
    assert [row["name"] for row in done.json["datasets"]] == list(DATASETS)
    assert done.json["datasets"][0]["classes"][0] == "zero"
    assert all(name in run("data", "list").out for name in DATASETS)


def test_data_prepare(run, stand_in, tmp_path):
    prepare = stand_in("neuroav.data:prepare", return_value=tmp_path / "made.h5")
    done = run("data", "prepare", "av-digits", "--preset", "hard", "--seed", 3, "--force")
    assert done.out == f"av-digits (hard, seed 3): {tmp_path / 'made.h5'}\n"
    prepare.assert_called_once_with(
        "av-digits", preset="hard", data_seed=3, force=True, progress=ANY, jobs=1,
        skip_broken=False, accept_changed=False, manifest=None, **FOLDERS,
    )  # fmt: skip
    found = run("data", "prepare", "av-digits", "--json").json
    assert found == {
        "name": "av-digits", "preset": "default", "seed": 0, "path": str(tmp_path / "made.h5"),
    }  # fmt: skip


def test_data_show(run, stand_in):
    describe = stand_in("neuroav.data:describe", return_value={"splits": {"test": 450}, "x": None})
    assert run("data", "show", "av-digits").out.split() == ["splits", "test", "450", "x", "-"]
    describe.assert_called_once_with("av-digits", preset="default", data_seed=0, **FOLDERS)
    assert run("data", "show", "av-digits", "--json").json == {"splits": {"test": 450}, "x": None}


@pytest.mark.parametrize("command", ["prepare", "show"])
def test_unknown_data_set_offers_near_matches(run, command, tmp_path):
    done = run("data", command, "av-digts", "--cache-dir", tmp_path)
    assert (done.code, done.out) == (1, "")
    assert "unknown data set 'av-digts': allowed are " in done.err
    assert "did you mean 'av-digits'" in done.err


def test_folders_come_from_options_then_environment(run, stand_in, tmp_path):
    describe = stand_in("neuroav.data:describe", return_value={})
    run("data", "show", "av-digits", NEUROAV_DATA="/from/environment")
    assert describe.call_args.kwargs["data_root"] == Path("/from/environment")
    run("data", "show", "av-digits", "--data-root", "/typed", NEUROAV_DATA="/from/environment")
    assert describe.call_args.kwargs["data_root"] == Path("/typed")
    run("data", "show", "av-digits", "--cache-dir", tmp_path)
    assert describe.call_args.kwargs["cache_dir"] == tmp_path


# --- train, evaluate, export -------------------------------------------------------------------
def test_train_builds_the_configuration_from_the_options(run, stand_in, tmp_path):
    train = stand_in("neuroav.training.loop:train", return_value={"epochs": 2, "history": [1, 2]})
    done = run(
        "train", "--model", "audio", "--data", "av-digits", "--out", tmp_path, "--epochs", 2,
        "--seed", 7, "--threads", 1, "--set", "model.embed_dim=16", "--set", "data.preset=hard",
        "--init-from", "w.safetensors",
    )  # fmt: skip
    assert done.code == 0, done.err
    (config, out), options = train.call_args
    assert (config.model.name, config.model.embed_dim) == ("audio", 16)
    assert (config.data.name, config.data.preset) == ("av-digits", "hard")
    assert (config.train.epochs, config.train.seed, config.train.threads) == (2, 7, 1)
    assert out == tmp_path
    assert options == {
        "resume": False, "init_from": Path("w.safetensors"), "ranks": None, "progress": ANY,
        **FOLDERS,
    }  # fmt: skip
    assert done.out.split() == ["run", str(tmp_path), "epochs", "2"]


def test_train_reads_a_configuration_that_options_change(run, stand_in, tmp_path):
    train = stand_in("neuroav.training.loop:train", return_value={})
    file = tmp_path / "mine.toml"
    file.write_text('[model]\nname = "visual"\n[train]\nepochs = 5\nseed = 4\n')
    assert run("train", "--config", file, "--out", tmp_path, "--epochs", 6, "--json").json == {}
    config = train.call_args.args[0]
    assert (config.model.name, config.train.epochs, config.train.seed) == ("visual", 6, 4)


def test_resume_takes_the_stored_configuration(run, stand_in, tmp_path):
    train = stand_in("neuroav.training.loop:train", return_value={})
    (tmp_path / "config.toml").write_text("[train]\nseed = 9\n")
    assert run("train", "--out", tmp_path, "--resume").code == 0
    assert train.call_args.args[0].train.seed == 9
    assert train.call_args.kwargs["resume"] is True
    run("train", "--out", tmp_path, "--resume", "--model", "audio")
    assert train.call_args.args[0].train.seed == 9
    assert train.call_args.args[0].model.name == "audio"
    mine = tmp_path / "mine.toml"
    mine.write_text("[train]\nseed = 5\n")
    run("train", "--out", tmp_path, "--resume", "--config", mine)
    assert train.call_args.args[0].train.seed == 5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epoch=3", "unknown configuration key 'train.epoch'.*did you mean 'train.epochs'"),
        ("train.epochs=none", "train.epochs: .*found 'none'"),
    ],
)
def test_bad_configuration_is_an_expected_failure(run, tmp_path, setting, message):
    import re

    done = run("train", "--out", tmp_path / "run", "--set", setting)
    assert (done.code, done.out) == (1, "")
    assert re.search(message, done.err)
    assert not (tmp_path / "run").exists()


def test_evaluate(run, stand_in):
    found = {"samples": 3, "accuracy": 2 / 3, "loss": 0.5, "confusion": [[1, 1], [0, 1]]}
    evaluate = stand_in("neuroav.training.evaluate:evaluate", return_value=found)
    done = run("evaluate", "runs/x", "--samples", 3, "--split", "val")
    assert "accuracy  0.6667" in done.out
    assert [line.split() for line in done.out.splitlines()[-2:]] == [["0", "1", "1"],
                                                                     ["1", "0", "1"]]  # fmt: skip
    evaluate.assert_called_once_with(
        Path("runs/x"), split="val", samples=3, progress=ANY, **FOLDERS
    )
    assert run("evaluate", "runs/x", "--json").json == found
    assert evaluate.call_args.kwargs["split"] == "test"


def test_evaluate_of_no_run_says_how_to_make_one(run, tmp_path):
    done = run("evaluate", tmp_path, "--json")
    assert done.code == 1
    assert "neuroav train" in done.json["error"]["message"]


def test_export(run, stand_in):
    layers = {"stem": {"neurons": 10, "synapses": 20}}
    found = {
        "neurons": 10, "synapses": 20, "saturations": {"a": 1}, "cores": None, "layers": layers,
    }  # fmt: skip
    export = stand_in("neuroav_export:export_run", return_value=found)
    done = run("export", "runs/x", "--out", "x.nav", "--bits", 4)
    assert "saturations  a 1" in done.out
    assert ["stem", "10", "20"] in [line.split() for line in done.out.splitlines()]
    export.assert_called_once_with(
        Path("runs/x"),
        target="loihi2",
        out=Path("x.nav"),
        bits=4,
        calibration=None,
        per_channel=None,
        layer_bits=None,
        accuracy_budget=None,
        place=True,
        spread=True,
        progress=ANY,
        **FOLDERS,
    )
    run("export", "runs/x", "--out", "x.nav", "--pack")
    assert export.call_args.kwargs["spread"] is False
    run("export", "runs/x", "--out", "x.nav", "--target", "my.toml", "--no-place")
    assert export.call_args.kwargs["target"] == "my.toml"
    assert export.call_args.kwargs["place"] is False
    assert run("export", "runs/x", "--out", "x.nav", "--json").json == found


def test_export_shows_how_full_the_cores_are(run, stand_in):
    full = {"mean": 0.25, "max": 0.5, "limit": 8192}
    found = {"cores": 30, "chips": 2, "utilisation": {"cores": {"share": 0.125}, "neurons": full}}
    stand_in("neuroav_export:export_run", return_value=found)
    lines = run("export", "runs/x", "--out", "x.nav").out.splitlines()
    assert "30 cores, 12.5% of 2 chips" in lines
    assert ["neurons", "25.0%", "50.0%", "8,192"] in [line.split() for line in lines]


# --- simulate, verify, report, demo ------------------------------------------------------------
SIMULATED = {
    "backend": "fast", "samples": 2, "accuracy": 1.0, "predictions": [1, 2],
    "spikes_per_sample": {"stem": 3.5, "head": 1.0}, "synops_per_sample": {"stem": 9.0},
    "spike_digest": "ab" * 32,
}  # fmt: skip


def test_simulate(run, stand_in):
    simulate = stand_in("neuroav.simulate:simulate", return_value=SIMULATED)
    done = run(
        "simulate", "x.nav", "--backend", "reference", "--samples", 2, "--split", "probe",
        "--batch", 4, "--memory-mb", 9, "--device", "cuda", "--record", "r.h5",
    )  # fmt: skip
    simulate.assert_called_once_with(
        Path("x.nav"), backend="reference", samples=2, split="probe", batch=4, memory_mb=9,
        device="cuda", record=Path("r.h5"), progress=ANY, **FOLDERS,
    )  # fmt: skip
    rows = [line.split() for line in done.out.splitlines()]
    assert ["stem", "3.5", "9"] in rows
    assert ["head", "1", "-"] in rows
    assert "ab" * 32 in done.out
    assert run("simulate", "x.nav", "--json").json == SIMULATED
    assert simulate.call_args.kwargs["split"] is None


def test_simulate_of_a_shipped_file_that_does_not_exist(run):
    done = run("simulate", "shipped:absent.nav")
    assert done.code == 1
    assert "unknown shipped deployment 'absent.nav'" in done.err


def test_simulate_of_a_file_that_is_none(run, tmp_path):
    done = run("simulate", tmp_path / "absent.nav", "--json")
    assert done.code == 1
    assert done.json["error"]["type"] == "FileFormatError"


@pytest.mark.parametrize("equal", [True, False])
def test_verify_exits_1_when_unequal(run, stand_in, equal):
    found = {"equal": equal, "samples": 2, "first_divergence": None, "nodes": ["secret"]}
    verify = stand_in("neuroav.verify:verify", return_value=found)
    done = run("verify", "x.nav", "--backends", "reference, lava", "--samples", 2)
    assert done.code == (not equal)
    assert done.out.startswith(f"reference, lava: {'equal' if equal else 'NOT EQUAL'}\n")
    assert "secret" not in done.out
    verify.assert_called_once_with(
        Path("x.nav"), backends=["reference", "lava"], samples=2, split=None, progress=ANY,
        **FOLDERS,
    )  # fmt: skip
    done = run("verify", "x.nav", "--json")
    assert (done.code, done.json) == (not equal, found)
    assert verify.call_args.kwargs["backends"] == ["reference", "fast"]


def test_verify_explains_and_certifies_on_demand(run, stand_in):
    plain = stand_in("neuroav.verify:verify")
    found = {"equal": False, "certificate": None, "first_divergence": None}
    explained = stand_in("neuroav.explain:verify_explained", return_value=found)
    done = run("verify", "x.nav", "--against", "y.nav", "--certificate", "c.md")
    assert done.code == 1
    assert done.out.endswith("certificate: not written\n")
    explained.assert_called_once_with(
        Path("x.nav"), backends=["reference", "fast"], explain=False, against="y.nav",
        certificate=Path("c.md"), digests=None, samples=None, split=None, progress=ANY, **FOLDERS,
    )  # fmt: skip
    run("verify", "x.nav", "--explain")
    assert explained.call_args.kwargs["explain"] is True
    assert explained.call_args.kwargs["against"] is None
    assert "unfolded" not in explained.call_args.kwargs
    run("verify", "x.nav", "--explain", "--run", "runs/x")
    unfolded = explained.call_args.kwargs["unfolded"]
    assert unfolded.args == (Path("runs/x"),)
    done = run("verify", "x.nav", "--digests", "check", "--backends", "reference")
    assert done.out.startswith("reference, digests in the file: NOT EQUAL")
    assert explained.call_args.kwargs["digests"] == "check"
    plain.assert_not_called()


def test_report(run, stand_in):
    write = stand_in("neuroav.report:write_report", return_value={"accuracy": {}})
    done = run(
        "report", "x.nav", "y.nav", "--out", "made", "--profile", "loihi2", "--profile", "ideal"
    )
    assert done.out.split() == ["made/report.html", "made/report.json", "made/report.md"]
    write.assert_called_once_with(
        [Path("x.nav"), Path("y.nav")], out=Path("made"), samples=None, split=None,
        profiles=["loihi2", "ideal"], progress=ANY, **FOLDERS,
    )  # fmt: skip
    assert run("report", "x.nav", "--out", "made", "--json").json == {"accuracy": {}}


def test_demo_prints_one_line_each(run, stand_in):
    found = {"audio": 0.7, "visual": 0.9, "av_float": 0.98, "av_deployed": 0.975,
             "report": "runs/demo/report/report.html"}  # fmt: skip
    demo = stand_in("neuroav.demo:run_demo", return_value=found)
    assert run("demo", "--out", "runs/mine").out.splitlines() == [
        "audio alone: 0.700",
        "visual alone: 0.900",
        "audio-visual, float: 0.980",
        "audio-visual, deployed: 0.975",
        "report: runs/demo/report/report.html",
    ]
    demo.assert_called_once_with(Path("runs/mine"), progress=ANY, **FOLDERS)
    assert run("demo", "--json").json == found


def test_failure_below_a_command_reaches_the_frame(run, stand_in):
    stand_in("neuroav_export:export_run", side_effect=DataError("no data"))
    done = run("export", "runs/x", "--out", "x.nav")
    assert (done.code, done.err) == (1, "neuroav: error: no data\n")


def test_evaluate_leaves_out_a_confusion_that_fits_no_terminal(run, stand_in):
    found = {"samples": 3, "accuracy": 0.5, "confusion": [[0] * 30] * 30}
    stand_in("neuroav.training.evaluate:evaluate", return_value=found)
    assert "one row per true class" not in run("evaluate", "r").out
    assert len(run("evaluate", "r", "--json").json["confusion"]) == 30
