"""Run the real-valued graph: the meaning of every node of ``neuroav.nodes``, in float64 torch.

The same operations in the same order as Norse and ``torch.nn`` use, so a traced network gives the
spikes of the module it came from. Also the 'float' side of every report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import singledispatch
from typing import TYPE_CHECKING

import numpy as np

from neuroav import nodes as rn
from neuroav.errors import MissingDependency, UnsupportedNode
from neuroav.graph import SpikingGraph
from neuroav.sim.trace import Progress, Trace, batches

if TYPE_CHECKING:
    import torch


def import_torch():
    """Return torch; MissingDependency with the line that installs it."""
    try:
        import torch
    except ImportError:
        raise MissingDependency(
            "PyTorch is not installed; the real-valued and the fast executors need it: "
            "pip install 'neuroav[train]' (or use --backend reference)"
        ) from None
    return torch


def run(
    graph: SpikingGraph,
    inputs: Mapping[str, np.ndarray],
    *,
    batch: int = 64,
    progress: Progress | None = None,
) -> Iterator[Trace]:
    """Yield Traces with the output of every node, float32 (samples, steps, *shape).

    inputs: event counts (samples, steps, *shape). A node after a mean over time has one step.
    """
    torch = import_torch()
    total = len(next(iter(inputs.values())))
    for first, part in batches(inputs, batch):
        with torch.no_grad():
            values = forward(
                graph,
                {
                    n: torch.from_numpy(np.moveaxis(v, 1, 0).astype(np.float64))
                    for n, v in part.items()
                },
            )
        yield Trace(
            first, {n: np.moveaxis(v.to(torch.float32).numpy(), 0, 1) for n, v in values.items()}
        )
        if progress:
            progress(min(first + batch, total), total)


def forward(graph: SpikingGraph, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the value of every node, (T, B, *shape); (1, B, *shape) after a mean over time."""
    values: dict[str, torch.Tensor] = {}
    for group in graph.groups:
        if graph.loops(group):
            _run_loop(graph, group, values, next(iter(inputs.values())))
            continue
        (name,) = group
        node = graph.nodes[name]
        if isinstance(node, rn.Input):
            values[name] = inputs[name]
        else:
            values[name] = evaluate(node, [values[s] for s in graph.inputs[name]], graph.dt_s)
    return values


def _run_loop(graph: SpikingGraph, group, values: dict[str, torch.Tensor], like) -> None:
    """Add the values of nodes that feed each other, frame by frame; ``like`` is (T, B, ...)."""
    steps, states = len(like), dict[str, State]()
    for name in group:
        node = graph.nodes[name]
        values[name] = like.new_zeros(*like.shape[:2], *graph.shapes[name])
        if isinstance(node, NEURONS):
            states[name] = rest(node, values[name][0])
    for t in range(steps):
        for name in group:
            node, sources = graph.nodes[name], graph.inputs[name]
            if isinstance(node, rn.Delay):
                if t >= node.steps:
                    values[name][t] = values[sources[0]][t - node.steps]
            elif isinstance(node, NEURONS):
                x = values[sources[0]][t]
                values[name][t], states[name] = neuron_step(node, x, states[name], graph.dt_s)
            else:
                part = [values[s][t : t + 1] for s in sources]
                values[name][t] = evaluate(node, part, graph.dt_s)[0]


NEURONS = (rn.Lif, rn.If, rn.Li)
State = tuple["torch.Tensor", "torch.Tensor"]  # membrane, synaptic current


def rest(node: rn.Lif | rn.If | rn.Li, like: torch.Tensor) -> State:
    """Return the state before the first step, shaped as ``like``."""
    torch = import_torch()
    leak = _number(getattr(node, "v_leak", 0.0), like)
    return leak * torch.ones_like(like), torch.zeros_like(like)


