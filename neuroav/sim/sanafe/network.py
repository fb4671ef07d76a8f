"""A placed network as SANA-FE sees it: groups of neurons on cores of tiles, explicit synapses.

* A *tile* is a router. SANA-FE numbers tiles column by column: tile = x * rows + y. A core is its
  slot on the tile. All chips of a board are one mesh.
* Every population on cores is a group, neuron by neuron on its own core. Its neurons are updated in
  every step and fire when they are told to.
* A neuron of SANA-FE has one kind of synapse hardware. Where a population has projections of
  several kinds ('conv', 'dense', 'sparse'), all but the first end in a group of *sinks* beside it:
  silent neurons on the same cores, which cost nothing.
* What the host sends has no place on the mesh. It is sent from one more core on every tile that it
  reaches, which costs nothing, by a copy of the input's neurons that reaches only this tile: no
  message of the host makes a hop, and every synapse it meets is counted.
* An attention sends from silent neurons on its cores. The synapses onto its state are there, as
  many parallel ones per message as state neurons that a message meets. State neurons, and what they
  send on inside their core, have no counterpart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from neuroav import integer as ig
from neuroav.placement import Placement, placed
from neuroav.sim.sanafe.unroll import Synapses, unroll
from neuroav.synapses import SYNOP_KIND, mute

UNIT_NEURONS = 1024  # neurons that one soma or dendrite model of SANA-FE holds
STATE_LEFT_OUT = (
    "its state neurons and what they send on inside their core have no counterpart; "
    "its messages, and the synapses onto its state, are there"
)
HOST_CURRENT_LEFT_OUT = "the host writes it into biases: no message, no synapse"


@dataclass(frozen=True, eq=False)
class Group:
    """Neurons of SANA-FE with one kind of synapse and soma hardware.

    name: in SANA-FE. population: whose messages they send; '' for sinks. numbers: of each in its
    population, ascending. tile, core: where each is, the core as its number on the tile; unit:
    which of the core's soma and dendrite models holds it; int64 (neurons,). synapse: kind of those
    that end here. silent: whether the soma costs nothing.
    """

    name: str
    population: str
    numbers: np.ndarray
    tile: np.ndarray
    core: np.ndarray
    unit: np.ndarray
    synapse: str
    silent: bool


@dataclass(frozen=True, eq=False)
class Bundle:
    """Synapses from one group to another, by the numbers of the neurons in their groups."""

    source: str
    target: str
    synapses: Synapses


@dataclass(frozen=True, eq=False)
class Network:
    """Groups by name, and what connects them. columns, rows: tiles of the mesh; slots: cores per
    tile, the host's is one more."""

    groups: Mapping[str, Group]
    columns: int
    rows: int
    slots: int
    left_out: Mapping[str, str]


def network(graph: ig.IntGraph, placement: Placement) -> Network:
    """Return the groups of a placed graph; ``bundles`` gives the synapses."""
    mesh = placement.mesh
    columns, rows = mesh.routers_x * mesh.chips_x, mesh.routers_y * mesh.chips_y
    seats = {n: _seats(graph, placement, n, rows) for n in placed(graph)}
    made = _Groups({}, np.zeros((columns * rows, mesh.cores_per_router + 1), np.int64))
    left_out: dict[str, str] = {}
    for name, (tile, core) in seats.items():
        numbers, (first, *others) = np.arange(len(tile)), _kinds(graph, name)
        attends = isinstance(graph.populations[name], ig.ATTENTION_CLASSES)
        made.add(name, name, numbers, tile, core, first, silent=attends)
        for kind in others:
            made.add(f"{name}+{kind}", "", numbers, tile, core, kind, silent=True)
        if attends:
            left_out[name] = STATE_LEFT_OUT
    for name, pop in graph.inputs.items():
        if isinstance(pop, ig.IntHostCurrent):
            left_out[name] = HOST_CURRENT_LEFT_OUT
            continue
        for number, numbers in _reached(graph, name, seats).items():
            tile, core = np.full((2, len(numbers)), [[number], [mesh.cores_per_router]])
            made.add(f"{name}@{number}", name, numbers, tile, core, "sparse", silent=True)
    return Network(made.groups, columns, rows, mesh.cores_per_router, left_out)


@dataclass(frozen=True, eq=False)
class _Groups:
    """Groups so far, and how many neurons every core (tile, core) holds."""

    groups: dict[str, Group]
    filled: np.ndarray

    def add(self, name, population, numbers, tile, core, synapse: str, *, silent: bool) -> None:
        plain = found = re.sub(r"[^\w@+]", "_", name)  # a dot ends a name in SANA-FE's files
        number = 1
        while found in self.groups:
            number += 1
            found = f"{plain}_{number}"
        unit = self._take(tile, core) // UNIT_NEURONS
        self.groups[found] = Group(found, population, numbers, tile, core, unit, synapse, silent)

    def _take(self, tile: np.ndarray, core: np.ndarray) -> np.ndarray:
        """Return how many neurons were on its core before each, and count them in."""
        before = np.zeros(len(tile), np.int64)
        for seat in np.unique(np.stack([tile, core]), axis=1).T.tolist():
            here = (tile == seat[0]) & (core == seat[1])
            before[here] = self.filled[tuple(seat)] + np.arange(int(here.sum()))
            self.filled[tuple(seat)] += int(here.sum())
        return before


