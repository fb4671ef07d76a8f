"""The compared networks: what each does between the modalities, and what of it deploys."""

from __future__ import annotations

import numpy as np
import pytest
import samples
import torch
from torch.nn import functional

from neuroav.errors import UnsupportedModule
from neuroav.models import build_model
from neuroav.sim import fast, reference
from neuroav.sim.trace import collect
from neuroav.training.config import ModelConfig, load_config
from neuroav.training.losses import training_loss
from neuroav_export import compile_module


def tensors(inputs):
    return [torch.from_numpy(np.moveaxis(v, 1, 0)).float() for v in inputs.values()]


@pytest.mark.parametrize("name", ["sca", "cmci"])
def test_deployed_spikes_are_the_references(name):
    model = samples.wake(build_model(
        ModelConfig(name=name, v_threshold=0.4, embed_dim=16), samples.SHAPES, 10))  # fmt: skip
    inputs = samples.poisson_inputs(6, 4, seed=2)
    deployment = compile_module(model, inputs)  # checks the class scores of every stage too
    expected = collect(reference.run(deployment, inputs))
    found = collect(fast.run(deployment, inputs))
    mixing = [n for n in expected if n.startswith(("mix", "join")) and n.endswith("lif")]
    assert len(mixing) == {"sca": 10, "cmci": 1}[name]
    assert all(0.001 < expected[n].mean() < 0.95 for n in mixing)
    for node, value in expected.items():
        assert np.array_equal(found[node], value), node


def test_unimodal_self_attention_deploys():
    torch.manual_seed(0)
    config = ModelConfig(name="visual", v_threshold=0.35, embed_dim=16, self_attention=True)
    model = build_model(config, samples.SHAPES, 10)
    inputs = samples.poisson_inputs(6, 4, names=("visual",))
    samples.wake_inputs(model, inputs)
    deployment = compile_module(model, inputs)
    outputs = collect(fast.run(deployment, inputs))
    assert outputs["visual.attention.proj.lif"].any()
    assert "visual.attended" in outputs


def test_weight_attention_weighs_each_step_by_one_number():
    torch.manual_seed(0)
    model = build_model(ModelConfig(name="weight-attention", embed_dim=8), samples.SHAPES, 10)
    weigh = model.mix["audio"]
    x, y = (torch.rand(3, 2, 8, 4, 4) for _ in range(2))
    ratio = weigh(x, y) / x
    torch.testing.assert_close(ratio, ratio[:, :, :1, :1, :1].expand_as(ratio))
    fixed = weigh.fc2(weigh.fc1(torch.cat([v.mean(dim=(3, 4)) for v in (x, y)], -1)))
    torch.testing.assert_close(ratio[:, :, 0, 0, 0], fixed[..., 0])


def test_weight_attention_has_no_deployment_and_says_where():
    model = build_model(ModelConfig(name="weight-attention"), samples.SHAPES, 10).eval()
    with pytest.raises(UnsupportedModule, match="cannot be traced"):
        compile_module(model, samples.poisson_inputs(2, 4))


def test_cmci_trains_every_head_and_answers_with_the_joint_one():
    torch.manual_seed(0)
    model = build_model(ModelConfig(name="cmci", embed_dim=16, v_threshold=0.3), samples.SHAPES, 10)
    inputs, labels = tensors(samples.poisson_inputs(8, 4, rate=2.0)), torch.arange(8)
    model.train()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    logits, loss = training_loss(model, inputs, labels, load_config(model="cmci"))
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    model.load_state_dict(state)  # the running means of the first pass undone
    joint, own = model.logits_and_own(*inputs)
    torch.testing.assert_close(joint, logits)
    parts = [functional.cross_entropy(x, labels, label_smoothing=0.1) for x in (joint, *own)]
    torch.testing.assert_close(sum(parts), loss)
    assert len(own) == 2
