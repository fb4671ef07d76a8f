"""Neurons of the batched executor: every population over all steps of a batch.

States are whole numbers in floating point. A bound from the weights and the largest message proves
each exact, or the layer is refused; ranges that the bound proves safe are not looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from math import frexp
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroav import integer as ig
from neuroav.errors import OutOfRange
from neuroav.fixed import Arithmetic
from neuroav.sim.attentions import attention
from neuroav.sim.currents import Messages, Synapses, float32_is_exact, import_loops
from neuroav.sim.real import import_torch

if TYPE_CHECKING:
    import torch


class Layer:
    """One population: its synapses as float kernels and its neuron update over all steps."""

    def __init__(self, graph: ig.IntGraph, name: str, arith: Arithmetic, device: str) -> None:
        self._float32_is_exact = float32_is_exact()
        self.name, self.pop, self.arith = name, graph.populations[name], arith
        self.synapses = [
            Synapses(p, graph.populations[p.source].shape, self.pop.shape, device)
            for p in self.pop.projections
        ]
        self._constants: dict[torch.dtype, tuple[torch.Tensor, torch.Tensor]] = {}

    def output(
        self, sent: Mapping[str, Messages], like: torch.Tensor, states: bool
    ) -> tuple[Messages, torch.Tensor | None]:
        """Return what the population sends in all steps, and its voltages (T, B, *shape) or None.

        like: (T, B, ...) on the device to use. Raises OutOfRange.
        """
        bounds, voltage = self.bounds(sent), None
        if isinstance(self.pop, ig.IntLif):
            value, voltage = self._lif(sent, bounds[0], like, states)
        else:
            sums = [self.current(sent, bound, port) for port, bound in enumerate(bounds)]
            value = self.neurons(sums, bounds)
        spiking = isinstance(self.pop, ig.SPIKING_CLASSES)
        return Messages(value, 1 if spiking else largest_of(value)), voltage

    def bounds(self, sent: Mapping[str, Messages]) -> list[int]:
        """Return the largest possible |synaptic sum| at each port, from each source's messages."""
        found = [0] * self.pop.ports
        for s in self.synapses:
            found[s.projection.port] += s.gain * sent[s.source].largest
        return found

    def current(self, sent: Mapping[str, Messages], bound: int, port: int = 0) -> torch.Tensor:
        """Return the synaptic sum of every step at a port, (T, B, *shape) float32 or float64."""
        dtype = self.dtype(bound)
        mine = [s for s in self.synapses if s.projection.port == port]
        parts = [s.apply(sent[s.source], dtype) for s in mine]
        return sum(parts[1:], parts[0])

    def dtype(self, bound: int) -> torch.dtype:
        """Return a dtype that holds every sum up to ``bound``; OutOfRange where none does."""
        if bound >= 1 << 53:
            raise OutOfRange(f"{self.name}: synaptic sums up to {bound} cannot be held exactly")
        exact = bound < 1 << 24 and self._float32_is_exact
        return import_torch().float32 if exact else import_torch().float64

    def neurons(self, sums: list[torch.Tensor], bounds: list[int]) -> torch.Tensor:
        """Return the output of all steps for the synaptic sums at the ports, not of leaky ones."""
        a, bound = sums[0], bounds[0]
        if isinstance(self.pop, ig.ATTENTION_CLASSES):
            return attention(self.pop, *sums)
        payload = (1 << (self.arith.payload_bits - 1)) - 1
        if isinstance(self.pop, ig.IntAnd):
            self._check(a, bound, self.arith.sum_max, "the synaptic sum")
            return (a > 1).to(import_torch().float32)
        if isinstance(self.pop, ig.IntWinner):
            self._check(a, bound, payload, "the synaptic sum")
            return _first_largest(a)
        if isinstance(self.pop, ig.IntProduct):
            return self._product(sums, bounds, payload)
        if isinstance(self.pop, ig.IntTimeSum):
            return self._time_sum(a, bound, payload)
        if isinstance(self.pop, ig.IntOr):
            self._check(a, bound, self.arith.sum_max, "the synaptic sum")
            return (a > 0).to(import_torch().float32)
        if isinstance(self.pop, ig.IntSum):
            return self._check(a, bound, payload, "the graded message")
        assert isinstance(self.pop, ig.IntReadout)
        if self.pop.leaky:
            return self.leaky_readout(a, None)[0]
        bias = import_torch().from_numpy(self.pop.bias.astype(np.float64)).to(a.device)
        v = (a.to(bias.dtype) + bias).cumsum(0)
        bound = len(a) * (bound + int(np.abs(self.pop.bias).max(initial=0)))
        return self._check(v, bound, payload, "the readout accumulator")

    def leaky_readout(self, a: torch.Tensor, state):
        """Return what leaky accumulators hold at every step, (T, B, *shape), and their state.

        a: synaptic sums; float64 comes out. state: (u, v) as returned, None before the first frame.
        """
        torch, pop = import_torch(), self.pop
        assert isinstance(pop, ig.IntReadout)
        one, limit = 1 << self.arith.decay_bits, (1 << (self.arith.payload_bits - 1)) - 1
        keep_u = 0.0 if pop.decay_u is None else (one - pop.decay_u - 1) / one
        keep_v, found = (one - pop.decay_v) / one, a.new_empty(a.shape, dtype=torch.float64)
        bias = torch.from_numpy(pop.bias.astype(np.float64)).to(a.device)
        u, v = state or (torch.zeros_like(found[0]), torch.zeros_like(found[0]))
        for t, current in enumerate(a.double()):
            u = (u * keep_u).trunc() + current * (1 << pop.input_shift) + bias
            self._check(u, np.inf, limit, "the readout's current")
            v = (v * keep_v).trunc() + u
            found[t] = self._check(v, np.inf, limit, "the readout accumulator")
        return found, (u, v)

    def _product(self, sums: list[torch.Tensor], bounds: list[int], payload: int) -> torch.Tensor:
        """Return the messages of ``IntProduct``; float64 unless the bound proves float32 exact.

        A product that float64 rounds is beyond 2^53, so it is refused all the same.
        """
        assert isinstance(self.pop, ig.IntProduct)
        most = (1 << ig.PRODUCT_BITS) - 1
        for factor, largest in zip(sums, bounds, strict=True):
            self._check(factor, largest, most, "the synaptic sum")
        a, b = sums
        bound = bounds[0] * bounds[1]
        product = a.double() * b.double() if bound >= 1 << 24 else a * b
        self._check(product, bound, most if self.pop.shift else payload, "the product")
        message, bound = _shifted(product, self.pop.shift), ig.shifted(bound, self.pop.shift)
        return self._check(message, bound, payload, "the product's message")

    def _time_sum(self, a: torch.Tensor, bound: int, payload: int) -> torch.Tensor:
        """Return the messages of ``IntTimeSum``, added in float64."""
        assert isinstance(self.pop, ig.IntTimeSum)
        weights = self.pop.step_weights(len(a))
        bound *= int(np.abs(weights).sum())
        if bound >= 1 << 53:
            raise OutOfRange(f"{self.name}: counts up to {bound} cannot be held exactly")
        torch = import_torch()
        if self.pop.weights:
            along = torch.from_numpy(weights).to(a.device).double().reshape(-1, *[1] * (a.ndim - 1))
            total = (a * along).sum(0, keepdim=True)
        else:
            total = a.sum(0, keepdim=True, dtype=torch.float64)
        self._check(total, bound, payload, "the count over a sample")
        message = _shifted(total, self.pop.shift)
        narrow = ig.shifted(bound, self.pop.shift) < 1 << 24
        return (message.float() if narrow else message).expand(a.shape)

    def _check(self, x: torch.Tensor, bound: float, limit: int, what: str) -> torch.Tensor:
        """Return x; OutOfRange outside -limit..limit (looked at only where bound allows that)."""
        if bound <= limit:
            return x
        low, high = x.aminmax()
        self._refuse(low, high, limit, what)
        return x

    def _refuse(self, lowest: Any, highest: Any, limit: int, what: str) -> None:
        """Raise OutOfRange unless both ends lie inside -limit..limit."""
        low, high = int(lowest), int(highest)
        if low < -limit or high > limit:
            raise OutOfRange(
                f"{self.name}: {what} reached {low if low < -limit else high}, the register holds "
                f"-{limit}..{limit}; use fewer weight bits or smaller input counts for this layer"
            )

    def _lif(self, sent: Mapping[str, Messages], bound: int, like: torch.Tensor, states: bool):
        """Integer LIF over all steps: ``fixed.lif_step`` on whole numbers in floating point."""
        neurons = self.neuron_arrays(like, bound, states)
        spikes, voltages = (x.unflatten(2, self.pop.shape) for x in neurons[:2])
        if not self.synapses:
            silence = like.new_zeros((*like.shape[:2], self.pop.neurons), dtype=neurons[3].dtype)
            extremes, _ = self.steps(silence, neurons, None)
        elif self.plain:
            extremes = self._advance(sent, bound, neurons)
        else:
            a = self.current(sent, bound).to(neurons[1].dtype).contiguous().flatten(2)
            extremes, _ = self.steps(a, neurons, None)
        self.refuse_extremes(extremes)
        return spikes, voltages if states else None

    @cached_property
    def plain(self) -> bool:
        """Whether all neurons have the same decays and reset to 0, as a compiled loop needs."""
        pop = self.pop
        assert isinstance(pop, ig.IntLif)
        return pop.reset == "zero" and np.ndim(pop.decay_u) == 0 and np.ndim(pop.decay_v) == 0

    def neuron_arrays(self, like: torch.Tensor, bound: int, states: bool) -> tuple:
        """Return what ``lif_frames`` takes after the sums, for sums of at most ``bound``.

        like: (T, B, ...). Spikes and voltages are (T, B, neurons), the voltages empty unless
        ``states``; their dtype is the state's.
        """
        torch = import_torch()
        assert isinstance(self.pop, ig.IntLif)
        keep_u, keep_v = kept(self.pop, self.arith)
        bound_u, bound_v = self._state_bounds(bound, len(like))
        simple = self.plain and all(k == 0 or frexp(k)[0] == 0.5 for k in (keep_u, keep_v))
        dtype = torch.float32 if simple and bound_v < 1 << 24 else torch.float64
        shape, device = (*like.shape[:2], self.pop.neurons), like.device
        spikes = torch.empty(shape, dtype=torch.float32, device=device)
        none = (0, 0, self.pop.neurons)
        voltages = torch.empty(shape if states else none, dtype=dtype, device=device)
        limit_u, limit_v = self._limits
        return (
            spikes,
            voltages,
            *self._bias_and_threshold(dtype, device),
            keep_u,
            keep_v,
            1 << self.arith.input_shift,
            states,
            bound_u > limit_u or bound_v > limit_v,
        )

    @property
    def _limits(self) -> tuple[int, int]:
        return tuple(  # type: ignore[return-value]
            (1 << (bits - 1)) - 1 for bits in (self.arith.current_bits, self.arith.voltage_bits)
        )

    def refuse_extremes(self, extremes) -> None:
        """Raise OutOfRange unless currents and voltages lie in their registers."""
        limit_u, limit_v = self._limits
        self._refuse(extremes[0], extremes[1], limit_u, "the synaptic current")
        self._refuse(extremes[2], extremes[3], limit_v, "the membrane voltage")

    def _advance(self, sent: Mapping[str, Messages], bound: int, neurons):
        """Fill the neurons' spikes; events of a single projection are added as they go."""
        dtype = neurons[1].dtype
        self.dtype(bound)  # refuses what not even float64 holds; a state is as wide as the sums
        first = self.synapses[0] if len(self.synapses) == 1 else None
        if (
            first
            and first.events
            and not first.projection.lag
            and first.events.pay(sent[first.source].density)
        ):
            messages = sent[first.source].value.to(dtype)
            return lif_of_events(first.events.arguments(messages), neurons)
        a = self.current(sent, bound).to(dtype).contiguous().flatten(2)
        return (lif_compiled if a.device.type == "cpu" else lif_steps)(a, *neurons)

    def _state_bounds(self, bound: int, steps: int) -> tuple[float, float]:
        """Return the largest |u| and |v| that sums of at most ``bound`` give in so many steps."""
        assert isinstance(self.pop, ig.IntLif)
        keep_u, keep_v = (float(np.max(k)) for k in kept(self.pop, self.arith))
        shift = 1 << self.arith.input_shift
        bound_u = _geometric(bound * shift, keep_u, steps)
        taken = int(np.max(self.pop.threshold, initial=0)) * shift  # by a reset that subtracts
        taken = taken if self.pop.reset == "subtract" else 0
        return bound_u, _geometric(bound_u + self._largest_bias + taken, keep_v, steps)

    def steps(self, a: torch.Tensor, neurons, state):
        """Advance leaky neurons of any kind; as ``lif_steps``, with their state in and out."""
        assert isinstance(self.pop, ig.IntLif)
        torch, keeps = import_torch(), []
        for keep in kept(self.pop, self.arith):
            wide = np.broadcast_to(keep, self.pop.shape).reshape(-1)
            whole = torch.from_numpy(wide.astype(np.float64)).to(a.device, a.dtype)
            keeps.append(whole if isinstance(keep, np.ndarray) else keep)
        spikes, voltages, bias, threshold, _, _, gain, states, look = neurons
        arrays = (a, spikes, voltages, bias, threshold)
        subtract = self.pop.reset == "subtract"
        numbers = (keeps[0], keeps[1], gain, states, look)
        return lif_frames(*arrays, *numbers, state=state, subtract=subtract)

    @cached_property
    def _largest_bias(self) -> int:
        assert isinstance(self.pop, ig.IntLif)
        return int(np.abs(self.pop.bias_mantissa << self.pop.bias_exponent).max(initial=0))

    def _bias_and_threshold(
        self, dtype: torch.dtype, device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the bias and the threshold of every neuron, in units of the voltage, (M,) each."""
        if dtype not in self._constants:
            pop = self.pop
            assert isinstance(pop, ig.IntLif)
            both = (pop.bias_mantissa << pop.bias_exponent, pop.threshold << self.arith.input_shift)
            wide = (np.broadcast_to(x, pop.shape).astype(np.float64).reshape(-1) for x in both)
            bias, threshold = (import_torch().from_numpy(x).to(device, dtype) for x in wide)
            self._constants[dtype] = bias, threshold
        return self._constants[dtype]


def largest_of(value: torch.Tensor) -> int:
    """Return the largest magnitude of whole numbers, 0 of none."""
    return max(abs(int(v)) for v in value.aminmax()) if value.numel() else 0


def lif_of_events(events, neurons):
    """As ``lif_steps`` from sums of events, formed frame by frame; on a CPU."""
    spikes, voltages, bias, threshold, keep_u, keep_v, gain, states, look = neurons
    real = events[0].dtype.type
    arrays = (x.numpy() for x in (spikes, voltages, bias, threshold))
    numbers = (real(keep_u), real(keep_v), real(gain), states, look)
    return import_loops().lif_of_events(*events, *arrays, *numbers)


def lif_compiled(a, spikes, voltages, bias, threshold, keep_u, keep_v, gain, states, look):
    """As ``lif_steps``, by one compiled loop on a CPU."""
    arrays = (x.numpy() for x in (a, spikes, voltages, bias, threshold))
    real = np.float32 if a.dtype == import_torch().float32 else np.float64
    return import_loops().lif(*arrays, real(keep_u), real(keep_v), real(gain), states, look)


def kept(pop: ig.IntLif, arith: Arithmetic) -> tuple[float | np.ndarray, float | np.ndarray]:
    """Return what a step leaves of u and of v, one share or one per neuron."""
    one = 1 << arith.decay_bits
    found = ((one - pop.decay_u - 1) / one, (one - pop.decay_v) / one)
    return tuple(float(k) if np.ndim(k) == 0 else k for k in found)  # type: ignore[return-value]


def lif_steps(*arguments):
    """As ``lif_frames`` from zeros, on any device; returns the extremes alone."""
    return lif_frames(*arguments)[0]


def lif_frames(
    a,
    spikes,
    voltages,
    bias,
    threshold,
    keep_u,
    keep_v,
    gain,
    states,
    look,
    state=None,
    subtract=False,
):
    """Fill spikes (T, B, M), and voltages where ``states``, from the synaptic sums a (T, B, M).

    bias, threshold: (M,); keep_u, keep_v: a number or (M,). Whole numbers on any device. state: (u,
    v) before the first step, zeros for None. Returns the smallest and largest current and voltage
    before the reset, zeros where not to ``look``; and the state after the last step.
    """
    torch = import_torch()
    u, v = state or (torch.zeros_like(a[0]), torch.zeros_like(a[0]))
    low, high = a.new_zeros(2), a.new_zeros(2)
    for t in range(len(a)):
        u = u.mul_(keep_u).trunc_().add_(a[t], alpha=gain)
        v = v.mul_(keep_v).trunc_().add_(u).add_(bias)
        if look:
            low = torch.minimum(low, torch.stack((u.min(), v.min())))
            high = torch.maximum(high, torch.stack((u.max(), v.max())))
        fired = v > threshold
        spikes[t] = fired
        if subtract:
            v.sub_(fired * threshold)
        else:
            v.masked_fill_(fired, 0)
        if states:
            voltages[t] = v
    return (low[0], high[0], low[1], high[1]), (u, v)


def _shifted(x: torch.Tensor, shift: int) -> torch.Tensor:
    """Return x >> shift of whole numbers: a power of two divides them exactly."""
    return import_torch().floor(x / (1 << shift)) if shift else x


def _first_largest(a: torch.Tensor) -> torch.Tensor:
    """Return 1 at the first largest value of every (step, sample), 0 elsewhere, float32."""
    flat = a.flatten(2)
    spikes = flat.new_zeros(flat.shape, dtype=import_torch().float32)
    return spikes.scatter_(2, flat.argmax(2, keepdim=True), 1.0).reshape(a.shape)


def _geometric(largest: float, keep: float, steps: int) -> float:
    """Return a bound on |x| after ``steps`` of x' = keep * x + y with |y| <= largest."""
    return largest * min(steps, 1 / (1 - keep) if keep < 1 else steps)
