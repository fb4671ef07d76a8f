"""Published energies: the shipped tables, their check, and the same counts under all of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroav.costs import coefficients as co
from neuroav.counts import Counts
from neuroav.errors import ProfileError
from neuroav.hardware import GRADES, Quantity

SYNOPS = {"conv": 1e6, "dense": 2e5, "sparse": 1e5}
UPDATES, SPIKES = 3e5, 4e4
IDS = {
    "loihi1-davies2018", "loihi1-nahuku-fit", "kerasspiking-loihi", "hala-point-peak", "truenorth",
    "odin-all-in", "odin-incremental", "darwin3", "kerasspiking-spinnaker",
    "kerasspiking-spinnaker2", "spinnaker2-tang2023", "seneca", "step-memory", "kerasspiking-cpu",
    "kerasspiking-gpu", "kerasspiking-arm",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    found = co.side_by_side(SYNOPS, UPDATES, SPIKES, synapse_steps=1e8)
    return {row["id"]: row for row in found}


def quantities(model):
    """Return every quantity of a table's entry."""
    return [v for v in vars(model).values() if isinstance(v, Quantity)]


# --- the shipped tables -------------------------------------------------------------------------
def test_every_published_set_is_there():
    assert {s.id for s in co.load_coefficients()} == IDS


def test_every_number_has_source_grade_and_unit():
    found = [q for s in co.load_coefficients() for q in quantities(s)]
    found += [q for n in co.load_operations().nodes.values() for q in quantities(n)]
    assert len(found) > 45
    for q in found:
        assert q.value is not None
        assert q.value > 0
        assert q.unit in ("pJ", "nJ")
        assert q.grade in GRADES
        assert len(q.source) > 15


def test_tables_hold_the_published_operations():
    nodes = co.load_operations().nodes
    assert set(nodes) == {"45nm", "7nm"}
    old, new = nodes["45nm"], nodes["7nm"]
    assert old.fp32_mult.value + old.fp32_add.value == pytest.approx(4.6)
    assert old.int8_mult.value + old.int8_add.value == pytest.approx(0.23)
    assert new.fp32_mult.value + new.fp32_add.value == pytest.approx(1.69)
    assert new.int8_mult.value + new.int8_add.value == pytest.approx(0.077)
    for name in ("int8_add", "int8_mult", "fp32_add", "fp32_mult", "sram_8kb", "sram_1mb"):
        assert getattr(new, name).value < getattr(old, name).value
    assert co.load_operations().reuse.grade == "C"


# --- side by side -------------------------------------------------------------------------------
def test_prices_by_hand(rows):
    davies = rows["loihi1-davies2018"]
    synops = sum(SYNOPS.values())
    assert davies["synops"]["value"] == pytest.approx(23.6 * synops)
    assert davies["neuron_update"]["value"] == pytest.approx(81 * UPDATES)
    assert davies["neuron_update"]["low"] == pytest.approx(52 * UPDATES)
    assert davies["total"]["value"] == pytest.approx(23.6 * synops + 81 * UPDATES)
    assert (davies["lacks"], davies["included"]) == (["spike_out"], [])
    assert davies["complete"] is False
    fit = rows["loihi1-nahuku-fit"]
    assert fit["synops"]["value"] == pytest.approx(24e6 + 35.5 * 2e5 + 33.6 * 1e5)
    assert fit["total"]["value"] == pytest.approx(
        24e6 + 35.5 * 2e5 + 33.6 * 1e5 + 72.8 * UPDATES + 69.3 * SPIKES
    )
    assert (fit["lacks"], fit["complete"], fit["grade"]) == ([], True, "A")
    assert rows["kerasspiking-spinnaker"]["synops"]["value"] == pytest.approx(13300 * synops)


def test_all_in_figures_are_not_added_to(rows):
    row = rows["truenorth"]
    assert row["total"]["value"] == row["synops"]["value"] == pytest.approx(26 * 1.3e6)
    assert (row["lacks"], row["included"]) == ([], ["neuron_update", "spike_out"])
    assert row["complete"] is True
    assert row["neuron_update"]["value"] is None
    assert row["neuron_update"]["source"] == co.INCLUDED


