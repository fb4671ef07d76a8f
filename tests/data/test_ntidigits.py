"""N-TIDIGITS18 as published: ids, mappings of digits to classes, and every way a file can lie."""

import hashlib

import h5py
import numpy as np
import pytest
from samples import ROOT, load_script

from neuroav.data.formats import ntidigits as nt
from neuroav.errors import ConfigError, DataError, FileFormatError

fuzz = load_script(ROOT / "benchmarks" / "container_fuzz.py")
TRAIN = ("man-ae-a-1", "woman-ac-b-z", "man-ae-b-12z", "woman-ac-a-o")


@pytest.fixture
def path(tmp_path):
    """A file of four and two utterances."""
    made = tmp_path / "n-tidigits.hdf5"
    fuzz.write_ntidigits(made)
    return made


@pytest.fixture
def edited(path):
    """The file with one thing in it replaced: (name, value); a value of None removes it."""

    def edit(name, value):
        with h5py.File(path, "r+") as file:
            if name in file:
                del file[name]
            if value is not None:
                file[name] = value
        return path

    return edit


# --- ids ---------------------------------------------------------------------------------------
def test_ids():
    found = nt.parse_id("woman-ac-b-12z")
    assert found == nt.Utterance("woman", "ac", "b", "12z")
    assert found.id == "woman-ac-b-12z"


@pytest.mark.parametrize(
    "text",
    ["", "man-ae-a", "man-ae-a-", "boy-ae-a-1", "man-ae-c-1", "man-ae-a-0", "man--a-1",
     "man-ae-a-1x", "man-ae-a-1-2", "man-ae-a-1\n", "man-a/e-a-1", "MAN-ae-a-1"],
)  # fmt: skip
def test_what_is_no_id(text):
    with pytest.raises(DataError, match="gender-speaker-take-digits"):
        nt.parse_id(text)


# --- classes -----------------------------------------------------------------------------------
def labels(mapping):
    return [nt.parse_id(f"man-ae-a-{d}").label(mapping) for d in "oz19"]


def test_the_mappings_differ_as_published():
    assert labels("tonic") == [0, 10, 1, 9]
    assert labels("scmrl") == [None, 0, 1, 9]
    assert labels("o-is-10") == [10, 0, 1, 9]
    assert nt.class_names("tonic") == ("o", *"123456789", "z")
    assert nt.class_names("scmrl") == ("z", *"123456789")
    assert nt.class_names("o-is-10") == ("z", *"123456789", "o")


def test_tonic_says_the_same():
    tonic = pytest.importorskip("tonic.datasets")
    assert dict(nt.MAPPINGS["tonic"]) == tonic.NTIDIGITS18.class_map
    assert tonic.NTIDIGITS18.file_md5 == nt.PUBLISHED_MD5


def test_sequences_of_digits():
    several, with_o = nt.parse_id("man-ae-a-12z"), nt.parse_id("man-ae-a-1o")
    assert several.labels("tonic") == (1, 2, 10)
    assert several.labels("scmrl") == (1, 2, 0)
    assert with_o.labels("o-is-10") == (1, 10)
    assert with_o.labels("scmrl") is None
    with pytest.raises(DataError, match="3 digits"):
        several.label("tonic")


def test_no_mapping_is_taken_for_granted():
    with pytest.raises(ConfigError, match=r"'toni'.*did you mean 'tonic'"):
        nt.parse_id("man-ae-a-1").label("toni")


# --- honest files ------------------------------------------------------------------------------
def test_listing(path):
    found = nt.read_listing(path)
    assert found.ids == {"train": TRAIN, "test": ("man-zz-a-9", "woman-yy-b-z")}
    assert found.unlisted == {"train": (), "test": ()}
    assert found.single_digits("train") == ("man-ae-a-1", "woman-ac-b-z", "woman-ac-a-o")


def test_writing_and_reading(tmp_path):
    made, channel = tmp_path / "sub" / "a.hdf5", np.array([0, 63, 5, 5])
    time = np.array([0.0, 0.0000014, 0.5, 0.5])
    nt.write_ntidigits(made, [("man-ae-a-1", channel, time)], [])
    found = nt.read_utterance(made, "train", "man-ae-a-1")
    assert [c.dtype for c in found] == [np.uint8, np.int64]
    assert found[0].tolist() == [0, 63, 5, 5]
    assert found[1].tolist() == [0, 1, 500_000, 500_000]
    assert nt.read_listing(made).ids == {"train": ("man-ae-a-1",), "test": ()}


