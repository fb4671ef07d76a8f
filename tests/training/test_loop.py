"""The training loop: learns, resumes bit for bit after a kill, refuses what it cannot use."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import fake_data
import numpy as np
import pytest
import samples
import torch
from safetensors.torch import load_file, save_file

from neuroav.errors import ConfigError, FileFormatError, TrainingError
from neuroav.training import evaluate as evaluation
from neuroav.training import loop, losses
from neuroav.training.checkpoint import load_last, load_weights
from neuroav.training.config import load_config
from neuroav.training.rates import SpikeRates, warnings_for

SETTINGS = {"model.embed_dim": "8", "train.batch_size": "8", "train.epochs": "4",
            "data.steps": "4"}  # fmt: skip


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    monkeypatch.setattr(loop, "load_data", fake_data.load_data)
    monkeypatch.setattr(evaluation, "load_data", fake_data.load_data)


def run(out, *, resume=False, init_from=None, **changes):
    config = load_config(model="add", overrides={**SETTINGS, **changes})
    return loop.train(config, out, resume=resume, init_from=init_from, cache_dir=out)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "load_data", fake_data.load_data)
        out = tmp_path_factory.mktemp("runs") / "run"
        return out, run(out)


def test_it_learns_and_writes_the_run_folder(trained):
    out, metrics = trained
    losses = [h["loss"] for h in metrics["history"]]
    assert losses[-1] < 0.8 * losses[0]
    assert metrics["val_accuracy"] > 1 / 3
    assert {"model.safetensors", "config.toml", "metrics.json", "last.ckpt"} <= {
        p.name for p in out.iterdir()
    }
    assert any(p.name.startswith("events.out.tfevents") for p in out.iterdir())
    assert not [p.name for p in out.iterdir() if p.name.endswith(".part")]
    assert json.loads((out / "metrics.json").read_text())["epochs"] == 4
    assert len(metrics["rates"]) == 10


def test_evaluate_uses_the_best_weights(trained):
    out, metrics = trained
    found = evaluation.evaluate(out, split="val", cache_dir=out)
    assert found["accuracy"] == pytest.approx(metrics["val_accuracy"])
    assert np.sum(found["confusion"]) == found["samples"] == 24
    few = evaluation.evaluate(out, split="test", samples=5, cache_dir=out)
    assert few["samples"] == 5


CHILD = """
import sys, time
sys.path[:0] = [{support!r}, {root!r}, {export!r}]
import fake_data
from pathlib import Path
from neuroav.training import loop
from neuroav.training.config import load_config
loop.load_data = fake_data.load_data
config = load_config(model="add", overrides={settings!r})
def slow(stage, done, total):
    print(done, flush=True)
    time.sleep(0.05)
