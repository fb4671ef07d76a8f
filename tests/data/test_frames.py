"""Binning: equal to tonic's, nothing lost, and the axes are where the text says."""

import numpy as np
import pytest

from neuroav.data import FrameSpec, layout, tonic_dataset
from neuroav.data.frames import bin_audio, bin_visual
from neuroav.data.ragged import Ragged
from neuroav.errors import ConfigError, DataError

AUDIO_US, VISUAL_US = 640_000, 300_000


def _audio(channel, time) -> Ragged:
    return Ragged({"channel": np.array(channel), "time": np.array(time)}, np.array([0, len(time)]))


def _visual(x, y, p, time) -> Ragged:
    columns = {"x": x, "y": y, "p": p, "time": time}
    return Ragged({k: np.array(v) for k, v in columns.items()}, np.array([0, len(time)]))


@pytest.mark.parametrize(("steps", "size"), [(8, 16), (3, 32), (1, 16)])
def test_visual_frames_equal_tonic_to_frame(small, steps, size):
    from tonic.transforms import ToFrame

    to_frame = ToFrame((34, 34, 2), time_window=VISUAL_US / steps, start_time=0, end_time=VISUAL_US)
    view = tonic_dataset(small.split("test"), "visual", to_frame)
    ours, clipped = bin_visual(
        small.split("test").recordings.visual.take(small.split("test").rows),
        FrameSpec(steps=steps, visual_size=size),
        VISUAL_US,
        34,
    )
    assert clipped == 0
    assert len(view) == 50
    for i, (theirs, label) in enumerate(view):
        assert theirs.shape == (steps, 2, 34, 34)
        scale = 32 // size
        centre = theirs[:, :, 1:33, 1:33].reshape(steps, 2, size, scale, size, scale).sum((3, 5))
        assert centre.sum() > 500
        np.testing.assert_array_equal(ours[i], centre)
        assert label == small.split("test").labels[i]


@pytest.mark.parametrize("steps", [8, 5])
def test_audio_frames_equal_tonic_to_frame(small, steps):
    from tonic.transforms import ToFrame

    window = AUDIO_US / (steps * 8)
    to_frame = ToFrame((64, 1, 1), time_window=window, start_time=0, end_time=AUDIO_US)
    split = small.split("val")
    audio = split.recordings.audio.take(split.rows)
    ours, clipped = bin_audio(audio, FrameSpec(steps=steps), AUDIO_US, 64)
    assert clipped == 0
    for i, (theirs, _) in enumerate(tonic_dataset(split, "audio", to_frame)):
        assert theirs.shape == (steps * 8, 1, 64)
        assert theirs.sum() > 50
        # (step, fine, band, row) -> (step, band, row, fine)
        expected = theirs.reshape(steps, 8, 8, 8).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(ours[i], expected)


@pytest.mark.parametrize("steps", [1, 7, 8, 64])
def test_no_event_is_lost_within_window_and_crop(small, steps):
    split = small.split("train")
    frames = split.frames()
    audio, visual = (
        getattr(split.recordings, name).take(split.rows) for name in ("audio", "visual")
    )
    spec = FrameSpec(steps=steps)
    heard, lost = bin_audio(audio, spec, AUDIO_US, 64)
    assert heard.sum(axis=(1, 2, 3, 4), dtype=int).tolist() == audio.counts.tolist()
    inside = (np.minimum(visual["x"], visual["y"]) >= 1) & (
        np.maximum(visual["x"], visual["y"]) <= 32
    )
    seen, lost_too = bin_visual(visual, spec, VISUAL_US, 34)
    counts = np.bincount(visual.item[inside], minlength=len(visual))
    assert seen.sum(axis=(1, 2, 3, 4), dtype=int).tolist() == counts.tolist()
    assert (lost, lost_too, frames.clipped) == (0, 0, 0)
    assert heard.sum() == frames.audio.sum() > 10_000
    assert seen.sum() == frames.visual.sum() > 50_000


def test_shapes_types_and_order_of_frames(small):
    frames = small.split("test").frames()
    assert (frames.audio.shape, frames.audio.dtype) == ((50, 8, 8, 8, 8), np.uint8)
    assert (frames.visual.shape, frames.visual.dtype) == ((50, 8, 2, 16, 16), np.uint8)
    assert (frames.labels.dtype, len(frames)) == (np.int64, 50)
    some = small.split("test").frames([7, 3, 3])
    np.testing.assert_array_equal(some.audio, frames.audio[[7, 3, 3]])
    np.testing.assert_array_equal(some.visual, frames.visual[[7, 3, 3]])
    np.testing.assert_array_equal(some.labels, frames.labels[[7, 3, 3]])
    assert len(small.split("test").frames([])) == 0


