"""What lint proposes deploys, and what the models of the registry are made of does too."""

from __future__ import annotations

import numpy as np
import pytest
import samples
import torch
from faulty import (
    CASES,
    LONG,
    Calls,
    X,
    altered,
    attention_net,
    conv,
    forgetful,
    found_in,
    joined,
    net,
)
from norse.torch import LIFCell
from torch import nn

from neuroav.models import registry
from neuroav.models.layers import (
    Add,
    HeadSum,
    Lif,
    LifParameters,
    MaskAttention,
    PerStep,
    SpatialAttention,
    TemporalAttention,
)
from neuroav.training.config import ModelConfig, ScmrlConfig
from neuroav_export import compile_module, lint
from neuroav_export.linting import deployable

# --- the registry ------------------------------------------------------------------------------
FORMS = ("spatial", "temporal", "spatiotemporal", "mask")
MODELS = [
    *((name, {}) for name in registry.MODELS if name not in ("scmrl", "weight-attention")),
    *(("scmrl", {"form": form}) for form in FORMS),
    ("scmrl", {"mode": "faithful"}), ("scmrl", {"alpha": 0.0}), ("scmrl", {"join": "concat"}),
    ("scmrl", {"spiking_residual": False}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "switches"), MODELS, ids=str)
def test_every_model_is_deployable_on_loihi2(name, switches):
    model = registry.build_model(ModelConfig(name=name, embed_dim=8), samples.SHAPES, 10,
                        ScmrlConfig(**switches))  # fmt: skip
    found = found_in(model.eval(), samples.poisson_inputs(1, 4, names=model.inputs))
    assert deployable(found)
    holding = [f.layer.rpartition(".")[2] for f in found]
    whole = name == "scmrl" and switches.get("form", "spatiotemporal") == "spatiotemporal"
    if switches.get("alpha") == 0.0 or not (whole or switches.get("form") == "temporal"):
        assert holding == []
    else:
        assert holding == (["attention", "product"] if whole else ["attention"]) * 2


def test_weight_attention_is_named_operation_by_operation():
    model = registry.build_model(ModelConfig(name="weight-attention"), samples.SHAPES, 10)
    found = found_in(model.eval(), samples.poisson_inputs(1, 4))
    assert {(f.layer, f.rule) for f in found} == {
        (f"mix.{name}{part}", rule)
        for name in ("audio", "visual")
        for part, rule in (
            ("", "mean"), ("", "concat"), ("", "index"), ("", "product"), (".fc2", "current"),
        )
    }  # fmt: skip


def test_add_on_loihi1_lists_what_sends_integers():
    model = registry.build_model(ModelConfig(name="add", embed_dim=8), samples.SHAPES, 10)
    found = found_in(model.eval(), samples.poisson_inputs(1, 4), target="loihi1")
    assert {f.rule for f in found} == {"graded"}
    parts = ("", ".stem.tokens", ".mlp.residual", ".token_mean")
    assert [f.layer for f in found] == [
        *(f"{branch}" for branch in ("audio", "visual")),
        *(f"{branch}{part}" for branch in ("audio", "visual") for part in parts[1:]),
        "fusion",
    ]


def test_what_attention_sends_is_graded():
    network = attend(SpatialAttention(2))
    network.mean, network.linear = nn.Flatten(2), nn.Linear(144, 3)
    found = found_in(network, {"x": np.minimum(X["x"], 1)}, **BINARY)
    assert [(f.layer, f.problem.partition(",")[0]) for f in found] == [
        ("attention", "sends counts")
    ]


# --- the rewrites ------------------------------------------------------------------------------
def attend(kind):
    return joined(lambda m, q, k, v: m.out(m.attention(q, k, v)), attention=kind, out=Lif())


def masked():
    return joined(
        lambda m, q, k, v: m.mask(m.mask_lif(m.sums(q)), v),
        sums=HeadSum(2), mask_lif=Lif(), mask=MaskAttention(),
    )  # fmt: skip


def residual(spatial):
    return joined(
        lambda m, q, k, v: m.add(m.out(m.attention(q, k, v)), v),
        attention=SpatialAttention(2) if spatial else TemporalAttention(2), out=Lif(), add=Add(),
    )  # fmt: skip


