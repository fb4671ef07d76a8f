"""The figure of a sweep: accuracy against the first swept key, validation beside test."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuroav.studies.grid import FLOAT, SEED, short_key
from neuroav.studies.plots import INK, LINES, MARKERS, colours, label_ends, save, style
from neuroav.studies.summary import groups

TITLES = {"val": "validation: to choose by", "test": "test: to report"}


@dataclass(frozen=True)
class _Layout:
    """x, lines: first and second swept key, '' where there is none; rows: values of the others.

    places: value of x -> where it stands, as a logarithm where values span decades. joined: values
    are numbers, so that a line between them means something.
    """

    x: str
    lines: str
    rows: tuple[tuple[tuple[str, Any], ...], ...]
    places: Mapping[Any, float]
    joined: bool

    @property
    def nearest(self) -> float:
        """Distance between the two values of x that are nearest to each other."""
        places = sorted(self.places.values())
        return min((b - a for a, b in itertools.pairwise(places)), default=1.0)


def sweep_figure(results: Mapping[str, Any], out: Path) -> list[Path]:
    """Draw results.json's object into sweep.svg and sweep.png of ``out``; return their paths.

    Left validation, right test accuracy in percent against the first swept key, mean and sample
    standard deviation over ``train.seed``; one colour per value of the second key, one kind of line
    per side (float, deployments), one row of panels per combination of further keys. Where only
    ``train.seed`` is swept, that is the key. A ring marks the setting chosen on validation.
    """
    found = _groups(results)
    layout = _layout(results["keys"], found)
    with style():
        height = 3.3 * len(layout.rows)
        figure = Figure(figsize=(9.6, height + 0.9), layout=None)
        panels = figure.subplots(len(layout.rows), 2, sharey=True, squeeze=False)
        figure.subplots_adjust(
            left=0.08, right=0.86, wspace=0.34, hspace=0.45,
            bottom=0.95 / (height + 0.9), top=1 - 0.55 / (height + 0.9),
        )  # fmt: skip
        for row, fixed in enumerate(layout.rows):
            for axes, split in zip(panels[row], TITLES, strict=True):
                own = [g for g in found if all(g["values"][k] == v for k, v in fixed)]
                _panel(axes, own, split, layout, results)
                words = split if layout.x == SEED else TITLES[split]
                title = ", ".join([*(f"{short_key(k)} {v}" for k, v in fixed), words])
                axes.set_title(title)
            panels[row][0].set_ylabel("accuracy (%)")
        _limits(panels, found, results["sides"])
        for row, fixed in enumerate(layout.rows):
            for axes, split in zip(panels[row], TITLES, strict=True):
                own = [g for g in found if all(g["values"][k] == v for k, v in fixed)]
                label_ends(axes, _ends(own, split, layout, results))
        _legend(figure, found, results, layout)
        return save(figure, out, "sweep")


def _groups(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the settings that have a finished run; every run apart where only seeds differ."""
    if results["keys"] != [SEED]:
        return [g for g in results["groups"] if g["runs"]]
    return [
        {**group, "values": {SEED: row["values"][SEED]}}
        for row in results["rows"]
        if row["state"] == "finished"
        for group in groups([row])
    ]


def _layout(keys: Sequence[str], found: Sequence[Mapping[str, Any]]) -> _Layout:
    x, *others = [k for k in keys if k != SEED] or [SEED]
    values = {k: list(dict.fromkeys(g["values"][k] for g in found)) for k in (x, *others)}
    numbers = x != SEED and all(type(v) in (int, float) for v in values[x])
    places = {v: float(v) if numbers else float(i) for i, v in enumerate(values[x])}
    if numbers and min(places.values()) > 0 and max(places.values()) / min(places.values()) >= 30:
        places = {v: math.log10(v) for v in places}
    rows = itertools.product(*[[(k, v) for v in values[k]] for k in others[1:]])
    return _Layout(x, others[0] if others else "", tuple(rows), places, numbers)


def _panel(
    axes: Axes, own: Sequence[Mapping[str, Any]], split: str, layout: _Layout, results
) -> None:
    """Draw the lines of one panel with their spreads, and ring the chosen setting."""
    for line in _lines(own, split, layout, results):
        axes.errorbar(
            line.x, line.mean, yerr=line.sd, color=line.colour, marker=line.marker,
            linestyle=LINES[line.side % 4] if layout.joined else "none",
            markerfacecolor=line.colour if line.side == 0 else "white",
            elinewidth=0.9, capsize=2.5, zorder=3 - 0.1 * line.side,
        )  # fmt: skip
        if line.chosen is not None:
            x, y = line.x[line.chosen], line.mean[line.chosen]
            axes.plot(x, y, "o", markersize=13, markerfacecolor="none", color=INK, clip_on=False)
    axes.set_xlabel(layout.x)
    axes.set_xticks(list(layout.places.values()), [str(v) for v in layout.places])
    low, high = min(layout.places.values()), max(layout.places.values())
    margin = max(0.08 * (high - low), 0.35 * layout.nearest * (not layout.joined))
    axes.set_xlim(low - (margin or 1), high + (margin or 1))


