"""Write files whole or not at all, and seal HDF5 files so that damage is found before they open.

The HDF5 library trusts what it reads: one changed byte can end the process. A sealed file begins
with a user block of 512 bytes, which HDF5 readers skip: two lines of text, the second one the
sha256 of everything behind the block.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it on success, remove it on any failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


SEAL_BYTES = 512  # the smallest user block that HDF5 allows
_FIRST_LINE = b"NeuroAV sealed HDF5, sha256 of the bytes from 512 on:\n"


def seal(path: Path) -> None:
    """Write the seal into an HDF5 file that was made with ``userblock_size=SEAL_BYTES``."""
    line = _FIRST_LINE + _digest(path).encode() + b"\n"
    with open(path, "r+b") as file:
        file.write(line.ljust(SEAL_BYTES, b"\0"))


def seal_problem(path: Path) -> str | None:
    """Return why a file may not be opened as a sealed HDF5 file, or None if it may.

    Nothing is decoded. OSError where it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(SEAL_BYTES)
    if not head.startswith(_FIRST_LINE):
        kind = "HDF5 without a seal" if head.startswith(b"\x89HDF\r\n\x1a\n") else "no HDF5 file"
        return f"it is {kind}, so not written by neuroav, or cut"
    stated = head[len(_FIRST_LINE) :].split(b"\n")[0].decode("ascii", "replace")
    found = _digest(path)
    if found != stated:
        return (
            f"its bytes have sha256 {found[:12]}..., its seal says {stated[:12]}...: "
            "it was changed or damaged"
        )
    return None


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        file.seek(SEAL_BYTES)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
