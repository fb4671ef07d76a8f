"""Kept chunks of a simulation: what is taken up again, what is refused, what stays."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from neuroav.data import exclusive
from neuroav.errors import ConfigError, ExecutorError, OutOfRange
from neuroav.studies.chunks import unpack
from neuroav.studies.finished import REQUEST, finished, request_of

INPUTS = {"audio": np.arange(60, dtype=np.uint8).reshape(10, 6)}
REQUESTED = request_of("a" * 64, INPUTS)
LOCKS = (exclusive.LOCK, exclusive.WORKERS)
OUTPUTS = {
    "a.conv/1": np.eye(4, 9, dtype=np.int32).reshape(4, 3, 3),
    "readout": np.array([[-(2**31)], [2**31 - 1], [0], [5]], np.int32),
}


@contextmanager
def interrupted(folder):
    """A run in chunks of 4 that is interrupted where the block ends."""
    with suppress(KeyboardInterrupt), finished(folder, REQUESTED, 4) as store:
        yield store
        raise KeyboardInterrupt


@pytest.fixture
def cut_off(tmp_path):
    """A folder with chunks 0 and 8 of such a run."""
    folder = tmp_path / "parts"
    with interrupted(folder) as store:
        assert (store.size, store.known) == (4, frozenset())
        store.add(0, OUTPUTS)
        store.add(8, {n: v[:2] for n, v in OUTPUTS.items()})
    return folder


def files(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_chunks_come_back_and_go_in_the_end(cut_off):
    assert set(files(cut_off)) == {REQUEST, "chunk-0000000000", "chunk-0000000008", *LOCKS}
    with finished(cut_off, REQUESTED, 7) as store:  # the size is that of the first call
        assert (store.size, store.known) == (4, {0, 8})
        for first, samples in ((0, 4), (8, 2)):
            found = {n: unpack(v) for n, v in store.get(first).items()}
            assert list(found) == list(OUTPUTS)
            for name, expected in OUTPUTS.items():
                assert found[name].dtype == np.int32
                assert np.array_equal(found[name], expected[:samples])
    assert not cut_off.exists()


@pytest.mark.parametrize(
    "damage", [b"", b"x" * 31, lambda c: c[:-1], lambda c: c[:99] + b"!" + c[100:]]
)
def test_a_damaged_chunk_is_computed_again(cut_off, damage):
    path = cut_off / "chunk-0000000000"
    path.write_bytes(damage(path.read_bytes()) if callable(damage) else damage)
    with finished(cut_off, REQUESTED, 4) as store:
        assert store.known == {8}
        assert not path.exists()


def test_what_a_killed_process_was_writing_goes(cut_off):
    (cut_off / ".chunk-0000000004.abc.part").write_bytes(b"half")
    with interrupted(cut_off) as store:
        assert store.known == {0, 8}
        assert set(files(cut_off)) == {REQUEST, "chunk-0000000000", "chunk-0000000008", *LOCKS}


@pytest.mark.parametrize(
    ("error", "stays"), [(ExecutorError("lost"), True), (OutOfRange("too large", rule="r"), False)]
)
def test_only_what_may_end_otherwise_next_time_is_kept(cut_off, error, stays):
    with pytest.raises(type(error)), finished(cut_off, REQUESTED, 4):
        raise error
    assert cut_off.exists() == stays


@pytest.mark.parametrize(
    ("request_", "differs"),
    [
        (request_of("b" * 64, INPUTS), "deployment"),
        (request_of("a" * 64, {"audio": INPUTS["audio"][:8]}), "samples, inputs"),
        (request_of("a" * 64, {"audio": INPUTS["audio"] + 1}), "inputs"),
        (request_of("a" * 64, {"visual": INPUTS["audio"]}), "inputs"),
        ({**REQUESTED, "neuroav": "0.0.1"}, "neuroav"),
    ],
)
def test_parts_of_another_run_are_refused_and_stay(cut_off, request_, differs):
    for name in LOCKS:  # the system took them back with the process
        (cut_off / name).unlink()
    before = files(cut_off)
    with pytest.raises(ConfigError, match=rf"parts of another run \(other {differs}\)"):
        finished(cut_off, request_, 4).__enter__()
    assert files(cut_off) == before


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"size": 0}', b'{"size": true}', b"\xff"])
def test_a_damaged_request_is_one_clear_error(cut_off, content):
    (cut_off / REQUEST).write_bytes(content)
    with pytest.raises(ConfigError, match=r"request\.json: is damaged"):
        finished(cut_off, REQUESTED, 4).__enter__()
    assert (cut_off / "chunk-0000000008").exists()


@pytest.mark.parametrize("name", ["notes.txt", "chunk-0000000000"])
def test_a_folder_with_other_files_is_not_touched(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=rf"holds other files than parts of a run \({name}\)"):
        finished(tmp_path, REQUESTED, 4).__enter__()
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(ConfigError, match="is a file; choose a folder"):
        finished(tmp_path / name, REQUESTED, 4).__enter__()
    assert (tmp_path / name).read_text() == "mine"


def test_two_runs_do_not_share_a_folder(tmp_path):
    with finished(tmp_path / "a", REQUESTED, 4):
        with pytest.raises(ConfigError, match="another run works in it"):
            finished(tmp_path / "a", REQUESTED, 4).__enter__()
        assert (tmp_path / "a" / REQUEST).exists()


def test_a_chunk_that_goes_missing_meanwhile(cut_off):
    with interrupted(cut_off) as store:
        (cut_off / "chunk-0000000000").unlink()
        with pytest.raises(ExecutorError, match="changed or removed"):
            store.get(0)
