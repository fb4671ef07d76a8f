"""Read files in a process of its own, with limits on time and memory.

HDF5, FFmpeg and image libraries trust what they read: a damaged file can make them hang, abort the
process, corrupt its memory, or ask for more memory than there is. ``guarded`` calls a reader where
none of that matters, and turns it into one error that names the file.

    events = guarded(read_utterance, path, "train", "man-ae-a-1")

A helper process, started at the first call (a third of a second), imports the reader's module and
what this names in ``PRELOAD``, then copies itself for every call (milliseconds): a file cannot
harm the reading of the next. All of it leaves with this process, however that ends. Linux only.

``guarded`` uses one helper per process; a ``GuardedReader`` is a helper of one's own.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from neuroav.data.formats import _wire
from neuroav.errors import ExecutorError, FileFormatError

Result = TypeVar("Result")

SECONDS = 60.0
MEMORY_BYTES = 2 << 30
_GRACE = 60.0  # seconds beyond the limit in which the helper itself must answer: it also imports
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from neuroav.data.formats._worker import serve; serve(*map(int, sys.argv[2:]))"
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class NotSurvived(FileFormatError):
    """A file that its reader did not survive. how: 'time', 'memory', 'death' of the process, or
    'exception', one that the reader does not expect."""

    how = ""


class _Gone(Exception):
    """The helper itself is gone, not the copy that reads."""


class GuardedReader:
    """A helper process of one's own; a context manager. May be used from several threads, which
    take turns, and in copies (fork) of this process, each of which starts its own."""

    def __init__(self, *, seconds: float = SECONDS, memory_bytes: int = MEMORY_BYTES) -> None:
        self.seconds, self.memory_bytes = seconds, memory_bytes
        self._lock, self._owner = threading.Lock(), os.getpid()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipes: tuple[int, int] = (-1, -1)
        self._left: list[Any] = []

    def __enter__(self) -> GuardedReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(
        self,
        function: Callable[..., Result],
        *args: Any,
        seconds: float | None = None,
        memory_bytes: int | None = None,
        **kwargs: Any,
    ) -> Result:
        """Return function(*args, **kwargs), called in a copy of the helper.

        function: importable by its module and name. It returns arrays of numbers or texts, numbers,
        texts, bytes, lists, tuples, mappings, and dataclasses of its own module, of these.
        seconds: limit on the time. memory_bytes: limit on what it may allocate, in address space.
        Raises the expected errors (``NeuroavError``) of the function unchanged, and NotSurvived, a
        FileFormatError naming the file (the first text or path among the arguments), where it
        hangs, dies, needs more memory, or ends in any other exception. ExecutorError where the
        helper itself cannot run.
        """
        home = _home(function)
        limits = (
            self.seconds if seconds is None else seconds,
            self.memory_bytes if memory_bytes is None else memory_bytes,
        )
        place = next((str(a) for a in args if isinstance(a, (str, Path))), function.__qualname__)
        request = pickle.dumps((function.__module__, function.__qualname__, args, kwargs, *limits))
        if self._owner != os.getpid():
            self._forget()
        with self._lock:
            answer = self._asked(request, limits[0])
        return _result(answer, home, place, *limits)

    def close(self) -> None:
        """End the helper. It starts again if it is asked again."""
        if self._owner != os.getpid():
            self._forget()
        with self._lock:
            self._stop()

    def _asked(self, request: bytes, seconds: float) -> bytearray:
        for last in (False, True):
            try:
                if self._process is None:
                    self._start()
                return self._exchange(request, seconds + _GRACE)
            except (_Gone, BrokenPipeError):
                self._stop()
                if last:
                    raise ExecutorError(
                        "the process that reads files ends at once; its error is above: is neuroav "
                        "whole, and is there memory to start a process?"
                    ) from None
            except BaseException:  # also Ctrl-C: a half-read answer must not meet the next request
                self._stop()
                raise
        raise AssertionError

    def _start(self) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        numbers = (theirs_in, theirs_out, os.getpid())
        command = [sys.executable, "-c", _START, json.dumps(sys.path), *map(str, numbers)]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs_in, theirs_out),
                env=os.environ | dict.fromkeys(_THREADS, "1"),
            )
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self._pipes = (ours_in, ours_out)

    def _exchange(self, request: bytes, seconds: float) -> bytearray:
        ours_in, ours_out = self._pipes
        view = memoryview(len(request).to_bytes(8, "little") + request)
        while len(view):
            view = view[os.write(ours_out, view) :]
        end = time.monotonic() + seconds
        size = int.from_bytes(_taken(ours_in, 8, end), "little")
        return _taken(ours_in, size, end)

    def _stop(self) -> None:
        if self._process is None:
            return
        for pipe in self._pipes:
            os.close(pipe)
        self._process.kill()
        self._process.wait()
        self._process = None

    def _forget(self) -> None:
        """In a copy of this process: leave the helper to the original."""
        self._lock, self._owner = threading.Lock(), os.getpid()
        if self._process is not None:
            for pipe in self._pipes:
                os.close(pipe)
            self._left.append(self._process)  # a Popen must not be waited for in a copy
        self._process = None


def _home(function: Callable[..., Any]) -> Any:
    home = sys.modules.get(function.__module__ or "")
    found: Any = home
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is not function or function.__module__ == "__main__":
        raise ValueError(
            f"{function!r} cannot be called in another process: it must be a function of a module "
            "that can be imported"
        )
    return home


def _taken(source: int, size: int, end: float) -> bytearray:
    found = bytearray(size)
    view, place = memoryview(found), 0
    while place < size:
        if not select.select([source], [], [], max(end - time.monotonic(), 0))[0]:
            raise _Gone
        got = os.readv(source, [view[place : place + (1 << 20)]])
        if not got:
            raise _Gone
        place += got
    return found


def _result(answer: bytearray, home: Any, place: str, seconds: float, memory: int) -> Any:
    kind, rest = chr(answer[0]), answer[1:]
    if kind == "r":
        return _wire.decoded(rest, home)
    if kind == "e":
        raise _wire.error_from(json.loads(rest))
    error = NotSurvived(f"{place}: {_reason(kind, rest, seconds, memory)}")
    error.how = {"t": "time", "m": "memory", "d": "death"}.get(kind, "exception")
    raise error


def _reason(kind: str, rest: bytearray, seconds: float, memory: int) -> str:
    again = "it is damaged, or made to break readers; fetch it again"
    if kind == "t":
        return (
            f"reading it did not end within {seconds:g} s: {again}, or give its reader more time "
            "where the storage is slow"
        )
    if kind == "m":
        return f"reading it needs more than {memory / 2**20:.0f} MiB of memory: {again}"
    if kind == "x":
        facts = json.loads(rest)
        return f"cannot be read ({facts['type']}: {facts['line']}): {again}"
    code = json.loads(rest)
    how = f"with exit code {code}" if code >= 0 else f"by {_signal(-code)}"
    hint = " (is there memory left?)" if -code == signal.SIGKILL else ""
    return f"the process that read it was ended {how}{hint}: {again}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_shared: GuardedReader | None = None
_sharing = threading.Lock()


def guarded(
    function: Callable[..., Result],
    *args: Any,
    seconds: float = SECONDS,
    memory_bytes: int = MEMORY_BYTES,
    **kwargs: Any,
) -> Result:
    """Return function(*args, **kwargs), called where it can do no harm: ``GuardedReader`` says how.

    The helper is shared by all calls of this process and ends with it.
    """
    global _shared
    with _sharing:
        if _shared is None:
            _shared = GuardedReader()
            atexit.register(_shared.close)
    return _shared(function, *args, seconds=seconds, memory_bytes=memory_bytes, **kwargs)
