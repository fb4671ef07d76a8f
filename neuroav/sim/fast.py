"""Batched exact integers: the reference's results for whole test sets, in torch.

Synaptic sums are floating-point products of integers. A bound computed from the weights and the
largest message proves every partial sum exact: float32 below 2^24, float64 below 2^53, else the
layer is refused. Convolutions run by direct summation on CPU (oneDNN's direct algorithm, no
Winograd or FFT), so partial sums are sums of the same integers in another order. Neuron states are
integers held in float64 (products with 12-bit decays stay below 2^53), or in float32 where the
decay is a power of two and the same bound keeps every state below 2^24. Ranges that the bound
proves safe are not checked again at run time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import frexp
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroav import integer as ig
from neuroav.deployment import Deployment
from neuroav.errors import MissingDependency, OutOfRange
from neuroav.fixed import Arithmetic
from neuroav.sim.real import from_heads, import_torch
from neuroav.sim.trace import Progress, Trace, batches
from neuroav.synapses import row_sum

if TYPE_CHECKING:
    import torch


def run(
    deployment: Deployment,
    inputs: Mapping[str, np.ndarray],
    *,
    batch: int = 64,
    memory_bytes: int | None = None,
    states: bool = False,
    progress: Progress | None = None,
) -> Iterator[Trace]:
    """Yield a Trace per batch of samples; equal to ``reference.run`` bit for bit.

    inputs: event counts (samples, steps, *shape) by input name. memory_bytes: computes fewer
    samples at a time than ``batch`` where that keeps the arrays of a batch below it; one at least.
    states: also record the membrane voltage of every IntLif. Raises OutOfRange, DataError,
    MissingDependency.
    """
    torch = import_torch()
    graph, arith = deployment.integer, deployment.profile.arithmetic
    checked = deployment.counts(inputs)
    largest = {n: int(v.max(initial=0)) for n, v in checked.items()}
    layers = {n: _layer(graph, n, arith) for n in graph.order if n not in graph.inputs}
    total = len(next(iter(checked.values())))
    if memory_bytes is not None:
        batch = max(1, min(batch, memory_bytes // sample_bytes(graph, states=states)))
    for first, part in batches(checked, batch):
        with torch.inference_mode():
            outputs, voltages = _run_batch(graph, layers, part, largest, states)
        yield Trace(first, outputs, voltages)
        if progress:
            progress(min(first + batch, total), total)


def sample_bytes(graph: ig.IntGraph, *, states: bool = False) -> int:
    """Return an upper estimate of the bytes that one sample of a batch takes while it is computed.

    Messages of all populations as float32 and int32, voltages likewise, and for the layer that
    takes most: sums of several projections in float64, and the input unrolled for its kernels.
    """
    kept = sum(p.neurons for p in graph.populations.values()) * (16 if states else 8)
    unrolled = max(
        (
            p.weight[0].size * p.groups * int(np.prod(pop.shape[1:]))
            for pop in graph.populations.values()
            for p in pop.projections
            if isinstance(p, ig.IntConv2d)
        ),
        default=0,
    )
    widest = max(p.neurons for p in graph.populations.values())
    return graph.steps * (kept + 4 * 8 * widest) + 8 * unrolled


def _run_batch(
    graph: ig.IntGraph,
    layers: dict[str, _Layer],
    part: Mapping[str, np.ndarray],
    largest: Mapping[str, int],
    states: bool,
):
    """Return outputs and voltages (B, T, *shape) int32; layer by layer, all steps at once."""
    from_numpy = import_torch().from_numpy
    values: dict[str, torch.Tensor] = {}
    top, voltages = dict(largest), {}
    for name in graph.order:
        if name in part:
            values[name] = from_numpy(np.moveaxis(part[name], 1, 0).astype(np.float32))
            continue
        layer = layers[name]
        bounds = layer.bounds(top)
        sums = [layer.current(values, bound, port) for port, bound in enumerate(bounds)]
        values[name], voltage = layer.neurons(sums, bounds, states)
        spiking = isinstance(graph.populations[name], ig.SPIKING_CLASSES)
        top[name] = 1 if spiking else max(abs(int(v)) for v in values[name].aminmax())
        if voltage is not None:
            voltages[name] = _record(voltage)
    return {n: _record(v) for n, v in values.items()}, voltages


def _record(value: torch.Tensor) -> np.ndarray:
    return np.moveaxis(value.to(import_torch().int32).numpy(), 0, 1)


def import_loops() -> Any:
    """Return the compiled neuron loops; MissingDependency without numba."""
    try:
        from neuroav.sim import _loops
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise MissingDependency(
            "numba is not installed; the fast executor needs it: pip install 'neuroav[train]' "
            "(or use --backend reference)"
        ) from None
    return _loops


def _float32_is_exact() -> bool:
    """Whether torch multiplies float32 as such here; a user may have allowed bfloat16 or TF32."""
    torch = import_torch()
    backend = torch.backends.mkldnn
    parts = (getattr(backend, name, None) for name in ("conv", "matmul"))  # torch >= 2.9 only
    switches = {getattr(part, "fp32_precision", "none") for part in parts}
    return torch.get_float32_matmul_precision() == "highest" and switches <= {"none", "ieee"}


class _Layer:
    """One population: its synapses as float kernels and its neuron update over all steps."""

    def __init__(
        self, name: str, pop: ig.Population, arith: Arithmetic, synapses: list[_Synapses]
    ) -> None:
        self.name, self.pop, self.arith, self.synapses = name, pop, arith, synapses

    def bounds(self, top: Mapping[str, int]) -> list[int]:
        """Return the largest possible |synaptic sum| at each port, from each source's messages."""
        found = [0] * self.pop.ports
        for s in self.synapses:
            found[s.projection.port] += s.gain * top[s.source]
        return found

    def current(
        self, values: Mapping[str, torch.Tensor], bound: int, port: int = 0
    ) -> torch.Tensor:
        """Return the synaptic sum of every step at a port, (T, B, *shape) float32 or float64."""
        float32, float64 = import_torch().float32, import_torch().float64
        if bound >= 1 << 53:
            raise OutOfRange(f"{self.name}: synaptic sums up to {bound} cannot be held exactly")
        dtype = float32 if bound < 1 << 24 and _float32_is_exact() else float64
        mine = [s for s in self.synapses if s.projection.port == port]
        parts = [s.apply(values[s.source].to(dtype)) for s in mine]
        return sum(parts[1:], parts[0])

    def neurons(self, sums: list[torch.Tensor], bounds: list[int], states: bool):
        """Return (output, voltage or None) of all steps for the synaptic sums at the ports."""
        a, bound = sums[0], bounds[0]
        if isinstance(self.pop, ig.IntLif):
            return self._lif(a, bound, states)
        if isinstance(self.pop, ig.ATTENTION_CLASSES):
            return attention(self.pop, *sums), None
        payload = (1 << (self.arith.payload_bits - 1)) - 1
        if isinstance(self.pop, ig.IntAnd):
            self._check(a, bound, self.arith.sum_max, "the synaptic sum")
            return (a > 1).to(import_torch().float32), None
        if isinstance(self.pop, ig.IntWinner):
            self._check(a, bound, payload, "the synaptic sum")
            return _first_largest(a), None
        if isinstance(self.pop, ig.IntProduct):
            return self._product(sums, bounds, payload), None
        if isinstance(self.pop, ig.IntTimeSum):
            return self._time_sum(a, bound, payload), None
        if isinstance(self.pop, ig.IntOr):
            self._check(a, bound, self.arith.sum_max, "the synaptic sum")
            return (a > 0).to(import_torch().float32), None
        if isinstance(self.pop, ig.IntSum):
            return self._check(a, bound, payload, "the graded message"), None
        assert isinstance(self.pop, ig.IntReadout)
        bias = import_torch().from_numpy(self.pop.bias.astype(np.float64))
        v = (a.to(bias.dtype) + bias).cumsum(0)
        bound = len(a) * (bound + int(np.abs(self.pop.bias).max(initial=0)))
        return self._check(v, bound, payload, "the readout accumulator"), None

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
            along = torch.from_numpy(weights).double().reshape(-1, *[1] * (a.ndim - 1))
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

    def _lif(self, a: torch.Tensor, bound: int, states: bool):
        """Integer LIF over all steps: ``fixed.lif_step`` on whole numbers in floating point."""
        torch = import_torch()
        pop, arith = self.pop, self.arith
        assert isinstance(pop, ig.IntLif)
        one, shift = 1 << arith.decay_bits, 1 << arith.input_shift
        keep_u, keep_v = (one - pop.decay_u - 1) / one, (one - pop.decay_v) / one
        bias = pop.bias_mantissa << pop.bias_exponent
        bound_u = _geometric(bound * shift, keep_u, len(a))
        bound_v = _geometric(bound_u + int(np.abs(bias).max(initial=0)), keep_v, len(a))
        simple = all(k == 0 or frexp(k)[0] == 0.5 for k in (keep_u, keep_v))
        dtype = torch.float32 if simple and bound_v < 1 << 24 else torch.float64
        limit_u = (1 << (arith.current_bits - 1)) - 1
        limit_v = (1 << (arith.voltage_bits - 1)) - 1
        real = np.float32 if dtype == torch.float32 else np.float64
        rows = (
            np.broadcast_to(x, pop.shape).astype(real).reshape(-1)
            for x in (bias, pop.threshold * shift)
        )
        spikes = torch.empty(a.shape, dtype=torch.float32)
        voltages = torch.empty(a.shape if states else (0, 0, 0), dtype=dtype)
        extremes = import_loops().lif(
            a.to(dtype).contiguous().flatten(2).numpy(),
            spikes.flatten(2).numpy(),
            voltages.flatten(2).numpy(),
            *rows,
            real(keep_u),
            real(keep_v),
            real(shift),
            states,
            bound_u > limit_u or bound_v > limit_v,
        )
        self._refuse(extremes[0], extremes[1], limit_u, "the synaptic current")
        self._refuse(extremes[2], extremes[3], limit_v, "the membrane voltage")
        return spikes, voltages if states else None


