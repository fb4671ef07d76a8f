"""What the source files of a data set were when they were first read, and checks against that.

Two kinds of CSV files lie beside the prepared data of a set:

- the *ledger*, ``files-<key>.csv``, columns ``file`` (below the data root, with ``/``), ``bytes``
  and ``sha256``: every source file that any preset was ever made of, written when it is first
  prepared and only added to after. A file that is not what the ledger says stops a preparation.
  The key stands for the set and not for where the data root lies, so a copy of the recordings is
  held against the same ledger; except of sets with ``meta["collection"] = "root"``, whose files are
  anybody's: there every data root has a ledger of its own.
- the *manifest* of one prepared file, ``<preset>-<key>.csv``: its items, one per line, with label,
  split, groups, files and their hashes, and why an item was skipped. The prepared file holds the
  manifest's own hash.

Either can be given to a collaborator, who checks against it with ``--manifest``; so can any CSV
file with the columns of the ledger.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from neuroav.data import exclusive
from neuroav.data.plans import Item, Plan
from neuroav.errors import DataError

COLUMNS = ("file", "bytes", "sha256")
_MODALITIES = ("audio", "visual")
_BLOCK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Stamp(NamedTuple):
    """What a file was: its size (-1: not known) and the sha256 of its bytes, hex."""

    size: int
    sha256: str

    def is_of(self, other: Stamp) -> bool:
        """Whether both can be of the same bytes."""
        return self.sha256 == other.sha256 and (-1 in (self.size, other.size) or self == other)

    def __str__(self) -> str:
        size = "" if self.size < 0 else f"{self.size} bytes with "
        return f"{size}sha256 {self.sha256}"


class Seen(NamedTuple):
    """A file as it was when it was read: size, time of change in ns, sha256."""

    size: int
    changed_ns: int
    sha256: str

    @property
    def stamp(self) -> Stamp:
        """Size and hash."""
        return Stamp(self.size, self.sha256)

    def is_now(self, path: Path) -> bool:
        """Whether the file's size and time of change still are these."""
        return state(path) == self[:2]


class Changed(DataError):
    """A source file is not what a ledger or manifest says."""


@dataclass(frozen=True)
class Expected:
    """What files must be. stamps: by file. place: the list that says so. remedy: what to do."""

    stamps: Mapping[str, Stamp]
    place: str
    remedy: str

    def require(self, root: Path, file: str, found: Stamp | None) -> None:
        """Raise ``Changed`` if ``file`` is listed, and missing or something else was found."""
        wanted = self.stamps.get(file)
        if wanted is not None and found is None:
            raise Changed(
                f"{root / file} is missing: expected {wanted} ({self.place}); {self.remedy}"
            )
        if wanted is not None and found is not None and not wanted.is_of(found):
            raise Changed(
                f"{root / file} was changed, or is damaged: found {found}, expected {wanted} "
                f"({self.place}); {self.remedy}"
            )

    def require_all(self, found: Mapping[str, Stamp]) -> None:
        """Raise ``Changed`` for the first file that another list has as something else."""
        for file, stamp in found.items():
            self.require(Path(), file, stamp)

    def require_sizes(self, root: Path) -> None:
        """Raise ``Changed`` for a listed file that is missing or of another size; reads nothing."""
        for file, wanted in self.stamps.items():
            found = state(root / file)
            if found is None:
                self.require(root, file, None)
                continue
            size = found[0]
            if wanted.size not in (-1, size):
                raise Changed(
                    f"{root / file} was {'cut' if size < wanted.size else 'changed'}: found {size} "
                    f"bytes, expected {wanted} ({self.place}); {self.remedy}"
                )


