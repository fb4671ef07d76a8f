"""The drawing of the process graph: populations in rows by depth, connections between them.

Rows run down the page. A connection that passes rows takes a place in each of them, so that it runs
between the boxes, and every row is ordered so that few connections cross (Sugiyama, Tagawa and
Toda, IEEE Trans. SMC 11, 1981: medians of the neighbours, down and up in turn). What closes a loop
runs up, to the right of the middle of its boxes, or around the right side of its own box.
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
Chain = list[Item]  # a connection from its upper box to its lower one


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
class Link:
    """All synapses from one population to another; late: none brings the present frame."""

    source: str
    target: str
    late: bool


@dataclass(frozen=True)
class Line:
    """An SVG path; its title says what it joins where messages come frames late."""

    path: str
    style: str
    title: str = ""


@dataclass(frozen=True)
class Drawing:
    width: float
    height: float
    box: tuple[float, float]
    boxes: tuple[Box, ...]
    paths: tuple[Line, ...]
    inputs: tuple[str, ...]  # those with a style of their own


def draw(graph: ig.IntGraph, layers: Mapping[str, Mapping[str, Any]]) -> Drawing:
    """Return the drawing of an integer graph; layers: the report's layers by name."""
    depth, links = _depths(graph), _links(graph)
    rows = _rows(graph, links, depth)
    _order(rows, _neighbours(rows, [_chain(link, depth) for link in links]))
    for link in links:
        if link.source == link.target:  # place beside the box for the way back to it
            row = rows[depth[link.source]]
            row.insert(row.index(link.source) + 1, (*_pair(link), depth[link.source]))
    places, width = _places(rows)
    styles = _styles(graph, layers)
    boxes = tuple(_box(places[n], layers[n], styles[n]) for n in graph.order)
    lines = tuple(_line(link, places, depth, styles[link.source]) for link in links)
    height = (len(rows) - 1) * ROW + HEIGHT
    if any(depth[a] == depth[b] for a, b in map(_pair, links) if a != b):
        height += ROW - HEIGHT  # a way between two boxes of the lowest row runs below them
    return Drawing(width, height, (BOX, HEIGHT), boxes, lines, tuple(sorted(graph.inputs)[:2]))


def _links(graph: ig.IntGraph) -> list[Link]:
    """Return the connections in execution order of what they reach."""
    lags: dict[tuple[str, str], list[int]] = {}
    for name in graph.order:
        for p in graph.populations[name].projections:
            lags.setdefault((p.source, name), []).append(p.lag)
    return [Link(*pair, min(found) > 0) for pair, found in lags.items()]


def _pair(link: Link) -> tuple[str, str]:
    return link.source, link.target


def _depths(graph: ig.IntGraph) -> dict[str, int]:
    """Return how many connections the longest way from an input has, loops aside."""
    depth: dict[str, int] = {}
    for name in graph.order:
        sources = {p.source for p in graph.populations[name].projections}
        # a source that comes later in the order closes a loop
        depth[name] = max((1 + depth[s] for s in sources if s in depth), default=0)
    return depth


def _chain(link: Link, depth: Mapping[str, int]) -> Chain:
    """Return a connection as its upper box, its places in the rows between, and its lower box."""
    upper, lower = sorted(_pair(link), key=depth.__getitem__)
    between = range(depth[upper] + 1, depth[lower])
    return [upper, *((*_pair(link), row) for row in between), lower]


def _rows(graph: ig.IntGraph, links: list[Link], depth: Mapping[str, int]) -> list[list[Item]]:
    rows: list[list[Item]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in graph.order:
        rows[depth[name]].append(name)
        for link in links:
            if link.target == name:
                for item in _chain(link, depth)[1:-1]:
                    rows[item[2]].append(item)  # type: ignore[index]
    return rows


def _neighbours(rows: list[list[Item]], chains: list[Chain]) -> tuple[dict, dict]:
    """Return above and below: every item's neighbours in the row before and after."""
    above: dict[Item, list[Item]] = {item: [] for row in rows for item in row}
    below: dict[Item, list[Item]] = {item: [] for row in rows for item in row}
    number = {item: n for n, row in enumerate(rows) for item in row}
    for chain in chains:
        for upper, lower in pairwise(chain):
            if number[upper] < number[lower]:
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


def _line(
    link: Link, places: Mapping[Item, tuple[float, float]], depth: Mapping[str, int], style: str
) -> Line:
    """Return a connection as it is drawn."""
    back = depth[link.source] >= depth[link.target]
    if link.source == link.target:
        path = _around(*places[link.source])
    elif depth[link.source] == depth[link.target]:
        path = _below(places[link.source], places[link.target])
    else:
        path = _path(places, _chain(link, depth), BOX / 4 if back else 0.0)
    if not link.late:
        return Line(path, style)
    own = "itself" if link.source == link.target else link.source
    return Line(path, f"{style} late", f"{link.target} reads {own}, frames late")


def _around(x: float, y: float) -> str:
    """Return the way from a box around its right side back to it."""
    side, out = x + BOX / 2, x + BOX / 2 + GAP + LANE
    low, high = y + 0.75 * HEIGHT, y + 0.25 * HEIGHT
    return f"M{side:.1f} {low:.1f}C{out:.1f} {low:.1f} {out:.1f} {high:.1f} {side:.1f} {high:.1f}"


def _below(start: tuple[float, float], end: tuple[float, float]) -> str:
    """Return the way between two boxes of one row."""
    (a, y), b = start, end[0]
    edge, deep = y + HEIGHT, y + ROW
    return f"M{a:.1f} {edge:.1f}C{a:.1f} {deep:.1f} {b:.1f} {deep:.1f} {b:.1f} {edge:.1f}"


def _path(places: Mapping[Item, tuple[float, float]], chain: Chain, aside: float) -> str:
    """Return the SVG path of a connection: a curve between rows, straight along a row's height.

    aside: how far from the middle of a box it starts and ends.
    """
    moved = [(places[i][0] + aside * isinstance(i, str), places[i][1]) for i in chain]
    x, y = moved[0]
    path = f"M{x:.1f} {y + HEIGHT:.1f}"
    for item, (to_x, to_y) in zip(chain[1:], moved[1:], strict=True):
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
