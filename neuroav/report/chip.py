"""The map of the chip: every core with its load, every link between routers with its traffic."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from neuroav.loads import Loads
from neuroav.placement import Placement
from neuroav.report.format import count

CELL, INSET, GAP = 9.0, 1.5, 9.0  # side of a core, margin of a router's tile, way between tiles
CHIP_GAP = 14.0
MAX_CHIPS = 16  # drawn; a larger board is in report.json only


@dataclass(frozen=True)
class Seat:
    """A core's place; share: its load over the largest, None where it holds nothing."""

    x: float
    y: float
    share: float | None
    title: str


@dataclass(frozen=True)
class Wire:
    """A link between neighbouring routers, both directions; share: traffic over the largest."""

    x1: float
    y1: float
    x2: float
    y2: float
    share: float
    title: str


@dataclass(frozen=True)
class ChipMap:
    width: float
    height: float
    cell: float
    seats: tuple[Seat, ...]
    wires: tuple[Wire, ...]
    busiest: str
    heaviest: str
    chips: int


def chip_map(placement: Placement, loads: Loads) -> ChipMap | None:
    """Return the map of the chips in use, None for a board too large to draw."""
    mesh = placement.mesh
    chips = sorted({core.chip for core in placement.cores})
    if len(chips) > MAX_CHIPS:
        return None
    grid = _Grid(placement, chips)
    load = loads.synops.sum(axis=1).mean(axis=0)
    seats = tuple(_seats(placement, chips, grid, load, loads))
    wires, heaviest = _wires(grid, loads)
    top = int(load.argmax())
    core = placement.cores[top]
    names = ", ".join(dict.fromkeys(s.population for s in core.slices))
    busiest = f"core {top} ({names}): {count(float(load[top]))} synaptic operations per sample"
    columns = {mesh.chip_at(c)[0] for c in chips}
    rows = {mesh.chip_at(c)[1] for c in chips}
    return ChipMap(
        grid.x(mesh.routers_x - 1, max(columns)) + grid.tile[0],
        grid.y(mesh.routers_y - 1, max(rows)) + grid.tile[1],
        CELL,
        seats,
        tuple(wires),
        busiest,
        heaviest,
        len(chips),
    )


class _Grid:
    """Where tiles lie; chips that hold nothing are closed up where a whole row or column is."""

    def __init__(self, placement: Placement, chips: list[int]) -> None:
        self.mesh = placement.mesh
        self.columns = sorted({self.mesh.chip_at(c)[0] for c in chips})
        self.rows = sorted({self.mesh.chip_at(c)[1] for c in chips})
        self.across = int(np.ceil(np.sqrt(self.mesh.cores_per_router)))
        down = -(-self.mesh.cores_per_router // self.across)
        self.tile = (self.across * CELL + 2 * INSET, down * CELL + 2 * INSET)

    def x(self, router: int, column: int) -> float:
        chip = self.mesh.routers_x * (self.tile[0] + GAP) + CHIP_GAP
        return self.columns.index(column) * chip + router * (self.tile[0] + GAP)

    def y(self, router: int, row: int) -> float:
        chip = self.mesh.routers_y * (self.tile[1] + GAP) + CHIP_GAP
        return self.rows.index(row) * chip + router * (self.tile[1] + GAP)

    def middle(self, x: int, y: int) -> tuple[float, float] | None:
        """Return the middle of a router's tile by its place on the board, None if not drawn."""
        mesh = self.mesh
        column, row = x // mesh.routers_x, y // mesh.routers_y
        if column not in self.columns or row not in self.rows:
            return None
        left = self.x(x % mesh.routers_x, column)
        return left + self.tile[0] / 2, self.y(y % mesh.routers_y, row) + self.tile[1] / 2


def _seats(
    placement: Placement, chips: Iterable[int], grid: _Grid, load: np.ndarray, loads: Loads
) -> Iterable[Seat]:
    mesh = placement.mesh
    held = {(c.chip, c.x, c.y, c.slot): i for i, c in enumerate(placement.cores)}
    top = float(load.max()) or 1.0
    for chip in chips:
        column, row = mesh.chip_at(chip)
        for x, y, slot in np.ndindex(mesh.routers_x, mesh.routers_y, mesh.cores_per_router):
            left = grid.x(x, column) + INSET + slot % grid.across * CELL
            upper = grid.y(y, row) + INSET + slot // grid.across * CELL
            number = held.get((chip, x, y, slot))
            if number is None:
                yield Seat(left, upper, None, "")
                continue
            names = ", ".join(dict.fromkeys(s.population for s in placement.cores[number].slices))
            title = (
                f"core {number}: {names}; {count(int(loads.neurons[number]))} neurons, "
                f"{count(float(load[number]))} synaptic operations per sample"
            )
            yield Seat(left, upper, round(float(load[number]) / top, 3), title)


def _wires(grid: _Grid, loads: Loads) -> tuple[list[Wire], str]:
    """Return the links that carry anything, and the heaviest in words."""
    east, south = loads.links["east"], loads.links["south"]
    across = east[:, :-1] + loads.links["west"][:, 1:]
    down = south[:-1] + loads.links["north"][1:]
    top = max(float(across.max(initial=0)), float(down.max(initial=0)))
    wires, heaviest = [], "no message leaves its router"
    for traffic, (dx, dy) in ((across, (1, 0)), (down, (0, 1))):
        for y, x in zip(*np.nonzero(traffic), strict=True):
            ends = grid.middle(int(x), int(y)), grid.middle(int(x) + dx, int(y) + dy)
            if ends[0] is None or ends[1] is None:
                continue
            value = float(traffic[y, x])
            title = f"({x}, {y}) – ({x + dx}, {y + dy}): {count(value)} messages per sample"
            wires.append(_wire(grid, ends[0], ends[1], value / top, title))
            if value == top:
                heaviest = title
    return wires, heaviest


def _wire(grid: _Grid, one: tuple, other: tuple, share: float, title: str) -> Wire:
    """Return a link from edge to edge of two tiles."""
    (x1, y1), (x2, y2) = one, other
    half = (grid.tile[0] / 2 if x1 != x2 else 0.0, grid.tile[1] / 2 if y1 != y2 else 0.0)
    return Wire(x1 + half[0], y1 + half[1], x2 - half[0], y2 - half[1], round(share, 3), title)
