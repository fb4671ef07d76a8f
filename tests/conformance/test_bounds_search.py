"""No admissible input found by search leaves a static bound, and first layers reach theirs.

The search keeps, for every end of every accumulator, the input that drove it furthest, and changes
one place, channel or step of it at a time. Registers are widened here, so that a run goes on where
the bound says that it may leave its register.
"""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from accumulators import ARITH, observed
from samples import awake_scmrl, poisson_inputs, warmed_model
from strategies_intgraph import random_deployment

from neuroav import integer as ig
from neuroav.bounds import bounds, unproven
from neuroav.errors import OutOfRange
from neuroav.sim import reference
from neuroav_export import compile_module

WIDE = replace(ARITH, current_bits=40, voltage_bits=40, payload_bits=40)
LINEAR = (ig.IntLif, ig.IntOr, ig.IntAnd, ig.IntSum, ig.IntWinner, ig.IntTimeSum)
ENDS = (0, 1)  # of a span: low, high


class Search:
    """The furthest that each end of each accumulator went, as the share of its bound."""

    def __init__(self, deployment, seed):
        self.deployment, self.rng = deployment, np.random.default_rng(seed)
        self.found = bounds(deployment.integer, WIDE)
        self.reached = {}  # (population, index, end) -> (magnitude, input)
        self.runs = 0

    def run(self, inputs):
        """Run one sample; assert that it stays inside, and remember where it went furthest."""
        try:
            spans = observed(self.deployment, inputs, WIDE)
        except OutOfRange:  # a product, whose register is no wider: it must have been foretold
            assert unproven(self.found)
            return
        self.runs += 1
        for (name, index), span in spans.items():
            bound = self.found[name][index]
            assert bound.low <= span[0] <= span[1] <= bound.high, (name, bound, span)
            for end in ENDS:
                best = self.reached.get((name, index, end), (-1, None))
                if abs(span[end]) > best[0]:
                    self.reached[name, index, end] = (abs(span[end]), inputs)

    def constant(self, rate):
        """Inputs of which a share is at its largest count, the others 0."""
        graph = self.deployment.integer
        return {
            n: p.max_count * (self.rng.random((1, graph.steps, *p.shape)) < rate).astype(np.int32)
            for n, p in graph.inputs.items()
        }

    def changed(self, inputs):
        """The input with one block of one kind at 0 or at the largest count."""
        name = str(self.rng.choice(list(inputs)))
        value = inputs[name].copy()
        place = tuple(int(self.rng.integers(n)) for n in value.shape[1:])
        block = (
            place,
            (slice(None), *place[1:]),
            (slice(None), place[1]),
            (place[0],),
        )[self.rng.integers(4)]
        top = self.deployment.integer.inputs[name].max_count
        value[0][block] = top * int(self.rng.integers(2))
        return inputs | {name: value}

    def climb(self, changes):
        """Change the best inputs ``changes`` times, those of all ends in turn."""
        for rate in (0, 0.1, 0.3, 0.6, 0.9, 1):
            self.run(self.constant(rate))
        keys = list(self.reached)
        for number in range(changes):
            self.run(self.changed(self.reached[keys[number % len(keys)]][1]))

    def shares(self):
        """Reached / bound of every end whose bound is not 0."""
        limits = {
            key: abs((bound.low, bound.high)[key[2]])
            for key in self.reached
            for bound in [self.found[key[0]][key[1]]]
        }
        return {key: self.reached[key][0] / most for key, most in limits.items() if most}


def test_a_search_stays_inside_the_bounds_and_comes_near():
    shares = []
    for seed in range(16):
        deployment, inputs = random_deployment(
            seed, hidden=2, steps=(1, 3, 4)[seed % 3], samples=1, largest=5, lags=False
        )
        search = Search(deployment, seed)
        search.run(inputs)
        search.climb(changes=250)
        assert search.runs > 200
        shares += search.shares().values()
    assert len(shares) > 80
    assert np.median(shares) > 0.8
    assert np.mean(np.array(shares) == 1) > 0.3


# --- first layers: the input that maximises a sum can be written down ------------------------
def synapses(graph, pop):
    """Return by source the weights (neurons, places) of a population, from unit vectors."""
    found = {}
    for p in pop.projections:
        shape = graph.populations[p.source].shape
        places = np.eye(int(np.prod(shape)), dtype=np.int64).reshape(-1, *shape)
        columns = [reference.synaptic_sum(p, x, pop.shape).reshape(-1) for x in places]
        found[p.source] = np.stack(columns, axis=1)
    return found


