"""Check prepared data and the files it was made of against the hashes written down for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from neuroav.data import cache, ledger
from neuroav.data.ledger import Expected, Stamp
from neuroav.errors import DataError

Progress = Callable[[str, int, int], None]
_REMEDY = (
    "copy it again from where it came from, or take it as it is: prepare the set with "
    "--accept-changed"
)
_AT_ONCE = 64  # files per request, so that progress is seen and memory is bounded


def check(
    path: Path,
    remedy: str,
    data_root: Path | None,
    *,
    shipped: Path | None,
    manifest: Path | None,
    planned: bool,
    jobs: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Hash the prepared file ``path``, its manifest, and with ``data_root`` the source files.

    shipped: a list of files that is part of this package, for sets that have one. planned: whether
    the set has a manifest beside its prepared file. manifest: another list to hold it against.
    Returns file, bytes, content_hash, sources (files hashed, None if none were), and problems: one
    line for everything that is not as it was.
    """
    report = progress or (lambda stage, done, total: None)
    problems: list[str] = []
    found: dict[str, Any] = {"file": path, "bytes": path.stat().st_size, "content_hash": None}
    listed: dict[str, Stamp] = {}
    place = path if shipped is None else shipped
    report("cache", 0, 1)
    try:
        found["content_hash"] = cache.read(path, remedy).content_hash
        if planned:
            place = ledger.manifest_path(path)
            listed = _own_manifest(path, remedy)
            listed |= ledger.lists(cache.read(path, remedy, verify=False).meta)
        elif shipped is not None:
            listed = ledger.read(shipped)
        if manifest is not None:
            ledger.of_manifest(manifest, listed).require_all(listed)
    except DataError as error:
        problems.append(str(error))
    report("cache", 1, 1)
    sources = None
    if data_root is not None and listed:
        expected = Expected(listed, str(place), _REMEDY)
        problems += _altered(data_root, expected, jobs, report)
        sources = len(listed)
    return {**found, "sources": sources, "problems": problems}


def _own_manifest(path: Path, remedy: str) -> dict[str, Stamp]:
    """The files of the manifest beside ``path``; DataError where it is not the one written then."""
    place = ledger.manifest_path(path)
    try:
        content = place.read_bytes()
    except OSError as err:
        raise DataError(f"manifest {place} cannot be read ({err.strerror}); {remedy}") from None
    if ledger.sha256(content) != cache.attribute(path, "manifest"):
        raise DataError(f"manifest {place} is not the one that was written with {path}; {remedy}")
    return ledger.read(place)


def require_listed(path: Path, manifest: Path) -> None:
    """Require the files that ``path`` was made of to be those of ``manifest``; nothing is hashed.

    DataError naming the first that is not.
    """
    remedy = "run: neuroav data prepare NAME --force"
    own = _own_manifest(path, remedy) | ledger.lists(cache.read(path, remedy, verify=False).meta)
    ledger.of_manifest(manifest, own).require_all(own)


def _altered(root: Path, expected: Expected, jobs: int, report: Progress) -> Iterable[str]:
    """One line for every file that is not what is expected."""
    files = sorted(expected.stamps)
    for start in range(0, len(files), _AT_ONCE):
        some = files[start : start + _AT_ONCE]
        found: Mapping[str, Any]
        try:
            found = ledger.seen_all(root, some, jobs, lambda done, total: None)
        except DataError:  # one of them cannot be read: find out which
            found = {}
        for file in some:
            try:
                one = found[file] if file in found else ledger.seen(root / file)
                expected.require(root, file, one and one.stamp)
            except DataError as error:
                yield str(error)
        report("hash", start + len(some), len(files))
