"""UrbanSound8K-AV: pairs by name, its three protocols, sounds of any rate and channels."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from still_files import plain, slice_names, tone, urban_tree, write_jpg, write_wav

from neuroav import data
from neuroav.data import ledger, spectrograms
from neuroav.data.cache import read
from neuroav.data.plans import Item
from neuroav.data.protocols import overlaps
from neuroav.data.published import urbansound8k as us
from neuroav.errors import DataError

SLICES = {
    "car_horn": slice_names(1, range(100, 110)),
    "siren": slice_names(8, range(200, 210)),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Two classes of ten recordings, two slices each."""
    folder = tmp_path_factory.mktemp("urban")
    urban_tree(folder, SLICES)
    return folder


def items(count: dict[int, int]) -> list[Item]:
    """Items of so many slices by label, ten to a recording."""
    return [
        Item(f"{label}{n // 10:04d}-{label}-0-{n}", label, "train", {},
             {"recording": f"{label}{n // 10:04d}"})
        for label, total in count.items()
        for n in range(total)
    ]  # fmt: skip


PUBLISHED = dict(enumerate((1000, 429, 1000, 1000, 1000, 1000, 374, 1000, 929, 1000)))


def test_parts_of_a_name():
    assert us.parse_slice("126153-9-0-6") == us.Slice("126153", 9)
    for wrong in ("126153-9-0", "126153_9_0_6", "x-9-0-6", "126153-10-0-6"):
        with pytest.raises(DataError, match="here: slice .*needs <fsID>-<classID>"):
            us.parse_slice(wrong, "here")


def test_paper_gives_the_published_sizes():
    """70 % of each class, rounded: the 2,620 test slices that the published figures fit."""
    split = us._first_share(items(PUBLISHED))
    assert Counter(split.values()) == us.PUBLISHED_SIZES == {"train": 6112, "test": 2620}
    for right, printed in ((2571, 98.13), (2565, 97.90), (2557, 97.60), (2553, 97.44)):
        assert round(100 * right / 2620, 2) == printed


def test_clean_keeps_recordings_apart_and_classes_even():
    found = items(PUBLISHED)
    for seed in (0, 1, 2):
        split = us._dealt(found, seed)
        dealt = us.trees.with_splits(found, split)
        assert overlaps(dealt) == {}
        for label, total in PUBLISHED.items():
            sizes = Counter(i.split for i in dealt if i.label == label)
            for name, share in us.SHARES.items():
                assert abs(sizes[name] / total - share) < 0.03  # a recording is up to 2.7 %
    assert us._dealt(found, 0) != us._dealt(found, 1)


def test_a_recording_of_two_classes_is_in_one_split():
    found = items({0: 200, 1: 200})
    both = [Item(f"77-{n % 2}-0-{n}", n % 2, "train", {}, {"recording": "77"}) for n in range(5)]
    for seed in range(6):
        dealt = us.trees.with_splits([*found, *both], us._dealt([*found, *both], seed))
        assert overlaps(dealt) == {}


def test_too_few_recordings_of_a_class_are_an_error(tmp_path):
    urban_tree(tmp_path, {"siren": slice_names(8, [1, 2])})
    with pytest.raises(DataError, match=r"class siren, recordings: .*at least 3 groups, found 2"):
        us.plan("clean", 0, None, tmp_path)


def test_plan_of_the_paper(root):
    plan = us.plan("paper", 0, None, root)
    for kind in SLICES:
        names = sorted(SLICES[kind])
        mine = {i.name: i.split for i in plan.items if i.label == us.CLASSES.index(kind)}
        assert {n for n, s in mine.items() if s == "train"} == set(names[:14])
        assert set(mine) == set(names)
    assert plan.meta["validation"] == "test"
    said = " ".join(plan.meta["defects"])
    assert "order of the file system" in said
    assert "no validation set" in said
    assert "the published figures fit 6112 and 2620" in " ".join(plan.meta["notes"])


def test_paper_says_which_recordings_are_in_both_sets(tmp_path):
    urban_tree(tmp_path, {"siren": slice_names(8, [1, 2], 5)})  # cut after 7 of 10 slices
    plan = us.plan("paper", 0, None, tmp_path)
    assert plan.meta["defects"][0].startswith("1 recordings have slices in more than one set; 3 ")


