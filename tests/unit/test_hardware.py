"""Hardware profiles: shipped files, every error message, extends, schema 1, documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomli_w
from pydantic import BaseModel

from neuroav import hardware, profile_files
from neuroav.errors import ProfileError
from neuroav.fixed import Arithmetic
from neuroav.hardware import Profile, Quantity, list_profiles, load_profile, parse_profile, table_of

FOLDER = Path(__file__).resolve().parents[2] / "hardware_profiles"
LOIHI2 = (FOLDER / "loihi2.toml").read_text(encoding="utf-8")
SCHEMA_1 = (Path(__file__).parent / "profiles" / "loihi2-schema1.toml").read_text(encoding="utf-8")


def models(model: type[BaseModel] = Profile, prefix: str = "") -> dict[str, type | None]:
    """Return dotted key -> type of every key that a profile file has."""
    found: dict[str, type | None] = {}
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        key, kind = prefix + (field.alias or name), table_of(field.annotation)
        found[key] = kind
        if kind and kind is not Quantity:
            found |= models(kind, f"{key}.")
    return found


def quantities(profile: Profile) -> dict[str, Quantity]:
    """Return dotted key -> number of every graded number of a profile."""
    keys = (key.split(".") for key, kind in models().items() if kind is Quantity)
    return {f"{s}.{k}": getattr(getattr(profile, s), k) for s, k in keys}


# --- the shipped files -------------------------------------------------------------------------
SHIPPED = {
    "ideal", "loihi1-davies2018", "loihi1-nahuku-fit", "loihi2", "loihi2-alia-point",
    "loihi2-hala-point", "loihi2-kapoho-point", "speck2f", "spinnaker2", "truenorth", "xylo-audio3",
}  # fmt: skip


@pytest.mark.parametrize("name", list_profiles())
def test_shipped_profile_is_valid_and_bears_the_name_of_its_file(name):
    profile = load_profile(name)
    assert profile.id == name
    assert load_profile(FOLDER / f"{name}.toml") == profile
    assert re.fullmatch("[0-9a-f]{64}", profile.hash)


def test_list_holds_every_file_of_the_folder():
    assert list_profiles() == sorted(p.stem for p in FOLDER.glob("*.toml"))
    assert set(list_profiles()) == SHIPPED


@pytest.mark.parametrize("name", list_profiles())
def test_text_of_a_profile_stands_alone(name):
    """What a FILE.nav carries needs no other file."""
    profile = load_profile(name)
    again = parse_profile(profile.text, "inside the file")
    assert again == profile
    assert again.hash == profile.hash
    assert "\nextends" not in profile.text


@pytest.mark.parametrize("name", list_profiles())
def test_every_number_says_where_it_comes_from(name):
    for key, quantity in quantities(load_profile(name)).items():
        assert quantity.grade in hardware.GRADES, key
        assert len(quantity.source) > 5, key
        if quantity.value is None:
            assert quantity.grade == "C", key
        else:
            assert quantity.value > 0, key


@pytest.mark.parametrize("name", list_profiles())
def test_a_target_that_computes_otherwise_says_so(name):
    profile = load_profile(name)
    assert profile.deployable == (profile.numeric is not None) == (not profile.differs)
    if profile.deployable:
        assert profile.arithmetic == load_profile("loihi2").arithmetic
    else:
        assert profile.differs.endswith(".")
        with pytest.raises(ProfileError, match="is a cost-only profile") as caught:
            _ = profile.arithmetic
        assert caught.value.rule == "cost-only"
        assert profile.differs.rstrip(".") in str(caught.value)
        assert f"neuroav report --profile {name}" in str(caught.value)


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


def test_chips_of_the_boards():
    boards = {
        name: load_profile(name).topology for name in list_profiles() if name.startswith("loihi2")
    }
    assert {name: (t.chips.value, t.chips_x.value) for name, t in boards.items()} == {
        "loihi2": (1, 1),
        "loihi2-kapoho-point": (8, 4),
        "loihi2-alia-point": (32, 8),
        "loihi2-hala-point": (1152, 36),
    }
    assert boards["loihi2-hala-point"].cores_usable.value * 1152 == 140_544  # Intel's count
    assert all(t.chips.value % t.chips_x.value == 0 for t in boards.values())


@pytest.mark.parametrize("name", list_profiles())
def test_routers_hold_the_cores_of_a_chip(name):
    top = load_profile(name).topology
    sizes = [top.routers_x.value, top.routers_y.value, top.cores_per_router.value]
    if None not in sizes:
        assert sizes[0] * sizes[1] * sizes[2] == top.cores_total.value
    if top.cores_total.value is not None:
        assert top.cores_usable.value <= top.cores_total.value


def test_ideal_knows_no_limit_and_no_price():
    assert all(q.value is None for q in quantities(load_profile("ideal")).values())


def test_all_in_prices_synaptic_operations_alone():
    energy = load_profile("truenorth").energy
    priced = {key: q.value for key, q in energy if isinstance(q, Quantity) and q.value is not None}
    assert energy.scope == "all_in"
    assert priced == {"synop_conv": 26.0, "synop_dense": 26.0, "synop_sparse": 26.0}


# --- measured points ---------------------------------------------------------------------------
def test_pilotnet_prediction_is_what_the_profile_gives():
    """Lava-dl's PilotNet LIF on Loihi 2, the one public point with activity; all in uJ per step."""
    profile = load_profile("loihi2")
    (point,) = profile.validation
    cost = {key: q.value for key, q in profile.energy if isinstance(q, Quantity)}
    hop = (cost["hop_x"] + cost["hop_y"]) / 2
    picojoules = (
        2.288e6 * cost["synop_conv"]
        + 158_509 * cost["neuron_update"]
        + 4.14e4 * (cost["spike_out"] + cost["message_out"] + 5 * hop)
        + 74 * cost["core_step"] * 1e3
    )
    assert point.unit == "uJ"
    assert point.predicted == pytest.approx(picojoules / 1e6, abs=0.005)
    assert point.measured == pytest.approx(0.447 * 152.85, abs=0.05)  # W times us
    assert point.error == pytest.approx(point.predicted / point.measured - 1, abs=5e-4)