def driving_inputs(graph, pop, sign):
    """The input at its largest count where the neuron that can go furthest has that sign."""
    weights = synapses(graph, pop)
    tops = {n: p.max_count for n, p in graph.inputs.items()}
    most = sum(tops[n] * np.maximum(sign * w, 0).sum(axis=1) for n, w in weights.items())
    best = int(np.argmax(most))
    steps = np.ones(graph.steps, np.int64)
    if isinstance(pop, ig.IntTimeSum):
        steps = np.sign(pop.step_weights(graph.steps))
    inputs = {}
    for name, source in graph.inputs.items():
        row = weights[name][best].reshape(source.shape) if name in weights else None
        inputs[name] = np.zeros((1, graph.steps, *source.shape), np.int32)
        for t, step in enumerate(steps):
            if row is not None:
                inputs[name][0, t] = tops[name] * (sign * step * row > 0)
    return inputs


def first_layers(graph):
    """Names of populations whose sum is of inputs alone, each through one projection."""
    for name in graph.order:
        pop = graph.populations[name]
        sources = [p.source for p in pop.projections]
        late = any(p.lag for p in pop.projections)  # its first frames get nothing
        late |= bool(np.ndim(getattr(pop, "decay_u", 0)))  # who gets most need not hold most
        alone = sources and len(set(sources)) == len(sources) and not late
        if isinstance(pop, LINEAR) and alone and set(sources) <= set(graph.inputs):
            yield name, pop


def test_first_layers_reach_their_bounds_exactly():
    kinds = {}
    for seed in range(60):
        deployment, _ = random_deployment(seed, hidden=3, steps=3, samples=1)
        graph = deployment.integer
        found = bounds(graph, WIDE)
        for name, pop in first_layers(graph):
            spans = [
                observed(deployment, driving_inputs(graph, pop, sign), WIDE) for sign in (-1, 1)
            ]
            bound = found[name][0]
            ends = (spans[0][name, 0][0], spans[1][name, 0][1])
            assert ends == (bound.low, bound.high), (seed, name, bound)
            kinds[type(pop)] = kinds.get(type(pop), 0) + 1
            if isinstance(pop, ig.IntLif) and pop.bias_mantissa.max() <= 0:
                assert spans[0][name, 1][0] == found[name][1].low  # nothing fires, nothing resets
    assert set(kinds) >= {ig.IntLif, ig.IntOr, ig.IntSum, ig.IntTimeSum}, kinds
    assert kinds[ig.IntLif] > 20


def unequal_channels():
    """A graph of sums without negative weights, whose channels have different ranges."""
    rng = np.random.default_rng(0)

    def conv(source, weight, padding):
        pads = (padding, padding)
        return ig.IntConv2d(source, 0, weight, (1, 1), pads, (1, 1), 2, 8, "excitatory")

    def dense(source, *shape):
        return ig.IntDense(source, 0, rng.integers(1, 100, shape), 8, "excitatory")

    def identity(source, weight, port=0):
        return ig.IntIdentity(source, 0, weight, port=port)

    square, taps = (4, 2, 2), (4, 2, 3, 3)
    tilt = np.arange(1, 9).reshape(4, 2, 1, 1)  # the second group drives all
    places = (ig.IntPlace("mean", 0, 3, 0, 8), ig.IntPlace("mean", 0, 1, 4, 8))
    pool = ig.IntPool("tilted", 0, (2, 2), (2, 2), (1, 1))
    turned = rng.integers(1, 9, (4, 2, 3, 2))
    up = ig.IntConvTranspose2d(
        "tilted", 0, turned, (2, 2), (0, 0), (0, 0), (1, 1), 2, 8, "excitatory"
    )
    populations = {
        "x": ig.IntInput(square, (), 3),
        "tilted": ig.IntSum(square, (conv("x", tilt, 0),)),
        "grouped": ig.IntSum(square, (conv("tilted", rng.integers(1, 9, taps), 1),)),
        "same": ig.IntSum(square, (identity("tilted", 7),)),
        "pool": ig.IntSum(square, (pool,)),
        "up": ig.IntSum((4, 5, 4), (up,)),
        "mean": ig.IntSum((4,), (ig.IntSpatialSum("tilted", 0),)),
        "places": ig.IntSum((8,), places),
        "back": ig.IntSum(square, (ig.IntSpread("mean", 0, (2, 2)),)),
        "product": ig.IntProduct((4,), (identity("mean", 1), identity("mean", 2, port=1))),
        "dense": ig.IntSum((3,), (dense("tilted", 3, 16),)),
        "r": ig.IntReadout((2,), (dense("mean", 2, 4),), np.zeros(1, np.int64)),
    }
    return ig.IntGraph(populations, "r", 2, 0.01, dict.fromkeys(populations, (1, 1)))


