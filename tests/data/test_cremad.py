"""CREMA-D: names, frames, protocols and the clips that its publishers call broken."""

from __future__ import annotations

import csv
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from still_files import (
    clip_names,
    cremad_tree,
    plain,
    tone,
    write_flv,
    write_jpg,
    write_lists,
    write_wav,
)

from neuroav import data
from neuroav.data import catalogue, spectrograms
from neuroav.data.cache import read
from neuroav.data.plans import Broken, Item, Source
from neuroav.data.protocols import deal_groups, overlaps
from neuroav.data.published import cremad, cremad_names
from neuroav.errors import DataError, FileFormatError

ACTORS = range(1001, 1006)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Five actors, six clips each, pictures already taken."""
    folder = tmp_path_factory.mktemp("cremad")
    cremad_tree(folder, clip_names(ACTORS))
    return folder


# --- names -------------------------------------------------------------------------------------
def test_parts_of_a_name():
    clip = cremad.parse_clip("1091_IEO_SAD_HI")
    assert (clip.actor, clip.sentence, clip.emotion, clip.level) == ("1091", "IEO", "SAD", "HI")
    assert clip.label == 5
    assert cremad.parse_clip("1001_IEO_NEU_XX").label == 4


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("1092_DFA_ANG_XX", "actor is '1092', allowed: 1001 to 1091"),
        ("1001_XYZ_ANG_XX", "sentence is 'XYZ', allowed: DFA, IEO"),
        ("1001_DFA_JOY_XX", "emotion is 'JOY', allowed: ANG, DIS"),
        ("1001_DFA_ANG_HI", "level of DFA_ANG is 'HI', allowed: XX"),
        ("1001_IEO_ANG_XX", "level of IEO_ANG is 'XX', allowed: LO, MD, HI"),
        ("1001_IEO_NEU_LO", "level of IEO_NEU is 'LO', allowed: XX"),
        ("1001_DFA_ANG", "has 3 parts"),
    ],
)
def test_the_wrong_part_of_a_name_is_named(name, said):
    with pytest.raises(DataError, match="here.wav: clip") as error:
        cremad.parse_clip(name, "here.wav")
    assert said in str(error.value)


@pytest.fixture(scope="module")
def table(recordings):
    """The 7,442 published names."""
    with (recordings / "cremad_tables/SentenceFilenames.csv").open(newline="") as file:
        return [row["Filename"] for row in csv.DictReader(file)]


def test_every_published_name_is_read(table):
    clips = [cremad.parse_clip(name) for name in table]
    assert len(set(table)) == len(clips) == 7442
    emotions = Counter(clip.emotion for clip in clips)
    assert emotions == dict.fromkeys(("ANG", "DIS", "FEA", "HAP", "SAD"), 1271) | {"NEU": 1087}
    levels = Counter(clip.level for clip in clips)
    assert levels == {"LO": 455, "MD": 455, "HI": 455, "XX": 6077}
    assert {clip.actor for clip in clips} == set(cremad_names.ACTORS)
    assert {clip.sentence for clip in clips} == set(cremad_names.SENTENCES)
    assert {clip.sentence for clip in clips if clip.level != "XX"} == {"IEO"}
    known = {*cremad.NO_SOUND, *cremad.RUNS_ON, *cremad.CUT_SHORT}
    assert known < set(table)


@pytest.mark.parametrize("seed", [0, 1, 2, 7, 1234])
def test_no_published_actor_is_in_two_clean_splits(table, seed):
    nothing = Source("")
    found = cremad._Found("", dict.fromkeys(table, nothing), dict.fromkeys(table, nothing), {})
    items = [cremad._item(name, found) for name in table]
    split = cremad._dealt(items, seed)
    items = [Item(i.name, i.label, split[i.name], i.sources, i.groups) for i in items]
    assert overlaps(items) == {}
    actors = {s: {i.groups["actor"] for i in items if i.split == s} for s in cremad.SHARES}
    assert sum(map(len, actors.values())) == len(cremad_names.ACTORS)
    for name, share in cremad.SHARES.items():
        mine = [i for i in items if i.split == name]
        assert abs(len(mine) / 7442 - share) < 0.01  # an actor has 82 clips, 1.1 %
        labels = Counter(i.label for i in mine)
        assert min(labels.values()) > 0.13 * len(mine)


def test_other_seeds_test_other_actors(table):
    actors = [name[:4] for name in table]
    tested = [
        frozenset(a for a, s in deal_groups(actors, cremad.SHARES, seed).items() if s == "test")
        for seed in range(5)
    ]
    assert len(set(tested)) == 5


# --- the three layouts -------------------------------------------------------------------------
def test_clean_keeps_actors_apart(root):
    plan = cremad.plan("clean", 3, None, root)
    assert len(plan.items) == 30
    assert Counter(i.split for i in plan.items) == {"train": 18, "val": 6, "test": 6}
    assert overlaps(plan.items) == {}
    assert plan.meta["protocol"] == "clean"
    assert plan.meta["layout"] == "stills"
    assert "validation" not in plan.meta
    assert plan.meta["defects"] == []
    again = cremad.plan("default", 3, None, root)
    assert [i.split for i in again.items] == [i.split for i in plan.items]
    assert again.meta == plan.meta
    other = {i.name: i.split for i in cremad.plan("clean", 4, None, root).items}
    assert {i.name: i.split for i in plan.items} != other


def test_the_first_of_a_split_are_a_sample_of_it(root):
    items = [i for i in cremad.plan("clean", 0, None, root).items if i.split == "train"]
    assert len({i.label for i in items[:8]}) > 3
    assert len({i.groups["actor"] for i in items[:8]}) > 1
    few = cremad.plan("clean", 0, 10, root).items
    assert Counter(i.split for i in few) == {"train": 6, "val": 2, "test": 2}
    assert [i.name for i in few if i.split == "train"] == [i.name for i in items[:6]]


def test_prepared_samples_hold_picture_and_spectrogram(root, tmp_path):
    path = data.prepare("cremad", preset="clean", cache_dir=tmp_path, data_root=root, limit=6)
    stored = read(path, "")
    assert len(stored.labels) == 6
    assert stored.meta["classes"][0] == "anger"
    np.testing.assert_array_equal(stored.source["visual_size"], [(36, 48)] * 6)
    item = cremad.plan("clean", 0, 6, root).items[0]
    level = stored.audio.one(0)["level"].reshape(128, 128)
    sound = np.rint(tone(300 * (item.label + 1)) * 32767) / 32768
    expected = spectrograms.log_spectrogram(sound, 16000, "")
    np.testing.assert_allclose(level, expected, atol=1e-4)
    loaded = data.load(
        "cremad", preset="clean", cache_dir=tmp_path, data_root=root, limit=6,
        spec=data.frame_spec("cremad", steps=2, visual_size=128),
    )  # fmt: skip
    frames = loaded.split("test").frames()
    assert frames.visual.shape[1:] == (2, 3, 128, 128)
    assert frames.audio.shape[1:] == (2, 1, 128, 128)


def test_one_of_the_pictures_per_second_by_seed_and_name(root, tmp_path):
    names = clip_names(ACTORS)
    base = cremad_tree(tmp_path, names, "CREMA-D")
    for name in names:
        for second in (1, 2):
            write_jpg(base / f"Image-01-FPS/{name}/{second:05d}.jpg", plain(second))

    def taken(seed):
        items = cremad.plan("clean", seed, None, tmp_path).items
        return {i.name: i.sources["visual"].file[-9:] for i in items}

    first = taken(0)
    assert first == taken(0)
    assert set(first.values()) == {"00000.jpg", "00001.jpg", "00002.jpg"}
    assert first != taken(1)


def test_orphans_are_left_out_and_listed(root, tmp_path):
    base = cremad_tree(tmp_path, clip_names(ACTORS))
    (base / "AudioWAV/1001_DFA_ANG_XX.wav").unlink()
    (base / "Image-01-FPS/1002_DFA_SAD_XX/00000.jpg").unlink()
    (base / "AudioWAV/._1003_DFA_SAD_XX.wav").write_bytes(b"left by an archiver")
    plan = cremad.plan("clean", 0, None, tmp_path)
    assert len(plan.items) == 28
    assert plan.meta["orphans"] == {
        "1001_DFA_ANG_XX": "has a picture, no sound of this name",
        "1002_DFA_SAD_XX": "has a sound, no picture of this name",
    }


@pytest.mark.parametrize("how", ["none", "no folder", "nothing in it"])
def test_what_the_root_must_hold_is_said(tmp_path, how):
    given = {"none": None, "no folder": tmp_path / "x", "nothing in it": tmp_path}[how]
    with pytest.raises(DataError, match="AudioWAV/<clip>.wav"):
        cremad.plan("clean", 0, None, given)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"preset": "papr"}, "did you mean 'paper'"),
        ({"data_seed": -1}, "data seed -1"),
        ({"limit": 2}, "limit 2"),
    ],
)
def test_parameters_that_are_not_allowed(chosen, said):
    given = {"preset": "clean", "data_seed": 0, "limit": None} | chosen
    with pytest.raises(DataError, match=said):
        cremad.parameters(**given)


def test_a_name_that_is_no_clip(tmp_path):
    base = cremad_tree(tmp_path, clip_names(ACTORS))
    write_wav(base / "AudioWAV/1001_DFA_JOY_XX.wav", tone(300), 16000)
    write_jpg(base / "Image-01-FPS/1001_DFA_JOY_XX/00000.jpg", plain(3))
    with pytest.raises(DataError, match=r"1001_DFA_JOY_XX.wav: clip .*emotion is 'JOY'"):
        cremad.plan("clean", 0, None, tmp_path)


# --- as published ------------------------------------------------------------------------------
def test_paper_is_the_release_with_its_defects(root, tmp_path):
    names = clip_names(ACTORS)
    base = cremad_tree(tmp_path, names)
    write_lists(base, names[::2], names[1::2])
    plan = cremad.plan("paper", 0, None, tmp_path)
    assert {i.name for i in plan.items if i.split == "test"} == set(names[1::2])
    assert {i.split for i in plan.items} == {"train", "test"}
    assert plan.meta["validation"] == "test"
    assert plan.meta["defects"][0].startswith("5 of 5 actors are in both sets")
    said = " ".join(plan.meta["defects"])
    for word in ("no validation set", "middle quarter", "unseeded"):
        assert word in said
    assert "published ones 6698 and 744" in " ".join(plan.meta["notes"])
    path = data.prepare("cremad", preset="paper", cache_dir=tmp_path, data_root=tmp_path, limit=6)
    loaded = data.load(
        "cremad", preset="paper", cache_dir=tmp_path, limit=6, data_root=tmp_path,
        spec=data.frame_spec("cremad", steps=1, visual_size=32),
    )  # fmt: skip
    assert path.exists()
    assert len(loaded.split("val")) == len(loaded.split("test")) == 3
    np.testing.assert_array_equal(loaded.split("val").rows, loaded.split("test").rows)


def test_what_there_is_decides_which_file_is_meant(tmp_path):
    """More clips, other pictures or other lists are another prepared file; two names are one."""
    root, cache_dir = tmp_path / "data", tmp_path / "cache"
    base = cremad_tree(root, clip_names([1001, 1002, 1003]))
    write_lists(base, clip_names([1001, 1002]), clip_names([1003]))

    def path(preset):
        return data.cache_path("cremad", preset=preset, data_root=root, cache_dir=cache_dir)

    assert path("default") == path("clean")
    made = data.prepare("cremad", preset="paper", data_root=root, cache_dir=cache_dir)
    found = {path("clean"), path("paper")}
    sizes = catalogue.check("cremad", preset="paper", data_root=root, cache_dir=cache_dir)
    assert (sizes["problems"], sizes["sources"]) == ([], 3 * 12 + 2)
    write_lists(base, clip_names([1001]), clip_names([1002, 1003]))
    assert path("paper") not in found
    found.add(path("paper"))
    problems = catalogue.check(
        "cremad", preset="paper", data_root=root, cache_dir=cache_dir
    )["problems"]  # fmt: skip
    assert f"holds other files than those that {made} was made of" in problems[0]
    assert [p.split()[0] for p in problems[1:]] == [
        str(base / f"{n}.csv") for n in ("test", "train")
    ]
    with pytest.raises(DataError, match=r"test\.csv was .*--accept-changed"):
        data.prepare("cremad", preset="paper", data_root=root, cache_dir=cache_dir)
    cremad_tree(root, clip_names([1004]))
    assert {path("clean"), path("paper")}.isdisjoint(found)


def test_paper_needs_the_lists(root):
    with pytest.raises(DataError, match=r"train.csv and test.csv.*6698 and 744.*'clean'"):
        cremad.plan("paper", 0, None, root)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1001_DFA_ANG_XX,SAD", "train.csv line 3: clip '1001_DFA_ANG_XX' is called 'SAD'"),
        ("1001_DFA_ANG_XX", "1 columns"),
        ("1001_DFA_SAD_XX,SAD", "listed twice"),
        ("1001_DFA_DIS_XX,DIS", "is in train.csv too"),
        ("1090_DFA_DIS_XX,DIS", "1 clips of the published lists have no sound"),
        ("1001_DFA_DIS,DIS", "line 3: clip '1001_DFA_DIS' has 3 parts"),
    ],
)
def test_lists_that_are_not_the_published_ones(tmp_path, line, said):
    base = cremad_tree(tmp_path, clip_names([1001]))
    write_lists(base, ["1001_DFA_SAD_XX", "1001_DFA_HAP_XX"], ["1001_DFA_DIS_XX"])
    with (base / "train.csv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError) as error:
        cremad.plan("paper", 0, None, tmp_path)
    assert said in str(error.value)


@pytest.mark.parametrize("there", [True, False])
def test_the_listed_clip_without_sound_is_left_out(tmp_path, there):
    """Whether or not its useless file is there."""
    (silent,) = cremad.NO_SOUND
    names = clip_names([1001, 1076])
    base = cremad_tree(tmp_path, sorted({*names, silent}))
    sound = base / f"AudioWAV/{silent}.wav"
    if there:
        sound.write_bytes(b"")
    else:
        sound.unlink()
    write_lists(base, [*names[::2], silent], names[1::2])
    path = data.prepare("cremad", preset="paper", cache_dir=tmp_path, data_root=tmp_path)
    stored = read(path, "")
    assert len(stored.labels) == len(names)
    said = stored.meta["skipped" if there else "orphans"]
    assert "no audio in any form" in said[silent]


def processed(root, moved=None):
    """The release's processed_dataset of two actors: 1001 trains, 1002 tests."""
    base = root / "cremad"
    for name in clip_names([1001, 1002]):
        split, emotion = ("train" if name[:4] == "1001" else "test"), name.split("_")[2]
        for modality, suffix in (("audio", "wav"), ("visual", "jpg")):
            folder = base / f"processed_dataset/{split}/{modality}"
            path = folder / (moved or emotion) / f"{name}.{suffix}"
            if modality == "audio":
                write_wav(path, tone(500), 16000)
            else:
                write_jpg(path, plain(90))
    return base


