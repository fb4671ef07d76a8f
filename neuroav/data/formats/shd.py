"""Spiking Heidelberg Digits and Spiking Speech Commands: spikes of a model cochlea in HDF5.

``shd_train.h5`` and the like hold, for N samples:

- ``spikes/times`` (N,) arrays of variable length, seconds, float16 (as published) or float32/64;
- ``spikes/units`` (N,) arrays of variable length, cochlea channel 0..699;
- ``labels`` (N,) classes; ``extra/speaker`` (N,) speakers and ``extra/keys`` (C,) names of the
  classes, where the file has them.

A float16 of 1..2 s is exact to 2^-10 s, about 1 ms (0.5 ms below 1 s, 2 ms from 2 s on): the times
are given in us, but no finer than that, and many are equal.

Functions here trust HDF5: read files from elsewhere through ``neuroav.data.formats.guarded``.
Source: Cramer et al., IEEE TNNLS 33, 2744 (2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from neuroav.data.formats.hdf5 import Hdf5, opened
from neuroav.errors import DataError

CHANNELS = 700
MOST_SECONDS = 600.0  # a sample lasts seconds; more is another unit
_KIND = "SHD or SSC file"
_AGAIN = "take the file from its publishers again (zenkelab.org)"


@dataclass(frozen=True, eq=False)
class Listing:
    """labels: (N,) int64. speakers: (N,) int64, None if not given. names: of the classes, () if
    not given."""

    labels: np.ndarray
    speakers: np.ndarray | None
    names: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Sample:
    """channel: (E,) uint16 0..699. time: (E,) int64 us, ascending. speaker: -1 if not given."""

    channel: np.ndarray
    time: np.ndarray
    label: int
    speaker: int


def read_listing(path: Path) -> Listing:
    """Return labels, speakers and class names; FileFormatError naming the file if it is not so."""
    with opened(Path(path), _KIND, _AGAIN) as file:
        return _listing(file)


def _listing(file: Hdf5) -> Listing:
    labels = file.numbers("labels", "iu", "one whole number per sample").astype(np.int64)
    extra = set(file.group("extra")) if "extra" in file.file else set()
    speakers: np.ndarray | None = None
    names: tuple[str, ...] = ()
    if "speaker" in extra:
        speakers = file.numbers("extra/speaker", "iu", "one whole number per sample")
        speakers = speakers.astype(np.int64)
        if speakers.shape != labels.shape:
            raise file.problem(
                "extra/speaker", f"has {len(speakers)} entries for {len(labels)} labels", "one each"
            )
    if "keys" in extra:
        names = tuple(file.texts("extra/keys"))
    if len(labels) and (labels.min() < 0 or (names and labels.max() >= len(names))):
        most = len(names) - 1 if names else "..."
        raise file.problem("labels", f"spans {labels.min()}..{labels.max()}", f"0..{most}")
    for name in ("spikes/times", "spikes/units"):
        if (count := file.ragged(name).shape[0]) != len(labels):
            raise file.problem(name, f"has {count} entries for {len(labels)} labels", "one each")
    return Listing(labels, speakers, names)


def read_samples(path: Path, indices: Sequence[int]) -> list[Sample]:
    """Return the samples at these indices, in this order.

    Times are rounded to the nearest microsecond. FileFormatError naming the file and the sample
    where channels or times are not what they should be; DataError for an index beyond the file.
    """
    with opened(Path(path), _KIND, _AGAIN) as file:
        listing = _listing(file)
        return [_sample(file, listing, int(index)) for index in indices]


def _sample(file: Hdf5, listing: Listing, index: int) -> Sample:
    if not 0 <= index < len(listing.labels):
        raise DataError(f"{file.path}: no sample {index}, it has {len(listing.labels)}")
    units = np.asarray(file.ragged("spikes/units")[index])
    times = np.asarray(file.ragged("spikes/times")[index])
    place = f"spikes/times[{index}]"
    if units.dtype.kind not in "iuf" or times.dtype.kind != "f":
        raise file.problem(place, f"holds {times.dtype}, units {units.dtype}", "float, whole")
    if units.shape != times.shape:
        raise file.problem(place, f"has {times.size} times for {units.size} units", "one each")
    wide, seconds = units.astype(np.float64), times.astype(np.float64)
    wrong = ~((wide >= 0) & (wide < CHANNELS) & (wide == np.rint(wide)))
    if wrong.any():
        raise file.problem(
            f"spikes/units[{index}]",
            f"holds {int(wrong.sum())} channels such as {units[wrong.argmax()]}",
            f"0..{CHANNELS - 1}",
        )
    wrong = ~((seconds >= 0) & (seconds <= MOST_SECONDS))
    if wrong.any():
        raise file.problem(
            place, f"holds {int(wrong.sum())} times such as {seconds[wrong.argmax()]:g}",
            f"seconds, 0..{MOST_SECONDS:g}",
        )  # fmt: skip
    back = np.diff(seconds) < 0
    if back.any():
        raise file.problem(
            place, f"goes back in time {int(back.sum())} times, first after spike "
            f"{int(back.argmax())}", "ascending times",
        )  # fmt: skip
    speaker = -1 if listing.speakers is None else int(listing.speakers[index])
    return Sample(
        units.astype(np.uint16),
        np.rint(seconds * 1e6).astype(np.int64),
        int(listing.labels[index]),
        speaker,
    )
