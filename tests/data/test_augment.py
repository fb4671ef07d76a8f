"""Augmentation: training only, as large as said, and repeatable."""

import numpy as np
import pytest

from neuroav.data import Augmentation
from neuroav.data.augment import NONE, augment_audio, augment_visual, repair
from neuroav.data.ragged import Ragged
from neuroav.errors import ConfigError, DataError

WINDOW = 300_000


def _regular(items: int = 200, events: int = 301) -> Ragged:
    """Events every millisecond, channel 30 or pixel (10, 20)."""
    time = np.tile(np.arange(events, dtype=np.uint32) * 1000, items)
    columns = {"channel": 30, "x": 10, "y": 20, "p": 1}
    full = {name: np.full(len(time), value, np.uint8) for name, value in columns.items()}
    return Ragged({**full, "time": time}, np.arange(items + 1) * events)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_same_generator_gives_the_same_epoch_and_the_next_differs(small):
    train, rng = small.split("train"), _rng(3)
    first, second = (train.augmented(Augmentation(), rng) for _ in range(2))
    again = train.augmented(Augmentation(), _rng(3))
    np.testing.assert_array_equal(first.audio, again.audio)
    np.testing.assert_array_equal(first.visual, again.visual)
    assert first.audio.sum() > 10_000
    assert (first.audio != second.audio).any(axis=(1, 2, 3, 4)).mean() > 0.95
    assert (first.visual != second.visual).any(axis=(1, 2, 3, 4)).mean() > 0.95


def test_frames_stay_unaltered_and_labels_stay_in_order(small):
    train = small.split("train")
    before = train.frames()
    epoch = train.augmented(Augmentation(), _rng())
    after = train.frames()
    np.testing.assert_array_equal(before.audio, after.audio)
    np.testing.assert_array_equal(before.visual, after.visual)
    np.testing.assert_array_equal(epoch.labels, train.labels)
    assert 0.75 < epoch.audio.sum() / before.audio.sum() < 0.95


@pytest.mark.parametrize("name", ["val", "test"])
def test_only_training_is_augmented(small, name):
    with pytest.raises(DataError, match="never augmented"):
        small.split(name).augmented(Augmentation(), _rng())


def test_no_amounts_change_nothing(small):
    train = small.split("train")
    plain, epoch = train.frames(), train.augmented(NONE, _rng())
    np.testing.assert_array_equal(plain.audio, epoch.audio)
    np.testing.assert_array_equal(plain.visual, epoch.visual)


def test_re_pairing_moves_pictures_only_within_their_label(small):
    train = small.split("train")
    partner = repair(train.labels, _rng())
    assert sorted(partner) == list(range(len(train)))
    np.testing.assert_array_equal(train.labels[partner], train.labels)
    assert (partner != np.arange(len(train))).mean() > 0.7
    only = Augmentation(0, 0, 0, 0, 0, repair=True)
    epoch, plain = train.augmented(only, _rng()), train.frames()
    np.testing.assert_array_equal(epoch.visual, plain.visual[partner])
    np.testing.assert_array_equal(epoch.audio, plain.audio)


def test_events_are_dropped_up_to_the_share_said():
    left = augment_audio(_regular(), Augmentation(0, 0, 0.2, 0, 0), WINDOW, _rng())
    lost = 1 - left.counts / 301
    assert lost.min() < 0.03
    assert 0.15 < lost.max() < 0.27
    assert lost.mean() == pytest.approx(0.1, abs=0.01)


def test_time_is_stretched_about_the_middle_and_shifted_within_bounds():
    only_stretch = augment_audio(_regular(), Augmentation(0.06, 0, 0, 0, 0), WINDOW, _rng())
    time = only_stretch["time"].reshape(200, 301)
    length = (time[:, -1] - time[:, 0]) / WINDOW
    assert 0.94 <= length.min() < 0.945
    assert 1.055 < length.max() <= 1.06
    np.testing.assert_array_equal(time[:, 150], 150_000)
    only_shift = augment_visual(_regular(), Augmentation(0, 0.04, 0, 0, 0), WINDOW, _rng())
    first = only_shift["time"].reshape(200, 301)[:, 0]
    assert -12_000 <= first.min() < -11_000
    assert 11_000 < first.max() <= 12_000


def test_channels_and_pixels_shift_as_one_recording():
    amount = Augmentation(0, 0, 0, 1, 1)
    channel = augment_audio(_regular(), amount, WINDOW, _rng())["channel"].reshape(200, 301)
    assert set(channel[:, 0]) == {29, 30, 31}
    assert (channel == channel[:, :1]).all()
    visual = augment_visual(_regular(), amount, WINDOW, _rng())
    x, y = (visual[name].reshape(200, 301) for name in "xy")
    assert set(x[:, 0]) == {8, 9, 10, 11, 12}
    assert set(y[:, 0]) == {18, 19, 20, 21, 22}
    assert (x == x[:, :1]).all()
    assert (x[:, 0] - 10 != y[:, 0] - 20).any()


def _everywhere(items: int = 300) -> Ragged:
    """One event on every channel in every millisecond of 100."""
    time, channel = (grid.ravel() for grid in np.meshgrid(np.arange(100), np.arange(64)))
    columns = {"channel": np.tile(channel, items).astype(np.uint8)}
    columns["time"] = np.tile(time * 1000, items).astype(np.uint32)
    return Ragged(columns, np.arange(items + 1) * 6400)


@pytest.mark.parametrize(
    ("key", "amount", "size", "unit"),
    [("channel", {"band_mask": 8}, 64, 1), ("time", {"time_mask": 0.25}, 100, 1000)],
)
def test_masks_silence_one_span_anywhere_up_to_their_width(key, amount, size, unit):
    masked = Augmentation(0, 0, 0, 0, 0, **amount)
    left = augment_audio(_everywhere(), masked, 100_000, _rng())
    lost = np.ones((300, size), bool)
    lost[left.item, left[key] // unit] = False
    widest = 8 if key == "channel" else 25
    width = lost.sum(axis=1)
    assert widest - 1 <= width.max() <= widest + 1
    assert width.mean() == pytest.approx(widest / 2, rel=0.1)
    assert (np.abs(np.diff(lost.astype(int), axis=1)).sum(axis=1) <= 2).all()  # one span each
    assert lost[:, 3:-3].any(axis=0).all()  # no place is spared; the rims are hit seldom
    whole = 6400 // size  # a silenced place is silent altogether
    assert (left.counts == 6400 - width * whole).all()


def test_masks_that_are_off_draw_nothing():
    """Runs trained before there were masks can be repeated."""
    first, second = _rng(), _rng()
    augment_audio(_regular(), Augmentation(), WINDOW, first)
    augment_audio(_regular(), Augmentation(band_mask=4, time_mask=0.1), WINDOW, second)
    drawn = first.random(9)
    again = _rng()
    for draw in (again.uniform, again.uniform, again.random):
        draw(size=200)
    again.random(200 * 301)
    again.integers(-1, 2, 200)
    np.testing.assert_array_equal(drawn, again.random(9))
    assert (second.random(9) != drawn).any()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("stretch", -0.1), ("drop", 1.0), ("channel_shift", -1), ("image_shift", 9)),
        *(("band_mask", 33), ("band_mask", -1), ("time_mask", 1.0), ("time_mask", -0.1)),
    ],
)
def test_amounts_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError, match=key):
        Augmentation(**{key: value})
