"""How results and errors come back from the process that reads a file nobody trusts.

A pickle from there would be a program of that process, so there is none: a message is a JSON tree
of numbers, texts, lists, tuples and mappings, and behind it the bytes of the arrays it names.
Dataclasses come back if the module of the function that was called defines them, errors if this
process knows their class.

message = 8 bytes length of the tree, the tree, then every array at a multiple of 16 bytes.
"""

from __future__ import annotations

import json
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from neuroav.errors import NeuroavError

_ALIGN = 16
_DTYPE = re.compile(r"[<>|=]?([biufc][0-9]{1,2}|[SU][0-9]{1,9})")


def encoded(value: Any) -> list[bytes | memoryview]:
    """Return the parts of the message that holds a value; TypeError for what cannot be sent."""
    buffers: list[bytes | memoryview] = []
    tree = json.dumps(_outline(value, buffers)).encode()
    parts: list[bytes | memoryview] = [len(tree).to_bytes(8, "little"), tree]
    parts.append(bytes(-(8 + len(tree)) % _ALIGN))
    for buffer in buffers:
        parts += [buffer, bytes(-len(buffer) % _ALIGN)]
    return parts


def _outline(value: Any, buffers: list[bytes | memoryview]) -> Any:
    if isinstance(value, np.generic) and value.dtype.kind in "biufSU":
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.ndarray):
        if not _DTYPE.fullmatch(value.dtype.str):
            raise TypeError(f"an array of {value.dtype} cannot be sent")
        kept = np.ascontiguousarray(value)
        buffers.append(kept.reshape(-1).view(np.uint8).data if kept.nbytes else b"")
        return {"array": [value.dtype.str, list(value.shape)]}
    if isinstance(value, (bytes, bytearray)):
        buffers.append(bytes(value))
        return {"bytes": len(value)}
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_outline(v, buffers) for v in value]}
    if isinstance(value, dict):
        return {"map": [[_outline(k, buffers), _outline(v, buffers)] for k, v in value.items()]}
    if is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: _outline(getattr(value, f.name), buffers) for f in fields(value)}
        return {"made": [type(value).__name__, parts]}
    raise TypeError(f"a {type(value).__name__} cannot be sent")


def decoded(message: bytearray, home: ModuleType | None) -> Any:
    """Return the value of a message. home: the module whose dataclasses it may hold.

    ValueError for a message that is not whole. Arrays can be written to.
    """
    size = int.from_bytes(message[:8], "little")
    if len(message) < 8 + size:
        raise ValueError("a message that is cut")
    tree = json.loads(bytes(message[8 : 8 + size]))
    return _Building(message, 8 + size + -(8 + size) % _ALIGN, home).value(tree)


class _Building:
    def __init__(self, message: bytearray, start: int, home: ModuleType | None) -> None:
        self.message, self.place, self.home = message, start, home

    def _taken(self, size: int) -> memoryview:
        start, self.place = self.place, self.place + size + -size % _ALIGN
        if size < 0 or start + size > len(self.message):
            raise ValueError("a message that is cut")
        return memoryview(self.message)[start : start + size]

    def value(self, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        ((kind, held),) = tree.items()
        if kind == "array":
            return self._array(*held)
        if kind == "bytes":
            return bytes(self._taken(held))
        if kind == "path":
            return Path(held)
        if kind == "map":
            return {self.value(k): self.value(v) for k, v in held}
        if kind == "made":
            made = getattr(self.home, held[0], None)
            if not (isinstance(made, type) and is_dataclass(made)):
                raise ValueError(f"no dataclass {held[0]!r}")
            return made(**{name: self.value(v) for name, v in held[1].items()})
        return (tuple if kind == "tuple" else list)(self.value(v) for v in held)

    def _array(self, code: str, shape: list[int]) -> np.ndarray:
        if not _DTYPE.fullmatch(code):
            raise ValueError(f"an array of {code!r}")
        dtype, size = np.dtype(code), 1
        for length in shape:
            size *= length
        raw = self._taken(size * dtype.itemsize)
        return np.frombuffer(raw, dtype).reshape(shape) if size else np.zeros(shape, dtype)


def error_facts(error: NeuroavError) -> dict[str, Any]:
    """Return what is sent of an expected error: its classes, from its own up, text and rule."""
    kinds = [[k.__module__, k.__qualname__] for k in type(error).__mro__]
    return {"kinds": kinds, "text": str(error), "rule": error.rule}


def error_from(facts: dict[str, Any]) -> NeuroavError:
    """Return an expected error that was sent, as the nearest class that this process knows."""
    known = {(k.__module__, k.__qualname__): k for k in _family(NeuroavError)}
    kind = next(known[tuple(k)] for k in facts["kinds"] if tuple(k) in known)
    return kind(facts["text"], rule=facts["rule"])


def _family(kind: type[NeuroavError]) -> list[type[NeuroavError]]:
    return [kind, *(k for child in kind.__subclasses__() for k in _family(child))]
