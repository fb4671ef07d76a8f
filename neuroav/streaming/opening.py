"""From names of files and devices to a session that can be iterated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuroav.deployment import Deployment
from neuroav.errors import ConfigError, unknown_name
from neuroav.streaming.cutting import Cutter, EventCutter, SoundCutter
from neuroav.streaming.hearing import SoundEncoder
from neuroav.streaming.sensing import AUDIO, VISUAL, Sensing, Sight, Told, sensing
from neuroav.streaming.session import Network, Session, chosen_mode
from neuroav.streaming.sources import EventSource, SoundSource, open_event_source, open_sound_source

SENSES = (AUDIO, VISUAL)
SPEEDS = ("max", "realtime")
MICROPHONE_HZ = 16_000  # where the network does not say which rate it was trained on
DEVICES = ("camera", "microphone")
MIN_HOP_US = 1000


@dataclass(frozen=True)
class Wanted:
    """What a session is asked for. events, audio: places of sources, None for none. without: senses
    that get silence. speed: 'realtime' or 'max', None for what the sources are. hop_us: None for
    the longest window. format, orientation: of files and pipes of events (``sources``)."""

    events: str | None = None
    audio: str | None = None
    without: tuple[str, ...] = ()
    told: Told | None = None
    mode: str = "auto"
    hop_us: int | None = None
    speed: str | None = None
    backend: str = "fast"
    format: str | None = None
    orientation: str | None = None

    @property
    def endless(self) -> bool:
        """Whether some source has no end of its own."""
        live = self.events in (*DEVICES, "-") or self.audio in DEVICES
        return live or bool(self.events and self.events.startswith("tcp://"))

    @property
    def realtime(self) -> bool:
        """Whether the input keeps the world's time."""
        return self.endless if self.speed is None else self.speed == "realtime"


def open_session(deployment: Deployment, wanted: Wanted) -> Session:
    """Return a session with its sources open. Raises ConfigError, DataError, FileFormatError,
    UnsupportedNode and MissingDependency; no source is then left open."""
    if wanted.speed not in (None, *SPEEDS):
        raise unknown_name("speed", str(wanted.speed), SPEEDS, ConfigError)
    if wanted.speed == "max" and {wanted.events, wanted.audio} & set(DEVICES):
        raise ConfigError(
            "speed 'max': a camera and a microphone keep their own time; leave it out"
        )
    found = sensing(deployment, wanted.told)
    _require_sources(found, wanted)
    hop_us = wanted.hop_us or found.longest_us
    if hop_us < MIN_HOP_US:
        raise ConfigError(f"--hop-ms {hop_us / 1000:g}: allowed is 1 and more")
    realtime, heard = wanted.realtime, bool(wanted.audio)
    mode = chosen_mode(
        deployment, found, wanted.mode, heard=heard, hop_us=hop_us, realtime=realtime
    )
    network = Network(deployment, mode, wanted.backend)  # before live sources begin
    opened: list[EventSource | SoundSource] = []
    try:
        cutters, encoder = _cutters(found, wanted, hop_us, opened)
        return Session(network, cutters, encoder, hop_us=hop_us, realtime=realtime)
    except BaseException:
        for source in opened:
            source.close()
        raise


def _require_sources(found: Sensing, wanted: Wanted) -> None:
    """Raise ConfigError unless every sense of the network has a source or is to be silent."""
    given = {VISUAL: wanted.events, AUDIO: wanted.audio}
    options = {VISUAL: "--events", AUDIO: "--audio"}
    for word in wanted.without:
        if word not in SENSES:
            raise unknown_name("sense", word, SENSES, ConfigError)
    for word, sense in ((VISUAL, found.sight), (AUDIO, found.hearing)):
        silent = word in wanted.without
        if sense is None and (given[word] or silent):
            raise ConfigError(
                f"the network has no input for {'events' if word == VISUAL else 'sound'}; leave "
                f"{options[word] if given[word] else f'--without {word}'} out"
            )
        if sense and given[word] and silent:
            raise ConfigError(f"{options[word]} and --without {word} exclude each other")
        if sense and not given[word] and not silent:
            raise ConfigError(
                f"input {sense.name!r} has no source: give {options[word]}, or --without {word} to "
                "feed silence"
            )
    if not any(given.values()):
        raise ConfigError("every input is silent: give --events or --audio a source")


def _cutters(
    found: Sensing, wanted: Wanted, hop_us: int, opened: list[Any]
) -> tuple[dict[str, Cutter], SoundEncoder | None]:
    """Return what cuts every source, and what encodes sound; sources are added to ``opened``."""
    cutters: dict[str, Cutter] = {}
    encoder = None
    if found.sight and wanted.events:
        seen = open_event_source(
            wanted.events, live=wanted.realtime, form=wanted.format, **_options(wanted)
        )
        opened.append(seen)
        _require_sensor(seen, found.sight, wanted.events)
        cutters[found.sight.name] = EventCutter(seen, found.sight, found.steps, hop_us)
    if found.hearing and wanted.audio:
        heard = open_sound_source(wanted.audio, found.hearing.rate or MICROPHONE_HZ)
        opened.append(heard)
        encoder = SoundEncoder(found.hearing, heard.rate, found.steps)
        cutters[found.hearing.name] = SoundCutter(heard, found.hearing, found.steps, hop_us)
    return cutters, encoder


def _require_sensor(source: EventSource, sight: Sight, place: str) -> None:
    """Raise ConfigError where a source says that it has another sensor than the network."""
    if source.sensor is not None and source.sensor != sight.sensor:
        (width, height), (own_width, own_height) = source.sensor, sight.sensor
        raise ConfigError(
            f"--events {place}: a sensor of {width}x{height} pixels, the network was trained on "
            f"{own_width}x{own_height}; give --sensor {width}x{height} to show it the middle of "
            "the picture, or use another camera"
        )


def _options(wanted: Wanted) -> Mapping[str, Any]:
    """Return what ``open_events`` takes besides the path."""
    from neuroav.data.formats.events import ORIENTATIONS

    if wanted.orientation is None:
        return {}
    if wanted.orientation not in ORIENTATIONS:
        raise unknown_name("orientation", wanted.orientation, ORIENTATIONS, ConfigError)
    return {"orientation": ORIENTATIONS[wanted.orientation]}
