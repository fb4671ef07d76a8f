"""Widths of single layers: what they do to the integers, and how they are chosen."""

from __future__ import annotations

import fake_data
import numpy as np
import pytest
import samples
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from neuroav import navfile
from neuroav.cli.export import _widths
from neuroav.errors import ConfigError, DataError, UnsupportedModule, UnsupportedNode
from neuroav.explain.against import differences
from neuroav.fixed import truncate_weights
from neuroav.models import build_model
from neuroav.models.layers import Add, Lif, PerStep, TimeMean
from neuroav.quantization import Options
from neuroav.sim import fast
from neuroav.sim.trace import collect
from neuroav.training import evaluate as evaluation
from neuroav.training.checkpoint import CONFIG, WEIGHTS, save_weights
from neuroav.training.config import ModelConfig, QuantConfig, RunConfig, dump_config
from neuroav.training.qat import prepare_qat, trained_bits
from neuroav_export import choose_bits, compile_module, export_run, prepare, sensitivity
from neuroav_export.mixed import Trials, synapse_bits

BITS = (8, 4, 2)


def events(count: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return event counts of two sensors that only together tell four classes apart, and labels."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, count)
    inputs = {}
    for name, bit in (("audio", labels % 2), ("visual", labels // 2)):
        rates = np.full((count, 1, 1, 8, 8), 0.2)
        rates[bit == 0, :, :, :4] = 0.4
        rates[bit == 1, :, :, 4:] = 0.4
        inputs[name] = rng.poisson(np.broadcast_to(rates, (count, 4, 1, 8, 8)))
    return inputs, labels


class TwoBranches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in ("audio", "visual"):
            conv = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))
            self.add_module(f"{name}_conv", PerStep(conv))
            self.add_module(f"{name}_lif", Lif())
            self.add_module(f"{name}_pool", PerStep(nn.MaxPool2d(2)))
        self.fusion, self.conv, self.lif = Add(), PerStep(nn.Conv2d(6, 8, 3)), Lif()
        self.flat, self.head = PerStep(nn.Flatten()), nn.Linear(32, 4)
        self.time_mean = TimeMean()

    def forward(self, audio: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
        sound = self.audio_pool(self.audio_lif(self.audio_conv(audio)))
        picture = self.visual_pool(self.visual_lif(self.visual_conv(visual)))
        joint = self.lif(self.conv(self.fusion(sound, picture)))
        return self.time_mean(self.head(self.flat(joint)))


@pytest.fixture(scope="module")
def net():
    """A two-branch network trained for a moment, its inputs, and labels."""
    torch.manual_seed(0)
    inputs, labels = events(96)
    net = TwoBranches()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-2)
    for _ in range(16):
        scores = net(*[torch.from_numpy(np.moveaxis(v, 1, 0)).float() for v in inputs.values()])
        loss = nn.functional.cross_entropy(scores, torch.from_numpy(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval(), inputs, labels


@pytest.fixture(scope="module")
def choice(net):
    module, inputs, labels = net
    return choose_bits(module, inputs, labels, BITS, budget=0.05)


def stored(deployment) -> dict[str, list]:
    return {
        n: [p for p in pop.projections if hasattr(p, "weight_bits")]
        for n, pop in deployment.integer.populations.items()
    }


# --- the integers --------------------------------------------------------------------------------
def test_a_layer_has_its_own_width_and_grid(net):
    module, inputs, _ = net
    plain = compile_module(module, inputs, calibration="mse")
    mixed = compile_module(module, inputs, calibration="mse", layer_bits={"visual_conv.0": 3})
    for name, parts in stored(mixed).items():
        for p, before in zip(parts, stored(plain)[name], strict=True):
            assert p.weight_bits == (3 if name == "visual_lif" else 8)
            on_grid = truncate_weights(p.weight, p.weight_bits, p.sign_mode)
            assert np.array_equal(on_grid, p.weight)
            assert np.array_equal(p.weight, before.weight) == (name != "visual_lif")
    assert len(np.unique(stored(mixed)["visual_lif"][0].weight)) <= 8


def test_a_name_stands_for_what_it_holds_and_the_longest_counts(net):
    module, inputs, _ = net
    widths = {"audio_conv": 4, "conv": 5, "visual_conv": 2, "visual_conv.0": 6}
    found = stored(compile_module(module, inputs, layer_bits=widths))
    got = {n: [p.weight_bits for p in parts] for n, parts in found.items() if parts}
    assert got == {"audio_lif": [4], "visual_lif": [6], "lif": [5], "head": [8]}


NAMES = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map(".".join)


@given(layer=NAMES, widths=st.dictionaries(NAMES, st.integers(2, 8), max_size=5))
def test_the_longest_holder_decides(layer, widths):
    parts = layer.split(".")
    holders = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    expected = next((widths[h] for h in reversed(holders) if h in widths), 7)
    found = Options(7, "mse", per_channel=True, layer_bits=widths).at(layer)
    assert found == Options(expected, "mse", per_channel=True)


def test_wrong_names_and_widths_are_said(net):
    module, inputs, _ = net
    with pytest.raises(UnsupportedNode, match=r"'audio_con'.*did you mean 'audio_conv"):
        compile_module(module, inputs, layer_bits={"audio_con": 4})
    with pytest.raises(UnsupportedNode, match=r"audio_conv: weights of 9 bits: allowed are 2\.\.8"):
        compile_module(module, inputs, layer_bits={"audio_conv": 9})


def test_aware_training_of_a_run_takes_widths():
    config = QuantConfig(aware=True, layer_bits={"audio.stem": 3, "visual.stem.conv0.conv": 2})
    inputs = samples.poisson_inputs(4, 4)
    model = prepare_qat(samples.warmed_model("add"), config).eval()
    widths = trained_bits(model, config.bits)
    assert widths == {
        **dict.fromkeys(["audio.stem.conv0", "audio.stem.conv1", "audio.stem.position"], 3),
        "visual.stem.conv0": 2,
    }
    deployment = compile_module(model, inputs, calibration="mse", layer_bits=widths)
    found = {n: parts[0].weight_bits for n, parts in stored(deployment).items() if parts}
    assert found["audio.stem.lif1"] == 3
    assert (found["visual.stem.lif0"], found["visual.stem.lif1"]) == (2, 8)
    with torch.no_grad():
        model(*[torch.from_numpy(np.moveaxis(v, 1, 0)).float() for v in inputs.values()])
    synapses = model.get_submodule("visual.stem.conv0")
    whole = synapses._integers(1.0)[0].detach().numpy()
    assert np.array_equal(whole, stored(deployment)["visual.stem.lif0"][0].weight)
    with pytest.raises(UnsupportedNode, match="unknown layer with weights 'audio.stam'"):
        prepare_qat(samples.warmed_model("add"), QuantConfig(layer_bits={"audio.stam": 4}))


# --- choosing them -------------------------------------------------------------------------------
def test_trials_are_what_the_compiler_makes(net):
    module, inputs, labels = net
    trials = Trials(module, inputs, labels)
    for widths in ({}, {"conv": 2, "head": 4}):
        made = compile_module(module, inputs, calibration="mse", layer_bits=widths)
        assert differences(made.integer, trials.deployment(8, widths).integer) == []


def test_sensitivity_has_every_layer_and_width(net):
    module, inputs, labels = net
    found = sensitivity(module, inputs, labels, BITS)
    assert found.layers == ("audio_conv.0", "visual_conv.0", "conv", "head")
    assert [(r.layer, r.bits) for r in found.rows] == [(n, b) for n in found.layers for b in (4, 2)]
    assert found.float_accuracy > 0.6
    assert found.base.agreement > 0.9
    least = {}
    for row in found.rows:
        assert row.found.memory_bits < least.get(row.layer, found.base.memory_bits)
        least[row.layer] = row.found.memory_bits
    assert len({r.found.agreement for r in found.rows}) > 2  # it measures something
    quiet = sensitivity(module, inputs, bits=(8, 2))
    assert quiet.float_accuracy is None
    assert {r.found.accuracy for r in quiet.rows} == {None}
    assert [r.found.agreement for r in quiet.rows] == [
        r.found.agreement for r in found.rows if r.bits == 2
    ]


def test_the_choice_stays_in_its_budget_and_is_what_is_deployed(net, choice):
    module, inputs, labels = net
    assert choice.layer_bits
    assert choice.after.accuracy >= choice.before.accuracy - 0.05 - 1e-9
    assert choice.after.memory_bits < choice.before.memory_bits
    deployment = compile_module(
        module, inputs, calibration="mse", bits=choice.bits, layer_bits=choice.layer_bits
    )
    scores = collect(fast.run(deployment, inputs))[deployment.integer.output][:, -1]
    assert (scores.argmax(1) == labels).mean() == choice.after.accuracy
    assert synapse_bits(deployment.integer, deployment.profile) == choice.after.memory_bits


def test_its_decisions_lead_to_its_widths(choice):
    widths = dict.fromkeys(choice.sensitivity.layers, 8)
    refused = set()
    for step in choice.steps:
        for layer, before, after in step.moves:
            assert widths[layer] == before > after
        within = step.found.accuracy >= choice.before.accuracy - choice.budget - 1e-9
        assert step.accepted == within
        if step.accepted:
            widths |= {layer: after for layer, _, after in step.moves}
        elif len(step.moves) == 1:
            refused.add(step.moves[0][0])
    assert {n: b for n, b in widths.items() if b != 8} == choice.layer_bits
    assert all(widths[n] == 2 or n in refused for n in widths)
    table = choice.table()
    assert len(table.splitlines()) == 2 + len(choice.steps)
    assert all(f"{layer} {a} to {b}" in table for s in choice.steps for layer, a, b in s.moves)


def test_no_budget_costs_nothing(net):
    module, inputs, labels = net
    found = choose_bits(module, inputs, labels, BITS, budget=0.0)
    assert found.after.accuracy >= found.before.accuracy


def test_bad_requests(net):
    module, inputs, labels = net
    with pytest.raises(ConfigError, match="budget is 1.5"):
        choose_bits(module, inputs, labels, BITS, budget=1.5)
    with pytest.raises(ConfigError, match="two widths"):
        choose_bits(module, inputs, labels, (8,))
    with pytest.raises(DataError, match=r"labels: shape is \(3,\), there are 96 samples"):
        choose_bits(module, inputs, labels[:3], BITS)
    with pytest.raises(UnsupportedModule, match=r"prepare\(\.\.\., layer_bits"):
        sensitivity(prepare(module, inputs), inputs, labels)


# --- a run ---------------------------------------------------------------------------------------
@pytest.fixture
def export(tmp_path, monkeypatch):
    """``export_run`` of an untrained model on made-up data, and the file it writes."""
    config = RunConfig(model=ModelConfig(name="audio", embed_dim=4))
    save_weights(build_model(config.model, samples.SHAPES, 3, config.scmrl), tmp_path / WEIGHTS)
    (tmp_path / CONFIG).write_text(dump_config(config))
    monkeypatch.setattr(evaluation, "load_data", fake_data.load_data)

    def run(**options):
        out = tmp_path / "n.nav"
        return export_run(tmp_path, out=out, cache_dir=tmp_path, place=False, **options), out

    return run


def test_export_keeps_widths_in_the_file(export):
    found, out = export(layer_bits={"audio.stem": 4})
    assert (found["weight_bits"], found["layer_bits"], found["mixed"]) == (
        8,
        {"audio.stem": 4},
        None,
    )
    file = navfile.load(out)
    assert file.provenance["layer_bits"] == {"audio.stem": 4}
    assert [p.weight_bits for p in stored(file)["audio.stem.lif0"]] == [4]
    assert "layer_bits" not in navfile.load(export()[1]).provenance


def test_export_within_a_budget(export):
    found, out = export(accuracy_budget=0.2)
    mixed = found["mixed"]
    assert mixed["after"]["memory_bits"] < mixed["before"]["memory_bits"]
    assert mixed["after"]["accuracy"] >= mixed["before"]["accuracy"] - 0.2
    assert navfile.load(out).provenance["layer_bits"] == found["layer_bits"]
    with pytest.raises(ConfigError, match="not both"):
        export(accuracy_budget=0.2, layer_bits={"head": 4})


def test_the_command_line_reads_widths():
    assert _widths(("a.b=4", "c=2")) == {"a.b": 4, "c": 2}
    for wrong in ("a", "a=", "=4", "a=four", "a=4.5"):
        with pytest.raises(ConfigError, match="write NAME=N"):
            _widths((wrong,))
