"""Preparing from files: the same bytes however it went, nothing half written, hashes checked.

What is prepared is ``plan_files``: files of N-MNIST and one container, 60 items in 30 parts, or 20
in 10.
"""

import csv
import fcntl
import hashlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import plan_files
import pytest

from neuroav.data import cache, checking, exclusive, ledger, preparing, shards
from neuroav.data.plans import Converted, Item, Plan, Source
from neuroav.data.ragged import Ragged
from neuroav.errors import (
    DataError,
    ExecutorError,
    FileFormatError,
    MissingDependency,
    NeuroavError,
)

ITEMS = 60


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The files of the set; not to be changed."""
    return plan_files.write(tmp_path_factory.mktemp("files") / "root", ITEMS)


@pytest.fixture
def root(tmp_path) -> Path:
    """Files of one's own, of 20 items."""
    return plan_files.write(tmp_path / "root", 20)


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory) -> Path:
    """The prepared file, by one process that nothing disturbed."""
    path = tmp_path_factory.mktemp("undisturbed") / "made-up" / "default-0.h5"
    plan_files.carry_out(source, path, ITEMS)
    return path


def _start(source: Path, path: Path, jobs: int) -> subprocess.Popen:
    words = [plan_files.__file__, source, path, ITEMS, jobs]
    return subprocess.Popen([sys.executable, *map(str, words)], start_new_session=True)


def _files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


# --- what is prepared --------------------------------------------------------------------------
def test_every_item_is_what_its_files_say(source, undisturbed):
    found = cache.read(undisturbed, "")
    plan = plan_files.plan(ITEMS)
    assert len(found.labels) == ITEMS
    assert found.audio.counts.min() > 0
    assert found.visual.counts.sum() > 1000
    assert (found.visual.counts == 0).sum() >= ITEMS // 7
    for row, item in enumerate(plan.items):
        made = plan_files.convert(source, item)
        for events, theirs in ((found.audio, made.audio), (found.visual, made.visual)):
            ours = events.one(row)
            assert ours.keys() == theirs.keys()
            for name in theirs:
                np.testing.assert_array_equal(ours[name], theirs[name])
                assert ours[name].dtype == theirs[name].dtype
        assert found.source["name"][row].decode() == item.name
        assert found.source["file"][row].decode() == item.sources["visual"].file
        assert (found.labels[row], cache.SPLITS[found.split[row]]) == (item.label, item.split)
    assert found.meta == {**plan.meta, "skipped": {}}


def test_the_bytes_do_not_depend_on_the_number_of_processes(source, undisturbed, tmp_path):
    path = tmp_path / "made-up" / "default-0.h5"
    plan_files.carry_out(source, path, ITEMS, 3)
    assert _files(path.parent) == _files(undisturbed.parent)
    assert len(_files(path.parent)) == 3
    for name in _files(path.parent):
        assert (path.parent / name).read_bytes() == (undisturbed.parent / name).read_bytes()


def test_killed_again_and_again_it_ends_in_the_same_bytes(source, undisturbed, tmp_path):
    """Everything is killed, then one worker, then everything; three processes finish it."""
    path = tmp_path / "made-up" / "default-0.h5"
    rng, seen = np.random.default_rng(), []
    for _ in range(2):
        running = _start(source, path, 2)
        _wait_for_parts(path, running, len(seen) + int(rng.integers(1, 8)))
        if seen:
            os.kill(plan_files.workers_of(running.pid)[0], signal.SIGKILL)
            _wait_for_parts(path, running, len(seen) + 9)
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        seen = _parts(path)
        assert not path.exists()
        assert all(cache.read(part, "").meta["fingerprint"] for part in seen)
    assert len(seen) > 9
    before = {part.name: part.stat().st_mtime_ns for part in seen}
    kept: dict[str, int] = {}

    def look(stage, done, total):
        if not kept and stage.startswith("convert"):
            kept.update({p.name: p.stat().st_mtime_ns for p in seen if p.exists()})

    plan_files.carry_out(source, path, ITEMS, 3, progress=look)
    assert kept == before
    assert path.read_bytes() == undisturbed.read_bytes()
    assert _files(tmp_path) == {f"made-up/{name}" for name in _files(undisturbed.parent)}


