"""What must hold after each compilation stage: one table for real graphs, one for integer graphs.

``verify_graph`` and ``verify_integer`` raise StageError listing every violation; they run between
all passes and whenever a FILE.nav is loaded, so nothing downstream needs to check again.
"""

from __future__ import annotations

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.errors import StageError
from neuroav.fixed import Arithmetic
from neuroav.graph import SpikingGraph
from neuroav.registers import neuron_problems, weight_problems
from neuroav.shapes import check_heads, output_shape, projection_shape

_LOWERED = (
    rn.Input,
    rn.Conv2d,
    rn.ConvTranspose2d,
    rn.Dense,
    rn.Lif,
    rn.If,
    rn.Li,
    rn.Delay,
    rn.Reshape,
    rn.Permute,
    rn.OrPool2d,
    rn.SumPool2d,
    rn.Add,
    rn.Scale,
    rn.SpatialSum,
    rn.Flatten,
    rn.Readout,
    rn.Concat,
    rn.Mask,
    rn.SpatialAttention,
    rn.TemporalAttention,
    rn.TimeSum,
    rn.Product,
)
_MADE_BY_LOWERING = (rn.OrPool2d, rn.Readout)
ALLOWED: dict[str, tuple[type, ...]] = {
    "traced": tuple(c for c in rn.NODE_CLASSES if c not in _MADE_BY_LOWERING),
    "folded": tuple(c for c in rn.NODE_CLASSES if c not in (*_MADE_BY_LOWERING, rn.BatchNorm)),
    "lowered": _LOWERED,
}


_WHOLE_SAMPLE = (
    rn.TimeMean, rn.TimeLast, rn.Readout, rn.TimeSum, rn.TemporalAttention, rn.MeanProduct,
)  # fmt: skip


def _loop_problems(graph: SpikingGraph) -> list[str]:
    """Return a line for every node in a loop that needs the whole sample."""
    return [
        f"{n}: {type(graph.nodes[n]).__name__} needs the whole sample, so it cannot be in a loop"
        for group in graph.groups
        if graph.loops(group)
        for n in group
        if isinstance(graph.nodes[n], _WHOLE_SAMPLE)
    ]


def verify_graph(graph: SpikingGraph) -> SpikingGraph:
    """Return ``graph`` unchanged, or raise StageError listing all violations of its stage."""
    problems = _loop_problems(graph)
    if graph.output not in graph.nodes:
        problems.append(f"output {graph.output!r} is not a node")
    for name in graph.order:
        node = graph.nodes.get(name)
        if node is None:
            problems.append(f"{name}: read by another node but not in the graph")
            continue
        if type(node) not in ALLOWED[graph.stage]:
            problems.append(f"{name}: {type(node).__name__} may not exist at stage {graph.stage}")
        try:
            shape = output_shape(node, [graph.shapes[s] for s in graph.inputs[name]])
            if shape != graph.shapes[name]:
                problems.append(f"{name}: shape is {graph.shapes[name]}, its inputs give {shape}")
        except StageError as error:
            problems.append(f"{name}: {error}")
        weights = node.weights if isinstance(node, rn.TimeSum) else None
        if weights is not None and len(weights) != graph.steps:
            problems.append(
                f"{name}: has {len(weights)} step weights, a sample has {graph.steps} steps"
            )
    _raise(problems)
    return graph


def _raise(problems: list[str]) -> None:
    if problems:
        raise StageError("; ".join(problems))


# --- integer graphs --------------------------------------------------------------------------
def verify_integer(graph: ig.IntGraph, arith: Arithmetic) -> ig.IntGraph:
    """Return ``graph`` unchanged, or raise StageError listing every violation.

    Checked: known classes, shapes join, inputs have no synapses and everything else has some, all
    branches aligned, weights as the synapse memory holds them (Lava's Conv does not check its
    own), thresholds, biases and decays inside their registers.
    """
    problems: list[str] = []
    for name in graph.order:
        pop = graph.populations.get(name)
        if pop is None:
            problems.append(f"{name}: named as a source but not in the graph")
    _raise(problems)
    for group in graph.groups:
        held = [n for n in group if graph.populations[n].holds] if graph.loops(group) else []
        problems += [
            f"{n}: answers after the whole sample, so it cannot be in a loop" for n in held
        ]
    _raise(problems)
    for name in graph.order:
        pop = graph.populations[name]
        if type(pop) not in ig.POPULATION_CLASSES:
            problems.append(f"{name}: unknown population {type(pop).__name__}")
            continue
        alone = isinstance(pop, ig.IntLif) and not pop.projections
        if isinstance(pop, ig.IntInput) == bool(pop.projections) and not alone:
            problems.append(f"{name}: {type(pop).__name__} with {len(pop.projections)} projections")
        problems += _port_problems(graph, name, arith) + message_problems(graph, name)
        problems += _projection_problems(graph, name, arith) + delay_problems(graph, name, arith)
        problems += neuron_problems(name, pop, graph.steps, arith)
    if not isinstance(graph.populations.get(graph.output), ig.IntReadout):
        problems.append(f"output {graph.output!r} is not an IntReadout")
    _raise(problems)
    return graph


