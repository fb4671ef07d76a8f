"""What a deployment expects of its sensors: which input is fed by what, sizes and windows.

A network trained on one of the data sets recorded here carries its configuration
(``provenance["run"]``); the data set's own module says which sensor, which windows. Any other file
needs those as options. An input of events has the shape (polarities 1 or 2, rows, columns); one of
sound (input channels, rows, fine bins), as ``neuroav.data.frames`` lays them out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from neuroav.data import avdigits, cochlea, dvs, nmnistfsdd
from neuroav.deployment import Deployment
from neuroav.errors import ConfigError
from neuroav.integer import IntInput

VISUAL, AUDIO = "visual", "audio"
MAX_WINDOW_US = 60_000_000


@dataclass(frozen=True)
class Sight:
    """Events of a camera. shape: (polarities, rows, columns) of a frame. sensor: (width, height).

    window_us: what a sample spans.
    """

    name: str
    shape: tuple[int, int, int]
    max_count: int
    window_us: int
    sensor: tuple[int, int]


@dataclass(frozen=True)
class Hearing:
    """Sound. shape: (input channels, rows, fine bins). rate: Hz, the only one allowed, None for any
    that holds ``high_hz``. centred: whether the word of a window is put into its middle, as the
    data set does."""

    name: str
    shape: tuple[int, int, int]
    max_count: int
    window_us: int
    rate: int | None = None
    high_hz: float = cochlea.HIGH_HZ
    centred: bool = False


@dataclass(frozen=True)
class Sensing:
    """What feeds a network. steps: frames per window; either sense may be None.

    data: the data set that says so, None where options do.
    """

    steps: int
    sight: Sight | None
    hearing: Hearing | None
    data: str | None

    @property
    def longest_us(self) -> int:
        """The longer of the windows."""
        return max(sense.window_us for sense in (self.sight, self.hearing) if sense)


@dataclass(frozen=True)
class Told:
    """What a caller says of the sensors; None where the file is to say it. Times in us."""

    window_us: int | None = None
    sensor: tuple[int, int] | None = None
    audio_window_us: int | None = None


_KNOWN: Mapping[str, Mapping[str, Any]] = {
    nmnistfsdd.NAME: {
        "sight": {"window_us": nmnistfsdd.VISUAL_WINDOW_US, "sensor": (nmnistfsdd.SENSOR,) * 2},
        "hearing": {
            "window_us": nmnistfsdd.AUDIO_WINDOW_MS * 1000,
            "rate": nmnistfsdd.RATE,
            "high_hz": nmnistfsdd.HIGH_HZ,
            "centred": True,
        },
    },
    avdigits.NAME: {
        "sight": {"window_us": dvs.WINDOW_US, "sensor": (dvs.SENSOR,) * 2},
        "hearing": {"window_us": avdigits.AUDIO_WINDOW_MS * 1000},
    },
}


def sensing(deployment: Deployment, told: Told | None = None) -> Sensing:
    """Return what feeds the network; ConfigError where neither file nor caller says enough."""
    told, graph = told or Told(), deployment.integer
    if deployment.host:
        names = ", ".join(sorted(deployment.static))
        raise ConfigError(
            f"input {names}: real values that do not change within a sample (a picture, a "
            "spectrogram), not events or sound; run it with `neuroav simulate`"
        )
    known = _known(deployment)
    name, facts = known or (None, {})
    inputs = dict(graph.inputs)
    sight = _sight(_input(inputs, VISUAL), facts.get("sight", {}), told)
    hearing = _hearing(_input(inputs, AUDIO), facts.get("hearing", {}), told)
    if inputs:
        raise ConfigError(
            f"input {', '.join(sorted(inputs))}: neither {VISUAL!r} (events) nor {AUDIO!r} "
            "(sound); a stream can feed inputs of these names only"
        )
    return Sensing(graph.steps, sight, hearing, name)


def _known(deployment: Deployment) -> tuple[str, Mapping[str, Any]] | None:
    """Return the data set that the network was trained on, and its sensors where they are known."""
    run = deployment.provenance.get("run")
    data = run.get("data") if isinstance(run, dict) else None
    name = str(data.get("name")) if isinstance(data, dict) else ""
    return (name, _KNOWN[name]) if name in _KNOWN else None


def _input(inputs: dict[str, IntInput], name: str) -> tuple[str, IntInput] | None:
    """Take the input of a name out of those left; a single one of another name is the camera's."""
    if name in inputs:
        return name, inputs.pop(name)
    if name == VISUAL and len(inputs) == 1 and AUDIO not in inputs:
        return inputs.popitem()
    return None


def _sight(found, facts: Mapping[str, Any], told: Told) -> Sight | None:
    if found is None:
        return None
    name, pop = found
    if len(pop.shape) != 3 or pop.shape[0] not in (1, 2):
        raise ConfigError(
            f"input {name!r}: a frame is {pop.shape}; a camera's events need (1 or 2 polarities, "
            "rows, columns)"
        )
    window = _window(name, facts.get("window_us"), told.window_us, "--window-ms")
    sensor = told.sensor or facts.get("sensor")
    if sensor is None:
        raise ConfigError(
            f"input {name!r}: the file does not say which camera it was trained with; say the "
            "size of its sensor in pixels, e.g. --sensor 128x128"
        )
    if sensor[0] < pop.shape[2] or sensor[1] < pop.shape[1]:
        raise ConfigError(
            f"input {name!r}: a sensor of {sensor[0]}x{sensor[1]} pixels is smaller than the "
            f"frame of {pop.shape[2]}x{pop.shape[1]}; check --sensor"
        )
    return Sight(name, pop.shape, pop.max_count, window, (sensor[0], sensor[1]))


def _hearing(found, facts: Mapping[str, Any], told: Told) -> Hearing | None:
    if found is None:
        return None
    name, pop = found
    bands = pop.shape[0] * pop.shape[1] if len(pop.shape) == 3 else 0
    if not bands or cochlea.CHANNELS % bands:
        raise ConfigError(
            f"input {name!r}: a frame is {pop.shape}; sound needs (input channels, rows, fine "
            f"bins), channels times rows a divisor of {cochlea.CHANNELS}"
        )
    told_window = told.audio_window_us or told.window_us
    window = _window(name, facts.get("window_us"), told_window, "--audio-window-ms")
    if window % 1000:
        raise ConfigError(f"--audio-window-ms {window / 1000:g}: allowed are whole milliseconds")
    if facts.get("centred") and window != facts["window_us"]:
        raise ConfigError(
            f"--audio-window-ms {window / 1000:g}: the network was trained on words in the middle "
            f"of {facts['window_us'] // 1000} ms; leave the option out"
        )
    hearing = Hearing(name, pop.shape, pop.max_count, window)
    return replace(hearing, **{k: v for k, v in facts.items() if k != "window_us"})


def _window(name: str, known: int | None, told: int | None, option: str) -> int:
    window = told or known
    if window is None:
        raise ConfigError(
            f"input {name!r}: the file does not say how long a sample is; say it, e.g. {option} 300"
        )
    if not 1000 <= window <= MAX_WINDOW_US:
        raise ConfigError(
            f"{option} {window / 1000:g}: allowed are 1 to {MAX_WINDOW_US // 1000} ms"
        )
    return window
