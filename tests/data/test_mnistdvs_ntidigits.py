"""`mnistdvs-ntidigits`: files of the published formats to pairs, and both protocols' rules."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from neuroav.data import catalogue
from neuroav.data.avdata import AVData
from neuroav.data.formats import ntidigits
from neuroav.data.plans import Source
from neuroav.data.protocols import overlaps
from neuroav.data.published import mnistdvs_ntidigits as ds
from neuroav.data.published import mnistdvs_pairs as pairs
from neuroav.errors import ConfigError, DataError, FileFormatError

HEADER = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# a comment\r\n"


def write_aedat(path, x, y, on, time):
    """A recording of a DVS128 as MNIST-DVS has them: 127 - x, bit 0 clear for ON."""
    address = (np.asarray(y) << 8) | ((127 - np.asarray(x)) << 1) | (1 - np.asarray(on))
    records = np.stack([address, np.asarray(time)], axis=1).astype(">u4")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(HEADER + records.tobytes())


def write_pictures(root, per_digit=10, scale=4):
    """Recordings in which digit d lights one pixel after the other of row 50 + d."""
    for digit in range(10):
        for number in range(1, per_digit + 1):
            events = 64
            x = 47 + np.arange(events) % 28
            time = 1_000_000 + np.arange(events) * 1000 * number
            name = (
                f"grabbed_data{digit}/scale{scale}/mnist_{digit}_scale{scale:02}_{number:04}.aedat"
            )
            write_aedat(root / name, x, np.full(events, 50 + digit), np.arange(events) % 2, time)


def utterances(speakers, digits="oz123456789", takes="ab"):
    """Single digits of every speaker, and one sequence each; channel and times tell the digit."""
    for speaker in speakers:
        for take in takes:
            for place, digit in enumerate(digits):
                times = 0.1 + np.arange(40) * 0.01
                yield f"{speaker}-{take}-{digit}", np.full(40, 4 * place), times
        yield f"{speaker}-a-12z", np.zeros(3, int), np.array([0.1, 0.2, 0.3])


MANY = [f"man-a{c}" for c in "abcdef"] + [f"woman-c{c}" for c in "abcdef"]
FEW = MANY[:3]
TESTED = ["man-xa", "woman-ya"]


def make(root, speakers=MANY, per_digit=10, scale=4, tested=TESTED):
    write_pictures(root / "mnist-dvs", per_digit, scale)
    ntidigits.write_ntidigits(root / ds.SOUNDS, utterances(speakers), utterances(tested))
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make(tmp_path_factory.mktemp("dvs"))


def by_split(plan):
    return {s: [i for i in plan.items if i.split == s] for s in ("train", "val", "test")}


def test_clean_has_nothing_and_nobody_in_two_splits(root):
    plan = ds.plan("clean", 0, None, root)
    of = by_split(plan)
    assert {s: len(own) for s, own in of.items()} == {"train": 220, "val": 20, "test": 40}
    assert overlaps(plan.items) == {}
    assert all(set(i.groups) == {"speaker", "utterance", "recording"} for i in plan.items)
    assert {i.groups["speaker"] for i in of["test"]} == set(TESTED)
    assert len({i.groups["speaker"] for i in of["val"]}) == 1
    assert "validation" not in plan.meta
    assert plan.meta["defects"] == []
    assert not any("stand-in" in note or "other recordings" in note for note in plan.meta["notes"])


def test_every_sound_and_picture_of_a_split_is_used_about_equally_often(root):
    for own in by_split(ds.plan("clean", 3, None, root)).values():
        for digit in range(10):
            pairs = [i for i in own if i.label == digit]
            heard = Counter(i.sources["audio"] for i in pairs)
            seen = Counter(i.sources["visual"] for i in pairs)
            assert len(pairs) == max(len(heard), len(seen))
            assert max(heard.values()) - min(heard.values()) <= 1
            assert max(seen.values()) - min(seen.values()) <= 1


def test_the_first_pairs_are_balanced_and_limited_in_proportion(root):
    plan = ds.plan("clean", 0, 140, root)
    of = by_split(plan)
    assert {s: len(own) for s, own in of.items()} == {"train": 110, "val": 10, "test": 20}
    assert all([i.label for i in own[:10]] == list(range(10)) for own in of.values())
    whole = {i.name: i for i in ds.plan("clean", 0, None, root).items}
    assert all(whole[i.name] == i for i in plan.items)
    with pytest.raises(DataError, match="limit 281.*40 to 280"):
        ds.plan("clean", 0, 281, root)


def test_few_speakers_validate_on_other_recordings_and_say_so(tmp_path):
    plan = ds.plan("clean", 0, None, make(tmp_path, FEW))
    found = overlaps(plan.items)
    assert set(found) == {"speaker"}
    assert all("test" not in s for s in found["speaker"].values())
    assert any("3 training speakers: validation hears other" in n for n in plan.meta["notes"])


def test_training_sounds_of_a_tested_speaker_are_left_out(tmp_path):
    plan = ds.plan("clean", 0, None, make(tmp_path, [*MANY, "man-xa"]))
    assert overlaps(plan.items) == {}
    assert any(note.startswith("20 training sounds of speakers") for note in plan.meta["notes"])


def test_seeds_deal_anew_and_the_same_seed_the_same(root):
    first, same, other = (ds.plan("clean", seed, None, root) for seed in (0, 0, 1))
    assert first.items == same.items != other.items
    assert ds.plan("default", 0, None, root).items == first.items


def test_paper_halves_pictures_and_repeats_sounds(root):
    plan = ds.plan("paper", 0, None, root)
    of = by_split(plan)
    assert {s: len(own) for s, own in of.items()} == {"train": 50, "val": 0, "test": 50}
    assert plan.meta["validation"] == "test"
    assert all(len({i.groups["recording"] for i in own}) == len(own) for own in (of["train"],))
    assert "recording" not in overlaps(plan.items)
    for digit in (0, 7):  # the i-th of the file's own order, from the start again at its end
        ids = [
            n for n, _, _ in utterances(TESTED) if n.endswith("-z" if not digit else f"-{digit}")
        ]
        ids = [n for n in ids if len(ntidigits.parse_id(n).digits) == 1]
        heard = [i.groups["utterance"] for i in of["test"] if i.label == digit]
        assert heard == [f"test/{ids[i % len(ids)]}" for i in range(5)]
    assert any("50 test pairs 40" in defect for defect in plan.meta["defects"])
    assert any("chosen on the test set" in defect for defect in plan.meta["defects"])


def test_oh_is_dropped_zero_is_0_and_sequences_are_no_sample(root):
    items = ds.plan("clean", 0, None, root).items
    ends = {(i.label, i.groups["utterance"].rpartition("-")[2]) for i in items}
    assert ends == {(0, "z"), *((d, str(d)) for d in range(1, 10))}


def test_a_pair_is_converted(root):
    plan = ds.plan("clean", 0, None, root)
    item = next(i for i in plan.items if i.label == 3)
    made = ds.convert(root, item)
    assert made.audio["channel"].dtype == np.uint8
    assert set(made.audio["channel"]) == {16}
    assert made.audio["time"].tolist() == [10_000 * i for i in range(40)]
    number = int(item.groups["recording"].rpartition("-")[2])
    assert made.visual["x"].tolist() == [i % 28 for i in range(64)]  # 47 is pixel 0
    assert set(made.visual["y"]) == {53 - 47}
    assert made.visual["p"].tolist() == [0, 1] * 32  # ON where the bit is clear
    assert made.visual["time"].dtype == np.uint32
    assert made.visual["time"].tolist() == [1000 * number * i for i in range(64)]
    assert made.source["voice"] == item.groups["speaker"].encode()


@pytest.mark.parametrize(("scale", "first", "size"), [(4, 47, 1), (8, 33, 2), (16, 5, 4)])
def test_larger_scales_are_cut_wider_and_binned(tmp_path, scale, first, size):
    file = tmp_path / f"mnist_0_scale{scale:02}_0001.aedat"
    last = first + 28 * size - 1
    x = [first - 1, first, first + size, last, last + 1]
    write_aedat(file, x, [first, first, last, last, 60], [1] * 5, [10, 20, 30, 40, 50])
    found = ds._seen(file, "")
    assert found["x"].tolist() == [0, 1, 27]
    assert found["y"].tolist() == [0, 27, 27]
    assert found["time"].tolist() == [0, 10, 20]
    assert pairs.recording(0, Source(f"grabbed_data0/scale{scale}/{file.name}")) == "mnist-0-0001"


def test_scales_are_presets(tmp_path):
    root = make(tmp_path, FEW, per_digit=3, scale=8)
    assert len(ds.plan("clean-scale8", 0, None, root).items) > 0
    with pytest.raises(DataError, match="no recordings of MNIST-DVS at scale 4 of any digit"):
        ds.plan("clean", 0, None, root)
    assert ds.PRESETS["paper-scale16"] == ds.Preset("paper", 16)


def test_the_processed_file_is_read_where_there_are_no_raw_ones(tmp_path):
    scipy = pytest.importorskip("scipy.io")
    cells = np.empty((1, 40), object)
    for i in range(40):
        pixel = np.arange(30) % 28 + 1  # MATLAB counts from 1
        cells[0, i] = np.column_stack([np.arange(30) * 500.0 + 7, pixel * 0, pixel * 0, pixel,
                                       pixel[::-1], np.where(pixel % 2, 1, -1)])  # fmt: skip
    labels = np.repeat(np.arange(10), 4)[None]
    file = tmp_path / "MNIST_DVS_28x28_10000_full.mat"
    scipy.savemat(file, {"CINs": cells, "Labels": labels.astype(float)})
    ntidigits.write_ntidigits(tmp_path / ds.SOUNDS, utterances(FEW), utterances(TESTED))
    plan = ds.plan("clean", 0, None, tmp_path)
    assert overlaps(plan.items).keys() == {"speaker"}
    item = plan.items[13]
    assert item.groups["recording"] in {f"mnist-{item.label}-{4 * item.label + i:05}"
                                        for i in range(4)}  # fmt: skip
    seen = ds.convert(tmp_path, item).visual
    assert seen["x"].tolist() == [i % 28 for i in range(30)]
    assert seen["time"].tolist() == [500 * i for i in range(30)]
    assert seen["p"].tolist() == [1 if (i % 28 + 1) % 2 else 0 for i in range(30)]
    with pytest.raises(DataError, match="at scale 8"):
        ds.plan("clean-scale8", 0, None, tmp_path)


def test_a_recording_without_events_in_the_middle_is_an_error(tmp_path):
    file = tmp_path / "mnist_0_scale04_0001.aedat"
    write_aedat(file, [3], [3], [1], [10])
    with pytest.raises(DataError, match="scale04_0001.*no events where the digit is"):
        ds._seen(file, "")


def test_what_is_missing_is_said_with_its_source(tmp_path):
    for missing in (None, tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError, match=r"MNIST_DVS.*n-tidigits.hdf5.*360a2d11"):
            ds.plan("clean", 0, None, missing)
    write_pictures(tmp_path, 3)
    with pytest.raises(DataError, match="no n-tidigits.hdf5 in it nor in ntidigits/"):
        ds.plan("clean", 0, None, tmp_path)
    (tmp_path / ds.SOUNDS).write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(FileFormatError, match="n-tidigits.hdf5"):
        ds.plan("clean", 0, None, tmp_path)
    for file in (tmp_path / "grabbed_data4").rglob("*.aedat"):
        file.unlink()
    with pytest.raises(DataError, match="at scale 4 of digit 4;"):
        ds.plan("clean", 0, None, tmp_path)


def test_a_digit_nobody_says_is_an_error(tmp_path):
    write_pictures(tmp_path, 3)
    ntidigits.write_ntidigits(
        tmp_path / ds.SOUNDS, utterances(FEW, "z12345678"), utterances(TESTED)
    )
    with pytest.raises(DataError, match="train part has no isolated digit 9"):
        ds.plan("clean", 0, None, tmp_path)


def test_parameters_tell_files_apart_but_know_the_published(root, tmp_path, monkeypatch):
    stated = ds.parameters("clean", 0, None, root)
    assert stated["files"] != "published" == ds.parameters("clean", 0, None)["files"]
    assert ds.parameters("clean", 0, None, root) == stated
    monkeypatch.setattr(ds, "PER_DIGIT", 10)
    assert ds.parameters("clean", 0, None, root)["files"] == "published"
    monkeypatch.undo()
    (root / ds.STANDIN).write_text("made of other things")
    try:
        assert ds.parameters("clean", 0, None, root) == stated
        notes = ds.plan("clean", 0, None, root).meta["notes"]
        assert notes[0] == "stand-in: made of other things"
    finally:
        (root / ds.STANDIN).unlink()
    for arguments, message in (
        (("clear", 0, None), "did you mean 'clean'"),
        (("clean", -1, None), "data seed -1"),
        (("clean", 0, 39), "limit 39"),
    ):
        with pytest.raises(DataError, match=message):
            ds.parameters(*arguments)


def test_counts_other_than_the_published_are_noted(root):
    notes = ds.plan("paper", 0, None, root).meta["notes"]
    assert any(n.startswith("100 recordings of digits (10 to 10 each), published") for n in notes)
    assert any("has md5" in note for note in notes)


def test_frames_are_28_by_28_and_nothing_else():
    assert ds.spec(16, 16) == ds.spec(16, 28)
    assert ds.spec(4, 28).visual_shape == (4, 2, 28, 28)
    with pytest.raises(ConfigError, match="visual_size 32.*28x28 only"):
        ds.spec(16, 32)


def test_it_is_prepared_and_loaded(root, tmp_path):
    assert ds.NAME in catalogue.DATASETS
    data = catalogue.load(ds.NAME, preset="paper", cache_dir=tmp_path, data_root=root,
                          spec=ds.spec(4, 28))  # fmt: skip
    assert isinstance(data, AVData)
    assert len(data.split("train")) == 50
    val, test = data.split("val").frames(), data.split("test").frames()
    assert val.labels.tolist() == test.labels.tolist()
    assert len(val.labels) == 50
    np.testing.assert_array_equal(val.visual, test.visual)
    assert test.audio.any()
    assert test.visual.any()
    assert data.split("test").raw_events(0)["source"]["voice"].decode() in TESTED
    assert data.augmentation.image_shift == 2
    assert not data.augmentation.drop
