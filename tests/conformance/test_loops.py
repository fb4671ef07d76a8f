"""Late projections and loops, by hand: what frame reaches which, and what the registers hold."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies_intgraph import make_deployment, random_deployment
from ways import WAYS, forced

from neuroav import integer as ig
from neuroav import navfile
from neuroav.bounds import bounds
from neuroav.errors import OutOfRange, StageError
from neuroav.fixed import lif_step
from neuroav.hardware import load_profile
from neuroav.sim import fast, lava, reference
from neuroav.sim.trace import collect

ARITH = load_profile("loihi2").arithmetic
END = ig.IntReadout(
    (1,), (ig.IntDense("a", 0, np.full((1, 1), 2), 8, "excitatory"),), np.array([0])
)


def neurons(*projections, threshold=100, **changes) -> ig.IntLif:
    """Return one neuron without memory."""
    values = {"bias_mantissa": np.array([0]), "bias_exponent": 0, "decay_u": 4095,
              "threshold": np.array([threshold]), "decay_v": 4096}  # fmt: skip
    return ig.IntLif((1,), projections, **{**values, **changes})


def one_neuron(steps, *projections, **changes):
    pops = {"x": ig.IntInput((1,), (), 3), "a": neurons(*projections, **changes), "end": END}
    return make_deployment(pops, "end", steps)


def spikes(deployment, x, name="a"):
    """Return a population's spikes (samples, steps), after all executors agreed on them."""
    x = {"x": np.asarray(x, np.int32)[..., None]}
    expected = collect(reference.run(deployment, x))
    for way in WAYS:
        with forced(way):
            found = collect(fast.run(deployment, x, batch=2))
        for node, value in expected.items():
            np.testing.assert_array_equal(found[node], value, err_msg=f"{node}, {way}")
    return expected[name][..., 0]


@pytest.mark.parametrize("lag", [1, 2, 3, 7])
def test_a_late_projection_brings_what_was_frames_ago(lag):
    deployment = one_neuron(5, ig.IntIdentity("x", lag, 120, lag=lag))
    x = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1]])
    expected = np.zeros_like(x)
    expected[:, lag:] = x[:, : max(0, 5 - lag)]
    assert np.array_equal(spikes(deployment, x), expected)
    assert deployment.integer.latency == {"x": 0, "a": 1, "end": 2}


def test_a_neuron_keeps_itself_firing_until_the_sample_ends():
    deployment = one_neuron(6, ig.IntIdentity("x", 0, 120), ig.IntIdentity("a", 0, 120, lag=1))
    x = [[0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]]
    assert spikes(deployment, x).tolist() == [[0, 0, 1, 1, 1, 1], [0] * 6, [0, 0, 0, 0, 1, 1]]
    slow = one_neuron(6, ig.IntIdentity("x", 0, 120), ig.IntIdentity("a", 2, 120, lag=3))
    assert spikes(slow, [[1, 0, 0, 0, 0, 0]]).tolist() == [[1, 0, 0, 1, 0, 0]]


