"""Pictures and spectrograms: the spectrogram's steps, the two views of a picture, lazy epochs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from neuroav.data import AVData
from neuroav.data import spectrograms as sp
from neuroav.data.augment import NONE, Augmentation
from neuroav.data.cache import Recordings
from neuroav.data.ragged import Ragged
from neuroav.data.stills import (
    DEVIATION,
    MEAN,
    LazyStills,
    StillSpec,
    centred,
    random_box,
    random_part,
)
from neuroav.errors import ConfigError, DataError
from neuroav.training.batches import input_shapes, iterate, to_tensors


# --- spectrograms ------------------------------------------------------------------------------
def by_convolution(x: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """The windowed sinc of torchaudio's documentation as one strided convolution, float64."""
    common = math.gcd(rate, wanted)
    down, up = rate // common, wanted // common
    base = min(down, up) * 0.99
    width = math.ceil(6 * down / base)
    inputs = torch.arange(-width, width + down, dtype=torch.float64)[None] / down
    outputs = torch.arange(up, dtype=torch.float64)[:, None] / up
    t = ((inputs - outputs) * base).clamp(-6, 6)
    kernel = torch.sinc(t) * torch.cos(t * math.pi / 12) ** 2 * base / down
    padded = torch.nn.functional.pad(torch.as_tensor(x)[None, None], (width, width + down))
    found = torch.nn.functional.conv1d(padded, kernel[:, None], stride=down)
    return found.transpose(1, 2).reshape(-1)[: math.ceil(up * len(x) / down)].numpy()


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000, 96000])
def test_resampling_is_the_published_kernel(rate):
    x = np.random.default_rng(rate).normal(0, 0.3, 2001)
    found = sp.resampled(x, rate, sp.RATE)
    expected = by_convolution(x, rate, sp.RATE)
    assert len(found) == math.ceil(2001 * sp.RATE / rate) == len(expected)
    assert np.abs(expected).max() > 0.3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_a_tone_keeps_its_frequency_and_loudness():
    at = np.arange(16000) / 16000
    found = sp.resampled(np.sin(2 * np.pi * 1000 * at), 16000, sp.RATE)
    expected = np.sin(2 * np.pi * 1000 * np.arange(len(found)) / sp.RATE)
    np.testing.assert_allclose(found[500:-500], expected[500:-500], atol=2e-3)
    same = np.random.default_rng(0).normal(size=50)
    np.testing.assert_array_equal(sp.resampled(same, sp.RATE, sp.RATE), same)


