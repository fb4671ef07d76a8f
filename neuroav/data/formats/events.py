"""Events of event cameras, and the one way to open a file of them.

Events are a plain dict of columns of equal length, in the order of the file:

- ``x``, ``y``: uint16, pixels; for a one-dimensional format x is the channel and y is 0;
- ``p``: uint8, 1 = ON = brighter, 0 = OFF = darker;
- ``time``: int64, microseconds as stored, a counter that ran over carried on.

``open_events`` returns an ``EventStream``: iterating yields chunks of at most ``chunk_events``
events, so a file of any length is read in constant memory. ``read_events`` reads a whole file.

What a polarity bit means and where (0, 0) lies is stated, never guessed (``Orientation``). AEDAT
3.x, N-MNIST and SLAYER define both. Of AEDAT 1.0 and 2.0 there are contradictory readings in use,
so there the caller has to choose. A wrong choice does not show in an accuracy.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path

import numpy as np

from neuroav.errors import DataError, FileFormatError, unknown_name

Events = dict[str, np.ndarray]
DTYPES: Mapping[str, type[np.generic]] = {
    "x": np.uint16,
    "y": np.uint16,
    "p": np.uint8,
    "time": np.int64,
}
CHUNK_EVENTS = 1 << 15  # a chunk stays in the processor's cache
MAX_CHUNK_EVENTS = 1 << 24
ORDERS = ("keep", "check", "sort")


@dataclass(frozen=True)
class Orientation:
    """How stored bits become events whose p 1 is brighter and whose (0, 0) is the upper left.

    on_is_one: a set polarity bit means ON. flip_x, flip_y: the stored coordinate counts from the
    other edge, so it becomes ``width - 1 - x`` or ``height - 1 - y``; needs the sensor's size.
    """

    on_is_one: bool
    flip_x: bool
    flip_y: bool


AS_STORED = Orientation(on_is_one=True, flip_x=False, flip_y=False)
# iniVation's description of AEDAT 1.0 and 2.0: 1 is ON, (0, 0) is the lower left.
INIVATION = Orientation(on_is_one=True, flip_x=False, flip_y=True)
# Public readers of MNIST-DVS: x = 127 - bits, ON where bit 0 is clear, y as stored.
MNIST_DVS = Orientation(on_is_one=False, flip_x=True, flip_y=False)
ORIENTATIONS: Mapping[str, Orientation] = {
    "as-stored": AS_STORED,
    "inivation": INIVATION,
    "mnist-dvs": MNIST_DVS,
}


def named_orientation(name: str) -> Orientation:
    """Return an orientation of ``ORIENTATIONS``; DataError for a name that is not there."""
    if name not in ORIENTATIONS:
        raise unknown_name("orientation of events", name, ORIENTATIONS, DataError)
    return ORIENTATIONS[name]


@dataclass(frozen=True, eq=False)
class RawChunk:
    """Events as a format stores them, before orientation; p holds the stored bit.

    offset: the byte of the file at which event i of the chunk begins.
    """

    events: Events
    offset: Callable[[int], int]


RawChunks = Callable[[Counter[str]], Iterator[RawChunk]]


@dataclass(frozen=True, eq=False)
class EventStream:
    """A file of events, read as it is iterated; may be iterated more than once.

    format: as people call it, 'AEDAT 2.0'. sensor: (width, height) where the file or the caller
    says, else None. header: lines of its text header without '#' and line end. counts: of the last
    iteration: 'events', 'backward' (events earlier than the one before), 'wrapped' (times that the
    counter ran over), and what was skipped, by reason ('external', 'invalid', ...).
    """

    path: Path
    format: str
    sensor: tuple[int, int] | None
    header: tuple[str, ...]
    orientation: Orientation
    order: str
    raw: RawChunks
    counts: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Events]:
        """Yield chunks in file order, none empty; FileFormatError where the file is damaged, after
        the chunks before that place."""
        self.counts.clear()
        self.counts.update(events=0, backward=0, wrapped=0)
        before: int | None = None
        for chunk in self.raw(self.counts):
            events = chunk.events
            count = len(events["time"])
            if not count:
                continue
            self._require_inside(chunk)
            self._require_order(chunk, before)
            before = int(events["time"][-1])
            self.counts["events"] += count
            yield _oriented(events, self.orientation, self.sensor)

    def _require_inside(self, chunk: RawChunk) -> None:
        if self.sensor is None:
            return
        width, height = self.sensor
        x, y = chunk.events["x"], chunk.events["y"]
        if int(x.max()) < width and int(y.max()) < height:
            return
        first = int(np.argmax((x >= width) | (y >= height)))
        raise damaged(
            self.path,
            chunk.offset(first),
            f"an event at x {x[first]}, y {y[first]}",
            f"{width}x{height} pixels, the size of its sensor",
            "say which camera it is (sensor=, chip=), or fetch the file again if it is damaged",
        )

    def _require_order(self, chunk: RawChunk, before: int | None) -> None:
        time = chunk.events["time"]
        back = time[1:] < time[:-1]
        first_back = before is not None and int(time[0]) < before
        self.counts["backward"] += int(np.count_nonzero(back)) + first_back
        if self.order != "check" or not (first_back or back.any()):
            return
        first = 0 if first_back else int(np.argmax(back)) + 1
        raise damaged(
            self.path,
            chunk.offset(first),
            f"time {time[first]} us after {time[first - 1] if first else before} us",
            "times that never go back (order 'check')",
            "read it with order 'keep', or whole with order 'sort'",
        )


def _oriented(events: Events, how: Orientation, sensor: tuple[int, int] | None) -> Events:
    x, y, p = events["x"], events["y"], events["p"]
    if sensor is not None:  # open_events refuses a flip without a size
        x = np.uint16(sensor[0] - 1) - x if how.flip_x else x
        y = np.uint16(sensor[1] - 1) - y if how.flip_y else y
    return {"x": x, "y": y, "p": p if how.on_is_one else p ^ 1, "time": events["time"]}


def damaged(path: Path, offset: int, found: str, allowed: str, remedy: str) -> FileFormatError:
    """Return the error of a file that is not what its format allows at byte ``offset``."""
    return FileFormatError(f"{path}: at byte {offset}: {found}; allowed is {allowed}; {remedy}")


def no_events() -> Events:
    """Return the columns without an event."""
    return {name: np.empty(0, dtype) for name, dtype in DTYPES.items()}


def read_all(stream: EventStream) -> Events:
    """Return all events of a stream; memory grows with the file."""
    chunks = list(stream)
    if not chunks:
        return no_events()
    found = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in DTYPES}
    if stream.order == "sort" and stream.counts["backward"]:
        order = np.argsort(found["time"], kind="stable")
        found = {name: column[order] for name, column in found.items()}
    return found


def read_events(
    path: str | Path,
    orientation: Orientation | str | None = None,
    *,
    sensor: tuple[int, int] | None = None,
    order: str = "keep",
    format: str | None = None,
    chip: str | None = None,
    columns: Sequence[str] | None = None,
) -> Events:
    """Return all events of a file: x, y (uint16), p (uint8, 1 = ON), time (int64, us).

    order: 'keep' as in the file, 'check' refuses times that go back, 'sort' puts events in order of
    time, those of one time as in the file. The others as ``open_events``.
    """
    return read_all(
        _open(path, orientation, CHUNK_EVENTS, sensor, order, format, chip, columns),
    )


def open_events(
    path: str | Path,
    orientation: Orientation | str | None = None,
    chunk_events: int = CHUNK_EVENTS,
    *,
    sensor: tuple[int, int] | None = None,
    order: str = "keep",
    format: str | None = None,
    chip: str | None = None,
    columns: Sequence[str] | None = None,
) -> EventStream:
    """Open a file of events by what it holds: AEDAT 1.0, 2.0, 3.0, 3.1, N-MNIST, SLAYER, .npy.

    orientation: one, or a name of ``ORIENTATIONS``; None takes what the format defines. AEDAT 1.0,
    2.0 and arrays define nothing, so there it has to be given. chunk_events: most events of a
    chunk. sensor: (width, height) for a file that does not say; events outside are refused. order:
    'keep', or 'check', which refuses times that go back ('sort' needs all of them:
    ``read_events``). format: one of ``FORMATS``, for a file without a magic number whose name does
    not tell. chip: of AEDAT 2.0, one of ``aedat.CHIPS``; None takes what the header says, else
    dvs128. columns: of an array (E, n) in a .npy file what each column is, of 'x', 'y', 'p', 'time'
    and '' (ignored).

    Raises FileFormatError for a file that is not, or not wholly, of a known format, and DataError
    for a missing one or an argument that is not allowed.
    """
    if order == "sort":
        raise DataError("order 'sort' of a stream: it would have to hold all events; "
                        "use read_events, or order 'keep' or 'check'")  # fmt: skip
    return _open(path, orientation, chunk_events, sensor, order, format, chip, columns)


FORMATS = ("aedat", "nmnist", "bs1", "npy")
_SUFFIXES = {
    ".aedat": "aedat",
    ".dat": "aedat",  # jAER's name for AEDAT 1.0
    ".bin": "nmnist",
    ".bs2": "nmnist",
    ".bs1": "bs1",
    ".npy": "npy",
}
_FOREIGN = (
    (b"\x89HDF", "an HDF5 file", "read it with the data set it belongs to"),
    (b"PK\x03\x04", "a ZIP archive", "unpack it"),
    (b"\x1f\x8b\x08", "a gzip archive", "unpack it"),
    (b"#!/", "a script", "give a file of events"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    (b"<!DOCTYPE", "a web page", "fetch the file again"),
    (b"<html", "a web page", "fetch the file again"),
)  # fmt: skip


_TEXT = re.compile(rb"[ -~\t\r\n]{12}")


def _open(
    path: str | Path,
    orientation: Orientation | str | None,
    chunk_events: int,
    sensor: tuple[int, int] | None,
    order: str,
    format: str | None,
    chip: str | None,
    columns: Sequence[str] | None,
) -> EventStream:
    from neuroav.data.formats import aedat, arrays, nmnist, slayer

    path = Path(path)
    _require_arguments(chunk_events, sensor, order)
    if isinstance(orientation, str):
        orientation = named_orientation(orientation)
    kind = format or _kind(path)
    if kind not in FORMATS:
        raise unknown_name("format of event files", kind, FORMATS, DataError)
    if chip is not None and kind != "aedat":
        raise DataError(f"{path}: chip {chip!r} is of AEDAT 2.0; this file is read as {kind}")
    if columns is not None and kind != "npy":
        raise DataError(f"{path}: columns are of arrays (.npy); this file is read as {kind}")
    if kind == "aedat":
        stream = aedat.opened(path, orientation, chunk_events, sensor, order, chip)
    elif kind == "npy":
        stream = arrays.opened(path, orientation, chunk_events, sensor, order, columns)
    else:
        module = nmnist if kind == "nmnist" else slayer
        stream = module.opened(path, orientation, chunk_events, sensor, order)
    how = stream.orientation
    if stream.sensor is None and (how.flip_x or how.flip_y):
        raise DataError(f"{path}: flipping needs the size of its sensor, which the file does not "
                        "say; give sensor=(width, height)")  # fmt: skip
    return stream


def _require_arguments(chunk_events: int, sensor: tuple[int, int] | None, order: str) -> None:
    if order not in ORDERS:
        raise unknown_name("order of events", order, ORDERS, DataError)
    if not (isinstance(chunk_events, int) and 1 <= chunk_events <= MAX_CHUNK_EVENTS):
        raise DataError(f"chunk_events {chunk_events}: allowed are 1 to {MAX_CHUNK_EVENTS}")
    if sensor is not None and not (len(sensor) == 2 and all(map(_is_size, sensor))):
        raise DataError(f"sensor {sensor}: allowed are (width, height) of 1 to 65536 each")


def _is_size(n: object) -> bool:
    return isinstance(n, int) and 1 <= n <= 65536


def opened_file(path: Path) -> BufferedReader:
    """Open a file for reading; DataError where it is missing or cannot be read."""
    try:
        if not path.is_file():
            what = "a folder, not a file" if path.is_dir() else "no such file"
            raise DataError(f"{path}: {what}; give the path of a file of events")
        return open(path, "rb")
    except OSError as err:
        raise DataError(f"{path}: cannot be read: {err}") from None


def _kind(path: Path) -> str:
    """Return the format by the first bytes, by the name only where these do not tell."""
    with opened_file(path) as file:
        head = file.read(64)
    if not head:
        raise damaged(path, 0, "the end of the file", "at least one event", "fetch it again")
    if head.startswith(b"#!AER-DAT"):
        return "aedat"
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    named = _SUFFIXES.get(path.suffix.lower())
    for magic, what, remedy in _FOREIGN:
        # Formats without a magic number may begin with any bytes; a long magic is no accident.
        if head.startswith(magic) and (named is None or named == "aedat" or len(magic) > 3):
            raise damaged(path, 0, what, "AEDAT, N-MNIST .bin, SLAYER .bs1/.bs2 or .npy", remedy)
    # As long as this, text is no record of a header-less file: a time would be above 500 s.
    if head.startswith(b"% ") and _TEXT.match(head):
        raise damaged(path, 0, "a file of Prophesee (.raw or .dat)", "AEDAT, N-MNIST, SLAYER, .npy",
                      "store its events as .npy, e.g. with expelliarmus")  # fmt: skip
    if named == "npy":
        raise damaged(path, 0, f"{head[:6]!r}", "b'\\x93NUMPY' of a .npy file", "fetch it again")
    if named is None and head.startswith(b"#"):
        return "aedat"  # 1.0 with a header
    if named is None:
        raise damaged(
            path,
            0,
            f"{head[:6]!r}, which begins no known format, and a name that tells none",
            ", ".join(sorted(_SUFFIXES)),
            f"say format=, one of {', '.join(FORMATS)}",
        )
    return named
