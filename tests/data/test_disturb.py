"""Disturbances: as strong as they say, seeded sample by sample, and the same in any batch."""

from __future__ import annotations

import numpy as np
import pytest

from neuroav.data import disturb
from neuroav.data.ragged import Ragged
from neuroav.errors import ConfigError


def streams(samples, seed=0, name="noise on audio"):
    return disturb.streams(seed, name, samples)


def recordings(items=5, events=4000, window=300_000):
    rng = np.random.default_rng(1)
    return Ragged.build(
        rng.integers(items, size=items * events),
        items,
        channel=rng.integers(0, 64, items * events).astype(np.uint8),
        time=rng.integers(0, window, items * events).astype(np.int32),
    )


# --- streams -----------------------------------------------------------------------------------
def test_streams_differ_by_seed_name_and_sample_only():
    first = [rng.random() for rng in streams([3, 4])]
    assert first == [rng.random() for rng in streams([3, 4])]
    assert first[1] == streams([4])[0].random()
    others = [streams([3], seed=1), streams([3], name="noise on visual"), streams([5])]
    assert len({first[0], *(rng.random() for (rng,) in others)}) == 4


# --- noise -------------------------------------------------------------------------------------
@pytest.mark.parametrize("snr_db", [40, 30, 20])
def test_noise_has_the_power_it_should_have(snr_db):
    counts = np.random.default_rng(0).integers(4000, 6000, (3, 8, 2, 16, 16))  # far from clipping
    noisy = disturb.add_noise(counts, snr_db, 10**6, streams(range(3)))
    assert noisy.dtype == np.int32
    for clean, dirty in zip(counts.astype(np.float64), noisy, strict=True):
        noise, expected = dirty - clean, np.mean(clean**2) / 10 ** (snr_db / 10)
        # A variance varies by 2 sigma^4 / n, a mean by sigma^2 / n: five standard deviations each.
        assert abs(noise.var() / expected - 1) < 5 * np.sqrt(2 / noise.size)
        assert abs(noise.mean()) < 5 * np.sqrt(expected / noise.size)
        steps = noise.reshape(8, -1)  # white: one step tells nothing of the next
        assert abs(np.corrcoef(steps[0], steps[1])[0, 1]) < 5 / np.sqrt(steps.shape[1])


def test_the_power_is_each_samples_own():
    counts = np.zeros((3, 4, 1, 32, 32), np.uint8)
    counts[0], counts[1] = 10, 100  # the third is empty
    noisy = disturb.add_noise(counts, 20, 255, streams(range(3)))
    assert noisy[0].std() == pytest.approx(1.0, rel=0.1)
    assert noisy[1].std() == pytest.approx(10.0, rel=0.1)
    assert not noisy[2].any()


def test_counts_stay_whole_and_within_the_range():
    counts = np.random.default_rng(0).poisson(0.5, (4, 8, 2, 16, 16)).astype(np.uint8)
    noisy = disturb.add_noise(counts, -10, 7, streams(range(4)))
    assert (noisy.min(), noisy.max()) == (0, 7)
    assert noisy.mean() > counts.mean()  # in empty cells only the positive half is left


def test_weak_noise_is_rounded_away():
    counts = np.random.default_rng(0).poisson(0.2, (4, 8, 2, 16, 16)).astype(np.uint8)
    assert np.array_equal(disturb.add_noise(counts, 20, 255, streams(range(4))), counts)


def test_noise_of_a_level_is_that_of_another_scaled():
    counts = np.full((1, 8, 2, 32, 32), 1000)
    weak, strong = (
        disturb.add_noise(counts, snr, 10**6, streams([0])) - 1000.0 for snr in (40, 20)
    )
    assert np.abs(strong - 10 * weak).max() <= 5.5  # rounding: 0.5, and ten times 0.5


