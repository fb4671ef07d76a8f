"""The frame every command runs in: one result on stdout, one line for an expected failure.

A command's function returns an ``Outcome``. ``Command`` prints it (for people, or with ``--json``
as one JSON object) and turns errors into exit codes. Standard output belongs to the result alone:
whatever a library prints while a command works goes to stderr.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table

from neuroav.errors import ConfigError, MissingDependency, NeuroavError, unknown_name

_JSON = "neuroav.json"  # key in click's context for "--json was given"
_PIPED_WIDTH = 160  # columns where stdout is no terminal
# What a user can mend: no permission, disk full, a file where a folder should be, and so on.
_USER_ERRNO = {
    getattr(errno, name)
    for name in ("EACCES", "EPERM", "EROFS", "ENOSPC", "EDQUOT", "ENOTDIR", "EISDIR", "ENOENT")
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command found. data: the JSON object; shown: the same for people; ok: exit 0 or 1.
    error: what ended it early, which is told after what was found until then."""

    data: Mapping[str, Any]
    shown: Sequence[RenderableType]
    ok: bool = True
    error: NeuroavError | None = None


class Failure(click.ClickException):
    """An expected error: one line on stderr, exit 1."""

    exit_code = 1

    def show(self, file: Any = None) -> None:
        """Print the message as one line on stderr."""
        click.echo(f"neuroav: error: {' '.join(self.message.split())}", err=True)


def unwritable(error: OSError) -> Failure:
    """Return the failure of a standard output that takes nothing more, which is then let go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return Failure(f"standard output cannot be written ({error.strerror}); the result is lost")


class _Exampled:
    """Mixin: the help text ends with an example that can be copied."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the example below the options."""
        with formatter.section("Example"):
            formatter.write(f"  {self.example}\n")


class Command(_Exampled, click.Command):
    """A command whose function returns an ``Outcome``."""

    def invoke(self, ctx: click.Context) -> None:
        """Run the command, print its outcome or failure, leave with the fitting exit code."""
        as_json = bool(ctx.meta.get(_JSON))
        try:
            with _stdout_to_stderr():
                outcome = super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except Exception as error:
            failure = _expected(error)
            if as_json:
                _print_json({"error": _error_object(failure or error)})
            if failure is None:
                raise
            raise Failure(str(failure)) from error
        data = outcome.data
        if outcome.error:
            data = {**data, "error": _error_object(outcome.error)}
        try:
            _print_json(data) if as_json else _print_shown(outcome.shown)
        except BrokenPipeError:
            # The reader (``head``) has left; without this the interpreter complains at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            ctx.exit(141)  # 128 + SIGPIPE, as a shell reports it
        except OSError as error:
            raise unwritable(error) from error
        if outcome.error:
            raise Failure(str(outcome.error)) from outcome.error
        ctx.exit(0 if outcome.ok else 1)


class Group(_Exampled, click.Group):
    """A group that offers near matches for an unknown command."""

    command_class = Command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = str(args[0])
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            raise click.UsageError(_unknown("command", name, self.list_commands(ctx)), ctx)
        return super().resolve_command(ctx, args)


class OneOf(click.Choice):
    """A choice among a few words that offers near matches."""

    def __init__(self, kind: str, names: Sequence[str]) -> None:
        super().__init__(list(names))
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in self.choices:
            self.fail(_unknown(self._kind, value, self.choices), param, ctx)
        return value


class SomeOf(click.ParamType):
    """A comma-separated list of at least ``minimum`` different words."""

    name = "list"

    def __init__(self, kind: str, names: Sequence[str], minimum: int) -> None:
        self._kind, self._names, self._minimum = kind, tuple(names), minimum

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[str]:
        words = value if isinstance(value, list) else [w.strip() for w in value.split(",")]
        for word in words:
            if word not in self._names:
                self.fail(_unknown(self._kind, word, self._names), param, ctx)
        if len(set(words)) != len(words) or len(words) < self._minimum:
            self.fail(
                f"found {value!r}, needs at least {self._minimum} different names of "
                f"{', '.join(self._names)}, separated by commas",
                param,
                ctx,
            )
        return words


# --- options that several commands share -------------------------------------------------------
SPLITS = ("train", "val", "test")
PROBE_SPLITS = (*SPLITS, "probe")
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def json_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json``: one JSON object on stdout, also when the command fails with exit 1."""

    def remember(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
        ctx.meta[_JSON] = value

    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=remember,
        is_eager=True,
        help="Print one JSON object on stdout and nothing else there.",
    )(function)


def default_cache_dir() -> Path:
    """Return the user's cache folder for NeuroAV."""
    from platformdirs import user_cache_path

    return user_cache_path("neuroav")


