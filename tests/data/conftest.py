"""One small prepared av-digits, and tiny recordings in the published layouts, for these tests."""

import os
import wave
from pathlib import Path

import numpy as np
import pytest

from neuroav import data

SMALL = 200


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def prepared(cache_dir):
    """The file of 200 pairs of the default preset."""
    return data.prepare("av-digits", cache_dir=cache_dir, limit=SMALL)


@pytest.fixture(scope="session")
def small(cache_dir, prepared):
    """The same, loaded: 128 train, 22 val, 50 test pairs."""
    return data.load("av-digits", cache_dir=cache_dir, limit=SMALL)


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Folder of third-party recordings, named by NEUROAV_DATA."""
    value = os.environ.get("NEUROAV_DATA")
    if not value:
        pytest.skip("NEUROAV_DATA is not set; it names a folder with third-party recordings")
    return Path(value)


def _write_picture(path: Path, events: np.ndarray) -> None:
    """Events (n, 4) of x, y, p, t in us, as 40 bits each: x, y, then p and t in 1 + 23 bits."""
    x, y, p, t = events.T.astype(np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = (x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255)
    np.stack(columns, axis=1).astype(np.uint8).tofile(path)


def _write_sound(path: Path, samples: np.ndarray, rate: int = 8000, channels: int = 1) -> None:
    """A WAV file of 16 bit samples."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())


@pytest.fixture(scope="session")
def write_sound():
    """The function (path, samples, rate=8000, channels=1) that writes a WAV file."""
    return _write_sound


@pytest.fixture(scope="session")
def made_up(tmp_path_factory) -> Path:
    """A data root in the published layouts: 100 pictures, and 3 sounds of 10 digits by 4 speakers.

    A picture is 200 random events; a sound is 200 ms of a tone between two pauses of 100 ms.
    """
    root, rng = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    for number in range(100):
        spread = rng.integers(0, (34, 34, 2, 300_000), (200, 4))
        events = spread[np.argsort(spread[:, 3], kind="stable")]
        _write_picture(root / f"nmnist/Train/{number % 10}/{number:05d}.bin", events)
    for digit in range(10):
        for place, speaker in enumerate(("george", "jackson", "theo", "yweweler")):
            tone = np.sin(2 * np.pi * (300 + 200 * digit + 30 * place) * np.arange(1600) / 8000)
            sound = 8000 * np.concatenate([np.zeros(800), tone, np.zeros(800)])
            for index in (0, 5, 6):
                name = f"{digit}_{speaker}_{index}.wav"
                _write_sound(root / "fsdd/recordings" / name, sound + rng.normal(0, 5, 3200))
    return root
