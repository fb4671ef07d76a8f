"""The real-valued twin of a network read from a .net file, made from its integers.

One real unit is one synaptic input, so weights and thresholds are the integers themselves: a
neuron's v is its membrane in synaptic inputs times dt / tau, and spikes above vThMant dt / tau. The
twin differs from the integers where the chip cuts its leak to whole numbers, and in two
things that no real node has:

* A bias enters the chip's membrane directly. Where a layer has synaptic currents, the twin's bias
  passes through them, scaled to the same lasting effect: it sets in later. Where it differs within
  a channel, or the current never leaks, it is the twin's resting level, which is there at once.
* Real counts and spikes are the same; values of the host are not cut off.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from fractions import Fraction

import numpy as np

from neuroav import nodes as rn
from neuroav.graph import SpikingGraph
from neuroav_export.readers.base import free_name
from neuroav_export.readers.netx_layers import FULL, Layer, Neurons

# Steps after which something that never leaks is 1/e of itself: in float64, 1 - 2^-60 is 1.
NEVER = 1 << 60


def gain(decay_v: int) -> Fraction:
    """Return dt / tau of a membrane."""
    return Fraction(decay_v, FULL) if decay_v else Fraction(1, NEVER)


def by_delay(layer: Layer) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (delay in steps, weights of the synapses that have it), shortest first."""
    assert layer.weight is not None
    if layer.delay is None:
        yield 0, layer.weight
        return
    used = np.unique(layer.delay[layer.weight != 0])
    for steps in used if used.size else np.zeros(1, np.int64):
        yield int(steps), np.where(layer.delay == steps, layer.weight, 0)