def _port_problems(graph: ig.IntGraph, name: str, arith: Arithmetic) -> list[str]:
    pop = graph.populations[name]
    found = {p.port for p in pop.projections}
    wanted = set(range(pop.ports)) if pop.projections else set()
    problems = []
    if found != wanted:
        problems.append(f"{name}: synapses reach ports {sorted(found)}, it has {sorted(wanted)}")
    if isinstance(pop, ig.ATTENTION_CLASSES):
        try:
            check_heads(pop.shape, pop.heads)
        except StageError as error:
            problems.append(f"{name}: {error}")
        if pop.cap < 0 or pop.form not in ("key-value", "score"):
            problems.append(f"{name}: cap {pop.cap} or form {pop.form!r} is not allowed")
        if any(not isinstance(p, ig.IntIdentity) or p.weight != 1 for p in pop.projections):
            problems.append(f"{name}: q, k and v must arrive by unit synapses")
        # executors need no run-time check, and float32 adds exactly, because of this one
        most, payload = (
            pop.head_channels * pop.summed(graph.steps),
            (1 << (arith.payload_bits - 1)) - 1,
        )
        if most > payload:
            problems.append(f"{name}: counts reach {most}, a message holds {payload}")
    return problems


def message_problems(graph: ig.IntGraph, name: str) -> list[str]:
    """Return a line if a population takes spikes only and is sent anything else."""
    pop = graph.populations[name]
    graded = [
        p.source
        for p in pop.projections
        if not isinstance(graph.populations[p.source], ig.SPIKING_CLASSES)
    ]
    binary = isinstance(pop, (ig.IntAnd, *ig.ATTENTION_CLASSES))
    return [f"{name}: needs spikes, {graded} send integers"] if binary and graded else []


def delay_problems(graph: ig.IntGraph, name: str, arith: Arithmetic) -> list[str]:
    """Return a line for every source of a population that no synapse can delay long enough."""
    return [
        f"{name} from {p.source}: delay {p.delay} exceeds the target's {arith.delay_max}"
        for p in graph.populations[name].projections
        if p.delay > arith.delay_max
    ]


def _projection_problems(graph: ig.IntGraph, name: str, arith: Arithmetic) -> list[str]:
    target, problems = graph.populations[name], []
    for p in target.projections:
        where = f"{name} from {p.source}"
        try:
            source = graph.populations[p.source].shape
            shape = projection_shape(p, source)
            other = isinstance(p, ig.IntIdentity) and np.prod(shape) == np.prod(target.shape)
            if shape != target.shape and not other:
                problems.append(f"{where}: gives shape {shape}, the population is {target.shape}")
        except StageError as error:
            problems.append(f"{where}: {error}")
        if type(p.lag) is not int or p.lag < 0:
            problems.append(f"{where}: lag is {p.lag!r}, must be a whole number of frames from 0")
        elif p.delay != graph.aligned_delay(name, p.source, p.lag):
            problems.append(
                f"{where}: delay is {p.delay}, branches align at "
                f"{graph.aligned_delay(name, p.source, p.lag)}"
            )
        problems += [f"{where}: {text}" for text in weight_problems(p, arith)]
        if isinstance(graph.populations[p.source], ig.IntHostCurrent):
            unit = isinstance(p, ig.IntIdentity) and p.weight == 1
            if not (unit and isinstance(target, ig.IntLif)):  # they are biases, not synapses
                problems.append(f"{where}: currents of the host go to neurons, one by one")
    return problems