def test_magnitudes_are_those_of_torch():
    x = np.random.default_rng(0).normal(0, 0.3, 5000)
    window = torch.hann_window(512, dtype=torch.float64)
    expected = torch.stft(
        torch.as_tensor(x), 512, 353, window=window, center=True, pad_mode="constant",
        return_complex=True,
    ).abs()  # fmt: skip
    found = sp.magnitudes(x)
    assert found.shape == (257, 1 + 5000 // 353)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-12)


def test_spectrogram_is_stretched_to_128_columns():
    """A tone is one bright row; twice the length gives the same rows, not twice the columns."""
    rate = sp.RATE
    short, long = (
        sp.log_spectrogram(0.5 * np.sin(2 * np.pi * 4000 * np.arange(n) / rate), rate, "tone")
        for n in (rate, 2 * rate)
    )
    assert short.shape == long.shape == (128, 128)
    assert short.dtype == np.float32
    bright = short[:, 64].argmax()
    assert abs(bright - 4000 / (rate / 2) * 128) < 1
    assert long[:, 64].argmax() == bright
    np.testing.assert_allclose(short[bright, 5:-5], long[bright, 5:-5], atol=0.1)


def test_shrinking_averages():
    """As Pillow shrinks 257 rows to 128: all rows count, not every second one."""
    saw = np.arange(sp.RATE) % 7 / 7
    level = np.log(sp.magnitudes(saw) + sp.FLOOR).astype(np.float32)
    image = Image.fromarray(level).resize((128, 128), Image.Resampling.BILINEAR)
    found = sp.log_spectrogram(saw, sp.RATE, "saw")
    np.testing.assert_array_equal(found, np.asarray(image))
    middle = 20 * 257 / 128 + 257 / 256 - 0.5  # of row 20, in rows of the spectrogram
    weights = np.maximum(0, 1 - np.abs(np.arange(257) - middle) / (257 / 128))
    columns = Image.fromarray(level).resize((128, 257), Image.Resampling.BILINEAR)
    expected = weights / weights.sum() @ np.asarray(columns)
    np.testing.assert_allclose(found[20], expected, atol=1e-4)


def test_silence_and_loudness_have_their_floor_and_ceiling():
    silent = sp.log_spectrogram(np.zeros(4000), 16000, "silence")
    np.testing.assert_allclose(silent, math.log(1e-7), rtol=1e-6)
    square = np.sign(np.sin(np.arange(4000) / 9))
    loud = sp.log_spectrogram(3 * square, sp.RATE, "loud")
    np.testing.assert_array_equal(loud, sp.log_spectrogram(square, sp.RATE, "cut"))


@pytest.mark.parametrize(
    ("sound", "said"),
    [
        (np.zeros(0), "more than none"),
        (np.zeros((5, 2)), "one channel"),
        (np.array([0.0, np.nan]), "NaN"),
        (np.zeros(61 * 100), "60 s"),
    ],
)
def test_what_is_no_sound_is_named(sound, said):
    with pytest.raises(DataError, match="here.wav.*") as error:
        sp.log_spectrogram(sound, 100, "here.wav")
    assert said in str(error.value)


# --- pictures ----------------------------------------------------------------------------------
def denormalised(x: np.ndarray) -> np.ndarray:
    return (x * DEVIATION[:, None, None] + MEAN[:, None, None]) * 255


def test_test_view_is_the_middle_of_the_resized_picture():
    """480x360, CREMA-D's size: resized to 341x256, of which the middle 128x128 is seen."""
    y, x = np.mgrid[:360, :480]
    pixels = np.stack([x * 255 // 479, y * 255 // 359, 0 * x], axis=2).astype(np.uint8)
    found = denormalised(centred(pixels, 128))
    assert found.shape == (3, 128, 128)
    left, top = round((341 - 128) / 2), (256 - 128) // 2
    assert found[0, 0, 0] == pytest.approx((left + 0.5) / 341 * 255, abs=1.5)
    assert found[0, 0, -1] == pytest.approx((left + 127.5) / 341 * 255, abs=1.5)
    assert found[1, 0, 0] == pytest.approx((top + 0.5) / 256 * 255, abs=1.5)
    assert np.abs(found[2]).max() < 1e-3
    tall = denormalised(centred(pixels.transpose(1, 0, 2), 128))
    np.testing.assert_allclose(tall[0], found[0].T, atol=1)


def test_values_are_normalised_by_imagenet():
    found = centred(np.full((40, 50, 3), 255, np.uint8), 64)
    np.testing.assert_allclose(found[:, 0, 0], (1 - MEAN) / DEVIATION, rtol=1e-6)
    assert found.dtype == np.float32


def test_random_boxes_have_the_published_areas_and_ratios():
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(360, 480, rng) for _ in range(3000)])
    top, left, rows, columns = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + rows <= 360).all()
    assert (left + columns <= 480).all()
    area, ratio = rows * columns / (360 * 480), columns / rows
    assert area.min() < 0.1
    assert area.max() > 0.85
    assert area.min() > 0.079
    assert area.max() <= 1
    assert 0.745 < ratio.min() < 0.78
    assert 1.29 < ratio.max() < 1.345
    assert (top > 0).any()
    assert (left > 0).any()
    assert 0.4 < area.mean() < 0.54  # even from .08 to 1, less what does not fit


