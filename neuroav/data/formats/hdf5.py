"""HDF5 files of other people, read value by value: nothing is used before it is checked.

A dataset counts only if it lies in the file itself (no link to elsewhere, no outside storage), and
declares no more than the bytes of the file can hold. What the library itself does with a damaged
file (abort, hang) cannot be prevented from here: read such files through
``neuroav.data.formats.guarded``. ``check_hdf5`` walks a whole file for that purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuroav.errors import FileFormatError, NeuroavError

_MAX_RATIO = 1100  # deflate cannot do better than 1032:1; more is a declared size without values
MOST_OBJECTS = 200_000  # groups, datasets and attributes that check_hdf5 walks
MOST_DEPTH = 64


class Hdf5:
    """An open file. kind: what it should be; again: what to do where it is not; for the errors."""

    def __init__(self, file: h5py.File, path: Path, kind: str, again: str) -> None:
        self.file, self.path, self.kind, self.again = file, path, kind, again
        self._size = path.stat().st_size

    def problem(self, place: str, found: str, allowed: str) -> FileFormatError:
        """Return the error for what lies at a place of the file."""
        return FileFormatError(
            f"{self.path}: {place or 'the file'} {found}, allowed is {allowed}; it is damaged or "
            f"no {self.kind}: {self.again}"
        )

    def own(self, name: str) -> h5py.Group | h5py.Dataset:
        """Return what lies under a path of names in this file; links to elsewhere are refused."""
        place: h5py.Group = self.file
        for part in name.split("/"):
            link = place.get(part, getlink=True) if isinstance(place, h5py.Group) else None
            if link is None:
                raise self.problem(name, "is missing", "that it is there")
            if not isinstance(link, h5py.HardLink):
                raise self.problem(name, f"is a {type(link).__name__}", "data of the file itself")
            place = place[part]
        return place

    def group(self, name: str) -> h5py.Group:
        """Return a group."""
        found = self.own(name)
        if not isinstance(found, h5py.Group):
            raise self.problem(name, "is no group", "a group")
        return found

    def dataset(self, name: str) -> h5py.Dataset:
        """Return a dataset that can be what it declares. Nothing of its values is read."""
        data = self.own(name)
        if not isinstance(data, h5py.Dataset):
            raise self.problem(name, "is a group", "a dataset")
        if data.external or data.is_virtual:
            raise self.problem(name, "takes its values from other files", "values of its own")
        if data.shape is None:
            raise self.problem(name, "is empty", "values")
        stored = data.id.get_storage_size()
        if stored > self._size:
            raise self.problem(name, f"claims {stored} bytes", f"the {self._size} of the file")
        if data.size * data.dtype.itemsize > _MAX_RATIO * max(stored, 64):
            raise self.problem(
                name, f"declares {data.size} values in {stored} bytes", "what its bytes can hold"
            )
        return data

    def numbers(self, name: str, kinds: str, allowed: str) -> np.ndarray:
        """Return a one-dimensional dataset whose numpy kind is in ``kinds``, as stored."""
        data = self.dataset(name)
        if data.ndim != 1 or data.dtype.kind not in kinds:
            raise self.problem(name, f"holds {data.dtype} {data.shape}", allowed)
        return np.asarray(data[()])

    def texts(self, name: str) -> list[str]:
        """Return a one-dimensional dataset of fixed or variable strings in UTF-8."""
        data = self.dataset(name)
        if data.ndim != 1 or not (data.dtype.kind == "S" or h5py.check_string_dtype(data.dtype)):
            raise self.problem(name, f"holds {data.dtype} {data.shape}", "a list of texts")
        try:
            return [v.decode("utf-8") if isinstance(v, bytes) else str(v) for v in data[()]]
        except UnicodeDecodeError as error:
            raise self.problem(name, f"holds what is no text ({error})", "UTF-8") from None

    def ragged(self, name: str) -> h5py.Dataset:
        """Return a one-dimensional dataset of arrays of variable length, unread."""
        data = self.dataset(name)
        base = h5py.check_vlen_dtype(data.dtype)
        if data.ndim != 1 or base is None or base.kind not in "iuf":
            raise self.problem(name, f"holds {data.dtype} {data.shape}", "one array per sample")
        return data


@contextmanager
def opened(path: Path, kind: str, again: str) -> Iterator[Hdf5]:
    """Yield an open HDF5 file.

    FileFormatError, with the path, where the file or anything read from it cannot be what it
    claims.
    """
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file; give the path of a {kind}: {again}")
    try:
        with h5py.File(path, "r") as file:
            yield Hdf5(file, path, kind, again)
    except NeuroavError:
        raise
    # A program that fails for want of memory says so to whoever bounded it.
    except MemoryError:
        raise
    # h5py reports damage as whatever the broken structure led to.
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FileFormatError(
            f"{path}: cut, damaged or no {kind} ({reason[:300]}); {again}"
        ) from None


def check_hdf5(path: Path, most_bytes: int) -> dict[str, int]:
    """Read a file as its reader may: every group, dataset and attribute, every value once.

    Return how many objects and value bytes it has, and how many objects cannot be read. Meant to be
    run ``guarded``: what makes the library abort, hang or fill the memory does so there, before the
    file is opened in the process that needs it. Whether the content is what it should be is for
    that reader to say, so an object that the library refuses is only counted. Links to elsewhere
    are not followed, nor is storage outside the file read: readers refuse both. FileFormatError
    where the file has more than ``most_bytes`` of values, or too many objects.
    """
    path, counts = Path(path), {"objects": 0, "bytes": 0, "refused": 0}
    try:
        file = h5py.File(path, "r")
    except MemoryError:
        raise
    except Exception:  # as below
        return counts | {"refused": 1}
    with file:
        root = Hdf5(file, path, "HDF5 file", "write or fetch it again")
        _walk(_Walk(root, counts, most_bytes), file, 0)
    return counts


@dataclass(frozen=True, eq=False)
class _Walk:
    file: Hdf5
    counts: dict[str, int]
    most: int

    def spend(self, place: str, shape: Any, dtype: np.dtype) -> None:
        size = 0 if shape is None else int(np.prod(shape, dtype=object)) * dtype.itemsize
        self.counts["bytes"] += size
        if self.counts["bytes"] > self.most:
            found = f"brings the values to {self.counts['bytes']} bytes"
            raise self.file.problem(place, found, str(self.most))

    def tried(self, work: Callable[[], Any]) -> Any:
        """Return what a piece of work gives, None where the library refuses it."""
        try:
            return work()
        except (NeuroavError, MemoryError):
            raise
        except Exception:
            self.counts["refused"] += 1
            return None


def _walk(walk: _Walk, item: h5py.Group | h5py.Dataset, depth: int) -> None:
    walk.counts["objects"] += 1
    if depth > MOST_DEPTH or walk.counts["objects"] > MOST_OBJECTS:
        raise walk.file.problem(
            str(item.name)[:200],
            "is nested too deep or one object too many",
            f"{MOST_DEPTH} levels, {MOST_OBJECTS} objects",
        )
    for name in walk.tried(lambda: list(item.attrs)) or ():
        walk.tried(partial(_read_attribute, walk, item, name))
    if isinstance(item, h5py.Dataset):
        walk.tried(lambda: _read_through(walk, item))
        return
    for name in walk.tried(lambda: list(item)) or ():
        found = walk.tried(partial(_child, item, name))
        if isinstance(found, (h5py.Group, h5py.Dataset)):
            walk.tried(partial(_walk, walk, found, depth + 1))


def _child(group: h5py.Group, name: str) -> Any:
    return group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None


def _read_attribute(walk: _Walk, item: h5py.Group | h5py.Dataset, name: str) -> None:
    walk.counts["objects"] += 1
    known = item.attrs.get_id(name)
    walk.spend(f"attribute {name[:200]!r}", known.shape, known.dtype)
    if known.shape is not None:
        item.attrs[name]


def _read_through(walk: _Walk, data: h5py.Dataset) -> None:
    # What a reader asks before it reads. It reads nothing of what fails these.
    if data.external or data.is_virtual or data.shape is None:
        return
    if data.size * data.dtype.itemsize > _MAX_RATIO * max(data.id.get_storage_size(), 64):
        return
    walk.spend(str(data.name)[:200], data.shape, data.dtype)
    data[()]
