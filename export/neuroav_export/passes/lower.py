"""Replace everything a chip has no neuron for by nodes it has.

What: MaxPool2d of binary spikes -> OrPool2d (a logical OR, exact); SpatialMean -> SpatialSum and a
constant factor; HeadSum -> a grouped convolution of ones; the product of a mean over places and one
over steps -> both sums, their product and a constant factor; the dense layer at the output and the
mean over time -> Readout; dense layers without bias get a zero bias at the readout.
Assumes: stage 'folded'.
Guarantees: stage 'lowered'; the output is a Readout; exact in real arithmetic.
"""

from __future__ import annotations

import numpy as np

from neuroav import nodes as rn
from neuroav.errors import UnsupportedNode
from neuroav.graph import SpikingGraph

_BINARY = (rn.Lif, rn.OrPool2d, rn.Mask)


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
    return graph


def _lower_max_pool(graph: SpikingGraph, name: str, node: rn.MaxPool2d) -> SpikingGraph:
    source = graph.inputs[name][0]
    if not isinstance(graph.nodes[source], _BINARY):
        raise UnsupportedNode(
            f"{name}: max pooling reads {source} ({type(graph.nodes[source]).__name__}), which is "
            "not binary; a chip can pool spikes only: put the pooling after the neurons",
            rule="max-pool-place",
        )
    pool = rn.OrPool2d(node.kernel, node.stride, node.padding)
    return graph.with_nodes(nodes={name: pool})


def _lower_spatial_mean(graph: SpikingGraph, name: str) -> SpikingGraph:
    rows, columns = graph.shapes[graph.inputs[name][0]][1:]
    factor = f"{name}.factor"
    moved = graph.with_nodes(rewire={name: factor})
    return moved.with_nodes(
        nodes={name: rn.SpatialSum(), factor: rn.Scale(1.0 / (rows * columns))},
        inputs={factor: (name,)},
        shapes={factor: graph.shapes[name]},
    )


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
    """Merge Dense and TimeMean at the output, in either order, into one Readout.

    Raises UnsupportedNode where the network does not end in a mean over time.
    """
    last = graph.output
    if not isinstance(graph.nodes[last], (rn.TimeMean, rn.Dense)):
        raise UnsupportedNode(
            f"{last}: the network ends in {type(graph.nodes[last]).__name__}; it "
            "must end in a mean over time (TimeMean) of class scores",
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
        return _as_readout(graph, name, gone, source, dense.weight, dense.bias)
    if isinstance(graph.nodes[last], rn.TimeMean):  # a mean of spikes: one class per neuron
        size = int(np.prod(graph.shapes[before]))
        return _as_readout(graph, last, None, before, np.eye(size), None)
    raise UnsupportedNode(
        f"{last}: class scores are never averaged over time; end in TimeMean", rule="end"
    )


def _as_readout(
    graph: SpikingGraph,
    name: str,
    gone: str | None,
    source: str,
    weight: np.ndarray,
    bias: np.ndarray | None,
) -> SpikingGraph:
    readout = rn.Readout(weight, np.zeros(len(weight)) if bias is None else bias)
    return graph.with_nodes(
        nodes={name: readout},
        inputs={name: (source,)},
        shapes={name: (len(weight),)},
        remove=[gone] if gone else [],
        output=name,
    )
