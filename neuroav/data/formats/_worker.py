"""The process in which files that nobody trusts are read. Started by ``guarded``.

It imports what readers need once, and then makes a copy of itself (fork) for every call: a few
milliseconds, and whatever a damaged file does to the copy (corrupts its memory, hangs, dies) ends
with the copy. It has one thread and reads no file itself, so it can be copied at any time.

Request: 8 bytes length, a pickle (from the trusted side) of (module, name, arguments, keywords,
seconds, bytes of memory). Answer: 8 bytes length, one letter, and behind it

    r  a result           e  an expected error    x  any other exception: its type and first line
    m  out of memory      d  the copy died: signal or exit code     t  out of time
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import pickle
import resource
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from neuroav.data.formats import _wire
from neuroav.errors import NeuroavError

_PR_SET_PDEATHSIG = 1
_TICK = 1.0  # seconds between looks at whether the parent is there
_MARGIN = 1 << 20  # bytes that an answer may be longer than the memory it was made in


def serve(requests: int, answers: int, parent: int) -> None:
    """Answer requests from one file descriptor on the other until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent ends this process
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc = ctypes.CDLL(None)
    while (request := _received(requests, parent)) is not None:
        answer = _answered(request, requests, parent, libc)
        if answer is None:
            return
        _write(answers, [len(answer).to_bytes(8, "little"), answer])


def _received(requests: int, parent: int) -> bytes | None:
    head = _read(requests, 8, parent)
    return None if head is None else _read(requests, int.from_bytes(head, "little"), parent)


def _read(source: int, size: int, parent: int) -> bytes | None:
    """Return so many bytes, None when the parent is gone."""
    found = bytearray()
    while len(found) < size:
        if not select.select([source], [], [], _TICK)[0]:
            if os.getppid() != parent:
                return None
            continue
        if not (block := os.read(source, min(size - len(found), 1 << 20))):
            return None
        found += block
    return bytes(found)


def _write(target: int, parts: list[Any]) -> None:
    for part in parts:
        view = memoryview(part).cast("B")
        while len(view):
            view = view[os.write(target, view[: 1 << 20]) :]


def _answered(request: bytes, requests: int, parent: int, libc: Any) -> bytes | None:
    """Return the answer to a request, None when the parent is gone."""
    try:
        module, name, arguments, keywords, seconds, memory = pickle.loads(request)
        function = _found(module, name)
    except Exception as error:  # the caller asked for something that cannot be imported here
        return b"x" + _facts(error)

    ours, theirs = os.pipe()
    this = os.getpid()
    child = os.fork()
    if child == 0:
        try:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == this:
                _carry_out(lambda: function(*arguments, **keywords), theirs, memory)
        finally:
            os._exit(70)
    os.close(theirs)
    try:
        return _watched(child, ours, requests, parent, seconds, memory + _MARGIN)
    finally:
        os.close(ours)


def _found(module: str, name: str) -> Callable[..., Any]:
    home = importlib.import_module(module)
    # Imported here once, not in every copy.
    for package in getattr(home, "PRELOAD", ()):
        with suppress(ImportError):  # the function says so itself
            importlib.import_module(package)
    found: Any = home
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _carry_out(work: Callable[[], Any], answer: int, memory: int) -> None:
    """Do the work inside a copy and write what came of it. Does not return."""
    silent = os.open(os.devnull, os.O_WRONLY)  # FFmpeg and HDF5 print what they meet
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    with open("/proc/self/statm") as file:
        start = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = start + memory if most == resource.RLIM_INFINITY else min(start + memory, most)
    resource.setrlimit(resource.RLIMIT_AS, (limit, most))
    try:
        parts = [b"r", *_wire.encoded(work())]
    except NeuroavError as error:
        parts = [b"e", json.dumps(_wire.error_facts(error)).encode()]
    except MemoryError:
        parts = [b"m"]
    except BaseException as error:
        parts = [b"x", _facts(error)]
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    size = sum(len(part) for part in parts)
    _write(answer, [size.to_bytes(8, "little"), *parts])
    os._exit(0)


def _facts(error: BaseException) -> bytes:
    line = (str(error).splitlines() or [""])[0][:500]
    return json.dumps({"type": type(error).__name__, "line": line}).encode()


def _watched(
    child: int, source: int, requests: int, parent: int, seconds: float, most: int
) -> bytes | None:
    """Collect the answer of a copy, within its time; None when the parent is gone."""
    found, end, ended = bytearray(), time.monotonic() + seconds, False
    while not ended:
        left = end - time.monotonic()
        ready = select.select([source, requests], [], [], max(min(left, _TICK), 0))[0]
        if requests in ready or os.getppid() != parent:  # nothing is sent now but the end
            _end(child)
            return None
        if source in ready:
            block = os.read(source, 1 << 20)
            found += block
            ended = not block
            if len(found) > most:
                _end(child)
                return b"m"
        elif left <= 0:
            _end(child)
            return b"t"
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    whole = len(found) > 8 and len(found) - 8 == int.from_bytes(found[:8], "little")
    return bytes(found[8:]) if whole else b"d" + json.dumps(code).encode()


def _end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
