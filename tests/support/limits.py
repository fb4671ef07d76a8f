"""Profiles with other limits, and what cores need counted neuron by neuron, without the mapper."""

from __future__ import annotations

from functools import cache

import numpy as np

from neuroav import integer as ig
from neuroav.hardware import Profile, load_profile
from neuroav.placement import state_neurons
from neuroav.sim import reference
from neuroav.synapses import mute


def changed(profile: Profile | str, **values: float | bool | None) -> Profile:
    """Return a profile with other numbers; keys of its tables: core__neurons=5."""
    profile = load_profile(profile) if isinstance(profile, str) else profile
    for key, value in values.items():
        table, name = key.split("__")
        old = getattr(getattr(profile, table), name)
        if hasattr(old, "unit"):
            value = old.model_copy(update={"value": value, "low": None, "high": None})
        inner = getattr(profile, table).model_copy(update={name: value})
        profile = profile.model_copy(update={table: inner})
    return profile


def graph_of(populations, output: str, steps: int = 4) -> ig.IntGraph:
    """Return a graph of hand-made populations, not verified."""
    return ig.IntGraph(populations, output, steps, 0.01, dict.fromkeys(populations, (1, 1)))


@cache
def _synapses(graph: ig.IntGraph, name: str, number: int) -> np.ndarray:
    """Which (source, target) neurons a projection joins, bool: one spike at a time."""
    p = graph.populations[name].projections[number]
    shape = graph.populations[p.source].shape
    spikes = np.eye(int(np.prod(shape)), dtype=np.int64).reshape(-1, *shape)
    target = graph.populations[name].shape
    return np.stack([reference.synaptic_sum(p, x, target).reshape(-1) != 0 for x in spikes])


def _width(p: ig.Projection) -> int:
    """Bits of a stored weight: of one that all synapses have, what its value and sign take."""
    if isinstance(p, (ig.IntConv2d, ig.IntConvTranspose2d, ig.IntDense)):
        return p.weight_bits
    weight = getattr(p, "weight", 1)
    return max(len(bin(abs(weight))) - 2, 1) + (weight < 0)


def counted(graph: ig.IntGraph, cores) -> dict[str, np.ndarray]:
    """Return neurons, axons_in, axons_out, synapses (unrolled, those inside attentions too), bits
    (of their weights) and delayed (neurons x steps that they wait) of every core, (cores,)."""
    names = ("neurons", "axons_in", "axons_out", "synapses", "bits", "delayed")
    found = {n: np.zeros(len(cores), np.int64) for n in names}
    reached: dict[str, np.ndarray] = {}  # source -> (neuron, core)
    owner = {n: np.full(p.shape, -1) for n, p in graph.populations.items()}
    for core, slices in enumerate(cores):
        for part in slices:
            pop = graph.populations[part.population]
            owner[part.population][part.index] = core
            size = state_neurons(pop, part.box, graph.steps)
            found["neurons"][core] += size
            found["delayed"][core] += size * max(p.delay for p in pop.projections)
            inside = np.zeros(pop.shape, bool)
            inside[part.index] = True
            for number, p in enumerate(pop.projections):
                joins = _synapses(graph, part.population, number)[:, inside.reshape(-1)]
                table = reached.setdefault(p.source, np.zeros((len(joins), len(cores)), bool))
                table[:, core] |= joins.any(axis=1)
                attention = isinstance(pop, ig.ATTENTION_CLASSES)
                count = joins.sum() * (pop.fan(graph.steps) if attention else 1)
                found["synapses"][core] += count
                found["bits"][core] += count * _width(p)
            if isinstance(pop, ig.ATTENTION_CLASSES):
                found["synapses"][core] += size * pop.reach(graph.steps)
                found["bits"][core] += size * pop.reach(graph.steps)
    for source, table in reached.items():
        if source in mute(graph):
            continue
        found["axons_in"] += table.sum(axis=0)
        if source not in graph.inputs:
            np.add.at(found["axons_out"], owner[source].reshape(-1), table.sum(axis=1))
    return found
