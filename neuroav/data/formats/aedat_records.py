"""AEDAT 1.0 and 2.0: records of an address and a time, big-endian.

1.0 has 6 bytes per record, a 16 bit address and a 32 bit time; 2.0 has 8, a 32 bit address and a
32 bit time, in microseconds. Addresses:

- dvs128 (1.0 and 2.0): bit 15 an external event, skipped and counted; bits 14-8 y, 7-1 x, bit 0
  polarity; bits above 15 are clear;
- davis* (2.0): bit 31 a sample of pixels or of the motion sensor, bit 10 an external event, both
  skipped and counted; bits 30-22 y, 21-12 x, bit 11 polarity.

Times count modulo 2**32: a fall of more than half of that is the counter running over, a rise of
more than half undoes it (events out of order around the place), any other fall stays as it is.
The description says the numbers are signed; a negative time is the same bits as the counter going
on above 2**31, and is read so.

Source: iniVation, "AEDAT 1.0" and "AEDAT 2.0" (docs.inivation.com, file-formats).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from neuroav.data.formats.aedat_header import RECORD, Header
from neuroav.data.formats.events import (
    Events,
    EventStream,
    Orientation,
    RawChunk,
    damaged,
)
from neuroav.data.formats.records import Layout, as_chunks, blocks, checked, chosen, write
from neuroav.errors import DataError, unknown_name

HALF, WHOLE = 1 << 31, 1 << 32


@dataclass(frozen=True)
class Chip:
    """Bits of an address. size: (width, height). other: mask of the bits of what is no event of
    the pixels, by reason, the first that is set. unused: bits that are always clear."""

    size: tuple[int, int]
    y_shift: int
    y_mask: int
    x_shift: int
    x_mask: int
    p_shift: int
    other: tuple[tuple[str, int], ...]
    unused: int


def _davis(width: int, height: int) -> Chip:
    other = (("samples", 1 << 31), ("external", 1 << 10))
    return Chip((width, height), 22, 0x1FF, 12, 0x3FF, 11, other, 0)


CHIPS = {
    "dvs128": Chip((128, 128), 8, 0x7F, 1, 0x7F, 0, (("external", 1 << 15),), 0xFFFF0000),
    "davis208": _davis(208, 192),
    "davis240": _davis(240, 180),
    "davis346": _davis(346, 260),
    "davis640": _davis(640, 480),
}
_NAMES = {"dvs128": "dvs128", "tmpdiff128": "dvs128", "sbret10": "davis240"} | {
    name: name for name in CHIPS
}


def in_order(times: np.ndarray) -> bool:
    """Return whether no time is before the one before it."""
    return bool((times[1:] >= times[:-1]).all())


class Clock:
    """Carries a 32 bit counter on; state of one pass over a file."""

    def __init__(self) -> None:
        self.last: int | None = None
        self.epoch = 0

    def carried(self, raw: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the times (n,) int64 of counters (n,) uint32, n > 0, and how often it ran over."""
        native = raw.astype(np.uint32)
        time = native.astype(np.int64)
        before = time[0] if self.last is None else self.last
        if 0 <= time[-1] - before <= HALF and before <= time[0] and in_order(native):
            self.last = int(time[-1])  # what nearly every chunk is
            time += self.epoch * WHOLE
            return time, 0
        rise = np.diff(time, prepend=before)
        self.last = int(time[-1])
        over, under = rise < -HALF, rise > HALF
        walk = self.epoch + np.cumsum(over.astype(np.int64) - under)
        # Never before the first period, where a rise of more than half is a gap.
        walk -= np.minimum(0, np.minimum.accumulate(walk))
        self.epoch = int(walk[-1])
        return time + walk * WHOLE, int(np.count_nonzero(over))


def opened(
    path: Path,
    header: Header,
    orientation: Orientation,
    chunk_events: int,
    sensor: tuple[int, int] | None,
    order: str,
    chip: str | None,
) -> EventStream:
    """Return the stream of a file of version 1.0 or 2.0; see ``open_events``."""
    chosen_chip = CHIPS[_chip_name(path, header, chip)]
    if sensor not in (None, chosen_chip.size):
        raise DataError(f"{path}: sensor {sensor}, but its camera has {chosen_chip.size}; "
                        "leave sensor out, or say the chip")  # fmt: skip
    layout = Layout(path, header.start, RECORD[header.version])
    raw = partial(_raw, layout, chosen_chip, chunk_events)
    name = f"AEDAT {header.version}"
    return EventStream(path, name, chosen_chip.size, header.lines, orientation, order, raw)


def _chip_name(path: Path, header: Header, chip: str | None) -> str:
    if chip is not None and chip not in CHIPS:
        raise unknown_name("chip of AEDAT 2.0", chip, CHIPS, DataError)
    stated = header.value("AEChip")
    if header.version == "1.0":
        if chip not in (None, "dvs128"):
            raise DataError(f"{path}: AEDAT 1.0 of chip {chip!r}: allowed is dvs128")
        return "dvs128"
    if chip is not None:
        return chip
    if stated is None:
        return "dvs128"
    simple = stated.rpartition(".")[2].lower()
    for start, name in _NAMES.items():
        if simple.startswith(start):
            return name
    raise DataError(f"{path}: its header says the camera is {stated!r}, which is not known; "
                    f"say chip=, one of {', '.join(CHIPS)}")  # fmt: skip