def neuron_step(node: rn.Lif | rn.If | rn.Li, x: torch.Tensor, state: State, dt_s: float):
    """Return (output, state) of neurons for the input x (B, *shape) of one step."""
    v, i = state
    if isinstance(node, rn.If):
        v = v + x
    else:
        tau, leak = _number(node.tau_mem_s, x), _number(node.v_leak, x)
        if node.tau_syn_s is None:
            v = v + dt_s * (1.0 / tau) * (x + leak - v)
        else:
            i = i - dt_s * (1.0 / _number(node.tau_syn_s, x)) * i + x
            v = v + dt_s * (1.0 / tau) * ((leak - v) + i)
    if isinstance(node, rn.Li):
        return v, (v, i)
    level = _number(node.v_threshold, x)
    spike = (v > level).to(x.dtype)
    if node.reset == "subtract":
        return spike, (v - spike * level, i)
    return spike, ((1 - spike) * v + spike * _number(node.v_reset, x), i)


def _number(value: rn.Number, like: torch.Tensor):
    return value if isinstance(value, (int, float)) else import_torch().from_numpy(value).to(like)


@singledispatch
def evaluate(node: object, x: list[torch.Tensor], dt_s: float) -> torch.Tensor:
    """Return the node's output (T, B, *shape) for its inputs."""
    raise UnsupportedNode(f"{type(node).__name__} has no real-valued meaning")


def _tensor(array: np.ndarray | None, like: torch.Tensor):
    torch = import_torch()
    return None if array is None else torch.from_numpy(array).to(like.dtype)


def _per_step(function, x: torch.Tensor) -> torch.Tensor:
    return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])


@evaluate.register
def _(node: rn.Conv2d, x, dt_s):
    conv = import_torch().nn.functional.conv2d
    weight, bias = _tensor(node.weight, x[0]), _tensor(node.bias, x[0])
    return _per_step(
        lambda y: conv(y, weight, bias, node.stride, node.padding, node.dilation, node.groups), x[0]
    )


@evaluate.register
def _(node: rn.Dense, x, dt_s):
    linear = import_torch().nn.functional.linear
    return linear(x[0].flatten(2), _tensor(node.weight, x[0]), _tensor(node.bias, x[0]))


@evaluate.register
def _(node: rn.Readout, x, dt_s):
    linear = import_torch().nn.functional.linear
    scores = linear(x[0].flatten(2), _tensor(node.weight, x[0]), _tensor(node.bias, x[0]))
    if node.tau_mem_s is None:
        return scores.mean(0, keepdim=True)
    return evaluate(rn.Li(node.tau_mem_s, node.v_leak, node.tau_syn_s), [scores], dt_s)[-1:]


@evaluate.register
def _(node: rn.BatchNorm, x, dt_s):
    shape = (1, 1, -1) + (1,) * (x[0].ndim - 3)
    return x[0] * _tensor(node.scale, x[0]).reshape(shape) + _tensor(node.shift, x[0]).reshape(
        shape
    )


@evaluate.register(rn.Lif)
@evaluate.register(rn.If)
@evaluate.register(rn.Li)
def _(node, x, dt_s):
    found, state = import_torch().empty_like(x[0]), rest(node, x[0][0])
    for t, current in enumerate(x[0]):
        found[t], state = neuron_step(node, current, state, dt_s)
    return found


@evaluate.register
def _(node: rn.ConvTranspose2d, x, dt_s):
    conv = import_torch().nn.functional.conv_transpose2d
    weight, bias = _tensor(node.weight, x[0]), _tensor(node.bias, x[0])
    form = (node.stride, node.padding, node.output_padding, node.groups, node.dilation)
    return _per_step(lambda y: conv(y, weight, bias, *form), x[0])


@evaluate.register
def _(node: rn.Delay, x, dt_s):
    late = import_torch().zeros_like(x[0])
    late[node.steps :] = x[0][: -node.steps]
    return late


@evaluate.register
def _(node: rn.Reshape, x, dt_s):
    return x[0].reshape(*x[0].shape[:2], *node.shape)


@evaluate.register
def _(node: rn.Permute, x, dt_s):
    return x[0].permute(0, 1, *(a + 2 for a in node.axes))


