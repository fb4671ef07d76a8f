"""Whole sessions: what they need, both modes, constant memory, the summary."""

from __future__ import annotations

import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from strategies_intgraph import make_deployment
from streams import made_up_events, made_up_sound

from neuroav import integer as ig
from neuroav.data import cochlea
from neuroav.data.formats.nmnist import write_nmnist
from neuroav.data.frames import FrameSpec, bin_audio
from neuroav.errors import ConfigError, DataError, UnsupportedNode
from neuroav.navfile import load
from neuroav.simulate import resolve_deployment
from neuroav.streaming import opening
from neuroav.streaming import session as session_module
from neuroav.streaming.cutting import SoundCutter
from neuroav.streaming.hearing import SoundEncoder
from neuroav.streaming.opening import Wanted, open_session
from neuroav.streaming.sensing import Hearing, Told, sensing

SAID = Told(window_us=50_000, sensor=(34, 34))


@pytest.fixture(scope="module")
def tiny():
    return load(resolve_deployment("shipped:tiny.nav"))


@pytest.fixture(scope="module")
def eyes(tmp_path_factory):
    path = tmp_path_factory.mktemp("eyes") / "eye.bin"
    write_nmnist(path, made_up_events(1.0, 250))
    return str(path)


def run(deployment, **options):
    session = open_session(deployment, Wanted(**options))
    return list(session), session.summary()


def test_steps_and_windows_give_the_same_answers(tiny, eyes):
    common = {"events": eyes, "told": SAID, "without": ("audio",)}
    windows, first = run(tiny, mode="window", **common)
    steps, second = run(tiny, mode="step", **common)
    slow, _ = run(tiny, mode="step", backend="reference", **common)
    complete = [p for p in steps if p.complete]
    assert len(windows) == len(complete) == 20
    assert len(steps) == len(slow) == 20 * tiny.integer.steps
    assert len({p.scores for p in windows}) >= 3
    for a, b in zip(windows, complete, strict=True):
        assert (a.window, a.time_us, a.scores, a.label, a.events, a.margin) == (
            b.window, b.time_us, b.scores, b.label, b.events, b.margin
        )  # fmt: skip
    assert [p.scores for p in steps] == [p.scores for p in slow]
    assert (first["mode"], second["mode"]) == ("window", "step")
    assert first["state_bytes"] is None
    assert second["state_bytes"] > 0
    for found in (first, second):
        assert (found["windows"], found["dropped"], found["input_s"]) == (20, 0, 1.0)
        assert found["events"] == sum(p.events for p in windows) > 100
        assert 0 < found["latency_ms"]["median"] <= found["latency_ms"]["largest"]
        assert found["real_time_factor"] > 0


def test_a_sensor_of_another_size_is_refused(tiny, eyes, monkeypatch):
    """Else its upper left corner alone would be seen."""
    real = opening.open_event_source

    def larger(place, **options):
        source = real(place, **options)
        source.sensor = (128, 96)
        return source

    monkeypatch.setattr(opening, "open_event_source", larger)
    wanted = {"events": eyes, "without": ("audio",)}
    with pytest.raises(ConfigError, match="a sensor of 128x96 pixels, the network was trained on 34"
                                          "x34; give --sensor 128x96"):  # fmt: skip
        open_session(tiny, Wanted(told=SAID, **wanted))
    told = Told(window_us=50_000, sensor=(128, 96))
    found, summary = run(tiny, told=told, **wanted)
    assert summary["events"] == sum(p.events for p in found)
    assert summary["outside"] > 50


@pytest.mark.parametrize("mode", ["step", "window"])
def test_what_was_dropped_is_told_by_the_next_answer(tiny, eyes, monkeypatch, mode):
    class Slow:
        """Loses windows 1, 4 and 5, the last two while window 3 is answered, and the last one."""

        def __init__(self, feed):
            self._feed, self.dropped = feed, 0

        def __iter__(self):
            for piece in self._feed:
                if piece.window in (1, 4, 5, 19):
                    self.dropped += piece.last
                else:
                    yield piece

        def close(self):
            pass

    monkeypatch.setattr(session_module, "Backlog", Slow)
    found, summary = run(tiny, events=eyes, told=SAID, without=("audio",), mode=mode,
                         speed="realtime")  # fmt: skip
    told = {p.window: p.dropped for p in found if p.complete}
    assert {w: d for w, d in told.items() if d} == {2: 1, 6: 2}
    assert all(p.dropped == 0 for p in found if not p.complete)
    assert (len(told), summary["windows"], summary["dropped"]) == (16, 16, 4)


