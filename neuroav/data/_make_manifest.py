"""Make the manifest of nmnist-fsdd from the recordings; run once, its result is shipped.

``python -m neuroav.data._make_manifest DATA_ROOT OUT.csv``

Pictures: the digits are dealt out round-robin in the order of their sample numbers; the last 150
of 750 are for testing, the 100 before them for validation (with other totals, the same shares).
Sounds: those with index 0 to 4, FSDD's official test split, are for validation where their speaker
is kept; where the speaker is held out, all are for testing. Pairs: within a split of a fold, the
sounds of a digit take the pictures of that digit in turn.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

from neuroav.data.manifest import PICTURES, SOUNDS, Entry, require_root, write
from neuroav.errors import DataError

TEST, VAL, TOTAL = 150, 100, 750
VAL_INDICES = 5
_SOUND = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")


def _measured(root: Path, file: Path, label: int, split: str, speaker: str = "") -> Entry:
    content = file.read_bytes()
    name, digest = file.relative_to(root).as_posix(), hashlib.sha256(content).hexdigest()
    return Entry(name, len(content), digest, label, split, speaker)


def find_pictures(root: Path) -> list[Entry]:
    """Every picture, digits dealt out round-robin, with its split."""
    places = []
    for digit in range(10):
        files = sorted((root / PICTURES / str(digit)).glob("*.bin"))
        places += [((k + 0.5) / len(files), digit, file) for k, file in enumerate(files)]
    places.sort()
    test, val = (round(len(places) * part / TOTAL) for part in (TEST, VAL))
    names = ["train"] * (len(places) - test - val) + ["val"] * val + ["test"] * test
    return [
        _measured(root, file, digit, split)
        for (_, digit, file), split in zip(places, names, strict=True)
    ]


def find_sounds(root: Path) -> list[Entry]:
    """Every sound, ordered by index, digit and speaker; DataError for a name of another form."""
    places = []
    for file in (root / SOUNDS).glob("*.wav"):
        match = _SOUND.fullmatch(file.name)
        if match is None:
            raise DataError(f"{file}: its name is not <digit>_<speaker>_<index>.wav")
        places.append((int(match[3]), int(match[1]), match[2], file))
    return [
        _measured(root, file, digit, "val" if index < VAL_INDICES else "train", speaker)
        for index, digit, speaker, file in sorted(places)
    ]


def paired(pictures: list[Entry], sounds: list[Entry], held_out: str) -> list[Entry]:
    """The sounds with their partners in the fold of ``held_out`` added."""
    shelves = defaultdict(list)
    for picture in pictures:
        shelves[picture.split, picture.label].append(picture.number)
    served: Counter[tuple[str, int]] = Counter()
    found = []
    for sound in sounds:
        shelf = ("test" if sound.speaker == held_out else sound.split, sound.label)
        partner = shelves[shelf][served[shelf] % len(shelves[shelf])]
        served[shelf] += 1
        found.append(replace(sound, partner=sound.partner | {held_out: partner}))
    return found


def make(root: Path, out: Path) -> None:
    """Write the manifest of the recordings below ``root`` to ``out``."""
    require_root(root, "the manifest")
    pictures, sounds = find_pictures(root), find_sounds(root)
    speakers = tuple(sorted({sound.speaker for sound in sounds}))
    for speaker in speakers:
        sounds = paired(pictures, sounds, speaker)
    write(out, [*pictures, *sounds], speakers)


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))
