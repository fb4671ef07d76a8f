"""The data set ``folder``: layouts, settings, splits, and everything that is not told."""

import os
import wave

import numpy as np
import pytest

from neuroav import data
from neuroav.data.formats.slayer import write_bs1
from neuroav.data.published import folder, folder_convert
from neuroav.errors import DataError, FileFormatError

SETTINGS = "neuroav-folder.toml"
WINDOWED = """layout = "windowed"
[audio]
window_ms = 200
high_hz = 3600
[visual]
sensor = [34, 34]
window_ms = 300
fit = "crop"
"""


def _sound(path, rate=8000, ms=150, channels=1, hz=500.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    count = rate * ms // 1000
    one = (8000 * np.sin(2 * np.pi * hz * np.arange(count) / rate)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.repeat(one, channels).tobytes())


def _camera(path, seed=0, count=60, size=34, start=1000):
    """Five bytes per event, as N-MNIST."""
    path.parent.mkdir(parents=True, exist_ok=True)
    events = np.random.default_rng(seed).integers(0, (size, size, 2, 250_000), (count, 4))
    x, y, p, t = events[np.argsort(events[:, 3], kind="stable")].T
    t = t - t[0] + start
    columns = (x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255)
    np.stack(columns, axis=1).astype(np.uint8).tofile(path)
    return {"x": x, "y": y, "p": p, "time": t}


def _picture(path, edge=40, value=100):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((edge, edge + 8, 3), value, np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def _settings(root, text):
    (root / SETTINGS).write_text(text)


def _events_folder(root, per_class=6, classes=("cat", "dog"), speakers=3):
    for label, name in enumerate(classes):
        for i in range(per_class):
            stem = root / name / f"s{i % speakers}_{i:02}"
            _sound(stem.with_suffix(".wav"), hz=300 + 200 * label)
            _camera(stem.with_suffix(".bin"), seed=10 * label + i)
    _settings(root, WINDOWED)


def _load(root, cache, seed=0, steps=4, visual_size=16, **more):
    spec = data.frame_spec("folder", steps=steps, visual_size=visual_size)
    return data.load("folder", data_root=root, cache_dir=cache, data_seed=seed, spec=spec, **more)


def _plan(root, seed=0):
    return folder.plan("default", seed, None, root)


def _refused(root, said):
    with pytest.raises(DataError, match=said) as caught:
        _plan(root)
    assert "\n" not in str(caught.value)


# --- layouts ------------------------------------------------------------------------------------
def test_sounds_beside_events(tmp_path):
    root = tmp_path / "mine"
    _events_folder(root)
    loaded = _load(root, tmp_path / "cache")
    assert loaded.classes == ("cat", "dog")
    sizes = {split: len(part) for split, part in loaded.splits.items()}
    assert sum(sizes.values()) == 12
    assert min(sizes.values()) >= 1
    part = loaded.splits["train"]
    frames = part.frames()
    assert frames.audio.shape[1:] == (4, 8, 8, 8)
    assert frames.visual.shape[1:] == (4, 2, 16, 16)
    assert frames.audio.any(axis=(1, 2, 3, 4)).all()
    raw = part.raw_events(0)
    name = raw["source"]["name"].decode()
    label, i = name.split("/")[0], int(name[-2:])
    written = _camera(tmp_path / "again.bin", seed=10 * (label == "dog") + i)
    inside = (written["x"] >= 1) & (written["x"] < 33) & (written["y"] >= 1) & (written["y"] < 33)
    assert raw["class"] == label
    assert raw["visual"]["x"].tolist() == (written["x"][inside] - 1).tolist()
    assert raw["visual"]["time"].tolist() == (written["time"][inside] - 1000).tolist()
    assert raw["source"]["visual_outside"] == 0
    assert not loaded.augmentation.repair
    assert loaded.augmentation.drop == 0.2
    part.augmented(loaded.augmentation, np.random.default_rng(0))


def test_binned_layout(tmp_path):
    root = tmp_path / "mine"
    _events_folder(root)
    _settings(root, 'layout = "binned"\n[audio]\nhigh_hz = 3600\n[visual]\nsensor = [34, 34]\n'
                    'fit = "scale"\n')  # fmt: skip
    loaded = _load(root, tmp_path)
    frames = loaded.splits["train"].frames()
    assert frames.audio.shape[1:] == (4, 1, 28, 28)
    assert frames.visual.shape[1:] == (4, 2, 28, 28)
    loaded.splits["train"].augmented(loaded.augmentation, np.random.default_rng(0))


def test_spikes_beside_events(tmp_path):
    """Two event files of one name: which is heard is said, never guessed."""
    root = tmp_path / "mine"
    for label in ("a", "b"):
        for i in range(4):
            stem = root / label / f"{i}"
            _camera(stem.with_suffix(".bin"), i, size=32)
            spikes = {"x": np.array([5, 20, 5]), "time": np.array([700, 900, 150_000])}
            spikes |= {"y": np.zeros(3, np.int64), "p": np.ones(3, np.int64)}
            write_bs1(stem.with_suffix(".bs1"), spikes)
    _refused(root, r"0\.bs1: \.bs1 may be sounds or pictures: name it in files = \['\.bs1'\]")
    text = 'layout = "windowed"\n[visual]\nsensor = [32, 32]\nwindow_ms = 300\n[audio]\n'
    _settings(root, text + 'files = [".bs1"]\nwindow_ms = 200\n')
    _refused(root, r"event files do not say how many channels hear; write channels under \[audio\]")
    _settings(root, text + 'files = [".bs1"]\nchannels = 21\nwindow_ms = 200\n')
    loaded = _load(root, tmp_path)
    raw = loaded.splits["test"].raw_events(0)
    assert raw["audio"]["channel"].tolist() == [5, 20, 5]
    assert raw["audio"]["time"].tolist() == [0, 200, 149_300]
    assert raw["audio_channels"] == 21
    frames = loaded.splits["test"].frames([0])
    assert frames.audio.sum() == 3
    assert frames.visual.sum() == 60  # a sensor of 32x32 as it is
    _settings(root, text + 'files = [".bs1"]\nchannels = 20\nwindow_ms = 200\n')
    with pytest.raises(DataError, match=r"a spike of channel 20; 20 are stated"):
        _load(root, tmp_path)


def test_arrays_of_a_large_sensor_are_scaled(tmp_path):
    root = tmp_path / "mine"
    for label in ("a", "b"):
        for i in range(4):
            (root / label).mkdir(parents=True, exist_ok=True)
            # columns x, y, time, p of a sensor of 160x128: its middle is 128x128
            np.save(root / label / f"{i}.npy", np.array([[16, 0, 5, 1], [143, 127, 9, 0],
                                                         [15, 50, 10, 1]]))  # fmt: skip
    _refused(root, r"\.npy may be sounds or pictures")
    base = 'layout = "windowed"\n[visual]\nfiles = [".npy"]\nwindow_ms = 100\n'
    _settings(root, base + 'columns = ["x", "y", "time", "p"]\n')
    with pytest.raises(DataError, match=r"say it, e\.g\. orientation='as-stored'.*\[visual\]"):
        _load(root, tmp_path)
    told = base + 'columns = ["x", "y", "time", "p"]\norientation = "as-stored"\n'
    _settings(root, told)
    with pytest.raises(DataError, match=r"does not say how large its sensor is; write sensor = "):
        _load(root, tmp_path)
    _settings(root, told + "sensor = [160, 128]\n")
    with pytest.raises(DataError, match=r"a sensor of 160x128, the network sees 32x32; write fit"):
        _load(root, tmp_path)
    _settings(root, told + 'sensor = [160, 128]\nfit = "scale"\n')
    raw = _load(root, tmp_path).splits["train"].raw_events(0)
    assert raw["visual"]["x"].tolist() == [0, 31]  # the third lies outside the middle square
    assert raw["visual"]["y"].tolist() == [0, 31]
    assert raw["visual"]["time"].tolist() == [0, 4]
    assert raw["audio"] is None


def test_pictures_beside_sounds_need_no_settings(tmp_path):
    root = tmp_path / "mine"
    for label, value in (("a", 40), ("b", 200)):
        for i in range(4):
            _sound(root / label / f"{i}.wav", hz=300 + i)
            pixels = _picture(root / label / f"{i}.png", value=value)
    loaded = _load(root, tmp_path, visual_size=32)
    frames = loaded.splits["test"].frames()
    assert frames.audio.shape[1:] == (4, 1, 32, 32)
    assert frames.visual.shape[1:] == (4, 3, 32, 32)
    whole = loaded.splits["test"].recordings
    last = [n.startswith(b"b/") for n in whole.source["name"]].index(True)
    assert whole.visual.one(last)["pixel"].tolist() == pixels.ravel().tolist()
    assert loaded.splits["train"].recordings.meta["protocol"] == "clean"


def test_of_a_video_the_middle_one_of_a_picture_per_second_is_taken(tmp_path):
    import av

    root = tmp_path / "mine"
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for i in range(3):
            with av.open(str(root / label / f"{i}.mp4"), "w") as file:
                stream = file.add_stream("mpeg4", rate=4)
                stream.width = stream.height = 48
                for second in range(3):
                    pixels = np.full((48, 48, 3), 80 * second + 20, np.uint8)
                    for _ in range(4):
                        file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
                file.mux(stream.encode())
    loaded = _load(root, tmp_path, visual_size=32)
    whole = loaded.splits["train"].recordings
    assert len(whole.visual) == 6
    for i in range(6):
        assert abs(int(np.median(whole.visual.one(i)["pixel"])) - 100) < 12  # the second second


def test_a_long_video_is_taken(tmp_path):
    """40 s at 30 per second: more pictures than the clips of the published sets have."""
    import av

    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=30)
        stream.width = stream.height = 16
        for number in range(1200):
            pixels = np.full((16, 16, 3), 20 + 5 * (number // 30), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        file.mux(stream.encode())
    assert abs(int(np.median(folder_convert._picture(path))) - 120) < 6


def test_events_outside_the_middle_are_no_empty_picture(tmp_path):
    root = tmp_path / "mine"
    _events_folder(root)
    _settings(root, WINDOWED.replace("[34, 34]", "[128, 128]"))
    with pytest.raises(
        DataError, match=r"no event lies in the middle 32x32 of its sensor; use vis"
    ):
        _load(root, tmp_path)


def test_one_modality_alone(tmp_path):
    root = tmp_path / "mine"
    for label in ("a", "b"):
        for i in range(4):
            _sound(root / label / f"{i}.wav", rate=16_000)
    _refused(root, r"the files do not tell.*write layout = 'windowed' or 'binned' or 'stills' at t")
    _settings(root, 'layout = "stills"\n')
    frames = _load(root, tmp_path, visual_size=32).splits["train"].frames()
    assert frames.visual is None
    assert frames.audio.shape[1:] == (4, 1, 32, 32)
    _settings(root, 'layout = "windowed"\n')
    _refused(root, r"needs to know how long audio lasts; write window_ms under \[audio\]")
    _settings(root, 'layout = "windowed"\n[audio]\nwindow_ms = 200\n')
    assert _load(root, tmp_path).splits["train"].frames().audio.any()


def test_sounds_that_cannot_be_taken(tmp_path):
    root = tmp_path / "mine"
    _events_folder(root)
    _settings(root, WINDOWED.replace("high_hz = 3600\n", ""))
    with pytest.raises(DataError, match=r"8000 Hz, and the highest .* write high_hz = 3600, or"):
        _load(root, tmp_path)
    _settings(root, WINDOWED)
    _sound(root / "cat/s0_00.wav", channels=2)
    with pytest.raises(DataError, match=r"s0_00\.wav has 2 channels; write mix = 'mean' or 'fir"):
        _load(root, tmp_path)
    _sound(root / "cat/s0_00.wav", hz=0.0)
    with pytest.raises(DataError, match=r"s0_00\.wav: is silent"):
        _load(root, tmp_path)
    (root / "cat/s0_00.wav").write_bytes(b"RIFF\x10\0\0\0WAVE")
    with pytest.raises(FileFormatError, match=r"s0_00\.wav"):
        _load(root, tmp_path)


# --- what belongs together ----------------------------------------------------------------------
def test_links_are_followed_and_those_to_nothing_named(tmp_path):
    root = tmp_path / "mine"
    _events_folder(root)
    (root / "dog").rename(tmp_path / "elsewhere")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    whole = _plan(root)
    assert len(whole.items) == 12
    parameters = folder.parameters("default", 0, None, root)
    path = root / "cat/s0_00.wav"
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    _refused(root, r"cat/s0_00\.wav: is a link to nothing")
    assert folder.parameters("default", 0, None, root) != parameters
    (root / "cat/again").symlink_to(root)
    _refused(root, r"cat/again: is a link to .*, which it lies in; remove it")


def test_a_folder_of_ignored_files_is_no_class(tmp_path):
    root = tmp_path / "mine"
    _events_folder(root)
    (root / "docs").mkdir()
    (root / "docs/readme.txt").write_text("x")
    _refused(root, r"docs/: a class without a sample")
    _settings(root, 'ignore = ["*.txt"]\n' + WINDOWED)
    plan = _plan(root)
    assert plan.meta["classes"] == ["cat", "dog"]
    assert not plan.meta["left_out"]


def test_a_name_that_is_not_utf8_is_named(tmp_path):
    root = tmp_path / "mine"
    _events_folder(root)
    (root / os.fsdecode(b"cat/caf\xe9.txt")).write_text("x")
    _refused(root, r"caf.*: its name is not UTF-8; rename it")
    with pytest.raises(DataError, match="its name is not UTF-8"):
        data.cache_path("folder", data_root=root, cache_dir=tmp_path, data_seed=0)


def test_all_problems_are_in_one_error_or_skipped_with_their_reasons(tmp_path):
    root = tmp_path / "mine"
    _events_folder(root)
    (root / "dog/s1_04.wav").unlink()
    (root / "cat/notes.txt").write_text("x")
    (root / "cow").mkdir()
    _sound(root / "cat/deep/er/x.wav")
    _camera(root / "cat/s0_00.bs2")
    with pytest.raises(DataError, match="5 problems") as caught:
        _plan(root)
    said = str(caught.value)
    for part in (
        "dog/s1_04.bin: no audio file beside it has its name",
        "cat/notes.txt: .txt is no known kind of file",
        "cow/: a class without a sample",
        "cat/deep/er/x.wav: lies at another depth than <class>/<file>",
        "cat/s0_00.bs2: cat/s0_00.bin has the same name and is visual as well",
        "ignore = ['<pattern>']",
        "incomplete = 'skip'",
    ):
        assert part in said
    _settings(root, 'incomplete = "skip"\n' + WINDOWED)
    plan = _plan(root)
    assert len(plan.items) == 11
    assert len(plan.meta["left_out"]) == 5
    assert plan.meta["left_out"]["dog/s1_04.bin"] == "no audio file beside it has its name"


def test_ignored_and_hidden_files_are_no_samples(tmp_path):
    root = tmp_path / "mine"
    _events_folder(root)
    (root / "cat/readme.txt").write_text("x")
    (root / ".DS_Store").write_text("x")
    _settings(root, 'ignore = ["*.txt"]\n' + WINDOWED)
    assert len(_plan(root).items) == 12


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("layuot = 'stills'", r"neuroav-folder\.toml: unknown key 'layuot'.*did you mean 'layout'"),
        ("layout = 'still'", "layout is 'still', allowed are windowed, binned, stills"),
        (
            "layout = 'stills'",
            r"layout is 'stills', but .*\.bin allows 'windowed' and 'binned' only",
        ),
        ("layout = ", "not a TOML file"),
        ("group = '^(a)(b)'", "catches 2 parts, needs one"),
        ("group = '('", "no regular expression"),
        ("audio = 3", r"audio is 3, needs a table \[audio\]"),
        ("[visual]\nsensor = [0, 3]", r"visual\.sensor is \[0, 3\], allowed is \[width, height\]"),
        ("[visual]\nwindow = 3", r"unknown key 'visual\.window'.*visual\.window_ms"),
        ("[audio]\nwindow_ms = true", r"audio\.window_ms is True, allowed are 1 to 600000"),
        ("[audio]\nfiles = ['npy']", r"audio\.files has 'npy', needs endings"),
        ("splits = {train = 0.5, val = 0.1, test = 0.1}", "shares of train, val and test that add"),
    ],
)
def test_wrong_settings(tmp_path, text, said):
    root = tmp_path / "mine"
    _events_folder(root, per_class=1)
    _settings(root, text)
    _refused(root, said)


def test_no_folder_no_samples_one_class(tmp_path):
    with pytest.raises(DataError, match="folder is made of files.*<class>/.*--data-root DIR"):
        _plan(None)
    _refused(tmp_path / "nowhere", "there is no such folder")
    (tmp_path / "empty").mkdir()
    _refused(tmp_path / "empty", r"no samples; put recordings into <class>/ or \{train,val,test\}")
    _events_folder(tmp_path / "one", classes=("cat",))
    _refused(tmp_path / "one", "one class, 'cat'; at least two")


# --- splits -------------------------------------------------------------------------------------
def _splits(plan):
    return {
        split: sorted(item.name for item in plan.items if item.split == split)
        for split in ("train", "val", "test")
    }


def test_groups_are_dealt_out_whole(tmp_path):
    root = tmp_path / "mine"
    _events_folder(root, per_class=12, speakers=6)
    alone = _plan(root)
    assert any("no groups are named" in note for note in alone.meta["notes"])
    _settings(root, "group = '^(s[0-9])_'\n" + WINDOWED)
    found = set()
    for seed in range(4):
        plan = _plan(root, seed)
        groups = {
            s: {i.groups["group"] for i in plan.items if i.split == s}
            for s in ("train", "val", "test")
        }
        assert sum(map(len, groups.values())) == len(set.union(*groups.values())) == 6
        assert plan.meta["protocol"] == "clean"
        found.add(tuple(sorted(groups["test"])))
    assert len(found) > 1
    _settings(root, "group = '^(t[0-9])_'\n" + WINDOWED)
    _refused(root, r"24 problems: .*the rule for groups.*finds none in its name.*and 12 more")


def test_splits_of_folders(tmp_path):
    root = tmp_path / "mine"
    _events_folder(root / "train")
    _events_folder(root / "test", per_class=2)
    for part in ("train", "test"):
        (root / part / SETTINGS).unlink()
    _settings(root, "group = '^(s[0-9])_'\n" + WINDOWED)
    plan = _plan(root)
    sizes = {split: len(names) for split, names in _splits(plan).items()}
    assert sizes["test"] == 4
    assert sizes["train"] + sizes["val"] == 12
    assert sizes["val"] > 0
    assert any("a tenth of training" in note for note in plan.meta["notes"])
    # s0 and s1 are in the folder train and in the folder test: said, not changed.
    assert plan.meta["protocol"] == "given"
    assert plan.meta["defects"] == ["2 groups are in more than one split"]
    (root / "cow").mkdir()
    _refused(root, "folder 'cow' beside 'test': either all are splits")


def test_table_instead_of_folders(tmp_path):
    root = tmp_path / "mine"
    rows = ["stem,label,split,group"]
    for i in range(8):
        _sound(root / f"heard/x{i}.wav", rate=16_000)
        _camera(root / f"seen/x{i}.bin", i)
        split = ("train", "train", "val", "test")[i % 4]
        rows.append(f"x{i},{'yes' if i < 4 else 'no'},{split},g{i}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    _settings(root, WINDOWED)
    plan = _plan(root)
    assert _splits(plan)["test"] == ["x3", "x7"]
    assert plan.meta["classes"] == ["no", "yes"]
    assert plan.meta["defects"] == []
    assert {i.name: i.groups["group"] for i in plan.items}["x5"] == "g5"
    broken = [*rows[:-2], "x1,no,train,g1", "x9,no,train,g9", "x6,,train,g6", "x7,no,tets,g7"]
    (root / "labels.csv").write_text("\n".join(broken) + "\n")
    _refused(
        root,
        r"4 problems: labels\.csv line 10: 'x6' has no label; .*line 11: split 'tets', allowed .*"
        r"line 8: 'x1' is listed twice; .*line 9: there is no file 'x9'",
    )
    (root / "labels.csv").write_text("name,label\nx1,a\n")
    _refused(root, r"labels\.csv: columns name, label; needs label, and file .* or stem")
    (root / "labels.csv").write_text("\n".join(rows[:-1]) + "\n")
    _refused(root, r"x7: is not listed in labels\.csv")


def test_cache_depends_on_names_sizes_table_and_settings(tmp_path):
    root = tmp_path / "mine"
    _events_folder(root, per_class=3)

    def path(seed=0):
        return data.cache_path("folder", data_root=root, cache_dir=tmp_path, data_seed=seed)

    paths = [path(), path(1)]
    _settings(root, WINDOWED.replace("300", "200"))
    paths.append(path())
    _sound(root / "cat/s0_00.wav", ms=160)
    paths.append(path())
    (root / "cat/s0_00.wav").rename(root / "cat/s0_77.wav")
    paths.append(path())
    assert len(set(paths)) == 5
    assert path() == paths[-1]
