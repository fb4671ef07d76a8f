"""MNIST-DVS as a MATLAB file: ``MNIST_DVS_28x28_10000_{100ms,200ms,...,full}.mat``.

``CINs`` is a cell array of N recordings (1 x 10000), each E x 6 double: time in us, two columns
that mean nothing, x, y, polarity +1 or -1; ``Labels`` holds N digits. Pixels are counted from 0 or,
as MATLAB does, from 1: whichever of the two the values of all recordings allow; where they allow
both, the caller must say which.

Files up to MATLAB's version 7 are read by scipy, those of version 7.3, which are HDF5, by h5py.
Both are trusted here: read files from elsewhere through ``neuroav.data.formats.guarded``.
Source: B. Zhao et al., IEEE TNNLS 26, 1963 (2015); field order as its public readers have it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuroav.data.formats.hdf5 import Hdf5, opened
from neuroav.errors import ConfigError, FileFormatError, MissingDependency

PRELOAD = ("scipy.io",)
COLUMNS = 6
MOST_US = 3_600_000_000
_KIND = "MATLAB file of MNIST-DVS recordings"
_AGAIN = "take the file from its publishers again"
_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True, eq=False)
class MatRecordings:
    """N recordings, one after the other: those of i lie at offsets[i]:offsets[i + 1].

    offsets: (N + 1,) int64. time: (E,) int64 us, ascending in a recording. x, y: (E,) uint8 from 0.
    on: (E,) bool. labels: (N,) int64 0..9. base: 0 or 1, from where the file counts pixels.
    """

    offsets: np.ndarray
    time: np.ndarray
    x: np.ndarray
    y: np.ndarray
    on: np.ndarray
    labels: np.ndarray
    base: int


def read_mat(
    path: Path,
    *,
    base: int | None = None,
    size: int = 28,
    classes: Mapping[int, int] | None = None,
    sort: bool = False,
) -> MatRecordings:
    """Return the recordings of a file.

    base: 0 or 1, from where it counts pixels, None to find out. size: pixels along each axis, at
    most 256. classes: from the numbers in ``Labels`` to digits, None where they are the digits.
    sort: bring times that do not ascend into order instead of refusing them.
    FileFormatError naming the file, and the recording, for anything that is not as above.
    """
    if base not in (None, 0, 1) or not 1 <= size <= 256:
        raise ConfigError(f"base {base}, size {size}: allowed are 0, 1 or None, and 1..256")
    path = Path(path)
    try:
        with open(path, "rb") as file:
            # A v7.3 file has MATLAB's header of 512 bytes before HDF5 begins.
            modern = _HDF5 in (file.read(8), file.seek(512) and file.read(8))
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror}") from None
    cells, labels = _modern(path) if modern else _classic(path)
    if len(cells) != len(labels) or not cells:
        raise _wrong(path, f"{len(cells)} recordings and {len(labels)} labels", "one each")
    made = [_events(path, i, cell, sort) for i, cell in enumerate(cells)]
    offsets = np.concatenate([[0], np.cumsum([len(m) for m in made])]).astype(np.int64)
    events = np.concatenate(made)
    pixels = events[:, 1:3]
    base = _base(path, pixels, base, size)
    x, y = ((pixels[:, i] - base).astype(np.uint8) for i in range(2))
    return MatRecordings(
        offsets, events[:, 0], x, y, events[:, 3] > 0, _digits(path, labels, classes), base
    )


def _wrong(path: Path, found: str, allowed: str) -> FileFormatError:
    return FileFormatError(f"{path}: {found}, allowed is {allowed}; {_AGAIN}")


def _classic(path: Path) -> tuple[list[Any], np.ndarray]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingDependency(
            "reading MATLAB files needs scipy; install it with: pip install 'neuroav[data]'"
        ) from None
    try:
        found = loadmat(
            path, variable_names=["CINs", "Labels"], verify_compressed_data_integrity=True
        )
    except MemoryError:
        raise
    # scipy reports damage as whatever the broken structure led to.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFormatError(
            f"{path}: cut, damaged or no {_KIND} ({reason[:300]}); {_AGAIN}"
        ) from None
    lost = [name for name in ("CINs", "Labels") if name not in found]
    if lost:
        raise _wrong(path, f"no {' and no '.join(lost)}", "CINs and Labels")
    cells, labels = found["CINs"], found["Labels"]
    if not isinstance(cells, np.ndarray) or cells.dtype != object:
        raise _wrong(path, f"CINs that is {getattr(cells, 'dtype', type(cells))}", "a cell array")
    return list(cells.reshape(-1)), _flat(path, labels)


def _modern(path: Path) -> tuple[list[Any], np.ndarray]:
    with opened(path, _KIND, _AGAIN) as file:
        labels = _flat(path, np.asarray(file.dataset("Labels")[()]))
        return list(_referenced(file, file.dataset("CINs"))), labels


def _referenced(file: Hdf5, cells: h5py.Dataset) -> Iterator[np.ndarray]:
    """Yield what the cells of a v7.3 file refer to; MATLAB stores arrays transposed."""
    if h5py.check_ref_dtype(cells.dtype) is not h5py.Reference:
        raise file.problem("CINs", f"holds {cells.dtype}", "references, as MATLAB stores cells")
    for reference in np.asarray(cells[()]).reshape(-1):
        found = file.file[reference]
        data = file.dataset(str(found.name).strip("/"))
        if data.attrs.get("MATLAB_empty", 0):
            yield np.zeros((0, COLUMNS))
        else:
            yield np.asarray(data[()]).T


def _flat(path: Path, labels: Any) -> np.ndarray:
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iufb":
        raise _wrong(path, f"Labels that is {getattr(labels, 'dtype', type(labels))}", "numbers")
    if labels.size != max(labels.shape, default=1):
        raise _wrong(path, f"Labels {labels.shape}", "one row or column")
    return labels.reshape(-1)


def _events(path: Path, index: int, cell: Any, sort: bool) -> np.ndarray:
    """Return (E, 4) int64 of a recording: time, x, y, polarity."""
    place = f"CINs{{{index + 1}}}"
    if not isinstance(cell, np.ndarray) or cell.dtype.kind not in "iuf":
        raise _wrong(path, f"{place} that is {getattr(cell, 'dtype', type(cell))}", "numbers")
    if cell.size == 0:
        return np.zeros((0, 4), np.int64)
    if cell.ndim != 2 or cell.shape[1] != COLUMNS:
        raise _wrong(path, f"{place} {cell.shape}", f"(events, {COLUMNS})")
    kept = cell[:, [0, 3, 4, 5]].astype(np.float64)
    if not np.isfinite(kept).all() or (kept[:, 1:] != np.rint(kept[:, 1:])).any():
        raise _wrong(path, f"{place} with NaN, infinite or fractional values", "whole numbers")
    if kept[:, 0].min() < 0 or kept[:, 0].max() > MOST_US:
        raise _wrong(
            path, f"{place} with times {kept[:, 0].min():g}..{kept[:, 0].max():g}",
            f"microseconds 0..{MOST_US}",
        )  # fmt: skip
    if not (np.abs(kept[:, 3]) == 1).all():
        other = kept[np.abs(kept[:, 3]) != 1, 3][0]
        raise _wrong(path, f"{place} with polarity {other:g}", "+1 or -1")
    if np.abs(kept[:, 1:3]).max() > 1 << 16:
        raise _wrong(path, f"{place} with pixel {np.abs(kept[:, 1:3]).max():g}", "pixels")
    events = np.rint(kept).astype(np.int64)
    if (np.diff(events[:, 0]) < 0).any():
        if not sort:
            raise _wrong(path, f"{place} that goes back in time", "ascending times, or sort=True")
        events = events[np.argsort(events[:, 0], kind="stable")]
    return events


def _base(path: Path, pixels: np.ndarray, stated: int | None, size: int) -> int:
    """Return from where the file counts pixels; FileFormatError where that cannot be."""
    bases: Iterable[int] = (0, 1) if stated is None else (stated,)
    if not pixels.size:
        return stated or 0
    low, high = int(pixels.min()), int(pixels.max())
    fits = [b for b in bases if b <= low and high < size + b]
    if not fits:
        allowed = " or ".join(f"{b}..{size - 1 + b}" for b in bases)
        hint = "" if stated is None else f", as base {stated} was asked for"
        raise _wrong(path, f"pixels {low}..{high}", f"{allowed}{hint}")
    if len(fits) > 1:
        raise _wrong(
            path, f"pixels {low}..{high}, which can be counted from 0 or from 1",
            "that the caller says which (base=0 or base=1)",
        )  # fmt: skip
    return fits[0]


def _digits(path: Path, labels: np.ndarray, classes: Mapping[int, int] | None) -> np.ndarray:
    known = {d: d for d in range(10)} if classes is None else classes
    found = np.unique(labels.astype(np.float64))
    odd = [v for v in found.tolist() if v not in known]
    if odd or not set(known.values()) <= set(range(10)):
        allowed = f"{sorted(known)}, or a mapping of them to digits (classes)"
        raise _wrong(path, f"Labels such as {odd[:3]}", allowed)
    return np.array([known[int(v)] for v in labels.tolist()], np.int64)


def one(recordings: MatRecordings, index: int) -> dict[str, np.ndarray]:
    """Return the columns time, x, y, on of one recording."""
    part = slice(recordings.offsets[index], recordings.offsets[index + 1])
    names = ("time", "x", "y", "on")
    return {name: getattr(recordings, name)[part] for name in names}
