"""The report about cores, time and other machines: what is drawn, what is refused, what adds up."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import samples

from neuroav import navfile
from neuroav.deployment import Probe
from neuroav.hardware import load_profile
from neuroav.loads import LoadCounter
from neuroav.mapping.mapper import map_graph
from neuroav.placement import placed
from neuroav.report import curves, write_report
from neuroav.report.chip import chip_map
from neuroav.report.process_graph import BOX, draw
from neuroav.sim import fast
from neuroav_export import compile_module

PROFILES = ("loihi2", "loihi2-kapoho-point", "loihi1-davies2018", "ideal", "truenorth",
            "xylo-audio3", "speck2f", "spinnaker2")  # fmt: skip


@pytest.fixture(scope="module")
def deployment():
    inputs = samples.poisson_inputs(6, 4, seed=3)
    return compile_module(samples.warmed_model("add"), inputs, probe=Probe(inputs, np.arange(6)))


@pytest.fixture(scope="module")
def found(deployment, tmp_path_factory):
    """The report of one file on every kind of profile: folder and the object by profile."""
    folder = tmp_path_factory.mktemp("nav")
    navfile.save(deployment, folder / "net.nav")
    out = folder / "report"
    write_report([folder / "net.nav"], out=out, profiles=PROFILES, cache_dir=folder)
    reports = json.loads((out / "report.json").read_text())["reports"]
    return out, {r["provenance"]["profile"]["id"]: r for r in reports}


def test_a_network_that_fits_has_cores_and_no_core_is_too_full(found):
    place = found[1]["loihi2"]["placement"]
    assert place["fits"]
    assert place["chips"] == 1
    assert place["cores"] == len(place["per_core"]) > 1
    assert place["least_cores"] <= place["cores"]
    for row in place["utilisation"]["resources"].values():
        assert 0 < row["mean"] <= row["max"] <= 1
    counts = found[1]["loihi2"]["counts"]
    received = counts["messages_to_cores"] + counts["host_messages_to_cores"]
    assert received > 100
    assert sum(c["messages_in"]["mean"] for c in place["per_core"]) == pytest.approx(received)
    assert sum(c["synops"]["mean"] for c in place["per_core"]) == pytest.approx(counts["synops"])
    over = sum(np.sum(v) for v in place["links"].values())
    assert over == pytest.approx(counts["hops"]["total"])


@pytest.mark.parametrize("profile", ["ideal", "xylo-audio3", "speck2f"])
def test_without_a_placement_all_that_needs_one_is_null(found, profile):
    report = found[1][profile]
    assert not report["placement"]["fits"]
    assert len(report["placement"]["reason"]) > 20
    assert report["placement"]["cores"] is None
    assert report["energy"]["total"]["value"] is None
    assert report["latency"]["seconds"]["value"] is None
    assert report["left_out"]["cores"] == report["placement"]["reason"]
    assert all(b["now"] is None and b["why"] for b in report["break_even"].values())


def test_unknown_prices_refuse_the_total_and_are_named(found):
    energy = found[1]["loihi1-davies2018"]["energy"]
    assert not energy["complete"]
    assert {"message_out", "core_step"} <= set(energy["missing"])
    assert energy["total"]["value"] is None
    assert energy["known_part"]["value"] > 0
    text = (found[0] / "report.html").read_text()
    assert "No total." in text


def test_an_all_in_figure_prices_synaptic_operations_alone(found):
    report = found[1]["truenorth"]
    price = load_profile("truenorth").energy.synop_conv.value
    assert report["energy"]["dynamic"]["value"] == pytest.approx(report["counts"]["synops"] * price)


def test_every_core_and_every_used_link_is_drawn(deployment):
    graph, profile = deployment.integer, load_profile("loihi2")
    placement = map_graph(graph, profile)
    counter = LoadCounter(graph, placement)
    for trace in fast.run(deployment, deployment.probe.inputs):
        counter.add(trace)
    loads = counter.loads()
    drawn = chip_map(placement, loads)
    held = [s for s in drawn.seats if s.share is not None]
    assert len(held) == len(placement.cores)
    assert len(drawn.seats) == 8 * 4 * 4
    assert max(s.share for s in held) == 1
    assert len({(s.x, s.y) for s in drawn.seats}) == len(drawn.seats)
    east, south = loads.links["east"], loads.links["south"]
    used = (east[:, :-1] + loads.links["west"][:, 1:] > 0).sum()
    used += (south[:-1] + loads.links["north"][1:] > 0).sum()
    assert len(drawn.wires) == used > 0
    assert max(w.share for w in drawn.wires) == 1


def test_the_drawing_has_every_population_and_connection_without_overlap(deployment, found):
    graph = deployment.integer
    layers = {layer["name"]: layer for layer in found[1]["loihi2"]["layers"]}
    drawing = draw(graph, layers)
    assert len(drawing.boxes) == len(graph.order)
    edges = {(p.source, n) for n in placed(graph) for p in graph.populations[n].projections}
    assert len(drawing.paths) == len(edges)
    rows: dict[float, list[float]] = {}
    for box in drawing.boxes:
        rows.setdefault(box.y, []).append(box.x)
        assert 0 <= box.x <= drawing.width - BOX + 1e-9
    assert all(b - a >= BOX for row in rows.values() for a, b in pairwise(sorted(row)))
    assert {b.style for b in drawing.boxes} == {"from-1", "from-2", "from-all"}


def test_break_even_curves_meet_their_lines_where_they_say(found):
    report = found[1]["loihi2"]
    plot = curves.by_rate(report["break_even"])
    assert len(plot.lines) == 4
    energy = report["energy"]["total"]["value"]
    now = next(iter(report["break_even"].values()))["now"]
    assert now["energy"]["value"] == pytest.approx(energy)
    steps = curves.by_steps(report["break_even"])
    assert steps.now[0] == pytest.approx(steps.x.place(report["latency"]["steps_per_sample"]))
    assert curves.by_rate(found[1]["ideal"]["break_even"]) is None


def test_other_profiles_see_the_same_events(found):
    keys = ("spikes", "synops", "updates", "synops_by_kind")
    first = {k: found[1]["loihi2"]["counts"][k] for k in keys}
    assert first["spikes"] > 100
    assert first["synops"] > first["spikes"]
    for report in found[1].values():
        assert {k: report["counts"][k] for k in keys} == first
        assert report["neurobench"] == found[1]["loihi2"]["neurobench"]
