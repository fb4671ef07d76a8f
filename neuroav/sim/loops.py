"""Loops of the batched executor: populations that feed each other, frame by frame.

What comes from outside the loop is added up for all frames at once, as everywhere else; only what
goes round is taken frame by frame. Nothing is known of the messages before, so sums are bounded by
what a message can be: 1 for a spike, the payload's largest number for anything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from neuroav import integer as ig
from neuroav.sim.currents import Messages
from neuroav.sim.populations import Layer, largest_of
from neuroav.sim.real import import_torch

if TYPE_CHECKING:
    import torch


def run_loop(
    layers: Mapping[str, Layer], sent: Mapping[str, Messages], like: torch.Tensor, states: bool
) -> tuple[dict[str, Messages], dict[str, torch.Tensor]]:
    """Return what the populations of a loop send in all steps, and voltages where ``states``.

    layers: of the loop, in the order within a frame. sent: by every population before it. like:
    (T, B, ...) on the device to use. Raises OutOfRange.
    """
    members = {name: _Member(layer, layers, sent, like, states) for name, layer in layers.items()}
    values = {name: member.value for name, member in members.items()}
    for t in range(len(like)):
        for member in members.values():
            member.advance(t, values)
    found = {name: member.messages() for name, member in members.items()}
    voltages = {n: m.voltages for n, m in members.items() if m.voltages is not None}
    return found, voltages


class _Member:
    """One population of a loop: its sums from outside, its state, and what it has sent so far."""

    def __init__(
        self,
        layer: Layer,
        layers: Mapping[str, Layer],
        sent: Mapping[str, Messages],
        like: torch.Tensor,
        states: bool,
    ) -> None:
        self.layer, pop = layer, layer.pop
        self.inside = [s for s in layer.synapses if s.source in layers]
        self.spikes = isinstance(pop, ig.SPIKING_CLASSES)
        payload = (1 << (layer.arith.payload_bits - 1)) - 1
        self.bounds = [0] * pop.ports
        for s in layer.synapses:
            within = s.source in layers and isinstance(layers[s.source].pop, ig.SPIKING_CLASSES)
            largest = 1 if within else payload
            largest = largest if s.source in layers else sent[s.source].largest
            self.bounds[s.projection.port] += s.gain * largest
        self.dtypes = [layer.dtype(bound) for bound in self.bounds]
        shape = (*like.shape[:2], *pop.shape)
        self.outside = [
            self._outside(layer, layers, sent, port, like.new_zeros(shape))
            for port in range(pop.ports)
        ]
        kinds = import_torch()
        self.value = like.new_zeros(shape, dtype=kinds.float32 if self.spikes else kinds.float64)
        self.state: Any = None
        self.neurons: Any = None
        self.voltages: torch.Tensor | None = None
        if isinstance(pop, ig.IntLif):
            self.neurons = layer.neuron_arrays(like, self.bounds[0], states)
            self.voltages = self.neurons[1].unflatten(2, pop.shape) if states else None

    def _outside(self, layer, layers, sent, port: int, zeros: torch.Tensor) -> torch.Tensor:
        """Return the sums of what comes from outside, at a port, for all frames."""
        total = zeros.to(self.dtypes[port])
        for s in layer.synapses:
            if s.projection.port == port and s.source not in layers:
                total = total + s.apply(sent[s.source], self.dtypes[port])
        return total

    def _sum(self, t: int, port: int, values: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the sums of frame t at a port, (1, B, *shape)."""
        total = self.outside[port][t : t + 1]
        for s in self.inside:
            lag = s.projection.lag
            if s.projection.port == port and t >= lag:
                seen = values[s.source][t - lag : t - lag + 1]
                total = total + s.whole(seen.to(self.dtypes[port]))
        return total

    def advance(self, t: int, values: Mapping[str, torch.Tensor]) -> None:
        """Compute frame t."""
        layer, pop = self.layer, self.layer.pop
        sums = [self._sum(t, port, values) for port in range(pop.ports)]
        if isinstance(pop, ig.IntLif):
            spikes, voltages, *rest = self.neurons
            part = (spikes[t : t + 1], voltages[t : t + 1], *rest)
            a = sums[0].to(voltages.dtype).flatten(2)
            extremes, self.state = layer.steps(a, part, self.state)
            layer.refuse_extremes(extremes)
            self.value[t] = spikes[t].unflatten(1, pop.shape)
        elif isinstance(pop, ig.IntReadout):
            found, self.state = layer.leaky_readout(sums[0], self.state)
            self.value[t] = found[0]
        else:
            self.value[t] = layer.neurons(sums, self.bounds)[0]

    def messages(self) -> Messages:
        """Return all that was sent."""
        return Messages(self.value, 1 if self.spikes else largest_of(self.value))