def test_measured_point_must_add_up():
    wrong = LOIHI2.replace("error = 0.0963", "error = 0.01")
    with pytest.raises(ProfileError, match=r"key validation\.0: .*measured - 1 = 0\.0963, found 0"):
        parse_profile(wrong, "chip.toml")
    misspelt = LOIHI2.replace("measured = 68.35", "mesured = 68.35")
    with pytest.raises(ProfileError) as caught:
        parse_profile(misspelt, "chip.toml")
    assert "key validation.0.mesured: is unknown (did you mean 'measured'?)" in str(caught.value)
    assert "missing are the keys validation.0.measured;" in str(caught.value)


# --- names -------------------------------------------------------------------------------------
def test_alias_loads_its_target(monkeypatch):
    assert load_profile("loihi1").id == "loihi1-nahuku-fit"
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
HOP = "value = 4.2, low = 4.0, high = 4.2"
BAD = [
    ("schema = 2\n", "schema = 3\n", "key schema: Input should be 2, found '3'"),
    ('id = "loihi2"', 'id = "Loihi 2"', "key id: .*pattern.*found 'Loihi 2'"),
    ('use = "deploy"', 'use = "train"', "key use: .*'deploy' or 'cost-only', found 'train'"),
    ('use = "deploy"\n', "", "missing are the keys use;"),
    ('use = "deploy"\n', 'use = "deploy"\ndiffers = "It."\n', "key differs: is for .*'cost-only'"),
    ('use = "deploy"\n', 'use = "cost-only"\n',
     "key numeric: is for use = 'deploy', found use = 'cost-only'; key differs: is missing, .*why"),
    ("weight_bits = 8", "weight_bits = 17", "key numeric.weight_bits: .*16, found '17'"),
    ("weight_bits = 8", 'weight_bits = "x"', "key numeric.weight_bits: .*integer.*found 'x'"),
    ("delay_max = 62\n", "", "missing are the keys numeric.delay_max;"),
    ("delay_max = 62", "delay_max = 62\ndelay_maxi = 3",
     r"key numeric.delay_maxi: is unknown \(did you mean 'delay_max'\?\), allowed are weight_bits"),
    ("[time]", f"[time]\nlight = {NUMBER}", "key time.light: is unknown, allowed are combine, syn"),
    ("[time]", "[colour]\nx = 1\n[time]", "key colour: is unknown.*allowed are schema, id, title"),
    ("[time]", "[extended]\nx = 1\n[time]", r"key extended: is unknown \(did you mean 'extends'"),
    ('schema = 2\n', 'schema = 2\ntext = "x"\n', "key text: is unknown, allowed are schema, id"),
    ('scope = "per_event"', 'scope = "some"', "key energy.scope: .*'all_in', found 'some'"),
    ('combine = "additive"', 'combine = "sum"', "key time.combine: .*'max_affine', found 'sum'"),
    ("convolution_shared = true", "convolution_shared = 3", "key layout.convolution_shared: .*'3'"),
    (HOP, "value = 3.5, low = 4.0, high = 4.2",
     "key energy.hop_y: .*needs low <= value <= high, found 4.0, 3.5, 4.2"),
    (HOP, 'value = "unknown", low = 3.0',
     "key energy.hop_y: .*an unknown value cannot have a range"),
    (HOP, 'value = "unclear"', "key energy.hop_y.value: .*number.*found 'unclear'"),
    (HOP, "low = 3.0", "missing are the keys energy.hop_y.value"),
    ('value = 3.7, unit = "nJ", grade = "B"', 'value = 3.7, unit = "J", grade = "B"',
     "key energy.core_step.unit: .*'pJ', 'nJ'.*found 'J'"),
    ('value = 3.7, unit = "nJ", grade = "B"', 'value = 3.7, unit = "ns", grade = "B"',
     "key energy.core_step: .*needs the unit pJ or nJ or uJ, found 'ns'"),
    ('value = 16, low = 8, high = 24, unit = "byte"', 'value = 16, unit = "bit"',
     "key layout.neuron_bytes: .*needs the unit byte, found 'bit'"),
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


def test_what_a_use_needs():
    start, end = LOIHI2.index("[numeric]"), LOIHI2.index("[topology]")
    without = LOIHI2[:start] + LOIHI2[end:]
    with pytest.raises(ProfileError, match="key numeric: is missing, use = 'deploy' needs it"):
        parse_profile(without, "chip.toml")
    with pytest.raises(ProfileError, match="key differs: is missing, use = 'cost-only' needs one"):
        parse_profile(without.replace('use = "deploy"', 'use = "cost-only"'), "chip.toml")
    assert (
        parse_profile(
            without.replace('use = "deploy"', 'use = "cost-only"\ndiffers = "So."'), "chip.toml"
        )
        .not_ours()
        .args[0]
        .startswith("loihi2: is a cost-only profile, its arithmetic is not ours (So)")
    )


# --- extends -----------------------------------------------------------------------------------
def child(**keys) -> str:
    """Return the text of a profile 'mine' that extends loihi2, changed by ``keys``."""
    return tomli_w.dumps({"schema": 2, "id": "mine", "title": "Mine", "extends": "loihi2"} | keys)


def test_extends_merges_tables_and_replaces_quantities():
    price = {"value": 20.0, "unit": "pJ", "grade": "A", "source": "our lab"}
    mine = parse_profile(child(energy={"synop_conv": price}, revision="N3C1"), "mine.toml")
    base = load_profile("loihi2")
    assert mine.energy.synop_conv.band == (20.0, 20.0, 20.0)  # no range of the parent's
    assert mine.energy.synop_dense == base.energy.synop_dense
    assert (mine.numeric, mine.core, mine.time) == (base.numeric, base.core, base.time)
    assert (mine.id, mine.revision) == ("mine", "N3C1")
    assert mine.operating_point == base.operating_point
    assert mine.validation == ()  # measured with other prices
    assert base.validation
    assert parse_profile(mine.text, "inside the file") == mine


def test_hash_of_an_extended_profile_follows_its_parent(tmp_path):
    (tmp_path / "base.toml").write_text(LOIHI2)
    path = tmp_path / "mine.toml"
    path.write_text(child(extends="base.toml"))
    before = load_profile(path)
    assert before.text == parse_profile(child(), "mine.toml").text
    (tmp_path / "base.toml").write_text(LOIHI2.replace("value = 111.0", "value = 112.0"))
    assert load_profile(path).energy.message_out.value == 112.0
    assert load_profile(path).hash != before.hash


def test_extends_takes_paths_from_the_files_folder_through_generations(tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "base.toml").write_text(child(id="base", revision="b", extends="loihi1"))
    (tmp_path / "mine.toml").write_text(child(extends="lab/base.toml"))
    monkeypatch.chdir(tmp_path)
    mine = load_profile("mine.toml")
    assert (mine.id, mine.revision) == ("mine", "b")
    assert mine.core.neurons.value == 1024  # loihi1's


def test_extended_profile_may_only_price():
    mine = parse_profile(child(use="cost-only", differs="It has three states."), "mine.toml")
    assert mine.numeric is None
    back = tomli_w.dumps({"numeric": load_profile("loihi2").numeric.model_dump()})
    text = child(extends="truenorth", use="deploy") + back
    assert parse_profile(text, "mine.toml").differs == ""


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"extends": 3}, r"^mine: key extends: must be the id of a shipped .*, found 3$"),
        ({"extends": "loihi9"}, "^mine: key extends: unknown profile 'loihi9': .*did you mean"),
        ({"extends": "base.toml"}, r"^mine: key extends: base\.toml: is relative to a file"),
        ({"schema": 1}, "^mine: key extends: needs schema = 2, found schema = 1$"),
        ({"core": 3}, r"^mine \(with what it extends, loihi2\): key core: .*found '3'"),
        ({"coer": {}}, r"^mine \(with .*\): key coer: is unknown \(did you mean 'core'\?\)"),
        ({"core": {"neuron": 1}}, r"key core\.neuron: is unknown \(did you mean 'neurons'"),
        ({"numeric": {"weight_bits": 0}}, r"key numeric\.weight_bits: .*found '0'"),
    ],
)
def test_bad_extends(keys, message):
    with pytest.raises(ProfileError, match=message):
        parse_profile(child(**keys), "mine")


