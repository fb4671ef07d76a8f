"""Speech to spikes: a gammatone filter bank, envelopes, and one leaky neuron per channel.

Chain, per utterance: pink noise at a chosen signal-to-noise ratio -> 64 gammatone filters of
fourth order, centre frequencies spaced evenly in ERB number from 80 to 7200 Hz, or to less where
the sound's sampling rate cannot hold that -> half-wave rectification and a mean over each
millisecond -> subtraction of 1.5 times the channel's median -> square root -> leaky
integrate-and-fire, membrane time constant 20 ms, refractory for 2 ms.

Sources: ERB scale from Glasberg and Moore (1990), order and bandwidth factor 1.019 from Patterson
et al. (1992) and Slaney (1993). The frequency range, the floor, the root and the neuron's
constants are assumed.

The bank works in the frequency domain: each filter's one-sided response shifts the channel to base
band, so that the magnitude of a short inverse transform is the envelope; the mean of a half-wave
rectified narrow-band signal is its envelope over pi. That makes resampling needless and the whole
bank about as dear as one long convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from neuroav.data.ragged import Ragged
from neuroav.errors import DataError

CHANNELS = 64
LOW_HZ, HIGH_HZ = 80.0, 7200.0  # assumed: the range of N-TIDIGITS-like cochleas
ORDER = 4
BANDWIDTH = 1.019  # Patterson et al. 1992: a gammatone of this width has the ear's ERB
FLOOR = 1.5  # assumed; without it noise multiplies the spikes by six
TICK_US = 1000
TAU_TICKS = 20.0
REFRACTORY_TICKS = 2
GAIN = 0.8  # assumed: gives about 1000 spikes for a clean spoken digit, as N-TIDIGITS has
PICTURE_MS = 10  # width of a cell of the spectrogram
PICTURE_DB = 60  # assumed: what is quieter than the loudest cell by this is drawn as silence
_CHUNK = 256  # waves whose currents are held at a time: about 40 MB
_ENVELOPE_RATE = 2000  # Hz; holds the widest channel's envelope
_TAIL = 0.1  # s of silence behind the window, so that filters ring out before the circle closes
_ROUND = 0.1  # s; lengths in whole tenths have small factors at the usual sampling rates


def erb_space(channels: int = CHANNELS, low: float = LOW_HZ, high: float = HIGH_HZ) -> np.ndarray:
    """Centre frequencies in Hz, (channels,), lowest first, even in ERB number."""
    number = np.linspace(_erb_number(low), _erb_number(high), channels)
    return (10 ** (number / 21.4) - 1) / 0.00437


def _erb_number(hz: float) -> float:
    return float(21.4 * np.log10(1 + 0.00437 * hz))


def erb(hz: np.ndarray) -> np.ndarray:
    """Equivalent rectangular bandwidth in Hz of the ear at ``hz`` (Glasberg and Moore 1990)."""
    return 24.7 * (1 + 0.00437 * hz)


def pink_noise(rng: np.random.Generator, samples: int, rate: float) -> np.ndarray:
    """Noise of unit power falling by 3 dB per octave above 20 Hz, (samples,) float64."""
    hz = np.fft.rfftfreq(samples, 1 / rate)
    spectrum = rng.standard_normal((2, len(hz)))
    shaped = (spectrum[0] + 1j * spectrum[1]) / np.sqrt(np.maximum(hz, 20.0))
    shaped[0] = 0
    noise = np.fft.irfft(shaped, samples)
    return noise / np.sqrt(np.mean(noise**2))


class GammatoneBank:
    """Envelopes of a window of ``window_ms`` milliseconds sampled at ``rate`` Hz.

    The response of channel c at f is ``(1 + j (f - fc) / b) ** -4`` with ``b = 1.019 ERB(fc)``.
    The highest channel is centred at ``high_hz``; DataError unless half the rate lies above it.
    """

    def __init__(self, rate: float, window_ms: int, high_hz: float = HIGH_HZ) -> None:
        if high_hz >= rate / 2:
            raise DataError(
                f"sound sampled at {rate:g} Hz: the highest cochlear channel is at {high_hz:g} Hz, "
                f"allowed is below {rate / 2:g} Hz; take a sound of more than {2 * high_hz:g} Hz"
            )
        seconds = np.ceil((window_ms / 1000 + _TAIL) / _ROUND) * _ROUND
        self.rate = rate
        self.samples = round(rate * window_ms / 1000)
        self._length = round(rate * seconds)
        self._short = round(_ENVELOPE_RATE * seconds)
        self._ticks = window_ms
        centre = erb_space(high=high_hz)
        step = rate / self._length
        half = self._short // 2
        middle = np.round(centre / step).astype(int)
        bins = middle[:, None] + np.arange(-half, self._short - half)[None, :]
        inside = (bins > 0) & (bins < self._length // 2)
        offset = bins * step - centre[:, None]
        width = BANDWIDTH * erb(centre)[:, None]
        self._response = np.where(inside, (1 + 1j * offset / width) ** -ORDER, 0)
        self._bins = np.where(inside, bins, 0)
        self._scale = self._short / self._length

    def envelopes(self, wave: np.ndarray) -> np.ndarray:
        """Mean of the rectified output per millisecond, (64, window_ms), for one (samples,) wave.

        The wave is cut or padded with silence to the window.
        """
        from scipy import fft

        spectrum = fft.rfft(wave[: self.samples], self._length)
        band = spectrum[self._bins] * self._response
        # The magnitude does not care where the band sits, so its bins need no reordering.
        magnitude = np.abs(fft.ifft(band, axis=1)) * (2 * self._scale / np.pi)
        return magnitude[:, : 2 * self._ticks].reshape(CHANNELS, self._ticks, 2).mean(axis=2)


def drive(envelopes: np.ndarray) -> np.ndarray:
    """Input current per tick, float32, same shape (64, ticks): floor removed, root taken."""
    floor = FLOOR * np.median(envelopes, axis=1, keepdims=True)
    return np.sqrt(np.maximum(envelopes - floor, 0)).astype(np.float32)


def fire(current: np.ndarray, gain: float = GAIN) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leaky integrate-and-fire with threshold 1 and reset to 0 over (N, 64, ticks) currents.

    Returns (tick, utterance, channel) of every spike, in that order of sorting.
    """
    decay = np.float32(np.exp(-1 / TAU_TICKS))
    potential = np.zeros(current.shape[:2], np.float32)
    rest = np.zeros(current.shape[:2], np.int8)
    found = []
    for tick in range(current.shape[2]):
        potential *= decay
        potential += np.float32(gain) * current[:, :, tick] * (rest == 0)
        np.maximum(rest - 1, 0, out=rest)
        spiking = potential >= 1
        potential[spiking] = 0
        rest[spiking] = REFRACTORY_TICKS
        item, channel = np.nonzero(spiking)
        found.append((np.full(len(item), tick), item, channel))
    tick_all, item_all, channel_all = (np.concatenate(part) for part in zip(*found, strict=True))
    return tick_all, item_all, channel_all


