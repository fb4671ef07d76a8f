"""What flows between the cores of a placement: axons, messages and synaptic operations, exactly.

A neuron sends one message to every core that holds at least one non-zero synapse of it, however
many slices read it there.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuroav import integer as ig
from neuroav.mapping.reach import Reach, reach
from neuroav.placement import Box, Slice
from neuroav.synapses import mute

Messages = Mapping[str, np.ndarray]  # population -> mean messages per sample of each neuron


@dataclass(frozen=True, eq=False)
class Flows:
    """Per core, and between cores.

    axons_in: source neurons that reach a core, inputs too; axons_out: pairs of its neurons and
    cores that they reach, int64 (cores,). synops: expected synaptic operations per sample, those
    inside attentions aside. source, target, messages: expected messages per sample from core to
    core, of pairs that exchange any; a core may send to itself.
    """

    axons_in: np.ndarray
    axons_out: np.ndarray
    synops: np.ndarray
    source: np.ndarray
    target: np.ndarray
    messages: np.ndarray


def flows(
    graph: ig.IntGraph, cores: Sequence[Sequence[Slice]], messages: Messages | None = None
) -> Flows:
    """Return the flows between ``cores``; None for messages: one per neuron and sample."""
    holders: dict[str, list[tuple[int, Box]]] = defaultdict(list)
    for number, slices in enumerate(cores):
        for part in slices:
            holders[part.population].append((number, part.box))
    counts = np.zeros((3, len(cores)))
    pairs: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    quiet, readers = mute(graph), defaultdict(list)
    for name, population in graph.populations.items():
        for p in population.projections:
            readers[p.source].append((name, p))
    for name in graph.order:
        if name not in quiet:
            found = _reaches(graph, readers[name], holders)
            pairs += _from_source(graph, name, holders, found, messages, counts)
    joint = [np.concatenate(v) for v in zip(*pairs, strict=True)] if pairs else [np.zeros(0)] * 3
    axons_in, axons_out, synops = counts
    source, target = (v.astype(np.int64) for v in joint[:2])
    return Flows(
        axons_in.astype(np.int64), axons_out.astype(np.int64), synops, source, target, joint[2]
    )


def _from_source(graph, name, holders, found, messages, counts):
    """Add what one population sends to ``counts``; yield its messages by pair of cores.

    found: what of it reaches every core, as ``_reaches``.
    """
    shape = graph.populations[name].shape
    sent = None if messages is None else messages[name].reshape(shape)
    owner, owners = _owners(shape, holders.get(name, ()))
    for core, reaches in found.items():
        for one in reaches:
            weight = one.fan if sent is None else one.fan * sent[one.index]
            counts[2, core] += weight.sum()
        box, reached = _union(reaches)
        counts[0, core] += np.count_nonzero(reached)
        if owner is None:
            continue
        inside = tuple(slice(first, last) for first, last in box)
        senders = owner[inside][reached]
        number = np.bincount(senders, minlength=len(owners))
        rate = number if sent is None else np.bincount(senders, sent[inside][reached], len(owners))
        np.add.at(counts[1], owners, number)
        (some,) = np.nonzero(number)
        yield owners[some], np.full(len(some), core), rate[some]


def _owners(shape: ig.Shape, parts: Sequence[tuple[int, Box]]):
    """Return for every neuron the number of its slice, and the core of every slice."""
    if not parts:
        return None, np.zeros(0, np.int64)
    owner = np.zeros(shape, np.int32)
    for number, (_, box) in enumerate(parts):
        owner[tuple(slice(first, last) for first, last in box)] = number
    return owner, np.array([core for core, _ in parts], np.int64)


def _reaches(graph: ig.IntGraph, readers, holders) -> dict[int, list[Reach]]:
    """Return by core what of a population reaches it, one Reach per slice and projection.

    readers: the populations that read it, with the projection.
    """
    found: dict[int, list[Reach]] = defaultdict(list)
    for name, p in readers:
        for core, box in holders[name]:
            found[core].append(reach(graph, name, p, box))
    return found


def _union(reaches: Sequence[Reach]) -> tuple[Box, np.ndarray]:
    """Return a box and which of its neurons any of ``reaches`` holds, bool."""
    if len(reaches) == 1:
        return reaches[0].box, reaches[0].fan != 0
    ends = np.array([r.box for r in reaches])
    low, high = ends[..., 0].min(axis=0), ends[..., 1].max(axis=0)
    reached = np.zeros(high - low, bool)
    for one in reaches:
        index = tuple(
            slice(first - start, last - start)
            for (first, last), start in zip(one.box, low.tolist(), strict=True)
        )
        reached[index] |= one.fan != 0
    return tuple(zip(low.tolist(), high.tolist(), strict=True)), reached
