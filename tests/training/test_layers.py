"""Our layers are Norse's neurons: same spikes, same gradients, step by step."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from norse.torch.functional.lif_box import LIFBoxParameters
from norse.torch.module.lif_box import LIFBoxCell
from torch import nn

from neuroav.errors import ConfigError
from neuroav.models import MODELS, build_model
from neuroav.models.layers import SURROGATES, Lif, LifParameters, PerStep
from neuroav.training.config import ModelConfig

SWITCHES = list(product((False, True), repeat=3))


def channels_last(x):
    return x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


LAYOUTS = {
    "steps": lambda x: x,
    "channels last": channels_last,
    "steps inside": lambda x: x.movedim(0, 1).contiguous().movedim(1, 0),
    "double": lambda x: x.double(),
}


def test_lif_equals_norse_cell():
    x = torch.randn(7, 3, 5, generator=torch.Generator().manual_seed(0)) * 1.5 + 0.5
    cell = LIFBoxCell(LIFBoxParameters(tau_mem_inv=torch.tensor(500.0)), dt=1e-3)
    spikes, state = [], None
    for current in x:
        z, state = cell(current, state)
        spikes.append(z)
    ours = Lif(LifParameters(tau_mem_s=2e-3, dt_s=1e-3))(x)
    assert 0.1 < float(ours.mean()) < 0.9
    assert torch.equal(ours, torch.stack(spikes))


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_fused_steps_are_norses_in_spikes_and_gradients(surrogate, layout):
    torch.manual_seed(0)
    for detach_reset, detach_state, inclusive in SWITCHES:
        parameters = LifParameters(
            tau_mem_s=3e-3,
            surrogate=surrogate,
            detach_reset=detach_reset,
            detach_state=detach_state,
            inclusive=inclusive,
        )
        lif = Lif(parameters)
        # quarters meet the threshold exactly here and there
        x = LAYOUTS[layout]((torch.randn(7, 3, 8, 4, 2) * 16).round() / 4).requires_grad_()
        weight = torch.randn(7, 3, 8, 4, 2, dtype=x.dtype)
        fused, norse = lif(x), lif.stepwise(x)
        assert 0.1 < float(fused.detach().mean()) < 0.9
        assert torch.equal(fused, norse)
        (ours,) = torch.autograd.grad((fused * weight).sum(), x)
        (theirs,) = torch.autograd.grad((norse * weight).sum(), x)
        assert float(theirs.abs().max()) > 0.1
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_detached_reset_changes_gradients_not_spikes():
    torch.manual_seed(0)
    x = torch.randn(6, 2, 4) + 1.0
    results = []
    for detach in (False, True):
        y = x.clone().requires_grad_()
        spikes = Lif(LifParameters(detach_reset=detach))(y)
        spikes.sum().backward()
        results.append((spikes, y.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert not torch.equal(results[0][1], results[1][1])


def test_per_step_is_the_layer_on_every_step():
    conv = nn.Conv2d(2, 3, 3)
    x = torch.randn(4, 5, 2, 6, 6)
    expected = torch.stack([conv(step) for step in x])
    torch.testing.assert_close(PerStep(conv)(x), expected)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_models_are_causal_per_sample_and_give_class_scores(name):
    torch.manual_seed(0)
    shapes = {"audio": (8, 8, 8), "visual": (2, 16, 16)}
    model = build_model(ModelConfig(name=name, embed_dim=8, v_threshold=0.3), shapes, 10).eval()
    x = [torch.rand(4, 3, *shapes[n]) * 6 for n in model.inputs]
    scores = model(*x)
    assert scores.shape == (3, 10)
    alone = model(*[v[:, 1:2] for v in x])
    torch.testing.assert_close(alone[0], scores[1])


def test_unknown_model_and_unequal_tokens_are_named():
    with pytest.raises(ConfigError, match="unknown model 'ad': allowed are .*did you mean 'add'"):
        build_model(ModelConfig(name="ad"), {"audio": (8, 8, 8)}, 10)
    with pytest.raises(ConfigError, match=r"audio has \(4, 4\) tokens and visual \(6, 6\)"):
        build_model(ModelConfig(), {"audio": (8, 8, 8), "visual": (2, 12, 12)}, 10)
