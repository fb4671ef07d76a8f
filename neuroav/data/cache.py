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
``made_with`` (package versions, JSON; not part of the hash).
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuroav.data.ragged import Ragged
from neuroav.errors import DataError
from neuroav.files import SEAL_BYTES, seal, seal_problem

FORMAT = "neuroav-events"
VERSION = 2
SPLITS = ("train", "val", "test")
_MAX_RATIO = 1100  # deflate cannot do better than 1032:1; more is a damaged size field


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

    @property
    def content_hash(self) -> str:
        """sha256 over path, type, shape and bytes of every dataset in sorted order, hex."""
        return _digest(self.datasets())


def _digest(datasets: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for path in sorted(datasets):
        array = np.ascontiguousarray(datasets[path])
        digest.update(f"{path}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
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
    """Write the file under a temporary name beside ``path`` and rename it when complete.

    Whatever stops the writing, ``path`` is either as it was or complete. DataError if the folder
    cannot be written.
    """
    # Own name for each process: two may prepare the same data, and the last rename wins.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        with h5py.File(temporary, "x", userblock_size=SEAL_BYTES) as file:
            _write(file, recordings, made_with)
        seal(temporary)
        os.replace(temporary, path)
    except OSError as err:
        raise DataError(f"cannot write the data cache {path}: {err}") from err
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write(file: h5py.File, recordings: Recordings, made_with: dict[str, str]) -> None:
    datasets = recordings.datasets()
    for path, array in datasets.items():
        packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        file.create_dataset(path, data=array, **(packed if array.size > 1000 else {}))
    file.attrs["format"] = FORMAT
    file.attrs["version"] = VERSION
    file.attrs["content_hash"] = _digest(datasets)
    file.attrs["made_with"] = json.dumps(made_with, sort_keys=True)


def read(path: Path, remedy: str) -> Recordings:
    """Read and check a file of ``save``.

    DataError naming the file and the ``remedy`` if it is cut, altered, of another format or
    version. A damaged file is never repaired or replaced here.
    """
    try:
        if problem := seal_problem(path):
            raise DataError(problem)
        datasets, stored = _read_datasets(path)
        if _digest(datasets) != stored:
            raise DataError("its content does not match its hash")
        return _assemble(datasets)
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


def _read_datasets(path: Path) -> tuple[dict[str, np.ndarray], str]:
    limit = path.stat().st_size * _MAX_RATIO
    datasets: dict[str, np.ndarray] = {}
    with h5py.File(path, "r") as file:
        if file.attrs.get("format") != FORMAT:
            raise DataError(f"it is not a {FORMAT} file")
        if (version := int(file.attrs["version"])) != VERSION:
            raise DataError(f"it is of version {version}; this program reads {VERSION}")
        paths: list[str] = []
        file.visit(paths.append)
        for name in paths:
            if isinstance(node := file[name], h5py.Dataset):
                if node.size * node.dtype.itemsize > limit:
                    raise DataError(f"{name} claims {node.size} entries, more than the file holds")
                datasets[name] = node[()]
        return datasets, str(file.attrs["content_hash"])


def _assemble(datasets: dict[str, np.ndarray]) -> Recordings:
    def group(prefix: str) -> dict[str, np.ndarray]:
        return {
            path.removeprefix(prefix): array
            for path, array in datasets.items()
            if path.startswith(prefix)
        }

    def events(modality: str) -> Ragged | None:
        columns = group(f"{modality}/")
        return Ragged(columns, columns.pop("offsets")) if columns else None

    return Recordings(
        events("audio"),
        events("visual"),
        datasets["labels"],
        datasets["split"],
        json.loads(datasets["meta"].tobytes()),
        group("source/"),
    )
