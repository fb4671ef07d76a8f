"""``neuroav stream``: lines, one object, lines of objects, the end, and what cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from streams import made_up_events

from neuroav.cli.stream import _chosen
from neuroav.data.formats.nmnist import write_nmnist

TINY = ("stream", "shipped:tiny.nav", "--window-ms", "50", "--sensor", "34x34")
KEYS = {
    "window", "step", "complete", "time_us", "label", "name", "scores", "margin", "latency_ms",
    "lag_ms", "events", "dropped",
}  # fmt: skip


@pytest.fixture(scope="module")
def eyes(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("eyes") / "eye.bin"
    write_nmnist(path, made_up_events(0.3, 500))
    return path


def blind(eyes, *more):
    return (*TINY, "--events", eyes, "--without", "audio", *more)


def test_a_line_per_window_and_a_summary(run, eyes):
    done = run(*blind(eyes))
    assert (done.code, done.err) == (0, "")
    lines, _, summary = done.out.partition("\n\n")
    assert len(lines.splitlines()) == 6
    assert lines.splitlines()[0].split()[:2] == ["0.050", "s"]
    assert ["windows", "6"] in [line.split() for line in summary.splitlines()]
    assert "real time factor" in summary


def test_json_is_one_object(run, eyes):
    found = run(*blind(eyes, "--json", "--windows", "3")).json
    assert (found["windows"], len(found["predictions"]), found["mode"]) == (3, 3, "window")
    assert set(found["predictions"][0]) == KEYS
    assert set(found["latency_ms"]) == {"median", "p95", "largest"}
    assert found["predictions"][2]["time_us"] == 150_000


def test_jsonl_is_an_object_per_line_with_every_step(run, eyes):
    done = run(*blind(eyes, "--jsonl", "--mode", "step", "--steps", "--windows", "2"))
    *lines, last = map(json.loads, done.out.splitlines())
    assert [(p["window"], p["step"]) for p in lines] == [(w, s) for w in (0, 1) for s in range(6)]
    assert [p["complete"] for p in lines[:6]] == [False] * 5 + [True]
    assert last["summary"]["windows"] == 2
    same = run(*blind(eyes, "--json", "--windows", "2")).json["predictions"]
    assert [p["scores"] for p in lines if p["complete"]] == [p["scores"] for p in same]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--json", "--jsonl"), "exclude each other"),
        (("--mode", "steps"), "unknown mode 'steps'"),
        (("--windows", "0"), "--windows"),
        (("--events", "-", "--json"), "this input has none: give --windows N, or --jsonl"),
    ],
)
def test_wrong_usage(run, eyes, more, message):
    done = run(*blind(eyes, *more))
    assert (done.code, done.out) == (2, "")
    assert message in " ".join(done.err.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (TINY, "input 'visual' has no source: give --events"),
        ((*TINY[:2], "--events", "a.bin"), "say it, e.g. --window-ms 300"),
        ((*TINY, "--events", "missing.bin", "--without", "audio"), "missing.bin: no such file"),
        ((*TINY[:-1], "34", "--events", "a"), "sensor is '34'; allowed is WIDTHxHEIGHT"),
    ],
)
def test_expected_failures_are_one_line(run, words, message):
    done = run(*words)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("neuroav: error: ")
    assert message in done.err


@pytest.mark.parametrize("how", ["--json", "--jsonl", None])
def test_what_was_answered_is_told_before_what_went_wrong(run, eyes, tmp_path, how):
    """A pipe that ends in the middle of a record."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    sender = threading.Thread(target=pipe.write_bytes, args=(eyes.read_bytes() + b"\0\0\0",))
    sender.start()
    done = run(*blind(pipe, "--format", "nmnist", *([how] if how else [])))
    sender.join()
    assert done.code == 1
    assert done.err.startswith("neuroav: error: ")
    assert "record that its end cuts" in done.err
    if how == "--json":
        found = json.loads(done.out)
        assert found["windows"] == len(found["predictions"]) == 5
        assert "record that its end cuts" in found["error"]["message"]
    elif how == "--jsonl":
        *lines, last = map(json.loads, done.out.splitlines())
        assert len(lines) == last["summary"]["windows"] == 5
    else:
        assert ["windows", "5"] in [line.split() for line in done.out.splitlines()]


def test_so_many_windows_are_answered_whatever_was_dropped():
    made = [SimpleNamespace(window=w, complete=c) for w in (0, 3, 7, 9) for c in (False, True)]
    assert list(_chosen(iter(made), 2, True)) == made[:4]
    assert list(_chosen(iter(made), 2, False)) == made[1:4:2]
    assert list(_chosen(iter(made), None, True)) == made


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_line(eyes):
    command = [sys.executable, "-m", "neuroav", *map(str, blind(eyes, "--backend", "reference"))]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("neuroav: error: standard output cannot be written")
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


def test_ctrl_c_on_an_open_pipe_ends_with_the_summary(eyes):
    """Standard input stays open; the lines come while it does."""
    words = [*blind("-", "--format", "nmnist", "--backend", "reference")]
    # a job in the background ignores Ctrl-C unless it is told not to
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from neuroav.__main__ import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    try:
        process.stdin.write(eyes.read_bytes())
        process.stdin.flush()
        first = process.stdout.readline().decode()
        assert " s  " in first
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, err.decode()) == (0, "")
    assert "latency ms" in out.decode()
    assert "dropped" in out.decode()


def test_a_reader_that_leaves_early(eyes):
    command = [sys.executable, "-m", "neuroav", *map(str, blind(eyes, "--backend", "reference"))]
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
