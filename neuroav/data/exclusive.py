"""One process at a time: a working folder beside the file that is to be made.

The folder ``<file>.parts/`` holds what is not finished yet. Who works in it holds a lock (flock) on
``lock`` inside, which the system takes back however that process ends, so a folder that a killed
process left is free at once. Processes started to help hold ``workers`` shared, and a newcomer
waits for those of a predecessor that was killed: what they write late can never meet what the
newcomer writes. An empty folder is removed by the one who leaves it.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from neuroav.errors import DataError

LOCK, WORKERS = "lock", "workers"
_PAUSE_S = 0.05  # between two looks at a lock that another holds


def parts_folder(path: Path) -> Path:
    """The working folder of the file ``path``."""
    return path.with_name(path.name + ".parts")


@contextmanager
def alone(folder: Path, waiting: Callable[[], None] | None = None) -> Iterator[bool]:
    """Make ``folder`` and be the only one in it; yield whether another had to be waited for.

    waiting: called now and then while another process is in it. DataError where the file system
    has no locks; OSError where the folder cannot be made.
    """
    handle, waited = _locked(folder, LOCK, waiting)
    try:
        os.close(_locked(folder, WORKERS, waiting)[0])  # helpers of one that was killed have left
        yield waited
    finally:
        with suppress(OSError):
            if not content(folder):
                for name in (WORKERS, LOCK):
                    (folder / name).unlink(missing_ok=True)
                folder.rmdir()
        os.close(handle)


def join_workers(folder: Path) -> int:
    """Be known as a helper in ``folder`` until this process ends; the open file, kept for that."""
    handle = os.open(folder / WORKERS, os.O_RDWR | os.O_CREAT, 0o644)
    _flock(handle, fcntl.LOCK_SH, folder)
    return handle


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield the path of a file to write; it takes the place of ``path`` when complete.

    Whatever stops the writing, ``path`` is either as it was or complete; only a kill leaves a
    working folder, which the next one clears. Two processes take turns.
    """
    folder = parts_folder(path)
    temporary = folder / f"whole{path.suffix}"
    with alone(folder):
        clear(folder)
        try:
            yield temporary
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                clear(folder)


def content(folder: Path) -> set[str] | None:
    """The names of the files in a working folder besides the locks, None where there is none."""
    try:
        return set(os.listdir(folder)) - {LOCK, WORKERS}
    except (FileNotFoundError, NotADirectoryError):
        return None


def clear(folder: Path, keep: frozenset[str] = frozenset()) -> None:
    """Remove the files of a working folder except those that ``keep`` names, and the locks."""
    for name in (content(folder) or set()) - keep:
        (folder / name).unlink()


def _locked(folder: Path, name: str, waiting: Callable[[], None] | None) -> tuple[int, bool]:
    """The open and locked file, and whether it was another's before."""
    waited = False
    while (handle := _attempt(folder, name)) is None:
        waited = True
        if waiting is not None:
            waiting()
        time.sleep(_PAUSE_S)
    return handle, waited


def _attempt(folder: Path, name: str) -> int | None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:  # whoever was here before has just removed the folder
        return None
    try:
        _flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, folder)
        # Its last owner may have removed the file that was opened here.
        if os.path.samestat(os.fstat(handle), os.stat(path)):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


def _flock(handle: int, how: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, how)
    except BlockingIOError:
        raise
    except OSError as err:
        raise DataError(
            f"cannot lock a file in {folder} ({err}): its file system has no locks; "
            "choose a folder on another (--cache-dir, or --resume of simulate)"
        ) from None
