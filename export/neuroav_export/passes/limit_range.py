"""Give layers with wide messages units coarse enough for the registers.

What: runs the lowered graph on the whole sample and sets, with a margin of two,
- ``least_unit`` of every convolution and dense layer that neurons read: the smallest real input per
  integer weight at which the largest membrane value seen still fits. Products of counts are the
  layers it matters for: their messages reach steps x places;
- the same of layers that neurons with a synaptic current or without leak read, from the largest
  current and membrane they hold;
- the same of several such layers whose sum neurons read, where one reads wide messages
  (``passes.values``), and of the readout's accumulator;
- ``peak`` of sums over a sample and products that are wide, from which their shift follows.
Assumes: stage 'lowered'. Guarantees: nothing but these changes; a layer that has a least unit keeps
it (quantization-aware training fixed it). Unseen input that passes the margin is still an error at
run time, in every executor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from neuroav import nodes as rn
from neuroav.fixed import Arithmetic
from neuroav.graph import SpikingGraph
from neuroav.quantization import accumulator_unit, least_unit
from neuroav.sim.real import evaluate, forward, neuron_step, rest
from neuroav_export.passes.values import SYNAPSES, wide_values

_VALUES = 64_000_000  # values of all nodes that are held at a time, float64


def limit_range(
    graph: SpikingGraph, sample: Mapping[str, torch.Tensor], arith: Arithmetic
) -> SpikingGraph:
    """Return the graph with units and peaks set; sample: event counts (T, B, *shape) by input."""
    wide = wide_values(graph)
    neurons = _neurons(graph, wide)
    slow = _slow_neurons(graph)
    others = [name for name in graph.order if _is_measured(graph, name, wide)]
    peaks = _peaks(graph, sample, [*neurons, *slow, *others])
    changed: dict[str, rn.Node] = {}
    for name, (layers, fraction) in neurons.items():
        for layer in layers:
            node = graph.nodes[layer]
            assert isinstance(node, SYNAPSES)
            changed[layer] = replace(node, least_unit=least_unit(peaks[name], fraction, arith))
    for name, layers in slow.items():
        for layer in layers:
            node = changed.get(layer, graph.nodes[layer])
            assert isinstance(node, SYNAPSES)
            least = np.broadcast_to(least_unit(peaks[name].max(), 1.0, arith), channels(node))
            changed[layer] = replace(node, least_unit=np.array(least))
    for name in others:
        node = graph.nodes[name]
        if isinstance(node, rn.Li):
            changed |= _membrane(graph, name, node, float(peaks[name].max(initial=0.0)), arith)
        elif isinstance(node, (rn.TimeSum, rn.Product)):
            changed[name] = replace(node, peak=float(peaks[name].max(initial=0.0)))
        elif isinstance(node, rn.Readout):
            leaky = 0 if node.tau_mem_s is None else arith.input_shift
            least = accumulator_unit(peaks[name], arith) * (1 << leaky)
            changed[name] = replace(node, least_unit=least)
    return graph.with_nodes(nodes=changed)


def _is_measured(graph: SpikingGraph, name: str, wide: frozenset[str]) -> bool:
    node = graph.nodes[name]
    if isinstance(node, rn.Readout):
        return node.least_unit is None
    if isinstance(node, rn.Li):
        return True
    return isinstance(node, (rn.TimeSum, rn.Product)) and name in wide


def _peaks(
    graph: SpikingGraph, sample: Mapping[str, torch.Tensor], watched: list[str]
) -> dict[str, np.ndarray]:
    """Return the largest |value| of every watched node, (channels,); of accumulators, a readout's,
    the largest they reach on the way."""
    peaks: dict[str, np.ndarray] = {}
    total = next(iter(sample.values())).shape[1]
    size = graph.steps * sum(int(np.prod(shape)) for shape in graph.shapes.values())
    chunk = max(1, _VALUES // size)
    for first in range(0, total, chunk):
        with torch.no_grad():
            values = forward(graph, {n: v[:, first : first + chunk] for n, v in sample.items()})
            for name in watched:
                node, value = graph.nodes[name], values[name]
                sources = [values[s] for s in graph.inputs[name]]
                if isinstance(node, rn.Readout):
                    value = _accumulated(node, sources, graph.dt_s)
                elif isinstance(node, rn.Li):
                    value = (value - node.v_leak) * (node.tau_mem_s / graph.dt_s)
                    value = torch.maximum(value.abs(), value.cumsum(0).abs())
                elif isinstance(node, (rn.Lif, rn.If)):
                    value = _registers(node, sources[0], graph.dt_s)
                peak = value.abs().transpose(0, 2).flatten(1).amax(1).numpy()  # by channel
                peaks[name] = np.maximum(peaks.get(name, 0.0), peak)
    return peaks


def _membrane(
    graph: SpikingGraph, name: str, node: rn.Li, peak: float, arith: Arithmetic
) -> dict[str, rn.Node]:
    """Return a membrane with its peak, and the layers it reads with units that hold that."""
    changed: dict[str, rn.Node] = {name: replace(node, peak=peak)}
    for layer in synaptic_layers(graph, graph.inputs[name][0]):
        before = graph.nodes[layer]
        assert isinstance(before, SYNAPSES)
        if before.least_unit is None:
            least = np.full(channels(before), accumulator_unit(np.array([peak]), arith)[0])
            changed[layer] = replace(before, least_unit=least)
    return changed


def _accumulated(node: rn.Readout, sources: list[torch.Tensor], dt_s: float) -> torch.Tensor:
    """Return what the accumulators of a readout hold at every step, in units of their input."""
    value = evaluate(rn.Dense(node.weight, node.bias), sources, dt_s)
    if node.tau_mem_s is None:
        return value.cumsum(0)
    held = evaluate(rn.Li(node.tau_mem_s, 0.0, node.tau_syn_s), [value], dt_s)
    return held * (node.tau_mem_s / dt_s)


def _registers(node: rn.Lif | rn.If, x: torch.Tensor, dt_s: float) -> torch.Tensor:
    """Return the larger of membrane and current at every step, in units of the synaptic input.

    The membrane counts before its reset.
    """
    state, found = rest(node, x[0]), torch.empty_like(x)
    gain = 1.0 if isinstance(node, rn.If) else dt_s / torch.as_tensor(node.tau_mem_s)
    leak = 0.0 if isinstance(node, rn.If) else torch.as_tensor(node.v_leak)
    quiet = replace(node, v_threshold=float("1e300"))
    for t, current in enumerate(x):
        _, (before, i) = neuron_step(quiet, current, state, dt_s)
        _, state = neuron_step(node, current, state, dt_s)
        found[t] = torch.maximum(((before - leak) / gain).abs(), i.abs())
    return found


def _slow_neurons(graph: SpikingGraph) -> dict[str, tuple[str, ...]]:
    """Return the neurons whose registers add up more than a leaky membrane does, and their layers
    without a least unit: those with a synaptic current, or without leak."""
    found: dict[str, tuple[str, ...]] = {}
    for name in graph.order:
        node = graph.nodes[name]
        slow = isinstance(node, rn.If) or (isinstance(node, rn.Lif) and node.tau_syn_s is not None)
        if slow:
            layers = synaptic_layers(graph, graph.inputs[name][0])
            free = tuple(n for n in layers if graph.nodes[n].least_unit is None)  # type: ignore[union-attr]
            found |= {name: free} if free else {}
    return found


def channels(node: rn.Conv2d | rn.ConvTranspose2d | rn.Dense | rn.Readout) -> int:
    """Return the output channels of a layer of synapses."""
    if isinstance(node, rn.ConvTranspose2d):
        return node.weight.shape[1] * node.groups
    return len(node.weight)


def _neurons(graph: SpikingGraph, wide: frozenset[str]) -> dict[str, tuple[tuple[str, ...], float]]:
    """Return by what neurons read: the layers without a least unit in it, and dt / tau_mem.

    A sum of layers only where one of them reads wide messages.
    """
    found = {}
    for name in graph.order:
        lif = graph.nodes[name]
        if not isinstance(lif, rn.Lif) or lif.tau_syn_s is not None:
            continue
        (read,) = graph.inputs[name]
        layers = synaptic_layers(graph, read)
        apart = layers == [read] or any(wide & set(graph.inputs[n]) for n in layers)
        free = tuple(n for n in layers if graph.nodes[n].least_unit is None)  # type: ignore[union-attr]
        if apart and free:
            found[read] = free, graph.dt_s / float(np.max(lif.tau_mem_s))
    return found


def synaptic_layers(graph: SpikingGraph, name: str) -> list[str]:
    """Return the convolutions and dense layers whose currents are added in ``name``."""
    node = graph.nodes[name]
    if isinstance(node, SYNAPSES):
        return [name]
    if not isinstance(node, (rn.Add, rn.Scale, rn.Delay)):
        return []
    return [layer for source in graph.inputs[name] for layer in synaptic_layers(graph, source)]
