"""Pictures of a video file (flv, mp4, mpg, avi, mkv, ...), by FFmpeg (PyAV).

Pictures are counted as they are decoded: what a header says of their number is often wrong. The
rule of S-CMRL and OGM-GE for one picture per second is theirs to the letter: the pictures whose
number is a multiple of int(fps), fps being what OpenCV's CAP_PROP_FPS says: FFmpeg's guess of the
rate, the average rate where there is no guess. Pixels are converted to RGB by FFmpeg, as OpenCV
does; rotation that a file asks for is not applied.

Functions here trust FFmpeg: read files from elsewhere through ``neuroav.data.formats.guarded``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.data.formats import media
from neuroav.errors import ConfigError, FileFormatError

PRELOAD = ("av",)
MOST_FRAMES = 900  # half a minute at 30 per second
MOST_PIXELS = 1 << 23  # of a picture: 4K
MOST_KEPT_BYTES = 1 << 29
_EARLY_S = 1e-3  # a picture so much before a second is of that second: times are rounded


@dataclass(frozen=True, eq=False)
class Video:
    """frames: (K, rows, columns, 3) uint8 RGB, those kept. indices: (K,) int64, their numbers from
    0. decoded: pictures in the file. fps: as OpenCV says. stated_s: how long the header says it
    lasts, None if it does not. sound: whether there is a sound track."""

    frames: np.ndarray
    indices: np.ndarray
    decoded: int
    fps: float
    stated_s: float | None
    sound: bool


def read_video(
    path: Path, *, every: int | None = None, most_frames: int = MOST_FRAMES, allow_cut: bool = False
) -> Video:
    """Return every ``every``-th picture of a file, from the first; None: one per second.

    most_frames: a file with more pictures is an error, not cut: it is not the clip it claims to be.
    allow_cut: take what lies before the place where a file is cut or damaged. FileFormatError
    naming the file if it is damaged, cut, too long, or holds no picture.
    """
    if every is not None and every < 1:
        raise ConfigError(f"every {every}th picture: allowed is 1 or more")
    path = Path(path)
    with _video(path) as (container, stream):
        fps = frame_rate(stream)
        step = int(fps) if every is None else every
        if step < 1:
            raise FileFormatError(
                f"{path}: {fps:g} pictures per second, so one per second cannot be taken; give "
                "every=N instead"
            )
        kept, decoded = _kept(path, container, stream, (step, most_frames, allow_cut))
        stated, sound = media.stated_seconds(container), bool(container.streams.audio)
    if not kept:
        raise FileFormatError(f"{path}: not one picture can be decoded; {media.AGAIN}")
    indices = np.arange(len(kept), dtype=np.int64) * step
    return Video(np.stack(kept), indices, decoded, fps, stated, sound)


def middle_picture(path: Path) -> np.ndarray:
    """Return the middle one of a file's pictures, one per second by their times; uint8 (rows,
    columns, 3) RGB.

    Of second k that is the first picture not before it, counted from the first picture; pictures
    without times are taken as ``read_video`` does. It decodes twice and keeps one picture, so a
    file may be long. FileFormatError as there.
    """
    path, times = Path(path), []
    with _video(path) as (container, stream):
        fps = frame_rate(stream)
        for frame in media.frames(path, container, stream, False):
            _check_size(path, frame.width, frame.height)
            times.append(frame.time)
    if not times:
        raise FileFormatError(f"{path}: not one picture can be decoded; {media.AGAIN}")
    if None in times:
        seconds = list(range(0, len(times), max(1, int(fps))))
    else:
        whole = np.floor(np.maximum.accumulate(np.array(times) - times[0]) + _EARLY_S)
        seconds = np.flatnonzero(np.diff(whole, prepend=-1) > 0).tolist()
    wanted = seconds[len(seconds) // 2]
    with _video(path) as (container, stream):
        found = islice(media.frames(path, container, stream, False), wanted, None)
        return next(found).to_ndarray(format="rgb24")


@contextmanager
def _video(path: Path) -> Iterator[tuple[Any, Any]]:
    with media.opened(path) as container:
        if not container.streams.video:
            raise FileFormatError(f"{path}: holds no pictures; {media.AGAIN}")
        stream = container.streams.video[0]
        _check_size(path, stream.codec_context.width, stream.codec_context.height)
        yield container, stream


def frame_rate(stream: Any) -> float:
    """Return what OpenCV's FFmpeg reader says for CAP_PROP_FPS, 0 where nothing says."""
    return float(stream.guessed_rate or stream.average_rate or 0)


def _kept(
    path: Path, container: Any, stream: Any, limits: tuple[int, int, bool]
) -> tuple[list[np.ndarray], int]:
    (step, most, allow_cut), kept, decoded = limits, [], 0
    size = None
    for frame in media.frames(path, container, stream, allow_cut):
        _check_size(path, frame.width, frame.height)
        size = size or (frame.width, frame.height)
        if (frame.width, frame.height) != size:
            raise FileFormatError(
                f"{path}: picture {decoded} is {frame.width} x {frame.height}, the first "
                f"{size[0]} x {size[1]}; allowed is one size; {media.AGAIN}"
            )
        if decoded >= most:
            raise FileFormatError(
                f"{path}: more than {most} pictures; allowed are {most}: it is not the clip it "
                f"claims to be; {media.AGAIN}"
            )
        if decoded % step == 0:
            kept.append(frame.to_ndarray(format="rgb24"))
            if sum(k.nbytes for k in kept[:1]) * len(kept) > MOST_KEPT_BYTES:
                raise FileFormatError(
                    f"{path}: the pictures taken need more than {MOST_KEPT_BYTES >> 20} MiB; take "
                    "fewer (every=N)"
                )
        decoded += 1
    return kept, decoded


def _check_size(path: Path, width: int, height: int) -> None:
    if width < 0 or height < 0 or width * height > MOST_PIXELS:
        raise FileFormatError(
            f"{path}: pictures of {width} x {height}; allowed are {MOST_PIXELS} "
            f"pixels; {media.AGAIN}"
        )