def test_folders_of_the_release_are_its_lists(tmp_path):
    base = processed(tmp_path)
    plan = cremad.plan("paper", 0, None, tmp_path)
    assert {i.split for i in plan.items if i.groups["actor"] == "1002"} == {"test"}
    assert len(plan.items) == 12
    assert plan.meta["defects"][0].startswith("0 of 2 actors")
    assert not any("unseeded" in text for text in plan.meta["defects"])  # its very pictures
    write_lists(base, clip_names([1002]), clip_names([1001]))
    with pytest.raises(DataError, match="train.csv: clip '1002_DFA_ANG_XX' lies in the folder"):
        cremad.plan("paper", 0, None, tmp_path)


def test_a_clip_in_the_wrong_folder(tmp_path):
    processed(tmp_path, moved="SAD")
    with pytest.raises(DataError, match="lies in SAD, its name says otherwise"):
        cremad.plan("paper", 0, None, tmp_path)


# --- videos ------------------------------------------------------------------------------------
@pytest.fixture
def convert(tmp_path):
    """Convert one clip of a tree with a video of grey pictures and a sound."""

    def run(name, levels, seconds=0.2, share=0.0, fps=Fraction(5)):
        write_wav(tmp_path / "AudioWAV/x.wav", tone(400, seconds=seconds), 16000)
        write_flv(tmp_path / "VideoFlash/x.flv", levels, fps)
        sources = {
            "audio": Source("AudioWAV/x.wav"),
            "visual": Source("VideoFlash/x.flv", f"{share:.9f}"),
        }
        found = cremad.convert(tmp_path, Item(name, 0, "train", sources))
        return float(np.median(found.visual["pixel"]))

    return run


