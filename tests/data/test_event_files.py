"""Event files without a version line, what a file is taken for, and damaged files of any format."""

from __future__ import annotations

import struct
import tracemalloc
import warnings
from collections import Counter

import numpy as np
import pytest
from event_files import KINDS, agreed, damaged, judged, random_events, sound_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuroav.data.formats import aedat, nmnist, slayer
from neuroav.data.formats.events import (
    AS_STORED,
    DTYPES,
    INIVATION,
    open_events,
    read_all,
    read_events,
)
from neuroav.errors import DataError, FileFormatError


def made(folder, data, name):
    path = folder / name
    path.write_bytes(data)
    return path


def rows(events):
    """Events as a list of (x, y, p, time)."""
    assert list(events) == list(DTYPES)
    assert all(events[name].dtype == dtype for name, dtype in DTYPES.items())
    return [tuple(int(v) for v in row) for row in zip(*events.values(), strict=True)]


# --- N-MNIST and SLAYER ------------------------------------------------------------------------
def test_nmnist_is_five_bytes_and_row_240_carries_the_time_on(tmp_path):
    data = bytes([3, 4, 0x80, 0, 7]) + bytes([33, 33, 0x7F, 0xFF, 0xFF])
    data += bytes([9, 240, 0xFF, 1, 1]) * 2 + bytes([5, 6, 0x81, 2, 3])
    expected = [(3, 4, 1, 7), (33, 33, 0, 2**23 - 1), (5, 6, 1, 0x10203 + 2 * 8192)]
    for name in ("00001.bin", "a.BS2"):
        for chunk in (1, 2, 3, 100):
            stream = open_events(made(tmp_path, data, name), None, chunk, sensor=(34, 34))
            assert rows(read_all(stream)) == expected
            assert stream.counts == {"events": 3, "backward": 1, "wrapped": 2}
    named = made(tmp_path, data, "events.raw")
    assert rows(read_events(named, format="nmnist")) == expected


def test_nmnist_refuses_cut_empty_and_foreign_files(tmp_path):
    good = bytes([3, 4, 0x80, 0, 7])
    with pytest.raises(FileFormatError, match="at byte 5: 4 bytes of a record.*cut it to 5 bytes"):
        open_events(made(tmp_path, good + good[:4], "a.bin"))
    with pytest.raises(
        FileFormatError, match="at byte 0: the end of the file; allowed is at least"
    ):
        open_events(made(tmp_path, b"", "a.bin"))
    path = made(tmp_path, good + bytes([34, 0, 0, 0, 1]), "a.bin")
    with pytest.raises(FileFormatError, match="at byte 5: an event at x 34, y 0; allowed is 34x34"):
        read_events(path, sensor=(34, 34))
    assert rows(read_events(path)) == [(3, 4, 1, 7), (34, 0, 0, 1)]
    with pytest.raises(DataError, match="flipping needs the size"):
        open_events(path, INIVATION)
    assert rows(read_events(path, INIVATION, sensor=(35, 34))) == [(3, 29, 1, 7), (34, 33, 0, 1)]


def test_bs1_is_a_number_of_16_bits_and_the_same_time(tmp_path):
    data = bytes([0x12, 0x34, 0x80, 0, 7]) + bytes([0xFF, 0xFF, 0x7F, 0xFF, 0xFF])
    path = made(tmp_path, data, "a.bs1")
    expected = [(0x1234, 0, 1, 7), (0xFFFF, 0, 0, 2**23 - 1)]
    assert rows(read_events(path)) == expected
    with pytest.raises(FileFormatError, match="at byte 5: an event at x 65535, y 0"):
        read_events(path, sensor=(64 * 256, 1))
    with pytest.raises(FileFormatError, match="at byte 10: 1 bytes of a record"):
        open_events(made(tmp_path, data + b"x", "a.bs1"))


QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def events_of(draw, width, height, last):
    """Events in any order, times up to ``last``; no event in row 240."""
    count = draw(st.integers(1, 60))
    high = np.array([width - 1, height - 1, 1, last])
    table = draw(hnp.arrays(np.int64, (count, 4), elements=st.integers(0, last)))
    found = {name: table[:, i] % (high[i] + 1) for i, name in enumerate(DTYPES)}
    found["y"][found["y"] == 240] = 239
    return found


@QUICK
@given(events=events_of(256, 256, 2**23 - 1), chunk=st.integers(1, 9))
def test_what_is_written_as_nmnist_is_read(tmp_path, events, chunk):
    nmnist.write_nmnist(tmp_path / "a.bin", events)
    found = read_all(open_events(tmp_path / "a.bin", chunk_events=chunk))
    assert all(np.array_equal(found[name], events[name]) for name in DTYPES)


@QUICK
@given(events=events_of(256, 256, 40_000_000), cut=st.integers(0, 60))
def test_long_recordings_are_written_with_overflows(tmp_path, events, cut):
    events["time"].sort()
    parts = [{n: v[:cut] for n, v in events.items()}, {n: v[cut:] for n, v in events.items()}]
    nmnist.write_nmnist(tmp_path / "a.bin", parts)
    nmnist.write_nmnist(tmp_path / "b.bin", events)
    stream = open_events(tmp_path / "a.bin", chunk_events=7)
    found = read_all(stream)
    assert all(np.array_equal(found[name], events[name]) for name in DTYPES)
    assert (stream.counts["wrapped"] > 0) == (int(events["time"][-1]) >= 2**23)
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()


@QUICK
@given(events=events_of(65536, 1, 2**23 - 1), chunk=st.integers(1, 9))
def test_what_is_written_as_bs1_is_read(tmp_path, events, chunk):
    slayer.write_bs1(tmp_path / "a.bs1", events)
    found = read_all(open_events(tmp_path / "a.bs1", chunk_events=chunk))
    assert all(np.array_equal(found[name], events[name]) for name in DTYPES)


def test_writers_without_a_header_refuse_what_does_not_fit(tmp_path):
    def events(**changed):
        one = {"x": [1], "y": [0], "p": [1], "time": [1]} | changed
        return {name: np.array(value) for name, value in one.items()}

    none = {name: np.array([], int) for name in DTYPES}
    for write, bad, message in (
        (nmnist.write_nmnist, events(y=[240]), "row 240, which marks an overflow"),
        (nmnist.write_nmnist, events(x=[256]), "column x is 256"),
        (nmnist.write_nmnist, events(time=[2**31]), "column time is 2147483648"),
        (nmnist.write_nmnist, none, "no events to be written"),
        (slayer.write_bs1, events(y=[1]), "column y is 1"),
        (slayer.write_bs1, events(time=[2**23]), "column time is 8388608"),
        (slayer.write_bs1, [none, none], "no events to be written"),
    ):
        with pytest.raises(DataError, match=message):
            write(tmp_path / "a.bin", bad)
    back = {n: np.array([v, v]) for n, v in (("x", 1), ("y", 1), ("p", 1))}
    with pytest.raises(DataError, match="times that go back by more than"):
        nmnist.write_nmnist(tmp_path / "a.bin", back | {"time": np.array([2**25, 0])})
    assert list(tmp_path.iterdir()) == []


def test_recordings_of_nmnist_are_read_as_tonic_reads_them(recordings):
    io = pytest.importorskip("tonic.io")
    from tonic.datasets import NMNIST

    paths = sorted((recordings / "nmnist").rglob("*.bin"))
    assert len(paths) == 750
    compared = 0
    for path in paths[::7]:
        theirs = io.read_mnist_file(str(path), dtype=NMNIST.dtype)
        ours = read_events(path, sensor=(34, 34))
        assert len(theirs) == len(ours["time"])
        for name, column in zip("xypt", DTYPES, strict=True):
            assert np.array_equal(theirs[name], ours[column])
        compared += len(theirs)
    assert compared > 400_000


