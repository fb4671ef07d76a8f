"""Pieces of work in several processes, each of which does many; one that dies is replaced.

With one job the work is done in this process. With more, that many processes are started (spawned:
the threads of numerical libraries do not survive a fork) and do one piece after the other. A
process that dies, as one does that the system ends for want of memory, is replaced and its piece
begun again; after ``ATTEMPTS`` deaths at the same piece that is an error. Whatever ends this
process ends those as well, even a kill. Each process notes in a file ``at-<n>`` of the working
folder how many items of its piece it has begun: that outlives it, and costs less than a message.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from neuroav.data import exclusive
from neuroav.errors import ExecutorError, NeuroavError

ATTEMPTS = 3
_LOOK_S = 0.2  # between two looks at how far the processes are, and whether they live
_NOTE_BYTES = 8


class Told(Protocol):
    """Who is told what happens: items of a piece begun, a piece done, a process that died at one.

    begun: how many items of the piece; perhaps not told for each. item: the name of the n-th.
    """

    def begun(self, piece: int, items: int) -> None: ...

    def done(self, piece: int) -> None: ...

    def died(self, piece: int) -> None: ...

    def item(self, piece: int, number: int) -> str: ...


Work = Callable[[int, Callable[[int], None]], None]


def carry_out(work: Work, pieces: Sequence[int], jobs: int, folder: Path, told: Told) -> None:
    """Do ``work(piece, begun)`` for every piece; it calls ``begun(n)`` before item n, from 1.

    work: importable and picklable if jobs > 1. folder: the working folder, see ``exclusive``.
    Raises the first error of a piece, and ends the other processes then. ExecutorError, naming the
    item, for one at which processes die.
    """
    if jobs > 1:
        _Team(work, min(jobs, len(pieces)), folder, told).carry_out(pieces)
        return
    for piece in pieces:

        def begun(items: int, piece: int = piece) -> None:
            told.begun(piece, items)

        work(piece, begun)
        told.done(piece)


class _Worker:
    """A process, the piece it is at (None: it waits) and how many items of it are begun."""

    def __init__(self, context: Any, folder: Path, number: int) -> None:
        note = folder / f"at-{number}"
        self._note = os.open(note, os.O_RDWR | os.O_CREAT, 0o644)
        self.pipe, theirs = context.Pipe()
        # No daemon: readers may start processes of their own. The work, which can be large, comes
        # through the pipe: a process that is killed while it takes its arguments hangs this one.
        self.process = context.Process(target=_serve, args=(theirs, folder, note))
        self.process.start()
        theirs.close()  # so that the pipe ends when the process does
        self.piece: int | None = None
        self._knows_work = False

    @property
    def begun(self) -> int:
        return int.from_bytes(os.pread(self._note, _NOTE_BYTES, 0), "little")

    def give(self, piece: int, work: Work) -> None:
        self.piece = piece
        os.pwrite(self._note, bytes(_NOTE_BYTES), 0)
        with suppress(OSError):  # it has died: the end of the pipe will be met when it is read
            if not self._knows_work:
                self.pipe.send(work)
                self._knows_work = True
            self.pipe.send(piece)

    def end(self) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()
        os.close(self._note)


class _Team:
    def __init__(self, work: Work, size: int, folder: Path, told: Told) -> None:
        # here, because Lava decides how processes start if it comes first (neuroav.sim.lava)
        from multiprocessing import get_context

        self._context = get_context("spawn")
        self._work, self._size, self._folder, self._told = work, size, folder, told
        self._members: list[_Worker] = []
        self._started = 0
        self._deaths: Counter[int] = Counter()

    def carry_out(self, pieces: Sequence[int]) -> None:
        left = deque(pieces)
        try:
            while self._deal(left):
                for worker in self._heard():
                    self._hear(worker, left)
        finally:
            for worker in self._members:
                worker.end()

    def _deal(self, left: deque[int]) -> bool:
        """Give every worker a piece while there are any; whether there is something to wait for."""
        busy = sum(worker.piece is not None for worker in self._members)
        while len(self._members) < min(self._size, busy + len(left)):
            self._members.append(_Worker(self._context, self._folder, self._started))
            self._started += 1
        for worker in self._members:
            if left and worker.piece is None:
                worker.give(left.popleft(), self._work)
        return any(worker.piece is not None for worker in self._members)

    def _heard(self) -> list[_Worker]:
        """The workers at work that have said something or died."""
        from multiprocessing.connection import wait

        busy = [worker for worker in self._members if worker.piece is not None]
        ready = wait([worker.pipe for worker in busy], timeout=_LOOK_S)
        for worker in busy:
            if worker.piece is not None:
                self._told.begun(worker.piece, worker.begun)
        return [w for w in busy if w.pipe in ready or not w.process.is_alive()]

    def _hear(self, worker: _Worker, left: deque[int]) -> None:
        piece = worker.piece
        assert piece is not None
        kind, value = "died", None  # type: tuple[str, Any]
        try:
            # of a dead process whose pipe is held open by another there may be nothing to read
            if worker.pipe.poll():
                kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            pass
        if kind == "done":
            worker.piece = None
            self._told.done(piece)
        elif kind == "error":
            raise value
        elif kind == "defect":
            raise RuntimeError(f"{self._item(worker)}, in a process of its own:\n{value}")
        else:
            self._bury(worker, piece)
            left.appendleft(piece)

    def _item(self, worker: _Worker) -> str:
        return f"item {self._told.item(worker.piece or 0, worker.begun)!r}"

    def _bury(self, worker: _Worker, piece: int) -> None:
        """Take a dead worker off; ExecutorError where too many have died at this piece."""
        item, begun = self._item(worker), worker.begun
        self._members.remove(worker)
        worker.end()
        code = worker.process.exitcode or 0
        self._deaths[piece] += 1
        why = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        if not begun and code > 0:
            raise ExecutorError(
                f"a process of this command ended {why} before its first item; its error is above"
            )
        if self._deaths[piece] >= ATTEMPTS:
            raise ExecutorError(
                f"{item}: the process that converts it ended {why}, as it or others "
                f"of its part did {ATTEMPTS} times; is there memory for as many --jobs?"
            )
        self._told.died(piece)


def _serve(pipe: Any, folder: Path, place: Path) -> None:
    """Take the work from the pipe, then do the pieces that it names until it ends."""
    from multiprocessing import parent_process

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent ends its processes
    parent = parent_process()
    assert parent is not None
    try:
        known = exclusive.join_workers(folder)
        note = os.open(place, os.O_RDWR)
    except FileNotFoundError:  # the parent is gone, and another one has finished
        return
    if not parent.is_alive():  # and perhaps another one is at work here already
        return
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    try:
        work = pipe.recv()
        while True:
            piece = pipe.recv()
            pipe.send(_outcome(work, piece, lambda n: _note(note, n)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    finally:
        os.close(note)
        os.close(known)


def _note(handle: int, items: int) -> None:
    os.pwrite(handle, items.to_bytes(_NOTE_BYTES, "little"), 0)


def _outcome(work: Work, piece: int, begun: Callable[[int], None]) -> tuple[str, Any]:
    try:
        work(piece, begun)
    except NeuroavError as error:
        return "error", error
    except Exception:
        return "defect", traceback.format_exc()
    return "done", None


def _leave_with(parent: Any) -> None:
    """End this process as soon as its parent is gone, however that ended."""
    parent.join()
    os._exit(1)