def test_extends_needs_its_own_name():
    with pytest.raises(ProfileError, match="missing are the keys schema, id, title;"):
        parse_profile('extends = "loihi2"\n', "mine")


def test_bad_parents_are_named(tmp_path):
    path, base = tmp_path / "mine.toml", tmp_path / "base.toml"
    path.write_text(child(extends="base.toml"))
    with pytest.raises(
        ProfileError, match=r"mine\.toml: key extends: .*base\.toml: cannot be read"
    ):
        load_profile(path)
    base.write_text("schema = ")
    with pytest.raises(ProfileError, match=r"base\.toml: not a TOML file"):
        load_profile(path)
    base.write_text(LOIHI2.replace("[time]", "[time]\nlight = 1"))
    with pytest.raises(ProfileError, match=r"mine\.toml \(with .*base\.toml\): key time\.light"):
        load_profile(path)


def test_circles_are_shown(tmp_path):
    (tmp_path / "a.toml").write_text(child(extends="b.toml"))
    (tmp_path / "b.toml").write_text(child(extends="a.toml"))
    with pytest.raises(ProfileError, match=r"goes in a circle, \S+a\.toml -> \S+b\.toml -> \S+a\."):
        load_profile(tmp_path / "a.toml")
    (tmp_path / "self.toml").write_text(child(extends="self.toml"))
    with pytest.raises(ProfileError, match=r"goes in a circle, \S+self\.toml -> \S+self\.toml$"):
        load_profile(tmp_path / "self.toml")


