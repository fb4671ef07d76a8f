"""FILE.nav: what is written is read back; everything else is refused with its reason."""

from __future__ import annotations

from dataclasses import fields, replace

import h5py
import numpy as np
import pytest
import samples

from neuroav import navfile
from neuroav.errors import FileFormatError
from neuroav.files import seal
from neuroav.hardware import parse_profile
from neuroav.sim import reference
from neuroav.sim.trace import SpikeDigest


@pytest.fixture(scope="module")
def deployment():
    return samples.tiny_example().build()


@pytest.fixture
def path(deployment, tmp_path):
    file = tmp_path / "net.nav"
    navfile.save(deployment, file)
    return file


def same(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return np.array_equal(a, b) and a.dtype == b.dtype
    if isinstance(a, tuple) and a and hasattr(a[0], "source"):
        return all(same(x, y) for x, y in zip(a, b, strict=True))
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(
            same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a)
        )
    return a == b


def test_round_trip_keeps_every_field(deployment, path):
    loaded = navfile.load(path)
    assert loaded.content_hash
    assert loaded.classes == deployment.classes
    assert loaded.profile == deployment.profile
    assert dict(loaded.integer.scales) == dict(deployment.integer.scales)
    for name, pop in deployment.integer.populations.items():
        assert same(pop, loaded.integer.populations[name]), name
    for name, node in deployment.real.nodes.items():
        assert same(node, loaded.real.nodes[name]), name
    assert dict(loaded.real.inputs) == dict(deployment.real.inputs)
    assert np.array_equal(loaded.probe.labels, deployment.probe.labels)


SCHEMA_1 = samples.ROOT / "tests" / "unit" / "profiles" / "loihi2-schema1.toml"


def test_profile_of_an_older_file_stays_as_it_was_written(deployment, tmp_path):
    profile = parse_profile(SCHEMA_1.read_text(encoding="utf-8"), "old")
    navfile.save(replace(deployment, profile=profile), tmp_path / "old.nav")
    loaded = navfile.load(tmp_path / "old.nav").profile
    assert loaded == profile
    assert loaded.text.startswith(SCHEMA_1.read_text(encoding="utf-8")[:40])
    assert "schema = 1" in loaded.text


def test_profile_that_extends_another_is_carried_whole(deployment, tmp_path):
    text = 'schema = 2\nid = "mine"\ntitle = "Mine"\nextends = "loihi2"\n'
    profile = parse_profile(text, "mine")
    navfile.save(replace(deployment, profile=profile), tmp_path / "mine.nav")
    loaded = navfile.load(tmp_path / "mine.nav").profile
    assert (loaded, loaded.hash) == (profile, profile.hash)
    assert "extends" not in loaded.text


def test_loaded_file_gives_the_same_spikes(deployment, path):
    def digest(d):
        spikes = SpikeDigest(d.integer)
        for trace in reference.run(d, deployment.probe.inputs):
            assert trace.outputs["join"].any()
            spikes.add(trace)
        return spikes.hexdigest()

    assert digest(navfile.load(path)) == digest(deployment)


def test_same_network_same_hash(deployment, path, tmp_path):
    again = navfile.save(deployment, tmp_path / "again.nav")
    assert again.content_hash == navfile.load(path).content_hash


def test_missing_file(tmp_path):
    with pytest.raises(FileFormatError, match=r"gone\.nav: no such file; write one with"):
        navfile.load(tmp_path / "gone.nav")


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_cut_file(path, part):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(FileFormatError, match=r"net\.nav: "):
        navfile.load(path)


def outcome(path) -> str:
    """The content hash of a file that loads, else why it was refused."""
    try:
        return navfile.load(path).content_hash
    except FileFormatError as error:
        return str(error)


def test_flipped_bytes_never_load_as_something_else(deployment, path):
    """Flip one byte at many places: the file is refused, unless the byte fills up its seal."""
    data, refused = path.read_bytes(), 0
    good = navfile.load(path).content_hash
    for place in np.linspace(0, len(data) - 1, 60).astype(int):
        broken = bytearray(data)
        broken[place] ^= 0x55
        path.write_bytes(bytes(broken))
        found = outcome(path)
        assert found == good or "net.nav" in found
        refused += found != good
    assert refused >= 59
    broken = bytearray(data)
    broken[300] ^= 0x55
    path.write_bytes(bytes(broken))
    assert outcome(path) == good


def test_changed_value_breaks_the_seal_and_the_hash(path):
    with h5py.File(path, "r+") as file:
        file["integer/audio_lif/threshold"][0] += 1
    with pytest.raises(FileFormatError, match="its seal says .* changed or damaged; export it"):
        navfile.load(path)
    seal(path)
    with pytest.raises(FileFormatError, match="content hash is .* it was changed or damaged"):
        navfile.load(path)


def test_h5py_alone_reads_it(path):
    with h5py.File(path) as file:
        assert file.attrs["format"] == "neuroav-deployment"
        assert file.userblock_size == 512
    assert path.read_bytes().startswith(b"NeuroAV sealed HDF5")


def test_newer_version(path):
    with samples.edited_hdf5(path) as file:
        file.attrs["version"] = 99
    with pytest.raises(FileFormatError, match="format version 99, this program reads 1..3; update"):
        navfile.load(path)


def test_foreign_hdf5(tmp_path):
    with h5py.File(tmp_path / "other.nav", "w") as file:
        file["data"] = [1, 2]
    with pytest.raises(FileFormatError, match="it is HDF5 without a seal, so not written"):
        navfile.load(tmp_path / "other.nav")


def test_text_file(tmp_path):
    (tmp_path / "text.nav").write_text("hello")
    with pytest.raises(FileFormatError, match=r"text\.nav: it is no HDF5 file"):
        navfile.load(tmp_path / "text.nav")


def rehash(file: h5py.File) -> None:
    file.attrs["content_hash"] = navfile.content_hash(file)


def test_invalid_network_with_a_good_hash_is_refused(path):
    with samples.edited_hdf5(path) as file:
        file["integer/audio_lif/threshold"][0] = 2**20
        rehash(file)
    with pytest.raises(FileFormatError, match="holds an invalid network: audio_lif: threshold"):
        navfile.load(path)


def test_nan_weights_with_a_good_hash_are_refused(path):
    with samples.edited_hdf5(path) as file:
        file["real/head/weight"][0, 0] = np.nan
        rehash(file)
    with pytest.raises(FileFormatError, match=r"Readout\.weight: 1 of 6 values are NaN"):
        navfile.load(path)


def test_missing_part_with_a_good_hash_is_refused(path):
    with samples.edited_hdf5(path) as file:
        del file["integer/audio_lif"].attrs["decay_v"]
        rehash(file)
    with pytest.raises(FileFormatError, match="cannot be read as a deployment"):
        navfile.load(path)


def test_failed_save_leaves_nothing_and_keeps_the_old_file(deployment, path, monkeypatch):
    before = path.read_bytes()
    monkeypatch.setattr(navfile, "content_hash", lambda file: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        navfile.save(deployment, path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["net.nav"]


def test_shipped_file_is_what_its_script_writes(tmp_path):
    script = samples.load_script(samples.ROOT / "examples" / "make_shipped.py")
    script.main(tmp_path / "tiny.nav")
    assert (
        navfile.load(tmp_path / "tiny.nav").content_hash == navfile.load(script.PATH).content_hash
    )
