"""Pieces of input, cut from all senses on one clock and handed to the network.

The windows of all senses begin together, every ``hop``. A piece is a window, complete when the
longest of its spans is over, or one step of it. Input ends where its first source does. A window
that the end cuts is filled up with silence and answered if it is the first, or if at least half of
it was there for every sense; otherwise it is left out, and ``partial`` says so.

``Feed`` yields pieces one after the other: nothing is ever lost, the sources wait. ``Backlog`` runs
a feed in a thread of its own, because the world does not wait: one whole window may be waiting for
the network; when the next one begins, the waiting one is dropped and counted.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from neuroav.errors import DataError
from neuroav.streaming.cutting import Cut, Cutter

_PATIENCE_S = 0.1  # between two looks whether to stop
_JOIN_S = 1.0


@dataclass(frozen=True, eq=False)
class Piece:
    """A window, or one step of it. start_us, end_us: on the clock of the input. step: its number,
    None for a whole window. ready_s: when the last of it was there (time.perf_counter)."""

    window: int
    step: int | None
    last: bool
    start_us: int
    end_us: int
    cuts: Mapping[str, Cut]
    ready_s: float


@dataclass
class Feed:
    """hop_us: from one window to the next. by_step: whether pieces are steps. paced: whether pieces
    are held back until their time has come."""

    cutters: Sequence[Cutter]
    hop_us: int
    by_step: bool = False
    paced: bool = False
    partial: bool = field(default=False, init=False)
    ended: str | None = field(default=None, init=False)
    begun_s: float = field(default=0.0, init=False)
    _stop: threading.Event = field(default_factory=threading.Event, init=False)

    def __iter__(self) -> Iterator[Piece]:
        """Yield pieces until the input ends or ``stop`` is called; errors of the sources."""
        for cutter in self.cutters:
            cutter.begin()
        self.begun_s = time.perf_counter()
        steps = self.cutters[0].steps
        for window in count():
            for step in range(steps) if self.by_step else [steps - 1]:
                ends = {c.name: self._end(c, window, step) for c in self.cutters}
                for cutter in self.cutters:
                    cutter.fill(ends[cutter.name], self._stop.is_set)
                if self._stop.is_set() or not self._worth(window, ends):
                    return
                end = max(ends.values())
                self._wait(end)
                if self.by_step:
                    cuts = {c.name: c.row(window, step) for c in self.cutters}
                else:
                    cuts = {c.name: c.take(window) for c in self.cutters}
                which = step if self.by_step else None
                last, now = step == steps - 1, time.perf_counter()
                yield Piece(window, which, last, window * self.hop_us, end, cuts, now)
                if self._stop.is_set():
                    return

    def _end(self, cutter: Cutter, window: int, step: int) -> int:
        """Return where a step of a window ends for a sense: its first later microsecond."""
        return window * self.hop_us - (-cutter.span_us * (step + 1) // cutter.steps)

    def _worth(self, window: int, ends: Mapping[str, int]) -> bool:
        """Return whether a window is answered, which the end of a source may have cut."""
        for cutter in self.cutters:
            if cutter.end_us is None or cutter.end_us >= ends[cutter.name]:
                continue
            self.ended = self.ended or cutter.name
            seen = cutter.end_us - window * self.hop_us
            if not window and seen <= 0:
                raise DataError(f"{cutter.name}: its source ended without anything in it")
            if seen <= 0 or (window and 2 * seen < cutter.span_us):
                self.partial = seen > 0
                return False
        return True

    def _wait(self, end_us: int) -> None:
        if self.paced:
            left = self.begun_s + end_us / 1e6 - time.perf_counter()
            if left > 0:
                self._stop.wait(left)

    def stop(self) -> None:
        """Make the iteration end soon, from any thread."""
        self._stop.set()

    def close(self) -> None:
        """Stop, and let go of the sources."""
        self.stop()
        for cutter in self.cutters:
            cutter.close()


class _Unit:
    """Pieces of one window that have come and are not yet answered."""

    def __init__(self, window: int) -> None:
        self.window, self.started = window, False
        self.pieces: deque[Piece] = deque()


class Backlog:
    """A feed run by a thread; iterating gives its pieces, late windows dropped. dropped: how many
    so far."""

    def __init__(self, feed: Feed) -> None:
        self.dropped = 0
        self._feed, self._units = feed, deque[_Unit]()
        self._changed = threading.Condition()
        self._over = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="neuroav-stream", daemon=True)

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            for piece in self._feed:
                self._put(piece)
        except BaseException as found:  # whatever it is belongs to who iterates
            error = found
        with self._changed:
            self._over, self._error = True, error
            self._changed.notify()

    def _put(self, piece: Piece) -> None:
        with self._changed:
            if not self._units or self._units[-1].window != piece.window:
                self._make_room()
                self._units.append(_Unit(piece.window))
            self._units[-1].pieces.append(piece)
            self._changed.notify()

    def _make_room(self) -> None:
        for unit in [u for u in self._units if not u.started]:
            self._units.remove(unit)
            self.dropped += 1

    def __iter__(self) -> Iterator[Piece]:
        self._thread.start()
        while (piece := self._get()) is not None:
            yield piece

    def _get(self) -> Piece | None:
        with self._changed:
            while not (self._units and self._units[0].pieces):
                if self._over:
                    if self._error:
                        raise self._error
                    return None
                self._changed.wait(_PATIENCE_S)
            unit = self._units[0]
            unit.started = True
            piece = unit.pieces.popleft()
            if piece.last:
                self._units.popleft()
            return piece

    def close(self) -> None:
        """Stop the thread; a read that blocks for ever ends with the process."""
        self._feed.stop()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
