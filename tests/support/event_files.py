"""Files of events for tests and benchmarks: random events, sound files, and damaged ones."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.data.formats import aedat, nmnist, slayer
from neuroav.data.formats.events import DTYPES, MNIST_DVS, Events, open_events
from neuroav.errors import DataError, FileFormatError

Rng = np.random.Generator


def random_events(
    rng: Rng, count: int, size: tuple[int, int] = (128, 128), last: int = 3_000_000
) -> Events:
    """Events in order of time up to ``last`` us on a sensor of (width, height)."""
    return {
        "x": rng.integers(0, size[0], count).astype(np.uint16),
        "y": rng.integers(0, size[1], count).astype(np.uint16),
        "p": rng.integers(0, 2, count).astype(np.uint8),
        "time": np.sort(rng.integers(0, last + 1, count)).astype(np.int64),
    }


def packet(kind: int, body: bytes, number: int, /, **changed: int) -> bytes:
    """A packet of AEDAT 3.1 of ``number`` events; ``changed`` fields of its header by name."""
    form = {"kind": kind, "source": 1, "size": len(body) // max(number, 1), "time_offset": 4}
    form |= {"overflow": 0, "capacity": number, "number": number, "valid": number} | changed
    return struct.pack("<hhiiiiii", *form.values()) + body


def polarity(*events: tuple[int, int, int, int], valid: int = 1) -> bytes:
    """Polarity events of AEDAT 3.1, each x, y, p, time."""
    return b"".join(
        struct.pack("<Ii", x << 17 | y << 2 | p << 1 | valid, t) for x, y, p, t in events
    )


# --- sound files --------------------------------------------------------------------------------
@dataclass(frozen=True)
class Kind:
    """A format under test. name: of a file of it. options: how it is opened."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


KINDS = {
    "aedat1": Kind("m.aedat", {"orientation": "mnist-dvs"}),
    "aedat2": Kind("m.aedat", {"orientation": "inivation"}),
    "aedat3": Kind("m.aedat"),
    "nmnist": Kind("m.bin", {"sensor": (34, 34)}),
    "bs1": Kind("m.bs1"),
    "npy": Kind("m.npy", {"orientation": "as-stored"}),
    "npy-columns": Kind(
        "m.npy", {"orientation": "as-stored", "columns": ("time", "", "x", "y", "p")}
    ),
}


def sound_files(kind: str, folder: Path, rng: Rng) -> list[bytes]:
    """Files of a format that are read without an error, from a few bytes to some 20 KB."""
    path = folder / KINDS[kind].name
    makers = {
        "aedat1": _aedat1,
        "aedat2": _aedat2,
        "aedat3": _aedat3,
        "nmnist": _nmnist,
        "bs1": _bs1,
        "npy": _structured,
        "npy-columns": _columns,
    }
    found = []
    for count in (1, 2, 17, 200, 2000):
        for make in makers[kind](count):
            make(path, rng)
            found.append(path.read_bytes())
    path.unlink()
    return found


def _aedat1(count: int) -> list[Any]:
    def bare(path: Path, rng: Rng) -> None:
        events = random_events(rng, count)
        path.write_bytes(b"".join(
            struct.pack(">HI", int(y) << 8 | int(x) << 1 | int(p), int(t))
            for x, y, p, t in zip(*(events[name] for name in DTYPES), strict=True)
        ))  # fmt: skip

    def headed(path: Path, rng: Rng) -> None:
        events = random_events(rng, count, last=1 << 31)
        aedat.write_aedat1(path, events, [" a recording", ""], orientation=MNIST_DVS)

    return [bare, headed]


def _aedat2(count: int) -> list[Any]:
    def dvs(path: Path, rng: Rng) -> None:
        events = random_events(rng, count)
        aedat.write_aedat2(path, events, [" created by a test"], orientation=MNIST_DVS)

    def davis(path: Path, rng: Rng) -> None:
        addresses = rng.integers(0, 1 << 32, count, dtype=np.uint32) & 0xFFFFFC00
        y, x = addresses >> 22 & 0x1FF, addresses >> 12 & 0x3FF
        inside = (y < 180) & (x < 240) | (addresses >> 31 == 1) | (addresses >> 10 & 1 == 1)
        times = np.sort(rng.integers(0, 1 << 32, count, dtype=np.uint32))
        pairs = np.stack([np.where(inside, addresses, 0), times], axis=1).astype(">u4")
        header = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n"
        path.write_bytes(header + b"#End Of ASCII Header\r\n" + pairs.tobytes())

    return [dvs, davis]


