"""Prepared recordings of a data set, and the one HDF5 file that caches them.

Layout of the file, N recordings, E events, times in microseconds from the start of a recording:

==================  ==========  ==========================================================
``audio/channel``   (E,) u1     cochlear channel, 0 = lowest frequency
``audio/time``      (E,) u4     us, ascending within a recording
``audio/offsets``   (N+1,) i8   recording i owns events offsets[i] .. offsets[i+1]-1
``visual/x``, ``y``  (E,) u1     pixel column and row
``visual/p``        (E,) u1     polarity, 1 = brighter
``visual/time``     (E,) u4     us
``visual/offsets``  (N+1,) i8
``labels``          (N,) i8     index into the classes
``split``           (N,) u1     0 train, 1 val, 2 test
``source/*``        (N, ...)    what recording i was made from (picture, voice, ...)
``meta``            (M,) u1     UTF-8 JSON: names, sizes, windows, parameters
==================  ==========  ==========================================================

Attributes of the root: ``format`` (= ``neuroav-events``), ``version``, ``content_hash`` and
``made_with`` (package versions, JSON; not part of the hash); of data read from files also
``manifest`` (sha256 of the manifest beside the file, see ``neuroav.data.ledger``).

Every dataset lies in one piece, uncompressed, at a multiple of 64 bytes, and is mapped into memory
when read: a recording costs no more than its own bytes, and processes that read the same file share
them. The file is sealed (``neuroav.files``). Seal and content hash are checked in constant memory.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from neuroav.data import exclusive
from neuroav.data.ragged import Ragged
from neuroav.errors import DataError
from neuroav.files import SEAL_BYTES, seal, seal_problem

FORMAT = "neuroav-events"
VERSION = 3
SPLITS = ("train", "val", "test")
KINDS = "biufS"  # of the arrays' types: numbers and byte strings of fixed length
_ALIGNMENT = 64  # bytes: no number lies across two cache lines
_BLOCK = 1 << 20  # bytes hashed at a time


class Form(NamedTuple):
    """Type and shape of an array."""

    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all entries."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


@dataclass(frozen=True)
class Recordings:
    """Paired recordings of a data set as events, in manifest order.

    audio: columns channel, time; visual: columns x, y, p, time (us); of data laid out otherwise
    (``meta["layout"]``, 'windowed' where it is not said) as its module says; None where a set lacks
    a modality. labels (N,) int64. split (N,) uint8, index into ``SPLITS``. source: arrays (N, ...)
    telling what each was made of. meta: at least name, preset, data_seed and classes; of windowed
    events also audio_channels, audio_window_us, sensor, visual_window_us. ``validation`` = 'test'
    where a protocol chooses by its test set, as published ones do.
    """

    audio: Ragged | None
    visual: Ragged | None
    labels: np.ndarray
    split: np.ndarray
    meta: dict[str, Any]
    source: dict[str, np.ndarray] = field(default_factory=dict)

    def datasets(self) -> dict[str, np.ndarray]:
        """Every array of the file by its path in it."""
        flat = {"labels": self.labels, "split": self.split}
        for modality, events in (("audio", self.audio), ("visual", self.visual)):
            if events is None:
                continue
            flat |= {f"{modality}/{name}": column for name, column in events.columns.items()}
            flat[f"{modality}/offsets"] = events.offsets
        flat |= {f"source/{name}": array for name, array in self.source.items()}
        text = json.dumps(self.meta, sort_keys=True)
        flat["meta"] = np.frombuffer(text.encode(), np.uint8)
        return flat

    @cached_property
    def content_hash(self) -> str:
        """sha256 over path, type, shape and bytes of every dataset in sorted order, hex.

        Worked out once; of recordings that ``read`` gave it is that of the file.
        """
        arrays = {p: np.ascontiguousarray(array) for p, array in self.datasets().items()}
        return _digest(
            (path, Form(a.dtype, a.shape), [a.reshape(-1).view(np.uint8)])
            for path, a in sorted(arrays.items())
        )


def _digest(datasets: Iterable[tuple[str, Form, Iterable[Any]]]) -> str:
    digest = hashlib.sha256()
    for path, form, blocks in datasets:
        digest.update(f"{path}|{form.dtype.str}|{form.shape}|".encode())
        for block in blocks:
            digest.update(block)
    return digest.hexdigest()


def require_folder(folder: Path) -> None:
    """Make the folder; DataError, before any long work, if files cannot be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise DataError(f"cannot make the data cache folder {folder}: {err}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"cannot write to the data cache folder {folder}")


def save(path: Path, recordings: Recordings, made_with: dict[str, str]) -> None:
    """Write the file in a working folder beside ``path`` and rename it when complete.

    Whatever stops the writing, ``path`` is either as it was or complete. DataError if the folder
    cannot be written.
    """
    try:
        with exclusive.replaced(path) as temporary:
            made = json.dumps(made_with, sort_keys=True)
            write_recordings(temporary, recordings, {"made_with": made})
    except OSError as err:
        raise DataError(f"cannot write the data cache {path}: {err}") from err


def write_recordings(path: Path, recordings: Recordings, attributes: Mapping[str, str]) -> None:
    """``write`` for recordings that are in memory."""
    datasets = recordings.datasets()

    def fill(put: Put) -> None:
        for name, array in datasets.items():
            put(name, 0, array)

    write(path, {p: Form(a.dtype, a.shape) for p, a in datasets.items()}, fill, attributes)


Put = Callable[[str, int, np.ndarray], None]


def write(
    path: Path,
    forms: Mapping[str, Form],
    fill: Callable[[Put], None],
    attributes: Mapping[str, str],
) -> None:
    """Write a sealed file whose arrays ``fill`` writes, piece by piece if it likes.

    forms: type and shape of every array by its path. fill: called once with ``put(path, row,
    rows)``. Equal forms, content and attributes give equal bytes. OSError where it cannot be
    written.
    """
    # HDF5 only lays the file out, in memory: where a disk is full it can end the whole process.
    skeleton = _Skeleton()
    options = {"alignment_threshold": 1, "alignment_interval": _ALIGNMENT}
    with open(path, "wb") as out:
        with h5py.File(skeleton, "w", userblock_size=SEAL_BYTES, **options) as file:
            for name, form in sorted(forms.items()):
                _make(file, name, form)
            places = _places(file, None)

            def put(name: str, row: int, rows: np.ndarray) -> None:
                form, start = places[name]
                data = np.ascontiguousarray(rows, form.dtype).reshape(-1).view(np.uint8)
                out.seek(start + row * (form.nbytes // max(form.shape[0], 1)))
                out.write(data.data)

            fill(put)
            out.flush()
            file.attrs["format"] = FORMAT
            file.attrs["version"] = VERSION
            file.attrs["content_hash"] = _file_digest(path, places)
            for name, text in attributes.items():
                file.attrs[name] = text
        skeleton.write_to(out)
    seal(path)


def _make(file: h5py.File, name: str, form: Form) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    # Its place is fixed at once, and nothing is written to it by HDF5.
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    file.create_dataset(name, form.shape, form.dtype, dcpl=properties)


class _Skeleton(io.RawIOBase):
    """What HDF5 writes of a file whose arrays it does not: a few pieces, kept in memory."""

    def __init__(self) -> None:
        self._pieces: dict[int, bytes] = {}  # in the order of writing; later ones overwrite
        self._at = self._size = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Move to a place; as files do."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def write(self, data: Any, /) -> int:
        """Keep a piece."""
        piece = bytes(data)
        self._pieces.pop(self._at, None)
        self._pieces[self._at] = piece
        self._at += len(piece)
        self._size = max(self._size, self._at)
        return len(piece)

    def truncate(self, size: int | None = None, /) -> int:
        """Set the size of the whole."""
        self._size = self._at if size is None else size
        return self._size

    def readinto(self, data: Any, /) -> int:
        """Refuse: HDF5 keeps what it needs of a new file in its own memory."""
        raise OSError("a file that is being laid out cannot be read")

    def write_to(self, out: Any) -> None:
        """Write the pieces to their places in a real file, and give it its size."""
        for at, piece in self._pieces.items():
            out.seek(at)
            out.write(piece)
        out.truncate(self._size)


def read(path: Path, remedy: str, *, verify: bool = True) -> Recordings:
    """Read and check a file of ``save``; its arrays are mapped, and cannot be written to.

    DataError naming the file and the ``remedy`` if it is cut, altered, of another format or
    version. A damaged file is never repaired or replaced here. verify: False leaves out the passes
    over all bytes, for a file that this program has just written.
    """
    try:
        if verify and (problem := seal_problem(path)):
            raise DataError(problem)
        with h5py.File(path, "r") as file:
            _require_format(file)
            places = _places(file, path.stat().st_size)
            stored = str(file.attrs["content_hash"])
        if verify and _file_digest(path, places) != stored:
            raise DataError("its content does not match its hash")
        return _assemble(_mapped(path, places), stored)
    except DataError as err:
        raise DataError(f"data cache {path}: {err}; {remedy}") from None
    except PermissionError as err:
        raise DataError(f"data cache {path} cannot be read: {err}") from None
    # h5py reports damage as whatever the broken structure led to.
    except (
        OSError,
        KeyError,
        ValueError,
        RuntimeError,
        TypeError,
        AttributeError,
        MemoryError,
    ) as err:
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise DataError(f"data cache {path} is damaged ({reason}); {remedy}") from None


def attribute(path: Path, name: str) -> str | None:
    """A text attribute of a file that ``read`` has accepted, None where it has none so called."""
    with h5py.File(path, "r") as file:
        found = file.attrs.get(name)
    return None if found is None else str(found)


def _require_format(file: h5py.File) -> None:
    if file.attrs.get("format") != FORMAT:
        raise DataError(f"it is not a {FORMAT} file")
    if (version := int(file.attrs["version"])) != VERSION:
        raise DataError(f"it is of version {version}; this program reads {VERSION}")


def _places(file: h5py.File, size: int | None) -> dict[str, tuple[Form, int]]:
    """Form of every array and where its bytes begin in the file of ``size`` bytes."""
    found: dict[str, tuple[Form, int]] = {}

    def look(name: str, node: Any) -> None:
        if not isinstance(node, h5py.Dataset):
            return
        form = Form(node.dtype, node.shape)
        if form.dtype.kind not in KINDS:
            raise DataError(f"{name} holds {form.dtype}; allowed are numbers and byte strings")
        properties = node.id.get_create_plist()
        start = node.id.get_offset() if form.nbytes else 0
        in_one = properties.get_layout() == h5py.h5d.CONTIGUOUS
        if not in_one or properties.get_external_count() or start is None:
            raise DataError(f"{name} does not lie in one piece")
        if size is not None and start + form.nbytes > size:
            raise DataError(f"{name} claims {node.size} entries, more than the file holds")
        found[name] = form, start

    file.visititems(look)
    return dict(sorted(found.items()))


def _file_digest(path: Path, places: Mapping[str, tuple[Form, int]]) -> str:
    with open(path, "rb") as file:

        def blocks(start: int, left: int) -> Iterator[bytes]:
            file.seek(start)
            while left and (block := file.read(min(left, _BLOCK))):
                left -= len(block)
                yield block

        return _digest(
            (name, form, blocks(start, form.nbytes)) for name, (form, start) in places.items()
        )


def _mapped(path: Path, places: Mapping[str, tuple[Form, int]]) -> dict[str, np.ndarray]:
    whole = np.memmap(path, np.uint8, "r")  # one mapping, and one open file, for all arrays
    return {
        name: whole[start : start + form.nbytes].view(form.dtype).reshape(form.shape)
        for name, (form, start) in places.items()
    }


def _assemble(datasets: dict[str, np.ndarray], content_hash: str) -> Recordings:
    def group(prefix: str) -> dict[str, np.ndarray]:
        return {
            path.removeprefix(prefix): array
            for path, array in datasets.items()
            if path.startswith(prefix)
        }

    made = Recordings(
        _ragged("audio", group("audio/")),
        _ragged("visual", group("visual/")),
        datasets["labels"],
        datasets["split"],
        json.loads(datasets["meta"].tobytes()),
        group("source/"),
    )
    per_item: dict[str, Any] = {f"source/{name}": array for name, array in made.source.items()}
    per_item |= {"split": made.split, "audio": made.audio, "visual": made.visual}
    for name, array in per_item.items():
        if array is not None and len(array) != len(made.labels):
            raise DataError(f"{name} is of {len(array)} recordings, labels of {len(made.labels)}")
    vars(made)["content_hash"] = content_hash  # known, so it need not be worked out
    return made


def _ragged(modality: str, columns: dict[str, np.ndarray]) -> Ragged | None:
    if not columns:
        return None
    events = Ragged(columns, columns.pop("offsets"))
    ends = {len(column) for column in columns.values()}
    rising = events.offsets[0] == 0 and bool((events.counts >= 0).all())
    if not rising or ends != {int(events.offsets[-1])}:
        raise DataError(f"{modality}/offsets do not fit the columns beside them")
    return events
