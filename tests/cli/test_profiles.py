"""``neuroav profiles``: list, show, check."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from neuroav.hardware import ALIASES, list_profiles, load_profile

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
    for section in ("topology", "core", "energy", "time"):
        for key, quantity in getattr(profile, section):
            (line,) = (row for row in shown.splitlines() if row.startswith(f"{section}.{key} "))
            assert quantity.unit in line
            assert quantity.grade in line
    assert "196608" in shown
    assert profile.hash in shown


def test_show_json_gives_the_file_with_null_for_unknown(run):
    found = run("profiles", "show", "loihi2", "--json").json
    assert found["schema"] == 1
    assert found["core"]["axons_in"]["value"] is None
    assert found["energy"]["hop"]["low"] == 3.0
    assert found["hash"] == load_profile("loihi2").hash
    assert "text" not in found


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
    found = run("profiles", "check", LOIHI2, "--json").json
    numbers = [q for s in ("topology", "core", "energy", "time")
               for _, q in getattr(load_profile("loihi2"), s)]  # fmt: skip
    assert sum(found["grades"].values()) + found["unknown"] == len(numbers)


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