def test_overflows_are_read_as_tonic_reads_them(tmp_path):
    io = pytest.importorskip("tonic.io")
    from tonic.datasets import NMNIST

    events = random_events(np.random.default_rng(0), 3000, (34, 34), last=20_000_000)
    nmnist.write_nmnist(tmp_path / "a.bin", events)
    theirs = io.read_mnist_file(str(tmp_path / "a.bin"), dtype=NMNIST.dtype)
    assert len(theirs) == 3000
    assert np.array_equal(theirs["t"], events["time"])


# --- arrays ------------------------------------------------------------------------------------
def test_structured_arrays_are_read_by_the_names_of_their_fields(tmp_path):
    path = tmp_path / "a.npy"
    for t, p in (("t", "p"), ("ts", "pol"), ("timestamp", "polarity"), ("time", "p")):
        array = np.array(
            [(5, 7, 1, -1, 9), (6, 8, 2, 1, 9)],
            [(t, ">i8"), ("x", "<u2"), ("y", "<f4"), (p, "i1"), ("walltime", "f8")],
        )
        np.save(path, array)
        for chunk in (1, 2):
            found = read_all(open_events(path, "as-stored", chunk))
            assert rows(found) == [(7, 1, 0, 5), (8, 2, 1, 6)]
    with pytest.raises(DataError, match="an array does not say what its polarity"):
        open_events(path)
    np.save(path, np.zeros(3, [("x", "u2"), ("y", "u2"), ("t", "i8")]))
    with pytest.raises(FileFormatError, match="fields x, y, t; allowed is one of p, pol, polarity"):
        open_events(path, AS_STORED)
    np.save(path, np.zeros(3, [("x", "u2"), ("y", "u2"), ("t", "i8"), ("p", "U3")]))
    with pytest.raises(FileFormatError, match="p of type <U3"):
        open_events(path, AS_STORED)


def test_plain_arrays_need_names_for_their_columns(tmp_path):
    path = tmp_path / "a.npy"
    # As published processed MNIST-DVS: time, two columns of nothing, x, y, polarity -1 or 1.
    np.save(path, np.array([[10.0, 0, 0, 27, 3, -1], [11, 0, 0, 0, 5, 1]]))
    names = ("time", "", "", "x", "y", "p")
    expected = [(27, 3, 0, 10), (0, 5, 1, 11)]
    assert rows(read_events(path, AS_STORED, columns=names)) == expected
    assert rows(read_events(path, AS_STORED, columns=names, sensor=(28, 28))) == expected
    for columns, message in (
        (None, "say what its columns are"),
        (names[:5], "6 columns, but 5 are named"),
        ((*names[:5], "x"), "allowed are x, y, p and time, once"),
    ):
        with pytest.raises(DataError, match=message):
            open_events(path, AS_STORED, columns=columns)
    with pytest.raises(FileFormatError, match="an event at x 27, y 3; allowed is 27x28"):
        read_events(path, AS_STORED, columns=names, sensor=(27, 28))


def test_npy_header_that_claims_gigabytes_costs_none(tmp_path):
    path = tmp_path / "a.npy"
    path.write_bytes(b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + bytes(64))
    tracemalloc.start()
    with pytest.raises(FileFormatError, match="a header of 2147483647 bytes, more than 65536"):
        read_events(path, "as-stored")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["f2", ">f2", "f4", ">f8"])
def test_whole_numbers_of_floats_are_read_without_a_warning(tmp_path, kind):
    np.save(tmp_path / "a.npy", np.array([[1, 2, 1, 3], [4, 5, 0, 2048]]).astype(kind))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_events(tmp_path / "a.npy", AS_STORED, columns=("x", "y", "p", "time"))
    assert found["time"].tolist() == [3, 2048]
    assert found["x"].tolist() == [1, 4]