def test_one_frame_per_second(convert):
    """5 frames per second: numbers 0, 5 and 10 are the candidates."""
    levels = [20 * n for n in range(12)]
    for share, number in ((0.0, 0), (0.34, 5), (0.67, 10), (0.999999, 10)):
        assert convert("1001_DFA_ANG_XX", levels, share=share) == pytest.approx(20 * number, abs=4)


def test_the_rate_is_cut_to_a_whole_number(convert):
    """29.97 frames per second: every 29th."""
    levels = [200 if n == 29 else 40 for n in range(40)]
    found = convert("1001_DFA_ANG_XX", levels, share=0.9, fps=Fraction(30000, 1001))
    assert found == pytest.approx(200, abs=4)


def test_a_plan_of_videos_draws_by_seed_and_name(tmp_path):
    root = tmp_path
    base = root / "cremad"
    for name in clip_names(ACTORS):
        write_wav(base / f"AudioWAV/{name}.wav", tone(300), 16000)
        (base / "VideoFlash").mkdir(exist_ok=True)
        (base / f"VideoFlash/{name}.flv").touch()
    shares = [
        {
            i.name: float(i.sources["visual"].key)
            for i in cremad.plan("clean", s, None, tmp_path).items
        }
        for s in (0, 0, 1)
    ]
    assert shares[0] == shares[1] != shares[2]
    values = np.array(list(shares[0].values()))
    assert values.min() >= 0
    assert values.max() < 1
    assert np.ptp(values) > 0.7


