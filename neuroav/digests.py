"""Digests that a FILE.nav carries: what executors gave for a fixed probe set, by version.

The probe set is computed, not stored, so that anyone can run it without data. ``GENERATOR`` is its
recipe, number 1. For every input and sample, SHAKE-256 of ``neuroav probe 1``, the input's name and
the sample's number, with a zero byte between each two, gives bytes, read as little-endian 16-bit
numbers u, one per step and neuron in C order.

Event counts: with T(1) = min(level * 2^sample, 2^15) and T(k+1) = T(k) T(1) >> 16, the count is how
many k up to the input's largest count have u < T(k). So a sample has twice the events of the one
before it. Static inputs have one u per neuron, for all steps: (low + (high - low) u / 2^16) / 256.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from neuroav import navfile
from neuroav.deployment import Deployment
from neuroav.errors import FileFormatError

VERSION = 1
GENERATOR = 1
SAMPLES = 4
LEVEL_ONE = 1 << 16  # the level of an input that always sends
LEVEL_MOST = LEVEL_ONE // 2
LEVEL_UNKNOWN = LEVEL_ONE // 10  # where the file carries no samples to take rates from
VALUE_ONE = 256  # a bound that stands for 1.0 of a static input
VALUE_MOST = 1 << 20
MOST = {"samples": 64, "entries": 1000, "versions": 32, "characters": 200}
Level = int | tuple[int, int]


@dataclass(frozen=True)
class ProbeSet:
    """What is fed. levels: by name, of ``Deployment.fed``: the share of neurons that send in a step
    of the first sample, in 1/2^16; for static inputs the lowest and highest value, in 1/256."""

    generator: int
    samples: int
    steps: int
    levels: Mapping[str, Level]


@dataclass(frozen=True)
class Entry:
    """What one executor gave. digest: ``SpikeDigest``, messages: outputs of neurons that are not 0,
    versions: of the packages that computed, by name."""

    executor: str
    digest: str
    messages: int
    versions: Mapping[str, str]


@dataclass(frozen=True)
class Carried:
    """All digests in a file, and the probe set that all of them are of."""

    probe: ProbeSet
    entries: tuple[Entry, ...]


# --- the probe set -----------------------------------------------------------------------------
def choose_probe(deployment: Deployment, halvings: int = 0) -> ProbeSet:
    """Return the probe set of a deployment: as many events as in the samples it carries.

    halvings: levels are halved as many times, for a network that overflows on more.
    """
    known = deployment.probe.inputs if deployment.probe else {}
    levels: dict[str, Level] = {}
    for name in deployment.fed:
        if name in deployment.static:
            low, high = (known[name].min(), known[name].max()) if name in known else (-1, 1)
            bounds = (math.floor(low * VALUE_ONE), math.ceil(high * VALUE_ONE))
            low, high = (max(-VALUE_MOST, min(VALUE_MOST, b)) for b in bounds)
            levels[name] = (int(low / 2**halvings), int(high / 2**halvings))
        else:
            level = LEVEL_UNKNOWN
            if name in known:
                level = round(float((known[name] != 0).mean()) * LEVEL_ONE)
            levels[name] = max(1, min(level, LEVEL_MOST) >> halvings)
    return ProbeSet(GENERATOR, SAMPLES, deployment.integer.steps, levels)


def probe_inputs(deployment: Deployment, probe: ProbeSet) -> dict[str, np.ndarray]:
    """Return what is fed, by name: int32 counts or float32 values (samples, steps, *shape)."""
    shapes = {layer.source: layer.source_shape for layer in deployment.host.values()}
    inputs = deployment.integer.inputs
    result = {}
    for name in deployment.fed:
        level = probe.levels[name]
        if isinstance(level, tuple):
            frames = [_values(name, s, shapes[name], level) for s in range(probe.samples)]
            result[name] = np.repeat(np.stack(frames)[:, None], probe.steps, axis=1)
            continue
        shape, most = (probe.steps, *inputs[name].shape), inputs[name].max_count
        parts = [_counts(name, s, shape, level, most) for s in range(probe.samples)]
        result[name] = np.stack(parts)
    return result


def _uniform(name: str, sample: int, shape: tuple[int, ...]) -> np.ndarray:
    seed = f"neuroav probe {GENERATOR}\0{name}\0{sample}".encode()
    data = hashlib.shake_256(seed).digest(2 * math.prod(shape))
    return np.frombuffer(data, "<u2").reshape(shape).astype(np.int64)


def _counts(name: str, sample: int, shape: tuple[int, ...], level: int, most: int) -> np.ndarray:
    uniform = _uniform(name, sample, shape)
    counts = np.zeros(shape, np.int32)
    first = bound = min(level << sample, LEVEL_MOST)
    for _ in range(most):
        if bound == 0:
            break
        counts += uniform < bound
        bound = bound * first >> 16
    return counts


def _values(name: str, sample: int, shape: tuple[int, ...], level: tuple[int, int]) -> np.ndarray:
    low, high = level
    uniform = _uniform(name, sample, shape)
    return ((low + (high - low) * uniform / LEVEL_ONE) / VALUE_ONE).astype(np.float32)


# --- in the file -------------------------------------------------------------------------------
def load(path: str | Path, deployment: Deployment) -> Carried | None:
    """Return the digests that a deployment's file carries, None where it carries none.

    FileFormatError names the entry that is not as ``docs/file-format.md`` says.
    """
    text = navfile.load_note(path)
    return None if text is None else parse(text, str(path), deployment)


def store(path: str | Path, carried: Carried) -> None:
    """Put digests into a file, instead of those it carries, whole or not at all."""
    table = {"version": VERSION, **asdict(carried)}
    navfile.save_note(path, json.dumps(table, indent=1, sort_keys=True, allow_nan=False))


def parse(text: str, where: str, deployment: Deployment) -> Carried:
    """Return the digests in a text; FileFormatError says which place does not fit, and why."""
    reader = _Reader(where)
    try:
        table = json.loads(text, parse_constant=lambda c: reader.refuse("a number", c, "integers"))
    except (ValueError, RecursionError) as error:
        reader.refuse("the text", text[:20], f"JSON ({error})")
    if not isinstance(table, dict):
        reader.refuse("the text", table, "an object")
    version = reader.whole(table.get("version"), "version", 1, 1 << 30)
    if version > VERSION:
        raise FileFormatError(
            f"{where}: digests: version is {version}, this program reads 1..{VERSION}; "
            "update neuroav"
        )
    table = reader.keys(table, "the text", ("version", "probe", "entries"))
    probe = _probe(reader, table["probe"], deployment)
    entries = reader.listed(table["entries"], "entries", 1, MOST["entries"])
    return Carried(probe, tuple(_entry(reader, e, f"entries[{i}]") for i, e in enumerate(entries)))


def _probe(reader: _Reader, value: Any, deployment: Deployment) -> ProbeSet:
    table = reader.keys(value, "probe", ("generator", "samples", "steps", "levels"))
    steps = deployment.integer.steps
    generator = reader.whole(table["generator"], "probe.generator", 1, GENERATOR)
    levels = reader.keys(table["levels"], "probe.levels", deployment.fed)
    found: dict[str, Level] = {}
    for name, level in levels.items():
        place = f"probe.levels.{name}"
        if name in deployment.static:
            low, high = reader.listed(level, place, 2, 2)
            low = reader.whole(low, f"{place}[0]", -VALUE_MOST, VALUE_MOST)
            found[name] = (low, reader.whole(high, f"{place}[1]", low, VALUE_MOST))
        else:
            found[name] = reader.whole(level, place, 1, LEVEL_MOST)
    samples = reader.whole(table["samples"], "probe.samples", 1, MOST["samples"])
    reader.whole(table["steps"], "probe.steps", steps, steps)
    return ProbeSet(generator, samples, steps, found)


def _entry(reader: _Reader, value: Any, place: str) -> Entry:
    table = reader.keys(value, place, ("executor", "digest", "messages", "versions"))
    versions = table["versions"]
    if not isinstance(versions, dict) or not 1 <= len(versions) <= MOST["versions"]:
        reader.refuse(f"{place}.versions", versions, f"1..{MOST['versions']} names and versions")
    known = {
        reader.word(k, f"a name in {place}.versions"): reader.word(v, f"{place}.versions.{k}")
        for k, v in versions.items()
    }
    digest = table["digest"]
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        reader.refuse(f"{place}.digest", digest, "64 hexadecimal digits")
    executor = reader.word(table["executor"], f"{place}.executor")
    messages = reader.whole(table["messages"], f"{place}.messages", 1, 1 << 62)
    return Entry(executor, digest, messages, known)


@dataclass(frozen=True)
class _Reader:
    """Checks values of the text, and refuses what does not fit with its place."""

    where: str

    def refuse(self, place: str, found: Any, allowed: str) -> NoReturn:
        raise FileFormatError(
            f"{self.where}: digests: {place} is {str(found)[:60]!r}, allowed is {allowed}; take "
            "the file from where it came again, or export it again"
        )

    def keys(self, value: Any, place: str, names: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(value, dict) or set(value) != set(names):
            found = sorted(value) if isinstance(value, dict) else value
            self.refuse(place, found, f"an object with exactly {', '.join(names)}")
        return value

    def listed(self, value: Any, place: str, least: int, most: int) -> list[Any]:
        if not isinstance(value, list) or not least <= len(value) <= most:
            self.refuse(place, value, f"a list of {least}..{most}")
        return value

    def whole(self, value: Any, place: str, low: int, high: int) -> int:
        if type(value) is not int or not low <= value <= high:  # True is no number here
            self.refuse(place, value, f"a whole number {low}..{high}")
        return value

    def word(self, value: Any, place: str) -> str:
        allowed = f"1..{MOST['characters']} printable characters without '|'"
        if not isinstance(value, str) or not 1 <= len(value) <= MOST["characters"]:
            self.refuse(place, value, allowed)
        if not value.isprintable() or "|" in value or "`" in value:
            self.refuse(place, value, allowed)
        return value
