"""Windows cut out of endless input, in constant memory.

Window w of a sense begins at ``w * hop`` and spans what a sample of that sense spans: its events
are counted in the cells that ``neuroav.data.frames`` defines, as they come; of sound the samples
are kept until the window is complete. At any time there are the windows in progress (one, or
span / hop of them where they overlap) and one block of the source.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from neuroav.data.frames import MAX_COUNT
from neuroav.streaming.sensing import Hearing, Sight
from neuroav.streaming.sources import EventBlock, Events, EventSource, SoundSource, no_events

WAIT_S = 0.02  # at most, before a source is asked whether to stop
Stop = Callable[[], bool]


@dataclass(frozen=True, eq=False)
class Cut:
    """What a sense gave in a window or a step of it.

    counts: uint8 (steps, *shape) of events; None for sound, whose samples are encoded later: fewer
    than a window's where the source ends in it, so that its level is that of the sound alone.
    events: counted in. clipped: lost because a cell was full.
    """

    counts: np.ndarray | None
    samples: np.ndarray | None
    events: int = 0
    clipped: int = 0


class Cutter(Protocol):
    """One sense. span_us: of a window. end_us: where its source ended, None before."""

    name: str
    span_us: int
    end_us: int | None
    live: bool
    steps: int

    def begin(self) -> None:
        """Time begins now."""

    def fill(self, until_us: int, stop: Stop) -> None:
        """Take in what came before ``until_us``; returns earlier at the end or to stop."""

    def take(self, window: int) -> Cut:
        """Return a whole window, which is then forgotten with all before it."""

    def row(self, window: int, step: int) -> Cut:
        """Return one step of a window; the last one forgets it."""

    def close(self) -> None: ...


class EventCutter:
    """Events of a camera. late: events that came after their step was taken; some may have found
    another window. outside: of no window or no pixel of the frame."""

    live: bool

    def __init__(self, source: EventSource, sight: Sight, steps: int, hop_us: int) -> None:
        self.name, self.span_us, self.live = sight.name, sight.window_us, source.live
        self.steps, self.late, self.outside = steps, 0, 0
        self.end_us: int | None = None
        self._source, self._sight, self._hop = source, sight, hop_us
        self._shape = (steps, *sight.shape)
        self._pending: Events = no_events()
        self._clock = self._filled = 0  # all before these came; all before these were counted
        self._latest = -1  # time of the latest event
        self._first = 0  # window that is not yet taken
        self._open: dict[int, np.ndarray] = {}
        self._cells = _Cells(sight)

    def begin(self) -> None:
        self._source.begin()

    def fill(self, until_us: int, stop: Stop) -> None:
        self._count(until_us)
        while self._clock < until_us and self.end_us is None and not stop():
            block = self._source.read(WAIT_S)
            if block is None:
                self.end_us = max(self._clock, self._latest) + 1 if self._latest >= 0 else 0
                break
            self._keep(block)
            self._count(until_us)
        self._filled = max(self._filled, until_us)

    def _keep(self, block: EventBlock) -> None:
        self._clock = max(self._clock, block.until_us)
        self._latest = max(self._latest, int(block.events["time"].max(initial=-1)))
        self.late += int(np.count_nonzero(block.events["time"] < self._filled))
        if len(self._pending["time"]):
            both = (self._pending, block.events)
            self._pending = {n: np.concatenate([e[n] for e in both]) for n in both[0]}
        else:
            self._pending = block.events

    def _count(self, until_us: int) -> None:
        """Count the pending events before ``until_us`` in every window that holds them."""
        times = self._pending["time"]
        now = times < until_us
        if not now.any():
            return
        some = {n: c[now] for n, c in self._pending.items()}
        self._pending = {n: c[~now] for n, c in self._pending.items()}
        cell, inside = self._cells.of(some)
        times = some["time"][inside]
        self.outside += len(now) - int(np.count_nonzero(~now)) - len(times)
        if not len(times):
            return
        low = (int(times.min()) - self.span_us) // self._hop + 1
        found = np.zeros(len(times), bool)
        for window in range(max(self._first, low), int(times.max()) // self._hop + 1):
            step = (times - window * self._hop) * self.steps // self.span_us
            here = (step >= 0) & (step < self.steps)
            if here.any():
                flat = step[here] * self._cells.count + cell[here]
                size = self.steps * self._cells.count
                counts = np.bincount(flat, minlength=size)
                self._open[window] = self._open.get(window, 0) + counts
                found |= here
        self.outside += int(np.count_nonzero(~found))

    def take(self, window: int) -> Cut:
        counts = self._of(window)
        self._forget(window)
        return self._cut(counts)

    def row(self, window: int, step: int) -> Cut:
        counts = self._of(window)[step : step + 1]
        if step == self.steps - 1:
            self._forget(window)
        return self._cut(counts)

    def _of(self, window: int) -> np.ndarray:
        found = self._open.get(window)
        return np.zeros(self._shape, np.int64) if found is None else found.reshape(self._shape)

    def _forget(self, window: int) -> None:
        self._first = window + 1
        for old in [w for w in self._open if w <= window]:
            del self._open[old]

    def _cut(self, counts: np.ndarray) -> Cut:
        most = min(MAX_COUNT, self._sight.max_count)
        kept = np.minimum(counts, most)
        total = int(kept.sum())
        return Cut(kept.astype(np.uint8), None, total, int(counts.sum()) - total)

    def close(self) -> None:
        self._source.close()


class _Cells:
    """Where an event falls in a frame: the sensor's middle, cut to a multiple of the frame's size
    and binned; for 34x34 pixels and 16x16 or 32x32 cells as ``frames.bin_visual``."""

    def __init__(self, sight: Sight) -> None:
        self._polarities, self._rows, self._columns = sight.shape
        self.count = int(np.prod(sight.shape))
        width, height = sight.sensor
        self._scale = min(width // self._columns, height // self._rows)
        self._left = (width - self._scale * self._columns) // 2
        self._top = (height - self._scale * self._rows) // 2

    def of(self, events: Events) -> tuple[np.ndarray, np.ndarray]:
        """Return the cell of every event inside, and which are."""
        x = (events["x"] - self._left) // self._scale
        y = (events["y"] - self._top) // self._scale
        inside = (x >= 0) & (x < self._columns) & (y >= 0) & (y < self._rows)
        p = events["p"] if self._polarities == 2 else np.zeros_like(events["p"])
        return ((p * self._rows + y) * self._columns + x)[inside], inside


class SoundCutter:
    """Samples of sound, handed on window by window."""

    live: bool

    def __init__(self, source: SoundSource, hearing: Hearing, steps: int, hop_us: int) -> None:
        self.name, self.span_us, self.live = hearing.name, hearing.window_us, source.live
        self.steps = steps
        self.end_us: int | None = None
        self._source, self._hop, self._rate = source, hop_us, source.rate
        self._blocks: deque[np.ndarray] = deque()
        self._begin = self._came = 0  # samples: where the kept ones begin, how many there were
        self._next = 0  # sample that the next window begins at
        self._size = round(self._rate * self.span_us / 1e6)

    @property
    def lost(self) -> int:
        """Samples that the source could not take in time."""
        return self._source.lost

    def begin(self) -> None:
        self._source.begin()

    def fill(self, until_us: int, stop: Stop) -> None:
        # one more, for a window begins and ends at whole samples
        wanted = -(-until_us * self._rate // 1_000_000) + 1
        while self._came < wanted and self.end_us is None and not stop():
            block = self._source.read(WAIT_S)
            if block is None:
                self.end_us = self._came * 1_000_000 // self._rate
                break
            self._came += len(block)
            self._blocks.append(block)
            self._let_go()

    def _let_go(self) -> None:
        """Forget whole blocks before the next window."""
        while self._blocks and self._begin + len(self._blocks[0]) <= self._next:
            self._begin += len(self._blocks.popleft())

    def take(self, window: int) -> Cut:
        start = self._start(window)
        kept = np.concatenate([np.empty(0, np.int16), *self._blocks])[max(0, start - self._begin) :]
        samples = kept[: self._size].copy()
        self._next = self._start(window + 1)
        self._let_go()
        return Cut(None, samples)

    def row(self, window: int, step: int) -> Cut:
        raise NotImplementedError("sound is encoded a whole window at a time")

    def _start(self, window: int) -> int:
        return round(window * self._hop * self._rate / 1e6)

    def close(self) -> None:
        self._source.close()
