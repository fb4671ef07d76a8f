"""Layers cut into slices that fit one core each: which grid of parts costs least.

Every layer is cut into a grid, along channels, rows and columns, or tokens. All useful grids of a
layer are priced at once, by their largest part. Layers are taken in reverse order of execution: how
many slices read a neuron is known when its own layer is cut.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuroav import integer as ig
from neuroav.hardware import Profile, Quantity
from neuroav.mapping.links import Link
from neuroav.mapping.needs import (
    AXONS_IN,
    AXONS_OUT,
    NEURONS,
    PROGRAMS,
    RESOURCES,
    SYNAPSE,
    TOTAL,
    Costs,
    Layer,
    layer_of,
    limits,
)
from neuroav.mapping.terms import Cuts, Term, cuts, joined
from neuroav.placement import placed
from neuroav.synapses import mute

Rates = Mapping[str, float]  # population -> mean messages per neuron and sample


@dataclass(frozen=True, eq=False)
class Grid:
    """A layer cut along its axes: edges of the parts, each from 0 to the axis's size."""

    edges: tuple[np.ndarray, ...]

    @property
    def parts_along(self) -> tuple[int, ...]:
        return tuple(len(along) - 1 for along in self.edges)

    @property
    def parts(self) -> int:
        return int(np.prod(self.parts_along))

    def boxes(self) -> np.ndarray:
        """Return all parts in C order, int64 (parts, axes, 2)."""
        pairs = [np.stack([along[:-1], along[1:]], axis=1) for along in self.edges]
        places = np.indices([len(p) for p in pairs]).reshape(len(pairs), -1)
        return np.stack([p[i] for p, i in zip(pairs, places, strict=True)], axis=1)


@dataclass(frozen=True, eq=False)
class Prices:
    """What decides how a layer is cut.

    limits: of a core, as ``needs.limits``. rates: see ``Rates``. update, synop: load of a core per
    neuron and step, and per synaptic operation: ns where the profile knows both, else 1 each.
    """

    costs: Costs
    limits: np.ndarray
    rates: Rates
    steps: int
    update: float
    synop: float

    @property
    def per_axon(self) -> float:
        """Share of a sending core that one neuron's messages to one more core take."""
        total, axons = np.maximum(self.limits[[TOTAL, AXONS_OUT]], 1)
        return float(max(self.costs.axon_out_bytes / total, 1 / axons))


def nanoseconds(quantity: Quantity) -> float | None:
    """Return the value of a time, None where it is unknown."""
    return None if quantity.value is None else quantity.value * {"ns": 1, "us": 1e3}[quantity.unit]


def prices(graph: ig.IntGraph, profile: Profile, rates: Rates) -> Prices:
    """Return the prices of a profile."""
    update, synop = nanoseconds(profile.time.neuron_update), nanoseconds(profile.time.synop)
    if update is None or synop is None:
        update = synop = 1.0
    quiet = mute(graph)
    known = {n: 0.0 if n in quiet else rates[n] for n in graph.order}
    return Prices(Costs.of(profile), limits(profile), known, graph.steps, update, synop)


# --- all grids of one layer --------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Choices:
    """All useful grids of a layer, axes of candidates flattened.

    parts: slices. needs: the most that a slice needs, axons out aside. load: of the busiest slice.
    senders: cores' worth of memory that its sources need to send to all slices. messages: expected
    messages to all slices per sample. stored: bytes of weights in all slices.
    """

    layer: Layer
    cuts: tuple[Cuts, ...]
    parts: np.ndarray
    needs: np.ndarray
    load: np.ndarray
    senders: np.ndarray
    messages: np.ndarray
    stored: np.ndarray

    def grid(self, choice: int) -> Grid:
        """Return the grid of one choice."""
        places = np.unravel_index(choice, [len(c) for c in self.cuts])
        return Grid(tuple(c.edges(int(i)) for c, i in zip(self.cuts, places, strict=True)))

    def most(self, term: Term) -> np.ndarray:
        """Return the most that a slice of every grid counts, at least, (grids,)."""
        return self._joined([term.parts(axis, c)[0] for axis, c in enumerate(self.cuts)])

    @staticmethod
    def _joined(along: Sequence[np.ndarray]) -> np.ndarray:
        return joined(along).reshape(-1).astype(np.float64)


def choices(found: Layer, prices: Prices, on_cores: frozenset[str]) -> Choices:
    """Return all grids of a layer with their prices; on_cores: sources that are no input."""
    every = tuple(cuts(s, u) for s, u in zip(found.shape, found.units, strict=True))
    parts = Choices._joined([c.parts[:, None] for c in every])
    needs = np.zeros((len(parts), len(RESOURCES)))
    stored, senders, messages = (np.zeros(len(parts)) for _ in range(3))

    def both(of: Term | Link) -> tuple[np.ndarray, np.ndarray]:
        pairs = [of.parts(axis, c) for axis, c in enumerate(every)]
        return Choices._joined([p[0] for p in pairs]), Choices._joined([p[1] for p in pairs])

    needs[:, NEURONS] = found.states(both(found.neurons)[0].astype(np.int64))
    for term, bits in found.storage:
        most, total = both(term)
        needs[:, SYNAPSE] += most * bits / 8
        stored += total * bits / 8
    for link in found.links:
        most, total = both(link)
        needs[:, AXONS_IN] += most
        senders += total * prices.per_axon * (link.source in on_cores)
        messages += total * prices.rates[link.source]
    needs[:, PROGRAMS] = 1
    costs = prices.costs
    needs[:, TOTAL] = needs[:, SYNAPSE] + needs[:, NEURONS] * found.state_bytes
    needs[:, TOTAL] += costs.program_bytes + needs[:, AXONS_IN] * costs.axon_in_bytes
    load = needs[:, NEURONS] * prices.update * prices.steps
    for source, term in found.synapses:
        load = load + both(term)[0] * prices.rates[source] * prices.synop
    return Choices(found, every, parts, needs, load, senders, messages, stored)