def test_arrays_that_are_not_events_are_refused(tmp_path):
    path, names = tmp_path / "a.npy", ("x", "y", "p", "time")

    def refused(array, message, columns=names):
        np.save(path, array)
        with pytest.raises(FileFormatError, match=message):
            read_events(path, AS_STORED, columns=columns)

    start = 128
    refused(
        np.array([[1, 2, 1, 3], [1, 2, 2, 3]]), f"at byte {start + 32}: p 2; allowed is 0 and 1"
    )
    refused(np.array([[1.5, 2, 1, 3]]), f"at byte {start}: x 1.5; allowed is whole numbers")
    refused(np.array([[1, np.nan, 1, 3]]), "y nan; allowed is whole")
    refused(np.array([[1, 2, 1, np.inf]]), "time inf; allowed is whole")
    refused(np.array([[1, 2, 1, -3]]), "time -3; allowed is whole")
    refused(np.array([[65536, 2, 1, 3]]), "x 65536; allowed is whole numbers of 0 to 65535")
    for kind in (np.float16, np.float32, np.float64):
        with np.errstate(over="ignore"):
            large = np.array([[1, 1, 1, 100], [2, 1, 1, 1e39]]).astype(kind)
        refused(large, "time (inf|1e\\+39); allowed is whole numbers")
    refused(np.zeros((2, 4), complex), "numbers of type complex128")
    refused(np.zeros((2, 4), "O"), "objects|cannot be read")
    refused(np.asfortranarray(np.zeros((3, 4))), "an array in Fortran's order")
    refused(np.zeros((2, 2, 4)), r"numbers of shape \(2, 2, 4\)")
    np.save(path, np.zeros((5, 4)))
    whole = path.read_bytes()
    for data in (whole[:-1], whole + b"x", whole.replace(b"(5, 4)", b"(9, 4)")):
        path.write_bytes(data)
        with pytest.raises(FileFormatError, match=f"at byte {start}: .* bytes of an array"):
            open_events(path, AS_STORED, columns=names)
    path.write_bytes(whole.replace(b"descr", b"desc("))
    with pytest.raises(FileFormatError, match="at byte 0: a .npy file that cannot be read"):
        open_events(path, AS_STORED, columns=names)
    np.save(path, np.zeros((0, 4)))
    assert rows(read_events(path, AS_STORED, columns=names)) == []


# --- what a file is ----------------------------------------------------------------------------
def test_content_counts_more_than_the_name(tmp_path):
    events = random_events(np.random.default_rng(0), 50)
    path = tmp_path / "mnist_0_scale04_0001.bin"
    aedat.write_aedat2(path, events, orientation=INIVATION)
    stream = open_events(path, "inivation")
    assert stream.format == "AEDAT 2.0"
    assert len(read_all(stream)["x"]) == 50
    headed = made(tmp_path, b"# 1.0\r\n" + struct.pack(">HI", 3, 4), "no_suffix")
    assert rows(read_events(headed, AS_STORED)) == [(1, 0, 1, 4)]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.aedat", b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file"),
        ("a.bin", b"PK\x03\x04" + bytes(40), "a ZIP archive"),
        ("a.aedat", b"\x1f\x8b\x08" + bytes(40), "a gzip archive"),
        ("a.dat", b"% Data file containing CD events\n" + bytes(40), "a file of Prophesee"),
        ("a.raw", b"% evt 3.0\n% end\n" + bytes(40), "a file of Prophesee"),
        ("a.bin", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("a.bin", b"<!DOCTYPE html><html>", "a web page"),
        ("a.npy", b"not an array at all", "'.x93NUMPY' of a .npy file"),
        ("a.xyz", bytes(40), "say format=, one of aedat, nmnist"),
        ("a.aedat", b"", "at least one event"),
    ],
)
def test_foreign_files_are_named(tmp_path, name, data, message):
    path = made(tmp_path, data, name)
    with pytest.raises(FileFormatError, match="at byte 0: ") as caught:
        open_events(path, AS_STORED)
    assert message.replace("'.x93", "'\\x93") in str(caught.value)


