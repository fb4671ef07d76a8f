"""The data set ``cremad``: a face and a voice saying a sentence in one of six emotions.

CREMA-D (Cao et al. 2014, IEEE Trans. Affective Computing 5(4)): 7,442 clips of 91 actors. A clip's
name says it all, ``1001_IEO_HAP_LO``: actor 1001..1091, one of 12 sentences, the emotion, and its
level, LO MD HI of the sentence IEO (but for NEU), XX of all else.

A sample is one picture of the clip and the log spectrogram of its sound
(``neuroav.data.spectrograms``), shown in every step (``neuroav.data.stills``), as S-CMRL
(arXiv 2502.12488) uses them. Below ``cremad/``, ``CREMA-D/`` or the data root, looked for in this
order:

=======================================================  =======================================
``AudioWAV/<clip>.wav``, ``VideoFlash/<clip>.flv``       as published
``AudioWAV/<clip>.wav``, ``Image-01-FPS/<clip>/*.jpg``   pictures already taken, one per second
``processed_dataset/{train,test}/{audio,visual}/<EMO>``  S-CMRL's: one picture per clip, two sets
=======================================================  =======================================

The picture: S-CMRL's are the frames 0, f, 2 f, ... of a video of f frames per second, f cut to a
whole number; it takes one of them by an unseeded generator, once. Here the choice is drawn from
the data seed and the clip's name.

Presets. ``clean`` (also called ``default``): no actor in two of train, validation and test, 80, 10
and 10 % of the clips, dealt with the data seed. ``paper``: ``train.csv`` and ``test.csv`` of the
release (rows ``clip,EMO``), where every actor is in both, and validation is the test set.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.data.augment import NONE
from neuroav.data.info import DatasetInfo
from neuroav.data.plans import Broken, Converted, Item, Plan, Source
from neuroav.data.protocols import deal_groups, overlaps
from neuroav.data.published import trees
from neuroav.data.published.cremad_names import EMOTIONS, parse_clip
from neuroav.data.stills import StillSpec
from neuroav.errors import DataError, FileFormatError, unknown_name

NAME = "cremad"
GENERATOR_VERSION = 1  # raise whenever the same parameters would give other data
FOLDERS = ("cremad", "CREMA-D")
SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}
PROTOCOL = {"default": "clean", "clean": "clean", "paper": "paper"}
PUBLISHED_SIZES = {"train": 6698, "test": 744}
CLIPS = 7442

# What the publishers' README says of single clips.
NO_SOUND = {"1076_MTI_SAD_XX": "has no audio in any form, its publishers say"}
RUNS_ON = {"1064_IEO_DIS_MD"}  # its video lasts a minute: frames are taken while the sound lasts
RUNS_ON_FRAMES = 3600
CUT_SHORT = {"1076_MTI_NEU_XX": "its video is cut short, its publishers say"}

WANTED = (
    "AudioWAV/<clip>.wav beside VideoFlash/<clip>.flv or Image-01-FPS/<clip>/00000.jpg, or "
    "processed_dataset/{train,test}/{audio,visual}/<EMO>/"
)
REMEDY = "get it from github.com/CheyneyComputerScience/CREMA-D with git-lfs"
_PICTURES = (".jpg", ".jpeg", ".png")

INFO = DatasetInfo(
    name=NAME,
    title="CREMA-D: six emotions, one picture and one log spectrogram per clip",
    presets=tuple(PROTOCOL),
    classes=tuple(EMOTIONS.values()),
    licence=(
        "Open Database License 1.0, its contents Database Contents License 1.0. Not in the "
        "package: read from the data root."
    ),
    limits=(
        "one picture per clip, drawn at random: no movement",
        "the picture is tested on its middle quarter, so the face is cut",
        "acted emotions in 12 fixed sentences, by 91 actors",
        "paper: every actor is in both sets, and the test set chooses the epoch",
        "clean: no published figures; expect them to be lower than those of paper",
    ),
    augmentation=NONE,  # of events; pictures have their own, neuroav.data.stills
    steps=4,
    visual_size=128,
)


# --- the plan ----------------------------------------------------------------------------------
def parameters(
    preset: str, data_seed: int, limit: int | None, data_root: Path | None = None
) -> dict[str, Any]:
    """Everything the result depends on besides the content of the files, as JSON values.

    ``files`` is 'published' where all clips are there as the publishers have them, or no root is
    given, so that what was prepared is found without it; else a hash of what there is. DataError
    for what is not allowed.
    """
    if preset not in PROTOCOL:
        raise unknown_name(f"preset of {NAME}", preset, PROTOCOL, DataError)
    return {
        "generator_version": GENERATOR_VERSION,
        "protocol": PROTOCOL[preset],
        **trees.seed_and_limit(data_seed, limit),
        "shares": SHARES if PROTOCOL[preset] == "clean" else None,
        "constants": trees.constants(),
        "files": "published" if data_root is None else _files(Path(data_root), PROTOCOL[preset]),
    }


def canonical(preset: str) -> str:
    """The preset that ``preset`` is another name of, or itself."""
    return PROTOCOL.get(preset, preset)


def _files(root: Path, protocol: str) -> str:
    fits = [base for base in (*(root / f for f in FOLDERS), root) if _layout(base)]
    if not fits:
        return "published"  # it is looked for where it was prepared before
    found, lists = _found(root, fits[0], 0), _lists(root, fits[0]) if protocol == "paper" else {}
    clips = set(found.heard) & set(found.seen)
    published = found.kind == "VideoFlash" and len(clips | set(NO_SOUND)) == CLIPS
    sizes = {name: len(_listed(path)) for name, path in lists.items()}
    if published and sizes == (PUBLISHED_SIZES if protocol == "paper" else {}):
        return "published"
    names = [found.kind, *(f"{n} {found.sets.get(n, '')}" for n in clips)]
    return trees.fingerprint(root, names, lists.values())


def made_with() -> dict[str, str]:
    """Versions of the packages that the result depends on."""
    return trees.versions("numpy", "pillow", "av")


def spec(steps: int, visual_size: int) -> StillSpec:
    """Its layout as network input."""
    return StillSpec(steps, visual_size)


def plan(preset: str, data_seed: int, limit: int | None, data_root: Path | None) -> Plan:
    """The clips below ``data_root`` and their splits; DataError where files are missing."""
    root = trees.existing_root(data_root, NAME, WANTED)
    stated = parameters(preset, data_seed, limit, root)
    base = trees.base_folder(root, NAME, FOLDERS, lambda folder: _layout(folder) != "", WANTED)
    found = _found(root, base, data_seed)
    items = [_item(name, found) for name in sorted(set(found.heard) & set(found.seen))]
    if not items:
        raise DataError(f"{base}: no clip has a sound and a picture; {NAME} needs {WANTED}")
    paper = stated["protocol"] == "paper"
    split = _published(root, base, found) if paper else _dealt(items, data_seed)
    items = trees.with_splits((i for i in items if i.name in split), split)
    meta = {
        "name": NAME,
        "preset": stated["protocol"],
        "data_seed": stated["data_seed"],
        "classes": list(EMOTIONS.values()),
        "layout": "stills",
        "protocol": stated["protocol"],
        "files": found.kind,
        "orphans": trees.orphans(found.heard, found.seen) | _without_sound(found, split),
        "defects": _defects(items, found.kind) if paper else [],
        "notes": _notes(items, paper),
        "parameters": stated,
        **({"validation": "test"} if paper else {}),
        **({"lists": trees.stated_lists(root, _lists(root, base).values())} if paper else {}),
    }
    return Plan(trees.in_order(items, limit), meta, convert)


@dataclass(frozen=True)
class _Found:
    """Sounds and pictures by clip; the set that a folder puts a clip in, where one does."""

    kind: str
    heard: dict[str, Source]
    seen: dict[str, Source]
    sets: dict[str, str]


def _without_sound(found: _Found, split: Mapping[str, str]) -> dict[str, str]:
    """Clips that are listed, and whose files their publishers say cannot be complete."""
    return {n: why for n, why in NO_SOUND.items() if n in split and n not in found.heard}


def _layout(base: Path) -> str:
    """Which of the layouts of ``WANTED`` a folder has, '' for none."""
    if (base / "AudioWAV").is_dir():
        for pictures in ("VideoFlash", "Image-01-FPS"):
            if (base / pictures).is_dir():
                return pictures
    return "processed_dataset" if (base / "processed_dataset").is_dir() else ""


def _found(root: Path, base: Path, data_seed: int) -> _Found:
    kind = _layout(base)
    if kind == "processed_dataset":
        return _processed(root, base / kind)
    sounds = trees.files_by_stem(base / "AudioWAV", (".wav",))
    heard = {name: Source(trees.below(root, path)) for name, path in sounds.items()}
    if kind == "VideoFlash":
        videos = trees.files_by_stem(base / kind, (".flv",))
        # The key says which of its frames to take, as a share of them.
        seen = {
            name: Source(trees.below(root, path), f"{_draw(data_seed, name):.9f}")
            for name, path in videos.items()
        }
        return _Found(kind, heard, seen, {})
    seen = {}
    for folder in sorted(p for p in (base / kind).iterdir() if p.is_dir()):
        if frames := list(trees.files_by_stem(folder, _PICTURES).values()):
            taken = frames[int(_draw(data_seed, folder.name) * len(frames))]
            seen[folder.name] = Source(trees.below(root, taken))
    return _Found(kind, heard, seen, {})


def _processed(root: Path, base: Path) -> _Found:
    heard: dict[str, Source] = {}
    seen: dict[str, Source] = {}
    sets: dict[str, str] = {}
    for split in ("train", "test"):
        for modality, into, suffixes in (
            ("audio", heard, (".wav",)),
            ("visual", seen, _PICTURES),
        ):
            for emotion in EMOTIONS:
                folder = base / split / modality / emotion
                for name, path in (
                    trees.files_by_stem(folder, suffixes) if folder.is_dir() else {}
                ).items():
                    if parse_clip(name, str(path)).emotion != emotion:
                        raise DataError(f"{path}: lies in {emotion}, its name says otherwise")
                    if name in into or sets.setdefault(name, split) != split:
                        raise DataError(f"{path}: the clip is in train and in test")
                    into[name] = Source(trees.below(root, path))
    return _Found("processed_dataset", heard, seen, sets)


def _item(name: str, found: _Found) -> Item:
    clip = parse_clip(name, found.heard[name].file)
    sources = {"audio": found.heard[name], "visual": found.seen[name]}
    return Item(name, clip.label, "train", sources, {"actor": clip.actor})


def _draw(data_seed: int, name: str) -> float:
    """A number 0 <= u < 1 that depends on the seed and the clip alone."""
    digest = hashlib.sha256(f"{NAME} {data_seed} {name}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _dealt(items: list[Item], data_seed: int) -> dict[str, str]:
    split = deal_groups([item.groups["actor"] for item in items], SHARES, data_seed)
    return {item.name: split[item.groups["actor"]] for item in items}


# --- as published ------------------------------------------------------------------------------
def _published(root: Path, base: Path, found: _Found) -> dict[str, str]:
    """Split by clip as the release has it, by its lists or by the folders made from them."""
    split: dict[str, str] = {}
    lists = _lists(root, base)
    for name in PUBLISHED_SIZES:
        path = lists.get(name)
        if path is None and found.sets:
            split |= {clip: s for clip, s in found.sets.items() if s == name}
            continue
        if path is None:
            raise DataError(
                f"{base}: preset 'paper' needs the release's lists train.csv and test.csv (rows "
                f"clip,EMO; {PUBLISHED_SIZES['train']} and {PUBLISHED_SIZES['test']} of them) "
                f"here, found no {name}.csv; they are in S-CMRL's repository, data/CREMAD, or use "
                "preset 'clean'"
            )
        for clip in _listed(path):
            if split.setdefault(clip, name) != name:
                raise DataError(f"{path}: clip {clip!r} is in train.csv too")
            if found.sets.get(clip, name) != name:
                raise DataError(f"{path}: clip {clip!r} lies in the folder {found.sets[clip]}")
    have = set(found.heard) & set(found.seen)
    if missing := sorted(set(split) - have - set(NO_SOUND)):
        raise DataError(
            f"{base}: {len(missing)} clips of the published lists have no sound or no picture, "
            f"{missing[0]} first; {REMEDY}"
        )
    return split


def _lists(root: Path, base: Path) -> dict[str, Path]:
    """The release's lists that there are, by the name of their set."""
    places = {name: (base / f"{name}.csv", root / f"{name}.csv") for name in PUBLISHED_SIZES}
    found = {name: next((p for p in both if p.is_file()), None) for name, both in places.items()}
    return {name: path for name, path in found.items() if path is not None}


