"""The text header of AEDAT files, and where it ends.

A header line begins with '#' and ends with CR LF or LF. The first one may be the version line
``#!AER-DATx.y``; without it the file is of version 1.0. Version 3.1 ends its header with
``#!END-HEADER``; jAER ends those of 1.0 and 2.0 with ``#End Of ASCII Header``, but not in older
files. Without such a line the header ends before the first line that is none, and a first record
that begins with the byte 0x23, which is '#', looks like one (in 1.0 every event of row 35 does).

The rule for what begins with '#' in 1.0 and 2.0:

- text up to a line end is a header line; text is UTF-8 without control characters but tabs;
- with a control character in the first two records' length it is data: the first byte of a time
  is 0 in the first 16 s of a recording, and below 0x20 in its first 536 s;
- a line shorter than a record, with no further '#' behind it, is text or not, and the file's length
  tells: records are whole, so it is data where the rest is a whole number of records with it but
  not without;
- anything else is refused. Nothing is guessed.

Source: iniVation, "AEDAT file formats" (docs.inivation.com, file-formats), 1.0 to 3.1.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from neuroav.data.formats.events import damaged

MAX_LINE = 1 << 16
MAX_HEADER = 1 << 22
MAX_LINES = 1 << 14
RECORD = {"1.0": 6, "2.0": 8}
END_31 = b"#!END-HEADER"
END_JAER = "#end of ascii header"
_VERSION = re.compile(rb"#!AER-DAT(\d+\.\d+)\r?\n")
_CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")  # all but tab and line feed


@dataclass(frozen=True)
class Header:
    """version: '1.0' to '3.1'. lines: without '#' and line end. start: byte the data begins at."""

    version: str
    lines: tuple[str, ...]
    start: int

    def value(self, key: str) -> str | None:
        """Return what follows ``key:`` in the first line that begins so, None without one."""
        for line in self.lines:
            name, colon, text = line.partition(":")
            if colon and name.strip() == key:
                return text.strip()
        return None


def read_header(file: BufferedReader, path: Path) -> Header:
    """Return the header of a file that is at its beginning; FileFormatError where it is damaged."""
    total = file.seek(0, 2)
    file.seek(0)
    first = file.readline(64)
    version = _version(first, path)
    if version is None:
        version = "1.0"
        file.seek(0)
    lines: list[str] = []
    while not (version == "3.1" and lines and lines[-1] == END_31[1:].decode()):
        start = file.tell()
        line = file.readline(MAX_LINE)
        followed = file.peek(1)[:1] == b"#"
        if not _is_header_line(line, version, start, total, followed, path):
            return Header(version, tuple(lines), start)
        lines.append(line.decode("utf-8").rstrip("\r\n")[1:])
        if len(lines) > MAX_LINES or file.tell() > MAX_HEADER:
            raise damaged(path, start, f"a header of more than {len(lines) - 1} lines",
                          f"{MAX_LINES} lines and {MAX_HEADER} bytes",
                          "take its preferences out of the header")  # fmt: skip
        if f"#{lines[-1].lstrip()}".lower() == END_JAER and version in RECORD:
            break
    return Header(version, tuple(lines), file.tell())


def _version(line: bytes, path: Path) -> str | None:
    if not line.startswith(b"#!AER-DAT"):
        return None
    found = _VERSION.fullmatch(line)
    version = found[1].decode() if found else None
    if version in ("1.0", "2.0", "3.0", "3.1"):
        return version
    if version == "4.0":
        raise damaged(path, 0, "AEDAT 4.0", "AEDAT 1.0, 2.0, 3.0 and 3.1",
                      "read it with dv-processing of iniVation and store its events as .npy "
                      "(columns x, y, p, time)")  # fmt: skip
    raise damaged(path, 0, f"version line {line!r}", "#!AER-DAT1.0, 2.0, 3.0 or 3.1 and a line end",
                  "fetch the file again")  # fmt: skip


def _is_header_line(
    line: bytes, version: str, start: int, total: int, followed: bool, path: Path
) -> bool:
    """followed: the next byte of the file is a '#', too."""
    record = RECORD.get(version)
    if not line.startswith(b"#"):
        if version == "3.1":
            raise damaged(path, start, f"{line[:12]!r}", f"header lines up to {END_31.decode()}",
                          "fetch the file again")  # fmt: skip
        return False
    if _VERSION.match(line) and start:
        raise damaged(path, start, f"a second version line {line[:16]!r}", "one, the first line",
                      "fetch the file again")  # fmt: skip
    ends = line.endswith(b"\n")
    if record and ends and not followed and _is_record(line, record, total - start):
        return False
    text = line.removesuffix(b"\n").removesuffix(b"\r")
    control = _CONTROL.search(text)
    if ends and control is None and _is_utf8(text):
        return True
    if record and control is not None and control.start() < 2 * record:
        return False
    what = f"control character {control[0]!r}" if control else "text that is not UTF-8"
    what = what if ends or control else f"{min(len(line), MAX_LINE)} characters without a line end"
    raise damaged(path, start, f"a line that begins with '#' but holds {what}",
                  f"header lines of text, at most {MAX_LINE} characters and a line end each",
                  "fetch the file again, or mend this line of its header")  # fmt: skip


def _is_record(line: bytes, record: int, left: int) -> bool:
    """Whether a line as short as this begins a record, by the ``left`` bytes from it on."""
    return len(line) < record and left % record == 0 and (left - len(line)) % record != 0


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
