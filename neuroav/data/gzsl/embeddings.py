"""Text embeddings of class names, and which of them goes with which class.

A file ``word_embeddings_<set>_normed.npy`` is a 0-d object array that holds a pickled dictionary,
manual class name -> float32[300] of length one.

Rows can be aligned with classes in two ways. ``by_name``: class i gets the embedding of its own
manual name. ``avca_compat``: the loader that was published with the benchmark sorts embeddings by
manual name but numbers classes by sorted original name, so where these orders differ a class gets
another's embedding (79 of 101 classes of UCF). Published results were obtained that way.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neuroav.data.gzsl.classlists import RELEASE, ClassLists
from neuroav.data.gzsl.pickled import Stored, unpickled
from neuroav.errors import DataError, FileFormatError

DIMENSION = 300
_MAX_BYTES = 64 << 20  # the largest published file has 0.4 MB
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def read_embeddings(path: Path) -> dict[str, np.ndarray]:
    """Return manual class name -> float32 (300,).

    Nothing in the file is run. DataError if it is missing; FileFormatError if it is cut, not a
    dictionary of finite vectors of 300, or asks for anything but plain data.
    """
    found = _dictionary(path)
    embeddings = {}
    for name, stored in found.items():
        vector = stored.values if isinstance(stored, Stored) else None
        if not isinstance(name, str) or not isinstance(vector, np.ndarray):
            raise _wrong(path, f"an entry {name!r} that is no vector under a name")
        if vector.shape != (DIMENSION,) or vector.dtype.kind != "f":
            raise _wrong(path, f"{vector.dtype} {vector.shape} under {name!r}")
        with np.errstate(over="ignore"):
            vector = vector.astype(np.float32)
        if not np.isfinite(vector).all():
            raise _wrong(path, f"NaN or infinite values under {name!r}")
        embeddings[name] = vector
    if not embeddings:
        raise _wrong(path, "no embedding")
    return embeddings


def _wrong(path: Path, found: str) -> FileFormatError:
    return FileFormatError(
        f"{path}: found {found}, allowed is a dictionary of class name -> float32 ({DIMENSION},), "
        f"all finite; take the file from {RELEASE}"
    )


def _dictionary(path: Path) -> dict:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; it is part of {RELEASE}") from None
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err}") from None
    if len(content) > _MAX_BYTES:
        raise _wrong(path, f"more than {_MAX_BYTES >> 20} MB")
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        shape, _, dtype = _HEADERS[version](stream)
    # A damaged header fails with whatever its text leads to.
    except Exception as err:
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise _wrong(path, f"no header of an npy file ({reason})") from None
    if dtype != np.dtype(object) or shape != ():
        raise _wrong(path, f"an array {shape} of {dtype}")
    outer = unpickled(content[stream.tell() :], path, RELEASE)
    values = outer.values if isinstance(outer, Stored) else None
    if not isinstance(values, list) or len(values) != 1 or not isinstance(values[0], dict):
        raise _wrong(path, "no dictionary")
    return values[0]


def by_name(embeddings: Mapping[str, np.ndarray], lists: ClassLists) -> np.ndarray:
    """Return float32 (classes, 300): row i belongs to the manual name of class i.

    DataError unless the embeddings are those of the classes.
    """
    _require_same_names(embeddings, lists)
    return np.stack([embeddings[name] for name in lists.manual])


def avca_compat(embeddings: Mapping[str, np.ndarray], lists: ClassLists) -> np.ndarray:
    """Return float32 (classes, 300): row i is what the published loader uses for class i.

    DataError unless the embeddings are those of the classes.
    """
    _require_same_names(embeddings, lists)
    return np.stack([embeddings[name] for name in sorted(embeddings)])


def misaligned(lists: ClassLists) -> np.ndarray:
    """Return the classes whose name changes under ``avca_compat``, ascending int64."""
    return np.flatnonzero(np.array(lists.manual) != np.array(sorted(lists.manual)))


def _require_same_names(embeddings: Mapping[str, np.ndarray], lists: ClassLists) -> None:
    wrong = sorted(set(embeddings) ^ set(lists.manual))
    if wrong:
        side = "has no embedding" if wrong[0] in lists.manual else "is no class"
        raise DataError(
            f"{lists.benchmark.text}: {wrong[0]!r} {side} of {lists.folder / lists.benchmark.names}"
            f" ({len(wrong)} names differ); take both from {RELEASE}"
        )
