"""The frozen manifest of nmnist-fsdd: which recordings there are, their splits and their pairs.

A CSV file, one line per recording, pictures before sounds, in manifest order:

=============  ============================================================================
``file``       path below the data root, with ``/``
``bytes``      its size
``sha256``     of its content, hex
``label``      digit 0..9
``split``      pictures: train, val or test. Sounds: train or val, where the speaker is kept
``speaker``    sounds only
a speaker      one column each, sounds only: the file of the picture that the sound is paired
               with where this speaker is held out for testing
=============  ============================================================================

The columns of the speakers hold the number of the recording within its digit's folder (00002 for
``nmnist/Train/0/00002.bin``). Nothing of a recording itself is in the manifest.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from neuroav.errors import DataError

COLUMNS = ("file", "bytes", "sha256", "label", "split", "speaker")
PICTURES, SOUNDS = "nmnist/Train", "fsdd/recordings"
SOURCES = (
    f"{PICTURES}/<digit>/<sample>.bin (N-MNIST, Orchard et al. 2015, CC BY-SA 4.0) and "
    f"{SOUNDS}/<digit>_<speaker>_<index>.wav (Free Spoken Digit Dataset, CC BY-SA 4.0)"
)


@dataclass(frozen=True)
class Entry:
    """One recording; partner: held-out speaker -> number of the picture, for sounds only."""

    file: str
    size: int
    sha256: str
    label: int
    split: str
    speaker: str = ""
    partner: dict[str, str] = field(default_factory=dict)

    @property
    def number(self) -> str:
        """The file's name without folder and ending."""
        return self.file.rpartition("/")[2].rpartition(".")[0]


@dataclass(frozen=True)
class Manifest:
    """pictures and sounds in manifest order; sha256 of the whole file, hex."""

    pictures: tuple[Entry, ...]
    sounds: tuple[Entry, ...]
    sha256: str

    @property
    def speakers(self) -> tuple[str, ...]:
        """Every speaker once, sorted."""
        return tuple(sorted({sound.speaker for sound in self.sounds}))


@dataclass(frozen=True)
class Pair:
    """A sound with the picture beside it, in the split of one fold."""

    sound: Entry
    picture: Entry
    split: str


def read(path: Path) -> Manifest:
    """The manifest at ``path``; DataError if it is not one."""
    try:
        content = path.read_bytes()
        rows = list(csv.reader(content.decode("utf-8").splitlines()))
        header, body = tuple(rows[0]), rows[1:]
        if header[: len(COLUMNS)] != COLUMNS:
            raise ValueError(f"its columns are {', '.join(header)}")
        entries = [_entry(row, header[len(COLUMNS) :]) for row in body]
    except (OSError, ValueError, IndexError) as err:
        raise DataError(f"manifest {path} cannot be read: {err}") from None
    pictures = tuple(entry for entry in entries if not entry.speaker)
    sounds = tuple(entry for entry in entries if entry.speaker)
    return Manifest(pictures, sounds, hashlib.sha256(content).hexdigest())


def _entry(row: list[str], speakers: tuple[str, ...]) -> Entry:
    file, size, sha256, label, split, speaker = row[: len(COLUMNS)]
    partner = dict(zip(speakers, row[len(COLUMNS) :], strict=True)) if speaker else {}
    return Entry(file, int(size), sha256, int(label), split, speaker, partner)


def write(path: Path, entries: Iterable[Entry], speakers: tuple[str, ...]) -> None:
    """Write a manifest that ``read`` gives back."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow((*COLUMNS, *speakers))
        for e in entries:
            fixed = (e.file, e.size, e.sha256, e.label, e.split, e.speaker)
            table.writerow((*fixed, *(e.partner.get(speaker, "") for speaker in speakers)))


def pairs(manifest: Manifest, held_out: str) -> list[Pair]:
    """The fixed pairs of the fold that tests on ``held_out``, in manifest order of the sounds."""
    by_number = {(picture.label, picture.number): picture for picture in manifest.pictures}
    return [
        Pair(
            sound,
            by_number[sound.label, sound.partner[held_out]],
            "test" if sound.speaker == held_out else sound.split,
        )
        for sound in manifest.sounds
    ]


def require_root(data_root: Path | None, name: str) -> Path:
    """The folder of the recordings; DataError saying what it must hold unless it is there."""
    wanted = f"{name} is made of recordings that are not part of this package: {SOURCES}"
    if data_root is None:
        raise DataError(
            f"{wanted}; name the folder that holds both with --data-root DIR or NEUROAV_DATA=DIR"
        )
    root = Path(data_root)
    for folder in (root, root / PICTURES, root / SOUNDS):
        if not folder.is_dir():
            raise DataError(f"data root {root}: there is no folder {folder}; {wanted}")
    return root


def verified(root: Path, entry: Entry) -> Path:
    """The path of a recording whose content is that of the manifest; DataError if it is not."""
    path = root / entry.file
    expected = f"expected {entry.size} bytes with sha256 {entry.sha256}"
    remedy = "copy it again from its published source"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"recording {path} is missing: {expected}; {remedy}") from None
    except OSError as err:
        raise DataError(f"recording {path} cannot be read ({err}): {expected}") from None
    found = hashlib.sha256(content).hexdigest()
    if (len(content), found) != (entry.size, entry.sha256):
        raise DataError(
            f"recording {path} is cut or altered: found {len(content)} bytes with sha256 {found}, "
            f"{expected}; {remedy}"
        )
    return path
