"""Zero-shot networks: equations against plain loops, gradients, batches, the chip form."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import zero_shot_data as small
from norse.torch.functional.lif_box import LIFBoxFeedForwardState, lif_box_feed_forward_step

from neuroav.models.layers import Lif, LifParameters
from neuroav.models.zeroshot import spiking
from neuroav.models.zeroshot.chip import ChipNetwork, class_rows
from neuroav.models.zeroshot.fusion import Fusion
from neuroav.models.zeroshot.parts import MODALITIES
from neuroav.models.zeroshot.registry import build_zero_shot
from neuroav.models.zeroshot.spiking import DynamicLif, Pooling, TimeFactor
from neuroav.training.zeroshot.batches import BalancedBatches, inputs_of
from neuroav.training.zeroshot.losses import zero_shot_loss

MODELS = ("avca", "stft", "stft-chip")
SWITCHES = [
    {},
    {"stft.snn": "relu"},
    {"stft.snn": "none"},
    {"stft.knowledge": "false"},
    {"stft.pooling": "paper", "model.v_threshold": "0.5"},
    {"stft.pooling": "mean"},
    {"stft.pooling": "none", "stft.time_factor": "fixed"},
    {"stft.time_factor": "uniform", "stft.dynamic_threshold": "count"},
    {"stft.dynamic_threshold": "none", "stft.fusion": "cp"},
    {"stft.cross_modal": "linear", "stft.norm": "batch"},
    {"stft.cross_modal": "none"},
]


def build(model: str, **changes: str):
    data, config = small.make(), small.config(model, **changes)
    torch.manual_seed(0)
    dims = {"audio": small.AUDIO, "visual": small.VISUAL}
    network = build_zero_shot(config, dims, data.text, data.seen)
    train = data.split("train").features
    network.net.fit_scale({m: getattr(train, m) for m in MODALITIES}, "standard")
    return network, data, config


def gradients(network, data, config, batches: int = 4):
    """The largest |gradient| that each parameter got over some batches."""
    network.train()
    largest = {n: torch.zeros(()) for n, p in network.named_parameters() if p.requires_grad}
    draws = BalancedBatches(data.split("train").features, data.text, 32)
    for batch in draws.epoch(batches, np.random.default_rng(0)):
        network.zero_grad()
        zero_shot_loss(network.net, batch, config.zsl).backward()
        for name, p in network.named_parameters():
            if p.requires_grad:
                assert p.grad is not None, name
                assert torch.isfinite(p.grad).all(), name
                largest[name] = torch.maximum(largest[name], p.grad.abs().max())
    return largest


@pytest.mark.parametrize("changes", SWITCHES, ids=lambda c: "-".join(c.values()) or "default")
def test_every_parameter_of_stft_learns(changes):
    network, data, config = build("stft", **changes)
    still = [n for n, g in gradients(network, data, config).items() if not g > 0]
    assert not still


@pytest.mark.parametrize("model", ["avca", "stft-chip"])
@pytest.mark.parametrize("loss", ["avca", "stft"])
def test_every_parameter_of_the_others_learns(model, loss):
    network, data, config = build(model, **{"zsl.loss": loss})
    still = [n for n, g in gradients(network, data, config).items() if not g > 0]
    assert not still


def test_a_frozen_branch_gets_no_gradient_and_the_rest_does():
    network, data, config = build("stft", **{"stft.snn": "frozen"})
    trained = gradients(network, data, config)
    assert not any(".spiking." in n for n in trained)
    assert all(g > 0 for g in trained.values())
    assert any(".spiking." in n for n, _ in network.named_parameters())


@pytest.mark.parametrize("changes", SWITCHES, ids=lambda c: "-".join(c.values()) or "default")
def test_an_answer_does_not_depend_on_its_batch(changes):
    check_batches("stft", changes)


@pytest.mark.parametrize("model", ["avca", "stft-chip"])
def test_nor_in_the_other_networks(model):
    check_batches(model, {})


def check_batches(model, changes):
    network, data, config = build(model, **changes)
    gradients(network, data, config)  # statistics of batch norms, no step
    network.eval()
    test = data.split("test").features
    together = network(*inputs_of(test, np.arange(64)).values())
    for row in (0, 13, 63):
        alone = network(*inputs_of(test, np.array([row])).values())
        assert torch.allclose(alone[0], together[row], atol=2e-5)
    again = network(*inputs_of(test, np.arange(64)).values())
    assert torch.equal(again, together)  # nothing is carried from call to call


@pytest.mark.parametrize("model", MODELS)
def test_a_vector_and_the_same_vector_in_every_step_are_one(model):
    network, data, _ = build(model)
    network.eval()
    short = inputs_of(data.split("test").features, np.arange(9))
    long = {m: x.expand(small.STEPS, *x.shape[1:]) for m, x in short.items()}
    assert torch.allclose(network(*short.values()), network(*long.values()), atol=1e-5)


# --- fusion ------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["tucker", "cp"])
def test_fusion_is_the_bilinear_form_it_factorises(kind):
    torch.manual_seed(1)
    fusion = Fusion(7, 4, kind).double()
    r, s = torch.randn(5, 7).double(), torch.randn(5, 7).double()
    full = fusion.full()
    assert full.shape == (7, 7, 7)
    expected = torch.zeros(5, 7).double()
    for i in range(7):
        for j in range(7):
            expected += full[i, j] * (r[:, i] * s[:, j])[:, None]
    assert torch.allclose(fusion(r, s), expected)
    assert fusion(r, s).abs().min() > 0


def test_cp_is_tucker_with_a_diagonal_core():
    torch.manual_seed(2)
    cp, tucker = Fusion(6, 3, "cp"), Fusion(6, 3, "tucker")
    tucker.load_state_dict({**cp.state_dict(), "core": tucker.core})
    with torch.no_grad():
        tucker.core.zero_()
        for i in range(3):
            tucker.core[i, i, i] = 1
    r, s = torch.randn(4, 6), torch.randn(4, 6)
    assert torch.allclose(cp(r, s), tucker(r, s), atol=1e-6)


# --- the spiking branch ------------------------------------------------------------------------
def currents(steps=6, batch=5, width=11):
    return torch.randn(steps, batch, width, generator=torch.Generator().manual_seed(3)) + 1.0


@pytest.mark.parametrize("kind", ["entropy", "count"])
def test_dynamic_thresholds_follow_their_equation(kind):
    """One sample at a time, thresholds as plain numbers, Norse's step."""
    lif = DynamicLif(LifParameters(), kind)
    x = currents()
    _, pooled = Pooling("gate")(x)
    found = lif(x, pooled)
    assert 0.05 < found.mean() < 0.9
    changed = False
    for b in range(x.shape[1]):
        threshold, state = 1.0, LIFBoxFeedForwardState(v=torch.zeros(x.shape[2]))
        for t in range(len(x)):
            p = lif.norse._replace(v_th=torch.tensor(threshold))
            spike, state = lif_box_feed_forward_step(x[t, b], state, p, dt=1e-3)
            assert torch.equal(spike, found[t, b]), (t, b)
            rate = float(spike.mean())
            if kind == "count":
                raised = min(4 * rate, 1.0)
            else:
                parts = [q * np.log2(q) for q in (rate, 1 - rate) if q > 0]
                raised = -sum(parts)
            gate = 1 / (1 + np.exp(-float(pooled[t, b].detach())))
            target = min(max(0.5 * gate + raised, 0.25), 2.0)
            changed |= abs(target - threshold) > 0.1
            threshold = 0.5 * threshold + 0.5 * target
    assert changed


