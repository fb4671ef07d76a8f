"""Files that are a row of records of one fixed length: read in blocks, written whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroav.data.formats.events import DTYPES, Events, damaged, opened_file
from neuroav.errors import DataError
from neuroav.files import written_whole


@dataclass(frozen=True)
class Layout:
    """Where the records of a file are: from byte ``start`` on, ``size`` bytes each."""

    path: Path
    start: int
    size: int

    def offset(self, record: int) -> int:
        """Return the byte at which a record begins."""
        return self.start + record * self.size


def require_whole(layout: Layout, total: int) -> int:
    """Return how many records a file of ``total`` bytes holds; FileFormatError for a cut one."""
    count, rest = divmod(total - layout.start, layout.size)
    if rest:
        end = layout.offset(count)
        raise damaged(
            layout.path,
            end,
            f"{rest} bytes of a record that the end of the file cuts",
            f"whole records of {layout.size} bytes",
            f"fetch the file again, or cut it to {end} bytes to keep {count} records",
        )
    return count


def blocks(layout: Layout, records: int) -> Iterator[tuple[int, bytes]]:
    """Yield (number of its first record, bytes) of at most ``records`` records at a time."""
    with opened_file(layout.path) as file:
        count = require_whole(layout, file.seek(0, 2))
        file.seek(layout.start)
        for first in range(0, count, records):
            wanted = min(records, count - first) * layout.size
            block = file.read(wanted)
            if len(block) < wanted:
                raise damaged(
                    layout.path,
                    layout.offset(first) + len(block),
                    "the end of the file, which was longer when it was opened",
                    "a file that does not change while it is read",
                    "read it again once it is written",
                )
            yield first, block


def chosen(
    layout: Layout, first: int, events: Events, kept: np.ndarray | None
) -> tuple[Events, Callable[[int], int]]:
    """Return the kept events, and the function that says at which byte event i begins.

    kept: (records,) bool of the records that are events, None for all.
    """
    if kept is None or kept.all():
        return events, lambda i: layout.offset(first + i)
    places = np.flatnonzero(kept)
    rest = {name: column[places] for name, column in events.items()}
    return rest, lambda i: layout.offset(first + int(places[i]))


def as_chunks(events: Events | Iterable[Events]) -> Iterable[Events]:
    """Return events to be written as chunks: one dict is one chunk."""
    return [events] if isinstance(events, dict) else events


def checked(path: Path, events: Events, limits: dict[str, int]) -> Events:
    """Return the columns as int64; DataError unless they are whole numbers of 0 to the limits."""
    missing = [name for name in DTYPES if name not in events]
    if missing:
        raise DataError(f"{path}: events to be written lack the columns {', '.join(missing)}")
    columns = {name: np.asarray(events[name]) for name in DTYPES}
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) > 1 or len(columns["time"].shape) != 1:
        raise DataError(f"{path}: columns to be written have shapes {shapes}; allowed is one (n,)")
    for name, column in columns.items():
        if column.dtype.kind not in "iub":
            raise DataError(f"{path}: column {name} is {column.dtype}; allowed are whole numbers")
        if not column.size:
            continue
        low, high = int(column.min()), int(column.max())
        if low < 0 or high > limits[name]:
            raise DataError(f"{path}: column {name} is {low} to {high}; "
                            f"allowed are 0 to {limits[name]} in this format")  # fmt: skip
    return {name: column.astype(np.int64) for name, column in columns.items()}


def write(path: str | Path, header: bytes, parts: Iterable[bytes]) -> None:
    """Write header and parts to ``path``, whole or not at all."""
    with written_whole(path) as temporary, open(temporary, "wb") as file:
        file.write(header)
        for part in parts:
            file.write(part)