@evaluate.register(rn.SumPool2d)
@evaluate.register(rn.AvgPool2d)
def _(node, x, dt_s):
    pool = import_torch().nn.functional.avg_pool2d
    factor = 1 if isinstance(node, rn.AvgPool2d) else node.kernel[0] * node.kernel[1]
    return _per_step(lambda y: pool(y, node.kernel, node.stride, node.padding) * factor, x[0])


@evaluate.register
def _(node: rn.TimeLast, x, dt_s):
    return x[0][-1:]


@evaluate.register(rn.MaxPool2d)
@evaluate.register(rn.OrPool2d)
def _(node, x, dt_s):
    pool = import_torch().nn.functional.max_pool2d
    return _per_step(lambda y: pool(y, node.kernel, node.stride, node.padding), x[0])


@evaluate.register
def _(node: rn.Add, x, dt_s):
    return sum(x[1:], x[0])


@evaluate.register
def _(node: rn.Scale, x, dt_s):
    return x[0] * node.factor


@evaluate.register
def _(node: rn.SpatialMean, x, dt_s):
    return x[0].mean(dim=(-2, -1))


@evaluate.register
def _(node: rn.SpatialSum, x, dt_s):
    return x[0].sum(dim=(-2, -1))


@evaluate.register
def _(node: rn.Flatten, x, dt_s):
    return x[0].flatten(2)


@evaluate.register
def _(node: rn.TimeMean, x, dt_s):
    return x[0].mean(0, keepdim=True)


@evaluate.register
def _(node: rn.Concat, x, dt_s):
    return import_torch().cat(x, dim=2)


@evaluate.register
def _(node: rn.HeadSum, x, dt_s):
    return x[0].unflatten(2, (node.heads, -1)).sum(3)


@evaluate.register
def _(node: rn.Mask, x, dt_s):
    return x[0].repeat_interleave(x[1].shape[2] // x[0].shape[2], dim=2) * x[1]


@evaluate.register
def _(node: rn.SpatialAttention, x, dt_s):
    einsum = import_torch().einsum
    q, k, v = (y.flatten(3).unflatten(2, (node.heads, -1)) for y in x)
    state = einsum("tbhim,tbhjm->tbhij", k, v)
    return (einsum("tbhin,tbhij->tbhjn", q, state) * node.scale).reshape(x[0].shape)


@evaluate.register
def _(node: rn.TemporalAttention, x, dt_s):
    einsum = import_torch().einsum
    q, k, v = (y.flatten(3).unflatten(2, (node.heads, -1)) for y in x)
    found = einsum("tbhin,bhijn->bhtjn", q, einsum("tbhin,tbhjn->bhijn", k, v)) * node.scale
    return from_heads(found, node.scrambled).reshape(x[0].shape)


def from_heads(found: torch.Tensor, scrambled: bool) -> torch.Tensor:
    """Return (T, B, C, N) of temporal attention (B, heads, T, C / heads, N)."""
    _, heads, steps, part, _ = found.shape
    if scrambled:
        slots = found.flatten(1, 3).unflatten(1, (steps, heads * part))
    else:
        slots = found.transpose(1, 2).flatten(2, 3)
    return slots.transpose(0, 1)


@evaluate.register
def _(node: rn.MeanProduct, x, dt_s):
    return x[0].mean(dim=(-2, -1), keepdim=True) * x[1].mean(dim=0, keepdim=True)


@evaluate.register
def _(node: rn.TimeSum, x, dt_s):
    if node.weights is None:
        return x[0].sum(0, keepdim=True).expand_as(x[0])
    weights = _tensor(node.weights, x[0]).reshape(-1, *[1] * (x[0].ndim - 1))
    return (weights * x[0]).sum(0, keepdim=True).expand_as(x[0])


@evaluate.register
def _(node: rn.Product, x, dt_s):
    return (x[0] if x[0].ndim == x[1].ndim else x[0][..., None, None]) * x[1]
