"""Make a stand-in for S-CMRL's third benchmark, in its files' own formats, of other recordings.

    python examples/make_standin.py --nmnist DATA/nmnist --fsdd DATA/fsdd --out STANDIN

MNIST-DVS and N-TIDIGITS are not to be had everywhere. This writes real recordings of the same kind
the way those two are published, so that everything that reads them can be tried:

``OUT/grabbed_data<d>/scale4/mnist_<d>_scale04_<0001...>.aedat``
    N-MNIST (Orchard et al. 2015): AEDAT 2.0 of a DVS128, the central 28x28 of the 34x34 pixels on
    the pixels 47..74 where MNIST-DVS has its digits. 300 ms instead of 2 to 3 s.
``OUT/n-tidigits.hdf5``
    The Free Spoken Digit Dataset through 64 cochlear channels of ``neuroav.data.cochlea``. George,
    jackson and theo are in the train groups, yweweler in the test groups; the take is the number
    of the recording, ``man-ge-07-z`` george's eighth zero.
``OUT/STANDIN.txt``
    says so; `mnistdvs-ntidigits` repeats it wherever the data set is described.

Results on it are not results on the benchmark.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neuroav.data import cochlea, nmnistfsdd
from neuroav.data.formats.ntidigits import write_ntidigits

# FSDD speaker -> the two letters of an N-TIDIGITS speaker, and the groups to put it in
SPEAKERS = {
    "george": ("ge", "train"),
    "jackson": ("ja", "train"),
    "theo": ("th", "train"),
    "yweweler": ("yw", "test"),
}
OFFSET = 44  # of N-MNIST's 34x34 pixels on the sensor: pixel 3 of 3..30 falls on 47
HEADER = (
    "#!AER-DAT2.0\r\n"
    "# This is a raw AE data file - do not edit\r\n"
    "# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
    "# Timestamps tick is 1 us\r\n"
    "# Stand-in made of N-MNIST, not a recording of MNIST-DVS\r\n"
)
NOTICE = (
    "Stand-in for MNIST-DVS and N-TIDIGITS, made by examples/make_standin.py: recordings of "
    "N-MNIST (Orchard et al. 2015, CC BY-SA 4.0) as AEDAT 2.0, and of the Free Spoken Digit "
    "Dataset (CC BY-SA 4.0) as cochlear spikes. Not the published benchmark.\n"
)


def aedat(x: np.ndarray, y: np.ndarray, p: np.ndarray, time: np.ndarray) -> bytes:
    """A DVS128 file of AEDAT 2.0: x counted from the right, polarity bit 0 = brighter."""
    address = (y.astype(np.uint32) << 8) | ((127 - x.astype(np.uint32)) << 1) | (p == 0)
    records = np.empty((len(address), 2), ">u4")
    records[:, 0], records[:, 1] = address, time
    return HEADER.encode("ascii") + records.tobytes()


def write_pictures(nmnist: Path, out: Path, per_digit: int | None) -> int:
    """Write the recordings of every digit, in the order of their names; return how many."""
    written = 0
    for digit in range(10):
        files = sorted((nmnist / "Train" / str(digit)).glob("*.bin"))[:per_digit]
        if not files:
            raise SystemExit(f"{nmnist / 'Train' / str(digit)}: holds no recordings (*.bin)")
        folder = out / f"grabbed_data{digit}" / "scale4"
        folder.mkdir(parents=True, exist_ok=True)
        for number, file in enumerate(files, start=1):
            events = nmnistfsdd.read_picture(file)
            name = folder / f"mnist_{digit}_scale04_{number:04}.aedat"
            name.write_bytes(
                aedat(
                    events["x"].astype(np.int64) + OFFSET,
                    events["y"].astype(np.int64) + OFFSET,
                    events["p"],
                    events["time"],
                )
            )
        written += len(files)
    return written


def sounds(fsdd: Path, takes: int) -> Iterator[tuple[str, str, Path]]:
    """Group ('train' or 'test'), id in N-TIDIGITS' way, and file of every sound, mixed speakers."""
    for take in range(takes):
        pair, second = divmod(take, 2)
        for speaker, (letters, group) in SPEAKERS.items():
            for digit in range(10):
                name = f"man-{letters}{pair:02}-{'ab'[second]}-{digit or 'z'}"
                yield group, name, fsdd / "recordings" / f"{digit}_{speaker}_{take}.wav"


def write_sounds(fsdd: Path, path: Path, takes: int) -> int:
    """Write cochlear spikes in the layout of n-tidigits.hdf5; return how many recordings."""
    wanted = list(sounds(fsdd, takes))
    waves = [nmnistfsdd.centred(nmnistfsdd.read_sound(file)) for _, _, file in wanted]
    heard = cochlea.encode(
        waves,
        nmnistfsdd.RATE,
        np.full(len(waves), np.inf),  # no noise is added
        [np.random.default_rng(0)] * len(waves),
        nmnistfsdd.AUDIO_WINDOW_MS,
        high_hz=nmnistfsdd.HIGH_HZ,
    )
    rows: dict[str, list[tuple[str, np.ndarray, np.ndarray]]] = {"train": [], "test": []}
    for number, (split, name, _) in enumerate(wanted):
        spikes = heard.spikes.one(number)
        rows[split].append((name, spikes["channel"], spikes["time"] / 1e6))
    write_ntidigits(path, rows["train"], rows["test"])
    return len(wanted)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--nmnist", type=Path, required=True, help="folder that holds Train/<digit>"
    )
    parser.add_argument("--fsdd", type=Path, required=True, help="folder that holds recordings/")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--pictures", type=int, help="per digit  [default: all there are]")
    parser.add_argument("--takes", type=int, default=50, help="per speaker and digit")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "STANDIN.txt").write_text(NOTICE, encoding="utf-8")
    seen = write_pictures(args.nmnist, args.out, args.pictures)
    heard = write_sounds(args.fsdd, args.out / "n-tidigits.hdf5", args.takes)
    print(f"{args.out}: {seen} pictures, {heard} sounds; not the published benchmark")


if __name__ == "__main__":
    main()
