"""Work on Ray's workers: results of one process, lost workers, failures, nothing left behind.

Ray and its workers take ten seconds and more to start, so all tests but the last share one cluster.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import fake_data
import h5py
import numpy as np
import pytest
import worker_tasks
from click.testing import CliRunner

from neuroav import navfile, simulate
from neuroav.cli.common import chosen_workers
from neuroav.cli.group import cli
from neuroav.data.avdata import AVData
from neuroav.data.cache import Recordings
from neuroav.data.frames import FrameSpec
from neuroav.data.ragged import Ragged
from neuroav.errors import ConfigError, ExecutorError, MissingDependency, OutOfRange
from neuroav.simulate import load_samples, resolve_deployment, run_backend
from neuroav.studies import cluster as cluster_module
from neuroav.studies import remote, robustness, robustness_plot, sweep
from neuroav.studies import workers as workers_module
from neuroav.studies.chunks import pack, unpack
from neuroav.studies.cluster import RETRIES, Cluster, Workers, cluster
from neuroav.studies.workers import own_recordings, run_on_workers

TINY = resolve_deployment("shipped:tiny.nav")
# Ray leaves sockets and files to the end of the process; these are the only warnings it makes here
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(scope="module")
def ray_cluster():
    with cluster(Workers(2)) as own:
        yield own


@pytest.fixture(scope="module")
def tiny():
    deployment = navfile.load(TINY)
    data = load_samples(deployment, split="probe", samples=None, cache_dir=None)
    return deployment, data, run_backend(deployment, data, "fast")


def assert_same(found, expected):
    assert found.digest == expected.digest
    assert len(expected.scores) == 12
    assert np.array_equal(found.scores, expected.scores)
    assert found.scores.dtype == expected.scores.dtype
    for key in ("samples", "steps", "updates", "rates"):
        assert getattr(found.counts, key) == getattr(expected.counts, key), key
    assert set(found.counts.spikes) == set(expected.counts.spikes)
    for name, spikes in expected.counts.spikes.items():
        assert np.array_equal(found.counts.spikes[name], spikes)
        kinds = expected.counts.synops[name]
        assert set(found.counts.synops[name]) == set(kinds)
        assert all(np.array_equal(found.counts.synops[name][k], v) for k, v in kinds.items())


# --- simulate ----------------------------------------------------------------------------------
@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("batch", [None, 1, 5, 100])
def test_chunks_do_not_matter(ray_cluster, tiny, batch, here):
    """Nor whether outputs are read from shared memory or travel packed, as between machines."""
    deployment, data, expected = tiny
    own = Cluster(ray_cluster._ray, 2, here=here)
    assert_same(run_on_workers(own, TINY, deployment, data, batch=batch), expected)


def test_a_killed_worker_does_not_matter(ray_cluster, tiny, tmp_path, monkeypatch):
    deployment, data, expected = tiny
    dying = partial(worker_tasks.dying_chunk, folder=tmp_path)
    monkeypatch.setattr(workers_module, "simulate_chunk", dying)
    assert_same(run_on_workers(ray_cluster, TINY, deployment, data, batch=5), expected)
    assert [p.name for p in tmp_path.iterdir()] == ["5"]


@pytest.mark.parametrize("batch", [None, 2])
def test_a_run_that_was_cut_off_goes_on(ray_cluster, tiny, tmp_path, monkeypatch, batch):
    """Chunks of 5: the second run finds the first two and gives what an undisturbed one does."""
    deployment, data, expected = tiny
    folder = tmp_path / "parts"

    def stop(what, done, total):
        if done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_on_workers(ray_cluster, TINY, deployment, data, batch=5, resume=folder, progress=stop)
    kept = {p.name for p in folder.glob("chunk-*")}
    assert kept == {"chunk-0000000000", "chunk-0000000005"}
    monkeypatch.setattr(
        workers_module, "simulate_chunk", partial(worker_tasks.noted_chunk, folder=tmp_path)
    )
    shown = []
    found = run_on_workers(
        ray_cluster, TINY, deployment, data, batch=batch, resume=folder,
        record=tmp_path / "a.h5", progress=lambda what, done, total: shown.append((done, total)),
    )  # fmt: skip
    assert_same(found, expected)
    assert {p.name for p in tmp_path.glob("chunk *")} == {"chunk 10"}
    assert shown == [(5, 12), (10, 12), (12, 12)]
    assert not folder.exists()
    run_backend(deployment, data, "fast", record=tmp_path / "b.h5")
    assert_same_records(tmp_path / "a.h5", tmp_path / "b.h5")


def test_the_record_is_that_of_one_process(ray_cluster, tiny, tmp_path):
    deployment, data, _ = tiny
    run_on_workers(ray_cluster, TINY, deployment, data, batch=5, record=tmp_path / "a.h5")
    run_backend(deployment, data, "fast", record=tmp_path / "b.h5")
    assert_same_records(tmp_path / "a.h5", tmp_path / "b.h5")


def assert_same_records(first, second):
    with h5py.File(first) as one, h5py.File(second) as other:
        assert dict(one.attrs) == dict(other.attrs)
        names: list[str] = []
        other.visit(names.append)
        assert len(names) > 10
        for name in names:
            if isinstance(other[name], h5py.Dataset):
                assert np.array_equal(one[name][()], other[name][()]), name


def test_a_chunk_that_cannot_be_computed_is_our_error(ray_cluster, tiny):
    deployment, data, _ = tiny
    inputs = {n: v.copy() for n, v in data.inputs.items()}
    inputs["audio"][7] += 1000
    wrong = simulate.Samples(inputs, data.labels, "given")
    with pytest.raises(simulate.DataError, match="input 'audio': counts span"):
        run_on_workers(ray_cluster, TINY, deployment, wrong, batch=5)


def test_the_command_gives_the_same_summary(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(workers_module, "cluster", partial(given, ray_cluster))
    command = ["simulate", "shipped:tiny.nav", "--json"]
    one, many = (
        json.loads(CliRunner().invoke(cli, [*command, *more]).stdout)
        for more in ([], ["--workers", "2", "--resume", str(tmp_path / "parts")])
    )
    assert one["predictions"]
    changing = ("seconds", "samples_per_second")
    assert {k: v for k, v in one.items() if k not in changing} == {
        k: v for k, v in many.items() if k not in changing
    }


@contextmanager
def given(own, workers):
    """Stands in for ``cluster``: that of all tests."""
    assert workers == Workers(2)
    yield own


@pytest.mark.parametrize(
    "x",
    [np.zeros((0, 3), np.int32), np.zeros((3, 5), np.int32), np.eye(7, dtype=np.int32),
     np.arange(200).reshape(4, 50), np.arange(-3, 90), np.array([[-(2**15), 5]]),
     np.array([2**31 - 1, -(2**31)])],
)  # fmt: skip
def test_packed_numbers_come_back(x):
    found = unpack(pack(x))
    assert found.dtype == np.int32
    assert found.shape == x.shape
    assert np.array_equal(found, x)


def test_spikes_travel_as_bits():
    packed = pack(np.ones((10, 8, 16), np.int32))
    assert (packed.dtype, len(packed.content)) == ("", 160)


# --- pieces of work ----------------------------------------------------------------------------
def test_errors_deaths_and_defects_one_by_one(ray_cluster, tmp_path, capfd):
    tasks = [2, "fail", "die", "die once", 3, "defect"]
    found = dict(ray_cluster.as_finished(worker_tasks.work, tasks, lambda _: (tmp_path,)))
    assert set(found) == set(tasks)
    assert (found[2], found[3], found["die once"]) == (4, 9, "die once")
    assert isinstance(found["fail"], OutOfRange)
    assert (str(found["fail"]), found["fail"].rule) == ("as asked", "a rule")
    assert isinstance(found["die"], ExecutorError)
    assert f"lost its worker {RETRIES + 1} times" in str(found["die"])
    assert "a worker ended in ZeroDivisionError: as asked" in str(found["defect"])
    calls = [path.name.split()[0] for path in tmp_path.iterdir()]
    assert calls.count("fail") == calls.count("defect") == 1  # these would fail again
    assert len(list(tmp_path.glob("die once *"))) == 2
    assert "ZeroDivisionError: as asked" in capfd.readouterr().err


def test_results_come_in_order_and_few_tasks_are_taken_early(ray_cluster, tmp_path):
    taken: list[int] = []

    def tasks():
        for number in range(12):
            taken.append(number)
            yield number

    found = []
    for result in ray_cluster.in_order(worker_tasks.work, tasks(), (str(tmp_path),)):
        found.append(result)
        assert len(taken) - len(found) <= 2 * ray_cluster.count
    assert found == [n * n for n in range(12)]


def test_the_first_error_in_order_is_raised(ray_cluster, tmp_path):
    with pytest.raises(OutOfRange, match="as asked"):
        list(ray_cluster.in_order(worker_tasks.work, [1, "fail", 2], (str(tmp_path),)))


# --- studies -----------------------------------------------------------------------------------
def test_robustness_is_that_of_one_process(ray_cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(robustness_plot, "robustness_figure", lambda *_: [])
    options = {"kinds": ["noise", "missing"], "split": "probe", "cache_dir": tmp_path}
    one = robustness.run_robustness([TINY], tmp_path / "one", **options)
    monkeypatch.setattr(robustness, "cluster", partial(given, ray_cluster))
    many = robustness.run_robustness([TINY], tmp_path / "many", workers=Workers(2), **options)
    assert one["panels"]
    assert one == many


def test_only_the_recordings_of_the_samples_are_sent():
    rng = np.random.default_rng(0)
    item = np.sort(rng.integers(0, 9, 900))
    heard = Ragged.build(item, 9, channel=rng.integers(0, 64, 900).astype(np.uint8),
                         time=rng.integers(0, 640_000, 900))  # fmt: skip
    seen = Ragged.build(item, 9, x=item.astype(np.uint8), y=item.astype(np.uint8),
                        p=(item % 2).astype(np.uint8),
                        time=rng.integers(0, 300_000, 900))  # fmt: skip
    meta = {"name": "made-up", "preset": "default", "data_seed": 0, "audio_channels": 64,
            "classes": ["a", "b", "c"], "audio_window_us": 640_000, "sensor": 34,
            "visual_window_us": 300_000}  # fmt: skip
    split = np.array([0, 2, 2, 1, 2, 2, 0, 2, 2], np.uint8)
    whole = AVData.of(Recordings(heard, seen, np.arange(9) % 3, split, meta), FrameSpec(steps=4))
    part = whole.split("test")
    frames = part.frames(np.arange(5))
    data = simulate.Samples({"audio": frames.audio}, frames.labels, "test", part)
    own = own_recordings(data)
    assert len(own.source) == len(own.source.recordings.labels) == 5
    again = own.source.frames(np.arange(5))
    assert frames.audio.any()
    assert np.array_equal(again.audio, frames.audio)
    assert np.array_equal(again.visual, frames.visual)


@pytest.mark.parametrize("here", [True, False])
def test_a_sweep_is_that_of_one_process(ray_cluster, tmp_path, monkeypatch, here):
    """On this machine, and as on others, which share no files; the first worker dies once."""
    from neuroav.training import evaluate, loop

    for module in (loop, evaluate, sweep):
        monkeypatch.setattr(module, "load_data", fake_data.load_data)
    monkeypatch.setattr(sweep, "sweep_figure", lambda *_: [])
    fixed = {"model.embed_dim": "8", "train.batch_size": "24", "train.epochs": "1",
             "data.steps": "4"}  # fmt: skip
    options = {"model": "add", "overrides": fixed, "deploy": False, "cache_dir": tmp_path}
    over = {"train.seed": ["0", "1"]}
    one = sweep.run_sweep(over, tmp_path / "one", **options)
    own = Cluster(ray_cluster._ray, 2, here=here)
    monkeypatch.setattr(sweep, "cluster", partial(given, own))
    monkeypatch.setattr(sweep, "carry_out_task", worker_tasks.train_task)
    many = sweep.run_sweep(over, tmp_path / "many", workers=Workers(2), **options)
    assert (tmp_path / "died").exists()
    assert (many["finished"], many["failed"]) == (2, 0)
    for a, b in zip(one["rows"], many["rows"], strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {
            k: v for k, v in b.items() if k != "seconds"
        }
        held = [
            {p.name.partition("tfevents")[0] for p in (tmp_path / side / a["name"]).iterdir()}
            for side in ("one", "many")
        ]
        assert held[0] == held[1]


def test_weights_to_start_from_are_sent(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"weights")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.ckpt").write_bytes(b"half")
    task = remote.Task(tmp_path / "run", None, {}, "loihi2", tmp_path,
                       init_from=tmp_path / "w.safetensors")  # fmt: skip
    sent = remote._sent(task)
    (tmp_path / "w.safetensors").unlink()

    def work(task):
        assert task.run != tmp_path / "run"
        assert task.init_from.read_bytes() == b"weights"
        assert (task.run / "last.ckpt").read_bytes() == b"half"
        (task.run / "new").write_bytes(b"made")
        return {"a": "row"}

    row, files = remote._Remote(work)(sent)
    assert (row, files) == ({"a": "row"}, {"last.ckpt": b"half", "new": b"made"})


# --- what is refused ---------------------------------------------------------------------------
def test_wrong_requests(ray_cluster, tiny):
    deployment, data, _ = tiny
    for options in ({"backend": "reference"}, {"device": "cuda"}):
        with pytest.raises(ConfigError, match="workers run --backend fast on CPUs"):
            run_on_workers(ray_cluster, TINY, deployment, data, **options)
    with pytest.raises(ConfigError, match="needs at least 1"):
        Workers(0)
    with pytest.raises(ConfigError, match="how many workers, or the address"):
        Workers()
    with pytest.raises(ExecutorError, match="part of a Ray cluster already"), cluster(Workers(1)):
        pass
    assert chosen_workers(None, None, jobs=4) is None
    assert chosen_workers(3, "host:1") == Workers(3, "host:1")
    found = CliRunner().invoke(cli, ["sweep", "--over", "train.seed=0", "--out", "x",
                                     "--jobs", "2", "--workers", "2"])  # fmt: skip
    assert found.exit_code == 2
    assert "--jobs excludes --workers and --ray" in found.stderr
    found = CliRunner().invoke(cli, ["simulate", "shipped:tiny.nav", "--resume", "x"])
    assert found.exit_code == 2
    assert "--resume is for --workers and --ray" in found.stderr


def test_another_version_on_a_worker():
    found = cluster_module._attempt("0.0.0", lambda task: task, 1)
    assert isinstance(found, ConfigError)
    assert "install one version on all machines" in str(found)


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependency, match=r"pip install 'neuroav\[scale\]'"):
        cluster_module.import_ray()


# --- nothing is left ---------------------------------------------------------------------------
CHILD = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path[:0] = {path!r}
from neuroav.studies.cluster import Workers, cluster

def work(task):
    noted = pathlib.Path({noted!r})
    if task == "die once" and not noted.exists():
        noted.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600 * (task == "long"))

with cluster(Workers(1)) as own:
    for task, _ in own.as_finished(work, ["die once", "long"], lambda _: ()):
        print(task, file=sys.__stdout__, flush=True)
"""


