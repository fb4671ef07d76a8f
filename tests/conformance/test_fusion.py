"""Low-rank fusion with class search: products of weighted sums over time, bit for bit."""

from __future__ import annotations

import json
from fractions import Fraction

import fusion
import numpy as np
import pytest
import torch
from torch import nn

from neuroav import integer as ig
from neuroav import navfile
from neuroav import nodes as rn
from neuroav.bounds import bounds
from neuroav.counts import Counter, silent_and_saturated
from neuroav.deployment import Deployment, Probe
from neuroav.errors import StageError, UnsupportedNode
from neuroav.models.layers import (
    Add,
    Lif,
    LifParameters,
    Multiply,
    PerStep,
    TimeMean,
    TimeWeightedSum,
)
from neuroav.quantization import MESSAGE_BITS, OPERAND_BITS, STEP_WEIGHT_BITS
from neuroav.report import write_report
from neuroav.sim import fast, lava, real, reference
from neuroav.sim.trace import collect
from neuroav_export import compile_module, lint
from neuroav_export.passes.values import wide_values
from neuroav_export.pipeline import graded_messages, with_winner
from neuroav_export.writers import convert

SUMS = [f"pair_{m}.{side}_sum" for m in "av" for side in ("left", "right")]
PRODUCTS = ["pair_a.product", "pair_v.product"]
KINDS = {"learned": True, "uniform": False}


@pytest.fixture(scope="module")
def deployments() -> dict[str, Deployment]:
    x = fusion.features(256)
    probe = Probe({n: v[:8] for n, v in x.items()}, np.arange(8))
    return {
        kind: compile_module(
            fusion.awake_fusion(learned), x, static=fusion.NAMES, winner=True, probe=probe
        )
        for kind, learned in KINDS.items()
    }


@pytest.fixture(scope="module")
def inputs():
    return fusion.features(32, seed=5)


@pytest.fixture(scope="module")
def outputs(deployments, inputs):
    return {kind: collect(fast.run(d, inputs)) for kind, d in deployments.items()}


# --- equality ---------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_every_population_is_alive(deployments, outputs, kind):
    graph, found = deployments[kind].integer, outputs[kind]
    rates = {n: float((v != 0).mean()) for n, v in found.items()}
    assert silent_and_saturated(graph, rates) == ([], []), rates
    for name, pop in graph.populations.items():
        if isinstance(pop, ig.IntLif):
            assert 0.05 < rates[name] < 0.6, name
        elif not isinstance(pop, (ig.IntHostCurrent, ig.IntWinner)):
            assert found[name].min() < -20, name
            assert found[name].max() > 20, name


@pytest.mark.parametrize("kind", KINDS)
def test_fast_is_the_reference(deployments, inputs, outputs, kind):
    expected = collect(reference.run(deployments[kind], inputs))
    assert expected.keys() == outputs[kind].keys()
    for name, value in expected.items():
        assert np.array_equal(value, outputs[kind][name]), name


@pytest.mark.lava
def test_lava_gives_the_same(deployments, inputs, outputs):
    few = {n: v[:8] for n, v in inputs.items()}
    jobs = [(d, few) for d in deployments.values()]
    for kind, found in zip(deployments, lava.run_many(jobs), strict=True):
        for name, value in found.items():
            assert np.array_equal(value, outputs[kind][name][:8]), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_winner_of_the_last_frame_is_the_prediction(deployments, outputs, kind):
    graph = deployments[kind].integer
    scores, winner = outputs[kind]["search"], outputs[kind]["search.winner"]
    assert graph.output == "search"
    assert (winner.sum(2) == 1).all()
    assert np.array_equal(winner[:, -1].argmax(1), scores[:, -1].argmax(1))
    assert len(np.unique(winner[:, -1].argmax(1))) > 3


def test_both_forms_of_a_dense_host_layer_give_the_same(inputs):
    model, x = fusion.awake_fusion(), fusion.features(64)
    spikes = compile_module(model, x, static=fusion.NAMES, host="spikes")
    current = compile_module(model, x, static=fusion.NAMES)
    a, b = (collect(fast.run(d, inputs)) for d in (spikes, current))
    assert "audio.first" not in a
    assert all(np.array_equal(a[n], b[n]) for n in a)


