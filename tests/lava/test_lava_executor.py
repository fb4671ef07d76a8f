"""Lava's runtime gives what the reference gives, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from strategies_intgraph import make_deployment, random_deployment, random_deployments

from neuroav import integer as ig
from neuroav.errors import OutOfRange, UnsupportedNode
from neuroav.hardware import load_profile
from neuroav.sim import lava, reference
from neuroav.sim.lava.bounds import check_profile, message_bounds
from neuroav.sim.trace import SpikeDigest, collect

pytestmark = pytest.mark.lava

NETWORKS = (
    "every kind, 1 step",
    "every kind, 3 steps",
    "every kind, 8 steps",
    "attention, 3 steps",
    "attention, 8 steps",
    "fusion, 3 steps",
    "fusion, 8 steps",
    "decays",
    "weight forms",
    "identities",
    "strong inhibition",
    "readout with axes",
    "many parts",
)
STOCK_NETWORKS = (
    "every kind, 8 steps",
    "fusion, 3 steps",
    "strong inhibition",
    "readout with axes",
)


def assert_alive(deployment, outputs) -> None:
    """No comparison may pass on silence: every neuron layer fires and rests."""
    for name, pop in deployment.integer.populations.items():
        assert outputs[name].any(), name
        if isinstance(pop, ig.SPIKING_CLASSES):
            assert set(np.unique(outputs[name])) == {0, 1}, name


def assert_equal(found, expected) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype == np.int32
        assert np.array_equal(found[name], value), name


@pytest.fixture(scope="module")
def references(networks):
    return {name: collect(reference.run(*network)) for name, network in networks.items()}


@pytest.fixture(scope="module")
def by_matmul(networks):
    return dict(zip(networks, lava.run_many(list(networks.values())), strict=True))


@pytest.fixture(scope="module")
def by_stock(networks):
    found = lava.run_many([networks[n] for n in STOCK_NETWORKS], conv="stock")
    return dict(zip(STOCK_NETWORKS, found, strict=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_lava_equals_the_reference(networks, references, by_matmul, name):
    deployment, inputs = networks[name]
    assert len(next(iter(inputs.values()))) > 1  # samples run back to back
    assert_alive(deployment, references[name])
    assert_equal(by_matmul[name], references[name])


@pytest.mark.parametrize("name", STOCK_NETWORKS)
def test_lavas_own_convolution_and_delays_give_the_same(references, by_stock, name):
    assert_equal(by_stock[name], references[name])


def test_the_networks_hold_every_kind_and_the_difficult_values(networks):
    populations = [p for d, _ in networks.values() for p in d.integer.populations.values()]
    projections = [p for pop in populations for p in pop.projections]
    # currents of the host: tests/conformance/test_static_inputs.py
    assert {type(p) for p in populations} == set(ig.POPULATION_CLASSES) - {ig.IntHostCurrent}
    # transposed convolutions: the random networks below
    assert {type(p) for p in projections} == {*ig.PROJECTION_CLASSES} - {ig.IntConvTranspose2d}
    assert {0, 1} < {p.delay for p in projections}
    assert max(p.delay for p in projections) > 2
    assert {d.integer.steps for d, _ in networks.values()} == {1, 3, 8}


def test_graded_messages_go_below_zero(networks, references):
    deployment, _ = networks["every kind, 8 steps"]
    assert isinstance(deployment.integer.populations["joined"], ig.IntSum)
    assert (references["every kind, 8 steps"]["joined"] < 0).any()


def test_random_networks_equal_the_reference():
    jobs = [
        random_deployment(
            seed, hidden=1 + seed % 6, steps=(1, 3, 5, 8)[seed % 4], samples=2 + seed % 3
        )
        for seed in range(30)
    ]
    graphs = [d.integer for d, _ in jobs]
    assert sum(any(g.loops(group) for group in g.groups) for g in graphs) > 5
    kinds = {type(p) for g in graphs for pop in g.populations.values() for p in pop.projections}
    assert ig.IntConvTranspose2d in kinds
    for (deployment, inputs), found in zip(jobs, lava.run_many(jobs), strict=True):
        expected = collect(reference.run(deployment, inputs))
        for name, pop in deployment.integer.populations.items():
            assert expected[name].any() or isinstance(pop, ig.IntReadout)
        assert_equal(found, expected)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(random_deployments())
def test_the_networks_of_the_strategy_are_alive(network):
    deployment, inputs = network
    outputs = collect(reference.run(deployment, inputs))
    assert len(deployment.integer.inputs) == 2
    for name, pop in deployment.integer.populations.items():
        assert outputs[name].any() or isinstance(pop, ig.IntReadout)


def test_run_yields_traces_with_states_and_reports_progress(small_network):
    deployment, inputs = small_network(5)
    reports: list[tuple[int, int]] = []
    traces = list(
        lava.run(
            deployment,
            inputs,
            batch=2,
            states=True,
            progress=lambda *report: reports.append(report),
        )
    )
    expected = list(reference.run(deployment, inputs, states=True))
    assert [(t.first, t.samples) for t in traces] == [(0, 2), (2, 2), (4, 1)]
    assert_equal(collect(traces), collect(expected))
    states = np.concatenate([t.states["edges"] for t in traces])
    assert np.array_equal(states, np.concatenate([t.states["edges"] for t in expected]))
    assert len(np.unique(states)) > 20
    assert reports[-1] == (5, 5)
    assert reports == sorted(set(reports))


def test_the_digest_is_the_references(small_network):
    deployment, inputs = small_network(4)
    digests = []
    for executor in (lava.run, reference.run):
        digest = SpikeDigest(deployment.integer)
        for trace in executor(deployment, inputs):
            assert trace.outputs["edges"].any()
            digest.add(trace)
        digests.append(digest.hexdigest())
    assert digests[0] == digests[1]


def test_no_samples_give_no_traces(small_network):
    assert list(lava.run(*small_network(0))) == []
    assert lava.run_many([]) == []


# --- values that leave their registers -------------------------------------------------------
def _one_layer(population, count: int):
    """input -> ``population`` ('lif', 'or', 'sum' or 'readout') with the largest weights."""
    weight = np.full((2, 300), 254)
    synapses = (ig.IntDense("in", 0, weight, 8, "excitatory"),)
    neurons = {
        "lif": ig.IntLif((2,), synapses, np.array(0), 0, np.array(100), 4095, 2048),
        "or": ig.IntOr((2,), synapses),
        "sum": ig.IntSum((2,), synapses),
        "readout": ig.IntReadout((2,), synapses, np.array(0)),
    }
    populations = {"in": ig.IntInput((300,), (), 255), "layer": neurons[population]}
    if population != "readout":
        populations["end"] = ig.IntReadout((2,), (ig.IntIdentity("layer", 0, 1),), np.array(0))
    deployment = make_deployment(populations, list(populations)[-1], 3)
    return deployment, {"in": np.full((2, 3, 300), count)}


def _voltage():
    """A voltage without leak that grows past its register while every current fits."""
    synapses = (ig.IntDense("in", 0, np.full((1, 8), 254), 8, "excitatory"),)
    deployment = make_deployment(
        {
            "in": ig.IntInput((8,), (), 60),
            "layer": ig.IntLif((1,), synapses, np.array(0), 0, np.array(131071), 4095, 0),
            "end": ig.IntReadout((1,), (ig.IntIdentity("layer", 0, 1),), np.array(0)),
        },
        "end",
        3,
    )
    return deployment, {"in": np.full((1, 3, 8), 60)}


def _convolution():
    taps = (
        ig.IntConv2d(
            "in", 0, np.full((1, 40, 3, 3), 254), (1, 1), (0, 0), (1, 1), 1, 8, "excitatory"
        ),
    )
    deployment = make_deployment(
        {
            "in": ig.IntInput((40, 3, 3), (), 255),
            "layer": ig.IntReadout((1, 1, 1), taps, np.array(0)),
        },
        "layer",
        1,
    )
    return deployment, {"in": np.full((1, 1, 40, 3, 3), 255)}


def _doubled(middle, count: int, steps: int = 2):
    """input -> sum -> ``middle`` -> readout."""
    populations = {
        "in": ig.IntInput((1,), (), 1 << 20),
        "sum": ig.IntSum((1,), (ig.IntIdentity("in", 0, 1),)),
        "layer": middle,
        "end": ig.IntReadout((1,), (ig.IntIdentity("layer", 0, 1),), np.array([0])),
    }
    return make_deployment(populations, "end", steps), {"in": np.full((2, steps, 1), count)}


def _squared(shift: int):
    """A product of two messages of one source; int32 wraps it back to 0 at 2^16."""
    ports = tuple(ig.IntIdentity("sum", 0, 1, port=port) for port in (0, 1))
    return ig.IntProduct((1,), ports, shift)


def _counted(weights, shift: int):
    return ig.IntTimeSum((1,), (ig.IntIdentity("sum", 0, 255),), weights, shift)


OVERFLOWS = {
    "product that wraps": (_doubled(_squared(16), 1 << 16), "layer: the product reached 42949672"),
    "product": (_doubled(_squared(0), 2897), "layer: the product reached 8392609"),
    "message of a product": (
        _doubled(_squared(4), 12000),
        "layer: the product's message reached 9000000",
    ),
    "count": (_doubled(_counted((), 9), 1 << 15), "layer: the count over a sample reached"),
    "weighted count": (
        _doubled(_counted((-255, 1), 9), 1 << 8),
        "layer: the count over a sample reached -16581120",
    ),
    "current": (_one_layer("lif", 2), "layer: the synaptic current reached"),
    "voltage": (_voltage(), "layer: the membrane voltage reached"),
    "or": (_one_layer("or", 2), "layer: the synaptic current reached"),
    "message": (_one_layer("sum", 200), "layer: the graded message reached"),
    "readout": (_one_layer("readout", 60), "layer: the readout accumulator reached"),
    "convolution": (_convolution(), "layer from in: the sum of the convolution spans"),
}


@pytest.mark.parametrize("case", OVERFLOWS)
def test_what_the_reference_refuses_is_refused_by_name(case):
    network, message = OVERFLOWS[case]
    with pytest.raises(OutOfRange):
        list(reference.run(*network))
    with pytest.raises(OutOfRange, match=message):
        list(lava.run(*network))


def test_lavas_own_convolution_refuses_too():
    with pytest.raises(OutOfRange, match="layer from in: the sum of the convolution spans"):
        lava.run_many([_convolution()], conv="stock")


def test_values_before_the_first_frame_are_not_checked():
    """While the first frame is on its way the bias stands alone and overflows the readout."""
    chain: dict[str, ig.Population] = {"in": ig.IntInput((30,), (), 255)}
    for name, source in zip("abcdefg", ["in", *"abcdef"], strict=True):
        chain[name] = ig.IntSum((30,), (ig.IntIdentity(source, 0, 1),))
    inhibition = (ig.IntDense("g", 0, np.full((1, 30), -255), 8, "inhibitory"),)
    bias = 30 * 255 * 255 + 50
    chain["end"] = ig.IntReadout((1,), inhibition, np.array([bias]))
    deployment = make_deployment(chain, "end", 8)
    inputs = {"in": np.full((2, 8, 30), 255)}
    assert deployment.integer.latency["end"] * bias > 1 << 23
    (found,) = lava.run_many([(deployment, inputs)])
    assert np.array_equal(found["end"][:, :, 0], [range(50, 450, 50)] * 2)


def test_messages_that_the_sums_of_their_readers_cannot_hold_are_refused():
    """Lava adds in 32 bits and wraps; what the reader of a message has room for is its limit."""

    def network(count: int):
        wide = ig.IntDense("sum", 0, np.full((1, 1024), 254), 8, "mixed")
        populations = {
            "in": ig.IntInput((1024,), (), 1 << 20),
            "sum": ig.IntSum((1024,), (ig.IntIdentity("in", 0, 1),)),
            "layer": ig.IntReadout((1,), (wide,), np.array([0])),
        }
        deployment = make_deployment(populations, "layer", 1)
        counts = np.zeros((1, 1, 1024), int)
        counts[..., 0] = count
        return deployment, {"in": counts}

    room = (2**31 - 1) // (254 * 1024)
    deployment, inputs = network(room)
    arith = deployment.profile.arithmetic
    assert message_bounds(deployment.integer, arith)["sum"] == room
    assert_equal(collect(lava.run(deployment, inputs)), collect(reference.run(deployment, inputs)))
    with pytest.raises(OutOfRange, match=f"sum: the graded message reached {room + 1}, .*{room};"):
        list(lava.run(*network(room + 1)))


def test_sums_beyond_32_bits_are_refused_beforehand():
    synapses = (ig.IntDense("in", 0, np.full((1, 5000), 255), 8, "excitatory"),)
    deployment = make_deployment(
        {
            "in": ig.IntInput((5000,), (), 2000),
            "layer": ig.IntReadout((1,), synapses, np.array(0)),
        },
        "layer",
        1,
    )
    with pytest.raises(UnsupportedNode, match="layer: its synaptic sum can reach 2550000000"):
        message_bounds(deployment.integer, deployment.profile.arithmetic)


def test_a_profile_with_another_arithmetic_is_refused():
    profile = load_profile("loihi2")
    check_profile(profile)
    other = profile.model_copy(
        update={
            "numeric": profile.numeric.model_copy(update={"input_shift": 5, "payload_bits": 32})
        }
    )
    with pytest.raises(UnsupportedNode, match=r"input_shift is 5, .*payload_bits is 32"):
        check_profile(other)