def test_no_process_file_or_line_on_stdout_outlives_an_interruption(tmp_path):
    """Ray's own words about a lost worker go to stderr: stdout holds nothing but results."""
    folder = tmp_path if len(str(tmp_path)) < 20 else Path(os.path.realpath("/tmp"))
    before = {p.name for p in folder.glob("nav-*")}
    code = CHILD.format(path=[p for p in sys.path if p], noted=str(tmp_path / "noted"))
    home = tmp_path / "home"
    home.mkdir()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "HOME": str(home)}) as process:  # fmt: skip
        late = threading.Timer(120, process.kill)
        late.start()
        assert any("worker died" in line for line in process.stderr)
        late.cancel()
        assert process.stdout.readline() == "die once\n"
        (session,) = {p.name for p in folder.glob("nav-*")} - before
        assert _processes(session)
        process.send_signal(2)
        assert process.communicate(timeout=60)[0] == ""
    end = time.monotonic() + 30
    while _processes(session) and time.monotonic() < end:
        time.sleep(0.1)
    assert not _processes(session)
    assert session not in {p.name for p in folder.glob("nav-*")}
    assert not list(home.iterdir())  # no token of Ray, no report


def _processes(session: str) -> list[str]:
    """Return the processes that were started with a session's folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if session.encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            pass
    return found