def attention(
    pop: ig.IntSpatialAttention | ig.IntTemporalAttention,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
) -> torch.Tensor:
    """Return the counts of linear attention for binary (T, B, C, *places), exact in float32.

    ``stages.verify_integer`` refuses networks whose counts, channels per head times tokens or
    steps, could exceed a message; messages have at most 24 signed bits.
    """
    einsum = import_torch().einsum
    q, k, v = (x.flatten(3).unflatten(2, (pop.heads, -1)) for x in (q, k, v))
    if isinstance(pop, ig.IntTemporalAttention):
        state = _capped(einsum("tbhin,tbhjn->bhijn", k, v), pop.cap)
        found = _capped(einsum("tbhin,bhijn->bhtjn", q, state), pop.cap)
        return from_heads(found, pop.scrambled).unflatten(3, pop.shape[1:])
    state = _capped(einsum("tbhim,tbhjm->tbhij", k, v), pop.cap)
    found = _capped(einsum("tbhin,tbhij->tbhjn", q, state), pop.cap)
    return found.flatten(2, 3).unflatten(3, pop.shape[1:])


def _shifted(x: torch.Tensor, shift: int) -> torch.Tensor:
    """Return x >> shift of whole numbers: a power of two divides them exactly."""
    return import_torch().floor(x / (1 << shift)) if shift else x


