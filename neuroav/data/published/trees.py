"""What data sets of one picture and one sound per sample have in common: folders, order, one item.

Manifest order is by the sha256 of a sample's name, so that the first n of a split are a fair sample
of it whatever the file system lists first, and grow with n.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from neuroav.data import ledger, spectrograms
from neuroav.data.cache import SPLITS
from neuroav.data.formats.guarded import guarded
from neuroav.data.formats.picture import read_picture
from neuroav.data.formats.sound import mono, read_sound
from neuroav.data.plans import Converted, Item
from neuroav.errors import DataError

MAX_SEED = 2**31 - 1
EDGES = (16, 8192)  # pixels that an edge of a picture may have
MAX_RATIO = 8  # of a picture's longer edge to its shorter one
_POINTER = b"version https://git-lfs"


def existing_root(data_root: Path | None, name: str, wanted: str) -> Path:
    """The data root; DataError saying what it must hold where it was not named or is no folder."""
    if data_root is None:
        raise DataError(
            f"{name} is made of files that are not part of this package: {wanted}; name the folder "
            "that holds them with --data-root DIR or NEUROAV_DATA=DIR"
        )
    root = Path(data_root)
    if not root.is_dir():
        raise DataError(f"data root {root}: there is no such folder; {name} needs {wanted}")
    return root


def base_folder(
    root: Path, name: str, folders: Sequence[str], fits: Callable[[Path], bool], wanted: str
) -> Path:
    """The first of ``folders`` below the root, or the root, that ``fits``; DataError if none."""
    for folder in (*(root / f for f in folders), root):
        if folder.is_dir() and fits(folder):
            return folder
    looked = ", ".join(f"{f}/" for f in folders)
    raise DataError(f"data root {root}: {name} needs {wanted}, below {looked} or the root itself")


def files_by_stem(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """The files right below a folder by name without suffix, sorted; hidden files are no part.

    DataError for a folder that cannot be listed, or two files of one name.
    """
    found: dict[str, Path] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise DataError(f"folder {folder} cannot be listed: {error}") from None
    for path in paths:
        if path.name.startswith(".") or path.suffix.lower() not in suffixes:
            continue
        require_text(path)
        if path.stem in found:
            raise DataError(
                f"{path} and {found[path.stem].name}: two files of one name; keep one of them"
            )
        found[path.stem] = path
    return found


def require_text(path: PurePath) -> None:
    """DataError for a name that manifests and errors could not hold: not UTF-8, or of two lines."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DataError(f"{str(path)!a}: its name is not UTF-8; rename it") from None
    if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in str(path)):
        raise DataError(f"{str(path)!a}: its name holds a control character; rename it")


def fingerprint(root: Path, names: Iterable[str], lists: Iterable[Path]) -> str:
    """A hash of names, and of what lists of items or splits hold."""
    digest = hashlib.sha256("\n".join(sorted(names)).encode())
    for path in lists:
        digest.update(f"\n{below(root, path)} {ledger.stamp(path)}".encode())
    return digest.hexdigest()[:16]


def stated_lists(root: Path, lists: Iterable[Path]) -> dict[str, list[Any]]:
    """What ``Plan.meta["lists"]`` holds of these files."""
    return {below(root, path): list(ledger.stamp(path)) for path in lists}


def orphans(heard: Iterable[str], seen: Iterable[str]) -> dict[str, str]:
    """What is missing of names that are not in both, by name, sorted."""
    heard, seen = set(heard), set(seen)
    lacking = dict.fromkeys(heard - seen, "has a sound, no picture of this name")
    lacking |= dict.fromkeys(seen - heard, "has a picture, no sound of this name")
    return dict(sorted(lacking.items()))


def seed_and_limit(data_seed: int, limit: int | None) -> dict[str, Any]:
    """Both as parameters; DataError outside their range."""
    if not 0 <= data_seed <= MAX_SEED:
        raise DataError(f"data seed {data_seed}: allowed are 0 to {MAX_SEED}")
    if limit is not None and limit < len(SPLITS):
        raise DataError(f"limit {limit}: allowed are {len(SPLITS)} pairs and more")
    return {"data_seed": int(data_seed), "limit": limit}


def in_order(items: Iterable[Item], limit: int | None) -> tuple[Item, ...]:
    """Items split by split, each by the hash of its name; ``limit`` keeps so many in proportion."""
    order = sorted(items, key=lambda item: hashlib.sha256(item.name.encode()).digest())
    share = 1.0 if limit is None else min(1.0, limit / max(len(order), 1))
    kept: list[Item] = []
    for split in SPLITS:
        mine = [item for item in order if item.split == split]
        kept += mine[: max(1, round(share * len(mine)))]
    return tuple(kept)


def with_splits(items: Iterable[Item], split: Mapping[str, str]) -> list[Item]:
    """Items with the splits that ``split`` has for their names."""
    return [replace(item, split=split[item.name]) for item in items]


def below(root: Path, path: Path) -> str:
    """A path as a ``Source`` has it: below the data root, with / between folders."""
    return path.relative_to(root).as_posix()


def present(path: Path, remedy: str) -> Path:
    """The path of a file that is there and is its own content; DataError for a git-lfs pointer."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_POINTER))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; {remedy}") from None
    if head == _POINTER:
        raise DataError(f"{path}: is a git-lfs pointer, not the file; run `git lfs pull`")
    return path


def one_channel(path: Path) -> tuple[np.ndarray, int]:
    """A sound file as (samples,) float32, its channels averaged, and its rate in Hz."""
    sound = guarded(read_sound, path)
    return mono(sound, "mean"), sound.rate


def picture(path: Path) -> np.ndarray:
    """A picture file as uint8 (rows, columns, 3)."""
    return guarded(read_picture, path)


def still(sound: np.ndarray, rate: int, pixels: np.ndarray, heard: Path, seen: Path) -> Converted:
    """A sample of ``neuroav.data.stills``: its spectrogram, and its picture at its own size.

    sound: (samples,) at ``rate`` Hz. pixels: uint8 (rows, columns, 3). heard, seen: their files,
    for DataError.
    """
    level = spectrograms.log_spectrogram(sound, rate, str(heard))
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise DataError(f"{seen}: {pixels.dtype} {pixels.shape}, needs uint8 (rows, columns, 3)")
    short, long = sorted(pixels.shape[:2])
    if short < EDGES[0] or long > EDGES[1] or long > MAX_RATIO * short:
        raise DataError(
            f"{seen}: a picture of {pixels.shape[1]}x{pixels.shape[0]} pixels; allowed are edges "
            f"of {EDGES[0]} to {EDGES[1]}, the longer at most {MAX_RATIO} times the shorter"
        )
    return Converted(
        {"level": level.reshape(-1)},
        {"pixel": np.ascontiguousarray(pixels).reshape(-1)},
        {"visual_size": np.array(pixels.shape[:2], np.int64)},
    )


def constants() -> dict[str, Any]:
    """What of the way a sample is made the result depends on."""
    names = ("RATE", "WINDOW", "HOP", "FLOOR", "SIZE", "ZERO_CROSSINGS", "ROLLOFF")
    return {f"spectrograms.{n.lower()}": getattr(spectrograms, n) for n in names}


def versions(*packages: str) -> dict[str, str]:
    """Versions of packages, without those that are not installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