def data_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--data-root`` and ``--cache-dir``."""
    root = click.option(
        "--data-root",
        type=click.Path(path_type=Path),
        envvar="NEUROAV_DATA",
        show_envvar=True,
        help="Folder with recordings, only read.",
    )
    cache = click.option(
        "--cache-dir",
        type=click.Path(path_type=Path),
        default=default_cache_dir,
        show_default="the user's cache folder",
        help="Where prepared data is kept.",
    )
    return root(cache(function))


def sample_options(
    splits: Sequence[str], *, split: str | None = "test", samples: str = "all"
) -> Decorator:
    """Add ``--samples`` and ``--split``; ``split`` is the default, None where the file decides.

    samples: what the library takes without ``--samples``, for the help text.
    """
    samples_option = click.option(
        "--samples",
        type=click.IntRange(min=1),
        metavar="N",
        help=f"Only the first N samples, in the order of the data set.  [default: {samples}]",
    )
    split_option = click.option(
        "--split",
        type=OneOf("split", splits),
        default=split,
        show_default=bool(split) or "test, or probe for a file without a data set",
        help="Which part of the data set; probe is the few samples inside the file."
        if "probe" in splits
        else "Which part of the data set.",
    )
    return lambda function: samples_option(split_option(function))


def configuration_options(settings_help: str) -> Decorator:
    """Add ``--model``, ``--data``, ``--config`` and ``--set`` (as ``settings``)."""
    options = (
        click.option(
            "--model", metavar="NAME", help="Which network.  [default: the configuration's]"
        ),
        click.option(
            "--data", metavar="NAME", help="Which data set.  [default: the configuration's]"
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Configuration, TOML.",
        ),
        click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help=settings_help),
    )

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def jobs_option(help_text: str) -> Decorator:
    """Add ``--jobs N``, 1 unless set."""
    return click.option(
        "--jobs", type=click.IntRange(min=1), default=1, show_default=True, help=help_text
    )


def workers_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--workers N`` and ``--ray ADDRESS``."""
    workers = click.option(
        "--workers", type=click.IntRange(min=1), metavar="N", help="Work on N workers of Ray."
    )
    ray = click.option(
        "--ray",
        metavar="ADDRESS",
        help="Work on the Ray cluster at HOST:PORT, or auto; --workers bounds how many at a time.",
    )
    return workers(ray(function))


def chosen_workers(workers: int | None, ray: str | None, jobs: int = 1) -> Any:
    """Return what ``--workers`` and ``--ray`` ask for, None for neither; UsageError with --jobs."""
    if workers is None and ray is None:
        return None
    if jobs > 1:
        raise click.UsageError("--jobs excludes --workers and --ray: choose processes or workers")
    from neuroav.studies.cluster import Workers

    return Workers(workers, ray)


# --- results for people ------------------------------------------------------------------------
def table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], right: Sequence[str] = ()
) -> Table:
    """Return a table of ``rows``; columns named in ``right`` are numbers, flushed right."""
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in columns:
        result.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        result.add_row(*(show(cell) for cell in row))
    return result


def pairs(values: Mapping[str, Any]) -> Table:
    """Return a two-column table of names and values."""
    result = Table(box=None, show_header=False, pad_edge=False)
    result.add_column()
    result.add_column(overflow="fold")
    for name, value in values.items():
        result.add_row(name.replace("_", " "), show(value))
    return result


def show(value: Any) -> str:
    """Return a value as a person reads it: floats to 4 digits, None as a dash, lists in a row."""
    value = plain(value)
    if value is None:
        return "-"
    if value in ([], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        large = 1e4 <= abs(value) < 1e15
        return f"{value:.0f}" if large or value.is_integer() else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(show, value))
    if isinstance(value, dict):
        return ", ".join(f"{k} {show(v)}" for k, v in value.items())
    return str(value)


def plain(value: Any) -> Any:
    """Return ``value`` as JSON types: arrays as lists, paths as text, NaN and infinity as None."""
    import numpy as np  # here, because ``neuroav --help`` does without

    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)


# --- inside the frame --------------------------------------------------------------------------
def _unknown(kind: str, name: str, allowed: Iterable[str]) -> str:
    return str(unknown_name(kind, name, allowed, ConfigError))


def _expected(error: Exception) -> NeuroavError | OSError | None:
    """Return the error to show as one line, or None where a traceback is due."""
    if isinstance(error, NeuroavError):
        return error
    if isinstance(error, ModuleNotFoundError) and error.name:
        from neuroav.doctor import install_line

        package = error.name.partition(".")[0]
        line = install_line(package)
        if line is not None:
            return MissingDependency(f"this command needs {package}; install it with: {line}")
    if isinstance(error, OSError) and error.filename and error.errno in _USER_ERRNO:
        return error
    return None


def _error_object(error: Exception) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error)}


def _print_json(data: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(plain(data), allow_nan=False) + "\n")
    sys.stdout.flush()


class _Console(Console):
    def on_broken_pipe(self) -> None:  # rich would leave with exit code 1
        raise BrokenPipeError


def _print_shown(shown: Sequence[RenderableType]) -> None:
    console = _Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    for item in shown:
        # Soft wrap leaves a long path or message in one piece, so that it can be copied.
        console.print(item, soft_wrap=isinstance(item, str))
    sys.stdout.flush()


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send what libraries and their processes print to stderr, down to the file descriptor."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
