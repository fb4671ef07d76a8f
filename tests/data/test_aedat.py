"""AEDAT 1.0, 2.0, 3.0 and 3.1, every byte of the files written here and not by our writers."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
import pytest
from event_files import packet, polarity, random_events
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuroav.data.formats.aedat import CHIPS, write_aedat1, write_aedat2, write_aedat31
from neuroav.data.formats.events import (
    AS_STORED,
    DTYPES,
    INIVATION,
    MNIST_DVS,
    ORIENTATIONS,
    Orientation,
    open_events,
    read_all,
    read_events,
)
from neuroav.errors import DataError, FileFormatError

JAER = (
    b"#!AER-DAT2.0\r\n"
    b"# This is a raw AE data file - do not edit\r\n"
    b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
    b"# Timestamps tick is 1 us\r\n"
    b"# created Thu Dec 03 14:47:00 CET 2015\r\n"
)


def dvs(x, y, p, external=0):
    return external << 15 | y << 8 | x << 1 | p


def records2(*pairs):
    return b"".join(struct.pack(">II", address, time) for address, time in pairs)


def records1(*pairs):
    return b"".join(struct.pack(">HI", address, time) for address, time in pairs)


def made(folder, data, name="a.aedat"):
    path = folder / name
    path.write_bytes(data)
    return path


def rows(events):
    """Events as a list of (x, y, p, time)."""
    assert list(events) == list(DTYPES)
    assert all(events[name].dtype == dtype for name, dtype in DTYPES.items())
    return [tuple(int(v) for v in row) for row in zip(*events.values(), strict=True)]


def refused(path, *parts, orientation=AS_STORED, **options):
    with pytest.raises(FileFormatError) as caught:
        read_events(path, orientation, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: at byte ")
    for part in (*parts, "allowed is"):
        assert part in message
    return message


# --- 2.0 ---------------------------------------------------------------------------------------
def test_aedat2_holds_big_endian_addresses_and_times(tmp_path):
    pairs = (dvs(127, 0, 1), 5), (dvs(0, 127, 0), 5), (dvs(3, 90, 1), 7_000_000)
    path = made(tmp_path, JAER + records2(*pairs))
    stream = open_events(path, AS_STORED)
    assert (stream.format, stream.sensor, len(stream.header)) == ("AEDAT 2.0", (128, 128), 4)
    assert stream.header[3] == " created Thu Dec 03 14:47:00 CET 2015"
    assert rows(read_all(stream)) == [(127, 0, 1, 5), (0, 127, 0, 5), (3, 90, 1, 7_000_000)]
    assert stream.counts == {"events": 3, "backward": 0, "wrapped": 0}


def test_the_two_published_conventions_differ_and_one_must_be_chosen(tmp_path):
    path = made(tmp_path, JAER + records2((dvs(10, 20, 1), 5)))
    assert rows(read_events(path, INIVATION)) == [(10, 107, 1, 5)]
    assert rows(read_events(path, MNIST_DVS)) == [(117, 20, 0, 5)]
    assert rows(read_events(path, "mnist-dvs")) == [(117, 20, 0, 5)]
    assert rows(read_events(path, Orientation(True, True, True))) == [(117, 107, 1, 5)]
    with pytest.raises(DataError, match="contradict each other"):
        open_events(path)
    with pytest.raises(DataError, match="unknown orientation of events 'mnistdvs'.*mnist-dvs"):
        open_events(path, "mnistdvs")


def test_external_events_are_skipped_and_counted(tmp_path):
    pairs = (dvs(1, 1, 1), 1), (dvs(2, 2, 0, external=1), 2), (0x8000, 3), (dvs(4, 4, 0), 4)
    path = made(tmp_path, JAER + records2(*pairs))
    stream = open_events(path, AS_STORED, chunk_events=1)
    assert rows(read_all(stream)) == [(1, 1, 1, 1), (4, 4, 0, 4)]
    assert stream.counts["external"] == 2
    assert rows(read_all(stream)) == [(1, 1, 1, 1), (4, 4, 0, 4)]  # a second time
    assert stream.counts["external"] == 2


def test_davis_addresses_by_header_or_by_argument(tmp_path):
    def davis(x, y, p, samples=0, external=0):
        return samples << 31 | y << 22 | x << 12 | p << 11 | external << 10

    pairs = (
        (davis(239, 0, 1), 1), (davis(1, 1, 1, samples=1), 2), (davis(2, 2, 0, external=1), 3),
        (davis(5, 179, 0), 4), (davis(1000, 500, 1, samples=1, external=1), 5),
    )  # fmt: skip
    stated = JAER + b"# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n"
    stream = open_events(made(tmp_path, stated + records2(*pairs)), INIVATION)
    assert stream.sensor == (240, 180)
    assert rows(read_all(stream)) == [(239, 179, 1, 1), (5, 0, 0, 4)]
    assert (stream.counts["samples"], stream.counts["external"]) == (2, 1)
    silent = made(tmp_path, JAER + records2(*pairs))
    found = read_events(silent, INIVATION, chip="davis346")
    assert rows(found) == [(239, 259, 1, 1), (5, 80, 0, 4)]
    other = made(tmp_path, JAER + b"# AEChip: a.b.SomethingElse\r\n" + records2(*pairs))
    with pytest.raises(DataError, match=r"the camera is 'a\.b\.SomethingElse', which is not known"):
        open_events(other, INIVATION)
    with pytest.raises(DataError, match="unknown chip of AEDAT 2.0 'davis'"):
        open_events(other, INIVATION, chip="davis")
    assert read_events(made(tmp_path, JAER + records2((dvs(1, 2, 1), 3))), INIVATION, chip="dvs128")


def test_an_address_of_another_camera_is_refused_with_its_byte(tmp_path):
    path = made(tmp_path, JAER + records2((dvs(1, 1, 1), 1), (0x00400000, 2)))
    message = refused(path, f"at byte {len(JAER) + 8}", "address 0x00400000", "chip=")
    assert "davis240" in message
    davis = made(tmp_path, JAER + records2((240 << 12, 2)))
    refused(davis, f"at byte {len(JAER)}", "x 240, y 0", "240x180 pixels", chip="davis240")


def test_a_header_without_any_event_is_an_empty_recording(tmp_path):
    found = read_events(made(tmp_path, JAER), INIVATION)
    assert rows(found) == []


@pytest.mark.parametrize("length", range(1, 8))
def test_a_cut_record_is_refused(tmp_path, length):
    data = JAER + records2((dvs(1, 1, 1), 1), (dvs(2, 2, 1), 2))
    path = made(tmp_path, data[: len(JAER) + 8 + length])
    message = refused(path, f"{length} bytes of a record", "whole records of 8 bytes")
    assert f"cut it to {len(JAER) + 8} bytes to keep 1 records" in message


# --- where the header ends ---------------------------------------------------------------------
def test_a_first_record_that_begins_with_a_hash_is_data(tmp_path):
    """Row 35 of a DVS128 in 1.0, and rows 140 to 143 of a DAVIS in 2.0, begin with 0x23."""
    found = read_events(
        made(tmp_path, records1((dvs(7, 35, 1), 9), (dvs(8, 35, 0), 10))), AS_STORED
    )
    assert rows(found) == [(7, 35, 1, 9), (8, 35, 0, 10)]
    headed = b"# a recording of 2008\r\n" + records1((dvs(7, 35, 1), 9))
    assert rows(read_events(made(tmp_path, headed), AS_STORED)) == [(7, 35, 1, 9)]
    address = 140 << 22 | 100 << 12 | 1 << 11
    assert address >> 24 == ord("#")
    path = made(tmp_path, JAER + records2((address, 77)))
    assert rows(read_events(path, AS_STORED, chip="davis240")) == [(100, 140, 1, 77)]


def test_a_record_that_begins_with_a_hash_and_a_line_end_is_told_by_the_length(tmp_path):
    """Address 0x230a is row 35, column 5; '#' and a line feed is an empty header line, too."""
    events = records1((dvs(5, 35, 0), 9), (dvs(8, 35, 0), 10))
    assert events.startswith(b"#\n")
    for header in (b"", b"# unix line ends\n", b"#\n#\r\n"):
        found = read_events(made(tmp_path, header + events), AS_STORED)
        assert rows(found) == [(5, 35, 0, 9), (8, 35, 0, 10)]
    two = read_events(
        made(tmp_path, b"#!AER-DAT2.0\n#\n#\n" + records2((dvs(1, 2, 1), 3))), AS_STORED
    )
    assert rows(two) == [(1, 2, 1, 3)]


def test_the_end_line_of_jaer_ends_a_header_whatever_follows(tmp_path):
    text = int.from_bytes(b"#D(A")
    pairs = (text, int.from_bytes(b"y te")), (text, 0x7A0A0A0A)
    davis = b"# AEChip: DAVIS240C\r\n#End Of ASCII Header\r\n"
    stream = open_events(made(tmp_path, JAER + davis + records2(*pairs)), AS_STORED)
    assert stream.header[-1] == "End Of ASCII Header"
    assert rows(read_all(stream)) == [(66, 141, 1, 0x79207465), (66, 141, 1, 0x7A0A0A0A)]


def test_a_line_that_may_be_either_is_refused_and_not_guessed(tmp_path):
    """A record that begins with '#' and holds text only: a time above 536 s."""
    address = 141 << 22 | 0x42 << 12 | 1 << 11 | 0x41
    pairs = [(address, 0x41424344)] * 3
    assert records2(*pairs).isascii()
    path = made(tmp_path, JAER + records2(*pairs))
    refused(path, f"at byte {len(JAER)}", "begins with '#'", "line end", chip="davis240")


@pytest.mark.parametrize("line", [b"# caf\xe9\r\n", b"# a long enough line, then \x07\r\n"])
def test_a_header_line_that_is_no_text_is_refused(tmp_path, line):
    path = made(tmp_path, JAER + line + records2((dvs(1, 1, 1), 1)))
    refused(path, f"at byte {len(JAER)}", "begins with '#' but holds")
    # Short lines in the midst of a header are lines, whatever the file's length.
    for count in range(8):
        lines = b"#\r\n" * count + b"# \r\n#x\n# the last line\r\n"
        path = made(tmp_path, JAER + lines + records2((dvs(1, 1, 1), 1)))
        assert rows(read_events(path, AS_STORED)) == [(1, 1, 1, 1)]
    utf8 = made(tmp_path, JAER + "# café\r\n".encode() + records2((dvs(1, 1, 1), 1)))
    assert rows(read_events(utf8, AS_STORED)) == [(1, 1, 1, 1)]


def test_a_header_cut_in_a_line_is_refused(tmp_path):
    refused(made(tmp_path, b"#!AER-DAT2.0"), "version line", "#!AER-DAT1.0")
    refused(made(tmp_path, JAER[:-1].removesuffix(b"\r")), "without a line end")
    refused(made(tmp_path, JAER + b"#!AER-DAT3.1\r\n"), "a second version line")
    refused(made(tmp_path, JAER + b"#" + b"x" * 70_000 + b"\r\n"), "65536 characters without")
    refused(made(tmp_path, JAER + b"# \r\n" * 17_000), "more than 16384 lines")


def test_versions_that_are_not_read_say_what_reads_them(tmp_path):
    message = refused(made(tmp_path, b"#!AER-DAT4.0\r\n" + bytes(100)), "AEDAT 4.0", "at byte 0")
    assert "dv-processing" in message
    refused(made(tmp_path, b"#!AER-DAT5.1\r\n"), "version line b'#!AER-DAT5.1", "at byte 0")


# --- times ---------------------------------------------------------------------------------------
def test_a_counter_that_ran_over_goes_on(tmp_path):
    top = 2**32
    times = [top - 2, top - 1, 0, top - 1, 3, 2**31, top - 1, 1]
    path = made(tmp_path, JAER + records2(*((dvs(1, 1, 1), t) for t in times)))
    expected = [top - 2, top - 1, top, top - 1, top + 3, top + 2**31, 2 * top - 1, 2 * top + 1]
    for chunk in (1, 3, 100):
        stream = open_events(path, AS_STORED, chunk_events=chunk)
        assert read_all(stream)["time"].tolist() == expected
        assert (stream.counts["wrapped"], stream.counts["backward"]) == (3, 1)


def test_a_gap_of_more_than_half_the_counter_at_the_start_is_no_run_over(tmp_path):
    path = made(tmp_path, JAER + records2((dvs(1, 1, 1), 7), (dvs(1, 1, 1), 3_000_000_000)))
    assert read_events(path, AS_STORED)["time"].tolist() == [7, 3_000_000_000]


def test_times_that_go_back_are_kept_refused_or_sorted(tmp_path):
    times = [50, 10, 10, 60, 5]
    path = made(tmp_path, JAER + records2(*((dvs(i, 1, 1), t) for i, t in enumerate(times))))
    stream = open_events(path, AS_STORED, chunk_events=2)
    assert [t for chunk in stream for t in chunk["time"].tolist()] == times
    assert stream.counts["backward"] == 2
    for chunk in (1, 2, 5):
        with pytest.raises(FileFormatError, match="time 10 us after 50 us") as caught:
            list(open_events(path, AS_STORED, chunk, order="check"))
        assert f"at byte {len(JAER) + 8}:" in str(caught.value)
    found = read_events(path, AS_STORED, order="sort")
    assert rows(found) == [(4, 1, 1, 5), (1, 1, 1, 10), (2, 1, 1, 10), (0, 1, 1, 50), (3, 1, 1, 60)]
    with pytest.raises(DataError, match="it would have to hold all events"):
        open_events(path, AS_STORED, order="sort")


# --- 1.0 ---------------------------------------------------------------------------------------
def test_aedat1_has_six_bytes_and_needs_no_header(tmp_path):
    events = records1(
        (dvs(1, 2, 1), 3), (dvs(4, 5, 0, external=1), 6), (dvs(127, 127, 0), 2**31 + 5)
    )
    expected = [(1, 2, 1, 3), (127, 127, 0, 2**31 + 5)]
    for header in (b"", b"# a header without a version\r\n", b"#!AER-DAT1.0\r\n# x\r\n"):
        for name in ("a.aedat", "a.dat"):
            stream = open_events(made(tmp_path, header + events, name), AS_STORED)
            assert stream.format == "AEDAT 1.0"
            assert rows(read_all(stream)) == expected
            assert stream.counts["external"] == 1
    refused(made(tmp_path, events[:-1]), "at byte 12", "5 bytes of a record")
    with pytest.raises(DataError, match="AEDAT 1.0 of chip 'davis240': allowed is dvs128"):
        open_events(made(tmp_path, events), AS_STORED, chip="davis240")


# --- 3.x ---------------------------------------------------------------------------------------
HEAD31 = (
    b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n"
    b"#Start-Time: 2015-12-03 14:47:00 (TZ+0100)\r\n#!END-HEADER\r\n"
)


def test_aedat31_reads_polarity_packets_and_skips_and_counts_the_rest(tmp_path):
    body = (
        packet(0, bytes(16), 2)  # special events
        + packet(1, polarity((1, 2, 1, 3), (127, 127, 0, 4)), 2)
        + packet(2, bytes(36 + 128 * 128 * 2), 1)  # a frame
        + packet(1, polarity((9, 9, 1, 5)) + polarity((0, 0, 0, 6), valid=0), 2, valid=1)
        + packet(1, b"", 0, size=8)
        + packet(100, bytes(12), 3)
        + packet(1, polarity((5, 6, 0, 0)), 1, overflow=2)
    )
    expected = [(1, 2, 1, 3), (127, 127, 0, 4), (9, 9, 1, 5), (5, 6, 0, 2 * 2**31)]
    for chunk in (1, 2, 3, 1000):
        stream = open_events(made(tmp_path, HEAD31 + body), chunk_events=chunk)
        assert (stream.format, stream.sensor) == ("AEDAT 3.1", (128, 128))
        assert rows(read_all(stream)) == expected
        skipped = {"invalid": 1, "type 0": 2, "type 2": 1, "type 100": 3}
        counted = {"events": 4, "backward": 0, "wrapped": 2}
        assert stream.counts == skipped | counted


def test_the_origin_of_30_is_the_lower_left_and_of_31_the_upper_left(tmp_path):
    old = b"#!AER-DAT3.0\r\n#Format: RAW\r\n#Source 1: DVS128\r\n"
    body = packet(1, polarity((1, 2, 1, 3)), 1)
    assert rows(read_events(made(tmp_path, old + body))) == [(1, 125, 1, 3)]
    assert rows(read_events(made(tmp_path, HEAD31 + body))) == [(1, 2, 1, 3)]
    assert rows(read_events(made(tmp_path, HEAD31 + body), INIVATION)) == [(1, 125, 1, 3)]
    nameless = made(tmp_path, b"#!AER-DAT3.0\r\n#Format: RAW\r\n" + body)
    with pytest.raises(DataError, match="flipping needs the size of its sensor"):
        open_events(nameless)
    assert rows(read_events(nameless, sensor=(240, 180))) == [(1, 177, 1, 3)]


def test_damaged_packets_are_refused_with_their_byte(tmp_path):
    good = packet(1, polarity((1, 2, 1, 3)), 1)
    at = f"at byte {len(HEAD31) + len(good)}:"

    def bad(data, *parts):
        return refused(made(tmp_path, HEAD31 + good + data), at, *parts, orientation=None)

    bad(good[:27], "27 bytes of a packet's header", "28 bytes")
    assert "cut it to" in bad(good[:-1], "a packet of 1 events, 8 bytes, and 7 bytes left")
    huge = 2**31 - 1
    bad(packet(1, b"", 0, number=huge, capacity=huge, size=8), f"a packet of {huge} events")
    bad(packet(2, b"", 0, number=huge, capacity=huge, size=huge), "bytes left")
    bad(packet(2, b"", 0, size=0, number=huge, capacity=huge), "0 bytes per event")
    bad(packet(1, b"", 0, number=-1, capacity=-1, valid=-1), "a negative number")
    bad(packet(-(2**15) + 1, bytes(8), 1), "a compressed packet")
    bad(packet(1, bytes(8), 1, valid=2), "1 events, 2 of them valid")
    bad(packet(1, bytes(8), 1, capacity=2), "capacity 2, 1 events")
    bad(packet(1, bytes(16), 1), "polarity events of 16 bytes")
    bad(packet(1, bytes(8), 1, time_offset=0), "with the time at 0")
    bad(packet(1, bytes(8), 1, source=2), "of sources 1 and 2")
    bad(packet(1, bytes(8), 1, overflow=-1), "a negative number")
    event = f"at byte {len(HEAD31) + len(good) + 28 + 8}:"
    data = packet(1, polarity((1, 1, 1, 1), (1, 1, 1, -5)), 2)
    refused(made(tmp_path, HEAD31 + good + data), event, "time -5 us", orientation=None)
    data = packet(1, polarity((1, 1, 1, 1), (128, 1, 1, 5)), 2)
    refused(made(tmp_path, HEAD31 + good + data), event, "x 128, y 1", "128x128", orientation=None)


def test_what_stands_before_a_damage_comes_first(tmp_path):
    path = made(tmp_path, HEAD31 + packet(1, polarity((1, 2, 1, 3)), 1) + b"rest")
    stream = iter(open_events(path))
    assert rows(next(stream)) == [(1, 2, 1, 3)]
    with pytest.raises(FileFormatError, match="4 bytes of a packet's header"):
        next(stream)


def test_headers_of_31_end_with_their_last_line(tmp_path):
    body = packet(1, polarity((1, 2, 1, 3)), 1)
    refused(made(tmp_path, b"#!AER-DAT3.1\r\n#Format: RAW\r\n" + body), "header lines up to #!END")
    refused(made(tmp_path, b"#!AER-DAT3.1\r\n#Format: RAW\r\n"), "at byte 28", "header lines up to")
    other = HEAD31.replace(b"RAW", b"Compressed")
    refused(made(tmp_path, other + body), "format 'Compressed'", "format RAW")
    with pytest.raises(DataError, match="sensor .34, 34., but its header says .128, 128."):
        open_events(made(tmp_path, HEAD31 + body), sensor=(34, 34))
    with pytest.raises(DataError, match="chip 'dvs128' is of AEDAT 2.0"):
        open_events(made(tmp_path, HEAD31 + body), chip="dvs128")


# --- writers -----------------------------------------------------------------------------------
STEPS = st.one_of(st.integers(0, 2**31 - 1), st.integers(0, 50), st.just(2**31 - 1))


@st.composite
def events_of(draw, width, height, first=2**32 - 1, steps=STEPS, least=0):
    """Events in any order of x, y and p, times as extreme as steps and the first allow."""
    count = draw(st.integers(least, 60))
    column = hnp.arrays(np.uint16, count, elements=st.integers(0, width - 1))
    rows_of = hnp.arrays(np.uint16, count, elements=st.integers(0, height - 1))
    p = draw(hnp.arrays(np.uint8, count, elements=st.integers(0, 1)))
    rises = [draw(st.integers(0, first)), *draw(st.lists(steps, min_size=count, max_size=count))]
    return {"x": draw(column), "y": draw(rows_of), "p": p, "time": np.cumsum(rises)[:count]}


QUICK = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@QUICK
@given(
    events=events_of(128, 128), how=st.sampled_from(sorted(ORIENTATIONS)), chunk=st.integers(1, 9)
)
def test_what_is_written_as_10_and_20_is_read(tmp_path, events, how, chunk):
    path = tmp_path / "a.aedat"
    for write in (write_aedat1, write_aedat2):
        write(path, events, [" of a test", "# \t".strip()], orientation=ORIENTATIONS[how])
        stream = open_events(path, how, chunk)
        found = read_all(stream)
        assert rows(found) == rows({n: events[n].astype(t) for n, t in DTYPES.items()})
        assert stream.header[-2] == "#"


@QUICK
@given(chip=st.sampled_from(sorted(CHIPS)), data=st.data())
def test_what_is_written_of_any_chip_is_read(tmp_path, chip, data):
    events = data.draw(events_of(*CHIPS[chip].size, least=1))
    path = tmp_path / "a.aedat"
    write_aedat2(path, events, orientation=INIVATION, chip=chip)
    stream = open_events(path, INIVATION)
    assert stream.sensor == CHIPS[chip].size
    assert all(np.array_equal(value, events[name]) for name, value in read_all(stream).items())


@QUICK
@given(
    events=events_of(2**15, 2**15, first=2**61),
    packets=st.integers(1, 70),
    chunk=st.integers(1, 70),
)
def test_what_is_written_as_31_is_read(tmp_path, events, packets, chunk):
    path = tmp_path / "a.aedat"
    write_aedat31(path, events, camera="another", packet_events=packets)
    stream = open_events(path, chunk_events=chunk)
    assert stream.sensor is None
    assert all(np.array_equal(value, events[name]) for name, value in read_all(stream).items())


def test_a_file_is_written_in_chunks_as_in_one(tmp_path):
    events = random_events(np.random.default_rng(0), 1000, last=2**34)
    parts = [{n: v[a:b] for n, v in events.items()} for a, b in pairwise((0, 1, 400, 400, 1000))]
    for name, write in (
        ("1", lambda path, e: write_aedat1(path, e, orientation=INIVATION)),
        ("2", lambda path, e: write_aedat2(path, iter(e) if isinstance(e, list) else e,
                                           orientation=INIVATION)),
    ):  # fmt: skip
        write(tmp_path / f"{name}.whole", events)
        write(tmp_path / f"{name}.parts", parts)
        whole = (tmp_path / f"{name}.whole").read_bytes()
        assert whole == (tmp_path / f"{name}.parts").read_bytes()
        assert len(whole) > 6000
    write_aedat31(tmp_path / "c.aedat", parts)
    found = read_events(tmp_path / "c.aedat")
    assert all(np.array_equal(found[name], events[name]) for name in DTYPES)


def test_what_a_format_cannot_hold_is_refused_and_leaves_nothing(tmp_path):
    def events(**changed):
        one = {"x": [1], "y": [1], "p": [1], "time": [1]} | changed
        return {name: np.array(value) for name, value in one.items()}

    for bad, message in (
        (events(x=[128]), "column x is 128 to 128; allowed are 0 to 127"),
        (events(p=[2]), "column p is 2 to 2"),
        (events(time=[-1]), "column time is -1"),
        (events(time=[2**33]), "times that 32 bits cannot tell"),
        (events(time=[1.5]), "column time is float64"),
        (events(time=[1, 2]), "columns to be written have shapes"),
        ({"x": np.array([1])}, "lack the columns y, p, time"),
    ):
        with pytest.raises(DataError, match=message):
            write_aedat2(tmp_path / "a.aedat", bad, orientation=INIVATION)
    with pytest.raises(DataError, match="allowed is printable text"):
        write_aedat1(tmp_path / "a.aedat", events(), ["two\r\nlines"], orientation=INIVATION)
    with pytest.raises(DataError, match="column x is 128"):
        write_aedat31(tmp_path / "a.aedat", [events(), events(x=[128])])
    assert list(tmp_path.iterdir()) == []


# --- against tonic -----------------------------------------------------------------------------
def test_tonic_reads_the_same_addresses_and_times(tmp_path):
    io = pytest.importorskip("tonic.io")
    events = random_events(np.random.default_rng(0), 5000)
    compared = 0
    for name, write in (
        ("2", lambda path: write_aedat2(path, events, orientation=AS_STORED)),
        ("3", lambda path: write_aedat31(path, events, packet_events=128)),
    ):
        path = tmp_path / f"{name}.aedat"
        write(path)
        version, start, _ = io.read_aedat_header_from_file(str(path))
        theirs = io.get_aer_events_from_file(str(path), version, start)
        ours = read_events(path, AS_STORED)
        assert np.array_equal(theirs["timeStamp"], ours["time"])
        address = theirs["address"]
        bits = (address >> 1 & 127, address >> 8, address & 1)
        if name == "3":
            bits = (address >> 17, address >> 2 & 0x7FFF, address >> 1 & 1)
        for column, theirs_bits in zip("xyp", bits, strict=True):
            assert np.array_equal(theirs_bits, ours[column])
            compared += len(theirs_bits)
    assert compared == 30_000
