"""Random valid integer graphs with inputs on which they are alive.

``random_deployments`` is the hypothesis strategy; ``random_deployment`` the generator behind it.
Each population is simulated as soon as it is drawn, by the reference executor's equations, and its
thresholds are put inside the range its neurons reach: it fires, and no register overflows.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.deployment import Deployment
from neuroav.errors import OutOfRange, StageError
from neuroav.fixed import Arithmetic, shift_left, weight_levels, weight_step
from neuroav.graph import SpikingGraph
from neuroav.hardware import load_profile
from neuroav.shapes import projection_shape
from neuroav.sim import reference
from neuroav.stages import verify_graph, verify_integer

MAX_COUNT = 3  # of an input
MAX_GRADED = 1024  # of a graded message: sums of sums stay inside 24 bits
MODES = ("mixed", "mixed", "excitatory", "inhibitory")


def make_deployment(populations, output: str, steps: int, profile: str = "loihi2") -> Deployment:
    """Return a deployment of hand-made or random populations; its real twin is a stub."""
    hardware = load_profile(profile)
    graph = ig.IntGraph(populations, output, steps, 0.01, dict.fromkeys(populations, (1, 1)))
    verify_integer(graph, hardware.arithmetic)
    stub = SpikingGraph({"x": rn.Input((1,))}, {"x": ()}, {"x": (1,)}, "x", 0.01, steps, "lowered")
    classes = tuple(f"class {i}" for i in range(graph.populations[output].neurons))
    return Deployment(graph, verify_graph(stub), hardware, classes, {})


@st.composite
def random_deployments(draw) -> tuple[Deployment, dict[str, np.ndarray]]:
    """A deployment and inputs for it: 2 inputs, 1..6 hidden populations, a readout."""
    return random_deployment(
        draw(st.integers(0, 2**32 - 1)),
        hidden=draw(st.integers(1, 6)),
        steps=draw(st.sampled_from((1, 3, 5, 8))),
        samples=draw(st.integers(1, 4)),
    )


def random_deployment(
    seed: int,
    *,
    hidden: int = 4,
    steps: int = 5,
    samples: int = 3,
    holding: bool = True,
    largest: int = 7,
    lags: bool = True,
) -> tuple[Deployment, dict[str, np.ndarray]]:
    """Return a random deployment and inputs (samples, steps, *shape); same seed, same network.

    holding: whether populations may occur that answer a sample only when it is complete. largest:
    most rows and columns of an input. lags: whether projections may be late, and close loops.
    """
    growth = _Growth(np.random.default_rng(seed), steps, samples, holding, largest, lags)
    for number in range(hidden):
        growth.add_hidden(f"p{number}")
    growth.add_readout()
    deployment = make_deployment(growth.populations, "readout", steps)
    inputs = {n: growth.outputs[n].astype(np.int32) for n in deployment.integer.inputs}
    return deployment, inputs


class _Growth:
    """A graph under construction: populations with their latencies and simulated outputs."""

    def __init__(
        self,
        rng: np.random.Generator,
        steps: int,
        samples: int,
        holding: bool,
        largest: int,
        lags: bool,
    ) -> None:
        self.rng, self.steps, self.samples, self.holding = rng, steps, samples, holding
        self.lags = lags
        self.arith: Arithmetic = load_profile("loihi2").arithmetic
        self.populations: dict[str, ig.Population] = {}
        self.outputs: dict[str, np.ndarray] = {}
        self.latency: dict[str, int] = {}
        for name in ("eye", "ear"):
            shape = tuple(
                int(rng.integers(low, top + 1)) for low, top in ((1, 3), *[(3, largest)] * 2)
            )
            fired = rng.random((samples, steps, *shape)) < 0.4
            self.outputs[name] = fired * rng.integers(1, MAX_COUNT + 1, fired.shape)
            self.populations[name] = ig.IntInput(shape, (), MAX_COUNT)
            self.latency[name] = 0

    # --- one population ---
    def add_hidden(self, name: str) -> None:
        for _ in range(40):
            if self.lags and self.rng.random() < 0.15 and self._loop(name):
                return
            if self.rng.random() < 0.4 and self._special(name):
                return
            source = self._choose(list(self.populations))
            first, shape = self._any_projection(source)
            projections = [first]
            if self.rng.random() < 0.5:  # a second source, mostly of another depth
                others = [
                    self._joining_projection(n, shape) for n in self.populations if n != source
                ]
                projections += [p for p in others if p is not None][:1]
            if self._accept(name, shape, projections, self._choose(("lif", "lif", "or", "sum"))):
                return
        relay = [ig.IntIdentity("eye", 0, 1)]
        assert self._accept(name, self.populations["eye"].shape, relay, "or")

    def add_readout(self) -> None:
        read = {p.source for q in self.populations.values() for p in q.projections if not p.lag}
        loose = [n for n in self.populations if n not in read][-3:]
        while not self._accept("readout", (4,), [self._dense(n, 4) for n in loose], "readout"):
            pass

    def _accept(self, name: str, shape, projections, kind: str) -> bool:
        """Add a population unless it is silent or a register overflows."""
        aligned = self._aligned(projections)
        a = self._synaptic_sums(aligned, shape, 1)
        return self._keep(name, self._population(kind, shape, aligned, a[0]), a)

    def _aligned(self, projections) -> tuple[ig.Projection, ...]:
        """Return them with delays, some of them late by a frame or two."""
        late = [
            replace(p, lag=int(self._choose((0,) * 9 + (1, 1, 2)))) if self.lags else p
            for p in projections
        ]
        arrival = self._arrival(late)
        return tuple(replace(p, delay=arrival - 1 - self.latency[p.source] + p.lag) for p in late)

    def _arrival(self, projections) -> int:
        return max(1, *(1 + self.latency[p.source] - p.lag for p in projections))

    def _keep(self, name: str, pop: ig.Population, sums: list[np.ndarray]) -> bool:
        """Add a population unless it is silent, a register overflows or a delay is too long."""
        try:
            out = self._simulate(name, pop, sums)
        except OutOfRange:
            return False
        graded = not isinstance(pop, (*ig.SPIKING_CLASSES, ig.IntReadout))
        if not out.any() or (graded and np.abs(out).max() > MAX_GRADED):
            return False
        if max(p.delay for p in pop.projections) > self.arith.delay_max:
            return False
        latency = self._arrival(pop.projections) + (self.steps if pop.holds else 0)
        self.populations[name], self.outputs[name], self.latency[name] = pop, out, latency
        return True

    # --- loops ---
    def _loop(self, name: str) -> bool:
        """Try to add neurons that read themselves, or a pair that read each other."""
        first, shape = self._any_projection(self._choose(list(self.populations)))
        other, lag = f"{name}b", int(self._choose((1, 1, 2, 3)))
        pair = self.rng.random() < 0.4
        alone = self._aligned([first])
        pop = self._population("lif", shape, alone, self._synaptic_sums(alone, shape, 1)[0])
        back = self._back(other if pair else name, shape, max(lag, 2) if pair else lag)
        new: dict[str, ig.Population] = {name: replace(pop, projections=(*alone, back))}
        if pair:
            reader = self._back(name, shape, 0)
            kind = self._choose(("or", "sum", "lif"))
            flat = (shape[0],) + (1,) * (len(shape) - 1)
            new[other] = (
                ig.IntLif(shape, (reader,), np.zeros(flat, int), 0, np.ones(flat, int), 4095, 2048)
                if kind == "lif"
                else self._population(kind, shape, (reader,), np.zeros(1))
            )
        return self._keep_loop(new)

    def _back(self, source: str, shape, lag: int) -> ig.Projection:
        """Return a projection between populations of one shape."""
        size = int(np.prod(shape))
        if len(shape) == 1 and size < 40 and self.rng.random() < 0.7:
            return ig.IntDense(source, 0, *self._weights((size, size)), lag=lag)
        return ig.IntIdentity(source, 0, int(self._choose((1, 3, 40, -1, -7))), lag=lag)

    def _keep_loop(self, new: dict[str, ig.Population]) -> bool:
        """Add a loop unless it is silent, a register overflows or a delay is too long."""
        populations = {**self.populations, **new}
        graph = ig.IntGraph(populations, next(iter(new)), self.steps, 0.01, {})
        frames = {n: self.outputs[n] for n in graph.inputs}
        found: dict[str, list[np.ndarray]] = {n: [] for n in new}
        try:
            for s in range(self.samples):
                part = {n: v[s] for n, v in frames.items()}
                outputs, _ = reference.run_sample(graph, self.arith, part)
                for n in new:
                    found[n].append(outputs[n])
        except OutOfRange:
            return False
        for n, pop in new.items():
            aligned = [
                replace(p, delay=graph.aligned_delay(n, p.source, p.lag)) for p in pop.projections
            ]
            graded = not isinstance(pop, ig.SPIKING_CLASSES)
            out = np.stack(found[n])
            if not out.any() or max(p.delay for p in aligned) > self.arith.delay_max:
                return False
            if graded and np.abs(out).max() > MAX_GRADED:
                return False
            new[n] = replace(pop, projections=tuple(aligned))
        for n, pop in new.items():
            self.populations[n], self.outputs[n] = pop, np.stack(found[n])
            self.latency[n] = graph.latency[n]
        return True

    # --- populations with several inputs, or over a whole sample ---
    def _special(self, name: str) -> bool:
        """Try to add one of them; False where the populations so far do not allow it."""
        makers = [
            self._and,
            self._product,
            self._product,
            self._spatial,
            self._concatenation,
            self._winner,
        ]
        if self.holding:
            makers += [self._time_sum, self._temporal]
        pop = self._choose(makers)()
        if pop is None:
            return False
        sums = self._synaptic_sums(pop.projections, pop.shape, pop.ports)
        return self._keep(name, pop, sums)

    def _alike(self, shape=None, binary: bool = True, axes: int = 3) -> list[str]:
        """Names of populations of one shape (a random one by default)."""
        names = [
            n
            for n, p in self.populations.items()
            if len(p.shape) == axes and (not binary or isinstance(p, ig.SPIKING_CLASSES))
        ]
        if not names:
            return []
        shape = shape or self.populations[self._choose(names)].shape
        return [n for n in names if self.populations[n].shape == shape]

    def _relays(self, names: list[str], ports: int) -> tuple[ig.Projection, ...]:
        return self._aligned(
            [ig.IntIdentity(self._choose(names), 0, 1, port=port) for port in range(ports)]
        )

    def _and(self) -> ig.Population | None:
        if not (names := self._alike(axes=self._choose((1, 3)))):
            return None
        pair = [ig.IntIdentity(self._choose(names), 0, 1) for _ in range(2)]
        return ig.IntAnd(self.populations[names[0]].shape, self._aligned(pair))

    def _product(self) -> ig.Population | None:
        names = self._alike(binary=False, axes=self._choose((1, 3, 3, 3, 3)))
        if not names:
            return None
        shape = self.populations[names[0]].shape
        channels = self._alike(shape[:1], binary=False, axes=1) if len(shape) == 3 else []
        if channels and self.rng.random() < 0.8:
            first: ig.Projection = ig.IntSpread(self._choose(channels), 0, shape[1:], port=0)
        else:
            first = ig.IntIdentity(self._choose(names), 0, 1, port=0)
        second = ig.IntIdentity(self._choose(names), 0, int(self._choose((1, 3, -2))), port=1)
        shift = int(self._choose((0, 0, 1, 3)))
        return ig.IntProduct(shape, self._aligned([first, second]), shift)

    def _winner(self) -> ig.Population | None:
        name = self._choose(list(self.populations))
        relay = ig.IntIdentity(name, 0, int(self._choose((1, 1, 3, -2))))
        return ig.IntWinner(self.populations[name].shape, (relay,))

    def _concatenation(self) -> ig.Population | None:
        names = [self._choose(list(self.populations)) for _ in range(2)]
        sizes = [self.populations[n].neurons for n in names]
        places = [
            ig.IntPlace(n, 0, int(self._choose((1, 2, 7))), first, sum(sizes))
            for n, first in zip(names, (0, sizes[0]), strict=True)
        ]
        return ig.IntSum((sum(sizes),), self._aligned(places))

    def _time_sum(self) -> ig.Population | None:
        name = self._choose(list(self.populations))
        shape, projections = self.populations[name].shape, self._relays([name], 1)
        if self.rng.random() < 0.5:  # synapses of any sign straight onto the accumulators
            dense = self._dense(name, int(self.rng.integers(3, 9)))
            shape, projections = (len(dense.weight),), self._aligned([dense])
        weights: tuple[int, ...] = ()
        if self.rng.random() < 0.6:
            top = int(self._choose((2, 15)))
            weights = tuple(self.rng.integers(-top, top + 1, self.steps).tolist())
        return ig.IntTimeSum(shape, projections, weights, int(self._choose((0, 0, 2, 6))))

    def _heads(self, shape) -> int:
        return int(self._choose([h for h in range(1, shape[0] + 1) if shape[0] % h == 0]))

    def _attention_parts(self):
        if not (names := self._alike()):
            return None
        shape = self.populations[names[0]].shape
        cap, form = int(self.rng.integers(0, 6)), self._choose(("key-value", "score"))
        return shape, self._relays(names, 3), self._heads(shape), cap, form

    def _spatial(self) -> ig.Population | None:
        parts = self._attention_parts()
        return parts and ig.IntSpatialAttention(*parts)

    def _temporal(self) -> ig.Population | None:
        parts = self._attention_parts()
        return parts and ig.IntTemporalAttention(*parts, bool(self.rng.random() < 0.5))

    def _population(self, kind: str, shape, projections, a: np.ndarray) -> ig.Population:
        if kind == "or":
            return ig.IntOr(shape, projections)
        if kind == "sum":
            return ig.IntSum(shape, projections)
        per_channel = (shape[0],) + (1,) * (len(shape) - 1)
        if kind == "readout":
            bias = self.rng.integers(-50, 50, per_channel)
            leak = self._choose(((), (), (None, 700, 6), (1500, 0, 0), (2500, 1200, 2)))
            return ig.IntReadout(shape, projections, bias, *leak)
        return self._lif(shape, projections, a, per_channel)

    def _lif(self, shape, projections, a: np.ndarray, per_channel) -> ig.IntLif:
        rng, exponent = self.rng, int(self.rng.integers(0, 5))
        bias = rng.integers(-30, 60, self._choose((per_channel, shape)))
        decay_u = int(self._choose((4095, 4095, 3000, 1024)))
        decay_v = int(self._choose((2048, 2048, 4096, 500, 0)))
        if rng.random() < 0.2:  # every neuron, or channel, its own
            decay_u = rng.integers(2000, 4096, self._choose((per_channel, shape)))
            decay_v = rng.integers(300, 4097, self._choose((per_channel, shape)))
        silent = ig.IntLif(
            shape,
            projections,
            bias,
            exponent,
            np.asarray(self.arith.threshold_max),
            decay_u,
            decay_v,
        )
        reached = max(1, int(np.quantile(self._voltages(silent, a), 0.8)) >> 6)
        spread = rng.integers(max(1, reached // 2), reached + 1, per_channel)
        threshold = np.minimum(spread, self.arith.threshold_max)
        reset = self._choose(("zero", "zero", "zero", "subtract"))
        return ig.IntLif(shape, projections, bias, exponent, threshold, decay_u, decay_v, reset)

    # --- simulation ---
    def _synaptic_sums(self, projections, shape, ports: int) -> list[np.ndarray]:
        sums = [np.zeros((self.samples, self.steps, *shape), np.int64) for _ in range(ports)]
        for s, t in np.ndindex(self.samples, self.steps):
            for p in (p for p in projections if t >= p.lag):
                message = self.outputs[p.source][s, t - p.lag]
                sums[p.port][s, t] += reference.synaptic_sum(p, message, shape)
        return sums

    def _simulate(self, name: str, pop: ig.Population, sums: list[np.ndarray]) -> np.ndarray:
        return np.stack(
            [
                reference.all_steps(name, pop, [a[s] for a in sums], self.arith)[0]
                for s in range(self.samples)
            ]
        )

    def _voltages(self, pop: ig.IntLif, a: np.ndarray) -> np.ndarray:
        """Membrane voltages of neurons that never fire, as far as the registers go."""
        v = np.zeros_like(a)
        bias = shift_left(pop.bias_mantissa, pop.bias_exponent)
        keep_u, keep_v = (4095 - pop.decay_u) / 4096, (4096 - pop.decay_v) / 4096
        for s in range(self.samples):
            current = voltage = np.zeros(pop.shape)
            for t in range(self.steps):
                current = current * keep_u + a[s, t] * 64
                voltage = voltage * keep_v + current + bias
                v[s, t] = np.clip(voltage, -(1 << 23), (1 << 23) - 1)
        return v

    # --- projections ---
    def _any_projection(self, source: str):
        shape = self.populations[source].shape
        makers = [
            lambda: self._dense(source, int(self.rng.integers(3, 9))),
            lambda: self._identity(source),
        ]
        if len(shape) == 3:
            makers += [lambda: self._conv(source)] * 3
            makers += [lambda: self._pool(source), lambda: ig.IntSpatialSum(source, 0)]
            makers += [lambda: self._transposed(source)]
        while True:
            p = self._choose(makers)()
            try:
                found = projection_shape(p, shape)
                if isinstance(p, ig.IntIdentity) and self.rng.random() < 0.3:  # on other axes
                    size = int(np.prod(shape))
                    found = (size,) if len(shape) == 3 else (1, 1, size)
                return p, found
            except StageError:  # a kernel larger than its source: draw again
                continue

    def _joining_projection(self, source: str, shape) -> ig.Projection | None:
        """Return a projection from ``source`` that ends in ``shape``, if there is a simple one."""
        found = self.populations[source].shape
        if len(shape) == 1:
            return self._dense(source, shape[0])
        if found == shape:
            return self._identity(source)
        return self._same(source, shape[0]) if found[1:] == shape[1:] else None

    def _same(self, source: str, out: int) -> ig.IntConv2d:
        channels = self.populations[source].shape[0]
        return self._convolution(source, out, channels, (3, 3), (1, 1), (1, 1), (1, 1), 1)

    def _conv(self, source: str) -> ig.IntConv2d:
        rng, channels = self.rng, self.populations[source].shape[0]
        groups = channels if channels > 1 and rng.random() < 0.3 else 1
        out = groups * int(rng.integers(1, 4))
        kernel = tuple(int(k) for k in rng.integers(1, 4, 2))
        pair = [tuple(int(v) for v in rng.integers(low, 3, 2)) for low in (1, 0, 1)]
        return self._convolution(source, out, channels // groups, kernel, *pair, groups)

    def _transposed(self, source: str) -> ig.IntConvTranspose2d:
        rng, channels = self.rng, self.populations[source].shape[0]
        groups = channels if channels > 1 and rng.random() < 0.3 else 1
        kernel = tuple(int(k) for k in rng.integers(1, 4, 2))
        stride, padding, dilation = (
            tuple(int(v) for v in rng.integers(low, 3, 2)) for low in (1, 0, 1)
        )
        extra = tuple(
            int(rng.integers(0, max(s, d))) for s, d in zip(stride, dilation, strict=True)
        )
        weight, bits, mode = self._weights((channels, int(rng.integers(1, 4)), *kernel))
        form = (stride, padding, extra, dilation, groups)
        return ig.IntConvTranspose2d(source, 0, weight, *form, bits, mode)

    def _convolution(self, source, out, inputs, kernel, stride, padding, dilation, groups):
        weight, bits, mode = self._weights((out, inputs, *kernel))
        return ig.IntConv2d(source, 0, weight, stride, padding, dilation, groups, bits, mode)

    def _dense(self, source: str, out: int) -> ig.IntDense:
        return ig.IntDense(source, 0, *self._weights((out, self.populations[source].neurons)))

    def _identity(self, source: str) -> ig.IntIdentity:
        return ig.IntIdentity(source, 0, int(self._choose((1, 1, 2, 3, 255, -1, -7, -255, -256))))

    def _pool(self, source: str) -> ig.IntPool:
        kernel = tuple(int(k) for k in self.rng.integers(2, 4, 2))
        padding = tuple(int(self.rng.integers(0, k // 2 + 1)) for k in kernel)
        return ig.IntPool(
            source, 0, kernel, tuple(int(v) for v in self.rng.integers(1, 3, 2)), padding
        )

    def _weights(self, shape) -> tuple[np.ndarray, int, str]:
        bits, mode = int(self.rng.integers(2, 9)), self._choose(MODES)
        span = self._choose((1, 8, 256))
        low, high = np.clip(weight_levels(bits, mode), -span, span)
        return self.rng.integers(low, high + 1, shape) * weight_step(bits, mode), bits, mode

    def _choose(self, options):
        return options[int(self.rng.integers(len(options)))]
