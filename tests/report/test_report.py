"""The report: consistent sums, honest nulls, one self-contained page, nothing left on failure."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import samples
import torch

from neuroav import integer as ig
from neuroav import navfile
from neuroav.costs.baselines import dense_macs
from neuroav.deployment import Probe
from neuroav.errors import ConfigError, FileFormatError, NeuroavError, ProfileError
from neuroav.hardware import GRADES, load_profile
from neuroav.report import sample, write_report
from neuroav.report.build import KINDS
from neuroav.report.format import NODE_KINDS
from neuroav.sim import fast, real
from neuroav.sim.trace import collect
from neuroav_export import compile_module

PAGES = {"report.html", "report.json", "report.md"}
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def deployment():
    model = samples.warmed_model("add")
    inputs = samples.poisson_inputs(20, 4, seed=3)
    labels = np.arange(20) % 10
    with torch.no_grad():  # balance the scores, so that the untrained network has many answers
        frames = [torch.from_numpy(np.moveaxis(v, 1, 0)).float() for v in inputs.values()]
        model.head.linear.bias -= model(*frames).mean(0)
    names = (HOSTILE, *map(str, range(1, 10)))
    return compile_module(model, inputs, classes=names, probe=Probe(inputs, labels))


@pytest.fixture(scope="module")
def path(deployment, tmp_path_factory):
    file = tmp_path_factory.mktemp("nav") / "net.nav"
    navfile.save(deployment, file)
    return file


@pytest.fixture(scope="module")
def written(path):
    out = path.parent / "report"
    return out, write_report([path], out=out, cache_dir=path.parent)


def test_every_population_has_its_word():
    assert set(KINDS) == set(ig.POPULATION_CLASSES)
    assert set(KINDS.values()) == set(NODE_KINDS)


def test_attention_is_not_free_in_the_dense_network():
    steps, inputs = 4, samples.poisson_inputs(2, 4)
    graph = compile_module(samples.awake_scmrl(steps), inputs).real
    macs = dense_macs(graph)
    tokens, channels, per_head = 16, 32, 8
    spatial, temporal = (
        macs[f"cross.audio_from_visual.{kind}.attention"] for kind in ("spatial", "temporal")
    )
    assert spatial == 2 * steps * tokens * channels * per_head  # k^T v first: 8 channels, 16 tokens
    assert temporal == 2 * steps * tokens * channels * steps  # q k^T first: 4 steps, 8 channels
    weighted = sum(v for n, v in macs.items() if not n.endswith("attention"))
    assert sum(macs.values()) == weighted + 2 * (spatial + temporal)


def estimates(value, where=""):
    """Yield (place, estimate) of everything that has the keys of an estimated number."""
    if isinstance(value, dict):
        if {"grade", "source", "unit"} <= set(value):
            yield where, value
        for key, item in value.items():
            yield from estimates(item, f"{where}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from estimates(item, f"{where}[{index}]")


def test_files_and_returned_object(written):
    out, found = written
    assert {p.name for p in out.iterdir()} == PAGES
    assert found["path"] == str(out / "report.html")
    stored = json.loads((out / "report.json").read_text())
    assert stored == {k: v for k, v in found.items() if k != "path"}
    assert {"accuracy", "layers", "counts", "energy", "latency", "baselines", "provenance"} <= set(
        stored
    )


def test_accuracy_equals_a_plain_computation(written, deployment):
    inputs, labels = deployment.probe.inputs, deployment.probe.labels
    deployed = collect(fast.run(deployment, inputs))[deployment.integer.output][:, -1].argmax(1)
    floating = collect(real.run(deployment.real, inputs))[deployment.real.output][:, -1].argmax(1)
    assert len(set(deployed.tolist())) > 1
    accuracy = written[1]["accuracy"]
    assert accuracy["samples"] == 20
    assert accuracy["deployed"] == pytest.approx(np.mean(deployed == labels))
    assert accuracy["float"] == pytest.approx(np.mean(floating == labels))
    assert accuracy["agreement"] == pytest.approx(np.mean(deployed == floating))
    assert np.sum(written[1]["confusion"]) == 20


def test_layers_have_the_keys_and_add_up(written, deployment):
    found = written[1]
    keys = {"name", "neurons", "synapses", "spikes_float", "spikes_deployed", "synops", "updates",
            "energy"}  # fmt: skip
    assert [layer["name"] for layer in found["layers"]] == list(deployment.integer.order)
    assert all(keys <= set(layer) for layer in found["layers"])
    inside = [layer for layer in found["layers"] if layer["kind"] != "input"]
    counts, energy = found["counts"], found["energy"]
    assert counts["spikes"] > 100
    for key, total in (("spikes_deployed", counts["spikes"]), ("synops", counts["synops"]),
                       ("updates", counts["updates"]), ("neurons", counts["neurons"]),
                       ("synapses", counts["synapses"])):  # fmt: skip
        assert sum(layer[key] for layer in inside) == pytest.approx(total), key
    shared = energy["by_source"]["core_step"]["energy"]  # of no single layer
    assert shared["value"] > 0
    for key in ("value", "low", "high"):
        layers = sum(layer["energy"][key] for layer in inside)
        assert layers + shared[key] == pytest.approx(energy["dynamic"][key])
        charged = [s["energy"] for k, s in energy["by_source"].items() if k != "host_io"]
        assert sum(e[key] for e in charged) == pytest.approx(energy["total"][key])


def test_energy_is_counts_times_the_profiles_prices(written):
    found, costs = written[1], load_profile("loihi2").energy
    by_source, pj = found["energy"]["by_source"], {"pJ": 1.0, "nJ": 1e3}
    for kind in ("synop_conv", "synop_dense", "synop_sparse", "neuron_update", "spike_out",
                 "message_out", "hop_x", "hop_y", "core_step"):  # fmt: skip
        price, row = getattr(costs, kind), by_source[kind]
        assert row["energy"]["value"] == pytest.approx(row["count"] * price.value * pj[price.unit])
    assert by_source["message_out"]["count"] > 0
    assert by_source["hop_x"]["count"] + by_source["hop_y"]["count"] > 0
    static, period = found["energy"]["static"]["value"], found["latency"]["period"]["value"]
    assert static == pytest.approx(costs.static_chip.value * 1e9 * period)
    assert by_source["chip_message"]["energy"]["value"] == 0  # one chip: none


def test_float_spikes_are_the_twins(written, deployment):
    values = collect(real.run(deployment.real, deployment.probe.inputs))
    for layer in written[1]["layers"]:
        if layer["spikes_float"] is not None:
            expected = (values[layer["name"]] != 0).reshape(20, -1).sum(1).mean()
            assert layer["spikes_float"] == pytest.approx(expected), layer["name"]
    assert sum(layer["spikes_float"] is None for layer in written[1]["layers"]) == 1


def test_what_is_left_out_is_null_and_says_why(written):
    found = written[1]
    number = found["energy"]["by_source"]["host_io"]["energy"]
    assert number["value"] is number["low"] is number["high"] is None
    assert len(number["source"]) > 10
    assert {"host input and output", "sensors and encoding"} <= set(found["left_out"])
    text = (written[0] / "report.md").read_text()
    for name, why in found["left_out"].items():
        assert f"- {name}: {why}" in text
    assert "estimate, not measurement" in text


def test_every_estimate_is_complete(written):
    found = list(estimates(written[1]))
    assert len(found) > 50
    for place, number in found:
        assert {"value", "low", "high", "unit", "grade", "source"} <= set(number), place
        assert number["grade"] in GRADES, place
        assert number["source"], place
        if number["value"] is not None and number["low"] is not None:
            assert number["low"] <= number["value"] <= number["high"], place


class Page(HTMLParser):
    """Collects tags and what the page would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [v or "" for k, v in attributes if k in ("src", "href", "data", "srcset")]


