"""Hand-made networks, one per difficulty. Imported by path, see ``conftest.networks``.

Delays are not written down: ``_aligned`` puts them in."""

from dataclasses import replace

import numpy as np
from strategies_intgraph import make_deployment

from neuroav import integer as ig
from neuroav.fixed import truncate_weights

SAMPLES = 3


def _weights(rng, shape, bits=8, mode="mixed", span=60):
    """Random storable weights of magnitude about ``span``."""
    low, high = {"mixed": (-span // 2, span), "excitatory": (0, span), "inhibitory": (-span, 0)}[
        mode
    ]
    return truncate_weights(rng.integers(low, high + 1, shape), bits, mode)


def _conv(rng, source, shape, stride=(1, 1), padding=(0, 0), dilation=(1, 1), groups=1, **kind):
    weight = _weights(rng, shape, **kind)
    return ig.IntConv2d(
        source,
        0,
        weight,
        stride,
        padding,
        dilation,
        groups,
        kind.get("bits", 8),
        kind.get("mode", "mixed"),
    )


def _dense(rng, source, shape, bits=8, mode="mixed", span=60):
    return ig.IntDense(source, 0, _weights(rng, shape, bits, mode, span), bits, mode)


def _lif(shape, projections, threshold, bias=0, exponent=0, decay_u=4095, decay_v=2048):
    return ig.IntLif(
        shape, projections, np.asarray(bias), exponent, np.asarray(threshold), decay_u, decay_v
    )


def _aligned(populations, output: str, steps: int):
    """Return a deployment whose projections carry the delays that align all branches."""
    graph = ig.IntGraph(populations, output, steps, 0.01, {})
    delayed = {
        name: replace(
            pop,
            projections=tuple(
                replace(p, delay=graph.aligned_delay(name, p.source, p.lag))
                for p in pop.projections
            ),
        )
        for name, pop in populations.items()
    }
    return make_deployment(delayed, output, steps)


def _inputs(rng, deployment, density=0.4):
    graph = deployment.integer
    found = {}
    for name, pop in graph.inputs.items():
        shape = (SAMPLES, graph.steps, *pop.shape)
        found[name] = (rng.random(shape) < density) * rng.integers(1, pop.max_count + 1, shape)
    return found


def every_kind(steps: int):
    """All projections and populations, odd shapes, branches of unequal depth."""
    rng = np.random.default_rng(11)
    edges, maps = (4, 5, 7), (4, 3, 4)
    kernels = {
        "edges": _conv(rng, "eye", (4, 2, 3, 3), padding=(1, 1)),
        "grouped": _conv(rng, "pooled", (6, 2, 2, 1), stride=(2, 1), padding=(1, 0), groups=2),
        "dilated": _conv(rng, "pooled", (4, 4, 3, 2), padding=(2, 1), dilation=(2, 2)),
        "mixer": _conv(rng, "joined", (4, 4, 1, 1), span=90),
    }
    strength = np.array([190, 250, 300, 400]).reshape(4, 1, 1)
    joined = (ig.IntIdentity("pooled", 0, -3), ig.IntIdentity("dilated", 0, 2))
    late = (ig.IntIdentity("joined", 0, -1), ig.IntIdentity("mixer", 0, 1))
    both = (ig.IntIdentity("heard", 0, 7), _dense(rng, "seen", (5, 4)))
    last = (_dense(rng, "both", (3, 5)), _dense(rng, "grouped", (3, 48)))
    thresholds = np.arange(40, 40 + 48).reshape(maps)
    populations = {
        "eye": ig.IntInput((2, 5, 7), (), 3),
        "ear": ig.IntInput((3, 4), (), 1),
        "edges": _lif(edges, (kernels["edges"],), strength, rng.integers(-9, 20, edges), 5),
        "pooled": ig.IntOr(maps, (ig.IntPool("edges", 0, (3, 2), (2, 2), (1, 1)),)),
        "grouped": _lif((6, 2, 4), (kernels["grouped"],), 30),
        "dilated": _lif(maps, (kernels["dilated"],), 70, -3, 2),
        "joined": ig.IntSum(maps, joined),
        "mixer": _lif(maps, (kernels["mixer"],), thresholds),
        "late": ig.IntOr(maps, late),
        "heard": _lif((5,), (_dense(rng, "ear", (5, 12)),), [50, 60, 70, 80, 90]),
        "seen": ig.IntSum((4,), (ig.IntSpatialSum("late", 0),)),
        "both": ig.IntSum((5,), both),
        "scores": ig.IntReadout((3,), last, np.array([5, -70, 0])),
    }
    deployment = _aligned(populations, "scores", steps)
    return deployment, _inputs(rng, deployment)


def attention(steps: int):
    """Both attentions, products, counts over samples, masks and concatenation."""
    rng = np.random.default_rng(17)
    maps = (6, 2, 3)

    def unit(source, port=0):
        return ig.IntIdentity(source, 0, 1, port=port)

    def three(*names):
        return tuple(unit(name, port) for port, name in enumerate(names))

    spiking = {
        f"{kind}{number}": _lif(
            maps, (_conv(rng, source, (6, 2, 3, 3), padding=(1, 1)),), rng.integers(60, 150, maps)
        )
        for number, source in enumerate(("eye", "ear"))
        for kind in "qkv"
    }
    counted = ig.IntIdentity("spatial", 0, 128)
    populations = {
        "eye": ig.IntInput((2, 2, 3), (), 3),
        "ear": ig.IntInput((2, 2, 3), (), 2),
        **spiking,
        "spatial": ig.IntSpatialAttention(maps, three("q0", "k1", "v1"), 3, 4, "key-value"),
        "temporal": ig.IntTemporalAttention(maps, three("q1", "k0", "v0"), 2, 0, "score", False),
        "scrambled": ig.IntTemporalAttention(
            maps, three("q0", "k0", "v1"), 3, 2, "key-value", True
        ),
        "a": _lif(maps, (counted,), 500),
        "b": _lif(maps, (ig.IntIdentity("temporal", 0, 128),), 300),
        "masked": ig.IntAnd(maps, (unit("b"), unit("scrambled spikes"))),
        "scrambled spikes": _lif(maps, (ig.IntIdentity("scrambled", 0, 128),), 130),
        "places": ig.IntSum((6,), (ig.IntSpatialSum("a", 0),)),
        "frames": ig.IntTimeSum(maps, (unit("b"),)),
        "product": ig.IntProduct(maps, (ig.IntSpread("places", 0, (2, 3)), unit("frames", 1))),
        "strongest": ig.IntWinner(maps, (ig.IntIdentity("product", 0, -1),)),
        "r": _lif(maps, (_conv(rng, "product", (6, 6, 1, 1)),), 100, 900),
        "x": ig.IntSum(maps, (ig.IntIdentity("q1", 0, 2), ig.IntIdentity("r", 0, 3))),
        "means": ig.IntSum((6,), (ig.IntSpatialSum("x", 0),)),
        "joined": ig.IntSum(
            (42,), (ig.IntPlace("means", 0, 1, 0, 42), ig.IntPlace("masked", 0, 3, 6, 42))
        ),
        "scores": ig.IntReadout((3,), (_dense(rng, "joined", (3, 42)),), np.array([5, -70, 0])),
    }
    deployment = _aligned(populations, "scores", steps)
    return deployment, _inputs(rng, deployment, 0.6)


def fusion(steps: int):
    """Weighted sums over a sample of signed currents, their products, and the largest score."""
    rng = np.random.default_rng(18)

    def unit(source, port=0, weight=1):
        return ig.IntIdentity(source, 0, weight, port=port)

    def weights(low=-15):
        return tuple(rng.integers(low, 16, steps).tolist())

    maps = (2, 3, 4)
    populations = {
        "eye": ig.IntInput((2, 3, 4), (), 3),
        "ear": ig.IntInput((7,), (), 2),
        "seen": _lif((9,), (_dense(rng, "eye", (9, 24)),), [400], [30], 2),
        "heard": _lif((9,), (_dense(rng, "ear", (9, 7)),), [30], [60], 2),
        "r": ig.IntTimeSum((5,), (_dense(rng, "seen", (5, 9)),), weights(), 3),
        "s": ig.IntTimeSum((5,), (_dense(rng, "heard", (5, 9)),), (), 1),
        "p": ig.IntProduct((5,), (unit("r"), unit("s", 1, 3)), 11),
        "h": _lif(
            (8,),
            (_dense(rng, "p", (8, 5)), _dense(rng, "heard", (8, 9))),
            range(200, 4200, 500),
            [99],
            4,
        ),
        "theta": ig.IntTimeSum(
            (6,), (_dense(rng, "h", (6, 8)), _dense(rng, "seen", (6, 9))), weights(0), 2
        ),
        "map": ig.IntTimeSum(
            maps, (_conv(rng, "eye", (2, 2, 3, 3), padding=(1, 1)),), weights(), 1
        ),
        "square": ig.IntProduct(maps, (unit("map"), unit("map", 1)), 5),
        "place": ig.IntWinner(maps, (unit("square"),)),
        "scores": ig.IntReadout(
            (4,), (_dense(rng, "theta", (4, 6)), _dense(rng, "place", (4, 24))), np.arange(4)
        ),
        "scores.winner": ig.IntWinner((4,), (unit("scores"),)),
    }
    deployment = _aligned(populations, "scores", steps)
    return deployment, _inputs(rng, deployment, 0.6)


def decays():
    """Current and voltage memories of every kind, from none to all."""
    rng = np.random.default_rng(12)
    populations = {"in": ig.IntInput((6,), (), 2)}
    for number, (decay_u, decay_v) in enumerate(
        [(4095, 4096), (4095, 0), (3000, 700), (-1, 2048), (100, 4095), (1024, 3)]
    ):
        weights = _dense(rng, "in", (7, 6))
        populations[f"lif {number}"] = _lif(
            (7,),
            (weights,),
            300 if number else 30,
            bias=rng.integers(-20, 30, 7),
            exponent=3,
            decay_u=decay_u,
            decay_v=decay_v,
        )
    populations["out"] = ig.IntReadout(
        (2,), tuple(_dense(rng, n, (2, 7)) for n in populations if n != "in"), np.array([1])
    )
    deployment = _aligned(populations, "out", 8)
    return deployment, _inputs(rng, deployment)


def weight_forms():
    """Every weight width and sign mode in dense and convolution synapses."""
    rng = np.random.default_rng(13)
    populations = {"in": ig.IntInput((2, 3, 3), (), 2)}
    for mode in ("mixed", "excitatory", "inhibitory"):
        for bits in (1, 2, 5, 8):
            kind = {"bits": bits, "mode": mode, "span": 255}
            populations[f"{mode} {bits}"] = ig.IntSum(
                (2, 2, 2), (_conv(rng, "in", (2, 2, 2, 2), **kind),)
            )
            populations[f"dense {mode} {bits}"] = ig.IntSum(
                (4,), (_dense(rng, "in", (4, 18), **kind),)
            )
    last = tuple(_dense(rng, n, (3, p.neurons)) for n, p in populations.items() if n != "in")
    populations["out"] = ig.IntReadout((3,), last, np.array([0]))
    deployment = _aligned(populations, "out", 3)
    return deployment, _inputs(rng, deployment)


def identities():
    """One-to-one synapses of both signs up to the ends of the range, flat and with axes."""
    rng = np.random.default_rng(14)
    populations = {"in": ig.IntInput((2, 3, 2), (), 3)}
    for weight in (-256, -255, -7, -1, 1, 3, 128, 255):
        populations[f"times {weight}"] = ig.IntSum((2, 3, 2), (ig.IntIdentity("in", 0, weight),))
    populations["flat"] = ig.IntSum((2,), (ig.IntSpatialSum("times -7", 0),))
    populations["again"] = ig.IntSum((2,), (ig.IntIdentity("flat", 0, -5),))
    populations["out"] = ig.IntReadout((2,), (ig.IntIdentity("again", 0, 1),), np.array([4]))
    deployment = _aligned(populations, "out", 3)
    return deployment, _inputs(rng, deployment)


def strong_inhibition():
    """OR neurons driven far below zero fire on the weakest message of the very next step."""
    rng = np.random.default_rng(15)
    weight = np.array([[-254, -254, 2], [-254, 0, 4], [0, -128, 2], [-2, -2, 2]])
    populations = {
        "in": ig.IntInput((3,), (), 255),
        "or": ig.IntOr((4,), (ig.IntDense("in", 0, weight, 8, "mixed"),)),
        "out": ig.IntReadout((2,), (_dense(rng, "or", (2, 4)),), np.array([0])),
    }
    deployment = _aligned(populations, "out", 8)
    inputs = _inputs(rng, deployment)
    inputs["in"][..., 2] = 1
    inputs["in"][:, ::2, :2] = 255
    inputs["in"][:, 1::2, :2] = 0
    return deployment, inputs


def readout_with_axes():
    """A readout that is a map, with its own bias per neuron and several steps of latency."""
    rng = np.random.default_rng(16)
    populations = {
        "in": ig.IntInput((1, 4, 5), (), 2),
        "lif": _lif((3, 4, 5), (_conv(rng, "in", (3, 1, 3, 3), padding=(1, 1)),), 50),
        "map": ig.IntReadout(
            (2, 4, 5),
            (_conv(rng, "lif", (2, 3, 3, 3), padding=(1, 1)), _conv(rng, "in", (2, 1, 1, 1))),
            rng.integers(-9, 9, (2, 4, 5)),
        ),
    }
    deployment = _aligned(populations, "map", 3)
    return deployment, _inputs(rng, deployment)


def many_parts():
    """More populations than one recorder takes, in parts that nothing but recorders connect."""
    rng = np.random.default_rng(17)
    populations: dict[str, ig.Population] = {}
    for part in range(10):
        populations[f"in {part}"] = ig.IntInput((3,), (), 2)
        populations[f"lif {part}"] = _lif((4,), (_dense(rng, f"in {part}", (4, 3)),), 25 + part)
        populations[f"sum {part}"] = ig.IntSum((4,), (ig.IntIdentity(f"lif {part}", 0, part + 1),))
    populations["out"] = ig.IntReadout((2,), (_dense(rng, "sum 4", (2, 4)),), np.array([0]))
    deployment = _aligned(populations, "out", 3)
    return deployment, _inputs(rng, deployment)


def all_networks():
    return {
        "every kind, 1 step": every_kind(1),
        "every kind, 3 steps": every_kind(3),
        "every kind, 8 steps": every_kind(8),
        "attention, 3 steps": attention(3),
        "attention, 8 steps": attention(8),
        "fusion, 3 steps": fusion(3),
        "fusion, 8 steps": fusion(8),
        "decays": decays(),
        "weight forms": weight_forms(),
        "identities": identities(),
        "strong inhibition": strong_inhibition(),
        "readout with axes": readout_with_axes(),
        "many parts": many_parts(),
    }