# --- what was chosen --------------------------------------------------------------------------
def test_sums_of_currents_have_synapses_weights_and_a_shift(deployments):
    for kind, deployment in deployments.items():
        graph = deployment.integer
        for name in [*SUMS, "theta"]:
            pop = graph.populations[name]
            assert [type(p) for p in pop.projections] == [ig.IntDense]
            assert pop.shift > 0
            top = max(pop.weights, default=0)
            assert top == ((1 << STEP_WEIGHT_BITS) - 1 if kind == "learned" else 0)
    products = [deployments["learned"].integer.populations[n] for n in PRODUCTS]
    assert all([type(p) for p in pop.projections] == [ig.IntIdentity] * 2 for pop in products)


@pytest.mark.parametrize("kind", KINDS)
def test_messages_use_the_bits_they_have(deployments, kind):
    """On the sample the compiler saw: more than a quarter, at most half and what rounding adds."""
    found = collect(fast.run(deployments[kind], fusion.features(256)))
    for bits, names in ((OPERAND_BITS, SUMS), (MESSAGE_BITS, [*PRODUCTS, "theta"])):
        for name in names:
            peak = np.abs(found[name]).max() / (1 << bits)
            assert 0.2 < peak < 0.6, name


@pytest.mark.parametrize("kind", KINDS)
def test_scales_say_what_messages_are_worth(deployments, outputs, inputs, kind):
    deployment = deployments[kind]
    floating = collect(real.run(deployment.real, inputs))
    for name in [*SUMS, *PRODUCTS]:
        worth = float(Fraction(*deployment.integer.scales[name]))
        pop = deployment.integer.populations[name]
        expected = floating[name] / worth - (1 - 0.5**pop.shift) / 2  # messages are rounded down
        error = outputs[kind][name] - expected
        assert np.abs(error.mean()) < 0.02 * np.abs(expected).max()
        assert error.std() < 0.15 * expected.std()
    left, right, product = (
        Fraction(*deployment.integer.scales[n]) for n in (*SUMS[:2], "pair_a.product")
    )
    shift = deployment.integer.populations["pair_a.product"].shift
    assert product == left * right * (1 << shift)


def from_spikes(deployment, spikes, inputs):
    """Return the real network's class scores where its second layers of neurons send ``spikes``."""
    graph, values = deployment.real, {}
    for name in graph.order:
        if name in ("audio.lif1", "visual.lif1", *fusion.NAMES):
            given = inputs[name] if name in inputs else spikes[name]
            values[name] = torch.from_numpy(np.moveaxis(given, 1, 0).astype(np.float64))
        else:
            sources = [values[s] for s in graph.inputs[name]]
            values[name] = real.evaluate(graph.nodes[name], sources, graph.dt_s)
    return values[graph.output][0].numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_class_scores_are_close_to_the_real_networks(deployments, outputs, inputs, kind):
    """From the same spikes on; before, 0.3 % of the spikes differ, as they do without products."""
    deployment = deployments[kind]
    scores = outputs[kind]["search"][:, -1] * float(Fraction(*deployment.integer.scales["search"]))
    same = from_spikes(deployment, outputs[kind], inputs)
    floating = collect(real.run(deployment.real, inputs))["search"][:, -1]
    assert np.corrcoef(scores.ravel(), same.ravel())[0, 1] > 0.99
    assert np.corrcoef(scores.ravel(), floating.ravel())[0, 1] > 0.96
    assert np.polyfit(same.ravel(), scores.ravel(), 1)[0] == pytest.approx(1, abs=0.03)


def test_the_real_twin_keeps_what_was_measured(deployments):
    nodes = deployments["learned"].real.nodes
    assert wide_values(deployments["learned"].real) == {*SUMS, *PRODUCTS, "theta"}
    assert all(nodes[n].peak > 0 for n in (*SUMS, *PRODUCTS, "theta"))
    assert np.array_equal(nodes["mix_a"].least_unit, nodes["mix_v"].least_unit)
    assert nodes["search"].least_unit.shape == (fusion.CLASSES,)
    assert isinstance(nodes["theta"], rn.TimeSum)
    assert nodes["theta"].weights.sum() == pytest.approx(1)


