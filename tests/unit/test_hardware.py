"""Hardware profiles: the shipped files, every error message, and the documented schema."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from neuroav import hardware
from neuroav.errors import ProfileError
from neuroav.fixed import Arithmetic
from neuroav.hardware import Profile, Quantity, list_profiles, load_profile, parse_profile

FOLDER = Path(__file__).resolve().parents[2] / "hardware_profiles"
LOIHI2 = (FOLDER / "loihi2.toml").read_text(encoding="utf-8")


def models(model: type[BaseModel] = Profile, prefix: str = "") -> dict[str, type | None]:
    """Return dotted key -> type of every key that a profile file has."""
    found: dict[str, type | None] = {}
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        key, kind = prefix + (field.alias or name), field.annotation
        found[key] = kind
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not Quantity:
            found |= models(kind, f"{key}.")
    return found


# --- the shipped files -------------------------------------------------------------------------
@pytest.mark.parametrize("name", list_profiles())
def test_shipped_profile_is_valid_and_bears_the_name_of_its_file(name):
    profile = load_profile(name)
    assert profile.id == name
    assert load_profile(FOLDER / f"{name}.toml") == profile
    assert re.fullmatch("[0-9a-f]{64}", profile.hash)


def test_list_holds_every_file_of_the_folder():
    assert list_profiles() == sorted(p.stem for p in FOLDER.glob("*.toml"))
    assert "loihi2" in list_profiles()


def test_arithmetic_takes_every_width_from_the_profile():
    arithmetic = load_profile("loihi2").arithmetic
    assert arithmetic == Arithmetic(
        weight_bits=8, current_bits=24, voltage_bits=24, input_shift=6, decay_bits=12,
        threshold_bits=17, bias_bits=13, bias_exponent_max=7, payload_bits=24, delay_max=62,
    )  # fmt: skip


def test_unknown_value_has_no_band_and_a_range_defaults_to_the_value():
    core, energy = load_profile("loihi2").core, load_profile("loihi2").energy
    assert core.axons_in.value is None
    assert core.axons_in.band is None
    assert core.neurons.band == (8192, 8192, 8192)
    assert energy.synop_conv.band == (6.8, 24.0, 29.9)


def test_hash_changes_with_any_byte_of_the_text():
    assert parse_profile(LOIHI2 + "# x\n", "a").hash != load_profile("loihi2").hash


# --- names -------------------------------------------------------------------------------------
def test_alias_loads_its_target(monkeypatch):
    monkeypatch.setitem(hardware.ALIASES, "loihi", "loihi2")
    assert hardware.profile_aliases()["loihi"] == "loihi2"
    assert load_profile("loihi").id == "loihi2"


def test_alias_whose_profile_is_not_shipped_is_neither_loaded_nor_offered(monkeypatch):
    monkeypatch.setitem(hardware.ALIASES, "loihi9", "loihi9-board")
    with pytest.raises(ProfileError, match="unknown profile 'loihi9'") as caught:
        load_profile("loihi9")
    offered = str(caught.value).partition("allowed are")[2]
    assert "loihi9" not in offered
    assert "did you mean 'loihi" in offered


@pytest.mark.parametrize("name", ["", "lohi2", "../hardware_profiles/loihi2", "README.md"])
def test_unknown_name_lists_what_is_allowed(name):
    with pytest.raises(ProfileError, match=re.escape(f"unknown profile {name!r}: allowed are ")):
        load_profile(name)


# --- files that cannot be read -----------------------------------------------------------------
def test_absent_file_says_what_to_give(tmp_path):
    with pytest.raises(ProfileError, match=r"cannot be read \(No such file.*loihi2"):
        load_profile(tmp_path / "absent.toml")


def test_binary_file_is_no_profile(tmp_path):
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProfileError, match=r"binary\.toml: cannot be read \(not UTF-8 text\)"):
        load_profile(path)


def test_broken_toml_says_where(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("schema = \n")
    with pytest.raises(ProfileError, match=r"broken\.toml: not a TOML file: .*line 1"):
        load_profile(path)


# --- bad keys ----------------------------------------------------------------------------------
NUMBER = '{ value = 1, unit = "pJ", grade = "B", source = "a test" }'
BAD = [
    ("schema = 1\n", "schema = 2\n", "key schema: Input should be 1, found '2'"),
    ('id = "loihi2"', 'id = "Loihi 2"', "key id: .*pattern.*found 'Loihi 2'"),
    ('use = "deploy"', 'use = "train"', "key use: .*'deploy' or 'cost-only', found 'train'"),
    ('use = "deploy"\n', "", "missing are the keys use;"),
    ("weight_bits = 8", "weight_bits = 17", "key numeric.weight_bits: .*16, found '17'"),
    ("weight_bits = 8", 'weight_bits = "x"', "key numeric.weight_bits: .*integer.*found 'x'"),
    ("delay_max = 62\n", "", "missing are the keys numeric.delay_max;"),
    ("delay_max = 62", "delay_max = 62\ndelay_maxi = 3",
     r"key numeric.delay_maxi: is unknown \(did you mean 'delay_max'\?\), allowed are weight_bits"),
    ("[time]", f"[time]\nlight = {NUMBER}", "key time.light: is unknown, allowed are synop, "),
    ("[time]", "[colour]\nx = 1\n[time]", "key colour: is unknown.*allowed are schema, id, title"),
    ('schema = 1\n', 'schema = 1\ntext = "x"\n', "key text: is unknown, allowed are schema, id"),
    ("value = 3.5, low = 3.0, high = 4.2", "value = 3.5, low = 4.0, high = 4.2",
     "key energy.hop: .*needs low <= value <= high, found 4.0, 3.5, 4.2"),
    ("value = 3.5, low = 3.0, high = 4.2", 'value = "unknown", low = 3.0',
     "key energy.hop: .*an unknown value cannot have a range"),
    ("value = 3.5, low = 3.0, high = 4.2", 'value = "unclear"',
     "key energy.hop.value: .*number.*found 'unclear'"),
    ("value = 3.5, low = 3.0, high = 4.2", "low = 3.0", "missing are the keys energy.hop.value"),
    ('value = 3.7, unit = "nJ", grade = "B"', 'value = 3.7, unit = "J", grade = "B"',
     "key energy.core_step.unit: .*'pJ', 'nJ'.*found 'J'"),
    ('value = 3.7, unit = "nJ", grade = "B"', 'value = 3.7, unit = "nJ", grade = "D"',
     "key energy.core_step.grade: .*'A', 'A-sim', 'B' or 'C', found 'D'"),
    ('grade = "C", source = "not published" }', 'grade = "C", source = "" }',
     "key energy.host_io.source: .*at least 3 characters, found ''"),
    ('grade = "C", source = "not published" }', 'grade = "C", source = "none", by = "me" }',
     "key energy.host_io.by: is unknown, allowed are value, low, high, unit, grade, source, note"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), BAD, ids=[b[2][:40] for b in BAD])
def test_bad_key_names_file_key_found_and_allowed(old, new, message):
    assert old in LOIHI2
    with pytest.raises(ProfileError, match=rf"^chip\.toml: .*{message}"):
        parse_profile(LOIHI2.replace(old, new, 1), "chip.toml")


def test_all_bad_keys_are_reported_at_once():
    text = LOIHI2.replace("weight_bits = 8", "weight_bits = 99").replace("delay_max = 62\n", "")
    text = text.replace('use = "deploy"', "")
    with pytest.raises(ProfileError) as caught:
        parse_profile(text, "chip.toml")
    message = str(caught.value)
    assert "numeric.weight_bits" in message
    assert "missing are the keys use, numeric.delay_max;" in message
    assert message.endswith("hardware_profiles/README.md lists the keys")


# --- the documented schema ---------------------------------------------------------------------
def documented() -> dict[str, str]:
    """Return dotted key -> second column of every row of the README's tables."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `([a-z_.]+)` \| (.+?) \|", text, flags=re.MULTILINE))


def test_readme_documents_every_key_and_no_other():
    found = set(documented()) - set(Quantity.model_fields)
    assert found == set(models())
    assert set(Quantity.model_fields) <= set(documented())


@pytest.mark.parametrize("name", list_profiles())
def test_units_of_the_shipped_profiles_are_the_documented_ones(name):
    rows, profile = documented(), load_profile(name)
    for key, kind in models().items():
        if kind is Quantity:
            section, leaf = key.split(".")
            assert getattr(getattr(profile, section), leaf).unit == rows[key], key
