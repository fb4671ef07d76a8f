"""Energy per sample of the same network on conventional hardware, memory traffic included.

Three executions at 45 nm and 7 nm, each with FP32 and with 8-bit operands:

``ann``           the float network as this project runs it: every step, every multiplication;
``ann_one_pass``  the same layers once, as a network without time would run them;
``snn``           the spiking network by its events: an addition per synaptic operation.

What they compute and move is counted in ``neuroav.costs.conventional``. Nothing here is measured,
and instructions, control and static power are left out: all rows are lower bounds of a machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroav import integer as ig
from neuroav.costs.coefficients import load_operations
from neuroav.costs.conventional import (
    PRECISIONS,
    STATE_BYTES,
    Band,
    Prices,
    Traffic,
    band_of,
    dense_layers,
    dense_traffic,
    event_layers,
    event_traffic,
    host_layers,
    lif_neurons,
    prices,
)
from neuroav.costs.energy import Estimate, unknown
from neuroav.counts import Counts
from neuroav.deployment import Deployment
from neuroav.graph import SpikingGraph
from neuroav.hardware import GRADES

# (multiplications, additions) of one update beyond the synaptic operations
UPDATE_OPERATIONS: dict[type, tuple[int, int]] = {
    ig.IntLif: (1, 3),  # decay; input, bias, comparison with the threshold
    ig.IntReadout: (0, 1),
    ig.IntTimeSum: (1, 1),
    ig.IntProduct: (1, 0),
    ig.IntOr: (0, 1),
    ig.IntAnd: (0, 1),
    ig.IntWinner: (0, 1),
    ig.IntSum: (0, 0),
    ig.IntSpatialAttention: (0, 0),
    ig.IntTemporalAttention: (0, 0),
}

FORMULA_LEAVES_OUT = (
    "memory traffic",
    "neuron updates",
    "static power, which time multiplies",
    "that the chip computes in 8-bit integers, the prices are FP32",
    "layers on the host, and a first layer of pictures, which is multiplied densely",
)


def dense_macs(graph: SpikingGraph) -> dict[str, int]:
    """Return multiply-accumulates per sample (all steps), by weighted node and attention."""
    return {layer.name: graph.steps * layer.macs for layer in dense_layers(graph)}


# --- rows -------------------------------------------------------------------------------------
def _estimate(band: Band, grade: str, source: str) -> Estimate:
    low, value, high = (float(x) for x in band)
    return Estimate(value, low, high, "pJ", grade, source)


@dataclass(frozen=True, eq=False)
class _Row:
    """Counts and energies of one execution, per sample."""

    title: str
    execution: str
    macs: float
    acs: float
    updates: int
    arithmetic: Band
    update: Band
    traffic: Traffic
    batched: Traffic
    memory_grade: str
    note: str

    def as_dict(self, cost: Prices, batch: int) -> dict[str, Any]:
        """Return the row as plain JSON values."""
        memory, shared = self.traffic.energy, self.batched.energy
        compute = self.arithmetic + self.update
        grade = max("B", self.memory_grade, key=GRADES.index)
        arithmetic_source = f"{cost.source}: operations x energy"
        memory_source = f"{cost.source}: bytes x energy, docs/baselines.md"
        return {
            "title": f"{self.title}, {PRECISIONS[cost.precision]}, {cost.node}",
            "execution": self.execution,
            "node": cost.node,
            "precision": PRECISIONS[cost.precision],
            "macs": self.macs,
            "acs": self.acs,
            "updates": self.updates,
            "bytes": dict(self.traffic.bytes),
            "energy": _estimate(self.arithmetic, "A", arithmetic_source).as_dict(),
            "update_energy": _estimate(self.update, "B", arithmetic_source).as_dict(),
            "memory_energy": _estimate(memory, self.memory_grade, memory_source).as_dict(),
            "total": _estimate(compute + memory, grade, memory_source).as_dict(),
            "batched": {
                "batch": batch,
                "total": _estimate(compute + shared, grade, memory_source).as_dict(),
            },
            "note": self.note,
            "source": cost.source,
        }


def _ann(deployment: Deployment, cost: Prices, reuse: Band, batch: int) -> _Row:
    graph = deployment.real
    steps, layers, neurons = graph.steps, dense_layers(graph), lif_neurons(graph)
    macs, updates = steps * sum(layer.macs for layer in layers), steps * neurons
    flows = [dense_traffic(layers, steps, cost, reuse, n) for n in (1, batch)]
    for flow in flows:
        flow.move("state", 2 * STATE_BYTES * updates, cost.sram_byte(STATE_BYTES * neurons))
    whose = "float" if cost.precision == "fp32" else "deployed"
    return _Row(
        title=f"Dense, all {steps} steps",
        execution="dense, every step",
        macs=macs,
        acs=0,
        updates=updates,
        arithmetic=macs * cost.mac,
        update=updates * _update(ig.IntLif, cost),
        traffic=flows[0],
        batched=flows[1],
        memory_grade="C",
        note=f"the same spiking network, every step executed densely, no spike exploited; its "
        f"accuracy is that of the {whose} network",
    )


def _one_pass(deployment: Deployment, cost: Prices, reuse: Band, batch: int) -> _Row:
    graph = deployment.real
    layers, neurons = dense_layers(graph, steps=1), lif_neurons(graph)
    macs = sum(layer.macs for layer in layers)
    flows = [dense_traffic(layers, 1, cost, reuse, n) for n in (1, batch)]
    return _Row(
        title="Same layers, one pass",
        execution="dense, one pass",
        macs=macs,
        acs=0,
        updates=neurons,
        arithmetic=macs * cost.mac,
        update=neurons * cost.wide_add,  # ReLU: a comparison
        traffic=flows[0],
        batched=flows[1],
        memory_grade="C",
        note="the same layers, one pass with ReLU, no time; accuracy not measured here",
    )


def _snn(deployment: Deployment, counts: Counts, cost: Prices, reuse: Band, batch: int) -> _Row:
    graph = deployment.integer
    layers, host = event_layers(graph, counts), host_layers(deployment.host.values())
    multiplied = sum(layer.multiplied for layer in layers)
    acs = sum(layer.synops for layer in layers) - multiplied
    macs = multiplied + sum(layer.macs for layer in host)
    on_host = graph.steps * sum(
        int(np.prod(h.shape)) for h in deployment.host.values() if h.sends == "spikes"
    )
    update = on_host * _update(ig.IntLif, cost)
    for layer in layers:
        update = update + layer.updates * _update(layer.kind, cost)
    flows = []
    for n in (1, batch):
        flow = event_traffic(layers, graph.steps, cost, n)
        flow.move("state", 2 * STATE_BYTES * on_host, cost.sram_byte(STATE_BYTES * on_host))
        flows.append(flow.and_of(dense_traffic(host, 1, cost, reuse, n)))
    return _Row(
        title="Spiking network, by events",
        execution="event-driven",
        macs=macs,
        acs=acs,
        updates=sum(layer.updates for layer in layers) + on_host,
        arithmetic=macs * cost.mac + acs * cost.add,
        update=update,
        traffic=flows[0],
        batched=flows[1],
        memory_grade="C" if host else "B",
        note="the deployed network's events on conventional arithmetic: a message that is an "
        "integer is multiplied, a spike is added",
    )


def _update(kind: type, cost: Prices) -> Band:
    """Return the energy of one neuron update."""
    mults, adds = UPDATE_OPERATIONS.get(kind, (0, 0))
    return mults * cost.wide_mult + adds * cost.wide_add


def common_formula(deployment: Deployment, counts: Counts) -> dict[str, Any]:
    """Return 4.6 pJ x MAC + 0.9 pJ x AC, as most papers on spiking networks compute energy.

    Keys of a baseline, and leaves_out: what it ignores; against: the float network of one pass
    that papers set beside it, {macs, energy}.
    """
    cost = prices("45nm", "fp32")
    layers = event_layers(deployment.integer, counts)
    macs = sum(layer.multiplied for layer in layers)
    acs = sum(layer.synops for layer in layers) - macs
    source = f"{cost.source}: multiply 3.7 + add 0.9 pJ per MAC, 0.9 pJ per AC"
    energy = _estimate(macs * cost.mac + acs * cost.add, "A", source).as_dict()
    dense = sum(layer.macs for layer in dense_layers(deployment.real, steps=1))
    ignored = unknown("pJ", "left out by the formula").as_dict()
    return {
        "title": "Common formula, FP32, 45 nm",
        "execution": "event-driven",
        "node": cost.node,
        "precision": PRECISIONS["fp32"],
        "macs": macs,
        "acs": acs,
        "updates": None,
        "bytes": None,
        "energy": energy,
        "update_energy": ignored,
        "memory_energy": ignored,
        "total": energy,
        "batched": None,
        "note": f"leaves out {'; '.join(FORMULA_LEAVES_OUT)}",
        "source": source,
        "leaves_out": list(FORMULA_LEAVES_OUT),
        "against": {
            "macs": dense,
            "energy": _estimate(dense * cost.mac, "A", cost.source).as_dict(),
        },
    }


def baselines(deployment: Deployment, counts: Counts, *, batch: int = 64) -> dict[str, Any]:
    """Return every baseline by key, energies per sample in pJ; plain JSON values.

    Keys: fp32_ann, int8_ann, fp32_ann_one_pass, int8_ann_one_pass, snn_fp32, snn_int8 at 45 nm, the
    same with _7nm, and common_formula. batch: samples computed together in 'batched'.
    """
    operations = load_operations()
    found: dict[str, Any] = {}
    reuse = band_of(operations.reuse)
    for node, ending in (("45nm", ""), ("7nm", "_7nm")):
        for precision in PRECISIONS:
            cost = prices(node, precision, operations)
            rows = {
                f"{precision}_ann": _ann(deployment, cost, reuse, batch),
                f"{precision}_ann_one_pass": _one_pass(deployment, cost, reuse, batch),
                f"snn_{precision}": _snn(deployment, counts, cost, reuse, batch),
            }
            found |= {key + ending: row.as_dict(cost, batch) for key, row in rows.items()}
    return {**found, "common_formula": common_formula(deployment, counts)}