def test_what_a_set_lacks_is_unknown_and_flagged(rows):
    row = rows["darwin3"]
    assert row["lacks"] == ["neuron_update", "spike_out"]
    assert row["spike_out"]["value"] is None
    assert row["spike_out"]["source"] == co.LACKS
    assert row["total"]["value"] == row["synops"]["value"]
    assert row["complete"] is False


def test_machines_that_compute_every_synapse_need_their_number(rows):
    assert rows["kerasspiking-cpu"]["synops"]["value"] == pytest.approx(8600 * 1e8)
    found = {r["id"]: r for r in co.side_by_side(SYNOPS, UPDATES, SPIKES)}
    assert found["kerasspiking-gpu"]["synops"]["value"] is None
    assert found["kerasspiking-gpu"]["total"]["value"] is None
    assert found["kerasspiking-gpu"]["total"]["source"] == co.NO_DENSE
    assert found["darwin3"] == rows["darwin3"]


def test_rows_are_plain_json_with_bands_and_grades(rows):
    assert set(rows) == IDS
    assert json.loads(json.dumps(rows)) == rows
    for row in rows.values():
        total = row["total"]
        assert total["low"] <= total["value"] <= total["high"]
        assert row["grade"] == total["grade"]
        assert row["scope"] in ("per_event", "all_in")
        assert len(row["source"]) > 15
        assert not set(row["lacks"]) & set(row["included"])


@given(st.floats(0, 1e12), st.floats(0, 1e12), st.floats(0, 1e12), st.floats(0.1, 10))
def test_energy_is_linear_in_the_events(synops, updates, spikes, factor):
    once = co.side_by_side({"conv": synops}, updates, spikes)
    scaled = co.side_by_side({"conv": factor * synops}, factor * updates, factor * spikes)
    for a, b in zip(once, scaled, strict=True):
        if a["total"]["value"] is not None:
            assert b["total"]["value"] == pytest.approx(factor * a["total"]["value"], rel=1e-9)


def test_event_totals_leave_the_hosts_messages_out():
    counts = Counts(
        samples=2,
        steps=3,
        spikes={"x": np.array([10, 20]), "a": np.array([4, 6])},
        synops={"x": {}, "a": {"conv": np.array([100, 200]), "sparse": np.array([1, 3])}},
        updates={"x": 0, "a": 12},
        rates={"x": 0.1, "a": 0.1},
    )
    assert co.event_totals(counts, {"x"}) == ({"conv": 150, "dense": 0, "sparse": 2}, 12, 5)


# --- the check of a table -----------------------------------------------------------------------
FIGURE = '{ value = 1.0, unit = "pJ", grade = "A", source = "a paper" }'
HEAD = 'schema = 1\n[[sets]]\nid = "a"\ntitle = "A"\nnode = "1 nm"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("schema = 1\nsets = [", "not a TOML table"),
        (HEAD + 'scope = "per_event"', "needs synop, or synop_conv"),
        (HEAD + f'scope = "per_event"\nsynop_conv = {FIGURE}', "needs synop, or synop_conv"),
        (HEAD + f'scope = "some"\nsynop = {FIGURE}', r"sets.0.scope: Input should be 'per_event'"),
        (HEAD + f'scope = "all_in"\nsynop = {FIGURE}\nspike_out = {FIGURE}', "contains neuron_up"),
        (
            HEAD + f'scope = "per_event"\nsynop = {FIGURE}\nspikes = {FIGURE}',
            "sets.0.spikes: Extra",
        ),
        (HEAD + 'scope = "per_event"\nsynop = 3', "sets.0.synop"),
        ("schema = 2\nsets = []", "schema: Input should be 1"),
    ],
)
def test_bad_table_names_the_key(text, message):
    with pytest.raises(ProfileError, match=message):
        co._parse(co._Sets, text, "table.toml")


def test_ids_are_distinct():
    one = HEAD + f'scope = "per_event"\nsynop = {FIGURE}\n'
    with pytest.raises(ProfileError, match="ids occur twice: a"):
        co._parse(co._Sets, one + one.removeprefix("schema = 1\n"), "table.toml")
