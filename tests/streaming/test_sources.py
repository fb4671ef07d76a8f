"""Files, pipes, sockets, a camera and a microphone as sources."""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import types

import numpy as np
import pytest
from streams import made_up_events, made_up_sound, write_wave

from neuroav.data.formats.aedat import write_aedat2
from neuroav.data.formats.events import INIVATION, MNIST_DVS, read_events
from neuroav.data.formats.nmnist import write_nmnist
from neuroav.errors import ConfigError, DataError, FileFormatError, MissingDependency
from neuroav.streaming.devices import EventCamera, Microphone
from neuroav.streaming.records import decoder
from neuroav.streaming.sources import (
    GRACE_US,
    EventFile,
    EventPipe,
    LiveClock,
    SoundFile,
    blocks_of,
    open_event_source,
    parse_sensor,
)


def joined(blocks):
    return {n: np.concatenate([b.events[n] for b in blocks]) for n in ("x", "y", "p", "time")}


def same(found, expected):
    assert len(expected["time"]) > 100
    for name in ("x", "y", "p", "time"):
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.fixture(params=["nmnist", "aedat"])
def stored(request, tmp_path):
    """(form, orientation, path, events as a file's reader gives them)."""
    events = made_up_events(9.5, 100)  # beyond what 23 bits of microseconds hold
    if request.param == "nmnist":
        write_nmnist(tmp_path / "a.bin", events)
        return "nmnist", None, tmp_path / "a.bin", read_events(tmp_path / "a.bin")
    events["time"] += (1 << 32) - 4_000_000  # the counter runs over on the way
    path = tmp_path / "a.aedat"
    write_aedat2(path, events, orientation=MNIST_DVS)
    return "aedat", MNIST_DVS, path, read_events(path, MNIST_DVS)


# --- records ------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_records_may_come_in_any_pieces(stored, size):
    form, orientation, path, expected = stored
    data, decoding = path.read_bytes(), decoder(form, orientation)
    parts = [decoding.feed(data[i : i + size]) for i in range(0, len(data), size)]
    decoding.finish()
    same({n: np.concatenate([p[n] for p in parts]) for n in expected}, expected)
    assert decoding.form in ("N-MNIST", "AEDAT 2.0")


def test_orientation_changes_what_bits_mean(tmp_path):
    path = tmp_path / "a.aedat"
    write_aedat2(path, made_up_events(1.0, 300), orientation=MNIST_DVS)
    found = decoder("aedat", INIVATION).feed(path.read_bytes())
    same(found, read_events(path, INIVATION))
    assert (found["p"] != read_events(path, MNIST_DVS)["p"]).all()


def test_the_first_bytes_say_aedat(stored):
    form, orientation, path, expected = stored
    data, sniffed = path.read_bytes(), decoder(None, orientation)
    if form == "nmnist":
        with pytest.raises(FileFormatError, match="at byte 0: .*--format nmnist or aedat"):
            sniffed.feed(data)
        return
    parts = [sniffed.feed(data[:4]), sniffed.feed(data[4:])]
    same({n: np.concatenate([p[n] for p in parts]) for n in expected}, expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"#!AER-DAT3.1\r\n", "allowed is #!AER-DAT2.0"),
        (b"\x00" * 16, "its version line"),
        (b"#!AER-DAT2.0\r\n# AEChip: Other\r\n", "camera is 'Other'; allowed are dvs128"),
        (b"#!AER-DAT2.0\r\n#End Of ASCII Header\r\n" + b"\xff" * 8, "address 0xffffffff"),
    ],
)
def test_streams_that_are_not_aedat_2(data, message):
    with pytest.raises(FileFormatError, match=message):
        decoder("aedat", MNIST_DVS).feed(data)


def test_a_first_record_may_begin_with_a_number_sign():
    head = b"#!AER-DAT2.0\r\n#End Of ASCII Header\r\n"
    decoding = decoder("aedat", MNIST_DVS)
    assert not len(decoding.feed(head)["time"])
    with pytest.raises(FileFormatError, match="address 0x23000000"):  # taken as data
        decoding.feed(b"#\x00\x00\x00\x00\x00\x00\x01")


def test_cut_records_unknown_forms_and_missing_orientations():
    decoding = decoder("nmnist")
    decoding.feed(b"1234567")
    with pytest.raises(FileFormatError, match="at byte 5: 2 bytes of a record"):
        decoding.finish()
    with pytest.raises(DataError, match="did you mean 'aedat'"):
        decoder("aedta")
    with pytest.raises(DataError, match="contradict each other.*--orientation"):
        decoder("aedat")


