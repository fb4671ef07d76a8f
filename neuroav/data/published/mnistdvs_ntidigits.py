"""The data set ``mnistdvs-ntidigits``: MNIST-DVS beside N-TIDIGITS, S-CMRL's third benchmark.

Pictures: MNIST-DVS (Serrano-Gotarredona and Linares-Barranco 2015): 10,000 MNIST digits before a
DVS128 camera of 128x128 pixels, 1,000 of each digit, each recorded at three scales for 2 to 3 s.
Speech: N-TIDIGITS18 (Anumula et al. 2018): TIDIGITS through a silicon cochlea of 64 channels, of
which the isolated digits are used; "oh" is left out and "zero" is 0.

Pixels 47 to 74 of a recording at scale 4 are kept, 28x28. (Others cut 48 to 73, 26x26.) At scale 8
and 16 the digit is two and four times as large: pixels 33 to 88 by twos, 5 to 116 by fours, which
assumes the same middle. The processed files of 28x28 pixels are taken as they are.

Protocols:

``clean`` (and ``default``)
    No recording, and no speaker of the test, is in two splits. Pictures: of each digit 70 % train,
    10 % validation, 20 % test; a digit recorded at several scales is one recording. Speech:
    N-TIDIGITS' test speakers are the test; a tenth of the training speakers validate, or, where
    there are fewer than ten, a tenth of each digit's training recordings. Pairs per digit and
    split: as many as the larger of both has, the smaller taken in turns.
``paper``
    As S-CMRL's released loader: pictures shuffled per digit, one half train, one half test; of
    each digit's sounds as many as there are pictures, over and over; the i-th beside the i-th;
    no validation: the best epoch is chosen on the test set.

Pairs cycle through the digits, so the first n of a split are balanced.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.data.augment import Augmentation
from neuroav.data.binned import CHANNELS, SIZE, BinnedSpec
from neuroav.data.formats import mat, ntidigits
from neuroav.data.formats.events import MNIST_DVS, read_events
from neuroav.data.formats.guarded import guarded
from neuroav.data.formats.hdf5 import check_hdf5
from neuroav.data.info import DatasetInfo
from neuroav.data.plans import Converted, Item, Plan, Source
from neuroav.data.published import mnistdvs_pairs as pairs
from neuroav.data.speech import WORDS
from neuroav.errors import ConfigError, DataError, unknown_name

NAME = "mnistdvs-ntidigits"
GENERATOR_VERSION = 1  # raise whenever the same files would give other data
SCALES = (4, 8, 16)
PER_DIGIT = 1000  # recordings of each digit, as published
MIDDLE = 61  # of the digit on the sensor, pixels: 48 to 73 and 47 to 74 both lie about it
MAX_SEED = 2**31 - 1
MIN_LIMIT = 40
SOUNDS = "n-tidigits.hdf5"
MAT = "MNIST_DVS_28x28_10000_*.mat"
WHOLE_SECONDS = 3600.0  # to read all of a file once
MAT_BYTES = 32 << 30  # the processed file holds 10,000 recordings
HDF5_BYTES = 8 << 30  # of all values of the sounds
STANDIN = "STANDIN.txt"
speaker = pairs.speaker  # also of the speech alone (``single``)
_UNCHOSEN_SIZE = 16  # the configuration's default: not chosen
SOURCES = (
    "mnist-dvs/grabbed_data<d>/scale4/mnist_<d>_scale04_<0001..1000>.aedat (MNIST-DVS, "
    "www2.imse-cnm.csic.es/caviar/MNIST_DVS, grabbed_data0.zip to grabbed_data9.zip), or "
    "mnist-dvs/MNIST_DVS_28x28_10000_full.mat, and n-tidigits.hdf5 (N-TIDIGITS18, linked by "
    f"tonic.datasets.NTIDIGITS18, md5 {ntidigits.PUBLISHED_MD5})"
)


@dataclass(frozen=True)
class Preset:
    """protocol: clean or paper. scale: of the recordings, 4, 8 or 16."""

    protocol: str
    scale: int


PRESETS: dict[str, Preset] = {"default": Preset("clean", 4)} | {
    kind + (f"-scale{scale}" if scale != 4 else ""): Preset(kind, scale)
    for kind in ("clean", "paper")
    for scale in SCALES
}

INFO = DatasetInfo(
    name=NAME,
    title="MNIST-DVS beside N-TIDIGITS: event camera and silicon cochlea, as S-CMRL pairs them",
    presets=tuple(PRESETS),
    classes=WORDS,
    licence=(
        "Not in the package: read from the data root, under the terms of their publishers. Cite "
        "Serrano-Gotarredona and Linares-Barranco 2015, and Anumula et al. 2018 (of TIDIGITS, "
        "LDC93S10)."
    ),
    limits=(
        "paper: the best epoch is chosen on the test set, which so is no test",
        "paper: every sound is in two or three pairs of its split; test pairs are not independent",
        "picture and sound share a label, not a moment: no audio-visual synchrony",
        "the writers of the digits are not recorded: one may be in two splits",
        "orientation and polarity of MNIST-DVS are as its public readers have them, not documented",
    ),
    # RandomCrop(28, padding=4) of S-CMRL: up to 4 pixels, drawn anew in every epoch
    augmentation=Augmentation(
        stretch=0, shift=0, drop=0, channel_shift=0, image_shift=2, repair=True
    ),
    steps=16,
    visual_size=28,
)


# --- what the data depend on -------------------------------------------------------------------
def parameters(
    preset: str, data_seed: int, limit: int | None, data_root: Path | None = None
) -> dict[str, Any]:
    """Everything the result depends on besides the content of the files, as JSON values.

    ``files`` is 'published' where every recording of MNIST-DVS is there, or no root is given, so
    that what was prepared is found without it; else a hash of what there is. DataError for what is
    not allowed.
    """
    if preset not in PRESETS:
        raise unknown_name(f"preset of {NAME}", preset, PRESETS, DataError)
    if not 0 <= data_seed <= MAX_SEED:
        raise DataError(f"data seed {data_seed}: allowed are 0 to {MAX_SEED}")
    if limit is not None and limit < MIN_LIMIT:
        raise DataError(f"limit {limit}: allowed are {MIN_LIMIT} pairs of {NAME} and more")
    own = {
        "shares": pairs.SHARES,
        "validation": pairs.VALIDATION,
        "fewest_speakers": pairs.FEWEST_SPEAKERS,
        "mapping": pairs.MAPPING,
    }
    return {
        "generator_version": GENERATOR_VERSION,
        "data_seed": int(data_seed),
        "limit": limit,
        "preset": asdict(PRESETS[preset]),
        "constants": own | {"middle": MIDDLE},
        "files": "published" if data_root is None else _fingerprint(Path(data_root), preset),
    }


def canonical(preset: str) -> str:
    """The preset that ``preset`` is another name of, or itself."""
    same = (name for name, other in PRESETS.items() if other == PRESETS.get(preset))
    return next((name for name in same if name != "default"), preset)


def _fingerprint(root: Path, preset: str) -> str:
    found = _recordings(root, PRESETS[preset].scale)
    complete = [len(found.get(digit, ())) for digit in range(10)] == [PER_DIGIT] * 10
    if complete and not _standin(root):
        return "published"
    whole = [file for file in (_sounds_file(root), _mat_file(root)) if file is not None]
    names = [f"{file.name} {file.stat().st_size}" for file in whole]
    names += [source.file for digit in sorted(found) for source in found[digit]]
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


def made_with() -> dict[str, str]:
    """Versions of the packages that the events depend on."""
    return {name: metadata.version(name) for name in ("numpy", "h5py")}


def spec(steps: int, visual_size: int) -> BinnedSpec:
    """The layout of the network input; ConfigError for a size other than 28.

    16, the configuration's default, counts as not chosen.
    """
    if visual_size not in (SIZE, _UNCHOSEN_SIZE):
        raise ConfigError(f"visual_size {visual_size}: {NAME} has pictures of {SIZE}x{SIZE} only")
    return BinnedSpec(steps)


# --- what lies below the data root -------------------------------------------------------------
def _folders(root: Path, name: str) -> list[Path]:
    return [folder for folder in (root / name, root) if folder.is_dir()]


def _sounds_file(root: Path) -> Path | None:
    found = [f / SOUNDS for f in (root, root / "ntidigits") if (f / SOUNDS).is_file()]
    return found[0] if found else None


def _standin(root: Path) -> str:
    """What STANDIN.txt says, '' where there is none."""
    for folder in (root, root / "mnist-dvs", root / "ntidigits"):
        if (folder / STANDIN).is_file():
            return (folder / STANDIN).read_text(encoding="utf-8", errors="replace").strip()
    return ""


def _mat_file(root: Path) -> Path | None:
    """The processed recordings, whole ('full') rather than parts of them."""
    for folder in _folders(root, "mnist-dvs"):
        if found := sorted(folder.glob(MAT)):
            return next((file for file in found if file.stem.endswith("_full")), found[0])
    return None


@lru_cache(maxsize=1)
def _mat(path: Path) -> mat.MatRecordings:
    """All recordings of the processed file; they are many, so they are read once."""
    return guarded(mat.read_mat, path, sort=True, seconds=WHOLE_SECONDS, memory_bytes=MAT_BYTES)


def _pictures(root: Path, scale: int) -> dict[int, list[Source]]:
    """Recordings of each digit; raw ones rather than processed, which are of scale 4."""
    found = _recordings(root, scale)
    file = _mat_file(root)
    if found or scale != SCALES[0] or file is None:
        return found
    name, labels = file.relative_to(root).as_posix(), _mat(file).labels
    return {
        digit: [Source(name, f"{i:05}") for i in np.flatnonzero(labels == digit)]
        for digit in np.unique(labels).tolist()
    }


def _recordings(root: Path, scale: int) -> dict[int, list[Source]]:
    """Raw recordings of each digit, by their numbers; {} where there are none at this scale."""
    for folder in _folders(root, "mnist-dvs"):
        found = {}
        for digit in range(10):
            pattern = f"mnist_{digit}_scale{scale:02}_*.aedat"
            files = sorted((folder / f"grabbed_data{digit}" / f"scale{scale}").glob(pattern))
            if files:
                found[digit] = [Source(file.relative_to(root).as_posix()) for file in files]
        if found:
            return found
    return {}


def _require(root: Path | None, scale: int) -> tuple[Path, dict[int, list[Source]], Path]:
    """The root, the pictures of every digit, the file of sounds; DataError saying what lacks."""
    wanted = f"{NAME} is made of recordings that are not part of this package: {SOURCES}"
    if root is None:
        raise DataError(f"{wanted}; name the folder with --data-root DIR or NEUROAV_DATA=DIR")
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"data root {root}: there is no such folder; {wanted}")
    pictures = _pictures(root, scale)
    lacking = [str(digit) for digit in range(10) if digit not in pictures]
    if lacking:
        raise DataError(
            f"data root {root}: no recordings of MNIST-DVS at scale {scale} of "
            f"{'any digit' if not pictures else 'digit ' + ', '.join(lacking)}; {wanted}"
        )
    sounds = _sounds_file(root)
    if sounds is None:
        raise DataError(f"data root {root}: no {SOUNDS} in it nor in ntidigits/; {wanted}")
    return root, pictures, sounds


def _limited(items: list[Item], limit: int | None) -> list[Item]:
    """The first of every split, ``limit`` in proportion."""
    if limit is None:
        return items
    if limit > len(items):
        raise DataError(f"limit {limit}: allowed are {MIN_LIMIT} to {len(items)} pairs of {NAME}")
    kept = []
    for split in pairs.SHARES:
        mine = [item for item in items if item.split == split]
        kept += mine[: round(limit / len(items) * len(mine))]
    return kept


def plan(preset: str, data_seed: int, limit: int | None, data_root: Path | None) -> Plan:
    """The pairs of a preset; DataError for files that are missing or not what they should be."""
    if preset not in PRESETS:
        raise unknown_name(f"preset of {NAME}", preset, PRESETS, DataError)
    chosen = PRESETS[preset]
    root, pictures, sounds_file = _require(data_root, chosen.scale)
    stated = parameters(preset, data_seed, limit, root)
    notes = _notes(root, pictures, sounds_file)
    guarded(check_hdf5, sounds_file, HDF5_BYTES, seconds=WHOLE_SECONDS, memory_bytes=HDF5_BYTES)
    listing = guarded(ntidigits.read_listing, sounds_file)
    said = pairs.spoken(listing, sounds_file.relative_to(root).as_posix())
    paper = chosen.protocol == "paper"
    if paper:
        sounds, seen = said, pairs.paper_pictures(pictures, data_seed)
    else:
        sounds = pairs.clean_sounds(said, data_seed, notes)
        seen = pairs.clean_pictures(pictures, data_seed)
    items = pairs.items(NAME, sounds, seen, chosen.protocol, data_seed)
    meta = {
        "name": NAME,
        "preset": canonical(preset),
        "data_seed": int(data_seed),
        "classes": list(WORDS),
        "layout": "binned",
        "audio_channels": CHANNELS,
        "sensor": SIZE,
        "protocol": chosen.protocol,
        "defects": pairs.defects(items) if paper else [],
        "notes": notes,
        "parameters": stated,
        **({"validation": "test"} if paper else {}),
        # other files under the names of the published ones: a ledger of their own
        **({"collection": "root"} if _standin(root) else {}),
    }
    return Plan(tuple(_limited(items, limit)), meta, convert)


def _notes(root: Path, pictures: dict[int, list[Source]], sounds: Path) -> list[str]:
    notes = []
    if standin := _standin(root):
        notes.append(f"stand-in: {standin}")
    counts = [len(pictures[digit]) for digit in range(10)]
    if counts != [PER_DIGIT] * 10:
        notes.append(
            f"{sum(counts)} recordings of digits ({min(counts)} to {max(counts)} each), published "
            f"are {10 * PER_DIGIT}"
        )
    md5, published = ntidigits.published_md5(sounds)
    if not published:
        notes.append(f"{SOUNDS} has md5 {md5}, published is {ntidigits.PUBLISHED_MD5}")
    return notes


# --- one item ----------------------------------------------------------------------------------
def convert(data_root: Path, item: Item) -> Converted:
    """The spikes and events of one pair, times from the first event of each, us."""
    sound, picture = item.sources["audio"], item.sources["visual"]
    split, _, name = sound.key.partition("/")
    # In this process: ``plan`` has had the whole file read in another, which is 50 times faster
    file = Path(data_root) / sound.file
    channel, time = ntidigits.read_utterance(file, split, name, sort=True)
    audio = {
        "channel": channel.astype(np.uint8),
        "time": _from_first(time, f"{sound.file}: {name}"),
    }
    source = {
        "voice": np.array(item.groups["speaker"].encode(), "S32"),
        "sound": np.array(sound.key.encode(), "S64"),
        "recorded": np.array(item.groups["recording"].encode(), "S32"),
    }
    return Converted(audio, _seen(Path(data_root) / picture.file, picture.key), source)


def _seen(path: Path, key: str) -> dict[str, np.ndarray]:
    if key:
        one = mat.one(_mat(path), int(key))
        columns = {"x": one["x"], "y": one["y"], "p": one["on"].astype(np.uint8)}
        return columns | {"time": _from_first(one["time"], f"{path}, recording {int(key) + 1}")}
    events = read_events(path, MNIST_DVS, order="sort")
    scale = int(path.stem.split("scale")[-1][:2])
    step = scale // SCALES[0]
    low = MIDDLE - step * SIZE // 2
    x, y = ((events[axis].astype(np.int64) - low) // step for axis in "xy")
    kept = (x >= 0) & (x < SIZE) & (y >= 0) & (y < SIZE)
    small = {"x": x, "y": y, "p": events["p"]}
    columns = {name: column[kept].astype(np.uint8) for name, column in small.items()}
    return columns | {"time": _from_first(events["time"][kept], str(path))}


def _from_first(time: np.ndarray, where: str) -> np.ndarray:
    """Ascending times from the first, uint32; DataError without events, or for more than 71 min."""
    if not len(time):
        raise DataError(
            f"{where}: holds no events where the digit is; take it from its source again"
        )
    if (lasts := int(time[-1] - time[0])) > np.iinfo(np.uint32).max:
        raise DataError(f"{where}: lasts {lasts} us, a digit lasts seconds; allowed are 2^32 us")
    return (time - time[0]).astype(np.uint32)
