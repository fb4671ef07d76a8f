"""Read arrays out of pickles without letting a pickle call anything.

A pickle is a program: it names functions and calls them. Of those that numpy's arrays need, each
is replaced here by a stand-in that only notes what it is given; every other name and every opcode
that plain data does not need is refused before anything happens. Not even numpy's own functions
are called with what a file says, as these trust sizes and types that a file can state wrongly.

What is read: dict, list, tuple, str, bytes, numbers, None, and arrays of numbers, strings or
objects, as numpy 1 and 2 write them.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.errors import FileFormatError

ALLOWED = "arrays, numbers, strings, lists and dictionaries"

_PLAIN = """
PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT
SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8 SHORT_BINUNICODE BINUNICODE BINUNICODE8
EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS
BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD
"""
_OPCODES = frozenset(_PLAIN.split())
_NUMBERS = re.compile(r"f[248]|[iu][1248]|b1|[SU][0-9]{1,4}")


class _Refused(Exception):
    """The pickle asks for something that is not plain data."""


class Stored:
    """A pickled array. values: ndarray, or a list of the objects of an object array of 0 or 1
    dimensions; None until the pickle has said."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: np.ndarray | list[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.values = _decoded(raw, dtype, shape, bool(fortran))


class _Dtype:
    __slots__ = ("code", "order")

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        if not isinstance(code, str) or not (code in ("O", "O8") or _NUMBERS.fullmatch(code)):
            raise _Refused(f"numbers of type {code!r}")
        self.code, self.order = code, "|"

    def __setstate__(self, state: Any) -> None:
        _, order, *structure = state
        if any(part is not None for part in structure[:3]):
            raise _Refused("a structured type")
        if order not in ("<", ">", "|", "="):
            raise ValueError(f"byte order {order!r}")
        self.order = order


class _StandIn:
    """Takes the place of a numpy function; a pickle can call it but not change it."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("altering a function")


def _decoded(raw: Any, dtype: Any, shape: Any, fortran: bool) -> np.ndarray | list[Any]:
    if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple):
        raise ValueError("an array without type or shape")
    if not all(type(size) is int and 0 <= size < 1 << 40 for size in shape):
        raise ValueError(f"an array of shape {shape}")
    if dtype.code.startswith("O"):
        if not isinstance(raw, list) or len(raw) != prod(shape) or len(shape) > 1:
            raise ValueError(f"an object array of shape {shape} that does not match its content")
        return raw
    kind = np.dtype(dtype.order + dtype.code)
    if not isinstance(raw, (bytes, bytearray)) or len(raw) != prod(shape) * kind.itemsize:
        raise ValueError(f"an array {shape} of {kind} that does not match its content")
    if not raw:
        return np.zeros(shape, kind)
    flat = np.frombuffer(raw, kind)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _reconstruct(kind: Any, shape: Any, code: Any) -> Stored:
    return Stored()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any) -> Stored:
    stored = Stored()
    stored.values = _decoded(raw, dtype, shape, order == "F")
    return stored


def _scalar(dtype: Any, raw: Any) -> Any:
    values = _decoded(raw, dtype, (), False)
    if isinstance(values, list):
        raise _Refused("a scalar object")
    return values[()]


def _no_call(*args: Any) -> Any:
    raise _Refused("making an array of a size it states")


_GLOBALS: dict[tuple[str, str], _StandIn] = {
    ("numpy", "ndarray"): _StandIn(_no_call),
    ("numpy", "dtype"): _StandIn(_Dtype),
} | {
    (f"numpy.{core}.{module}", call.__name__.replace("_scalar", "scalar")): _StandIn(call)
    for core in ("core", "_core")  # numpy 1, numpy 2
    for module, call in (
        ("multiarray", _reconstruct),
        ("multiarray", _scalar),
        ("numeric", _frombuffer),
    )
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _GLOBALS:
            raise _Refused(f"{module}.{name}")
        return _GLOBALS[module, name]


def unpickled(content: bytes, path: Path, source: str) -> Any:
    """Return what a pickle holds, arrays as ``Stored``.

    ``path`` and ``source`` (where to get the file again) are for the message. FileFormatError if
    it is cut, damaged, or asks for anything but plain data, with the name asked for.
    """
    try:
        _check_opcodes(content)
        return _Unpickler(io.BytesIO(content)).load()
    except _Refused as err:
        raise FileFormatError(
            f"{path}: refused, its pickle asks for {err}; allowed are {ALLOWED}. Nothing of it was "
            f"run; take the file from {source}"
        ) from None
    # A damaged pickle fails with whatever its broken program leads to.
    except Exception as err:
        reason = str(err).splitlines()[0] if str(err) else type(err).__name__
        raise FileFormatError(
            f"{path}: cut or damaged ({reason}); take the file from {source} again"
        ) from None


def _check_opcodes(content: bytes) -> None:
    """Refuse opcodes that plain data does not need, and sizes beyond the content's."""
    for opcode, argument, position in pickletools.genops(content):
        if opcode.name not in _OPCODES:
            raise _Refused(f"the operation {opcode.name}")
        # An index makes room for all below it; every honest one took a byte or more to reach.
        if opcode.name == "LONG_BINPUT" and int(argument or 0) > int(position or 0):
            raise ValueError(f"memo index {argument} at byte {position}")
