"""An event camera by dv-processing and a microphone by sounddevice, both optional packages."""

from __future__ import annotations

import queue
import time
from typing import Any

import numpy as np

from neuroav.errors import DataError, MissingDependency
from neuroav.streaming.sources import EventBlock, LiveClock, no_events

BLOCK_S = 0.02
HELD_S = 10.0  # of sound, waiting to be read
_POLL_S = 0.001


class EventCamera:
    """The first camera that dv-processing finds (iniVation: DVXplorer, DAVIS, DVS128).

    Its batches hold timestamp (us), x, y from the upper left, polarity (True = brighter).
    """

    live = True

    def __init__(self) -> None:
        try:
            import dv_processing as dv
        except ImportError as error:
            raise MissingDependency(
                f"an event camera is read by dv-processing, which cannot be imported ({error}): "
                "pip install dv-processing (or give --events a file, a pipe, tcp://HOST:PORT or -)"
            ) from None
        try:
            self._camera: Any = dv.io.CameraCapture()
        except RuntimeError as error:
            raise DataError(
                f"camera: dv-processing opens none ({error}); plug one in, and check that you may "
                "read it (udev rules)"
            ) from None
        self.sensor = _size(self._camera)
        self._clock = LiveClock()

    def begin(self) -> None:
        """Forget what came until now; time begins."""
        while self._camera.isRunning():
            batch = self._camera.getNextEventBatch()
            if batch is None or not len(batch):
                break
        self._clock = LiveClock()

    def read(self, wait_s: float) -> EventBlock | None:
        """Return the next batch; an empty block where none comes within ``wait_s``."""
        end = time.monotonic() + wait_s
        while self._camera.isRunning():
            batch = self._camera.getNextEventBatch()
            if batch is not None and len(batch):
                return self._clock.block(_columns(batch.numpy()))
            if time.monotonic() >= end:
                return self._clock.block(no_events())
            time.sleep(_POLL_S)
        return None

    def close(self) -> None:
        self._camera = None


def _size(camera: Any) -> tuple[int, int] | None:
    found = camera.getEventResolution()
    return None if found is None else (int(found[0]), int(found[1]))


def _columns(batch: np.ndarray) -> dict[str, np.ndarray]:
    names = {"x": "x", "y": "y", "p": "polarity", "time": "timestamp"}
    return {ours: batch[theirs].astype(np.int64) for ours, theirs in names.items()}


class Microphone:
    """The system's microphone, mono, 16 bit, at ``rate`` Hz."""

    live = True

    def __init__(self, rate: int) -> None:
        try:
            import sounddevice
        except (ImportError, OSError) as error:  # OSError: the library PortAudio is not there
            raise MissingDependency(
                f"a microphone is read by sounddevice and PortAudio, which cannot be loaded "
                f"({error}): pip install 'neuroav[stream]', and the system's PortAudio, e.g. "
                "apt-get install libportaudio2 (or give --audio a WAV file)"
            ) from None
        self.rate, self.lost = rate, 0
        self._blocks: queue.Queue[np.ndarray] = queue.Queue(round(HELD_S / BLOCK_S))
        self._gap = 0
        try:
            self._stream = sounddevice.InputStream(
                samplerate=rate, channels=1, dtype="int16", blocksize=round(rate * BLOCK_S),
                callback=self._take,
            )  # fmt: skip
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise DataError(
                f"microphone: PortAudio opens none at {rate} Hz ({error}); check that one is "
                "plugged in and allows this rate"
            ) from None

    def begin(self) -> None:
        """Forget what came until now; time begins."""
        while not self._blocks.empty():
            self._blocks.get_nowait()
        self.lost = self._gap = 0

    def _take(self, data: np.ndarray, count: int, _time: Any, status: Any) -> None:
        """Keep a block; what finds no room is counted, and becomes silence, so that time holds."""
        try:
            self._blocks.put_nowait(data[:, 0].copy())
        except queue.Full:
            self._gap += count
            self.lost += count

    def read(self, wait_s: float) -> np.ndarray | None:
        """Return the next block, no samples where none comes within ``wait_s``."""
        if self._gap and self._blocks.empty():
            gap, self._gap = self._gap, 0
            return np.zeros(gap, np.int16)
        try:
            return self._blocks.get(timeout=wait_s)
        except queue.Empty:
            return np.empty(0, np.int16)

    def close(self) -> None:
        self._stream.stop()
        self._stream.close()
