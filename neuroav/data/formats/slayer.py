"""Spikes as SLAYER stores them: ``.bs1``, one-dimensional; ``.bs2`` is the format of N-MNIST.

5 bytes per spike: a 16 bit number of the neuron or channel, the highest byte first, then polarity
and 23 bits of time in microseconds as in N-MNIST. There is no magic number and no way to say that
the counter ran over: a recording is at most 8.4 s long. The number is x; y is 0.

Source: the description in SLAYER's reader of ``.bs1`` (Shrestha and Orchard 2018).
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
from neuroav.data.formats.nmnist import polarity_and_time, some, three_bytes
from neuroav.data.formats.nmnist import write_nmnist as write_bs2
from neuroav.data.formats.records import (
    Layout,
    as_chunks,
    blocks,
    checked,
    chosen,
    require_whole,
    write,
)

__all__ = ["opened", "write_bs1", "write_bs2"]
RECORD = 5
MAX_TIME = (1 << 23) - 1


def opened(
    path: Path,
    orientation: Orientation | None,
    chunk_events: int,
    sensor: tuple[int, int] | None,
    order: str,
) -> EventStream:
    """Return the stream of a .bs1 file; see ``neuroav.data.formats.events.open_events``.

    sensor: (channels, 1), where it is given.
    """
    layout = Layout(path, 0, RECORD)
    with opened_file(path) as file:
        require_whole(layout, file.seek(0, 2))
    raw = partial(_raw, layout, chunk_events)
    return EventStream(path, "SLAYER bs1", sensor, (), orientation or AS_STORED, order, raw)


def _raw(layout: Layout, records: int, counts: Counter[str]) -> Iterator[RawChunk]:
    for first, block in blocks(layout, records):
        found = np.frombuffer(block, np.uint8).reshape(-1, RECORD)
        polarity, time = polarity_and_time(found[:, 2:])
        events = {
            "x": found[:, 0].astype(np.uint16) << 8 | found[:, 1],
            "y": np.zeros(len(found), np.uint16),
            "p": polarity,
            "time": time,
        }
        yield RawChunk(*chosen(layout, first, events, None))


def write_bs1(path: str | Path, events: Events | Iterable[Events]) -> None:
    """Write spikes, a dict or chunks of them, y being 0; DataError for what does not fit."""
    path = Path(path)
    write(path, b"", (_encoded(path, chunk) for chunk in some(path, as_chunks(events))))


def _encoded(path: Path, events: Events) -> bytes:
    columns = checked(path, events, {"x": 65535, "y": 0, "p": 1, "time": MAX_TIME})
    x = columns["x"]
    bytes_of = [x >> 8, x & 255, *three_bytes(columns["p"], columns["time"])]
    return np.stack(bytes_of, axis=1).astype(np.uint8).tobytes()
