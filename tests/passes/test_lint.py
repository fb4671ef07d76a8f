"""Lint finds every fault of a network at once, each once, by the qualified name of its layer."""

from __future__ import annotations

import ast
import dataclasses
import math
import random
from pathlib import Path

import numpy as np
import pytest
import samples
import torch
from faulty import (
    CASES,
    LONG,
    Block,
    Branch,
    Calls,
    X,
    altered,
    broken,
    chain,
    conv,
    found_in,
    net,
    temporal,
)
from norse.torch import LIFCell, SequentialState
from torch import nn
from torch.nn import functional

from neuroav import hardware
from neuroav.errors import DataError, ProfileError, UnsupportedNode
from neuroav.models.layers import (
    Add,
    Gain,
    HeadSum,
    Lif,
    LifParameters,
    PerStep,
    SpatialMean,
    TimeMean,
)
from neuroav_export import Finding, compile_module, lint
from neuroav_export.linting import deployable
from neuroav_export.linting.findings import NETWORK, Findings
from neuroav_export.linting.rules import KINDS, RULES, rules_table


@pytest.mark.parametrize("rule", CASES)
def test_each_fault_alone_is_named_with_why_and_rewrite(rule):
    build, layer, problem, options = CASES[rule]
    torch.manual_seed(0)
    found = found_in(build(), **options)
    (this, *_) = [f for f in found if f.rule == rule]
    assert (this.layer, this.severity) == (layer, RULES[rule].severity)
    assert problem in this.problem
    assert (this.why, this.rewrite) == (RULES[rule].why, RULES[rule].rewrite)


# What one fault brings besides its own finding, because it is two, or shows in two places.
ALSO = {
    "mean": {"reshape"}, "concat": {"index"}, "control-flow": {"activation"}, "twice": {"current"},
    "convolution-form": {"reshape"}, "block": {"activation"}, "per-channel": {"graded"},
    "delay": {"non-causal"},
}  # fmt: skip


@pytest.mark.parametrize("rule", CASES)
def test_one_fault_does_not_become_many(rule):
    build, _, _, options = CASES[rule]
    torch.manual_seed(0)
    found = found_in(build(), **options)
    assert {f.rule for f in found} == {rule, *ALSO.get(rule, ())}


def test_every_rule_has_its_case():
    elsewhere = {"cost-only", "fit", "other"}  # fit: tests/mapping/test_export.py
    assert set(CASES) | elsewhere == set(RULES)
    assert set(KINDS.values()) <= set(RULES)


def test_every_rule_that_the_compiler_names_is_in_the_table():
    files = [
        *(samples.ROOT / "export" / "neuroav_export").rglob("*.py"),
        *(samples.ROOT / "neuroav").rglob("*.py"),
    ]
    named = {
        keyword.value.value
        for file in files
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if keyword.arg == "rule" and isinstance(keyword.value, ast.Constant)
    }
    assert len(named) > 15
    assert named <= set(RULES)


def test_the_document_holds_the_table():
    text = (samples.ROOT / "docs" / "lint.md").read_text(encoding="utf-8")
    assert rules_table() in text


# --- many at once ------------------------------------------------------------------------------
UNEVEN = nn.AvgPool2d(2, ceil_mode=True)


class Encoder(nn.Module):
    """One of each, in forward and in layers."""

    def __init__(self):
        super().__init__()
        stem = nn.Conv2d(1, 4, 3, padding="same"), nn.LayerNorm([6, 6]), nn.ReLU(), UNEVEN
        self.stem = PerStep(nn.Sequential(*stem))
        self.conv, self.pool = conv(4, 4), PerStep(nn.MaxPool2d(2, padding=1))
        self.norm, self.lif = PerStep(nn.BatchNorm2d(4)), altered(Lif(), v_reset=0.5)
        self.slow = Lif(LifParameters(dt_s=2e-3, tau_mem_s=1e-3))

    def forward(self, x):
        x = self.lif(self.norm(self.pool(self.conv(self.stem(x)))))
        return self.slow(torch.relu(x))


