"""The Python interface: every example runs, what is fed may come in any form, results agree."""

from __future__ import annotations

import doctest
import inspect
import json
import subprocess
import sys

import numpy as np
import pytest
import samples
import torch
from torch import nn

import neuroav
from neuroav.api.inputs import installed
from neuroav.costs.energy import Estimate
from neuroav.errors import (
    ConfigError,
    DataError,
    MissingDependency,
    UnsupportedModule,
    UnsupportedNode,
)
from neuroav.models.layers import Lif, LifParameters, PerStep, TimeMean
from neuroav.sim import fast
from neuroav.sim.trace import collect

PUBLIC = [name for name in neuroav.__all__ if not name.startswith("__")]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples(thing, name):
    """Return the examples in the docstring of ``thing`` itself."""
    return [
        test
        for test in doctest.DocTestFinder(recurse=False).find(thing, name, globs={})
        if test.examples
    ]


def documented():
    """Return name -> thing of all that must have an example: public names, methods of Network."""
    found = {name: getattr(neuroav, name) for name in PUBLIC}
    for name, value in vars(neuroav.Network).items():
        if inspect.isfunction(value) and not name.startswith("_"):
            found[f"Network.{name}"] = value
    return found


@pytest.mark.parametrize("name", documented())
def test_every_public_name_has_an_example_that_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (test,) = examples(documented()[name], name)
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=FLAGS).run(test, out=failures.append)
    assert not failures, "".join(failures)


# --- the package ---------------------------------------------------------------------------------
def test_names_are_listed_before_they_are_loaded():
    code = "import neuroav, sys; print('neuroav.api' in sys.modules, sorted(dir(neuroav)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False")
    assert all(repr(name) in done.stdout for name in PUBLIC)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'neuroav' has no attribute 'exprot'"):
        neuroav.exprot  # noqa: B018


def test_what_type_checkers_see_is_what_is_loaded():
    for name in PUBLIC:
        thing = getattr(neuroav, name)
        assert thing.__module__ == neuroav._HOMES[name]
        assert vars(neuroav)[name] is thing
    assert set(neuroav._HOMES) == set(PUBLIC)


# --- a small network -----------------------------------------------------------------------------
class Line(nn.Module):
    """Two-class network of one input (steps, samples, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = PerStep(nn.Linear(4, 12))
        self.lif = Lif(LifParameters(tau_mem_s=2e-3))
        self.head = nn.Linear(12, 2)
        self.mean = TimeMean()
        with torch.no_grad():
            half = torch.tensor([1.0, 1.0, -1.0, -1.0])
            self.hidden.layer.weight[:6], self.hidden.layer.weight[6:] = half, -half
            self.hidden.layer.bias.zero_()
            self.head.weight[0], self.head.weight[1] = torch.ones(12), -torch.ones(12)
            self.head.weight[:, 6:] *= -1
            self.head.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.mean(self.head(self.lif(self.hidden(x))))


def recordings(count, seed):
    """Return counts (count, 10, 4) with more in one half, and which half."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    rates = np.where((np.arange(4) < 2) == (labels == 0)[:, None], 1.5, 0.1)
    return rng.poisson(rates[:, None, :].repeat(10, 1)), labels


X, LABELS = recordings(64, seed=0)


@pytest.fixture(scope="module")
def net():
    return neuroav.export(Line(), X, classes=("first", "second"), labels=LABELS)


def test_simulate_gives_what_the_executor_gives(net):
    found = net.simulate(X, LABELS, states=True)
    outputs = collect(fast.run(net.deployment, {"x": X}))
    assert 0.02 < found.rate["lif"] < 0.9
    for name, values in outputs.items():
        np.testing.assert_array_equal(found.spikes[name], values)
    np.testing.assert_array_equal(found.scores, outputs[net.deployment.integer.output][:, -1])
    assert found.accuracy == np.mean(found.predictions == LABELS) > 0.9
    assert found.spikes_per_sample["lif"] == outputs["lif"].sum() / len(X)
    assert found.states["lif"].shape == outputs["lif"].shape
    assert found.answers[0] in net.classes
    assert len(found) == 64
    assert found.digest == net.simulate(X, backend="reference", batch=5, record=False).digest