# --- schema 1 ----------------------------------------------------------------------------------
def test_profile_of_schema_1_is_read_as_schema_2():
    profile = parse_profile(SCHEMA_1, "inside the file")
    old = profile_files.parse(SCHEMA_1, "old")
    assert old["schema"] == 1
    assert profile.schema_version == 2
    assert profile.text == SCHEMA_1
    assert profile.energy.hop_x == profile.energy.hop_y
    assert profile.energy.hop_x.band == (3.0, 3.5, 4.2)
    assert (profile.energy.scope, profile.time.combine) == ("per_event", "additive")
    assert profile.layout.convolution_shared is True
    assert profile.arithmetic == load_profile("loihi2").arithmetic
    for key, quantity in quantities(profile).items():
        section, leaf = key.split(".")
        if leaf in old.get(section, {}):
            assert quantity == Quantity(**old[section][leaf]), key
        elif not leaf.startswith("hop_"):
            assert quantity.value is None, key
            assert quantity.source == "not in a profile of schema 1", key
            assert quantity.unit == documented()[key], key


def test_what_is_wrong_in_schema_1_is_still_found():
    for old, new, message in [
        (
            "hop = ",
            "hopp = ",
            r"key energy\.hopp: is unknown.*missing are the keys energy\.hop_x, ",
        ),
        ("[time]", "[time]\nlight = 1", r"key time\.light: is unknown"),
        ("[core]", "[cor]", r"key cor: is unknown .*missing are the keys core\.neurons"),
        ("[energy]", f"[energy]\nhop_x = {NUMBER}", r"key energy\.hop: is unknown"),
    ]:
        assert old in SCHEMA_1
        with pytest.raises(ProfileError, match=message):
            parse_profile(SCHEMA_1.replace(old, new, 1), "chip.toml")


