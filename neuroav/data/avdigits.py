"""The data set ``av-digits``: spoken digits beside pictures of digits, both as spikes, generated.

Pictures: the 1797 8x8 digits that come with scikit-learn (UCI "Optical Recognition of Handwritten
Digits", test part, 13 writers; Alpaydin and Kaynak 1998), seen by the virtual event camera of
``neuroav.data.dvs``. Speech: the digit's word, spoken by espeak-ng with one of 84 voice variants,
8 accents and varying rate and pitch, heard by the cochlea of ``neuroav.data.cochlea``.

1797 pairs: 1147 train, 200 val, 450 test. No picture and no voice variant is in two splits; who
wrote which picture is not recorded, so a writer may be. The pairs are label-level: nothing but the
digit ties a sound to its picture.

The manifest order deals the digits round-robin, so the first n pairs of a split are balanced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.data import cochlea, dvs, speech
from neuroav.data.cache import SPLITS, Recordings
from neuroav.errors import DataError, MissingDependency, unknown_name

Progress = Callable[[str, int, int], None]

NAME = "av-digits"
GENERATOR_VERSION = 2  # raise whenever the same parameters would give other data
PAIRS = 1797
TEST, VAL = 450, 200  # of PAIRS; the rest is train
VOICES = {"test": 21, "val": 9, "train": 54}  # variants, of 84
RATE_WPM = (110, 280)
ONSET_MS = 160  # a word starts up to this late in its window
AUDIO_WINDOW_MS = 640  # 95 of 100 words end within it; later sound is cut
MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class Preset:
    """How much the sensors lose. All values are assumed.

    snr_db: range of the audio's signal-to-noise ratio, None for no noise. drop: share of visual
    events lost. background_hz: false events per pixel. jitter: px. A share ``audio_lost`` of the
    pairs gets ``lost_snr_db`` instead, another share ``visual_lost`` gets ``lost_drop``.
    """

    snr_db: tuple[float, float] | None
    drop: float
    background_hz: float
    jitter: int
    audio_lost: float = 0.0
    visual_lost: float = 0.0
    lost_snr_db: float = -25.0
    lost_drop: float = 0.995


PRESETS: dict[str, Preset] = {
    "default": Preset((-4.0, 8.0), drop=0.7, background_hz=2.0, jitter=3),
    "easy": Preset(None, drop=0.0, background_hz=1.0, jitter=2),
    "hard": Preset((-10.0, 0.0), drop=0.88, background_hz=3.0, jitter=3),
    "unreliable": Preset(
        (0.0, 10.0), drop=0.3, background_hz=2.0, jitter=3, audio_lost=0.3, visual_lost=0.3
    ),
}


def parameters(preset: str, data_seed: int, limit: int | None) -> dict[str, Any]:
    """Everything the events depend on, as JSON values; DataError for what is not allowed."""
    if preset not in PRESETS:
        raise unknown_name(f"preset of {NAME}", preset, PRESETS, DataError)
    if not 0 <= data_seed <= MAX_SEED:
        raise DataError(f"data seed {data_seed}: allowed are 0 to {MAX_SEED}")
    if limit is not None and not 40 <= limit <= PAIRS:
        raise DataError(f"limit {limit}: allowed are 40 to {PAIRS} pairs")
    # The constants are taken from the modules themselves, so that none can be forgotten.
    constants = {
        f"{module.__name__.rpartition('.')[2]}.{name}": value
        for module in (cochlea, dvs, speech)
        for name, value in vars(module).items()
        if name.isupper() and not name.startswith("_")
    }
    own = {"rate_wpm": RATE_WPM, "onset_ms": ONSET_MS, "window_ms": AUDIO_WINDOW_MS}
    return {
        "generator_version": GENERATOR_VERSION,
        "data_seed": int(data_seed),
        "limit": limit,
        "preset": asdict(PRESETS[preset]),
        "constants": constants | own | {"test": TEST, "val": VAL, "voices": VOICES},
    }


def made_with() -> dict[str, str]:
    """Versions of the packages that the events depend on."""
    return {
        name: metadata.version(name)
        for name in ("numpy", "scipy", "scikit-learn", "espeakng-loader")
    }


def generate(
    preset: str,
    data_seed: int,
    limit: int | None = None,
    progress: Progress | None = None,
    data_root: Path | None = None,
) -> Recordings:
    """Make the recordings: about 15 s on one core for all 1797 pairs; ``data_root`` is not read.

    ``limit`` makes that many pairs only (40 or more), from the same pictures and voices but, as
    espeak-ng's state runs through its whole list, not the same sounds. ``progress(stage, done,
    total)`` is called with the stages speech, audio and visual. The same arguments and package
    versions give the same bits. MissingDependency without espeak-ng or scikit-learn.
    """
    report = progress or (lambda stage, done, total: None)
    stated = parameters(preset, data_seed, limit)
    speech.require_espeak()
    pictures, labels, split = _manifest(data_seed, limit or PAIRS)
    utterances, count = _utterances(data_seed, labels, split), len(labels)
    report("speech", 0, count)
    waves, rate = speech.speak(utterances, data_seed)
    report("speech", count, count)
    snr, drop = _conditions(PRESETS[preset], data_seed, count)
    ears = [_rng(data_seed, 1, i) for i in range(count)]
    placed = [_delayed(wave, rate, rng) for wave, rng in zip(waves, ears, strict=True)]
    heard = cochlea.encode(
        placed, rate, snr, ears, AUDIO_WINDOW_MS, lambda done: report("audio", done, count)
    )
    background = np.full(count, PRESETS[preset].background_hz)
    noise = dvs.SensorNoise(drop, background, PRESETS[preset].jitter)
    eyes = [_rng(data_seed, 2, i) for i in range(count)]
    visual = dvs.record(pictures, noise, eyes, lambda done: report("visual", done, count))
    source = {
        "picture": pictures.astype(np.uint8),
        "voice": np.array([one.voice.encode() for one in utterances]),
        "speech": np.array([(u.rate, u.pitch, u.pitch_range) for u in utterances], np.int16),
        "spectrogram": heard.spectrograms,
        "snr_db": snr,
        "drop": drop,
    }
    return Recordings(heard.spikes, visual, labels, split, _meta(preset, stated), source)


def _meta(preset: str, stated: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": NAME,
        "preset": preset,
        "data_seed": stated["data_seed"],
        "classes": list(speech.WORDS),
        "audio_channels": cochlea.CHANNELS,
        "audio_window_us": AUDIO_WINDOW_MS * 1000,
        "sensor": dvs.SENSOR,
        "visual_window_us": dvs.WINDOW_US,
        "parameters": stated,
    }


def _rng(data_seed: int, stream: int, item: int = 0) -> np.random.Generator:
    """Generator of one item: streams 0 manifest, 1 ears, 2 eyes, 3 utterances, 4 conditions."""
    return np.random.default_rng([data_seed, stream, item])


def _manifest(data_seed: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pictures (count, 8, 8), labels (count,) int64 and split (count,) uint8, in manifest order."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise MissingDependency(
            "the pictures of av-digits come with scikit-learn: pip install 'neuroav[train]'"
        ) from None
    bunch = load_digits()
    rng = _rng(data_seed, 0)
    shuffled = rng.permutation(len(bunch.target))
    labels = bunch.target[shuffled]
    # Deal the digits out: picture k of a class with n pictures comes at (k + 1/2) / n.
    place = np.empty(len(labels))
    for digit in range(len(speech.WORDS)):
        mine = np.flatnonzero(labels == digit)
        place[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
    order = np.argsort(place, kind="stable")[:count]
    chosen = shuffled[order]
    test, val = round(count * TEST / PAIRS), round(count * VAL / PAIRS)
    names = ["test"] * test + ["val"] * val + ["train"] * (count - test - val)
    split = np.array([SPLITS.index(name) for name in names], np.uint8)
    return bunch.images[chosen], bunch.target[chosen].astype(np.int64), split


def _utterances(data_seed: int, labels: np.ndarray, split: np.ndarray) -> list[speech.Utterance]:
    """The word of every pair with a voice of its split."""
    rng = _rng(data_seed, 3)
    variants = speech.split_variants(rng, VOICES)
    found = []
    for label, code in zip(labels, split, strict=True):
        mine = variants[SPLITS[code]]
        accent = speech.ACCENTS[rng.integers(len(speech.ACCENTS))]
        voice = f"{accent}+{mine[rng.integers(len(mine))]}"
        rate = int(rng.integers(RATE_WPM[0], RATE_WPM[1] + 1))
        pitch, pitch_range = (int(value) for value in rng.integers(0, 100, 2))
        found.append(speech.Utterance(voice, speech.WORDS[label], rate, pitch, pitch_range))
    return found


def _conditions(preset: Preset, data_seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Signal-to-noise ratio in dB and share of lost visual events, (count,) float64 each."""
    rng = _rng(data_seed, 4)
    fate, level = rng.random(count), rng.random(count)
    low, high = preset.snr_db or (np.inf, np.inf)
    snr = np.full(count, np.inf) if preset.snr_db is None else low + (high - low) * level
    snr[fate < preset.audio_lost] = preset.lost_snr_db
    drop = np.full(count, preset.drop)
    drop[fate >= 1 - preset.visual_lost] = preset.lost_drop
    return snr, drop


def _delayed(wave: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """The wave behind a random pause, no longer than leaves the word within the window."""
    room = rate * AUDIO_WINDOW_MS / 1000 - len(wave)
    pause = rng.random() * max(0.0, min(rate * ONSET_MS / 1000, room))
    return np.concatenate([np.zeros(int(pause), wave.dtype), wave])