def test_plan_of_clean(root):
    plan = us.plan("default", 1, None, root)
    assert Counter(i.split for i in plan.items) == {"train": 28, "val": 4, "test": 8}
    assert overlaps(plan.items) == {}
    assert plan.meta["defects"] == []
    assert "validation" not in plan.meta
    assert len({i.label for i in plan.items[:8]}) == 2
    assert plan.meta["preset"] == "clean"


def write_folds(path, names, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ["slice_file_name,fsID,start,end,salience,fold,classID,class"]
    for n in names:
        fs, kind = n.split("-")[:2]
        rows.append(
            f"{n}.wav,{fs},0.0,0.317551,1,{int(fs) % 10 + 1},{kind},{us.CLASSES[int(kind)]}"
        )
    path.write_text("\n".join([*rows, text]) + "\n")


def test_folds_are_those_of_the_table(tmp_path):
    urban_tree(tmp_path, SLICES)
    with pytest.raises(DataError, match="presets folds-1 to folds-10 need metadata/UrbanSound8K"):
        us.plan("folds-3", 0, None, tmp_path)
    names = [n for slices in SLICES.values() for n in slices]
    write_folds(tmp_path / "UrbanSound8K/metadata/UrbanSound8K.csv", names)
    for tested, validated in ((3, 4), (10, 1)):
        plan = us.plan(f"folds-{tested}", 0, None, tmp_path)
        fold = {i.name: int(i.groups["recording"]) % 10 + 1 for i in plan.items}
        for wanted, number in (("test", tested), ("val", validated)):
            found = {i.name for i in plan.items if i.split == wanted}
            assert found == {n for n, f in fold.items() if f == number}
            assert len(found) == 4
        assert plan.meta["defects"] == []


def test_a_table_without_the_column_fsid(tmp_path):
    urban_tree(tmp_path, SLICES)
    path = tmp_path / "metadata/UrbanSound8K.csv"
    path.parent.mkdir()
    path.write_text("slice_file_name,fold\n1-8-0-0.wav,1\n1-8-0-0.wav,1\n")
    with pytest.raises(DataError, match=r"line 3: 1-8-0-0\.wav comes twice"):
        us.plan("folds-1", 0, None, tmp_path)


def test_the_table_is_held_against_the_ledger(tmp_path):
    urban_tree(tmp_path, SLICES)
    names = [n for slices in SLICES.values() for n in slices]
    path = tmp_path / "metadata/UrbanSound8K.csv"
    write_folds(path, names)
    plan = us.plan("folds-3", 0, None, tmp_path)
    assert plan.meta["lists"] == {"metadata/UrbanSound8K.csv": list(ledger.stamp(path))}
    before = us.parameters("folds-3", 0, None, tmp_path), us.parameters("clean", 0, None, tmp_path)
    path.write_text(path.read_text() + "\n")
    assert us.parameters("folds-3", 0, None, tmp_path) != before[0]
    assert us.parameters("clean", 0, None, tmp_path) == before[1]
    assert us.parameters("folds-3", 0, None)["files"] == "published"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1-8-0-0.wav,1,0,1,1,11,8,siren", "line 42: .*fold '11'"),
        ("1-8-0-0.wav,2,0,1,1,1,8,siren", "line 42: .*of fsID 2"),
        ("100-1-0-0.wav,100,0,1,1,1,1,car_horn", "line 42: .*comes twice"),
        ("x.wav,1,0,1,1,1,8,siren", "line 42: slice 'x'"),
    ],
)
def test_a_table_that_is_wrong(root, tmp_path, text, said):
    urban_tree(tmp_path, SLICES)
    names = [n for slices in SLICES.values() for n in slices]
    write_folds(tmp_path / "metadata/UrbanSound8K.csv", names, text)
    with pytest.raises(DataError, match=said):
        us.plan("folds-1", 0, None, tmp_path)


def test_a_table_that_lacks_a_slice(tmp_path):
    urban_tree(tmp_path, SLICES)
    write_folds(tmp_path / "UrbanSound8K-AV/metadata/UrbanSound8K.csv", SLICES["siren"])
    with pytest.raises(DataError, match=r"no row of 20 slices, 100-1-0-0.wav first"):
        us.plan("folds-1", 0, None, tmp_path)