class Many(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.branch = Encoder(), Branch()
        self.block = PerStep(nn.Sequential(Block(), nn.BatchNorm2d(4, track_running_stats=False)))
        self.mean, self.attention = SpatialMean(), nn.MultiheadAttention(4, 2)
        self.head, self.soft, self.unused = nn.Linear(4, 3), nn.Softmax(-1), nn.Tanh()
        with torch.no_grad():
            self.head.bias[0] = math.inf

    def forward(self, x):
        x = self.block(self.branch(self.encoder(x)))
        tokens = self.mean(x * 2.0)
        mixed, _ = self.attention(tokens, tokens, value=tokens)
        return self.soft(self.head(mixed))


MANY = {
    ("encoder.stem.layer.0", "padding"), ("encoder.stem.layer.1", "normalisation"),
    ("encoder.stem.layer.2", "activation"), ("encoder.stem.layer.3", "average-pool"),
    ("encoder.pool.layer", "max-pool-place"), ("encoder.norm.layer", "batch-norm-place"),
    ("encoder.lif", "reset"), ("encoder", "activation"), ("encoder.slow", "time-step"),
    ("branch", "control-flow"), ("branch.act", "activation"), ("block.layer.0", "block"),
    ("block.layer.0.act", "activation"), ("block.layer.1", "batch-norm-statistics"),
    (NETWORK, "product"), ("attention", "attention"), ("head", "not-finite"), ("head", "end"),
    ("soft", "softmax"),
}  # fmt: skip


def test_all_faults_of_a_network_are_found_at_once():
    network = Many()
    before = {n: v.clone() for n, v in network.state_dict().items()}
    found = found_in(network)
    assert {(f.layer, f.rule) for f in found} == MANY
    assert len(found) == len(MANY)
    by_place = {(f.layer, f.rule): f for f in found}
    assert "test_lint.py line" in by_place["encoder", "activation"].problem
    assert "self.slow(torch.relu(x))" in by_place["encoder", "activation"].problem
    assert all(
        torch.equal(v, before[n]) for n, v in network.state_dict().items() if n != "head.bias"
    )
    assert network.training


def test_findings_come_in_the_order_of_the_network_and_cannot_be_changed():
    found = lint(Many(), X)
    layers = [f.layer for f in found]
    assert layers[0] == "encoder.stem.layer.0"
    assert layers[-1] == NETWORK
    assert layers.index("branch") < layers.index("attention") < layers.index("head")
    with pytest.raises(dataclasses.FrozenInstanceError):
        found[0].layer = "another"
    assert isinstance(found[0], Finding)


def test_a_root_that_fx_cannot_follow_is_still_looked_through():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.act, self.unused, self.norm = nn.ReLU(), nn.Tanh(), nn.LayerNorm(6)

        def forward(self, x):
            for frame in x:
                x = x + frame
            return self.norm(self.act(x))

    found = found_in(Root())
    assert {(f.layer, f.rule) for f in found} == {
        (NETWORK, "shape"), ("norm", "normalisation"), (NETWORK, "end"),
    }  # fmt: skip


def test_a_layer_with_two_faults_has_both():
    lif = altered(Lif(LifParameters(tau_mem_s=5e-4)), v_reset=0.5, v_th=-1.0)
    found = found_in(net(lif=lif))
    assert {f.rule for f in found} == {"reset", "threshold", "time-constant"}
    padded = broken(conv(padding_mode="reflect"))
    assert {f.rule for f in found_in(net(conv=padded))} == {"padding", "not-finite"}


class Picky(nn.Module):
    """Not entered, because of its branch; its neurons are looked at by themselves."""

    def __init__(self):
        super().__init__()
        self.lif, self.conv = (
            altered(Lif(), v_reset=0.5),
            PerStep(nn.Conv2d(4, 4, 1, padding="same")),
        )

    def forward(self, x):
        return self.lif(self.conv(x)) if x.max() < 9 else x


def test_what_is_inside_a_module_that_is_not_entered_is_looked_at():
    found = found_in(net(picky=Picky(), norm=PerStep(nn.BatchNorm2d(4)), again=Picky()))
    assert {(f.layer, f.rule) for f in found} == {
        (f"{place}{part}", rule)
        for place in ("picky", "again")
        for part, rule in (("", "control-flow"), (".lif", "reset"), (".conv.layer", "padding"))
    }


class Conventional(nn.Module):
    """A network for pictures as they are written without time."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout2d()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        x = functional.max_pool2d(functional.relu(self.norm(self.conv(x))), 2)
        x = self.drop(x).view(x.size(0), x.shape[1], -1).mean(2)
        return functional.log_softmax(self.linear(x), dim=1)


def test_a_conventional_network_is_found_whole():
    found = found_in(Conventional())
    assert [(f.layer, f.rule) for f in found] == [
        ("conv", "per-step"), ("norm", "per-step"), (NETWORK, "activation"),
        (NETWORK, "max-pool-form"), (NETWORK, "reshape"), (NETWORK, "mean"), (NETWORK, "softmax"),
    ]  # fmt: skip


def test_a_container_of_another_library_is_looked_through():
    found = found_in(SequentialState(nn.Conv2d(1, 4, 1), LIFCell(), nn.ReLU()))
    assert [(f.layer, f.rule) for f in found] == [("0", "fails")]
    assert "Steps(network)" in found[0].rewrite


def test_an_argument_with_a_default_is_left_out_or_named():
    class Optional(Calls):
        def forward(self, x, mask=None):
            return super().forward(x if mask is None else x * mask)

    assert found_in(Optional(lambda m, x: x)) == []
    found = found_in(Optional(lambda m, x: x.roll(1)))
    assert [f.rule for f in found] == ["inputs", "product", "reshape"]
    assert "'mask'" in found[0].problem


# --- anything --------------------------------------------------------------------------------
LAYERS = (
    lambda: conv(4, 4), lambda: conv(4, 4, padding="same"), Lif, Lif, Lif, SpatialMean, TimeMean,
    lambda: PerStep(nn.BatchNorm2d(4)), lambda: PerStep(nn.MaxPool2d(2)), lambda: nn.MaxPool2d(2),
    lambda: PerStep(nn.AvgPool2d(2)), nn.ReLU, lambda: nn.Softmax(-1), lambda: Gain(2.0),
    lambda: Gain(-1.0), nn.Identity, lambda: nn.Flatten(2), lambda: nn.Linear(4, 4),
    lambda: HeadSum(2), lambda: nn.LSTM(4, 4), lambda: PerStep(Lif()), Branch,
    lambda: Lif(LifParameters(dt_s=2e-3)), lambda: PerStep(nn.GroupNorm(2, 4)),
    lambda: altered(Lif(), v_th=-1.0),
    lambda: PerStep(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))),
)  # fmt: skip


class Anything(nn.Module):
    """Layers and operations by chance; most cannot be deployed, many cannot even run."""

    def __init__(self, chance):
        super().__init__()
        self.first, self.lif, self.add = conv(), Lif(), Add()
        self.body = nn.ModuleList(chance.choice(LAYERS)() for _ in range(chance.randint(0, 4)))
        self.end = nn.ModuleList([SpatialMean(), nn.Linear(4, 3), TimeMean()])
        self.joins = [chance.choice(("", "", "", "add", "+", "*", "relu")) for _ in self.body]

    def forward(self, x):
        x = y = self.lif(self.first(x))
        for join, layer in zip(self.joins, self.body, strict=True):
            x = layer(x)
            if join == "add":
                x = self.add(x, y)
            elif join:
                x = {"+": lambda x: x + y, "*": lambda x: 2 * x, "relu": torch.relu}[join](x)
        for layer in self.end:
            x = layer(x)
        return x


@pytest.mark.parametrize("target", ["loihi2", "loihi1"])
def test_lint_and_compiler_agree_on_networks_by_chance(target):
    compiled = 0
    for seed in range(50):
        torch.manual_seed(seed)
        network = Anything(random.Random(seed))
        found = found_in(network, target=target, max_count={"x": 1})
        assert not {f.rule for f in found} & {"other", "scores"}, seed
        compiled += deployable(found)
    assert compiled == 0 if target == "loihi1" else 3 < compiled < 40


def test_a_network_without_neurons_has_no_time_step():
    found = found_in(chain(flat=nn.Flatten(2), fc=nn.Linear(36, 3), end=TimeMean()))
    assert [(f.layer, f.rule) for f in found] == [(NETWORK, "time-step")]


# --- targets -----------------------------------------------------------------------------------
def profile_file(tmp_path, **changes):
    text = hardware.load_profile("loihi2").text
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return str(path)


def test_a_cost_only_profile_is_a_finding_beside_those_of_the_network(tmp_path):
    target = str(tmp_path / "mine.toml")
    Path(target).write_text(
        'schema = 2\nid = "mine"\ntitle = "x"\nextends = "loihi2"\nuse = "cost-only"\n'
        'differs = "Neurons have three states."\n'
    )
    (found,) = found_in(net(), target=target)
    assert (found.layer, found.rule) == (NETWORK, "cost-only")
    assert "is a cost-only profile" in found.problem
    assert "Neurons have three states" in found.problem
    rules = {f.rule for f in found_in(net(norm=PerStep(nn.BatchNorm2d(4))), target=target)}
    assert rules == {"cost-only", "batch-norm-place"}


@pytest.mark.parametrize("target", ["speck2f", "spinnaker2", "truenorth", "xylo-audio3"])
def test_nothing_is_exported_for_a_target_that_computes_otherwise(target):
    why = hardware.load_profile(target).differs.rstrip(".")
    with pytest.raises(ProfileError, match="is a cost-only profile") as caught:
        compile_module(net(), {"x": LONG["x"]}, target=target)
    assert why in str(caught.value)


def test_the_delay_of_the_target_decides(tmp_path):
    target = profile_file(tmp_path, delay=("delay_max = 62", "delay_max = 63"))
    long = {"x": LONG["x"][:, :61]}  # two more in the branch
    assert [f.rule for f in found_in(temporal(), long)] == ["delay", "non-causal"]
    assert [f.rule for f in found_in(temporal(), long, target=target)] == ["non-causal"]


def test_what_is_no_fault_of_the_network_is_an_error():
    with pytest.raises(ProfileError, match="unknown profile 'loihi3'"):
        lint(net(), X, target="loihi3")
    with pytest.raises(UnsupportedNode, match="weights of 9 bits"):
        lint(net(), X, bits=9)
    with pytest.raises(DataError, match="sample 'x': shape is"):
        lint(net(), {"x": np.ones(3)})
    with pytest.raises(DataError, match="the sample holds no input"):
        lint(net(), {})


def test_an_error_without_a_rule_keeps_its_own_advice():
    findings = Findings()
    findings.error("conv", UnsupportedNode("conv: is odd; make it even"))
    (found,) = findings.sorted([])
    assert (found.problem, found.rewrite, found.rule) == ("is odd", "make it even", "other")