def test_a_short_word_gives_the_frames_of_the_data_set():
    """Of av-digits, whose words are as loud as they are long, not as their window is."""
    hearing = Hearing("audio", (8, 8, 4), 255, 640_000)
    wave = np.asarray(made_up_sound(0.25, rate=16_000)).astype(np.int16)
    cutter = SoundCutter(Waves(wave), hearing, 8, 640_000)
    cutter.fill(640_000, lambda: False)
    found, spikes, _ = SoundEncoder(hearing, 16_000, 8).frames(cutter.take(0).samples)
    heard = cochlea.encode([wave], 16_000, np.array([np.inf]), [np.random.default_rng(0)], 640)
    expected, _ = bin_audio(heard.spikes, FrameSpec(8, 16, 8, 8, 4), 640_000, cochlea.CHANNELS)
    assert spikes == expected.sum() > 100
    np.testing.assert_array_equal(found, expected[0])


class Waves:
    live, lost, rate = False, 0, 16_000

    def __init__(self, wave):
        self._blocks = iter([wave])

    def read(self, wait_s):
        return next(self._blocks, None)

    def close(self):
        pass

    begin = close


def test_both_senses_together_and_one_left_silent(both, recorded):
    deployment = load(both[0])
    sound, picture = map(str, recorded)
    whole, found = run(deployment, events=picture, audio=sound)
    assert [p.time_us for p in whole] == [640_000 * (w + 1) for w in range(5)]
    assert (found["partial"], found["mode"]) == (True, "window")
    overlapping, _ = run(deployment, events=picture, audio=sound, hop_us=320_000)
    assert [p.scores for p in overlapping[::2]][:5] == [p.scores for p in whole]
    assert len(overlapping) == 10
    blind, _ = run(deployment, audio=sound, without=("visual",))
    assert [p.scores for p in blind] != [p.scores for p in whole]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "input 'visual' has no source: give --events, or --without visual"),
        ({"events": "e"}, "input 'audio' has no source: give --audio"),
        ({"events": "e", "audio": "a", "without": ("audio",)}, "--audio and --without audio"),
        ({"without": ("audio", "visual")}, "every input is silent"),
        ({"events": "e", "without": ("audi",)}, "unknown sense 'audi'.*did you mean 'audio'"),
        ({"events": "e", "without": ("audio",), "mode": "steps"}, "mode is 'steps'"),
        ({"events": "e", "without": ("audio",), "speed": "fast"}, "unknown speed 'fast'"),
        ({"events": "camera", "without": ("audio",), "speed": "max"}, "keep their own time"),
        ({"events": "e", "without": ("audio",), "hop_us": 10}, "--hop-ms 0.01"),
        ({"events": "e", "audio": "a", "mode": "step"}, "median of the window.*--mode window"),
        (
            {"events": "e", "without": ("audio",), "mode": "step", "hop_us": 20_000},
            "windows every 20 ms overlap",
        ),
        ({"events": "e", "without": ("audio",), "backend": "lava"}, "backend is 'lava'"),
        ({"events": "e", "without": ("audio",), "orientation": "up"}, "unknown orientation 'up'"),
    ],
)
def test_what_does_not_go_together(tiny, options, message):
    with pytest.raises(ConfigError, match=message):
        open_session(tiny, Wanted(told=SAID, **options))


def test_sources_of_inputs_that_are_not_there(both, eyes):
    deployment = load(both[1])
    with pytest.raises(ConfigError, match="has no input for sound; leave --audio out"):
        open_session(deployment, Wanted(events=eyes, audio="a.wav"))
    with pytest.raises(ConfigError, match="sound; leave --without audio out"):
        open_session(deployment, Wanted(events=eyes, without=("audio",)))


