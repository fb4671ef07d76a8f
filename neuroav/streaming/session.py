"""A deployment on live input: one prediction per window, or per step, with what it took.

Latency of a prediction: from the moment that the last of its window (or step) was there to the
answer; waiting for an earlier window, the cochlea and the network are in it. Lag, in real time: how
long after the end of the window on the clock of the input the answer came. The real-time factor is
seconds of input answered per second of work (cutting, cochlea, network; waiting not counted).
"""

from __future__ import annotations

import resource
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroav.deployment import Deployment
from neuroav.errors import ConfigError, OutOfRange
from neuroav.sim.stepping import non_causal, require_causal
from neuroav.streaming.cutting import Cut, Cutter, EventCutter, SoundCutter
from neuroav.streaming.feed import Backlog, Feed, Piece
from neuroav.streaming.hearing import SoundEncoder
from neuroav.streaming.sensing import Sensing
from neuroav.streaming.stepper import Stepper, WindowRunner

MODES = ("auto", "step", "window")
RECENT = 10_000  # predictions whose latencies the summary is about


@dataclass(frozen=True)
class Prediction:
    """window: its number from 0. step: of it, None for a whole window. complete: whether the window
    is. time_us: its end, on the clock of the input. label, name: the class with the highest score,
    the first of equals. margin: to the second highest, None of one class. latency_ms, lag_ms (None
    unless in real time): see the module. events: counted in. dropped: windows lost just before this
    one, told where it is complete."""

    window: int
    step: int | None
    complete: bool
    time_us: int
    label: int
    name: str
    scores: tuple[int, ...]
    margin: int | None
    latency_ms: float
    lag_ms: float | None
    events: int
    dropped: int


@dataclass
class _Tally:
    windows: int = 0
    dropped: int = 0
    events: int = 0
    clipped: int = 0
    input_us: int = 0
    busy_s: float = 0.0
    largest_ms: float = 0.0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))


class Network:
    """A deployment that answers frames, already warm. mode: 'step' or 'window'."""

    def __init__(self, deployment: Deployment, mode: str, backend: str = "fast") -> None:
        self.deployment, self.graph, self.mode = deployment, deployment.integer, mode
        self.stepper = Stepper(deployment, backend) if mode == "step" else None
        self._runner = WindowRunner(deployment, backend) if mode == "window" else None
        self._warm()

    def _warm(self) -> None:
        """Run made-up frames, so that compiling loops is no latency of the first window: few events
        and many are added up in different ways."""
        rng, steps = np.random.default_rng(0), 1 if self.stepper else self.graph.steps
        for share in (0.0, 0.05, 1.0, 0.05):
            shapes = {n: (steps, *p.shape) for n, p in self.graph.inputs.items()}
            frames = {n: (rng.random(s) < share).astype(np.uint8) for n, s in shapes.items()}
            with suppress(OutOfRange):  # not what the sensors give
                self.scores(frames, first=True)

    def scores(self, frames: Mapping[str, np.ndarray], first: bool) -> np.ndarray:
        """Return the class scores (classes,) after frames (steps, *shape); first: of a window."""
        output = self.graph.output
        if self.stepper is None:
            assert self._runner
            return self._runner.run(frames, (output,))[output][-1].reshape(-1)
        if first:
            self.stepper.reset()
        one = {n: v[0] for n, v in frames.items()}
        return self.stepper.step(one, (output,))[output].reshape(-1)


