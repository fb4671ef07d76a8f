"""The data set ``nmnist-fsdd``: event-camera recordings of digits beside recordings of speech.

Pictures: 750 recordings of the training part of N-MNIST (Orchard et al. 2015, CC BY-SA 4.0): an
ATIS event camera of 34x34 pixels before MNIST digits, three saccades of 100 ms. Speech: the Free
Spoken Digit Dataset (FSDD, CC BY-SA 4.0): 2000 digits, 50 by each of four speakers of each digit,
8 kHz. Neither is part of this package; the manifest says which files there must be.

Pictures are split 500 train, 100 val, 150 test, the same in every fold. Speech is split by holding
one speaker out: all 500 recordings of that speaker are the test; of the other three, indices 0 to
4 (FSDD's official test split, 150) are for validation and the other 1350 for training. Validation
so hears the speakers of the training, and is the easier for it: holding out a second one would
cost a third of the training speech. The pairs are label-level, fixed by the manifest: 1350 train,
150 val, 500 test. A test picture is beside 3 or 4 sounds.

A sound is freed of its quiet ends and put into the middle of 640 ms; the cochlea's channels reach
to 3600 Hz, below half of 8 kHz. Presets: ``default`` takes the pictures as they are, ``drop95``
loses each of their events with a probability of 95 %, drawn anew for every pair.
``default-theo`` and ``drop95-theo`` hold theo out, and so on; without a name, yweweler is held out.

The manifest order cycles through the digits, so the first n pairs of a split are balanced.
"""

from __future__ import annotations

import wave
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.data import cochlea
from neuroav.data.cache import SPLITS, Recordings
from neuroav.data.manifest import Entry, Pair, pairs, read, require_root, verified
from neuroav.data.ragged import Ragged
from neuroav.data.speech import WORDS
from neuroav.errors import DataError, MissingDependency, unknown_name

Progress = Callable[[str, int, int], None]

NAME = "nmnist-fsdd"
GENERATOR_VERSION = 2  # raise whenever the same parameters would give other data
MANIFEST = Path(__file__).parent / "manifests" / "nmnist-fsdd.csv"
SPEAKERS = ("george", "jackson", "theo", "yweweler")
RATE = 8000  # Hz, of every recording of FSDD
HIGH_HZ = 3600.0  # assumed: leaves the highest channel's skirt below 4000 Hz
AUDIO_WINDOW_MS = 640  # as av-digits; 99 of 100 words fit when freed of their quiet ends
QUIET_DB = -30.0  # assumed: quieter than the loudest frame by this is no speech
FRAME_MS = 10
SENSOR = 34
VISUAL_WINDOW_US = 300_000  # three saccades; the recordings run on for about 8 ms
MAX_SEED = 2**31 - 1
MIN_LIMIT = 40


@dataclass(frozen=True)
class Preset:
    """held_out: the speaker of the test. drop: share of visual events lost."""

    held_out: str
    drop: float


_DROPS = {"default": 0.0, "drop95": 0.95}
PRESETS: dict[str, Preset] = {kind: Preset(SPEAKERS[-1], drop) for kind, drop in _DROPS.items()} | {
    f"{kind}-{speaker}": Preset(speaker, drop)
    for kind, drop in _DROPS.items()
    for speaker in SPEAKERS
}


