"""The data set ``urbansound8k-av``: a sound of the street, one of ten classes, and a picture.

Sounds are those of UrbanSound8K (Salamon, Jacoby and Bello 2014): 8,732 slices of at most 4 s, cut
from recordings of freesound.org. A slice's name is ``<fsID>-<classID>-<occurrence>-<slice>``;
fsID is the recording, classID the class, 0 air_conditioner to 9 street_music. The -AV release puts
one picture beside each (Kaggle, lingyueguo/urbansound8k-av):

``Dataset_v3_sound/<class>/<name>.wav`` and ``Dataset_v3_vision/<class>/<name>.jpg``

below ``UrbanSound8K-AV/``, ``urbansound8k-av/`` or the data root; ``metadata/UrbanSound8K.csv``
beside them, or below ``UrbanSound8K/`` of the data root, holds the folds. Sounds come in many rates
and with one or two channels; channels are averaged.

A sample is the picture and the log spectrogram (``neuroav.data.spectrograms``), shown in every step
(``neuroav.data.stills``), as S-CMRL (arXiv 2502.12488) uses them. Presets:

``clean``, ``default``  no recording in two of train, validation and test; 70, 10 and 20 % of each
                        class, dealt with the data seed
``paper``               the first 70 % of every class by name to train, the rest both validates and
                        tests. The release takes them in the order in which the file system lists
                        them, which nobody can repeat; 6,112 and 2,620 slices fit its figures
``folds-1`` .. ``-10``  fold k of UrbanSound8K.csv tests, fold k + 1 (1 after 10) validates
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroav.data.augment import NONE
from neuroav.data.info import DatasetInfo
from neuroav.data.plans import Converted, Item, Plan, Source
from neuroav.data.protocols import deal_groups, overlaps
from neuroav.data.published import trees
from neuroav.data.stills import StillSpec
from neuroav.errors import DataError, unknown_name

NAME = "urbansound8k-av"
GENERATOR_VERSION = 1  # raise whenever the same parameters would give other data
FOLDERS = ("UrbanSound8K-AV", "urbansound8k-av")
SOUNDS, PICTURES = "Dataset_v3_sound", "Dataset_v3_vision"
TABLE = "metadata/UrbanSound8K.csv"
CLASSES = (
    "air_conditioner", "car_horn", "children_playing", "dog_bark", "drilling", "engine_idling",
    "gun_shot", "jackhammer", "siren", "street_music",
)  # fmt: skip
FOLDS = 10
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
TRAIN_SHARE = 0.7  # of each class, preset 'paper'
PUBLISHED_SIZES = {"train": 6112, "test": 2620}
PROTOCOL = {"default": "clean", "clean": "clean", "paper": "paper"} | {
    f"folds-{k}": f"folds-{k}" for k in range(1, FOLDS + 1)
}
WANTED = f"{SOUNDS}/<class>/<name>.wav beside {PICTURES}/<class>/<name>.jpg"
REMEDY = "get it from Kaggle, lingyueguo/urbansound8k-av"
_NAME = re.compile(r"(\d+)-(\d)-(\d+)-(\d+)")

INFO = DatasetInfo(
    name=NAME,
    title="UrbanSound8K-AV: ten street sounds, one picture and one log spectrogram per slice",
    presets=tuple(PROTOCOL),
    classes=CLASSES,
    licence=(
        "UrbanSound8K: CC BY-NC. Of the pictures none is stated. Neither is in the package: "
        "both are read from the data root."
    ),
    limits=(
        "where the pictures come from is not documented, nor are their sizes",
        "paper: slices of one recording are trained on and tested, and the test chooses the epoch",
        "nearly solved as published: all methods are within 18 of 2,620 test slices",
        "clean: no published figures; expect them to be lower than those of paper",
    ),
    augmentation=NONE,  # of events; pictures have their own, neuroav.data.stills
    steps=4,
    visual_size=128,
)


@dataclass(frozen=True)
class Slice:
    """What a slice's name says: the recording of freesound.org, the class, which one it is."""

    recording: str
    label: int


def parse_slice(name: str, where: str = "") -> Slice:
    """Read a slice's name; DataError saying what is wrong, and ``where`` it was found."""
    found = _NAME.fullmatch(name)
    if found is None:
        raise DataError(
            f"{f'{where}: ' if where else ''}slice {name!r}: needs "
            "<fsID>-<classID>-<occurrence>-<slice>, as 126153-9-0-6"
        )
    return Slice(found[1], int(found[2]))


