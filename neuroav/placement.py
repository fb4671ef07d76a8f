"""Where the neurons of an integer graph lie: slices of populations on cores, cores on a mesh.

A *slice* is a box of one population's neurons. A *core* holds slices. Cores hang on routers, a few
on each; routers form a grid per chip, chips a grid on the board. Everything here is plain data:
``neuroav.mapping`` makes a placement, ``neuroav.loads`` counts events on it.

What the host feeds (``IntInput``) lies on no core.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from neuroav import integer as ig
from neuroav.errors import StageError

Box = tuple[tuple[int, int], ...]  # half-open range of indices along every axis of a population


@dataclass(frozen=True)
class Slice:
    """The neurons of ``population`` inside ``box``, ((first, last + 1), ...) per axis.

    Of an attention, the box selects messages it sends; its state neurons go with them: whole heads
    along the first axis and all tokens of a frame; where it sums over time, any tokens, and all
    heads where their counts are scrambled into the channels.
    """

    population: str
    box: Box

    @property
    def index(self) -> tuple[slice, ...]:
        """The slice as an index into an array of the population's shape."""
        return tuple(slice(first, last) for first, last in self.box)

    @property
    def size(self) -> int:
        """Messages it can send per step."""
        return int(np.prod([last - first for first, last in self.box]))


@dataclass(frozen=True)
class Mesh:
    """The grid of routers.

    routers_x, routers_y: routers per chip; cores_per_router: cores on each; chips_x, chips_y:
    chips of the board; cores_usable: cores of a chip that a network may take.
    """

    routers_x: int
    routers_y: int
    cores_per_router: int
    chips_x: int = 1
    chips_y: int = 1
    cores_usable: int = 0

    @property
    def chips(self) -> int:
        return self.chips_x * self.chips_y

    @property
    def usable(self) -> int:
        """Cores that a network may take per chip."""
        return self.cores_usable or self.routers_x * self.routers_y * self.cores_per_router

    def chip_at(self, chip: int) -> tuple[int, int]:
        """Return column and row of a chip on its board; chips are numbered row by row."""
        return chip % self.chips_x, chip // self.chips_x


@dataclass(frozen=True)
class Core:
    """One core: what it holds and where it is.

    chip: number on the board; x, y: column and row of its router on the chip; slot: number among
    the cores of that router.
    """

    slices: tuple[Slice, ...]
    chip: int
    x: int
    y: int
    slot: int


@dataclass(frozen=True)
class Placement:
    """All cores of a network. profile: id of the profile whose limits it keeps."""

    profile: str
    mesh: Mesh
    cores: tuple[Core, ...]
    seed: int

    @property
    def chips(self) -> int:
        """Chips that hold at least one core of the network."""
        return len({core.chip for core in self.cores})

    @cached_property
    def of(self) -> Mapping[str, tuple[tuple[int, Slice], ...]]:
        """Return population -> (number of the core, slice) of all its slices."""
        found: dict[str, list[tuple[int, Slice]]] = {}
        for number, core in enumerate(self.cores):
            for part in core.slices:
                found.setdefault(part.population, []).append((number, part))
        return {name: tuple(parts) for name, parts in found.items()}

    def position(self, number: int) -> tuple[int, int]:
        """Return column and row of a core's router on the whole board."""
        core = self.cores[number]
        column, row = self.mesh.chip_at(core.chip)
        return column * self.mesh.routers_x + core.x, row * self.mesh.routers_y + core.y


def placed(graph: ig.IntGraph) -> Iterator[str]:
    """Yield the populations that lie on cores, in execution order."""
    return (n for n in graph.order if n not in graph.inputs)


def state_neurons(pop: ig.Population, box: Box, steps: int) -> int:
    """Return how many neurons on the chip a slice of a population takes.

    An attention keeps the same number of state neurons for every message it can send, so a slice
    of whole heads (and, over time, whole tokens) keeps its share.
    """
    size = int(np.prod([last - first for first, last in box]))
    return pop.state_neurons(steps) * size // pop.neurons


def verify_placement(graph: ig.IntGraph, placement: Placement) -> Placement:
    """Return the placement; StageError unless every neuron lies on exactly one core of the mesh."""
    mesh = placement.mesh
    seats = [(core.chip, core.x, core.y, core.slot) for core in placement.cores]
    if len(set(seats)) != len(seats):
        raise StageError("placement: two cores have the same seat")
    for chip, x, y, slot in seats:
        inside = (
            0 <= chip < mesh.chips
            and 0 <= x < mesh.routers_x
            and 0 <= y < mesh.routers_y
            and 0 <= slot < mesh.cores_per_router
        )
        if not inside:
            raise StageError(
                f"placement: core at chip {chip}, router ({x}, {y}), slot {slot} is not on the "
                f"mesh of {placement.profile}",
            )
    if unknown := set(placement.of) - set(placed(graph)):
        raise StageError(f"placement: no such populations: {sorted(unknown)}")
    for name in placed(graph):
        pop = graph.populations[name]
        covered = np.zeros(pop.shape, np.int16)
        for _, part in placement.of.get(name, ()):
            fits = len(part.box) == len(pop.shape) and all(
                0 <= first < last <= size
                for (first, last), size in zip(part.box, pop.shape, strict=True)
            )
            if not fits:
                raise StageError(
                    f"placement: {name} has a slice {part.box}, its shape is {pop.shape}",
                )
            covered[part.index] += 1
            _verify_attention(name, pop, part)
        if (covered != 1).any():
            raise StageError(
                f"placement: {int((covered != 1).sum())} of {covered.size} neurons of {name} lie "
                "on no core or on several",
            )
    return placement


def _verify_attention(name: str, pop: ig.Population, part: Slice) -> None:
    if not isinstance(pop, ig.ATTENTION_CLASSES):
        return
    width = pop.head_channels
    whole = all(edge % width == 0 for edge in part.box[0])
    if isinstance(pop, ig.IntSpatialAttention):
        sizes = pop.shape[1:]
        whole &= all(e == (0, size) for e, size in zip(part.box[1:], sizes, strict=True))
    elif isinstance(pop, ig.IntTemporalAttention) and pop.scrambled:
        whole &= part.box[0] == (0, pop.shape[0])
    if not whole:
        raise StageError(
            f"placement: {name} has a slice {part.box} that parts a head, or the tokens of a frame",
        )
