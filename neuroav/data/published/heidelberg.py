"""SHD and SSC: spoken digits and commands through a model of the inner ear, 700 channels.

Cramer et al. 2022 (IEEE TNNLS 33, 2744): ``shd``, digits in English and German by twelve speakers,
8,156 + 2,264 recordings of 20 classes, ``shd_train.h5`` and ``shd_test.h5``; ``ssc``, the 35
Speech Commands, ``ssc_train.h5``, ``ssc_valid.h5`` and ``ssc_test.h5``.

The 700 channels stay 700 in the cache. They do not divide into 64, and need not: network input has
64 bands of neighbours, and channel c is added to band ``c * 64 // 700``, so a band is ten or eleven
channels; of fewer bands likewise (``neuroav.data.frames``). Which end is low is as published.

Presets: ``clean`` (also called ``default``): all recordings dealt by speaker, 70, 10, 20 %,
with the data seed, so that nobody is in two splits. SHD has twelve speakers, so data seeds are
folds that differ by more than training seeds do. ``paper``: the published parts. The test part of
SHD has two speakers of its own and recordings of others, and is the validation as well.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from neuroav.data.augment import Augmentation
from neuroav.data.formats import shd
from neuroav.data.formats.guarded import guarded
from neuroav.data.frames import FrameSpec
from neuroav.data.info import DatasetInfo
from neuroav.data.plans import Converted, Item, Source
from neuroav.data.published import trees
from neuroav.data.published.single import (
    CLEAN_PAPER,
    NOT_INCLUDED,
    SHARES,
    Found,
    Single,
    base,
    dealt,
    home,
)
from neuroav.errors import DataError

# Chosen to hold a word; SpyTorch's tutorial on SHD bins 1.4 s, Speech Commands last 1 s.
WINDOWS_US = {"shd": 1_400_000, "ssc": 1_000_000}
PARTS = {
    "shd": {"train": "train", "test": "test"},
    "ssc": {"train": "train", "valid": "val", "test": "test"},
}


def _folders(name: str) -> tuple[str, ...]:
    return name, name.upper()


def _first(name: str) -> str:
    return f"{name}_train.h5"


def wanted(name: str) -> str:
    """What must lie below the data root."""
    files = ", ".join(f"{name}_{part}.h5" for part in PARTS[name])
    return f"{files} (zenkelab.org/datasets, unpacked), in {name}/ or the root itself"


def files(name: str, root: Path) -> list[Path]:
    """The files of the set that there are."""
    folder = home(root, _folders(name), _first(name))
    if folder is None:
        return []
    paths = (folder / f"{name}_{part}.h5" for part in PARTS[name])
    return [path for path in paths if path.is_file()]


def find(name: str, root: Path, protocol: str, data_seed: int) -> Found:
    """The recordings of all parts; DataError for a part that is missing or tells no speakers."""
    folder = base(root, name, _folders(name), _first(name), wanted(name))
    items: list[Item] = []
    names: tuple[str, ...] = ()
    for part, split in PARTS[name].items():
        path = folder / f"{name}_{part}.h5"
        if not path.is_file():
            raise DataError(f"{path} is missing; {name} needs {wanted(name)}")
        listing = guarded(shd.read_listing, path)
        if listing.speakers is None and protocol == "clean":
            raise DataError(
                f"{path}: has no extra/speaker, and preset 'clean' deals out speakers; use preset "
                "'paper', or take the file from its publishers again"
            )
        names = names or listing.names
        file = trees.below(root, path)
        for place, label in enumerate(listing.labels.tolist()):
            groups = {} if listing.speakers is None else {"speaker": str(listing.speakers[place])}
            source = {"audio": Source(file, str(place))}
            items.append(Item(f"{part}/{place:06}", label, split, source, groups))
    if not items:
        raise DataError(f"{folder}: holds no recording of {name}")
    if protocol == "clean":
        items = dealt(items, "speaker", SHARES, data_seed)
    count = max(item.label for item in items) + 1
    return Found(items, names or tuple(str(label) for label in range(count)))


def convert(data_root: Path, item: Item) -> Converted:
    """The spikes of one recording: channel 0..699 uint16, time uint32 us."""
    source = item.sources["audio"]
    path = Path(data_root) / source.file
    (sample,) = guarded(shd.read_samples, path, [int(source.key)])
    return Converted({"channel": sample.channel, "time": sample.time.astype(np.uint32)}, None)


def _spec(steps: int, visual_size: int) -> FrameSpec:
    return FrameSpec(steps=steps, visual_size=visual_size)


def _single(name: str, title: str, limits: tuple[str, ...]) -> Single:
    return Single(
        INFO=DatasetInfo(
            name=name,
            title=title,
            presets=tuple(CLEAN_PAPER),
            classes=(),
            licence=NOT_INCLUDED + "Cramer et al. 2022, CC BY 4.0.",
            limits=limits,
            # Neighbouring channels are a tenth of a band: a shift by one would not be seen.
            augmentation=Augmentation(channel_shift=8),
        ),
        presets=CLEAN_PAPER,
        find=partial(find, name),
        files=partial(files, name),
        convert=convert,
        spec=_spec,
        facts={
            "layout": "windowed",
            "audio_channels": shd.CHANNELS,
            "audio_window_us": WINDOWS_US[name],
        },
        packages=("numpy", "h5py"),
        wanted=wanted(name),
        published_validation=name == "ssc",
    )


SHD = _single(
    "shd",
    "Spiking Heidelberg Digits: spoken digits in two languages, 700 channels",
    (
        "twelve speakers; clean folds differ by more than training seeds do",
        "paper: the best epoch is chosen on the test set, and most of its speakers are trained on",
        "recordings of more than 1.4 s are cut",
    ),
)
SSC = _single(
    "ssc",
    "Spiking Speech Commands: 35 spoken words, 700 channels",
    ("recorded by many microphones, cut at 1 s; some words are cut or silent",),
)
SETS = (SHD, SSC)
