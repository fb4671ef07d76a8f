"""The network on the cores of one target, as plain JSON values: what fits, who is busy."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from neuroav.costs import energy as en
from neuroav.loads import Loads
from neuroav.mapping.mapper import plan, utilisation
from neuroav.report.measure import Measured, Placed

TRAFFIC = ("messages_to_cores", "host_messages_to_cores", "hops", "chip_messages", "core_steps")


def placement_object(run: Measured, placed: Placed) -> dict[str, Any]:
    """Return whether the network fits, its cores and chips, and how full they are.

    Keys: fits, reason (why not, else null), cores, least_cores (that it could be packed into),
    chips, seed, mesh, utilisation, per_core (what lies where, what it needs and does), links (mean
    messages per sample over the link that leaves a router in a direction, rows by columns of the
    board), link_peak. All but the first two are null where it does not fit.
    """
    keys = ("cores", "least_cores", "chips", "seed", "mesh", "utilisation", "per_core", "links",
            "link_peak")  # fmt: skip
    placement, loads = placed.placement, placed.loads
    if placement is None or loads is None:
        return {"fits": False, "reason": placed.why, **dict.fromkeys(keys)}
    graph = run.deployment.integer
    full = utilisation(graph, placement, placed.profile)
    per_core = full.pop("table")
    return {
        "fits": True,
        "reason": None,
        "cores": len(placement.cores),
        "least_cores": len(plan(graph, placed.profile, balance=False)),
        "chips": placement.chips,
        "seed": placement.seed,
        "mesh": asdict(placement.mesh),
        "utilisation": full,
        "per_core": [{**core, **_busy(loads, number)} for number, core in enumerate(per_core)],
        "links": {direction: values.tolist() for direction, values in loads.links.items()},
        "link_peak": loads.link_peak,
    }


def _busy(loads: Loads, core: int) -> dict[str, Any]:
    """Return what a core does per sample, and the most in one step of one sample alone."""
    events = {"synops": loads.synops, "spikes": loads.spikes, "messages_in": loads.messages_in}
    return {
        key: {"mean": float(v[:, :, core].sum(axis=1).mean()), "step_max": int(v[:, :, core].max())}
        for key, v in events.items()
    }


def traffic(placed: Placed) -> dict[str, Any]:
    """Return messages, hops and the load of cores; null where the network is not placed.

    A message counts once for every core that it goes to. core_steps: how an event count varies
    over cores and steps of one sample alone (the largest decides the time of a step).
    """
    loads = placed.loads
    if loads is None:
        return dict.fromkeys(TRAFFIC)
    layers = loads.layers.values()
    hops = {axis: _sum(getattr(layer, f"hops_{axis}") for layer in layers) for axis in ("x", "y")}
    return {
        "messages_to_cores": _sum(layer.messages for layer in layers),
        "host_messages_to_cores": _sum(loads.inputs.values()),
        "hops": hops | {"total": hops["x"] + hops["y"]},
        "chip_messages": _sum(layer.chip_messages for layer in layers),
        "core_steps": {
            key: {"mean": float(v.mean()), "std": float(v.std()), "max": int(v.max())}
            for key, v in (
                ("synops", loads.synops),
                ("spikes", loads.spikes),
                ("messages_in", loads.messages_in),
            )
        },
    }


def _sum(parts: Any) -> float:
    """Return the mean per sample of a sum of event counts."""
    return float(np.sum([part.mean() for part in parts]))


def layer_traffic(placed: Placed, name: str) -> dict[str, Any]:
    """Return over how many cores a population is spread, and its messages and hops per sample."""
    if placed.placement is None or placed.loads is None:
        return dict.fromkeys(("cores", "messages_to_cores", "hops"))
    loads = placed.loads
    if name in loads.inputs:
        return {"cores": 0, "messages_to_cores": float(loads.inputs[name].mean()), "hops": None}
    sent = loads.layers[name]
    return {
        "cores": len({core for core, _ in placed.placement.of[name]}),
        "messages_to_cores": float(sent.messages.mean()),
        "hops": float((sent.hops_x + sent.hops_y).mean()),
    }


def state_bytes(run: Measured, placed: Placed) -> dict[str, Any]:
    """Return the bytes of neuron state read and written per sample, as an estimate."""
    updates = sum(run.outcome.counts.updates.values())
    quantity = placed.profile.layout.neuron_bytes
    if quantity.band is None:
        return en.unknown("byte", quantity.source).as_dict()
    low, value, high = (2 * updates * x for x in quantity.band)
    source = f"one read and one write per update; {quantity.source}"
    return en.Estimate(value, low, high, "byte", quantity.grade, source).as_dict()