def test_without_memory_of_the_target_it_is_a_plain_neuron(monkeypatch):
    monkeypatch.setattr(spiking, "MEMORY", 1.0)
    x = currents()
    plain = Lif(LifParameters())
    assert torch.equal(DynamicLif(LifParameters(), "entropy")(x), plain(x))
    assert plain(x).sum() > 0


def test_pooling_gates():
    x = currents()
    for kind in ("gate", "paper", "mean"):
        pooling = Pooling(kind)
        with torch.no_grad():
            pooling.balance.fill_(0.4)
        beta = 1 / (1 + np.exp(-0.4))
        largest, average = x.max(-1, keepdim=True).values, x.mean(-1, keepdim=True)
        pooled = 0.5 * (largest + average) + beta * largest + (1 - beta) * average
        expected = {
            "gate": (1 + torch.sigmoid(pooled)) * x,
            "paper": torch.sigmoid(pooled * x + x),
            "mean": x + beta * average,
        }[kind]
        found, p = pooling(x)
        assert torch.allclose(found, expected, atol=1e-6)
        assert p.shape == (6, 5, 1)
        if kind != "mean":
            assert torch.allclose(p, pooled, atol=1e-6)
    assert Pooling("paper")(x)[0].max() <= 1.0  # not above the usual threshold: docs/zero-shot.md


