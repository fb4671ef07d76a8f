"""SHD and SSC files as published, and every way they can lie."""

import h5py
import numpy as np
import pytest
from samples import ROOT, load_script

from neuroav.data.formats import shd
from neuroav.errors import DataError, FileFormatError

fuzz = load_script(ROOT / "benchmarks" / "container_fuzz.py")


@pytest.fixture
def path(tmp_path):
    """A file of five samples of 0, 50, 100, 150 and 200 spikes."""
    made = tmp_path / "shd_train.h5"
    fuzz.write_shd(made)
    return made


def test_listing(path):
    found = shd.read_listing(path)
    assert found.labels.tolist() == [3, 0, 19, 4, 4]
    assert found.speakers.tolist() == [0, 1, 2, 3, 4]
    assert len(found.names) == 20
    assert found.names[19] == "key19"


def test_samples_are_what_is_stored(path):
    found = shd.read_samples(path, [4, 0, 1])
    assert [len(s.time) for s in found] == [200, 0, 50]
    assert [(s.label, s.speaker) for s in found] == [(4, 4), (3, 0), (0, 1)]
    with h5py.File(path) as file:
        times, units = file["spikes/times"][4], file["spikes/units"][4]
    assert times.dtype == np.float16
    assert np.array_equal(found[0].time, np.rint(times.astype(np.float64) * 1e6))
    assert np.array_equal(found[0].channel, units)
    assert found[0].channel.dtype == np.uint16


def test_float16_seconds_are_coarse(path):
    """Half of the spacing at most is lost: 2^-10 s from 1 s on, half of that below."""
    late = np.unique(shd.read_samples(path, [4])[0].time)
    steps = np.diff(late[late >= 1_000_000])
    assert len(steps) > 10
    assert steps.min() >= 976
    early = late[(late >= 500_000) & (late < 1_000_000)]
    assert len(early) > 10
    assert np.diff(early).min() >= 488


@pytest.mark.parametrize("width", ["f4", "f8"])
def test_finer_times(tmp_path, width):
    made = tmp_path / "a.h5"
    fuzz.write_shd(made, width)
    assert len(np.unique(shd.read_samples(made, [4])[0].time)) == 200


def test_files_without_extra(path):
    with h5py.File(path, "r+") as file:
        del file["extra"]
    found = shd.read_listing(path)
    assert found.speakers is None
    assert found.names == ()
    assert shd.read_samples(path, [1])[0].speaker == -1


def test_tonic_agrees(tmp_path):
    tonic = pytest.importorskip("tonic.datasets")
    (tmp_path / "SHD").mkdir()
    made = tmp_path / "SHD" / "shd_train.h5"
    fuzz.write_shd(made, "f4")
    (tmp_path / "SHD" / "shd_train.h5.zip").touch()
    theirs = tonic.SHD(str(tmp_path), train=True)
    assert len(theirs) == 5
    for (events, label), ours in zip(theirs, shd.read_samples(made, range(5)), strict=True):
        assert np.array_equal(events["x"], ours.channel)
        assert label == ours.label
        assert np.abs(events["t"] - ours.time).max(initial=0) <= 1


def ragged(*arrays, kind):
    """What replaces spikes/times or spikes/units."""
    return [np.asarray(a, kind) for a in arrays], kind


GOOD = [[0.1] * n for n in (0, 50, 100, 150, 200)]
WRONG = {
    "no labels": ("labels", None, "labels is missing"),
    "no spikes": ("spikes", None, "spikes/times is missing"),
    "label names": ("labels", np.full(5, 20), r"spans 20\.\.20, allowed is 0\.\.19"),
    "negative label": ("labels", np.full(5, -1), r"spans -1\.\.-1"),
    "label type": ("labels", np.zeros(5), "whole number"),
    "fewer labels": ("labels", np.zeros(4, int), "4 labels"),
    "speakers": ("extra/speaker", np.zeros(3, int), "3 entries for 5 labels"),
    "speaker type": ("extra/speaker", np.zeros(5), "whole number"),
    "names": ("extra/keys", np.arange(20), "list of texts"),
    "flat times": ("spikes/times", np.zeros(5), "one array per sample"),
    "flat units": ("spikes/units", np.zeros(5, int), "one array per sample"),
    "linked": ("labels", h5py.SoftLink("/extra/speaker"), "SoftLink"),
    "lengths": ("spikes/times", ragged(*GOOD[:4], [0.1], kind="f2"), "1 times for 200 units"),
    "NaN": ("spikes/times", ragged(*GOOD[:4], [np.nan] * 200, kind="f2"), "200 times such as nan"),
    "negative": ("spikes/times", ragged(*GOOD[:4], [-0.5] * 200, kind="f2"), "such as -0.5"),
    "milliseconds": ("spikes/times", ragged(*GOOD[:4], [1400] * 200, kind="f4"), "seconds"),
    "whole times": ("spikes/times", ragged(*GOOD[:4], [1] * 200, kind="i4"), "holds int32"),
    "back": (
        "spikes/times", ragged(*GOOD[:4], np.linspace(1, 0, 200), kind="f2"), "goes back in time"
    ),
    "channel": ("spikes/units", ragged(*GOOD[:4], [700] * 200, kind="u2"), r"700, allowed is 0"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_files_that_are_wrong(path, case):
    name, value, text = WRONG[case]
    with h5py.File(path, "r+") as file:
        del file[name]
        if isinstance(value, tuple):
            made = file.create_dataset(name, (5,), h5py.vlen_dtype(np.dtype(value[1])))
            for i, part in enumerate(value[0]):
                made[i] = part
        elif value is not None:
            file[name] = value
    with pytest.raises(FileFormatError, match=rf"shd_train\.h5: .*{text}"):
        shd.read_samples(path, [4])


def test_an_index_beyond_the_file(path):
    for index in (5, -1):
        with pytest.raises(DataError, match=f"no sample {index}, it has 5"):
            shd.read_samples(path, [index])


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_what_is_no_hdf5(tmp_path, content):
    made = tmp_path / "a.h5"
    made.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"a\.h5: cut, damaged or no SHD"):
        shd.read_listing(made)
