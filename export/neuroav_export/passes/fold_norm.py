"""Fold batch norm into the convolution or dense layer before it.

What: y = scale * (W x + b) + shift  becomes  y = (scale W) x + (scale b + shift).
Why: the chip has synapses and biases, no normalisation.
Assumes: evaluation mode; every BatchNorm reads a Conv2d or Dense that nothing else reads.
Guarantees: no BatchNorm left; exact in real arithmetic; names of all other nodes unchanged.
Source: standard; S-CMRL (arXiv 2502.12488) has every batch norm in this position.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from neuroav import nodes as rn
from neuroav.errors import UnsupportedNode
from neuroav.graph import SpikingGraph
from neuroav_export.passes.values import SYNAPSES


def fold_norm(graph: SpikingGraph) -> SpikingGraph:
    """Return the graph with every BatchNorm folded, at stage 'folded'."""
    for name in graph.order:
        graph = fold_node(graph, name)
    return graph.with_nodes(stage="folded")


def fold_node(graph: SpikingGraph, name: str) -> SpikingGraph:
    """Return the graph without ``name`` if that is a BatchNorm, as it is otherwise.

    Raises UnsupportedNode where it cannot be folded.
    """
    norm = graph.nodes[name]
    if not isinstance(norm, rn.BatchNorm):
        return graph
    source = graph.inputs[name][0]
    layer = graph.nodes[source]
    if not isinstance(layer, SYNAPSES) or graph.consumers(source) != (name,):
        raise UnsupportedNode(
            f"{name}: batch norm follows {source} ({type(layer).__name__}), it can be folded "
            "only into a convolution or linear layer that nothing else reads; move it there",
            rule="batch-norm-place",
        )
    bias = np.zeros(len(norm.scale)) if layer.bias is None else layer.bias
    folded = replace(layer, weight=_scaled(layer, norm.scale), bias=bias * norm.scale + norm.shift)
    return graph.with_nodes(nodes={source: folded}, remove=[name], rewire={name: source})


def _scaled(layer: rn.Conv2d | rn.ConvTranspose2d | rn.Dense, scale: np.ndarray) -> np.ndarray:
    """Return the layer's weights times a factor per output channel, (channels,)."""
    if not isinstance(layer, rn.ConvTranspose2d):
        return layer.weight * scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    groups = layer.groups  # its output channels are the second axis, group by group
    split = layer.weight.reshape(groups, -1, *layer.weight.shape[1:])
    found = split * scale.reshape(groups, 1, -1, 1, 1)
    return found.reshape(layer.weight.shape)
