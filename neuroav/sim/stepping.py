"""The integer network one frame at a time, all states kept: for input that has no end.

Both classes give what their executor gives for the same frames since the last reset: ``reference``
or ``fast``. Kept are membranes, currents, accumulators, and of what is read late the last few
frames; nothing grows with time. A population that answers a sample only when it is complete cannot
be stepped (``require_causal``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from neuroav import integer as ig
from neuroav.errors import ConfigError, UnsupportedNode
from neuroav.fixed import Arithmetic
from neuroav.sim import reference

if TYPE_CHECKING:
    import torch

    from neuroav.sim.currents import Messages
    from neuroav.sim.populations import Layer

Frame = Mapping[str, np.ndarray]  # by input, whole numbers of the input's shape
_ANY_SUM = 1 << 40  # beyond every register: states are float64, and every range is looked at


class Steps(Protocol):
    """What both ways of stepping offer."""

    def reset(self) -> None: ...

    def step(self, frame: Frame, wanted: tuple[str, ...]) -> dict[str, np.ndarray]: ...

    @property
    def state_bytes(self) -> int: ...


def non_causal(graph: ig.IntGraph) -> list[str]:
    """Return the populations that answer a sample only when it is complete, in order."""
    return [n for n in graph.order if graph.populations[n].holds]


def require_causal(graph: ig.IntGraph) -> None:
    """Raise UnsupportedNode naming the populations that cannot be stepped."""
    if found := non_causal(graph):
        kinds = ", ".join(f"{n} ({type(graph.populations[n]).__name__})" for n in found[:4])
        raise UnsupportedNode(
            f"{kinds}: answers a sample only when its last frame is there, so the network cannot "
            "be run frame by frame; run it window by window (--mode window)"
        )


def stepping(backend: str, graph: ig.IntGraph, arith: Arithmetic) -> Steps:
    """Return a network at rest, run by ``reference`` or ``fast``."""
    require_causal(graph)
    kinds: dict[str, Any] = {"reference": ReferenceSteps, "fast": FastSteps}
    if backend not in kinds:
        raise ConfigError(f"backend is {backend!r}; allowed for steps are {' and '.join(kinds)}")
    return kinds[backend](graph, arith)


class _Recent:
    """The last ``depth`` values of a population, read by the number of their frame."""

    def __init__(self, depth: int) -> None:
        self._values: list[Any] = [None] * depth

    def __getitem__(self, t: int) -> Any:
        return self._values[t % len(self._values)]

    def put(self, t: int, value: Any) -> None:
        self._values[t % len(self._values)] = value

    @property
    def nbytes(self) -> int:
        kept = (getattr(v, "value", v) for v in self._values if v is not None)
        return sum(v.nbytes for v in kept)


def _recent(graph: ig.IntGraph) -> dict[str, _Recent]:
    """Return room for what every population's readers still need of it."""
    depth = dict.fromkeys(graph.order, 1)
    for pop in graph.populations.values():
        for p in pop.projections:
            depth[p.source] = max(depth[p.source], p.lag + 1)
    return {name: _Recent(d) for name, d in depth.items()}


def _in_order(graph: ig.IntGraph) -> list[str]:
    return [name for group in graph.groups for name in group]


class ReferenceSteps:
    """Plain int64 NumPy: the reference's own equations, frame after frame."""

    def __init__(self, graph: ig.IntGraph, arith: Arithmetic) -> None:
        self._graph, self._arith, self._order = graph, arith, _in_order(graph)
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame is the first of a sample."""
        self._t = 0
        self._sent = _recent(self._graph)
        pops = self._graph.populations
        self._states = {name: reference.initial_state(pop) for name, pop in pops.items()}

    def step(self, frame: Frame, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Return what the ``wanted`` populations send, int32 of their shapes. OutOfRange."""
        t = self._t
        for name in self._order:
            pop = self._graph.populations[name]
            if isinstance(pop, ig.IntInput):
                value = frame[name].astype(np.int64)
            else:
                sums = [reference.port_sum(pop, i, self._sent, t) for i in range(pop.ports)]  # type: ignore[arg-type]
                state, value = reference.frame(name, pop, self._states[name], sums, self._arith)
                self._states[name] = state
            self._sent[name].put(t, value)
        self._t = t + 1
        return {name: self._sent[name][t].astype(np.int32) for name in wanted}

    @property
    def state_bytes(self) -> int:
        """Bytes kept from one frame to the next."""
        states = sum(x.nbytes for state in self._states.values() for x in state)
        return states + sum(r.nbytes for r in self._sent.values())


