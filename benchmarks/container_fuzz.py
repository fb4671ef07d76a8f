"""Read thousands of damaged files of every container format in the guarded process.

    python benchmarks/container_fuzz.py --files 1000 --seed 0

For each format a small honest file is written, read, and damaged in one to four places: bits
flipped, bytes set to extreme numbers, runs zeroed, doubled, removed or exchanged, the end cut off.
Every damaged file is read as the data sets read it. Printed per format, how many

- were accepted: damage in values that nothing checks, or in unused bytes;
- were refused by the reader;
- ended their process (death), or ran out of time or memory;
- ended in an exception that the reader does not expect, or in one outside the guarded process
  (other error), or in an error that does not name the file (unnamed): defects, and exit code 1.

The honest file is read again at the end. `.nir` and `.net` files are opened in this process after a
guarded one has read them, as `neuroav import` does: a death there would end this program.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.data.formats import mat, ntidigits, picture, shd, sound, video
from neuroav.data.formats.guarded import GuardedReader, NotSurvived
from neuroav.data.gzsl.features import read_vectors
from neuroav.errors import NeuroavError

EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 8)
HEAD = 2048  # half of the damage is done where most structure is
Reading = Callable[[GuardedReader, Path], Any]


# --- honest files in the published layouts ----------------------------------------------------
def write_ntidigits(path: Path) -> None:
    """Six utterances of a few hundred spikes."""
    rng = np.random.default_rng(1)

    def spoken(names: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        for name in names.split():
            yield name, rng.integers(0, 64, 300), np.sort(rng.uniform(0, 0.8, 300))

    ntidigits.write_ntidigits(
        path,
        spoken("man-ae-a-1 woman-ac-b-z man-ae-b-12z woman-ac-a-o"),
        spoken("man-zz-a-9 woman-yy-b-z"),
    )


def write_shd(path: Path, width: str = "f2") -> None:
    """Five samples as SHD stores them, times as float16."""
    import h5py

    rng = np.random.default_rng(2)
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (5,), h5py.vlen_dtype(np.dtype(width)))
        units = file.create_dataset("spikes/units", (5,), h5py.vlen_dtype(np.uint16))
        for i in range(5):
            times[i] = np.sort(rng.uniform(0, 1.4, 50 * i)).astype(width)
            units[i] = rng.integers(0, 700, 50 * i)
        file["labels"] = np.array([3, 0, 19, 4, 4], np.uint16)
        file["extra/speaker"] = np.array([0, 1, 2, 3, 4], np.uint16)
        file["extra/keys"] = np.array([f"key{i}".encode() for i in range(20)])


def write_features(path: Path) -> None:
    """Four clips of 128 features, as the zero-shot releases store a class."""
    import h5py

    rng = np.random.default_rng(3)
    with h5py.File(path, "w") as file:
        file["data"] = rng.normal(size=(4, 128)).astype(np.float32)
        file["video_urls"] = np.array([f"clip{i}".encode() for i in range(4)], "S80")


def write_mat(path: Path, base: int = 1, compressed: bool = False) -> None:
    """Six recordings of 28 x 28 pixels in the cell array of the processed MNIST-DVS."""
    from scipy.io import savemat

    rng = np.random.default_rng(4)
    cells = np.empty((1, 6), object)
    for i in range(6):
        pixels = rng.integers(0, 28, (40, 2)) + base
        pixels[0], pixels[1] = base, 27 + base
        signs = rng.choice([-1, 1], 40)
        times = np.sort(rng.integers(0, 100_000, 40))
        cells[0, i] = np.column_stack([times, 0 * times, 0 * times, pixels, signs]).astype(float)
    labels = np.arange(6, dtype=float)[None]
    savemat(path, {"CINs": cells, "Labels": labels}, do_compression=compressed)


def write_wave(path: Path) -> None:
    """A quarter of a second of 16 bits."""
    import wave

    tone = 9000 * np.sin(np.arange(2000) / 7)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(tone.astype("<i2").tobytes())


def write_video(
    path: Path, codec: str = "flv", *, frames: int = 12, rate: int = 30, tone: bool = True
) -> None:
    """Moving grey pictures of 64 x 48, and a tone as mp3."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream("mp3", rate=44100, layout="mono") if tone else None
        for i in range(frames):
            grey = np.full((48, 64, 3), 20 * i % 256, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
        if track is not None:
            _add_tone(container, track, int(44100 * frames / rate))


def write_mp3(path: Path) -> None:
    """A third of a second of mp3."""
    import av

    with av.open(str(path), "w") as container:
        _add_tone(container, container.add_stream("mp3", rate=44100, layout="mono"), 15000)


def _add_tone(container: Any, track: Any, samples: int) -> None:
    import av

    tone = (8000 * np.sin(np.arange(samples) / 20)).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(tone, format="s16p", layout="mono")
    frame.sample_rate, frame.pts = 44100, 0
    for packet in [*track.encode(frame), *track.encode(None)]:
        container.mux(packet)


def write_picture(path: Path) -> None:
    """48 x 32 pixels of colour, JPEG or PNG by the name."""
    from PIL import Image

    rng = np.random.default_rng(5)
    Image.fromarray(rng.integers(0, 256, (32, 48, 3), np.uint8)).save(path)


def write_nir(path: Path) -> None:
    """A network of two layers, as the nir package writes it."""
    import nir

    rng, ones = np.random.default_rng(6), np.ones(5, np.float32)
    nodes = {
        "input": nir.Input({"input": np.array([3])}),
        "affine": nir.Affine(rng.normal(size=(5, 3)).astype(np.float32), 0 * ones),
        "lif": nir.LIF(0.02 * ones, ones, 0 * ones, ones, 0 * ones),
        "output": nir.Output({"output": np.array([5])}),
    }
    names = list(nodes)
    nir.write(str(path), nir.NIRGraph(nodes, list(pairwise(names))))


def write_net(path: Path) -> None:
    """A network of one dense layer, as SLAYER exports it."""
    import h5py

    rng = np.random.default_rng(7)
    with h5py.File(path, "w") as file:
        file["layer/0/type"], file["layer/0/shape"] = np.array(["input"], "S10"), [1, 1, 4]
        layer = file.create_group("layer/1")
        layer["type"], layer["shape"] = np.array(["dense"], "S10"), np.array([3])
        layer["inFeatures"], layer["outFeatures"] = 4, 3
        layer["weight"] = 2 * rng.integers(-100, 100, (3, 4)).astype(np.float64)
        neuron = {"type": "CUBA", "iDecay": 1024, "vDecay": 128, "vThMant": 80, "refDelay": 1}
        for name, value in neuron.items():
            layer[f"neuron/{name}"] = np.array([value], "S10") if name == "type" else value


# --- how each is read -------------------------------------------------------------------------
def read_nir_after_check(_: GuardedReader, path: Path) -> Any:
    """As ``neuroav import`` does: a guarded process reads it first, then this one."""
    from neuroav_export.readers import nir_file

    return nir_file.load(path)


def read_net_after_check(_: GuardedReader, path: Path) -> Any:
    """As ``neuroav import`` does: a guarded process reads it first, then this one."""
    from neuroav_export.readers.hdf5 import opened
    from neuroav_export.readers.netx_layers import KIND, read_layers

    with opened(path, KIND) as root:
        return read_layers(root, path, None)


def _in_guard(function: Callable[..., Any], **options: Any) -> Reading:
    return lambda reader, path: reader(function, path, **options)


def _utterances(reader: GuardedReader, path: Path) -> Any:
    listing = reader(ntidigits.read_listing, path)
    for split, ids in listing.ids.items():
        reader(ntidigits.read_utterances, path, split, ids)


def _samples(reader: GuardedReader, path: Path) -> Any:
    count = len(reader(shd.read_listing, path).labels)
    return reader(shd.read_samples, path, range(min(count, 100)))


@dataclass(frozen=True)
class Format:
    """A format: what ending its files have, how an honest one is written, how it is read."""

    ending: str
    write: Callable[[Path], None]
    read: Reading


FORMATS: dict[str, Format] = {
    "ntidigits": Format("hdf5", write_ntidigits, _utterances),
    "shd": Format("h5", write_shd, _samples),
    "gzsl": Format("h5", write_features, _in_guard(read_vectors)),
    "mat": Format("mat", write_mat, _in_guard(mat.read_mat)),
    "mat-packed": Format("mat", lambda p: write_mat(p, 1, True), _in_guard(mat.read_mat)),
    "wav": Format("wav", write_wave, _in_guard(sound.read_sound)),
    "flv": Format("flv", write_video, _in_guard(video.read_video, every=1)),
    "flv-sound": Format("flv", write_video, _in_guard(sound.read_sound)),
    "mp4": Format("mp4", lambda p: write_video(p, "mpeg4"), _in_guard(video.read_video, every=1)),
    "mpg": Format(
        "mpg",
        lambda p: write_video(p, "mpeg1video", tone=False),
        _in_guard(video.read_video, every=1),
    ),
    "mp3": Format("mp3", write_mp3, _in_guard(sound.read_sound)),
    "jpg": Format("jpg", write_picture, _in_guard(picture.read_picture)),
    "png": Format("png", write_picture, _in_guard(picture.read_picture)),
    "nir": Format("nir", write_nir, read_nir_after_check),
    "net": Format("net", write_net, read_net_after_check),
}


# --- damage -----------------------------------------------------------------------------------
def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a damaged copy of a file's bytes."""
    found = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        kind, size = int(rng.integers(8)), len(found)
        if size < 16:
            break
        end = min(size, HEAD) if rng.integers(2) else size
        place, run = int(rng.integers(end)), int(rng.integers(1, 64))
        if kind < 2:
            found[place] ^= 1 << int(rng.integers(8))
        elif kind == 2:
            found[place] = int(rng.integers(256))
        elif kind == 3:
            extreme = EXTREMES[int(rng.integers(len(EXTREMES)))]
            found[place : place + len(extreme)] = extreme
        elif kind == 4:
            found[place : place + run] = bytes(min(run, size - place))
        elif kind == 5:
            found[place:place] = found[place : place + run]
        elif kind == 6:
            other = int(rng.integers(size))
            found[place : place + run] = found[other : other + run]
        elif rng.integers(3):
            del found[place : place + run]
        else:
            del found[int(rng.integers(size)) :]
    return bytes(found)


@dataclass
class Outcome:
    """What came of the files of a format. counts: by outcome; defects: the first few, with what
    they were; slowest: seconds of the slowest reading."""

    counts: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def failed(self) -> bool:
        return bool(self.defects)


def fuzz(name: str, files: int, seed: int, reader: GuardedReader, folder: Path) -> Outcome:
    """Read so many damaged files of a format; whatever is no expected error is kept in folder."""
    form, outcome = FORMATS[name], Outcome()
    whole = folder / f"{name}.{form.ending}"
    form.write(whole)
    form.read(reader, whole)
    content, path = whole.read_bytes(), folder / f"{name}-damaged.{form.ending}"
    for number in range(files):
        path.write_bytes(damaged(content, np.random.default_rng([seed, number])))
        begun = time.perf_counter()
        kind, text = _tried(form, reader, path)
        outcome.slowest = max(outcome.slowest, time.perf_counter() - begun)
        outcome.counts[kind] += 1
        if kind in ("exception", "other error", "unnamed"):
            kept = path.with_name(f"{name}-{number}.{form.ending}")
            kept.write_bytes(path.read_bytes())
            outcome.defects.append(f"{kept}: {text}")
    form.read(reader, whole)
    return outcome


def _tried(form: Format, reader: GuardedReader, path: Path) -> tuple[str, str]:
    try:
        form.read(reader, path)
    except NotSurvived as error:
        return error.how, str(error)
    except NeuroavError as error:
        return ("refused" if str(path) in str(error) else "unnamed"), str(error)
    except Exception as error:  # what this program looks for
        return "other error", repr(error)
    return "accepted", ""


def main(arguments: list[str] | None = None) -> int:
    """Print a row per format; 1 if a reader met an error that it does not expect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_Plain)
    parser.add_argument("--files", type=int, default=1000, help="damaged files per format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0, help="limit on a reading")
    parser.add_argument("--memory-mib", type=int, default=1024, help="limit on a reading")
    parser.add_argument("--formats", default=",".join(FORMATS), help="some of them, by comma")
    parser.add_argument("--out", type=Path, help="folder to keep the files of defects in")
    given = parser.parse_args(arguments)
    folder = given.out or Path(tempfile.mkdtemp(prefix="container-fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    kinds = ("accepted", "refused", "death", "time", "memory", "exception", "other error")
    print("format       " + "".join(f"{k:>12}" for k in (*kinds, "unnamed", "slowest s")))
    failed = False
    with GuardedReader(seconds=given.seconds, memory_bytes=given.memory_mib << 20) as reader:
        for name in given.formats.split(","):
            found = fuzz(name, given.files, given.seed, reader, folder)
            row = [str(found.counts[k]) for k in (*kinds, "unnamed")] + [f"{found.slowest:.2f}"]
            print(f"{name:13}" + "".join(f"{v:>12}" for v in row), flush=True)
            for defect in found.defects[:5]:
                print("   ", defect[:300], flush=True)
            failed |= found.failed
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    limits = f"limits {given.seconds:g} s, {given.memory_mib} MiB"
    print(f"{limits}; seed {given.seed}; most memory of a process {most} MiB")
    return int(failed)


class _Plain(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    pass


if __name__ == "__main__":
    sys.exit(main())
