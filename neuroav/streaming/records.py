"""Records of events out of bytes that arrive piece by piece: N-MNIST and AEDAT 2.0.

What the records mean is said in ``neuroav.data.formats.nmnist`` and ``aedat_records``; here they
come from a pipe or a socket, cut anywhere, without an end. A stream of AEDAT begins with its
version line; its header ends with ``#End Of ASCII Header``, or before a byte that is no '#'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from neuroav.data.formats.aedat_records import CHIPS, Chip, Clock
from neuroav.data.formats.events import Orientation
from neuroav.data.formats.nmnist import OVERFLOW_US, OVERFLOW_Y, RECORD, polarity_and_time
from neuroav.errors import DataError, FileFormatError, unknown_name

FORMS = ("nmnist", "aedat")
MAGIC = b"#!AER-DAT"
_VERSION = b"#!AER-DAT2.0"
_END = b"#end of ascii header"
_MAX_HEADER = 1 << 20
_AEDAT_RECORD = np.dtype([("address", ">u4"), ("time", ">u4")])
Events = Mapping[str, np.ndarray]


class Decoder(Protocol):
    """Bytes to events, with what is left of a record kept."""

    @property
    def form(self) -> str:
        """What is decoded, 'N-MNIST' or 'AEDAT 2.0'."""

    def feed(self, data: bytes) -> Events:
        """Return the events that are complete with ``data``: x, y, p, time, int64."""

    def finish(self) -> None:
        """Raise FileFormatError where the end cuts a record."""


def decoder(form: str | None, orientation: Orientation | None = None) -> Decoder:
    """Return a decoder of 'nmnist' or 'aedat'; None takes what the first bytes say.

    orientation: of AEDAT 2.0, which defines none. DataError for another form.
    """
    if form is None:
        return Sniffed(orientation)
    if form not in FORMS:
        raise unknown_name("format of a stream of events", form, FORMS, DataError)
    return Nmnist() if form == "nmnist" else Aedat(orientation)


class Sniffed:
    """The decoder that the first bytes ask for."""

    def __init__(self, orientation: Orientation | None) -> None:
        self._orientation, self._head = orientation, b""
        self._chosen: Decoder | None = None

    @property
    def form(self) -> str:
        return self._chosen.form if self._chosen else ""

    def feed(self, data: bytes) -> Events:
        if self._chosen:
            return self._chosen.feed(data)
        self._head += data
        if len(self._head) < len(MAGIC) and MAGIC.startswith(self._head):
            return _columns()
        if not self._head.startswith(MAGIC):
            raise FileFormatError(
                f"stream of events: at byte 0: {self._head[:6]!r}, which says nothing of its "
                f"format; allowed is {_VERSION.decode()}; say which it is: --format nmnist or aedat"
            )
        self._chosen = Aedat(self._orientation)
        return self._chosen.feed(self._head)

    def finish(self) -> None:
        if self._chosen:
            self._chosen.finish()
        elif self._head:
            raise _cut(0, len(self._head))


class Nmnist:
    """5 bytes an event; a record in row 240 moves all later times on by 2**13 us."""

    form = "N-MNIST"

    def __init__(self) -> None:
        self._rest, self._taken, self._carried = b"", 0, 0

    def feed(self, data: bytes) -> Events:
        data = self._rest + data
        whole = len(data) // RECORD * RECORD
        found = np.frombuffer(data[:whole], np.uint8).reshape(-1, RECORD)
        self._rest, self._taken = data[whole:], self._taken + whole
        polarity, times = polarity_and_time(found[:, 2:])
        marks = found[:, 1] == OVERFLOW_Y
        steps = self._carried + np.cumsum(marks, dtype=np.int64)
        self._carried = int(steps[-1]) if len(steps) else self._carried
        kept = ~marks
        times = times + steps * OVERFLOW_US
        return _columns(found[kept, 0], found[kept, 1], polarity[kept], times[kept])

    def finish(self) -> None:
        if self._rest:
            raise _cut(self._taken, len(self._rest))


class Aedat:
    """8 bytes an event behind a text header; the camera is what the header says, else a DVS128."""

    form = "AEDAT 2.0"

    def __init__(self, orientation: Orientation | None) -> None:
        if orientation is None:
            raise DataError(
                "stream of AEDAT 2.0: it is read in two ways that contradict each other; say which "
                "(--orientation inivation or mnist-dvs)"
            )
        self._how: Orientation = orientation
        self._rest, self._taken, self._begun = b"", 0, False
        self._chip, self._clock = CHIPS["dvs128"], Clock()

    def feed(self, data: bytes) -> Events:
        self._rest += data
        if not self._begun and not self._past_header():
            return _columns()
        size = _AEDAT_RECORD.itemsize
        whole = len(self._rest) // size * size
        found = np.frombuffer(self._rest[:whole], _AEDAT_RECORD)
        self._rest, self._taken = self._rest[whole:], self._taken + whole
        if not len(found):
            return _columns()
        address = found["address"].astype(np.int64)
        times, _ = self._clock.carried(found["time"])
        other = sum(mask for _, mask in self._chip.other)
        bad = address & self._chip.unused
        if bad.any():
            raise FileFormatError(
                f"stream of AEDAT 2.0: after byte {self._taken - whole}: address "
                f"0x{int(address[bad != 0][0]):08x}, allowed is 0x00000000 to 0x0000ffff of a "
                "DVS128; its header must name any other camera (# AEChip: ...)"
            )
        kept = address & other == 0
        return self._oriented(self._chip, address[kept], times[kept])

    def _oriented(self, chip: Chip, address: np.ndarray, times: np.ndarray) -> Events:
        x, y = address >> chip.x_shift & chip.x_mask, address >> chip.y_shift & chip.y_mask
        p = address >> chip.p_shift & 1
        x = chip.size[0] - 1 - x if self._how.flip_x else x
        y = chip.size[1] - 1 - y if self._how.flip_y else y
        return _columns(x, y, p if self._how.on_is_one else 1 - p, times)

    def _past_header(self) -> bool:
        """Take header lines off; return whether the first record begins here."""
        while self._rest[:1] == b"#":
            line, found, rest = self._rest.partition(b"\n")
            if not found:
                if len(self._rest) > _MAX_HEADER:
                    raise FileFormatError(
                        f"stream of AEDAT 2.0: at byte {self._taken}: a header line of more than "
                        f"{_MAX_HEADER} bytes; end the header with {_END.decode()!r}"
                    )
                return False
            if not self._taken and not line.startswith(_VERSION):
                raise FileFormatError(
                    f"stream of events: at byte 0: {line[:16]!r}; allowed is "
                    f"{_VERSION.decode()}; a file of another version can be given by its path"
                )
            self._taken, self._rest = self._taken + len(line) + 1, rest
            self._name_chip(line)
            if b"#" + line[1:].strip().lower() == _END:
                self._begun = True
                return True
        self._begun = bool(self._taken) and bool(self._rest)
        if self._rest and not self._taken:
            raise FileFormatError(
                f"stream of events: at byte 0: {self._rest[:6]!r}; allowed is "
                f"{_VERSION.decode()}, its version line"
            )
        return self._begun

    def _name_chip(self, line: bytes) -> None:
        key, colon, value = line[1:].decode("utf-8", "replace").partition(":")
        if not colon or key.strip() != "AEChip":
            return
        simple = value.strip().rpartition(".")[2].lower()
        names = [name for name in CHIPS if simple.startswith(name)]
        if not names:
            raise FileFormatError(
                f"stream of AEDAT 2.0: its header says the camera is {value.strip()!r}; allowed "
                f"are {', '.join(CHIPS)}"
            )
        self._chip = CHIPS[names[0]]

    def finish(self) -> None:
        if self._rest:
            raise _cut(self._taken, len(self._rest))


def _columns(x=(), y=(), p=(), times=()) -> dict[str, np.ndarray]:
    columns = {"x": x, "y": y, "p": p, "time": times}
    return {name: np.asarray(column, np.int64) for name, column in columns.items()}


def _cut(start: int, found: int) -> FileFormatError:
    return FileFormatError(
        f"stream of events: at byte {start}: {found} bytes of a record that its end cuts; allowed "
        "are whole records; check what sends them, and --format"
    )
