"""``neuroav convert``: one file, one JSON object, one line for what cannot be done."""

from __future__ import annotations

import json

import h5py
import nir
import onnx
import pytest
import samples
from click.testing import CliRunner

from neuroav import navfile
from neuroav.cli.group import cli

TINY = "shipped:tiny.nav"


def run(*arguments):
    return CliRunner().invoke(
        cli, ["convert", *map(str, arguments)], prog_name="neuroav", env={"COLUMNS": "160"}
    )


@pytest.fixture(scope="module")
def tiny_hash():
    return navfile.load(samples.ROOT / "neuroav" / "shipped" / "tiny.nav").content_hash


@pytest.mark.parametrize(("to", "nodes"), [("onnx", 9), ("nir", 12)])
def test_whole_network(to, nodes, tmp_path, tiny_hash):
    path = tmp_path / "made" / f"tiny.{to}"
    done = run(TINY, "--to", to, "--out", path, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert len(found.pop("nodes")) == nodes
    assert found == {"format": to, "path": str(path), "left_out": {}, "hash": tiny_hash}
    if to == "onnx":
        onnx.checker.check_model(onnx.load(path), full_check=True)
    else:
        assert nir.read(path).nodes.keys() > {"audio", "visual", "head"}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_one_branch(tmp_path, tiny_hash):
    path = tmp_path / "tiny.net"
    done = run(TINY, "--to", "netx", "--out", path, "--branch", "audio", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["nodes"] == ["audio", "audio_lif", "audio_pool"]
    assert found["left_out"].keys() == {
        "visual",
        "visual_lif",
        "visual_pool",
        "join",
        "mean",
        "head",
    }
    assert (found["hash"], found["reset_interval"]) == (tiny_hash, 6)
    assert h5py.is_hdf5(path)
    shown = run(TINY, "--to", "netx", "--out", path, "--branch", "audio").stdout
    assert "left out" in shown
    assert "join" in shown


def test_refusal_is_one_line_and_no_file(tmp_path):
    done = run(TINY, "--to", "netx", "--out", tmp_path / "tiny.net")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("neuroav: error: netx carries one chain")
    assert done.stderr.count("\n") == 1
    assert "--branch audio or visual" in done.stderr
    assert not list(tmp_path.iterdir())


def test_refusal_as_json(tmp_path):
    done = run(TINY, "--to", "netx", "--out", tmp_path / "x", "--branch", "touch", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["type"] == "ConfigError"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "onxx", "--out", "x"], "did you mean 'onnx'"),
        (["--to", "onnx", "--out", "x", "--branch", "audio"], "go with --to netx"),
        (["--to", "nir", "--out", "x", "--round-bias"], "go with --to netx"),
        (["--to", "nir", "--out", "x", "--form", "unrolled"], "go with --to onnx"),
        (["--to", "onnx", "--out", "x", "--form", "unroled"], "did you mean 'unrolled'"),
        (["--to", "onnx", "--out", "x", "--numbers", "floats"], "did you mean 'float'"),
        (["--to", "nir"], "Missing option '--out'"),
    ],
)
def test_wrong_usage(arguments, message):
    done = run(TINY, *arguments)
    assert done.exit_code == 2
    assert message in done.stderr


def test_help_has_an_example():
    assert "neuroav convert shipped:tiny.nav --to onnx --out tiny.onnx" in run("--help").stdout
