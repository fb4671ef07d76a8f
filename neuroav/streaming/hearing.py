"""Sound to spikes, one window at a time, with the numbers that the data sets have.

The cochlea (``neuroav.data.cochlea``) looks at a whole window: its filters are a Fourier transform,
and the floor is the median of the window. So live sound cannot become spikes sample by sample; it
does window by window, each as if it were a recording. Of a network trained on nmnist-fsdd the word
is first freed of its quiet ends and put into the middle, as there. A window of perfect silence has
no spikes.
"""

from __future__ import annotations

import numpy as np

from neuroav.data import cochlea, nmnistfsdd
from neuroav.data.frames import FrameSpec, bin_audio
from neuroav.errors import DataError
from neuroav.streaming.sensing import Hearing

_QUIET = np.random.default_rng(0)  # nothing is drawn from it: no noise is added to live sound


class SoundEncoder:
    """Windows of sound to frames (steps, input channels, rows, fine bins) uint8.

    rate: Hz of the sound. DataError where the network was not trained on it, or it cannot hold the
    highest cochlear channel.
    """

    def __init__(self, hearing: Hearing, rate: int, steps: int) -> None:
        if hearing.rate not in (None, rate):
            raise DataError(
                f"sound of {rate} Hz; the network was trained on {hearing.rate} Hz; convert it, "
                f"e.g. by: sox sound.wav -r {hearing.rate} converted.wav"
            )
        self._hearing, self._rate = hearing, rate
        channels, rows, bins = hearing.shape
        self._spec = FrameSpec(steps, 16, channels, rows, bins)
        self._window_ms = hearing.window_us // 1000
        self._bank = cochlea.GammatoneBank(rate, self._window_ms, hearing.high_hz)
        tone = 1000 * np.sin(np.arange(self._bank.samples))
        self.frames(tone.astype(np.int16))  # imports and plans are no latency of the first window

    def frames(self, samples: np.ndarray) -> tuple[np.ndarray, int, int]:
        """Return the frames of a window (samples,), its spikes, and those lost in full cells."""
        if not samples[: self._bank.samples].any():
            return np.zeros(self._spec.audio_shape, np.uint8), 0, 0
        wave = nmnistfsdd.centred(samples) if self._hearing.centred else samples
        heard = cochlea.encode(
            [wave], self._rate, np.array([np.inf]), [_QUIET], self._window_ms,
            high_hz=self._hearing.high_hz, bank=self._bank,
        )  # fmt: skip
        window = self._hearing.window_us
        counts, clipped = bin_audio(heard.spikes, self._spec, window, cochlea.CHANNELS)
        most = self._hearing.max_count
        kept = np.minimum(counts[0], most) if most < 255 else counts[0]
        total = int(kept.sum())
        return kept, total, clipped + int(counts[0].sum()) - total
