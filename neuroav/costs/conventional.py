"""What a network computes and moves on conventional hardware, and what that costs.

The network as dense layers or as the events of a run, prices at a technology node, and bytes moved
between SRAM, DRAM and arithmetic. A datum lies in the smallest SRAM that holds what its layer works
on, weights in DRAM where those of the network exceed 1 MB; ``docs/baselines.md`` states the model.
Prices: ``hardware_profiles/tables/arithmetic.toml``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.costs.coefficients import Node, Operations, load_operations
from neuroav.counts import Counts
from neuroav.graph import SpikingGraph
from neuroav.hardware import Quantity
from neuroav.host import HostLayer

Band = np.ndarray  # (low, value, high), float64

ACCESS_BYTES = 8  # of the table's memory accesses
SIZES = (8 << 10, 32 << 10, 1 << 20)  # bytes of the SRAMs in the table
STATE_BYTES = 4  # a membrane or accumulator: a 32-bit word in both precisions
EVENT_BYTES = 4  # a message in a queue: the address of its neuron
OPERAND_BYTES = {"fp32": 4, "int8": 1}
PRECISIONS = {"fp32": "FP32", "int8": "INT8"}
STATEFUL = (ig.IntLif, ig.IntReadout, ig.IntTimeSum, ig.IntTemporalAttention)


# --- the network as dense layers --------------------------------------------------------------
@dataclass(frozen=True)
class DenseLayer:
    """What one layer computes and touches in one pass (one step): counts, not bytes."""

    name: str
    macs: int
    weights: int
    inputs: int
    outputs: int


def dense_layers(graph: SpikingGraph, steps: int | None = None) -> list[DenseLayer]:
    """Return the weighted layers and attentions of a network executed densely.

    Padding counts as any other place: a dense accelerator multiplies it too. Attention takes the
    cheaper order, q (k^T v) or (q k^T) v. steps: frames that a temporal attention sums over, those
    of the graph unless given.
    """
    steps, found = steps or graph.steps, []
    for name in graph.order:
        node = graph.nodes[name]
        outputs = int(np.prod(graph.shapes[name]))
        inputs = sum(int(np.prod(graph.shapes[s])) for s in graph.inputs[name])
        if isinstance(node, (rn.Conv2d, rn.Dense, rn.Readout)):
            weights = node.weight.size
            places = int(np.prod(graph.shapes[name][1:])) if isinstance(node, rn.Conv2d) else 1
            bias = 0 if node.bias is None else node.bias.size
            found.append(DenseLayer(name, places * weights, weights + bias, inputs, outputs))
        elif isinstance(node, (rn.SpatialAttention, rn.TemporalAttention)):
            channels = graph.shapes[name][0]
            summed = outputs // channels if isinstance(node, rn.SpatialAttention) else steps
            macs = 2 * outputs * min(channels // node.heads, summed)
            found.append(DenseLayer(name, macs, 0, inputs, outputs))
    return found


def lif_neurons(graph: SpikingGraph) -> int:
    """Return the number of spiking neurons of a real-valued network."""
    return sum(
        int(np.prod(graph.shapes[n])) for n, node in graph.nodes.items() if isinstance(node, rn.Lif)
    )


def host_layers(layers: Iterable[HostLayer]) -> list[DenseLayer]:
    """Return what the host computes once per sample."""
    return [
        DenseLayer(
            layer.layer,
            layer.macs,
            layer.weight.size + layer.bias.size,
            int(np.prod(layer.source_shape)),
            int(np.prod(layer.shape)),
        )
        for layer in layers
    ]


# --- prices -----------------------------------------------------------------------------------
def band_of(quantity: Quantity) -> Band:
    """Return (low, value, high) of a number in the shipped tables."""
    assert quantity.band is not None, "the shipped table has no unknown number"
    return np.array(quantity.band)


@dataclass(frozen=True, eq=False)
class Prices:
    """Energies at one node and precision, in pJ as (low, value, high).

    mac: multiply-accumulate; add: addition of a weight to an accumulator; wide_mult, wide_add: of
    neuron state. An 8-bit addition is the table's, at the high end a 32-bit one, which is what
    an accumulator needs.
    """

    key: str
    node: str
    precision: str
    mac: Band
    add: Band
    wide_mult: Band
    wide_add: Band
    sram: tuple[Band, Band, Band]
    dram: Band
    source: str

    @property
    def operand_bytes(self) -> int:
        return OPERAND_BYTES[self.precision]

    def sram_byte(self, working_set: float) -> Band:
        """Return the energy per byte of the SRAM that holds ``working_set`` bytes.

        Linear between the sizes of the table, the smallest below them and the largest above.
        """
        points = np.array(self.sram) / ACCESS_BYTES
        return np.array([np.interp(working_set, SIZES, points[:, i]) for i in range(3)])

    @property
    def dram_byte(self) -> Band:
        return self.dram / ACCESS_BYTES


def prices(node_key: str, precision: str, operations: Operations | None = None) -> Prices:
    """Return what operations cost at a node ('45nm', '7nm') and precision ('fp32', 'int8')."""
    node: Node = (operations or load_operations()).nodes[node_key]
    wide = "fp32" if precision == "fp32" else "int32"
    add, mult = (band_of(getattr(node, f"{precision}_{op}")) for op in ("add", "mult"))
    wide_add, wide_mult = (band_of(getattr(node, f"{wide}_{op}")) for op in ("add", "mult"))
    add = np.array([add[0], add[1], max(add[2], wide_add[2])])
    return Prices(
        key=node_key,
        node=node.title,
        precision=precision,
        mac=mult + add,
        add=add,
        wide_mult=wide_mult,
        wide_add=wide_add,
        sram=(band_of(node.sram_8kb), band_of(node.sram_32kb), band_of(node.sram_1mb)),
        dram=band_of(node.dram),
        source=f"{node.fp32_add.source}, {node.title}, {PRECISIONS[precision]}",
    )


# --- traffic ----------------------------------------------------------------------------------
class Traffic:
    """Bytes moved, by kind and in all, and their energy."""

    def __init__(self) -> None:
        self.bytes = dict.fromkeys(("weights", "activations", "state", "messages", "dram"), 0.0)
        self.energy: Band = np.zeros(3)

    def move(self, kind: str, count: Band | float, per_byte: Band) -> None:
        """Add ``count`` bytes of a kind; a band of counts goes with its band of energies."""
        band = np.broadcast_to(np.asarray(count, np.float64), 3)
        self.bytes[kind] += float(band[1])
        self.energy = self.energy + band * per_byte

    def and_of(self, other: Traffic) -> Traffic:
        """Return the sum of both."""
        both = Traffic()
        both.bytes = {kind: count + other.bytes[kind] for kind, count in self.bytes.items()}
        both.energy = self.energy + other.energy
        return both


def dense_traffic(
    layers: Iterable[DenseLayer], passes: int, cost: Prices, reuse: Band, batch: int = 1
) -> Traffic:
    """Return the traffic per sample of layers executed densely ``passes`` times.

    reuse: multiply-accumulates that an operand fetched from SRAM serves. Weights are fetched once
    for the ``batch`` samples computed together; at least once per pass.
    """
    layers, width, found = list(layers), cost.operand_bytes, Traffic()
    in_dram = width * sum(layer.weights for layer in layers) > SIZES[-1]
    served = reuse[::-1]  # most reuse, least energy
    for layer in layers:
        holds = width * (layer.weights + layer.inputs + layer.outputs)
        per_byte = cost.sram_byte(holds)
        operands = passes * layer.macs / served
        weights = np.maximum(operands, passes * layer.weights) if layer.weights else 0.0
        found.move("weights", width * weights / batch, per_byte)
        both = 1 if layer.weights else 2  # in an attention both factors are activations
        inputs = np.maximum(both * operands, passes * layer.inputs)
        found.move("activations", width * (inputs + passes * layer.outputs), per_byte)
        if in_dram:
            found.move("dram", width * passes * layer.weights / batch, cost.dram_byte)
    return found


@dataclass(frozen=True)
class EventLayer:
    """What one population of the integer graph did, per sample.

    synops: synaptic operations; weighted: those that read a weight; multiplied: those of messages
    that are integers; weights, state: what it stores; reads: messages sent times their readers.
    """

    name: str
    synops: float
    weighted: float
    multiplied: float
    weights: int
    state: int
    updates: int
    kind: type
    sent: float
    reads: float


def event_layers(graph: ig.IntGraph, counts: Counts) -> list[EventLayer]:
    """Return the events of every population, means per sample."""
    spikes, found = counts.spikes_per_sample(), []
    readers = dict.fromkeys(graph.order, 0)
    for pop in graph.populations.values():
        for p in pop.projections:
            readers[p.source] += 1
    for name in graph.order:
        pop = graph.populations[name]
        kinds = {k: float(v.mean()) for k, v in counts.synops[name].items()}
        own = [p for p in pop.projections if isinstance(p, (ig.IntConv2d, ig.IntDense))]
        own = [] if isinstance(pop, ig.IntAnd) else own  # copies of a mask have no weights
        weighted = kinds.get("conv", 0.0) + kinds.get("dense", 0.0) if own else 0.0
        integers = any(_sends_integers(graph.populations[p.source]) for p in pop.projections)
        found.append(
            EventLayer(
                name=name,
                synops=sum(kinds.values()),
                weighted=weighted,
                multiplied=weighted if integers else 0.0,
                weights=sum(p.weight.size for p in own),
                state=0 if name in graph.inputs else pop.state_neurons(graph.steps),
                updates=counts.updates[name],
                kind=type(pop),
                sent=0.0 if name in graph.inputs else spikes[name],
                reads=spikes[name] * readers[name],
            )
        )
    return found


def _sends_integers(pop: ig.Population) -> bool:
    if isinstance(pop, ig.IntInput):
        return pop.max_count > 1
    return not isinstance(pop, ig.SPIKING_CLASSES)


def event_traffic(
    layers: Iterable[EventLayer], steps: int, cost: Prices, batch: int = 1
) -> Traffic:
    """Return the traffic per sample of a spiking network executed event by event.

    Every synaptic operation reads its weight, if it has one, and reads and writes the sum of its
    target; every update of a neuron with state reads and writes it. Samples of a batch spike
    differently, so a batch shares what comes from DRAM only.
    """
    layers, width, found = list(layers), cost.operand_bytes, Traffic()
    in_dram = width * sum(layer.weights for layer in layers) > SIZES[-1]
    queue = cost.sram_byte(0)
    for layer in layers:
        per_byte = cost.sram_byte(width * layer.weights + STATE_BYTES * layer.state)
        found.move("weights", width * layer.weighted, per_byte)
        held = layer.updates if issubclass(layer.kind, STATEFUL) else 0
        found.move("state", 2 * STATE_BYTES * (layer.synops + held), per_byte)
        found.move("messages", EVENT_BYTES * (layer.sent + layer.reads), queue)
        if in_dram:  # what no event asks for is not fetched
            fetched = min(steps * layer.weights, batch * layer.weighted) / batch
            found.move("dram", width * fetched, cost.dram_byte)
    return found
