"""N-MNIST, N-TIDIGITS, SHD and SSC from files in the published layouts, written here."""

import h5py
import numpy as np
import pytest

from neuroav import data
from neuroav.data.formats.ntidigits import write_ntidigits
from neuroav.data.published import heidelberg, single
from neuroav.errors import DataError, FileFormatError
from neuroav.training.config import ModelConfig

PER_DIGIT = {"Train": 4, "Test": 1}


def _write_bin(path, events):
    """Five bytes per event: x, y, one bit of polarity and 23 of time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    x, y, p, t = events.T
    columns = (x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255)
    np.stack(columns, axis=1).astype(np.uint8).tofile(path)


@pytest.fixture(scope="module")
def nmnist(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("nmnist"), np.random.default_rng(0)
    for part, count in PER_DIGIT.items():
        for digit in range(10):
            for number in range(count):
                events = rng.integers(0, (34, 34, 2, 300_000), (50, 4))
                events = events[np.argsort(events[:, 3], kind="stable")]
                _write_bin(root / f"nmnist/{part}/{digit}/{10 * number + digit:05}.bin", events)
    return root


def _load(name, root, cache, preset="default", seed=0, **more):
    spec = data.frame_spec(name, steps=4, visual_size=16)
    return data.load(
        name, preset=preset, data_seed=seed, data_root=root, cache_dir=cache, spec=spec, **more
    )


def _names(loaded, split):
    part = loaded.splits[split]
    return set(part.recordings.source["name"][part.rows].tolist())


def test_nmnist_as_published(nmnist, tmp_path):
    loaded = _load("nmnist", nmnist, tmp_path)
    sizes = {split: len(part) for split, part in loaded.splits.items()}
    assert sizes == {"train": 30, "val": 10, "test": 10}
    assert _names(loaded, "train") & _names(loaded, "val") == set()
    assert np.bincount(loaded.splits["val"].labels).tolist() == [1] * 10
    frames = loaded.splits["test"].frames()
    assert frames.audio is None
    assert frames.visual.shape == (10, 4, 2, 16, 16)
    raw = loaded.splits["test"].raw_events(0)
    name = raw["source"]["name"].decode()
    stored = np.fromfile(nmnist / f"nmnist/{name}.bin", np.uint8).reshape(-1, 5).astype(np.int64)
    assert raw["audio"] is None
    assert raw["visual"]["x"].tolist() == stored[:, 0].tolist()
    assert raw["visual"]["p"].tolist() == (stored[:, 2] >> 7).tolist()
    time = (stored[:, 2] & 127) << 16 | stored[:, 3] << 8 | stored[:, 4]
    assert raw["visual"]["time"].tolist() == time.tolist()
    inside = sum(((stored[:, :2] >= 1) & (stored[:, :2] < 33)).all(axis=1))
    assert frames.visual[0].sum() == inside
    again = loaded.splits["train"].augmented(loaded.augmentation, np.random.default_rng(0))
    assert again.visual.shape == (30, 4, 2, 16, 16)


def _sizes(plan):
    return {s: sum(item.split == s for item in plan.items) for s in ("train", "val", "test")}


def test_nmnist_protocols(nmnist):
    paper = single.NMNIST.plan("paper", 0, None, nmnist)
    assert _sizes(paper) == {"train": 40, "val": 0, "test": 10}
    assert paper.meta["validation"] == "test"
    assert "no validation split" in paper.meta["defects"][0]
    assert paper.meta["notes"][0] == "Train holds 40 recordings, published are 60000"
    alone = [single.NMNIST.plan("train-only", seed, None, nmnist) for seed in (0, 1)]
    assert _sizes(alone[0]) == {"train": 20, "val": 10, "test": 10}
    tested = [{i.name for i in plan.items if i.split == "test"} for plan in alone]
    assert all(name.startswith("Train/") for name in tested[0])
    assert tested[0] != tested[1]


def test_nmnist_is_refused_in_words(nmnist, tmp_path):
    with pytest.raises(DataError, match="nmnist is made of files.*--data-root DIR"):
        _load("nmnist", None, tmp_path)
    with pytest.raises(
        DataError, match=r"unknown preset of nmnist 'clear': .*did you mean 'clean'"
    ):
        _load("nmnist", nmnist, tmp_path, "clear")
    _write_bin(tmp_path / "root/nmnist/Train/0/00001.bin", np.array([[1, 2, 1, 5]]))
    with pytest.raises(DataError, match=r"no recordings in Test; .*preset 'train-only'"):
        _load("nmnist", tmp_path / "root", tmp_path)
    for number in range(2, 4):
        _write_bin(tmp_path / f"root/nmnist/Train/0/0000{number}.bin", np.array([[34, 2, 1, 5]]))
    with pytest.raises(FileFormatError, match=r"0000[23]\.bin: at byte 0: an event at x 34"):
        _load("nmnist", tmp_path / "root", tmp_path, "train-only")


def test_cache_depends_on_the_files(nmnist, tmp_path):
    def path(root):
        return data.cache_path("nmnist", data_root=root, cache_dir=tmp_path)

    before = path(nmnist)
    assert path(nmnist) == before
    extra = nmnist / "nmnist/Train/0/99999.bin"
    _write_bin(extra, np.array([[1, 2, 1, 5]]))
    try:
        assert path(nmnist) != before
    finally:
        extra.unlink()
    assert path(nmnist) == before


# --- N-TIDIGITS ---------------------------------------------------------------------------------
def _utterances(speakers, rng):
    for gender, speaker in speakers:
        for digit in "oz123456789":
            count = int(rng.integers(5, 30))
            times = np.sort(rng.random(count)) + 0.25
            yield f"{gender}-{speaker}-a-{digit}", rng.integers(0, 64, count), times
        yield f"{gender}-{speaker}-b-12z", np.array([1, 2]), np.array([0.1, 0.2])


TRAINED = [("man", chr(97 + i) * 2) for i in range(11)] + [("woman", "zz")]
TESTED = [("woman", "ba"), ("woman", "zz")]


@pytest.fixture(scope="module")
def ntidigits(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("ntidigits"), np.random.default_rng(1)
    write_ntidigits(
        root / "n-tidigits.hdf5", list(_utterances(TRAINED, rng)), list(_utterances(TESTED, rng))
    )
    return root


@pytest.mark.parametrize(
    ("mapping", "zero", "oh", "classes"),
    [("scmrl", 0, None, 10), ("tonic", 10, 0, 11), ("o-is-10", 0, 10, 11)],
)
def test_ntidigits_says_which_class_a_digit_is(ntidigits, mapping, zero, oh, classes):
    plan = single.NTIDIGITS.plan(f"paper-{mapping}", 0, None, ntidigits)
    labels = {item.name.rpartition("-")[2]: item.label for item in plan.items}
    assert labels["z"] == zero
    assert labels.get("o") == oh
    assert labels["7"] == 7
    assert set(plan.meta["classes"]) >= {"zero", "seven"}
    assert len(plan.meta["classes"]) == classes == len(labels)
    assert plan.meta["classes"][zero] == "zero"
    assert len(plan.items) == (len(TRAINED) + len(TESTED)) * classes


def test_ntidigits_clean_shares_no_speaker(ntidigits, tmp_path):
    paper = single.NTIDIGITS.plan("paper-scmrl", 0, None, ntidigits)
    assert paper.meta["defects"][1] == "1 of 13 speakers are in more than one split"
    clean = single.NTIDIGITS.plan("default", 0, None, ntidigits)
    by_split = {
        s: {i.groups["speaker"] for i in clean.items if i.split == s}
        for s in ("train", "val", "test")
    }
    assert {s: len(v) for s, v in by_split.items()} == {"train": 10, "val": 1, "test": 2}
    assert not by_split["train"] & by_split["val"]
    assert not (by_split["train"] | by_split["val"]) & by_split["test"]
    assert any(
        "10 training sounds of speakers who are also tested" in n for n in clean.meta["notes"]
    )
    loaded = _load("ntidigits", ntidigits, tmp_path)
    frames = loaded.splits["val"].frames()
    assert frames.visual is None
    assert frames.audio.shape == (10, 4, 1, 28, 28)
    assert frames.audio.any(axis=(1, 2, 3, 4)).all()
    raw = loaded.splits["val"].raw_events(0)
    assert raw["audio"]["time"][0] == 0


def test_ntidigits_missing(tmp_path):
    with pytest.raises(DataError, match=r"ntidigits needs n-tidigits\.hdf5.*md5 360a2d11"):
        _load("ntidigits", tmp_path, tmp_path)


# --- SHD and SSC --------------------------------------------------------------------------------
def _write_shd(path, speakers, classes, rng, per_speaker=3, speaker=True, names=True):
    labels = [int(n) for n in rng.integers(0, classes, per_speaker * len(speakers))]
    labels[-1] = classes - 1
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        counts = rng.integers(5, 40, len(labels))
        for name, kind in (("times", np.float16), ("units", np.uint16)):
            column = file.create_dataset(f"spikes/{name}", (len(labels),), h5py.vlen_dtype(kind))
            for i, n in enumerate(counts):
                made = np.sort(rng.random(n)) if name == "times" else rng.integers(0, 700, n)
                column[i] = made.astype(kind)
        file["labels"] = np.array(labels, np.uint16)
        if speaker:
            file["extra/speaker"] = np.repeat(speakers, per_speaker).astype(np.uint16)
        if names:
            file["extra/keys"] = np.array([f"word{i}".encode() for i in range(classes)])


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("spoken"), np.random.default_rng(2)
    # As published: two speakers of the test alone, and some of the training.
    _write_shd(root / "shd/shd_train.h5", [0, 1, 2, 3, 6, 7, 8, 9, 10, 11], 4, rng)
    _write_shd(root / "shd/shd_test.h5", [0, 1, 4, 5], 4, rng)
    for part, speakers in (("train", [0, 1, 2]), ("valid", [3]), ("test", [4])):
        _write_shd(root / f"ssc_{part}.h5", speakers, 3, rng, names=False)
    return root


def test_shd_clean_deals_out_speakers(spoken, tmp_path):
    paper = heidelberg.SHD.plan("paper", 0, None, spoken)
    assert "2 of 12 speakers are in more than one split" in paper.meta["defects"]
    assert sum(item.split == "test" for item in paper.items) == 12
    found = []
    for seed in range(3):
        clean = heidelberg.SHD.plan("clean", seed, None, spoken)
        assert len(clean.items) == 42
        by_split = {
            s: {i.groups["speaker"] for i in clean.items if i.split == s}
            for s in ("train", "val", "test")
        }
        assert sum(map(len, by_split.values())) == len(set.union(*by_split.values())) == 12
        found.append(tuple(sorted(by_split["test"])))
    assert len(set(found)) > 1
    assert clean.meta["classes"] == [f"word{i}" for i in range(4)]


def test_shd_frames_add_ten_or_eleven_of_the_700_channels(spoken, tmp_path):
    loaded = _load("shd", spoken, tmp_path, "paper")
    assert len(loaded.splits["val"]) == len(loaded.splits["test"]) == 12
    frames = loaded.splits["test"].frames()
    assert frames.visual is None
    assert frames.audio.shape == (12, 4, 8, 8, 8)
    raw = loaded.splits["test"].raw_events(3)
    with h5py.File(spoken / "shd/shd_test.h5") as file:
        row = int(raw["source"]["name"].decode().rpartition("/")[2])
        units, times = file["spikes/units"][row], file["spikes/times"][row].astype(np.float64)
    assert raw["audio"]["channel"].dtype == np.uint16
    assert raw["audio"]["channel"].tolist() == units.tolist()
    assert raw["audio"]["time"].tolist() == np.rint(times * 1e6).tolist()
    expected = np.bincount(units.astype(np.int64) * 64 // 700, minlength=64)
    assert frames.audio[3].sum(axis=(0, 3)).ravel().tolist() == expected.tolist()
    widths = np.bincount(np.arange(700) * 64 // 700)
    assert len(widths) == 64
    assert set(widths.tolist()) == {10, 11}


def test_ssc_has_a_published_validation_part(spoken, tmp_path):
    plan = heidelberg.SSC.plan("paper", 0, None, spoken)
    assert "validation" not in plan.meta
    assert {s: sum(i.split == s for i in plan.items) for s in ("train", "val", "test")} == {
        **{"train": 9, "val": 3, "test": 3}
    }
    assert plan.meta["classes"] == ["0", "1", "2"]
    assert plan.meta["defects"] == []


def test_shd_without_speakers_or_parts(tmp_path):
    rng = np.random.default_rng(0)
    _write_shd(tmp_path / "shd_train.h5", [0, 1], 3, rng, speaker=False)
    with pytest.raises(DataError, match=r"no extra/speaker, .*use preset 'paper'"):
        heidelberg.SHD.plan("clean", 0, None, tmp_path)
    with pytest.raises(DataError, match=r"shd_test\.h5 is missing; shd needs shd_train\.h5"):
        heidelberg.SHD.plan("paper", 0, None, tmp_path)


@pytest.mark.parametrize(
    ("name", "model", "other"),
    [("nmnist", "visual", "audio"), ("ntidigits", "audio", "visual"), ("shd", "audio", "visual")],
)
def test_unimodal_networks_take_them(name, model, other, request, tmp_path):
    import torch

    from neuroav.errors import ConfigError
    from neuroav.models.registry import build_model

    fixture = {"shd": "spoken"}.get(name, name)
    loaded = _load(name, request.getfixturevalue(fixture), tmp_path, limit=12)
    frames = getattr(loaded.splits["train"].frames([0, 1]), model)
    shapes = {model: getattr(loaded.spec, f"{model}_shape")[1:]}
    net = build_model(ModelConfig(name=model), shapes, len(loaded.classes))
    out = net(torch.from_numpy(frames.astype(np.float32)))
    assert out is not None
    with pytest.raises(ConfigError, match=f"have no {other}"):
        build_model(ModelConfig(name=other), shapes, len(loaded.classes))
