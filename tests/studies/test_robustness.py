"""Robustness: the same disturbed counts for both sides, seeded, whatever batches and processes."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import samples

from neuroav import data as data_module
from neuroav import navfile
from neuroav.data.avdata import AVData
from neuroav.data.cache import Recordings
from neuroav.data.frames import FrameSpec
from neuroav.data.ragged import Ragged
from neuroav.deployment import Probe
from neuroav.errors import ConfigError, DataError, OutOfRange
from neuroav.simulate import load_samples, simulate
from neuroav.studies import robustness, robustness_plot, subjects
from neuroav.studies.conditions import CLEAN, Condition, disturbed
from neuroav.training.config import load_config
from neuroav_export import compile_module

STEPS, PAIRS, CLASSES = 4, 36, 10


def recordings() -> Recordings:
    """Random events, of which each class has its own channels and places."""
    rng = np.random.default_rng(0)
    labels = np.arange(PAIRS) % CLASSES
    item = np.repeat(np.arange(PAIRS), 400)
    channel = (labels[item] * 6 + rng.integers(0, 8, len(item))) % 64
    heard = Ragged.build(item, PAIRS, channel=channel.astype(np.uint8),
                         time=rng.integers(0, 640_000, len(item)))  # fmt: skip
    x = (labels[item] * 3 + rng.integers(0, 6, len(item))) % 34
    seen = Ragged.build(
        item, PAIRS, x=x.astype(np.uint8), y=rng.integers(0, 34, len(item)).astype(np.uint8),
        p=rng.integers(0, 2, len(item)).astype(np.uint8), time=rng.integers(0, 300_000, len(item)),
    )  # fmt: skip
    meta = {"name": "made-up", "preset": "default", "data_seed": 0, "audio_channels": 64,
            "classes": list(map(str, range(CLASSES))), "audio_window_us": 640_000, "sensor": 34,
            "visual_window_us": 300_000}  # fmt: skip
    split = np.where(np.arange(PAIRS) < 12, 1, 2).astype(np.uint8)  # 12 val, 24 test
    return Recordings(heard, seen, labels, split, meta)


@pytest.fixture(scope="module")
def made_up() -> AVData:
    return AVData.of(recordings(), FrameSpec(steps=STEPS))


@pytest.fixture(autouse=True)
def _made_up(monkeypatch, made_up):
    monkeypatch.setattr(data_module, "load", lambda *_, **__: made_up)
    monkeypatch.setattr(robustness_plot, "robustness_figure", lambda *_: [])  # drawn once is enough


def deploy(made_up, name, folder, **changes):
    """Write an untrained network whose scores are balanced, so that its answers vary."""
    model = samples.warmed_model(name, steps=STEPS)
    frames = made_up.split("val").frames()
    inputs = {n: getattr(frames, n) for n in model.inputs}
    run = load_config(model=name, overrides={"data.steps": str(STEPS)}).model_dump(by_alias=True)
    provenance = {"run": run, "data_hash": made_up.content_hash, **changes}
    deployment = compile_module(
        model, inputs, provenance=provenance, probe=Probe(inputs, frames.labels),
        max_count=dict.fromkeys(inputs, 31),
    )  # fmt: skip
    path = folder / f"{name}.nav"
    navfile.save(deployment, path)
    return path


@pytest.fixture(scope="module")
def files(made_up, tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    return {name: deploy(made_up, name, folder) for name in ("add", "audio")}


@pytest.fixture(scope="module")
def measured(made_up, files, tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_module, "load", lambda *_, **__: made_up)
        return out, robustness.run_robustness(files.values(), out, cache_dir=out)


def panel(found, kind, on=""):
    (one,) = (p for p in found["panels"] if (p["kind"], p["on"]) == (kind, on))
    return one


# --- the whole study ---------------------------------------------------------------------------
def test_files_and_what_they_hold(measured, files):
    out, found = measured
    assert {p.name for p in out.iterdir()} == set(robustness.FILES)
    assert json.loads((out / "robustness.json").read_text()) == found
    assert (found["split"], found["samples"], found["classes"]) == ("test", 24, CLASSES)
    assert [(p["kind"], p["on"]) for p in found["panels"]] == [
        *((kind, on) for kind in ("noise", "drop", "jitter") for on in ("audio", "visual", "both")),
        ("missing", ""),
    ]
    assert [f["label"] for f in found["files"]] == ["add", "audio"]
    assert found["files"][0]["hash"] == navfile.load(files["add"]).content_hash
    assert "not comparable" in " ".join(found["notes"])


def test_levels_curves_and_units(measured):
    _, found = measured
    noise = panel(found, "noise", "both")
    assert noise["levels"] == [None, 30, 25, 20, 15, 10, 5, 0, -5, -10]
    assert [panel(found, kind, "audio")["unit"] for kind in ("noise", "drop", "jitter")] == [
        "dB", "%", "ms",
    ]  # fmt: skip
    for one in found["panels"]:
        for curve, file in zip(one["curves"], found["files"], strict=True):
            assert curve["file"] == file["label"]
            for side in ("float", "deployed"):
                assert len(curve[side]) == len(one["levels"])
                assert curve[side][0] == file["clean"][side]
                assert curve["mean"][side] == pytest.approx(np.mean(curve[side][1:]))


def test_clean_accuracy_is_that_of_simulate(measured, files):
    _, found = measured
    for file in found["files"]:
        expected = simulate(files[file["label"]], cache_dir=files["add"].parent)["accuracy"]
        assert file["clean"]["deployed"] == expected
        low, high = file["interval_95"]["deployed"]
        assert low <= expected <= high


def test_a_network_is_not_touched_by_what_it_does_not_hear(measured):
    _, found = measured
    (curve,) = (c for c in panel(found, "noise", "visual")["curves"] if c["file"] == "audio")
    assert len(set(curve["float"])) == len(set(curve["deployed"])) == 1
    assert curve["changed"] == {}
    both = panel(found, "drop", "both")["curves"][1]
    alone = panel(found, "drop", "audio")["curves"][1]
    assert {k: both[k] for k in ("float", "deployed")} == {
        k: alone[k] for k in ("float", "deployed")
    }


def test_stronger_disturbances_change_more(measured):
    _, found = measured
    for kind, on in (("noise", "both"), ("drop", "both"), ("jitter", "both")):
        for shares in panel(found, kind, on)["curves"][0]["changed"].values():
            assert shares == sorted(shares)
            assert shares[0] == 0 < shares[-1]
    missing = panel(found, "missing")["curves"][0]
    assert missing["changed"]["audio"][1] > 0 == missing["changed"]["audio"][2]


def test_batches_do_not_matter_and_seeds_do(files, measured, tmp_path):
    _, found = measured
    options = {"kinds": ["noise", "drop"], "cache_dir": tmp_path}
    again = robustness.run_robustness([files["add"]], tmp_path / "a", batch=5, **options)
    for one in again["panels"]:
        assert one["curves"][0] == panel(found, one["kind"], one["on"])["curves"][0]
    options["kinds"] = ["drop"]
    other = robustness.run_robustness([files["add"]], tmp_path / "b", seed=1, **options)
    assert other["panels"] != again["panels"][3:]


def test_processes_do_not_matter(files, measured, tmp_path, monkeypatch):
    dealt = []

    def carry_out(work, tasks, jobs):  # its processes have tests of their own
        dealt.extend(tasks)
        return ((task, work(task)) for task in tasks)

    monkeypatch.setattr(robustness, "carry_out", carry_out)
    options = {"kinds": ["drop"], "cache_dir": tmp_path}
    found = robustness.run_robustness([files["add"]], tmp_path / "out", jobs=3, **options)
    assert [len(task.conditions) for task in dealt] == [7, 6, 6]
    for one in found["panels"]:
        assert one["curves"][0] == panel(measured[1], "drop", one["on"])["curves"][0]


# --- one condition -----------------------------------------------------------------------------
def loaded(files, count=24):
    deployment = navfile.load(files["add"])
    return deployment, load_samples(deployment, split="test", samples=count, cache_dir=None)


@pytest.mark.parametrize(
    "condition",
    [Condition("noise", "both", -5.0), Condition("drop", "visual", 60.0),
     Condition("jitter", "audio", 40.0), Condition("missing", "audio")],
    ids=lambda c: c.kind,
)  # fmt: skip
def test_a_sample_is_disturbed_alike_alone_and_among_others(files, condition):
    deployment, whole = loaded(files)
    _, few = loaded(files, 5)
    first, second = (disturbed(deployment, s, condition, seed=3) for s in (whole, few))
    for name in ("audio", "visual"):
        assert np.array_equal(first[name][:5], second[name])
        same = np.array_equal(first[name], whole.inputs[name])
        assert same != condition.hits(name)
        assert first[name].min() >= 0
        assert first[name].max() <= deployment.integer.inputs[name].max_count


def test_clean_is_untouched(files):
    deployment, whole = loaded(files)
    given = disturbed(deployment, whole, CLEAN, seed=0)
    assert all(np.array_equal(given[n], whole.inputs[n]) for n in given)


def test_lost_events_are_lost_before_binning(files, made_up):
    deployment, whole = loaded(files)
    given = disturbed(deployment, whole, Condition("drop", "both", 80.0), seed=0)
    total = whole.inputs["audio"].sum(dtype=np.int64)
    share = 1 - given["audio"].sum(dtype=np.int64) / total
    assert abs(share - 0.8) < 5 * np.sqrt(0.8 * 0.2 / total)
    assert (given["audio"] <= whole.inputs["audio"]).all()


def test_no_answer_where_the_integers_leave_their_registers(files, monkeypatch, tmp_path):
    real_run = robustness.fast.run

    def run(deployment, inputs, **options):
        if not inputs["audio"].any():
            raise OutOfRange("head: the readout accumulator reached 9")
        return real_run(deployment, inputs, **options)

    monkeypatch.setattr(robustness.fast, "run", run)
    options = {"kinds": ["missing"], "cache_dir": tmp_path}
    found = robustness.run_robustness([files["add"]], tmp_path / "out", **options)
    curve = panel(found, "missing")["curves"][0]
    assert curve["deployed"][1] is curve["agreement"][1] is curve["mean"]["deployed"] is None
    assert curve["refused"][1] == "head: the readout accumulator reached 9"
    assert None not in (*curve["float"], curve["deployed"][2], curve["mean"]["float"])


# --- what cannot be compared -------------------------------------------------------------------
def test_samples_inside_a_file_have_no_events(files, tmp_path):
    options = {"split": "probe", "cache_dir": tmp_path}
    found = robustness.run_robustness([files["add"]], tmp_path / "out", **options)
    assert {p["kind"] for p in found["panels"]} == {"noise", "missing"}
    assert "event counts, the events themselves are not in the file" in found["notes"][-1]
    with pytest.raises(DataError, match="drop needs the events before binning"):
        robustness.run_robustness([files["add"]], tmp_path / "no", kinds=["drop"], **options)
    assert not (tmp_path / "no").exists()


def test_files_of_different_data_are_refused(files, made_up, tmp_path, monkeypatch):
    other = deploy(made_up, "visual", tmp_path, data_hash="f" * 64)
    monkeypatch.setattr(data_module, "load", lambda *_, **__: made_up)
    real = subjects.load_samples

    def load(deployment, **options):
        return real(
            replace(deployment, provenance={**deployment.provenance,
                                            "data_hash": made_up.content_hash}),
            **options,
        )  # fmt: skip

    monkeypatch.setattr(subjects, "load_samples", load)
    with pytest.raises(DataError, match=re.escape("visual.nav: was trained on other data than")):
        robustness.run_robustness([files["add"], other], tmp_path / "out", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("paths", "options", "message"),
    [
        ([], {}, "no file to disturb"),
        ([f"{n}.nav" for n in range(8)], {}, "8 files: at most 7 can be told apart"),
        (["add.nav"], {"kinds": ["nois"]}, "unknown disturbance 'nois'.*did you mean 'noise'"),
        (["add.nav"], {"batch": 0}, "batch is 0, needs at least 1"),
    ],
)
def test_wrong_requests(tmp_path, paths, options, message):
    with pytest.raises(ConfigError, match=message):
        robustness.run_robustness(paths, tmp_path / "out", cache_dir=tmp_path, **options)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigError, match="is a file, the results need a folder"):
        robustness.run_robustness(["add.nav"], tmp_path / "out", cache_dir=tmp_path)
