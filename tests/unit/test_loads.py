"""Events by core, link and step: against one message after the other, and against the counts."""

from __future__ import annotations

from collections import Counter as Tally

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from placements import MESH, random_placement
from strategies_intgraph import random_deployment

from neuroav import integer as ig
from neuroav.counts import Counter
from neuroav.loads import LoadCounter
from neuroav.mapping.reach import reach
from neuroav.placement import placed
from neuroav.sim import fast
from neuroav.synapses import mute

seen: set[type] = set()


def run(seed, **options):
    deployment, inputs = random_deployment(seed, **options)
    traces = list(fast.run(deployment, inputs, batch=2))
    return deployment.integer, traces


def counted(graph, placement, traces):
    events, loads = Counter(graph), LoadCounter(graph, placement)
    for trace in traces:
        events.add(trace)
        loads.add(trace)
    return events.counts(), loads.loads()


@settings(max_examples=80, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_sums_over_cores_are_the_counts(seed, places):
    graph, traces = run(seed, hidden=5, steps=4)
    counts, loads = counted(graph, random_placement(graph, places), traces)
    inside = list(placed(graph))
    synops = sum(v for n in inside for v in counts.synops[n].values())
    assert np.array_equal(loads.synops.sum(axis=(1, 2)), synops)
    spikes = sum(counts.spikes[n] for n in inside)
    assert spikes.sum() > 0
    assert np.array_equal(loads.spikes.sum(axis=(1, 2)), spikes)
    sent = sum(x.messages for x in loads.layers.values()) + sum(loads.inputs.values())
    assert np.array_equal(loads.messages_in.sum(axis=(1, 2)), sent)
    updates = sum(counts.updates.values())
    assert loads.neurons.sum() * graph.steps == updates
    folded = loads.streaming(loads.synops)
    assert folded.shape == (counts.samples, graph.steps, loads.cores)
    assert np.array_equal(folded.sum(axis=1), loads.synops.sum(axis=1))
    hops = sum((x.hops_x + x.hops_y).sum() for x in loads.layers.values()) / counts.samples
    assert sum(v.sum() for v in loads.links.values()) == pytest.approx(hops)
    seen.update(type(graph.populations[n]) for n in graph.order)


def test_every_kind_of_population_was_placed():
    assert seen == set(ig.POPULATION_CLASSES) - {ig.IntHostCurrent}


def one_by_one(graph, placement, traces):
    """Return events found by following every single message to every single target neuron."""
    home = {(n, i): core for n, parts in placement.of.items() for core, part in parts
            for i in np.ndindex(graph.populations[n].shape)
            if all(a <= x < b for x, (a, b) in zip(i, part.box, strict=True))}  # fmt: skip
    targets: dict[str, list] = {n: [] for n in graph.order}
    for name in placed(graph):
        for projection in graph.populations[name].projections:
            for i in np.ndindex(graph.populations[name].shape):
                part = reach(graph, name, projection, tuple((x, x + 1) for x in i))
                targets[projection.source].append((home[name, i], part))
    found: dict[str, Tally] = {"messages": Tally(), "x": Tally(), "y": Tally(), "chips": Tally(),
                               "synops": Tally(), "into": Tally()}  # fmt: skip
    for trace in traces:
        for name in graph.order:
            if name in mute(graph):
                continue
            for sample, t, *rest in zip(*np.nonzero(trace.outputs[name]), strict=True):
                i, step = tuple(map(int, rest)), int(t) + graph.latency[name]
                met: Tally = Tally()
                for core, part in targets[name]:
                    if all(a <= x < b for x, (a, b) in zip(i, part.box, strict=True)):
                        met[core] += int(part.fan[tuple(
                            x - a for x, (a, _) in zip(i, part.box, strict=True))])  # fmt: skip
                follow(graph, placement, name, home.get((name, i)), trace.first + int(sample), step,
                       {c: n for c, n in met.items() if n}, found)  # fmt: skip
    return found


def follow(graph, placement, name, sender, sample, step, met, found):
    for core, synapses in met.items():
        found["messages"][name, sample] += 1
        found["into"][sample, step, core] += 1
        found["synops"][sample, step, core] += synapses
        if sender is not None:
            (x0, y0), (x1, y1) = map(placement.position, (sender, core))
            found["x"][name, sample] += abs(x1 - x0)
            found["y"][name, sample] += abs(y1 - y0)
            found["chips"][name, sample] += abs(x1 // 3 - x0 // 3) + abs(y1 // 2 - y0 // 2)


@pytest.mark.parametrize("seed", [3, 4, 11])
def test_messages_followed_one_by_one(seed):
    graph, traces = run(seed, hidden=3, steps=3, samples=2, holding=False)
    graph_has = [p for p in graph.populations.values() if isinstance(p, ig.ATTENTION_CLASSES)]
    placement = random_placement(graph, seed)
    assert len(placement.cores) > 3
    assert placement.chips > 1
    _, loads = counted(graph, placement, traces)
    found = one_by_one(graph, placement, traces)
    total = {"messages": 0, "x": 0, "y": 0, "chips": 0}
    for name, sent in loads.layers.items():
        for sample in range(loads.samples):
            for key, value in zip(total, (sent.messages, sent.hops_x, sent.hops_y,
                                          sent.chip_messages), strict=True):  # fmt: skip
                assert value[sample] == found[key][name, sample], (name, key)
                total[key] += int(value[sample])
    assert all(total.values())
    for name, sent in loads.inputs.items():
        assert sent.tolist() == [found["messages"][name, s] for s in range(loads.samples)]
    for index in np.ndindex(loads.messages_in.shape):
        assert loads.messages_in[index] == found["into"][index]
        if not graph_has:  # an attention's state sends on, inside its core
            assert loads.synops[index] == found["synops"][index]


def test_links_carry_the_route_along_the_row_first():
    """One neuron at the left above, its target at the right below: east, east, then south."""
    from neuroav.placement import Core, Placement, Slice

    one = ((0, 1),)
    lif = {"bias_mantissa": np.array([1]), "bias_exponent": 7, "threshold": np.array([1]),
           "decay_u": 4095, "decay_v": 0}  # fmt: skip
    a = ig.IntLif((1,), (ig.IntIdentity("in", 0, 64),), **lif)
    b = ig.IntLif((1,), (ig.IntIdentity("a", 0, 64),), **lif)
    out = ig.IntReadout((1,), (ig.IntIdentity("b", 0, 1),), np.array([0]))
    pops = {"in": ig.IntInput((1,), (), 1), "a": a, "b": b, "out": out}
    from strategies_intgraph import make_deployment

    deployment = make_deployment(pops, "out", 2)
    graph = deployment.integer
    cores = (Core((Slice("a", one),), 0, 0, 0, 0), Core((Slice("b", one),), 0, 2, 1, 0),
             Core((Slice("out", one),), 1, 0, 1, 0))  # fmt: skip
    placement = Placement("test", MESH, cores, 0)
    traces = list(fast.run(deployment, {"in": np.ones((1, 2, 1), np.int32)}))
    fired = {n: int(traces[0].outputs[n].sum()) for n in "ab"}
    assert fired["a"] > 0
    assert fired["b"] > 0
    _, loads = counted(graph, placement, traces)
    east = np.zeros((4, 6))
    east[0, :2] = fired["a"]
    east[1, 2] = fired["b"]  # from chip 0 into chip 1
    south = np.zeros((4, 6))
    south[0, 2] = fired["a"]
    assert np.array_equal(loads.links["east"], east)
    assert np.array_equal(loads.links["south"], south)
    assert not loads.links["west"].any()
    assert not loads.links["north"].any()
    assert loads.layers["a"].chip_messages.tolist() == [0]
    assert loads.layers["b"].chip_messages.tolist() == [fired["b"]]
    assert loads.link_peak == 1
