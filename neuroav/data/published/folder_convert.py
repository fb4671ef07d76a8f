"""One sample of a folder of recordings as arrays (``neuroav.data.published.folder``).

Times count from a recording's first event, or the start of a sound. Places on a sensor other than
the grid that the network sees (32x32, 'binned' 28x28) are cropped to its middle or, 'scale', those
of its middle square divided down; events that fall on one pixel are all kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.data import cochlea, spectrograms
from neuroav.data.binned import CHANNELS as BINNED_CHANNELS
from neuroav.data.binned import SIZE as BINNED_SIZE
from neuroav.data.formats import picture, sound, video
from neuroav.data.formats.events import AS_STORED, ORIENTATIONS, open_events, read_events
from neuroav.data.formats.guarded import guarded
from neuroav.data.frames import CROP
from neuroav.data.plans import Converted, Item
from neuroav.data.published import trees
from neuroav.data.published.folder_files import PICTURES, SOUNDS, VIDEOS
from neuroav.data.published.folder_settings import SETTINGS, Settings, read_settings
from neuroav.errors import DataError

_MOST_US = np.iinfo(np.uint32).max
_AGAIN = "copy the file again"


def facts(layout: str, forms: Mapping[str, str], settings: Settings) -> dict[str, Any]:
    """What ``Recordings.meta`` holds of the layout; DataError for a key that is not told."""
    found: dict[str, Any] = dict.fromkeys(
        ("audio_channels", "audio_window_us", "sensor", "visual_window_us")
    )
    if layout == "stills":
        return found
    windowed = layout == "windowed"
    if "audio" in forms:
        found["audio_channels"] = _channels(layout, forms["audio"], settings)
    if "visual" in forms:
        found["sensor"] = CROP if windowed else BINNED_SIZE
    for modality in forms if windowed else ():
        if (window := getattr(settings, modality).window_ms) is None:
            raise settings.missing(
                f"{modality}.window_ms",
                f"layout 'windowed' needs to know how long {modality} lasts",
            )
        found[f"{modality}_window_us"] = window * 1000
    return found


def _channels(layout: str, form: str, settings: Settings) -> int:
    if form == "sound":
        return cochlea.CHANNELS
    channels = settings.audio.channels
    if channels is None:
        raise settings.missing("audio.channels", "event files do not say how many channels hear")
    if layout == "binned" and channels != BINNED_CHANNELS:
        raise DataError(
            f"{settings.path}: audio.channels is {channels}, layout 'binned' draws "
            f"{BINNED_CHANNELS}; use layout 'windowed'"
        )
    return channels


def convert(data_root: Path, item: Item) -> Converted:
    """The arrays of one sample; DataError and FileFormatError name the file and what is wrong."""
    root = Path(data_root)
    settings = _settings(root)
    paths = {modality: root / source.file for modality, source in item.sources.items()}
    still = settings.layout == "stills" or any(
        path.suffix.lower() in PICTURES + VIDEOS for path in paths.values()
    )
    if still:
        return _still(paths, settings)
    heard, seen = paths.get("audio"), paths.get("visual")
    source: dict[str, np.ndarray] = {}
    audio = visual = None
    if heard is not None:
        audio = _heard(heard, settings)
        source["audio_outside"] = _outside(audio["time"], settings.audio.window_ms, settings)
    if seen is not None:
        visual = _seen(seen, settings)
        source["visual_outside"] = _outside(visual["time"], settings.visual.window_ms, settings)
    return Converted(audio, visual, source)


def _settings(root: Path) -> Settings:
    path = root / SETTINGS
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    return _read_once(str(root), stamp)


@lru_cache(maxsize=4)
def _read_once(root: str, stamp: int) -> Settings:
    return read_settings(Path(root))


def _outside(time: np.ndarray, window_ms: int | None, settings: Settings) -> np.ndarray:
    """Share of the events that lie behind the window, float64."""
    if settings.layout != "windowed" or window_ms is None or not len(time):
        return np.array(0.0)
    return np.array(float((time >= window_ms * 1000).mean()))


# --- sounds ------------------------------------------------------------------------------------
def _sound(path: Path, settings: Settings) -> tuple[np.ndarray, int]:
    """Samples (n,) float32 and their rate."""
    found = guarded(sound.read_sound, trees.present(path, _AGAIN))
    if len(found.samples) > 1 and settings.audio.mix is None:
        raise settings.missing(
            "audio.mix = 'mean' or 'first'", f"{path} has {len(found.samples)} channels"
        )
    return sound.mono(found, settings.audio.mix or "only"), found.rate


def _heard(path: Path, settings: Settings) -> dict[str, np.ndarray]:
    """Columns channel and time (us) of a sound or of spikes."""
    if path.suffix.lower() in SOUNDS and path.suffix.lower() not in settings.audio.files:
        return _cochlear(path, settings)
    events = read_events(path, AS_STORED, order="sort", columns=settings.audio.columns)
    channels = settings.audio.channels or BINNED_CHANNELS
    if len(events["x"]) and int(events["x"].max()) >= channels:
        raise DataError(f"{path}: a spike of channel {events['x'].max()}; {channels} are stated")
    if len(events["y"]) and events["y"].any():
        raise DataError(f"{path}: holds places of two dimensions; of sounds y is 0")
    channel = events["x"].astype(np.uint16)
    return {"channel": channel, "time": _from_first(events["time"], path)}


def _cochlear(path: Path, settings: Settings) -> dict[str, np.ndarray]:
    samples, rate = _sound(path, settings)
    high = settings.audio.high_hz or cochlea.HIGH_HZ
    if high >= rate / 2:
        raise settings.missing(
            f"audio.high_hz = {int(0.45 * rate)}, or less, the same for all sounds",
            f"{path}: {rate} Hz, and the highest cochlear channel is at {high:g} Hz",
        )
    if settings.layout == "binned":
        window_ms = max(1, math.ceil(1000 * len(samples) / rate))
    else:
        window_ms = settings.audio.window_ms or 0
    if not samples[: rate * window_ms // 1000].any():
        raise DataError(f"{path}: is silent: there is nothing to hear in it; leave it out")
    heard = cochlea.encode(
        [samples], rate, np.array([np.inf]), [np.random.default_rng(0)], window_ms, high_hz=high
    )
    return heard.spikes.one(0)


# --- events ------------------------------------------------------------------------------------
def _seen(path: Path, settings: Settings) -> dict[str, np.ndarray]:
    """Columns x, y, p and time (us) of an event file, on the grid that the network sees."""
    how = settings.visual
    orientation = ORIENTATIONS[how.orientation] if how.orientation else None
    options: dict[str, Any] = {"sensor": how.sensor, "chip": how.chip}
    if path.suffix.lower() == ".npy":
        options = {"sensor": how.sensor, "columns": how.columns}
    try:
        sensor = open_events(path, orientation, **options).sensor
        events = read_events(path, orientation, order="sort", **options)
    except DataError as error:
        raise DataError(
            f"{error} (sensor, orientation and chip: {settings.path}, [visual])"
        ) from None
    if sensor is None:
        raise settings.missing(
            "visual.sensor = [width, height]", f"{path}: does not say how large its sensor is"
        )
    grid = BINNED_SIZE if settings.layout == "binned" else CROP
    x, y = _placed(events, sensor, grid, path, settings)
    inside = (x >= 0) & (x < grid) & (y >= 0) & (y < grid)
    if len(x) and not inside.any():
        raise DataError(
            f"{path}: no event lies in the middle {grid}x{grid} of its sensor; use visual.fit = "
            f"'scale' ({settings.path}), or leave it out"
        )
    columns = {"x": x, "y": y, "p": events["p"]}
    small = {name: column[inside].astype(np.uint8) for name, column in columns.items()}
    return small | {"time": _from_first(events["time"], path)[inside]}


def _placed(
    events: Mapping[str, np.ndarray],
    sensor: tuple[int, int],
    grid: int,
    path: Path,
    settings: Settings,
) -> tuple[np.ndarray, np.ndarray]:
    x, y = (events[axis].astype(np.int64) for axis in "xy")
    if sensor == (grid, grid):
        return x, y
    if settings.visual.fit is None:
        raise settings.missing(
            "visual.fit = 'crop' or 'scale'",
            f"{path}: a sensor of {sensor[0]}x{sensor[1]}, the network sees {grid}x{grid}",
        )
    if settings.visual.fit == "crop":
        return x - (sensor[0] - grid) // 2, y - (sensor[1] - grid) // 2
    side = min(sensor)
    if side < grid:
        raise DataError(
            f"{settings.path}: visual.fit is 'scale', but a sensor of {sensor[0]}x{sensor[1]} is "
            f"smaller than {grid}x{grid}; use 'crop', which puts it into the middle"
        )
    return tuple(
        (place - (extent - side) // 2) * grid // side
        for place, extent in zip((x, y), sensor, strict=True)
    )  # type: ignore[return-value]


def _from_first(time: np.ndarray, path: Path) -> np.ndarray:
    """Ascending times from the first, uint32 us."""
    if not len(time):
        raise DataError(f"{path}: holds no events; leave it out")
    if (lasts := int(time[-1] - time[0])) > _MOST_US:
        raise DataError(f"{path}: lasts {lasts / 6e7:.0f} minutes; allowed are 71")
    return (time - time[0]).astype(np.uint32)


# --- pictures and spectrograms -----------------------------------------------------------------
def _still(paths: Mapping[str, Path], settings: Settings) -> Converted:
    heard, seen = paths.get("audio"), paths.get("visual")
    audio, visual, source = None, None, {}
    if heard is not None:
        level = spectrograms.log_spectrogram(*_sound(heard, settings), str(heard))
        audio = {"level": level.reshape(-1)}
    if seen is not None:
        shown = _picture(seen)
        visual = {"pixel": np.ascontiguousarray(shown).reshape(-1)}
        source = {"visual_size": np.array(shown.shape[:2], np.int64)}
    return Converted(audio, visual, source)


def _picture(path: Path) -> np.ndarray:
    """A picture, or the middle one of a video's pictures, one per second; uint8 (rows, cols, 3)."""
    trees.present(path, _AGAIN)
    if path.suffix.lower() in PICTURES:
        shown = guarded(picture.read_picture, path)
    else:
        shown = guarded(video.middle_picture, path)
    short, long = sorted(shown.shape[:2])
    low, high = trees.EDGES
    if short < low or long > high or long > trees.MAX_RATIO * short:
        raise DataError(
            f"{path}: a picture of {shown.shape[1]}x{shown.shape[0]} pixels; allowed are edges of "
            f"{low} to {high}, the longer at most {trees.MAX_RATIO} times the shorter"
        )
    return np.asarray(shown)
