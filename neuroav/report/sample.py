"""Pictures of one sample: its events, the spikes they cause, and how the class scores grow.

Cells and dots become SVG path data in cell units; the templates stretch them. Nothing here knows
HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroav import integer as ig
from neuroav.report.format import count, percent
from neuroav.report.measure import Measured
from neuroav.simulate import UNKNOWN

MAX_RASTERS = 12
MAX_FRAMES = 16
_RASTER_CELLS, _RASTER_ROWS = 4096, 128
_MAX_EVENTS = 6000
_TONES = 10  # greys of a spectrogram
_LEVELS = (1, 2, 3, 4)  # event counts told apart by shade; the last stands for more too


@dataclass(frozen=True)
class Raster:
    """Cells of a grid: SVG path data by shade 0..1; width and height in cells.

    dotted: the paths are points, to be stroked, not areas.
    """

    title: str
    note: str
    width: float
    height: float
    paths: tuple[tuple[float, str], ...]
    dotted: bool = False


@dataclass(frozen=True)
class Frame:
    """One step of the visual input: cells with ON and with OFF events."""

    step: int
    width: int
    height: int
    on: str
    off: str


@dataclass(frozen=True)
class Line:
    """Class scores over steps, as points of a polyline in a box of 100 by 100."""

    name: str
    points: str
    end: float
    role: str


@dataclass(frozen=True)
class Scores:
    """lines: all classes, the important ones last; zero: height of score 0, None if outside."""

    lines: tuple[Line, ...]
    zero: float | None
    floats: tuple[tuple[float, str], ...]
    ranking: tuple[tuple[str, float, float, str], ...]


@dataclass(frozen=True)
class SampleView:
    """index: number of the sample in its split; rasters: inputs that have no drawing of their own,
    then spiking populations; facts: what is known of the recording."""

    index: int
    audio: Raster | None
    spectrogram: Raster | None
    frames: tuple[Frame, ...]
    picture: Raster | None
    rasters: tuple[Raster, ...]
    scores: Scores
    facts: tuple[str, ...]


def sample_view(run: Measured) -> SampleView:
    """Return the pictures of the sample that ``run`` kept."""
    shown, deployment = run.shown, run.deployment
    graph, raw = deployment.integer, shown.raw
    source = raw["source"] if raw else {}
    audio: Raster | None = None
    frames: tuple[Frame, ...] = ()
    rest: list[Raster] = []
    for name in graph.inputs:
        counts = shown.outputs[name]
        if name == "audio" and counts.ndim == 4:
            audio = audio_events(raw) if raw else audio_input(counts)
        elif name == "visual" and counts.ndim == 4 and counts.shape[1] == 2:
            frames = visual_frames(counts)
        elif not isinstance(graph.populations[name], ig.IntHostCurrent):  # no messages to show
            rest.append(raster(name, counts))
    spiking = [n for n in graph.order if isinstance(graph.populations[n], ig.IntLif)]
    rest += [raster(n, shown.outputs[n]) for n in _evenly(spiking, MAX_RASTERS)]
    return SampleView(
        index=shown.index,
        audio=audio,
        spectrogram=spectrogram(source["spectrogram"], raw["audio_window_us"])
        if raw and audio and "spectrogram" in source
        else None,
        frames=frames,
        picture=picture(source["picture"]) if "picture" in source and frames else None,
        rasters=tuple(rest),
        scores=scores(
            shown.outputs[graph.output],
            graph.scales[graph.output],
            run.real.scores[shown.index],
            deployment.classes,
            shown.label,
        ),
        facts=_facts(source) if audio else (),
    )


def _evenly(items: Sequence[str], most: int) -> list[str]:
    """Return at most ``most`` items, the first and the last among them."""
    places = np.linspace(0, max(len(items) - 1, 0), min(len(items), most)).round().astype(int)
    return [items[i] for i in places]


def _facts(source: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what is known of how the sound was made, in words."""
    facts = []
    if isinstance(voice := source.get("voice"), bytes):
        facts.append(f"voice {voice.decode(errors='replace')}")
    if "snr_db" in source and np.isfinite(source["snr_db"]):
        facts.append(f"signal to noise {float(source['snr_db']):.1f}\u202fdB")
    return tuple(facts)


def runs(active: np.ndarray, height: float = 1.0) -> str:
    """Return path data covering the true cells of a (rows, columns) grid, run by run."""
    padded = np.zeros((active.shape[0], active.shape[1] + 2), np.int8)
    padded[:, 1:-1] = active
    change = np.diff(padded, axis=1)
    rows, starts = np.nonzero(change == 1)
    _, ends = np.nonzero(change == -1)
    return "".join(
        f"M{s} {r}h{e - s}v{height:g}h{s - e}z" for r, s, e in zip(rows, starts, ends, strict=True)
    )


def shaded(counts: np.ndarray) -> tuple[tuple[float, str], ...]:
    """Return (shade, path) for each level of event counts in a (rows, columns) grid."""
    found = []
    for level in _LEVELS:
        cells = counts >= level if level == _LEVELS[-1] else counts == level
        if cells.any():
            found.append((round(0.25 + 0.75 * level / _LEVELS[-1], 2), runs(cells)))
    return tuple(found)


def audio_input(counts: np.ndarray) -> Raster:
    """Return the binned audio input (steps, bands, rows, fine bins): channel over time."""
    steps, bands, rows, fine = counts.shape
    grid = counts.transpose(1, 2, 0, 3).reshape(bands * rows, steps * fine)[::-1]
    note = f"{bands * rows} channels, {steps} steps of {fine} bins; low channels below"
    return Raster("Audio input", note, steps * fine, bands * rows, shaded(grid))


