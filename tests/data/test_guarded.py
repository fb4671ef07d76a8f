"""Readers run where a damaged file can do no harm; every way it can end is one clear error."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
from samples import ROOT, load_script

from neuroav.data.formats import _wire, ntidigits, sound
from neuroav.data.formats.guarded import GuardedReader, NotSurvived, guarded
from neuroav.data.formats.hdf5 import check_hdf5
from neuroav.errors import (
    DataError,
    ExecutorError,
    FileFormatError,
    MissingDependency,
    NeuroavError,
)

fuzz = load_script(ROOT / "benchmarks" / "container_fuzz.py")


@pytest.fixture(scope="module")
def reader():
    """One helper for this module."""
    with GuardedReader() as made:
        yield made


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    """Whether a process ends within seconds."""
    for _ in range(200):
        if not alive(pid):
            return True
        time.sleep(0.05)
    return False


# --- what comes back ---------------------------------------------------------------------------
def test_results_are_those_of_the_function(reader, tmp_path):
    path = tmp_path / "n-tidigits.hdf5"
    fuzz.write_ntidigits(path)
    assert reader(ntidigits.read_listing, path) == ntidigits.read_listing(path)
    found = reader(ntidigits.read_utterance, path, "train", "man-ae-a-1")
    expected = ntidigits.read_utterance(path, "train", "man-ae-a-1")
    assert len(expected[0]) == 300
    assert isinstance(found, tuple)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)
        ours[0] = 0  # can be written to


def test_large_arrays_come_back_whole(reader):
    found = reader(np.arange, 3_000_000)
    assert found.nbytes == 24_000_000
    assert np.array_equal(found, np.arange(3_000_000))


@pytest.mark.parametrize(
    "value",
    [
        None, True, 3, -0.5, "text", b"\0\1", [], (1, "a"), {"a": [1, (2,)], 3: None}, Path("/a/b"),
        np.zeros((0, 3), np.uint8), np.array(3.5), np.array([b"ab", b"c"]), np.array(["ä", "bc"]),
        np.arange(24).reshape(2, 3, 4).T, np.array([True, False]), np.arange(5, dtype=">i2"),
        np.array([np.nan, np.inf]), np.zeros(3, np.float16),
    ],
    ids=repr,
)  # fmt: skip
def test_the_wire_carries(value):
    message = bytearray(b"".join(_wire.encoded(value)))
    found = _wire.decoded(message, None)
    assert type(found) is type(value)
    if isinstance(value, np.ndarray):
        assert found.dtype == value.dtype
        assert found.shape == value.shape
        assert found.tobytes() == value.tobytes()
    else:
        assert found == value


@pytest.mark.parametrize("value", [object(), np.array([object()]), {1, 2}, np.zeros(2, "i4,f4")])
def test_the_wire_refuses(value):
    with pytest.raises(TypeError, match="cannot be sent"):
        _wire.encoded(value)


def test_the_wire_makes_only_dataclasses_of_the_functions_module():
    made = sound.Sound(np.zeros((1, 4), np.float32), 8000)
    message = bytearray(b"".join(_wire.encoded(made)))
    assert _wire.decoded(message, sound).rate == 8000
    for home in (None, os):
        with pytest.raises(ValueError, match="no dataclass"):
            _wire.decoded(message, home)
    for size in (0, 7, 20, len(message) - 16):
        with pytest.raises(ValueError, match="cut"):
            _wire.decoded(message[:size] or bytearray(b"\1"), sound)


# --- how it can end ----------------------------------------------------------------------------
def test_expected_errors_pass_unchanged(reader):
    for text in ("nothing", "man-ae-c-1"):
        with pytest.raises(DataError) as direct:
            ntidigits.parse_id(text)
        with pytest.raises(DataError) as found:
            reader(ntidigits.parse_id, text)
        assert type(found.value) is DataError
        assert str(found.value) == str(direct.value)


def test_errors_come_back_as_the_nearest_class_known():
    class Special(MissingDependency):
        pass

    facts = json.loads(json.dumps(_wire.error_facts(Special("a", rule="r"))))
    found = _wire.error_from(facts)
    assert type(found) is Special
    assert str(found) == "a"
    assert found.rule == "r"
    facts["kinds"][0] = ["elsewhere", "Special"]
    assert type(_wire.error_from(facts)) is MissingDependency


ENDS = {
    "death": (os.abort, (), "SIGABRT"),
    "exit": (os._exit, (3,), "exit code 3"),
    "exception": (int, ("spoken.wav",), r"spoken\.wav: .*ValueError: invalid literal"),
    "leaves": (sys.exit, (1,), "SystemExit"),
    "unsendable": (object, (), "object cannot be sent"),
}


@pytest.mark.parametrize("case", list(ENDS))
def test_every_other_end_is_a_file_format_error(reader, case):
    function, arguments, text = ENDS[case]
    with pytest.raises(FileFormatError, match=text) as found:
        reader(function, *arguments)
    how = "death" if case in ("death", "exit") else "exception"
    assert isinstance(found.value, NotSurvived)
    assert found.value.how == how
    assert reader(int, "7") == 7  # and the next file is read


def test_the_error_names_the_file_and_the_limit(reader, tmp_path):
    fifo = tmp_path / "never.wav"
    os.mkfifo(fifo)  # opening it waits for a writer that never comes
    with pytest.raises(NotSurvived, match=r"never\.wav: .*did not end within 0.3 s") as found:
        reader(sound.read_sound, fifo, seconds=0.3)
    assert found.value.how == "time"
    with pytest.raises(NotSurvived, match="more than 64 MiB of memory") as found:
        reader(np.zeros, 1 << 27, memory_bytes=64 << 20)
    assert found.value.how == "memory"


def test_the_limit_on_memory_counts_from_the_start_of_the_call(reader):
    for _ in range(3):  # what one call allocated is not counted against the next
        assert reader(np.ones, 1 << 22, memory_bytes=64 << 20).nbytes == 32 << 20


def test_what_cannot_be_imported_is_an_error_of_the_caller(reader):
    with pytest.raises(ValueError, match="can be imported"):
        reader(lambda: 0)


# --- processes ---------------------------------------------------------------------------------
def test_a_helper_that_is_killed_is_started_again(reader):
    first = reader(os.getppid)  # a copy's parent is the helper
    assert reader(os.getppid) == first
    os.kill(first, signal.SIGKILL)
    second = reader(os.getppid)
    assert second != first
    assert gone(first)


def test_a_helper_that_cannot_start_is_no_fault_of_the_file(monkeypatch, capfd):
    monkeypatch.setattr("neuroav.data.formats.guarded._START", "raise SystemExit('no room')")
    with GuardedReader() as made, pytest.raises(ExecutorError, match="error is above"):
        made(int, "1")
    assert capfd.readouterr().err.count("no room") == 2


def test_each_call_is_in_a_copy_of_its_own(reader):
    assert len({reader(os.getpid) for _ in range(5)}) == 5


def test_the_helper_imports_no_torch(reader):
    mapped = reader(Path.read_text, Path("/proc/self/maps"))
    assert "/h5py/" in mapped, "it must show what is loaded"
    assert "/torch/" not in mapped


def test_threads_take_turns(reader):
    found: dict[int, int] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: reader(int, str(n))}))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: n for n in range(8)}


def test_closing_ends_the_helper_and_a_call_starts_it_again():
    with GuardedReader() as made:
        pid = made(os.getppid)
    assert gone(pid)
    assert made(os.getppid) != pid
    made.close()


PARENT = """
import os, sys, threading, time
from neuroav.data.formats.guarded import GuardedReader
reader = GuardedReader()
print(reader(os.getppid), flush=True)
if sys.argv[1] == "reading":
    threading.Thread(target=reader, args=(time.sleep, 600)).start()
