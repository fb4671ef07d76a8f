"""Windows cut out of endless input are those of the data sets' own binning."""

from __future__ import annotations

import time

import numpy as np
import pytest
from streams import made_up_events, made_up_sound

from neuroav.data.frames import FrameSpec, bin_visual
from neuroav.data.ragged import Ragged
from neuroav.errors import DataError
from neuroav.streaming.cutting import EventCutter, SoundCutter
from neuroav.streaming.feed import Backlog, Feed
from neuroav.streaming.sensing import Hearing, Sight
from neuroav.streaming.sources import EventBlock


class Chunks:
    """Events as a source, in chunks of a size; a sender that keeps order."""

    live, sensor = False, None

    def __init__(self, events, size):
        order = range(0, len(events["time"]), size)
        self._parts = iter([{n: c[i : i + size] for n, c in events.items()} for i in order])
        self.closed = self.begun = False

    def begin(self):
        self.begun = True

    def read(self, wait_s):
        part = next(self._parts, None)
        return None if part is None else EventBlock(part, int(part["time"].max()))

    def close(self):
        self.closed = True


class Samples:
    live, lost, rate = False, 0, 8000

    def __init__(self, sound, size=160):
        self._parts = iter(np.split(sound, range(size, len(sound), size)))

    def begin(self):
        pass

    def read(self, wait_s):
        return next(self._parts, None)

    def close(self):
        pass


def never():
    return False


def expected(events, spec, window_us, start_us):
    """Counts of one window by the data sets' own function."""
    shifted = {**events, "time": events["time"] - start_us}
    ragged = Ragged(shifted, np.array([0, len(shifted["time"])]))
    return bin_visual(ragged, spec, window_us, 34)[0][0]


