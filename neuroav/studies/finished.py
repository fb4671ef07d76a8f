"""Finished chunks of a simulation, kept in a folder, so that a killed run goes on from them.

``request.json`` says which run they belong to, and the samples of a chunk; every
``chunk-<number of the first sample>`` is a sha256 and, behind it, an .npz with the outputs of all
populations. One that is damaged goes and is computed again. A folder with the chunks of another
run, or with other files, is refused and stays as it is. When the run is whole its files go, and the
folder too.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuroav import __version__
from neuroav.data import exclusive
from neuroav.errors import ConfigError, ExecutorError, NeuroavError
from neuroav.files import written_whole
from neuroav.studies.chunks import Packed, pack

REQUEST = "request.json"
_CHUNK = "chunk-"
_HASH_BYTES = 32


def request_of(content_hash: str, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return what names a run: version, deployment, samples, and a hash of all that is fed."""
    digest = hashlib.sha256()
    for name in sorted(inputs):
        x = np.ascontiguousarray(inputs[name])
        digest.update(f"{name} {x.dtype.str} {x.shape}\n".encode())
        digest.update(x.data)
    return {
        "neuroav": __version__,
        "deployment": content_hash,
        "samples": len(next(iter(inputs.values()))),
        "inputs": digest.hexdigest(),
    }


@dataclass(frozen=True)
class Finished:
    """Outputs of chunks by the number of their first sample; made by ``finished``.

    size: samples of a chunk. known: those that an earlier call finished.
    """

    folder: Path
    size: int
    known: frozenset[int]

    def get(self, first: int) -> dict[str, Packed]:
        """Return a known chunk's outputs; ExecutorError where they were taken away meanwhile."""
        found = _read(_path(self.folder, first))
        if found is None:
            raise ExecutorError(
                f"{_path(self.folder, first)} was changed or removed while this run used it; run "
                "again"
            )
        return found

    def add(self, first: int, outputs: Mapping[str, np.ndarray | Packed]) -> None:
        """Keep a chunk's outputs."""
        _write(_path(self.folder, first), outputs)


@contextmanager
def finished(folder: Path, request: Mapping[str, Any], size: int) -> Iterator[Finished]:
    """Yield the chunks in ``folder``, which stay where the block ends early, to go on from.

    size: samples of a chunk where none is there yet. ConfigError for a folder of another run or
    with other files, or where another process works in it. As with ``partial.kept``, the chunks go
    where the block ends in an expected error, but not where workers were lost (ExecutorError).
    """
    _check(folder)
    _stated(folder, request)  # both before a lock is put into it
    with exclusive.alone(folder, _busy(folder)):
        size = _claimed(folder, request, size)
        known = {f for f in range(0, request["samples"], size) if _sound(_path(folder, f))}
        try:
            yield Finished(folder, size, frozenset(known))
        except ExecutorError:
            raise
        except NeuroavError:
            exclusive.clear(folder)
            raise
        exclusive.clear(folder)


def _busy(folder: Path) -> Callable[[], None]:
    def refuse() -> None:
        raise ConfigError(f"{folder}: another run works in it; wait for it, or choose another")

    return refuse


def _check(folder: Path) -> None:
    """Raise ConfigError where something else than parts of a run is in the folder."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder}: is a file; choose a folder for the parts of the run")
    there = {n for n in exclusive.content(folder) or () if not _is_part(n)}
    foreign = sorted(n for n in there if n != REQUEST and not n.startswith(_CHUNK))
    if foreign or (there and REQUEST not in there):
        raise ConfigError(
            f"{folder}: holds other files than parts of a run ({(foreign or sorted(there))[0]}); "
            "choose another folder"
        )


def _is_part(name: str) -> bool:
    """Return whether a killed process was writing this (``written_whole``)."""
    return name.startswith((f".{REQUEST}.", f".{_CHUNK}")) and name.endswith(".part")


def _claimed(folder: Path, request: Mapping[str, Any], size: int) -> int:
    """Return the samples of a chunk in this folder, which belongs to the request from now on."""
    for name in filter(_is_part, os.listdir(folder)):
        (folder / name).unlink()
    if (stated := _stated(folder, request)) is not None:
        return stated
    with written_whole(folder / REQUEST) as part:
        part.write_text(json.dumps({**request, "size": size}), encoding="utf-8")
    return size


def _stated(folder: Path, request: Mapping[str, Any]) -> int | None:
    """Return the samples of a chunk, None where no run is begun; ConfigError for another run's."""
    path = folder / REQUEST
    if not path.exists():
        return None
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
        size = stated.pop("size")
        if type(size) is not int or size < 1:
            raise ValueError(size)
    except (ValueError, AttributeError, KeyError, TypeError):
        raise ConfigError(
            f"{path}: is damaged, so nobody can tell whose parts these are; delete the folder, or "
            "choose another"
        ) from None
    if stated != request:
        differs = ", ".join(k for k in request if stated.get(k) != request[k])
        raise ConfigError(
            f"{folder}: holds parts of another run (other {differs}); finish that one, delete the "
            "folder, or choose another"
        )
    return size


def _path(folder: Path, first: int) -> Path:
    return folder / f"{_CHUNK}{first:010d}"


def _sound(path: Path) -> bool:
    """Return whether a whole chunk is there; one that is damaged is removed."""
    found = _read(path) is not None
    if not found:
        path.unlink(missing_ok=True)
    return found


def _write(path: Path, outputs: Mapping[str, np.ndarray | Packed]) -> None:
    packed = {n: v if isinstance(v, Packed) else pack(v) for n, v in outputs.items()}
    about = [[n, p.shape, p.dtype] for n, p in packed.items()]
    arrays = [np.frombuffer(p.content, np.uint8) for p in packed.values()]
    payload = io.BytesIO()
    np.savez(payload, np.frombuffer(json.dumps(about).encode(), np.uint8), *arrays)
    with written_whole(path) as part:
        part.write_bytes(hashlib.sha256(payload.getbuffer()).digest() + payload.getbuffer())


def _read(path: Path) -> dict[str, Packed] | None:
    """Return the outputs in a file, None where it is not there or not as it was written."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if hashlib.sha256(content[_HASH_BYTES:]).digest() != content[:_HASH_BYTES]:
        return None
    with np.load(io.BytesIO(content[_HASH_BYTES:]), allow_pickle=False) as arrays:
        about, *contents = (arrays[name] for name in arrays.files)
    return {
        name: Packed(tuple(shape), dtype, content.tobytes())
        for (name, shape, dtype), content in zip(json.loads(about.tobytes()), contents, strict=True)
    }
