"""What the cores of a placement hold, exactly, against the limits of a profile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroav import integer as ig
from neuroav.hardware import Profile
from neuroav.mapping.flows import Flows, flows
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
from neuroav.placement import Placement, Slice


@dataclass(frozen=True, eq=False)
class Usage:
    """What every core needs, float64 (cores, resources), and its bytes of neuron state (cores,)."""

    needs: np.ndarray
    state_bytes: np.ndarray

    def shares(self, limits: np.ndarray) -> np.ndarray:
        """Return the needs as shares of the limits, (cores, resources); 0 of an unknown limit."""
        return np.where(np.isfinite(limits), self.needs / limits, 0.0)


def usage(
    layers: Mapping[str, Layer], cores: Sequence[Sequence[Slice]], costs: Costs, flow: Flows
) -> Usage:
    """Return what the slices on every core need; weights that they share count once."""
    held: dict[str, list[tuple[int, Slice]]] = defaultdict(list)
    for number, slices in enumerate(cores):
        for part in slices:
            held[part.population].append((number, part))
    needs, state = np.zeros((len(cores), len(RESOURCES))), np.zeros(len(cores))
    kinds: list[set[tuple[object, ...]]] = [set() for _ in cores]
    for name, parts in held.items():
        _add_layer(layers[name], parts, needs, state)
        for number, _ in parts:
            kinds[number].add(layers[name].program)
    needs[:, SYNAPSE] = np.ceil(needs[:, SYNAPSE])
    needs[:, PROGRAMS] = [len(k) for k in kinds]
    needs[:, AXONS_IN], needs[:, AXONS_OUT] = flow.axons_in, flow.axons_out
    needs[:, TOTAL] = needs[:, SYNAPSE] + state + needs[:, PROGRAMS] * costs.program_bytes
    needs[:, TOTAL] += flow.axons_in * costs.axon_in_bytes + flow.axons_out * costs.axon_out_bytes
    return Usage(needs, state)


def _add_layer(found: Layer, parts: Sequence[tuple[int, Slice]], needs, state) -> None:
    owner = np.array([number for number, _ in parts])
    boxes = np.array([part.box for _, part in parts], np.int64)
    neurons = found.states(found.neurons.of(boxes))
    np.add.at(needs[:, NEURONS], owner, neurons)
    np.add.at(state, owner, neurons * found.state_bytes)
    np.add.at(needs[:, SYNAPSE], owner, found.weights(boxes, shared=False))
    _, first = np.unique(np.column_stack([owner, boxes[:, 0]]), axis=0, return_index=True)
    np.add.at(needs[:, SYNAPSE], owner[first], found.weights(boxes[first], shared=True))


def utilisation(graph: ig.IntGraph, placement: Placement, profile: Profile) -> dict[str, Any]:
    """Return how full the cores of a placement are, as plain JSON values.

    Keys: cores and chips in use; cores_share: of the usable cores of these chips; resources: by
    limit its mean and max as shares of limit, and limit itself, where the profile knows it; binds:
    the resource with the largest share, None without limits; lower_bounds: by resource the keys of
    the profile that are unknown, so that its numbers leave a term out; table: by core its seat,
    slices and needs.
    """
    costs, most = Costs.of(profile), limits(profile)
    cores = [core.slices for core in placement.cores]
    layers = {name: layer_of(graph, name, costs) for name in placement.of}
    used = usage(layers, cores, costs, flows(graph, cores))
    share = used.shares(most)
    known = {
        name: {
            "mean": float(share[:, i].mean()),
            "max": float(share[:, i].max()),
            "limit": int(most[i]),
        }
        for i, name in enumerate(RESOURCES)
        if np.isfinite(most[i])
    }
    return {
        "cores": len(cores),
        "chips": placement.chips,
        "cores_share": len(cores) / (placement.chips * placement.mesh.usable),
        "resources": known,
        "binds": max(known, key=lambda n: known[n]["max"]) if known else None,
        "lower_bounds": {n: list(keys) for n, keys in costs.unknown.items() if keys},
        "table": _table(placement, used, costs),
    }


def _table(placement: Placement, used: Usage, costs: Costs) -> list[dict[str, Any]]:
    """Return one row per core; None where the profile does not know what to count."""
    state_known = not costs.unknown["state_bytes"]
    unknown: Mapping[str, tuple[str, ...]] = costs.unknown
    rows = []
    for core, needs, state in zip(placement.cores, used.needs, used.state_bytes, strict=True):
        row: dict[str, Any] = {"chip": core.chip, "x": core.x, "y": core.y, "slot": core.slot}
        row["slices"] = [
            [part.population, [list(edge) for edge in part.box]] for part in core.slices
        ]
        for name, value in zip(RESOURCES, needs.tolist(), strict=True):
            row[name] = None if unknown.get(name) else round(value)
        row["state_bytes"] = round(float(state)) if state_known else None
        rows.append(row)
    return rows
