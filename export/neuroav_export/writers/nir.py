"""NIR: the real-valued twin, as trained (lowered, batch norm folded), in NIR's own primitives.

NIR describes real-valued neurons by differential equations and knows no integers: the file holds
the network before quantization, and the integers that are deployed in its metadata
(``nir_integers``). Every node of the twin is carried exactly, some as two or three primitives; the
last of them bears the node's name. ``neuroav.sim.real`` is NIR's equations under forward Euler with
the step ``dt_s``:

    v' = v + (dt / tau) * ((v_leak - v) + r I),  r = 1,  tau in seconds;  spike = v' > v_threshold

with v = v_leak before the first step. NIR has no mean over time: a readout's mean over T steps
is the integrator dv/dt = I / (T dt), whose value at the last step is the mean. A delay of one step
that closes a loop is written as the loop alone, which every reader of NIR takes for last step's
spikes; the metadata ``late`` name it.

Consumes the real-valued twin.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from neuroav import nodes as rn
from neuroav.deployment import Deployment
from neuroav.errors import UnsupportedNode
from neuroav.files import written_whole
from neuroav.graph import SpikingGraph
from neuroav_export.writers.base import Written, facts, missing
from neuroav_export.writers.nir_integers import annotate

FORMAT, VERSION = "neuroav-nir", 2
CONSUMES = "real"
CARRIES = {
    "Input": "Input",
    "Conv2d": "Conv2d, square kernels only; groups written out as zeros, no bias as bias 0",
    "Dense": "Affine, or Linear without bias; after a Flatten where its source has rows",
    "Lif": "LIF with full arrays: tau in seconds, r = 1; with tau_syn_s CubaLIF, "
    "w_in = tau_syn / dt",
    "Li": "LI, or with tau_syn_s CubaLI",
    "If": "IF with r = 1 / dt_s",
    "Delay": "Delay in seconds; of one step, closing a loop: the loop alone",
    "OrPool2d": "SumPool2d, then Threshold 0.5: a logical OR of spikes",
    "SumPool2d": "SumPool2d",
    "Add": "Scale by 1, into which all edges run: NIR adds edges that meet",
    "Scale": "Scale",
    "SpatialSum": "SumPool2d over all rows and columns, then Flatten",
    "Flatten": "Flatten",
    "Reshape": "Flatten, if it ends in one axis",
    "Readout": "Affine, then I with r = 1 / (steps * dt_s), or LI or CubaLI where it leaks: the "
    "scores are the last value",
}
UNSUPPORTED: dict[str, str] = {
    "ConvTranspose2d": "NIR has no transposed convolution",
    "Permute": "NIR cannot exchange axes",
    "Concat": "NIR has no concatenation; use the join 'add'",
    "Mask": "NIR has no product of two activities",
    "SpatialAttention": "NIR has no product of two activities, so no attention",
    "TemporalAttention": "NIR has no product of two activities, so no attention",
    "TimeSum": "NIR has no node that waits for the whole sample",
    "Product": "NIR has no product of two activities",
}
OUTPUT = "output"

Parts = list[tuple[str, Any]]  # (suffix of the name, NIR node), first to last


def _nir() -> Any:
    try:
        import nir
    except ImportError:
        raise missing("nir") from None
    return nir


def write(deployment: Deployment, path: str | Path) -> Written:
    """Write the twin of ``deployment``, type-checked by NIR.

    Raises UnsupportedNode for a convolution that NIR cannot check, and MissingDependency.
    """
    nir, graph = _nir(), deployment.real
    made = nir_graph(deployment)
    with written_whole(path) as temporary:
        nir.write(temporary, made)
    soft = [n for n in graph.order if getattr(graph.nodes[n], "reset", "") == "subtract"]
    notes = {"reset_subtract": soft} if soft else {}  # NIR's equations reset to v_reset
    return Written("nir", Path(path), graph.order, {}, deployment.content_hash, notes)


def nir_graph(deployment: Deployment) -> Any:
    """Return the twin as a ``nir.NIRGraph``, every node under its own name, the integers inside.

    Raises UnsupportedNode.
    """
    nir, graph = _nir(), deployment.real
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    late = loop_delays(graph)
    for name in graph.order:
        handler = _HANDLERS.get(type(graph.nodes[name]))
        if handler is None:
            kind = type(graph.nodes[name]).__name__
            raise UnsupportedNode(f"{name}: the nir writer cannot carry {kind}")
        if name in late:
            continue
        made = handler(nir, graph, name)
        parts = {_free(graph, f"{name}{suffix}") if suffix else name: n for suffix, n in made}
        names = list(parts)
        _enter(nir, graph, name, names[0], parts, edges, late)
        edges += pairwise(names)
        nodes |= parts
    output = OUTPUT
    while output in nodes:
        output += "_"
    nodes[output] = nir.Output({"output": np.array(graph.shapes[graph.output])})
    edges.append((graph.output, output))
    tables, own = annotate(deployment)
    for name in graph.order:
        if name not in late:
            nodes[name].metadata |= _settings(graph.nodes[name]) | tables.get(name, {})
    return nir.NIRGraph(nodes, edges, metadata=_metadata(deployment, late) | own)


def loop_delays(graph: SpikingGraph) -> dict[str, str]:
    """Return the delays of one step that only close loops behind neurons, with their source."""
    found = {}
    for group in graph.groups:
        for name in group if graph.loops(group) else ():
            node, sources, readers = graph.nodes[name], graph.inputs[name], graph.consumers(name)
            if not (isinstance(node, rn.Delay) and node.steps == 1 and name != graph.output):
                continue
            neurons = isinstance(graph.nodes[sources[0]], (rn.Lif, rn.If))
            twice = any(sources[0] in graph.inputs[r] for r in readers)
            if neurons and not twice and set(readers) <= set(group):
                found[name] = sources[0]
    return found


def _free(graph: SpikingGraph, name: str) -> str:
    while name in graph.nodes:
        name += "_"
    return name


def _settings(node: rn.Node) -> dict[str, str]:
    """Return what NIR cannot say about neurons."""
    if not isinstance(node, (rn.Lif, rn.If)):
        return {}
    inclusive = {"inclusive": "true"} if node.inclusive else {}
    return {"reset": node.reset} | inclusive


def _metadata(deployment: Deployment, late: dict[str, str]) -> dict[str, str]:
    graph = deployment.real
    loops = [(d, s, list(graph.consumers(d))) for d, s in late.items()]
    return facts(deployment, FORMAT, VERSION) | {
        "output": graph.output,
        "values": "real-valued twin as trained, not the quantized integers that are deployed: "
        "those are the nodes' metadata 'neuroav'",
        "units": "tau in seconds; v, v_threshold, v_reset, v_leak in units of the membrane",
        "time": "forward Euler with step dt_s; v = v_leak before the first step",
        "scores": "the output at the last of `steps` steps",
        **({"late": json.dumps(loops)} if loops else {}),
    }


def _enter(
    nir: Any,
    graph: SpikingGraph,
    name: str,
    first: str,
    parts: dict[str, Any],
    edges: list,
    late: dict[str, str],
) -> None:
    """Draw the edges into a node's first part; a source read n times is scaled by n."""
    sources = graph.inputs[name]
    for source in dict.fromkeys(sources):
        times, origin = sources.count(source), late.get(source, source)
        if times == 1:
            edges.append((origin, first))
            continue
        factor = _free(graph, f"{name}.{source}")
        parts[factor] = nir.Scale(np.full(graph.shapes[source], float(times)))
        edges += [(origin, factor), (factor, first)]


