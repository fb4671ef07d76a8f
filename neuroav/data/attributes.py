"""What is known of a digit without having seen or heard one: its strokes and its name's sounds.

Two groups of attributes per digit, each 0 or 1:

- the seven segments of the common display form (a top, b upper right, c lower right, d bottom,
  e lower left, f upper left, g middle);
- the sounds of the English word: articulatory features of the first consonant, the first vowel and
  the last consonant, and whether there is a second syllable. Transcriptions are those of the CMU
  Pronouncing Dictionary, features the usual ones of the IPA chart.

``class_vectors`` makes of either group vectors of length 1, as the word vectors of the published
benchmarks are.
"""

from __future__ import annotations

import numpy as np

SEGMENTS = "abcdefg"
LIT = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")
# CMU Pronouncing Dictionary, stress marks left out
PHONES = (
    "Z IH R OW",
    "W AH N",
    "T UW",
    "TH R IY",
    "F AO R",
    "F AY V",
    "S IH K S",
    "S EH V AH N",
    "EY T",
    "N AY N",
)
_CONSONANTS = {  # voice, manner, place
    "Z": ("voiced", "fricative", "alveolar"),
    "S": ("voiceless", "fricative", "alveolar"),
    "F": ("voiceless", "fricative", "labial"),
    "V": ("voiced", "fricative", "labial"),
    "TH": ("voiceless", "fricative", "dental"),
    "T": ("voiceless", "stop", "alveolar"),
    "K": ("voiceless", "stop", "velar"),
    "N": ("voiced", "nasal", "alveolar"),
    "R": ("voiced", "approximant", "alveolar"),
    "W": ("voiced", "approximant", "labial"),
}
_VOWELS = {  # height, place; a diphthong is where it begins, and says so
    "IH": ("high", "front"),
    "IY": ("high", "front"),
    "UW": ("high", "back"),
    "EH": ("mid", "front"),
    "EY": ("mid", "front", "diphthong"),
    "AH": ("mid", "central"),
    "OW": ("mid", "back", "diphthong"),
    "AO": ("low", "back"),
    "AY": ("low", "central", "diphthong"),
}
_CONSONANT_FEATURES = ("voiced", "voiceless", "fricative", "stop", "nasal", "approximant")
_PLACES = ("labial", "dental", "alveolar", "velar")
_VOWEL_FEATURES = ("high", "mid", "low", "front", "central", "back", "diphthong")

NAMES: tuple[str, ...] = (
    *(f"segment {s}" for s in SEGMENTS),
    *(f"onset {f}" for f in _CONSONANT_FEATURES + _PLACES),
    *(f"vowel {f}" for f in _VOWEL_FEATURES),
    *(f"coda {f}" for f in _CONSONANT_FEATURES + _PLACES),
    "two syllables",
)


def attributes() -> np.ndarray:
    """Return the attributes of the ten digits, (10, len(NAMES)) bool."""
    return np.array(
        [[name in _of(digit) for name in NAMES] for digit in range(len(LIT))], dtype=bool
    )


def class_vectors() -> tuple[np.ndarray, np.ndarray]:
    """Return what is known of every digit's strokes (10, 7) and sounds (10, 28), float64.

    Rows have length 1. What all digits share does not count: their mean is taken away first.
    """
    table, strokes = attributes().astype(np.float64), len(SEGMENTS)
    table -= table.mean(axis=0)
    parts = (table[:, :strokes], table[:, strokes:])
    return tuple(p / np.linalg.norm(p, axis=1, keepdims=True) for p in parts)


def _of(digit: int) -> set[str]:
    """Return the names of a digit's attributes."""
    phones = PHONES[digit].split()
    vowels = [i for i, p in enumerate(phones) if p in _VOWELS]
    onset, coda = phones[: vowels[0]], phones[vowels[-1] + 1 :]
    found = {f"segment {s}" for s in LIT[digit]}
    found |= {f"vowel {f}" for f in _VOWELS[phones[vowels[0]]]}
    found |= {f"onset {f}" for p in onset[:1] for f in _CONSONANTS[p]}
    found |= {f"coda {f}" for p in coda[-1:] for f in _CONSONANTS[p]}
    return found | ({"two syllables"} if len(vowels) > 1 else set())
