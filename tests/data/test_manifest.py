"""The frozen manifest: splits that share nothing, pairs of one digit, and how it is made."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from neuroav.data import manifest as mf
from neuroav.data._make_manifest import find_sounds, make
from neuroav.data.nmnistfsdd import MANIFEST, SPEAKERS
from neuroav.errors import DataError

FROZEN = "e8b82fb3fe0b85af982a6a08450df62359c67cae7494e7d47cf3e9737a9ac1cc"
SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def shipped():
    return mf.read(MANIFEST)


def test_the_shipped_manifest_is_the_frozen_one(shipped):
    """Another one makes all earlier results incomparable: change this only on purpose."""
    assert shipped.sha256 == FROZEN


def test_pictures_are_split_500_100_150_and_sounds_by_their_index(shipped):
    assert Counter(picture.split for picture in shipped.pictures) == {
        **{"train": 500, "val": 100, "test": 150}
    }
    assert Counter(sound.speaker for sound in shipped.sounds) == dict.fromkeys(SPEAKERS, 500)
    for sound in shipped.sounds:
        digit, speaker, index = sound.number.split("_")
        assert (int(digit), speaker) == (sound.label, sound.speaker)
        assert sound.split == ("val" if int(index) < 5 else "train")
    for picture in shipped.pictures:
        assert picture.file == f"nmnist/Train/{picture.label}/{picture.number}.bin"


def test_every_recording_is_listed_once_with_size_and_hash(shipped):
    entries = shipped.pictures + shipped.sounds
    assert len(entries) == 2750
    assert len({entry.file for entry in entries}) == 2750
    assert len({entry.sha256 for entry in entries}) == 2750  # no recording under two names
    assert all(re.fullmatch("[0-9a-f]{64}", entry.sha256) for entry in entries)
    assert all(entry.size > 1000 for entry in entries)


@pytest.mark.parametrize("held_out", SPEAKERS)
def test_in_every_fold_splits_share_neither_speaker_nor_recording(shipped, held_out):
    pairs = mf.pairs(shipped, held_out)
    assert Counter(pair.split for pair in pairs) == {"train": 1350, "val": 150, "test": 500}
    for pair in pairs:
        assert pair.picture.label == pair.sound.label
        assert pair.picture.split == pair.split
        assert (pair.sound.speaker == held_out) == (pair.split == "test")
    used = {s: {p.picture.file for p in pairs if p.split == s} for s in SPLITS}
    assert [len(used[split]) for split in SPLITS] == [500, 100, 150]


@pytest.mark.parametrize("held_out", SPEAKERS)
def test_pictures_of_a_digit_are_used_in_turn(shipped, held_out):
    pairs = mf.pairs(shipped, held_out)
    for split in SPLITS:
        for digit in range(10):
            mine = [p for p in pairs if (p.split, p.sound.label) == (split, digit)]
            times = Counter(pair.picture.number for pair in mine).values()
            assert max(times) - min(times) <= 1


@pytest.mark.parametrize("held_out", SPEAKERS)
def test_every_split_begins_with_all_digits(shipped, held_out):
    pairs = mf.pairs(shipped, held_out)
    for split in SPLITS:
        labels = [pair.sound.label for pair in pairs if pair.split == split]
        assert set(Counter(labels[:30]).values()) == {3}
    pictures = [p.label for p in shipped.pictures if p.split == "test"]
    assert max(Counter(pictures).values()) - min(Counter(pictures).values()) <= 6


def test_what_is_written_is_read_back(shipped, tmp_path):
    entries = [*shipped.pictures[:3], *shipped.sounds[:3]]
    mf.write(tmp_path / "some.csv", entries, shipped.speakers)
    again = mf.read(tmp_path / "some.csv")
    assert [*again.pictures, *again.sounds] == entries
    assert again.speakers == ("george", "jackson", "theo")[: len(again.speakers)]


@pytest.mark.parametrize(
    "content",
    ["", "file,size\n", "file,bytes,sha256,label,split,speaker\na,b,c,d,e,f\n", "\xff"],
)
def test_what_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / "bad.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"manifest .*bad\.csv cannot be read"):
        mf.read(tmp_path / "bad.csv")
    with pytest.raises(DataError, match=r"absent\.csv cannot be read"):
        mf.read(tmp_path / "absent.csv")


def test_made_up_recordings_are_split_in_the_same_shares(made_up, tmp_path):
    for name in ("one.csv", "two.csv"):
        make(made_up, tmp_path / name)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    found = mf.read(tmp_path / "one.csv")
    assert Counter(p.split for p in found.pictures) == {"train": 67, "val": 13, "test": 20}
    pairs = mf.pairs(found, "theo")
    assert Counter(pair.split for pair in pairs) == {"train": 60, "val": 30, "test": 30}
    for entry in (found.pictures[0], found.sounds[-1]):
        assert mf.verified(made_up, entry) == made_up / entry.file


def test_a_sound_of_another_name_is_refused(tmp_path):
    (tmp_path / "fsdd/recordings").mkdir(parents=True)
    (tmp_path / "fsdd/recordings/seven.wav").touch()
    with pytest.raises(DataError, match=r"seven\.wav.*<digit>_<speaker>_<index>"):
        find_sounds(tmp_path)


def test_cut_altered_and_missing_recordings_are_one_clear_error(made_up, tmp_path):
    make(made_up, tmp_path / "manifest.csv")
    entry = mf.read(tmp_path / "manifest.csv").pictures[0]
    content = (made_up / entry.file).read_bytes()
    copy = tmp_path / entry.file
    expected = rf"expected 1000 bytes with sha256 {entry.sha256}"
    with pytest.raises(DataError, match=rf"{copy} is missing: {expected}"):
        mf.verified(tmp_path, entry)
    copy.parent.mkdir(parents=True)
    for found in (content[:-5], content[:-1] + b"\x07", b""):
        copy.write_bytes(found)
        with pytest.raises(DataError, match=rf"{copy} .*found {len(found)} bytes.*{expected}"):
            mf.verified(tmp_path, entry)
    with pytest.raises(DataError, match="cannot be read"):
        mf.verified(tmp_path, replace(entry, file="nmnist/Train"))
    copy.write_bytes(content)
    assert mf.verified(tmp_path, entry) == copy


def test_the_recordings_give_the_shipped_manifest(recordings, tmp_path):
    make(recordings, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == MANIFEST.read_bytes()