class Twin:
    """Nodes of the real-valued network, put layer by layer under the populations' names."""

    def __init__(self, dt_s: float, populations: Collection[str]) -> None:
        self.dt_s, self.populations = dt_s, frozenset(populations)
        self.nodes: dict[str, rn.Node] = {}
        self.inputs: dict[str, tuple[str, ...]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}

    def graph(self, output: str, steps: int) -> SpikingGraph:
        """Return the network at stage 'lowered'."""
        return SpikingGraph(
            self.nodes, self.inputs, self.shapes, output, self.dt_s, steps, "lowered"
        )

    def put(self, name: str, node: rn.Node, sources: tuple[str, ...], shape) -> str:
        self.nodes[name], self.inputs[name], self.shapes[name] = node, sources, tuple(shape)
        return name

    def input(self, name: str, shape, max_count: int) -> None:
        self.put(name, rn.Input(tuple(shape), max_count), (), shape)

    def driven(
        self, name: str, current: str, spikes: str, shape, weight, bias, neurons: Neurons
    ) -> None:
        """Put an input of real values, and its neurons behind an affine map."""
        self.put(name, rn.Input(tuple(shape), static=True), (), shape)
        self.put(current, rn.Conv2d(weight, bias, groups=len(weight)), (name,), shape)
        self.put(spikes, self._lif(neurons, len(shape), 0.0), (current,), shape)

    def neurons(self, layer: Layer, name: str, source: str) -> None:
        """Put a layer's synapses and neurons."""
        assert layer.neurons is not None
        assert layer.shape is not None
        bias, leak = self._bias(layer)
        synapses = self._synapses(layer, name, source, bias)
        self.put(name, self._lif(layer.neurons, len(layer.shape), leak), (synapses,), layer.shape)

    def count(self, name: str, source: str, neurons: int) -> None:
        """Put the mean over steps of every spike."""
        self.put(name, rn.Readout(np.eye(neurons), np.zeros(neurons)), (source,), (neurons,))

    def readout(self, layer: Layer, name: str, source: str, *, plain: bool) -> None:
        """Put class scores: the mean over steps of a weighted sum, or a leaky membrane."""
        assert layer.neurons is not None
        assert layer.shape is not None
        bias = np.broadcast_to(layer.bias, layer.shape).astype(np.float64)
        syn, mem = (float(gain(int(d[0]))) for d in (layer.neurons.decay_i, layer.neurons.decay_v))
        with_current = not plain and int(layer.neurons.decay_i[0]) != FULL
        delays = list(by_delay(layer))
        lag, weight = delays[0]
        if len(delays) == 1:
            reads = self._late(name, source, lag)
        else:
            reads, weight = self._synapses(layer, name, source, None), np.eye(len(bias))
        node = rn.Readout(
            weight.astype(np.float64),
            bias,
            tau_mem_s=None if plain else self.dt_s / mem,
            tau_syn_s=self.dt_s / syn if with_current else None,
        )
        self.put(name, node, (reads,), layer.shape)

    # --- parts ---
    def _help(self, name: str, node: rn.Node, sources: tuple[str, ...], shape) -> str:
        """Put a node that no population is named after; return its name."""
        free = free_name(name, self.populations | set(self.nodes))
        return self.put(free, node, sources, shape)

    def _late(self, name: str, source: str, lag: int) -> str:
        if not lag:
            return source
        return self._help(f"{name}.late{lag}", rn.Delay(lag), (source,), self.shapes[source])

    def _synapses(self, layer: Layer, name: str, source: str, bias: np.ndarray | None) -> str:
        """Put the synapses of a layer, and the sum of all that reach it; return its name."""
        assert layer.weight is not None
        assert layer.shape is not None
        own = f"{name}.synapses"
        if layer.kind == "conv":
            weight = layer.weight.astype(np.float64)
            form = (layer.stride, layer.padding, layer.dilation, layer.groups)
            return self._help(own, rn.Conv2d(weight, bias, *form), (source,), layer.shape)
        parts = []
        for number, (lag, part) in enumerate(by_delay(layer)):
            node = rn.Dense(part.astype(np.float64), None if number else bias)
            late = self._late(name, source, lag)
            parts.append(self._help(f"{own}{lag}" if lag else own, node, (late,), layer.shape))
        if layer.recurrent is not None:
            before = self._help(f"{name}.before", rn.Delay(1), (name,), layer.shape)
            node = rn.Dense(layer.recurrent.astype(np.float64))
            parts.append(self._help(f"{name}.recurrent", node, (before,), layer.shape))
        if len(parts) == 1:
            return parts[0]
        return self._help(f"{name}.sum", rn.Add(), tuple(parts), layer.shape)

    def _bias(self, layer: Layer) -> tuple[np.ndarray | None, float | np.ndarray]:
        """Return (bias of the synapses or None, resting level) with the effect of the chip's."""
        assert layer.neurons is not None
        assert layer.shape is not None
        if not layer.bias.any():
            return None, 0.0
        full = np.broadcast_to(layer.bias, layer.shape).astype(np.float64)
        by_channel = full.reshape(len(full), -1)
        passed = layer.neurons.decay_i / FULL  # of a lasting input: what the current keeps of it
        even = bool((by_channel == by_channel[:, :1]).all())
        if even and (passed > 0).all():
            return by_channel[:, 0] * passed, 0.0
        return None, full

    def _lif(self, neurons: Neurons, axes: int, leak: float | np.ndarray) -> rn.Lif | rn.If:
        ones = [1] * (axes - 1)

        def spread(values: list[float]) -> float | np.ndarray:
            return values[0] if len(values) == 1 else np.array(values).reshape(-1, *ones)

        direct = bool((neurons.decay_i == FULL).all())
        if direct and not neurons.decay_v.any() and not np.any(leak):
            return rn.If(float(neurons.threshold))
        shares = [float(gain(int(d))) for d in neurons.decay_v]
        return rn.Lif(
            tau_mem_s=spread([self.dt_s / s for s in shares]),
            v_threshold=spread([neurons.threshold * s for s in shares]),
            v_leak=leak,
            tau_syn_s=None
            if direct
            else spread([self.dt_s / float(gain(int(d))) for d in neurons.decay_i]),
        )
