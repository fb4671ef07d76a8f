"""Events in a ``.npy`` file: a structured array, or (E, n) numbers with the columns named.

A structured array (E,) has fields x and y, p, pol or polarity, and t, ts, time or timestamp. Of
plain numbers the caller says what each column is, '' for one to be ignored. x, y and time are whole
numbers of 0 and more, time in microseconds; floats are taken where all are whole. Polarity is 0 and
1, or -1 and 1, or true and false. Nothing is unpickled, and the file is read in chunks.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np

from neuroav.data.formats.events import (
    DTYPES,
    Events,
    EventStream,
    Orientation,
    RawChunk,
    damaged,
    opened_file,
)
from neuroav.data.formats.records import Layout, blocks
from neuroav.errors import DataError, FileFormatError

NAMES = {
    "x": ("x",),
    "y": ("y",),
    "p": ("p", "pol", "polarity"),
    "time": ("time", "t", "ts", "timestamp"),
}
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # Python's own objects in Python's own messages
LIMITS = {"x": 65535, "y": 65535, "time": (1 << 62) - 1}
# numpy reads as much as the header says it has, so that 12 bytes could ask for 4 GiB
MAX_HEADER = 1 << 16
_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def _require_small_header(file: BinaryIO, version: tuple[int, int]) -> None:
    """Raise ValueError for a header longer than any real one; the file stays where it is."""
    at = file.tell()
    length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
    file.seek(at)
    if length > MAX_HEADER:
        raise ValueError(f"a header of {length} bytes, more than {MAX_HEADER}")


def opened(
    path: Path,
    orientation: Orientation | None,
    chunk_events: int,
    sensor: tuple[int, int] | None,
    order: str,
    columns: Sequence[str] | None,
) -> EventStream:
    """Return the stream of a .npy file; see ``neuroav.data.formats.events.open_events``."""
    if orientation is None:
        raise DataError(
            f"{path}: an array does not say what its polarity and directions mean; say it, "
            "e.g. orientation='as-stored' (p 1 = ON, (0, 0) upper left)"
        )
    layout, record = _layout(path, columns)
    raw = partial(_raw, layout, record, chunk_events)
    return EventStream(path, "npy", sensor, (), orientation, order, raw)


def _layout(path: Path, columns: Sequence[str] | None) -> tuple[Layout, np.dtype]:
    """Return where the rows are, and their type, with fields x, y, p and time."""
    with opened_file(path) as file:
        total = file.seek(0, 2)
        file.seek(0)
        try:
            with warnings.catch_warnings():  # Python's parser warns of what it then refuses
                warnings.simplefilter("ignore")
                version = np.lib.format.read_magic(file)
                if version not in _READERS:
                    raise ValueError(f"version {version} of the format")
                _require_small_header(file, version)
                shape, fortran, dtype = _READERS[version](file)
        except Exception as err:  # numpy raises whatever Python's parser does
            raise _unreadable(path, str(err)) from None
        start = file.tell()
    if dtype.hasobject or dtype.itemsize == 0:
        raise _unreadable(path, f"its type is {dtype}")
    if fortran and len(shape) > 1:
        raise damaged(path, 0, "an array in Fortran's order", "C's order",
                      "write it again from numpy.ascontiguousarray(array)")  # fmt: skip
    stated = prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or stated != total - start:
        raise damaged(path, start, f"{total - start} bytes of an array {shape} of {dtype}",
                      f"{stated} bytes", "fetch the file again")  # fmt: skip
    record = _fields(path, shape, dtype, columns) if dtype.names else _columns(
        path, shape, dtype, columns
    )  # fmt: skip
    return Layout(path, start, record.itemsize), record


def _unreadable(path: Path, why: str) -> FileFormatError:
    short = _ADDRESS.sub("", why.splitlines()[0])[:80] if why else "its header is damaged"
    return damaged(path, 0, f"a .npy file that cannot be read ({short})",
                   "a whole array of numbers, without objects",
                   "write it again by numpy.save(..., allow_pickle=False)")  # fmt: skip


def _fields(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, columns: Sequence[str] | None
) -> np.dtype:
    names = dtype.names or ()
    if columns is not None:
        raise DataError(f"{path}: columns are of plain numbers; this array has fields {names}")
    if len(shape) != 1:
        raise damaged(path, 0, f"events of shape {shape}", "(E,)", "flatten the array")
    found = {}
    for column, known in NAMES.items():
        here = [name for name in names if name in known]
        if len(here) != 1:
            raise damaged(path, 0, f"fields {', '.join(names)}",
                          f"one of {', '.join(known)} for {column}",
                          "rename the fields of the array")  # fmt: skip
        field = dtype[here[0]]
        _require_kind(path, column, field)
        assert dtype.fields is not None
        found[column] = (field, dtype.fields[here[0]][1])
    return np.dtype({
        "names": list(found), "formats": [field for field, _ in found.values()],
        "offsets": [offset for _, offset in found.values()], "itemsize": dtype.itemsize,
    })  # fmt: skip


def _columns(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, columns: Sequence[str] | None
) -> np.dtype:
    if len(shape) != 2 or not shape[1]:
        raise damaged(path, 0, f"numbers of shape {shape}", "(E, n)", "give one row per event")
    if columns is None:
        raise DataError(f"{path}: numbers of shape {shape}; say what its columns are, e.g. "
                        "columns=('x', 'y', 'time', 'p')")  # fmt: skip
    if len(columns) != shape[1]:
        raise DataError(f"{path}: {shape[1]} columns, but {len(columns)} are named")
    if sorted(name for name in columns if name) != sorted(DTYPES):
        raise DataError(f"{path}: columns {tuple(columns)}: allowed are x, y, p and time, once "
                        "each, and '' for one that is ignored")  # fmt: skip
    _require_kind(path, "numbers", dtype)
    return np.dtype({
        "names": list(DTYPES), "formats": [dtype] * len(DTYPES),
        "offsets": [list(columns).index(name) * dtype.itemsize for name in DTYPES],
        "itemsize": shape[1] * dtype.itemsize,
    })  # fmt: skip


def _require_kind(path: Path, column: str, dtype: np.dtype) -> None:
    if dtype.kind not in "iufb" or dtype.shape or dtype.itemsize > 8:
        raise damaged(path, 0, f"{column} of type {dtype}", "integers, floats or booleans",
                      "convert the array")  # fmt: skip


def _raw(
    layout: Layout, record: np.dtype, records: int, counts: Counter[str]
) -> Iterator[RawChunk]:
    for first, block in blocks(layout, records):
        found = np.frombuffer(block, record)
        where = partial(_offset, layout, first)
        events: Events = {name: _converted(name, found[name], where) for name in DTYPES}
        yield RawChunk(events, where)


def _offset(layout: Layout, first: int, event: int) -> int:
    return layout.offset(first + event)


def _converted(name: str, stored: np.ndarray, where: partial[int]) -> np.ndarray:
    """Return a column in its type; FileFormatError for a value that is not allowed."""
    if stored.dtype.kind == "f":
        stored = stored.astype(np.float64)  # a limit rounded to float16 would be infinite
    if name == "p":
        bad, allowed = ~((stored == 0) | (stored == 1) | (stored == -1)), "0 and 1, or -1 and 1"
    else:
        allowed = f"whole numbers of 0 to {LIMITS[name]}"
        bad = ~((stored >= 0) & (stored <= LIMITS[name]))
        if stored.dtype.kind == "f":
            bad |= stored != np.floor(stored)
    if bad.any():
        i = int(np.argmax(bad))
        path = where.args[0].path
        raise damaged(path, where(i), f"{name} {stored[i]}", allowed, "mend the array")
    return (stored > 0).astype(DTYPES[name]) if name == "p" else stored.astype(DTYPES[name])
