"""Sound files: WAV by the standard library, everything else, also sound in video, by FFmpeg (PyAV).

PCM of 8 bits is unsigned, of 16, 24 and 32 bits signed; all become float32 with full scale 1: a
value v of b bits is v / 2^(b - 1). Sounds of floating point are taken as they are. Channels are
never mixed unasked, and the rate is never changed unasked.

Functions here trust the libraries: read files from elsewhere through
``neuroav.data.formats.guarded``; ``mono`` and ``resampled`` work on arrays and need none of that.
"""

from __future__ import annotations

import wave
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.data.formats import media
from neuroav.errors import ConfigError, DataError, FileFormatError, MissingDependency, NeuroavError

PRELOAD = ("av",)
MOST_SAMPLES = 1 << 27  # of all channels: half an hour of stereo at 37 kHz, 512 MiB as float32
MOST_CHANNELS = 64
RATES = (1000, 768_000)
_UNTIL_END = 0xFFFFFFFF  # size of the data where a writer could not know it


@dataclass(frozen=True, eq=False)
class Sound:
    """samples: (channels, n) float32, full scale 1, finite. rate: samples per second."""

    samples: np.ndarray
    rate: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.samples.shape[1] / self.rate

    @property
    def silent(self) -> bool:
        """Whether every sample of a channel has one value: nothing can be heard."""
        return not self.samples.size or bool((np.ptp(self.samples, axis=1) == 0).all())


