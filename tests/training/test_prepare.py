"""prepare, train, compile: the messages in training are the deployed ones, bit for bit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import samples
import torch
from torch import nn

from neuroav import integer as ig
from neuroav.errors import DataError, NeuroavError, StageError, UnsupportedModule, UnsupportedNode
from neuroav.models.layers import (
    Add,
    Delay,
    Gain,
    Li,
    Lif,
    LifParameters,
    Multiply,
    PerStep,
    RecurrentLif,
    SpatialAttention,
    SpatialMean,
    TemporalAttention,
    TimeLast,
    TimeMean,
    TimeWeightedSum,
)
from neuroav.models.straight import Surrogate
from neuroav.sim import reference
from neuroav.sim.trace import collect
from neuroav_export import compile_module, prepare
from neuroav_export.prepared import Prepared

STEPS, SIZE, CLASSES = 6, 6, 3
NEURON = LifParameters(v_threshold=0.4)


def events(count: int = 6, seed: int = 0, names=("x",)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {n: rng.poisson(0.6, (count, STEPS, 2, SIZE, SIZE)) for n in names}


def tensors(inputs) -> list[torch.Tensor]:
    return [torch.from_numpy(np.moveaxis(v, 1, 0)).float() for v in inputs.values()]


def conv(inputs: int, outputs: int, kernel: int = 3) -> PerStep:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    norm = nn.BatchNorm2d(outputs)
    with torch.no_grad():
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.3, 0.6)
        norm.bias.fill_(0.4)
    return PerStep(nn.Sequential(layer, norm))


class Head(nn.Module):
    """Neurons (T, B, C, H, W) to class scores."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean, self.gain = SpatialMean(), Gain(10.0)
        self.linear, self.time_mean = nn.Linear(channels, CLASSES), TimeMean()

    def forward(self, x):
        return self.time_mean(self.linear(self.gain(self.mean(x))))


class Branches(nn.Module):
    """Two sensors; pooled spikes added, and two currents and a bare message into one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.left_lif, self.left_pool = conv(2, 4), Lif(NEURON), PerStep(nn.MaxPool2d(2))
        self.right, self.right_lif = conv(2, 4), Lif(NEURON)
        self.right_pool = PerStep(nn.MaxPool2d(2))
        self.fusion, self.join, self.skip = Add(), Add(), Add()
        self.one, self.two, self.lif = conv(4, 4), conv(4, 4, 1), Lif(NEURON)
        self.late = Delay(2)
        self.head = Head(4)

    def forward(self, x, y):
        x = self.left_pool(self.left_lif(self.left(x)))
        y = self.right_pool(self.right_lif(self.right(y)))
        joined = self.join(self.one(self.fusion(x, y)), self.two(self.late(y)))
        return self.head(self.lif(self.skip(joined, x)))


class Attention(nn.Module):
    def __init__(self, kind) -> None:
        super().__init__()
        self.stem, self.stem_lif = conv(2, 4), Lif(NEURON)
        for name in "qkv":
            self.add_module(name, conv(4, 4, 1))
            self.add_module(f"{name}_lif", Lif(NEURON))
        self.attention = kind(2, 1.0)
        self.lif = Lif(LifParameters(v_threshold=0.25, inclusive=True))
        self.head = Head(4)

    def forward(self, x):
        x = self.stem_lif(self.stem(x))
        q, k, v = (self.get_submodule(f"{n}_lif")(self.get_submodule(n)(x)) for n in "qkv")
        return self.head(self.lif(self.attention(q, k, v)))


class Recurrent(nn.Module):
    """Synaptic currents, a recurrent layer, a leaky readout."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.fc = PerStep(nn.Flatten()), PerStep(nn.Linear(72, 16))
        neuron = LifParameters(tau_mem_s=3.3e-3, v_threshold=0.2)
        self.rnn = RecurrentLif(nn.Linear(16, 16, bias=False), neuron, tau_syn_s=2.7e-3)
        self.head, self.li, self.last = nn.Linear(16, CLASSES), Li(6e-3, 2e-3), TimeLast()

    def forward(self, x):
        return self.last(self.li(self.head(self.rnn(self.fc(self.flat(x))))))


class RecurrentConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(2, 4)
        inner = nn.Conv2d(4, 4, 3, padding=1)
        self.rnn = RecurrentLif(inner, NEURON, reset="subtract")
        self.head = Head(4)

    def forward(self, x):
        return self.head(self.rnn(self.conv(x)))


