"""NeuroBench's algorithm metrics of the deployed network, under NeuroBench's names.

They are counted on the integer graph and its recorded messages as version 2.3.0 of the harness
counts them on a torch module; ``docs/neurobench.md`` says what each covers and where a definition
differs from ours. Source: Yik et al., Nature Communications 16:1545, 2025.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from neuroav import integer as ig
from neuroav.errors import DataError
from neuroav.fixed import Arithmetic
from neuroav.sim.trace import Trace
from neuroav.synapses import fan_out

VERSION = "2.3.0"
LEAKY_OPERATIONS = 4  # of one membrane update, NeuronOperations' table for snnTorch's Leaky
EXPONENT_BYTES = 1

Weighted = ig.IntConv2d | ig.IntDense


# --- the graph alone --------------------------------------------------------------------------
def weighted(graph: ig.IntGraph) -> Iterator[tuple[str, Weighted]]:
    """Yield (population, projection) for synapses with weights of their own.

    Those are the layers that NeuroBench knows as Linear and Conv2d. The copies of a mask, pooling,
    relays and attention are none.
    """
    for name in graph.order:
        pop = graph.populations[name]
        for p in pop.projections:
            if isinstance(p, (ig.IntConv2d, ig.IntDense)) and not isinstance(pop, ig.IntAnd):
                yield name, p


def container_bytes(bits: int) -> int:
    """Return the bytes of the smallest whole-byte integer (1, 2, 4, 8) that holds ``bits``."""
    return next(size for size in (1, 2, 4, 8) if 8 * size >= bits)


def biases(pop: ig.Population) -> int:
    """Return how many biases a population stores, 0 where its layer has none."""
    if not isinstance(pop, (ig.IntLif, ig.IntReadout)):
        return 0
    stored = pop.bias_mantissa if isinstance(pop, ig.IntLif) else pop.bias
    return int(stored.size) if stored.any() else 0


def footprint(graph: ig.IntGraph, arith: Arithmetic) -> dict[str, int]:
    """Return the bytes of what is deployed: 'weights', 'biases' and 'neurons'.

    Every number is counted in the smallest whole-byte integer that holds its register, as
    NeuroBench counts ``element_size()`` of a tensor; shared weights once. neurons: thresholds,
    both decays, the exponent of the bias, weights of the steps. No membranes: NeuroBench adds
    none before a run.
    """
    found = {"weights": 0, "biases": 0, "neurons": 0}
    for _, p in weighted(graph):
        found["weights"] += p.weight.size * container_bytes(p.weight_bits)
    for pop in graph.populations.values():
        if isinstance(pop, ig.IntLif):
            found["biases"] += biases(pop) * container_bytes(arith.bias_bits)
            found["neurons"] += pop.threshold.size * container_bytes(arith.threshold_bits)
            found["neurons"] += 2 * container_bytes(arith.decay_bits) + EXPONENT_BYTES
        elif isinstance(pop, ig.IntReadout):
            found["biases"] += biases(pop) * container_bytes(arith.payload_bits)
        elif isinstance(pop, ig.IntTimeSum):
            found["neurons"] += len(pop.weights) * container_bytes(ig.STEP_WEIGHT_MAX.bit_length())
    return found


def parameter_count(graph: ig.IntGraph) -> int:
    """Return the number of weights, shared ones once, and biases."""
    stored = sum(p.weight.size for _, p in weighted(graph))
    return stored + sum(biases(pop) for pop in graph.populations.values())


def connection_sparsity(graph: ig.IntGraph) -> float:
    """Return the share of weights that are 0, shared ones once, rounded to 4 digits as
    NeuroBench does. DataError for a graph without weights."""
    stored = [p.weight for _, p in weighted(graph)]
    if not stored:
        raise DataError("the graph has no weights, connection sparsity is a share of them")
    zeros = sum(int((w == 0).sum()) for w in stored)
    return round(zeros / sum(w.size for w in stored), 4)


# --- a run ------------------------------------------------------------------------------------
@dataclass
class _Sums:
    """Totals over all samples so far. updates: None as soon as a voltage was not recorded."""

    samples: int = 0
    macs: int = 0
    acs: int = 0
    updates: int | None = 0
    spikes: dict[str, int] = field(default_factory=dict)


class NeuroBenchCounter:
    """Takes in traces and gives the metrics.

    One trace is one batch: NeuroBench decides for every layer, step and batch whether its input is
    binary. MembraneUpdates and NeuronOperations need recorded voltages (``states=True``).
    """

    def __init__(self, graph: ig.IntGraph, arith: Arithmetic) -> None:
        self._graph, self._arith, self._sums = graph, arith, _Sums()
        self._layers = [(p.source, self._fan(name, p)) for name, p in weighted(graph)]
        self._neurons = [n for n in graph.order if isinstance(graph.populations[n], ig.IntLif)]

    def _fan(self, name: str, p: ig.Projection) -> np.ndarray:
        shapes = (self._graph.populations[n].shape for n in (p.source, name))
        return fan_out(p, *shapes).reshape(-1)

    def add(self, trace: Trace) -> None:
        """Count the events of a batch."""
        sums = self._sums
        sums.samples += trace.samples
        for source, fan in self._layers:
            sent = trace.outputs[source].reshape(trace.samples, self._graph.steps, -1)
            operations = (sent != 0).sum(axis=0, dtype=np.int64) @ fan
            binary = (np.abs(sent) <= 1).all(axis=(0, 2))
            sums.acs += int(operations[binary].sum())
            sums.macs += int(operations[~binary].sum())
        for name in self._neurons:
            spikes = int(np.count_nonzero(trace.outputs[name]))
            sums.spikes[name] = sums.spikes.get(name, 0) + spikes
            updates = _membrane_updates(trace, name)
            if sums.updates is not None:
                sums.updates = None if updates is None else sums.updates + updates

    def metrics(self) -> dict[str, Any]:
        """Return the metrics so far, means per sample; keys as NeuroBench's classes.

        MembraneUpdates and 'Effective Neuron Ops' are None where voltages were not recorded.
        Raises DataError before the first sample.
        """
        sums, graph = self._sums, self._graph
        if not sums.samples:
            raise DataError("no samples were counted; add the traces of a run first")
        places = {
            n: sums.samples * graph.steps * graph.populations[n].neurons for n in self._neurons
        }
        updates = None if sums.updates is None else sums.updates / sums.samples
        effective = None if updates is None else LEAKY_OPERATIONS * updates
        dense = LEAKY_OPERATIONS * sum(places.values()) / sums.samples
        return {
            **static_metrics(graph, self._arith),
            "ActivationSparsity": _share_of_zeros(sum(sums.spikes.values()), sum(places.values())),
            "ActivationSparsityByLayer": {
                n: _share_of_zeros(sums.spikes[n], places[n]) for n in self._neurons
            },
            "SynapticOperations": {
                "Effective_MACs": sums.macs / sums.samples,
                "Effective_ACs": sums.acs / sums.samples,
                "Dense": float(self._dense()),
            },
            "MembraneUpdates": updates,
            "NeuronOperations": {"Effective Neuron Ops": effective, "Neuron Dense Ops": dense},
            "samples": sums.samples,
        }

    def _dense(self) -> int:
        """Return synapses met per sample if every neuron sent in every step."""
        found = 0
        for name, p in weighted(self._graph):
            full = replace(p, weight=np.ones_like(p.weight))
            found += self._graph.steps * int(self._fan(name, full).sum())
        return found


def static_metrics(graph: ig.IntGraph, arith: Arithmetic) -> dict[str, Any]:
    """Return the metrics that need no run: Footprint in bytes, ParameterCount and
    ConnectionSparsity, and the version of NeuroBench they follow."""
    return {
        "version": VERSION,
        "Footprint": sum(footprint(graph, arith).values()),
        "ParameterCount": parameter_count(graph),
        "ConnectionSparsity": connection_sparsity(graph),
    }


def neurobench_metrics(
    graph: ig.IntGraph, arith: Arithmetic, traces: Iterable[Trace]
) -> dict[str, Any]:
    """Return NeuroBench's metrics of a run; see ``NeuroBenchCounter``."""
    counter = NeuroBenchCounter(graph, arith)
    for trace in traces:
        counter.add(trace)
    return counter.metrics()


def _membrane_updates(trace: Trace, name: str) -> int | None:
    """Return how often a membrane changed: every neuron in the first step, later where it differs
    from the step before; None where it was not recorded."""
    voltage = trace.states.get(name)
    if voltage is None:
        return None
    return voltage[:, 0].size + int(np.count_nonzero(voltage[:, 1:] != voltage[:, :-1]))


def _share_of_zeros(messages: int, places: int) -> float:
    return (places - messages) / places if places else 0.0