def test_bytes_that_only_look_foreign_are_events(tmp_path):
    """Formats without a magic number may begin with '% ', or as gzip does."""
    for x, y, p in ((16, 37, 0), (69, 31, 1)):
        data = struct.pack(">HI", y << 8 | x << 1 | p, 7)
        assert rows(read_events(made(tmp_path, data, "a.dat"), AS_STORED)) == [(x, y, p, 7)]
    data = bytes([0x1F, 0x8B, 8, 0, 0])
    assert len(rows(read_events(made(tmp_path, data, "a.bin")))) == 1


def test_arguments_that_are_not_allowed(tmp_path):
    path = made(tmp_path, bytes(5), "a.bin")
    for message, options in (
        ("chunk_events 0", {"chunk_events": 0}),
        ("chunk_events 1.5", {"chunk_events": 1.5}),
        ("unknown order of events 'sorted'", {"order": "sorted"}),
        (r"sensor \(0, 5\)", {"sensor": (0, 5)}),
        (r"sensor \(5,\)", {"sensor": (5,)}),
        ("unknown format of event files 'bin'", {"format": "bin"}),
        ("chip 'dvs128' is of AEDAT 2.0", {"chip": "dvs128"}),
        ("columns are of arrays", {"columns": ("x",)}),
    ):
        with pytest.raises(DataError, match=message):
            open_events(path, **options)
    with pytest.raises(DataError, match="no such file"):
        open_events(tmp_path / "b.bin")
    with pytest.raises(DataError, match="a folder, not a file"):
        open_events(tmp_path)


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path):
    path = made(tmp_path, bytes(5) * 200_000, "a.bin")
    stream = iter(open_events(path, chunk_events=1000))
    assert len(next(stream)["x"]) == 1000
    path.write_bytes(bytes(50_000))
    with pytest.raises(FileFormatError, match="which was longer when it was opened"):
        list(stream)


# --- any file ----------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_sound_files_are_read_the_same_in_chunks_of_any_size(tmp_path, kind):
    files = sound_files(kind, tmp_path, np.random.default_rng(0))
    path, seen = tmp_path / KINDS[kind].name, 0
    for data in files:
        path.write_bytes(data)
        verdict, whole = judged(kind, path, 1_000_000)
        assert verdict == "accepted"
        seen += len(whole["x"])
        for chunk in (1, 7) if len(data) < 9000 else (7,):
            _, found = judged(kind, path, chunk)
            assert all(np.array_equal(found[name], whole[name]) for name in DTYPES)
    assert seen > 2000


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_damaged_files_are_read_soundly_or_refused(tmp_path, kind):
    """The short form of benchmarks/event_fuzz.py."""
    rng = np.random.default_rng(7)
    good = sound_files(kind, tmp_path, rng)
    path, verdicts = tmp_path / KINDS[kind].name, Counter()
    for number in range(1200):
        path.write_bytes(damaged(rng, good[int(rng.integers(len(good)))], good))
        verdicts[agreed(kind, path, (64, 1 << 16), twice=number % 4 == 0)] += 1
    assert verdicts["accepted"] > 10
    assert verdicts["refused"] > 400


def test_a_stream_holds_one_chunk_however_long_the_file_or_a_length_field(tmp_path):
    def held(count):
        events = random_events(np.random.default_rng(0), count)
        aedat.write_aedat31(tmp_path / "3.aedat", events, packet_events=count)
        aedat.write_aedat2(tmp_path / "2.aedat", events, orientation=INIVATION)
        peaks = []
        for name, how in (("3.aedat", None), ("2.aedat", INIVATION)):
            tracemalloc.start()
            assert sum(len(c["x"]) for c in open_events(tmp_path / name, how, 1000)) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        return np.array(peaks)

    short, long = held(20_000), held(200_000)
    assert (long < short + 20_000).all()
    assert (long < 1_000_000).all()
