"""nmnist-fsdd from tiny recordings in the published layouts, and from the real ones where given."""

import shutil
import sys
from collections import Counter

import numpy as np
import pytest
from tonic.datasets import NMNIST
from tonic.io import read_mnist_file

from neuroav import data
from neuroav.data import cache, nmnistfsdd
from neuroav.data._make_manifest import make
from neuroav.data.manifest import PICTURES, SOUNDS
from neuroav.errors import DataError, MissingDependency

NAME = "nmnist-fsdd"
RATE = 8000


@pytest.fixture
def root(made_up, tmp_path, monkeypatch):
    """The made-up recordings, and their manifest in place of the shipped one."""
    make(made_up, tmp_path / "manifest.csv")
    monkeypatch.setattr(nmnistfsdd, "MANIFEST", tmp_path / "manifest.csv")
    return made_up


def _generate(root, preset="default", seed=0, limit=None):
    return nmnistfsdd.generate(preset, seed, limit, data_root=root)


# --- reading one recording ---------------------------------------------------------------------
def test_events_are_read_as_published(tmp_path):
    """Five bytes: x, y, then one bit of polarity and 23 of time; y = 240 adds 2^13 us."""
    path = tmp_path / "0.bin"
    path.write_bytes(bytes([3, 4, 0x80, 0x01, 0x02, 33, 0, 0x04, 0, 0]))
    events = nmnistfsdd.read_picture(path)
    assert {name: column.tolist() for name, column in events.items()} == {
        **{"x": [3, 33], "y": [4, 0], "p": [1, 0], "time": [258, 1 << 18]}
    }
    path.write_bytes(bytes([1, 1, 0, 0, 9, 0, 240, 0, 0, 0, 2, 2, 0, 0, 9]))
    assert nmnistfsdd.read_picture(path)["time"].tolist() == [9, 8201]


def test_made_up_events_are_those_tonic_reads(made_up):
    files = sorted((made_up / PICTURES).rglob("*.bin"))[:10]
    _same_as_tonic(files)


def _same_as_tonic(files):
    for file in files:
        theirs = read_mnist_file(str(file), dtype=NMNIST.dtype)
        ours = nmnistfsdd.read_picture(file)
        assert len(theirs) > 100
        for mine, name in (("x", "x"), ("y", "y"), ("p", "p"), ("time", "t")):
            np.testing.assert_array_equal(ours[mine], theirs[name], err_msg=f"{file} {name}")


def test_without_tonic_the_line_that_installs_it_is_named(made_up, monkeypatch):
    for name in ("tonic", "tonic.datasets", "tonic.io"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=r"pip install 'neuroav\[train\]'"):
        nmnistfsdd.read_picture(next((made_up / PICTURES).rglob("*.bin")))