@pytest.mark.lava
@pytest.mark.parametrize("options", [{"batch": 1}, {"batch": 2}, {"batch": 1, "conv": "stock"}])
def test_lava_keeps_nothing_from_one_sample_to_the_next(options):
    deployment = one_neuron(4, ig.IntIdentity("x", 0, 120), ig.IntIdentity("a", 1, 120, lag=2))
    x = np.array([[0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
    expected = spikes(deployment, x)
    assert expected.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]]
    found = collect(lava.run(deployment, {"x": x[..., None].astype(np.int32)}, **options))
    assert np.array_equal(found["a"][..., 0], expected)


def test_two_populations_that_read_each_other_need_a_frame_of_lag_each():
    def pair(lag):
        b = neurons(ig.IntIdentity("a", 0, 120))
        a = neurons(ig.IntIdentity("x", 0, 120), ig.IntIdentity("b", lag - 2, 120, lag=lag))
        return make_deployment(
            {"x": ig.IntInput((1,), (), 3), "a": a, "b": b, "end": END}, "end", 6
        )

    assert spikes(pair(2), [[1, 0, 0, 0, 0, 0]]).tolist() == [[1, 0, 1, 0, 1, 0]]
    assert pair(3).integer.groups == (("x",), ("a", "b"), ("end",))
    with pytest.raises(StageError, match="the loop through a, b.* more projections than frames"):
        pair(1)


def test_a_loop_without_lag_and_a_held_one_are_refused():
    with pytest.raises(StageError, match="loop without a delay: a -> a"):
        one_neuron(4, ig.IntIdentity("x", 0, 1), ig.IntIdentity("a", 0, 1))
    held = ig.IntTimeSum((1,), (ig.IntIdentity("x", 0, 1), ig.IntIdentity("a", 9, 1, lag=9)))
    with pytest.raises(StageError, match="a: answers after the whole sample"):
        make_deployment({"x": ig.IntInput((1,), (), 3), "a": held, "end": END}, "end", 4)
    with pytest.raises(StageError, match="lag is -1, must be a whole number"):
        one_neuron(4, ig.IntIdentity("x", 0, 1, lag=-1))


def test_a_reset_that_subtracts_keeps_what_was_above():
    deployment = one_neuron(4, ig.IntIdentity("x", 0, 120), decay_v=0, reset="subtract")
    assert spikes(deployment, [[2, 0, 0, 0]]).tolist() == [[1, 1, 0, 0]]  # 240, 140, 40
    plain = one_neuron(4, ig.IntIdentity("x", 0, 120), decay_v=0)
    assert spikes(plain, [[2, 0, 0, 0]]).tolist() == [[1, 0, 0, 0]]
    u, v, s = lif_step(np.array([0]), np.array([0]), np.array([240]), 0, decay_u=4095, decay_v=0,
                       threshold=100, arith=ARITH, reset="subtract")  # fmt: skip
    assert (u[0], v[0], s[0]) == (240 * 64, 140 * 64, True)


def test_neurons_without_synapses_are_driven_by_their_bias():
    one = ig.IntLif((1,), (), np.array([1]), 0, np.array([0]), 4095, 4096)
    a = neurons(ig.IntIdentity("one", 0, 40), decay_v=0, threshold=100)
    pops = {"x": ig.IntInput((1,), (), 3), "one": one, "a": a, "end": END}
    deployment = make_deployment(pops, "end", 6)
    assert spikes(deployment, [[0] * 6]).tolist() == [[0, 0, 1, 0, 0, 1]]
    assert deployment.integer.latency["one"] == 0


def test_a_leaky_readout_by_hand():
    readout = ig.IntReadout((1,), (ig.IntIdentity("x", 0, 1),), np.array([-3]), 1023, 2048, 4)
    deployment = make_deployment({"x": ig.IntInput((1,), (), 3), "end": readout}, "end", 4)
    found = spikes(deployment, [[2, 0, 1, 3]], "end")
    u = v = 0
    for t, a in enumerate((2, 0, 1, 3)):
        u = int(u * 3072 / 4096) + 16 * a - 3  # int() rounds toward 0
        v = int(v / 2) + u
        assert found[0, t] == v
    assert {b.what for b in bounds(deployment.integer, ARITH)["end"]} == {
        "the readout's current", "the readout accumulator",
    }  # fmt: skip


def test_a_loop_that_leaves_its_registers_is_refused():
    grow = ig.IntSum((1,), (ig.IntIdentity("x", 0, 255), ig.IntIdentity("a", 0, 255, lag=1)))
    pops = {"x": ig.IntInput((1,), (), 3), "a": grow, "end": END}
    deployment, x = make_deployment(pops, "end", 6), {"x": np.full((1, 6, 1), 3, np.int32)}
    for run in (reference.run, fast.run):
        with pytest.raises(OutOfRange, match="a: the graded message reached"):
            list(run(deployment, x))


@settings(max_examples=12, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(st.integers(0, 2**32 - 1))
def test_late_graphs_survive_a_file(tmp_path_factory, seed):
    deployment, x = random_deployment(seed, hidden=3)
    path = tmp_path_factory.mktemp("late") / "net.nav"
    navfile.save(deployment, path)
    loaded = navfile.load(path)
    expected, found = (collect(fast.run(d, x)) for d in (deployment, loaded))
    assert any(v.any() for v in expected.values())
    assert all(np.array_equal(expected[n], found[n]) for n in expected)


def test_the_version_says_what_a_reader_must_know(tmp_path):
    def version(deployment):
        import h5py

        navfile.save(deployment, tmp_path / "net.nav")
        with h5py.File(tmp_path / "net.nav") as file:
            return int(file.attrs["version"])

    assert version(one_neuron(4, ig.IntIdentity("x", 0, 120))) == 1
    assert version(one_neuron(4, ig.IntIdentity("x", 1, 120, lag=1))) == 3
    assert version(one_neuron(4, ig.IntIdentity("x", 0, 120), decay_v=np.array([7]))) == 3


def test_order_and_groups_of_a_graph_without_loops_are_one():
    graph = random_deployment(5, hidden=6, lags=False)[0].integer
    assert not any(graph.loops(g) for g in graph.groups)
    assert tuple(n for (n,) in graph.groups) == graph.order