@dataclass(frozen=True)
class _Line:
    """What to draw: places, means and spreads in percent; chosen: the point to ring, or None."""

    name: str
    side: int
    colour: Any
    marker: str
    x: list[float]
    mean: list[float]
    sd: list[float]
    chosen: int | None


def _lines(
    own: Sequence[Mapping[str, Any]], split: str, layout: _Layout, results: Mapping[str, Any]
) -> list[_Line]:
    """Return the lines of one panel; colour is the second key's value, or else the side.

    Lines stand a little beside each other, so that their spreads do not hide one another.
    """
    sides, best = results["sides"], results["best"]
    values = list(dict.fromkeys(g["values"].get(layout.lines) for g in own))
    pairs = list(itertools.product(range(len(values)), range(len(sides))))
    palette = colours(len(values) if layout.lines else len(sides))
    step = (0.2 if layout.joined else 0.4) * layout.nearest / len(pairs)
    found = []
    for number, (n, k) in enumerate(pairs):
        held = sorted(
            (
                g
                for g in own
                if g["values"].get(layout.lines) == values[n] and sides[k] in g["sides"]
            ),
            key=lambda g: layout.places[g["values"][layout.x]],
        )
        points = [g["sides"][sides[k]][split] for g in held]
        shift = step * (number - (len(pairs) - 1) / 2)
        which = n if layout.lines else k
        chosen = [i for i, g in enumerate(held) if k == 0 and g["values"] == best["values"]]
        found.append(
            _Line(
                f"{short_key(layout.lines)} {values[n]}" if layout.lines else sides[k],
                k, palette[which], MARKERS[which % len(MARKERS)],
                [layout.places[g["values"][layout.x]] + shift for g in held],
                [100 * p["mean"] for p in points],
                [100 * (p["sd"] or 0.0) for p in points],
                chosen[0] if chosen else None,
            )
        )  # fmt: skip
    return [line for line in found if line.x]


def _ends(own, split: str, layout: _Layout, results):
    """Return the labels of line ends: one per colour, at the float line where it has several."""
    shown: dict[str, tuple[float, float, str, object]] = {}
    for line in _lines(own, split, layout, results):
        shown.setdefault(line.name, (line.x[-1], line.mean[-1], line.name, line.colour))
    return list(shown.values())


def _limits(panels, found: Sequence[Mapping[str, Any]], sides: Sequence[str]) -> None:
    """Fit the common accuracy axis to the means and their spreads; 100 % is its end."""
    ends = [
        100 * (item["mean"] + sign * (item["sd"] or 0.0))
        for group in found
        for side in sides
        if side in group["sides"]
        for item in (group["sides"][side]["val"], group["sides"][side]["test"])
        for sign in (-1, 1)
    ]
    margin = max(0.08 * (max(ends) - min(ends)), 0.5)
    panels[0][0].set_ylim(max(min(ends) - margin, 0), min(max(ends) + margin, 100.5))


def _legend(figure: Figure, found, results: Mapping[str, Any], layout: _Layout) -> None:
    """Say below the panels which line is which side, what the bars are and what the ring is."""
    handles = []
    if layout.lines:
        handles = [
            Line2D([], [], color=INK, marker="o",
                   linestyle=LINES[k % 4] if layout.joined else "none",
                   markerfacecolor=INK if k == 0 else "white", label=side)
            for k, side in enumerate(results["sides"])
        ]  # fmt: skip
    if layout.x != SEED:
        ring = Line2D([], [], color=INK, linestyle="none", marker="o", markersize=11,
                      markerfacecolor="none", label="chosen on validation")  # fmt: skip
        handles.append(ring)
    if any(g["sides"][FLOAT]["val"]["sd"] is not None for g in found):
        bars = Line2D([], [], color=INK, linestyle="none", marker="|", markersize=12,
                      label="mean ± standard deviation over train.seed")  # fmt: skip
        handles.append(bars)
    if handles:
        figure.legend(handles=handles, loc="lower center", ncols=len(handles), fontsize=8)