def test_time_factors():
    x = (currents() > 1.2).float()
    logits = torch.linspace(-1, 1, 6)
    for kind in ("sample", "fixed", "uniform"):
        factor = TimeFactor(kind, 6)
        if kind != "uniform":
            with torch.no_grad():
                factor.logits.copy_(logits)
        for b in range(5):
            score = np.zeros(6) if kind == "uniform" else logits.numpy().astype(float)
            if kind == "sample":
                score = score + x[:, b].sum(1).numpy() / np.sqrt(11)
            weights = np.exp(score) / np.exp(score).sum()
            expected = (weights[:, None] * x[:, b].numpy()).sum(0)
            assert np.allclose(factor(x)[b].detach().numpy(), expected, atol=1e-6)


# --- the chip form -----------------------------------------------------------------------------
def test_what_is_deployed_ranks_classes_as_the_trained_network_does():
    network, data, config = build("stft-chip")
    gradients(network, data, config)
    network.eval()
    network.seen_bias[0] = 0.3
    test = data.split("test").features
    with torch.no_grad():
        w = network.class_embeddings()
        inputs = inputs_of(test, np.arange(len(test)))
        theta = network.net.embed(inputs).theta["joint"]
        rows = class_rows(w.double().numpy(), data.seen, 0.3)
        deployed = ChipNetwork(network.net, rows).eval()
        steps = {m: x.expand(small.STEPS, *x.shape[1:]) for m, x in inputs.items()}
        scores = deployed(steps["audio"], steps["visual"])
        expected = network(*inputs.values()) + theta.square().sum(1, keepdim=True) / 2
    assert torch.allclose(scores, expected, atol=1e-4)
    assert expected.std() > 1e-2


def test_deploying_leaves_the_network_as_it_was():
    network, _, _ = build("stft-chip")
    before = copy.deepcopy(network.state_dict())
    ChipNetwork(network.net, class_rows(np.zeros((2, 8)), np.array([0]), 0.0))
    assert all(torch.equal(v, before[n]) for n, v in network.state_dict().items())


def test_inputs_are_scaled_by_training_samples():
    network, data, _ = build("stft")
    layer = network.net.scale["audio"]
    values = data.split("train").features.audio
    scaled = layer(torch.from_numpy(values))
    assert torch.allclose(scaled.mean(0), torch.zeros(small.AUDIO), atol=1e-5)
    assert torch.allclose(scaled.std(0, unbiased=False), torch.ones(small.AUDIO), atol=1e-4)
    flat = np.concatenate([values, np.full_like(values[:, :1], 3.0)], axis=1)
    constant = type(layer)(small.AUDIO + 1)
    constant.fit(flat, "standard")
    assert (constant(torch.from_numpy(flat))[:, -1] == 0).all()
    whole = type(layer)(small.AUDIO)
    whole.fit(values, "maximum")
    scaled = whole(torch.from_numpy(values))
    assert (float(scaled.min()), float(scaled.max())) == (0.0, pytest.approx(1.0))