class Session:
    """cutters: by input, of the senses that have a source; the other inputs get silence. encoder:
    of sound. hop_us: from one window to the next. realtime: windows that come too late are dropped
    and counted; else the sources wait."""

    def __init__(
        self,
        network: Network,
        cutters: Mapping[str, Cutter],
        encoder: SoundEncoder | None,
        *,
        hop_us: int,
        realtime: bool = False,
    ) -> None:
        self._network, self._cutters, self._encoder = network, cutters, encoder
        self._realtime, self._hop = realtime, hop_us
        paced = realtime and not all(c.live for c in cutters.values())  # a file beside a camera too
        self._feed = Feed(list(cutters.values()), hop_us, network.mode == "step", paced)
        self._tally, self._events = _Tally(), 0
        self._dropped = self._before = 0  # so far; just before the window in progress

    def __iter__(self) -> Iterator[Prediction]:
        """Yield predictions as they are found, until the input ends or ``close``."""
        backlog = Backlog(self._feed) if self._realtime else None
        source: Iterable[Piece] = backlog or self._feed
        begun = time.perf_counter()
        try:
            for piece in source:
                if self._realtime:
                    begun = time.perf_counter()
                found = self._answer(piece, backlog.dropped if backlog else 0)
                self._tally.busy_s += time.perf_counter() - begun
                yield found
                begun = time.perf_counter()
        finally:
            if backlog:
                backlog.close()
                self._tally.dropped = backlog.dropped
            self._feed.close()

    def _answer(self, piece: Piece, dropped: int) -> Prediction:
        frames, events, clipped = self._frames(piece)
        if not piece.step:
            self._before, self._dropped = dropped - self._dropped, dropped
            self._tally.dropped = dropped
        scores = self._network.scores(frames, first=not piece.step)
        now = time.perf_counter()
        self._events = events + (self._events if piece.step else 0)
        return self._told(piece, scores, now, clipped, events)

    def _told(self, piece: Piece, scores, now: float, clipped: int, events: int) -> Prediction:
        tally, lag = self._tally, None
        latency = 1000 * (now - piece.ready_s)
        if self._realtime:
            lag = 1000 * (now - self._feed.begun_s) - piece.end_us / 1000
        tally.events += events
        tally.clipped += clipped
        if piece.last:
            tally.windows += 1
            tally.input_us += self._hop
            tally.latencies.append(latency)
            tally.largest_ms = max(tally.largest_ms, latency)
        label, order = int(scores.argmax()), np.sort(scores)
        margin = int(order[-1] - order[-2]) if len(order) > 1 else None
        return Prediction(
            piece.window, piece.step, piece.last, piece.end_us, label,
            self._network.deployment.classes[label], tuple(int(s) for s in scores), margin,
            latency, lag, self._events, self._before if piece.last else 0,
        )  # fmt: skip

    def _frames(self, piece: Piece) -> tuple[dict[str, np.ndarray], int, int]:
        """Return what every input gets, (steps, *shape), and events counted in and lost."""
        steps = self._network.graph.steps if piece.step is None else 1
        frames, events, clipped = {}, 0, 0
        for name, pop in self._network.graph.inputs.items():
            cut = piece.cuts.get(name)
            if cut is None:
                frames[name] = np.zeros((steps, *pop.shape), np.uint8)
                continue
            frames[name], some, lost = self._encoded(cut)
            events, clipped = events + some, clipped + lost
        return frames, events, clipped

    def _encoded(self, cut: Cut) -> tuple[np.ndarray, int, int]:
        if cut.counts is not None:
            return cut.counts, cut.events, cut.clipped
        assert self._encoder is not None
        assert cut.samples is not None
        return self._encoder.frames(cut.samples)

    def close(self) -> None:
        """Let go of the sources, whether or not anything was iterated."""
        self._feed.close()

    def summary(self) -> dict[str, Any]:
        """Return what the session did so far, as plain JSON values."""
        tally, stepper = self._tally, self._network.stepper
        cutters = list(self._cutters.values())
        recent = np.array(tally.latencies)
        latency = {
            "median": float(np.median(recent)) if len(recent) else None,
            "p95": float(np.quantile(recent, 0.95)) if len(recent) else None,
            "largest": tally.largest_ms if len(recent) else None,
        }
        input_s = tally.input_us / 1e6
        return {
            "mode": self._network.mode,
            "windows": tally.windows,
            "dropped": tally.dropped,
            "partial": self._feed.partial,
            "ended": self._feed.ended,
            "events": tally.events,
            "clipped": tally.clipped,
            "late": sum(c.late for c in cutters if isinstance(c, EventCutter)),
            "outside": sum(c.outside for c in cutters if isinstance(c, EventCutter)),
            "lost_samples": sum(c.lost for c in cutters if isinstance(c, SoundCutter)),
            "input_s": input_s,
            "latency_ms": latency,
            "real_time_factor": input_s / tally.busy_s if tally.busy_s else None,
            "state_bytes": stepper.state_bytes if stepper else None,
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def chosen_mode(
    deployment: Deployment,
    sensing: Sensing,
    mode: str,
    *,
    heard: bool,
    hop_us: int,
    realtime: bool,
) -> str:
    """Return 'step' or 'window'. heard: whether sound is among the input.

    'auto' steps where nothing speaks against it and the input comes in real time. ConfigError or
    UnsupportedNode where steps are asked for and not possible.
    """
    if mode not in MODES:
        raise ConfigError(f"mode is {mode!r}; allowed are {', '.join(MODES)}")
    overlapping = hop_us < sensing.longest_us
    if mode == "auto":
        causal = not non_causal(deployment.integer)
        return "step" if realtime and causal and not heard and not overlapping else "window"
    if mode == "step":
        require_causal(deployment.integer)
        if heard:
            raise ConfigError(
                "mode 'step': sound becomes spikes a whole window at a time (its floor is the "
                "median of the window); use --mode window, or leave the sound out (--without audio)"
            )
        if overlapping:
            raise ConfigError(
                f"mode 'step': windows every {hop_us / 1000:g} ms overlap, for a sample spans "
                f"{sensing.longest_us / 1000:g} ms; a network has one state; use --mode window"
            )
    return mode
