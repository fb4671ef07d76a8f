"""The drawing of the process graph: populations in rows by depth, connections between them.

Rows run down the page. A connection that passes rows takes a place in each of them, so that it runs
between the boxes, and every row is ordered so that few connections cross (Sugiyama, Tagawa and
Toda, IEEE Trans. SMC 11, 1981: medians of the neighbours, down and up in turn).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from neuroav import integer as ig
from neuroav.report.format import NODE_KINDS, count

BOX, LANE = 92.0, 16.0  # width of a box and of a passing connection
GAP, HEIGHT, ROW = 8.0, 34.0, 62.0
SWEEPS = 8
LETTERS = 17  # of the small line that fit a box

Item = str | tuple[str, str, int]  # a population, or the place of a connection in a row


@dataclass(frozen=True)
class Box:
    """One population: place of its upper left corner, two lines of text, and what it reads."""

    x: float
    y: float
    over: str
    name: str
    title: str
    style: str


@dataclass(frozen=True)
class Drawing:
    width: float
    height: float
    box: tuple[float, float]
    boxes: tuple[Box, ...]
    paths: tuple[tuple[str, str], ...]  # SVG path, style
    inputs: tuple[str, ...]  # those with a style of their own


def draw(graph: ig.IntGraph, layers: Mapping[str, Mapping[str, Any]]) -> Drawing:
    """Return the drawing of an integer graph; layers: the report's layers by name."""
    rows = _rows(graph)
    _order(rows, _neighbours(graph, rows))
    places, width = _places(rows)
    styles = _styles(graph, layers)
    boxes = tuple(_box(places[n], layers[n], styles[n]) for n in graph.order)
    paths = tuple(
        (_path(places, _chain(source, name, _depths(graph))), styles[source])
        for name in graph.order
        for source in dict.fromkeys(p.source for p in graph.populations[name].projections)
    )
    height = (len(rows) - 1) * ROW + HEIGHT
    return Drawing(width, height, (BOX, HEIGHT), boxes, paths, tuple(sorted(graph.inputs)[:2]))


def _depths(graph: ig.IntGraph) -> dict[str, int]:
    """Return how many connections the longest way from an input has."""
    depth: dict[str, int] = {}
    for name in graph.order:
        sources = graph.populations[name].projections
        depth[name] = max((1 + depth[p.source] for p in sources), default=0)
    return depth


def _chain(source: str, target: str, depth: Mapping[str, int]) -> list[Item]:
    """Return a connection as its source, its places in the rows between, and its target."""
    between = range(depth[source] + 1, depth[target])
    return [source, *((source, target, row) for row in between), target]


def _rows(graph: ig.IntGraph) -> list[list[Item]]:
    depth = _depths(graph)
    rows: list[list[Item]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in graph.order:
        rows[depth[name]].append(name)
        for source in dict.fromkeys(p.source for p in graph.populations[name].projections):
            for item in _chain(source, name, depth)[1:-1]:
                rows[item[2]].append(item)  # type: ignore[index]
    return rows


def _neighbours(graph: ig.IntGraph, rows: list[list[Item]]) -> tuple[dict, dict]:
    """Return above and below: every item's neighbours in the row before and after."""
    above: dict[Item, list[Item]] = {item: [] for row in rows for item in row}
    below: dict[Item, list[Item]] = {item: [] for row in rows for item in row}
    depth = _depths(graph)
    for name in graph.order:
        for source in dict.fromkeys(p.source for p in graph.populations[name].projections):
            chain = _chain(source, name, depth)
            for upper, lower in pairwise(chain):
                above[lower].append(upper)
                below[upper].append(lower)
    return above, below


def _order(rows: list[list[Item]], neighbours: tuple[dict, dict]) -> None:
    """Sort every row by the mean place of its neighbours, down and up in turn."""
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        near = neighbours[0] if down else neighbours[1]
        order = range(1, len(rows)) if down else range(len(rows) - 2, -1, -1)
        for number in order:
            beside = rows[number - 1 if down else number + 1]
            place = {item: i / max(len(beside) - 1, 1) for i, item in enumerate(beside)}
            own = {item: i / max(len(rows[number]) - 1, 1) for i, item in enumerate(rows[number])}
            wanted = {item: _mean([place[o] for o in near[item]], own[item]) for item in own}
            rows[number].sort(key=wanted.__getitem__)


def _mean(values: list[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _width(item: Item) -> float:
    return BOX if isinstance(item, str) else LANE


def _places(rows: list[list[Item]]) -> tuple[dict[Item, tuple[float, float]], float]:
    """Return the middle of the upper edge of every item, and the width of the drawing."""
    widths = [sum(map(_width, row)) + GAP * (len(row) - 1) for row in rows]
    widest, places = max(widths), {}
    for number, row in enumerate(rows):
        x = (widest - widths[number]) / 2
        for item in row:
            places[item] = (x + _width(item) / 2, number * ROW)
            x += _width(item) + GAP
    return places, widest


def _path(places: Mapping[Item, tuple[float, float]], chain: list[Item]) -> str:
    """Return the SVG path of a connection: a curve between rows, straight along a row's height."""
    x, y = places[chain[0]]
    path = f"M{x:.1f} {y + HEIGHT:.1f}"
    for item in chain[1:]:
        to_x, to_y = places[item]
        half = (ROW - HEIGHT) / 2
        path += f"C{x:.1f} {to_y - half:.1f} {to_x:.1f} {to_y - half:.1f} {to_x:.1f} {to_y:.1f}"
        if not isinstance(item, str):
            path += f"V{to_y + HEIGHT:.1f}"
        x = to_x
    return path


def _box(place: tuple[float, float], layer: Mapping[str, Any], style: str) -> Box:
    *outer, name = layer["name"].split(".")
    if name in ("lif", "lif0", "lif1", "lif2") and outer:
        name = f"{outer.pop()}.{name}"
    over = ".".join(outer[1:] or outer)
    title = (
        f"{layer['name']}: {NODE_KINDS[layer['kind']]}, {count(layer['neurons'])} neurons, "
        f"answers {layer['latency_steps']} steps after the input"
    )
    return Box(place[0] - BOX / 2, place[1], _short(over), _short(name), title, style)


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else f"…{text[1 - LETTERS :]}"


def _styles(graph: ig.IntGraph, layers: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return for every population which inputs it depends on: one of the first two, or several."""
    names = {name: f"from-{i + 1}" for i, name in enumerate(sorted(graph.inputs)[:2])}
    return {
        n: names.get(layer["inputs"][0], "from-all") if len(layer["inputs"]) == 1 else "from-all"
        for n, layer in layers.items()
    }
