"""Features of the zero-shot benchmarks from synthetic files in the published layouts."""

import pickle
import shutil

import h5py
import numpy as np
import pytest
from gzsl_files import MADE_UP_DROPPED, make_lists, published, write_benchmark, write_h5, write_pkl

from neuroav.data.gzsl import BENCHMARKS, load_benchmark
from neuroav.data.gzsl.features import read_sequences, read_vectors, resampled
from neuroav.data.zeroshot import STAGES
from neuroav.errors import DataError, FileFormatError

UCF = "ucf-gzsl"
SMALL = (5, 9)  # features of audio and video


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Made-up class lists of UCF and embeddings."""
    return make_lists(tmp_path_factory.mktemp("lists") / "source")


@pytest.fixture
def main(source, tmp_path):
    """A tiny main preset, writable: three clips per class."""
    return write_benchmark(tmp_path, source, widths=SMALL)


@pytest.fixture
def temporal(source, tmp_path):
    return write_benchmark(tmp_path, source, preset="cls-temporal", widths=SMALL)


def _load(root, preset="main", name=UCF, steps=4):
    return load_benchmark(name, data_root=root, preset=preset, steps=steps)


def _resampled(sequence, steps):
    """The rule in words of one step."""
    length, rows = len(sequence), []
    for s in range(steps):
        if length >= steps:
            rows.append(sequence[s * length // steps : (s + 1) * length // steps].mean(axis=0))
        else:
            rows.append(sequence[int((s + 0.5) * length / steps)])
    return np.stack(rows).astype(np.float32)


def _require_equal(data, written, steps=None):
    for stage in STAGES:
        got, part = data.stages[stage], written.parts[stage]
        assert got.labels.tolist() == part["labels"]
        assert got.names.tolist() == part["names"]
        for kind in ("audio", "visual"):
            found = getattr(got, kind)
            assert found.dtype == np.float32
            if steps is None:
                assert np.array_equal(found, np.stack(part[kind]).astype(np.float32))
            else:
                expected = np.stack([_resampled(x, steps) for x in part[kind]])
                np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


# --- round trips --------------------------------------------------------------------------------
@pytest.mark.parametrize("preset", ["main", "cls"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fixed_urls", [False, True])
def test_vectors_are_read_as_written(source, tmp_path, preset, dtype, fixed_urls):
    written = write_benchmark(
        tmp_path, source, preset=preset, widths=SMALL, dtype=dtype, fixed_urls=fixed_urls
    )
    data = _load(tmp_path, preset)
    _require_equal(data, written)
    assert (data.name, data.preset, data.steps) == (UCF, preset, 4)
    assert data.notes == ("the features are synthetic: results say nothing about recordings",)


@pytest.mark.parametrize("steps", [1, 3, 10, 40])
def test_sequences_are_resampled(temporal, steps):
    _require_equal(_load(temporal.root, "cls-temporal", steps=steps), temporal, steps)


def test_audio_of_cls_keeps_the_scale_of_vggish(source, tmp_path):
    write_benchmark(tmp_path, source, preset="cls", widths=SMALL, noise=2)
    audio = _load(tmp_path, "cls").stages["stage_1_train"].audio
    assert 100 < audio.max() <= 255


def test_stages_classes_and_text_fit_together(main):
    data = _load(main.root)
    assert data.classes[2:4] == ("CleanAndJerk", "Drumming")
    assert data.seen.tolist() == [0, 2, 3, 5, 6]
    assert data.unseen.tolist() == [1, 4]
    assert data.misaligned.tolist() == [2, 3, 4, 5, 6]
    assert {s: len(f) for s, f in data.stages.items()} == dict(
        zip(STAGES, (9, 9, 6, 15, 6), strict=True)
    )
    assert len(data.split("train")) == 24
    assert data.split("test").frames([0]).audio.shape == (1, 4, 5)


def test_files_of_classes_that_the_split_drops_are_not_opened(source, tmp_path):
    written = write_benchmark(tmp_path, source, preset="cls", widths=SMALL)
    dropped = list(written.folder.rglob(f"{MADE_UP_DROPPED}.h5"))
    assert len(dropped) == 2
    for path in dropped:
        path.write_bytes(b"damaged")
    data = _load(tmp_path, "cls")
    _require_equal(data, written)
    assert data.unseen.tolist() == [4]


def test_clips_other_than_listed_are_noted(source, tmp_path):
    write_benchmark(tmp_path, source, per_class=2, widths=SMALL)
    note = _load(tmp_path).notes[1]
    assert "stage_1_train 6 against 9, 0 in both" in note
    assert note.count("against") == len(STAGES)


@pytest.mark.parametrize("preset", ["main", "cls", "cls-temporal"])
def test_real_lists_of_ucf(tmp_path, preset):
    written = write_benchmark(tmp_path, published(), preset=preset, widths=(8, 16), per_class=None)
    data = _load(tmp_path, preset, steps=3)
    _require_equal(data, written, 3 if preset == "cls-temporal" else None)
    sizes = [len(data.stages[s]) for s in STAGES]
    assert sizes == [3174, 353, 1467, 555, 1267 if preset == "main" else 845]
    assert len(data.misaligned) == 79
    assert len(data.notes) == 2
    assert data.notes[1].startswith("protocol as published: of 555 of 555 test clips")


def test_real_lists_of_vggsound(tmp_path):
    """Names of classes, and so of files, have commas and blanks."""
    written = write_benchmark(tmp_path, published(), "vggsound-gzsl", per_class=1, widths=SMALL)
    data = _load(tmp_path, name="vggsound-gzsl")
    _require_equal(data, written)
    assert (len(data.classes), len(data.misaligned)) == (309, 205)


def test_stage_without_a_csv_needs_a_number_of_clips(tmp_path):
    with pytest.raises(ValueError, match=r"stage_1_train\.csv was not published: say per_class"):
        write_benchmark(tmp_path, published(), "vggsound-gzsl")


# --- where files lie ----------------------------------------------------------------------------
def test_parts_may_lie_in_every_place_described(main, source, tmp_path):
    expected = _load(main.root).content_hash
    home = main.root / "avgzsl_benchmark_datasets/UCF"
    shutil.move(home / "class-split", home / "class_split")
    assert _load(main.root).content_hash == expected
    assert _load(home.parent).content_hash == expected  # data root of the sets themselves
    # Lists and text as in a copy of the lists alone, features as downloaded.
    shutil.rmtree(home / "class_split")
    shutil.rmtree(home / "features/main_features/text")
    shutil.copytree(source, main.root / "avgzsl")
    assert _load(main.root).content_hash == expected
    shutil.move(main.root / "avgzsl/w2v_features", main.root / "w2v_features")
    assert _load(main.root).content_hash == expected


def test_folder_that_the_temporal_script_makes(temporal):
    expected = _load(temporal.root, "cls-temporal").content_hash
    temporal.folder.rename(temporal.folder.with_name("cls_features_no_averaged"))
    assert _load(temporal.root, "cls-temporal").content_hash == expected


def test_names_of_files_match_without_regard_to_case(main):
    for path in list(main.folder.rglob("CleanAndJerk.h5")):
        path.rename(path.with_name("cleanandjerk.h5"))
    _require_equal(_load(main.root), main)
    path = next(main.folder.rglob("cleanandjerk.h5"))
    shutil.copyfile(path, path.with_name("CLEANandJERK.h5"))
    with pytest.raises(DataError, match=r"CLEANandJERK\.h5 beside it is for the same class"):
        _load(main.root)


def test_vggsound_names_match_with_case(tmp_path):
    source = make_lists(tmp_path / "source", "vggsound-gzsl")
    written = write_benchmark(tmp_path, source, "vggsound-gzsl", widths=SMALL)
    path = next((written.folder / "audio/stage_1_train").glob("diving.h5"))
    path.rename(path.with_name("Diving.h5"))
    with pytest.raises(DataError, match=r"audio/stage_1_train/diving\.h5 is missing"):
        _load(tmp_path, name="vggsound-gzsl")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "ucf"}, "unknown zero-shot benchmark 'ucf'.*did you mean 'ucf-gzsl'"),
        (
            {"preset": "clip"},
            "unknown preset of ucf-gzsl 'clip': allowed are cls, cls-clean, cls",
        ),
        ({"steps": 0}, "0 steps, at least 1"),
        ({"root": None}, "AVCA-GZSL release.*features/main_features.*--data-root DIR"),
        ({"root": None, "preset": "cls-temporal"}, "TCaF-GZSL release.*features/cls_features_non"),
        ({"root": "nowhere"}, "data root nowhere: there is no such folder"),
        ({"preset": "cls"}, "no features: there is no folder features/cls_features/audio in"),
        ({"name": "vggsound-gzsl"}, "no class lists: there is no folder class-split or class_spl"),
    ],
)
def test_what_is_unknown_or_missing_as_a_whole(main, arguments, said):
    with pytest.raises(DataError, match=said):
        _load(**({"root": main.root} | arguments))


def test_missing_text(main):
    (main.folder / "text" / BENCHMARKS[UCF].text).unlink()
    with pytest.raises(DataError, match=r"no word_embeddings_ucf_normed\.npy in .*AVCA-GZSL rel"):
        _load(main.root)


# --- wrong files --------------------------------------------------------------------------------
VIDEO = "video/stage_1_val_unseen/YoYo.h5"


def _changed(path, **arrays):
    """Write one class anew, with other data or names."""
    with h5py.File(path) as file:
        data, names = file["data"][()], [name.decode() for name in file["video_urls"]]
    path.unlink()
    write_h5(path, arrays.get("data", lambda x: x)(data), arrays.get("names", lambda x: x)(names))


def _nan(data):
    data[1, 2] = np.nan
    return data


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": _nan}, r"NaN or infinite values in 1 clips, first clip 1,.*finite"),
        ({"data": lambda x: x.astype(np.float64) * 1e60}, r"NaN or infinite values in 3 clips"),
        ({"data": lambda x: x[:, :8]}, r"8 features per clip, but 9 in .*video/stage_1_train"),
        ({"data": lambda x: x[:, 0]}, r"found data float32 \(3,\), allowed is float32 or float64"),
        ({"data": lambda x: x[:, :0]}, r"found data float32 \(3, 0\)"),
        ({"data": lambda x: x.astype(np.int32)}, r"found data int32 \(3, 9\)"),
        ({"data": lambda x: x[:2]}, r"video_urls \(3,\) beside data \(2, 9\), allowed is one"),
        (
            {"names": lambda n: [n[0], n[2], n[1]]},
            r"first that differs is clip 1, 'v_YoYo_1_val_unseen_1' in audio and "
            r"'v_YoYo_1_val_unseen_2' in video; both must list the same",
        ),
        (
            {"names": lambda n: n[:2], "data": lambda x: x[:2]},
            r"YoYo\.h5: 2 clips; .*clip 2, 'v_YoYo_1_val_unseen_2' in audio and none in video",
        ),
    ],
)
def test_wrong_file_gives_one_error_naming_it(main, change, said):
    _changed(main.folder / VIDEO, **change)
    with pytest.raises((DataError, FileFormatError), match=said) as caught:
        _load(main.root)
    assert str(main.folder / VIDEO) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder(main):
    (main.folder / VIDEO).unlink()
    with pytest.raises(DataError, match=rf"{VIDEO} is missing: .*'YoYo'; take the file from the A"):
        _load(main.root)
    shutil.rmtree(main.folder / "video/stage_1_val_unseen")
    with pytest.raises(DataError, match=r"video/stage_1_val_unseen: .*one <Class>\.h5 per class"):
        _load(main.root)


def test_cut_file(main):
    path = main.folder / VIDEO
    whole = path.read_bytes()
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=rf"{VIDEO}: cut or damaged.*again"):
            _load(main.root)


def test_h5_that_points_out_of_the_file_or_states_too_much(tmp_path):
    other, path = tmp_path / "other.h5", tmp_path / "x.h5"
    write_h5(other, np.ones((2, 3), np.float32), ["a", "b"])
    with h5py.File(path, "w") as file:
        file["data"] = h5py.ExternalLink("other.h5", "data")
    with pytest.raises(FileFormatError, match=r"x\.h5: found datasets data, allowed is data and v"):
        read_vectors(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (3,), "f4", external=[("other.h5", 0, 12)])
    with pytest.raises(FileFormatError, match="found data that is not stored in the file"):
        read_vectors(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (1 << 30, 512), "f4", chunks=(1, 512))
    with pytest.raises(FileFormatError, match=r"found data \(1073741824, 512\).*bytes can hold"):
        read_vectors(path)
    with h5py.File(path, "w") as file:
        file.create_group("data")
    with pytest.raises(FileFormatError, match="not stored in the file"):
        read_vectors(path)


def test_h5_without_clips_and_with_strange_names(tmp_path):
    path = tmp_path / "x.h5"
    write_h5(path, np.ones((0, 3), np.float32), [])
    assert read_vectors(path).data.shape == (0, 3)
    with h5py.File(path, "w") as file:
        file["data"], file["video_urls"] = np.ones((2, 3), np.float32), np.arange(2)
    with pytest.raises(FileFormatError, match="found 0 as a clip name"):
        read_vectors(path)
    with h5py.File(path, "w") as file:
        file["data"], file["video_urls"] = np.ones((1, 3), np.float32), np.array([b"\xff"])
    with pytest.raises(FileFormatError, match="a clip name that is no text"):
        read_vectors(path)


# --- sequences ----------------------------------------------------------------------------------
def test_resampling_rule():
    ramp = np.arange(7, dtype=np.float32)[:, None]
    assert resampled(ramp, 7).ravel().tolist() == list(range(7))
    assert resampled(ramp, 3).ravel().tolist() == [0.5, 2.5, 5.0]  # 0 1, 2 3, 4 5 6
    assert resampled(ramp, 1).ravel().tolist() == [3.0]
    assert resampled(ramp[:2], 5).ravel().tolist() == [0, 0, 1, 1, 1]
    assert resampled(ramp[:1], 4).ravel().tolist() == [0] * 4
    for length in range(1, 20):
        for steps in range(1, 20):
            sequence = np.random.default_rng(length).normal(size=(length, 2)).astype(np.float32)
            expected = _resampled(sequence, steps)
            np.testing.assert_allclose(resampled(sequence, steps), expected, atol=1e-6)


def test_bytes_beyond_float32_range_stay_exact():
    """uint8 is averaged, not added up as uint8."""
    assert resampled(np.full((9, 2), 255, np.uint8), 2).tolist() == [[255, 255]] * 2


@pytest.mark.parametrize(
    "entry",
    [
        {"features": [np.ones((3, 2), np.float32)] * 0, "video_names": []},
        {"features": [np.ones((3, 2), np.float32)], "video_names": ["a", "b"]},
        {"features": [np.ones(3, np.float32)], "video_names": ["a"]},
        {"features": [np.ones((0, 3), np.float32)], "video_names": ["a"]},
        {"features": [np.ones((2, 3), np.int64)], "video_names": ["a"]},
        {"features": [[1.0, 2.0]], "video_names": ["a"]},
        {"features": 3, "video_names": ["a"]},
        {"features": [np.ones((2, 3)), np.ones((2, 4))], "video_names": ["a", "b"]},
        {"features": [np.full((2, 3), np.nan)], "video_names": ["a"]},
        {"features": [np.ones((2, 3))], "video_names": [7]},
        {"features": [np.ones((2, 3))]},
        [1, 2],
    ],
)
def test_wrong_pkl_gives_one_error_naming_it(tmp_path, entry):
    path = tmp_path / "Archery.pkl"
    path.write_bytes(pickle.dumps(entry))
    with pytest.raises(FileFormatError, match=r"Archery\.pkl: found .*allowed is .*TCaF"):
        read_sequences(path, 4)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_pkl_in_its_variants(tmp_path, protocol):
    path, rng = tmp_path / "x.pkl", np.random.default_rng(0)
    block = rng.normal(size=(2, 4, 3))
    ragged = np.empty(2, object)
    ragged[:] = [block[0], np.asfortranarray(block[1])]
    for features in (list(block), block, ragged, [block[0].astype(">f4"), block[1]]):
        for names in (["a", "b"], [b"a", b"b"], np.array(["a", "b"]), list(np.array([b"a", b"b"]))):
            entry = {"features": features, "video_names": names, "fps": [25, np.float64(25)]}
            path.write_bytes(pickle.dumps(entry, protocol=protocol))
            found = read_sequences(path, 4)
            assert found.names == ("a", "b")
            np.testing.assert_allclose(found.data, block, rtol=1e-6)


def test_one_array_for_many_clips_is_refused(tmp_path):
    """A few bytes per reference would otherwise become megabytes."""
    path, array = tmp_path / "x.pkl", np.ones((50, 400), np.float32)
    write_pkl(path, [array] * 500, ["a"] * 500)
    assert path.stat().st_size < 100_000
    with pytest.raises(FileFormatError, match="one array used for several clips"):
        read_sequences(path, 400)


class _Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_hostile_pkl_is_refused_and_not_run(temporal, tmp_path):
    marker, path = tmp_path / "was_run", temporal.folder / "audio/stage_1_train/Archery.pkl"
    whole = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(whole | {"fps": _Hostile(marker)}))
    with pytest.raises(
        FileFormatError, match=r"stage_1_train/Archery\.pkl: refused.*io\.open;.*TC"
    ):
        _load(temporal.root, "cls-temporal")
    assert not marker.exists()


def test_cut_and_damaged_pkl_never_fail_otherwise(tmp_path):
    path, rng = tmp_path / "x.pkl", np.random.default_rng(1)
    write_pkl(path, [np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)], ["a", "b"])
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=r"x\.pkl"):
            read_sequences(path, 4)
    for _ in range(600):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            found = read_sequences(path, 4)
        except FileFormatError as err:
            assert "x.pkl" in str(err)  # noqa: PT017
        else:
            assert found.data.shape[1] == 4
            assert np.isfinite(found.data).all()


def test_differing_clips_of_sequences(temporal):
    path = temporal.folder / "video/stage_2_test_seen/diving.pkl"
    whole = pickle.loads(path.read_bytes())
    path.write_bytes(pickle.dumps(whole | {"video_names": [b"x", *whole["video_names"][1:]]}))
    with pytest.raises(DataError, match=r"video/stage_2_test_seen/diving\.pkl.*clip 0.*'x' in vid"):
        _load(temporal.root, "cls-temporal")
