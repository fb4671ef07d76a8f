"""Each pass: run before, apply, run after, compare; names and shapes at the boundary unchanged."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import samples
import torch
from torch import nn

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav import quantization as qz
from neuroav.errors import ProfileError, UnsupportedNode
from neuroav.graph import SpikingGraph
from neuroav.hardware import load_profile
from neuroav.models.layers import (
    Add,
    Gain,
    Lif,
    LifParameters,
    MaskAttention,
    PerStep,
    SpatialMean,
    TimeMean,
)
from neuroav.sim import fast, real, reference
from neuroav.sim.trace import collect
from neuroav.stages import verify_graph, verify_integer
from neuroav_export import compile_module
from neuroav_export.passes.fold_norm import fold_norm
from neuroav_export.passes.lower import lower
from neuroav_export.pipeline import compile_graph
from neuroav_export.trace import trace

ARITH = load_profile("loihi2").arithmetic


@pytest.fixture(scope="module")
def inputs():
    return samples.poisson_inputs(6, 4)


@pytest.fixture(scope="module")
def model():
    return samples.warmed_model("add").double()


@pytest.fixture(scope="module")
def traced(model, inputs):
    return trace(model, {n: np.moveaxis(v, 1, 0) for n, v in inputs.items()})


def scores(graph, inputs):
    return collect(real.run(graph, inputs))[graph.output]


def check_pass(apply, graph, inputs, stage):
    """Apply, verify, compare class scores exactly to float32 rounding; boundary unchanged."""
    after = verify_graph(apply(graph))
    before_scores = scores(graph, inputs)
    assert np.ptp(before_scores) > 0.01
    np.testing.assert_allclose(scores(after, inputs), before_scores, rtol=1e-6, atol=1e-7)
    assert after.stage == stage
    assert after.input_names == graph.input_names
    assert after.shapes[after.output] == graph.shapes[graph.output]
    return after


def test_traced_graph_gives_the_modules_spikes_layer_by_layer(model, traced, inputs):
    spikes = {}
    for name, module in model.named_modules():
        if isinstance(module, Lif):
            module.register_forward_hook(
                lambda m, i, out, name=name: spikes.__setitem__(name, out.numpy().copy())
            )
    with torch.no_grad():
        model(*[torch.from_numpy(np.moveaxis(inputs[n], 1, 0)).double() for n in inputs])
    values = collect(real.run(traced, inputs))
    assert len(spikes) == 10
    for name, value in spikes.items():
        assert 0 < value.mean() < 0.9, name
        assert np.array_equal(np.moveaxis(value, 1, 0), values[name]), name


def test_fold_norm(traced, inputs):
    folded = check_pass(fold_norm, traced, inputs, "folded")
    assert not any(isinstance(n, rn.BatchNorm) for n in folded.nodes.values())


def test_lower(traced, inputs):
    lowered = check_pass(lower, fold_norm(traced), inputs, "lowered")
    kinds = {type(n) for n in lowered.nodes.values()}
    assert rn.OrPool2d in kinds
    assert not kinds & {rn.MaxPool2d, rn.SpatialMean, rn.TimeMean}
    assert isinstance(lowered.nodes[lowered.output], rn.Readout)


def chain(*modules):
    """A traced one-input network of these modules in sequence, on (1, 4, 4) frames."""
    net = nn.Sequential(*modules).double()
    return trace(net, {"x": np.ones((3, 2, 1, 4, 4))})


def conv(inputs=1, outputs=2):
    return PerStep(nn.Conv2d(inputs, outputs, 3, padding=1))


HEAD = (SpatialMean(), nn.Linear(2, 3), TimeMean())


@pytest.mark.parametrize(
    ("graph", "apply", "message"),
    [
        (lambda: chain(PerStep(nn.BatchNorm2d(1)), conv(), Lif(), *HEAD), fold_norm,
         r"0: batch norm follows x \(Input\)"),
        (lambda: chain(conv(), PerStep(nn.MaxPool2d(2)), Lif(), *HEAD), lower,
         r"1: max pooling reads 0 \(Conv2d\), which is not binary"),
        (lambda: chain(conv(), Lif()), lower, "1: the network ends in Lif"),
        (lambda: chain(conv(), Lif(), SpatialMean(), nn.Linear(2, 3)), lower,
         "3: class scores are never averaged over time"),
    ],
)  # fmt: skip
def test_real_passes_name_what_they_cannot_do(graph, apply, message):
    with pytest.raises(UnsupportedNode, match=message):
        apply(graph())


class MaskedPool(nn.Module):
    """OR pooling of masked spikes: binary, so it compiles."""

    def __init__(self):
        super().__init__()
        self.conv, self.lif = conv(), Lif(LifParameters(v_threshold=0.1))
        self.gate, self.gate_lif = conv(1, 1), Lif(LifParameters(v_threshold=0.1))
        self.mask, self.pool = MaskAttention(), PerStep(nn.MaxPool2d(2))
        self.head = nn.Sequential(*HEAD)
        nn.init.constant_(self.gate.layer.weight, 0.05)  # open where there are events

    def forward(self, x):
        masked = self.mask(self.gate_lif(self.gate(x)), self.lif(self.conv(x)))
        return self.head(self.pool(masked))


def test_masked_spikes_can_be_pooled():
    torch.manual_seed(3)
    x = {"x": np.random.default_rng(0).poisson(1.5, (3, 4, 1, 4, 4)).astype(np.int32)}
    deployment = compile_module(MaskedPool().eval(), x)
    outputs = collect(reference.run(deployment, x))
    assert 0 < outputs["pool"].mean() < 1
    assert set(np.unique(outputs["mask"])) == {0, 1}


def compiled(*modules, bits=8):
    return compile_module(
        nn.Sequential(*modules), {"x": np.ones((2, 3, 1, 4, 4), np.int32)}, bits=bits
    )


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ((conv(), conv(2, 2), Lif(), *HEAD), "1: reads synaptic currents"),
        ((conv(), SpatialMean(), Lif(), nn.Linear(2, 3), TimeMean()), "1: reads synaptic currents"),
        ((conv(), Lif(LifParameters(tau_mem_s=5e-4)), *HEAD), "1: dt / tau_mem is 2"),
    ],
)
def test_quantize_names_what_it_cannot_do(modules, message):
    with pytest.raises(UnsupportedNode, match=message):
        compiled(*modules)


@pytest.mark.parametrize("bits", [1, 9])
def test_weight_bits_are_checked(bits):
    with pytest.raises(UnsupportedNode, match=f"weights of {bits} bits: allowed are 2..8"):
        compiled(conv(), Lif(), *HEAD, bits=bits)


def test_a_chip_of_single_spikes_refuses_graded_messages_and_takes_the_rest():
    torch.manual_seed(0)
    x = {"x": np.ones((2, 3, 1, 4, 4), np.int32)}
    with pytest.raises(UnsupportedNode, match="loihi1-nahuku-fit: messages are single spikes.*"
                       "x sends counts up to 255, 2 sends sums"):  # fmt: skip
        compile_module(nn.Sequential(conv(), Lif(), *HEAD), x, target="loihi1")
    flat = nn.Sequential(conv(), Lif(), nn.Flatten(2), nn.Linear(32, 3), TimeMean())
    deployment = compile_module(flat, x, target="loihi1", max_count={"x": 1})
    assert deployment.profile.id == "loihi1-nahuku-fit"


def test_per_channel_scales_need_thresholds_per_neuron(tmp_path):
    text = load_profile("loihi2").text
    assert "thresholds_per_neuron = true" in text
    shared = tmp_path / "shared.toml"
    shared.write_text(text.replace("thresholds_per_neuron = true", "thresholds_per_neuron = false"))
    with pytest.raises(ProfileError, match="has one threshold per layer"):
        compile_module(nn.Identity(), {"x": np.ones((1, 1, 1, 2, 2))}, target=str(shared),
                       per_channel=True)  # fmt: skip


def test_per_channel_scales_lose_less_than_one_scale():
    """Channels of very different size: the small ones survive 3 bits only with their own scale."""
    torch.manual_seed(4)
    layer = conv(1, 4)
    with torch.no_grad():
        layer.layer.weight *= torch.tensor([1.0, 0.1, 0.01, 3.0]).reshape(4, 1, 1, 1)
    net = nn.Sequential(layer, Lif(), SpatialMean(), nn.Linear(4, 3), TimeMean())
    x = {"x": np.ones((2, 3, 1, 4, 4), np.int32)}
    lost = {}
    for per_channel in (False, True):
        deployment = compile_module(net, x, bits=3, per_channel=per_channel)
        pop, node = deployment.integer.populations["1"], deployment.real.nodes["0"]
        ratio = (2.0 / pop.threshold).reshape(-1, 1, 1, 1)
        lost[per_channel] = np.abs(pop.projections[0].weight * ratio - node.weight).max(
            axis=(1, 2, 3)) / np.abs(node.weight).max(axis=(1, 2, 3))  # fmt: skip
    assert (lost[True] < 0.2).all()
    assert lost[False].max() > 0.9


@pytest.mark.parametrize("bits", [3, 4])
def test_least_squares_calibration_has_the_smallest_error(bits):
    torch.manual_seed(6)
    layer = conv(1, 16)
    with torch.no_grad():
        layer.layer.weight[0, 0, 0, 0] = 2.0  # an outlier that a covering scale must hold
    net = nn.Sequential(layer, Lif(), SpatialMean(), nn.Linear(16, 3), TimeMean())
    x = {"x": np.ones((2, 3, 1, 4, 4), np.int32)}
    error = {}
    for calibration in ("max", "percentile", "mse"):
        deployment = compile_module(net, x, bits=bits, calibration=calibration)
        pop, node = deployment.integer.populations["1"], deployment.real.nodes["0"]
        unit = 2.0 / int(pop.threshold[0, 0, 0] if pop.threshold.ndim == 3 else pop.threshold[0])
        error[calibration] = float(((pop.projections[0].weight * unit - node.weight) ** 2).sum())
        if calibration == "max":
            assert dict(deployment.saturations) == {}
    assert error["mse"] < error["max"]
    assert error["mse"] <= error["percentile"] * 1.01


def test_unknown_target_is_refused():
    with pytest.raises(ProfileError, match="unknown profile 'loihi3'"):
        compile_module(nn.Identity(), {"x": np.ones((1, 1, 1, 2, 2))}, target="loihi3")


@pytest.mark.parametrize("bits", range(2, 9))
def test_quantized_values_are_within_half_a_step_of_the_real_ones(bits):
    torch.manual_seed(1)
    deployment = compiled(conv(), Lif(), *HEAD, bits=bits)
    node, pop = deployment.real.nodes["0"], deployment.integer.populations["1"]
    weight = pop.projections[0].weight
    unit = np.abs(node.weight).max() / np.abs(weight).max()
    step = 2 ** (8 - bits + (pop.projections[0].sign_mode == "mixed"))
    assert np.abs(weight * unit - node.weight).max() <= unit * step / 2 * (1 + 1e-9)
    assert int(pop.threshold[0]) == pytest.approx(2.0 / unit, abs=0.51)
    bias = (pop.bias_mantissa << pop.bias_exponent).reshape(-1)
    assert np.abs(bias / 64 * unit - node.bias).max() <= unit / 64 * 2**pop.bias_exponent
    assert pop.decay_v == 2048
    assert dict(deployment.saturations) == {}


def test_weights_on_the_grid_deploy_without_any_error():
    """Weights that are multiples of one unit: integer spikes equal the real-valued ones exactly."""
    rng = np.random.default_rng(3)
    layer = conv()
    with torch.no_grad():
        levels = rng.integers(-127, 128, layer.layer.weight.shape)
        levels.reshape(-1)[0] = 127
        layer.layer.weight.copy_(torch.from_numpy(levels / 256.0))
        layer.layer.bias.zero_()
    net = nn.Sequential(layer, Lif(LifParameters(v_threshold=0.25)), *HEAD)
    x = rng.poisson(1.0, (40, 8, 1, 4, 4)).astype(np.int32)
    deployment = compile_module(net, {"x": x})
    spikes = collect(fast.run(deployment, {"x": x}))["1"]
    assert 0.02 < spikes.mean() < 0.9
    assert np.array_equal(spikes, collect(real.run(deployment.real, {"x": x}))["1"])


def test_scales_are_exact_fractions():
    assert qz.common_scale([Fraction(1), Fraction(3, 2)]) == Fraction(1, 2)
    assert qz.common_scale([Fraction(1, 16), Fraction(1, 9)]) == Fraction(1, 144)
    assert qz.exact_fraction(1 / 9) == Fraction(1, 9)
    assert float(qz.exact_fraction(np.pi)) == np.pi


class Residual(nn.Module):
    """x + 1.5 r: both binary, exact as graded 2 x + 3 r."""

    def __init__(self):
        super().__init__()
        self.first, self.lif1 = conv(), Lif(LifParameters(v_threshold=0.2))
        self.second, self.lif2 = conv(2, 2), Lif(LifParameters(v_threshold=0.1))
        self.gain, self.add = Gain(1.5), Add()
        self.third, self.lif3 = conv(2, 2), Lif(LifParameters(v_threshold=0.1))
        self.mean, self.head, self.time_mean = HEAD

    def forward(self, x):
        x = self.lif1(self.first(x))
        y = self.add(x, self.gain(self.lif2(self.second(x))))
        return self.time_mean(self.head(self.mean(self.lif3(self.third(y)))))


def test_residual_with_a_gain_becomes_a_graded_sum():
    torch.manual_seed(5)
    x = np.random.default_rng(5).poisson(1.5, (8, 5, 1, 4, 4)).astype(np.int32)
    deployment = compile_module(Residual(), {"x": x})
    pop = deployment.integer.populations["add"]
    assert [p.weight for p in pop.projections] == [2, 3]
    assert [p.delay for p in pop.projections] == [1, 0]
    assert deployment.integer.scales["add"] == (1, 2)
    outputs = collect(fast.run(deployment, {"x": x}))
    assert set(np.unique(outputs["add"])) == {0, 2, 3, 5}
    verify_integer(deployment.integer, ARITH)


def test_currents_of_several_layers_meet_in_one_neuron():
    """lif(conv(x) + conv(y) + skip) has three projections that share one synaptic unit."""

    class Joint(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.lif0 = conv(1, 1), conv(1, 1), Lif(LifParameters(v_threshold=0.3))
            self.c, self.lif = conv(1, 1), Lif(LifParameters(v_threshold=0.3))
            self.mean, self.head, self.time_mean = SpatialMean(), nn.Linear(1, 2), TimeMean()

        def forward(self, x, y):
            skip = self.lif0(self.a(x))
            z = self.lif(self.b(x) + self.c(y) + skip)
            return self.time_mean(self.head(self.mean(z)))

    torch.manual_seed(2)
    rng = np.random.default_rng(2)
    inputs = {n: rng.poisson(1.0, (6, 6, 1, 4, 4)).astype(np.int32) for n in "xy"}
    deployment = compile_module(Joint(), inputs)
    pop = deployment.integer.populations["lif"]
    assert [type(p) for p in pop.projections] == [ig.IntConv2d, ig.IntConv2d, ig.IntIdentity]
    assert [p.delay for p in pop.projections] == [1, 1, 0]
    spikes = collect(fast.run(deployment, inputs))["lif"]
    twin = collect(real.run(deployment.real, inputs))["lif"]
    assert 0.02 < twin.mean() < 0.9
    assert (spikes == twin).mean() > 0.99


def soft_reset(inclusive: bool = False) -> SpikingGraph:
    """Return x -> dense -> neurons that subtract their threshold -> mean of spikes."""
    nodes = {"x": rn.Input((3,), 1), "fc": rn.Dense(np.eye(3) * 2), "mean": rn.TimeMean(),
             "lif": rn.Lif(2e-3, 0.5, inclusive=inclusive, reset="subtract")}  # fmt: skip
    inputs = {"x": (), "fc": ("x",), "lif": ("fc",), "mean": ("lif",)}
    return SpikingGraph(nodes, inputs, dict.fromkeys(nodes, (3,)), "mean", 1e-3, 4, "traced")


def test_a_reset_that_subtracts_needs_a_target_that_can():
    x = {"x": np.ones((2, 4, 3), np.int32)}
    built = compile_graph(soft_reset(), x)
    assert built.integer.populations["lif"].reset == "subtract"
    assert collect(fast.run(built, x))["lif"].any()
    with pytest.raises(UnsupportedNode, match=r"neurons reset to 0 .* but lif subtract"):
        compile_graph(soft_reset(), x, target="loihi1")


def test_a_reset_that_subtracts_the_level_it_spikes_at_is_refused():
    with pytest.raises(UnsupportedNode, match="lif: subtracts a threshold that it also spikes at"):
        compile_graph(soft_reset(inclusive=True), {"x": np.ones((2, 4, 3), np.int32)})
