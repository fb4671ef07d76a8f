"""Our layers are Norse's neurons: same spikes, same gradients, step by step."""

from __future__ import annotations

import pytest
import torch
from norse.torch.functional.lif_box import LIFBoxParameters
from norse.torch.module.lif_box import LIFBoxCell
from torch import nn

from neuroav.errors import ConfigError
from neuroav.models import MODELS, build_model
from neuroav.models.layers import Lif, LifParameters, PerStep
from neuroav.training.config import ModelConfig


@pytest.mark.parametrize("surrogate", ["tanh", "super"])
def test_lif_equals_norse_cell_in_spikes_and_gradients(surrogate):
    torch.manual_seed(0)
    x = (torch.randn(7, 3, 5) * 1.5 + 0.5).requires_grad_()
    y = x.detach().clone().requires_grad_()
    ours = Lif(LifParameters(tau_mem_s=2e-3, dt_s=1e-3, surrogate=surrogate, alpha=2.0))
    cell = LIFBoxCell(
        LIFBoxParameters(tau_mem_inv=torch.tensor(500.0), method=surrogate, alpha=2.0), dt=1e-3
    )
    spikes, state = [], None
    for t in range(7):
        z, state = cell(y[t], state)
        spikes.append(z)
    norse, mine = torch.stack(spikes), ours(x)
    assert 0.1 < float(mine.detach().mean()) < 0.9
    assert torch.equal(mine, norse)
    weight = torch.randn(7, 3, 5)
    (mine * weight).sum().backward()
    (norse * weight).sum().backward()
    assert float(y.grad.abs().sum()) > 0
    assert torch.equal(x.grad, y.grad)


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