def test_the_clip_that_lasts_a_minute_is_seen_while_its_sound_lasts(convert):
    levels = [30] * 10 + [220] * 290  # 60 s of 5 frames, the sound lasts 1.9 s
    name = next(iter(cremad.RUNS_ON))
    assert convert(name, levels, seconds=1.9, share=0.999) == pytest.approx(30, abs=4)
    assert convert("1001_DFA_ANG_XX", levels, 1.9, share=0.999) == pytest.approx(220, abs=4)


def test_the_clip_that_is_cut_short_is_used_as_far_as_it_goes(convert, tmp_path):
    name = next(iter(cremad.CUT_SHORT))
    assert convert(name, [50] * 3) == pytest.approx(50, abs=4)
    write_flv(tmp_path / "cut.flv", [60] * 40, Fraction(5))
    whole = (tmp_path / "cut.flv").read_bytes()
    (tmp_path / "cut.flv").write_bytes(whole[: len(whole) // 3])
    sources = {"audio": Source("AudioWAV/x.wav"), "visual": Source("cut.flv", "0.9")}
    found = cremad.convert(tmp_path, Item(name, 0, "train", sources))
    assert np.median(found.visual["pixel"]) == pytest.approx(60, abs=4)
    with pytest.raises(FileFormatError, match="cut.flv"):  # nobody said that this one is
        cremad.convert(tmp_path, Item("1001_DFA_ANG_XX", 0, "train", sources))
    (tmp_path / "cut.flv").write_bytes(whole[:20])
    with pytest.raises(Broken, match="cut short, its publishers say"):
        cremad.convert(tmp_path, Item(name, 0, "train", sources))


def test_the_clip_without_sound_is_skipped_and_listed(tmp_path):
    (silent,) = cremad.NO_SOUND
    names = [*clip_names([1001, 1002])[4:9], silent, "1076_DFA_SAD_XX"]
    base = cremad_tree(tmp_path, names)
    (base / f"AudioWAV/{silent}.wav").write_bytes(b"")
    path = data.prepare("cremad", preset="clean", cache_dir=tmp_path, data_root=tmp_path)
    stored = read(path, "")
    assert len(stored.labels) == 6
    assert "no audio in any form" in stored.meta["skipped"][silent]
    assert list(stored.meta["skipped"]) == [silent]


def test_an_empty_sound_that_nobody_named_is_an_error(root, tmp_path):
    base = cremad_tree(tmp_path, ["1001_DFA_ANG_XX"])
    write_wav(base / "AudioWAV/1001_DFA_ANG_XX.wav", np.zeros(0), 16000)
    found = cremad._found(tmp_path, base, 0)
    with pytest.raises(FileFormatError, match="1001_DFA_ANG_XX.wav.*not one sample"):
        cremad.convert(tmp_path, cremad._item("1001_DFA_ANG_XX", found))


def test_a_pointer_of_git_lfs_is_not_the_file(tmp_path):
    base = cremad_tree(tmp_path, ["1001_DFA_ANG_XX"])
    (base / "AudioWAV/1001_DFA_ANG_XX.wav").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 72862\n"
    )
    item = cremad._item("1001_DFA_ANG_XX", cremad._found(tmp_path, base, 0))
    with pytest.raises(DataError, match="1001_DFA_ANG_XX.wav: is a git-lfs pointer.*git lfs pull"):
        cremad.convert(tmp_path, item)


@pytest.mark.parametrize(("rows", "columns"), [(8, 48), (20, 400)])
def test_pictures_of_no_use_are_named(tmp_path, rows, columns):
    base = cremad_tree(tmp_path, ["1001_DFA_ANG_XX"])
    write_jpg(base / "Image-01-FPS/1001_DFA_ANG_XX/00000.jpg", plain(3, rows, columns))
    item = cremad._item("1001_DFA_ANG_XX", cremad._found(tmp_path, base, 0))
    with pytest.raises(DataError, match=f"00000.jpg: a picture of {columns}x{rows} pixels"):
        cremad.convert(tmp_path, item)