time.sleep(600)
"""


@pytest.mark.parametrize("state", ["idle", "reading"])
def test_nothing_outlives_a_parent_that_is_killed(state):
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), state], stdout=subprocess.PIPE, text=True
    )
    helper = int(parent.stdout.readline())
    copies: list[int] = []
    for _ in range(200 if state == "reading" else 0):
        copies = [
            int(n) for n in Path(f"/proc/{helper}/task/{helper}/children").read_text().split()
        ]
        if copies:
            break
        time.sleep(0.02)
    assert bool(copies) == (state == "reading")
    assert alive(helper)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(helper)
    assert all(map(gone, copies))


def test_a_copy_of_this_process_starts_a_helper_of_its_own(reader):
    ours, (source, target) = reader(os.getppid), os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from Python 3.12 on: of threads, which torch has
        child = os.fork()
    if child == 0:
        try:
            theirs = reader(os.getppid)
            os.write(target, str(theirs).encode())
            reader.close()
        finally:
            os._exit(0)
    os.close(target)
    os.waitpid(child, 0)
    with open(source) as pipe:
        theirs = int(pipe.read())
    assert theirs != ours
    assert gone(theirs)
    assert reader(os.getppid) == ours


def test_the_shared_helper_serves_every_caller():
    assert guarded(os.getppid) == guarded(os.getppid)


# --- HDF5 files of any content -----------------------------------------------------------------
def test_check_hdf5_reads_everything_and_follows_nothing(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["deep/er/values"] = np.arange(1000, dtype=np.float64)
        file["deep"].attrs["note"] = "short"
        file["out"] = h5py.ExternalLink(str(tmp_path / "missing.h5"), "/")
        file["loop"] = h5py.SoftLink("/")
        file["empty"] = h5py.Empty("f4")
    found = check_hdf5(path, 1 << 20)
    assert found["bytes"] >= 8000
    assert found["refused"] == 0
    with pytest.raises(FileFormatError, match=r"a\.h5: .*bytes, allowed is 4000"):
        check_hdf5(path, 4000)


def test_check_hdf5_leaves_what_does_not_open_to_the_reader(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"no HDF5")
    assert check_hdf5(path, 1 << 20) == {"objects": 0, "bytes": 0, "refused": 1}


def test_check_hdf5_goes_round_no_loop(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_group("a")["again"] = file["/"]  # a hard link to what it lies in
    with pytest.raises(FileFormatError, match="nested too deep"):
        check_hdf5(path, 1 << 20)


# --- damaged files of every format -------------------------------------------------------------
TRIED = ("ntidigits", "shd", "gzsl", "mat", "wav", "flv", "mp3", "jpg", "png")  # all: benchmarks


@pytest.mark.parametrize("name", TRIED)
def test_damaged_files_are_read_or_refused(name, reader, tmp_path):
    found = fuzz.fuzz(name, 24, 11, reader, tmp_path)
    assert sum(found.counts.values()) == 24
    assert found.counts["refused"] > 2
    assert not found.defects


def test_the_fuzz_finds_what_a_reader_does_not_expect(reader, tmp_path, monkeypatch, capsys):
    def careless(_: GuardedReader, path: Path) -> None:
        if path.read_bytes() != whole:
            raise NeuroavError("no file named")

    form = fuzz.FORMATS["wav"]
    form.write(tmp_path / "wav.wav")
    whole = (tmp_path / "wav.wav").read_bytes()
    monkeypatch.setitem(fuzz.FORMATS, "wav", fuzz.Format("wav", form.write, careless))
    code = fuzz.main(["--files", "5", "--formats", "wav", "--out", str(tmp_path)])
    assert code == 1
    assert "no file named" in capsys.readouterr().out
