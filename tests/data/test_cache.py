"""The cache file: whole or absent, and never trusted when damaged."""

import os
import shutil

import h5py
import numpy as np
import pytest
import samples

from neuroav import data
from neuroav.data import avdigits, cache
from neuroav.data.ragged import Ragged
from neuroav.errors import DataError


def _tiny() -> cache.Recordings:
    time = np.array([1, 5, 9], np.uint32)
    offsets = np.array([0, 1, 3])
    audio = Ragged({"channel": np.array([0, 63, 7], np.uint8), "time": time}, offsets)
    pixel = np.array([0, 1, 33], np.uint8)
    visual = Ragged({"x": pixel, "y": pixel, "p": pixel % 2, "time": time}, offsets)
    return cache.Recordings(
        audio, visual, np.array([3, 4]), np.array([0, 2], np.uint8), {"name": "tiny"}
    )


def test_a_saved_file_reads_back_equal_with_its_hash(tmp_path):
    path, tiny = tmp_path / "tiny.h5", _tiny()
    cache.save(path, tiny, {"numpy": "1"})
    back = cache.read(path, "remedy")
    assert back.content_hash == tiny.content_hash
    assert back.meta == {"name": "tiny"}
    np.testing.assert_array_equal(back.audio["channel"], [0, 63, 7])
    np.testing.assert_array_equal(back.visual.offsets, [0, 1, 3])
    with h5py.File(path) as file:
        assert file.attrs["content_hash"] == tiny.content_hash


@pytest.mark.parametrize("path", ["audio/time", "visual/x", "labels", "split", "meta"])
def test_every_dataset_counts_in_the_hash(tmp_path, path):
    file_path = tmp_path / "tiny.h5"
    cache.save(file_path, _tiny(), {})
    with samples.edited_hdf5(file_path) as file:
        file[path][0] = file[path][0] ^ 1
    with pytest.raises(DataError, match=r"tiny\.h5.*does not match its hash; do this"):
        cache.read(file_path, "do this")


def test_flipped_bytes_never_give_other_data(prepared, tmp_path):
    whole = prepared.read_bytes()
    truth = cache.read(prepared, "").content_hash
    rng = np.random.default_rng(0)
    path = tmp_path / "flipped.h5"
    said = []
    for place in rng.integers(0, len(whole), 60):
        damaged = bytearray(whole)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            back = cache.read(path, "delete it")
        except DataError as err:
            said.append(str(err))
        else:  # the byte filled up the seal
            assert back.content_hash == truth
    assert len(said) == 60
    assert all("flipped.h5" in text and text.endswith("delete it") for text in said)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_cut_file_is_refused(prepared, tmp_path, share):
    path = tmp_path / "cut.h5"
    whole = prepared.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=r"cut\.h5.*delete it"):
        cache.read(path, "delete it")


@pytest.mark.parametrize(
    ("attribute", "value", "reason"),
    [("version", 4, "version 4; this program reads 3"), ("format", "other", "not a neuroav-")],
)
def test_another_version_or_format_is_refused(tmp_path, attribute, value, reason):
    path = tmp_path / "tiny.h5"
    cache.save(path, _tiny(), {})
    with samples.edited_hdf5(path) as file:
        file.attrs[attribute] = value
    with pytest.raises(DataError, match=reason):
        cache.read(path, "")


def test_a_missing_part_is_refused(tmp_path):
    path = tmp_path / "tiny.h5"
    cache.save(path, _tiny(), {})
    with samples.edited_hdf5(path) as file:
        del file["visual/offsets"]
    with pytest.raises(DataError, match=r"tiny\.h5"):
        cache.read(path, "")


def test_load_and_prepare_report_damage_and_force_mends_it(prepared, tmp_path):
    folder = tmp_path / "av-digits"
    folder.mkdir()
    copy = folder / prepared.name
    shutil.copy(prepared, copy)
    with open(copy, "r+b") as file:
        file.truncate(copy.stat().st_size // 2)
    before = copy.read_bytes()
    remedy = f"neuroav data prepare av-digits --cache-dir {tmp_path} --force"
    for call in (data.load, data.prepare):
        with pytest.raises(DataError, match=remedy):
            call("av-digits", cache_dir=tmp_path, limit=200)
    assert copy.read_bytes() == before
    data.prepare("av-digits", cache_dir=tmp_path, limit=200, force=True)
    assert cache.read(copy, "").content_hash == cache.read(prepared, "").content_hash


def test_interrupted_while_writing_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "tiny.h5"
    cache.save(path, _tiny(), {})
    before = path.read_bytes()

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        cache.save(path, _tiny(), {"numpy": "2"})
    assert os.listdir(tmp_path) == ["tiny.h5"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("stage", ["audio", "visual", "write"])
def test_interrupted_preparation_leaves_nothing(tmp_path, stage):
    def progress(now, done, total):
        if now == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        data.prepare("av-digits", cache_dir=tmp_path, limit=40, progress=progress)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_folder_that_cannot_be_made_is_reported_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(avdigits, "generate", lambda *_: pytest.fail("work was begun"))
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cache folder"):
        data.prepare("av-digits", cache_dir=tmp_path / "file", limit=40)
