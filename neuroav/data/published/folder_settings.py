"""``neuroav-folder.toml``: what a folder of recordings cannot say itself (``folder``).

Every key is optional until the files call for it; the error then says which one to write.

=====================  =====================================================================
``layout``             'windowed', 'binned' or 'stills'; pictures and videos are 'stills'
``group``              regular expression with one group, searched in the name without ending;
                       what it catches (a speaker, a session) is kept in one split
``incomplete``         'error' (default) or 'skip': samples that lack a modality, files of no
                       known ending, classes without a sample
``ignore``             patterns of files that are no samples, as ``["*.txt"]``
``splits``             shares where the folder names no splits, as ``{train = 0.7, ...}``
``[audio]`` files      endings of event files that are sounds, as ``[".bs1"]``
  columns              what the columns of .npy are: x (the channel), y, p, time, '' for none
  channels             of event files
  window_ms            'windowed': how much of a recording is heard, from its start
  high_hz              the highest cochlear channel of sounds, below half their rate
  mix                  of sounds of several channels: 'mean', 'first'
``[visual]`` files     endings of event files that are pictures, as ``[".npy"]``
  columns              as above
  sensor               ``[width, height]`` in pixels, where the files do not say
  orientation          'as-stored', 'inivation', 'mnist-dvs': what bits and rows mean
  chip                 of AEDAT 2.0
  window_ms            'windowed'
  fit                  'crop' (the middle) or 'scale' (the middle square, made smaller), for
                       sensors other than the network's input of 32x32 ('binned': 28x28)
=====================  =====================================================================
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from neuroav.data.cache import SPLITS
from neuroav.data.formats.events import ORIENTATIONS
from neuroav.errors import DataError, unknown_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SETTINGS = "neuroav-folder.toml"
LAYOUTS = ("windowed", "binned", "stills")
DEFAULT_SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}  # assumed


@dataclass(frozen=True)
class Audio:
    """See the module's text."""

    files: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    channels: int | None = None
    window_ms: int | None = None
    high_hz: float | None = None
    mix: str | None = None


@dataclass(frozen=True)
class Visual:
    """See the module's text."""

    files: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None
    sensor: tuple[int, int] | None = None
    orientation: str | None = None
    chip: str | None = None
    window_ms: int | None = None
    fit: str | None = None


@dataclass(frozen=True)
class Settings:
    """See the module's text. path: of the file, whether it is there or not."""

    path: Path
    layout: str | None = None
    group: str | None = None
    incomplete: str = "error"
    ignore: tuple[str, ...] = ()
    splits: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_SHARES))
    audio: Audio = Audio()
    visual: Visual = Visual()

    def missing(self, key: str, why: str) -> DataError:
        """Return the error that asks for a key; ``why`` says what calls for it."""
        section, _, name = key.rpartition(".")
        where = f"under [{section}] of {self.path}" if section else f"at the top of {self.path}"
        return DataError(f"{why}; write {name} {where}")


def read_settings(root: Path) -> Settings:
    """Return the settings of a folder, the defaults where it has none.

    DataError naming the file and the key for what is unknown or not allowed.
    """
    path = root / SETTINGS
    if not path.is_file():
        return Settings(path)
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: not a TOML file: {error}") from None
    sections = {"audio": Audio, "visual": Visual}
    values: dict[str, Any] = {}
    for key, value in _known(path, "", tree, Settings).items():
        if key in sections:
            if not isinstance(value, dict):
                raise DataError(f"{path}: {key} is {value!r}, needs a table [{key}]")
            inner = _known(path, f"{key}.", value, sections[key])
            checked = {k: _checked(path, f"{key}.{k}", v) for k, v in inner.items()}
            values[key] = sections[key](**checked)
        else:
            values[key] = _checked(path, key, value)
    return Settings(path, **values)


def _known(path: Path, prefix: str, tree: Mapping[str, Any], kind: type) -> Mapping[str, Any]:
    known = {f.name for f in fields(kind)} - {"path"}
    for key in tree:
        if key not in known:
            names = {prefix + name for name in known}
            raise DataError(f"{path}: {unknown_name('key', prefix + key, names, DataError)}")
    return tree


_CHOICES = {
    "layout": LAYOUTS,
    "incomplete": ("error", "skip"),
    "audio.mix": ("mean", "first"),
    "visual.orientation": tuple(ORIENTATIONS),
    "visual.fit": ("crop", "scale"),
}
_NUMBERS = {
    "audio.channels": (1, 65536),
    "audio.window_ms": (1, 600_000),
    "audio.high_hz": (100, 400_000),
    "visual.window_ms": (1, 4_000_000),
}


def _checked(path: Path, key: str, value: Any) -> Any:
    """A value as ``Settings`` has it; DataError for one that is not allowed."""
    if key in _CHOICES:
        if value not in _CHOICES[key]:
            raise DataError(f"{path}: {key} is {value!r}, allowed are {', '.join(_CHOICES[key])}")
        return value
    if key in _NUMBERS:
        low, high = _NUMBERS[key]
        whole = key != "audio.high_hz"
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise DataError(f"{path}: {key} is {value!r}, allowed are {low} to {high}")
        return value
    if key == "visual.sensor":
        size = value if isinstance(value, list) else []
        if len(size) != 2 or not all(type(n) is int and 1 <= n <= 65536 for n in size):
            raise DataError(f"{path}: {key} is {value!r}, allowed is [width, height] in pixels")
        return tuple(size)
    if key == "splits":
        return _shares(path, value)
    if key in ("group", "visual.chip"):
        return _group(path, value) if key == "group" else _text(path, key, value)
    return _texts(path, key, value)


def _text(path: Path, key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DataError(f"{path}: {key} is {value!r}, needs a text")
    return value


def _texts(path: Path, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise DataError(f"{path}: {key} is {value!r}, needs a list of texts")
    if key.endswith(".files"):
        if wrong := [v for v in value if not re.fullmatch(r"\.\w+", v)]:
            raise DataError(f"{path}: {key} has {wrong[0]!r}, needs endings such as '.npy'")
        return tuple(v.lower() for v in value)
    return tuple(value)


def _group(path: Path, value: Any) -> str:
    try:
        groups = re.compile(_text(path, "group", value)).groups
    except re.error as error:
        raise DataError(f"{path}: group {value!r} is no regular expression: {error}") from None
    if groups != 1:
        raise DataError(
            f"{path}: group {value!r} catches {groups} parts, needs one in brackets, as in "
            "'^([a-z]+)_'"
        )
    return str(value)


def _shares(path: Path, value: Any) -> dict[str, float]:
    good = isinstance(value, dict) and set(value) == set(SPLITS)
    good = good and all(type(v) in (int, float) and v > 0 for v in value.values())
    if not good or abs(sum(value.values()) - 1) > 1e-6:
        raise DataError(
            f"{path}: splits is {value!r}, needs shares of train, val and test that add up to 1"
        )
    return {split: float(value[split]) for split in SPLITS}
