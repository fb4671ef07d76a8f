"""The mapper: every neuron on one core, no limit exceeded, the same cores every time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limits import changed, counted, graph_of
from strategies_intgraph import random_deployment

from neuroav import integer as ig
from neuroav.counts import mean_messages
from neuroav.errors import DoesNotFit, ProfileError
from neuroav.hardware import list_profiles, load_profile
from neuroav.loads import LoadCounter
from neuroav.mapping import flows as flow
from neuroav.mapping.mapper import map_graph, mesh_of, plan, unmapped, utilisation
from neuroav.mapping.needs import RESOURCES, Costs, layer_of
from neuroav.mapping.split import Splitter, prices
from neuroav.mapping.usage import usage
from neuroav.placement import Slice, placed, verify_placement
from neuroav.sim import reference

LOIHI2 = load_profile("loihi2")
BOARD = changed("loihi2-kapoho-point", topology__chips=64)


def conv(source: str, out: int, inputs: int, size: int = 3, **options) -> ig.IntConv2d:
    weight = np.arange(1, out * inputs * size * size + 1).reshape(out, inputs, size, size) % 50 + 1
    values = {"stride": (1, 1), "padding": (size // 2,) * 2, "dilation": (1, 1), "groups": 1}
    return ig.IntConv2d(
        source, 0, weight=weight, weight_bits=8, sign_mode="mixed", **{**values, **options}
    )


def lif(shape, *projections) -> ig.IntLif:
    bias, threshold = np.zeros((1,) * len(shape), np.int64), np.ones((1,) * len(shape), np.int64)
    return ig.IntLif(shape, projections, bias, 0, threshold, 4095, 2048)


def dense(source: str, weight) -> ig.IntDense:
    return ig.IntDense(
        source, 0, weight=np.asarray(weight, np.int64), weight_bits=8, sign_mode="mixed"
    )


@pytest.fixture(scope="module")
def network() -> ig.IntGraph:
    """Two convolutions, a pooling, class scores."""
    return graph_of(
        {
            "x": ig.IntInput((2, 16, 16), (), 1),
            "a": lif((8, 16, 16), conv("x", 8, 2)),
            "pool": ig.IntOr((8, 8, 8), (ig.IntPool("a", 0, (2, 2), (2, 2), (0, 0)),)),
            "b": lif((16, 8, 8), conv("pool", 16, 8)),
            "out": ig.IntReadout((5,), (dense("b", np.ones((5, 1024))),), np.zeros(5, np.int64)),
        },
        "out",
    )


# --- against a count neuron by neuron ----------------------------------------------------------
limits = st.fixed_dictionaries(
    {
        "core__neurons": st.sampled_from((None, 40, 300)),
        "core__memory_synapse": st.sampled_from((None, 400, 4000)),
        "core__memory_total": st.sampled_from((None, 3000, 9000)),
        "core__axons_in": st.sampled_from((None, 150, 600)),
        "core__axons_out": st.sampled_from((None, 300, 2000)),
        "core__programs": st.sampled_from((None, 1, 2)),
        "layout__convolution_shared": st.booleans(),
    }
)


def needs_of(graph, cores, profile) -> dict[str, np.ndarray]:
    """What every core needs on a chip that unrolls convolutions, by resource; no memory else."""
    found = counted(graph, cores)
    costs = Costs.of(profile)
    layers = {n: layer_of(graph, n, costs) for n in placed(graph)}
    kinds = [len({layers[s.population].program for s in core}) for core in cores]
    found["programs"] = np.array(kinds)
    if costs.shared:
        return found
    bits = found["bits"] + found["synapses"] * costs.synapse_overhead_bits
    found["memory_synapse"] = np.ceil(bits / 8 - 1e-6)
    found["memory_total"] = (
        found["memory_synapse"]
        + found["neurons"] * costs.neuron_bytes
        + found["delayed"] * costs.delay_slot_bytes
        + found["programs"] * costs.program_bytes
        + found["axons_in"] * costs.axon_in_bytes
        + found["axons_out"] * costs.axon_out_bytes
    )
    return found


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), limits, st.booleans())
def test_every_limit_is_kept_and_every_neuron_placed(seed, limits, balance):
    deployment, inputs = random_deployment(seed, hidden=4, steps=3, samples=1)
    graph, profile = deployment.integer, changed(BOARD, **limits)
    messages = mean_messages(graph, reference.run(deployment, inputs))
    cores, problems = (), ()
    try:
        cores = plan(graph, profile, messages, balance=balance)
    except DoesNotFit as error:
        problems = error.problems
    assert bool(cores) != bool(problems)
    assert all(excess.key.startswith("core.") for excess in problems)
    if problems:
        return
    assert_covered(graph, cores)
    found = needs_of(graph, cores, profile)
    for key, most in limits.items():
        name = key.partition("__")[2]
        if name in found and most is not None:
            assert (found[name] <= most).all(), name


def assert_covered(graph, cores):
    for name in placed(graph):
        covered = np.zeros(graph.populations[name].shape, int)
        for part in (part for core in cores for part in core if part.population == name):
            covered[part.index] += 1
        assert (covered == 1).all(), name


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_usage_is_what_is_counted_neuron_by_neuron(seed, together):
    deployment, _ = random_deployment(seed, hidden=5, steps=3, samples=1)
    graph = deployment.integer
    profile = changed(BOARD, core__neurons=200, layout__convolution_shared=False)
    try:
        cores = plan(graph, profile, balance=not together)
    except DoesNotFit:  # a head of more neurons
        return
    layers = {n: layer_of(graph, n, Costs.of(profile)) for n in placed(graph)}
    found = usage(layers, cores, Costs.of(profile), flow.flows(graph, cores))
    expected = needs_of(graph, cores, profile)
    for number, name in enumerate(RESOURCES):
        assert np.allclose(found.needs[:, number], expected[name], rtol=0, atol=1e-6), name


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_the_bounds_that_layers_are_split_by_are_met_by_every_slice(seed):
    deployment, _ = random_deployment(seed, hidden=5, steps=3, samples=1)
    graph, profile = deployment.integer, changed(BOARD, core__neurons=60)
    splitter = Splitter.of(graph, prices(graph, profile, dict.fromkeys(graph.order, 1.0)))
    split = splitter.split()
    parts = [
        (Slice(n, tuple(map(tuple, box))),) for n, g in split.grids.items() for box in g.boxes()
    ]
    layers = {n: c.layer for n, c in splitter.choices.items()}
    found = usage(layers, parts, splitter.prices.costs, flow.flows(graph, parts)).needs
    for (part,), needs in zip(parts, found, strict=True):
        assert (needs <= np.ceil(split.needs[part.population]) + 1e-6).all(), part


def test_expected_messages_are_those_of_a_run():
    deployment, inputs = random_deployment(7, hidden=5, steps=4, samples=3)
    graph = deployment.integer
    messages = mean_messages(graph, reference.run(deployment, inputs))
    cores = plan(graph, changed(BOARD, core__neurons=60), messages)
    found = flow.flows(graph, cores, messages)
    placement = map_graph(graph, changed(BOARD, core__neurons=60), messages)
    counter = LoadCounter(graph, placement)
    for trace in reference.run(deployment, inputs):
        counter.add(trace)
    loads = counter.loads()
    sent = sum(v.messages.mean() for v in loads.layers.values())
    assert sent > 10
    assert found.messages.sum() == pytest.approx(sent)
    inner = {n for n, p in graph.populations.items() if isinstance(p, ig.ATTENTION_CLASSES)}
    assert not inner  # their own synaptic operations are not in the flows
    assert found.synops == pytest.approx(loads.synops.sum(axis=1).mean(axis=0))


# --- by hand -----------------------------------------------------------------------------------
def needs(graph, profile, name: str) -> dict[str, float]:
    """What one slice with the whole layer needs at most."""
    splitter = Splitter.of(graph, prices(graph, profile, dict.fromkeys(graph.order, 1.0)))
    whole = splitter.split()
    assert whole.grids[name].parts == 1
    return dict(zip(RESOURCES, whole.needs[name].tolist(), strict=True))


def test_needs_of_a_convolution_by_hand(network):
    kernel = 16 * 8 * 9 * (8 + 0.16) / 8
    found = needs(network, LOIHI2, "b")
    assert found["memory_synapse"] == pytest.approx(kernel)
    assert (found["neurons"], found["axons_in"], found["axons_out"]) == (1024, 512, 1024)
    assert found["memory_total"] == pytest.approx(kernel + 1024 * 16 + 128 + 512 * 4 + 1024 * 4)
    rows = np.convolve(np.ones(8), np.ones(3), "same").sum()  # taps inside the frame along an axis
    unrolled = needs(network, changed(LOIHI2, layout__convolution_shared=False), "b")
    assert unrolled["memory_synapse"] == pytest.approx(16 * 8 * rows**2 * (8 + 0.16) / 8)


def test_needs_of_pools_relays_and_sums_by_hand():
    graph = graph_of(
        {
            "x": ig.IntInput((4, 6, 6), (), 3),
            "relay": ig.IntSum((4, 6, 6), (ig.IntIdentity("x", 0, -5),)),
            "pool": ig.IntOr((4, 3, 3), (ig.IntPool("relay", 0, (2, 2), (2, 2), (0, 0)),)),
            "mean": ig.IntSum((4,), (ig.IntSpatialSum("pool", 0),)),
            "all": ig.IntSum((148,), (ig.IntPlace("mean", 1, 1, 0, 148),
                                      ig.IntPlace("relay", 0, 1, 4, 148))),
            "spread": ig.IntProduct((4, 3, 3), (ig.IntSpread("mean", 0, (3, 3)),
                                                ig.IntIdentity("pool", 1, 1, port=1))),
        },
        "all",
    )  # fmt: skip
    shared, unrolled = LOIHI2, changed(LOIHI2, layout__convolution_shared=False)
    weights = {  # stored and unrolled weights, bits of one
        "relay": (4, 144, 4),  # -5: three bits and sign
        "pool": (16, 144, 1),
        "mean": (4, 36, 1),
        "all": (148, 148, 1),
        "spread": (8, 72, 1),
    }
    for name, (stored, every, bits) in weights.items():
        for profile, count in ((shared, stored), (unrolled, every)):
            found = needs(graph, profile, name)["memory_synapse"]
            assert found == pytest.approx(count * (bits + 0.16) / 8), name
    assert needs(graph, LOIHI2, "relay")["axons_out"] == 288  # two readers
    assert needs(graph, LOIHI2, "spread")["memory_total"] == pytest.approx(
        8 * 1.16 / 8 + 36 * (16 + 4) + 128 + (4 + 36) * 4
    )


def test_needs_of_attention_by_hand():
    parts = tuple(ig.IntIdentity(n, 0, 1, port=i) for i, n in enumerate("qkv"))
    lifs = {n: lif((8, 2, 3), conv("x", 8, 1)) for n in "qkv"}
    spatial = ig.IntSpatialAttention((8, 2, 3), parts, 2, 3, "key-value")
    temporal = ig.IntTemporalAttention((8, 2, 3), parts, 2, 3, "score", False)
    graph = graph_of({"x": ig.IntInput((1, 2, 3), (), 1), **lifs, "s": spatial, "t": temporal}, "s")
    found = needs(graph, LOIHI2, "s")
    assert found["neurons"] == 8 * 4
    assert found["memory_synapse"] == pytest.approx((3 * 8 * 4 + 32 * 6) * 1.16 / 8)
    found = needs(graph, LOIHI2, "t")
    assert found["neurons"] == 2 * 6 * 4**2
    assert found["memory_synapse"] == pytest.approx((3 * 48 * 4 + 192 * 4) * 1.16 / 8)
    assert found["axons_in"] == 3 * 48


def test_slices_of_the_same_channels_share_their_kernel(network):
    halves = [Slice("b", ((0, 16), (0, 4), (0, 8))), Slice("b", ((0, 16), (4, 8), (0, 8)))]
    others = [Slice("b", ((0, 8), (0, 8), (0, 8))), Slice("b", ((8, 16), (0, 8), (0, 8)))]
    costs = Costs.of(LOIHI2)
    layers = {"b": layer_of(network, "b", costs)}
    kernel = np.ceil(16 * 8 * 9 * (8 + 0.16) / 8)
    for slices in (halves, others):
        flows = flow.flows(network, [slices])
        found = usage(layers, [slices], costs, flows).needs[0]
        assert found[RESOURCES.index("memory_synapse")] == kernel
        assert found[RESOURCES.index("axons_in")] == 512


# --- splitting and packing ---------------------------------------------------------------------
def test_a_kernel_too_large_is_split_by_channels_and_a_frame_too_large_by_places():
    graph = graph_of(
        {
            "x": ig.IntInput((1, 64, 64), (), 1),
            "wide": lif((4, 64, 64), conv("x", 4, 1)),
            "deep": lif((64, 4, 4), conv("small", 64, 256)),
            "small": ig.IntInput((256, 4, 4), (), 1),
        },
        "wide",
    )
    splitter = Splitter.of(graph, prices(graph, LOIHI2, dict.fromkeys(graph.order, 1.0)))
    found = {n: g.parts_along for n, g in splitter.split().grids.items()}
    assert found["deep"] == (2, 1, 1)  # 147,456 weights
    assert found["wide"][0] == 1
    assert np.prod(found["wide"]) == 2


def test_heads_and_what_competes_stay_together():
    parts = tuple(ig.IntIdentity(n, 0, 1, port=i) for i, n in enumerate("qkv"))
    lifs = {n: lif((12, 4, 4), conv("x", 12, 1)) for n in "qkv"}
    spatial = ig.IntSpatialAttention((12, 4, 4), parts, 3, 0, "key-value")
    graph = graph_of(
        {
            "x": ig.IntInput((1, 4, 4), (), 1),
            **lifs,
            "s": spatial,
            "t": ig.IntTemporalAttention((12, 4, 4), parts, 3, 0, "key-value", False),
            "mixed": ig.IntTemporalAttention((12, 4, 4), parts, 3, 0, "key-value", True),
            "best": ig.IntWinner((12, 4, 4), (ig.IntIdentity("s", 0, 1),)),
        },
        "best",
    )
    tight = changed(BOARD, core__neurons=200)
    placement = map_graph(graph, tight)  # verifies heads
    assert len(placement.of["best"]) == 1
    assert {part.box[0] for _, part in placement.of["mixed"]} == {(0, 12)}
    assert len(placement.of["mixed"]) >= 4
    assert len(placement.of["t"]) >= 4


def test_small_layers_share_cores_with_what_they_read(network):
    assert len(plan(network, LOIHI2, balance=False)) == 1
    alone = changed(LOIHI2, core__programs=1)
    cores = plan(network, alone, balance=False)
    kinds = [{type(network.populations[s.population]) for s in core} for core in cores]
    assert all(len(k) == 1 for k in kinds)
    assert {s.population for s in cores[0]} == {"a", "b"}  # one program


# --- even load ---------------------------------------------------------------------------------
def busiest(graph, cores, messages=None) -> float:
    """Load of the busiest core in ns per sample: 34 per neuron and step, 0.4 per synapse met."""
    neurons = counted(graph, cores)["neurons"]
    synops = flow.flows(graph, cores, messages).synops
    return float((neurons * graph.steps * 34.0 + synops * 0.4).max())


def test_free_cores_of_the_chip_even_the_load(network):
    packed, even = plan(network, LOIHI2, balance=False), plan(network, LOIHI2)
    assert len(packed) == 1
    assert 20 < len(even) <= 120
    assert busiest(network, even) < busiest(network, packed) / 20
    assert busiest(network, even) == pytest.approx(4 * 1770, rel=0.4)  # no shorter step exists


def test_a_busy_layer_gets_more_cores():
    shape, weight = (64,), np.ones((64, 64))
    graph = graph_of(
        {
            "x": ig.IntInput(shape, (), 1),
            "busy": lif(shape, dense("x", weight)),
            "idle": lif(shape, dense("y", weight)),
            "y": ig.IntInput(shape, (), 1),
        },
        "idle",
    )
    profile = changed(LOIHI2, topology__cores_usable=6, time__step_floor=0, time__barrier=0)
    messages = {n: np.full(shape, 400.0 if n in ("x", "busy") else 0.1) for n in graph.order}
    placement = map_graph(graph, profile, messages)
    assert len(placement.of["busy"]) > len(placement.of["idle"])


def test_chips_that_are_needed_anyway_are_filled():
    graph = graph_of(
        {
            "x": ig.IntInput((64, 32, 32), (), 1),
            "a": ig.IntOr((64, 32, 32), (ig.IntIdentity("x", 0, 1),)),
        },
        "a",
    )
    two = changed("loihi2-kapoho-point", topology__cores_usable=12, core__neurons=4096)
    assert len(plan(graph, two, balance=False)) == 16
    assert 22 <= len(plan(graph, two)) <= 24


# --- the whole ---------------------------------------------------------------------------------
def test_same_seed_same_placement(network):
    messages = {n: np.ones(p.shape) for n, p in network.populations.items()}
    profile = changed(LOIHI2, core__neurons=200, topology__cores_usable=25)
    first, again = (map_graph(network, profile, messages, seed=3) for _ in range(2))
    assert first == again
    assert len(first.cores) > 20
    assert first.seed == 3
    assert first.profile == "loihi2"
    verify_placement(network, first)
    other = map_graph(network, profile, messages, seed=4)
    assert [c.slices for c in other.cores] == [c.slices for c in first.cores]


def test_utilisation_by_hand(network):
    found = utilisation(network, map_graph(network, LOIHI2, balance=False), LOIHI2)
    assert (found["cores"], found["chips"], found["cores_share"]) == (1, 1, 1 / 120)
    neurons = 8 * 256 + 8 * 64 + 16 * 64 + 5
    share = pytest.approx(neurons / 8192)
    assert found["resources"]["neurons"] == {"mean": share, "max": share, "limit": 8192}
    assert set(found["resources"]) == {"neurons", "memory_synapse", "memory_total"}
    assert found["binds"] == "memory_total"
    assert found["lower_bounds"] == {}
    (core,) = found["table"]
    assert (core["chip"], core["slot"], core["neurons"]) == (0, 0, neurons)
    assert core["programs"] == 3
    assert core["axons_in"] == 2 * 256 + 8 * 256 + 8 * 64 + 16 * 64
    assert core["axons_out"] == 8 * 256 + 8 * 64 + 16 * 64
    assert core["state_bytes"] == 16 * neurons
    assert core["slices"][0] == ["a", [[0, 8], [0, 16], [0, 16]]]


def test_unknown_costs_are_named_and_their_sums_are_lower_bounds(network):
    profile = changed(LOIHI2, layout__axon_in_bytes=None, layout__neuron_bytes=None)
    found = utilisation(network, map_graph(network, profile, balance=False), profile)
    unknown = ["layout.neuron_bytes", "layout.axon_in_bytes"]
    assert found["lower_bounds"] == {"state_bytes": unknown[:1], "memory_total": unknown}
    (core,) = found["table"]
    assert core["memory_total"] is None
    assert core["state_bytes"] is None
    assert core["memory_synapse"] > 0


def test_a_target_without_a_grid_is_refused(network):
    assert unmapped(LOIHI2) == ""
    assert "topology.routers_x" in unmapped(load_profile("ideal"))
    with pytest.raises(ProfileError, match="speck2f: topology.routers_x, .* are unknown"):
        map_graph(network, load_profile("speck2f"))
    assert plan(network, load_profile("ideal")) == (plan(network, LOIHI2, balance=False))


@pytest.mark.parametrize("name", list_profiles())
def test_meshes_of_the_shipped_profiles_have_seats_for_their_cores(name):
    profile = load_profile(name)
    if unmapped(profile):
        return
    mesh = mesh_of(profile)
    assert mesh.chips == profile.topology.chips.value
    assert 1 <= mesh.usable <= mesh.routers_x * mesh.routers_y * mesh.cores_per_router


def test_a_board_with_a_broken_row_is_refused():
    """A seat on the chip that is not there would be a core that is not there."""
    topology = load_profile("loihi2-kapoho-point").topology
    seven = topology.chips.model_copy(update={"value": 7})
    profile = load_profile("loihi2-kapoho-point").model_copy(
        update={"topology": topology.model_copy(update={"chips": seven})}
    )
    with pytest.raises(ProfileError, match=r"topology.chips is 7, in rows of topology.chips_x \d"):
        mesh_of(profile)
