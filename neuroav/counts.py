"""Event counts of a run: spikes, synaptic operations and neuron updates, by population and sample.

These counts are what energy is computed from; they come from recorded outputs only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from neuroav import integer as ig
from neuroav.sim.trace import Trace
from neuroav.synapses import SYNOP_KIND, fan_out, mute

SILENT, SATURATED = 0.001, 0.9


@dataclass(frozen=True, eq=False)
class Counts:
    """Totals over ``samples`` samples of ``steps`` steps.

    spikes: by population, messages sent per sample, int64 (samples,). A graded message counts once;
    a readout that only the host reads sends none, nor do currents of the host.
    synops: by receiving population and kind ('conv', 'dense', 'sparse'), per sample, (samples,).
    updates: neuron updates per sample, by population (inputs have none).
    rates: share of (neuron, step) places with a message.
    """

    samples: int
    steps: int
    spikes: dict[str, np.ndarray]
    synops: dict[str, dict[str, np.ndarray]]
    updates: dict[str, int]
    rates: dict[str, float]

    def spikes_per_sample(self) -> dict[str, float]:
        """Mean messages per sample, by population."""
        return {n: float(v.mean()) for n, v in self.spikes.items()}

    def synops_per_sample(self) -> dict[str, float]:
        """Mean synaptic operations per sample, by receiving population."""
        return {
            n: float(sum((v.mean() for v in kinds.values()), 0.0))
            for n, kinds in self.synops.items()
        }


class Counter:
    """Takes in traces and gives Counts."""

    def __init__(self, graph: ig.IntGraph) -> None:
        self._graph = graph
        self._mute = mute(graph)
        self._spikes: dict[str, list[np.ndarray]] = {n: [] for n in graph.order}
        self._synops: dict[tuple[str, str], list[np.ndarray]] = {}
        self._fans = [
            (
                p.source,
                name,
                SYNOP_KIND[type(p)],
                fan_out(p, graph.populations[p.source].shape, pop.shape).reshape(-1)
                * (pop.fan(graph.steps) if isinstance(pop, ig.ATTENTION_CLASSES) else 1),
            )
            for name, pop in graph.populations.items()
            for p in pop.projections
        ]

    def add(self, trace: Trace) -> None:
        """Count the events of a trace."""
        sent = {}
        for name, pop in self._graph.populations.items():
            if name in self._mute:
                sent[name] = np.zeros((trace.samples, pop.neurons), np.int64)
            else:
                active = trace.outputs[name] != 0
                sent[name] = active.sum(axis=1, dtype=np.int64).reshape(trace.samples, -1)
            self._spikes[name].append(sent[name].sum(axis=1))
        chunk: dict[tuple[str, str], np.ndarray] = {}
        for source, target, kind, fan in self._fans:
            key = (target, kind)
            chunk[key] = chunk.get(key, 0) + sent[source] @ fan
        for name, pop in self._graph.populations.items():
            if isinstance(pop, ig.ATTENTION_CLASSES):
                q, k, v = (
                    trace.outputs[next(p.source for p in pop.projections if p.port == port)]
                    for port in range(3)
                )
                chunk[name, "sparse"] = chunk[name, "sparse"] + state_messages(pop, q, k, v).sum(1)
        for key, value in chunk.items():
            self._synops.setdefault(key, []).append(value)

    def counts(self) -> Counts:
        """Return the totals so far."""
        graph = self._graph
        spikes = {
            n: np.concatenate(v) if v else np.zeros(0, np.int64) for n, v in self._spikes.items()
        }
        synops: dict[str, dict[str, np.ndarray]] = {n: {} for n in graph.order}
        for (name, kind), parts in self._synops.items():
            synops[name][kind] = np.concatenate(parts)
        pops = graph.populations
        return Counts(
            samples=len(next(iter(spikes.values()))),
            steps=graph.steps,
            spikes=spikes,
            synops=synops,
            updates={
                n: 0 if n in graph.inputs else pops[n].state_neurons(graph.steps) * graph.steps
                for n in graph.order
            },
            rates={
                n: float(v.mean()) / (pops[n].neurons * graph.steps) if len(v) else 0.0
                for n, v in spikes.items()
            },
        )


def state_messages(
    pop: ig.IntSpatialAttention | ig.IntTemporalAttention,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
) -> np.ndarray:
    """Return synaptic operations of what the state sends on, by frame, int64 (samples, steps).

    Every key-value sum that is not 0 goes to all tokens of its frame (spatial) or all frames of
    its token (temporal), where q gates it; a score that is not 0 meets the d values of its source.
    q, k, v: (samples, steps, channels, *tokens), of all heads and tokens or some.
    """
    frames = q.shape[:2]
    heads = q.shape[2] // pop.head_channels
    split = (*frames, heads, pop.head_channels, -1)
    q, k, v = ((x != 0).reshape(split).astype(np.float32) for x in (q, k, v))
    spatial = isinstance(pop, ig.IntSpatialAttention)
    if pop.form == "key-value":
        state = np.einsum("sthin,sthjn->sthij" if spatial else "sthin,sthjn->shijn", k, v)
    else:
        state = np.einsum("sthin,sthim->sthnm" if spatial else "sthin,suhin->sthun", q, k)
    if not spatial and pop.form == "key-value":  # one meeting in every frame that follows
        once = np.count_nonzero(state.reshape(len(q), -1), axis=1)
        return np.repeat(once[:, None], frames[1], axis=1).astype(np.int64)
    found = np.count_nonzero(state.reshape(*frames, -1), axis=2)
    return pop.reach(frames[1]) * found.astype(np.int64)


def mean_messages(graph: ig.IntGraph, traces: Iterable[Trace]) -> dict[str, np.ndarray]:
    """Return messages per sample that every neuron sends, float64 of its population's shape."""
    total: dict[str, np.ndarray] = {}
    samples, quiet = 0, mute(graph)
    for trace in traces:
        samples += trace.samples
        for name, pop in graph.populations.items():
            sent = 0 if name in quiet else (trace.outputs[name] != 0).sum(axis=(0, 1))
            total[name] = total.get(name, np.zeros(pop.shape)) + sent
    return {name: value / max(samples, 1) for name, value in total.items()}


def silent_and_saturated(
    graph: ig.IntGraph, rates: dict[str, float]
) -> tuple[list[str], list[str]]:
    """Return names with rate < 0.1 % (any sender) and > 90 % (spiking populations).

    Neurons that nothing reaches stand for a bias: they spike in every step, which is no fault.
    """
    quiet = mute(graph)
    silent = [n for n in graph.order if n not in quiet and rates[n] < SILENT]
    saturated = [
        n
        for n in graph.order
        if isinstance(pop := graph.populations[n], ig.SPIKING_CLASSES)
        and pop.projections
        and rates[n] > SATURATED
    ]
    return silent, saturated
