"""AEDAT 3.0 and 3.1: packets of events of one type, little-endian.

A packet is a header of 28 bytes and its events. The header: type and source of the events (16 bit
each), then 32 bit each: bytes per event, where in an event its time is, how often the time counter
ran over, capacity, number of events, how many of them are valid. All are signed and none is
negative. In a file capacity and number are equal.

Polarity events have type 1, 8 bytes: bit 0 valid, bit 1 polarity (1 = ON), bits 2-16 y, bits 17-31
x, then 31 bits of time in us; the time is ``overflow * 2**31 + time``. (0, 0) is the upper left in
3.1 and the lower left in 3.0. Events that are not valid, and packets of any other type, are
skipped and counted ('invalid', 'type N').

A packet's length is compared with the file's before anything of it is read; nothing larger than a
chunk is ever held.

Source: iniVation, "AEDAT 3.1" and "AEDAT 3.0" (docs.inivation.com, file-formats).
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from neuroav.data.formats.aedat_header import END_31, Header
from neuroav.data.formats.aedat_records import CHIPS, header_text
from neuroav.data.formats.events import Events, EventStream, Orientation, RawChunk, damaged
from neuroav.data.formats.events import opened_file as open_file
from neuroav.data.formats.records import as_chunks, checked, write
from neuroav.errors import DataError, FileFormatError

HEADER = struct.Struct("<hhiiiiii")
POLARITY, EVENT_BYTES, TIME_OFFSET = 1, 8, 4
PERIOD = 1 << 31
UPPER_LEFT = Orientation(on_is_one=True, flip_x=False, flip_y=False)
LOWER_LEFT = Orientation(on_is_one=True, flip_x=False, flip_y=True)
_AGAIN = "fetch the file again"
SENSORS = {name: chip.size for name, chip in CHIPS.items()}


class Packet(NamedTuple):
    """A packet's header, in the order of the file."""

    kind: int
    source: int
    size: int
    time_offset: int
    overflow: int
    capacity: int
    number: int
    valid: int


def opened(
    path: Path,
    header: Header,
    orientation: Orientation | None,
    chunk_events: int,
    sensor: tuple[int, int] | None,
    order: str,
) -> EventStream:
    """Return the stream of a file of version 3.0 or 3.1; see ``open_events``."""
    form = header.value("Format")
    if form not in (None, "RAW"):
        raise damaged(path, 0, f"AEDAT {header.version} of format {form!r}", "format RAW",
                      "store it as RAW with the software that wrote it")  # fmt: skip
    stated = _sensor(header)
    if None not in (sensor, stated) and sensor != stated:
        raise DataError(f"{path}: sensor {sensor}, but its header says {stated}; leave it out")
    if orientation is None:
        orientation = UPPER_LEFT if header.version == "3.1" else LOWER_LEFT
    raw = partial(_raw, path, header.start, chunk_events)
    name = f"AEDAT {header.version}"
    return EventStream(path, name, sensor or stated, header.lines, orientation, order, raw)


def _sensor(header: Header) -> tuple[int, int] | None:
    """Return the size of the one source of the file, None where it has several or is unknown."""
    sources = [line for line in header.lines if line.startswith("Source ")]
    if len(sources) != 1:
        return None
    camera = sources[0].partition(":")[2].strip().lower()
    return next((size for name, size in SENSORS.items() if camera.startswith(name)), None)


class _Gathered:
    """Pieces of packets that become one chunk."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.starts: list[int] = []  # number of each piece's first event
        self.offsets: list[int] = []  # byte of the file of each piece
        self.overflows: list[int] = []
        self.events = 0

    def add(self, piece: bytes, offset: int, overflow: int) -> None:
        self.pieces.append(piece)
        self.starts.append(self.events)
        self.offsets.append(offset)
        self.overflows.append(overflow)
        self.events += len(piece) // EVENT_BYTES

    def periods(self) -> np.ndarray:
        """Return what to add to each event's time, (events,) int64."""
        lengths = np.diff([*self.starts, self.events])
        return np.repeat(np.array(self.overflows, np.int64) * PERIOD, lengths)

    def offset(self, event: int) -> int:
        piece = bisect_right(self.starts, event) - 1
        return self.offsets[piece] + (event - self.starts[piece]) * EVENT_BYTES


