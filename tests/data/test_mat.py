"""The processed MNIST-DVS: cells of events in MATLAB files of both kinds."""

import h5py
import numpy as np
import pytest
from samples import ROOT, load_script
from scipy.io import savemat

from neuroav.data.formats.mat import one, read_mat
from neuroav.errors import ConfigError, FileFormatError

fuzz = load_script(ROOT / "benchmarks" / "container_fuzz.py")


def recording(pixels=((0, 27), (5, 5)), times=(10, 20), polarity=(1, -1)):
    """(E, 6) as the file has it."""
    times = np.asarray(times, float)
    return np.column_stack([times, 0 * times, 0 * times, np.asarray(pixels, float), polarity])


def write(path, *recordings, labels=None, **more):
    """A MATLAB file of version 7."""
    cells = np.empty((1, len(recordings)), object)
    cells[0] = [None] * len(recordings)
    for i, value in enumerate(recordings):
        cells[0, i] = value
    labels = np.arange(len(recordings), dtype=float)[None] if labels is None else labels
    savemat(path, {"CINs": cells, "Labels": labels, **more}, do_compression=True)
    return path


def write_modern(path, *recordings):
    """A MATLAB file of version 7.3: HDF5 behind a header, arrays transposed."""
    with h5py.File(path, "w", userblock_size=512) as file:
        cells = file.create_dataset("CINs", (len(recordings), 1), h5py.ref_dtype)
        for i, value in enumerate(recordings):
            if len(value):
                stored = file.create_dataset(f"#refs#/{i}", data=value.T)
            else:
                stored = file.create_dataset(f"#refs#/{i}", data=np.array([0, 6], np.uint64))
                stored.attrs["MATLAB_empty"] = np.uint8(1)
            cells[i, 0] = stored.ref
        file["Labels"] = np.arange(len(recordings), dtype=float)[:, None]
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))
    return path


@pytest.mark.parametrize("writer", [write, write_modern])
def test_columns(tmp_path, writer):
    second = recording(((3, 4), (6, 7), (27, 0)), (0, 0, 9), (-1, 1, 1))
    found = read_mat(writer(tmp_path / "a.mat", recording(), np.zeros((0, 6)), second))
    assert found.base == 0
    assert found.labels.tolist() == [0, 1, 2]
    assert found.offsets.tolist() == [0, 2, 2, 5]
    kinds = (found.time.dtype, found.x.dtype, found.y.dtype, found.on.dtype)
    assert kinds == (np.int64, np.uint8, np.uint8, bool)
    columns = {name: v.tolist() for name, v in one(found, 2).items()}
    assert columns == {
        "time": [0, 0, 9], "x": [3, 6, 27], "y": [4, 7, 0], "on": [False, True, True]
    }  # fmt: skip


@pytest.mark.parametrize("base", [0, 1])
def test_the_base_is_found_from_all_recordings(tmp_path, base):
    path = tmp_path / "a.mat"
    fuzz.write_mat(path, base)
    found = read_mat(path)
    assert found.base == base
    assert (found.x.min(), found.x.max(), found.y.max()) == (0, 27, 27)
    assert np.array_equal(found.x, read_mat(path, base=base).x)
    with pytest.raises(FileFormatError, match=f"as base {1 - base} was asked for"):
        read_mat(path, base=1 - base)


def test_where_both_are_possible_the_caller_must_say(tmp_path):
    path = write(tmp_path / "a.mat", recording(((1, 27), (5, 5))))
    with pytest.raises(FileFormatError, match="from 0 or from 1, allowed is that the caller says"):
        read_mat(path)
    assert read_mat(path, base=0).x.tolist() == [1, 5]
    assert read_mat(path, base=1).x.tolist() == [0, 4]


