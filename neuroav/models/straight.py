"""The integer graph in torch, to be trained: deployed integers forward, straight-through backward.

Forward it computes the messages of ``neuroav.sim.reference``, bit for bit: whole numbers in
floating point, float32 only where every sum is below 2^24. Backward, rounding, truncation and
saturation pass gradients unchanged (Bengio et al., arXiv 1308.3432), clipped weights get none, and
spikes have Norse's surrogate. Registers are not checked: what overflows here is an error in every
executor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import frexp
from typing import Any

import numpy as np
import torch
from norse.torch.functional.threshold import threshold as norse_threshold
from torch.nn import functional

from neuroav import integer as ig
from neuroav.errors import UnsupportedNode
from neuroav.fixed import Arithmetic

_EXACT = 1 << 24  # whole numbers below this are float32
_WIDE = (ig.IntProduct, ig.IntTimeSum)


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, real: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
        return whole.to(real.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        return gradients[0], None


def rounded(real: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Return exactly ``whole`` (of one shape with ``real``) with the gradient of ``real``."""
    return _StraightThrough.apply(real, whole)


@dataclass(frozen=True)
class Surrogate:
    """The gradient of a layer's spikes: Norse's threshold ``method`` of width ``alpha`` on the real
    distance to threshold; detach_reset, detach_state: as for ``layers.LifParameters``."""

    method: str = "tanh"
    alpha: float = 2.0
    detach_reset: bool = False
    detach_state: bool = False


@dataclass(frozen=True, eq=False)
class Learned:
    """What training sees of a population.

    weights: by projection, integers shaped as stored, with gradients; None for synapses that are
    fixed. bias: integers that broadcast to the shape, as the register adds them; None where the
    population's own are fixed. span: real threshold above rest, or array that broadcasts to the
    shape; surrogate: of its spikes.
    """

    weights: tuple[torch.Tensor | None, ...]
    bias: torch.Tensor | None = None
    span: float | np.ndarray = 1.0
    surrogate: Surrogate = Surrogate()


def messages(
    graph: ig.IntGraph,
    learned: Mapping[str, Learned],
    inputs: Mapping[str, torch.Tensor],
    arith: Arithmetic,
) -> dict[str, torch.Tensor]:
    """Return the messages of every population, (T, B, *shape) whole numbers, with gradients.

    inputs: event counts (T, B, *shape) by input. learned: of every population with trained
    synapses and every layer of neurons. UnsupportedNode for a population it has no meaning for.
    """
    wide = any(isinstance(p, _WIDE) for p in graph.populations.values())
    fed = {n: x.double() if wide else x for n, x in inputs.items()}
    like = next(iter(fed.values()))
    sent: dict[str, torch.Tensor] = {}
    for group in graph.groups:
        if graph.loops(group):
            sent |= _loop(graph, group, learned, sent, like, arith)
            continue
        (name,) = group
        pop = graph.populations[name]
        if isinstance(pop, ig.IntInput):
            sent[name] = fed[name]
            continue
        sums = _sums(pop, learned.get(name), sent, pop.projections)
        if not pop.projections:  # neurons that their bias alone drives
            sums = [like.new_zeros(*like.shape[:2], *pop.shape)]
        sent[name] = _answer(name, pop, sums, learned.get(name), arith)
    return sent


def _sums(
    pop: ig.Population,
    learned: Learned | None,
    sent: Mapping[str, torch.Tensor],
    projections: tuple[ig.Projection, ...],
) -> list[torch.Tensor | None]:
    """Return the synaptic sums of all frames at each port, None where nothing arrives."""
    found: list[torch.Tensor | None] = [None] * pop.ports
    for number, p in enumerate(pop.projections):
        if p not in projections:
            continue
        weight = learned.weights[number] if learned else None
        part = _late(propagate(p, sent[p.source], pop.shape, weight), p.lag)
        before = found[p.port]
        found[p.port] = part if before is None else before + part
    return found


def _late(x: torch.Tensor, lag: int) -> torch.Tensor:
    """Return (T, ...) shifted by ``lag`` frames, nothing in the first ones."""
    if not lag:
        return x
    none = x.new_zeros(min(lag, len(x)), *x.shape[1:])
    return torch.cat([none, x[:-lag]]) if lag < len(x) else none