def test_a_worker_killed_while_it_starts_is_replaced(source, undisturbed, tmp_path):
    path = tmp_path / "made-up" / "default-0.h5"
    running = _start(source, path, 2)
    while not (workers := plan_files.workers_of(running.pid)):
        assert running.poll() is None
        time.sleep(0.002)
    os.kill(workers[0], signal.SIGKILL)
    assert running.wait(timeout=120) == 0
    assert path.read_bytes() == undisturbed.read_bytes()


def _parts(path: Path) -> list[Path]:
    return sorted(exclusive.parts_folder(path).glob("[0-9]*.h5"))


def _wait_for_parts(path: Path, running: subprocess.Popen, count: int) -> None:
    while len(_parts(path)) < count and running.poll() is None:
        time.sleep(0.002)


def test_interrupted_while_merging_it_keeps_the_parts(source, undisturbed, tmp_path):
    path = tmp_path / "default-0.h5"

    def stop(stage, done, total):
        if stage == "merge" and done > 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan_files.carry_out(source, path, ITEMS, progress=stop)
    assert not path.exists()
    assert len(_parts(path)) == 30
    assert _files(tmp_path) == {f"default-0.h5.parts/{p.name}" for p in _parts(path)} | {
        f"default-0.h5.parts/{name}" for name in (exclusive.LOCK, exclusive.WORKERS)
    }
    stages = []
    plan_files.carry_out(source, path, ITEMS, progress=lambda *told: stages.append(told))
    assert not [told for told in stages if told[0].startswith("convert")]
    assert path.read_bytes() == undisturbed.read_bytes()


def test_progress_counts_items_and_states_the_rate(root, tmp_path):
    told = []
    plan_files.carry_out(root, tmp_path / "a.h5", 20, progress=lambda *step: told.append(step))
    convert = [step for step in told if step[0].startswith("convert")]
    assert [done for _, done, _ in convert] == sorted(done for _, done, _ in convert)
    assert convert[-1][1:] == (20, 20)
    assert all(stage.endswith("items/s") for stage, _, _ in convert)
    assert {stage.partition(",")[0] for stage, _, _ in told} == {"hash", "convert", "merge"}


def test_parts_are_of_the_plan_that_made_them(root, tmp_path):
    """Another plan, other packages or changed files begin anew; the result is that of now."""
    path = tmp_path / "a.h5"

    def stop(stage, done, total):
        if stage.startswith("convert") and done == 10:
            raise KeyboardInterrupt

    def converted() -> int:
        told: list[int] = []

        def note(stage, done, total):
            if stage.startswith("convert"):
                told.append(done)
            stop(stage, done, total)

        with pytest.raises(KeyboardInterrupt):
            plan_files.carry_out(root, path, 20, progress=note)
        return told[0]

    assert converted() == 0
    assert converted() == 10
    (root / plan_files.event_file(3)).write_bytes(bytes([1, 2, 0, 0, 5]))
    assert converted() == 8  # only the part of that file is made again
    sounds = root / plan_files.SOUNDS
    sounds.write_text(sounds.read_text().replace("1", "2"))
    assert converted() == 0  # all are made of it
    assert len(_parts(path)) == 5
    preparing.carry_out(
        plan_files.plan(20, notes=["new"]), root, path, {"numpy": "1"}, progress=None
    )
    found = cache.read(path, "")
    assert found.meta["notes"] == ["new"]
    assert found.visual.one(3)["x"].tolist() == [1]
    assert not exclusive.parts_folder(path).exists()
    assert shards.fingerprint(plan_files.plan(20), root, {"a": "1"}) != shards.fingerprint(
        plan_files.plan(20), root, {"a": "2"}
    )