@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("chunk", [1, 97, 100_000])
@pytest.mark.parametrize("hop_ms", [100, 300, 640])
def test_windows_are_what_the_data_sets_count(size, chunk, hop_ms):
    events = made_up_events(1.6, 250 if chunk == 1 else 4000)
    sight = Sight("visual", (2, size, size), 255, 300_000, (34, 34))
    cutter = EventCutter(Chunks(events, chunk), sight, 8, hop_ms * 1000)
    spec, seen = FrameSpec(8, size), 0
    for window in range(1_300_000 // (hop_ms * 1000)):
        start = window * hop_ms * 1000
        cutter.fill(start + 300_000, never)
        cut = cutter.take(window)
        np.testing.assert_array_equal(cut.counts, expected(events, spec, 300_000, start))
        assert cut.events == cut.counts.sum()
        seen += cut.events
        assert len(cutter._open) <= 300 // hop_ms + 1
    assert seen > 80
    assert cutter.late == 0


def test_steps_of_a_window_make_the_window():
    events = made_up_events(0.8)
    sight = Sight("visual", (2, 16, 16), 255, 200_000, (34, 34))
    whole, parts = (EventCutter(Chunks(events, 50), sight, 7, 200_000) for _ in range(2))
    for window in range(3):
        whole.fill((window + 1) * 200_000, never)
        rows = []
        for step in range(7):
            parts.fill(window * 200_000 - (-200_000 * (step + 1) // 7), never)
            rows.append(parts.row(window, step).counts[0])
        found = whole.take(window).counts
        assert found.sum() > 100
        np.testing.assert_array_equal(np.stack(rows), found)


def test_one_polarity_and_full_cells():
    count = 300
    events = {"x": np.full(count, 5), "y": np.full(count, 9), "p": np.arange(count) % 2}
    events["time"] = np.arange(count)
    cutter = EventCutter(
        Chunks(events, 100), Sight("eye", (1, 10, 10), 100, 1000, (10, 10)), 1, 1000
    )
    cutter.fill(1000, never)
    cut = cutter.take(0)
    assert cut.counts[0, 0, 9, 5] == 100
    assert (cut.events, cut.clipped) == (100, 200)


def test_late_events_are_counted():
    events = {n: np.zeros(3, np.int64) for n in "xyp"}
    events["time"] = np.array([10, 2500, 20])
    cutter = EventCutter(Chunks(events, 1), Sight("eye", (2, 1, 1), 9, 1000, (1, 1)), 1, 1000)
    cutter.fill(1000, never)
    assert cutter.take(0).events == 1
    cutter.fill(4000, never)
    assert cutter.late == 1
    assert [cutter.take(w).events for w in (1, 2)] == [0, 1]


@pytest.mark.parametrize("hop_ms", [250, 640, 1000])
def test_windows_of_sound_are_slices(hop_ms):
    sound = made_up_sound(3.0).astype(np.int16)
    hearing = Hearing("audio", (8, 8, 8), 255, 640_000)
    cutter = SoundCutter(Samples(sound), hearing, 4, hop_ms * 1000)
    for window in range(2300 // hop_ms):
        start = 8 * hop_ms * window
        cutter.fill(window * hop_ms * 1000 + 640_000, never)
        np.testing.assert_array_equal(cutter.take(window).samples, sound[start : start + 5120])
        assert sum(map(len, cutter._blocks)) <= 5120 + 320
    cutter.fill(10_000_000, never)
    assert cutter.end_us == 3_000_000


# --- the end of the input ----------------------------------------------------------------------
def feed_of(seconds, hop_us=300_000, by_step=False, sound_s=None):
    sight = Sight("visual", (2, 16, 16), 255, 300_000, (34, 34))
    cutters = [EventCutter(Chunks(made_up_events(seconds), 500), sight, 4, hop_us)]
    if sound_s:
        hearing = Hearing("audio", (8, 8, 8), 255, 300_000)
        sound = made_up_sound(sound_s).astype(np.int16)
        cutters.append(SoundCutter(Samples(sound), hearing, 4, hop_us))
    return Feed(cutters, hop_us, by_step)


@pytest.mark.parametrize("by_step", [False, True])
@pytest.mark.parametrize(
    ("seconds", "windows", "partial"), [(0.1, 1, False), (1.0, 3, True), (1.1, 4, False)]
)
def test_a_window_that_the_end_cuts(seconds, windows, partial, by_step):
    """Answered if it is the first or half of it is there, said to be left out otherwise."""
    feed = feed_of(seconds, by_step=by_step)
    found = [p for p in feed if p.last]
    assert [p.window for p in found] == list(range(windows))
    assert [p.end_us for p in found] == [300_000 * (w + 1) for w in range(windows)]
    assert (feed.partial, feed.ended) == (partial, "visual")


def test_the_source_that_ends_first_ends_the_input():
    feed = feed_of(3.0, sound_s=1.0)
    assert len(list(feed)) == 3
    assert (feed.ended, feed.partial) == ("audio", True)


def test_a_source_without_anything_is_refused():
    with pytest.raises(DataError, match="visual: its source ended without anything"):
        list(feed_of(0.0))


# --- when the network is slower than the world --------------------------------------------------
@pytest.mark.parametrize("by_step", [False, True])
def test_whole_windows_are_dropped_and_counted(by_step):
    """A reader that never comes in time gets whole windows, and every other one is counted."""
    backlog = Backlog(feed := feed_of(3.0, by_step=by_step))
    got, dropped = [], []
    for piece in backlog:
        if len(got) < 2:
            backlog._thread.join()  # the world goes on to its end meanwhile
        got.append((piece.window, piece.step))
        dropped.append(backlog.dropped)
    assert feed.ended == "visual"
    assert not backlog._thread.is_alive()
    windows = list(dict.fromkeys(w for w, _ in got))
    assert windows[-1] == 9
    assert len(windows) + backlog.dropped == 10
    assert len(windows) <= 3
    steps = range(4) if by_step else [None]
    assert got == [(w, s) for w in windows for s in steps]


def test_a_reader_in_time_loses_nothing():
    class Patient(Feed):
        def __iter__(self):
            for piece in super().__iter__():
                while backlog._units:  # as long as the reader is at the one before
                    time.sleep(0.001)
                yield piece

    slow = feed_of(1.2)
    backlog = Backlog(Patient(slow.cutters, slow.hop_us))
    assert [p.window for p in backlog] == [0, 1, 2, 3]
    assert backlog.dropped == 0


def test_pieces_are_held_back_until_their_time():
    feed = feed_of(0.7)
    feed.paced = True
    found = list(feed)
    assert len(found) == 2
    assert all(p.ready_s - feed.begun_s >= p.end_us / 1e6 for p in found)


def test_errors_of_a_source_reach_the_reader():
    backlog = Backlog(feed_of(0.0))
    with pytest.raises(DataError, match="without anything"):
        list(backlog)


def test_closing_stops_the_thread():
    feed = feed_of(30.0, hop_us=300_000)
    feed.paced = True
    backlog = Backlog(feed)
    for piece in backlog:
        assert piece.window == 0
        break
    backlog.close()
    assert not backlog._thread.is_alive()
