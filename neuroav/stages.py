"""What must hold after each compilation stage: one table for real graphs, one for integer graphs.

``verify_graph`` and ``verify_integer`` raise StageError listing every violation; they run between
all passes and whenever a FILE.nav is loaded, so nothing downstream needs to check again.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.errors import StageError
from neuroav.fixed import Arithmetic
from neuroav.graph import SpikingGraph
from neuroav.registers import neuron_problems, weight_problems

_LOWERED = (
    rn.Input,
    rn.Conv2d,
    rn.Dense,
    rn.Lif,
    rn.OrPool2d,
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


# --- real graphs -----------------------------------------------------------------------------
@singledispatch
def output_shape(node: object, sources: list[tuple[int, ...]]) -> tuple[int, ...]:
    """Return the output shape of ``node`` for these source shapes; StageError if they misfit."""
    return _only(sources)


def _only(sources: list[tuple[int, ...]]) -> tuple[int, ...]:
    if len(sources) != 1:
        raise StageError(f"has {len(sources)} inputs, needs 1")
    return sources[0]


@output_shape.register
def _(node: rn.Input, sources):
    if sources:
        raise StageError("an input cannot have sources")
    return node.shape


@output_shape.register
def _(node: rn.Add, sources):
    if len(sources) < 2 or len(set(sources)) != 1:
        raise StageError(f"adds shapes {sources}, needs two or more equal shapes")
    return sources[0]


@output_shape.register
def _(node: rn.Conv2d, sources):
    return conv_shape(
        _only(sources), node.weight.shape, node.stride, node.padding, node.dilation, node.groups
    )


@output_shape.register(rn.MaxPool2d)
@output_shape.register(rn.OrPool2d)
def _(node, sources):
    return pool_shape(_only(sources), node.kernel, node.stride, node.padding)


@output_shape.register(rn.Dense)
@output_shape.register(rn.Readout)
def _(node, sources):
    return dense_shape(_only(sources), node.weight.shape)


@output_shape.register
def _(node: rn.BatchNorm, sources):
    shape = _only(sources)
    if shape[0] != node.scale.shape[0]:
        raise StageError(f"has {node.scale.shape[0]} channels, its source has {shape[0]}")
    return shape


@output_shape.register(rn.SpatialMean)
@output_shape.register(rn.SpatialSum)
def _(node, sources):
    return spatial_shape(_only(sources))


@output_shape.register
def _(node: rn.Flatten, sources):
    return (int(np.prod(_only(sources))),)


@output_shape.register
def _(node: rn.Concat, sources):
    if len(sources) < 2 or len({s[1:] for s in sources}) != 1:
        raise StageError(f"joins shapes {sources}, needs two or more that differ in channels only")
    return (sum(s[0] for s in sources), *sources[0][1:])


@output_shape.register
def _(node: rn.HeadSum, sources):
    shape = _only(sources)
    check_heads(shape, node.heads)
    return (node.heads, *shape[1:])


@output_shape.register
def _(node: rn.Mask, sources):
    if len(sources) != 2 or sources[0][1:] != sources[1][1:]:
        raise StageError(f"masks shapes {sources}, needs (heads, H, W) and (C, H, W)")
    check_heads(sources[1], sources[0][0])
    return sources[1]


@output_shape.register(rn.SpatialAttention)
@output_shape.register(rn.TemporalAttention)
def _(node, sources):
    if len(sources) != 3 or len(set(sources)) != 1:
        raise StageError(f"attends over shapes {sources}, needs three equal ones: q, k, v")
    check_heads(sources[0], node.heads)
    return sources[0]


@output_shape.register
def _(node: rn.MeanProduct, sources):
    if len(sources) != 2 or len(set(sources)) != 1:
        raise StageError(f"multiplies means of shapes {sources}, needs two equal ones")
    spatial_shape(sources[0])
    return sources[0]


@output_shape.register
def _(node: rn.Product, sources):
    if len(sources) != 2 or sources[0] not in (sources[1], sources[1][:1]):
        raise StageError(f"multiplies shapes {sources}, needs two equal ones or (C,) and (C, H, W)")
    return sources[1]


def check_heads(shape, heads: int) -> None:
    """Raise StageError unless the channels of (C, H, W) divide into ``heads``."""
    spatial_shape(shape)
    if heads < 1 or shape[0] % heads:
        raise StageError(f"{heads} heads do not divide {shape[0]} channels")


def spatial_shape(source):
    """Return (C,) for a (C, H, W) source."""
    if len(source) != 3:
        raise StageError(f"needs (channels, rows, columns), its source is {source}")
    return source[:1]


def dense_shape(source, weight):
    """Return (out,) if the source has ``in`` neurons."""
    if int(np.prod(source)) != weight[1]:
        raise StageError(
            f"weight is {weight}, its source {source} has {int(np.prod(source))} values"
        )
    return (weight[0],)


def conv_shape(source, weight, stride, padding, dilation, groups):
    """Return (out, rows, columns) of a convolution over ``source``."""
    spatial_shape(source)
    if source[0] != weight[1] * groups or weight[0] % groups:
        raise StageError(f"weight {weight} with {groups} groups does not fit source {source}")
    size = tuple(
        ig.conv_windows(*args)
        for args in zip(source[1:], weight[2:], stride, padding, dilation, strict=True)
    )
    if min(size) < 1:
        raise StageError(f"kernel {weight[2:]} is larger than its padded source {source}")
    return (weight[0], *size)


def pool_shape(source, kernel, stride, padding):
    """Return (C, rows, columns) of pooling over ``source``."""
    spatial_shape(source)
    size = tuple(
        ig.conv_windows(*args)
        for args in zip(source[1:], kernel, stride, padding, (1, 1), strict=True)
    )
    if min(size) < 1 or any(p * 2 > k for p, k in zip(padding, kernel, strict=True)):
        raise StageError(f"window {kernel} with padding {padding} does not fit source {source}")
    return (source[0], *size)


def verify_graph(graph: SpikingGraph) -> SpikingGraph:
    """Return ``graph`` unchanged, or raise StageError listing all violations of its stage."""
    problems = []
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
def projection_shape(projection: ig.Projection, source: tuple[int, ...]) -> tuple[int, ...]:
    """Return the target shape a projection gives for its source's shape."""
    p = projection
    if isinstance(p, ig.IntConv2d):
        return conv_shape(source, p.weight.shape, p.stride, p.padding, p.dilation, p.groups)
    if isinstance(p, ig.IntDense):
        return dense_shape(source, p.weight.shape)
    if isinstance(p, ig.IntPool):
        return pool_shape(source, p.kernel, p.stride, p.padding)
    if isinstance(p, ig.IntSpread):
        if len(source) != 1:
            raise StageError(f"spreads a value per channel, its source is {source}")
        return (*source, *p.places)
    if isinstance(p, ig.IntPlace):
        if not 0 <= p.offset <= p.size - int(np.prod(source)):
            raise StageError(f"offset {p.offset} does not fit {source} into {p.size}")
        return (p.size,)
    return spatial_shape(source) if isinstance(p, ig.IntSpatialSum) else source


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
    for name in graph.order:
        pop = graph.populations[name]
        if type(pop) not in ig.POPULATION_CLASSES:
            problems.append(f"{name}: unknown population {type(pop).__name__}")
            continue
        if isinstance(pop, ig.IntInput) == bool(pop.projections):
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
            shape = projection_shape(p, graph.populations[p.source].shape)
            if shape != target.shape:
                problems.append(f"{where}: gives shape {shape}, the population is {target.shape}")
        except StageError as error:
            problems.append(f"{where}: {error}")
        if p.delay != graph.aligned_delay(name, p.source):
            problems.append(
                f"{where}: delay is {p.delay}, branches align at "
                f"{graph.aligned_delay(name, p.source)}"
            )
        problems += [f"{where}: {text}" for text in weight_problems(p, arith)]
        if isinstance(graph.populations[p.source], ig.IntHostCurrent):
            unit = isinstance(p, ig.IntIdentity) and p.weight == 1
            if not (unit and isinstance(target, ig.IntLif)):  # they are biases, not synapses
                problems.append(f"{where}: currents of the host go to neurons, one by one")
    return problems