def test_scores_are_worth_their_scale(net):
    found = net.simulate(X)
    assert (
        np.corrcoef((found.scores * found.scale).ravel(), net.float_scores(X).ravel())[0, 1] > 0.9
    )
    assert found.labels.tolist() == [-1] * 64
    assert found.accuracy is None


def test_record_keeps_the_named_nodes(net):
    assert set(net.simulate(X[:2], record="lif").spikes) == {"lif"}
    assert net.simulate(X[:2], record=False).spikes == {}
    with pytest.raises(ConfigError, match=r"unknown node 'lfi': .*did you mean 'lif'"):
        net.simulate(X[:2], record=["lfi"])


@pytest.mark.parametrize(
    "x",
    [X, torch.from_numpy(X), torch.from_numpy(X).float().requires_grad_(), {"x": X},
     X.astype(np.uint8)],
    ids=["numpy", "torch", "floats with a gradient", "dict", "uint8"],
)  # fmt: skip
def test_samples_come_in_any_form(net, x):
    assert net.simulate(x).digest == net.simulate(X).digest
    assert neuroav.export(Line(), x, place=False).synapses == net.synapses


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X[0], r"shape is \(10, 4\), needs \(samples, 10, 4\); of one sample give x\[None\]"),
        (np.moveaxis(X, 1, 0), r"time comes second: give np.moveaxis\(x, 0, 1\)"),
        (X + 0.5, "holds fractions"),
        (X.tolist(), "is a list, needs a numpy array or a torch tensor"),
        (X.astype(object), "dtype is object"),
        ({"y": X}, r"inputs are \['y'\], the network needs \['x'\]"),
        (X[:0], "x holds no samples"),
        (X - 1, r"counts span -1\.\.\d+, allowed 0\.\.255"),
    ],
)
def test_wrong_samples_are_refused_with_the_remedy(net, x, message):
    with pytest.raises(DataError, match=message):
        net.simulate(x)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:3], r"shape \(3,\), needs whole numbers, one for each of 64 samples"),
        (LABELS * 1.0, "float64"),
        (LABELS + 1, r"span 1\.\.2, allowed are 0\.\.1, and -1 for unknown"),
    ],
)
def test_wrong_labels_are_refused(net, labels, message):
    with pytest.raises(DataError, match=message):
        net.simulate(X, labels)
    with pytest.raises(DataError, match=message):
        neuroav.export(Line(), X, labels=labels)


def test_labels_without_samples_are_refused(net):
    with pytest.raises(DataError, match="labels without samples"):
        net.simulate(labels=LABELS)


def test_a_network_without_samples_says_so(net):
    from dataclasses import replace

    bare = neuroav.Network(replace(net.deployment, probe=None))
    with pytest.raises(DataError, match="carries no samples of its own; give x"):
        bare.simulate()


# --- several inputs ------------------------------------------------------------------------------
def test_two_inputs_are_taken_by_name():
    inputs = samples.poisson_inputs(4, 4, seed=3)
    model = samples.warmed_model("add")
    net = neuroav.export(model, dict(reversed(inputs.items())), place=False)
    assert net.inputs == {n: inputs[n].shape[2:] for n in sorted(inputs)}
    assert net.simulate(inputs).counts.spikes[net.deployment.integer.order[-2]].sum() > 0
    with pytest.raises(DataError, match=r"x is one array, but the network has 2 inputs \(audio, v"):
        net.simulate(inputs["audio"])
    with pytest.raises(DataError, match=r"forward of \w+ takes 2 inputs \(audio, visual\)"):
        neuroav.export(model, inputs["audio"])
    with pytest.raises(DataError, match=r"the sample holds 1 input \(audio\), but forward of"):
        neuroav.export(model, {"audio": inputs["audio"]})