def test_batches_do_not_matter_for_noise():
    counts = np.random.default_rng(0).poisson(2, (6, 4, 2, 8, 8))
    whole = disturb.add_noise(counts, 0, 31, streams(range(6)))
    parts = [disturb.add_noise(counts[i : i + 2], 0, 31, streams([i, i + 1])) for i in (0, 2, 4)]
    assert np.array_equal(whole, np.concatenate(parts))


# --- lost events -------------------------------------------------------------------------------
@pytest.mark.parametrize("share", [0.2, 0.95])
def test_the_share_of_events_is_lost(share):
    events = recordings()
    left = disturb.drop_events(events, share, streams(range(5)))
    total = len(events["time"])
    spread = np.sqrt(share * (1 - share) / total)
    assert abs(1 - len(left["time"]) / total - share) < 5 * spread
    assert len(left) == len(events)


def test_nothing_and_everything():
    events = recordings()
    none = disturb.drop_events(events, 0, streams(range(5)))
    assert all(np.array_equal(none[c], events[c]) for c in events.columns)
    assert disturb.drop_events(events, 1, streams(range(5))).counts.tolist() == [0] * 5


def test_what_is_lost_at_a_low_share_is_lost_at_a_high_one():
    events = recordings()
    few, many = (disturb.drop_events(events, s, streams(range(5))) for s in (0.3, 0.6))
    for i in range(5):
        key = [few.one(i)["time"].astype(np.int64) * 64 + few.one(i)["channel"]]
        assert np.isin(
            many.one(i)["time"].astype(np.int64) * 64 + many.one(i)["channel"], key
        ).all()


def test_batches_do_not_matter_for_events():
    events = recordings()
    for change, amount in ((disturb.drop_events, 0.5), (disturb.jitter_events, 5000)):
        whole = change(events, amount, streams(range(5)))
        alone = change(events.take(np.array([3])), amount, streams([3]))
        assert all(np.array_equal(whole.one(3)[c], alone[c]) for c in alone.columns)


# --- jitter ------------------------------------------------------------------------------------
def test_times_move_by_a_gaussian():
    events = recordings()
    moved = disturb.jitter_events(events, 20_000, streams(range(5)))
    steps = moved["time"] - events["time"].astype(np.int64)
    total = len(steps)
    assert moved["time"].dtype == np.int64
    assert moved["time"].min() < 0  # binning leaves those out
    assert abs(steps.mean()) < 5 * 20_000 / np.sqrt(total)
    assert abs(steps.std() / 20_000 - 1) < 5 / np.sqrt(2 * total)
    assert np.array_equal(moved["channel"], events["channel"])
    assert np.array_equal(moved.offsets, events.offsets)


def test_no_jitter_changes_nothing():
    events = recordings()
    assert np.array_equal(disturb.jitter_events(events, 0, streams(range(5)))["time"],
                          events["time"])  # fmt: skip


def test_recordings_without_events():
    empty = recordings().keep(np.zeros(20_000, bool))
    assert len(disturb.drop_events(empty, 0.5, streams(range(5)))["time"]) == 0
    assert len(disturb.jitter_events(empty, 10.0, streams(range(5)))["time"]) == 0


# --- silence, and what is refused --------------------------------------------------------------
def test_a_silent_sensor_sends_nothing():
    counts = np.full((2, 4, 2, 8, 8), 3, np.uint8)
    silent = disturb.silence(counts)
    assert (silent.shape, silent.dtype, silent.any()) == (counts.shape, np.uint8, False)


@pytest.mark.parametrize(
    ("change", "amount", "message"),
    [
        (disturb.drop_events, 1.5, "share of events to drop is 1.5: allowed are 0 to 1"),
        (disturb.drop_events, -0.1, "share of events to drop is -0.1"),
        (disturb.jitter_events, -1, "time jitter is -1 us: allowed are 0 and more"),
    ],
)
def test_amounts_that_mean_nothing_are_refused(change, amount, message):
    with pytest.raises(ConfigError, match=message):
        change(recordings(), amount, streams(range(5)))