# --- files, pipes, sockets ----------------------------------------------------------------------
def test_a_file_begins_where_its_format_says(stored):
    form, orientation, path, expected = stored
    source = EventFile(path, **({"orientation": orientation} if orientation else {}))
    blocks = list(blocks_of(source))
    begin = 0 if form == "nmnist" else expected["time"][0]
    same(joined(blocks), {**expected, "time": expected["time"] - begin})
    assert blocks[-1].until_us == expected["time"][-1] - begin


def feed_pipe(path, number):
    def write():
        with os.fdopen(number, "wb") as out:
            out.write(path.read_bytes())

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def test_a_pipe_gives_what_the_file_does(stored):
    form, orientation, path, expected = stored
    reading, writing = os.pipe()
    thread = feed_pipe(path, writing)
    source = EventPipe(reading, decoder(form, orientation), False, lambda: os.close(reading), "x")
    blocks = list(blocks_of(source))
    thread.join()
    source.close()
    begin = 0 if form == "nmnist" else expected["time"][0]
    same(joined(blocks), {**expected, "time": expected["time"] - begin})


def test_a_named_pipe_and_a_socket(tmp_path):
    write_nmnist(tmp_path / "a.bin", made_up_events(1.0, 500))
    expected = read_events(tmp_path / "a.bin")
    os.mkfifo(tmp_path / "pipe")
    data = (tmp_path / "a.bin").read_bytes()
    thread = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    thread.start()
    source = open_event_source(str(tmp_path / "pipe"), form="nmnist")
    same(joined(list(blocks_of(source))), expected)
    thread.join()
    source.close()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            link, _ = server.accept()
            with link:
                link.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        source = open_event_source(f"tcp://127.0.0.1:{port}", form="nmnist")
        same(joined(list(blocks_of(source))), expected)
        thread.join()
        source.close()


@pytest.mark.parametrize("place", ["tcp://127.0.0.1:1", "tcp://nowhere", "tcp://a:b"])
def test_a_socket_that_is_not_there(place):
    with pytest.raises(DataError, match="cannot be reached.*tcp://HOST:PORT"):
        open_event_source(place, form="nmnist")


def test_a_live_clock_runs_while_nothing_happens():
    now = [100.0]
    clock = LiveClock(lambda: now[0])
    nothing = {"time": np.empty(0, np.int64)}
    assert clock.block(nothing).until_us == 0
    now[0] += 1.0
    first = clock.block({"time": np.array([5_000_000, 5_000_100])})
    assert first.events["time"].tolist() == [1_000_000, 1_000_100]
    assert first.until_us == 1_000_000 - GRACE_US
    assert clock.ahead_us == 100
    now[0] += 2.0
    assert clock.block(nothing).until_us == 3_000_000 - GRACE_US
    later = clock.block({"time": np.array([6_500_000])})
    assert later.events["time"].tolist() == [2_500_000]


def test_time_begins_when_all_is_ready(tmp_path):
    """Not when a pipe is opened: what else is opened takes its time."""
    reading, writing = os.pipe()
    source = EventPipe(reading, decoder("nmnist", None), True, lambda: os.close(reading), "x")
    source._clock = LiveClock(lambda: 0.0)
    assert source._clock.elapsed_us == 0
    os.write(writing, b"\1\2\x80\0\5")
    source.begin()
    assert source._clock._begun > 0
    block = source.read(1.0)
    assert block.events["x"].tolist() == [1]
    assert block.events["time"][0] <= source._clock.elapsed_us
    os.close(writing)
    assert source.read(1.0) is None
    source.close()


def test_a_connection_that_breaks_is_named():
    connected = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            link, _ = server.accept()
            connected.wait(30)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            link.close()

        thread = threading.Thread(target=serve)
        thread.start()
        place = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        source = open_event_source(place, form="nmnist")
        connected.set()
        thread.join()
        with pytest.raises(DataError, match=rf"{place}: broke off \(Connection reset"):
            list(blocks_of(source))
        source.close()


