"""``neuroav stream``: live or recorded input, window by window or step by step."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any, TextIO

import click

from neuroav.cli.common import (
    Command,
    OneOf,
    Outcome,
    json_option,
    pairs,
    plain,
    show,
    unwritable,
)
from neuroav.errors import NeuroavError

_OUT = "neuroav.stream.out"  # key in click's context: the real standard output
_JSON = "neuroav.json"
_ORIENTATIONS = ("as-stored", "inivation", "mnist-dvs")


class LiveCommand(Command):
    """A command that prints while it works: its function finds stdout in the context."""

    def invoke(self, ctx: click.Context) -> None:
        """Run the command; a reader that leaves early ends it, as a shell reports it."""
        with _kept_stdout() as out:
            ctx.meta[_OUT] = out
            try:
                super().invoke(ctx)
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                ctx.exit(141)  # 128 + SIGPIPE


@contextmanager
def _kept_stdout() -> Iterator[TextIO]:
    """Yield standard output as it is now; later it is turned to stderr for what libraries print."""
    try:
        number = sys.stdout.fileno()
    except (AttributeError, io.UnsupportedOperation):  # a stand-in without a descriptor
        yield sys.stdout
        return
    sys.stdout.flush()
    out = os.fdopen(os.dup(number), "w", encoding="utf-8", buffering=1)
    try:
        yield out
    finally:
        with suppress(OSError):  # the reader has left, or the disk is full: said where it happened
            out.close()


@click.command(
    cls=LiveCommand,
    example="neuroav stream runs/add.nav --events saccades.bin --audio word.wav",
)
@click.argument("file", metavar="FILE.nav")
@click.option(
    "--events",
    metavar="FILE|camera|-|tcp://HOST:PORT",
    help="Where events come from: a file or named pipe, an event camera, stdin, or a socket.",
)
@click.option(
    "--audio", metavar="FILE.wav|microphone", help="Where sound comes from, 16 bit and mono."
)
@click.option(
    "--without",
    type=OneOf("sense", ("audio", "visual")),
    multiple=True,
    help="Feed silence to this input, which has no source.",
)
@click.option(
    "--mode",
    type=OneOf("mode", ("auto", "step", "window")),
    default="auto",
    show_default=True,
    help="Run the network frame by frame or a window at a time; the same answers.",
)
@click.option(
    "--hop-ms",
    type=click.FloatRange(min=1),
    help="From one window to the next.  [default: the longest window]",
)
@click.option(
    "--speed",
    type=OneOf("speed", ("realtime", "max")),
    help="Keep the time of the input, or go as fast as possible.  [default: realtime for devices, "
    "stdin and sockets, max for files]",
)
@click.option("--windows", type=click.IntRange(min=1), metavar="N", help="End after N windows.")
@click.option(
    "--steps", is_flag=True, help="Also print what is known after every step (step mode)."
)
@click.option(
    "--window-ms",
    type=click.FloatRange(min=1),
    help="Length of a sample.  [default: that of the data set in the file]",
)
@click.option(
    "--audio-window-ms",
    type=click.FloatRange(min=1),
    help="Length of a sample of sound, if another.  [default: that of the data set in the file]",
)
@click.option(
    "--sensor",
    metavar="WIDTHxHEIGHT",
    help="Pixels of the camera.  [default: that of the data set in the file]",
)
@click.option(
    "--format",
    "form",
    type=OneOf("format", ("aedat", "nmnist", "bs1", "npy")),
    help="Of the events, where neither their first bytes nor their name tell.",
)
@click.option(
    "--orientation",
    type=OneOf("orientation", _ORIENTATIONS),
    help="What the bits of AEDAT 1.0 and 2.0 mean, which do not say.",
)
@click.option(
    "--backend",
    type=OneOf("backend", ("fast", "reference")),
    default="fast",
    show_default=True,
    help="Which executor; both give the same integers.",
)
@click.option("--jsonl", is_flag=True, help="Print one JSON object per line, the summary last.")
@json_option
@click.pass_context
def stream(
    ctx: click.Context,
    file: str,
    windows: int | None,
    steps: bool,
    jsonl: bool,
    **options: Any,
) -> Outcome:
    """Answer live input, window by window or step by step.

    Prints a line per prediction, and at the end, also after Ctrl-C, how many windows were answered
    and dropped, and what they took. FILE.nav may be `shipped:NAME`."""
    from neuroav.navfile import load
    from neuroav.simulate import resolve_deployment
    from neuroav.streaming.opening import open_session

    as_json = bool(ctx.meta.get(_JSON))
    wanted = _wanted(options)
    if as_json and jsonl:
        raise click.UsageError("--json and --jsonl exclude each other")
    if as_json and wanted.endless and windows is None:
        raise click.UsageError(
            "--json prints one object at the end, and this input has none: give --windows N, or "
            "--jsonl for an object per line"
        )
    session = open_session(load(resolve_deployment(file)), wanted)
    kept: list[Any] = []
    error: NeuroavError | None = None
    out = None if as_json else ctx.meta[_OUT]
    try:
        for found in _chosen(session, windows, steps):
            if out is None:
                kept.append(found)
            else:
                _print(_json_line(found) if jsonl else _line(found), out)
    except KeyboardInterrupt:
        pass  # the usual end of live input: the summary follows
    except NeuroavError as found_wrong:  # of a source; what was answered until then counts
        error = found_wrong
    finally:
        session.close()
    summary = session.summary()
    if jsonl:
        line = json.dumps({"summary": plain(summary)}, allow_nan=False)
        return Outcome(summary, [line], error=error)
    return Outcome({"predictions": kept, **summary}, ["", _shown(summary)], error=error)


def _print(line: str, out: TextIO) -> None:
    try:
        print(line, file=out, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise unwritable(error) from None


def _chosen(session: Any, windows: int | None, steps: bool) -> Iterator[Any]:
    """Yield predictions of whole windows, of every step too where asked for, of ``windows``."""
    if not steps:
        yield from islice((p for p in session if p.complete), windows)
        return
    answered = 0
    for found in session:
        yield found
        answered += found.complete
        if answered == windows:
            return


def _wanted(options: dict[str, Any]) -> Any:
    from neuroav.streaming.opening import Wanted
    from neuroav.streaming.sensing import Told
    from neuroav.streaming.sources import parse_sensor

    sensor = options["sensor"]
    told = Told(
        _microseconds(options["window_ms"]),
        parse_sensor(sensor) if sensor else None,
        _microseconds(options["audio_window_ms"]),
    )
    names = ("events", "audio", "without", "mode", "speed", "backend", "orientation")
    chosen = {name: options[name] for name in names}
    hop_us = _microseconds(options["hop_ms"])
    return Wanted(**chosen, told=told, hop_us=hop_us, format=options["form"])


def _microseconds(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds * 1000)


def _line(found: Any) -> str:
    """Return a prediction as a person reads it."""
    step = "" if found.complete else f" step {found.step + 1}"
    parts = [
        f"{found.time_us / 1e6:9.3f} s{step}",
        f"{found.name}",
        f"margin {show(found.margin)}",
        f"{found.events} events",
        f"{found.latency_ms:.1f} ms",
    ]
    if found.lag_ms is not None:
        parts.append(f"lag {found.lag_ms:.0f} ms")
    if found.dropped:
        parts.append(f"{found.dropped} windows dropped before")
    return "  ".join(parts)


def _json_line(found: Any) -> str:
    return json.dumps(plain(found), allow_nan=False)


def _shown(summary: dict[str, Any]) -> Any:
    return pairs({k: v for k, v in summary.items() if v not in (None, 0, False)} | {
        "dropped": summary["dropped"]
    })  # fmt: skip