def test_labels_can_be_mapped(tmp_path):
    path = write(tmp_path / "a.mat", *[recording()] * 3, labels=np.array([[10.0, 1, 9]]))
    with pytest.raises(FileFormatError, match=r"Labels such as \[10.0\]"):
        read_mat(path)
    mapped = read_mat(path, classes={10: 0, **{d: d for d in range(1, 10)}})
    assert mapped.labels.tolist() == [0, 1, 9]


def test_times_can_be_sorted(tmp_path):
    path = write(tmp_path / "a.mat", recording(times=(20, 10)))
    with pytest.raises(FileFormatError, match=r"CINs\{1\} that goes back in time"):
        read_mat(path)
    found = read_mat(path, sort=True)
    assert found.time.tolist() == [10, 20]
    assert found.x.tolist() == [5, 0]


NAN = recording(times=(1, np.nan))
CELLS = {
    "columns": (np.zeros((4, 5)), r"CINs\{2\} \(4, 5\)"),
    "axes": (np.zeros((2, 6, 2)), r"\(2, 6, 2\)"),
    "text": (np.array(["abcdef"]), "numbers"),
    "NaN": (NAN, "NaN"),
    "fraction": (recording(((0.5, 1), (2, 3))), "fractional"),
    "polarity": (recording(polarity=(1, 0)), "polarity 0, allowed is"),
    "negative time": (recording(times=(-1, 2)), "times -1"),
    "late": (recording(times=(1, 1e12)), "microseconds"),
    "beyond": (recording(((0, 28), (1, 1))), r"pixels 0\.\.28, allowed is 0\.\.27 or 1\.\.28"),
    "far": (recording(((0, 1e9), (1, 1))), "pixel 1e"),
    "negative": (recording(((-1, 3), (1, 1))), r"pixels -1\.\.27"),
}


@pytest.mark.parametrize("case", CELLS)
def test_recordings_that_are_wrong(tmp_path, case):
    value, text = CELLS[case]
    path = write(tmp_path / "a.mat", recording(), value)
    with pytest.raises(FileFormatError, match=rf"a\.mat: .*{text}"):
        read_mat(path)


def test_files_that_are_wrong(tmp_path):
    path = tmp_path / "a.mat"
    cases = [
        ({"CINs": np.zeros((3, 6))}, "no Labels"),
        ({"Labels": np.zeros(3)}, "no CINs"),
        ({"CINs": np.zeros((3, 6)), "Labels": np.zeros(3)}, "a cell array"),
    ]
    for content, text in cases:
        savemat(path, content)
        with pytest.raises(FileFormatError, match=rf"a\.mat: .*{text}"):
            read_mat(path)
    for labels, text in ((np.zeros((1, 3)), "1 recordings and 3 labels"), (np.eye(2), "one row")):
        with pytest.raises(FileFormatError, match=text):
            read_mat(write(path, recording(), labels=labels))
    with pytest.raises(FileFormatError, match=r"Labels such as \[0.5\]"):
        read_mat(write(path, recording(), labels=np.array([[0.5]])))


@pytest.mark.parametrize("writer", [write, write_modern])
def test_cut_files_and_others(tmp_path, writer):
    path = writer(tmp_path / "a.mat", *[recording()] * 5)
    content = path.read_bytes()
    for part in (b"", content[:60], content[: len(content) // 2], b"x" * 4000):
        path.write_bytes(part)
        with pytest.raises(FileFormatError, match=r"a\.mat: "):
            read_mat(path)
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_mat(tmp_path / "none.mat")


def test_references_to_what_is_no_array(tmp_path):
    path = write_modern(tmp_path / "a.mat", recording())
    with h5py.File(path, "r+") as file:
        file["CINs"][0, 0] = file["#refs#"].ref
    with pytest.raises(FileFormatError, match="is a group"):
        read_mat(path)


def test_options_out_of_range(tmp_path):
    for options in ({"base": 2}, {"size": 0}, {"size": 300}):
        with pytest.raises(ConfigError, match="allowed"):
            read_mat(tmp_path / "a.mat", **options)
