"""Carry out a plan: convert its items, in several processes, so that a cut-off can go on.

The items are cut into shards, whose number depends on the number of items only. Each is converted
into a sealed part file in ``<file>.parts/`` (``neuroav.data.shards``). When all are there they are
poured, in order, into the one prepared file, which is sealed and renamed into its place; the parts
are then removed. So the file is there whole or not at all, and what was converted before a cut-off
of any kind is converted once. Its bytes are the same whatever the number of processes and the
cut-offs. Of two processes that prepare the same file one waits and takes what the other made.

Every source file is hashed: one that several items are made of beforehand, so that nothing of an
altered container is ever parsed; any other by the process that converts it, just before it does,
so that the conversion finds it in the system's memory and the disk reads it once. The hashes are
held against the ledger (``neuroav.data.ledger``), or begin it.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from neuroav.data import cache, checking, exclusive, ledger, shards, workers
from neuroav.data.ledger import Expected
from neuroav.data.plans import Plan
from neuroav.data.shards import Job
from neuroav.errors import DataError

Progress = Callable[[str, int, int], None]

_WHOLE = "whole.h5"  # the prepared file before it is in its place
_DONE = "done"  # made before that; without ``_WHOLE`` beside it, it says that nothing is left to do


def carry_out(
    plan: Plan,
    data_root: Path,
    path: Path,
    made_with: dict[str, str],
    *,
    jobs: int = 1,
    skip_broken: bool = False,
    progress: Progress | None = None,
    accept_changed: bool = False,
    manifest: Path | None = None,
) -> None:
    """Convert every item of ``plan`` and write the prepared file ``path`` with its manifest.

    jobs: processes that convert. skip_broken: list an item that cannot be read under
    ``meta["skipped"]``, as those known to be broken are, instead of ending. accept_changed: files
    that are not what the ledger says are taken as they are, and the ledger follows. manifest: a
    list that all files must be on, see ``neuroav.data.ledger``. ``progress(stage, done, total)``
    with the stages wait, hash, convert, merge.

    DataError, FileFormatError: a file is missing, damaged or changed, or the folder cannot be
    written; what is converted already is kept for the next call. ExecutorError, naming the item,
    where its conversion ends processes again and again.
    """
    report = progress or (lambda stage, done, total: None)
    before = ledger.state(path)
    waiting = partial(report, "wait, another process prepares the same", 0, 1)
    try:
        with exclusive.alone(exclusive.parts_folder(path), waiting) as waited:
            if waited and ledger.state(path) not in (None, before) and _suits(path, skip_broken):
                if manifest is not None:
                    checking.require_listed(path, manifest)
                return
            expected = _expected(plan, data_root, path, accept_changed, manifest)
            _prepare(
                plan,
                data_root,
                path,
                made_with,
                expected,
                jobs,
                skip_broken,
                accept_changed,
                report,
            )
    except OSError as err:
        raise DataError(f"cannot write the data cache {path}: {err}") from err


def _suits(path: Path, skip_broken: bool) -> bool:
    """Whether a prepared file lacks nothing but what is to be left out."""
    return skip_broken or not cache.read(path, "run again with --force", verify=False).meta.get(
        "forced"
    )


def _expected(
    plan: Plan, root: Path, path: Path, accept_changed: bool, manifest: Path | None
) -> tuple[Expected, ...]:
    """What the files must be, after a first look at their sizes."""
    files = [*ledger.sources(plan.items), *ledger.lists(plan.meta)]
    found = []
    own = ledger.of_ledger(ledger.ledger_path(path, plan, root))  # also tells a damaged one
    if not accept_changed:
        found.append(own)
    if manifest is not None:
        found.append(ledger.of_manifest(manifest, files))
    for expected in found:
        expected.require_sizes(root)
    return tuple(found)


def _prepare(
    plan: Plan,
    root: Path,
    path: Path,
    made_with: dict[str, str],
    expected: tuple[Expected, ...],
    jobs: int,
    skip_broken: bool,
    accept_changed: bool,
    report: Progress,
) -> None:
    folder = exclusive.parts_folder(path)
    shared = ledger.seen_all(root, _shared(plan), jobs, partial(report, "hash"))
    read = {file: one and one.stamp for file, one in shared.items()} | ledger.lists(plan.meta)
    for file, stamp in read.items():
        for wanted in expected:
            wanted.require(root, file, stamp)
    stated = shards.fingerprint(plan, root, made_with)
    job = Job(plan, root, folder, stated, shared, expected, skip_broken)
    good = [shard for shard in job.shards if shards.is_good(job, shard)]
    parts = frozenset(job.part(shard).name for shard in job.shards)
    exclusive.clear(folder, keep=frozenset(job.part(shard).name for shard in good))
    left = sorted(set(job.shards) - set(good))
    told = _Told(job, good, report)
    try:
        workers.carry_out(partial(shards.convert, job), left, jobs, folder, told)
        _merge(job, path, made_with, accept_changed, partial(report, "merge"))
    except BaseException:
        exclusive.clear(folder, keep=parts)
        raise
    exclusive.clear(folder, keep=frozenset({_DONE}))
    exclusive.clear(folder)


def _shared(plan: Plan) -> Iterable[str]:
    """The files that several items are made of."""
    uses = Counter(file for item in plan.items for file in ledger.sources([item]))
    return [file for file, count in uses.items() if count > 1]


def _merge(
    job: Job,
    path: Path,
    made_with: dict[str, str],
    accept_changed: bool,
    told: Callable[[int, int], None],
) -> None:
    """Put the parts together into ``path``, beside its manifest and the ledger."""
    merged = shards.survey(job)
    manifest = ledger.manifest(job.plan.items, merged.stamps, merged.skipped)
    whole, listed = job.folder / _WHOLE, job.folder / "whole.csv"
    attributes = {
        "made_with": json.dumps(made_with, sort_keys=True),
        "manifest": ledger.sha256(manifest),
    }
    cache.write(whole, merged.forms, lambda put: shards.pour(job, merged, put, told), attributes)
    listed.write_bytes(manifest)
    # What could not be read is no truth to hold later copies against.
    good = (item for item in job.plan.items if item.name not in merged.forced)
    true = {file: merged.stamps[file] for file in ledger.sources(good) if file in merged.stamps}
    # The prepared file comes last: where it is, the others are.
    ledger.record(
        ledger.ledger_path(path, job.plan, job.data_root),
        true | ledger.lists(job.plan.meta),
        accept_changed,
        job.data_root,
    )
    os.replace(listed, ledger.manifest_path(path))
    (job.folder / _DONE).touch()
    os.replace(whole, path)


def tidy(path: Path) -> None:
    """Remove the working folder of a kill that came after the prepared file was complete.

    Parts of one that is not complete stay.
    """
    folder = exclusive.parts_folder(path)

    def is_over() -> bool:
        there = exclusive.content(folder)
        return there is not None and (not there or (_DONE in there and _WHOLE not in there))

    if is_over():
        with exclusive.alone(folder):
            if is_over():
                exclusive.clear(folder)


class _Told:
    """Count what the workers tell, and report items done of all and items per second."""

    def __init__(self, job: Job, good: Iterable[int], report: Progress) -> None:
        self._job, self._report = job, report
        self._total = len(job.plan.items)
        self._kept = self._done = sum(len(job.items(shard)) for shard in good)
        self._under_way: dict[int, int] = {}
        self._lost = 0
        self._start = time.monotonic()

    def begun(self, piece: int, items: int) -> None:
        """So many items of a shard are begun, so those before the last are done."""
        self._under_way[piece] = max(items - 1, 0)
        self._tell()

    def done(self, piece: int) -> None:
        """A shard is done."""
        self._under_way.pop(piece, None)
        self._done += len(self._job.items(piece))
        self._tell()

    def died(self, piece: int) -> None:
        """A process died at a shard, which begins anew."""
        self._under_way.pop(piece, None)
        self._lost += 1
        self._tell()

    def item(self, piece: int, number: int) -> str:
        """The name of the n-th item of a shard, from 1; of the first where none is begun."""
        return self._job.items(piece)[max(number, 1) - 1].name

    def _tell(self) -> None:
        done = self._done + sum(self._under_way.values())
        rate = (done - self._kept) / max(time.monotonic() - self._start, 1e-9)
        lost = f", {self._lost} processes died and were replaced" if self._lost else ""
        self._report(f"convert, {rate:.3g} items/s{lost}", done, self._total)
