"""Where live input comes from: files, pipes, sockets, an event camera, a microphone.

A source of events gives ``EventBlock``: columns x, y, p, time and ``until_us``, up to where nothing
more will come. A source of sound gives blocks of int16 samples, one after the other. Times are
microseconds since the source began. Both keep one block at most.

A source is ``live`` where the world sets its pace. Its time begins with ``begin``, which is called
for all sources one after the other when everything else is ready. Its clock runs on while nothing
happens: ``until_us`` is then the time since, less ``GRACE_US`` for the way of an event here.

Files and pipes of AEDAT begin with their first event, N-MNIST and SLAYER at their time 0, as the
data sets read them.
"""

from __future__ import annotations

import os
import select
import stat
import time
import wave
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

import numpy as np

from neuroav.errors import ConfigError, DataError
from neuroav.streaming.records import Decoder, decoder

GRACE_US = 20_000  # assumed: from an event to this process
BLOCK_S = 0.02  # of sound
_PIPE_BYTES = 1 << 16
_COLUMNS = ("x", "y", "p", "time")
Events = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class EventBlock:
    """events: columns x, y, p (1 = brighter), time (int64, us); nothing before until_us is missing
    but what comes late."""

    events: Events
    until_us: int


class EventSource(Protocol):
    """Events one block after the other."""

    live: bool
    sensor: tuple[int, int] | None

    def begin(self) -> None:
        """Time begins now."""

    def read(self, wait_s: float) -> EventBlock | None:
        """Return what has come, an empty block where nothing did within ``wait_s``, None at the
        end."""

    def close(self) -> None: ...


class SoundSource(Protocol):
    """Sound one block after the other. rate: Hz. lost: samples that could not be taken in time."""

    live: bool
    rate: int
    lost: int

    def begin(self) -> None:
        """Time begins now; what came before is forgotten."""

    def read(self, wait_s: float) -> np.ndarray | None:
        """Return int16 samples, none where nothing came within ``wait_s``, None at the end."""

    def close(self) -> None: ...


def no_events() -> dict[str, np.ndarray]:
    """Return the columns without an event."""
    return {name: np.empty(0, np.int64) for name in _COLUMNS}


# --- events ------------------------------------------------------------------------------------
class EventFile:
    """A file of events, chunk by chunk (``neuroav.data.formats.events``).

    options: of ``open_events``: format, orientation, sensor, chip, columns.
    """

    live = False

    def __init__(self, path: Path, **options: Any) -> None:
        from neuroav.data.formats.events import open_events

        stream = open_events(path, **options)
        self.sensor = stream.sensor
        self._path, self._chunks = path, iter(stream)
        self._first: int | None = _origin(stream.format)
        self._until = 0

    def begin(self) -> None:
        """A file waits."""

    def read(self, wait_s: float) -> EventBlock | None:
        chunk = next(self._chunks, None)
        if chunk is None:
            return None
        events = {name: np.asarray(chunk[name], np.int64) for name in _COLUMNS}
        if self._first is None:
            self._first = int(events["time"].min())
        events["time"] = events["time"] - self._first
        self._until = max(self._until, int(events["time"].max()))
        return EventBlock(events, self._until)

    def close(self) -> None:
        close = getattr(self._chunks, "close", None)
        if close:
            close()


def _origin(form: str) -> int | None:
    """Return the time a format begins at, None for that of the first event."""
    return None if form.upper().startswith("AEDAT") else 0


class LiveClock:
    """Times of a device turned into microseconds since this clock was made."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now, self._begun = now, now()
        self._shift: int | None = None
        self._until = self._latest = 0

    @property
    def ahead_us(self) -> int:
        """How far the latest event lies in the future: a sender may be faster than its times."""
        return self._latest - self.elapsed_us

    @property
    def elapsed_us(self) -> int:
        return round((self._now() - self._begun) * 1e6)

    def block(self, events: Events) -> EventBlock:
        """Return events with their times on this clock: the first one has just arrived."""
        times = events["time"]
        if len(times):
            if self._shift is None:
                self._shift = self.elapsed_us - int(times.min())
            times = times + self._shift
            self._latest = max(self._latest, int(times.max()))
        self._until = max(self._until, self.elapsed_us - GRACE_US, 0)
        return EventBlock({**events, "time": times}, self._until)


class EventPipe:
    """Records that come through a file descriptor: standard input, a named pipe or a socket.

    live: the sender keeps real time; else its end is waited for, as of a file. place: for errors.
    """

    def __init__(
        self, number: int, records: Decoder, live: bool, close: Callable[[], None], place: str
    ) -> None:
        self.live = live
        self.sensor: tuple[int, int] | None = None
        self._number, self._decoder, self._place = number, records, place
        self._let_go: Callable[[], None] | None = close
        self._clock = LiveClock() if live else None
        self._first: int | None = None
        self._until = 0

    def begin(self) -> None:
        if self.live:
            self._clock = LiveClock()

    def read(self, wait_s: float) -> EventBlock | None:
        if self._clock and self._clock.ahead_us > 0:  # let the sender wait, keep nothing of it
            time.sleep(min(wait_s, self._clock.ahead_us / 1e6))
            return self._block(no_events())
        ready, _, _ = select.select([self._number], [], [], wait_s)
        if not ready:
            return self._block(no_events())
        try:
            data = os.read(self._number, _PIPE_BYTES)
        except OSError as error:
            raise DataError(
                f"{self._place}: broke off ({error.strerror}); see why its sender ended, then "
                "start again"
            ) from None
        if not data:
            self._decoder.finish()
            return None
        return self._block(self._decoder.feed(data))

    def close(self) -> None:
        """Let go of the descriptor, once: its number may be another's by the next time."""
        let_go, self._let_go = self._let_go, None
        if let_go:
            let_go()

    def _block(self, events: Events) -> EventBlock:
        if self._clock:
            return self._clock.block(events)
        times = events["time"]
        if len(times):
            if self._first is None:
                origin = _origin(self._decoder.form)
                self._first = int(times.min()) if origin is None else origin
            times = times - self._first
            self._until = max(self._until, int(times.max()))
        return EventBlock({**events, "time": times}, self._until)