# --- pairs and traps ---------------------------------------------------------------------------
def test_orphans_are_left_out_and_listed(tmp_path):
    base = urban_tree(tmp_path, SLICES)
    (base / "Dataset_v3_vision/siren/200-8-0-0.jpg").unlink()
    (base / "Dataset_v3_sound/car_horn/109-1-0-1.wav").unlink()
    plan = us.plan("clean", 0, None, tmp_path)
    assert len(plan.items) == 38
    assert set(plan.meta["orphans"]) == {"siren/200-8-0-0", "car_horn/109-1-0-1"}
    assert "no picture" in plan.meta["orphans"]["siren/200-8-0-0"]
    assert "2 files have no partner" in " ".join(plan.meta["notes"])


def test_the_same_name_in_another_class_is_no_pair(tmp_path):
    base = urban_tree(tmp_path, SLICES)
    moved = base / "Dataset_v3_vision/siren/200-8-0-0.jpg"
    moved.rename(base / "Dataset_v3_vision/car_horn/200-8-0-0.jpg")
    lacking = us.plan("clean", 0, None, tmp_path).meta["orphans"]
    assert set(lacking) == {"siren/200-8-0-0", "car_horn/200-8-0-0"}


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            ("dog_bark", "5-8-0-0", "jpg"),
            r"dog_bark \(class 3\), its name says class 8, siren",
        ),
        (("siren", "5-8-0", "jpg"), "slice '5-8-0': needs"),
        (("sirens", "5-8-0-0", "jpg"), "sirens: is no class; allowed: air_conditioner"),
    ],
)
def test_what_does_not_belong_is_named(tmp_path, made, said):
    base = urban_tree(tmp_path, SLICES)
    kind, name, suffix = made
    write_wav(base / f"Dataset_v3_sound/{kind}/{name}.wav", tone(300), 16000)
    write_jpg(base / f"Dataset_v3_vision/{kind}/{name}.{suffix}", plain(3))
    with pytest.raises(DataError, match=said):
        us.plan("clean", 0, None, tmp_path)


def test_two_pictures_of_one_name(tmp_path):
    base = urban_tree(tmp_path, SLICES)
    write_jpg(base / "Dataset_v3_vision/siren/200-8-0-0.png", plain(3))
    with pytest.raises(DataError, match="200-8-0-0.png and .*two files of one name"):
        us.plan("clean", 0, None, tmp_path)


def test_a_root_without_the_folders(tmp_path):
    (tmp_path / "UrbanSound8K-AV/Dataset_v3_sound").mkdir(parents=True)
    with pytest.raises(DataError, match="Dataset_v3_vision/<class>/<name>.jpg"):
        us.plan("clean", 0, None, tmp_path)
    for folder in (us.SOUNDS, us.PICTURES):
        (tmp_path / folder / "siren").mkdir(parents=True)
    with pytest.raises(DataError, match="no slice has a sound and a picture"):
        us.plan("clean", 0, None, tmp_path)


def test_sounds_of_any_rate_and_channels(root):
    """Every second slice is stereo, its right channel silent: the mean has half the loudness."""
    items = {i.name: i for i in us.plan("clean", 0, None, root).items}
    for n, name in enumerate(SLICES["siren"][:6]):
        rate = (8000, 22050, 44100)[n % 3]
        sound = np.rint(tone(400, rate) * 32767) / 32768 / (2 if n % 2 else 1)
        expected = spectrograms.log_spectrogram(sound, rate, "")
        found = us.convert(root, items[name])
        np.testing.assert_allclose(found.audio["level"].reshape(128, 128), expected, atol=2e-3)
        assert found.visual["pixel"].shape == (36 * 48 * 3,)
        np.testing.assert_array_equal(found.source["visual_size"], [36, 48])


def test_prepared(root, tmp_path):
    path = data.prepare(
        "urbansound8k-av", preset="paper", cache_dir=tmp_path, data_root=root, limit=6
    )
    stored = read(path, "")
    assert Counter(stored.split.tolist()) == {0: 4, 2: 2}
    assert stored.meta["validation"] == "test"
    assert stored.meta["classes"] == list(us.CLASSES)


def test_presets_and_spec():
    assert us.INFO.presets[:3] == ("default", "clean", "paper")
    assert "folds-10" in us.INFO.presets
    with pytest.raises(DataError, match="unknown preset of urbansound8k-av 'folds-11'"):
        us.parameters("folds-11", 0, None)
    assert us.spec(4, 128).visual_shape == (4, 3, 128, 128)
    same = [us.parameters(p, 0, None) for p in ("default", "clean")]
    assert same[0] == same[1] != us.parameters("paper", 0, None)