def _listed(path: Path) -> list[str]:
    """The clips of a list; DataError with the line of a row that is none."""
    found: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(n, row) for n, row in enumerate(csv.reader(file), start=1) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a list of clips: {error}") from None
    for line, row in rows:
        where = f"{path} line {line}"
        if len(row) != 2:
            raise DataError(f"{where}: {len(row)} columns, needs two: clip,EMO")
        name, emotion = (text.strip() for text in row)
        if parse_clip(name, where).emotion != emotion:
            raise DataError(f"{where}: clip {name!r} is called {emotion!r}")
        found.append(name)
    if twice := [name for name, count in Counter(found).items() if count > 1]:
        raise DataError(f"{path}: clip {twice[0]!r} is listed twice")
    if not found:
        raise DataError(f"{path}: lists no clip")
    return found


def _defects(items: list[Item], kind: str) -> list[str]:
    shared = overlaps(items).get("actor", {})
    actors = {item.groups["actor"] for item in items}
    found = [
        f"{len(shared)} of {len(actors)} actors are in both sets, so faces and voices of the test "
        "are known from training",
        "there is no validation set: the epoch is chosen by the accuracy on the test set",
        "pictures are tested on the middle quarter of the resized frame, which cuts the face",
    ]
    if kind != "processed_dataset":
        found.append(
            "the release takes one frame per clip by an unseeded generator, so that its pictures "
            "cannot be had again; these are drawn with the data seed"
        )
    return found