def open_event_source(
    place: str, *, live: bool = False, form: str | None = None, **options: Any
) -> EventSource:
    """Return a source of events: '-', 'camera', 'tcp://HOST:PORT', a named pipe, or a file.

    live: whether a pipe keeps real time. form: of the records. options: of ``open_events``, for
    files; orientation also for pipes. Raises DataError, FileFormatError, MissingDependency.
    """
    if place == "camera":
        from neuroav.streaming.devices import EventCamera

        return EventCamera()
    orientation = options.get("orientation")
    if place == "-":
        return EventPipe(0, decoder(form, orientation), live, lambda: None, "standard input")
    if place.startswith("tcp://"):
        return _socket(place, decoder(form, orientation), live)
    path = Path(place)
    if path.exists() and stat.S_ISFIFO(path.stat().st_mode):
        number = os.open(path, os.O_RDONLY)
        return EventPipe(number, decoder(form, orientation), live, lambda: os.close(number), place)
    return EventFile(path, format=form, **options)


def _socket(place: str, records: Decoder, live: bool) -> EventPipe:
    import socket

    url = urlparse(place)
    try:
        if url.hostname is None or url.port is None:
            raise ValueError("no host and port")
        link = socket.create_connection((url.hostname, url.port), timeout=10)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{place}: cannot be reached ({error}); allowed is tcp://HOST:PORT of a program that "
            "sends records of events"
        ) from None
    link.settimeout(None)
    return EventPipe(link.fileno(), records, live, link.close, place)


# --- sound -------------------------------------------------------------------------------------
class SoundFile:
    """A WAV file of one channel and 16 bit, block by block."""

    live = False
    lost = 0

    def __init__(self, path: Path) -> None:
        try:
            self._file = wave.open(str(path), "rb")  # noqa: SIM115
        except (OSError, EOFError, wave.Error) as error:
            raise DataError(
                f"{path}: cannot be read as a WAV file ({error}); allowed is PCM, 16 bit, 1 channel"
            ) from None
        form = self._file.getnchannels(), self._file.getsampwidth()
        if form != (1, 2):
            self._file.close()
            raise DataError(
                f"{path}: {form[0]} channels, {8 * form[1]} bit; allowed is 1 channel, 16 bit; "
                f"convert it, e.g. by: sox {path.name} -c 1 -b 16 mono.wav"
            )
        self.rate = self._file.getframerate()
        self._path, self._left = path, self._file.getnframes()

    def begin(self) -> None:
        """A file waits."""

    def read(self, wait_s: float) -> np.ndarray | None:
        if not self._left:
            return None
        data = self._file.readframes(min(max(1, round(self.rate * BLOCK_S)), self._left))
        samples = np.frombuffer(data[: len(data) // 2 * 2], "<i2")
        if not len(samples):
            raise DataError(
                f"{self._path}: ends {self._left} samples before the length that it states; "
                "fetch or record it again"
            )
        self._left -= len(samples)
        return samples

    def close(self) -> None:
        self._file.close()


def open_sound_source(place: str, rate: int) -> SoundSource:
    """Return a source of sound: 'microphone' at ``rate`` Hz, or a WAV file."""
    if place == "microphone":
        from neuroav.streaming.devices import Microphone

        return Microphone(rate)
    return SoundFile(Path(place))


def blocks_of(source: EventSource) -> Iterator[EventBlock]:
    """Yield all blocks of a source that has an end (for tests and measurements)."""
    while (block := source.read(1.0)) is not None:
        yield block


def parse_sensor(text: str) -> tuple[int, int]:
    """Return (width, height) of e.g. '128x128'; ConfigError for anything else."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(p.isdigit() and 1 <= int(p) <= 65536 for p in parts):
        raise ConfigError(f"sensor is {text!r}; allowed is WIDTHxHEIGHT in pixels, e.g. 128x128")
    return int(parts[0]), int(parts[1])
