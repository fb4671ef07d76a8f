"""What the figures of the studies share: style, colours, labels that keep apart, files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuroav.files import written_whole

# Okabe and Ito's colours, told apart by readers with any colour vision; yellow is left out, too
# pale for a line on white. Lightness differs as well, so that most survive a print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
# Solid, dashed, dotted, dash-dotted: a tuple is (offset, lengths of dashes and gaps).
LINES: tuple[Any, ...] = ("-", (0, (4, 1.6)), (0, (1, 1.3)), (0, (6, 1.5, 1, 1.5)))
INK, FAINT = "#222222", "#8a8a8a"
_STYLE = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib: the same picture everywhere
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "svg.hashsalt": "neuroav",  # the same figure gives the same file
}


def style() -> AbstractContextManager[None]:
    """Return a context in which figures have the look of the studies, whatever a user has set."""
    return matplotlib.style.context(_STYLE, after_reset=True)


def colours(count: int) -> list:
    """Return ``count`` colours; of a perceptually even scale where the list is too short."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    scale = matplotlib.colormaps["cividis"]
    return [scale(i / (count - 1)) for i in range(count)]


def spread_out(places: Sequence[float], gap: float) -> list[float]:
    """Return places at least ``gap`` apart, in the order of ``places`` and as near as that allows.

    Neighbours that are too close are moved as one block about their common middle.
    """
    order = sorted(range(len(places)), key=lambda i: places[i])
    blocks: list[list[int]] = []
    starts: list[float] = []
    for index in order:
        blocks.append([index])
        starts.append(places[index])
        while len(blocks) > 1 and starts[-1] < starts[-2] + gap * len(blocks[-2]):
            last = blocks.pop()
            starts.pop()
            blocks[-1] += last
            middle = sum(places[i] - gap * k for k, i in enumerate(blocks[-1])) / len(blocks[-1])
            starts[-1] = middle
    result = [0.0] * len(places)
    for block, start in zip(blocks, starts, strict=True):
        for k, index in enumerate(block):
            result[index] = start + gap * k
    return result


def label_ends(axes: Axes, ends: Sequence[tuple[float, float, str, object]]) -> None:
    """Write each line's name beside its end, moved apart where lines end close together.

    ends: (x, y, name, colour) in data coordinates; the limits of the axes must be final.
    """
    figure = axes.get_figure()
    assert figure is not None
    low, high = axes.get_ylim()
    height = axes.get_window_extent().height / figure.dpi * 72  # points
    gap = (high - low) * 9.5 / height
    places = spread_out([min(max(y, low), high) for _, y, _, _ in ends], gap)
    for (x, y, name, colour), place in zip(ends, places, strict=True):
        axes.annotate(
            name,
            (x, y),
            xytext=(1.03, place),
            textcoords=("axes fraction", "data"),
            color=colour,
            fontsize=8,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkB": 3}
            if abs(place - y) > 0.6 * gap
            else None,
        )


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name``.svg and ``name``.png into the folder, each whole; return their paths."""
    paths = []
    for kind, options in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 160})):
        path = folder / f"{name}.{kind}"
        with written_whole(path) as part:
            figure.savefig(part, format=kind, bbox_inches="tight", facecolor="white", **options)
        paths.append(path)
    return paths
