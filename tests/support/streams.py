"""Made-up sound and events to stream, in the true formats."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np


def write_wave(path: Path, sound: np.ndarray, rate: int = 8000, channels: int = 1) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(sound).astype("<i2").tobytes())
    return path


def made_up_sound(seconds: float, seed: int = 0, rate: int = 8000) -> np.ndarray:
    """Tones that come and go."""
    t = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(seed)
    sound = np.sin(2 * np.pi * (400 + 300 * np.sin(3 * t)) * t) * (np.sin(9 * t) > -0.4)
    return 8000 * sound + rng.normal(0, 20, len(t))


def made_up_events(seconds: float, rate_hz: float = 4000, seed: int = 0, sensor: int = 34):
    """Random events in order of time."""
    rng, count = np.random.default_rng(seed), round(seconds * rate_hz)
    time = np.sort(rng.integers(0, round(seconds * 1e6), count))
    x, y = rng.integers(0, sensor, (2, count))
    return {"x": x, "y": y, "p": rng.integers(0, 2, count), "time": time}
