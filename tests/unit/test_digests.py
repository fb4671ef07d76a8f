"""Digests in a file: stored, given again by every executor and version, refused when hostile."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from hashlib import sha256, shake_256

import fusion
import h5py
import numpy as np
import pytest
from strategies_intgraph import make_deployment

from neuroav import carried, certificate, digests, navfile, simulate
from neuroav import integer as ig
from neuroav.deployment import Probe
from neuroav.errors import ConfigError, DataError, FileFormatError, OutOfRange
from neuroav.explain import verify_explained
from neuroav.files import SEAL_BYTES, with_note
from neuroav.sim import reference
from neuroav.simulate import resolve_deployment
from neuroav_export import compile_module

BOTH = ["reference", "fast"]


@pytest.fixture
def path(tmp_path):
    shutil.copy(resolve_deployment("shipped:tiny.nav"), tmp_path / "tiny.nav")
    return tmp_path / "tiny.nav"


def run(path, task="store", backends=BOTH, **options):
    common = {"explain": False, "cache_dir": path.parent}
    return verify_explained(path, backends=backends, digests=task, **common | options)


def other_versions(monkeypatch, **packages):
    now = certificate.versions()
    monkeypatch.setattr(carried, "versions", lambda: now | packages)


def edited(path, change):
    """Change the JSON in a file, sealed again: what its seal cannot show."""
    table = json.loads(navfile.load_note(path))
    table = change(table) or table
    with_note(path, table if isinstance(table, str) else json.dumps(table), path)


# --- stored and given again --------------------------------------------------------------------
def test_stored_digests_are_given_again_without_data(path):
    before = path.read_bytes()
    content = navfile.load(path).content_hash
    stored = run(path)
    assert stored["equal"] is True
    assert (stored["samples"], stored["steps"]) == (4, 6)
    assert stored["silent"] == stored["saturated"] == []
    assert stored["carried"]["stored"] == 2
    assert navfile.load(path).content_hash == content
    after = path.read_bytes()
    assert after.endswith(before[SEAL_BYTES:])  # the HDF5 data stay as they were
    with h5py.File(path) as file:
        assert file.userblock_size >= 1024
        assert file.attrs["content_hash"] == content
    found = run(path, "check")
    assert found["equal"] is True
    assert found["carried"]["stored"] == 0
    for entry in found["carried"]["entries"]:
        assert entry["equal"] is True
        assert entry["digest"] == found["digests"][entry["executor"]]
        assert entry["versions"]["numpy"] == np.__version__
        assert entry["messages"] > 200
    assert path.read_bytes() == after


def test_storing_twice_adds_nothing(path):
    run(path)
    once = path.read_bytes()
    assert run(path)["carried"]["stored"] == 0
    assert path.read_bytes() == once


def test_another_version_adds_its_entry(path, monkeypatch):
    run(path)
    other_versions(monkeypatch, numpy="99.0")
    found = run(path)
    assert found["carried"]["stored"] == 2
    versions = [e["versions"]["numpy"] for e in found["carried"]["entries"]]
    assert versions == [np.__version__] * 2 + ["99.0"] * 2
    assert run(path, "check", ["reference"])["carried"]["equal"] is True


def wrong(deployment, inputs, **options):
    """An executor of a later version that computes one threshold otherwise."""
    pops = dict(deployment.integer.populations)
    lif = pops["audio_lif"]
    pops["audio_lif"] = replace(lif, threshold=lif.threshold + 60)
    graph = replace(deployment.integer, populations=pops)
    return reference.run(replace(deployment, integer=graph), inputs)


def test_a_version_that_computes_otherwise_is_told_and_never_stored(path, monkeypatch):
    run(path)
    stored = path.read_bytes()
    monkeypatch.setitem(simulate.BACKENDS, "reference", lambda: wrong)
    monkeypatch.setitem(simulate.BACKENDS, "fast", lambda: wrong)
    other_versions(monkeypatch, neuroav="99.0")
    for task in ("check", "store"):
        found = run(path, task)
        assert found["first_divergence"] is None  # the executors agree, with each other alone
        assert found["equal"] is found["carried"]["equal"] is False
        assert [e["equal"] for e in found["carried"]["entries"]] == [False, False]
        assert found["carried"]["stored"] == 0
    assert path.read_bytes() == stored
    assert run(path, "check", certificate=path.parent / "c.md")["certificate"] is None


def test_unequal_executors_store_nothing(path, monkeypatch):
    monkeypatch.setitem(simulate.BACKENDS, "fast", lambda: wrong)
    before = path.read_bytes()
    found = run(path)
    assert found["equal"] is False
    assert found["first_divergence"]["node"] == "audio_lif"
    assert found["carried"]["entries"] == []
    assert path.read_bytes() == before


def test_one_changed_digit_is_found(path):
    run(path)

    def change(table):
        digest = table["entries"][1]["digest"]
        table["entries"][1]["digest"] = ("0" if digest[0] != "0" else "1") + digest[1:]

    edited(path, change)
    found = run(path, "check")
    assert [e["equal"] for e in found["carried"]["entries"]] == [True, False]
    assert found["equal"] is False


def test_a_file_without_digests_has_none_to_check(path):
    assert digests.load(path, navfile.load(path)) is None
    with pytest.raises(DataError, match=r"carries no digests; store some with `neuroav verify"):
        run(path, "check")


def test_backends_must_be_known_and_different(path):
    with pytest.raises(ConfigError, match="give one or more different names"):
        run(path, backends=["fast", "fast"])
    with pytest.raises(ConfigError, match="unknown backend"):
        run(path, backends=["fat"])


def test_a_silent_network_is_refused(tmp_path):
    silent = make_deployment(
        {
            "eye": ig.IntInput((4,), (), 1),
            "scores": ig.IntReadout(
                (2,), (ig.IntDense("eye", 0, np.zeros((2, 4), np.int64), 8, "mixed"),), np.zeros(2)
            ),
        },
        "scores",
        3,
    )
    navfile.save(silent, tmp_path / "silent.nav")
    with pytest.raises(DataError, match="no neuron sent a message in 4 samples of the fixed probe"):
        run(tmp_path / "silent.nav")
    assert navfile.load_note(tmp_path / "silent.nav") is None


def counting(weight: int):
    """A readout of 500 inputs that are counted up to 255: it overflows where many arrive."""
    parts = (ig.IntDense("eye", 0, np.full((2, 500), weight), 8, "excitatory"),)
    populations = {
        "eye": ig.IntInput((500,), (), 255),
        "scores": ig.IntReadout((2,), parts, np.zeros(2, np.int64)),
    }
    return make_deployment(populations, "scores", 200)


def test_fewer_events_where_more_would_overflow(tmp_path):
    built = counting(255)
    navfile.save(built, tmp_path / "n.nav")
    with pytest.raises(OutOfRange):
        list(reference.run(built, digests.probe_inputs(built, digests.choose_probe(built))))
    found = run(tmp_path / "n.nav", backends=["reference"])
    level = found["carried"]["probe"]["levels"]["eye"]
    assert 0 < level < digests.LEVEL_UNKNOWN
    assert run(tmp_path / "n.nav", "check", ["reference"])["equal"] is True


@pytest.mark.lava
def test_lava_gives_the_stored_digests_again(path):
    run(path, backends=["reference"])
    found = run(path, "check", ["reference", "lava"])
    assert found["equal"] is True
    assert run(path, "store", ["lava"])["carried"]["entries"][1]["executor"] == "lava"


# --- the probe set -----------------------------------------------------------------------------
def test_the_recipe_is_as_written(path):
    """The whole recipe once more, in plain Python."""
    tiny = navfile.load(path)
    probe = digests.choose_probe(tiny)
    made = digests.probe_inputs(tiny, probe)
    for name, value in made.items():
        pop, level = tiny.integer.populations[name], probe.levels[name]
        assert level == min(round((tiny.probe.inputs[name] != 0).mean() * 65536), 32768)
        for sample in range(4):
            size = 6 * pop.neurons
            data = shake_256(f"neuroav probe 1\0{name}\0{sample}".encode()).digest(2 * size)
            counts = []
            for i in range(size):
                u, first = data[2 * i] + 256 * data[2 * i + 1], min(level * 2**sample, 32768)
                bound, count = first, 0
                while count < pop.max_count and u < bound:
                    bound, count = bound * first // 65536, count + 1
                counts.append(count)
            assert value[sample].reshape(-1).tolist() == counts
    rates = (made["visual"] != 0).mean(axis=tuple(range(1, made["visual"].ndim)))
    assert 0.05 < rates[0] < rates[-1] <= 0.55


def test_the_probe_set_never_changes(path):
    """Another stream would make every digest ever stored useless: make it generator 2 then."""
    probe = digests.ProbeSet(1, 2, 6, {"audio": 9000, "visual": 9000})
    made = digests.probe_inputs(navfile.load(path), probe)
    found = [sha256(made[n].astype("<i4").tobytes()).hexdigest()[:16] for n in made]
    assert found == ["8d2169429af60deb", "02148e553383879d"]


def test_static_inputs_lie_in_the_range_of_the_samples(tmp_path):
    x = fusion.features(16)
    built = compile_module(fusion.awake_fusion(), x, static=("audio", "visual"))
    built = replace(built, probe=Probe({n: v[:4] for n, v in x.items()}, np.zeros(4, np.int64)))
    navfile.save(built, tmp_path / "n.nav")
    made = digests.probe_inputs(built, digests.choose_probe(built))
    for name, value in made.items():
        assert value.dtype == np.float32
        assert (value == value[:, :1]).all()
        low, high = x[name][:4].min(), x[name][:4].max()
        assert low - 0.01 <= value.min() < value.max() <= high + 0.01
    assert run(tmp_path / "n.nav")["carried"]["stored"] == 2
    assert run(tmp_path / "n.nav", "check")["equal"] is True


# --- hostile and cut ---------------------------------------------------------------------------
def put(*keys):
    """Return a change that sets the last of ``keys`` at the place of the others."""
    *place, value = keys

    def change(table):
        inner = table
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value

    return change


HOSTILE = [
    (lambda t: "not json", "the text is 'not json', allowed is JSON"),
    (lambda t: "[" * 100_000, "allowed is JSON"),
    (lambda t: "[1]", r"the text is '\[1\]', allowed is an object"),
    (lambda t: json.dumps(t).replace('"messages": ', '"messages": NaN, "x": '), "number is 'NaN'"),
    (put("version", 2), r"version is 2, this program reads 1\.\.1; update neuroav"),
    (put("version", True), "version is 'True'"),
    (put("extra", 1), "the text is .*exactly version, probe, entries"),
    (put("probe", "generator", 2), r"probe\.generator is '2'"),
    (put("probe", "samples", 10**9), r"probe\.samples is '1000000000', allowed is .* 1\.\.64"),
    (put("probe", "steps", 7), r"probe\.steps is '7', allowed is a whole number 6\.\.6"),
    (put("probe", "levels", {"audio": 5}), r"probe\.levels is .*exactly audio, visual"),
    (put("probe", "levels", "audio", 0.5), r"probe\.levels\.audio is '0\.5'"),
    (put("probe", "levels", "audio", -1), r"probe\.levels\.audio is '-1'"),
    (put("entries", []), r"entries is '\[\]', allowed is a list of 1\.\.1000"),
    (put("entries", 0, "digest", "NaN"), r"entries\[0\]\.digest is 'NaN', allowed is 64 hex"),
    (put("entries", 1, "messages", 0), r"entries\[1\]\.messages is '0'"),
    (put("entries", 1, "messages", 1e999), "number is 'Infinity'"),
    (put("entries", 0, "versions", {}), r"entries\[0\]\.versions is '{}'"),
    (put("entries", 0, "versions", {"numpy": "1 |\n#"}), r"versions\.numpy is "),
    (put("entries", 0, "executor", "x" * 999), r"entries\[0\]\.executor is 'xxx"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE)
def test_what_is_not_as_written_is_refused_with_its_place(path, change, message):
    run(path)
    edited(path, change)
    navfile.load(path)  # the network itself is whole, and can still be run
    for task in ("check", "store"):
        with pytest.raises(FileFormatError, match=message) as caught:
            run(path, task)
        assert "tiny.nav: digests: " in str(caught.value)


def test_a_note_that_is_none_of_ours(path):
    data = path.read_bytes()
    path.write_bytes(data[:SEAL_BYTES] + b"hello".ljust(512, b"\0") + data[SEAL_BYTES:])
    with pytest.raises(FileFormatError, match="its seal says"):
        run(path)
    navfile.seal(path)
    navfile.load(path)
    with pytest.raises(FileFormatError, match="note cannot be read .*no note of ours"):
        run(path)


def test_a_note_that_is_no_text(path):
    run(path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"executor": "fast"', b'"executor": "\xff\xff\xff\xff"'))
    navfile.seal(path)
    with pytest.raises(FileFormatError, match="note cannot be read .*can't decode byte 0xff"):
        run(path, "check")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_cut_file_is_refused(path, part):
    run(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(FileFormatError, match=r"tiny\.nav: "):
        run(path, "check")


def test_a_note_of_any_length_leaves_the_network_as_it_is(path):
    content = navfile.load(path).content_hash
    for length in (1, 400, 460, 461, 512, 1500, 100_000):
        navfile.save_note(path, "é" * length)
        assert navfile.load_note(path) == "é" * length
        assert navfile.load(path).content_hash == content
    kept = path.read_bytes()
    for text in ("x" * (navfile.NOTE_MOST + 1), "a\0b"):
        with pytest.raises(FileFormatError, match="allowed are 1048576 without zero bytes"):
            navfile.save_note(path, text)
    assert path.read_bytes() == kept
    assert [p.name for p in path.parent.iterdir()] == ["tiny.nav"]


# --- the certificate ---------------------------------------------------------------------------
def test_the_certificate_lists_the_digests(path, monkeypatch):
    other_versions(monkeypatch, torch="99.0")
    digest = run(path)["digests"]["fast"]
    found = run(path, "check", certificate=path.parent / "c.md")
    page = (path.parent / "c.md").read_text(encoding="utf-8")
    assert found["certificate"]
    assert "| samples | 4, the fixed probe set (generator 1), which needs no data |" in page
    assert page.count(f"| 99.0 | 0.10.0 | `{digest}` | equal |") == 2
    common = {"backends": BOTH, "explain": False, "cache_dir": path.parent}
    verify_explained(path, certificate=path.parent / "d.md", samples=2, **common)
    page = (path.parent / "d.md").read_text(encoding="utf-8")
    assert "| samples | 2, the first of the part 'probe' |" in page
    assert page.count(f"`{digest}` | not computed |") == 2
    run(path, "check", ["fast"], certificate=path.parent / "e.md")
    assert "fast gave **again the outputs" in (path.parent / "e.md").read_text(encoding="utf-8")