def _first_largest(a: torch.Tensor) -> torch.Tensor:
    """Return 1 at the first largest value of every (step, sample), 0 elsewhere, float32."""
    flat = a.flatten(2)
    spikes = flat.new_zeros(flat.shape, dtype=import_torch().float32)
    return spikes.scatter_(2, flat.argmax(2, keepdim=True), 1.0).reshape(a.shape)


def _capped(counts: torch.Tensor, cap: int) -> torch.Tensor:
    return counts.clamp(max=cap) if cap else counts


def _geometric(largest: float, keep: float, steps: int) -> float:
    """Return a bound on |x| after ``steps`` of x' = keep * x + y with |y| <= largest."""
    return largest * min(steps, 1 / (1 - keep) if keep < 1 else steps)


class _Synapses:
    """One projection: how to apply it, and the largest sum of |weight| any target receives."""

    def __init__(self, p: ig.Projection, source: tuple[int, ...], target: tuple[int, ...]) -> None:
        self.projection, self.source, self.target = p, p.source, target
        self.gain = row_sum(p, source)
        self.kernel: Any = None  # a tensor, of what has weights
        if isinstance(p, (ig.IntConv2d, ig.IntDense)):
            self.kernel = import_torch().from_numpy(p.weight.astype(np.float64))

    def apply(self, x: torch.Tensor) -> torch.Tensor:
        """Return the synaptic sums (T, B, *target) of messages (T, B, *source)."""
        p = self.projection
        if isinstance(p, ig.IntDense):
            return x.flatten(2) @ self.kernel.to(x.dtype).T
        if isinstance(p, ig.IntIdentity):
            return x if p.weight == 1 else x * p.weight
        if isinstance(p, ig.IntSpatialSum):
            return x.sum(dim=(-2, -1))
        if isinstance(p, ig.IntSpread):
            return x[..., None, None].expand(*x.shape, *p.places)
        if isinstance(p, ig.IntPlace):
            y = x.new_zeros(*x.shape[:2], p.size)
            y[..., p.offset : p.offset + x[0, 0].numel()] = x.flatten(2) * p.weight
            return y
        functional, flat = import_torch().nn.functional, x.flatten(0, 1)
        if isinstance(p, ig.IntPool):
            y = _window_sums(flat, p, self.target[1:])
        else:
            assert isinstance(p, ig.IntConv2d)
            y = functional.conv2d(
                flat, self.kernel.to(x.dtype), None, p.stride, p.padding, p.dilation, p.groups
            )
        return y.unflatten(0, x.shape[:2])


def _window_sums(x: torch.Tensor, p: ig.IntPool, places: tuple[int, ...]) -> torch.Tensor:
    """Return sums over the windows of (N, C, H, W), along rows and then along columns."""
    (top, left), functional = p.padding, import_torch().nn.functional
    x = functional.pad(x, (left, left, top, top)) if top or left else x
    for axis in (2, 3):
        stride, count = p.stride[axis - 2], places[axis - 2]
        span = (count - 1) * stride + 1
        ways = [x.narrow(axis, i, span) for i in range(p.kernel[axis - 2])]
        parts = [w[:, :, ::stride] if axis == 2 else w[..., ::stride] for w in ways]
        x = sum(parts[1:], parts[0])
    return x


def _layer(graph: ig.IntGraph, name: str, arith: Arithmetic) -> _Layer:
    pop = graph.populations[name]
    synapses = [_Synapses(p, graph.populations[p.source].shape, pop.shape) for p in pop.projections]
    return _Layer(name, pop, arith, synapses)
