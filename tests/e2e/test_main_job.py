"""The main job through the command line, on real input: data, train, export, simulate, verify."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import pytest


def neuroav(*args: object) -> dict:
    """Run a command with --json in a process of its own; return its object."""
    done = subprocess.run(
        [sys.executable, "-m", "neuroav", *map(str, args), "--json"],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Folder with a trained run, its deployment and the answers of the commands that made them."""
    folder = tmp_path_factory.mktemp("job")
    cache = ("--cache-dir", folder / "cache")
    trained = neuroav(
        "train", "--model", "add", "--data", "av-digits", "--out", folder / "run", "--epochs", 3,
        "--set", "model.embed_dim=16", "--set", "train.threads=1", *cache,
    )  # fmt: skip
    exported = neuroav("export", folder / "run", "--target", "loihi2", "--out", folder / "n.nav",
                       *cache)  # fmt: skip
    return {"folder": folder, "cache": cache, "trained": trained, "exported": exported}


def test_training_learns(job):
    assert job["trained"]["val_accuracy"] > 0.4  # ten classes, three epochs


def test_export_summary(job):
    found = job["exported"]
    assert found["neurons"] > 5000
    assert found["weight_bits"] == 8
    # calibration by squared error clips what costs more than it gains
    assert sum(found["saturations"].values()) < 0.001 * found["synapses"]
    whole = neuroav("export", job["folder"] / "run", "--target", "loihi2", "--out",
                    job["folder"] / "max.nav", "--calibration", "max", *job["cache"])  # fmt: skip
    assert whole["saturations"] == {}
    assert found["unproven"] == {}
    assert 1 < found["cores"] <= 120
    assert found["chips"] == 1
    assert found["utilisation"]["neurons"]["max"] <= 1


def test_deployed_accuracy_is_the_float_accuracy(job):
    evaluated = neuroav("evaluate", job["folder"] / "run", *job["cache"])
    found = neuroav("simulate", job["folder"] / "n.nav", "--backend", "fast", "--record",
                    job["folder"] / "r.h5", *job["cache"])  # fmt: skip
    assert found["samples"] == evaluated["samples"] == 450
    assert evaluated["accuracy"] > 0.4
    assert abs(found["accuracy"] - evaluated["accuracy"]) < 0.03
    with h5py.File(job["folder"] / "r.h5") as record:
        assert len(record["predictions"]) == 450


def test_batch_does_not_change_the_digest(job):
    digests = {neuroav("simulate", job["folder"] / "n.nav", "--backend", b, "--samples", 6,
                       "--batch", n, *job["cache"])["spike_digest"]
               for b, n in (("reference", 1), ("fast", 4), ("fast", 6))}  # fmt: skip
    assert len(digests) == 1


def test_all_executors_give_equal_spikes(job):
    found = neuroav("verify", job["folder"] / "n.nav", "--backends", "reference,fast,lava",
                    "--samples", 8, *job["cache"])  # fmt: skip
    assert found["equal"] is True
    assert found["spikes_compared"] > 10_000
    assert found["saturated"] == []
    assert len(set(found["digests"].values())) == 1
    assert len(found["nodes"]) == 23


def test_report_of_the_deployment(job):
    out = job["folder"] / "report"
    found = neuroav("report", job["folder"] / "n.nav", "--out", out, "--samples", 40, *job["cache"])
    assert found["accuracy"]["samples"] == 40
    assert found["accuracy"]["agreement"] > 0.8
    assert {p.name for p in out.iterdir()} == {"report.html", "report.json", "report.md"}
    energy = found["energy"]
    assert energy["complete"]
    assert 0 < energy["dynamic"]["value"] < energy["total"]["value"]
    assert found["placement"]["fits"]
    assert found["latency"]["seconds"]["value"] > 0


def test_report_in_a_browser(job, tmp_path):
    page = job["folder"] / "page" / "report.html"
    neuroav("report", job["folder"] / "n.nav", "--out", page.parent, "--samples", 20, *job["cache"])
    assert "Sound spectrogram" in page.read_text()
    done = screenshots(page, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {
        "desktop.png", "dark.png", "phone.png", "print.png", "print.pdf"}  # fmt: skip
    assert all(p.stat().st_size > 50_000 for p in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("<script>throw new Error('oops')</script>", "oops"),
        ("<script>console.error('oops')</script>", "oops"),
        ("<img src='other.png'>", "asks for file:"),
        ("<img src='http://localhost/x.png'>", "asks for http:"),
        ("<div style='width:2000px'>wide</div>", "pixels wide"),
    ],
)
def test_a_page_with_faults_fails_in_the_browser(tmp_path, body, complaint):
    (tmp_path / "page.html").write_text(f"<!doctype html><title>t</title>{body}")
    done = screenshots(tmp_path / "page.html", tmp_path, "--views", "phone")
    assert done.returncode == 1, done.stderr
    assert complaint in done.stdout


def screenshots(page, out, *more):
    """Open a page in the browser by the documented command."""
    script = Path(__file__).parents[2] / "docs" / "screenshots.py"
    command = [sys.executable, script, page, "--out", out, *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == 2 and "no Chromium" in done.stderr:
        pytest.skip(done.stderr.strip())
    return done


def test_data_that_changed_is_refused(job):
    config = job["folder"] / "other.toml"
    text = (job["folder"] / "run" / "config.toml").read_text()
    config.write_text(text.replace("epochs = 3", "epochs = 1"))
    done = subprocess.run(
        [sys.executable, "-m", "neuroav", "train", "--config", config, "--model", "add", "--data",
         "av-digits", "--resume", "--out", job["folder"] / "run", *map(str, job["cache"])],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "train.epochs" in done.stderr
