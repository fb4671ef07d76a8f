"""N-TIDIGITS18: spikes of a silicon cochlea that hears the digits of TIDIGITS, in one HDF5 file.

``n-tidigits.hdf5`` holds, for ``train`` and ``test``:

- ``<split>_labels`` (N,) byte strings, each the id of an utterance, ``gender-speaker-take-digits``:
  ``man-ae-a-1``, ``woman-ac-b-12z``; gender man or woman, take a or b, digits of o, z, 1..9, where
  z is "zero" and o is "oh". One digit is an isolated word: 2,464 of train, 2,486 of test.
- ``<split>_addresses/<id>`` (E,) cochlea channel 0..63 and ``<split>_timestamps/<id>`` (E,)
  seconds, floating point, ascending.

The id is the key, so it must be unique within a split. Which class a digit is differs between
published results: no mapping is the default, one of ``MAPPINGS`` is named each time.

Functions here trust HDF5: read files from elsewhere through ``neuroav.data.formats.guarded``.
Source: Anumula et al., Front. Neurosci. 12, 23 (2018); layout as read by tonic 1.7.0.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from neuroav.data.formats.hdf5 import Hdf5, opened
from neuroav.errors import ConfigError, DataError, FileFormatError, unknown_name
from neuroav.files import written_whole

CHANNELS = 64
SPLITS = ("train", "test")
PUBLISHED_MD5 = "360a2d11e5429555c9197381cf6b58e0"  # as tonic 1.7.0 states it
MOST_SECONDS = 600.0  # an utterance lasts seconds; more is another unit
_KIND = "n-tidigits.hdf5"
_AGAIN = "take n-tidigits.hdf5 from its publishers again"
_ID = re.compile(r"(man|woman)-([A-Za-z0-9]+)-([ab])-([oz1-9]+)")

# Class of each digit. tonic: tonic.datasets.NTIDIGITS18. scmrl: the ten digits of MNIST, "oh" is
# left out (S-CMRL, BrainCog). o-is-10: the ten digits of MNIST, "oh" as an eleventh.
MAPPINGS: Mapping[str, Mapping[str, int]] = {
    "tonic": {"o": 0, **{str(d): d for d in range(1, 10)}, "z": 10},
    "scmrl": {"z": 0, **{str(d): d for d in range(1, 10)}},
    "o-is-10": {"z": 0, **{str(d): d for d in range(1, 10)}, "o": 10},
}


@dataclass(frozen=True)
class Utterance:
    """What an id says. gender: man, woman; take: a, b; digits: of o, z, 1..9, one or more."""

    gender: str
    speaker: str
    take: str
    digits: str

    @property
    def id(self) -> str:
        """The id, as the file writes it."""
        return f"{self.gender}-{self.speaker}-{self.take}-{self.digits}"

    def label(self, mapping: str) -> int | None:
        """Return the class of an isolated digit, None where the mapping leaves it out.

        ConfigError for an unknown mapping, DataError for more than one digit.
        """
        if len(self.digits) != 1:
            raise DataError(
                f"{self.id}: {len(self.digits)} digits, a class is of one; use ``labels``, or take "
                "isolated digits only"
            )
        return _mapping(mapping).get(self.digits)

    def labels(self, mapping: str) -> tuple[int, ...] | None:
        """Return the class of every digit, None where the mapping leaves one of them out."""
        known = _mapping(mapping)
        found = [known.get(digit) for digit in self.digits]
        return None if None in found else tuple(v for v in found if v is not None)


def _mapping(name: str) -> Mapping[str, int]:
    if name not in MAPPINGS:
        raise unknown_name("mapping of digits to classes", name, MAPPINGS, ConfigError)
    return MAPPINGS[name]


def class_names(mapping: str) -> tuple[str, ...]:
    """Return the digits in the order of their classes."""
    known = _mapping(mapping)
    return tuple(sorted(known, key=known.__getitem__))


def parse_id(text: str) -> Utterance:
    """Return what an id says; DataError for what is no id."""
    found = _ID.fullmatch(text)
    if not found:
        raise DataError(
            f"{text[:80]!r} is no id of N-TIDIGITS: allowed is gender-speaker-take-digits, such as "
            "man-ae-a-1 (man or woman, a or b, digits of o, z, 1..9)"
        )
    return Utterance(*found.groups())


@dataclass(frozen=True)
class Listing:
    """What a file lists. ids: by split, in the file's order, unique; unlisted: entries of a split
    that its labels do not name: they are recordings that nobody uses."""

    ids: Mapping[str, tuple[str, ...]]
    unlisted: Mapping[str, tuple[str, ...]]

    def single_digits(self, split: str) -> tuple[str, ...]:
        """The ids of isolated digits of a split."""
        return tuple(i for i in self.ids[split] if len(parse_id(i).digits) == 1)


def read_listing(path: Path) -> Listing:
    """Return the ids of both splits.

    FileFormatError naming the file where a part is missing, an id is malformed or there twice, or
    has no addresses or timestamps.
    """
    ids, unlisted = {}, {}
    with opened(Path(path), _KIND, _AGAIN) as file:
        for split in SPLITS:
            ids[split] = tuple(file.texts(f"{split}_labels"))
            unlisted[split] = _check_ids(file, split, ids[split])
    return Listing(ids, unlisted)


def _check_ids(file: Hdf5, split: str, ids: tuple[str, ...]) -> tuple[str, ...]:
    place, known = f"{split}_labels", set(ids)
    for text in ids:
        try:
            parse_id(text)
        except DataError as error:
            raise FileFormatError(f"{file.path}: {place}: {error}; {_AGAIN}") from None
    if len(known) != len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise file.problem(
            place, f"lists {twice!r} more than once ({len(ids) - len(known)} ids too many)",
            "every id once, as it is the key of its recording",
        )  # fmt: skip
    there = [set(file.group(f"{split}_{part}")) for part in ("addresses", "timestamps")]
    for names, part in zip(there, ("addresses", "timestamps"), strict=True):
        lost = [i for i in ids if i not in names]
        if lost:
            raise file.problem(
                f"{split}_{part}", f"lacks {len(lost)} of {len(ids)} ids of {place}, first "
                f"{lost[0]!r}", "an entry for every id",
            )  # fmt: skip
    return tuple(sorted((there[0] | there[1]) - known))


def read_utterance(
    path: Path, split: str, name: str, *, sort: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return channel (E,) uint8 0..63 and time (E,) int64 us, ascending, of one utterance.

    Seconds are rounded to the nearest microsecond (tonic cuts, so its times can be 1 us less).
    sort: bring times that do not ascend into order, instead of refusing them. E may be 0.
    FileFormatError naming the file for anything that is not so.
    """
    return read_utterances(path, split, (name,), sort=sort)[0]


