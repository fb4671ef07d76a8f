"""``neuroav profiles``: list, show, check."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from neuroav.hardware import ALIASES, Quantity, list_profiles, load_profile

SECTIONS = ("topology", "core", "layout", "energy", "time")
LOIHI2 = Path(__file__).resolve().parents[2] / "hardware_profiles" / "loihi2.toml"


def test_list_names_every_shipped_profile(run):
    done = run("profiles", "list", "--json")
    assert [p["id"] for p in done.json["profiles"]] == list_profiles()
    shown = run("profiles", "list")
    assert shown.code == 0
    assert all(name in shown.out for name in list_profiles())


def test_list_names_aliases_beside_their_profile(run, monkeypatch):
    monkeypatch.setitem(ALIASES, "loihi", "loihi2")
    rows = {p["id"]: p["aliases"] for p in run("profiles", "list", "--json").json["profiles"]}
    assert rows["loihi2"] == ["loihi"]


def test_show_prints_every_number_with_grade_and_source(run):
    profile = load_profile("loihi2")
    shown = run("profiles", "show", "loihi2").out
    for section in SECTIONS:
        for key, value in getattr(profile, section):
            (line,) = (row for row in shown.splitlines() if row.startswith(f"{section}.{key} "))
            if isinstance(value, Quantity):
                assert value.unit in line
                assert value.grade in line
            else:
                assert {True: "yes", False: "no"}.get(value, value) in line
    assert "196608" in shown
    assert profile.hash in shown


def test_show_prints_measured_points(run):
    shown = run("profiles", "show", "loihi2").out
    assert "PilotNet LIF" in shown
    assert "68.35" in shown
    assert "+9.6%" in shown
    assert "measured case" not in run("profiles", "show", "loihi1").out


def test_show_of_a_target_without_our_arithmetic_says_why(run):
    shown = run("profiles", "show", "truenorth").out
    assert "four types of axons" in shown
    assert "weight_bits" not in shown.replace(" ", "_")
    found = run("profiles", "show", "truenorth", "--json").json
    assert found["numeric"] is None
    assert found["energy"]["scope"] == "all_in"


def test_show_json_gives_the_file_with_null_for_unknown(run):
    found = run("profiles", "show", "loihi2", "--json").json
    assert found["schema"] == 2
    assert found["core"]["axons_in"]["value"] is None
    assert found["energy"]["hop_y"]["low"] == 4.0
    assert found["validation"][0]["measured"] == 68.35
    assert found["hash"] == load_profile("loihi2").hash
    assert "text" not in found


@pytest.fixture
def mine(tmp_path):
    """A profile of a user's own that extends a shipped one."""
    path = tmp_path / "my_lab.toml"
    path.write_text(
        'schema = 2\nid = "my-lab"\ntitle = "Ours"\nextends = "loihi2"\n[energy]\n'
        'spike_out = { value = 61.0, unit = "pJ", grade = "A", source = "our lab" }\n'
    )
    return path


def test_a_file_that_extends_is_shown_and_checked_whole(run, mine):
    found = run("profiles", "show", mine, "--json").json
    assert found["energy"]["spike_out"]["value"] == 61.0
    assert found["core"] == run("profiles", "show", "loihi2", "--json").json["core"]
    done = run("profiles", "check", mine)
    assert done.code == 0
    assert "valid profile 'my-lab': 12 of grade A" in done.out


def test_show_takes_a_file_too(run):
    assert run("profiles", "show", LOIHI2).out == run("profiles", "show", "loihi2").out


def test_show_of_an_unknown_profile_offers_near_matches(run):
    done = run("profiles", "show", "lohi2")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("neuroav: error: unknown profile 'lohi2': allowed are ")
    assert done.err.endswith("did you mean 'loihi2' or 'loihi1'?\n")
    assert run("profiles", "show", "lohi2", "--json").json["error"]["type"] == "ProfileError"


def test_check_counts_the_grades_of_a_good_file(run):
    done = run("profiles", "check", LOIHI2)
    assert done.code == 0
    assert "valid profile 'loihi2': " in done.out
    assert done.out.endswith(", held against 1 measured\n")
    found = run("profiles", "check", LOIHI2, "--json").json
    numbers = [
        q
        for s in SECTIONS
        for _, q in getattr(load_profile("loihi2"), s)
        if isinstance(q, Quantity)
    ]
    assert sum(found["grades"].values()) + found["unknown"] == len(numbers)
    assert found["validation"] == 1


def test_check_lists_every_bad_key_of_a_file(run, tmp_path):
    path = tmp_path / "chip"  # any name will do for check
    text = LOIHI2.read_text().replace("weight_bits = 8", "weight_bitz = 8")
    path.write_text(text.replace('grade = "C"', 'grade = "Z"', 1))
    done = run("profiles", "check", path)
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1
    for part in (
        f"{path}: ",
        "key numeric.weight_bitz: is unknown (did you mean 'weight_bits'?), allowed are",
        "missing are the keys numeric.weight_bits;",
        "key topology.cores_usable.grade: ",
        "found 'Z'",
    ):
        assert part in done.err
    error = run("profiles", "check", path, "--json").json["error"]
    assert error["type"] == "ProfileError"
    assert f"neuroav: error: {error['message']}\n" == done.err


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_check_of_what_is_no_file(run, name, tmp_path):
    done = run("profiles", "check", tmp_path / name)
    assert done.code == 1
    assert "cannot be read" in done.err


def test_profiles_are_found_inside_the_package_or_beside_it():
    assert (files("neuroav") / "hardware_profiles").is_dir() or LOIHI2.is_file()
