"""HDF5 files from outside, read value by value: nothing is used before it is checked.

A dataset counts only if it lies in the file itself (no link to elsewhere), holds numbers or a short
text, is as large as its bytes allow, and is finite. Everything else is a FileFormatError with file,
dataset, found and allowed. No object is ever unpickled.

The HDF5 library trusts what it reads: a changed byte can make it abort or hang. Before a file is
opened here, another process reads all of it once (``check_hdf5`` in a guarded process, a third of a
second for the first file): what the library does not survive ends that process, and is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from neuroav.data.formats.guarded import guarded
from neuroav.data.formats.hdf5 import check_hdf5
from neuroav.errors import FileFormatError, NeuroavError

MOST_VALUES = 1 << 27  # of a dataset, and of all that is read from a file
MOST_BYTES = 8 * MOST_VALUES  # of values as the guarded process reads them
READ_SECONDS = 60.0
READ_MEMORY = 3 << 30  # MOST_BYTES, what the library needs beside them, and a margin
TEXT_MOST = 1 << 16  # characters
_MAX_RATIO = 1100  # deflate cannot do better than 1032:1; more is a declared size without values


@contextmanager
def opened(path: Path, kind: str) -> Iterator[Tree]:
    """Yield the root of an HDF5 file. kind: what it should be, for the errors.

    FileFormatError where the file, or anything read from it, cannot be what it claims.
    """
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file; give the path of {kind}")
    require_survived(path)
    try:
        with h5py.File(path, "r") as file:
            yield Tree(file, path, kind, [0])
    except NeuroavError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise FileFormatError(
            f"{path}: cannot be read as {kind} ({error}); the file is cut, damaged or of another "
            "kind; export it again"
        ) from None


def require_survived(path: Path) -> None:
    """FileFormatError for a file that the HDF5 library aborts, hangs or runs out of memory on.

    A file that another process may not open at all is left to the reader, which says it better.
    """
    guarded(check_hdf5, path, MOST_BYTES, seconds=READ_SECONDS, memory_bytes=READ_MEMORY)


class Tree:
    """A group of the file. Values are asked for by name, with what is allowed."""

    def __init__(self, group: h5py.Group, path: Path, kind: str, spent: list[int]) -> None:
        self._group, self._path, self._kind, self._spent = group, path, kind, spent

    def __contains__(self, name: str) -> bool:
        return self._group.get(name, getlink=True) is not None

    @property
    def names(self) -> list[str]:
        """Names of what lies in the group."""
        return list(self._group)

    def problem(self, name: str, found: str, allowed: str) -> FileFormatError:
        """Return the error for something in this group."""
        place = f"{self._group.name.rstrip('/')}/{name}" if name else self._group.name
        return FileFormatError(
            f"{self._path}: {place.lstrip('/') or 'the file'} {found}, allowed is {allowed}; it is "
            f"not {self._kind} as far as this program knows it, or it is damaged: export it again"
        )

    def group(self, name: str) -> Tree:
        """Return a group in this group."""
        item = self._own(name)
        if not isinstance(item, h5py.Group):
            raise self.problem(name, "is no group", "a group")
        return Tree(item, self._path, self._kind, self._spent)

    def is_group(self, name: str) -> bool:
        """Whether ``name`` is there and a group."""
        return name in self and isinstance(self._own(name), h5py.Group)

    def numbers(self, name: str, low: float, high: float, axes: Collection[int]) -> np.ndarray:
        """Return whole numbers in low..high with one of these counts of axes, int64."""
        data = self._dataset(name)
        if data.dtype.kind not in "iufb":
            raise self.problem(name, f"holds {data.dtype}", "numbers")
        if data.ndim not in axes:
            counts = " or ".join(map(str, sorted(axes)))
            raise self.problem(name, f"has shape {data.shape}", f"{counts} axes")
        value = np.asarray(data[()])
        if value.dtype.kind == "f":
            wrong = int((~np.isfinite(value)).sum())
            if wrong:
                raise self.problem(
                    name, f"holds {wrong} of {value.size} values NaN or infinite", "finite numbers"
                )
            odd = int((value != np.rint(value)).sum())
            if odd:
                raise self.problem(
                    name,
                    f"holds {odd} of {value.size} fractions, which lava-dl would cut",
                    "whole numbers",
                )
        if value.size and not low <= value.min() <= value.max() <= high:
            raise self.problem(
                name, f"spans {value.min():g}..{value.max():g}", f"{low:g}..{high:g}"
            )
        return value.astype(np.int64)

    def number(self, name: str, low: float, high: float) -> int:
        """Return one whole number in low..high, stored alone or as the only one of an array."""
        value = self.numbers(name, low, high, range(3))
        if value.size != 1:
            raise self.problem(name, f"holds {value.size} values", "one")
        return int(value.reshape(-1)[0])

    def text(self, name: str) -> str:
        """Return a short text, stored alone or as the only one of an array."""
        data = self._dataset(name)
        return self._decoded(name, data.dtype, data.size, lambda: np.asarray(data[()]))

    def attribute(self, name: str) -> str | None:
        """Return a text or whole number among the group's attributes as text, None if absent."""
        if name not in self._group.attrs:
            return None
        known = self._group.attrs.get_id(name)
        size = int(np.prod(known.shape)) if known.shape is not None else 0
        if known.dtype.kind in "iu" and size == 1:
            return str(int(np.asarray(self._group.attrs[name]).reshape(-1)[0]))
        return self._decoded(
            f"attribute {name}", known.dtype, size, lambda: np.asarray(self._group.attrs[name])
        )

    def _decoded(
        self, name: str, dtype: np.dtype, size: int, read: Callable[[], np.ndarray]
    ) -> str:
        fixed = dtype.kind == "S" and dtype.itemsize <= TEXT_MOST
        if size != 1 or not (fixed or h5py.check_string_dtype(dtype)):
            raise self.problem(name, f"holds {size} of {dtype}", "one short text")
        raw = read().reshape(-1)[0]
        if isinstance(raw, bytes):
            raw = raw.decode("utf-8", "replace")
        if not isinstance(raw, str) or len(raw) > TEXT_MOST:
            raise self.problem(name, "holds something long", f"a text of {TEXT_MOST} characters")
        return raw

    def _own(self, name: str) -> h5py.Group | h5py.Dataset:
        """Return what lies under a name in this file; links to elsewhere are refused unopened."""
        link = self._group.get(name, getlink=True)
        if link is None:
            raise self.problem(name, "is missing", "a dataset or group of that name")
        if not isinstance(link, h5py.HardLink):
            raise self.problem(name, f"is a {type(link).__name__}", "data of the file itself")
        return self._group[name]

    def _dataset(self, name: str) -> h5py.Dataset:
        data = self._own(name)
        if not isinstance(data, h5py.Dataset):
            raise self.problem(name, "is a group", "a dataset")
        if data.external or data.is_virtual:
            raise self.problem(name, "takes its values from other files", "values of its own")
        if data.shape is None:
            raise self.problem(name, "is empty", "values")
        self._spent[0] += data.size
        if self._spent[0] > MOST_VALUES:
            raise self.problem(
                name,
                f"declares {data.size} values, {self._spent[0]} with those before it",
                f"{MOST_VALUES} in a file",
            )
        if data.size * data.dtype.itemsize > _MAX_RATIO * max(data.id.get_storage_size(), 64):
            raise self.problem(
                name,
                f"declares {data.size} values in {data.id.get_storage_size()} bytes",
                "what its bytes can hold",
            )
        return data