# --- the plan ----------------------------------------------------------------------------------
def parameters(
    preset: str, data_seed: int, limit: int | None, data_root: Path | None = None
) -> dict[str, Any]:
    """Everything the result depends on besides the content of the files, as JSON values.

    ``files`` is 'published' where all slices are there, or no root is given, so that what was
    prepared is found without it; else a hash of what there is. DataError for what is not allowed.
    """
    if preset not in PROTOCOL:
        raise unknown_name(f"preset of {NAME}", preset, PROTOCOL, DataError)
    return {
        "generator_version": GENERATOR_VERSION,
        "protocol": PROTOCOL[preset],
        **trees.seed_and_limit(data_seed, limit),
        "shares": {"clean": SHARES, "paper": TRAIN_SHARE}.get(PROTOCOL[preset]),
        "constants": trees.constants(),
        "files": "published" if data_root is None else _files(Path(data_root), PROTOCOL[preset]),
    }


def canonical(preset: str) -> str:
    """The preset that ``preset`` is another name of, or itself."""
    return PROTOCOL.get(preset, preset)


def _files(root: Path, protocol: str) -> str:
    fits = [base for base in (*(root / f for f in FOLDERS), root) if _fits(base)]
    if not fits:
        return "published"  # it is looked for where it was prepared before
    items, _ = _items(root, fits[0])
    table = _table(root, fits[0]) if protocol.startswith("folds") else None
    if len(items) == sum(PUBLISHED_SIZES.values()):
        return "published"
    return trees.fingerprint(root, [item.name for item in items], [table] if table else [])


def made_with() -> dict[str, str]:
    """Versions of the packages that the result depends on."""
    return trees.versions("numpy", "pillow", "scipy")


def spec(steps: int, visual_size: int) -> StillSpec:
    """Its layout as network input."""
    return StillSpec(steps, visual_size)


def plan(preset: str, data_seed: int, limit: int | None, data_root: Path | None) -> Plan:
    """The slices below ``data_root`` and their splits; DataError where files are missing."""
    root = trees.existing_root(data_root, NAME, WANTED)
    stated = parameters(preset, data_seed, limit, root)
    protocol = stated["protocol"]
    base = trees.base_folder(root, NAME, FOLDERS, _fits, WANTED)
    items, lacking = _items(root, base)
    table = None
    if protocol == "paper":
        split = _first_share(items)
    elif protocol == "clean":
        split = _dealt(items, data_seed)
    else:
        table = _table(root, base)
        split = _by_fold(items, _folds(root, base), int(protocol.removeprefix("folds-")))
    items = trees.with_splits(items, split)
    meta = {
        "name": NAME,
        "preset": protocol,
        "data_seed": stated["data_seed"],
        "classes": list(CLASSES),
        "layout": "stills",
        "protocol": protocol,
        "orphans": lacking,
        "defects": _defects(items, protocol == "paper"),
        "notes": _notes(items, lacking, protocol == "paper"),
        "parameters": stated,
        **({"validation": "test"} if protocol == "paper" else {}),
        **({"lists": trees.stated_lists(root, [table])} if table else {}),
    }
    return Plan(trees.in_order(items, limit), meta, convert)


def _fits(folder: Path) -> bool:
    return (folder / SOUNDS).is_dir() and (folder / PICTURES).is_dir()


def _items(root: Path, base: Path) -> tuple[list[Item], dict[str, str]]:
    """All pairs, sorted by class and name, without splits; and what has no partner."""
    for folder in (base / SOUNDS, base / PICTURES):
        for path in sorted(folder.iterdir()):
            if path.is_dir() and not path.name.startswith(".") and path.name not in CLASSES:
                raise DataError(f"{path}: is no class; allowed: {', '.join(CLASSES)}")
    items: list[Item] = []
    lacking: dict[str, str] = {}
    for label, name in enumerate(CLASSES):
        heard, seen = (
            trees.files_by_stem(base / folder / name, suffixes)
            if (base / folder / name).is_dir()
            else {}
            for folder, suffixes in ((SOUNDS, (".wav",)), (PICTURES, (".jpg", ".jpeg", ".png")))
        )
        lacking |= {f"{name}/{n}": why for n, why in trees.orphans(heard, seen).items()}
        both = sorted(set(heard) & set(seen))
        items += [_item(root, n, label, heard[n], seen[n]) for n in both]
    if not items:
        raise DataError(f"{base}: no slice has a sound and a picture; {NAME} needs {WANTED}")
    return items, lacking


def _item(root: Path, name: str, label: int, heard: Path, seen: Path) -> Item:
    found = parse_slice(name, str(heard))
    if found.label != label:
        raise DataError(
            f"{heard}: lies in {CLASSES[label]} (class {label}), its name says class {found.label}"
            + (f", {CLASSES[found.label]}" if found.label < len(CLASSES) else "")
        )
    sources = {"audio": Source(trees.below(root, heard)), "visual": Source(trees.below(root, seen))}
    return Item(name, label, "train", sources, {"recording": found.recording})