def test_a_part_that_is_damaged_is_made_again(root, tmp_path):
    path, whole = tmp_path / "a" / "a.h5", tmp_path / "b" / "a.h5"
    (root / plan_files.event_file(15)).write_bytes(b"DAMAGED")
    with pytest.raises(FileFormatError):
        plan_files.carry_out(root, path, 20)
    assert len(_parts(path)) == 7
    damaged = bytearray(_parts(path)[4].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    _parts(path)[4].write_bytes(damaged)
    (root / plan_files.event_file(15)).write_bytes(b"")
    plan_files.carry_out(root, path, 20)
    plan_files.carry_out(root, whole, 20)
    assert path.read_bytes() == whole.read_bytes()


def test_two_at_once_wait_for_each_other(source, undisturbed, tmp_path):
    path = tmp_path / "made-up" / "default-0.h5"  # and one of them with two processes
    both = [_start(source, path, jobs) for jobs in (1, 2)]
    assert [running.wait() for running in both] == [0, 0]
    assert path.read_bytes() == undisturbed.read_bytes()
    assert _files(path.parent) == _files(undisturbed.parent)


def test_one_that_waited_takes_what_the_other_made(root, tmp_path):
    path = tmp_path / "a.h5"
    folder = exclusive.parts_folder(path)
    folder.mkdir()
    other = os.open(folder / exclusive.LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)

    plan_files.carry_out(root, tmp_path / "theirs.h5", 20)
    theirs = (tmp_path / "theirs.h5").read_bytes()

    def finished(stage, done, total):
        assert stage.startswith("wait, another process")
        path.write_bytes(theirs)
        ledger.manifest_path(path).write_bytes((tmp_path / "theirs.csv").read_bytes())
        os.close(other)

    preparing.carry_out(plan_files.plan(20), root, path, {}, progress=finished)
    assert path.read_bytes() == theirs
    assert not folder.exists()


@pytest.mark.parametrize("case", ["manifest", "lacking"])
def test_one_that_waited_keeps_its_own_options(root, tmp_path, case):
    """A manifest is held against what the other made; what only the other skips is made anew."""
    path = tmp_path / "a.h5"
    folder = exclusive.parts_folder(path)
    folder.mkdir()
    other = os.open(folder / exclusive.LOCK, os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    if case == "lacking":
        (root / plan_files.event_file(5)).write_bytes(b"DAMAGED")
    plan_files.carry_out(root, tmp_path / "theirs.h5", 20, skip_broken=True)
    manifest = tmp_path / "list.csv"
    stamps = {"sounds.csv": ledger.Stamp(3, "0" * 64)}
    files = ledger.sources(plan_files.plan(20).items)
    ledger.record(manifest, {f: ledger.stamp(root / f) for f in files} | stamps, False, root)

    def finished(stage, done, total):
        if stage.startswith("wait"):
            path.write_bytes((tmp_path / "theirs.h5").read_bytes())
            ledger.manifest_path(path).write_bytes((tmp_path / "theirs.csv").read_bytes())
            os.close(other)

    options = {"manifest": manifest} if case == "manifest" else {}
    said = "sounds.csv was changed" if case == "manifest" else "7 bytes, allowed are multiples of 5"
    with pytest.raises(NeuroavError, match=said):
        preparing.carry_out(plan_files.plan(20), root, path, {}, progress=finished, **options)


def test_a_manifest_may_list_more_than_the_set_is_made_of(root, tmp_path):
    manifest = tmp_path / "list.csv"
    files = ledger.sources(plan_files.plan(20).items)
    more = {"events/9999.bin": ledger.Stamp(3, "0" * 64)}
    ledger.record(manifest, {f: ledger.stamp(root / f) for f in files} | more, False, root)
    plan_files.carry_out(root, tmp_path / "a.h5", 20, manifest=manifest)
    assert (tmp_path / "a.h5").exists()


def test_a_damaged_ledger_is_named_with_what_to_do(root, tmp_path):
    path = tmp_path / "a.h5"
    plan_files.carry_out(root, path, 20)
    (place,) = tmp_path.glob("files-*.csv")
    place.write_bytes(b"")
    for accept in (False, True):
        with pytest.raises(DataError, match=rf"{place.name} .*; it is damaged: delete it"):
            plan_files.carry_out(root, path, 20, accept_changed=accept)
        assert not exclusive.parts_folder(path).exists()
    place.unlink()
    plan_files.carry_out(root, path, 20)
    assert ledger.read(place)


def test_what_a_kill_left_beside_a_finished_file_is_removed(root, tmp_path):
    path = tmp_path / "a.h5"
    folder = exclusive.parts_folder(path)
    plan_files.carry_out(root, path, 20)
    folder.mkdir()
    for name in ("lock", "done", "00001.h5"):
        (folder / name).touch()
    preparing.tidy(path)
    assert not folder.exists()
    folder.mkdir()
    (folder / "00001.h5").touch()  # of one that was not finished
    preparing.tidy(path)
    assert _files(folder) == {"00001.h5"}


# --- items that cannot be converted ------------------------------------------------------------
def test_items_known_to_be_broken_are_skipped_and_listed(root, tmp_path):
    for number in (0, 7, 19):
        (root / plan_files.event_file(number)).write_bytes(b"BROKEN")
    path = tmp_path / "a.h5"
    found = plan_files.carry_out(root, path, 20)
    said = "events/0007.bin is listed as broken by its publishers"
    assert found.meta["skipped"].keys() == {"item-0", "item-7", "item-19"}
    assert found.meta["skipped"]["item-7"] == said  # and not where the data root lies
    assert len(found.labels) == len(found.visual) == 17
    assert b"item-7" not in found.source["name"].tolist()
    rows = list(csv.DictReader(ledger.manifest_path(path).read_text().splitlines()))
    assert [row["item"] for row in rows if row["skipped"]] == ["item-0", "item-7", "item-19"]
    assert rows[7]["visual_sha256"] == hashlib.sha256(b"BROKEN").hexdigest()


def test_all_items_broken_is_an_error(root, tmp_path):
    for number in range(20):
        (root / plan_files.event_file(number)).write_bytes(b"BROKEN")
    with pytest.raises(DataError, match=r"nothing is left of 20 items: item-0 .*broken"):
        plan_files.carry_out(root, tmp_path / "a.h5", 20)
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_damaged_file_ends_it_and_mended_it_goes_on(root, tmp_path, jobs):
    path, victim = tmp_path / "a.h5", root / plan_files.event_file(17)
    whole = victim.read_bytes()
    victim.write_bytes(b"DAMAGED")
    with pytest.raises(FileFormatError, match=rf"{victim}: 7 bytes, allowed are multiples of 5"):
        plan_files.carry_out(root, path, 20, jobs)
    kept = 2 * len(_parts(path))
    assert kept >= 12
    assert not path.exists()
    victim.write_bytes(whole)
    told = []
    plan_files.carry_out(root, path, 20, jobs, progress=lambda *step: told.append(step))
    assert next(done for stage, done, _ in told if stage.startswith("convert")) == kept
    assert len(cache.read(path, "").labels) == 20


def test_skip_broken_skips_it_and_lists_it_and_parts_remember(root, tmp_path):
    path = tmp_path / "a.h5"
    (root / plan_files.event_file(5)).write_bytes(b"DAMAGED")
    (root / plan_files.event_file(6)).unlink()

    def stop(stage, done, total):
        if stage == "merge":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan_files.carry_out(root, path, 20, skip_broken=True, progress=stop)
    assert len(_parts(path)) == 10
    with pytest.raises(FileFormatError, match="allowed are multiples"):  # not without the option
        plan_files.carry_out(root, path, 20)
    found = plan_files.carry_out(root, path, 20, skip_broken=True)
    assert found.meta["skipped"] == {
        "item-5": "events/0005.bin: 7 bytes, allowed are multiples of 5",
        "item-6": "recording events/0006.bin is missing",
    }
    assert len(found.labels) == 18
    assert found.meta["forced"] == ["item-5", "item-6"]


def test_a_broken_file_is_no_truth_to_hold_the_mended_one_against(root, tmp_path):
    path, victim = tmp_path / "a.h5", root / plan_files.event_file(5)
    whole = victim.read_bytes()
    victim.write_bytes(b"DAMAGED")
    plan_files.carry_out(root, path, 20, skip_broken=True)
    (place,) = tmp_path.glob("files-*.csv")
    assert set(ledger.read(place)) == set(ledger.sources(plan_files.plan(20).items)) - {
        plan_files.event_file(5)
    }
    victim.write_bytes(whole)
    found = plan_files.carry_out(root, path, 20)
    assert len(found.labels) == 20
    assert "forced" not in found.meta
    assert plan_files.event_file(5) in ledger.read(place)


def test_lists_of_items_are_held_against_the_ledger_too(root, tmp_path):
    path, split = tmp_path / "a.h5", root / "split.csv"
    split.write_text("a")

    def carry_out(**options):
        stated = {"split.csv": list(ledger.stamp(split))}
        plan = plan_files.plan(20, lists=stated)
        preparing.carry_out(plan, root, path, {}, **options)

    carry_out()
    (place,) = tmp_path.glob("files-*.csv")
    assert ledger.read(place)["split.csv"] == ledger.stamp(split)
    found = checking.check(path, "", root, shipped=None, manifest=None, planned=True)
    assert (found["problems"], found["sources"]) == ([], 22)
    split.write_text("b")
    found = checking.check(path, "", root, shipped=None, manifest=None, planned=True)
    assert len(found["problems"]) == 1
    assert "split.csv was changed" in found["problems"][0]
    with pytest.raises(DataError, match=r"split\.csv was changed"):
        carry_out()
    carry_out(accept_changed=True)
    assert ledger.read(place)["split.csv"] == ledger.stamp(split)


class _Unreadable(OSError):
    pass


def _odd(root: Path, item: Item) -> Converted:
    """Converters that do not do as they should."""
    made = plan_files.convert(root, item)
    number = int(item.name.partition("-")[2])
    way = ODD["way"] if number == 5 else None
    if way == "names no file":
        raise DataError("something is wrong")
    if way == "unreadable":
        raise _Unreadable(5, "Input/output error")
    if way == "no package":
        raise MissingDependency("pip install it")
    if way == "memory":
        raise MemoryError
    changed = {
        "unequal": {"visual": {**made.visual, "x": made.visual["x"][:-1]}},
        "type": {"visual": {**made.visual, "time": made.visual["time"].astype(np.int64)}},
        "objects": {"source": {"size": np.array({})}},
        "shape": {"source": {**made.source, "size": np.zeros((1, 2), int)}},
        "absent": {"audio": None},
    }
    return replace(made, **changed.get(way, {}))


ODD = {"way": ""}


@pytest.mark.parametrize(
    ("way", "kind", "said"),
    [
        ("names no file", DataError, r"sounds\.csv, events/0005\.bin: something is wrong"),
        ("unreadable", DataError, r"events/0005\.bin: \[Errno 5\] Input/output error"),
        ("no package", MissingDependency, "pip install it"),
        ("memory", ExecutorError, r"events/0005\.bin.*item 'item-5'; use fewer --jobs"),
        ("unequal", DataError, r"events/0005\.bin: its visual columns are none, or of unequal"),
        ("type", DataError, r"'item-5': visual/time holds int64 .*before it uint32"),
        ("objects", DataError, r"events/0005\.bin: its source/size is of object"),
        ("shape", DataError, r"'item-5': source/size holds int64 \(1, 2\), of the items before"),
        ("absent", DataError, r"'item-5': audio/channel, audio/time is there for some items"),
    ],
)
def test_what_a_converter_may_not_do_names_item_or_file(
    root, tmp_path, monkeypatch, way, kind, said
):
    monkeypatch.setitem(ODD, "way", way)
    plan = replace(plan_files.plan(20), convert=_odd)
    with pytest.raises(kind, match=said):
        preparing.carry_out(plan, root, tmp_path / "a.h5", {})
    assert not (tmp_path / "a.h5").exists()


def test_a_process_that_dies_is_replaced_and_its_items_begun_again(root, tmp_path):
    (root / plan_files.event_file(4)).write_bytes(b"KILL 2")
    told = []
    found = plan_files.carry_out(
        root, tmp_path / "a.h5", 20, 2, progress=lambda *step: told.append(step)
    )
    assert len(found.labels) == 20
    assert any("2 processes died and were replaced" in stage for stage, _, _ in told)


def test_an_item_at_which_processes_die_again_and_again_is_named(root, tmp_path):
    (root / plan_files.event_file(4)).write_bytes(b"KILL 99")
    with pytest.raises(ExecutorError, match=r"item 'item-4'.*signal 9, .* 3 times; .*memory"):
        plan_files.carry_out(root, tmp_path / "a.h5", 20, 2)
    assert not (tmp_path / "a.h5").exists()
    assert _parts(tmp_path / "a.h5")


# --- the ledger --------------------------------------------------------------------------------
def test_ledger_and_manifest_list_every_file_once_with_its_hash(source, undisturbed):
    book = ledger.ledger_path(undisturbed, plan_files.plan(ITEMS), source)
    assert book in undisturbed.parent.iterdir()
    stamps = ledger.read(book)
    assert len(stamps) == ITEMS + 1
    for file, stamp in stamps.items():
        content = (source / file).read_bytes()
        assert stamp == (len(content), hashlib.sha256(content).hexdigest())
    place = ledger.manifest_path(undisturbed)
    rows = list(csv.DictReader(place.read_text().splitlines()))
    assert len(rows) == ITEMS
    assert rows[6] == {
        "item": "item-6", "label": "6", "split": "val", "skipped": "",
        "group_speaker": "speaker-2", "audio": "sounds.csv", "audio_key": "6",
        "audio_sha256": stamps["sounds.csv"].sha256, "visual": "events/0006.bin",
        "visual_key": "", "visual_sha256": stamps["events/0006.bin"].sha256,
    }  # fmt: skip
    with h5py.File(undisturbed) as file:
        assert file.attrs["manifest"] == hashlib.sha256(place.read_bytes()).hexdigest()
    assert ledger.read(place).keys() == stamps.keys()


@pytest.mark.parametrize("file", [plan_files.SOUNDS, plan_files.event_file(9)])
def test_a_changed_cut_or_missing_file_is_named_with_what_was_found(root, tmp_path, file):
    first, other = tmp_path / "default-0.h5", tmp_path / "hard-1.h5"  # another preset, same ledger
    plan_files.carry_out(root, first, 20)
    victim = root / file
    whole = victim.read_bytes()
    was = f"expected {len(whole)} bytes with sha256 {hashlib.sha256(whole).hexdigest()}"
    changed = bytes([whole[0] ^ 1]) + whole[1:]
    for content, said in (
        (changed, f"changed.*found .*{hashlib.sha256(changed).hexdigest()}, {was}"),
        (whole[:-5], f"was cut: found {len(whole) - 5} bytes, {was}"),
    ):
        victim.write_bytes(content)
        for jobs, skip_broken in ((1, True), (2, False)):  # a changed file is no broken item
            with pytest.raises(DataError, match=rf"{victim} .*{said}.*files-.*--accept-changed"):
                plan_files.carry_out(root, other, 20, jobs, skip_broken=skip_broken)
    victim.unlink()
    with pytest.raises(DataError, match=rf"{victim} is missing: {was}"):
        plan_files.carry_out(root, other, 20)
    victim.write_bytes(whole)
    plan_files.carry_out(root, other, 20)


def test_a_changed_file_can_be_accepted_and_the_ledger_follows(root, tmp_path):
    path, file = tmp_path / "default-0.h5", plan_files.event_file(9)
    plan_files.carry_out(root, path, 20)
    before = cache.read(path, "").content_hash
    book = ledger.ledger_path(path, plan_files.plan(20), root)
    written = book.stat().st_mtime_ns
    plan_files.carry_out(root, path, 20)
    assert book.stat().st_mtime_ns == written  # written once
    (root / file).write_bytes(bytes([3, 3, 0, 0, 3]))
    plan_files.carry_out(root, path, 20, accept_changed=True)
    assert cache.read(path, "").content_hash != before
    assert ledger.read(book)[file].size == 5
    plan_files.carry_out(root, path, 20)
    # a file that no preset is made of any more
    book.write_text(book.read_text() + f"gone.bin,3,{'0' * 64}\n")
    with pytest.raises(DataError, match=r"gone\.bin is missing"):
        plan_files.carry_out(root, path, 20)
    plan_files.carry_out(root, path, 20, accept_changed=True)
    assert "gone.bin" not in ledger.read(book)


def test_a_copy_elsewhere_is_held_against_the_same_ledger(root, tmp_path):
    copy = plan_files.write(tmp_path / "copy", 20)
    plan_files.carry_out(root, tmp_path / "a.h5", 20)
    plan_files.carry_out(copy, tmp_path / "b.h5", 20)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    (copy / plan_files.event_file(2)).write_bytes(bytes(5))
    with pytest.raises(DataError, match=r"copy/events/0002\.bin was c"):
        plan_files.carry_out(copy, tmp_path / "b.h5", 20)
    # but where files are anybody's, every data root has its own
    path, folders = tmp_path / "own" / "c.h5", plan_files.plan(20, collection="root")
    for place in (root, copy):
        preparing.carry_out(folders, place, path, {})
    books = {ledger.ledger_path(path, folders, place) for place in (root, copy)}
    assert len(books) == 2
    assert all(book.exists() for book in books)


def test_a_published_manifest_is_checked_and_must_list_every_file(root, tmp_path):
    path = tmp_path / "theirs" / "default-0.h5"
    plan_files.carry_out(root, path, 20)
    ours = tmp_path / "ours" / "default-0.h5"
    for theirs in (ledger.ledger_path(path, plan_files.plan(20), root), ledger.manifest_path(path)):
        plan_files.carry_out(root, ours, 20, manifest=theirs)
    (root / plan_files.event_file(2)).write_bytes(bytes(5))
    for theirs in (ledger.ledger_path(path, plan_files.plan(20), root), ledger.manifest_path(path)):
        with pytest.raises(DataError, match=r"0002\.bin was .*\(manifest .*; copy it again"):
            plan_files.carry_out(root, ours, 20, manifest=theirs, accept_changed=True)
    short = tmp_path / "short.csv"
    short.write_text(f"file,bytes,sha256\n{plan_files.SOUNDS},1,{'0' * 64}\n")
    with pytest.raises(DataError, match=r"short\.csv does not list events/0000\.bin and 19 other"):
        plan_files.carry_out(root, ours, 20, manifest=short)


@pytest.mark.parametrize(
    "content",
    [
        "", "a,b\n1,2\n", "file,bytes,sha256\nx,1,zz\n", f"file,bytes,sha256\nx,one,{'0' * 64}\n",
        f"file,bytes,sha256\n../x,1,{'0' * 64}\n", f"file,bytes,sha256\n/x,1,{'0' * 64}\n",
        "file,bytes,sha256\nx\n", f'file,bytes,sha256\n"x,1,{"0" * 64}\n', "\0",
        f"file,bytes,sha256\nx,1,{'0' * 64}\nx,2,{'0' * 64}\n",
    ],
)  # fmt: skip
def test_what_is_no_list_of_files_is_refused(tmp_path, content):
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(DataError, match=r"list\.csv"):
        ledger.read(tmp_path / "list.csv")
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"list\.csv"):
        ledger.read(tmp_path / "list.csv")


# --- folders and disks -------------------------------------------------------------------------
def test_a_folder_that_cannot_be_written_is_reported(root, tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(exclusive.os, "open", refuse)  # as root, modes forbid nothing
    with pytest.raises(DataError, match=r"cannot write the data cache .*a\.h5: .*Permission"):
        preparing.carry_out(plan_files.plan(20), root, tmp_path / "a.h5", {})
    monkeypatch.undo()
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot write the data cache .*file/a\.h5"):
        preparing.carry_out(plan_files.plan(20), root, tmp_path / "file" / "a.h5", {})


def test_a_file_system_without_locks_is_reported(root, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(exclusive.fcntl, "flock", refuse)
    with pytest.raises(DataError, match=r"its file system has no locks; choose .*--cache-dir"):
        preparing.carry_out(plan_files.plan(20), root, tmp_path / "a.h5", {})


@pytest.mark.parametrize("full_at", ["a part", "the whole"])
def test_a_full_disk_is_one_error_and_leaves_no_half_file(root, tmp_path, full_at):
    """A limit on file sizes: writing fails where it is met, as it does on a full disk."""
    path = tmp_path / "a.h5"
    whole = tmp_path / "whole" / "a.h5"
    sizes: list[int] = []

    def look(stage, done, total):
        sizes.extend(part.stat().st_size for part in _parts(whole))

    plan_files.carry_out(root, whole, 20, progress=look)
    assert 2000 < max(sizes) + 100 < whole.stat().st_size
    limit = max(sizes) + 100 if full_at == "the whole" else 1500
    script = (
        "import resource, sys; from pathlib import Path; import plan_files\n"
        "from neuroav.errors import DataError\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "try:\n    plan_files.carry_out(Path(sys.argv[1]), Path(sys.argv[2]), 20)\n"
        "except DataError as error:\n    print(error)\n"
    )
    support = str(Path(plan_files.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", script, str(root), str(path)], capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, support])},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("cannot write ")
    assert done.stdout.count("\n") == 1
    assert not path.exists()
    assert len(_parts(path)) == (10 if full_at == "the whole" else 0)
    plan_files.carry_out(root, path, 20)
    assert path.read_bytes() == whole.read_bytes()


# --- memory ------------------------------------------------------------------------------------
def test_what_is_read_is_mapped_and_cannot_be_written(undisturbed):
    found = cache.read(undisturbed, "")
    with h5py.File(undisturbed) as file:
        names = [name for name in found.datasets() if name != "meta"]
        assert len(names) > 10
        for name in names:
            assert file[name].chunks is None
            np.testing.assert_array_equal(found.datasets()[name], file[name][()])
    for array in (*found.audio.columns.values(), *found.visual.columns.values(), found.labels):
        assert isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[:1] = 0
        assert array.ctypes.data % array.dtype.itemsize == 0


def test_the_content_hash_is_known_after_reading_and_is_that_of_the_arrays(
    undisturbed, monkeypatch
):
    found = cache.read(undisturbed, "")
    again = replace(found)  # without what is known
    assert again.content_hash == found.content_hash
    assert replace(found, labels=found.labels + 1).content_hash != found.content_hash
    monkeypatch.setattr(cache, "_digest", lambda *_: pytest.fail("read again"))
    assert found.content_hash == again.content_hash


def test_taking_recordings_from_a_large_file_reads_only_those(tmp_path):
    """A column of 4 GB, almost all of it a hole in the file."""
    path, events = tmp_path / "column", 1 << 30
    with open(path, "wb") as file:
        file.truncate(4 * events)
        file.seek(4 * (events - 3))
        file.write(np.array([7, 8, 9], np.uint32).tobytes())
    column = np.memmap(path, np.uint32, "r")
    ragged = Ragged({"time": column}, np.array([0, 5, events - 3, events]))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = ragged.take(np.array([2, 0, 2]))
    assert taken["time"].tolist() == [7, 8, 9, 0, 0, 0, 0, 0, 7, 8, 9]
    assert ragged.one(2)["time"].tolist() == [7, 8, 9]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


def test_a_file_whose_offsets_do_not_fit_is_refused(tmp_path):
    events = Ragged({"time": np.arange(4, dtype=np.uint32)}, np.array([0, 9]))
    made = cache.Recordings(events, None, np.zeros(1, int), np.zeros(1, np.uint8), {})
    for offsets in ([0, 9], [0, 4, 2, 4], [1, 4]):
        wrong = replace(made, audio=Ragged(events.columns, np.array(offsets)))
        cache.save(tmp_path / "a.h5", wrong, {})
        with pytest.raises(DataError, match=r"audio/offsets do not fit"):
            cache.read(tmp_path / "a.h5", "")
    right = replace(made, audio=Ragged(events.columns, np.array([0, 1, 4])))
    cache.save(tmp_path / "a.h5", right, {})
    with pytest.raises(DataError, match=r"audio is of 2 recordings, labels of 1"):
        cache.read(tmp_path / "a.h5", "")


def test_a_compressed_or_odd_dataset_is_refused(tmp_path):
    for extra, said in (
        ({"data": np.arange(9), "compression": "gzip"}, "does not lie in one piece"),
        ({"data": ["text"], "dtype": h5py.string_dtype()}, "allowed are numbers"),
    ):
        path = tmp_path / "a.h5"
        made = cache.Recordings(None, None, np.zeros(1, int), np.zeros(1, np.uint8), {})
        cache.save(path, made, {})
        with h5py.File(path, "r+") as file:
            file.create_dataset("source/odd", **extra)
        cache.seal(path)
        with pytest.raises(DataError, match=said):
            cache.read(path, "")


def test_shards_depend_on_the_number_of_items_alone(tmp_path):
    def sizes(items):
        made = [Item(str(n), 0, "train", {"audio": Source("f")}) for n in range(items)]
        job = shards.Job(
            Plan(tuple(made), {}, plan_files.convert), tmp_path, tmp_path, "", {}, (), False
        )
        return Counter(len(job.items(shard)) for shard in job.shards)

    assert sizes(20) == {2: 10}
    assert sizes(301) == {4: 75, 1: 1}
    assert sizes(10_000) == {64: 156, 16: 1}
