"""The report as one JSON object: what a run gave, priced with one profile.

Every estimated number is ``{value, low, high, unit, grade, source}``; what is not modelled is null,
with the reason as its source, never 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import neuroav
from neuroav import energy as en
from neuroav import integer as ig
from neuroav.counts import silent_and_saturated
from neuroav.hardware import Profile, Quantity
from neuroav.report.measure import BACKEND, Measured
from neuroav.synapses import synapse_count

STATEMENT = "estimate, not measurement"
KINDS: dict[type, str] = {
    ig.IntInput: "input",
    ig.IntHostCurrent: "input",
    ig.IntLif: "lif",
    ig.IntOr: "or",
    ig.IntAnd: "and",
    ig.IntSum: "sum",
    ig.IntTimeSum: "time-sum",
    ig.IntProduct: "product",
    ig.IntWinner: "winner",
    ig.IntSpatialAttention: "attention",
    ig.IntTemporalAttention: "attention",
    ig.IntReadout: "readout",
}
_SYNOPS = ("conv", "dense", "sparse")
_Z95 = 1.959964


def report_object(run: Measured, profile: Profile) -> dict[str, Any]:
    """Return the report of one file priced with one profile; plain JSON values."""
    deployment = run.deployment
    silent, saturated = silent_and_saturated(deployment.integer, run.outcome.counts.rates)
    layers = [_layer(run, profile, name) for name in deployment.integer.order]
    return {
        "accuracy": _accuracy(run),
        "layers": layers,
        "modalities": _modalities(layers),
        "host": _host(run),
        "counts": _counts(run),
        "energy": _energy(run, profile),
        "latency": _latency(run, profile),
        "baselines": en.baselines(deployment.real),
        "silent": silent,
        "saturated": saturated,
        "saturations": {n: int(c) for n, c in deployment.saturations.items()},
        "not_modelled": dict(en.NOT_MODELLED),
        "classes": list(deployment.classes),
        "confusion": _confusion(run),
        "provenance": _provenance(run, profile),
    }


# --- accuracy ---------------------------------------------------------------------------------
def _accuracy(run: Measured) -> dict[str, Any]:
    floating = run.real.predictions == run.labels
    deployed = run.outcome.predictions == run.labels
    total = len(run.labels)
    return {
        "float": float(floating.mean()),
        "deployed": float(deployed.mean()),
        "agreement": float((run.real.predictions == run.outcome.predictions).mean()),
        "samples": total,
        "zero_shot": run.zero_shot,
        "interval_95": {
            "float": wilson(int(floating.sum()), total),
            "deployed": wilson(int(deployed.sum()), total),
        },
        "correct": {
            "both": int((floating & deployed).sum()),
            "float_only": int((floating & ~deployed).sum()),
            "deployed_only": int((~floating & deployed).sum()),
            "neither": int((~floating & ~deployed).sum()),
        },
    }


def wilson(successes: int, total: int) -> list[float]:
    """Return the 95 % Wilson score interval of a share."""
    share, z2 = successes / total, _Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 / (1 + z2 / total)
    half *= math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return [max(0.0, centre - half), min(1.0, centre + half)]


def _confusion(run: Measured) -> list[list[int]]:
    """Return counts [true class][class the deployed network gave]."""
    size = len(run.deployment.classes)
    matrix = np.zeros((size, size), np.int64)
    np.add.at(matrix, (run.labels, run.outcome.predictions), 1)
    return matrix.tolist()


# --- events -----------------------------------------------------------------------------------
def _spread(values: np.ndarray) -> dict[str, float]:
    """Return how a number of every sample varies."""
    return {"std": float(values.std()), "min": float(values.min()), "max": float(values.max())}


def _synops(run: Measured, name: str) -> np.ndarray:
    """Return synaptic operations onto a population, per sample (samples,)."""
    parts = run.outcome.counts.synops[name].values()
    return sum(parts, np.zeros(len(run.labels), np.int64))


def _layer(run: Measured, profile: Profile, name: str) -> dict[str, Any]:
    deployment, counts = run.deployment, run.outcome.counts
    graph = deployment.integer
    pop, floating = graph.populations[name], run.real.spikes.get(name)
    places = pop.neurons * graph.steps
    is_input = isinstance(pop, ig.IntInput)
    parts = en.layer_energy(name, counts, profile, is_input=is_input)
    if is_input:
        cost = en.unknown("pJ", en.NOT_MODELLED["host_io"])
    else:
        cost = en.total(parts.values(), f"{profile.id}: sum over the layer's event kinds")
    synops = _synops(run, name)
    return {
        "name": name,
        "kind": KINDS[type(pop)],
        "shape": list(pop.shape),
        "inputs": _reached_from(graph, name),
        "latency_steps": graph.latency[name],
        "neurons": pop.state_neurons(graph.steps),
        "synapses": synapse_count(graph, name),
        "spikes_float": None if floating is None else float(floating.mean()),
        "spikes_deployed": float(counts.spikes[name].mean()),
        "rate_float": None if floating is None else float(floating.mean()) / places,
        "rate_deployed": None if isinstance(pop, ig.IntHostCurrent) else counts.rates[name],
        "synops": float(synops.mean()),
        "updates": counts.updates[name],
        "spread": {
            "spikes_float": None if floating is None else _spread(floating),
            "spikes_deployed": _spread(counts.spikes[name]),
            "synops": _spread(synops),
        },
        "saturations": int(deployment.saturations.get(name, 0)),
        "energy": cost.as_dict(),
        "energy_by_source": {kind: part.as_dict() for kind, part in parts.items()},
    }


def _reached_from(graph: ig.IntGraph, name: str) -> list[str]:
    """Return the names of the inputs that a population depends on, sorted."""
    found, waiting = set(), {name}
    while waiting:
        current = waiting.pop()
        found.add(current)
        waiting |= {p.source for p in graph.populations[current].projections} - found
    return sorted(found & set(graph.inputs))


def _modalities(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the layers' sums by the inputs they depend on, inputs themselves left out."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for layer in layers:
        if layer["kind"] != "input":
            groups.setdefault(tuple(layer["inputs"]), []).append(layer)
    keys = ("neurons", "synapses", "spikes_deployed", "synops", "updates")
    return [
        {
            "inputs": list(inputs),
            **{key: sum(member[key] for member in members) for key in keys},
            "energy": en.total(
                (en.Estimate(**member["energy"]) for member in members),
                "sum over the layers of this modality",
            ).as_dict(),
        }
        for inputs, members in groups.items()
    ]


def _counts(run: Measured) -> dict[str, Any]:
    """Return means per sample over the whole network; ``spikes`` are those sent on the chip."""
    graph, counts = run.deployment.integer, run.outcome.counts
    inside = [n for n in graph.order if n not in graph.inputs]
    zero = np.zeros(len(run.labels), np.int64)
    spikes = sum((counts.spikes[n] for n in inside), zero)
    arriving = sum((counts.spikes[n] for n in graph.inputs), zero)
    synops = sum((_synops(run, n) for n in inside), zero)
    places = graph.steps * run.deployment.neurons
    return {
        "spikes": float(spikes.mean()),
        "input_messages": float(arriving.mean()),
        "synops": float(synops.mean()),
        "synops_by_kind": {k: float(v.mean()) for k, v in _synops_by_kind(run).items()},
        "updates": sum(counts.updates.values()),
        "neurons": run.deployment.neurons,
        "synapses": run.deployment.synapses,
        "activation_sparsity": 1.0 - float(spikes.mean()) / places,
        "messages_to_cores": None,
        "hops": None,
        "spread": {
            "spikes": _spread(spikes),
            "input_messages": _spread(arriving),
            "synops": _spread(synops),
        },
    }


def _synops_by_kind(run: Measured) -> dict[str, np.ndarray]:
    """Return synaptic operations per sample by the kind of synapse, for the kinds there are."""
    by_kind: dict[str, np.ndarray] = {}
    for kind in _SYNOPS:
        parts = [kinds[kind] for kinds in run.outcome.counts.synops.values() if kind in kinds]
        if parts:
            by_kind[kind] = np.sum(parts, axis=0)
    return by_kind


def _host(run: Measured) -> list[dict[str, Any]]:
    """Return the layers that the host computes once per sample, with their multiplications."""
    return [
        {
            "input": name,
            "source": layer.source,
            "layer": layer.layer,
            "sends": layer.sends,
            "values": run.deployment.integer.populations[name].neurons,
            "macs": layer.macs,
            "energy": en.unknown("pJ", en.HOST_LAYER).as_dict(),
        }
        for name, layer in run.deployment.host.items()
    ]


# --- energy and time --------------------------------------------------------------------------
def _energy(run: Measured, profile: Profile) -> dict[str, Any]:
    graph, counts, costs = run.deployment.integer, run.outcome.counts, profile.energy
    inside = [n for n in graph.order if n not in graph.inputs]
    events: dict[str, np.ndarray] = {
        f"synop_{kind}": values for kind, values in _synops_by_kind(run).items()
    }
    updates = sum(counts.updates[n] for n in inside)
    events["neuron_update"] = np.full(len(run.labels), updates, np.int64)
    events["spike_out"] = sum((counts.spikes[n] for n in inside), np.zeros(len(run.labels)))
    priced = {k: en.priced(float(v.mean()), getattr(costs, k)) for k, v in events.items()}
    dynamic = en.total(priced.values(), f"{profile.id}: sum over the modelled event kinds")
    by_source = {
        kind: {
            "modelled": True,
            "count": float(events[kind].mean()),
            "unit_cost": _unit_cost(getattr(costs, kind)),
            "energy": priced[kind].as_dict(),
        }
        for kind in events
    }
    static = en.unknown("pJ", en.NOT_MODELLED["static"])
    return {
        "statement": STATEMENT,
        "per": "sample",
        "static": static.as_dict(),
        "dynamic": dynamic.as_dict(),
        "total": en.unknown("pJ", f"no total without {', '.join(en.NOT_MODELLED)}").as_dict(),
        "dynamic_spread": _energy_spread(events, profile),
        "by_source": by_source | _left_out(profile),
    }


def _unit_cost(quantity: Quantity) -> dict[str, Any]:
    keys = ("value", "low", "high", "unit", "grade", "source")
    return {key: getattr(quantity, key) for key in keys}


def _left_out(profile: Profile) -> dict[str, dict[str, Any]]:
    """Return the event kinds without a count: their price is known, how often they occur is not."""
    rows = {}
    for kind, why in en.NOT_MODELLED.items():
        quantity = getattr(profile.energy, "static_chip" if kind == "static" else kind)
        rows[kind] = {
            "modelled": False,
            "count": None,
            "unit_cost": _unit_cost(quantity),
            "energy": en.unknown("pJ", why).as_dict(),
        }
    return rows


def _energy_spread(events: dict[str, np.ndarray], profile: Profile) -> dict[str, float] | None:
    """Return how the dynamic energy varies from sample to sample, in pJ; None if unknown."""
    costs = {kind: getattr(profile.energy, kind) for kind in events}
    if any(cost.value is None for cost in costs.values()):
        return None
    parts = [events[kind] * (c.value * en.TO_PJ[c.unit]) for kind, c in costs.items()]
    return _spread(np.sum(parts, axis=0))


def _latency(run: Measured, profile: Profile) -> dict[str, Any]:
    """Return steps, and seconds as unknown: run time needs the busiest core, hence a placement."""
    graph = run.deployment.integer
    pipeline = graph.latency[graph.output]
    why = "the time of a step is that of its busiest core, which needs a placement on cores"
    return {
        "pipeline_steps": pipeline,
        "steps_per_sample": graph.steps,
        "steps_to_answer": pipeline + graph.steps,
        "seconds": en.unknown("s", why).as_dict(),
        "step_floor": _unit_cost(profile.time.step_floor),
    }


def _provenance(run: Measured, profile: Profile) -> dict[str, Any]:
    return {
        "file": run.label,
        "content_hash": run.deployment.content_hash,
        "profile": {"id": profile.id, "title": profile.title, "hash": profile.hash},
        "compiled_for": run.deployment.profile.id,
        "split": run.split,
        "samples": len(run.labels),
        "executor": BACKEND,
        "spike_digest": run.outcome.digest,
        "neuroav": neuroav.__version__,
        "deployment": dict(run.deployment.provenance),
    }