def _raw(path: Path, start: int, chunk_events: int, counts: Counter[str]) -> Iterator[RawChunk]:
    gathered = _Gathered()
    try:
        for at, overflow, piece in _pieces(path, start, chunk_events, counts):
            gathered.add(piece, at, overflow)
            if gathered.events == chunk_events:
                full, gathered = gathered, _Gathered()
                yield _decoded(path, full, counts)
    except FileFormatError:
        if gathered.events:  # what stands before the damage comes first, damaged or not
            yield _decoded(path, gathered, counts)
        raise
    if gathered.events:
        yield _decoded(path, gathered, counts)


def _pieces(
    path: Path, start: int, chunk_events: int, counts: Counter[str]
) -> Iterator[tuple[int, int, bytes]]:
    """Yield (byte, overflow, polarity events) such that pieces make up whole chunks."""
    with open_file(path) as file:
        total = file.seek(0, 2)
        file.seek(start)
        source, last, room = None, 0, chunk_events
        for at, packet in _packets(file, path, start, total, counts):
            if source not in (None, packet.source):
                raise damaged(path, at, f"polarity events of sources {source} and {packet.source}",
                              "those of one camera", "split the file by its sources")  # fmt: skip
            source = packet.source
            counts["wrapped"] += max(0, packet.overflow - last)
            last, left, at = packet.overflow, packet.number, at + HEADER.size
            while left:
                take = min(left, room)
                piece = _read(file, path, at, take * EVENT_BYTES)
                yield at, packet.overflow, piece
                left, at, room = left - take, at + len(piece), room - take or chunk_events


def _packets(
    file: BinaryIO, path: Path, at: int, total: int, counts: Counter[str]
) -> Iterator[tuple[int, Packet]]:
    """Yield (byte, header) of every polarity packet, the file standing at its first event."""
    while at < total:
        if total - at < HEADER.size:
            raise _cut(path, at, f"{total - at} bytes of a packet's header",
                       f"{HEADER.size} bytes")  # fmt: skip
        packet = Packet(*HEADER.unpack(_read(file, path, at, HEADER.size)))
        _require_sound(path, at, packet)
        length = packet.size * packet.number
        end = at + HEADER.size + length
        if end > total:
            raise _cut(path, at, f"a packet of {packet.number} events, {length} bytes, "
                       f"and {total - at - HEADER.size} bytes left", "whole packets")  # fmt: skip
        if packet.kind == POLARITY:
            yield at, packet
        else:
            counts[f"type {packet.kind}"] += packet.number
            file.seek(end)
        at = end


def _cut(path: Path, at: int, found: str, allowed: str) -> Exception:
    remedy = f"{_AGAIN}, or cut it to {at} bytes to keep what is before"
    return damaged(path, at, found, allowed, remedy)


def _read(file: BinaryIO, path: Path, at: int, wanted: int) -> bytes:
    data = file.read(wanted)
    if len(data) < wanted:
        raise damaged(path, at, "the end of the file, which was longer when it was opened",
                      "a file that does not change while it is read",
                      "read it again once it is written")  # fmt: skip
    return data


