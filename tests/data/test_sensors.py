"""The cochlea and the event camera against what theory says of them."""

import numpy as np
import pytest

from neuroav.data import cochlea, dvs
from neuroav.errors import DataError

RATE = 16_000


def _tone(hz: float, seconds: float = 0.64) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(RATE * seconds)) / RATE)


def _rngs(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, i]) for i in range(count)]


def test_centres_run_from_80_to_7200_hz_evenly_in_erb_number():
    centre = cochlea.erb_space()
    assert (len(centre), centre[0], centre[-1]) == pytest.approx((64, 80, 7200))
    number = 21.4 * np.log10(1 + 0.00437 * centre)
    np.testing.assert_allclose(np.diff(number), np.diff(number)[0])
    assert cochlea.erb(np.array([1000.0]))[0] == pytest.approx(132.6, abs=0.1)


@pytest.mark.parametrize("channel", [5, 20, 40, 60])
def test_a_tone_at_a_centre_rings_that_channel_most_with_mean_one_over_pi(channel):
    envelopes = cochlea.GammatoneBank(RATE, 640).envelopes(_tone(cochlea.erb_space()[channel]))
    steady = envelopes[:, 200:600].mean(axis=1)
    assert steady.argmax() == channel
    assert steady[channel] == pytest.approx(1 / np.pi, rel=0.02)


