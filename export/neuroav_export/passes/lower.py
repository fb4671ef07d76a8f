"""Replace everything a chip has no neuron for by nodes it has.

What: MaxPool2d of binary spikes -> OrPool2d (a logical OR, exact); SpatialMean -> SpatialSum and a
constant factor; HeadSum -> a grouped convolution of ones; the product of a mean over places and one
over steps -> both sums, their product and a constant factor; AvgPool2d -> SumPool2d and a factor; a
permutation that only dense layers read -> their weights in that order; the dense layer at the
output with the mean over time, or a leaky membrane and its last value -> Readout; dense layers
without bias get a zero bias at the readout.
Assumes: stage 'folded'.
Guarantees: stage 'lowered'; the output is a Readout; exact in real arithmetic.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neuroav import nodes as rn
from neuroav.errors import UnsupportedNode
from neuroav.graph import SpikingGraph

_BINARY = (rn.Lif, rn.If, rn.OrPool2d, rn.Mask)
_SAME = (rn.Flatten, rn.Reshape, rn.Permute, rn.Delay)  # binary if what they read is


def lower(graph: SpikingGraph) -> SpikingGraph:
    """Return the lowered graph."""
    for name in graph.order:
        graph = lower_node(graph, name)
    return lower_output(graph).with_nodes(stage="lowered")


def lower_node(graph: SpikingGraph, name: str) -> SpikingGraph:
    """Return the graph with ``name`` as a chip has it; UnsupportedNode where it has nothing."""
    node = graph.nodes[name]
    if type(node) is rn.MaxPool2d:
        return _lower_max_pool(graph, name, node)
    if isinstance(node, rn.SpatialMean):
        return _lower_spatial_mean(graph, name)
    if isinstance(node, rn.HeadSum):
        return _lower_head_sum(graph, name, node)
    if isinstance(node, rn.MeanProduct):
        return _lower_mean_product(graph, name)
    if isinstance(node, rn.AvgPool2d):
        pool = rn.SumPool2d(node.kernel, node.stride, node.padding)
        return _with_factor(graph, name, pool, 1.0 / (node.kernel[0] * node.kernel[1]))
    return _fold_permutation(graph, name) if isinstance(node, rn.Permute) else graph


def _lower_max_pool(graph: SpikingGraph, name: str, node: rn.MaxPool2d) -> SpikingGraph:
    source = graph.inputs[name][0]
    origin = source
    while isinstance(graph.nodes[origin], _SAME):
        (origin,) = graph.inputs[origin]
    if not isinstance(graph.nodes[origin], _BINARY):
        raise UnsupportedNode(
            f"{name}: max pooling reads {source} ({type(graph.nodes[source]).__name__}), which is "
            "not binary; a chip can pool spikes only: put the pooling after the neurons",
            rule="max-pool-place",
        )
    pool = rn.OrPool2d(node.kernel, node.stride, node.padding)
    return graph.with_nodes(nodes={name: pool})


def _lower_spatial_mean(graph: SpikingGraph, name: str) -> SpikingGraph:
    rows, columns = graph.shapes[graph.inputs[name][0]][1:]
    return _with_factor(graph, name, rn.SpatialSum(), 1.0 / (rows * columns))


def _with_factor(graph: SpikingGraph, name: str, node: rn.Node, value: float) -> SpikingGraph:
    """Return the graph with ``node`` in place of ``name``; readers see ``value`` times it."""
    factor = f"{name}.factor"
    moved = graph.with_nodes(rewire={name: factor})
    return moved.with_nodes(
        nodes={name: node, factor: rn.Scale(value)},
        inputs={factor: (name,)},
        shapes={factor: graph.shapes[name]},
    )


def _fold_permutation(graph: SpikingGraph, name: str) -> SpikingGraph:
    """Return the graph without a permutation that only dense layers read, flattened or not."""
    node = graph.nodes[name]
    assert isinstance(node, rn.Permute)
    (source,), flat = graph.inputs[name], []
    readers = list(graph.consumers(name))
    for reader in [r for r in readers if isinstance(graph.nodes[r], rn.Flatten)]:
        flat.append(reader)
        readers += graph.consumers(reader)
    layers = [r for r in readers if r not in flat]
    dense = all(isinstance(graph.nodes[r], rn.Dense) for r in layers)
    if not layers or not dense or graph.output in (name, *flat):
        return graph
    shape = graph.shapes[source]
    places = np.arange(int(np.prod(shape))).reshape(shape).transpose(node.axes).reshape(-1)
    changed: dict[str, rn.Node] = {}
    for layer in layers:
        old = graph.nodes[layer]
        assert isinstance(old, rn.Dense)
        weight = np.empty_like(old.weight)
        weight[:, places] = old.weight
        changed[layer] = replace(old, weight=weight)
    return graph.with_nodes(nodes=changed, rewire={name: source}, remove=[name])


def _lower_head_sum(graph: SpikingGraph, name: str, node: rn.HeadSum) -> SpikingGraph:
    channels = graph.shapes[graph.inputs[name][0]][0]
    ones = np.ones((node.heads, channels // node.heads, 1, 1))
    return graph.with_nodes(nodes={name: rn.Conv2d(ones, groups=node.heads)})


def _lower_mean_product(graph: SpikingGraph, name: str) -> SpikingGraph:
    """R = (sum_n a) (sum_t b) / (N T): counts on the chip, the factor in later weights."""
    a, b = graph.inputs[name]
    channels, rows, columns = shape = graph.shapes[name]
    places, frames, factor = f"{name}.places", f"{name}.frames", f"{name}.factor"
    moved = graph.with_nodes(rewire={name: factor})
    return moved.with_nodes(
        nodes={
            places: rn.SpatialSum(),
            frames: rn.TimeSum(),
            name: rn.Product(),
            factor: rn.Scale(1.0 / (rows * columns * graph.steps)),
        },
        inputs={places: (a,), frames: (b,), name: (places, frames), factor: (name,)},
        shapes={places: (channels,), frames: shape, factor: shape},
    )


def lower_output(graph: SpikingGraph) -> SpikingGraph:
    """Merge what turns steps into class scores at the output into one Readout.

    That is TimeMean of a dense layer or dense of a TimeMean; TimeMean of neurons, which counts
    their spikes; or TimeLast of a leaky membrane (Li). Constant factors behind it go into the
    weights.
    Raises UnsupportedNode where the network ends otherwise.
    """
    last, factor = graph.output, 1.0
    while isinstance(graph.nodes[last], rn.Scale):
        factor *= graph.nodes[last].factor  # type: ignore[union-attr]
        (last,) = graph.inputs[last]
        graph = graph.with_nodes(remove=[graph.output], output=last)
    graph, factor = _without_factors(graph, last, factor)
    if isinstance(graph.nodes[last], rn.TimeLast):
        return _leaky_output(graph, last, factor)
    if not isinstance(graph.nodes[last], (rn.TimeMean, rn.Dense)):
        raise UnsupportedNode(
            f"{last}: the network ends in {type(graph.nodes[last]).__name__}; it "
            "must end in a mean over time (TimeMean) of class scores, or in the last value "
            "(TimeLast) of a leaky membrane",
            rule="end",
        )
    before = graph.inputs[last][0]
    pair = (type(graph.nodes[before]), type(graph.nodes[last]))
    if pair in ((rn.Dense, rn.TimeMean), (rn.TimeMean, rn.Dense)):
        if graph.consumers(before) != (last,):
            raise UnsupportedNode(
                f"{before}: is read by more than the output; give it its own layer", rule="end"
            )
        name, gone = (before, last) if pair[0] is rn.Dense else (last, before)
        dense = graph.nodes[name]
        assert isinstance(dense, rn.Dense)
        source = graph.inputs[before][0]
        return _as_readout(graph, name, gone, source, _readout(dense.weight, dense.bias, factor))
    if isinstance(graph.nodes[last], rn.TimeMean):  # a mean of spikes: one class per neuron
        size = int(np.prod(graph.shapes[before]))
        return _as_readout(graph, last, None, before, _readout(np.eye(size), None, factor))
    raise UnsupportedNode(
        f"{last}: class scores are never averaged over time; end in TimeMean", rule="end"
    )


def _without_factors(graph: SpikingGraph, last: str, factor: float) -> tuple[SpikingGraph, float]:
    """Return the graph without the constant factors that only its end reads, and all of them."""
    while isinstance(graph.nodes[last], (rn.TimeMean, rn.TimeLast)):
        (source,) = graph.inputs[last]
        node = graph.nodes[source]
        if not isinstance(node, rn.Scale) or graph.consumers(source) != (last,):
            break
        graph = graph.with_nodes(inputs={last: graph.inputs[source]}, remove=[source])
        factor *= node.factor
    return graph, factor


def _leaky_output(graph: SpikingGraph, last: str, factor: float) -> SpikingGraph:
    (name,) = graph.inputs[last]
    membrane = graph.nodes[name]
    if not isinstance(membrane, rn.Li) or graph.consumers(name) != (last,):
        raise UnsupportedNode(
            f"{last}: takes the last value of {name} ({type(membrane).__name__}); only that of a "
            "leaky membrane (Li) that nothing else reads can be the class scores",
            rule="end",
        )
    if membrane.v_leak:
        raise UnsupportedNode(
            f"{name}: class scores rest at v_leak = {membrane.v_leak:g}; use 0", rule="reset"
        )
    (source,) = graph.inputs[name]
    layer, gone = graph.nodes[source], [last]
    weight, bias = np.eye(int(np.prod(graph.shapes[name]))), None
    if isinstance(layer, rn.Dense) and graph.consumers(source) == (name,):
        weight, bias, gone = layer.weight, layer.bias, [last, source]
        (source,) = graph.inputs[source]
    readout = replace(
        _readout(weight, bias, factor), tau_mem_s=membrane.tau_mem_s, tau_syn_s=membrane.tau_syn_s
    )
    done = _as_readout(graph, name, gone[0], source, readout)
    return done.with_nodes(remove=gone[1:])


def _readout(weight: np.ndarray, bias: np.ndarray | None, factor: float) -> rn.Readout:
    return rn.Readout(weight * factor, (np.zeros(len(weight)) if bias is None else bias) * factor)


def _as_readout(
    graph: SpikingGraph, name: str, gone: str | None, source: str, readout: rn.Readout
) -> SpikingGraph:
    return graph.with_nodes(
        nodes={name: readout},
        inputs={name: (source,)},
        shapes={name: (len(readout.weight),)},
        remove=[gone] if gone else [],
        output=name,
    )