def read_utterances(
    path: Path, split: str, names: Sequence[str], *, sort: bool = False
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return ``read_utterance`` of each id; the file is opened once."""
    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS, ConfigError)
    with opened(Path(path), _KIND, _AGAIN) as file:
        return [_utterance(file, split, name, sort) for name in names]


def _utterance(file: Hdf5, split: str, name: str, sort: bool) -> tuple[np.ndarray, np.ndarray]:
    channel, time = _events(file, split, name)
    order = np.diff(time) < 0
    if order.any():
        if not sort:
            raise file.problem(
                f"{split}_timestamps/{name}", f"goes back in time {int(order.sum())} times, first "
                f"after event {int(order.argmax())}", "ascending times, or sort=True",
            )  # fmt: skip
        places = np.argsort(time, kind="stable")
        channel, time = channel[places], time[places]
    return channel, time


def _events(file: Hdf5, split: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    places = f"{split}_addresses/{name}", f"{split}_timestamps/{name}"
    channel = file.numbers(places[0], "iuf", "one whole number per event")
    seconds = file.numbers(places[1], "f", "one floating point number of seconds per event")
    if len(channel) != len(seconds):
        raise file.problem(
            places[1], f"has {len(seconds)} values beside {len(channel)} addresses", "one each"
        )
    # As float: comparisons with NaN are false, and unsigned numbers do not wrap.
    wide, limit = channel.astype(np.float64), CHANNELS - 1
    wrong = ~((wide >= 0) & (wide <= limit) & (wide == np.rint(wide)))
    if wrong.any():
        first = channel[wrong.argmax()]
        raise file.problem(
            places[0], f"holds {int(wrong.sum())} addresses such as {first}", f"0..{limit}"
        )
    seconds = seconds.astype(np.float64)
    wrong = ~((seconds >= 0) & (seconds <= MOST_SECONDS))
    if wrong.any():
        raise file.problem(
            places[1], f"holds {int(wrong.sum())} times such as {seconds[wrong.argmax()]:g}",
            f"seconds, 0..{MOST_SECONDS:g}",
        )  # fmt: skip
    return channel.astype(np.uint8), np.rint(seconds * 1e6).astype(np.int64)


def published_md5(path: Path) -> tuple[str, bool]:
    """Return the md5 of a file and whether it is that of the published one. For information only:
    a file of the same layout is read whatever its md5."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return digest.hexdigest(), digest.hexdigest() == PUBLISHED_MD5


def write_ntidigits(
    path: Path,
    train: Iterable[tuple[str, np.ndarray, np.ndarray]],
    test: Iterable[tuple[str, np.ndarray, np.ndarray]],
) -> None:
    """Write a file of the published layout: for each split (id, channel (E,), time_s (E,)).

    Channels become uint8, times float64 seconds. DataError for what the layout does not allow.
    """
    with written_whole(path) as temporary, h5py.File(temporary, "w") as file:
        for split, utterances in (("train", train), ("test", test)):
            groups = [file.create_group(f"{split}_{p}") for p in ("addresses", "timestamps")]
            ids: list[str] = []
            for name, channel, time_s in utterances:
                columns = _checked(name, np.asarray(channel), np.asarray(time_s))
                if name in groups[0]:
                    raise DataError(f"{split}: {name!r} is there twice; ids are keys")
                for group, column in zip(groups, columns, strict=True):
                    group[name] = column
                ids.append(parse_id(name).id)
            width = max(map(len, ids), default=1)
            file[f"{split}_labels"] = np.array([i.encode() for i in ids], dtype=f"S{width}")


def _checked(name: str, channel: np.ndarray, time_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    time_s = time_s.astype(np.float64)
    fits = channel.ndim == 1 and channel.shape == time_s.shape and channel.dtype.kind in "iu"
    # An empty array is in range.
    fits = fits and bool(np.all((channel >= 0) & (channel < CHANNELS)))
    if not fits or not bool(np.all((time_s >= 0) & (time_s <= MOST_SECONDS))):
        raise DataError(
            f"{name}: channels {channel.dtype} {channel.shape}, times {time_s.shape}; allowed are "
            f"as many whole numbers 0..{CHANNELS - 1} as seconds 0..{MOST_SECONDS:g}"
        )
    if bool(np.any(np.diff(time_s) < 0)):
        raise DataError(f"{name}: times must ascend")
    return channel.astype(np.uint8), time_s