@pytest.mark.parametrize("indices", [[50], [-1], [0, 99]])
def test_samples_outside_a_split_are_refused(small, indices):
    with pytest.raises(DataError, match="allowed are 0 to 49"):
        small.split("test").frames(indices)


def test_each_axis_is_where_the_text_says():
    spec = FrameSpec()
    audio, _ = bin_audio(_audio([8 * 3 + 5], [2 * 80_000 + 4 * 10_000 + 9_999]), spec, AUDIO_US, 64)
    assert np.argwhere(audio).tolist() == [[0, 2, 3, 5, 4]]
    event = _visual([1 + 2 * 7], [1 + 2 * 4 + 1], [1], [37_500 * 5])
    visual, _ = bin_visual(event, spec, VISUAL_US, 34)
    assert np.argwhere(visual).tolist() == [[0, 5, 1, 4, 7]]
    assert "c // 8" in layout(spec)["audio"]
    assert "16, 16" in layout(spec)["visual"]


def test_events_outside_window_sensor_or_channels_are_left_out():
    audio = _audio([0, 0, -1, 64, 0], [-1, 640_000, 5, 5, 639_999])
    assert bin_audio(audio, FrameSpec(), AUDIO_US, 64)[0].sum() == 1
    visual = _visual([0, 33, 5, 5, 5, -3, 5], [5, 5, 0, 33, 5, 5, 5], [0] * 7, [9] * 6 + [300_000])
    assert bin_visual(visual, FrameSpec(), VISUAL_US, 34)[0].sum() == 1


def test_neighbouring_channels_are_added_when_there_are_fewer_rows():
    audio, _ = bin_audio(_audio([0, 1, 2, 63], [0] * 4), FrameSpec(audio_rows=4), AUDIO_US, 64)
    assert audio.shape == (1, 8, 8, 4, 8)
    assert np.argwhere(audio)[:, 2:4].tolist() == [[0, 0], [0, 1], [7, 3]]
    assert audio[0, 0, 0, 0, 0] == 2


def test_a_full_cell_is_counted_not_silent():
    many = _audio([0] * 300 + [1], [0] * 301)
    audio, clipped = bin_audio(many, FrameSpec(), AUDIO_US, 64)
    assert (audio.max(), audio.sum(), clipped) == (255, 256, 45)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("steps", 0),
        ("steps", 65),
        ("steps", 8.0),
        ("visual_size", 17),
        ("audio_channels", 0),
        ("audio_rows", 9),
        ("audio_channels", 16),
        ("audio_fine_bins", 0),
    ],
)
def test_sizes_out_of_range_are_refused(key, value):
    with pytest.raises(ConfigError, match=key):
        FrameSpec(**{key: value})


def test_tonic_view_behaves_like_a_tonic_data_set(small):
    from tonic import MemoryCachedDataset
    from tonic.dataset import Dataset

    split = small.split("val")
    view = tonic_dataset(split, "audio", target_transform=lambda label: label + 100)
    assert isinstance(view, Dataset)
    assert view.sensor_size == (64, 1, 1)
    events, label = MemoryCachedDataset(view)[3]
    assert events.dtype.names == ("t", "x", "p")
    np.testing.assert_array_equal(events["x"], split.raw_events(3)["audio"]["channel"])
    assert label == split.labels[3] + 100
    with pytest.raises(DataError, match="did you mean 'visual'"):
        tonic_dataset(split, "visul")


def test_ragged_take_and_keep():
    events = Ragged.build(np.array([2, 0, 2, 0, 3]), 4, value=np.array([1, 2, 3, 4, 5]))
    assert events.counts.tolist() == [2, 0, 2, 1]
    assert events["value"].tolist() == [2, 4, 1, 3, 5]
    taken = events.take(np.array([2, 1, 2, 3]))
    assert taken["value"].tolist() == [1, 3, 1, 3, 5]
    assert taken.item.tolist() == [0, 0, 2, 2, 3]
    kept = taken.keep(taken["value"] != 1)
    assert (kept["value"].tolist(), kept.counts.tolist()) == ([3, 3, 5], [1, 0, 1, 1])
    joined = Ragged.join([kept, events])
    assert joined.counts.tolist() == [1, 0, 1, 1, 2, 0, 2, 1]
    assert joined.one(6)["value"].tolist() == [1, 3]