def _notes(items: list[Item], paper: bool) -> list[str]:
    notes = [
        "label order: by code, ANG DIS FEA HAP NEU SAD, as in S-CMRL's spiking loader; its other "
        "loader has NEU HAP SAD FEA DIS ANG",
        "training pictures are cut anew in every epoch; the release keeps three cuts of each",
        "28 videos had no sound before 2020-12-16; sounds are read from AudioWAV",
        "1064_IEO_DIS_MD has a video of a minute, of which only what the sound lasts is looked at; "
        "1064_TIE_SAD_XX states no length, 1076_MTI_NEU_XX is cut short: frames are counted as "
        "they are decoded",
    ]
    sizes = {s: sum(item.split == s for item in items) for s in PUBLISHED_SIZES}
    if paper and sizes != PUBLISHED_SIZES:
        notes.append(
            f"the lists hold {sizes['train']} and {sizes['test']} clips, the published ones "
            f"{PUBLISHED_SIZES['train']} and {PUBLISHED_SIZES['test']}"
        )
    return notes


# --- one clip ----------------------------------------------------------------------------------
def convert(data_root: Path, item: Item) -> Converted:
    """The spectrogram and the picture of one clip.

    ``Broken`` for a clip that its publishers name and that cannot be used; DataError and
    FileFormatError, naming the file, for any other that cannot be read.
    """
    if item.name in NO_SOUND:
        raise Broken(f"{item.name}: {NO_SOUND[item.name]}")
    heard, seen = (
        trees.present(Path(data_root) / item.sources[m].file, REMEDY) for m in ("audio", "visual")
    )
    sound, rate = trees.one_channel(heard)
    share = item.sources["visual"].key
    if share:
        picture = _frame(seen, item.name, float(share), len(sound) / rate)
    else:
        picture = trees.picture(seen)
    return trees.still(sound, rate, picture, heard, seen)


def _frame(path: Path, clip: str, share: float, seconds: float) -> np.ndarray:
    """One of the pictures of a video, one per second, that lies at ``share`` of their number.

    seconds: how long the sound lasts; a video known to run on is looked at as long.
    """
    from neuroav.data.formats.guarded import guarded
    from neuroav.data.formats.video import MOST_FRAMES, read_video

    most = RUNS_ON_FRAMES if clip in RUNS_ON else MOST_FRAMES
    try:
        video = guarded(read_video, path, most_frames=most, allow_cut=clip in CUT_SHORT)
    except FileFormatError as error:
        if clip in CUT_SHORT:
            raise Broken(
                f"{clip}: {CUT_SHORT[clip]}, and nothing is left of it ({error})"
            ) from None
        raise
    frames = video.frames
    if clip in RUNS_ON:
        frames = frames[: max(1, int((video.indices < seconds * video.fps).sum()))]
    return frames[int(share * len(frames))]
