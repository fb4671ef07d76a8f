"""The stand-in of `mnistdvs-ntidigits`: what is written is what was recorded; and a whole run."""

from __future__ import annotations

import importlib.util
import json
import sys

import h5py
import numpy as np
import pytest
import samples
from click.testing import CliRunner

from neuroav.cli.group import cli
from neuroav.data import cochlea, nmnistfsdd
from neuroav.data.formats import ntidigits
from neuroav.data.formats.events import MNIST_DVS, read_events
from neuroav.data.published import mnistdvs_ntidigits as ds
from neuroav.data.published.mnistdvs_pairs import speaker
from neuroav.training.config import load_config

RECIPES = samples.ROOT / "examples" / "recipes"
TAKES, PICTURES = 2, 3


@pytest.fixture(scope="session")
def recordings():
    import os
    from pathlib import Path

    if not os.environ.get("NEUROAV_DATA"):
        pytest.skip("NEUROAV_DATA is not set; it names a folder with third-party recordings")
    return Path(os.environ["NEUROAV_DATA"])


@pytest.fixture(scope="session")
def script():
    file = samples.ROOT / "examples" / "make_standin.py"
    spec = importlib.util.spec_from_file_location("make_standin", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_standin"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def standin(script, recordings, tmp_path_factory):
    out = tmp_path_factory.mktemp("standin") / "made"
    script.main(
        ["--nmnist", str(recordings / "nmnist"), "--fsdd", str(recordings / "fsdd"),
         "--out", str(out), "--takes", str(TAKES), "--pictures", str(PICTURES)]
    )  # fmt: skip
    return out


def test_pictures_are_those_of_n_mnist_event_by_event(standin, recordings):
    for digit in (0, 7):
        folder = standin / f"grabbed_data{digit}" / "scale4"
        files = sorted(folder.glob(f"mnist_{digit}_scale04_*.aedat"))
        originals = sorted((recordings / "nmnist" / "Train" / str(digit)).glob("*.bin"))[:PICTURES]
        assert [f.name[-10:-6] for f in files] == ["0001", "0002", "0003"]
        assert files[0].read_bytes().startswith(b"#!AER-DAT2.0\r\n# ")
        for file, original in zip(files, originals, strict=True):
            found, expected = read_events(file, MNIST_DVS), nmnistfsdd.read_picture(original)
            assert len(expected["time"]) > 1000
            np.testing.assert_array_equal(found["x"], expected["x"] + 44)
            np.testing.assert_array_equal(found["y"], expected["y"] + 44)
            np.testing.assert_array_equal(found["p"], expected["p"])
            np.testing.assert_array_equal(found["time"], expected["time"])


def test_the_central_28_pixels_are_what_is_kept(standin, recordings):
    item = next(i for i in ds.plan("clean", 0, None, standin).items if i.label == 7)
    number = int(item.groups["recording"].rpartition("-")[2])
    original = sorted((recordings / "nmnist" / "Train" / "7").glob("*.bin"))[number - 1]
    events = nmnistfsdd.read_picture(original)
    inside = np.all([(events[a] >= 3) & (events[a] <= 30) for a in "xy"], axis=0)
    seen = ds.convert(standin, item).visual
    assert len(seen["x"]) == inside.sum() > 1000
    expected = np.bincount(events["y"][inside].astype(int) * 34 + events["x"][inside])
    found = np.bincount((seen["y"].astype(int) + 3) * 34 + seen["x"] + 3)
    np.testing.assert_array_equal(found, expected)


def test_sounds_are_the_cochlea_s_of_fsdd(standin, recordings):
    listing = ntidigits.read_listing(standin / ds.SOUNDS)
    assert len(listing.ids["train"]) == 3 * 10 * TAKES
    assert len(listing.ids["test"]) == 10 * TAKES
    assert {speaker(i) for i in listing.ids["train"]} == {"man-ge", "man-ja", "man-th"}
    assert {speaker(i) for i in listing.ids["test"]} == {"man-yw"}
    sound = nmnistfsdd.read_sound(recordings / "fsdd/recordings/0_theo_1.wav")
    heard = cochlea.encode(
        [nmnistfsdd.centred(sound)], nmnistfsdd.RATE, np.array([np.inf]),
        [np.random.default_rng(0)], nmnistfsdd.AUDIO_WINDOW_MS, high_hz=nmnistfsdd.HIGH_HZ,
    ).spikes  # fmt: skip
    channel, time = ntidigits.read_utterance(standin / ds.SOUNDS, "train", "man-th00-b-z")
    assert len(time) > 100
    np.testing.assert_array_equal(channel, heard["channel"])
    np.testing.assert_array_equal(time, heard["time"])


def test_it_says_what_it_is(standin):
    assert "Not the published benchmark" in (standin / "STANDIN.txt").read_text()
    for preset in ("clean", "paper"):
        notes = ds.plan(preset, 0, None, standin).meta["notes"]
        assert notes[0].startswith("stand-in: Stand-in for MNIST-DVS and N-TIDIGITS")


def run(*arguments):
    done = CliRunner().invoke(cli, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_files_to_a_deployment_that_runs_alike_everywhere(standin, tmp_path):
    places = ("--data-root", standin, "--cache-dir", tmp_path / "cache")
    recipe = RECIPES / "mnistdvs-ntidigits-standin.toml"
    run("data", "prepare", ds.NAME, "--preset", "clean", *places)
    small = {"data.steps": 2, "model.embed_dim": 8, "model.mlp_ratio": 1, "scmrl.heads": 4,
             "train.epochs": 1}  # fmt: skip
    settings = [f"--set={key}={value}" for key, value in small.items()]
    trained = run("train", "--config", recipe, "--out", tmp_path / "run", *settings, *places)
    assert trained["data"] == ds.NAME
    assert trained["epochs"] == 1
    run("export", tmp_path / "run", "--out", tmp_path / "net.nav", "--no-place", *places)
    found = run("verify", tmp_path / "net.nav", "--samples", 2, *places)
    assert found["equal"] is True
    with h5py.File(standin / ds.SOUNDS) as file:
        assert len(file["test_labels"]) == 20  # nothing was written to the root


@pytest.mark.parametrize("name", ["mnistdvs-ntidigits", "mnistdvs-ntidigits-standin"])
def test_recipes_are_configurations(name):
    config = load_config(file=RECIPES / f"{name}.toml")
    assert config.data.name == ds.NAME
    assert config.data.preset in ds.PRESETS
    assert (config.data.steps, config.scmrl.heads, config.model.stem) == (16, 16, "shallow")
    assert ds.spec(config.data.steps, config.data.visual_size).steps == 16
    assert config.model.embed_dim % config.scmrl.heads == 0