def test_cost_only_profile_of_schema_1():
    profile = parse_profile(SCHEMA_1.replace('"deploy"', '"cost-only"'), "chip.toml")
    assert profile.numeric is None
    assert "schema 1" in profile.differs


def test_schema_1_can_be_extended(tmp_path):
    (tmp_path / "old.toml").write_text(SCHEMA_1)
    (tmp_path / "mine.toml").write_text(child(extends="old.toml"))
    mine = load_profile(tmp_path / "mine.toml")
    assert mine.energy.hop_y.value == 3.5
    assert parse_profile(mine.text, "inside the file") == mine


# --- the documented schema ---------------------------------------------------------------------
def documented() -> dict[str, str]:
    """Return dotted key -> second column of every row of the README's tables."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| `([a-z_.]+)` \| (.+?) \|", text, flags=re.MULTILINE))


def test_readme_documents_every_key_and_no_other():
    found = set(documented()) - set(Quantity.model_fields)
    assert found == set(models()) | {"extends"}
    assert set(Quantity.model_fields) <= set(documented())


def test_readme_names_every_shipped_profile():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(re.search(rf"\| .*\b{name}\b.* \|", text) for name in list_profiles())


def test_example_of_the_readme_is_a_valid_profile():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    (example,) = (t for t in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "extends" in t)
    assert parse_profile(example, "README.md").topology.cores_usable.value == 110


@pytest.mark.parametrize("name", list_profiles())
def test_units_of_the_shipped_profiles_are_the_documented_ones(name):
    rows = documented()
    for key, quantity in quantities(load_profile(name)).items():
        assert quantity.unit == rows[key], key
