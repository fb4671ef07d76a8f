"""A data set read from files by its name: prepare, show and check, also on the command line.

The catalogue is given the made-up set of ``plan_files``.
"""

import json
from types import SimpleNamespace

import plan_files
import pytest
from click.testing import CliRunner

from neuroav import data
from neuroav.cli.group import cli
from neuroav.data import cache, catalogue, checking, exclusive, ledger, nmnistfsdd
from neuroav.data._make_manifest import make
from neuroav.data.augment import Augmentation
from neuroav.data.info import DatasetInfo
from neuroav.errors import DataError

NAME, ITEMS = "made-up", 20


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The files, and the set in the catalogue; items 2 and 5 are known to be broken."""
    root = plan_files.write(tmp_path / "root", ITEMS)
    for number in (2, 5):
        (root / plan_files.event_file(number)).write_bytes(b"BROKEN")
    info = DatasetInfo(NAME, "Made up", ("default", "other"), (), "none", (), Augmentation())
    module = SimpleNamespace(
        INFO=info,
        parameters=lambda preset, seed, limit, root=None: {"preset": preset, "limit": limit},
        plan=lambda preset, seed, limit, root: plan_files.plan(limit or ITEMS, defects=["none"]),
        canonical=lambda preset: preset,
        made_with=lambda: {},
        spec=lambda *sizes: data.FrameSpec(),
    )
    monkeypatch.setitem(catalogue._PLANNED, NAME, module)
    monkeypatch.setitem(catalogue.DATASETS, NAME, info)
    return root


@pytest.fixture
def run(root, tmp_path):
    """The command line on this set: exit code, JSON object or text, and stderr."""

    def invoke(command, *options, as_json=True):
        words = ["data", command, NAME, "--cache-dir", tmp_path / "cache", *options]
        words += ["--json"] if as_json else []
        done = CliRunner().invoke(cli, list(map(str, words)), env={"NEUROAV_DATA": str(root)})
        return done.exit_code, json.loads(done.stdout) if as_json else done.stdout, done.stderr

    return invoke


def test_prepare_show_and_check(run, root, tmp_path):
    code, _, err = run("check")
    assert (code, "is not prepared; run: neuroav data prepare made-up --data-root" in err) == (
        1,
        True,
    )
    code, made, _ = run("prepare", "--jobs", 2)
    assert code == 0
    code, shown, _ = run("show")
    assert shown["skipped"] == 2
    assert shown["skipped_items"]["item-5"].startswith("events/0005.bin is listed as broken")
    assert (shown["protocol"], shown["defects"]) == ("clean: speakers apart", ["none"])
    text = run("show", as_json=False)[1]
    assert "skipped item" in text
    assert text.count("is listed as broken by its publishers") == 2
    code, found, _ = run("check")
    assert (code, found["problems"], found["sources"]) == (0, [], ITEMS + 1)
    assert found["content_hash"] == shown["content_hash"] == cache.read(
        tmp_path / "cache" / NAME / made["path"].rpartition("/")[2], ""
    ).content_hash  # fmt: skip


def test_many_skipped_items_are_counted_and_the_first_shown(run, root):
    for number in range(4, 18):
        (root / plan_files.event_file(number)).write_bytes(b"BROKEN")
    assert run("prepare")[0] == 0
    text = run("show", as_json=False)[1]
    assert text.count("is listed as broken by its publishers") == 10
    assert "and 5 more; --json lists them all" in text


def test_check_lists_everything_that_changed(run, root, tmp_path):
    run("prepare")
    changed, gone = (root / plan_files.event_file(number) for number in (3, 4))
    changed.write_bytes(bytes(5))
    gone.unlink()
    code, found, _ = run("check")
    assert code == 1
    assert len(found["problems"]) == 2
    assert str(changed) in found["problems"][0]
    assert f"{gone} is missing" in found["problems"][1]
    code, text, _ = run("check", as_json=False)
    assert (code, str(changed) in text) == (1, True)
    # without a data root the cache alone is read
    place = {"cache_dir": tmp_path / "cache"}
    assert catalogue.check(NAME, **place)["problems"] == []
    path = data.cache_path(NAME, **place)
    path.write_bytes(path.read_bytes()[:-1])
    (problem,) = catalogue.check(NAME, **place)["problems"]
    assert "it was changed or damaged; delete it or run: neuroav data prepare" in problem


def test_a_manifest_that_was_edited_or_lost_is_a_problem(run, tmp_path):
    run("prepare")
    path = data.cache_path(NAME, cache_dir=tmp_path / "cache")
    place = ledger.manifest_path(path)
    content = place.read_text()
    place.write_text(content.replace("train", "test", 1))
    assert "is not the one that was written with" in run("check")[1]["problems"][0]
    place.unlink()
    assert "cannot be read" in run("check")[1]["problems"][0]


def test_a_published_manifest_counts_for_what_is_prepared_already(run, root, tmp_path):
    run("prepare")
    theirs = tmp_path / "theirs.csv"
    stamps = {file: ledger.stamp(root / file) for file in ledger.sources(plan_files.plan(20).items)}
    ledger.record(theirs, stamps, False, root)
    assert run("prepare", "--manifest", theirs)[0] == run("check", "--manifest", theirs)[0] == 0
    ledger.record(theirs, {"sounds.csv": ledger.Stamp(3, "0" * 64)}, True, root)
    code, _, err = run("prepare", "--manifest", theirs)
    assert (code, "sounds.csv was changed" in err, str(theirs) in err) == (1, True, True)
    assert "sounds.csv was changed" in run("check", "--manifest", theirs)[1]["problems"][0]


def test_options_reach_the_preparation(run, root):
    run("prepare")
    whole = (root / plan_files.event_file(3)).read_bytes()
    (root / plan_files.event_file(3)).write_bytes(b"DAMAGED")
    code, _, err = run("prepare", "--force")
    assert (code, "--accept-changed" in err) == (1, True)
    code, _, err = run("prepare", "--accept-changed")  # which makes it anew by itself
    assert (code, "7 bytes, allowed are multiples of 5" in err) == (1, True)
    assert run("prepare", "--force", "--accept-changed", "--skip-broken")[0] == 0
    assert run("show")[1]["skipped"] == 3
    assert "3 skipped; neuroav data show lists them" in run("prepare", "--skip-broken",
                                                            as_json=False)[1]  # fmt: skip
    # what was skipped by force is tried again without that
    code, _, err = run("prepare")
    assert (code, "7 bytes" in err) == (1, True)
    assert run("show")[1]["skipped"] == 3
    (root / plan_files.event_file(3)).write_bytes(whole)
    assert run("prepare")[0] == 0
    assert run("show")[1]["skipped"] == 2


def test_what_a_kill_left_is_removed_by_the_next_prepare(run, tmp_path):
    run("prepare")
    folder = exclusive.parts_folder(data.cache_path(NAME, cache_dir=tmp_path / "cache"))
    folder.mkdir()
    (folder / "done").touch()
    assert run("prepare")[0] == 0
    assert not folder.exists()


def test_data_sets_of_the_package_know_no_ledger(tmp_path):
    for option in ({"accept_changed": True}, {"skip_broken": True}, {"manifest": tmp_path}):
        with pytest.raises(DataError, match="the package lists what it is made of"):
            data.prepare("av-digits", cache_dir=tmp_path, limit=40, **option)
    assert list(tmp_path.iterdir()) == []


def test_nmnist_fsdd_is_checked_against_its_shipped_manifest(made_up, tmp_path, monkeypatch):
    monkeypatch.setattr(nmnistfsdd, "MANIFEST", tmp_path / "manifest.csv")
    make(made_up, tmp_path / "manifest.csv")
    place = {"cache_dir": tmp_path / "cache", "data_root": made_up}
    data.prepare("nmnist-fsdd", limit=40, **place)
    found = catalogue.check("nmnist-fsdd", limit=40, **place)
    assert (found["problems"], found["sources"]) == ([], 100 + 120)
    lines = (tmp_path / "manifest.csv").read_text().replace("0.wav,6", "0.wav,7", 1)
    (tmp_path / "changed.csv").write_text(lines)
    found = checking.check(
        found["file"], "", made_up, shipped=tmp_path / "changed.csv", manifest=None, planned=False
    )
    assert len(found["problems"]) == 1
