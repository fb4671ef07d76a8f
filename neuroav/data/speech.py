"""Spoken words from espeak-ng: the voices, and the call of the process that speaks.

espeak-ng 1.52 comes with the optional package ``espeakng-loader`` (extra ``speech``) and is only
ever run as a separate program, see ``neuroav.data._espeak_worker``.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from neuroav.errors import DataError, MissingDependency

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# English accents of espeak-ng 1.52 that can be chosen by name.
ACCENTS = (
    "en",
    "en-us",
    "en-us-nyc",
    "en-gb-scotland",
    "en-gb-x-rp",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-029",
)

# Voice variants without whispers, robots and croaks. A group is one speaker under several names;
# it falls into one split as a whole.
SPEAKERS = (
    *(("Alex",), ("Alicia",), ("Andrea",), ("Andy",), ("Annie",), ("AnxiousAndy",), ("Denis",)),
    *(("Diogo",), ("Gene", "Gene2"), ("Henrique",), ("Hugo",), ("Jacky",), ("Lee",), ("Marco",)),
    *(("Mario",), ("Michael",), ("Mike", "mike2"), ("Mr serious",), ("Nguyen",), ("Reed",)),
    *(("RicishayMax", "RicishayMax2", "RicishayMax3"), ("Storm",), ("Tweaky",), ("adam",)),
    *(("anika",), ("announcer",), ("antonio",), ("aunty",), ("belinda",), ("benjamin",)),
    *(("boris",), ("caleb",), ("david",), ("ed",), ("edward", "edward2"), ("f1",), ("f2",)),
    *(("f3",), ("f4",), ("f5",), ("fast",), ("grandma",), ("grandpa",), ("gustave",), ("ian",)),
    *(("iven", "iven2", "iven3", "iven4"), ("john",), ("kaukovalta",), ("linda",), ("m1",)),
    *(("m2",), ("m3",), ("m4",), ("m5",), ("m6",), ("m7",), ("m8",), ("marcelo",), ("max",)),
    *(("michel",), ("miguel",), ("norbert",), ("pablo",), ("paul",), ("pedro",), ("quincy",)),
    *(("rob",), ("robert",), ("sandro",), ("shelby",), ("steph", "steph2", "steph3")),
    *(("travis",), ("victor",), ("zac",)),
)
VARIANTS = tuple(name for speaker in SPEAKERS for name in speaker)

INSTALL = "pip install 'neuroav[speech]'"
_TIMEOUT_S = 300


@dataclass(frozen=True)
class Utterance:
    """One word to speak. rate in words per minute (80-450); pitch and pitch_range 0-99."""

    voice: str
    text: str
    rate: int
    pitch: int
    pitch_range: int


def split_variants(rng: np.random.Generator, sizes: dict[str, int]) -> dict[str, list[str]]:
    """Share the voice variants out by speaker: about ``sizes[split]`` each, none in two splits.

    The last split takes what is left. Deterministic given ``rng``.
    """
    order = [SPEAKERS[i] for i in rng.permutation(len(SPEAKERS))]
    *first, last = sizes
    shares: dict[str, list[str]] = {name: [] for name in sizes}
    for speaker in order:
        fitting = (name for name in first if len(shares[name]) + len(speaker) <= sizes[name])
        shares[next(fitting, last)].extend(speaker)
    return shares


def require_espeak() -> None:
    """Raise MissingDependency unless the optional package is installed; does not import it."""
    if importlib.util.find_spec("espeakng_loader") is None:
        raise MissingDependency(
            f"speech needs espeak-ng, and the package espeakng-loader is not installed: {INSTALL}"
        )


def speak(utterances: list[Utterance], seed: int) -> tuple[list[np.ndarray], float]:
    """Speak the list in one fresh process; return its waves, int16 each, and their rate in Hz.

    The same list and seed give the same samples; a part of the list need not, for espeak-ng
    carries its random state along. MissingDependency if espeak-ng is absent, DataError if it fails.
    """
    require_espeak()
    with tempfile.TemporaryDirectory(prefix="neuroav-speech-") as folder:
        request, out = Path(folder, "request.json"), Path(folder, "speech.npz")
        job = {"seed": seed, "utterances": [astuple(one) for one in utterances]}
        request.write_text(json.dumps(job), encoding="utf-8")
        _run([str(request), str(out)])
        with np.load(out, allow_pickle=False) as file:
            samples, offsets, rate = file["samples"], file["offsets"], float(file["rate"])
    if len(offsets) != len(utterances) + 1:
        raise DataError(
            f"espeak-ng returned {len(offsets) - 1} utterances for {len(utterances)} requests"
        )
    return np.split(samples, offsets[1:-1]), rate


def _run(arguments: list[str]) -> None:
    """Run the speaking process to its end, turning its exit status into an error."""
    package_root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "neuroav.data._espeak_worker", *arguments]
    try:
        # From the folder that holds the package, ``-m`` finds it however it was installed.
        done = subprocess.run(
            command, cwd=package_root, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"espeak-ng did not finish within {_TIMEOUT_S} s") from None
    reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
    if done.returncode == 3:
        raise MissingDependency(f"speech needs espeak-ng; {reason}. Install it: {INSTALL}")
    if done.returncode:
        raise DataError(f"espeak-ng stopped with status {done.returncode}: {reason}")