def test_what_a_file_does_not_say_is_asked_for(tiny):
    for told, message in (
        (None, "'visual': the file does not say how long a sample is; say it, e.g. --window-ms"),
        (Told(window_us=50_000), "'visual': .*--sensor 128x128"),
        (Told(window_us=50_000, sensor=(3, 34)), "3x34 pixels is smaller than the frame of 4x4"),
        (Told(window_us=500, sensor=(34, 34)), "--window-ms 0.5: allowed are 1 to 60000 ms"),
        (Told(50_000, (34, 34), 1500), "--audio-window-ms 1.5: allowed are whole"),
    ):
        with pytest.raises(ConfigError, match=message):
            sensing(tiny, told)
    found = sensing(tiny, SAID)
    assert (found.data, found.steps, found.longest_us) == (None, 6, 50_000)


def test_known_data_sets_say_it_themselves(both):
    found = sensing(load(both[0]))
    assert (found.data, found.longest_us) == ("nmnist-fsdd", 640_000)
    assert (found.sight.window_us, found.sight.sensor) == (300_000, (34, 34))
    assert (found.hearing.rate, found.hearing.centred) == (8000, True)
    digits = replace(load(both[0]), provenance={"run": {"data": {"name": "av-digits"}}})
    other = sensing(digits)
    assert (other.hearing.rate, other.hearing.centred, other.data) == (None, False, "av-digits")
    with pytest.raises(ConfigError, match="in the middle of 640 ms; leave the option out"):
        sensing(load(both[0]), Told(audio_window_us=500_000))
    strange = replace(digits, provenance={"run": {"data": {"name": "cremad"}}})
    with pytest.raises(ConfigError, match="--window-ms"):
        sensing(strange)


def test_sound_of_another_rate_is_refused(both, recorded, tmp_path):
    from streams import made_up_sound, write_wave

    path = write_wave(tmp_path / "a.wav", made_up_sound(1.0, rate=16_000), 16_000)
    with pytest.raises(DataError, match="16000 Hz; the network was trained on 8000 Hz.*sox"):
        open_session(load(both[0]), Wanted(audio=str(path), without=("visual",)))


def network(shape, **extra):
    dense = ig.IntDense("eye", 0, 2 * np.ones((3, int(np.prod(shape))), int), 8, "excitatory")
    head = ig.IntReadout((3,), (dense,), np.zeros(3, int))
    return make_deployment({"eye": ig.IntInput(shape, (), 9), "head": head, **extra}, "head", 4)


def test_inputs_of_other_shapes_and_names():
    assert sensing(network((2, 4, 4)), SAID).sight.name == "eye"
    for shape in ((3, 4, 4), (16,)):
        with pytest.raises(ConfigError, match="a camera's events need"):
            sensing(network(shape), SAID)
    two = network((2, 4, 4), hand=ig.IntInput((2,), (), 9))
    with pytest.raises(ConfigError, match="input eye, hand: neither 'visual'"):
        sensing(two, SAID)


def test_a_network_over_whole_samples_takes_windows(eyes):
    total = ig.IntTimeSum((2, 4, 4), (ig.IntIdentity("eye", 0, 1),))
    dense = ig.IntDense("sum", 0, 2 * np.eye(3, 32, dtype=int), 8, "excitatory")
    head = ig.IntReadout((3,), (dense,), np.zeros(3, int))
    pops = {"eye": ig.IntInput((2, 4, 4), (), 99), "sum": total, "head": head}
    deployment = make_deployment(pops, "head", 4)
    found, summary = run(deployment, events=eyes, told=SAID)
    assert (len(found), summary["mode"]) == (20, "window")
    with pytest.raises(UnsupportedNode, match=r"sum \(IntTimeSum\): answers a sample only"):
        open_session(deployment, Wanted(events=eyes, told=SAID, mode="step"))


def test_nothing_grows_with_the_input(tiny, tmp_path):
    """120 windows of events; benchmarks/streaming.py does the same for 1000 s of both senses."""
    path = tmp_path / "long.bin"
    write_nmnist(path, made_up_events(2.4, 2000))
    said = Told(window_us=20_000, sensor=(34, 34))
    wanted = Wanted(events=str(path), told=said, without=("audio",), mode="window")
    session = open_session(tiny, wanted)
    measured = []
    for found in session:
        if found.window in (40, 118):
            gc.collect()
            measured.append(tracemalloc.get_traced_memory()[0])
        if found.window == 20:
            tracemalloc.start()
    tracemalloc.stop()
    assert session.summary()["windows"] == 120
    assert measured[1] - measured[0] < 20_000