class Wide(nn.Module):
    """Weighted sums over the sample and their product: messages that drop bits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif, self.flat = conv(2, 4), Lif(NEURON), PerStep(nn.Flatten())
        self.a, self.b = (nn.Linear(144, 12, bias=False) for _ in range(2))
        self.sum_a, self.sum_b, self.product = (
            TimeWeightedSum(STEPS),
            TimeWeightedSum(STEPS),
            Multiply(),
        )
        with torch.no_grad():
            self.sum_a.logits.copy_(torch.linspace(-1, 1, STEPS))
        self.out, self.out_lif = nn.Linear(12, 12), Lif(LifParameters(v_threshold=0.02))
        self.head, self.time_mean = nn.Linear(12, CLASSES), TimeMean()

    def forward(self, x):
        x = self.flat(self.lif(self.conv(x)))
        y = self.product(self.sum_a(self.a(x)), self.sum_b(self.b(x)))
        return self.time_mean(self.head(self.out_lif(self.out(y))))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif, self.pool = conv(2, 4), Lif(NEURON), PerStep(nn.AvgPool2d(2))
        self.up = PerStep(nn.ConvTranspose2d(4, 4, 2, stride=2, groups=2))
        self.up_lif, self.head = Lif(LifParameters(v_threshold=0.05)), Head(4)

    def forward(self, x):
        return self.head(self.up_lif(self.up(self.pool(self.lif(self.conv(x))))))


NETWORKS = {
    "branches": (Branches, ("x", "y")),
    "spatial": (lambda: Attention(SpatialAttention), ("x",)),
    "temporal": (lambda: Attention(TemporalAttention), ("x",)),
    "recurrent": (Recurrent, ("x",)),
    "recurrent-conv": (RecurrentConv, ("x",)),
    "wide": (Wide, ("x",)),
    "decoder": (Decoder, ("x",)),
}


def network(name: str) -> tuple[nn.Module, dict[str, np.ndarray]]:
    torch.manual_seed(3)
    make, names = NETWORKS[name]
    return make().eval(), events(names=names)


def train(prepared: Prepared, inputs, steps: int = 3) -> list[float]:
    """A plain loop of one's own; return the losses."""
    labels = torch.arange(len(next(iter(inputs.values())))) % CLASSES
    optimizer, losses = torch.optim.Adam(prepared.parameters(), lr=5e-3), []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(prepared(*tensors(inputs)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def assert_deployed(prepared: Prepared, inputs, runner=reference) -> None:
    """Assert that the prepared network sends what the deployment sends, and that it sends."""
    deployment = compile_module(prepared, inputs)
    with torch.no_grad():
        sent = prepared.eval().messages(*tensors(inputs))
        scores = prepared(*tensors(inputs)).numpy()
    deployed = collect(runner.run(deployment, inputs))
    assert set(sent) == set(deployed)
    for name, pop in deployment.integer.populations.items():
        found = np.moveaxis(sent[name].numpy(), 0, 1)
        if isinstance(pop, ig.IntLif) and pop.projections:
            assert 0.002 < found.mean() < 0.95, (name, found.mean())
        assert np.array_equal(found, deployed[name]), name
    output = deployment.integer.output
    above, below = deployment.integer.scales[output]
    np.testing.assert_allclose(scores, deployed[output][:, -1] * (above / below), rtol=1e-6)


@pytest.mark.parametrize("options", [{"bits": 8}, {"bits": 3, "per_channel": True}], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_trained_is_what_is_deployed(name, options):
    net, inputs = network(name)
    prepared = prepare(net, inputs, **options)
    assert_deployed(prepared, inputs)
    before = prepared.quantized().integer
    train(prepared, inputs)
    after = prepared.quantized().integer
    assert any(
        not np.array_equal(a.weight, b.weight)
        for n, pop in before.populations.items()
        for a, b in zip(pop.projections, after.populations[n].projections, strict=True)
        if hasattr(a, "weight_bits")
    )
    assert_deployed(prepared, inputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_weight_learns(name):
    net, inputs = network(name)
    prepared = prepare(net, inputs, bits=4)
    (prepared(*tensors(inputs)) * torch.arange(CLASSES)).square().sum().backward()
    floating = {n for n, m in net.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    assert len(prepared.trained) >= len(floating)
    for parameter, value in prepared.named_parameters():
        assert torch.isfinite(value.grad).all(), parameter
        assert value.grad.abs().sum() > 0, parameter


def test_training_lowers_the_loss_at_few_bits():
    net, inputs = network("recurrent-conv")
    losses = train(prepare(net, inputs, bits=2), inputs, 15)
    assert min(losses[-3:]) < 0.8 * losses[0]


def test_the_float_network_stays_and_gives_the_start():
    net, inputs = network("branches")
    state = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        scores = net(*tensors(inputs))
        near = prepare(net, inputs)(*tensors(inputs))
    assert all(torch.equal(v, state[n]) for n, v in net.state_dict().items())
    assert (scores.argmax(1) == near.argmax(1)).float().mean() >= 0.5
    assert float((near - scores).abs().max()) < float(scores.abs().max())


def test_mixed_widths_are_trained_and_deployed():
    net, inputs = network("branches")
    prepared = prepare(net, inputs, layer_bits={"left": 4, "two.0": 2})
    train(prepared, inputs)
    assert_deployed(prepared, inputs)
    populations = compile_module(prepared, inputs).integer.populations
    assert [p.weight_bits for p in populations["left_lif"].projections] == [4]
    by_lag = {p.lag: p for p in populations["lif"].projections if hasattr(p, "weight_bits")}
    assert (by_lag[0].weight_bits, by_lag[2].weight_bits) == (8, 2)
    assert len(np.unique(by_lag[2].weight)) <= 4


def test_copies_and_saved_weights_deploy_alike():
    net, inputs = network("recurrent")
    prepared = prepare(net, inputs, bits=4)
    train(prepared, inputs)
    again = prepare(net, inputs, bits=4)
    again.load_state_dict(prepared.state_dict())
    for other in (copy.deepcopy(prepared), again):
        with torch.no_grad():
            assert torch.equal(other(*tensors(inputs)), prepared(*tensors(inputs)))


def test_clipped_weights_get_no_gradient():
    net, inputs = network("recurrent")
    with torch.no_grad():
        net.fc.layer.weight[0, 0] = 40.0
    prepared = prepare(net, inputs, bits=8, calibration="percentile")
    clipped = prepared.quantized().saturations["rnn"]
    assert 0 < clipped < 10
    prepared(*tensors(inputs)).square().sum().backward()
    assert prepared.layer("fc").weight.grad[0, 0] == 0
    assert prepared.layer("fc").weight.grad.count_nonzero() > 500


def test_neurons_keep_their_surrogate():
    torch.manual_seed(0)
    neuron = LifParameters(v_threshold=0.4, surrogate="super", alpha=50.0, detach_reset=True)
    net = nn.Sequential(conv(2, 4), Lif(neuron), Head(4)).eval()
    prepared = prepare(net, events())
    assert prepared.surrogates == {"1": Surrogate("super", 50.0, True, False)}
    plain = prepare(nn.Sequential(conv(2, 4), Lif(NEURON), Head(4)).eval(), events())
    assert plain.surrogates == {"1": Surrogate("tanh", 2.0, False, False)}


class Rectified(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act, self.head = conv(2, 4), nn.ReLU(), Head(4)

    def forward(self, x):
        return self.head(self.act(self.conv(x)))


def test_what_cannot_be_prepared_is_named():
    with pytest.raises(NeuroavError, match="act"):
        prepare(Rectified().eval(), events())
    counting = nn.Sequential(Lif(LifParameters(v_threshold=0.4)), PerStep(nn.Flatten()), TimeMean())
    with pytest.raises(UnsupportedModule, match="nothing to train"):
        prepare(counting, events())
    net, inputs = network("recurrent")
    with pytest.raises(UnsupportedNode, match=r"'fcc'.*did you mean 'fc'"):
        prepare(net, inputs, layer_bits={"fcc": 4})
    prepared = prepare(net, inputs, bits=4)
    with pytest.raises(UnsupportedModule, match="prepared already"):
        prepare(prepared, inputs)


def test_it_is_deployed_as_it_was_trained_or_not_at_all():
    net, inputs = network("recurrent")
    prepared = prepare(net, inputs, bits=4)
    compile_module(prepared, inputs, bits=4, calibration="mse")
    for other in ({"bits": 8}, {"calibration": "max"}, {"layer_bits": {"fc": 3}}):
        with pytest.raises(
            UnsupportedNode, match=f"{next(iter(other))} is .* prepared and trained"
        ):
            compile_module(prepared, inputs, **other)
    with pytest.raises(UnsupportedNode, match="single spikes"):
        compile_module(prepared, inputs, target="loihi1")
    with pytest.raises(DataError, match=r"'x'.*steps.*prepared for \(6, 2, 6, 6\)"):
        compile_module(prepared, {"x": inputs["x"][:, :4]})
    with pytest.raises(DataError, match="takes"):
        compile_module(prepared, {"y": inputs["x"]})
    with pytest.raises(DataError, match="prepared for"):
        prepared(tensors(inputs)[0][:4])
    with torch.no_grad():
        prepared.layer("fc").weight[0, 0] = float("nan")
    with pytest.raises(StageError):
        prepared(*tensors(inputs))


def test_it_deploys_what_a_model_of_the_project_was_trained_to():
    inputs = samples.poisson_inputs(4, 4)
    prepared = prepare(samples.warmed_model("add"), inputs, bits=4)
    assert_deployed(prepared, inputs)
