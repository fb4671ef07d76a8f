"""Speak a list of words with espeak-ng; run as a program of its own, never imported.

``python -m neuroav.data._espeak_worker REQUEST.json OUT.npz`` reads::

    {"seed": int, "utterances": [[voice, text, rate_wpm, pitch, range], ...]}

and writes ``samples`` (int16, all utterances one after the other), ``offsets`` (int64, one more
than utterances) and ``rate`` (Hz). Exit status: 0 done, 3 espeak-ng cannot be loaded, 4 it refused
a voice or spoke nothing; the reason is one line on standard error.

espeak-ng is GPL-3.0-or-later, so it stays in a process of its own and only audio comes back. The
library also keeps its random state from one utterance to the next: only the whole list, in order,
in a fresh process seeded once, comes out the same twice.
"""

from __future__ import annotations

import ctypes
import json
import sys

import numpy as np

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: espeak_Synth returns when the word is spoken
_DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: report a missing data folder, do not exit
_RATE, _PITCH, _RANGE = 1, 3, 4  # espeak_PARAMETER
_UTF8 = 1
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class _Speaker:
    """espeak-ng loaded, initialised and seeded; ``say`` gives the samples of one utterance."""

    def __init__(self, seed: int) -> None:
        import espeakng_loader

        lib = ctypes.CDLL(espeakng_loader.get_library_path())
        lib.espeak_Initialize.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int]
        lib.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
        lib.espeak_SetParameter.argtypes = [ctypes.c_int] * 3
        lib.espeak_SetSynthCallback.argtypes = [_CALLBACK]
        lib.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        lib.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        data = espeakng_loader.get_data_path().encode()
        self.rate = lib.espeak_Initialize(_SYNCHRONOUS, 0, data, _DONT_EXIT)
        if self.rate <= 0:
            raise OSError(f"espeak_Initialize returned {self.rate} for {data!r}")
        self._lib = lib
        self._chunks: list[np.ndarray] = []
        self._keep = _CALLBACK(self._take)  # ctypes frees a callback nobody holds
        lib.espeak_SetSynthCallback(self._keep)
        lib.espeak_ng_SetRandSeed(seed)

    def _take(self, wav, count: int, _events) -> int:
        if wav and count > 0:
            self._chunks.append(np.ctypeslib.as_array(wav, (count,)).copy())
        return 0

    def say(self, voice: str, text: str, rate: int, pitch: int, pitch_range: int) -> np.ndarray:
        """Samples, int16 at ``self.rate`` Hz."""
        self._chunks.clear()
        if code := self._lib.espeak_SetVoiceByName(voice.encode()):
            raise ValueError(f"espeak-ng refused voice {voice!r} with code {code}")
        for key, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, pitch_range)):
            self._lib.espeak_SetParameter(key, value, 0)
        raw = text.encode()
        self._lib.espeak_Synth(raw, len(raw) + 1, 0, 1, 0, _UTF8, None, None)
        if not any(chunk.any() for chunk in self._chunks):
            raise ValueError(f"espeak-ng spoke nothing for {text!r} with voice {voice!r}")
        return np.concatenate(self._chunks)


def main(request: str, out: str) -> int:
    """Speak the utterances of ``request`` into ``out``; return the exit status."""
    with open(request, encoding="utf-8") as file:
        job = json.load(file)
    try:
        speaker = _Speaker(job["seed"])
    except (ImportError, OSError, AttributeError, RuntimeError) as err:
        print(f"espeak-ng cannot be loaded: {err}", file=sys.stderr)
        return 3
    try:
        waves = [speaker.say(*utterance) for utterance in job["utterances"]]
    except ValueError as err:
        print(err, file=sys.stderr)
        return 4
    offsets = np.cumsum([0, *map(len, waves)], dtype=np.int64)
    with open(out, "wb") as file:
        np.savez(file, samples=np.concatenate(waves), offsets=offsets, rate=speaker.rate)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