def _aedat3(count: int) -> list[Any]:
    def plain(path: Path, rng: Rng) -> None:
        aedat.write_aedat31(path, random_events(rng, count, last=1 << 33), packet_events=64)

    def mixed(path: Path, rng: Rng) -> None:
        header = b"#!AER-DAT3.0\r\n#Source 1: DVS128\r\n#Start-Time: 2015-12-03\r\n"
        parts = [header, packet(0, bytes(8), 1), packet(2, bytes(3 * 40), 3)]
        for first in range(0, count, 50):
            events = [(5, 6, 1, first), (127, 127, 0, first + 1)]
            parts += [
                packet(1, polarity(*events), 2, overflow=first // 500),
                packet(1, b"", 0, size=8),
            ]
        parts.append(packet(1, polarity((0, 0, 0, 0), valid=0), 1, valid=0))
        path.write_bytes(b"".join(parts))

    return [plain, mixed]


def _nmnist(count: int) -> list[Any]:
    def made(path: Path, rng: Rng, last: int) -> None:
        nmnist.write_nmnist(path, random_events(rng, count, (34, 34), last))

    return [partial(made, last=300_000), partial(made, last=8_600_000)]


def _bs1(count: int) -> list[Any]:
    def made(path: Path, rng: Rng) -> None:
        slayer.write_bs1(path, random_events(rng, count, (65536, 1)))

    return [made]


def _structured(count: int) -> list[Any]:
    def made(path: Path, rng: Rng) -> None:
        events = random_events(rng, count)
        array = np.zeros(count, [("t", "<i8"), ("x", ">u2"), ("y", "<u2"), ("polarity", "?")])
        array["t"], array["x"], array["y"] = events["time"], events["x"], events["y"]
        array["polarity"] = events["p"]
        np.save(path, array)

    return [made]


def _columns(count: int) -> list[Any]:
    def made(path: Path, rng: Rng) -> None:
        events = random_events(rng, count)
        signs = 2.0 * events["p"] - 1
        columns = [events["time"], np.zeros(count), events["x"], events["y"], signs]
        np.save(path, np.stack(columns, axis=1).astype(float))

    return [made]


# --- damage -------------------------------------------------------------------------------------
_EXTREME = (0, 1, 2, 5, 8, 28, 0x23232323, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 1 << 16)
_HEADERS = (
    b"#!AER-DAT1.0\r\n", b"#!AER-DAT2.0\r\n", b"#!AER-DAT3.0\r\n", b"#!AER-DAT3.1\r\n",
    b"#!AER-DAT4.0\r\n", b"#!AER-DAT3.2\r\n", b"#!AER-DAT", b"#!AER-DAT2.0", b"#!END-HEADER\r\n",
    b"#End Of ASCII Header\r\n", b"#", b"#\n", b"#\r\n", b"# \xff\xfe\r\n", b"# " + b"x" * 70000,
    b"#\n" * 3000, b"#Format: Serial-TS\r\n", b"#Source 2: DAVIS240\r\n", b"# AEChip: DAVIS346\r\n",
    b"# AEChip: a.b.Unknown\r\n", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00\xff\xff\xff\x7f",
    b"'shape': (9999999999,)", b"'descr': '|O'", b"(" * 500, b"% Version 2\n", b"PK\x03\x04",
)  # fmt: skip


def damaged(rng: Rng, data: bytes, others: list[bytes]) -> bytes:
    """The bytes with 1 to 4 random changes; ``others`` are files that pieces are taken from."""
    for _ in range(int(rng.choice((1, 1, 1, 2, 3, 4)))):
        data = _CHANGES[int(rng.integers(len(_CHANGES)))](rng, data, others)
    return data


def _place(rng: Rng, data: bytes) -> int:
    """A place in the data, half of the time in the first 200 bytes, where headers are."""
    end = min(len(data), 200) if rng.random() < 0.5 else len(data)
    return int(rng.integers(0, end + 1))


def _flip(rng: Rng, data: bytes, others: list[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if out:
            out[min(_place(rng, data), len(out) - 1)] ^= 1 << int(rng.integers(8))
    return bytes(out)


def _cut(rng: Rng, data: bytes, others: list[bytes]) -> bytes:
    first, last = sorted((_place(rng, data), _place(rng, data)))
    choice = int(rng.integers(3))
    return (
        data[:first] if choice == 0 else data[last:] if choice == 1 else data[:first] + data[last:]
    )


def _insert(rng: Rng, data: bytes, others: list[bytes]) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.bytes(int(rng.integers(1, 40))) + data[at:]


def _number(rng: Rng, data: bytes, others: list[bytes]) -> bytes:
    """Another number over 2, 4 or 8 bytes, of either byte order: mostly an extreme one."""
    value = int(rng.choice(_EXTREME)) if rng.random() < 0.8 else int(rng.integers(1 << 32))
    order, width = ("<", ">")[int(rng.integers(2))], (2, 4, 8)[int(rng.integers(3))]
    packed = struct.pack(order + {2: "H", 4: "I", 8: "Q"}[width], value % (1 << 8 * width))
    at = _place(rng, data)
    return data[:at] + packed + data[at + width :]


def _header(rng: Rng, data: bytes, others: list[bytes]) -> bytes:
    """A piece of a header before the data, in place of a line, or somewhere."""
    piece = _HEADERS[int(rng.integers(len(_HEADERS)))]
    choice = int(rng.integers(3))
    if choice == 0:
        return piece + data
    at = 0 if choice == 1 else _place(rng, data)
    end = data.find(b"\n", at) + 1 or at
    return data[:at] + piece + data[end:]


def _splice(rng: Rng, data: bytes, others: list[bytes]) -> bytes:
    other = others[int(rng.integers(len(others)))]
    return data[: _place(rng, data)] + other[_place(rng, other) :]


def _repeat(rng: Rng, data: bytes, others: list[bytes]) -> bytes:
    first, last = sorted((_place(rng, data), _place(rng, data)))
    return data[:last] + data[first:]


_CHANGES = (_flip, _cut, _insert, _number, _number, _header, _splice, _repeat)


# --- judgement ----------------------------------------------------------------------------------
def judged(kind: str, path: Path, chunk_events: int) -> tuple[str, Events | str]:
    """('accepted', events) or ('refused', message) of a file; AssertionError where what is read is
    not sound or the message does not say enough. Any other exception is a defect of the reader."""
    try:
        stream = open_events(path, chunk_events=chunk_events, **KINDS[kind].options)
        chunks = []
        for chunk in stream:
            assert list(chunk) == list(DTYPES)
            lengths = {len(column) for column in chunk.values()}
            assert len(lengths) == 1
            assert 1 <= lengths.pop() <= chunk_events
            assert all(chunk[name].dtype == dtype for name, dtype in DTYPES.items())
            assert chunk["time"].min() >= 0
            assert chunk["p"].max() <= 1
            if stream.sensor:
                assert chunk["x"].max() < stream.sensor[0]
                assert chunk["y"].max() < stream.sensor[1]
            chunks.append(chunk)
        assert stream.counts["events"] == sum(len(chunk["x"]) for chunk in chunks)
    except (FileFormatError, DataError) as err:
        message = str(err)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        assert len(message) < 1500
        if isinstance(err, FileFormatError):
            assert ": at byte " in message
            assert "; allowed is " in message
        return "refused", message
    if not chunks:
        return "accepted", {name: np.empty(0, dtype) for name, dtype in DTYPES.items()}
    return "accepted", {name: np.concatenate([c[name] for c in chunks]) for name in DTYPES}


def agreed(kind: str, path: Path, chunks: tuple[int, int], twice: bool) -> str:
    """'accepted' or 'refused'; ``twice``: after it was found the same with chunks of either size.

    Of two damages in one chunk either may be named, so messages may differ.
    """
    verdict, found = judged(kind, path, chunks[0])
    if not twice:
        return verdict
    again, other = judged(kind, path, chunks[1])
    assert verdict == again
    if not isinstance(found, str) and not isinstance(other, str):
        assert all(np.array_equal(found[name], other[name]) for name in DTYPES)
    return verdict
