"""Calibration: every prediction recomputed from the table and the profile, and the page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from neuroav.costs.calibration import calibrate, residual
from neuroav.costs.measured import load_table, parse_table
from neuroav.errors import ConfigError, ProfileError
from neuroav.hardware import load_profile
from neuroav.profile_files import parse
from neuroav.report.calibration import QUANTITIES, signed, write_calibration

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "hardware_profiles/tables/measured.toml").read_text(encoding="utf-8")
RAW = parse(TEXT, "measured.toml")
POINTS = {p["id"]: p for p in RAW["point"]}
ACTIVITY = {k: v["value"] for k, v in POINTS["V1"]["activity"].items()}
MEASURED_UJ = 68.35
LOIHI2 = load_profile("loihi2")


@pytest.fixture(scope="module")
def found():
    return calibrate()


def rows(found, point):
    return next(p for p in found["points"] if p["id"] == point)["predicted"]


def prices(end="value"):
    """Return the prices of profile loihi2 in pJ at one end of their bands."""
    scale = {"pJ": 1.0, "nJ": 1e3, "uJ": 1e6}
    result = {}
    for key, q in LOIHI2.energy:
        if key not in ("scope", "static_chip", "host_io", "chip_message"):
            value = getattr(q, end)
            result[key] = (q.value if value is None else value) * scale[q.unit]
    return result


# --- the table ---------------------------------------------------------------------------------
def test_table_holds_every_point_once():
    names = [p.id for p in load_table().point]
    assert len(set(names)) == len(names)
    assert {re.sub("[ab]$", "", n) for n in names} == {f"V{i}" for i in range(1, 19)}


def test_every_number_has_a_source_and_names_the_page_knows():
    for point in load_table().point:
        assert set(point.measured) <= set(QUANTITIES)
        for quantity in (*point.measured.values(), *point.activity.values()):
            assert quantity.value is not None
            assert len(quantity.source) > 10 or point.source


def test_stated_energies_of_the_anchor_agree_with_each_other():
    measured = {k: v["value"] for k, v in POINTS["V1"]["measured"].items()}
    assert measured["time"] / 16 == pytest.approx(measured["time_per_step"], rel=1e-4)
    assert measured["dynamic_energy"] / 16 == pytest.approx(MEASURED_UJ, rel=1e-3)
    power = measured["dynamic_energy_per_step"] + measured["static_energy_per_step"]
    power /= measured["time_per_step"] * 1e-3
    assert power == pytest.approx(measured["total_power"], rel=1e-3)


def test_layers_of_the_anchor_hold_all_its_neurons():
    layers = load_table().of("V1").layers
    assert sum(layer.neurons for layer in layers) == ACTIVITY["neurons"]


def test_destinations_are_counted_output_by_output():
    for layer in load_table().of("V1").layers:
        to = layer.reaches
        if to is None:
            assert layer.destinations() == layer.cores_reached
            continue
        reached = np.zeros((layer.columns, -(-to.columns // to.slice)), bool)
        for place in range(to.columns):
            for tap in range(to.kernel):
                column = place * to.stride - to.padding + tap
                if 0 <= column < layer.columns:
                    reached[column, place // to.slice] = True
        assert reached.any()
        assert layer.destinations() == pytest.approx(reached.sum() / layer.columns)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('read = "primary"', 'read = "heard"', r"key point.0.read"),
        ("schema = 1", "schema = 9", "key schema"),
        ('id = "V2"', 'id = "2"', r"key point.1.id"),
        ("value = 68.35", 'value = "many"', r"dynamic_energy_per_step"),
        ("schema = 1", "schema = ", "not a TOML file"),
    ],
)
def test_a_bad_table_names_its_key(old, new, message):
    assert old in TEXT
    with pytest.raises(ProfileError, match=message):
        parse_table(TEXT.replace(old, new, 1))


# --- energy of the anchor ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("number", "synapse", "neuron", "spike", "total", "error"),
    [
        (0, 54.0, 8.2, 0.8, 63.0, -0.078),
        (1, 54.0, 12.8, 0.8, 67.6, -0.011),
        (2, 54.9, 11.5, 7.5, 73.9, 0.081),
        (3, 81.2, 11.5, 7.5, 100.2, 0.466),
    ],
)
def test_prices_of_others(found, number, synapse, neuron, spike, total, error):
    row, stated = found["anchor"]["sets"][number], RAW["set"][number]
    parts = {
        "synapse": ACTIVITY["synops"] * stated["synop"] * 1e-6,
        "neuron": ACTIVITY["neurons"] * stated["neuron_update"] * 1e-6,
        "spike": ACTIVITY["spikes"] * (stated["spike"] + 5 * stated["hop"]) * 1e-6,
    }
    for key, rounded in zip(parts, (synapse, neuron, spike), strict=True):
        assert row[key] == pytest.approx(parts[key])
        assert row[key] == pytest.approx(rounded, abs=0.05)
    assert row["total"] == pytest.approx(sum(parts.values()))
    assert row["total"] == pytest.approx(total, abs=0.05)
    assert row["residual"] == pytest.approx(row["total"] / MEASURED_UJ - 1)
    assert row["residual"] == pytest.approx(error, abs=5e-4)


def test_prices_of_others_are_those_of_our_profiles():
    davies, fit = (load_profile(n).energy for n in ("loihi1-davies2018", "loihi1-nahuku-fit"))
    inactive, active, conv, dense = RAW["set"]
    assert {inactive["synop"], active["synop"]} == {davies.synop_conv.value}
    assert (inactive["neuron_update"], active["neuron_update"]) == davies.neuron_update.band[::2]
    assert active["spike"] == davies.spike_out.value
    assert active["hop"] == (davies.hop_x.value + davies.hop_y.value) / 2
    assert (conv["synop"], dense["synop"]) == (fit.synop_conv.value, fit.synop_dense.value)
    assert conv["neuron_update"] == fit.neuron_update.value
    assert conv["spike"] == pytest.approx(fit.spike_out.value + fit.message_out.value)


def step_energy(end, cores):
    """Return the dynamic energy of a step in uJ at one end of prices and activity."""
    price = prices(end)
    counts = {k: v.get(end, v["value"]) for k, v in POINTS["V1"]["activity"].items()}
    hops = RAW["hops"][end] / 2
    message = price["message_out"] + hops * (price["hop_x"] + price["hop_y"])
    energy = counts["synops"] * price["synop_conv"] + counts["neurons"] * price["neuron_update"]
    energy += counts["spikes"] * (price["spike_out"] + cores * message)
    return (energy + counts["cores"] * price["core_step"]) * 1e-6


@pytest.mark.parametrize("cores", range(1, 9))
def test_shipped_prices_by_destination_cores(found, cores):
    row = found["anchor"]["destinations"][cores - 1]
    assert row["destinations"] == cores
    for end in ("low", "value", "high"):
        assert row["dynamic"][end] * 1e-6 == pytest.approx(step_energy(end, cores)), end
    assert row["residual"] == pytest.approx(step_energy("value", cores) / MEASURED_UJ - 1)
    assert sum(row["by_kind_pj"].values()) == pytest.approx(row["dynamic"]["value"])


def test_one_destination_is_within_ten_percent_and_more_are_not(found):
    within = [row["within_10_percent"] for row in found["anchor"]["destinations"]]
    assert within == [True] + [False] * 7


def test_profile_states_the_same_prediction(found):
    row = found["anchor"]["destinations"][0]
    stated = next(v for v in LOIHI2.validation if v.measured == MEASURED_UJ)
    assert row["dynamic"]["value"] * 1e-6 == pytest.approx(stated.predicted, abs=0.005)
    assert row["residual"] == pytest.approx(stated.error, abs=5e-4)


def test_partition_lies_between_one_and_two_destinations(found):
    partition = found["anchor"]["partition"]
    mean = sum(x["neurons"] * x["cores"] for x in partition["layers"]) / ACTIVITY["neurons"]
    assert partition["destinations"] == pytest.approx(mean)
    assert 1 < mean < partition["at_most"] < 2
    assert partition["dynamic"]["value"] * 1e-6 == pytest.approx(step_energy("value", mean))


def test_static_energy_is_the_power_over_the_measured_time(found):
    static = found["anchor"]["destinations"][0]["static"]
    assert static["value"] * 1e-6 == pytest.approx(LOIHI2.energy.static_chip.value * 0.15285)


# --- time --------------------------------------------------------------------------------------
def test_step_time_is_that_of_the_busiest_of_two_cores(found):
    assert len(found["anchor"]["time"]) == 4
    for row in found["anchor"]["time"]:
        profile = load_profile(row["profile"]).time
        neuron, synop = profile.neuron_update.value, profile.synop.value
        busy = ACTIVITY["busiest_neurons"] * neuron, ACTIVITY["busiest_synops"] * synop
        largest = ACTIVITY["largest_neurons"] * neuron
        slowest = sum(busy) if row["reading"] == "additive" else max(busy)
        expected = max(slowest, largest) + profile.barrier.value
        assert row["predicted"]["value"] == pytest.approx(expected)
        assert row["residual"] == pytest.approx(expected / 152850 - 1)
        assert row["independent"] == (row["profile"] != "loihi2")


# --- the other points --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("point", "total", "dynamic", "time", "profile"),
    [("V1", 1661, 1094, 2445.5, "loihi2"), ("V2", 16340, -360, 59277, "loihi2"),
     ("V5a", 460, 280, 1460, "loihi2"), ("V5b", 360, 210, 1540, "loihi2"),
     ("V7", 50, 10, 330, "loihi2"), ("V14", 430, 120, 2750, "loihi1-nahuku-fit")],
)  # fmt: skip
def test_static_power_is_what_is_left_over_the_time(found, point, total, dynamic, time, profile):
    row = next(r for r in found["static_power"] if r["point"] == point)
    power = (total - dynamic) / time * 1e3
    assert row["measured"]["value"] == pytest.approx(power)
    assert row["measured"]["low"] < power < row["measured"]["high"]
    static = load_profile(profile).energy.static_chip.value
    assert row["residual"] == pytest.approx(static / power - 1)
    assert row["independent"] == (point not in ("V1", "V2"))
    assert row in rows(found, point)


def test_small_networks_are_predicted_without_their_synapses(found):
    for row, neurons, cores, measured in zip(
        rows(found, "V3"), (200, 1200), (5, 69), (470, 600), strict=True
    ):
        energy = neurons * prices()["neuron_update"] + cores * prices()["core_step"]
        power = LOIHI2.energy.static_chip.value + energy / 1.77e-6 * 1e-9
        assert row["kind"] == "at least"
        assert row["predicted"]["value"] == pytest.approx(power)
        assert row["residual"] == pytest.approx(power / measured - 1)


def test_sigma_delta_run_is_below_what_the_board_resolves(found):
    row = rows(found, "V2")[0]
    energy = 5.9e5 * prices()["synop_conv"] + 118909 * prices()["neuron_update"]
    energy += 61 * prices()["core_step"]
    assert row["predicted"]["value"] == pytest.approx(energy)
    assert (row["kind"], row["residual"]) == ("at least", None)
    assert "0.4 mW" in row["note"]


def test_keyword_spotting_at_most(found):
    fit = load_profile("loihi1-nahuku-fit").energy
    synops = 10 * (390 * 256 + 256 * 256 + 256 * 29)
    each = fit.neuron_update.value + fit.spike_out.value + fit.message_out.value
    energy = synops * fit.synop_dense.value + 10 * (256 + 256 + 29) * each
    (row,) = rows(found, "V13")
    assert row["kind"] == "at most"
    assert row["predicted"]["value"] == pytest.approx(energy)
    assert row["residual"] == pytest.approx(energy * 1e-6 / 270 - 1)


def test_what_cannot_be_predicted_says_what_is_missing(found):
    for point in found["points"]:
        assert point["missing"], point["id"]
    unpredicted = {p["id"] for p in found["points"] if not p["predicted"]}
    assert unpredicted == {"V4", "V6", "V8", "V9", "V10", "V11", "V12", "V15", "V16", "V17"}


def test_a_changed_measurement_changes_the_residual(found):
    table = parse_table(TEXT.replace("value = 68.35, low = 68.34, high = 68.40", "value = 50.0"))
    before, after = (x["anchor"]["destinations"][0] for x in (found, calibrate(table)))
    assert after["dynamic"] == before["dynamic"]
    assert after["residual"] == pytest.approx((1 + before["residual"]) * MEASURED_UJ / 50 - 1)
    assert not after["within_10_percent"]


# --- the page ----------------------------------------------------------------------------------
class Loads(HTMLParser):
    """Notes whatever a page would fetch or run."""

    def __init__(self):
        super().__init__()
        self.found, self.text = [], []

    def handle_starttag(self, tag, attrs):
        names = dict(attrs)
        if tag in ("script", "link", "img", "iframe") or {"src", "href", "onload"} & set(names):
            self.found.append((tag, names))

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("calibration") / "page"
    return out, write_calibration(out)


def test_files_hold_the_same_and_the_page_loads_nothing(written, found):
    out, returned = written
    assert {p.name for p in out.iterdir()} == {
        "calibration.html", "calibration.json", "calibration.md",
    }  # fmt: skip
    stored = json.loads((out / "calibration.json").read_text(encoding="utf-8"))
    assert stored == {k: v for k, v in returned.items() if k != "path"}
    assert stored["anchor"] == json.loads(json.dumps(found["anchor"]))
    page = Loads()
    page.feed((out / "calibration.html").read_text(encoding="utf-8"))
    assert page.found == []


@pytest.mark.parametrize("name", ["calibration.html", "calibration.md"])
def test_pages_tell_every_point_and_residual(written, name):
    out, found = written
    text = (out / name).read_text(encoding="utf-8").replace("\u202f", " ")
    for point in found["points"]:
        assert point["id"] in text
        assert point["source"].partition(",")[0] in text
        assert point["missing"][0].replace("'", "&#39;" if name.endswith("html") else "'") in text
        for row in point["predicted"]:
            if row["residual"] is not None:
                assert signed(row["residual"]).replace("\u202f", " ") in text
    assert "undefined" not in text


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "x").write_text("kept", encoding="utf-8")
    with pytest.raises(ConfigError, match="is a file"):
        write_calibration(tmp_path / "x")


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0963, "+9.6 %"), (-0.294, "\u221229.4 %"), (1.38, "+138 %"), (0.0, "0.0 %"), (None, "–")],
)
def test_residuals_as_text(share, text):
    assert signed(share).replace("\u202f", " ") == text
    assert residual(3.0, 2.0) == 0.5


# --- docs/energy.md ----------------------------------------------------------------------------
def test_documented_figures_are_those_of_the_code(found):
    text = (ROOT / "docs" / "energy.md").read_text(encoding="utf-8")
    anchor = found["anchor"]

    def percent(share):
        return f"{100 * share:+.1f} %"

    lines = [
        f"| {r['name']} | {r['synapse']:.1f} | {r['neuron']:.1f} | {r['spike']:.1f} | "
        f"{r['total']:.1f} | {percent(r['residual'])} |"
        for r in anchor["sets"]
    ]
    shown = {"1": 0, "2": 1, "8": 7}
    by_cores = {k: anchor["destinations"][i] for k, i in shown.items()}
    by_cores["1.28, as the compiler's partition implies"] = anchor["partition"]
    for name, row in by_cores.items():
        low, value, high = (row["dynamic"][k] * 1e-6 for k in ("low", "value", "high"))
        lines.append(
            f"| {name} | {value:.1f} | {low:.1f} to {high:.1f} | {percent(row['residual'])} |"
        )
    for row in anchor["time"][:3]:
        low, value, high = (row["predicted"][k] * 1e-3 for k in ("low", "value", "high"))
        lines.append(
            f"| {row['profile']}, {row['reading'].replace('_', '-')} | {value:.1f} | "
            f"{low:.1f} to {high:.1f} | {percent(row['residual'])} |"
        )
    static = {r["point"]: f"{r['measured']['value']:.1f}" for r in found["static_power"]}
    flat = " ".join(text.split())
    lines += [
        f"{static['V1']} and {static['V2']} mW per chip",
        f"{static['V5b']} to {static['V5a']} mW in three later results",
        f"{static['V14']} mW against 104",
        f"the model gives {rows(found, 'V3')[0]['predicted']['value']:.0f} mW",
        f"the model would give {rows(found, 'V13')[0]['predicted']['value'] * 1e-6:.1f} uJ",
    ]
    for line in lines:
        assert line in flat, line


def test_documented_kinds_are_those_of_the_code():
    from neuroav.costs import energy

    text = (ROOT / "docs" / "energy.md").read_text(encoding="utf-8")
    table = text.partition("| kind |")[2].partition("\n\n")[0]
    assert re.findall(r"`(\w+)`", "".join(line.split("|")[1] for line in table.splitlines()[2:])) \
        == list(energy.KINDS)  # fmt: skip
