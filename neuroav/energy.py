"""Event counts x profile -> energy, and the float network's arithmetic beside it.

Every number is an Estimate: value, low, high, unit, grade, source; the grade of a sum is the worst
it uses, its band the sum of the bands. What is not modelled is None, never 0, and is listed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from neuroav import nodes as rn
from neuroav.counts import Counts
from neuroav.graph import SpikingGraph
from neuroav.hardware import GRADES, Profile, Quantity

TO_PJ = {"pJ": 1.0, "nJ": 1e3, "uJ": 1e6}

NOT_MODELLED = {
    "message_out": "messages per destination core need a placement on cores",
    "hop": "hops need a placement on cores",
    "core_step": "the number of active cores needs a placement",
    "static": "static energy is power times run time, and run time needs a placement",
    "host_io": "moving events to the chip and scores back is not published",
}
HOST_LAYER = "what a multiplication costs depends on the host, which no profile describes"


@dataclass(frozen=True)
class Estimate:
    """A number with its band. value, low and high are None where unknown."""

    value: float | None
    low: float | None
    high: float | None
    unit: str
    grade: str
    source: str

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def unknown(unit: str, why: str) -> Estimate:
    """Return an Estimate that says why there is no number."""
    return Estimate(None, None, None, unit, "C", why)


def priced(count: float, quantity: Quantity) -> Estimate:
    """Return ``count`` events at the price of ``quantity``, in pJ."""
    band = quantity.band
    if band is None:
        return unknown("pJ", quantity.source)
    low, value, high = (count * x * TO_PJ[quantity.unit] for x in band)
    return Estimate(value, low, high, "pJ", quantity.grade, quantity.source)


def total(parts: Iterable[Estimate], source: str) -> Estimate:
    """Return the sum; unknown if any part is."""
    parts = list(parts)
    if not parts:
        return Estimate(0.0, 0.0, 0.0, "pJ", "A", source)
    if any(p.value is None for p in parts):
        return unknown("pJ", "; ".join(p.source for p in parts if p.value is None))
    low, value, high = (sum(getattr(p, key) for p in parts) for key in ("low", "value", "high"))
    grade = max((p.grade for p in parts), key=GRADES.index)
    return Estimate(value, low, high, "pJ", grade, source)


def layer_energy(
    name: str, counts: Counts, profile: Profile, *, is_input: bool
) -> dict[str, Estimate]:
    """Return the modelled energy per sample of one population, by event kind, in pJ.

    Inputs cost nothing here: their events come from the host (see NOT_MODELLED['host_io']).
    """
    costs = profile.energy
    parts = {
        f"synop_{kind}": priced(float(v.mean()), getattr(costs, f"synop_{kind}"))
        for kind, v in counts.synops[name].items()
    }
    if not is_input:
        parts["neuron_update"] = priced(counts.updates[name], costs.neuron_update)
        parts["spike_out"] = priced(float(counts.spikes[name].mean()), costs.spike_out)
    return parts


# --- the float network, executed densely -----------------------------------------------------
@dataclass(frozen=True)
class MacCost:
    """Energy of one multiply-accumulate of arithmetic alone, memory traffic left out."""

    key: str
    energy_pj: float
    source: str


MAC_COSTS = (
    MacCost("fp32_ann", 4.6, "Horowitz, ISSCC 2014, 45 nm 0.9 V: FP32 multiply 3.7 + add 0.9 pJ"),
    MacCost("int8_ann", 0.23, "Horowitz, ISSCC 2014, 45 nm 0.9 V: INT8 multiply 0.2 + add 0.03 pJ"),
)


def dense_macs(graph: SpikingGraph) -> dict[str, int]:
    """Return multiply-accumulates per sample (all steps) of every weighted node and of attention,
    executed densely.

    Padding counts as any other place: a dense accelerator multiplies it too. Attention takes the
    cheaper order, q (k^T v) or (q k^T) v.
    """
    macs = {}
    for name in graph.order:
        node = graph.nodes[name]
        if isinstance(node, rn.Conv2d):
            places = int(np.prod(graph.shapes[name][1:]))
            macs[name] = graph.steps * places * int(np.prod(node.weight.shape))
        elif isinstance(node, (rn.Dense, rn.Readout)):
            macs[name] = graph.steps * int(np.prod(node.weight.shape))
        elif isinstance(node, (rn.SpatialAttention, rn.TemporalAttention)):
            channels = graph.shapes[name][0]
            tokens = int(np.prod(graph.shapes[name][1:]))
            summed = tokens if isinstance(node, rn.SpatialAttention) else graph.steps
            values = graph.steps * tokens * channels
            macs[name] = 2 * values * min(channels // node.heads, summed)
    return macs


def baselines(graph: SpikingGraph) -> dict[str, dict[str, object]]:
    """Return the arithmetic energy of the float network at FP32 and INT8, all steps, dense."""
    count = sum(dense_macs(graph).values())
    note = "arithmetic only; memory traffic, which usually dominates, is not modelled"
    return {
        c.key: {
            "macs": count,
            "energy": Estimate(count * c.energy_pj, None, None, "pJ", "A", c.source).as_dict(),
            "memory_energy": unknown("pJ", note).as_dict(),
            "note": f"the same network, every step executed densely; {note}",
        }
        for c in MAC_COSTS
    }
