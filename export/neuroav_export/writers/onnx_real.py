"""The real-valued twin in ONNX, float32: one step at a time or whole samples.

The meaning of every node is that of ``neuroav.sim.real``, which computes in float64: a spike may
differ where a membrane lies within the rounding of float32 of its threshold. States are 0 before
the first step: membranes are kept relative to ``v_leak``, where they rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from neuroav import nodes as rn
from neuroav.errors import UnsupportedNode
from neuroav.graph import SpikingGraph
from neuroav_export.writers.onnx_build import Builder, Shape
from neuroav_export.writers.onnx_unrolled import from_heads

CONSUMES = "real"
CARRIES = {
    "Input": "graph input `NAME`, float32",
    "Conv2d": "Conv",
    "ConvTranspose2d": "ConvTranspose",
    "Dense": "Flatten, Gemm",
    "Lif": "Euler steps; states `NAME/v` (the membrane less `v_leak`) and, with a synaptic time "
    "constant, `NAME/i`",
    "Li": "as `Lif` without the threshold",
    "If": "Add, Greater; state `NAME/v`",
    "Delay": "states `NAME/late/1` ... `NAME/late/STEPS`",
    "Reshape": "Reshape",
    "Permute": "Transpose",
    "OrPool2d": "MaxPool",
    "SumPool2d": "Conv with unit weights",
    "Add": "Add",
    "Scale": "Mul",
    "SpatialSum": "ReduceSum",
    "Flatten": "Reshape",
    "Readout": "Gemm; states `NAME/v` and, as for `Lif`, `NAME/i`; its last step's value holds the "
    "class scores",
    "Concat": "Concat",
    "Mask": "Mul, head by head",
    "SpatialAttention": "two Einsum",
    "TemporalAttention": "two Einsum over the steps; unrolled form only",
    "TimeSum": "ReduceSum over the weighed steps; unrolled form only",
    "Product": "Mul",
}
UNSUPPORTED: dict[str, str] = {}
_STATE = (rn.Lif, rn.If, rn.Li, rn.Readout)
_WHOLE = (rn.TimeSum, rn.TemporalAttention)


# --- nodes -----------------------------------------------------------------------------------
class _Frame:
    """One step of nodes, or what has no state of all steps, in a builder."""

    def __init__(self, b: Builder, graph: SpikingGraph) -> None:
        self.b, self.graph = b, graph

    def value(self, name: str, x: list[str]) -> str:
        """Return the value of a node for those of its sources."""
        b, node, self.b.where = self.b, self.graph.nodes[name], name
        shape = self.graph.shapes[name]
        if isinstance(node, rn.Lif):
            return self._lif(node, x[0], shape)
        if isinstance(node, rn.If):
            return self._spikes(node, b.op("Add", b.state("v", shape), x[0]), 0.0)
        if isinstance(node, rn.Readout):
            return self._readout(node, x[0], shape)
        if isinstance(node, rn.Li):
            return self._leaky(node, x[0], shape)
        made = _PLAIN.get(type(node))
        if made is None:
            raise UnsupportedNode(f"{name}: the onnx writer cannot carry {type(node).__name__}")
        return made(b, node, x, [self.graph.shapes[s] for s in self.graph.inputs[name]], shape)

    def _lif(self, node: rn.Lif, x: str, shape: Shape) -> str:
        v = self._membrane(node.tau_mem_s, node.tau_syn_s, x, shape)
        return self._spikes(node, v, node.v_leak)

    def _membrane(self, tau_mem_s: Any, tau_syn_s: Any, x: str, shape: Shape) -> str:
        """Return the membrane less its resting value; i is kept, v is not yet."""
        b, dt_s = self.b, self.graph.dt_s
        if tau_syn_s is not None:
            i = b.state("i", shape)
            lost = b.op("Mul", i, b.number(dt_s / np.asarray(tau_syn_s)))
            x = b.op("Add", b.op("Sub", i, lost), x)
            b.keep(i, x)
        v = b.state("v", shape)
        pull = b.op("Mul", b.op("Sub", x, v), b.number(dt_s / np.asarray(tau_mem_s)))
        return b.op("Add", v, pull)

    def _spikes(self, node: rn.Lif | rn.If, v: str, rest: Any) -> str:
        """Return the spikes of membranes v, relative to ``rest``, and keep them reset."""
        b = self.b
        spike = b.op("Greater", v, b.number(np.asarray(node.v_threshold) - rest))
        if node.reset == "subtract":
            after = b.op("Sub", v, b.number(node.v_threshold))
        else:
            after = b.number(np.asarray(node.v_reset) - rest)
        b.keep(f"{b.where}/v", b.op("Where", spike, after, v))
        return b.op("Cast", spike, to=b.element)

    def _readout(self, node: rn.Readout, x: str, shape: Shape) -> str:
        b, score = self.b, _dense(self.b, node, [x], [], shape)
        if node.tau_mem_s is None:
            v = b.state("v", shape)
            total = b.op("Add", v, score)
            b.keep(v, total)
            return b.op("Mul", total, b.number(1.0 / self.graph.steps))
        return self._leaky(node, score, shape)

    def _leaky(self, node: rn.Readout | rn.Li, x: str, shape: Shape) -> str:
        v = self._membrane(node.tau_mem_s, node.tau_syn_s, x, shape)
        self.b.keep(f"{self.b.where}/v", v)
        return self.b.op("Add", v, self.b.number(node.v_leak)) if node.v_leak else v


def _dense(b: Builder, node: Any, x: list[str], sources: list[Shape], shape: Shape) -> str:
    bias = [] if node.bias is None else [b.number(node.bias)]
    return b.op("Gemm", b.op("Flatten", x[0], axis=1), b.number(node.weight), *bias, transB=1)


def _conv(b: Builder, node: Any, x: list[str], sources: list[Shape], shape: Shape) -> str:
    bias = [] if node.bias is None else [b.number(node.bias)]
    return b.convolved(x[0], b.number(node.weight), node, *bias)


def _transposed(b: Builder, node: Any, x: list[str], sources: list[Shape], shape: Shape) -> str:
    found = b.transposed(x[0], b.number(node.weight), node)
    if node.bias is None:
        return found
    return b.op("Add", found, b.number(node.bias.reshape(-1, 1, 1)))


def _sum_pool(b: Builder, node: Any, x: list[str], sources: list[Shape], shape: Shape) -> str:
    return b.pooled(x[0], b.number(np.ones((shape[0], 1, *node.kernel))), node, shape[0])


def _or_pool(b: Builder, node: Any, x: list[str], sources: list[Shape], shape: Shape) -> str:
    pads = [*node.padding, *node.padding]
    return b.op("MaxPool", x[0], kernel_shape=node.kernel, strides=node.stride, pads=pads)


def _mask(b: Builder, node: Any, x: list[str], sources: list[Shape], shape: Shape) -> str:
    heads, places = sources[0][0], shape[1:]
    mask = b.shaped(x[0], 0, heads, 1, *places)
    parts = b.shaped(x[1], 0, heads, shape[0] // heads, *places)
    return b.shaped(b.op("Mul", mask, parts), 0, *shape)


def _attention(b: Builder, node: Any, x: list[str], sources: list[Shape], shape: Shape) -> str:
    split = (0, node.heads, shape[0] // node.heads, int(np.prod(shape[1:])))
    q, k, v = (b.shaped(y, *split) for y in x)
    state = b.op("Einsum", k, v, equation="bhim,bhjm->bhij")
    counts = b.op("Einsum", q, state, equation="bhin,bhij->bhjn")
    return b.shaped(b.op("Mul", counts, b.number(node.scale)), 0, *shape)


def _product(b: Builder, node: Any, x: list[str], sources: list[Shape], shape: Shape) -> str:
    first = x[0] if sources[0] == shape else b.shaped(x[0], 0, shape[0], 1, 1)
    return b.op("Mul", first, x[1])


# Nodes without a state: (builder, node, tensors, their shapes, shape) -> tensor.
_PLAIN: dict[type, Callable[..., str]] = {
    rn.Dense: _dense,
    rn.Conv2d: _conv,
    rn.ConvTranspose2d: _transposed,
    rn.SumPool2d: _sum_pool,
    rn.OrPool2d: _or_pool,
    rn.Mask: _mask,
    rn.SpatialAttention: _attention,
    rn.Product: _product,
    rn.Add: lambda b, node, x, sources, shape: b.total(x),
    rn.Scale: lambda b, node, x, sources, shape: b.op("Mul", x[0], b.number(node.factor)),
    rn.SpatialSum: lambda b, node, x, sources, shape: b.op(
        "ReduceSum", x[0], b.constant([2, 3]), keepdims=0
    ),
    rn.Flatten: lambda b, node, x, sources, shape: b.shaped(x[0], 0, *shape),
    rn.Reshape: lambda b, node, x, sources, shape: b.shaped(x[0], 0, *shape),
    rn.Permute: lambda b, node, x, sources, shape: b.op(
        "Transpose", x[0], perm=[0, *(a + 1 for a in node.axes)]
    ),
    rn.Concat: lambda b, node, x, sources, shape: b.op("Concat", *x, axis=1),
}


# --- one step --------------------------------------------------------------------------------
def step(b: Builder, graph: SpikingGraph) -> None:
    """Add all nodes of one time step."""
    for name, node in graph.nodes.items():
        if isinstance(node, _WHOLE):
            raise UnsupportedNode(
                f"{name}: the onnx writer cannot carry {type(node).__name__} in a model of one "
                "step: it needs the whole sample before it answers; use the unrolled form"
            )
    values: dict[str, str] = {}
    for name in graph.input_names:
        b.inputs.append(b.tensor(name, "batch", *graph.shapes[name]))
        values[name] = name
    _frame(b, graph, tuple(n for n in graph.order if n not in values), values)
    for name in graph.order:
        if name not in graph.input_names:
            b.op("Identity", values[name], result=name)
            b.outputs.append(b.tensor(name, "batch", *graph.shapes[name]))


def _frame(b: Builder, graph: SpikingGraph, names: tuple[str, ...], values: dict[str, str]) -> None:
    """Add one step of the named nodes to ``values``, which has what they read from outside."""
    frame, late = _Frame(b, graph), {}
    for name in names:
        node = graph.nodes[name]
        if isinstance(node, rn.Delay):
            late[name] = b.history(name, graph.shapes[name], node.steps)
            values[name] = late[name][-1]
        else:
            values[name] = frame.value(name, [values[s] for s in graph.inputs[name]])
    for name, states in late.items():
        b.remember(states, values[graph.inputs[name][0]])


# --- whole samples ---------------------------------------------------------------------------
def unrolled(b: Builder, graph: SpikingGraph) -> None:
    """Add all nodes for all steps of a sample, and the class scores."""
    values = {name: b.fold(name, graph.shapes[name]) for name in graph.input_names}
    for group in graph.groups:
        name, node = group[0], graph.nodes[group[0]]
        if name in graph.input_names:
            continue
        sources, shape, b.where = graph.inputs[name], graph.shapes[name], name
        if graph.loops(group) or isinstance(node, _STATE):
            values |= _frame_by_frame(b, graph, group, values)
        elif isinstance(node, rn.Delay):
            values[name] = b.late(values[sources[0]], shape, node.steps)
        elif isinstance(node, _WHOLE):
            values[name] = _whole(b, node, [values[s] for s in sources], shape)
        else:
            values[name] = _Frame(b, graph).value(name, [values[s] for s in sources])
    for name in graph.order:
        if name not in graph.input_names:
            b.where = name
            b.unfold(name, values[name], graph.shapes[name])
    b.where = graph.output
    b.answer(graph.output, graph.shapes[graph.output][0])


def _frame_by_frame(
    b: Builder, graph: SpikingGraph, group: tuple[str, ...], values: dict[str, str]
) -> dict[str, str]:
    """Return the folded values of neurons, or of a loop of nodes, by a Scan."""
    outside = dict.fromkeys(s for n in group for s in graph.inputs[n] if s not in group)
    feeds = {s: (values[s], graph.shapes[s]) for s in outside or graph.input_names[:1]}

    def frame(now: dict[str, str]) -> dict[str, tuple[str, Shape]]:
        _frame(b, graph, group, now)
        return {n: (now[n], graph.shapes[n]) for n in group}

    return b.scan(feeds, frame)


def _whole(b: Builder, node: Any, x: list[str], shape: Shape) -> str:
    """Return what needs all steps of a sample, folded."""
    if isinstance(node, rn.TimeSum):
        apart = b.frames(x[0], shape)
        if node.weights is not None:
            weights = np.asarray(node.weights).reshape(-1, *[1] * (len(shape) + 1))
            apart = b.op("Mul", apart, b.number(weights))
        return b.repeated(b.op("ReduceSum", apart, b.constant([0]), keepdims=1), shape)
    split = (b.steps, -1, node.heads, shape[0] // node.heads, int(np.prod(shape[1:])))
    q, k, v = (b.shaped(y, *split) for y in x)
    state = b.op("Einsum", k, v, equation="tbhin,tbhjn->bhijn")
    found = b.op("Einsum", q, state, equation="tbhin,bhijn->bhtjn")
    return from_heads(b, b.op("Mul", found, b.number(node.scale)), node.scrambled, shape)
