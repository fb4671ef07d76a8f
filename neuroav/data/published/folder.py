"""The data set ``folder``: a folder of your own labelled recordings, the data root itself.

Files that belong together have one name and different endings:

    <class>/<name>.wav                      or    {train,val,test}/<class>/<name>.wav
    <class>/<name>.aedat                          {train,val,test}/<class>/<name>.aedat

or lie anywhere and are listed in ``labels.csv``: ``label`` and ``file`` (path below the root, with
or without its ending) or ``stem`` (the name alone), and, where wanted, ``split`` and ``group``.

============  ==========================================  =====================================
modality      files                                       network input
============  ==========================================  =====================================
audio         sounds: .wav .flac .mp3 .ogg .m4a           cochlear spikes, or log spectrograms
              spikes: .bs1 .npy .dat, named in settings   spikes
visual        cameras: .aedat .bin .bs2 (.npy .dat)       events
              pictures: .jpg .jpeg .png                   pictures
              videos: .mp4 .flv .avi .mkv .webm .mov ...  the middle one of a picture per second
============  ==========================================  =====================================

One modality alone is enough. Layouts: for events 'windowed' (``neuroav.data.frames``: fixed
windows, from the first event or the start of the sound) and 'binned' (``neuroav.data.binned``:
equal parts of each recording), where sounds become cochlear spikes; for pictures and videos
'stills' (``neuroav.data.stills``), where sounds become spectrograms. What the files do not tell is
said in ``neuroav-folder.toml`` (``neuroav.data.published.folder_settings``); where it is needed and
missing, the error says which key to write. Samples are never re-paired in training: a sound and its
picture stay together.

Splits are those of the folders or of ``labels.csv``; without a validation part, a tenth of the
training groups validates. Where nothing names splits, they are dealt by group with the data seed.
A group is what the rule ``group`` or the column ``group`` says, else every sample is its own, which
the notes say. Not found out: two files of equal content.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from neuroav.data import cochlea
from neuroav.data.augment import Augmentation
from neuroav.data.avdata import OpenSpec
from neuroav.data.cache import SPLITS
from neuroav.data.info import DatasetInfo
from neuroav.data.plans import Item, Plan
from neuroav.data.protocols import deal_groups, overlaps
from neuroav.data.published import trees
from neuroav.data.published.folder_convert import convert, facts
from neuroav.data.published.folder_files import LABELS, Listing, Sample, fingerprint, listing
from neuroav.data.published.folder_settings import SETTINGS, Settings, read_settings
from neuroav.errors import DataError

NAME = "folder"
GENERATOR_VERSION = 2  # raise whenever the same parameters would give other data
VALIDATION = {"train": 0.9, "val": 0.1}  # assumed, of a training part
WANTED = f"recordings in <class>/ or {{train,val,test}}/<class>/, or listed in {LABELS}"
_EVENTS = {"stretch": 0.06, "shift": 0.04, "drop": 0.2, "channel_shift": 1, "image_shift": 1}

INFO = DatasetInfo(
    name=NAME,
    title="Your own labelled recordings: sounds, event files, pictures and videos in a folder",
    presets=("default",),
    classes=(),
    licence="Yours: read from the data root.",
    limits=("what they show depends on the recordings; the notes say how splits were made",),
    # For any layout; windowed events have more, as their recordings say.
    augmentation=Augmentation(
        stretch=0, shift=0, drop=0, channel_shift=0, image_shift=1, repair=False
    ),
)


def parameters(
    preset: str, data_seed: int, limit: int | None, data_root: Path | None = None
) -> dict[str, Any]:
    """Everything the result depends on: names and sizes of all files, the table, the settings."""
    if preset not in INFO.presets:
        raise DataError(f"preset {preset!r} of {NAME}: there is 'default' alone")
    root = trees.existing_root(data_root, NAME, WANTED)
    ears = {f"cochlea.{n}": v for n, v in vars(cochlea).items() if n.isupper() and n[0] != "_"}
    return {
        "generator_version": GENERATOR_VERSION,
        **trees.seed_and_limit(data_seed, limit),
        "files": fingerprint(root),
        "constants": trees.constants() | ears,
    }


def canonical(preset: str) -> str:
    """The preset itself: there is one."""
    return preset


def made_with() -> dict[str, str]:
    """Versions of the packages that the result depends on."""
    return trees.versions("numpy", "scipy", "pillow", "av")


def spec(steps: int, visual_size: int) -> OpenSpec:
    """The sizes wanted; the layout is that of the recordings."""
    return OpenSpec(steps, visual_size)


def plan(preset: str, data_seed: int, limit: int | None, data_root: Path | None) -> Plan:
    """The samples of a folder and their splits; DataError for what is wrong or not told."""
    stated = parameters(preset, data_seed, limit, data_root)
    root = trees.existing_root(data_root, NAME, WANTED)
    settings = read_settings(root)
    found = listing(root, settings)
    layout = _layout(found, settings)
    classes = sorted({sample.label for sample in found.samples})
    if len(classes) < 2:
        raise DataError(f"data root {root}: one class, {classes[0]!r}; at least two are needed")
    notes: list[str] = []
    items = _split(root, _items(found.samples, classes), settings, data_seed, notes)
    _require_classes(root, items, classes)
    shared = overlaps(items).get("group", {})
    meta = {
        "name": NAME,
        "preset": preset,
        "data_seed": int(data_seed),
        "classes": classes,
        "layout": layout,
        "collection": "root",
        **facts(layout, found.samples[0].forms, settings),
        "protocol": "given" if shared else "clean",
        "left_out": dict(found.left_out),
        "defects": [f"{len(shared)} groups are in more than one split"] if shared else [],
        "notes": notes,
        "parameters": stated,
        **({"augmentation": _EVENTS | {"repair": False}} if layout == "windowed" else {}),
    }
    return Plan(trees.in_order(items, limit), meta, convert)


def _layout(found: Listing, settings: Settings) -> str:
    """The layout that the files call for, or that the settings choose among those they allow."""
    first = found.samples[0]
    families = {"picture": "stills", "video": "stills", "events": "events", "spikes": "events"}
    needed: dict[str, str] = {}
    for sample in found.samples:
        for modality, form in sample.forms.items():
            if family := families.get(form):
                needed.setdefault(family, sample.sources[modality].file)
            elif first.forms[modality] != form:
                needed.setdefault("events", first.sources[modality].file)
    if len(needed) > 1:
        raise DataError(
            f"{settings.path.parent}: {needed['events']} holds events, {needed['stills']} "
            "pictures; one folder holds one kind: sounds and events, or sounds and pictures"
        )
    _require_one_form(found.samples)
    family = next(iter(needed), "")
    allowed = {
        "stills": ("stills",),
        "events": ("windowed", "binned"),
        "": ("windowed", "binned", "stills"),
    }[family]
    if settings.layout is None and len(allowed) > 1:
        raise settings.missing(
            f"layout = {' or '.join(repr(name) for name in allowed)}",
            "the files do not tell how recordings become network input",
        )
    chosen = settings.layout or allowed[0]
    if chosen not in allowed:
        raise DataError(
            f"{settings.path}: layout is {chosen!r}, but {next(iter(needed.values()))} allows "
            f"{' and '.join(map(repr, allowed))} only"
        )
    return chosen


def _require_one_form(samples: tuple[Sample, ...]) -> None:
    """DataError where one modality is sounds in some samples and spikes in others."""
    first = samples[0]
    for sample in samples:
        if {first.forms.get("audio"), sample.forms.get("audio")} == {"sound", "spikes"}:
            raise DataError(
                f"{first.sources['audio'].file} and {sample.sources['audio'].file}: sounds and "
                "spikes in one folder; keep one kind"
            )


def _items(samples: tuple[Sample, ...], classes: list[str]) -> list[Item]:
    return [
        Item(s.name, classes.index(s.label), s.split, s.sources, {"group": s.group or s.name})
        for s in samples
    ]


def _split(
    root: Path, items: list[Item], settings: Settings, data_seed: int, notes: list[str]
) -> list[Item]:
    """Items with the splits that are given, or dealt; says in ``notes`` how."""
    alone = all(item.groups["group"] == item.name for item in items)
    if alone:
        notes.append(
            "no groups are named: every sample is its own, so one speaker or session may be in "
            f"two splits; write group into {SETTINGS} or a column group into {LABELS}"
        )
    given = {item.split for item in items}
    if given == {""}:
        notes.append(f"splits are dealt out by group, data seed {data_seed}")
        return _dealt(items, settings.splits, data_seed, alone)
    if "" in given:
        first = next(item.name for item in items if not item.split)
        raise DataError(f"data root {root}: {first!r} has no split and others have; give it to all")
    if lacking := {"train", "test"} - given:
        raise DataError(
            f"data root {root}: splits are given, but none is {' or '.join(sorted(lacking))}; add "
            "it, or name no split, then they are dealt out"
        )
    if "val" in given:
        return items
    notes.append(
        f"no validation part is given: a tenth of training by group, data seed {data_seed}"
    )
    train = [item for item in items if item.split == "train"]
    return _dealt(train, VALIDATION, data_seed, alone) + [i for i in items if i.split == "test"]


def _dealt(
    items: list[Item], shares: Mapping[str, float], data_seed: int, alone: bool
) -> list[Item]:
    """Dealt by group: over all, or, where every sample is its own, class by class."""
    if not alone:
        split = deal_groups([item.groups["group"] for item in items], shares, data_seed)
        return [replace(item, split=split[item.groups["group"]]) for item in items]
    found = []
    for label in sorted({item.label for item in items}):
        mine = [item for item in items if item.label == label]
        seed = data_seed * 4096 + label
        split = deal_groups([item.name for item in mine], shares, seed)
        found += [replace(item, split=split[item.name]) for item in mine]
    return found


def _require_classes(root: Path, items: list[Item], classes: list[str]) -> None:
    """DataError for a class without training samples, or a split without any."""
    for split in SPLITS:
        if not any(item.split == split for item in items):
            raise DataError(f"data root {root}: no sample in the split {split}; add recordings")
    trained = {item.label for item in items if item.split == "train"}
    if lacking := [name for label, name in enumerate(classes) if label not in trained]:
        raise DataError(
            f"data root {root}: no training sample of class {lacking[0]!r}"
            f"{f' and {len(lacking) - 1} more' if len(lacking) > 1 else ''}; add recordings, give "
            "the splits, or try another data seed"
        )