loop.train(config, Path({out!r}), resume={resume}, cache_dir=Path({out!r}), progress=slow)
"""


def child(out: Path, resume: bool, wait_for: str | None) -> None:
    """Train in a process of its own; kill -9 it in the epoch after the one that prints wait_for."""
    root = samples.ROOT
    code = CHILD.format(support=str(root / "tests" / "support"), root=str(root), resume=resume,
                        export=str(root / "export"), settings=SETTINGS, out=str(out))  # fmt: skip
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.strip() == wait_for:
            time.sleep(0.12)
            os.kill(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait(60) == (-9 if wait_for else 0)


def test_resume_after_kill_gives_the_same_weights_bit_for_bit(tmp_path):
    child(tmp_path / "whole", resume=False, wait_for=None)
    child(tmp_path / "killed", resume=False, wait_for="2")
    assert len(load_last(tmp_path / "killed" / "last.ckpt")["history"]) < 4
    child(tmp_path / "killed", resume=True, wait_for=None)
    for name in ("model.safetensors",):
        whole, killed = (load_file(tmp_path / k / name) for k in ("whole", "killed"))
        assert all(torch.equal(whole[n], killed[n]) for n in whole)
    whole, killed = (load_last(tmp_path / k / "last.ckpt") for k in ("whole", "killed"))
    assert all(torch.equal(whole["model"][n], killed["model"][n]) for n in whole["model"])
    assert [h["loss"] for h in whole["history"]] == [h["loss"] for h in killed["history"]]


@pytest.mark.parametrize("aware", ["false", "true"])
@pytest.mark.parametrize("again", [True, False])
def test_a_kill_in_the_first_epoch_loses_nothing(trained, tmp_path, monkeypatch, aware, again):
    """It goes on from the weights it was given, and from what was measured of them; also where
    their file is named again, as torchrun and sweeps do, and is gone by now."""
    changes = {"train.epochs": "2", "quant.aware": aware}
    start = tmp_path / "start.safetensors"
    start.write_bytes((trained[0] / "model.safetensors").read_bytes())
    whole = run(tmp_path / "whole", init_from=start, **changes)
    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_epoch", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "killed", init_from=start, **changes)
    start.unlink()
    killed = run(tmp_path / "killed", resume=True, init_from=start if again else None, **changes)
    assert [h["loss"] for h in killed["history"]] == [h["loss"] for h in whole["history"]]
    states = [load_last(tmp_path / name / "last.ckpt")["model"] for name in ("whole", "killed")]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    units = [v for n, v in states[0].items() if n.endswith("least_unit")]
    assert (len(units) > 0) == (aware == "true")
    assert all(bool((u > 0).any()) for u in units)


def test_a_folder_without_its_checkpoint_is_not_begun_anew(trained, tmp_path):
    (tmp_path / "config.toml").write_bytes((trained[0] / "config.toml").read_bytes())
    with pytest.raises(FileFormatError, match=r"last\.ckpt: no such file, nothing to resume"):
        run(tmp_path, resume=True)


def test_a_used_folder_is_not_overwritten(trained):
    with pytest.raises(ConfigError, match="already holds a run; add --resume"):
        run(trained[0])


def test_resume_needs_the_same_configuration(trained):
    with pytest.raises(ConfigError, match=r"another configuration, \['train.seed'\] differ"):
        run(trained[0], resume=True, **{"train.seed": "7"})


def test_an_unknown_model_claims_no_folder(tmp_path):
    config = load_config(model="ad", overrides=SETTINGS)
    with pytest.raises(ConfigError, match="unknown model 'ad'"):
        loop.train(config, tmp_path / "run", cache_dir=tmp_path)
    assert not (tmp_path / "run").exists()


def test_resume_of_nothing(tmp_path):
    with pytest.raises(ConfigError, match="holds no config.toml"):
        run(tmp_path / "none", resume=True)


class Hostile:
    def __reduce__(self):
        return (os.system, ("echo owned",))


@pytest.mark.parametrize("content", ["hostile", "cut", "empty"])
def test_bad_checkpoints_are_refused(tmp_path, content):
    path = tmp_path / "last.ckpt"
    if content == "hostile":
        path.write_bytes(pickle.dumps({"model": Hostile()}))
    elif content == "cut":
        torch.save({"model": torch.zeros(1000)}, path)
        path.write_bytes(path.read_bytes()[:-700])
    else:
        path.write_bytes(b"")
    with pytest.raises(FileFormatError, match=r"last\.ckpt: refused"):
        load_last(path)


def test_weights_that_do_not_fit_are_listed(trained, tmp_path):
    model = samples.warmed_model("add")
    state = dict(model.state_dict())
    state["head.linear.weight"] = torch.zeros(3, 3)
    state["new.thing"] = torch.zeros(1)
    state["head.linear.bias"] = torch.full((10,), float("nan"))
    del state["audio.stem.conv0.layer.conv.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(FileFormatError) as error:
        load_weights(model, tmp_path / "w.safetensors")
    for part in (
        "missing audio.stem.conv0.layer.conv.weight", "left over new.thing",
        "head.linear.weight has shape (3, 3), the model needs (10, 8)",
        "head.linear.bias holds NaN",
    ):  # fmt: skip
        assert part in str(error.value)
    (tmp_path / "w.safetensors").write_bytes(b"not safetensors at all")
    with pytest.raises(FileFormatError, match="not a safetensors file"):
        load_weights(model, tmp_path / "w.safetensors")
    with pytest.raises(FileFormatError, match="no such file"):
        load_weights(model, tmp_path / "gone.safetensors")


def test_init_from_starts_at_the_given_weights(trained, tmp_path):
    changes = {"train.epochs": "1", "train.learning_rate": "1e-12"}
    run(tmp_path / "again", init_from=trained[0] / "model.safetensors", **changes)
    start, end = (load_file(p / "model.safetensors") for p in (trained[0], tmp_path / "again"))
    torch.testing.assert_close(start["head.linear.weight"], end["head.linear.weight"])


def test_a_loss_that_is_not_finite_stops_training(tmp_path, monkeypatch):
    monkeypatch.setattr(losses.functional, "cross_entropy",
                        lambda logits, labels, **_: logits.sum() * float("nan"))  # fmt: skip
    with pytest.raises(TrainingError, match="epoch 0, batch 0: the loss is nan"):
        run(tmp_path / "nan")


def test_layers_that_do_not_run_have_no_rate_and_no_warning():
    model = samples.warmed_model("cmci")
    inputs = samples.poisson_inputs(4, 4, names=model.inputs).values()
    with SpikeRates(model) as rates:
        model(*[torch.from_numpy(np.moveaxis(v, 1, 0)).float() for v in inputs])
    assert [n for n, _ in model.named_modules() if n.startswith("own_mlp")]  # for training alone
    found = rates.rates()
    assert found
    assert not [n for n in found if n.startswith("own_mlp")]


def test_rates_and_their_warnings():
    model = samples.warmed_model("visual")
    x = torch.from_numpy(np.moveaxis(samples.poisson_inputs(4, 4)["visual"], 1, 0)).float()
    with SpikeRates(model) as rates:
        model(x)
    found = rates.rates()
    assert set(found) == {n for n, m in model.named_modules() if type(m).__name__ == "Lif"}
    assert 0 < found["visual.stem.lif0"] < 0.9
    texts = warnings_for({"a": 0.0005, "b": 0.5, "c": 0.95})
    assert len(texts) == 2
    assert "a is silent: rate 0.050%" in texts[0]
    assert "c is saturated: rate 95.0%" in texts[1]