def test_page_is_self_contained_and_escaped(written):
    text = (written[0] / "report.html").read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [link for link in page.loads if not link.startswith(("#", "data:"))]
    assert "url(http" not in text
    assert "@import" not in text
    assert HOSTILE not in text
    assert "&lt;img src=x" in text
    assert "svg" in page.tags
    assert len(text) < 1_000_000


def test_page_begins_with_the_verdict(written):
    text = (written[0] / "report.html").read_text()
    assert text.index("The deployed network gets") < text.index("Layers")


def test_same_input_same_pages(path, written, tmp_path):
    write_report([path], out=tmp_path / "again", cache_dir=path.parent)
    for page in PAGES:
        assert (tmp_path / "again" / page).read_bytes() == (written[0] / page).read_bytes()


def test_samples_are_the_first_ones(path, tmp_path):
    found = write_report([path], out=tmp_path / "r", samples=7, cache_dir=path.parent)
    assert found["accuracy"]["samples"] == 7


def test_several_files_and_profiles_are_compared(deployment, path, tmp_path):
    other = tmp_path / "other.nav"
    navfile.save(replace(deployment, classes=tuple("abcdefghij")), other)
    cheap = tmp_path / "cheap.toml"
    text = load_profile("loihi2").text.replace('id = "loihi2"', 'id = "cheap"')
    cheap.write_text(text.replace("value = 72.8, low = 52.0", "value = 60.0, low = 52.0"))
    found = write_report([path, other], out=tmp_path / "r", profiles=["loihi2", str(cheap)],
                         cache_dir=tmp_path)  # fmt: skip
    assert len(found["reports"]) == 4
    costs = [r["energy"]["dynamic"]["value"] for r in found["reports"]]
    assert costs[0] == costs[2] > costs[1] == costs[3]
    assert "cheap" in (tmp_path / "r" / "report.md").read_text()


@pytest.mark.parametrize(
    ("options", "error"),
    [({"profiles": ["loihi9"]}, ProfileError), ({"split": "test"}, NeuroavError)],
)
def test_errors_leave_nothing(path, tmp_path, options, error):
    with pytest.raises(error):
        write_report([path], out=tmp_path / "r", cache_dir=path.parent, **options)
    assert not (tmp_path / "r").exists()


def test_bad_files_and_folders_are_named(path, tmp_path):
    with pytest.raises(FileFormatError, match=r"gone\.nav: no such file"):
        write_report([tmp_path / "gone.nav"], out=tmp_path / "r", cache_dir=tmp_path)
    with pytest.raises(ConfigError, match="no file to report on"):
        write_report([], out=tmp_path / "r", cache_dir=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file, the report needs a folder"):
        write_report([path], out=tmp_path / "file", cache_dir=tmp_path)


def test_spectrogram_cells_cover_what_is_louder_than_a_quarter():
    levels = np.zeros((4, 8), np.uint8)
    levels[0, 2:5], levels[3, 7] = 40, 20
    found = sample.spectrogram(levels, 80_000)
    assert (found.width, found.height) == (8, 4)
    # Channel 0 is drawn last, low tones below: one run of three cells, and one cell of half tone.
    assert dict(found.paths) == {1.0: "M2 3h3v1h-3z", 0.5: "M7 0h1v1h-1z"}
    assert "40\u202fdB" in found.note
    assert sample.spectrogram(np.zeros((4, 8), np.uint8), 80_000).paths == ()