# --- splits ------------------------------------------------------------------------------------
def _first_share(items: list[Item]) -> dict[str, str]:
    """Split by slice: of every class the first 70 % by name train, rounded to whole slices."""
    split: dict[str, str] = {}
    for label in range(len(CLASSES)):
        names = sorted(item.name for item in items if item.label == label)
        cut = round(TRAIN_SHARE * len(names))
        split |= {n: "train" if place < cut else "test" for place, n in enumerate(names)}
    return split


def _dealt(items: list[Item], data_seed: int) -> dict[str, str]:
    """Split by slice: recordings dealt class by class, each with the class it has most slices of.

    So a recording with slices of two classes lies in one split too.
    """
    slices = Counter((item.groups["recording"], item.label) for item in items)
    home: dict[str, int] = {}
    for (recording, label), _ in sorted(slices.items(), key=lambda kv: (-kv[1], kv[0])):
        home.setdefault(recording, label)
    dealt: dict[str, str] = {}
    for label, name in enumerate(CLASSES):
        mine = [r for item in items if home[r := item.groups["recording"]] == label]
        if not mine:
            continue
        try:
            dealt |= deal_groups(mine, SHARES, data_seed)
        except DataError as error:
            raise DataError(f"{NAME}, class {name}, recordings: {error}") from None
    return {item.name: dealt[item.groups["recording"]] for item in items}


def _by_fold(items: list[Item], folds: dict[str, int], tested: int) -> dict[str, str]:
    if missing := [item.name for item in items if item.name not in folds]:
        raise DataError(f"{TABLE} has no row of {len(missing)} slices, {missing[0]}.wav first")
    kind = {tested: "test", tested % FOLDS + 1: "val"}
    return {item.name: kind.get(folds[item.name], "train") for item in items}


def _table(root: Path, base: Path) -> Path | None:
    places = [folder / TABLE for folder in (base, root / "UrbanSound8K", root)]
    return next((p for p in places if p.is_file()), None)


def _folds(root: Path, base: Path) -> dict[str, int]:
    """Fold 1..10 by slice, of UrbanSound8K's table; DataError naming the line that is wrong."""
    path = _table(root, base)
    if path is None:
        raise DataError(
            f"{base}: presets folds-1 to folds-{FOLDS} need {TABLE} here or below "
            f"{root / 'UrbanSound8K'}; it is part of UrbanSound8K (urbansounddataset.weebly.com)"
        )
    found: dict[str, int] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table: {error}") from None
    for line, row in enumerate(rows, start=2):
        name, fold = row.get("slice_file_name"), row.get("fold") or ""
        if not name or not fold.isdecimal() or int(fold) not in range(1, FOLDS + 1):
            raise DataError(
                f"{path} line {line}: slice_file_name {name!r}, fold {fold!r}; needs a file name "
                f"and 1 to {FOLDS}"
            )
        own = parse_slice(stem := name.removesuffix(".wav"), f"{path} line {line}")
        if row.get("fsID", own.recording) != own.recording or stem in found:
            why = "comes twice" if stem in found else f"is said to be of fsID {row['fsID']}"
            raise DataError(f"{path} line {line}: {name} {why}")
        found[stem] = int(fold)
    return found


# --- what is said of it ------------------------------------------------------------------------
def _defects(items: list[Item], paper: bool) -> list[str]:
    shared = overlaps(items).get("recording", {})
    found = []
    if shared:
        tested = [i for i in items if i.split != "train" and i.groups["recording"] in shared]
        found.append(
            f"{len(shared)} recordings have slices in more than one set; {len(tested)} slices of "
            "validation and test are of recordings in another set"
        )
    if paper:
        found += [
            "there is no validation set: the epoch is chosen by the accuracy on the test set",
            "the release takes slices in the order of the file system, which cannot be repeated; "
            "here they are sorted by name",
        ]
    return found


def _notes(items: list[Item], lacking: dict[str, str], paper: bool) -> list[str]:
    notes = [
        "training pictures are cut anew in every epoch; the release keeps three cuts of each",
        "channels are averaged; the release reads sounds of one channel only",
    ]
    if lacking:
        notes.append(f"{len(lacking)} files have no partner and are left out ('orphans')")
    sizes = {s: sum(item.split == s for item in items) for s in PUBLISHED_SIZES}
    if paper and sizes != PUBLISHED_SIZES:
        notes.append(
            f"{sizes['train']} and {sizes['test']} slices; the published figures fit "
            f"{PUBLISHED_SIZES['train']} and {PUBLISHED_SIZES['test']}"
        )
    return notes


# --- one slice ---------------------------------------------------------------------------------
def convert(data_root: Path, item: Item) -> Converted:
    """The spectrogram and the picture of one slice.

    DataError and FileFormatError, naming the file, for one that cannot be read.
    """
    heard, seen = (
        trees.present(Path(data_root) / item.sources[m].file, REMEDY) for m in ("audio", "visual")
    )
    sound, rate = trees.one_channel(heard)
    return trees.still(sound, rate, trees.picture(seen), heard, seen)