# --- export --------------------------------------------------------------------------------------
def test_export_keeps_names_labels_and_options(net):
    assert net.classes == ("first", "second")
    assert net.deployment.placement is not None
    assert net.deployment.provenance["weight_bits"] == 8
    assert net.deployment.probe.labels.tolist() == LABELS[:8].tolist()
    assert net.simulate().accuracy == np.mean(net.simulate().predictions == LABELS[:8])
    few = neuroav.export(Line(), X, bits=4, max_count=15, provenance={"who": "us"}, place=False)
    assert few.deployment.integer.inputs["x"].max_count == 15
    assert few.deployment.provenance["who"] == "us"
    assert few.deployment.placement is None
    assert few.deployment.probe.labels.tolist() == [-1] * 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ("a", "b", "c")}, "classes: 3 names, but the network gives 2 scores"),
        ({"max_count": {"y": 3}}, "unknown input in max_count 'y'"),
        ({"max_count": 0}, "max_count of 'x' is 0, needs a whole number from 1"),
        ({"max_count": 1}, r"counts span 0\.\.\d, allowed 0\.\.1"),
    ],
)
def test_export_refuses_what_does_not_fit(options, message):
    with pytest.raises(DataError, match=message):
        neuroav.export(Line(), X, **options)


def test_what_was_prepared_keeps_its_width():
    ready = neuroav.prepare(Line(), X, bits=4)
    net = neuroav.export(ready, X)
    assert net.deployment.provenance["weight_bits"] == 4
    frames = torch.from_numpy(X).float().transpose(0, 1)
    found = net.simulate(X)
    trained = ready(frames).detach().numpy()
    np.testing.assert_array_equal(trained.argmax(1), found.predictions)
    assert len(set(found.predictions.tolist())) == 2
    with pytest.raises(UnsupportedNode, match="bits is 8, but the network was prepared"):
        neuroav.export(ready, X, bits=8)


def test_single_layers_have_their_own_width():
    net = neuroav.export(Line(), X, layer_bits={"hidden": 3}, place=False)
    widths = {p.weight_bits for p in net.deployment.integer.populations["lif"].projections}
    assert widths == {3}


def test_pictures_are_fed_as_they_are():
    pictures = np.random.default_rng(0).normal(size=(30, 1, 4)).repeat(10, axis=1)
    net = neuroav.export(Line(), pictures, static=("x",), place=False)
    assert net.inputs == {"x": (4,)}
    assert net.deployment.host
    assert len(set(net.simulate(pictures).answers)) == 2
    assert net.verify(pictures)


def test_imported_networks_carry_samples_and_labels(net, tmp_path):
    net.convert("nir", tmp_path / "line.nir")
    again = neuroav.import_nir(tmp_path / "line.nir", torch.from_numpy(X), labels=LABELS)
    assert again.deployment.probe.labels.tolist() == LABELS[:8].tolist()
    assert again.deployment.placement is not None
    assert again.simulate(X, LABELS).accuracy > 0.9


def test_lint_and_export_agree_on_what_cannot_be_deployed():
    model = nn.Sequential(PerStep(nn.Linear(4, 2)), nn.Tanh(), TimeMean())
    found = neuroav.lint(model, X)
    assert [(f.layer, f.rule) for f in found if f.severity == "error"] == [("1", "activation")]
    with pytest.raises(UnsupportedModule, match="1: "):
        neuroav.export(model, X)
    assert not [f for f in neuroav.lint(Line(), X) if f.severity == "error"]


# --- verify, energy, report, files ---------------------------------------------------------------
def test_verify_is_true_where_all_is_equal(net):
    found = net.verify(X, backends=("reference", "fast"))
    assert found
    assert found.compared > 100
    assert set(found.digests.values()) == {net.simulate(X).digest}
    with pytest.raises(ConfigError, match="give two or more different names"):
        net.verify(X, backends=("fast", "fast"))
    with pytest.raises(ConfigError, match=r"unknown backend 'fats'.*did you mean 'fast'"):
        net.verify(X, backends="reference,fats")


def test_verify_is_false_where_it_is_not(net, monkeypatch):
    from neuroav import simulate

    def wrong(deployment, inputs, **_):
        for trace in fast.run(deployment, inputs):
            trace.outputs["lif"][0, 3, 0] ^= 1
            yield trace

    monkeypatch.setitem(simulate.BACKENDS, "fast", lambda: wrong)
    found = net.verify(X)
    assert not found
    assert found.first_divergence["node"] == "lif"


def test_explain_names_the_stages(net):
    stages = [s["stage"] for s in net.explain(X[:8])["stages"]]
    assert stages[-1] == "fast"
    assert "integer" in stages