def stamp(path: Path) -> Stamp:
    """Size and hash of a file, in constant memory. OSError where it cannot be read."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return Stamp(size, digest.hexdigest())


def seen(path: Path) -> Seen | None:
    """What a file is now, None where there is none. DataError where it cannot be read."""
    before = state(path)
    if before is None:
        return None
    try:
        found = stamp(path)
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err}") from None
    if state(path) != before:
        raise Changed(f"{path} was changed while it was read; try again")
    return Seen(*before, found.sha256)


def state(path: Path) -> tuple[int, int] | None:
    """Size and time of change (ns) of a file, None where there is none: tells a change apart."""
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err}") from None
    return found.st_size, found.st_mtime_ns


def seen_all(
    root: Path, files: Iterable[str], jobs: int, told: Callable[[int, int], None]
) -> dict[str, Seen | None]:
    """``seen`` of many files, on ``jobs`` threads: hashing lets other threads run."""
    from concurrent.futures import ThreadPoolExecutor

    files = list(files)
    found: dict[str, Seen | None] = {}
    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        try:
            for file, one in zip(
                files, pool.map(lambda file: seen(root / file), files), strict=True
            ):
                found[file] = one
                told(len(found), len(files))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return found


# --- the ledger --------------------------------------------------------------------------------
def ledger_path(path: Path, plan: Plan, root: Path) -> Path:
    """The ledger of the set that ``plan`` prepares from ``root`` into the file ``path``."""
    own = str(root.resolve()) if plan.meta.get("collection") == "root" else ""
    about = f"{plan.meta.get('name', '')}|{own}"
    return path.parent / f"files-{hashlib.sha256(about.encode()).hexdigest()[:16]}.csv"


def of_ledger(ledger: Path) -> Expected:
    """What the ledger says; nothing where there is none yet. DataError if it is no ledger."""
    try:
        stamps = read(ledger) if ledger.exists() else {}
    except DataError as error:
        raise DataError(
            f"{error}; it is damaged: delete it, then the next preparation writes it anew, of the "
            "files as they are then"
        ) from None
    return Expected(
        stamps,
        f"as first prepared, {ledger}",
        "copy it again from where it came from, or accept what is there now with "
        "--accept-changed (or by deleting that ledger)",
    )


def of_manifest(manifest: Path, files: Iterable[str]) -> Expected:
    """What a manifest says of ``files``, which it must list all; DataError otherwise."""
    listed, files = read(manifest), set(files)
    stamps = {file: one for file, one in listed.items() if file in files}
    missing = sorted(files - set(stamps))
    if missing:
        raise DataError(
            f"manifest {manifest} does not list {missing[0]}"
            + (f" and {len(missing) - 1} other files" if len(missing) > 1 else "")
            + ", of which the data set is made; is it of another data set or preset?"
        )
    return Expected(
        stamps, f"manifest {manifest}", "copy it again from where it came from, or use no manifest"
    )


def read(path: Path) -> dict[str, Stamp]:
    """The files that a ledger, or the manifest of a prepared file, lists.

    DataError naming the line where it is not one of them.
    """
    try:
        rows = csv.DictReader(
            io.StringIO(path.read_text(encoding="utf-8"), newline=""), strict=True
        )
        columns = set(rows.fieldnames or ())
        if set(COLUMNS) <= columns:
            found = [(_file(row["file"]), _stamp(row["bytes"], row["sha256"])) for row in rows]
        elif {"item", "split"} <= columns:
            found = [pair for row in rows for pair in _of_item(row)]
        else:
            raise ValueError(f"its columns are {', '.join(rows.fieldnames or ['none'])}")
    except (OSError, ValueError, TypeError, csv.Error) as err:
        raise DataError(
            f"{path} is no list of files with columns {', '.join(COLUMNS)}: {err}"
        ) from None
    stamps: dict[str, Stamp] = {}
    for file, one in found:
        if not stamps.setdefault(file, one).is_of(one):
            raise DataError(f"{path} lists {file} twice, as different files")
    return stamps


def _of_item(row: Mapping[str, str]) -> list[tuple[str, Stamp]]:
    return [
        (_file(row[m]), _stamp("-1", row[f"{m}_sha256"]))
        for m in _MODALITIES
        if row.get(m) and row.get(f"{m}_sha256")
    ]


def _file(text: str) -> str:
    place = PurePosixPath(text)
    if not text or place.is_absolute() or ".." in place.parts:
        raise ValueError(f"{text!r} is no file below a data root")
    return text


def _stamp(size: str, sha256: str) -> Stamp:
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256!r} is no sha256")
    return Stamp(int(size), sha256)


def record(ledger: Path, stamps: Mapping[str, Stamp], accept_changed: bool, root: Path) -> None:
    """Add ``stamps`` to the ledger. ``Changed`` where it says otherwise, unless that is accepted.

    With ``accept_changed`` files that are gone are taken off. A ledger that says it all already is
    left untouched.
    """

    def merged() -> dict[str, Stamp]:
        before = of_ledger(ledger)
        if not accept_changed:
            for file, found in stamps.items():
                before.require(root, file, found)
            return {**before.stamps, **stamps}
        kept = {f: s for f, s in before.stamps.items() if f in stamps or (root / f).is_file()}
        return {**kept, **stamps}

    if ledger.exists() and merged() == read(ledger):
        return
    with exclusive.replaced(ledger) as temporary:
        rows = [(file, s.size, s.sha256) for file, s in sorted(merged().items())]
        temporary.write_bytes(_csv([COLUMNS, *rows]))


# --- the manifest of a prepared file -----------------------------------------------------------
def manifest_path(path: Path) -> Path:
    """The manifest of the prepared file ``path``."""
    return path.with_suffix(".csv")


def manifest(
    items: Iterable[Item], stamps: Mapping[str, Stamp], skipped: Mapping[str, str]
) -> bytes:
    """The manifest of these items, CSV in UTF-8.

    Columns: item, label, split, skipped ('' or why), one per kind of group, and for audio and
    visual the file, the key in it, and the file's sha256 ('' where there is no such file).
    """
    items = list(items)
    kinds = sorted({kind for item in items for kind in item.groups})
    header = ["item", "label", "split", "skipped", *(f"group_{kind}" for kind in kinds)]
    header += [f"{m}{part}" for m in _MODALITIES for part in ("", "_key", "_sha256")]
    rows: list[list[object]] = [list(header)]
    for item in items:
        row: list[object] = [item.name, item.label, item.split, skipped.get(item.name, "")]
        row += [item.groups.get(kind, "") for kind in kinds]
        for m in _MODALITIES:
            source = item.sources.get(m)
            known = stamps.get(source.file) if source else None
            row += [source.file, source.key] if source else ["", ""]
            row.append(known.sha256 if known else "")
        rows.append(row)
    return _csv(rows)


def sha256(content: bytes) -> str:
    """The hash of a manifest, as the prepared file holds it, hex."""
    return hashlib.sha256(content).hexdigest()


def _csv(rows: Iterable[Iterable[object]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8")


def lists(meta: Mapping[str, Any]) -> dict[str, Stamp]:
    """The files that say what items there are, as ``Plan.meta`` states them."""
    return {file: Stamp(*stated) for file, stated in meta.get("lists", {}).items()}


def sources(items: Iterable[Item]) -> list[str]:
    """Every source file of the items once, in their order."""
    return list(dict.fromkeys(s.file for item in items for s in item.sources.values()))
