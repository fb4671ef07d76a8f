"""What the name of a clip of CREMA-D says: its actor, sentence, emotion and level."""

from __future__ import annotations

from dataclasses import dataclass

from neuroav.errors import DataError

ACTORS = tuple(str(n) for n in range(1001, 1092))
SENTENCES = (
    "DFA", "IEO", "IOM", "ITH", "ITS", "IWL", "IWW", "MTI", "TAI", "TIE", "TSI", "WSI",
)  # fmt: skip
EMOTIONS = {  # label order of S-CMRL's spiking loader: by code
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happiness",
    "NEU": "neutral",
    "SAD": "sadness",
}
LEVELS = ("LO", "MD", "HI")
GRADED_SENTENCE = "IEO"


@dataclass(frozen=True)
class Clip:
    """What a clip's name says; each part as in the name."""

    actor: str
    sentence: str
    emotion: str
    level: str

    @property
    def label(self) -> int:
        """Index of the emotion in the order of ``EMOTIONS``."""
        return list(EMOTIONS).index(self.emotion)


def parse_clip(name: str, where: str = "") -> Clip:
    """Read a clip's name; DataError naming the part that is wrong, and ``where`` it was found."""
    place = f"{where}: " if where else ""
    parts = name.split("_")
    if len(parts) != 4:
        raise DataError(
            f"{place}clip {name!r} has {len(parts)} parts between underscores; needs "
            "<actor>_<sentence>_<emotion>_<level>, as 1001_IEO_HAP_LO"
        )
    clip = Clip(*parts)
    graded = clip.sentence == GRADED_SENTENCE and clip.emotion != "NEU"
    allowed = {
        "actor": ACTORS,
        "sentence": SENTENCES,
        "emotion": tuple(EMOTIONS),
        "level": LEVELS if graded else ("XX",),
    }
    for part, names in allowed.items():
        if (found := getattr(clip, part)) not in names:
            known = f"{names[0]} to {names[-1]}" if part == "actor" else ", ".join(names)
            of = f" of {clip.sentence}_{clip.emotion}" if part == "level" else ""
            raise DataError(f"{place}clip {name!r}: {part}{of} is {found!r}, allowed: {known}")
    return clip
