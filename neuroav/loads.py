"""Events of a run on a placement: what every core does in every step, what crosses every link.

Time is the chip's: frame t of a population happens at chip step t + latency. All that a message
causes (it is sent, travels, meets its synapses) happens in the step in which its neuron fires; a
delayed synapse keeps the result, not the message. One sample alone takes ``run_steps`` steps, from
its first frame to the last message of the last layer. Samples may also follow one another every
``steps`` steps without a gap; ``Loads.streaming`` folds one kind of time into the other.

A message goes to every core that holds at least one non-zero synapse of its neuron, once per core,
also to the core it comes from. Routes go along columns first, then along rows. What the host sends
comes from no core: it is delivered, but crosses no counted link.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from neuroav import integer as ig
from neuroav.counts import state_messages
from neuroav.mapping.reach import reach
from neuroav.placement import Box, Placement, placed, state_neurons
from neuroav.sim.trace import Trace
from neuroav.synapses import mute

DIRECTIONS = ("east", "west", "north", "south")  # north: towards row 0


@dataclass(frozen=True, eq=False)
class LayerLoads:
    """What one population sends, int64 (samples,) each.

    messages: (message, destination core) pairs. hops_x, hops_y: steps from router to router along
    columns and rows of the board. chip_messages: crossings of a border between chips.
    """

    messages: np.ndarray
    hops_x: np.ndarray
    hops_y: np.ndarray
    chip_messages: np.ndarray


@dataclass(frozen=True, eq=False)
class Loads:
    """Events by core, link and step.

    steps: frames per sample. layers: by population on cores. inputs: (message, destination core)
    pairs of what the host sends, by input, int64 (samples,). synops, spikes, messages_in: int64
    (samples, run_steps, cores), of one sample alone. neurons: int64 (cores,), each updated in every
    step. links: mean messages per sample over the link that leaves a router in a direction, float64
    (rows, columns) of the board. link_peak: most messages over one link in one step.
    """

    steps: int
    layers: Mapping[str, LayerLoads]
    inputs: Mapping[str, np.ndarray]
    synops: np.ndarray
    spikes: np.ndarray
    messages_in: np.ndarray
    neurons: np.ndarray
    links: Mapping[str, np.ndarray]
    link_peak: int
    chips: int

    @property
    def samples(self) -> int:
        return len(self.synops)

    @property
    def run_steps(self) -> int:
        """Chip steps of one sample alone."""
        return self.synops.shape[1]

    @property
    def cores(self) -> int:
        return len(self.neurons)

    def streaming(self, events: np.ndarray) -> np.ndarray:
        """Return events (samples, run_steps, cores) as (samples, steps, cores), int64: the load of
        every phase when equal samples follow one another without a gap."""
        folded = np.zeros((len(events), self.steps, events.shape[2]), np.int64)
        for step in range(events.shape[1]):
            folded[:, step % self.steps] += events[:, step]
        return folded


@dataclass(frozen=True, eq=False)
class _Delivery:
    """Messages from a slice of a source to one core: fan of what reaches it, inside ``box``."""

    sender: int | None
    receiver: int
    box: Box
    weights: (
        np.ndarray
    )  # (neurons of the box, 2), exact floats: whether it is reached, synapses there


class LoadCounter:
    """Takes in traces and gives Loads."""

    def __init__(self, graph: ig.IntGraph, placement: Placement) -> None:
        self._graph, self._placement = graph, placement
        self._quiet = mute(graph)
        self._run_steps = graph.steps + max(graph.latency.values())
        self._routes = _Routes(placement)
        self._layers: dict[str, list[np.ndarray]] = {n: [] for n in placed(graph)}
        self._inputs: dict[str, list[np.ndarray]] = {n: [] for n in graph.inputs}
        self._events: list[np.ndarray] = []
        self._links = np.zeros(self._routes.links)
        self._link_peak = 0
        self._deliveries = {n: list(_deliveries(graph, placement, n)) for n in graph.order}

    def add(self, trace: Trace) -> None:
        """Count the events of a trace."""
        shape = (trace.samples, self._run_steps)
        events = np.zeros((3, *shape, len(self._placement.cores)), np.int64)
        crossing = np.zeros((*shape, self._routes.links), np.int64)
        for name in self._graph.order:
            if name not in self._quiet:
                self._send(name, trace.outputs[name] != 0, events, crossing)
            else:
                self._none(name, trace.samples)
        for name, pop in self._graph.populations.items():
            if isinstance(pop, ig.ATTENTION_CLASSES):
                self._attend(name, pop, trace, events[0])
        self._events.append(events)
        self._links += crossing.sum(axis=(0, 1), dtype=np.int64)
        self._link_peak = max(self._link_peak, int(crossing.max(initial=0)))

    def _send(self, name: str, active: np.ndarray, events, crossing) -> None:
        synops, spikes, messages_in = events
        start = self._graph.latency[name]
        when = slice(start, start + self._graph.steps)
        totals = np.zeros((4, len(active)), np.int64)
        for core, part in self._placement.of.get(name, ()):
            block = active[(slice(None), slice(None), *part.index)]
            spikes[:, when, core] += np.count_nonzero(block.reshape(*active.shape[:2], -1), axis=2)
        for delivery in self._deliveries[name]:
            index = tuple(slice(first, last) for first, last in delivery.box)
            block = active[(slice(None), slice(None), *index)]
            block = block.reshape(-1, len(delivery.weights)).astype(delivery.weights.dtype)
            found = (block @ delivery.weights).astype(np.int64).reshape(*active.shape[:2], 2)
            messages, met = found[..., 0], found[..., 1]
            messages_in[:, when, delivery.receiver] += messages
            synops[:, when, delivery.receiver] += met
            self._travel(delivery, messages, crossing[:, when], totals)
        if name in self._inputs:
            self._inputs[name].append(totals[0])
        else:
            self._layers[name].append(totals)

    def _travel(self, delivery: _Delivery, messages, crossing, totals) -> None:
        """Add (samples, steps) messages of a delivery to the links on its way and to its totals."""
        count = messages.sum(axis=1)
        totals[0] += count
        if delivery.sender is None:
            return
        route = self._routes.between(delivery.sender, delivery.receiver)
        totals[1] += count * route.hops_x
        totals[2] += count * route.hops_y
        totals[3] += count * route.chips
        if len(route.links):
            crossing[:, :, route.links] += messages[..., None]

    def _none(self, name: str, samples: int) -> None:
        if name in self._inputs:
            self._inputs[name].append(np.zeros(samples, np.int64))
        else:
            self._layers[name].append(np.zeros((4, samples), np.int64))

    def _attend(self, name: str, pop, trace: Trace, synops: np.ndarray) -> None:
        """Add what the state neurons of an attention send on, inside their core."""
        start = self._graph.latency[name]
        sources = [next(p.source for p in pop.projections if p.port == i) for i in range(3)]
        for core, part in self._placement.of[name]:
            outputs = (
                trace.outputs[s].reshape(*trace.outputs[s].shape[:2], *pop.shape) for s in sources
            )
            q, k, v = (x[(slice(None), slice(None), *part.index)] for x in outputs)
            sent = state_messages(pop, q, k, v)
            synops[:, start : start + self._graph.steps, core] += sent

    def loads(self) -> Loads:
        """Return the events so far."""
        events = np.concatenate(self._events, axis=1)
        samples, graph, cores = events.shape[1], self._graph, self._placement.cores
        layers = {n: LayerLoads(*np.concatenate(v, axis=1)) for n, v in self._layers.items()}
        neurons = [
            sum(state_neurons(graph.populations[s.population], s.box, graph.steps)
                for s in core.slices)
            for core in cores
        ]  # fmt: skip
        return Loads(
            steps=graph.steps,
            layers=layers,
            inputs={n: np.concatenate(v) for n, v in self._inputs.items()},
            synops=events[0],
            spikes=events[1],
            messages_in=events[2],
            neurons=np.array(neurons, np.int64),
            links=self._routes.by_direction(self._links / max(samples, 1)),
            link_peak=self._link_peak,
            chips=self._placement.chips,
        )


def _deliveries(graph: ig.IntGraph, placement: Placement, source: str) -> Iterator[_Delivery]:
    """Yield who receives messages of a population, by slice of it that sends them and core."""
    shape = graph.populations[source].shape
    for receiver, (box, fan) in _fans(graph, placement, source):
        for sender, own in _senders(placement, source, shape):
            common = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(box, own, strict=True))
            if any(first >= last for first, last in common):
                continue
            met = fan[_within(common, box)].reshape(-1)
            if met.any():
                exact = np.float32 if met.sum() < 2**24 else np.float64
                yield _Delivery(sender, receiver, common, np.stack([met > 0, met], 1).astype(exact))


def _within(box: Box, outer: Box) -> tuple[slice, ...]:
    """Return a box as an index into an array of what lies in ``outer``."""
    return tuple(
        slice(first - start, last - start)
        for (first, last), (start, _) in zip(box, outer, strict=True)
    )


def _senders(placement: Placement, source: str, shape) -> list[tuple[int | None, Box]]:
    parts = placement.of.get(source)
    if parts is None:  # an input: the host sends it
        return [(None, tuple((0, size) for size in shape))]
    return [(core, part.box) for core, part in parts]


def _fans(graph: ig.IntGraph, placement: Placement, source: str):
    """Yield (core, (box, synapses on it of every neuron in the box)) for the cores reached."""
    found: dict[int, list] = {}
    for name in placed(graph):
        for projection in graph.populations[name].projections:
            if projection.source == source:
                for core, part in placement.of[name]:
                    found.setdefault(core, []).append(reach(graph, name, projection, part.box))
    for core, parts in found.items():
        if len(parts) == 1:
            yield core, (parts[0].box, parts[0].fan)
            continue
        box = tuple(
            (min(p.box[a][0] for p in parts), max(p.box[a][1] for p in parts))
            for a in range(len(parts[0].box))
        )
        fan = np.zeros([last - first for first, last in box], np.int64)
        for part in parts:
            fan[_within(part.box, box)] += part.fan
        yield core, (box, fan)


# --- routes ------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class _Route:
    hops_x: int
    hops_y: int
    chips: int
    links: np.ndarray  # numbers of the links on the way


class _Routes:
    """Ways between cores: along the columns of a row first, then along the rows."""

    def __init__(self, placement: Placement) -> None:
        mesh = placement.mesh
        self._placement = placement
        self._columns = mesh.routers_x * mesh.chips_x
        self._rows = mesh.routers_y * mesh.chips_y
        self._known: dict[tuple[int, int], _Route] = {}

    @property
    def links(self) -> int:
        """Links that leave a router, four of each; those at the border carry nothing."""
        return 4 * self._columns * self._rows

    def between(self, sender: int, receiver: int) -> _Route:
        key = (sender, receiver)
        if key not in self._known:
            self._known[key] = self._find(sender, receiver)
        return self._known[key]

    def _find(self, sender: int, receiver: int) -> _Route:
        mesh = self._placement.mesh
        (x0, y0), (x1, y1) = map(self._placement.position, (sender, receiver))
        right, down = np.sign(x1 - x0), np.sign(y1 - y0)
        along = [self._link("east" if right > 0 else "west", x, y0)
                 for x in range(x0, x1, right or 1)]  # fmt: skip
        across = [self._link("south" if down > 0 else "north", x1, y)
                  for y in range(y0, y1, down or 1)]  # fmt: skip
        chips = abs(x1 // mesh.routers_x - x0 // mesh.routers_x)
        chips += abs(y1 // mesh.routers_y - y0 // mesh.routers_y)
        return _Route(abs(x1 - x0), abs(y1 - y0), chips, np.array(along + across, np.int64))

    def _link(self, direction: str, x: int, y: int) -> int:
        return (DIRECTIONS.index(direction) * self._rows + y) * self._columns + x

    def by_direction(self, values: np.ndarray) -> dict[str, np.ndarray]:
        parts = values.reshape(4, self._rows, self._columns)
        return dict(zip(DIRECTIONS, parts, strict=True))