class FastSteps:
    """The batched executor's layers on batches of one sample and one frame.

    Its proofs of exactness are for a sample's length; here states are float64 and every register's
    range is looked at in every frame, so they hold for any number of frames.
    """

    def __init__(self, graph: ig.IntGraph, arith: Arithmetic) -> None:
        from neuroav.sim.populations import Layer
        from neuroav.sim.real import import_torch

        self._torch = import_torch()
        self._graph, self._order = graph, _in_order(graph)
        names = [n for n in graph.order if n not in graph.inputs]
        self._layers = {n: Layer(graph, n, arith, "cpu") for n in names}
        self._like = self._torch.zeros((1, 1, 0))
        self._neurons = {
            n: layer.neuron_arrays(self._like, _ANY_SUM, False)
            for n, layer in self._layers.items()
            if isinstance(layer.pop, ig.IntLif)
        }
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next frame is the first of a sample."""
        self._t = 0
        self._sent = _recent(self._graph)
        self._states: dict[str, Any] = {}

    def step(self, frame: Frame, wanted: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Return what the ``wanted`` populations send, int32 of their shapes. OutOfRange."""
        from neuroav.sim.currents import Messages

        t, torch = self._t, self._torch
        with torch.inference_mode():
            for name in self._order:
                if name in frame:
                    value = torch.from_numpy(frame[name].astype(np.float32))[None, None]
                    sent = Messages(value, int(frame[name].max(initial=0)))
                else:
                    sent = self._send(name, self._layers[name], t)
                self._sent[name].put(t, sent)
            self._t = t + 1
            return {n: self._sent[n][t].value[0, 0].to(torch.int32).numpy() for n in wanted}

    def _send(self, name: str, layer: Layer, t: int) -> Messages:
        """Return what a population sends in frame t, (1, 1, *shape), and advance its state."""
        from neuroav.sim.currents import Messages
        from neuroav.sim.populations import largest_of

        pop, (sums, bounds) = layer.pop, self._sums(layer, t)
        if isinstance(pop, ig.IntLif):
            neurons = self._neurons[name]
            a = sums[0].to(neurons[1].dtype).flatten(2)
            extremes, self._states[name] = layer.steps(a, neurons, self._states.get(name))
            layer.refuse_extremes(extremes)
            return Messages(neurons[0].clone().unflatten(2, pop.shape), 1)
        if isinstance(pop, ig.IntReadout) and pop.leaky:
            value, self._states[name] = layer.leaky_readout(sums[0], self._states.get(name))
        elif isinstance(pop, ig.IntReadout):
            # what it holds already is one more addend; no bound is known, so the range is looked at
            held = self._states.get(name, 0)
            value = layer.neurons([sums[0].double() + held], [_ANY_SUM])
            self._states[name] = value
        else:
            value = layer.neurons(sums, bounds)
        spiking = isinstance(pop, ig.SPIKING_CLASSES)
        return Messages(value, 1 if spiking else largest_of(value))

    def _sums(self, layer: Layer, t: int) -> tuple[list[torch.Tensor], list[int]]:
        """Return the synaptic sums at every port, (1, 1, *shape), and bounds of them."""
        pop = layer.pop
        ready = [s for s in layer.synapses if t >= s.projection.lag]
        bounds = [0] * pop.ports
        for s in ready:
            p = s.projection
            bounds[p.port] += s.gain * self._sent[p.source][t - p.lag].largest
        sums = [self._like.new_zeros((1, 1, *pop.shape), dtype=layer.dtype(b)) for b in bounds]
        for s in ready:
            port, lag = s.projection.port, s.projection.lag
            messages = self._sent[s.projection.source][t - lag]
            dtype = sums[port].dtype
            # ``apply`` would move a late projection's sums to frames that are not there
            part = s.whole(messages.value.to(dtype)) if lag else s.apply(messages, dtype)
            sums[port] = sums[port] + part
        return sums, bounds

    @property
    def state_bytes(self) -> int:
        """Bytes kept from one frame to the next."""
        kept = [x for s in self._states.values() for x in (s if isinstance(s, tuple) else (s,))]
        return sum(x.nbytes for x in kept) + sum(r.nbytes for r in self._sent.values())