def parameters(preset: str, data_seed: int, limit: int | None) -> dict[str, Any]:
    """Everything the events depend on, as JSON values; DataError for what is not allowed."""
    if preset not in PRESETS:
        raise unknown_name(f"preset of {NAME}", preset, PRESETS, DataError)
    if not 0 <= data_seed <= MAX_SEED:
        raise DataError(f"data seed {data_seed}: allowed are 0 to {MAX_SEED}")
    manifest = read(MANIFEST)
    if limit is not None and not MIN_LIMIT <= limit <= len(manifest.sounds):
        raise DataError(
            f"limit {limit}: allowed are {MIN_LIMIT} to {len(manifest.sounds)} pairs of {NAME}"
        )
    heard = {
        f"cochlea.{name}": value
        for name, value in vars(cochlea).items()
        if name.isupper() and not name.startswith("_")
    }
    own = {"rate": RATE, "high_hz": HIGH_HZ, "window_ms": AUDIO_WINDOW_MS}
    own |= {"quiet_db": QUIET_DB, "frame_ms": FRAME_MS}
    return {
        "generator_version": GENERATOR_VERSION,
        "data_seed": int(data_seed),
        "limit": limit,
        "preset": asdict(PRESETS[preset]),
        "constants": heard | own,
        "manifest": manifest.sha256,
    }


def made_with() -> dict[str, str]:
    """Versions of the packages that the events depend on."""
    return {name: metadata.version(name) for name in ("numpy", "scipy", "tonic")}


def generate(
    preset: str,
    data_seed: int,
    limit: int | None = None,
    progress: Progress | None = None,
    data_root: Path | None = None,
) -> Recordings:
    """Read the recordings below ``data_root`` and make the pairs of one fold: about 15 s.

    ``limit`` makes that many pairs only, the first of every split in proportion; they are those of
    the whole. ``data_seed`` draws which events are lost. ``progress(stage, done, total)`` is called
    with the stages audio and visual. DataError for a missing folder, or a recording that is not
    what the manifest says; MissingDependency without tonic.
    """
    report = progress or (lambda stage, done, total: None)
    stated = parameters(preset, data_seed, limit)
    root = require_root(data_root, NAME)
    chosen = PRESETS[preset]
    numbered = _limited(pairs(read(MANIFEST), chosen.held_out), limit)
    found = [pair for _, pair in numbered]
    heard = _heard(root, [pair.sound for pair in found], partial(report, "audio"))
    rngs = [np.random.default_rng([data_seed, place]) for place, _ in numbered]
    visual = _seen(root, [pair.picture for pair in found], partial(report, "visual"))
    visual = _thinned(visual, chosen.drop, rngs)
    source = {
        "spectrogram": heard.spectrograms,
        "voice": np.array([pair.sound.speaker.encode() for pair in found]),
        "sound_file": np.array([pair.sound.file.encode() for pair in found]),
        "picture_file": np.array([pair.picture.file.encode() for pair in found]),
        "drop": np.full(len(found), chosen.drop),
    }
    labels = np.array([pair.sound.label for pair in found], np.int64)
    split = np.array([SPLITS.index(pair.split) for pair in found], np.uint8)
    return Recordings(heard.spikes, visual, labels, split, _meta(preset, stated), source)


def _meta(preset: str, stated: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": NAME,
        "preset": preset,
        "data_seed": stated["data_seed"],
        "classes": list(WORDS),
        "audio_channels": cochlea.CHANNELS,
        "audio_window_us": AUDIO_WINDOW_MS * 1000,
        "sensor": SENSOR,
        "visual_window_us": VISUAL_WINDOW_US,
        "parameters": stated,
    }


def _limited(found: list[Pair], limit: int | None) -> list[tuple[int, Pair]]:
    """Pairs with their places among all: the first of every split, ``limit`` in proportion."""
    share = 1.0 if limit is None else limit / len(found)
    kept = []
    for name in SPLITS:
        mine = [(place, pair) for place, pair in enumerate(found) if pair.split == name]
        kept += mine[: round(share * len(mine))]
    return kept


# --- speech ------------------------------------------------------------------------------------
def read_sound(path: Path) -> np.ndarray:
    """Samples of a recording, (samples,) int16; DataError unless 8 kHz, mono, 16 bit PCM."""
    try:
        with wave.open(str(path), "rb") as file:
            form = file.getframerate(), file.getnchannels(), file.getsampwidth()
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    except (OSError, EOFError, ValueError, wave.Error) as err:
        raise DataError(f"recording {path} cannot be read as a WAV file: {err}") from None
    if form != (RATE, 1, 2):
        raise DataError(
            f"recording {path}: {form[0]} Hz, {form[1]} channels, {8 * form[2]} bit; "
            f"allowed is {RATE} Hz, 1 channel, 16 bit"
        )
    return samples


