"""The samples of a folder of recordings: which files belong together, their classes and splits.

Nothing of a recording is read here. Everything that is wrong is said in one error.
"""

from __future__ import annotations

import csv
import fnmatch
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from neuroav.data.cache import SPLITS
from neuroav.data.plans import Source
from neuroav.data.published.folder_settings import SETTINGS, Settings
from neuroav.data.published.trees import require_text
from neuroav.errors import DataError

LABELS = "labels.csv"
SOUNDS = (".wav", ".flac", ".mp3", ".ogg", ".m4a")
PICTURES = (".jpg", ".jpeg", ".png")
VIDEOS = (".mp4", ".flv", ".avi", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".3gp")
CAMERAS = (".aedat", ".bin", ".bs2")
EITHER = (".npy", ".bs1", ".dat")  # events that a name does not tell the modality of
_MOST_SAID = 12  # problems in one error
_COLUMNS = ("file", "stem", "label", "split", "group")


@dataclass(frozen=True)
class Kind:
    """modality: 'audio' or 'visual'; form: 'sound', 'spikes', 'events', 'picture', 'video'."""

    modality: str
    form: str


@dataclass(frozen=True)
class Sample:
    """name: path below the root without ending, unique. split, group: '' where nothing says."""

    name: str
    label: str
    split: str
    group: str
    sources: Mapping[str, Source]
    forms: Mapping[str, str]


@dataclass(frozen=True)
class Listing:
    """samples, sorted by name; left_out: what 'skip' skipped, by name, with the reason."""

    samples: tuple[Sample, ...]
    left_out: Mapping[str, str]


