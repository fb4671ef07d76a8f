""".nir and .net files are read by another process before this one opens them."""

import h5py
import pytest
from samples import ROOT, load_script

from neuroav.data.formats.guarded import NotSurvived
from neuroav.errors import FileFormatError
from neuroav_export.readers import hdf5, nir_file
from neuroav_export.readers.netx import read_netx
from neuroav_export.readers.netx_layers import KIND

fuzz = load_script(ROOT / "benchmarks" / "container_fuzz.py")
READERS = {"nir": nir_file.load, "net": lambda path: read_netx(path, steps=4)}


@pytest.mark.parametrize("name", READERS)
def test_what_the_library_does_not_survive_is_never_opened_here(name, tmp_path, monkeypatch):
    path = tmp_path / f"a.{name}"
    fuzz.FORMATS[name].write(path)
    assert READERS[name](path)
    monkeypatch.setattr(hdf5, "READ_SECONDS", 0.0)  # as if the library hung

    def opened(*_):
        raise AssertionError("opened in this process")

    monkeypatch.setattr(h5py, "File", opened)
    with pytest.raises(NotSurvived, match=rf"a\.{name}: reading it did not end within 0 s"):
        READERS[name](path)


def test_a_file_of_too_many_values_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.net"
    fuzz.write_net(path)
    monkeypatch.setattr(hdf5, "MOST_BYTES", 100)
    expected = pytest.raises(FileFormatError, match=r"a\.net: .* bytes, allowed is 100")
    with expected, hdf5.opened(path, KIND):
        pass


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_read_or_refused(name, tmp_path):
    found = fuzz.fuzz(name, 24, 11, None, tmp_path)
    assert sum(found.counts.values()) == 24
    assert found.counts["refused"] > 2
    assert not found.defects