def test_a_long_picture_falls_back_to_its_middle():
    # 16x128: the fewest tries fit. Its middle, of ratio 4/3, is 16 x 21.
    rng = np.random.default_rng(3)
    boxes = {random_box(16, 128, rng) for _ in range(300)}
    assert ((0, (128 - 21) // 2, 16, 21)) in boxes


def test_random_part_mirrors_every_second_time():
    x = np.mgrid[:64, :64][1]
    pixels = np.repeat((x * 4).astype(np.uint8)[:, :, None], 3, axis=2)
    rises = [random_part(pixels, 32, np.random.default_rng(n))[0, 16] for n in range(200)]
    mirrored = np.mean([row[-1] < row[0] for row in rises])
    assert 0.35 < mirrored < 0.65


# --- splits ------------------------------------------------------------------------------------
SHAPES = ((40, 60), (70, 50), (64, 64), (33, 90), (128, 40), (50, 50))


def recordings(validation: str | None = None) -> Recordings:
    rng = np.random.default_rng(1)
    pixels = [rng.integers(0, 256, r * c * 3).astype(np.uint8) for r, c in SHAPES]
    levels = rng.normal(-5, 3, (len(SHAPES), 128 * 128)).astype(np.float32)
    visual = np.concatenate([[0], np.cumsum([len(p) for p in pixels])])
    meta = {"name": "still", "preset": "x", "data_seed": 0, "classes": ["a", "b"]}
    meta |= {"layout": "stills"} | ({"validation": validation} if validation else {})
    return Recordings(
        Ragged({"level": levels.reshape(-1)}, np.arange(len(SHAPES) + 1) * 128 * 128),
        Ragged({"pixel": np.concatenate(pixels)}, visual),
        np.array([0, 1, 0, 1, 0, 1]),
        np.array([0, 0, 0, 0, 1, 2], np.uint8),
        meta,
        {"visual_size": np.array(SHAPES)},
    )


@pytest.fixture
def data() -> AVData:
    return AVData.of(recordings(), StillSpec(steps=3, size=64))


def test_frames_are_the_same_in_every_step_without_copies(data):
    frames = data.split("train").frames()
    assert frames.audio.shape == (4, 3, 1, 64, 64)
    assert frames.visual.shape == (4, 3, 3, 64, 64)
    assert frames.audio.dtype == frames.visual.dtype == np.float32
    assert frames.visual.strides[1] == frames.audio.strides[1] == 0
    stored = data.split("train").recordings
    expected = centred(stored.visual.one(1)["pixel"].reshape(70, 50, 3), 64)
    np.testing.assert_array_equal(frames.visual[1, 2], expected)
    level = stored.audio.one(1)["level"].reshape(128, 128)
    np.testing.assert_allclose(frames.audio[1, 0, 0, 3, 5], level[6:8, 10:12].mean(), rtol=1e-6)
    np.testing.assert_array_equal(data.split("val").frames().labels, [0])
    picked = data.split("train").frames([2, 0])
    np.testing.assert_array_equal(picked.visual, frames.visual[[2, 0]])
    whole = AVData.of(recordings(), StillSpec(steps=1)).split("train").frames([1])
    np.testing.assert_array_equal(whole.audio[0, 0, 0], level)  # 128: as stored


def test_validation_is_the_test_where_the_protocol_says_so():
    split = AVData.of(recordings("test"), StillSpec()).split("val")
    np.testing.assert_array_equal(split.rows, [5])


def test_an_epoch_is_lazy_and_does_not_depend_on_the_order_of_batches(data):
    def epoch(seed=0):
        return data.split("train").augmented(NONE, np.random.default_rng(seed))

    frames = epoch()
    assert isinstance(frames.visual, LazyStills)
    assert frames.visual.shape == (4, 3, 3, 64, 64)
    assert len(frames.visual) == 4
    whole = np.asarray(epoch().visual)
    assert np.ptp(whole) > 1
    shuffled = np.array([3, 1, 0, 2])
    np.testing.assert_array_equal(frames.visual[shuffled], whole[shuffled])
    np.testing.assert_array_equal(frames.visual[2], whole[2])
    np.testing.assert_array_equal(frames.visual[1:3], whole[1:3])
    np.testing.assert_array_equal(frames.audio[:], data.split("train").frames().audio)
    other, tested = np.asarray(epoch(1).visual), data.split("train").frames().visual
    assert (other != whole).any(axis=(1, 2, 3, 4)).all()
    assert (tested != whole).any(axis=(1, 2, 3, 4)).all()
    np.testing.assert_array_equal(frames.labels, data.split("train").labels)
    with pytest.raises(TypeError, match="first axis"):
        frames.visual[0, 1]


def test_only_what_a_batch_asks_for_is_cut():
    asked = []

    def one(sample):
        asked.append(sample)
        return np.full((1, 2, 2), sample, np.float32)

    found = LazyStills(one, (1000, 4, 1, 2, 2))[np.array([7, 900])]
    assert asked == [7, 900]
    assert found.shape == (2, 4, 1, 2, 2)
    assert found[1, 3, 0, 0, 0] == 900


def test_draws_leave_the_generator_where_they_would_for_any_size(data):
    """What is drawn after an epoch's frames, the order of its samples, is fixed by the seed."""
    after = []
    for size in (32, 64):
        rng = np.random.default_rng(5)
        split = AVData.of(recordings(), StillSpec(size=size)).split("train")
        np.asarray(split.augmented(NONE, rng).visual)
        after.append(rng.permutation(100))
    np.testing.assert_array_equal(*after)


def test_pairs_may_be_dealt_anew_within_a_label(data):
    rng = np.random.default_rng(0)
    again = Augmentation(stretch=0, shift=0, drop=0, channel_shift=0, image_shift=0, repair=True)
    frames = data.split("train").augmented(again, rng)
    assert frames.visual[:].shape == (4, 3, 3, 64, 64)
    with pytest.raises(DataError, match="never augmented"):
        data.split("test").augmented(again, rng)


def test_batches_for_a_network(data):
    frames = data.split("train").augmented(NONE, np.random.default_rng(0))
    assert input_shapes(frames) == {"audio": (1, 64, 64), "visual": (3, 64, 64)}
    batches = list(iterate(frames, ("audio", "visual"), 3, np.array([3, 2, 1, 0])))
    assert [len(labels) for _, labels in batches] == [3, 1]
    audio, visual = batches[0][0]
    assert visual.shape == (3, 3, 3, 64, 64)
    assert visual.dtype == torch.float32
    np.testing.assert_array_equal(visual[2, 0].numpy(), frames.visual[3][2])
    tested = to_tensors(data.split("val").frames(), ("audio",), slice(None))
    assert tested[0].shape == (3, 1, 1, 64, 64)
    assert audio.is_contiguous()


def test_there_are_no_events(data):
    split = data.split("test")
    assert not split.has_events
    for ask in (lambda: split.raw_events(0), lambda: split.altered(lambda _, e: e)):
        with pytest.raises(DataError, match="no events"):
            ask()
    with pytest.raises(DataError, match="allowed are 0 to 0"):
        split.frames([1])


@pytest.mark.parametrize("bad", [{"size": 16}, {"size": 100}, {"steps": 0}, {"steps": 65}])
def test_sizes_that_are_not_offered(bad):
    with pytest.raises(ConfigError, match="allowed are|data.visual_size=128"):
        StillSpec(**bad)


def test_a_picture_that_is_not_as_large_as_it_says():
    broken = recordings()
    broken.source["visual_size"][4] = (41, 41)
    with pytest.raises(DataError, match="needs 41x41x3"):
        AVData.of(broken, StillSpec()).split("val").frames()


def test_layout_in_words():
    words = StillSpec(4, 128).layout()
    assert "(4, 1, 128, 128)" in words["audio"]
    assert "(4, 3, 128, 128)" in words["visual"]