def test_channels_of_unequal_range_reach_their_bounds_through_every_projection():
    """Nothing is negative, so the largest input drives every sum to the end of its bound."""
    graph = unequal_channels()
    assert {type(p) for n in graph.order for p in graph.populations[n].projections} == set(
        ig.PROJECTION_CLASSES
    )
    inputs = {"x": np.full((1, 2, 4, 2, 2), 3, np.int32)}
    spans, found = observed(SimpleNamespace(integer=graph), inputs, WIDE), bounds(graph, WIDE)
    ends = {n: parts[0].high for n, parts in found.items()}
    assert {n: span for (n, _), span in spans.items()} == {n: (0, high) for n, high in ends.items()}
    assert ends["pool"] == ends["tilted"]  # of its four taps three lie outside the source
    assert ends["back"] == ends["mean"] == 4 * ends["tilted"]


def test_a_message_stays_in_its_register_however_deep_the_graph():
    """Squares of squares pass 64 bits soon; what would overflow is refused where it first does."""
    graded = (1 << (ARITH.payload_bits - 1)) - 1
    populations, source = {"x": ig.IntInput((1,), (), 255)}, "x"
    for number in range(6):
        pair = tuple(ig.IntIdentity(source, 0, 255, port=port) for port in (0, 1))
        source = f"p{number}"
        populations[source] = ig.IntProduct((1,), pair)
    dense = ig.IntDense(source, 0, np.array([[2]]), 8, "excitatory")
    populations["r"] = ig.IntReadout((1,), (dense,), np.zeros(1, np.int64))
    graph = ig.IntGraph(populations, "r", 1, 0.01, dict.fromkeys(populations, (1, 1)))
    found = bounds(graph, ARITH)
    assert found["p0"][0].high == (255 * 255) ** 2 > graded
    assert {found[f"p{number}"][0].high for number in range(1, 6)} == {(255 * graded) ** 2}
    assert found["r"][0].high == 2 * graded


# --- compiled networks -----------------------------------------------------------------------
NETWORKS = {"add": lambda: warmed_model("add", 2), "scmrl": lambda: awake_scmrl(steps=2)}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """A function of the largest input count that returns the deployment."""
    model, sample = NETWORKS[request.param](), poisson_inputs(8, 2, 1)

    def compiled(top):
        return compile_module(model, sample, max_count=dict.fromkeys(model.inputs, top))

    return compiled


def driven(deployment, changes=20):
    """A search that starts from the inputs that drive the first layers furthest."""
    search, graph = Search(deployment, 0), deployment.integer
    for _, pop in first_layers(graph):
        for sign in (-1, 1):
            search.run(driving_inputs(graph, pop, sign))
    search.climb(changes)
    return search


def warned(deployment):
    """Accumulators that are not proven, as (population, index)."""
    found = bounds(deployment.integer, ARITH)
    return {(n, i) for n, parts in found.items() for i, b in enumerate(parts) if not b.proven}


def test_small_counts_reach_the_bounds_of_first_layers_and_are_proven(network):
    deployment = network(15)
    assert warned(deployment) == set()
    search = driven(deployment)
    first = [n for n, _ in first_layers(deployment.integer)]
    assert len(first) == 2
    for layer in first:
        assert search.shares()[layer, 0, 0] == search.shares()[layer, 0, 1] == 1


def test_large_counts_overflow_where_the_bounds_say_so(network):
    deployment = network(255)
    search, found = driven(deployment, changes=0), bounds(deployment.integer, ARITH)
    overflowed = {
        (n, i) for (n, i, _), (most, _) in search.reached.items() if most > found[n][i].limit
    }
    assert {n for n, _ in overflowed} == {n for n, _ in first_layers(deployment.integer)}
    assert overflowed == warned(deployment)