def every_file(root: Path) -> list[PurePosixPath]:
    """Every file below the root but hidden ones, sorted; links to folders are followed, links to
    nothing are files too. DataError where it cannot be listed, or for links that lead in a circle.
    """
    found: list[PurePosixPath] = []
    above: dict[str, tuple[str, ...]] = {}  # the real folders on the way to a folder
    for place, folders, names in os.walk(root, onerror=_unlisted, followlinks=True):
        real = os.path.realpath(place)
        way = above.get(os.path.dirname(place), ())
        if real in way:
            raise DataError(f"folder {place}: is a link to {real}, which it lies in; remove it")
        above[place] = (*way, real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(place).relative_to(root)
        found += [PurePosixPath(inside / n) for n in names if not n.startswith(".")]
    for path in found:
        require_text(path)
    return sorted(found)


def _unlisted(error: OSError) -> None:
    raise DataError(f"folder {error.filename} cannot be listed: {error.strerror}")


def fingerprint(root: Path) -> str:
    """A hash of names and sizes of all files, and of what ``labels.csv`` and the settings say."""
    digest = hashlib.sha256()
    for path in every_file(root):
        there = (root / path).is_file()
        digest.update(f"{path}|{(root / path).stat().st_size if there else 'none'}\n".encode())
        if str(path) in (LABELS, SETTINGS):
            digest.update((root / path).read_bytes())
    return digest.hexdigest()[:32]


def listing(root: Path, settings: Settings) -> Listing:
    """Return the samples; one DataError lists what is unknown, double or lacks a modality."""
    paths = [p for p in every_file(root) if str(p) not in (LABELS, SETTINGS)]
    ignored = {p for p in paths if any(fnmatch.fnmatch(p.name, i) for i in settings.ignore)}
    paths = [p for p in paths if p not in ignored]
    problems: dict[str, str] = {}
    kinds: dict[PurePosixPath, Kind] = {}
    for path in paths:
        if not (root / path).is_file():
            problems[str(path)] = "is a link to nothing, or no ordinary file"
        elif (kind := _kind(path, settings)) is not None:
            kinds[path] = kind
        elif path.suffix.lower() in EITHER:
            raise settings.missing(
                "audio.files",
                f"{root / path}: {path.suffix} may be sounds or pictures: name it in files = "
                f"['{path.suffix.lower()}'] of [visual], or of [audio]",
            )
        else:
            problems[str(path)] = f"{path.suffix or 'no ending'} is no known kind of file"
    if (root / LABELS).is_file():
        samples = _by_table(root, kinds, problems, settings)
    else:
        samples = _by_folders(root, kinds, problems, settings)
        for path in ignored:  # a folder of nothing else is no class
            problems.pop(f"{path.parent}/", None)
    samples = _complete(samples, problems)
    _settle(root, settings, problems)
    if not samples:
        raise DataError(
            f"data root {root}: no samples; put recordings into <class>/ or "
            f"{{train,val,test}}/<class>/, or list them in {LABELS}"
        )
    return Listing(tuple(sorted(samples, key=lambda s: s.name)), problems)


def _settle(root: Path, settings: Settings, problems: Mapping[str, str]) -> None:
    if not problems or settings.incomplete == "skip":
        return
    said = [f"{name}: {why}" for name, why in sorted(problems.items())]
    more = f"; and {len(said) - _MOST_SAID} more" if len(said) > _MOST_SAID else ""
    raise DataError(
        f"data root {root}: {len(said)} problems: {'; '.join(said[:_MOST_SAID])}{more}. Mend them, "
        f"or write into {settings.path.name} ignore = ['<pattern>'] for files that are no samples, "
        "or incomplete = 'skip'"
    )


def _kind(path: PurePosixPath, settings: Settings) -> Kind | None:
    ending = path.suffix.lower()
    if ending in settings.audio.files and ending in settings.visual.files:
        raise DataError(f"{settings.path}: {ending} is in files of [audio] and of [visual]")
    if ending in settings.audio.files:
        return Kind("audio", "spikes")
    if ending in settings.visual.files or ending in CAMERAS:
        return Kind("visual", "events")
    forms = (("audio", "sound", SOUNDS), ("visual", "picture", PICTURES))
    for modality, form, endings in (*forms, ("visual", "video", VIDEOS)):
        if ending in endings:
            return Kind(modality, form)
    return None


def _stem(path: PurePosixPath) -> str:
    return str(path.with_suffix(""))


def _paired(
    kinds: Mapping[PurePosixPath, Kind], problems: dict[str, str], by_stem: bool
) -> dict[str, dict[str, tuple[PurePosixPath, Kind]]]:
    """Files of each name by modality; ``by_stem``: names without their folders."""
    found: dict[str, dict[str, tuple[PurePosixPath, Kind]]] = defaultdict(dict)
    for path, kind in kinds.items():
        name = path.stem if by_stem else _stem(path)
        if kind.modality in found[name]:
            other = found[name][kind.modality][0]
            problems[str(path)] = f"{other} has the same name and is {kind.modality} as well"
        else:
            found[name][kind.modality] = path, kind
    return found


def _sample(
    name: str,
    label: str,
    split: str,
    group: str,
    files: Mapping[str, tuple[PurePosixPath, Kind]],
) -> Sample:
    sources = {modality: Source(str(path)) for modality, (path, _) in sorted(files.items())}
    forms = {modality: kind.form for modality, (_, kind) in sorted(files.items())}
    return Sample(name, label, split, group, sources, forms)


def _by_folders(
    root: Path,
    kinds: Mapping[PurePosixPath, Kind],
    problems: dict[str, str],
    settings: Settings,
) -> list[Sample]:
    """Samples of ``<class>/`` or ``<split>/<class>/``."""
    top = sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    split_folders = [name for name in top if name in SPLITS]
    if split_folders and len(split_folders) != len(top):
        strange = next(name for name in top if name not in SPLITS)
        raise DataError(
            f"data root {root}: folder {strange!r} beside {split_folders[0]!r}: either all are "
            f"splits (train, val, test) that hold classes, or none is; or list all in {LABELS}"
        )
    depth = 3 if split_folders else 2
    shape = "<split>/<class>/<file>" if split_folders else "<class>/<file>"
    for path in [p for p in kinds if len(p.parts) != depth]:
        problems[str(path)] = f"lies at another depth than {shape}"
    placed = {p: k for p, k in kinds.items() if len(p.parts) == depth}
    samples = []
    for name, files in _paired(placed, problems, by_stem=False).items():
        parts = PurePosixPath(name).parts
        group = _group(parts[-1], name, problems, settings)
        samples.append(_sample(name, parts[-2], parts[0] if depth == 3 else "", group, files))
    held = {PurePosixPath(s.name).parent for s in samples}
    pattern = "*/*" if split_folders else "*"
    for folder in sorted(p for p in root.glob(pattern) if p.is_dir()):
        place = PurePosixPath(folder.relative_to(root).as_posix())
        if place not in held and not any(part.startswith(".") for part in place.parts):
            problems[f"{place}/"] = "a class without a sample"
    return samples


def _by_table(
    root: Path,
    kinds: Mapping[PurePosixPath, Kind],
    problems: dict[str, str],
    settings: Settings,
) -> list[Sample]:
    """Samples of ``labels.csv``."""
    rows = _rows(root / LABELS)
    key = "stem" if "stem" in rows[0][1] else "file"
    if settings.group is not None and "group" in rows[0][1]:
        raise DataError(
            f"{root / LABELS} has a column group, and {settings.path.name} a rule: keep one of them"
        )
    files = _paired(kinds, problems, by_stem=key == "stem")
    samples, seen = [], set()
    for line, row in rows:
        name = row[key].strip()
        if key == "file" and PurePosixPath(name) in kinds:
            name = _stem(PurePosixPath(name))
        where = f"{LABELS} line {line}"
        if not row["label"].strip():
            problems[where] = f"{name!r} has no label"
        elif name in seen:
            problems[where] = f"{name!r} is listed twice"
        elif name not in files:
            problems[where] = f"there is no file {name!r} of a known kind"
        elif (split := row.get("split", "").strip()) not in (*SPLITS, ""):
            problems[where] = f"split {split!r}, allowed are {', '.join(SPLITS)}"
        else:
            group = row.get("group", "").strip()
            group = group or _group(PurePosixPath(name).name, name, problems, settings)
            samples.append(_sample(name, row["label"].strip(), split, group, files[name]))
        seen.add(name)
    for name in sorted(set(files) - seen):
        problems[name] = f"is not listed in {LABELS}"
    return samples


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = tuple(reader.fieldnames or ())
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None
    unknown = [name for name in header if name not in _COLUMNS]
    if unknown or "label" not in header or ("file" in header) == ("stem" in header):
        raise DataError(
            f"{path}: columns {', '.join(header)}; needs label, and file (path below the root) "
            "or stem (name without ending and folders), and may have split and group"
        )
    for line, row in rows:
        if None in row or None in row.values():
            raise DataError(f"{path} line {line}: needs {len(header)} values")
    if not rows:
        raise DataError(f"{path} lists no sample")
    return rows


def _group(stem: str, name: str, problems: dict[str, str], settings: Settings) -> str:
    if settings.group is None:
        return ""
    found = re.search(settings.group, stem)
    if found is None or not found[1]:
        problems[name] = f"the rule for groups, {settings.group!r}, finds none in its name"
        return ""
    return str(found[1])


def _complete(samples: Iterable[Sample], problems: dict[str, str]) -> list[Sample]:
    """The samples that have every modality that others have."""
    samples = [sample for sample in samples if sample.name not in problems]
    modalities = {m for sample in samples for m in sample.sources}
    kept = []
    for sample in samples:
        if lacking := modalities - set(sample.sources):
            own = ", ".join(source.file for source in sample.sources.values())
            problems[own] = f"no {lacking.pop()} file beside it has its name"
        else:
            kept.append(sample)
    return kept