@pytest.mark.parametrize("channel", [20, 35, 50])
def test_bank_agrees_with_a_rectified_time_domain_gammatone(channel):
    from scipy import signal

    rng = np.random.default_rng(0)
    wave = rng.standard_normal(RATE * 64 // 100) * np.hanning(RATE * 64 // 100)
    ours = cochlea.GammatoneBank(RATE, 640).envelopes(wave)[channel]
    centre = cochlea.erb_space()[channel]
    output = signal.lfilter(*signal.gammatone(centre, "fir", numtaps=1600, fs=RATE), wave)
    theirs = np.maximum(output, 0).reshape(640, 16).mean(axis=1)
    smooth = np.ones(20) / 20  # the neuron's 20 ms
    ours, theirs = np.convolve(ours, smooth), np.convolve(theirs, smooth)
    assert np.corrcoef(ours, theirs)[0, 1] > 0.98


def test_pink_noise_has_unit_power_and_falls_three_decibels_per_octave():
    noise = cochlea.pink_noise(np.random.default_rng(0), 1 << 17, RATE)
    assert np.mean(noise**2) == pytest.approx(1)
    power, hz = np.abs(np.fft.rfft(noise)) ** 2, np.fft.rfftfreq(1 << 17, 1 / RATE)
    low, high = power[(hz > 200) & (hz < 400)].sum(), power[(hz > 1600) & (hz < 3200)].sum()
    assert low / high == pytest.approx(1, rel=0.1)  # equal power in every octave


def test_neurons_rest_leak_and_stay_silent_without_input():
    current = np.zeros((1, 64, 300), np.float32)
    current[0, 0] = 2.0  # fires whenever it may
    current[0, 1] = 0.9 * (1 - np.exp(-1 / 20))  # settles at 0.9, below threshold
    current[0, 2] = 1.1 * (1 - np.exp(-1 / 20))
    tick, item, channel = cochlea.fire(current, gain=1.0)
    assert set(item) == {0}
    assert np.diff(tick[channel == 0]).tolist() == [3] * 99  # one tick and two of rest
    assert not (channel == 1).any()
    assert 2 < (channel == 2).sum() < 10
    assert channel.max() == 2


def test_encode_normalises_loudness_and_noise_follows_the_ratio():
    speech = _tone(500, 0.3)
    clean = np.full(2, np.inf)
    quiet = cochlea.encode([speech, 1000 * speech], RATE, clean, _rngs(2), 640).spikes
    assert quiet.counts[0] > 50
    np.testing.assert_array_equal(quiet.one(0)["time"], quiet.one(1)["time"])
    noisy = cochlea.encode([speech] * 2, RATE, np.array([0.0, -20.0]), _rngs(2), 640).spikes
    in_band = [(np.abs(noisy.one(i)["channel"].astype(int) - 20) > 12).mean() for i in (0, 1)]
    assert in_band[0] < in_band[1]


def test_the_spectrogram_shows_where_and_when_the_tone_is():
    pulse = np.concatenate([np.zeros(int(0.3 * RATE)), _tone(1000, 0.1)])
    heard = cochlea.encode([pulse], RATE, np.array([np.inf]), _rngs(1), 635)
    (picture,) = heard.spectrograms
    assert picture.shape == (64, 64)  # the last cell is half as long
    assert picture.max() == cochlea.PICTURE_DB
    channel, cell = np.unravel_index(picture.argmax(), picture.shape)
    assert abs(cochlea.erb_space()[channel] - 1000) < 100
    assert 30 <= cell < 41
    assert picture[channel, :29].max() == 0
    assert picture[channel, 55:].max() == 0
    envelopes = np.zeros((64, 20))
    envelopes[3, :10], envelopes[4, 10:] = 10, 1  # 20 dB apart
    np.testing.assert_array_equal(cochlea.spectrogram(envelopes)[3:5], [[60, 0], [0, 40]])


def test_a_bank_for_slow_sampling_stays_below_half_the_rate():
    centre = cochlea.erb_space(high=3600)
    assert centre[-1] == pytest.approx(3600)
    tone = np.sin(2 * np.pi * centre[60] * np.arange(5120) / 8000)
    envelopes = cochlea.GammatoneBank(8000, 640, 3600).envelopes(tone)
    assert envelopes[:, 200:600].mean(axis=1).argmax() == 60
    with pytest.raises(DataError, match=r"at 7200 Hz, allowed is below 4000 Hz"):
        cochlea.GammatoneBank(8000, 640)


def test_a_silent_wave_is_refused():
    with pytest.raises(DataError, match="recording 0 is silent"):
        cochlea.encode([np.zeros(100, np.int16)], RATE, np.array([0.0]), _rngs(1), 640)


def _noise(count: int, drop=0.0, background=0.0, jitter=0) -> dvs.SensorNoise:
    return dvs.SensorNoise(np.full(count, drop), np.full(count, background), jitter)


def _bar() -> np.ndarray:
    picture = np.zeros((1, 8, 8))
    picture[0, 2:6, 3:5] = 16
    return picture


def test_an_empty_picture_gives_no_event_and_background_gives_its_rate():
    empty = np.zeros((20, 8, 8))
    assert dvs.record(empty, _noise(20), _rngs(20)).counts.sum() == 0
    noisy = dvs.record(empty, _noise(20, background=5.0), _rngs(20))
    expected = 5 * 34 * 34 * 0.3
    assert noisy.counts.mean() == pytest.approx(expected, rel=0.03)
    assert noisy["x"].max() == 33
    assert 0.45 < noisy["p"].mean() < 0.55


def test_a_closed_path_gives_as_many_on_as_off_events_near_the_picture():
    events = dvs.record(_bar(), _noise(1), _rngs(1)).one(0)
    on = int(events["p"].sum())
    off = len(events["p"]) - on
    assert on > 300
    assert on == pytest.approx(off, rel=0.12)
    assert 8 < events["x"].min() < events["x"].max() < 25


def test_the_first_saccade_moves_the_picture_left():
    """The gaze goes right, so the bar's left edge brightens: ON events lie left of OFF ones."""
    events = dvs.record(_bar(), _noise(1), _rngs(1)).one(0)
    first = events["time"] < 100_000
    x, p = events["x"][first].astype(float), events["p"][first] == 1
    assert p.sum() > 50
    assert x[p].mean() < x[~p].mean() - 2


def test_drop_keeps_its_share_and_jitter_moves_whole_pixels():
    pictures = np.repeat(_bar(), 30, axis=0)
    full = dvs.record(pictures, _noise(30), _rngs(30)).counts.sum()
    left = dvs.record(pictures, _noise(30, drop=0.7), _rngs(30)).counts.sum()
    assert left / full == pytest.approx(0.3, abs=0.01)
    moved = dvs.record(pictures, _noise(30, jitter=3), _rngs(30))
    centres = [moved.one(i)["x"].mean() for i in range(30)]
    assert 4 < max(centres) - min(centres) < 7


def test_a_recording_does_not_depend_on_its_neighbours():
    pictures = np.random.default_rng(0).integers(0, 17, (70, 8, 8)).astype(float)
    noise = _noise(70, 0.5, 2.0, 3)
    whole = dvs.record(pictures, noise, _rngs(70))
    alone = dvs.record(pictures[66:67], _noise(1, 0.5, 2.0, 3), [np.random.default_rng([0, 66])])
    assert alone.counts[0] > 500
    for name, column in alone.one(0).items():
        np.testing.assert_array_equal(column, whole.one(66)[name])
