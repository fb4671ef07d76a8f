"""A wav file and a .bin file of nmnist-fsdd, streamed, give what the data set gives."""

from __future__ import annotations

import wave

import numpy as np
import pytest

from neuroav.sim import fast
from neuroav.streaming.cutting import EventCutter, SoundCutter
from neuroav.streaming.hearing import SoundEncoder
from neuroav.streaming.opening import Wanted, open_session
from neuroav.streaming.sensing import sensing
from neuroav.streaming.sources import EventFile, SoundFile


def short(path):
    """Whether a recording fits one window: a longer one is cut where its windows are."""
    with wave.open(str(path), "rb") as file:
        return file.getnframes() <= 0.64 * file.getframerate()


def never():
    return False


def test_frames_of_real_recordings_are_those_of_the_data_set(pairs):
    deployment, frames, files = pairs
    found, steps = sensing(deployment), deployment.integer.steps
    assert (found.data, found.longest_us) == ("nmnist-fsdd", 640_000)
    compared = 0
    for i, (sound, picture) in enumerate(files):
        if not short(sound):
            continue
        eye = EventCutter(EventFile(picture), found.sight, steps, 640_000)
        ear = SoundCutter(SoundFile(sound), found.hearing, steps, 640_000)
        eye.fill(640_000, never)
        ear.fill(640_000, never)
        seen, heard = eye.take(0), ear.take(0)
        encoder = SoundEncoder(found.hearing, 8000, steps)
        np.testing.assert_array_equal(seen.counts, frames["visual"][i])
        np.testing.assert_array_equal(encoder.frames(heard.samples)[0], frames["audio"][i])
        compared += int(seen.counts.any()) + int(frames["audio"][i].any())
        ear.close()
    assert compared >= 16


@pytest.mark.parametrize("backend", ["fast", "reference"])
def test_predictions_are_those_of_simulate(pairs, backend):
    deployment, frames, files = pairs
    (trace,) = fast.run(deployment, frames, threads=1)
    scores = trace.outputs[deployment.integer.output][:, -1]
    assert len({tuple(s) for s in scores}) > 5
    compared = 0
    for i, (sound, picture) in enumerate(files):
        if not short(sound) or (backend == "reference" and compared == 2):
            continue
        wanted = Wanted(events=str(picture), audio=str(sound), backend=backend)
        session = open_session(deployment, wanted)
        (found,) = session
        assert found.scores == tuple(scores[i])
        assert found.label == int(scores[i].argmax())
        assert found.name == f"digit {found.label}"
        assert (found.window, found.dropped, found.lag_ms) == (0, 0, None)
        assert session.summary()["windows"] == 1
        compared += 1
    assert compared >= 2