# --- one handler per node class --------------------------------------------------------------
def _input(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    return [("", nir.Input({"input": np.array(graph.shapes[name])}))]


def _conv2d(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    node = graph.nodes[name]
    assert isinstance(node, rn.Conv2d)
    rows, columns = node.weight.shape[2:]
    if rows != columns:
        raise UnsupportedNode(
            f"{name}: its kernel is {rows} x {columns}; NIR infers both axes from the first, so "
            "only square kernels pass its type check; use a square kernel"
        )
    bias = np.zeros(len(node.weight)) if node.bias is None else node.bias
    source = graph.shapes[graph.inputs[name][0]]
    conv = nir.Conv2d(
        input_shape=source[1:],
        weight=_ungrouped(node.weight, node.groups),
        stride=node.stride,
        padding=node.padding,
        dilation=node.dilation,
        groups=1,
        bias=bias,
    )
    return [("", conv)]


def _ungrouped(weight: np.ndarray, groups: int) -> np.ndarray:
    """Return (out, in, rows, columns) with zeros between groups: NIR checks ``in`` in full."""
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    full = np.zeros((weight.shape[0], inputs * groups, *weight.shape[2:]), weight.dtype)
    for group in range(groups):
        out = slice(group * outputs, (group + 1) * outputs)
        full[out, group * inputs : (group + 1) * inputs] = weight[out]
    return full


def _flat(nir: Any, shape: tuple[int, ...], suffix: str) -> Parts:
    return [(suffix, nir.Flatten({"input": np.array(shape)}, start_dim=0, end_dim=-1))]


def _affine(nir: Any, graph: SpikingGraph, name: str, suffix: str) -> Parts:
    node = graph.nodes[name]
    assert isinstance(node, (rn.Dense, rn.Readout))
    source = graph.shapes[graph.inputs[name][0]]
    flat = _flat(nir, source, ".flatten") if len(source) > 1 else []
    if node.bias is None:
        return [*flat, (suffix, nir.Linear(node.weight))]
    return [*flat, (suffix, nir.Affine(node.weight, node.bias))]


def _dense(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    return _affine(nir, graph, name, "")


def _readout(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    node, shape = graph.nodes[name], graph.shapes[name]
    assert isinstance(node, rn.Readout)
    layer = _affine(nir, graph, name, ".affine")
    if node.tau_mem_s is None:
        return [*layer, ("", nir.I(r=np.full(shape, 1.0 / (graph.steps * graph.dt_s))))]
    return [*layer, _leaky(nir, node, graph, shape)]


def _li(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    node = graph.nodes[name]
    assert isinstance(node, rn.Li)
    return [_leaky(nir, node, graph, graph.shapes[name])]


def _leaky(nir: Any, node: rn.Readout | rn.Li, graph: SpikingGraph, shape: tuple[int, ...]):
    leak = {"r": np.ones(shape), "v_leak": np.full(shape, node.v_leak)}
    if node.tau_syn_s is None:
        return "", nir.LI(tau=np.full(shape, node.tau_mem_s), **leak)
    return "", nir.CubaLI(**_synaptic(node, graph, shape), **leak)


def _synaptic(
    node: rn.Lif | rn.Li | rn.Readout, graph: SpikingGraph, shape: tuple[int, ...]
) -> dict:
    """Return both time constants, and w_in, which makes an input add its own value to i."""
    assert node.tau_mem_s is not None
    assert node.tau_syn_s is not None
    tau_syn = _full(node.tau_syn_s, shape)
    return {
        "tau_mem": _full(node.tau_mem_s, shape),
        "tau_syn": tau_syn,
        "w_in": tau_syn / graph.dt_s,
    }


def _full(value: rn.Number, shape: tuple[int, ...]) -> np.ndarray:
    return np.array(np.broadcast_to(np.asarray(value, np.float64), shape))


def _lif(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    node, shape = graph.nodes[name], graph.shapes[name]
    assert isinstance(node, rn.Lif)
    rest = {"r": np.ones(shape), "v_leak": _full(node.v_leak, shape)} | _fire(node, shape)
    if node.tau_syn_s is None:
        return [("", nir.LIF(tau=_full(node.tau_mem_s, shape), **rest))]
    return [("", nir.CubaLIF(**_synaptic(node, graph, shape), **rest))]


def _fire(node: rn.Lif | rn.If, shape: tuple[int, ...]) -> dict:
    return {
        "v_threshold": _full(node.v_threshold, shape),
        "v_reset": _full(node.v_reset, shape),
    }


def _if(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    node, shape = graph.nodes[name], graph.shapes[name]
    assert isinstance(node, rn.If)
    return [("", nir.IF(r=np.full(shape, 1.0 / graph.dt_s), **_fire(node, shape)))]


def _delay(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    node = graph.nodes[name]
    assert isinstance(node, rn.Delay)
    return [("", nir.Delay(np.full(graph.shapes[name], node.steps * graph.dt_s)))]


def _sum_pool(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    node = graph.nodes[name]
    assert isinstance(node, rn.SumPool2d)
    return [("", nir.SumPool2d(*map(np.array, (node.kernel, node.stride, node.padding))))]


def _reshape(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    node = graph.nodes[name]
    assert isinstance(node, rn.Reshape)
    if len(node.shape) != 1:
        raise UnsupportedNode(
            f"{name}: gives {node.shape}; NIR can only flatten: let the layer before it give these "
            "axes, or end it in one"
        )
    return _flatten(nir, graph, name)


def _or_pool(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    node = graph.nodes[name]
    assert isinstance(node, rn.OrPool2d)
    pool = nir.SumPool2d(*map(np.array, (node.kernel, node.stride, node.padding)))
    return [(".sum", pool), ("", nir.Threshold(np.full(graph.shapes[name], 0.5)))]


def _add(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    return [("", nir.Scale(np.ones(graph.shapes[name])))]


def _scale(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    node = graph.nodes[name]
    assert isinstance(node, rn.Scale)
    return [("", nir.Scale(np.full(graph.shapes[name], node.factor)))]


def _spatial_sum(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    channels, *window = graph.shapes[graph.inputs[name][0]]
    pool = nir.SumPool2d(np.array(window), np.array(window), np.zeros(2, np.int64))
    return [(".sum", pool), *_flat(nir, (channels, 1, 1), "")]


def _flatten(nir: Any, graph: SpikingGraph, name: str) -> Parts:
    return _flat(nir, graph.shapes[graph.inputs[name][0]], "")


_HANDLERS: dict[type, Callable[[Any, SpikingGraph, str], Parts]] = {
    rn.Input: _input,
    rn.Conv2d: _conv2d,
    rn.Dense: _dense,
    rn.Lif: _lif,
    rn.If: _if,
    rn.Delay: _delay,
    rn.OrPool2d: _or_pool,
    rn.SumPool2d: _sum_pool,
    rn.Add: _add,
    rn.Scale: _scale,
    rn.SpatialSum: _spatial_sum,
    rn.Flatten: _flatten,
    rn.Reshape: _reshape,
    rn.Readout: _readout,
    rn.Li: _li,
}
