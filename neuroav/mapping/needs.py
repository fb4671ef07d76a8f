"""What the neurons of a slice need on a core, by resource; ``docs/mapping.md`` has the equations.

``Layer`` holds everything about a population that decides this. Counts are products along the axes
(``terms``, ``links``), so that all boxes of a layer, and all ways to cut it, are priced at once.
Where a profile does not know a cost, the term is left out of the sum, the sum is a lower bound, and
``Costs.unknown`` names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np

from neuroav import integer as ig
from neuroav.hardware import Profile
from neuroav.mapping.links import Link, Windowed, links, taps
from neuroav.mapping.terms import Term, ones
from neuroav.synapses import fan_out, kernel

RESOURCES = (  # of a core, in the order of all arrays of needs
    "neurons",
    "memory_synapse",
    "memory_total",
    "axons_in",
    "axons_out",
    "programs",
)
PER_NEURON = ("fan_in", "fan_out", "state_bytes")  # splitting does not change these
NEURONS, SYNAPSE, TOTAL, AXONS_IN, AXONS_OUT, PROGRAMS = range(len(RESOURCES))


@dataclass(frozen=True)
class Costs:
    """Memory that parts of a network take, from a profile's ``layout``; unknown ones are 0 here.

    unknown: resource -> keys of the profile without which its sum is a lower bound only.
    """

    neuron_bytes: float
    delay_slot_bytes: float
    synapse_overhead_bits: float
    axon_in_bytes: float
    axon_out_bytes: float
    program_bytes: float
    shared: bool
    unknown: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, profile: Profile) -> Costs:
        """Return the costs of a profile."""
        names = [f.name for f in fields(cls) if f.name not in ("shared", "unknown")]
        values = {n: getattr(profile.layout, n).value for n in names}
        missing = {n: f"layout.{n}" for n in names if values[n] is None}
        state = tuple(k for n, k in missing.items() if n in ("neuron_bytes", "delay_slot_bytes"))
        synapse = tuple(k for n, k in missing.items() if n == "synapse_overhead_bits")
        unknown = {
            "memory_synapse": synapse,
            "state_bytes": state,
            "memory_total": tuple(missing.values()),
        }
        known = {n: float(v or 0) for n, v in values.items()}
        return cls(**known, shared=profile.layout.convolution_shared, unknown=unknown)

    def state(self, delay: int) -> float:
        """Return the bytes of a neuron whose synapses wait up to ``delay`` extra steps."""
        return self.neuron_bytes + self.delay_slot_bytes * delay


def limits(profile: Profile) -> np.ndarray:
    """Return what a core holds, float64 (resources,); infinite where the profile does not know."""
    values = [getattr(profile.core, name).value for name in RESOURCES]
    return np.array([np.inf if v is None else v for v in values])


@dataclass(frozen=True, eq=False)
class Layer:
    """Everything about a population that decides what its slices need.

    units: per axis, neurons that stay together. storage: weights as stored, with the bits of each.
    synapses: non-zero synapses by source, unrolled. state: state neurons; state_bytes: of one of
    them. program: equal for populations that can share one.
    """

    name: str
    pop: ig.Population
    units: tuple[int, ...]
    storage: tuple[tuple[Term, float], ...]
    synapses: tuple[tuple[str, Term], ...]
    links: tuple[Link, ...]
    state: int
    state_bytes: float
    program: tuple[object, ...]

    @property
    def shape(self) -> ig.Shape:
        return self.pop.shape

    @cached_property
    def neurons(self) -> Term:
        """Messages that it can send per step."""
        return ones(self.shape)

    def states(self, messages: np.ndarray) -> np.ndarray:
        """Return the state neurons of slices that can send so many messages."""
        return messages * self.state // self.pop.neurons

    def weights(self, boxes: np.ndarray, *, shared: bool) -> np.ndarray:
        """Return the bytes of weights stored for every box, float64 (boxes,).

        boxes: int64 (boxes, axes, 2). shared: those that slices of the same channels have in
        common, or the others.
        """
        found = np.zeros(len(boxes))
        for term, bits in self.storage:
            if term.once == shared:
                found += term.of(boxes) * bits / 8
        return found


def layer_of(graph: ig.IntGraph, name: str, costs: Costs) -> Layer:
    """Return what decides the needs of one population's slices."""
    pop = graph.populations[name]
    shared: list[tuple[Term, float]] = []
    unrolled: list[tuple[str, Term]] = []
    for p in pop.projections:
        source = graph.populations[p.source]
        if isinstance(source, ig.IntHostCurrent):  # in the neurons' biases
            continue
        bits = weight_bits(p) + costs.synapse_overhead_bits
        full = _synapses(p, source.shape, pop, graph.steps)
        stored = _kernel(p, pop) if costs.shared else None
        unrolled.append((p.source, full))
        shared.append((full if stored is None else stored, bits))
    if isinstance(pop, ig.ATTENTION_CLASSES):
        state = pop.state_neurons(graph.steps)
        inner = ones(pop.shape, state * pop.reach(graph.steps) // pop.neurons)
        shared.append((inner, 1 + costs.synapse_overhead_bits))
    delay = max((p.delay for p in pop.projections), default=0)
    return Layer(
        name=name,
        pop=pop,
        units=units(pop),
        storage=tuple(shared),
        synapses=tuple(unrolled),
        links=links(graph, name),
        state=pop.state_neurons(graph.steps),
        state_bytes=costs.state(delay),
        program=program(pop),
    )


def units(pop: ig.Population) -> tuple[int, ...]:
    """Return the neurons per axis that must stay on one core: heads, tokens of a sum, a winner's
    rivals."""
    if isinstance(pop, ig.IntWinner):
        return pop.shape
    if isinstance(pop, ig.IntSpatialAttention):
        return (pop.head_channels, *pop.shape[1:])
    if isinstance(pop, ig.IntTemporalAttention):
        return (pop.shape[0] if pop.scrambled else pop.head_channels, *(1 for _ in pop.shape[1:]))
    return (1,) * len(pop.shape)


def program(pop: ig.Population) -> tuple[object, ...]:
    """Return what makes a neuron's program: its kind and the numbers that its step multiplies or
    shifts by. Thresholds and biases are state of each neuron."""
    names = {
        ig.IntLif: ("bias_exponent", "decay_u", "decay_v", "reset"),
        ig.IntReadout: ("decay_u", "decay_v", "input_shift"),
        ig.IntProduct: ("shift",),
        ig.IntTimeSum: ("weights", "shift"),
        ig.IntSpatialAttention: ("cap", "form"),
        ig.IntTemporalAttention: ("cap", "form", "scrambled"),
    }.get(type(pop), ())
    # decays that differ from neuron to neuron are state like thresholds
    values = (getattr(pop, n) for n in names)
    return (
        type(pop).__name__,
        *("each" if np.ndim(v) and n else v for n, v in enumerate(values, 1)),
    )


def weight_bits(p: ig.Projection) -> int:
    """Return the width of a projection's stored weights; of equal ones, what their value takes."""
    if isinstance(p, (ig.IntConv2d, ig.IntConvTranspose2d, ig.IntDense)):
        return p.weight_bits
    weight = p.weight if isinstance(p, (ig.IntIdentity, ig.IntPlace)) else 1
    return max(1, abs(weight).bit_length()) + (weight < 0)


def _kernel(p: ig.Projection, target: ig.Population) -> Term | None:
    """Return the stored weights where places share them; None where every synapse is stored."""
    channels = target.shape[0]
    per_channel = 1
    if isinstance(p, (ig.IntConv2d, ig.IntConvTranspose2d)):
        per_channel = int(np.prod(kernel(p).shape[1:]))
    elif isinstance(p, ig.IntPool):
        per_channel = p.kernel[0] * p.kernel[1]
    elif isinstance(target, ig.ATTENTION_CLASSES):
        if target.form == "score":  # every place meets other scores
            return None
        per_channel = target.head_channels
    elif isinstance(p, (ig.IntDense, ig.IntPlace)):
        return None
    elif isinstance(p, ig.IntIdentity):
        per_channel = int(p.weight != 0)
    table = np.full((channels, 1), per_channel, np.int64)
    return Term((table, *(None for _ in target.shape[1:])))


def _synapses(p: ig.Projection, source: ig.Shape, target: ig.Population, steps: int) -> Term:
    """Return the non-zero synapses of every neuron, shared weights unrolled."""
    shape = target.shape
    if isinstance(target, ig.ATTENTION_CLASSES):
        return ones(shape, target.fan(steps))
    if isinstance(p, ig.IntDense):
        return Term(((p.weight != 0).sum(axis=1, dtype=np.int64)[:, None],))
    if isinstance(p, (ig.IntConv2d, ig.IntConvTranspose2d, ig.IntPool)):
        return _unrolled(p, source, shape)
    if isinstance(p, ig.IntSpatialSum):
        return ones(shape, source[1] * source[2])
    if isinstance(p, ig.IntPlace):
        inside = np.arange(p.size) - p.offset
        some = (inside >= 0) & (inside < int(np.prod(source))) & (p.weight != 0)
        return Term((some.astype(np.int64)[:, None],))
    return ones(shape, int(p.weight != 0) if isinstance(p, ig.IntIdentity) else 1)


def _unrolled(p: Windowed, source: ig.Shape, target: ig.Shape) -> Term:
    """Return the synapses under every window: one k per tap of the kernel."""
    rows = taps(p, 1, source[1], target[1])[1]
    columns = taps(p, 2, source[2], target[2])[1]
    height, width = rows.shape[1], columns.shape[1]
    if not isinstance(p, ig.IntPool):
        weights = (kernel(p) != 0).sum(axis=1, dtype=np.int64).reshape(target[0], -1)
    else:
        weights = np.ones((target[0], height * width), np.int64)
    along = np.repeat(rows, width, axis=1), np.tile(columns, (1, height))
    return Term((weights, *(a.astype(np.int64) for a in along)))


# --- limits of one neuron ----------------------------------------------------------------------
def fan_in(layer: Layer) -> int:
    """Return the most synapses that one neuron of a population has; of an attention, that one of
    its state has."""
    counts = np.zeros(layer.shape, np.int64)
    for _, term in layer.synapses:
        counts += term.grid()
    return -(-int(counts.max(initial=0)) * layer.pop.neurons // layer.state)


def fans_out(graph: ig.IntGraph) -> dict[str, int]:
    """Return for every population on cores the most synapses that one message meets."""
    found: dict[str, np.ndarray | int] = dict.fromkeys(graph.order, 0)
    for target in graph.populations.values():
        times = target.fan(graph.steps) if isinstance(target, ig.ATTENTION_CLASSES) else 1
        for p in (p for p in target.projections if p.source not in graph.inputs):
            shape = graph.populations[p.source].shape
            found[p.source] = found[p.source] + times * fan_out(p, shape, target.shape)
    return {n: int(np.max(v)) for n, v in found.items() if n not in graph.inputs}
