"""The figure of a robustness study: accuracy against the strength of every disturbance."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuroav.studies.plots import (
    COLOURS,
    FAINT,
    INK,
    LINES,
    MARKERS,
    label_ends,
    save,
    style,
)

PANEL, BELOW, ABOVE = (2.75, 1.9), 0.55, 0.38  # inches: size, room for labels and for the title
LEFT, CAPTION = 0.65, 1.0
UNCHANGED = 1e-3  # share of counts below which a disturbance is said to change none
WORDS = {  # title and label of the axis
    "noise": ("noise on {}", "signal-to-noise ratio (dB)"),
    "drop": ("{} events lost", "events lost (%)"),
    "jitter": ("jitter of {} events", "standard deviation of the jitter (ms)"),
}
INPUTS = {"both": "audio and visual"}
Panel = Mapping[str, Any]


def robustness_figure(found: Mapping[str, Any], out: Path) -> list[Path]:
    """Draw robustness.json's object into robustness.svg and .png of ``out``; return their paths.

    One panel per disturbance and input, undisturbed at its left, accuracy in percent. With several
    files one colour each, solid with filled marks for the float network, dashed with open marks for
    the deployed one; with one file a colour for each side.
    """
    kinds = list(dict.fromkeys(p["kind"] for p in found["panels"]))
    rows = [[p for p in found["panels"] if p["kind"] == kind] for kind in kinds]
    columns = max(map(len, rows))
    room = 0.65 + 0.068 * max(map(len, _names(found)))  # for names at ends, and the next scale
    beside = columns > 2 and kinds[-1] == "missing"  # then the caption has place beside that panel
    width = max(LEFT + columns * (PANEL[0] + room), 7.2)
    height = len(rows) * (PANEL[1] + BELOW + ABOVE) + (0 if beside else CAPTION)
    with style():
        figure = Figure(figsize=(width, height))
        for row, panels in enumerate(rows):
            bottom = height - (row + 1) * (PANEL[1] + BELOW + ABOVE) + BELOW
            for column, panel in enumerate(panels):
                left = LEFT + column * (PANEL[0] + room)
                axes = figure.add_axes(
                    (left / width, bottom / height, PANEL[0] / width, PANEL[1] / height)
                )
                _draw(axes, panel, found)
                if column == 0:
                    axes.set_ylabel("accuracy (%)")
        left, top = (LEFT + PANEL[0] + room, BELOW + PANEL[1]) if beside else (LEFT, CAPTION - 0.1)
        _caption(figure, found, left, top, 88 if columns > 2 else 100)
        return save(figure, out, "robustness")


def _names(found: Mapping[str, Any]) -> list[str]:
    """Return what line ends are called: files, or the two sides of the only file."""
    files = [file["label"] for file in found["files"]]
    return files if len(files) > 1 else ["float", "deployed"]


def _lines(panel: Panel, found: Mapping[str, Any]):
    """Yield (name, colour, marker, side 0 float 1 deployed, accuracies in percent).

    Not a number where the integers left their registers: the line has a gap there.
    """
    several = len(found["files"]) > 1
    for number, curve in enumerate(panel["curves"]):
        for side, key in enumerate(("float", "deployed")):
            which = number if several else side
            name = curve["file"] if several else key
            yield (
                name,
                COLOURS[which],
                MARKERS[which],
                side,
                [100 * v if v is not None else math.nan for v in curve[key]],
            )


def _draw(axes: Axes, panel: Panel, found: Mapping[str, Any]) -> None:
    axes.set_ylim(0, 102)
    axes.set_yticks(range(0, 101, 20))
    chance = 100 / found["classes"]
    axes.axhline(chance, color=FAINT, linewidth=1, linestyle=LINES[2], zorder=1)
    if panel["kind"] == "missing":
        _draw_missing(axes, panel, found)
    else:
        _draw_curves(axes, panel, found)
    axes.annotate(
        "chance", (0, chance), xycoords=("axes fraction", "data"), xytext=(3, 1.5),
        textcoords="offset points", fontsize=7, color=FAINT,
    )  # fmt: skip


def _draw_curves(axes: Axes, panel: Panel, found: Mapping[str, Any]) -> None:
    """Draw one line per file and side against the level, with the names at the ends."""
    places = _places(panel)
    ends: dict[str, tuple[float, float, str, object]] = {}
    for name, colour, marker, side, values in _lines(panel, found):
        axes.plot(
            places, values, color=colour, linestyle=LINES[side], marker=marker,
            markerfacecolor="white" if side else colour, zorder=4 - side, clip_on=False,
        )  # fmt: skip
        ends.setdefault(name, (places[-1], values[-1], name, colour))
    _shade_unchanged(axes, panel, places)
    title, label = WORDS[panel["kind"]]
    axes.set_title(title.format(INPUTS.get(panel["on"], panel["on"])))
    axes.set_xlabel(label)
    axes.set_xticks(places, _tick_labels(panel))
    axes.set_xlim(places[0] - 0.05 * (places[-1] - places[0]), places[-1])
    label_ends(axes, list(ends.values()))


def _places(panel: Panel) -> list[float]:
    """Return where levels stand: shares of events to scale, decibels and doubling times evenly."""
    if panel["kind"] == "drop":
        return [level or 0.0 for level in panel["levels"]]
    return [float(i) for i in range(len(panel["levels"]))]


def _tick_labels(panel: Panel) -> list[str]:
    levels = panel["levels"]
    if panel["kind"] == "noise":  # every second one, or they would touch
        return ["clean"] + [
            f"{level:.0f}".replace("-", "−") if i % 2 == 0 else ""
            for i, level in enumerate(levels[1:])
        ]
    texts = [f"{level or 0:g}" for level in levels]
    return [t if t != "90" else "" for t in texts] if panel["kind"] == "drop" else texts


def _shade_unchanged(axes: Axes, panel: Panel, places: Sequence[float]) -> None:
    """Shade the levels whose disturbance is lost in rounding, so that a flat line is understood."""
    shares = [
        max((c[i] for curve in panel["curves"] for c in curve["changed"].values()), default=0.0)
        for i in range(len(places))
    ]
    same = [i for i, share in enumerate(shares) if share < UNCHANGED]
    if len(same) > 1 and same == list(range(len(same))):
        last = places[same[-1]]
        axes.axvspan(places[0] - 1, last, color="#f1f1f1", zorder=0, linewidth=0)
        axes.annotate(
            "noise is\nrounded away", ((places[0] + last) / 2, 0.27), ha="center", va="center",
            fontsize=7, color=FAINT, xycoords=("data", "axes fraction"), linespacing=1.1,
        )  # fmt: skip


def _draw_missing(axes: Axes, panel: Panel, found: Mapping[str, Any]) -> None:
    """Draw marks for nothing missing and for each input missing; lines would mean nothing."""
    lines = list(_lines(panel, found))
    step = min(0.5 / len(lines), 0.12)
    for number, (_, colour, marker, side, values) in enumerate(lines):
        shift = step * (number - (len(lines) - 1) / 2)
        axes.plot(
            [i + shift for i in range(len(values))], values, linestyle="none", color=colour,
            marker=marker, markerfacecolor="white" if side else colour, clip_on=False, zorder=3,
        )  # fmt: skip
    words = ["clean", *(f"no {level}" for level in panel["levels"][1:])]
    axes.set_title("one input silent" if len(words) > 2 else "input silent")
    axes.set_xticks(range(len(words)), words)
    axes.set_xlim(-0.5, len(words) - 0.5)


def _caption(
    figure: Figure, found: Mapping[str, Any], left: float, top: float, letters: int
) -> None:
    """Say which mark is which, how sure the numbers are, and what they cannot tell.

    left, top: inches from the lower left corner; letters: length of a line.
    """
    width, height = figure.get_size_inches()
    single = len(found["files"]) == 1
    handles = [
        Line2D([], [], color=COLOURS[k] if single else INK, linestyle=LINES[k],
               marker=MARKERS[k if single else 0],
               markerfacecolor="white" if k else (COLOURS[0] if single else INK), label=label)
        for k, label in enumerate(("float network", "deployed integers"))
    ]  # fmt: skip
    if not single:
        handles += [
            Line2D([], [], color=COLOURS[k], marker=MARKERS[k], linestyle="none", label=name)
            for k, name in enumerate(_names(found))
        ]
    legend = figure.legend(
        handles=handles, loc="upper left", ncols=2 if single else min(len(handles), 4),
        bbox_to_anchor=(left / width, top / height), borderpad=0, borderaxespad=0, fontsize=8.5,
    )  # fmt: skip
    first = found["files"][0]
    low, high = first["interval_95"]["float"]
    clean = 100 * first["clean"]["float"]
    sentences = (
        f"{found['samples']} samples of split {found['split']}, the same for all. "
        f"{first['label']}, clean: {clean:.1f} %, with a 95 % interval of {100 * low:.1f} to "
        f"{100 * high:.1f} %.",
        "Noise is added to the event counts, which are then rounded and clipped to whole counts "
        "from 0 on, because a sensor sends no others.",
        "Not comparable with the published noise test of S-CMRL, which adds noise to the visual "
        "input while training.",
    )
    text = "\n".join(line for s in sentences for line in textwrap.wrap(s, letters))
    below = legend.get_window_extent().y0 / figure.dpi - 0.12
    figure.text(left / width, below / height, text, fontsize=8, va="top", linespacing=1.35)