def audio_events(raw: Mapping[str, Any]) -> Raster:
    """Return the recorded audio events as dots: channel over time in ms."""
    channel, time = (np.asarray(raw["audio"][key], np.int64) for key in ("channel", "time"))
    window = raw["audio_window_us"] / 1000
    kept = _thin(len(time))
    dots = "".join(
        f"M{t / 1000:.4g} {raw['audio_channels'] - c - 0.5:g}h0"
        for c, t in zip(channel[kept], time[kept], strict=True)
        if t < raw["audio_window_us"]
    )
    note = f"{count(len(time))} events in {count(window)}\u202fms, {raw['audio_channels']} channels"
    if len(kept) < len(time):
        note += f"; {count(len(kept))} of them drawn"
    return Raster("Audio events", note, window, raw["audio_channels"], ((1.0, dots),), True)


def spectrogram(levels: np.ndarray, window_us: int) -> Raster:
    """Return the sound as grey cells from (channels, cells) levels in dB.

    White is the level that a quarter of the cells stay below: noise and silence stay pale.
    """
    channels, cells = levels.shape
    floor, top = float(np.quantile(levels, 0.25)), float(levels.max())
    tones = np.round((levels[::-1] - floor) * (_TONES / max(top - floor, 1)))
    paths = ((tone / _TONES, runs(tones == tone)) for tone in range(1, _TONES + 1))
    note = (
        f"{channels} bands, {window_us / 1000 / cells:g}\u202fms a cell, "
        f"{top - floor:.0f}\u202fdB from white to black"
    )
    return Raster("Sound spectrogram", note, cells, channels, tuple(p for p in paths if p[1]))


def _thin(total: int) -> np.ndarray:
    """Return places of at most ``_MAX_EVENTS`` events, evenly chosen."""
    return np.unique(np.linspace(0, max(total - 1, 0), min(total, _MAX_EVENTS)).astype(np.int64))


def visual_frames(counts: np.ndarray) -> tuple[Frame, ...]:
    """Return the frames of a visual input (steps, 2, rows, columns), at most ``MAX_FRAMES``."""
    steps, _, rows, columns = counts.shape
    chosen = np.unique(np.linspace(0, steps - 1, min(steps, MAX_FRAMES)).round().astype(int))
    return tuple(
        Frame(int(t) + 1, columns, rows, runs(counts[t, 1] > 0), _insets(counts[t, 0] > 0))
        for t in chosen
    )


def _insets(active: np.ndarray) -> str:
    """Return path data of a smaller square inside every true cell."""
    rows, columns = np.nonzero(active)
    return "".join(
        f"M{c + 0.22:g} {r + 0.22:g}h.56v.56h-.56z" for r, c in zip(rows, columns, strict=True)
    )


def picture(levels: np.ndarray) -> Raster:
    """Return a small grey picture with levels 0..16."""
    paths = tuple(
        (round(level / 16, 3), runs(levels == level)) for level in np.unique(levels) if level
    )
    rows, columns = levels.shape
    return Raster("Picture shown to the camera", "", columns, rows, paths)


def raster(title: str, output: np.ndarray) -> Raster:
    """Return which neurons sent a message in which step; a fixed random choice if many."""
    flat = output.reshape(len(output), -1).T != 0
    rows = max(16, min(_RASTER_ROWS, _RASTER_CELLS // flat.shape[1]))
    total, sent = len(flat), int(flat.sum())
    note = f"{count(sent)} messages, {percent(flat.mean())} of neuron steps"
    if total > rows:
        kept = np.sort(np.random.default_rng(0).choice(total, rows, replace=False))
        flat = flat[kept]
        note += f"; {rows} of {count(total)} neurons drawn"
    return Raster(title, note, flat.shape[1], len(flat), ((1.0, runs(flat)),))


def scores(
    outputs: np.ndarray,
    scale: tuple[int, int],
    floating: np.ndarray,
    classes: Sequence[str],
    label: int,
) -> Scores:
    """Return deployed class scores over steps and the float network's final ones.

    outputs: (steps, classes) integers worth ``scale`` each; floating: (classes,). label: the true
    class, or -1.
    """
    values = outputs.reshape(len(outputs), -1) * (scale[0] / scale[1])
    low = min(float(values.min()), float(floating.min()), 0.0)
    high = max(float(values.max()), float(floating.max()), 0.0)
    span = (high - low) or 1.0

    def up(value: float) -> float:
        return round(100 - 100 * (value - low) / span, 2)

    chosen = int(values[-1].argmax())
    answer = "answer" if label == UNKNOWN else "wrong"
    roles = [
        "true" if c == label else answer if c == chosen else "other" for c in range(len(classes))
    ]
    order = sorted(range(len(classes)), key=lambda c: (roles[c] != "other", c == label))
    width = max(len(values) - 1, 1)
    lines = [
        Line(
            classes[c],
            " ".join(
                f"{round(100 * t / width, 2):g},{up(v):g}" for t, v in enumerate(values[:, c])
            ),
            up(values[-1, c]),
            roles[c],
        )
        for c in order
    ]
    best = sorted(range(len(classes)), key=lambda c: -values[-1, c])
    ranking = [(classes[c], float(values[-1, c]), float(floating[c]), roles[c]) for c in best]
    dots = tuple((up(float(floating[c])), roles[c]) for c in order)
    return Scores(tuple(lines), up(0.0), dots, tuple(ranking))
