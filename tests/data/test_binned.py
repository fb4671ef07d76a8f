"""Binning by each recording's own duration, against tonic and torch, on real recordings."""

from __future__ import annotations

import numpy as np
import pytest

from neuroav.data import nmnistfsdd
from neuroav.data.augment import NONE, Augmentation
from neuroav.data.avdata import AVData
from neuroav.data.binned import (
    MAX_EVENTS,
    BinnedSpec,
    bin_audio,
    bin_visual,
    drawn,
    shifted,
    spans,
)
from neuroav.data.cache import Recordings
from neuroav.data.disturb import drop_events, streams
from neuroav.data.ragged import Ragged
from neuroav.errors import ConfigError, DataError

CROP = Augmentation(stretch=0, shift=0, drop=0, channel_shift=0, image_shift=2, repair=False)


def pictures(folder, count=6):
    """Real recordings, cut to the middle 28x28 pixels, in order of time."""
    parts = []
    for file in sorted((folder / "nmnist" / "Train" / "3").glob("*.bin"))[:count]:
        events = nmnistfsdd.read_picture(file)
        inside = np.all([(events[a] >= 3) & (events[a] < 31) for a in "xy"], axis=0)
        found = {k: v[inside] - (3 if k in "xy" else 0) for k, v in events.items()}
        order = np.argsort(found["time"], kind="stable")
        found = {k: v[order] for k, v in found.items()}
        parts.append(Ragged(found, np.array([0, len(order)])))
    return Ragged.join(parts)