def _require_sound(path: Path, at: int, packet: Packet) -> None:
    if min(packet) < 0:
        what = "a compressed packet" if packet.kind < 0 else "a negative number"
        raise damaged(path, at, f"{what} in a packet's header {tuple(packet)}",
                      "numbers of 0 and more", _AGAIN)  # fmt: skip
    if packet.valid > packet.number or packet.number != packet.capacity or not packet.size:
        raise damaged(
            path,
            at,
            f"a packet of {packet.size} bytes per event, capacity {packet.capacity}, "
            f"{packet.number} events, {packet.valid} of them valid",
            "1 byte or more, capacity = number of events >= valid ones",
            _AGAIN,
        )
    form = packet.size, packet.time_offset
    if packet.kind == POLARITY and form != (EVENT_BYTES, TIME_OFFSET):
        raise damaged(path, at, f"polarity events of {form[0]} bytes with the time at {form[1]}",
                      f"{EVENT_BYTES} bytes with the time at {TIME_OFFSET}", _AGAIN)  # fmt: skip


def _decoded(path: Path, gathered: _Gathered, counts: Counter[str]) -> RawChunk:
    words = np.frombuffer(b"".join(gathered.pieces), "<u4").reshape(-1, 2)
    data, low = words[:, 0], words[:, 1].astype(np.int64)
    events: Events = {
        "x": (data >> 17).astype(np.uint16),
        "y": (data >> 2 & 0x7FFF).astype(np.uint16),
        "p": (data >> 1 & 1).astype(np.uint8),
        "time": low + gathered.periods() if any(gathered.overflows) else low,
    }
    valid = (data & 1).astype(bool)
    if int(low.max()) >= PERIOD:
        first = int(np.argmax(low >= PERIOD))
        raise damaged(path, gathered.offset(first), f"time {low[first] - 2 * PERIOD} us",
                      "0 us and more", _AGAIN)  # fmt: skip
    if valid.all():
        return RawChunk(events, gathered.offset)
    places = np.flatnonzero(valid)
    counts["invalid"] += len(valid) - len(places)
    events = {name: column[places] for name, column in events.items()}
    return RawChunk(events, lambda i: gathered.offset(int(places[i])))


# --- writing -----------------------------------------------------------------------------------
def write_aedat31(
    path: str | Path,
    events: Events | Iterable[Events],
    header_lines: Iterable[str] = (),
    *,
    camera: str = "DVS128",
    packet_events: int = 4096,
) -> None:
    """Write events, a dict or chunks of them, as AEDAT 3.1 in packets of ``packet_events``.

    camera: its name in the header, which tells readers the size of its sensor. header_lines: more
    of them, text without '#' and line end. DataError for what the format cannot hold; nothing is
    left behind then.
    """
    if not 1 <= packet_events < 1 << 28:
        raise DataError(f"packet_events {packet_events}: allowed are 1 to {(1 << 28) - 1}")
    lines = ["!AER-DAT3.1", "Format: RAW", f"Source 1: {camera}"]
    lines += ["Start-Time: 1970-01-01 00:00:00 (TZ+0000)", *header_lines, END_31[1:].decode()]
    path = Path(path)
    parts = (part for c in as_chunks(events) for part in _encoded(path, c, camera, packet_events))
    write(path, header_text(lines), parts)


def _encoded(path: Path, events: Events, camera: str, packet_events: int) -> Iterator[bytes]:
    sizes = [size for name, size in SENSORS.items() if camera.lower().startswith(name)]
    width, height = sizes[0] if sizes else (1 << 15, 1 << 15)
    limits = {"x": width - 1, "y": height - 1, "p": 1, "time": (1 << 62) - 1}
    columns = checked(path, events, limits)
    words = np.empty((len(columns["time"]), 2), "<u4")
    words[:, 0] = columns["x"] << 17 | columns["y"] << 2 | columns["p"] << 1 | 1
    words[:, 1] = columns["time"] % PERIOD
    periods = columns["time"] // PERIOD
    edges = [0, *(np.flatnonzero(np.diff(periods)) + 1).tolist(), len(periods)]
    for low, high in pairwise(edges):
        for first in range(low, high, packet_events):
            last = min(high, first + packet_events)
            number, period = last - first, int(periods[first])
            form = (POLARITY, 1, EVENT_BYTES, TIME_OFFSET, period, number, number, number)
            yield HEADER.pack(*form) + words[first:last].tobytes()
