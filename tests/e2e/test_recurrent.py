"""Every tool on a deployment with a loop: synaptic currents, a bias in the loop, mixed widths."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx_runs import aligned, by_reference, dense, lif, loop, recurrent, session, whole
from torch import nn

from neuroav import integer as ig
from neuroav import navfile
from neuroav import nodes as rn
from neuroav.cli.group import cli
from neuroav.deployment import Deployment, Probe
from neuroav.explain import explained
from neuroav.explain.against import altered
from neuroav.explain.rederive import derive
from neuroav.graph import SpikingGraph
from neuroav.models.layers import Li, LifParameters, PerStep, RecurrentLif, TimeLast
from neuroav.report.process_graph import draw
from neuroav.sim import fast
from neuroav.sim.trace import collect
from neuroav_export import compile_module, lint
from neuroav_export.pipeline import compile_graph
from neuroav_export.readers.nir import import_nir

STEPS, CLASSES = 20, ("a", "b", "c", "d")


class Speech(nn.Module):
    """Recurrent CubaLIF with a bias on both ways in, and a leaky readout with a current."""

    def __init__(self) -> None:
        super().__init__()
        neuron = LifParameters(tau_mem_s=4e-3, v_threshold=0.25)
        recurrent_ = nn.Linear(16, 16)
        nn.init.normal_(recurrent_.weight, std=0.3)
        self.flat, self.fc = PerStep(nn.Flatten()), PerStep(nn.Linear(12, 16))
        self.rnn = RecurrentLif(recurrent_, neuron, tau_syn_s=2.5e-3)
        self.head, self.li, self.last = nn.Linear(16, 4), Li(8e-3, 3e-3), TimeLast()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.li(self.head(self.rnn(self.fc(self.flat(x))))))


def events(count: int) -> np.ndarray:
    return np.random.default_rng(0).poisson(0.5, (count, STEPS, 1, 12, 1)).astype(np.uint8)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Speech().eval()


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    x = events(12)
    probe = Probe({"x": x}, np.arange(12) % 4)
    options = {"bits": 8, "calibration": "mse", "layer_bits": {"rnn.recurrent": 6}}
    made = compile_module(network(), {"x": x}, classes=CLASSES, probe=probe, **options)
    spikes = collect(fast.run(made, {"x": x}))["rnn"]
    assert 0.05 < spikes.mean() < 0.5
    assert made.integer.loops(("rnn",))
    return made


@pytest.fixture(scope="module")
def path(deployment, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("nav")
    navfile.save(deployment, folder / "net.nav")
    return folder / "net.nav"


def neuroav(*args: object, code: int = 0) -> str:
    """Return what a command printed."""
    env = {"NEUROAV_DATA": None, "NEUROAV_VECTORS": None, "COLUMNS": "160"}
    done = CliRunner().invoke(cli, [*map(str, args)], env=env)
    assert done.exit_code == code, (done.output, done.exception)
    return done.output if code == 0 else done.output + done.stderr


def told(*args: object) -> dict:
    env = {"NEUROAV_DATA": None, "NEUROAV_VECTORS": None}
    done = CliRunner().invoke(cli, [*map(str, args), "--json"], env=env)
    assert done.exit_code in (0, 1), (done.output, done.exception)
    return json.loads(done.stdout)


def changed(deployment: Deployment, source: str, **fields) -> Deployment:
    """Return the deployment with other fields in the synapses from ``source`` to the loop."""
    graph = deployment.integer
    pop = graph.populations["rnn"]
    parts = [replace(p, **fields) if p.source == source else p for p in pop.projections]
    pops = {**graph.populations, "rnn": replace(pop, projections=tuple(parts))}
    return replace(deployment, integer=replace(graph, populations=pops))


def synapse(deployment: Deployment, source: str) -> ig.IntDense:
    found = deployment.integer.populations["rnn"].projections
    return next(p for p in found if p.source == source)


# --- run and compare ----------------------------------------------------------------------------
def test_executors_agree_and_say_what_they_ran(path):
    found = [told("simulate", path, "--backend", b) for b in ("reference", "fast")]
    assert found[0]["spike_digest"] == found[1]["spike_digest"]
    same = told("verify", path, "--backends", "reference,fast")
    assert same["equal"]
    assert same["spikes_compared"] > 1000
    assert same["saturated"] == []  # neurons that stand for a bias are meant to fire


def test_inline_processes_cannot_wait_for_themselves(path):
    assert "use the engine 'runtime'" in neuroav(
        "simulate", path, "--backend", "lava-inline", "--samples", "1", code=1
    )


@pytest.mark.lava
def test_lava_gives_the_same(path):
    assert told("verify", path, "--backends", "reference,lava", "--samples", 2)["equal"]


def test_digests_and_certificate(path, tmp_path):
    copy = tmp_path / "copy.nav"
    copy.write_bytes(path.read_bytes())
    assert told("verify", copy, "--digests", "store")["carried"]["stored"] == 2
    assert told("verify", copy, "--digests", "check")["carried"]["equal"]
    neuroav("verify", copy, "--certificate", tmp_path / "c.md")
    assert "saturated populations (rate above 90 %) | none" in (tmp_path / "c.md").read_text()


# --- explain ------------------------------------------------------------------------------------
def test_every_integer_is_derived_again(deployment):
    pop = deployment.integer.populations["rnn"]
    assert [p.source for p in pop.projections] == ["x", "rnn", "rnn.bias"]
    assert [p.weight_bits for p in pop.projections] == [8, 6, 8]
    assert pop.bias_mantissa.any()  # what whole bias synapses leave over
    assert altered(deployment) == []
    for name in ("rnn", "li"):
        assert derive(deployment, name).settings is not None


def test_a_loop_is_explained(deployment):
    x = {"x": deployment.probe.inputs["x"]}
    outputs = {b: collect(fast.run(deployment, x)) for b in ("reference", "fast")}
    found = explained(deployment, x, outputs, None)
    rows = {r["name"]: r for r in found["layers"]}
    assert rows["rnn"]["own_agreement"] < 1
    assert rows["rnn"]["dominant"] == "weight"
    assert rows["rnn"]["advice"] == "more bits (--bits 8; these weights have 6)"
    assert set(rows["li"]["recovers"]) == {"weight", "bias", "decay", "truncation"}
    assert rows["li"]["recovers"]["weight"] > 0.5
    assert found["without_twin"] == ["rnn.bias"]
    stages = {s["stage"]: s for s in found["stages"]}
    assert 0.8 < stages["fake_quantized"]["agreement"] < stages["fake_quantized"]["own_agreement"]
    assert stages["integer"]["own_agreement"] > 0.999


@pytest.mark.parametrize("what", ["lag", "recurrent weight", "bias synapse"])
def test_an_altered_loop_is_found(deployment, path, tmp_path, what):
    source = "rnn.bias" if what == "bias synapse" else "rnn"
    old = synapse(deployment, source)
    if what == "lag":
        fields, cause = {"lag": 2, "delay": old.delay + 1}, "delay"
    else:
        spikes = collect(fast.run(deployment, deployment.probe.inputs))[source]
        weight, busiest, cause = old.weight.copy(), spikes.sum((0, 1)).argmax(), "weight"
        weight[:, busiest] += np.where(weight[:, busiest] < 100, 40, -40)
        fields = {"weight": weight}
    other = changed(deployment, source, **fields)
    navfile.save(other, tmp_path / "other.nav")
    found = told("verify", path, "--against", tmp_path / "other.nav")["against"]
    assert {d["field"] for d in found["differences"]} == set(fields)
    assert found["first_divergence"]["node"] == "rnn"
    assert found["first_divergence"]["cause"] == cause
    assert {d.field for d in altered(other)} == set(fields)


def per_neuron() -> SpikingGraph:
    """Neurons with thresholds and leaks of their own in a loop, membranes behind them."""
    rng, size = np.random.default_rng(3), 8
    nodes = {
        "x": rn.Input((5,), 3),
        "fc": rn.Dense(rng.normal(size=(size, 5)), rng.normal(size=size) / 9),
        "late": rn.Delay(2),
        "rec": rn.Dense(rng.normal(size=(size, size)) / 3),
        "sum": rn.Add(),
        "lif": rn.Lif(rng.uniform(3e-3, 9e-3, size), rng.uniform(0.2, 0.5, size), tau_syn_s=2e-3),
        "out": rn.Dense(rng.normal(size=(3, size))),
        "li": rn.Li(8e-3, tau_syn_s=3e-3),
        "last": rn.TimeLast(),
    }
    inputs = {"x": (), "fc": ("x",), "late": ("lif",), "rec": ("late",), "sum": ("fc", "rec"),
              "lif": ("sum",), "out": ("lif",), "li": ("out",), "last": ("li",)}  # fmt: skip
    sizes = {"x": 5, "out": 3, "li": 3, "last": 3}
    shapes = {n: (sizes.get(n, size),) for n in nodes}
    return SpikingGraph(nodes, inputs, shapes, "last", 1e-3, STEPS, "traced")


@pytest.mark.parametrize("each", [False, True], ids=["tensor", "channel"])
def test_thresholds_and_leaks_of_single_neurons(each):
    x = {"x": np.random.default_rng(1).integers(0, 3, (8, STEPS, 5))}
    made = compile_graph(per_neuron(), x, bits=5, calibration="mse", per_channel=each)
    pop = made.integer.populations["lif"]
    assert pop.decay_v.shape == pop.threshold.shape == (8,)
    spikes = collect(fast.run(made, x))["lif"]
    assert 0.02 < spikes.mean() < 0.7
    assert altered(made) == []
    assert derive(made, "lif").settings.per_channel == each
    level = pop.threshold.copy()
    level[3] += 5
    pops = {**made.integer.populations, "lif": replace(pop, threshold=level)}
    (found,) = altered(replace(made, integer=replace(made.integer, populations=pops)))
    assert (found.field, found.index, found.found - found.expected) == ("threshold", (3,), 5)


# --- report -------------------------------------------------------------------------------------
def test_the_report_draws_the_loop_and_counts_everything(path, tmp_path):
    neuroav("report", path, "--out", tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text()
    assert re.search(
        r'<path class="way from-1 late" d="M.*><title>rnn reads itself, frames late<', page
    )
    assert "those that close a loop run up" in page
    found = json.loads((tmp_path / "report" / "report.json").read_text())
    assert found["energy"]["complete"]
    assert found["placement"]["fits"]
    layers = {layer["name"]: layer for layer in found["layers"]}
    rates = layers["rnn"]["spikes_deployed"] / layers["rnn"]["neurons"]
    assert 1 < rates < 0.5 * STEPS
    assert layers["rnn"]["synops"] > layers["rnn"]["spikes_deployed"] * 10  # the loop's among them
    assert found["neurobench"]["SynapticOperations"]["Effective_ACs"] > 100
    assert found["saturated"] == []


def test_boxes_and_ways_of_a_larger_loop_lie_apart():
    graph = recurrent().integer
    layers = {n: {"name": n, "kind": kind(p), "neurons": p.neurons, "latency_steps": 1,
                  "inputs": ["in"]} for n, p in graph.populations.items()}  # fmt: skip
    drawing = draw(graph, layers)
    edges = {(p.source, n) for n, q in graph.populations.items() for p in q.projections}
    assert len(drawing.paths) == len(edges)
    assert len({line.path for line in drawing.paths}) == len(edges)
    assert any("itself" in line.title for line in drawing.paths)
    rows: dict[float, list[float]] = {}
    for box in drawing.boxes:
        rows.setdefault(box.y, []).append(box.x)
        assert 0 <= box.x <= drawing.width - drawing.box[0] + 1e-9
    assert len(rows) > 2


def test_a_way_back_runs_up_beside_the_way_down():
    pops = {
        "in": ig.IntInput((2,), (), 3),
        "a": lif((2,), [dense("in", np.eye(2) * 40), dense("c", np.eye(2) * 20, lag=3)]),
        "b": lif((2,), [dense("a", np.eye(2) * 40)]),
        "c": lif((2,), [dense("b", np.eye(2) * 40)]),
        "out": ig.IntReadout((2,), (dense("c", np.eye(2) * 40),), np.zeros(2, np.int64)),
    }
    graph = aligned(pops, "out", 6).integer
    layers = {n: {"name": n, "kind": kind(p), "neurons": 2, "latency_steps": 1, "inputs": ["in"]}
              for n, p in graph.populations.items()}  # fmt: skip
    drawing = draw(graph, layers)
    assert [box.y for box in drawing.boxes] == sorted(box.y for box in drawing.boxes)
    (back,) = [line for line in drawing.paths if line.title]
    assert back.title == "a reads c, frames late"
    assert back.style.split() == ["from-1", "late"]
    assert back.path.count("V") == 1  # through the row of b, beside its box


def kind(pop: ig.Population) -> str:
    names = {ig.IntInput: "input", ig.IntLif: "lif", ig.IntReadout: "readout"}
    return names.get(type(pop), "sum")


# --- other tools --------------------------------------------------------------------------------
@pytest.mark.parametrize("form", ["step", "unrolled"])
def test_onnx_computes_the_loop(deployment, path, tmp_path, form):
    told("convert", path, "--to", "onnx", "--form", form, "--out", tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    x = {"x": deployment.probe.inputs["x"][:3]}
    run = {"step": loop, "unrolled": whole}[form]
    found, expected = run(session(model).run, model, x), by_reference(deployment, x)
    for name in ("rnn", "li"):
        assert np.array_equal(found[name], expected[name]), name


def test_a_lava_script_is_written(path, tmp_path):
    found = told("convert", path, "--to", "lava", "--out", tmp_path / "lava")
    assert found["nodes"] == ["rnn.bias", "x", "rnn", "li"]
    assert (tmp_path / "lava" / "run.py").exists()


def test_nir_carries_the_loop_and_comes_back(deployment, path, tmp_path):
    told("convert", path, "--to", "nir", "--out", tmp_path / "net.nir")
    x = {"x": deployment.probe.inputs["x"]}
    dt = deployment.integer.dt_s
    back = import_nir(tmp_path / "net.nir", x, dt_s=dt, bits=8, calibration="mse",
                      max_count={"x": 255})  # fmt: skip
    loops = [g for g in back.integer.groups if back.integer.loops(g)]
    assert len(loops) == 1


def test_what_cannot_carry_a_loop_says_so_or_carries_it(path, tmp_path):
    said = neuroav("convert", path, "--to", "netx", "--out", tmp_path / "net.net", code=1)
    assert "rnn (sums 3 projections; a netx block has one)" in said
    assert told("convert", path, "--to", "sanafe", "--out", tmp_path / "sanafe")["cores"] == 1


def test_nothing_stands_against_it():
    assert lint(network(), {"x": events(4)}) == []
