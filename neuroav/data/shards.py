"""A shard of a plan: some items in a row, converted into one part file, and parts put together.

A part is a sealed file as ``neuroav.data.cache`` writes it, of the items of its shard alone. Its
``meta`` says what it was made of::

    fingerprint   of the plan (items, meta, converter, package versions, data root)
    files         file -> [bytes, time of change in ns, sha256], null for one that is not there
    skipped       item -> why
    forced        those of them that only --skip-broken skips

A part stays good while the fingerprint and its files stay the same. The prepared file depends on
the items' order alone: not on where shards begin, on the number of processes, nor on how often
the work was cut off.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.data import cache, ledger
from neuroav.data.cache import KINDS, SPLITS, Form, Recordings
from neuroav.data.ledger import Changed, Expected, Seen, Stamp
from neuroav.data.plans import Broken, Converted, Item, Plan
from neuroav.data.ragged import Ragged
from neuroav.errors import DataError, ExecutorError, FileFormatError

_LEAST_ITEMS, MOST_ITEMS = (
    2,
    64,
)  # in a shard: what a cut-off may cost, and what a process holds in memory
_WANTED_SHARDS = 64
_MODALITIES = ("audio", "visual")
_SKIPPABLE = (DataError, FileFormatError)


@dataclass(frozen=True, eq=False)
class Job:
    """What every process knows. shared: the files that several items are made of, read before any
    of them is converted (None: not there). expected: what files must be."""

    plan: Plan
    data_root: Path
    folder: Path
    fingerprint: str
    shared: Mapping[str, Seen | None]
    expected: tuple[Expected, ...]
    skip_broken: bool

    @property
    def size(self) -> int:
        """Items per shard, from the number of items only."""
        return min(max(len(self.plan.items) // _WANTED_SHARDS, _LEAST_ITEMS), MOST_ITEMS)

    @property
    def shards(self) -> range:
        """The numbers of the shards."""
        return range(-(-len(self.plan.items) // self.size))

    def items(self, shard: int) -> tuple[Item, ...]:
        """The items of a shard."""
        return self.plan.items[shard * self.size : (shard + 1) * self.size]

    def part(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / f"{shard:05d}.h5"


def fingerprint(plan: Plan, data_root: Path, made_with: Mapping[str, str]) -> str:
    """sha256 of everything that the parts of a plan depend on besides the files, hex."""
    items = [
        [i.name, i.label, i.split, {k: [s.file, s.key] for k, s in i.sources.items()}]
        for i in plan.items
    ]
    stated = [cache.VERSION, items, dict(plan.meta), _name(plan.convert), dict(made_with)]
    text = json.dumps([*stated, str(data_root.resolve())], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _name(convert: Callable[..., Any]) -> str:
    if isinstance(convert, partial):
        return f"{_name(convert.func)} {convert.args!r} {sorted(convert.keywords.items())!r}"
    return f"{convert.__module__}.{getattr(convert, '__qualname__', convert)}"


# --- one shard ---------------------------------------------------------------------------------
def convert(job: Job, shard: int, begun: Callable[[int], None]) -> None:
    """Convert the items of a shard and write their part, whole or not at all.

    begun: told the number of each item, from 1, before it. DataError or FileFormatError naming the
    file that an item cannot be made of; ``Changed`` for a file that is not what it must be.
    """
    kept: list[tuple[Item, Converted]] = []
    files: dict[str, Seen | None] = {}
    skipped: dict[str, str] = {}
    forced: list[str] = []
    for number, item in enumerate(job.items(shard), start=1):
        begun(number)
        found: dict[str, Seen | None] = dict.fromkeys(ledger.sources([item]))
        try:
            found |= _read(job, found)
            kept.append((item, _converted(job, item)))
            _require_same(job, found)
        except Changed:
            raise
        except Broken as error:
            skipped[item.name] = _reason(error, job.data_root)
        except _SKIPPABLE as error:
            if not job.skip_broken:
                raise
            skipped[item.name] = _reason(error, job.data_root)
            forced.append(item.name)
        files |= found
    meta = {"fingerprint": job.fingerprint, "files": files, "skipped": skipped, "forced": forced}
    _write(job.part(shard), _recordings(kept, meta))


def _write(path: Path, part: Recordings) -> None:
    temporary = path.with_name(f".{path.name}")
    try:
        cache.write_recordings(temporary, part, {})
        os.replace(temporary, path)
    except OSError as err:
        raise DataError(f"cannot write {path}: {err}") from None


def _read(job: Job, files: Iterable[str]) -> dict[str, Seen | None]:
    """Hash an item's files, which the conversion then finds in the system's memory."""
    found = {}
    for file in files:
        path = job.data_root / file
        one = job.shared[file] if file in job.shared else ledger.seen(path)
        for expected in job.expected:
            expected.require(job.data_root, file, one and one.stamp)
        found[file] = one  # None: the conversion says why that is no error, or raises one
    return found


def _require_same(job: Job, found: Mapping[str, Seen | None]) -> None:
    for file, one in found.items():
        path = job.data_root / file
        if one is None:
            raise DataError(f"{path} is missing")
        if not one.is_now(path):
            raise Changed(f"{path} was changed while it was read; try again")


def _converted(job: Job, item: Item) -> Converted:
    files = ledger.sources([item])
    try:
        return _checked(job.plan.convert(job.data_root, item))
    except Broken:
        raise
    except _SKIPPABLE as error:
        if any(file in str(error) for file in files):
            raise
        raise type(error)(f"{job.data_root}, {', '.join(files)}: {error}") from None
    except OSError as error:
        raise DataError(f"{job.data_root}, {', '.join(files)}: {error}") from None
    except MemoryError:
        raise ExecutorError(
            f"{job.data_root}, {', '.join(files)}: there is too little memory to convert item "
            f"{item.name!r}; use fewer --jobs"
        ) from None


def _reason(error: Exception, data_root: Path) -> str:
    """Why an item is skipped, in words that do not depend on where the data root lies."""
    return " ".join(str(error).split()).replace(f"{data_root}/", "")


def _checked(made: Converted) -> Converted:
    """The same with arrays of allowed kinds; DataError for columns of unequal length."""
    for modality in _MODALITIES:
        columns = getattr(made, modality)
        if columns is not None and len({len(column) for column in columns.values()}) != 1:
            raise DataError(f"its {modality} columns are none, or of unequal length")
    for name, array in _arrays(made):
        if np.asarray(array).dtype.kind not in KINDS:
            raise DataError(f"its {name} is of {np.asarray(array).dtype}: no numbers or bytes")
    return made


def _arrays(made: Converted) -> Iterator[tuple[str, np.ndarray]]:
    for modality in _MODALITIES:
        for name, column in (getattr(made, modality) or {}).items():
            yield f"{modality}/{name}", np.asarray(column)[:1]
    for name, fact in made.source.items():
        yield f"source/{name}", np.asarray(fact)[None]


def _recordings(kept: list[tuple[Item, Converted]], meta: dict[str, Any]) -> Recordings:
    """The items of one shard as recordings."""
    seen: dict[str, Form] = {}
    for item, made in kept:
        _agree(seen, {n: Form(a.dtype, a.shape[1:]) for n, a in _arrays(made)}, item.name)

    def ragged(modality: str) -> Ragged | None:
        parts = [c for _, made in kept if (c := getattr(made, modality)) is not None]
        if not parts:
            return None
        counts = [len(next(iter(part.values()))) for part in parts]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return Ragged(columns, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))

    source = {}
    if kept:
        source = {k: np.stack([made.source[k] for _, made in kept]) for k in kept[0][1].source}
        source["name"] = np.array([item.name.encode() for item, _ in kept])
    return Recordings(
        ragged("audio"),
        ragged("visual"),
        np.array([item.label for item, _ in kept], np.int64),
        np.array([SPLITS.index(item.split) for item, _ in kept], np.uint8),
        meta,
        source,
    )


def _agree(seen: dict[str, Form], found: Mapping[str, Form], item: str) -> None:
    """Require the arrays of an item to be those of the items before; byte strings may grow."""
    if not seen:
        seen.update(found)
    if seen.keys() != found.keys():
        names = ", ".join(sorted(seen.keys() ^ found.keys()))
        raise DataError(f"item {item!r}: {names} is there for some items, for others not")
    for name, form in found.items():
        before = seen[name]
        texts = form.dtype.kind == before.dtype.kind == "S"
        if form.shape != before.shape or not (texts or form.dtype == before.dtype):
            raise DataError(
                f"item {item!r}: {name} holds {form.dtype} {form.shape}, of the items before it "
                f"{before.dtype} {before.shape}"
            )
        if texts and form.dtype.itemsize > before.dtype.itemsize:
            seen[name] = form


# --- parts that are there already --------------------------------------------------------------
def is_good(job: Job, shard: int) -> bool:
    """Whether a part is whole, of this plan, and of files as they are now."""
    path = job.part(shard)
    if not path.exists():
        return False
    try:
        meta = cache.read(path, "").meta
    except DataError:
        return False
    if meta.get("fingerprint") != job.fingerprint or (meta["forced"] and not job.skip_broken):
        return False
    return all(_is_same(job, file, found) for file, found in meta["files"].items())


def _is_same(job: Job, file: str, found: list[Any] | None) -> bool:
    """Whether a file is what a part says it was. A file of several items was just read anew."""
    path, before = job.data_root / file, None if found is None else Seen(*found)
    if before is None:
        return ledger.state(path) is None
    try:
        for expected in job.expected:
            expected.require(job.data_root, file, before.stamp)
    except Changed:  # the conversion reads it again, and says so
        return False
    if file in job.shared:
        now = job.shared[file]
        return now is not None and now.stamp == before.stamp
    return before.is_now(path)


# --- all of them -------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Merged:
    """What the parts hold together. forms: of every array of the prepared file. small: those made
    here, offsets and meta. stamps: of every file. skipped: item -> why. forced: those of them that
    only --skip-broken skips."""

    forms: dict[str, Form]
    small: dict[str, np.ndarray]
    stamps: dict[str, Stamp]
    skipped: dict[str, str]
    forced: list[str]


def survey(job: Job) -> Merged:
    """Read what the parts hold, without their events. DataError where nothing is left."""
    seen: dict[str, Form] = {}
    counts: dict[str, list[np.ndarray]] = {m: [] for m in _MODALITIES}
    stamps: dict[str, Stamp] = {}
    skipped: dict[str, str] = {}
    forced: list[str] = []
    items = 0
    for shard in job.shards:
        part = cache.read(job.part(shard), "run the same command again", verify=False)
        skipped |= part.meta["skipped"]
        forced += part.meta["forced"]
        stamps |= {f: Seen(*s).stamp for f, s in part.meta["files"].items() if s is not None}
        if not len(part.labels):
            continue
        items += len(part.labels)
        arrays = _per_item(part) | _per_event(part)
        _agree(seen, {n: Form(a.dtype, a.shape[1:]) for n, a in arrays.items()},
               job.items(shard)[0].name)  # fmt: skip
        for modality in _MODALITIES:
            if (events := getattr(part, modality)) is not None:
                counts[modality].append(events.counts)
    if not items:
        first = next(iter(skipped.items()), ("", "the plan has no items"))
        raise DataError(f"nothing is left of {len(skipped)} items: {first[0]} {first[1]}")
    offsets = {f"{m}/offsets": _offsets(found) for m, found in counts.items() if found}
    meta = {**job.plan.meta, "skipped": skipped, **({"forced": forced} if forced else {})}
    text = json.dumps(meta, sort_keys=True)
    small = {**offsets, "meta": np.frombuffer(text.encode(), np.uint8)}
    forms = {
        name: Form(form.dtype, (_entries(name, offsets, items), *form.shape))
        for name, form in seen.items()
    }
    forms |= {name: Form(array.dtype, array.shape) for name, array in small.items()}
    return Merged(forms, small, stamps, skipped, forced)


def _offsets(counts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)


def _entries(name: str, offsets: Mapping[str, np.ndarray], items: int) -> int:
    of_events = offsets.get(f"{name.partition('/')[0]}/offsets")
    return items if of_events is None else int(of_events[-1])


def _per_event(part: Recordings) -> dict[str, np.ndarray]:
    both = {m: getattr(part, m) for m in _MODALITIES}
    return {f"{m}/{n}": c for m, e in both.items() if e is not None for n, c in e.columns.items()}


def _per_item(part: Recordings) -> dict[str, np.ndarray]:
    facts = {f"source/{name}": array for name, array in part.source.items()}
    return {"labels": part.labels, "split": part.split, **facts}


def pour(job: Job, merged: Merged, put: cache.Put, told: Callable[[int, int], None]) -> None:
    """Write the parts with ``put``, one after the other: no more than one is in memory."""
    for name, array in merged.small.items():
        put(name, 0, array)
    place = dict.fromkeys(merged.forms, 0)
    for shard in job.shards:
        part = cache.read(job.part(shard), "run the same command again", verify=False)
        if len(part.labels):
            for name, array in (_per_item(part) | _per_event(part)).items():
                put(name, place[name], array)
                place[name] += len(array)
        told(shard + 1, len(job.shards))