# --- everything around ------------------------------------------------------------------------
def test_file_report_counts_and_bounds(deployments, inputs, tmp_path):
    deployment = deployments["learned"]
    navfile.save(deployment, tmp_path / "net.nav")
    again = navfile.load(tmp_path / "net.nav")
    a, b = (collect(fast.run(d, inputs)) for d in (deployment, again))
    assert all(np.array_equal(a[n], b[n]) for n in a)
    write_report([tmp_path / "net.nav"], out=tmp_path / "report", cache_dir=tmp_path)
    layers = json.loads((tmp_path / "report" / "report.json").read_text())["layers"]
    kinds = {layer["name"]: layer["kind"] for layer in layers}
    assert (kinds["theta"], kinds["search.winner"]) == ("time-sum", "winner")
    counter = Counter(deployment.integer)
    for trace in fast.run(deployment, inputs):
        counter.add(trace)
    counts = counter.counts()
    assert counts.synops_per_sample()["search.winner"] > 0  # the scores are sent to it
    assert counts.synops_per_sample()["theta"] > 0
    found = bounds(deployment.integer, deployment.profile.arithmetic)
    for name, parts in found.items():
        if isinstance(deployment.integer.populations[name], (ig.IntReadout, ig.IntSum)):
            assert parts[0].low <= a[name].min()
            assert a[name].max() <= parts[0].high


def test_a_readout_that_only_the_host_reads_sends_nothing(deployments):
    graph = compile_module(fusion.awake_fusion(), fusion.features(8), static=fusion.NAMES).integer
    assert "search" not in graded_messages(graph)
    assert graded_messages(with_winner(graph))["search"] == "sends class scores"
    with pytest.raises(StageError, match="search.winner: is the name of a layer"):
        with_winner(with_winner(graph))


def test_targets_and_formats_that_cannot_say_so(deployments, tmp_path):
    deployment = deployments["learned"]
    for name, message in (
        ("onnx", "theta|pair_a.left_sum: the onnx writer cannot carry IntTimeSum"),
        ("netx", "IntTimeSum|sends graded messages"),
        ("nir", "(Multiply|Product|TimeSum)"),
    ):
        with pytest.raises(UnsupportedNode, match=message):
            convert(deployment, name, tmp_path / f"net.{name}")
    with pytest.raises(UnsupportedNode, match=r"messages are single spikes.*sums over a sample"):
        compile_module(
            fusion.awake_fusion(), fusion.features(8), static=fusion.NAMES, target="loihi1"
        )


def test_lint_finds_nothing_but_the_wait(deployments):
    found = lint(fusion.awake_fusion(), fusion.features(8), static=fusion.NAMES)
    assert {f.rule for f in found} == {"non-causal"}
    assert {f.layer for f in found} == {*SUMS, "theta"}


# --- smaller networks -------------------------------------------------------------------------
class Small(nn.Module):
    """Spikes of counts x -> ``middle(self, spikes)`` -> class scores."""

    def __init__(self, middle, width=6, **layers) -> None:
        super().__init__()
        self.first, self.lif = PerStep(nn.Linear(6, 6)), Lif(LifParameters(v_threshold=0.3))
        self.middle, self.flat = middle, nn.Flatten(2)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.head, self.time_mean = nn.Linear(width, 3), TimeMean()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.time_mean(self.head(self.middle(self, self.lif(self.first(x)))))


def small(middle, width=6, seed=0, **layers):
    """Return (deployment, its integer outputs, the real twin's) of a small network."""
    torch.manual_seed(seed)
    x = {"x": np.random.default_rng(seed).poisson(2.0, (12, 4, 6)).astype(np.int32)}
    model = Small(middle, width, **layers)
    with torch.no_grad():
        model.first.layer.bias.add_(0.3)
    deployment = compile_module(model.eval(), x)
    found = collect(fast.run(deployment, x))
    expected = collect(reference.run(deployment, x))
    assert all(np.array_equal(found[n], expected[n]) for n in expected)
    assert 0.1 < found["lif"].mean() < 0.9
    return deployment, found, collect(real.run(deployment.real, x))


def test_counts_stay_exact():
    """Uniform sums over time of spikes, and their products, drop no bit."""
    layers = {"a": TimeWeightedSum(4, learned=False), "b": TimeWeightedSum(4, learned=False)}
    deployment, found, floating = small(
        lambda m, s: m.product(m.a(s), m.b(m.lif2(m.second(s)))),
        second=nn.Linear(6, 6), lif2=Lif(LifParameters(v_threshold=0.1)), product=Multiply(),
        **layers,
    )  # fmt: skip
    graph = deployment.integer
    assert (graph.populations["a"].weights, graph.populations["a"].shift) == ((), 0)
    assert (graph.scales["a"], graph.scales["product"]) == ((1, 4), (1, 16))
    assert graph.populations["product"].shift == 0
    assert np.array_equal(found["a"], found["lif"].sum(1, keepdims=True).repeat(4, 1))
    assert np.array_equal(found["product"], found["a"] * found["b"])
    assert found["product"].any()
    assert np.array_equal(found["a"] / 4, floating["a"])
    assert deployment.real.nodes["a"].peak is None