ROUNDS = 6  # of cutting the layers of a loop again


# --- all layers --------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Splitter:
    """Cuts the layers of one graph for one profile."""

    graph: ig.IntGraph
    prices: Prices
    choices: Mapping[str, Choices]

    @classmethod
    def of(cls, graph: ig.IntGraph, prices: Prices) -> Splitter:
        """Return the splitter of a graph."""
        names = tuple(placed(graph))
        layers = {n: layer_of(graph, n, prices.costs) for n in names}
        every = {n: choices(layers[n], prices, frozenset(names)) for n in names}
        return cls(graph, prices, every)

    def split(self, most: float = np.inf) -> Split:
        """Return a grid for every layer; no slice's load exceeds ``most`` where that can be.

        Where no grid fits, the finest is taken and its needs are in ``Split.unfit``. A layer that a
        loop feeds back to earlier ones is cut before its reader; what it sends there follows from
        the reader's grid of the round before, until no grid changes.
        """
        order = list(self.choices)
        place = {name: number for number, name in enumerate(order)}
        back = [
            (name, link)
            for name in order
            for link in self.choices[name].layer.links
            if place.get(link.source, -1) > place[name]
        ]
        split = self._round(most, {})
        for _ in range(ROUNDS if back else 0):
            ahead: dict[str, list[Term]] = {}
            for name, link in back:
                ahead.setdefault(link.source, []).append(link.sent(split.grids[name].edges))
            before, split = split, self._round(most, ahead)
            if _same(before.grids, split.grids):
                break
        return split

    def _round(self, most: float, ahead: Mapping[str, Sequence[Term]]) -> Split:
        """Return a grid for every layer; ahead: what layers send to readers that are cut later."""
        grids: dict[str, Grid] = {}
        needs: dict[str, np.ndarray] = {}
        loads: dict[str, float] = {}
        unfit: dict[str, np.ndarray] = {}
        readers = {name: list(terms) for name, terms in ahead.items()}
        for name in reversed(list(self.choices)):
            found = self.choices[name]
            full = self._with_axons_out(name, found, readers.get(name, ()))
            choice = self._cheapest(found, full, most)
            if choice is None:
                choice = len(found.parts) - 1
                unfit[name] = full[choice]
            grids[name] = found.grid(choice)
            needs[name], loads[name] = full[choice], float(found.load[choice])
            for link in found.layer.links:
                if link.source in grids:  # itself, or one that was cut before
                    continue
                readers.setdefault(link.source, []).append(link.sent(grids[name].edges))
        order = list(self.choices)
        return Split(
            {n: grids[n] for n in order}, needs, loads, {n: unfit[n] for n in order if n in unfit}
        )

    def _with_axons_out(self, name: str, found: Choices, readers: Sequence[Term]) -> np.ndarray:
        full = found.needs.copy()
        for link in (link for link in found.layer.links if link.source == name):
            copies = [
                np.array([np.max(tie.seen_by(np.asarray(c.edges(i)))) for i in range(len(c))])
                for tie, c in zip(link.ties, found.cuts, strict=True)
            ]
            sent = Choices._joined([c[:, None] for c in copies])
            full[:, AXONS_OUT] += full[:, NEURONS] * sent
        for term in readers:
            full[:, AXONS_OUT] += found.most(term)
        full[:, TOTAL] += full[:, AXONS_OUT] * self.prices.costs.axon_out_bytes
        return full

    def _cheapest(self, found: Choices, full: np.ndarray, most: float) -> int | None:
        """Return the choice that fits and costs fewest cores; of equals, with the fewest messages
        to several cores, then the fewest weights stored several times. None where none fits."""
        fits = (full <= self.prices.limits).all(axis=1)
        if not fits.any():
            return None
        lightest = found.load[fits].min()
        fits &= found.load <= max(most, lightest)
        (left,) = np.nonzero(fits)
        cores = np.round(found.parts[left] + found.senders[left], 6)
        return int(left[np.lexsort((found.stored[left], found.messages[left], cores))[0]])


def _same(one: Mapping[str, Grid], other: Mapping[str, Grid]) -> bool:
    """Whether all layers are cut alike."""
    return all(
        all(map(np.array_equal, grid.edges, other[name].edges)) for name, grid in one.items()
    )


@dataclass(frozen=True, eq=False)
class Split:
    """Layers cut into slices.

    grids: in execution order. needs: the most that a slice of a layer needs (resources,); loads:
    the busiest slice's. unfit: needs of the finest slice of every layer that no grid makes fit.
    """

    grids: Mapping[str, Grid]
    needs: Mapping[str, np.ndarray]
    loads: Mapping[str, float]
    unfit: Mapping[str, np.ndarray]