def propagate(
    p: ig.Projection, x: torch.Tensor, shape: ig.Shape, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Return sum of weight * message for every target neuron, (T, B, *shape).

    x: messages (T, B, *source shape). weight: of a convolution or dense projection, its own
    integers where None.
    """
    if isinstance(p, (ig.IntConv2d, ig.IntConvTranspose2d, ig.IntDense)):
        return _weighted(p, x, shape, weight)
    if isinstance(p, ig.IntIdentity):
        return x.reshape(*x.shape[:2], *shape) * p.weight
    if isinstance(p, ig.IntPool):
        frames = functional.avg_pool2d(
            x.flatten(0, 1), p.kernel, p.stride, p.padding, divisor_override=1
        )
        return frames.unflatten(0, x.shape[:2])
    if isinstance(p, ig.IntSpatialSum):
        return x.sum(dim=(-2, -1))
    if isinstance(p, ig.IntSpread):
        return x[..., None, None].expand(*x.shape, *p.places)
    if isinstance(p, ig.IntPlace):
        flat = x.flatten(2) * p.weight
        after = p.size - p.offset - flat.shape[2]
        return functional.pad(flat, (p.offset, after)).reshape(*x.shape[:2], *shape)
    raise UnsupportedNode(f"training has no meaning for {type(p).__name__} from {p.source}")


def _weighted(
    p: ig.IntConv2d | ig.IntConvTranspose2d | ig.IntDense,
    x: torch.Tensor,
    shape: ig.Shape,
    weight: torch.Tensor | None,
) -> torch.Tensor:
    if weight is None:
        weight = torch.from_numpy(p.weight).to(x)
    with torch.no_grad():
        most = weight.abs().flatten(1).sum(1).max() * x.abs().max() if x.numel() else 0
        if isinstance(p, ig.IntConvTranspose2d):
            most = most * len(weight)
    dtype = torch.float64 if x.dtype == torch.float64 or most >= _EXACT else torch.float32
    x, weight = x.to(dtype), weight.to(dtype)
    if isinstance(p, ig.IntDense):
        return functional.linear(x.flatten(2), weight).reshape(*x.shape[:2], *shape)
    frames = x.flatten(0, 1)
    if isinstance(p, ig.IntConv2d):
        found = functional.conv2d(frames, weight, None, p.stride, p.padding, p.dilation, p.groups)
    else:
        found = functional.conv_transpose2d(
            frames, weight, None, p.stride, p.padding, p.output_padding, p.groups, p.dilation
        )
    return found.unflatten(0, x.shape[:2])


def _answer(
    name: str,
    pop: ig.Population,
    sums: list[torch.Tensor | None],
    learned: Learned | None,
    arith: Arithmetic,
) -> torch.Tensor:
    """Return the messages of all frames for the synaptic sums of all frames."""
    parts = [s for s in sums if s is not None]
    if isinstance(pop, (ig.IntLif, ig.IntReadout)):
        neurons = Neurons(pop, learned, parts[0], arith)
        return torch.stack([neurons.step(a) for a in parts[0]])
    handler = _HANDLERS.get(type(pop))
    if handler is None:
        raise UnsupportedNode(f"{name}: {type(pop).__name__} cannot be trained")
    return handler(pop, *parts)


def _loop(
    graph: ig.IntGraph,
    group: tuple[str, ...],
    learned: Mapping[str, Learned],
    sent: Mapping[str, torch.Tensor],
    like: torch.Tensor,
    arith: Arithmetic,
) -> dict[str, torch.Tensor]:
    """Return the messages of populations that feed each other, run frame by frame.

    like: an input, (T, B, ...).
    """
    inside, outside, neurons = {}, {}, {}
    steps, batch = like.shape[:2]
    for name in group:
        pop = graph.populations[name]
        inner = tuple(p for p in pop.projections if p.source in group)
        outer = tuple(p for p in pop.projections if p.source not in group)
        inside[name] = inner
        (outside[name],) = _sums(pop, learned.get(name), sent, outer)
        if isinstance(pop, ig.IntLif):
            start = like.new_zeros(1, batch, *pop.shape)
            neurons[name] = Neurons(pop, learned.get(name), start, arith)
    frames: dict[str, list[torch.Tensor]] = {name: [] for name in group}
    for t in range(steps):
        for name in group:
            pop, whole = graph.populations[name], outside[name]
            arriving = {
                p.source: frames[p.source][t - p.lag][None] for p in inside[name] if t >= p.lag
            }
            now = tuple(p for p in inside[name] if t >= p.lag)
            a = _fed_back(pop, learned.get(name), arriving, now)
            a = like.new_zeros(1, batch, *pop.shape) if a is None else a
            a = a if whole is None else a + whole[t : t + 1]
            answer = neurons[name].step(a[0]) if name in neurons else _memoryless(name, pop, a)
            frames[name].append(answer)
    return {name: torch.stack(found) for name, found in frames.items()}


def _fed_back(
    pop: ig.Population,
    learned: Learned | None,
    arriving: Mapping[str, torch.Tensor],
    projections: tuple[ig.Projection, ...],
) -> torch.Tensor | None:
    """Return the sum of one frame's messages inside a loop, (1, B, *shape); lags are counted."""
    found = None
    for number, p in enumerate(pop.projections):
        if p in projections:
            weight = learned.weights[number] if learned else None
            part = propagate(p, arriving[p.source], pop.shape, weight)
            found = part if found is None else found + part
    return found


def _memoryless(name: str, pop: ig.Population, a: torch.Tensor) -> torch.Tensor:
    if not isinstance(pop, (ig.IntOr, ig.IntSum)):
        raise UnsupportedNode(f"{name}: {type(pop).__name__} cannot be trained inside a loop")
    return _HANDLERS[type(pop)](pop, a)[0]


class Neurons:
    """``fixed.lif_step`` and the readout's step on tensors (B, *shape); keeps its state."""

    def __init__(
        self,
        pop: ig.IntLif | ig.IntReadout,
        learned: Learned | None,
        like: torch.Tensor,
        arith: Arithmetic,
    ) -> None:
        one = 1 << arith.decay_bits
        none = pop.decay_u is None
        self.kept_u = 0.0 if none else _kept(np.asarray(pop.decay_u) + 1, one)
        self.kept_v = _kept(pop.decay_v, one)
        spiking = isinstance(pop, ig.IntLif)
        exact = _halves(self.kept_u) and _halves(self.kept_v)
        self.dtype = torch.float32 if exact and like.dtype == torch.float32 else torch.float64
        self.shift = 1 << (arith.input_shift if spiking else pop.input_shift)  # type: ignore[union-attr]
        self.given = like.dtype
        self.u = self.v = torch.zeros_like(like[0], dtype=self.dtype)
        own = _bias(pop) if learned is None or learned.bias is None else learned.bias
        self.bias = own.to(self.v)
        self.learned = learned or Learned(())
        self.level = self._tensor(pop.threshold * self.shift) if spiking else None  # type: ignore[union-attr]
        self.subtract = spiking and pop.reset == "subtract"  # type: ignore[union-attr]
        if self.level is not None:
            span = self._tensor(np.asarray(self.learned.span, np.float64))
            self.real = span / self.level.clamp(min=1)

    def _tensor(self, value: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.asarray(value)).to(self.v)

    def step(self, a: torch.Tensor) -> torch.Tensor:
        """Return the messages of one frame for its synaptic sums, both (B, *shape)."""
        surrogate = self.learned.surrogate
        if surrogate.detach_state:
            self.u, self.v = self.u.detach(), self.v.detach()
        self.u = self._leaked(self.u, self.kept_u) + a.to(self.dtype) * self.shift
        if self.level is None:  # a readout's bias is part of the current it keeps
            self.u = self.u + self.bias
            self.v = self._leaked(self.v, self.kept_v) + self.u
            return self.v
        self.v = self._leaked(self.v, self.kept_v) + self.u + self.bias
        distance = (self.v - self.level) * self.real
        spike = norse_threshold(distance, surrogate.method, surrogate.alpha)
        reset = spike.detach() if surrogate.detach_reset else spike
        self.v = self.v - reset * self.level if self.subtract else self.v * (1 - reset)
        return spike.to(self.given)

    def _leaked(self, x: torch.Tensor, kept: float | np.ndarray) -> torch.Tensor:
        if not np.any(kept):
            return torch.zeros_like(x)
        if np.all(np.asarray(kept) == 1.0):
            return x
        leaked = x * (kept if isinstance(kept, float) else self._tensor(kept))
        return rounded(leaked, leaked.detach().trunc())


def _kept(decay: int | np.ndarray, one: int) -> float | np.ndarray:
    """Return the share of a state that stays; a float where all neurons have one."""
    kept = 1 - np.asarray(decay, np.float64) / one
    return float(kept) if kept.ndim == 0 else kept


def _halves(kept: float | np.ndarray) -> bool:
    """Whether float32 holds the product with any state: 0 or a power of two."""
    return all(k == 0 or frexp(k)[0] == 0.5 for k in np.unique(kept))


def _bias(pop: ig.IntLif | ig.IntReadout) -> torch.Tensor:
    if isinstance(pop, ig.IntReadout):
        return torch.from_numpy(pop.bias)
    return torch.from_numpy(np.asarray(pop.bias_mantissa) << pop.bias_exponent)


# --- populations without state over frames: sums (T, B, *shape) at each port -> messages ---------
def _or(pop: ig.IntOr, a: torch.Tensor) -> torch.Tensor:
    # where several spikes meet, each has its share of the gradient
    return rounded(a / a.detach().clamp(min=1), (a > 0).detach())


def _sum(pop: ig.IntSum, a: torch.Tensor) -> torch.Tensor:
    return a


def _and(pop: ig.IntAnd, a: torch.Tensor) -> torch.Tensor:
    return rounded((a - 1).clamp(0, 1), (a > 1).detach())


def _product(pop: ig.IntProduct, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return _shifted(a * b, pop.shift)


def _time_sum(pop: ig.IntTimeSum, a: torch.Tensor) -> torch.Tensor:
    weights = torch.from_numpy(pop.step_weights(len(a))).to(a)
    total = (weights.reshape(-1, *[1] * (a.ndim - 1)) * a).sum(0, keepdim=True)
    return _shifted(total, pop.shift).expand_as(a)


def _shifted(x: torch.Tensor, shift: int) -> torch.Tensor:
    share = x / (1 << shift)
    return rounded(share, share.detach().floor()) if shift else x


def _spatial(pop: ig.IntSpatialAttention, *ports: torch.Tensor) -> torch.Tensor:
    q, k, v = (x.flatten(3).unflatten(2, (pop.heads, -1)) for x in ports)
    state = _capped(torch.einsum("tbhim,tbhjm->tbhij", k, v), pop.cap)
    found = _capped(torch.einsum("tbhin,tbhij->tbhjn", q, state), pop.cap)
    return found.reshape(ports[0].shape)


def _temporal(pop: ig.IntTemporalAttention, *ports: torch.Tensor) -> torch.Tensor:
    q, k, v = (x.flatten(3).unflatten(2, (pop.heads, -1)) for x in ports)
    state = _capped(torch.einsum("tbhin,tbhjn->bhijn", k, v), pop.cap)
    found = _capped(torch.einsum("tbhin,bhijn->bhtjn", q, state), pop.cap)
    steps, channels = ports[0].shape[0], ports[0].shape[2]
    if pop.scrambled:
        slots = found.flatten(1, 3).unflatten(1, (steps, channels))
    else:
        slots = found.transpose(1, 2).flatten(2, 3)
    return slots.transpose(0, 1).reshape(ports[0].shape)


def _capped(counts: torch.Tensor, cap: int) -> torch.Tensor:
    return rounded(counts, counts.detach().clamp(max=cap)) if cap else counts


_HANDLERS: dict[type, Callable[..., torch.Tensor]] = {
    ig.IntOr: _or,
    ig.IntSum: _sum,
    ig.IntAnd: _and,
    ig.IntProduct: _product,
    ig.IntTimeSum: _time_sum,
    ig.IntSpatialAttention: _spatial,
    ig.IntTemporalAttention: _temporal,
}
