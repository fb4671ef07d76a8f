"""Events of N-MNIST and N-Caltech101 (``.bin``), which SLAYER calls ``.bs2``.

5 bytes per event: x, y, then polarity (1 = ON) and 23 bits of time in microseconds, the highest
first. A record with y = 240 is no event: all later times are 2**13 us later, as in the reference
reader of Orchard et al. 2015, so a sensor has at most 240 rows. (0, 0) is the upper left. The file
does not say how large the sensor is: N-MNIST has 34x34 pixels, N-Caltech101 at most 240x180.
There is no magic number. Layout of the data sets: ``Train|Test/<digit>/<00001>.bin``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np

from neuroav.data.formats.events import (
    AS_STORED,
    Events,
    EventStream,
    Orientation,
    RawChunk,
    opened_file,
)
from neuroav.data.formats.records import Layout, as_chunks, blocks, checked, chosen, write
from neuroav.data.formats.records import require_whole as _whole
from neuroav.errors import DataError

RECORD = 5
OVERFLOW_Y, OVERFLOW_US = 240, 1 << 13
TIME_BITS = 23
MAX_TIME = (1 << 31) - 1  # what the writer takes: beyond 2**23 us, a record per 8 ms


def opened(
    path: Path,
    orientation: Orientation | None,
    chunk_events: int,
    sensor: tuple[int, int] | None,
    order: str,
) -> EventStream:
    """Return the stream of a .bin file; see ``neuroav.data.formats.events.open_events``."""
    layout = Layout(path, 0, RECORD)
    with opened_file(path) as file:
        _whole(layout, file.seek(0, 2))
    raw = partial(_raw, layout, chunk_events)
    return EventStream(path, "N-MNIST", sensor, (), orientation or AS_STORED, order, raw)


def _raw(layout: Layout, records: int, counts: Counter[str]) -> Iterator[RawChunk]:
    carried = 0
    for first, block in blocks(layout, records):
        found = np.frombuffer(block, np.uint8).reshape(-1, RECORD)
        polarity, time = polarity_and_time(found[:, 2:])
        marks = found[:, 1] == OVERFLOW_Y
        if marks.any():
            steps = np.cumsum(marks, dtype=np.int64)
            time += (carried + steps) * OVERFLOW_US
            carried += int(steps[-1])
            counts["wrapped"] += int(steps[-1])
        else:
            time += carried * OVERFLOW_US
        events = {
            "x": found[:, 0].astype(np.uint16),
            "y": found[:, 1].astype(np.uint16),
            "p": polarity,
            "time": time,
        }
        yield RawChunk(*chosen(layout, first, events, ~marks))


def polarity_and_time(three: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return polarity (n,) uint8 and time (n,) int64 of the three bytes (n, 3) that hold both."""
    high = three[:, 0]
    time = (high & 0x7F).astype(np.int64) << 16
    time |= three[:, 1].astype(np.int64) << 8
    time |= three[:, 2]
    return high >> 7, time


def three_bytes(polarity: np.ndarray, time: np.ndarray) -> list[np.ndarray]:
    """Return the three bytes, each (n,), of polarity and time below 2**23 us."""
    return [polarity << 7 | time >> 16, time >> 8 & 255, time & 255]


def write_nmnist(path: str | Path, events: Events | Iterable[Events]) -> None:
    """Write events, a dict or chunks of them, as N-MNIST does.

    Times of 2**23 us and more are written with overflow records, one per 8192 us. DataError for
    what the format cannot hold, also for no events at all: such a file would be empty.
    """
    write(path, b"", _encoded(Path(path), some(Path(path), as_chunks(events))))


def some(path: Path, chunks: Iterable[Events]) -> Iterator[Events]:
    """Yield the chunks; DataError at their end where they held no event."""
    seen = 0
    for chunk in chunks:
        seen += len(chunk.get("time", ()))
        yield chunk
    if not seen:
        raise DataError(f"{path}: no events to be written; this format has no header, so the file "
                        "would be empty; allowed are 1 event and more")  # fmt: skip


def _encoded(path: Path, chunks: Iterable[Events]) -> Iterator[bytes]:
    marks = 0
    for chunk in chunks:
        records, marks = _records(path, chunk, marks)
        yield records


def _records(path: Path, events: Events, before: int) -> tuple[bytes, int]:
    """Return the bytes of a chunk, and how many overflows there are up to its end."""
    columns = checked(path, events, {"x": 255, "y": 255, "p": 1, "time": MAX_TIME})
    if not len(columns["time"]):
        return b"", before
    if (columns["y"] == OVERFLOW_Y).any():
        raise DataError(f"{path}: an event in row {OVERFLOW_Y}, which marks an overflow here")
    limit = (1 << TIME_BITS) - 1
    needed = -(-(columns["time"] - limit) // OVERFLOW_US)
    marks = np.maximum.accumulate(np.maximum(needed, before))
    time = columns["time"] - marks * OVERFLOW_US
    if (time < 0).any():
        raise DataError(f"{path}: times that go back by more than {1 << TIME_BITS} us")
    bytes_of = [columns["x"], columns["y"], *three_bytes(columns["p"], time)]
    records = np.stack(bytes_of, axis=1).astype(np.uint8)
    new = np.diff(marks, prepend=before)
    mark = np.array([0, OVERFLOW_Y, 0, 0, 0], np.uint8)
    places = np.repeat(np.arange(len(new)), new)
    return np.insert(records, places, mark, axis=0).tobytes(), int(marks[-1])