def read_sound(path: Path, *, allow_empty: bool = False, allow_cut: bool = False) -> Sound:
    """Return the sound of a file, of a video its first sound track.

    allow_empty: a file without a sound track, or one without samples, gives (1, 0) samples at rate
    1 or what it states, instead of an error. allow_cut: take what lies before the place where a
    file is cut or damaged. FileFormatError naming the file if it is damaged, cut, empty, or too
    long (2^27 samples).
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be read: {error.strerror}; give the path of a sound file"
        ) from None
    sound = None
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        sound = _from_wave(path, allow_cut)
    if sound is None:
        sound = _from_ffmpeg(path, allow_empty, allow_cut)
    if not sound.samples.size and not allow_empty:
        raise FileFormatError(f"{path}: holds no sound, not one sample; {media.AGAIN}")
    if not np.isfinite(sound.samples).all():
        raise FileFormatError(f"{path}: holds NaN or infinite samples; {media.AGAIN}")
    return sound


def _from_wave(path: Path, allow_cut: bool) -> Sound | None:
    """Return the sound of a PCM file, None for another kind of WAV (floats, compressed)."""
    try:
        with wave.open(str(path), "rb") as file:
            channels, width, rate, count = file.getparams()[:4]
            _check_header(path, channels, rate)
            if width not in (1, 2, 3, 4):
                raise _wrong(path, f"{8 * width} bits per sample", "8, 16, 24 or 32")
            size = path.stat().st_size
            raw = file.readframes(min(count, size // (channels * width) + 1))
    except NeuroavError:
        raise
    # wave has an error of its own, EOFError where the file ends, and RuntimeError for bad sizes.
    except (wave.Error, EOFError, OSError, RuntimeError) as error:
        if "unknown" in str(error).lower():  # a kind of WAV that wave does not read
            return None
        reason = str(error) or "it ends in its header, or states sizes that cannot be"
        raise FileFormatError(f"{path}: cut or damaged WAV ({reason}); {media.AGAIN}") from None
    frame, held = channels * width, len(raw)
    if held < count * frame and count * frame < _UNTIL_END - frame and not allow_cut:
        raise _wrong(path, f"{held // frame} samples where its header says {count}: cut", "all")
    raw = raw[: held - held % frame]
    return Sound(_from_pcm(raw, width).reshape(-1, channels).T.copy(), rate)


def _wrong(path: Path, found: str, allowed: str) -> FileFormatError:
    return FileFormatError(f"{path}: {found}, allowed is {allowed}; {media.AGAIN}")


def _check_header(path: Path, channels: int, rate: int) -> None:
    if not 1 <= channels <= MOST_CHANNELS or not RATES[0] <= rate <= RATES[1]:
        raise _wrong(
            path, f"{channels} channels at {rate} Hz",
            f"1..{MOST_CHANNELS} channels at {RATES[0]}..{RATES[1]} Hz",
        )  # fmt: skip


def _from_pcm(raw: bytes, width: int) -> np.ndarray:
    if width == 1:
        return (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / 128
    if width == 3:  # as the upper three bytes of 32 bits
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        values = wide.reshape(-1).view("<i4")
    else:
        values = np.frombuffer(raw, f"<i{width}")
    return (values / np.float64(1 << (8 * values.itemsize - 1))).astype(np.float32)


def _from_ffmpeg(path: Path, allow_empty: bool, allow_cut: bool) -> Sound:
    with media.opened(path) as container:
        if not container.streams.audio:
            if allow_empty:
                return Sound(np.zeros((1, 0), np.float32), 1)
            raise FileFormatError(f"{path}: holds no sound track; {media.AGAIN}")
        stream = container.streams.audio[0]
        channels, rate = stream.codec_context.channels, stream.codec_context.sample_rate
        _check_header(path, channels, rate)
        parts = _decoded(path, container, stream, allow_cut)
    empty = [np.zeros((channels, 0), np.float32)]
    return Sound(np.concatenate(parts or empty, axis=1), rate)


def _decoded(path: Path, container: Any, stream: Any, allow_cut: bool) -> list[np.ndarray]:
    import av

    context, parts, count = stream.codec_context, [], 0
    channels, rate = context.channels, context.sample_rate
    # Every sample type of FFmpeg becomes planar float32; rate and channels stay.
    planar = av.AudioResampler("fltp", context.layout, context.sample_rate)
    for frame in media.frames(path, container, stream, allow_cut):
        found = frame.layout.nb_channels, frame.sample_rate
        if found != (channels, rate):
            raise _wrong(
                path,
                f"{found[0]} channels at {found[1]} Hz after {channels} at {rate} Hz",
                "one number of channels and one rate",
            )
        for piece in planar.resample(frame):
            parts.append(piece.to_ndarray())
            count += parts[-1].size
        if count > MOST_SAMPLES:
            raise _wrong(path, "more samples", f"{MOST_SAMPLES} of all channels")
    parts += [piece.to_ndarray() for piece in planar.resample(None)]
    return parts


def mono(sound: Sound, how: str) -> np.ndarray:
    """Return (n,) float32. how: 'mean' of the channels, 'first' of them, or 'only', which is a
    DataError where there are more than one. ConfigError for another."""
    if how not in ("mean", "first", "only"):
        raise ConfigError(f"unknown way {how!r} to one channel: allowed are mean, first, only")
    if how == "mean":
        return sound.samples.mean(axis=0, dtype=np.float64).astype(np.float32)
    if how == "only" and len(sound.samples) != 1:
        raise DataError(f"{len(sound.samples)} channels where one is expected; mix them ('mean')")
    return sound.samples[0]


def resampled(samples: np.ndarray, rate: int, to: int) -> np.ndarray:
    """Return samples (..., n) at another rate, (..., ceil(n * to / rate)) float32.

    scipy's polyphase filter with its own low-pass (Kaiser window, beta 5). Rates in Hz.
    """
    try:
        from scipy.signal import resample_poly
    except ImportError:
        raise MissingDependency(
            "changing the rate of a sound needs scipy; install it with: pip install 'neuroav[data]'"
        ) from None
    if not (RATES[0] <= rate <= RATES[1] and RATES[0] <= to <= RATES[1]):
        raise ConfigError(f"from {rate} to {to} Hz: allowed are {RATES[0]}..{RATES[1]}")
    if rate == to or samples.shape[-1] == 0:
        return samples.astype(np.float32)
    common = gcd(rate, to)
    return resample_poly(samples, to // common, rate // common, axis=-1).astype(np.float32)