def test_tonic_reads_what_we_write_and_we_agree(tmp_path):
    tonic = pytest.importorskip("tonic.datasets")
    path = tmp_path / "NTIDIGITS18" / "n-tidigits.hdf5"
    path.parent.mkdir()
    fuzz.write_ntidigits(path)
    theirs = tonic.NTIDIGITS18(str(tmp_path), train=True, single_digits=True)
    ids = nt.read_listing(path).single_digits("train")
    assert len(theirs) == len(ids) == 3
    for (events, label), name in zip(theirs, ids, strict=True):
        channel, time = nt.read_utterance(path, "train", name)
        assert np.array_equal(events["x"], channel)
        assert np.abs(events["t"] - time).max() <= 1  # tonic cuts to whole microseconds
        assert label == nt.parse_id(name).label("tonic")


def test_several_utterances_and_empty_ones(tmp_path):
    made, none = tmp_path / "a.hdf5", np.zeros(0, np.int64)
    nt.write_ntidigits(
        made, [("man-ae-a-1", none, none), ("man-ae-a-2", np.ones(1, int), np.ones(1))], []
    )
    found = nt.read_utterances(made, "train", ("man-ae-a-2", "man-ae-a-1"))
    assert [len(c) for c, _ in found] == [1, 0]


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32, np.uint8])
def test_whole_numbers_of_any_type_are_channels(edited, kind):
    made = edited("train_addresses/man-ae-a-1", np.full(300, 63, kind))
    assert (nt.read_utterance(made, "train", "man-ae-a-1")[0] == 63).all()


def test_texts_of_variable_length_are_ids(edited):
    made = edited("train_labels", np.array(TRAIN[:2], object))
    found = nt.read_listing(made)
    assert found.ids["train"] == TRAIN[:2]
    assert found.unlisted["train"] == ("man-ae-b-12z", "woman-ac-a-o")


def test_md5_is_information(path):
    assert nt.published_md5(path) == (hashlib.md5(path.read_bytes()).hexdigest(), False)
    with pytest.raises(DataError, match="cannot be read"):
        nt.published_md5(path.parent / "none")


# --- files that are not what they should be ----------------------------------------------------
LISTS = {
    "twice": ("train_labels", np.array([b"man-ae-a-1"] * 2), "lists 'man-ae-a-1' more than once"),
    "no recording": (
        "train_labels", np.array([b"man-ae-a-1", b"man-qq-a-1"]),
        r"train_addresses lacks 1 of 2 ids .*'man-qq-a-1'",
    ),
    "no times": ("test_timestamps/man-zz-a-9", None, "test_timestamps lacks 1 of 2 ids"),
    "no id": ("test_labels", np.array([b"man-zz-a-0"]), "is no id of N-TIDIGITS"),
    "no text": ("test_labels", np.array([b"\xff\xfe"]), "UTF-8"),
    "numbers": ("test_labels", np.arange(3), "holds int64"),
    "two axes": ("test_labels", np.array([[b"man-zz-a-9"]]), r"\(1, 1\)"),
    "missing": ("test_labels", None, "test_labels is missing"),
    "no group": ("train_addresses", None, "train_addresses is missing"),
    "a dataset": ("train_timestamps", np.zeros(3), "is no group"),
    "elsewhere": ("train_labels", h5py.ExternalLink("/etc/passwd", "/"), "ExternalLink"),
    "a link": ("train_labels", h5py.SoftLink("/test_labels"), "SoftLink"),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTS)
def test_lists_that_are_wrong(edited, case):
    name, value, text = LISTS[case]
    made = edited(name, value)
    with pytest.raises(FileFormatError, match=rf"n-tidigits\.hdf5: .*{text}"):
        nt.read_listing(made)