def centred(sound: np.ndarray) -> np.ndarray:
    """The word alone in the middle of the window, (5120,) float64.

    Frames of 10 ms at either end that are 30 dB quieter than the loudest are taken off. Of a word
    that is longer still, the 640 ms with the most energy are kept.
    """
    frame, window = RATE * FRAME_MS // 1000, RATE * AUDIO_WINDOW_MS // 1000
    padded = np.zeros(-(-max(len(sound), 1) // frame) * frame)
    padded[: len(sound)] = sound
    level = (padded.reshape(-1, frame) ** 2).sum(axis=1)
    loud = np.flatnonzero(level >= level.max() * 10 ** (QUIET_DB / 10))
    word = padded[loud[0] * frame : (loud[-1] + 1) * frame]
    if len(word) > window:
        energy = np.concatenate([[0], np.cumsum(word**2)])
        first = int(np.argmax(energy[window:] - energy[:-window]))
        word = word[first : first + window]
    out = np.zeros(window)
    before = (window - len(word)) // 2
    out[before : before + len(word)] = word
    return out


def _heard(root: Path, sounds: list[Entry], on_item: Callable[[int, int], None]) -> cochlea.Heard:
    """Cochlear spikes and spectrogram of every sound; noise is not added to them."""
    waves = [centred(read_sound(verified(root, sound))) for sound in sounds]
    silent = np.full(len(sounds), np.inf)
    rngs = [np.random.default_rng(0)] * len(sounds)  # drawn from for noise alone
    return cochlea.encode(
        waves,
        RATE,
        silent,
        rngs,
        AUDIO_WINDOW_MS,
        lambda done: on_item(done, len(sounds)),
        high_hz=HIGH_HZ,
    )


# --- pictures ----------------------------------------------------------------------------------
def read_picture(path: Path) -> dict[str, np.ndarray]:
    """Events of a recording as tonic reads them: x, y, p (uint8, 1 = brighter), time (uint32, us).

    Events stand in the order of the file. MissingDependency without tonic.
    """
    try:
        from tonic.datasets import NMNIST
        from tonic.io import read_mnist_file
    except ImportError as err:
        raise MissingDependency(
            f"recordings of N-MNIST are read by tonic, which cannot be imported ({err}): "
            "pip install 'neuroav[train]'"
        ) from None
    events = read_mnist_file(str(path), dtype=NMNIST.dtype)
    small = {name: events[name].astype(np.uint8) for name in ("x", "y", "p")}
    return small | {"time": events["t"].astype(np.uint32)}


def _seen(root: Path, pictures: list[Entry], on_item: Callable[[int, int], None]) -> Ragged:
    """Events of every picture of the list; a file is read once however often it is in it."""
    files: dict[str, int] = {}
    parts: list[Ragged] = []
    for done, picture in enumerate(pictures, start=1):
        if picture.file not in files:
            files[picture.file] = len(parts)
            events = read_picture(verified(root, picture))
            parts.append(Ragged(events, np.array([0, len(events["time"])])))
        on_item(done, len(pictures))
    return Ragged.join(parts).take(np.array([files[picture.file] for picture in pictures]))


def _thinned(events: Ragged, drop: float, rngs: list[np.random.Generator]) -> Ragged:
    """The events with each lost with probability ``drop``, item i drawing from ``rngs[i]``."""
    if not drop:
        return events
    kept = [rng.random(count) >= drop for rng, count in zip(rngs, events.counts, strict=True)]
    return events.keep(np.concatenate(kept))