def test_energy_is_that_of_the_report(net, tmp_path):
    cost = net.energy(X)
    report = net.report(tmp_path / "out", X, LABELS)
    energy = report.data["energy"]
    assert cost.total.as_dict() == energy["total"]
    assert cost.dynamic.as_dict() == energy["dynamic"]
    assert cost.seconds.as_dict() == report.data["latency"]["seconds"]
    assert all(isinstance(e, Estimate) for e in cost.by_event.values())
    assert {"synop_dense", "static"} <= set(cost.by_event)
    assert cost.by_event["synop_dense"].value > 0


def test_energy_without_a_placement_is_unknown_and_says_why():
    cost = neuroav.export(Line(), X, target="ideal", place=False).energy(X)
    assert cost.total.value is None
    assert cost.missing
    assert len(cost.total.source) > 10


def test_report_of_labelled_samples(net, tmp_path):
    report = net.report(tmp_path / "out", X, LABELS, profiles="loihi1")
    assert report.path == tmp_path / "out" / "report.html"
    assert report.path.is_file()
    assert report.data["accuracy"]["labelled"] == 64
    assert report.data["accuracy"]["deployed"] == net.simulate(X, LABELS).accuracy
    assert report.data["provenance"]["profile"]["id"] == "loihi1-nahuku-fit"
    assert "not saved in a file" in report.path.read_text(encoding="utf-8")


def test_report_without_labels_knows_no_accuracy(net, tmp_path):
    report = net.report(tmp_path / "out", X)
    accuracy = report.data["accuracy"]
    assert accuracy["labelled"] == 0
    assert accuracy["samples"] == 64
    assert accuracy["agreement"] > 0.9
    for key in ("float", "deployed", "correct"):
        assert accuracy[key] is None
    assert accuracy["interval_95"] == {"float": None, "deployed": None}
    assert report.data["confusion"] is None
    page = report.path.read_text(encoding="utf-8")
    text = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "No sample has a label" in page
    assert "No sample has a label" in text
    assert "Which classes are mistaken" not in page
    assert "true class unknown" in page
    assert json.loads((tmp_path / "out" / "report.json").read_text())["accuracy"] == accuracy


def test_report_of_some_labels_counts_these(net, tmp_path):
    some = LABELS.copy()
    some[10:] = -1
    report = net.report(tmp_path / "out", X, some)
    right = net.simulate(X).predictions[:10] == LABELS[:10]
    assert report.data["accuracy"]["labelled"] == 10
    assert report.data["accuracy"]["deployed"] == right.mean()
    assert np.sum(report.data["confusion"]) == 10
    assert "The class of 54 samples is unknown" in report.path.read_text(encoding="utf-8")


def test_saved_networks_are_the_same(net, tmp_path):
    saved = net.save(tmp_path / "line.nav")
    again = neuroav.load(tmp_path / "line.nav")
    assert saved.deployment.content_hash == again.deployment.content_hash != ""
    assert again.name == "line.nav"
    assert again.simulate(X).digest == net.simulate(X).digest
    assert again.summary().startswith("line.nav: 14 neurons")


def test_a_file_without_labels_has_no_accuracy_on_the_command_line(tmp_path):
    from neuroav.simulate import simulate

    neuroav.export(Line(), X).save(tmp_path / "line.nav")
    found = simulate(tmp_path / "line.nav", cache_dir=tmp_path)
    assert found["accuracy"] is None
    assert found["samples"] == 8


def test_convert_writes_the_other_formats(net, tmp_path):
    found = net.convert("onnx", tmp_path / "line.onnx")
    assert (tmp_path / "line.onnx").is_file()
    assert found["left_out"] == {}
    with pytest.raises(ConfigError, match="unknown format 'onyx'"):
        net.convert("onyx", tmp_path / "line.onyx")


def test_a_missing_package_is_named_with_its_line():
    def simulate():
        raise ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn")

    line = "a test needs torch; install it with: .*torch"
    with pytest.raises(MissingDependency, match=line), installed("a test"):
        simulate()
    with pytest.raises(ModuleNotFoundError, match="none of ours"), installed("a test"):
        raise ModuleNotFoundError("none of ours", name="pandas")