# --- sound --------------------------------------------------------------------------------------
def test_a_wav_file_in_blocks(tmp_path):
    sound = made_up_sound(1.01).astype(np.int16)
    source = SoundFile(write_wave(tmp_path / "a.wav", sound))
    parts = []
    while (part := source.read(0)) is not None:
        parts.append(part)
    source.close()
    assert len(parts) > 40
    np.testing.assert_array_equal(np.concatenate(parts), sound)


def read_all(source):
    while source.read(0) is not None:
        pass


def test_wav_files_that_cannot_be_used(tmp_path):
    path = write_wave(tmp_path / "b.wav", np.zeros(100), channels=2)
    with pytest.raises(DataError, match=r"b\.wav: 2 channels, 16 bit; allowed is 1 channel.*sox"):
        SoundFile(path)
    (tmp_path / "c.wav").write_bytes(b"RIFF")
    for name in ("c.wav", "missing.wav"):
        with pytest.raises(DataError, match="cannot be read as a WAV file"):
            SoundFile(tmp_path / name)
    path = write_wave(tmp_path / "d.wav", made_up_sound(1.0))
    path.write_bytes(path.read_bytes()[:5000])
    source = SoundFile(path)
    with pytest.raises(DataError, match=r"d\.wav: ends \d+ samples before"):
        read_all(source)
    source.close()


# --- devices ------------------------------------------------------------------------------------
def test_a_camera_needs_dv_processing(monkeypatch):
    monkeypatch.setitem(sys.modules, "dv_processing", None)
    with pytest.raises(MissingDependency, match="pip install dv-processing"):
        open_event_source("camera")


def test_batches_of_a_camera(monkeypatch):
    kind = [("timestamp", "<i8"), ("x", "<i2"), ("y", "<i2"), ("polarity", "?")]
    batch = np.array([(7_000_000, 3, 4, True), (7_000_050, 5, 6, False)], kind)

    class Store:
        def __len__(self):
            return len(batch)

        def numpy(self):
            return batch

    class Capture:
        def __init__(self):
            self.batches = [Store(), None]

        def getEventResolution(self):  # noqa: N802
            return (346, 260)

        def isRunning(self):  # noqa: N802
            return bool(self.batches)

        def getNextEventBatch(self):  # noqa: N802
            return self.batches.pop(0)

    fake = types.SimpleNamespace(io=types.SimpleNamespace(CameraCapture=Capture))
    monkeypatch.setitem(sys.modules, "dv_processing", fake)
    assert len(Capture().batches) == 2
    camera = EventCamera()
    camera.begin()  # what came before is forgotten
    assert not camera._camera.batches
    camera = EventCamera()
    assert (camera.live, camera.sensor) == (True, (346, 260))
    block = camera.read(0.0)
    assert [block.events[n].tolist() for n in ("x", "y", "p")] == [[3, 5], [4, 6], [1, 0]]
    assert np.diff(block.events["time"]).tolist() == [50]
    assert not len(camera.read(0.0).events["time"])
    assert camera.read(0.0) is None
    camera.close()


def test_a_microphone_needs_portaudio(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingDependency, match=r"neuroav\[stream\].*PortAudio, e\.g\."):
        Microphone(8000)


class FakeStream:
    def __init__(self, **options):
        self.options = options

    def start(self):
        pass

    stop = close = start


def test_sound_that_finds_no_room_becomes_silence_and_is_counted(monkeypatch):
    fake = types.SimpleNamespace(InputStream=FakeStream, PortAudioError=OSError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    microphone = Microphone(8000)
    options = microphone._stream.options
    assert (options["samplerate"], options["channels"], options["dtype"]) == (8000, 1, "int16")
    for value in range(510):
        options["callback"](np.full((160, 1), value, np.int16), 160, None, None)
    assert microphone.lost == 10 * 160
    blocks = [microphone.read(0.0) for _ in range(501)]
    assert [int(b[0]) for b in blocks] == [*range(500), 0]
    assert len(blocks[-1]) == 1600
    assert not len(microphone.read(0.0))
    options["callback"](np.full((160, 1), 7, np.int16), 160, None, None)
    microphone.begin()
    assert not len(microphone.read(0.0))
    assert microphone.lost == 0
    microphone.close()


@pytest.mark.parametrize("text", ["34", "34x", "0x34", "axb", "1x2x3"])
def test_sizes_of_a_sensor(text):
    assert parse_sensor("640X480") == (640, 480)
    with pytest.raises(ConfigError, match="allowed is WIDTHxHEIGHT"):
        parse_sensor(text)
