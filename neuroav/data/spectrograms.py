"""Log spectrograms of sounds as pictures of 128x128, the way S-CMRL makes them.

1. Resample to 22,050 Hz by a windowed sinc: output n is the sum over inputs k of
   ``x[k] g(n / r - k)``, r the ratio of the rates, ``g(t) = (c) sinc(c t) cos^2(pi c t / 12)`` for
   ``|c t| < 6``, else 0, and ``c = 0.99 min(1, r)`` cycles: six zero crossings to either side, a
   Hann window, the cut-off 1 % below the lower Nyquist frequency. These are torchaudio's defaults;
   sums are taken in float64 here and in float32 there, so samples differ by about 1e-7.
2. Cut to -1..1; magnitudes of frames of 512 samples, every 353 samples, periodic Hann window,
   centred with zeros around the sound: 257 frequencies x ``1 + samples // 353`` frames.
3. ln(magnitude + 1e-7): about -16 to 6. No mel scale, no normalisation.
4. Resized to 128x128 as Pillow resizes pictures of type 'F' (bilinear, averaging where it
   shrinks): the time axis is stretched, whatever the sound lasts.

Rows are frequencies, 0 = lowest; columns are time.
"""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np

from neuroav.errors import DataError, MissingDependency

RATE = 22_050  # Hz
WINDOW = 512  # samples of a frame
HOP = 353  # samples from frame to frame
FLOOR = 1e-7  # added to magnitudes before the logarithm
SIZE = 128  # pixels of an edge
ZERO_CROSSINGS = 6
ROLLOFF = 0.99
_MAX_SECONDS = 60  # the sets hold 6 s at most; more would be another kind of file


def log_spectrogram(sound: np.ndarray, rate: int, where: str) -> np.ndarray:
    """Return the picture of a sound, (128, 128) float32: row frequency, column time.

    sound: (samples,) -1..1; rate: Hz. where: what to call it in a DataError: no samples, more than
    a minute, not finite. MissingDependency without Pillow.
    """
    sound = np.asarray(sound, np.float64)
    if sound.ndim != 1 or not 0 < len(sound) <= _MAX_SECONDS * rate:
        raise DataError(
            f"{where}: {sound.shape} samples at {rate} Hz; needs one channel of more than none and "
            f"at most {_MAX_SECONDS} s"
        )
    if not np.isfinite(sound).all():
        raise DataError(f"{where}: holds samples that are NaN or infinite")
    heard = np.clip(resampled(sound, rate, RATE), -1, 1)
    level = np.log(magnitudes(heard) + FLOOR).astype(np.float32)
    image = pillow().Image.fromarray(level)
    return np.asarray(image.resize((SIZE, SIZE), pillow().Image.Resampling.BILINEAR))


def magnitudes(sound: np.ndarray) -> np.ndarray:
    """Return |STFT| of (samples,), float64 (257, 1 + samples // 353)."""
    padded = np.pad(sound, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    return np.abs(np.fft.rfft(frames * hann, axis=1)).T


def resampled(sound: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Return (samples,) at ``wanted`` Hz, float64 (ceil(samples * wanted / rate),)."""
    if rate == wanted:
        return np.asarray(sound, np.float64)
    common = math.gcd(rate, wanted)
    down, up = rate // common, wanted // common
    cutoff = ROLLOFF * min(down, up) / down  # in cycles per two input samples, 1 = Nyquist
    reach = math.ceil(ZERO_CROSSINGS / cutoff)
    # Outputs n, n + up, n + 2 up, ... lie at the same place between two inputs: one kernel each.
    first, rest = np.divmod(np.arange(up) * down, up)
    taps = np.arange(-reach, reach + 2)
    t = np.clip((rest[:, None] / up - taps) * cutoff, -ZERO_CROSSINGS, ZERO_CROSSINGS)
    kernels = cutoff * np.sinc(t) * np.cos(np.pi * t / (2 * ZERO_CROSSINGS)) ** 2
    length = -(-len(sound) * up // down)
    padded = np.pad(sound, (reach, reach + 2 + down))
    out = np.empty(length)
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(taps))
    for phase in range(min(up, length)):
        count = -(-(length - phase) // up)
        out[phase::up] = windows[first[phase] :: down][:count] @ kernels[phase]
    return out


def pillow() -> ModuleType:
    """Return the package PIL with PIL.Image; MissingDependency where it cannot be imported."""
    try:
        import PIL
        import PIL.Image
    except ImportError as error:
        raise MissingDependency(
            f"pictures are resized by Pillow, which cannot be imported ({error}): "
            "pip install 'neuroav[data]'"
        ) from None
    return PIL