def _raw(layout: Layout, chip: Chip, records: int, counts: Counter[str]) -> Iterator[RawChunk]:
    address_type = ">u4" if layout.size == 8 else ">u2"
    record = np.dtype([("address", address_type), ("time", ">u4")])
    clock = Clock()
    for first, block in blocks(layout, records):
        found = np.frombuffer(block, record)
        address = found["address"].astype(np.uint32)
        time, wrapped = clock.carried(found["time"])
        counts["wrapped"] += wrapped
        _require_unused(layout, chip, first, address)
        kept = _kept(chip, address, counts)
        events = _decoded(chip, address) | {"time": time}
        yield RawChunk(*chosen(layout, first, events, kept))


def _decoded(chip: Chip, address: np.ndarray) -> Events:
    return {
        "x": (address >> chip.x_shift & chip.x_mask).astype(np.uint16),
        "y": (address >> chip.y_shift & chip.y_mask).astype(np.uint16),
        "p": (address >> chip.p_shift & 1).astype(np.uint8),
    }


def _require_unused(layout: Layout, chip: Chip, first: int, address: np.ndarray) -> None:
    bad = address & np.uint32(chip.unused)
    if bad.any():
        i = int(np.argmax(bad != 0))
        raise damaged(
            layout.path,
            layout.offset(first + i),
            f"address 0x{address[i]:08x}",
            "0x00000000 to 0x0000ffff of a DVS128",
            f"say which camera it is (chip=, one of {', '.join(CHIPS)}), "
            "or fetch the file again if it is damaged",
        )


def _kept(chip: Chip, address: np.ndarray, counts: Counter[str]) -> np.ndarray | None:
    """Return which addresses are events of pixels, None for all."""
    every = np.uint32(sum(mask for _, mask in chip.other))
    if not (address & every).any():
        return None
    kept = np.ones(len(address), bool)
    for reason, mask in chip.other:
        here = kept & (address & np.uint32(mask) != 0)
        if here.any():
            counts[reason] += int(np.count_nonzero(here))
            kept &= ~here
    return kept


# --- writing -----------------------------------------------------------------------------------
def write_aedat1(
    path: str | Path,
    events: Events | Iterable[Events],
    header_lines: Iterable[str] = (),
    *,
    orientation: Orientation,
) -> None:
    """Write events of a DVS128, a dict or chunks of them, as AEDAT 1.0.

    header_lines: text without '#' and line end. orientation: how events become bits, as it is given
    for reading. DataError for what the format cannot hold; nothing is left behind then.
    """
    _write(Path(path), events, header_lines, orientation, "1.0", "dvs128")


def write_aedat2(
    path: str | Path,
    events: Events | Iterable[Events],
    header_lines: Iterable[str] = (),
    *,
    orientation: Orientation,
    chip: str = "dvs128",
) -> None:
    """Write events of a camera of ``CHIPS`` as AEDAT 2.0; else as ``write_aedat1``."""
    if chip not in CHIPS:
        raise unknown_name("chip of AEDAT 2.0", chip, CHIPS, DataError)
    _write(Path(path), events, header_lines, orientation, "2.0", chip)


def _write(
    path: Path,
    events: Events | Iterable[Events],
    header_lines: Iterable[str],
    orientation: Orientation,
    version: str,
    chip: str,
) -> None:
    lines = list(header_lines)
    if version == "2.0":
        lines = ["!AER-DAT2.0", f" AEChip: {chip.upper()}", *lines]
    # The last line says where the data begin, whatever the first of them are.
    header = header_text([*lines, "End Of ASCII Header"])
    clock = Clock()
    parts = (
        _encoded(path, chunk, orientation, version, CHIPS[chip], clock)
        for chunk in as_chunks(events)
    )
    write(path, header, parts)


def header_text(lines: Iterable[str]) -> bytes:
    """Return header lines as they stand in a file; DataError for one that is no line of text."""
    for line in lines:
        if not line.isprintable():
            raise DataError(f"header line {line!r}: allowed is printable text without line ends")
    return "".join(f"#{line}\r\n" for line in lines).encode()


def _encoded(
    path: Path, events: Events, how: Orientation, version: str, chip: Chip, clock: Clock
) -> bytes:
    width, height = chip.size
    limits = {"x": width - 1, "y": height - 1, "p": 1, "time": (1 << 62) - 1}
    columns = checked(path, events, limits)
    if not len(columns["time"]):
        return b""
    time = (columns["time"] % WHOLE).astype(np.uint32)
    if not np.array_equal(clock.carried(time)[0], columns["time"]):
        raise DataError(f"{path}: times that 32 bits cannot tell; allowed are a first time below "
                        "2**32 us and steps below 2**31 us")  # fmt: skip
    x = width - 1 - columns["x"] if how.flip_x else columns["x"]
    y = height - 1 - columns["y"] if how.flip_y else columns["y"]
    p = columns["p"] if how.on_is_one else 1 - columns["p"]
    record = np.dtype([("address", ">u4" if version == "2.0" else ">u2"), ("time", ">u4")])
    out = np.empty(len(time), record)
    out["address"] = y << chip.y_shift | x << chip.x_shift | p << chip.p_shift
    out["time"] = time
    return out.tobytes()