def norm_block(channels=4):
    return PerStep(nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels)))


def one_weight():
    """Two layers with the same weights."""
    a, b = conv(4, 4), conv(4, 4)
    b.layer.weight = a.layer.weight
    return Calls(lambda m, x: m.lif_b(m.b(m.lif_a(m.a(x)))), a=a, b=b, lif_a=Lif(), lif_b=Lif())


def of_spikes():
    """Currents meet in one neuron, no means: what a chip of single spikes takes."""
    model = Calls(lambda m, x: m.out(m.a(x) + m.b(m.mid(m.c(x)))), a=conv(4, 4), b=conv(4, 4),
                  c=conv(4, 4), mid=Lif(), out=Lif(), linear=nn.Linear(144, 3))  # fmt: skip
    model.mean = nn.Flatten(2)
    return model


def with_residual():
    return Calls(lambda m, x: m.add(x, m.out(m.a(x))), a=conv(4, 4), out=Lif(), add=Add())


PICTURE = {"x": np.repeat(np.random.default_rng(0).normal(size=(2, 1, 1, 6, 6)), 3, axis=1)}
BINARY = {"target": "loihi1", "max_count": {"x": 1}}


def keeping(m, x):
    state, spikes = None, []
    for frame in x:
        z, state = m.cell(frame, state)
        spikes.append(z)
    return torch.stack(spikes)


REWRITES = {
    "activation": (lambda: net(lif=nn.ReLU()), lambda: net(lif=Lif()), {}),
    "normalisation": (
        lambda: net(conv=PerStep(nn.Sequential(nn.Conv2d(1, 4, 3), nn.InstanceNorm2d(4)))),
        lambda: net(conv=norm_block()), {}),
    "batch-norm-place": (
        lambda: net(norm=PerStep(nn.BatchNorm2d(4))), lambda: net(conv=norm_block()), {}),
    "attention": (attention_net, lambda: attend(SpatialAttention(2)), {}),
    "softmax": (lambda: net(soft=nn.Softmax(2)), masked, {}),
    "average-pool": (lambda: net(pool=PerStep(nn.AvgPool2d(4, ceil_mode=True))),
                     lambda: net(pool=PerStep(nn.AvgPool2d(2))), {}),
    "max-pool-place": (lambda: net(conv=nn.Sequential(conv(), PerStep(nn.MaxPool2d(2)))),
                       lambda: net(pool=PerStep(nn.MaxPool2d(2))), {}),
    "reset": (lambda: net(lif=altered(Lif(), v_reset=0.5)),
              lambda: net(lif=altered(Lif(), v_reset=0.5, v_leak=0.5)), {}),
    "time-step": (lambda: net(more=conv(4, 4), slow=Lif(LifParameters(tau_mem_s=4e-3, dt_s=5e-4))),
                  lambda: net(more=conv(4, 4), slow=Lif(LifParameters(tau_mem_s=8e-3))), {}),
    "twice": (CASES["twice"][0], one_weight, {}),
    "padding": (lambda: net(conv=conv(padding="same")), lambda: net(conv=conv(padding=1)), {}),
    "product": (lambda: Calls(lambda m, x: x**2), lambda: Calls(lambda m, x: 3 * x), {}),
    "state": (lambda: Calls(forgetful, cell=LIFCell()), lambda: Calls(keeping, cell=LIFCell()), {}),
    "end": (lambda: net(end=nn.Identity()), net, {}),
    "graded": (with_residual, of_spikes, BINARY),
    "static-input": (lambda: net(conv=Lif()), net, {"static": ("x",), "sample": PICTURE}),
    "delay": (lambda: residual(False), lambda: residual(True), {"sample": LONG}),
}  # fmt: skip


@pytest.mark.parametrize("rule", REWRITES)
def test_the_rewrite_deploys(rule):
    before, after, options = REWRITES[rule]
    torch.manual_seed(0)
    assert rule in {f.rule for f in found_in(before(), **options)}
    sample = options.get("sample", X)
    rest = {k: v for k, v in options.items() if k != "sample"}
    if "max_count" in rest:
        sample = {"x": np.minimum(sample["x"], 1)}
    assert lint(after(), sample, **rest) == []
    deployment = compile_module(after(), sample, **rest)
    assert deployment.neurons > 0