def spectrogram(envelopes: np.ndarray) -> np.ndarray:
    """Level of every channel over time for people to look at, (64, ceil(ticks / 10)) uint8.

    The envelope's mean over 10 ms in dB above ``PICTURE_DB`` below the loudest cell: 0 to 60.
    """
    starts = np.arange(0, envelopes.shape[1], PICTURE_MS)
    length = np.diff(np.append(starts, envelopes.shape[1]))
    cells = np.add.reduceat(envelopes, starts, axis=1) / length
    loudest = max(float(cells.max()), np.finfo(np.float64).tiny)
    share = np.maximum(cells / loudest, 10 ** (-PICTURE_DB / 20))
    return np.round(PICTURE_DB + 20 * np.log10(share)).astype(np.uint8)


@dataclass(frozen=True)
class Heard:
    """spikes: columns ``channel`` (uint8) and ``time`` (uint32, us). spectrograms: (N, 64, cells)
    uint8 as ``spectrogram`` gives them, of the same sound and noise."""

    spikes: Ragged
    spectrograms: np.ndarray


def encode(
    waves: Sequence[np.ndarray],
    rate: float,
    snr_db: np.ndarray,
    rngs: Sequence[np.random.Generator],
    window_ms: int,
    on_item: Callable[[int], None] | None = None,
    high_hz: float = HIGH_HZ,
    bank: GammatoneBank | None = None,
) -> Heard:
    """Spikes and spectrogram of every wave.

    ``snr_db`` (N,) is the ratio of the wave's power, over its length within the window, to the
    power of pink noise filling the whole window; infinity adds none. Each wave is first brought to
    unit power. ``on_item(done)`` is called after each wave. ``high_hz``: the highest channel.
    ``bank``: filters made before, for this rate, window and channel; None makes them. DataError for
    a silent wave, or for a highest channel that the rate cannot hold.
    """
    bank = bank or GammatoneBank(rate, window_ms, high_hz)
    parts = []
    pictures = np.empty((len(waves), CHANNELS, -(-window_ms // PICTURE_MS)), np.uint8)
    for first in range(0, len(waves), _CHUNK):
        chunk = range(first, min(first + _CHUNK, len(waves)))
        current = np.empty((len(chunk), CHANNELS, window_ms), np.float32)
        for row, i in enumerate(chunk):
            if not waves[i][: bank.samples].any():
                raise DataError(f"recording {i} is silent: there is nothing to hear in it")
            envelopes = bank.envelopes(_mixed(waves[i], bank, snr_db[i], rngs[i]))
            current[row], pictures[i] = drive(envelopes), spectrogram(envelopes)
            if on_item is not None:
                on_item(i + 1)
        tick, item, channel = fire(current)
        columns = {"channel": channel.astype(np.uint8)}
        columns["time"] = (tick * TICK_US).astype(np.uint32)
        parts.append(Ragged.build(item, len(chunk), **columns))
    return Heard(Ragged.join(parts), pictures)


def _mixed(
    wave: np.ndarray, bank: GammatoneBank, snr_db: float, rng: np.random.Generator
) -> np.ndarray:
    """The wave at unit power, cut or padded to the bank's window, in pink noise; float64."""
    heard = np.zeros(bank.samples)
    part = wave[: bank.samples].astype(np.float64)
    heard[: len(part)] = part / np.sqrt(np.mean(part**2))
    if np.isfinite(snr_db):
        heard += pink_noise(rng, bank.samples, bank.rate) * 10 ** (-snr_db / 20)
    return heard