def bundles(graph: ig.IntGraph, net: Network) -> Iterator[Bundle]:
    """Yield the synapses of a network, projection by projection."""
    senders: dict[str, list[Group]] = {}
    for group in net.groups.values():
        senders.setdefault(group.population, []).append(group)
    for name in placed(graph):
        for projection in graph.populations[name].projections:
            source = projection.source
            if isinstance(graph.populations[source], ig.IntHostCurrent):
                continue
            target = _receiver(graph, net, name, SYNOP_KIND[type(projection)])
            found = _synapses(graph, name, projection)
            if source not in graph.inputs:
                yield Bundle(senders[source][0].name, target.name, found)
                continue
            for group in senders.get(source, ()):
                yield Bundle(group.name, target.name, _within(found, group, target))


def spikes(graph: ig.IntGraph, net: Network, outputs: Mapping[str, np.ndarray]):
    """Return when which neurons fire, int32 (spikes, 3): step, number of the group, neuron.

    outputs: by population, (samples, steps, *shape). Samples follow one another every ``steps``
    steps; frame t of sample s of a population is step s * steps + t + latency, from 0. Any message
    is one spike. Sorted by step.
    """
    quiet, found = mute(graph), [np.zeros((0, 3), np.int32)]
    for number, group in enumerate(net.groups.values()):
        if not group.population or group.population in quiet:
            continue
        sent = outputs[group.population] != 0
        sent = sent.reshape(sent.shape[0] * sent.shape[1], -1)[:, group.numbers]
        frame, neuron = np.nonzero(sent)
        step = frame + graph.latency[group.population]
        found.append(np.stack([step, np.full_like(step, number), neuron], 1).astype(np.int32))
    every = np.concatenate(found)
    return every[np.argsort(every[:, 0], kind="stable")]


def chip_steps(graph: ig.IntGraph, samples: int) -> int:
    """Return the steps from the first frame of the first sample to the last message of the last."""
    return samples * graph.steps + max(graph.latency.values())


# --- groups ----------------------------------------------------------------------------------
def _seats(graph: ig.IntGraph, placement: Placement, name: str, rows: int):
    """Return tile and core on it of every neuron of a population, int64 (neurons,) each."""
    tile, core = np.full((2, *graph.populations[name].shape), -1)
    for number, part in placement.of[name]:
        x, y = placement.position(number)
        tile[part.index] = x * rows + y
        core[part.index] = placement.cores[number].slot
    return tile.reshape(-1), core.reshape(-1)


def _kinds(graph: ig.IntGraph, name: str) -> list[str]:
    """Return the kinds of synapses onto a population, without repetition, at least one."""
    kinds = [
        SYNOP_KIND[type(p)]
        for p in graph.populations[name].projections
        if not isinstance(graph.populations[p.source], ig.IntHostCurrent)
    ]
    return list(dict.fromkeys(kinds)) or ["sparse"]


def _receiver(graph: ig.IntGraph, net: Network, name: str, kind: str) -> Group:
    """Return the group of a population, or of its sinks, that takes synapses of a kind."""
    groups = list(net.groups.values())
    first = next(i for i, g in enumerate(groups) if g.population == name)
    return groups[first + _kinds(graph, name).index(kind)]


def _reached(graph: ig.IntGraph, name: str, seats) -> dict[int, np.ndarray]:
    """Return the neurons of an input that reach each tile, by tile."""
    pairs = []
    for target in placed(graph):
        for projection in graph.populations[target].projections:
            if projection.source == name:
                found = _synapses(graph, target, projection)
                tile = seats[target][0][found.target]
                pairs.append(np.unique(np.stack([tile, found.source]), axis=1))
    if not pairs:
        return {}
    tile, number = np.unique(np.concatenate(pairs, axis=1), axis=1)
    return {int(t): number[tile == t] for t in np.unique(tile)}


def _synapses(graph: ig.IntGraph, name: str, projection: ig.Projection) -> Synapses:
    pop = graph.populations[name]
    found = unroll(projection, graph.populations[projection.source].shape, pop.shape)
    if isinstance(pop, ig.ATTENTION_CLASSES):
        met = pop.fan(graph.steps)
        return Synapses(*(np.repeat(x, met) for x in (found.source, found.target, found.weight)))
    return found


def _within(found: Synapses, group: Group, target: Group) -> Synapses:
    """Return the synapses from a copy of an input to the neurons on its tile."""
    here = target.tile[found.target] == group.tile[0]
    source = np.searchsorted(group.numbers, found.source[here])
    return Synapses(source, found.target[here], found.weight[here])
