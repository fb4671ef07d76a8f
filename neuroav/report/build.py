"""The report as one JSON object: what a run gave, priced with one profile.

Every estimated number is ``{value, low, high, unit, grade, source}``; what is not modelled is null,
with the reason as its source, never 0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import neuroav
from neuroav import integer as ig
from neuroav.costs import energy as en
from neuroav.costs.timing import latency_dict, time
from neuroav.counts import silent_and_saturated
from neuroav.hardware import Profile
from neuroav.report.comparisons import baseline_rows, break_evens, published_sets
from neuroav.report.measure import BACKEND, Measured, Placed
from neuroav.report.on_chip import layer_traffic, placement_object, state_bytes, traffic
from neuroav.simulate import UNKNOWN, accuracy
from neuroav.synapses import synapse_count

LEFT_OUT = {
    "host input and output": "moving events to the chip and scores back; no cost is published",
    "sensors and encoding": "microphone, camera, and turning their signals into events",
    "embedded processors": "the chip's own processors and its board beyond the chips' static power",
    "configuration": "loading weights and resetting states before the first sample",
}
HOST_LAYERS = "the first layers of inputs without events are computed on the host"
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


def report_object(run: Measured, placed: Placed) -> dict[str, Any]:
    """Return the report of one file on one target; plain JSON values."""
    deployment, profile = run.deployment, placed.profile
    silent, saturated = silent_and_saturated(deployment.integer, run.outcome.counts.rates)
    layers = [_layer(run, placed, name) for name in deployment.integer.order]
    run_time = time(placed.loads, profile, why=placed.why)
    energy = en.price(
        run.outcome.counts,
        placed.loads,
        profile,
        period=run_time.headline.period,
        alone=run_time.headline.seconds,
        why=placed.why,
    )
    rows = baseline_rows(run)
    return {
        "accuracy": _accuracy(run),
        "layers": layers,
        "modalities": _modalities(layers),
        "host": _host(run),
        "counts": {
            **_counts(run),
            **traffic(placed),
            "state_bytes": state_bytes(run, placed),
        },
        "placement": placement_object(run, placed),
        "energy": energy.as_dict(),
        "latency": latency_dict(deployment.integer, run_time, profile),
        "baselines": rows,
        "break_even": break_evens(run, energy, rows),
        "coefficient_sets": published_sets(run),
        "neurobench": dict(run.neurobench),
        "silent": silent,
        "saturated": saturated,
        "saturations": {n: int(c) for n, c in deployment.saturations.items()},
        "left_out": _left_out(run, placed),
        "classes": list(deployment.classes),
        "confusion": _confusion(run),
        "provenance": _provenance(run, profile),
    }


def _left_out(run: Measured, placed: Placed) -> dict[str, str]:
    """Return what no number of the report holds, and why."""
    found = dict(LEFT_OUT)
    if run.deployment.host:
        found["host layers"] = f"{HOST_LAYERS}; {en.HOST_LAYER}"
    if placed.placement is None:
        found["cores"] = placed.why
    return found


# --- accuracy ---------------------------------------------------------------------------------
def _accuracy(run: Measured) -> dict[str, Any]:
    known = run.labels != UNKNOWN
    floating, deployed = (
        (side.predictions == run.labels)[known] for side in (run.real, run.outcome)
    )
    total = int(known.sum())
    return {
        "float": accuracy(run.real.predictions, run.labels),
        "deployed": accuracy(run.outcome.predictions, run.labels),
        "agreement": float((run.real.predictions == run.outcome.predictions).mean()),
        "samples": len(run.labels),
        "labelled": total,
        "zero_shot": run.zero_shot,
        "interval_95": {
            "float": wilson(int(floating.sum()), total) if total else None,
            "deployed": wilson(int(deployed.sum()), total) if total else None,
        },
        "correct": {
            "both": int((floating & deployed).sum()),
            "float_only": int((floating & ~deployed).sum()),
            "deployed_only": int((~floating & deployed).sum()),
            "neither": int((~floating & ~deployed).sum()),
        }
        if total
        else None,
    }


def wilson(successes: int, total: int) -> list[float]:
    """Return the 95 % Wilson score interval of a share."""
    share, z2 = successes / total, _Z95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z95 / (1 + z2 / total)
    half *= math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return [max(0.0, centre - half), min(1.0, centre + half)]


def _confusion(run: Measured) -> list[list[int]] | None:
    """Return counts [true class][class the deployed network gave], None without any label."""
    known = run.labels != UNKNOWN
    if not known.any():
        return None
    size = len(run.deployment.classes)
    matrix = np.zeros((size, size), np.int64)
    np.add.at(matrix, (run.labels[known], run.outcome.predictions[known]), 1)
    return matrix.tolist()


# --- events -----------------------------------------------------------------------------------
def _spread(values: np.ndarray) -> dict[str, float]:
    """Return how a number of every sample varies."""
    return {"std": float(values.std()), "min": float(values.min()), "max": float(values.max())}


def _synops(run: Measured, name: str) -> np.ndarray:
    """Return synaptic operations onto a population, per sample (samples,)."""
    parts = run.outcome.counts.synops[name].values()
    return sum(parts, np.zeros(len(run.labels), np.int64))


def _layer(run: Measured, placed: Placed, name: str) -> dict[str, Any]:
    deployment, counts, profile = run.deployment, run.outcome.counts, placed.profile
    graph = deployment.integer
    pop, floating = graph.populations[name], run.real.spikes.get(name)
    places = pop.neurons * graph.steps
    parts = en.layer_energy(name, counts, placed.loads, profile, why=placed.why)
    if isinstance(pop, ig.IntInput):
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
        **layer_traffic(placed, name),
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


# --- origin -----------------------------------------------------------------------------------
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
