"""What sound and video have in common: opening a media file with FFmpeg, and walking its packets.

FFmpeg goes on over what it cannot decode and takes a file that ends early for a short one. Here a
packet or picture that is marked as damaged, and a file that ends before the time its header states,
is an error. Only formats that hold the sound and pictures themselves are opened: no playlist,
script or sequence of files, which would make FFmpeg read other files or the network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from neuroav.errors import FileFormatError, MissingDependency, NeuroavError

FORMATS = "flv,mov,mp4,m4a,3gp,mpeg,mpegvideo,mpegts,avi,matroska,webm,wav,w64,aiff,au,mp3,flac,ogg"
_STATES_LENGTH = {"flv", "mov", "mp4"}  # others estimate it from the size of the file
_SLACK_S = (0.1, 0.5)  # a header may count the last picture, or the silence an encoder adds
AGAIN = "take the file from its publishers again"


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Yield an ``av`` container. FileFormatError naming the file for whatever goes wrong in it."""
    try:
        import av
    except ImportError:
        raise MissingDependency(
            "reading sound and video needs PyAV; install it with: pip install 'neuroav[data]'"
        ) from None
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file; {AGAIN}")
    try:
        # An absolute path names no protocol, whatever the file is called.
        with av.open(
            os.path.abspath(path), options={"format_whitelist": FORMATS}, metadata_errors="replace"
        ) as container:
            yield container
    except (NeuroavError, MemoryError):
        raise
    # PyAV has one error class per error of FFmpeg, below several of Python's.
    except Exception as error:
        text = str(getattr(error, "strerror", None) or error) or type(error).__name__
        reason = text.splitlines()[0]
        raise FileFormatError(
            f"{path}: cut, damaged or no media file ({reason[:300]}); {AGAIN}"
        ) from None


def stated_seconds(container: Any) -> float | None:
    """Return how long the header says the file lasts, None where it does not say."""
    names = set(container.format.name.split(","))
    if not container.duration or container.duration < 0 or not names & _STATES_LENGTH:
        return None
    return container.duration / 1e6


def frames(path: Path, container: Any, stream: Any, allow_cut: bool) -> Iterator[Any]:
    """Yield the decoded frames of a stream.

    FileFormatError for a damaged packet or frame, and for a file that ends before its header says,
    judged by the last packet of any stream. allow_cut: it just ends there, without what is damaged.
    """
    stream.codec_context.thread_count = 1
    end = 0.0
    for packet in container.demux():
        if packet.pts is not None and packet.time_base is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.is_corrupt:
            if allow_cut:
                yield from stream.codec_context.decode(None)  # what the decoder still holds
                return
            raise FileFormatError(f"{path}: cut or damaged after {end:.2f} s; {AGAIN}")
        if packet.stream_index != stream.index:
            continue
        for frame in packet.decode():
            if frame.is_corrupt:
                if allow_cut:
                    return
                raise FileFormatError(f"{path}: damaged after {end:.2f} s; {AGAIN}")
            yield frame
    stated = stated_seconds(container)
    slack = min(max((stated or 0) / 10, _SLACK_S[0]), _SLACK_S[1])
    if stated is not None and stated - end > slack and not allow_cut:
        raise FileFormatError(
            f"{path}: ends after {end:.2f} s, its header says {stated:.2f} s: it is cut; {AGAIN}"
        )