def test_spikes_can_be_multiplied():
    deployment, found, floating = small(
        lambda m, s: m.product(s, m.lif2(m.second(s))),
        second=nn.Linear(6, 6), lif2=Lif(LifParameters(v_threshold=0.1)), product=Multiply(),
    )  # fmt: skip
    assert deployment.integer.scales["product"] == (1, 1)
    assert np.array_equal(found["product"], found["lif"] * found["lif2"])
    assert found["product"].any()
    assert floating["product"].any()


def test_steps_of_spikes_weigh_differently():
    torch.manual_seed(1)
    layer = TimeWeightedSum(4)
    with torch.no_grad():
        layer.logits.copy_(torch.tensor([0.0, 1.0, -1.0, 2.0]))
    deployment, found, floating = small(lambda m, s: m.sum(s), sum=layer)
    pop = deployment.integer.populations["sum"]
    assert pop.weights == (2, 6, 1, 15)
    assert [type(p) for p in pop.projections] == [ig.IntIdentity]
    worth = float(Fraction(*deployment.integer.scales["sum"]))
    assert np.abs(found["sum"] * worth - floating["sum"]).max() < 4 * worth / 2
    assert len(np.unique(found["sum"])) > 5


def test_several_layers_meet_in_one_sum():
    """Add of two linear layers straight onto the accumulators, one later than the other."""
    deployment, found, floating = small(
        lambda m, s: m.sum(m.add(m.a(s), m.b(m.lif2(m.second(s))))), width=5,
        a=nn.Linear(6, 5, bias=False), b=nn.Linear(6, 5, bias=False), add=Add(),
        second=nn.Linear(6, 6), lif2=Lif(LifParameters(v_threshold=0.1)), sum=TimeWeightedSum(4),
    )  # fmt: skip
    pop = deployment.integer.populations["sum"]
    assert [p.delay for p in pop.projections] == [1, 0]
    a, b = found["sum"].ravel(), floating["sum"].ravel()
    assert np.corrcoef(a, b)[0, 1] > 0.97
    assert pop.shift > 0


@pytest.mark.parametrize(
    ("middle", "layers", "message"),
    [
        (lambda m, s: m.sum(m.a(s)), {"a": nn.Linear(6, 6), "sum": TimeWeightedSum(4)},
         "sum: sums currents with a bias over the sample, its accumulators have none"),
        (lambda m, s: m.sum(m.norm(m.a(s))),
         {"a": nn.Linear(6, 6, bias=False), "norm": PerStep(nn.BatchNorm1d(6)),
          "sum": TimeWeightedSum(4)}, "sum: sums currents with a bias"),
        (lambda m, s: m.product(m.a(s), s), {"a": nn.Linear(6, 6), "product": Multiply()},
         "product: reads synaptic currents"),
        (lambda m, s: m.add(m.sum(m.a(s)), s),
         {"a": nn.Linear(6, 6, bias=False), "sum": TimeWeightedSum(4), "add": Add()},
         "add: joins values of such different scales"),
    ],
)  # fmt: skip
def test_what_has_no_circuit_is_named(middle, layers, message):
    for layer in layers.values():
        if isinstance(layer, PerStep):
            nn.init.constant_(layer.layer.bias, 0.2)
    with pytest.raises(UnsupportedNode, match=message):
        small(middle, **layers)


class Direct(Small):
    """Sums a linear layer of the input over time, beside the neurons."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = self.lif2(self.add(self.lif(self.first(x)), self.sum(self.a(x))))
        return self.time_mean(self.head(s))


def test_a_static_input_cannot_be_summed_on_the_chip():
    layers = {"a": nn.Linear(6, 6, bias=False), "sum": TimeWeightedSum(4), "add": Add()}
    x = {"x": np.ones((2, 4, 6))}
    with pytest.raises(UnsupportedNode, match="sum: reads a, real values that the host computes"):
        compile_module(Direct(None, **layers, lif2=Lif()).eval(), x, static=("x",))