RAMP = np.linspace(0, 1, 300)
EVENTS = {
    "lengths": ("train_timestamps", np.zeros(299), "299 values beside 300 addresses"),
    "above": ("train_addresses", np.full(300, 64), r"300 addresses such as 64, allowed is 0\.\.63"),
    "below": ("train_addresses", np.full(300, -1), "such as -1"),
    "huge": ("train_addresses", np.full(300, 2**64 - 1, np.uint64), "300 addresses"),
    "fraction": ("train_addresses", np.full(300, 0.5), "such as 0.5"),
    "NaN channel": ("train_addresses", np.full(300, np.nan), "such as nan"),
    "texts": ("train_addresses", np.full(300, b"a"), "whole number"),
    "two axes": ("train_addresses", np.zeros((300, 1), int), "whole number"),
    "NaN": ("train_timestamps", np.where(RAMP > 0.99, np.nan, RAMP), "3 times such as nan"),
    "infinite": ("train_timestamps", np.where(RAMP == 1, np.inf, RAMP), "such as inf"),
    "negative": ("train_timestamps", RAMP - 0.001, "1 times such as -0.001"),
    "microseconds": ("train_timestamps", RAMP * 1e6, "allowed is seconds"),
    "whole": ("train_timestamps", np.arange(300), "floating point"),
    "back": ("train_timestamps", RAMP[::-1], "goes back in time 299 times, first after event 0"),
    "missing": ("train_timestamps", None, "is missing"),
    "a scalar": ("train_timestamps", 0.5, "floating point"),
    "nothing": ("train_timestamps", h5py.Empty("f4"), "is empty"),
}


@pytest.mark.parametrize("case", EVENTS)
def test_recordings_that_are_wrong(edited, case):
    group, value, text = EVENTS[case]
    made = edited(f"{group}/man-ae-a-1", value)
    with pytest.raises(FileFormatError, match=rf"n-tidigits\.hdf5: {group}/man-ae-a-1 .*{text}"):
        nt.read_utterance(made, "train", "man-ae-a-1")


def test_times_can_be_sorted(edited):
    made = edited("train_timestamps/man-ae-a-1", RAMP[::-1])
    with h5py.File(made) as file:
        stored = file["train_addresses/man-ae-a-1"][()]
    channel, time = nt.read_utterance(made, "train", "man-ae-a-1", sort=True)
    assert (np.diff(time) > 0).all()
    assert np.array_equal(channel, stored[::-1])


def test_values_that_their_bytes_cannot_hold(path):
    with h5py.File(path, "r+") as file:
        del file["train_timestamps/man-ae-a-1"]
        file.create_dataset("train_timestamps/man-ae-a-1", (1 << 30,), "f8")  # nothing stored
    with pytest.raises(FileFormatError, match="declares 1073741824 values in 0 bytes"):
        nt.read_utterance(path, "train", "man-ae-a-1")


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"PK\3\4" * 300])
def test_what_is_no_hdf5(tmp_path, content):
    path = tmp_path / "a.hdf5"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"a\.hdf5: cut, damaged or no n-tidigits"):
        nt.read_listing(path)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_cut_files(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FileFormatError, match="cut, damaged"):
        nt.read_listing(path)


def test_names_that_are_not_there(path, tmp_path):
    with pytest.raises(FileFormatError, match="no such file"):
        nt.read_listing(tmp_path / "none.hdf5")
    with pytest.raises(FileFormatError, match="'?test_addresses/man-ae-a-1'? is missing"):
        nt.read_utterance(path, "test", "man-ae-a-1")
    with pytest.raises(ConfigError, match="unknown split 'val'"):
        nt.read_utterance(path, "val", "man-ae-a-1")


ONE = np.ones(1, int)
BAD = {
    "id": ([("man-ae-a-0", ONE, ONE)], "is no id"),
    "twice": ([("man-ae-a-1", ONE, ONE)] * 2, "twice"),
    "channel": ([("man-ae-a-1", 64 * ONE, ONE)], r"0\.\.63"),
    "time": ([("man-ae-a-1", ONE, -ONE)], "seconds"),
    "NaN": ([("man-ae-a-1", ONE, ONE * np.nan)], "seconds"),
    "order": ([("man-ae-a-1", np.ones(2, int), np.array([1.0, 0.0]))], "ascend"),
    "lengths": ([("man-ae-a-1", ONE, np.ones(2))], "as many"),
}


@pytest.mark.parametrize("case", BAD)
def test_the_writer_writes_nothing_wrong(tmp_path, case):
    utterances, text = BAD[case]
    with pytest.raises(DataError, match=text):
        nt.write_ntidigits(tmp_path / "a.hdf5", utterances, [])
    assert not list(tmp_path.iterdir())