def test_sounds_of_another_form_are_refused(tmp_path, write_sound):
    write_sound(tmp_path / "a.wav", np.arange(10))
    np.testing.assert_array_equal(nmnistfsdd.read_sound(tmp_path / "a.wav"), np.arange(10))
    write_sound(tmp_path / "b.wav", np.arange(10), rate=16_000)
    with pytest.raises(DataError, match=r"b\.wav: 16000 Hz, 1 channels.*allowed is 8000 Hz"):
        nmnistfsdd.read_sound(tmp_path / "b.wav")
    (tmp_path / "c.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"c\.wav cannot be read"):
        nmnistfsdd.read_sound(tmp_path / "c.wav")


@pytest.mark.parametrize(("before", "after"), [(0, 0), (0.2, 0.01), (0.03, 0.5)])
def test_a_word_is_freed_of_its_ends_and_centred(before, after):
    tone = 1000 * np.sin(np.arange(2400))  # 300 ms
    quiet = [5 * np.sin(np.arange(int(RATE * seconds))) for seconds in (before, after)]
    out = nmnistfsdd.centred(np.concatenate([quiet[0], tone, quiet[1]]))
    assert out.shape == (5120,)
    np.testing.assert_array_equal(out[1360:3760], tone)
    assert not out[:1360].any()
    assert not out[3760:].any()


def test_of_a_long_sound_the_loudest_window_is_kept():
    sound = np.sin(np.arange(16_000))  # 2 s
    sound[8000:10_000] *= 9
    out = nmnistfsdd.centred(sound)
    assert (out**2).sum() == pytest.approx((sound[8000:10_000] ** 2).sum(), rel=0.02)


# --- the whole set, from made-up recordings ----------------------------------------------------
def test_two_generations_are_bit_identical(root):
    first, second = _generate(root, "drop95"), _generate(root, "drop95")
    assert first.visual.counts.sum() > 500
    for path, array in first.datasets().items():
        np.testing.assert_array_equal(array, second.datasets()[path], err_msg=path)
    assert first.content_hash == second.content_hash
    assert _generate(root, "drop95", seed=1).content_hash != first.content_hash


def test_pairs_hold_the_recordings_they_name(root):
    made = _generate(root)
    for i in range(0, len(made.labels), 7):
        theirs = read_mnist_file(
            str(root / made.source["picture_file"][i].decode()), dtype=NMNIST.dtype
        )
        ours = made.visual.one(i)
        np.testing.assert_array_equal(ours["time"], theirs["t"])
        np.testing.assert_array_equal(ours["x"], theirs["x"])
        sound = made.source["sound_file"][i].decode()
        assert sound.startswith(f"{SOUNDS}/{made.labels[i]}_{made.source['voice'][i].decode()}_")
    assert Counter(made.split.tolist()) == {0: 60, 1: 30, 2: 30}


def test_a_higher_tone_is_heard_by_higher_channels(root):
    made = _generate(root)
    means = [
        made.audio.take(np.flatnonzero(made.labels == digit))["channel"].mean()
        for digit in range(10)
    ]
    assert (np.diff(means) > 0).all()
    assert made.audio["time"].max() < 640_000


@pytest.mark.parametrize("speaker", nmnistfsdd.SPEAKERS)
def test_only_the_speaker_held_out_is_in_the_test(root, speaker):
    made = _generate(root, f"default-{speaker}", limit=80)
    heard = [set(made.source["voice"][made.split == code]) for code in range(3)]
    assert heard[2] == {speaker.encode()}
    assert heard[0] == heard[1] == {s.encode() for s in nmnistfsdd.SPEAKERS if s != speaker}
    pictures = [set(made.source["picture_file"][made.split == code]) for code in range(3)]
    assert not pictures[0] & pictures[1]
    assert not pictures[2] & (pictures[0] | pictures[1])


@pytest.mark.parametrize("kind", ["default", "drop95"])
def test_the_plain_presets_hold_yweweler_out(root, kind):
    plain, named = _generate(root, kind), _generate(root, f"{kind}-yweweler")
    ours, theirs = plain.datasets(), named.datasets()
    for path in set(ours) - {"meta"}:
        np.testing.assert_array_equal(ours[path], theirs[path])


def test_a_limit_gives_the_first_pairs_of_every_split(root):
    whole, part = (_generate(root, "drop95-theo", limit=limit) for limit in (None, 40))
    assert np.bincount(part.split).tolist() == [20, 10, 10]
    for code in range(3):
        rows, firsts = np.flatnonzero(whole.split == code), np.flatnonzero(part.split == code)
        for modality in ("audio", "visual"):
            ours = getattr(part, modality).take(firsts)
            theirs = getattr(whole, modality).take(rows[: len(firsts)])
            for name in ours.columns:
                np.testing.assert_array_equal(ours[name], theirs[name])


def test_drop95_loses_its_share_anew_for_every_pair(root):
    clean, thin = _generate(root), _generate(root, "drop95")
    assert thin.visual.counts.sum() / clean.visual.counts.sum() == pytest.approx(0.05, abs=0.005)
    np.testing.assert_array_equal(clean.audio["time"], thin.audio["time"])
    file = Counter(thin.source["picture_file"]).most_common(1)[0][0]
    same = np.flatnonzero(thin.source["picture_file"] == file)
    kept = [set(thin.visual.one(i)["time"].tolist()) for i in same]
    assert len(kept) > 1
    assert kept[0] != kept[1]
    assert (thin.source["drop"] == 0.95).all()


def test_frames_have_the_layout_of_av_digits(root, tmp_path, small):
    loaded = data.load(NAME, cache_dir=tmp_path, data_root=root)
    ours, theirs = loaded.split("test").frames(), small.split("test").frames()
    assert ours.audio.shape[1:] == theirs.audio.shape[1:] == (8, 8, 8, 8)
    assert ours.visual.shape[1:] == theirs.visual.shape[1:] == (8, 2, 16, 16)
    assert loaded.classes == small.classes
    raw = loaded.split("test").raw_events(3)
    assert raw["source"]["voice"] == b"yweweler"
    inside = (np.array([raw["visual"]["x"], raw["visual"]["y"]]) % 33 > 0).all(0)
    assert abs(int(ours.visual[3].sum()) - inside.sum()) <= 5  # the sensor's rim is cut off


def test_its_own_augmentation_comes_with_the_data(root, tmp_path, small):
    loaded = data.load(NAME, cache_dir=tmp_path, data_root=root)
    assert loaded.augmentation == data.dataset_info(NAME).augmentation
    assert loaded.augmentation != data.Augmentation() == small.augmentation
    epoch = loaded.split("train").augmented(loaded.augmentation, np.random.default_rng(0))
    np.testing.assert_array_equal(epoch.labels, loaded.split("train").labels)
    with pytest.raises(DataError, match="never augmented"):
        loaded.split("val").augmented(loaded.augmentation, np.random.default_rng(0))


def test_what_is_prepared_needs_no_recordings_any_more(root, tmp_path):
    seen = []
    place = {"preset": "drop95", "cache_dir": tmp_path / "cache"}
    path = data.prepare(NAME, **place, data_root=root, progress=lambda *step: seen.append(step))
    assert [stage for stage, done, total in seen if done == total] == ["audio", "visual", "write"]
    loaded = data.load(NAME, **place)
    assert loaded.content_hash == cache.read(path, "").content_hash
    facts = data.describe(NAME, "drop95", cache_dir=tmp_path / "cache")
    assert {name: part["pairs"] for name, part in facts["splits"].items()} == {
        **{"train": 60, "val": 30, "test": 30}
    }
    assert list((tmp_path / "cache").rglob("*.*")) == [path]


# --- what is refused ---------------------------------------------------------------------------
def test_without_recordings_folder_layout_and_sources_are_named(tmp_path):
    layout = r"nmnist/Train/<digit>/<sample>\.bin \(N-MNIST.*CC BY-SA 4\.0\) and fsdd/recordings/"
    with pytest.raises(DataError, match=rf"{layout}.*--data-root DIR or NEUROAV_DATA=DIR"):
        data.load(NAME, cache_dir=tmp_path)
    absent = tmp_path / "nowhere"
    with pytest.raises(DataError, match=rf"there is no folder {absent}; .*{layout}"):
        data.prepare(NAME, cache_dir=tmp_path, data_root=absent)
    (absent / PICTURES).mkdir(parents=True)
    with pytest.raises(DataError, match=rf"there is no folder {absent}/{SOUNDS}; "):
        data.prepare(NAME, cache_dir=tmp_path, data_root=absent)
    assert list(tmp_path.rglob("*.h5")) == []


@pytest.mark.parametrize("part", [PICTURES, SOUNDS])
def test_a_cut_recording_stops_the_preparation(root, tmp_path, part):
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    victim = sorted(path for path in (copy / part).rglob("*") if path.is_file())[-1]
    victim.write_bytes(victim.read_bytes()[:-10])
    with pytest.raises(DataError, match=rf"{victim} is cut or altered: found .* expected "):
        data.prepare(NAME, cache_dir=tmp_path / "cache", data_root=copy)
    assert list(tmp_path.rglob("*.h5")) == []
    victim.unlink()
    with pytest.raises(DataError, match=rf"{victim} is missing"):
        data.prepare(NAME, cache_dir=tmp_path / "cache", data_root=copy)


def test_presets_limits_and_seeds_out_of_range_are_refused(root, tmp_path):
    with pytest.raises(DataError, match=r"unknown preset.*did you mean.*'default-theo'"):
        data.prepare(NAME, preset="default-teo", cache_dir=tmp_path, data_root=root)
    for limit, seed in ((39, 0), (121, 0), (None, -1), (None, 2**31)):
        with pytest.raises(DataError, match="allowed are"):
            _generate(root, seed=seed, limit=limit)


def test_manifest_and_parameters_change_the_file_name(tmp_path, root, monkeypatch):
    def name(**change):
        return data.cache_path(NAME, cache_dir=tmp_path, **change).name

    names = [name(), name(data_seed=1), name(preset="drop95"), name(limit=99)]
    monkeypatch.setattr(nmnistfsdd, "QUIET_DB", -20.0)
    names.append(name())
    monkeypatch.undo()
    names.append(name())  # the shipped manifest again
    assert len(set(names)) == 6
    assert data.dataset_info(NAME).presets == tuple(nmnistfsdd.PRESETS)


# --- the real recordings -----------------------------------------------------------------------
def test_real_events_are_those_tonic_reads(recordings):
    files = sorted((recordings / PICTURES).rglob("*.bin"))
    _same_as_tonic(files[::25])


def test_real_recordings_have_the_counts_of_their_sensors(recordings):
    made = _generate(recordings, limit=200)
    assert np.bincount(made.split).tolist() == [135, 15, 50]
    assert 3500 < np.median(made.visual.counts) < 5000
    assert 800 < np.median(made.audio.counts) < 2000
    steps = np.diff(made.visual["time"].astype(np.int64))[np.diff(made.visual.item) == 0]
    assert (steps >= 0).all()
    assert (made.visual["x"].max(), made.visual["y"].max()) == (33, 33)


def test_real_voices_are_harder_when_new_and_pictures_then_help(recordings, tmp_path):
    """A linear reading of coarse counts, 600 pairs of the fold of theo, events dropped."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    loaded = data.load(
        NAME, preset="drop95-theo", cache_dir=tmp_path, data_root=recordings, limit=600
    )
    frames = {name: loaded.split(name).frames() for name in ("train", "val", "test")}
    heard = {n: f.audio.reshape(len(f), 8, 32, 2, 8).sum((3, 4)) for n, f in frames.items()}
    seen = {
        n: f.visual.reshape(len(f), 4, 2, 2, 8, 2, 8, 2).sum((2, 5, 7)) for n, f in frames.items()
    }
    rows = {
        "audio": {n: x.reshape(len(x), -1) for n, x in heard.items()},
        "visual": {n: x.reshape(len(x), -1) for n, x in seen.items()},
    }
    rows["both"] = {n: np.hstack([rows["audio"][n], rows["visual"][n]]) for n in frames}

    def accuracy(modality: str, split: str) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=200))
        model.fit(rows[modality]["train"], frames["train"].labels)
        return model.score(rows[modality][split], frames[split].labels)

    assert accuracy("audio", "val") > accuracy("audio", "test") + 0.05
    assert accuracy("audio", "test") > 0.4
    assert accuracy("visual", "test") > 0.4
    assert accuracy("both", "test") > max(accuracy(m, "test") for m in ("audio", "visual")) + 0.03
