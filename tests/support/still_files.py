"""Tiny CREMA-D and UrbanSound8K-AV trees in the published layouts and file formats."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

EMOTIONS = ("ANG", "DIS", "FEA", "HAP", "NEU", "SAD")


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """A WAV file of 16 bit samples; (samples,) or (samples, channels), -1..1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.atleast_2d(np.asarray(samples, np.float64).T).T
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(samples * 32767).astype("<i2").tobytes())


def tone(hertz: float, rate: int = 16000, seconds: float = 0.2) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)


def write_jpg(path: Path, pixels: np.ndarray) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def plain(level: int, rows: int = 36, columns: int = 48) -> np.ndarray:
    """A grey picture."""
    return np.full((rows, columns, 3), level, np.uint8)


def write_flv(path: Path, levels: Sequence[int], fps: Fraction = Fraction(30000, 1001)) -> None:
    """A Flash video (Sorenson H.263, as CREMA-D's) of grey pictures, one per level."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="flv") as file:
        stream = file.add_stream("flv", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.gop_size = 1  # every picture by itself: levels stay apart
        for level in levels:
            frame = av.VideoFrame.from_ndarray(plain(level, 32, 48), format="rgb24")
            file.mux(stream.encode(frame))
        file.mux(stream.encode())


def clip_names(actors: Iterable[int], sentences: Sequence[str] = ("DFA",)) -> list[str]:
    """One clip of every emotion by every actor."""
    return [f"{a}_{s}_{e}_XX" for a in actors for s in sentences for e in EMOTIONS]


def cremad_tree(root: Path, names: Sequence[str], folder: str = "cremad") -> Path:
    """Sounds and one-per-second pictures of the clips; the label can be heard and seen."""
    rng = np.random.default_rng(0)
    base = root / folder
    for name in names:
        label = EMOTIONS.index(name.split("_")[2])
        write_wav(base / f"AudioWAV/{name}.wav", tone(300 * (label + 1)), 16000)
        picture = rng.integers(0, 60, (36, 48, 3)).astype(np.uint8) + np.uint8(30 * label)
        write_jpg(base / f"Image-01-FPS/{name}/00000.jpg", picture)
    return base


def write_lists(base: Path, train: Sequence[str], test: Sequence[str]) -> None:
    """train.csv and test.csv as the release has them."""
    for file, names in (("train", train), ("test", test)):
        rows = [f"{name},{name.split('_')[2]}" for name in names]
        (base / f"{file}.csv").write_text("\n".join(rows) + "\n")


def slice_names(label: int, recordings: Iterable[int], slices: int = 2) -> list[str]:
    return [f"{r}-{label}-0-{s}" for r in recordings for s in range(slices)]


def urban_tree(
    root: Path, names: dict[str, Sequence[str]], folder: str = "UrbanSound8K-AV"
) -> Path:
    """Sounds of several rates, one and two channels, and pictures, by class."""
    base, rates = root / folder, (8000, 22050, 44100)
    for place, (kind, slices) in enumerate(names.items()):
        for n, name in enumerate(slices):
            sound = tone(200 * (place + 1), rates[n % 3])
            sound = np.stack([sound, 0 * sound], axis=1) if n % 2 else sound
            write_wav(base / f"Dataset_v3_sound/{kind}/{name}.wav", sound, rates[n % 3])
            write_jpg(base / f"Dataset_v3_vision/{kind}/{name}.jpg", plain(20 * place + 20))
    return base
