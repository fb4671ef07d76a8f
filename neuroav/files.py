"""Write files whole or not at all, and seal HDF5 files so that damage is found before they open.

The HDF5 library trusts what it reads: one changed byte can end the process. A sealed file begins
with a user block of 512 bytes, which HDF5 readers skip: two lines of text, the second one the
sha256 of everything behind the block. A *note*, text that is no part of what the file holds, makes
the user block longer: it lies between the seal and the HDF5 data, which stay as they are.
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


_HDF5 = b"\x89HDF\r\n\x1a\n"
_NOTE_LINE = b"NeuroAV note, UTF-8 text up to the first zero byte:\n"


def _hdf5_starts(data: bytes) -> int:
    """Return where HDF5 begins: at 512 times a power of two, where its readers look too."""
    start = SEAL_BYTES
    while start < len(data):
        if data.startswith(_HDF5, start):
            return start
        start *= 2
    raise ValueError("no HDF5 data behind its user block")


def note(path: Path) -> str | None:
    """Return the note of a sealed file, None where it has none; ValueError where it is no text."""
    data = path.read_bytes()
    block = data[SEAL_BYTES : _hdf5_starts(data)]
    if not block:
        return None
    if not block.startswith(_NOTE_LINE):
        raise ValueError("its user block holds no note of ours")
    text, _, rest = block[len(_NOTE_LINE) :].partition(b"\0")
    if rest.strip(b"\0"):
        raise ValueError("its note does not end where it says")
    return text.decode("utf-8")


def with_note(path: Path, text: str, out: Path) -> None:
    """Write the sealed file ``path`` to ``out`` with this note instead of its own, sealed."""
    data = path.read_bytes()
    start, block = SEAL_BYTES, _NOTE_LINE + text.encode("utf-8") + b"\0"
    while start < SEAL_BYTES + len(block):
        start *= 2
    whole = block.rjust(SEAL_BYTES + len(block), b"\0").ljust(start, b"\0")
    out.write_bytes(whole + data[_hdf5_starts(data) :])
    seal(out)