def spikes(rng, items=5, most=900):
    """Spikes of a cochlea, ascending times that start anywhere."""
    counts = rng.integers(most // 2, most, items)
    item = np.repeat(np.arange(items), counts)
    time = np.sort(rng.integers(12_345, 700_000, len(item)))
    channel = rng.integers(0, 64, len(item)).astype(np.uint8)
    return Ragged.build(item[rng.permutation(len(item))], items, channel=channel,
                        time=time.astype(np.uint32))  # fmt: skip


def tonic_frames(columns, sensor, steps):
    from tonic.transforms import ToFrame

    names = ("x", "y", "t", "p") if "y" in columns else ("x", "t", "p")
    events = np.empty(len(columns["t"]), [(name, np.int64) for name in names])
    for name in names:
        events[name] = columns[name]
    return ToFrame(sensor_size=sensor, n_time_bins=steps)(events)


@pytest.mark.parametrize("steps", [1, 16, 64])
def test_pictures_are_binned_as_tonic_bins_them(recordings, steps):
    events = pictures(recordings)
    counts, cut = bin_visual(events, steps)
    assert counts.shape == (6, steps, 2, 28, 28)
    assert not cut.any()
    assert all(events.one(i)["time"][0] > 0 for i in range(6))  # the first event is not at 0
    for i in range(6):
        one = events.one(i)
        expected = tonic_frames({**one, "t": one["time"]}, (28, 28, 2), steps)
        assert expected.sum() > 1000
        np.testing.assert_array_equal(counts[i], expected)


@pytest.mark.parametrize("steps", [7, 16])
def test_spikes_are_binned_as_tonic_bins_them(steps):
    events = spikes(np.random.default_rng(0))
    counts, cut = bin_audio(events, steps)
    assert not cut.any()
    for i in range(len(events)):
        one = events.one(i)
        columns = {"x": one["channel"], "t": one["time"], "p": np.ones(len(one["time"]))}
        expected = tonic_frames(columns, (64, 1, 1), steps)
        assert expected.sum() > 100
        np.testing.assert_array_equal(counts[i], expected[:, 0])


def one_recording(times, channel=0):
    times = np.asarray(times)
    return Ragged({"channel": np.full(len(times), channel), "time": times},
                  np.array([0, len(times)]))  # fmt: skip


def test_what_the_division_leaves_over_falls_off_the_end():
    # 100..110 in 4 steps of 2 us: 100, 101 | 102, 103 | 104, 105 | 106, 107; 108 to 110 fall off
    events = one_recording(range(100, 111))
    counts, _ = bin_audio(events, 4)
    assert spans(events, 4).start[0] == 100
    assert spans(events, 4).step[0] == 2
    assert counts[0, :, 0].tolist() == [2, 2, 2, 2]


def test_recordings_without_duration_are_empty_and_disturb_no_other():
    parts = [one_recording([]), one_recording([5, 5]), one_recording([3, 103]), one_recording([])]
    counts, _ = bin_audio(Ragged.join([parts[0], *parts, one_recording(range(0, 65, 8))]), 4)
    assert counts.sum(axis=(1, 2)).tolist() == [0, 0, 0, 1, 0, 8]


def test_full_cells_are_cut_and_counted():
    events = Ragged.join([one_recording([*[0] * 70, 40]), one_recording([*[1] * 63, 40])])
    counts, cut = bin_audio(events, 4)
    assert counts[:, 0, 0].tolist() == [MAX_EVENTS, MAX_EVENTS]
    assert cut.tolist() == [7, 0]
    assert drawn(counts).max() == 4 * MAX_EVENTS  # just fits uint8


def test_audio_is_drawn_as_torch_interpolates_to_an_eighth():
    import torch

    counts = np.random.default_rng(1).integers(0, MAX_EVENTS + 1, (9, 3, 64)).astype(np.uint8)
    exact = torch.nn.functional.interpolate(
        torch.from_numpy(counts.reshape(27, 1, 8, 8)).double(), size=(28, 28), mode="bilinear",
        align_corners=False,
    ).numpy().reshape(9, 3, 1, 28, 28)  # fmt: skip
    np.testing.assert_allclose(exact * 196, np.rint(exact * 196), atol=1e-8)  # as stated
    quarters = drawn(counts)
    np.testing.assert_array_equal(quarters, np.rint(np.rint(exact * 196) / 49))
    off = np.abs(quarters / 4 - exact).max()
    assert 0.12 < off <= 6 / 49 + 1e-12
    alone = np.zeros((1, 1, 64), np.uint8)
    alone[0, 0, 8 * 2 + 5] = 1  # channel 21: row 2, column 5
    rows, columns = np.nonzero(drawn(alone)[0, 0, 0])
    assert (rows.mean() + 0.5) * 8 / 28 == pytest.approx(2.5, abs=0.05)
    assert (columns.mean() + 0.5) * 8 / 28 == pytest.approx(5.5, abs=0.05)


def test_a_crop_is_one_of_torchvisions():
    rng = np.random.default_rng(2)
    frames = rng.integers(1, 9, (40, 3, 2, 28, 28)).astype(np.uint8)
    moved = shifted(frames, 4, np.random.default_rng(3))
    padded = np.pad(frames, [(0, 0)] * 3 + [(4, 4)] * 2)
    found = set()
    for before, after in zip(padded, moved, strict=True):
        fits = [(r, c) for r in range(9) for c in range(9)
                if (before[..., r : r + 28, c : c + 28] == after).all()]  # fmt: skip
        assert len(fits) == 1
        found.update(fits)
    assert {r for r, _ in found} == {c for _, c in found} == set(range(9))
    assert len(found) > 20
    np.testing.assert_array_equal(shifted(frames, 0, rng), frames)


@pytest.fixture
def data(recordings):
    return made(recordings)


def made(folder, protocol="clean"):
    seen = pictures(folder, 8)
    heard = spikes(np.random.default_rng(4), 8)
    meta = {"name": "t", "preset": "p", "data_seed": 0, "classes": ["a", "b"],
            "protocol": protocol, "sensor": 28, "audio_channels": 64}  # fmt: skip
    labels = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    split = np.array([0] * 6 + [2] * 2, np.uint8)
    whole = Recordings(heard, seen, labels, split, meta, {"voice": np.array([b"x"] * 8)})
    return AVData.of(whole, BinnedSpec(16), CROP)


def test_frames_of_some_are_those_of_all(data):
    train = data.split("train")
    first = train.frames([4, 1])  # before the whole split is binned
    whole = train.frames()
    assert whole.audio.shape == (6, 16, 1, 28, 28)
    assert whole.audio.dtype == np.uint8
    assert whole.visual.shape == (6, 16, 2, 28, 28)
    assert whole.visual.dtype == np.uint8
    for some in (first, train.frames([4, 1])):
        np.testing.assert_array_equal(some.audio, whole.audio[[4, 1]])
        np.testing.assert_array_equal(some.visual, whole.visual[[4, 1]])
        assert some.labels.tolist() == [1, 0]
    assert train.frames().visual is whole.visual  # binned once
    with pytest.raises(DataError, match="0 to 5"):
        train.frames([6])
    test = data.split("test").frames()
    assert test.labels.tolist() == [0, 1]
    assert test.visual.any()


def test_training_moves_and_repairs_pictures_only(recordings, data):
    train = data.split("train")
    plain = train.frames()
    again = train.augmented(NONE, np.random.default_rng(0))
    np.testing.assert_array_equal(again.visual, plain.visual)
    moved = train.augmented(CROP, np.random.default_rng(0))
    np.testing.assert_array_equal(moved.audio, plain.audio)
    assert (moved.visual != plain.visual).any()
    same = train.augmented(CROP, np.random.default_rng(0))
    np.testing.assert_array_equal(moved.visual, same.visual)
    repaired = Augmentation(**{**vars(NONE), "repair": True})
    partners = train.augmented(repaired, np.random.default_rng(1))
    places = [next(j for j in range(6) if (plain.visual[j] == v).all()) for v in partners.visual]
    assert sorted(places) == list(range(6))
    assert places != list(range(6))
    assert (train.labels[places] == train.labels).all()
    published = made(recordings, "paper").split("train")
    kept = published.augmented(repaired, np.random.default_rng(1))
    np.testing.assert_array_equal(kept.visual, plain.visual)  # pairs stay as published
    with pytest.raises(DataError, match="never augmented"):
        data.split("test").augmented(CROP, np.random.default_rng(0))
    with pytest.raises(DataError, match="drop, channel_shift.*set the others to 0"):
        train.augmented(Augmentation(stretch=0, shift=0), np.random.default_rng(0))


def test_altered_events_keep_the_steps_of_the_recording(data):
    test = data.split("test")

    def later(modality, events):
        return Ragged({**events.columns, "time": events["time"].astype(np.int64) + 10**7},
                      events.offsets)  # fmt: skip

    assert not test.altered(later).visual.any()  # all has left the recording's own time
    same = test.altered(lambda modality, events: events)
    np.testing.assert_array_equal(same.audio, test.frames().audio)
    lost = test.altered(lambda m, e: drop_events(e, 0.5, streams(0, m, range(len(e)))), [1])
    whole = test.frames([1])
    assert 0.4 < lost.visual.sum() / whole.visual.sum() < 0.6
    assert (lost.visual <= whole.visual).all()


def test_raw_events_have_their_own_durations(data):
    raw = data.split("test").raw_events(1)
    times = data.split("test").recordings.audio.one(7)["time"]
    assert raw["audio_window_us"] == times.max() + 1
    assert raw["audio_channels"] == 64
    assert raw["visual"]["x"].max() < 28
    assert raw["label"] == 1
    assert raw["class"] == "b"
    assert raw["source"]["voice"] == b"x"


@pytest.mark.parametrize("steps", [0, 65, 2.5])
def test_steps_out_of_range_are_refused(steps):
    with pytest.raises(ConfigError, match="1 to 64"):
        BinnedSpec(steps)


def test_the_layout_is_told_in_words():
    assert "(16, 1, 28, 28)" in BinnedSpec().layout()["audio"]
    assert "(16, 2, 28, 28)" in BinnedSpec().layout()["visual"]
