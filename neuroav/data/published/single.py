"""Published sets of one modality, for the networks that see or hear alone: N-MNIST, N-TIDIGITS.

What all of them have in common is ``Single``; SHD and SSC are in ``heidelberg``.

==============  ===============================================================================
``nmnist``      Orchard et al. 2015: 60,000 + 10,000 digits before a camera of 34x34 pixels, three
                saccades in 300 ms; ``Train|Test/<digit>/<00001>.bin``
``ntidigits``   Anumula et al. 2018: isolated digits through a silicon cochlea of 64 channels,
                ``n-tidigits.hdf5``; steps are equal parts of each recording's own duration
                (``neuroav.data.binned``), as in ``mnistdvs-ntidigits``
==============  ===============================================================================

Presets: ``clean`` (also called ``default``): test and training share no speaker or recording, and
validation is apart. ``paper``: the published halves, the epoch chosen on the test half.

- ``nmnist`` clean: a tenth of Train validates, Test is the test. ``train-only``: Train is dealt
  out 70, 10, 20 %, for those who have no Test.
- ``ntidigits``: ``clean-<mapping>``, ``paper-<mapping>``; the mapping says which class a digit is:
  'scmrl' zero is 0, "oh" is left out; 'tonic' "oh" is 0, zero is 10; 'o-is-10' zero is 0, "oh" is
  10. ``default`` is ``clean-scmrl``. Clean: a tenth of the training speakers validate; training
  sounds of speakers who are tested are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.data.augment import Augmentation
from neuroav.data.binned import CHANNELS, BinnedSpec
from neuroav.data.formats import ntidigits
from neuroav.data.formats.guarded import guarded
from neuroav.data.frames import FrameSpec
from neuroav.data.info import DatasetInfo
from neuroav.data.plans import Converted, Item, Plan, Source
from neuroav.data.protocols import deal_groups, overlaps
from neuroav.data.published import trees
from neuroav.data.published.mnistdvs_ntidigits import speaker
from neuroav.data.published.mnistdvs_ntidigits import spec as binned_spec
from neuroav.data.speech import WORDS
from neuroav.errors import DataError, unknown_name

GENERATOR_VERSION = 1  # raise whenever the same parameters would give other data
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}  # assumed, where all is dealt
VALIDATION = {"train": 0.9, "val": 0.1}  # assumed, where there is a published test


@dataclass(frozen=True)
class Found:
    """What a set's files hold: items in any order, their splits as the preset says; classes; notes
    and defects as in ``Plan``."""

    items: list[Item]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Single:
    """A set as ``neuroav.data.plans`` asks of a module.

    presets: preset -> protocol, 'clean' or another; find(root, preset, data_seed): the items;
    files(root): what identifies the files there are; facts: of ``Recordings.meta``.
    """

    INFO: DatasetInfo
    presets: Mapping[str, str]
    find: Callable[[Path, str, int], Found]
    files: Callable[[Path], Iterable[Path]]
    convert: Callable[[Path, Item], Converted]
    spec: Callable[[int, int], FrameSpec | BinnedSpec]
    facts: Mapping[str, Any]
    packages: tuple[str, ...]
    wanted: str
    published_validation: bool = False

    def parameters(
        self, preset: str, data_seed: int, limit: int | None, data_root: Path | None = None
    ) -> dict[str, Any]:
        """Everything the result depends on; of the files their names and sizes."""
        if preset not in self.presets:
            raise unknown_name(f"preset of {self.INFO.name}", preset, self.presets, DataError)
        return {
            "generator_version": GENERATOR_VERSION,
            "preset": self.presets[preset],
            **trees.seed_and_limit(data_seed, limit),
            "files": "unnamed" if data_root is None else self._fingerprint(Path(data_root)),
        }

    def canonical(self, preset: str) -> str:
        """The preset that ``preset`` is another name of, or itself."""
        return self.presets.get(preset, preset)

    def _fingerprint(self, root: Path) -> str:
        digest = hashlib.sha256()
        for path in sorted(self.files(root)):
            trees.require_text(path)
            digest.update(f"{path.relative_to(root).as_posix()}|{path.stat().st_size}\n".encode())
        return digest.hexdigest()[:16]

    def made_with(self) -> dict[str, str]:
        """Versions of the packages that the result depends on."""
        return trees.versions(*self.packages)

    def plan(self, preset: str, data_seed: int, limit: int | None, data_root: Path | None) -> Plan:
        """The items and their splits; DataError where files are missing."""
        stated = self.parameters(preset, data_seed, limit, data_root)
        root = trees.existing_root(data_root, self.INFO.name, self.wanted)
        protocol = self.presets[preset]
        found = self.find(root, protocol, data_seed)
        paper = protocol.startswith("paper")
        by_test = paper and not self.published_validation
        items = trees.in_order(found.items, limit)
        meta = {
            "name": self.INFO.name,
            "preset": protocol,
            "data_seed": int(data_seed),
            "classes": list(found.classes),
            "audio_channels": None,
            "audio_window_us": None,
            "sensor": None,
            "visual_window_us": None,
            **self.facts,
            "protocol": "paper" if paper else "clean",
            "defects": _defects(found.items, by_test) if paper else [],
            "notes": list(found.notes),
            "parameters": stated,
            **({"validation": "test"} if by_test else {}),
        }
        return Plan(items, meta, self.convert)


def _defects(items: list[Item], by_test: bool) -> list[str]:
    found = ["no validation split: the best epoch is chosen on the test set"] if by_test else []
    for kind, shared in overlaps(items).items():
        number = len({item.groups[kind] for item in items})
        found.append(f"{len(shared)} of {number} {kind}s are in more than one split")
    return found


def dealt(items: list[Item], kind: str, shares: Mapping[str, float], seed: int) -> list[Item]:
    """Items with the splits dealt to their groups of ``kind``."""
    split = deal_groups([item.groups[kind] for item in items], shares, seed)
    return [replace(item, split=split[item.groups[kind]]) for item in items]


def base(root: Path, name: str, folders: tuple[str, ...], part: str, wanted: str) -> Path:
    """The folder that holds ``part``; DataError saying what is ``wanted`` where none does."""
    return trees.base_folder(root, name, folders, lambda folder: (folder / part).exists(), wanted)


def home(root: Path, folders: tuple[str, ...], part: str) -> Path | None:
    """The folder that holds ``part``, None where none does."""
    places = (*(root / folder for folder in folders), root)
    return next((place for place in places if (place / part).exists()), None)


# --- N-MNIST -----------------------------------------------------------------------------------
NMNIST_FOLDERS = ("nmnist", "N-MNIST", "NMNIST")
NMNIST_SENSOR, NMNIST_WINDOW_US = 34, 300_000  # three saccades of 100 ms
NMNIST_SIZES = {"Train": 60_000, "Test": 10_000}
NMNIST_WANTED = (
    "Train/<digit>/<number>.bin and Test/<digit>/<number>.bin of N-MNIST "
    "(garrickorchard.com/datasets/n-mnist), in nmnist/ or the root itself"
)


def _nmnist_files(root: Path) -> list[Path]:
    folder = home(root, NMNIST_FOLDERS, "Train")
    if folder is None:
        return []
    return [path for part in NMNIST_SIZES for path in (folder / part).glob("*/*.bin")]


def _nmnist(root: Path, protocol: str, data_seed: int) -> Found:
    folder = base(root, "nmnist", NMNIST_FOLDERS, "Train", NMNIST_WANTED)
    parts = {part: _nmnist_part(root, folder / part, part) for part in NMNIST_SIZES}
    if protocol == "train-only":
        parts.pop("Test")
    if lacking := [part for part, items in parts.items() if not items]:
        raise DataError(
            f"{folder}: no recordings in {' and '.join(lacking)}; nmnist needs {NMNIST_WANTED}; "
            "with Train alone use preset 'train-only'"
        )
    train = parts["Train"]
    notes = [
        f"{part} holds {len(items)} recordings, published are {NMNIST_SIZES[part]}"
        for part, items in parts.items()
        if len(items) != NMNIST_SIZES[part]
    ]
    if protocol != "paper":
        train = _dealt_by_class(train, VALIDATION if "Test" in parts else SHARES, data_seed)
    test = parts.get("Test", [])
    return Found(train + test, WORDS, tuple(notes))


def _nmnist_part(root: Path, folder: Path, part: str) -> list[Item]:
    items = []
    for digit in range(10):
        place = folder / str(digit)
        files = trees.files_by_stem(place, (".bin",)) if place.is_dir() else {}
        for number, path in files.items():
            name = f"{part}/{digit}/{number}"
            source = {"visual": Source(trees.below(root, path))}
            items.append(Item(name, digit, part.lower(), source, {"recording": name}))
    return items


def _dealt_by_class(items: list[Item], shares: Mapping[str, float], seed: int) -> list[Item]:
    """Every class dealt by itself, so that the shares hold in each."""
    found = []
    for label in sorted({item.label for item in items}):
        mine = [item for item in items if item.label == label]
        found += dealt(mine, "recording", shares, seed * 64 + label)
    return found


def convert_nmnist(data_root: Path, item: Item) -> Converted:
    """The events of one recording; FileFormatError naming the file and byte where it is damaged."""
    from neuroav.data.formats.events import read_events

    path = Path(data_root) / item.sources["visual"].file
    sensor = (NMNIST_SENSOR, NMNIST_SENSOR)
    events = read_events(path, sensor=sensor, format="nmnist")
    seen = {name: events[name].astype(np.uint8) for name in "xyp"}
    return Converted(None, seen | {"time": events["time"].astype(np.uint32)})


# --- N-TIDIGITS --------------------------------------------------------------------------------
NTIDIGITS_FILE = "n-tidigits.hdf5"
NTIDIGITS_FOLDERS = ("ntidigits", "NTIDIGITS18")
NTIDIGITS_WANTED = (
    f"{NTIDIGITS_FILE} (N-TIDIGITS18, linked by tonic.datasets.NTIDIGITS18, md5 "
    f"{ntidigits.PUBLISHED_MD5}), in ntidigits/ or the root itself"
)
_NTIDIGITS_PRESETS = {"default": "clean-scmrl"} | {
    preset: preset
    for protocol in ("clean", "paper")
    for mapping in ntidigits.MAPPINGS
    for preset in (f"{protocol}-{mapping}",)
}


def _ntidigits_files(root: Path) -> list[Path]:
    folder = home(root, NTIDIGITS_FOLDERS, NTIDIGITS_FILE)
    return [] if folder is None else [folder / NTIDIGITS_FILE]


def _ntidigits(root: Path, protocol: str, data_seed: int) -> Found:
    folder = base(root, "ntidigits", NTIDIGITS_FOLDERS, NTIDIGITS_FILE, NTIDIGITS_WANTED)
    path, (kind, _, mapping) = folder / NTIDIGITS_FILE, protocol.partition("-")
    listing = guarded(ntidigits.read_listing, path)
    items = [
        _utterance(trees.below(root, path), split, name, mapping)
        for split in ntidigits.SPLITS
        for name in listing.single_digits(split)
    ]
    kept = [item for item in items if item is not None]
    if not kept:
        raise DataError(f"{path}: holds no isolated digit of the mapping {mapping!r}")
    classes = tuple(_spoken_name(digit) for digit in ntidigits.class_names(mapping))
    md5, published = ntidigits.published_md5(path)
    notes = [f"which class a digit is: mapping {mapping!r}, {', '.join(classes)}"]
    if not published:
        notes.append(f"{NTIDIGITS_FILE} has md5 {md5}, published is {ntidigits.PUBLISHED_MD5}")
    if kind == "clean":
        kept = _clean_speech(kept, data_seed, notes)
    return Found(kept, classes, tuple(notes))


def _spoken_name(digit: str) -> str:
    return {"o": "oh", "z": "zero"}.get(digit) or WORDS[int(digit)]


def _utterance(file: str, split: str, name: str, mapping: str) -> Item | None:
    said = ntidigits.parse_id(name)
    label = said.label(mapping)
    if label is None:
        return None
    source = {"audio": Source(file, f"{split}/{name}")}
    return Item(f"{split}/{name}", label, split, source, {"speaker": speaker(name)})


def _clean_speech(items: list[Item], data_seed: int, notes: list[str]) -> list[Item]:
    """Training without the speakers of the test, some of its speakers for validation."""
    test = [item for item in items if item.split == "test"]
    tested = {item.groups["speaker"] for item in test}
    train = [i for i in items if i.split == "train" and i.groups["speaker"] not in tested]
    if lost := len(items) - len(test) - len(train):
        notes.append(f"{lost} training sounds of speakers who are also tested are left out")
    return dealt(train, "speaker", VALIDATION, data_seed) + test


def convert_ntidigits(data_root: Path, item: Item) -> Converted:
    """The spikes of one utterance, times from its first, us."""
    source = item.sources["audio"]
    split, _, name = source.key.partition("/")
    path = Path(data_root) / source.file
    channel, time = guarded(ntidigits.read_utterance, path, split, name, sort=True)
    if not len(time):
        raise DataError(f"{source.file}: {name} holds no spikes; take the file from its source")
    return Converted({"channel": channel, "time": (time - time[0]).astype(np.uint32)}, None)


# --- the sets ----------------------------------------------------------------------------------
CLEAN_PAPER = {"default": "clean", "clean": "clean", "paper": "paper"}
NOT_INCLUDED = "Not in the package: read from the data root. "

NMNIST = Single(
    INFO=DatasetInfo(
        name="nmnist",
        title="N-MNIST: handwritten digits before an event camera",
        presets=(*CLEAN_PAPER, "train-only"),
        classes=WORDS,
        licence=NOT_INCLUDED + "Orchard et al. 2015, CC BY-SA 4.0.",
        limits=(
            "the writers of the digits are not named: one may be in two splits",
            "a camera moved before still pictures on a screen: no movement of its own",
        ),
        augmentation=Augmentation(),
    ),
    presets=CLEAN_PAPER | {"train-only": "train-only"},
    find=_nmnist,
    files=_nmnist_files,
    convert=convert_nmnist,
    spec=lambda steps, size: FrameSpec(steps=steps, visual_size=size),
    facts={
        "layout": "windowed",
        "sensor": NMNIST_SENSOR,
        "visual_window_us": NMNIST_WINDOW_US,
    },
    packages=("numpy",),
    wanted=NMNIST_WANTED,
)

NTIDIGITS = Single(
    INFO=DatasetInfo(
        name="ntidigits",
        title="N-TIDIGITS18: isolated spoken digits through a silicon cochlea",
        presets=tuple(_NTIDIGITS_PRESETS),
        classes=(),
        licence=NOT_INCLUDED + "Of TIDIGITS (LDC93S10), cite Anumula et al. 2018.",
        limits=(
            "paper: the best epoch is chosen on the test set, which so is no test",
            "about 2,460 sounds each in training and test; sequences of digits are left out",
            "which end of the 64 channels is low is as published, not confirmed",
        ),
        # Binned by their own duration, sounds are not altered.
        augmentation=Augmentation(
            stretch=0, shift=0, drop=0, channel_shift=0, image_shift=0, repair=False
        ),
    ),
    presets=_NTIDIGITS_PRESETS,
    find=_ntidigits,
    files=_ntidigits_files,
    convert=convert_ntidigits,
    spec=binned_spec,
    facts={"layout": "binned", "audio_channels": CHANNELS},
    packages=("numpy", "h5py"),
    wanted=NTIDIGITS_WANTED,
)

SETS = (NMNIST, NTIDIGITS)
