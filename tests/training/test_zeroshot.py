"""Zero-shot training: balanced batches, losses written out, two stages, no test data, resuming."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import zero_shot_data as small
from safetensors.torch import load_file

from neuroav.data import zeroshot as zs
from neuroav.data.zeroshot_scores import calibrate
from neuroav.errors import ConfigError, DataError, TrainingError, UnsupportedModule
from neuroav.models.zeroshot.parts import MODALITIES
from neuroav.training import evaluate as evaluation
from neuroav.training import loop
from neuroav.training.config import load_config
from neuroav.training.zeroshot.batches import BalancedBatches
from neuroav.training.zeroshot.evaluate import trials
from neuroav.training.zeroshot.loop import ZeroShotRun
from neuroav.training.zeroshot.losses import zero_shot_loss
from neuroav_export import export_run


@pytest.fixture
def data(monkeypatch):
    """Let training and evaluation read the small data set; change ``made[0]`` for another."""
    made = [small.make()]
    for module in (loop, evaluation):
        monkeypatch.setattr(module, "load_data", lambda *_, **__: made[0])
    return made


def run(out, model="avca", *, resume=False, **changes):
    return loop.train(small.config(model, **changes), out, resume=resume, cache_dir=out)


# --- batches and losses ------------------------------------------------------------------------
def test_batches_are_balanced_and_negatives_are_of_other_classes():
    part = small.make().stages[zs.STAGE_1_TRAIN]
    uneven = part.take(np.concatenate([np.arange(8), [8, 16, 24]]))  # 8 of class 0, 1 of each other
    text = np.arange(small.CLASSES, dtype=np.float32)[:, None]
    draws = BalancedBatches(uneven, text, 50)
    batches = list(draws.epoch(40, np.random.default_rng(1)))
    anchors = np.concatenate([b.text.numpy()[:, 0] for b in batches]).astype(int)
    others = np.concatenate([b.text_negative.numpy()[:, 0] for b in batches]).astype(int)
    assert (anchors != others).all()
    shares = np.bincount(anchors, minlength=4) / len(anchors)
    assert np.abs(shares - 0.25).max() < 0.03
    assert np.abs(np.bincount(others, minlength=4) / len(others) - 0.25).max() < 0.03
    audio = batches[0].inputs["audio"]
    assert audio.shape == (1, 100, small.AUDIO)
    rows = {r.tobytes(): c for r, c in zip(uneven.audio, uneven.labels, strict=True)}
    labels = [rows[r.tobytes()] for r in audio[0].numpy()]
    assert labels == [*anchors[:50], *others[:50]]
    again = list(draws.epoch(40, np.random.default_rng(1)))
    assert all(
        torch.equal(a.inputs["visual"], b.inputs["visual"])
        for a, b in zip(batches, again, strict=True)
    )


def test_one_class_cannot_be_trained_on():
    part = small.make().stages[zs.STAGE_1_TRAIN]
    with pytest.raises(DataError, match="two classes and more, found 1"):
        BalancedBatches(part.take(np.arange(8)), np.zeros((9, 2), np.float32), 4)


def tri(a, p, n):
    """mean max(0, |a - p| - |a - n| + 1), one row at a time (torch adds 1e-6 to differences)."""
    rows = [
        max(0.0, float((x - y + 1e-6).norm() - (x - z + 1e-6).norm()) + 1)
        for x, y, z in zip(a, p, n, strict=True)
    ]
    return float(np.mean(rows))


def mse(a, b):
    return float(((a - b) ** 2).mean())


@pytest.mark.parametrize("loss", ["stft", "avca"])
@torch.no_grad()
def test_losses_are_what_their_equations_say(loss):
    torch.manual_seed(0)
    config = small.config("avca", **{"zsl.loss": loss})
    holder = ZeroShotRun(config, None, small.make())
    net, (batch,) = holder.model.net.eval(), list(holder.batches.epoch(1, np.random.default_rng(2)))
    both = net.embed(batch.inputs)
    count = len(batch.text)
    theta = {m: both.theta[m][:count] for m in MODALITIES}
    minus = {m: both.theta[m][count:] for m in MODALITIES}
    phi = {m: both.phi[m][:count] for m in MODALITIES}
    w, w_minus = net.text.project(batch.text), net.text.project(batch.text_negative)
    rebuilt, rho = net.rebuild(theta), net.text.decode
    if loss == "stft":
        av, av_minus = (sum(x.values()) / 2 for x in (theta, minus))
        l_t = 0.5 * (tri(av, w, w_minus) + tri(w, av, av_minus))
        l_p = 0.5 * (mse(theta["audio"], w) + mse(theta["visual"], w))
        terms = [mse(rebuilt[m], phi[m]) for m in MODALITIES]
        terms += [mse(rho(x), batch.text) for x in (theta["audio"], theta["visual"], w)]
        expected = 0.5 * l_t + 0.5 * (l_p + sum(terms) / 5)
    else:
        expected = mse(rho(w), batch.text)
        for m in MODALITIES:
            x, n = theta[m], minus[m]
            expected += mse(rho(x), batch.text) + tri(rho(w), rho(x), rho(n))
            expected += tri(w, x, n) + tri(x, w, w_minus) + tri(x, w, n) + tri(w, x, w_minus)
            expected += mse(rebuilt[m], phi[m]) + mse(x, w)
    assert float(zero_shot_loss(net, batch, config.zsl)) == pytest.approx(expected, rel=1e-4)
    assert expected > 0.1


# --- two stages --------------------------------------------------------------------------------
@pytest.mark.parametrize("model", ["avca", "stft", "stft-chip"])
def test_a_run_is_two_stages_and_learns(tmp_path, data, model):
    metrics = run(tmp_path / "run", model, **{"train.epochs": "6", "zsl.batches": "20"})
    first = [h for h in metrics["history"] if h["stage"] == 1]
    second = [h for h in metrics["history"] if h["stage"] == 2]
    assert len(first) == 6
    assert len(second) == metrics["best_epoch"] + 1
    assert first[-1]["loss"] < first[0]["loss"]
    best = max(first, key=lambda h: h["val_hm"])
    assert metrics["best_epoch"] == best["epoch"]
    assert [h["learning_rate"] for h in second] == [h["learning_rate"] for h in first][
        : len(second)
    ]
    assert all("val_hm" not in h for h in second)
    stored = load_file(tmp_path / "run" / "model.safetensors")
    assert stored["seen_bias"][0] == pytest.approx(metrics["bias"]["both"])
    found = evaluation.evaluate(tmp_path / "run", cache_dir=tmp_path)
    assert found["samples"] == 64
    assert found["accuracy"] > 0.3  # chance: one of eight
    assert found["hm"] == pytest.approx(
        2 * found["seen"] * found["unseen"] / (found["seen"] + found["unseen"] + 1e-12)
    )
    assert np.sum(found["confusion"]) == 64
    assert found["other_alignment"]["text_alignment"] == "avca_compat"
    assert found["misaligned_classes"] == small.CLASSES
    assert ("audio" in found["by_query"]) == (model != "stft-chip")


def test_nothing_of_the_test_reaches_weights_or_bias(tmp_path, data):
    changes = {"train.epochs": "4"}
    first = run(tmp_path / "a", **changes)
    data[0] = small.make(test_seed=99)
    assert data[0].content_hash != small.make().content_hash
    second = run(tmp_path / "b", **changes)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (
        tmp_path / "b/model.safetensors"
    ).read_bytes()
    assert first["bias"] == second["bias"]
    # a run holds no test sample to begin with
    stages = ZeroShotRun(small.config("avca"), tmp_path, data[0]).stages
    held = {n for s in stages.values() for f in (s.train, s.val) if f is not None for n in f.names}
    assert held
    assert not any(str(n).startswith("stage_2") for n in held)


def test_the_stored_bias_is_the_one_calibrated_on_validation(tmp_path, data):
    metrics = run(tmp_path / "run", **{"train.epochs": "1"})
    made = data[0]
    fresh = ZeroShotRun(small.config("avca", **{"train.epochs": "1"}), tmp_path / "x", made)
    (tmp_path / "x").mkdir()
    fresh._epoch(None)
    found = trials(
        fresh.model,
        made.split("val").features,
        made.stage_classes[zs.STAGE_1_TRAIN],
        made.stage_classes[zs.STAGE_1_VAL_UNSEEN],
    )
    assert metrics["bias"] == {q: calibrate(t, 61)[0] for q, t in found.items()}


def test_second_stage_trains_on_validation_too():
    made = small.make()
    run = ZeroShotRun(small.config("avca"), None, made)
    names = set(map(str, run.stages[2].train.names))
    assert names == {
        str(n)
        for s in (zs.STAGE_1_TRAIN, zs.STAGE_1_VAL_SEEN, zs.STAGE_1_VAL_UNSEEN)
        for n in made.stages[s].names
    }
    assert run.stages[2].seen.tolist() == [0, 1, 2, 3, 4, 5]
    assert set(map(str, run.stages[1].train.names)) < names


@pytest.mark.parametrize("stopped", [1, 3, 4])
def test_a_stopped_run_goes_on_as_if_undisturbed(tmp_path, data, stopped):
    """Stopped in stage 1, between the stages and in stage 2."""
    changes = {"zsl.dropout_encoder": "0.2"}
    whole = run(tmp_path / "whole", "stft", **changes)
    assert len(whole["history"]) > 4 or stopped < 4 or whole["best_epoch"] == 0

    class StopError(Exception):
        pass

    def stop(_, done, __):
        if done == stopped:
            raise StopError

    with pytest.raises(StopError):
        loop.train(small.config("stft", **changes), tmp_path / "cut", cache_dir=tmp_path,
                   progress=stop)  # fmt: skip
    run(tmp_path / "cut", "stft", resume=True, **changes)
    assert (tmp_path / "cut/model.safetensors").read_bytes() == (
        tmp_path / "whole/model.safetensors"
    ).read_bytes()


def test_text_alignment_is_what_is_trained_on(tmp_path, data):
    run(tmp_path / "compat", **{"zsl.text_alignment": "avca_compat"})
    found = evaluation.evaluate(tmp_path / "compat", cache_dir=tmp_path)
    assert found["other_alignment"]["text_alignment"] == "by_name"
    assert json.loads((tmp_path / "compat/metrics.json").read_text())["text_alignment"] == (
        "avca_compat"
    )


def test_what_does_not_fit_is_refused(tmp_path, data):
    with pytest.raises(ConfigError, match="classifies by text, data 'av-digits' have none"):
        run(tmp_path / "a", **{"data.name": "av-digits"})
    with pytest.raises(
        ConfigError, match="with this model use --data av-digits or cremad or .*nmnist-fsdd"
    ):
        loop.train(load_config(model="add", data="ucf-gzsl"), tmp_path / "b", cache_dir=tmp_path)
    with pytest.raises(ConfigError, match="start afresh in both stages"):
        loop.train(small.config("avca"), tmp_path / "c", init_from=tmp_path, cache_dir=tmp_path)
    with pytest.raises(TrainingError, match="stage 1, epoch 0, batch 0"):
        run(tmp_path / "d", **{"train.learning_rate": "1e-3", "zsl.margin": "1e39"})
    assert not (tmp_path / "a").exists()


def test_splits_that_were_trained_on_have_no_zero_shot_measures(tmp_path, data):
    run(tmp_path / "run")
    found = evaluation.evaluate(tmp_path / "run", split="val", cache_dir=tmp_path, samples=10)
    assert found["samples"] == 10
    assert all(found[k] is None for k in ("seen", "unseen", "hm", "zsl"))
    one = evaluation.evaluate(tmp_path / "run", cache_dir=tmp_path, samples=1)
    assert one["samples"] == 1
    assert one["hm"] is None


def test_float_networks_are_not_exported(tmp_path, data):
    run(tmp_path / "run", "stft")
    with pytest.raises(UnsupportedModule, match="train --model stft-chip"):
        export_run(tmp_path / "run", out=tmp_path / "x.nav", cache_dir=tmp_path)


def test_a_class_without_samples_is_counted_not_divided_by(tmp_path, data):
    test = data[0].stages[zs.STAGE_2_TEST_UNSEEN]
    kept = test.take(np.flatnonzero(test.labels != 7))
    data[0] = replace(data[0], stages={**data[0].stages, zs.STAGE_2_TEST_UNSEEN: kept})
    run(tmp_path / "run")
    found = evaluation.evaluate(tmp_path / "run", cache_dir=tmp_path)
    assert found["empty"] == 1
    assert np.isfinite(found["hm"])


def test_sequences_train_too(tmp_path, data):
    made = data[0]
    stages = {
        s: replace(
            f,
            audio=np.repeat(f.audio[:, None], small.STEPS, 1),
            visual=np.repeat(f.visual[:, None], small.STEPS, 1),
        )
        for s, f in made.stages.items()
    }
    data[0] = replace(made, stages=stages)
    assert run(tmp_path / "run", "stft")["val_hm"] >= 0


# --- configuration -----------------------------------------------------------------------------
def test_defaults_follow_model_and_data():
    small_set, large = load_config(model="stft"), load_config(model="stft", data="ucf-gzsl")
    assert (small_set.data.name, small_set.data.preset, small_set.train.epochs) == (
        "av-attributes", "default", 20,
    )  # fmt: skip
    assert (large.data.preset, large.train.epochs, large.zsl.batches, large.zsl.embed_dim) == (
        "main", 50, 500, 300,
    )  # fmt: skip
    assert load_config(model="avca").zsl.loss == "avca"
    given = load_config(model="stft", overrides={"train.epochs": "3", "zsl.embed_dim": "8"})
    assert (given.train.epochs, given.zsl.embed_dim, given.zsl.hidden_dim) == (3, 8, 128)
    assert load_config(model="add").train.epochs == 24
