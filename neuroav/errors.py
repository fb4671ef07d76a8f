"""The one tree of expected errors.

Every message says where, what was found, what is allowed and what to try. The command line prints
an expected error as one line and exits 1; anything else is a defect and shows its traceback.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class NeuroavError(Exception):
    """Base of every error a user can cause and mend.

    rule: which rule of ``docs/lint.md`` a network breaks, '' where that is not what went wrong.

    >>> import neuroav
    >>> try:
    ...     neuroav.load("nothing.nav")
    ... except neuroav.NeuroavError as error:
    ...     print(type(error).__name__, error)
    FileFormatError nothing.nav: no such file; write one with `neuroav export RUN --out nothing.nav`
    """

    def __init__(self, *args: object, rule: str = "") -> None:
        super().__init__(*args)
        self.rule = rule

    def at(self, place: str) -> NeuroavError:
        """Return the same error with ``place: `` before its message."""
        return type(self)(f"{place}: {self}", rule=self.rule)


class ConfigError(NeuroavError, ValueError):
    """A configuration key or value is unknown or out of its range."""


class DataError(NeuroavError, ValueError):
    """Recordings or a data set are missing, cut, or not what they claim to be."""


class MissingDependency(NeuroavError, ImportError):
    """An optional package is needed; the message holds the line that installs it."""


class UnsupportedModule(NeuroavError, TypeError):
    """The tracer met a module or function it cannot represent."""


class UnsupportedNode(NeuroavError, TypeError):
    """A pass, executor or writer cannot carry a node."""


class StageError(NeuroavError, ValueError):
    """A graph violates the rules of its compilation stage."""


class DoesNotFit(NeuroavError, ValueError):
    """A network needs more than its target holds.

    problems: one entry per exceeded limit, with ``layer``, ``problem`` and ``remedy``.
    """

    def __init__(self, *args: object, rule: str = "fit", problems: Iterable[Any] = ()) -> None:
        super().__init__(*args, rule=rule)
        self.problems = tuple(problems)

    def at(self, place: str) -> DoesNotFit:
        """Return the same error with ``place: `` before its message."""
        return DoesNotFit(f"{place}: {self}", rule=self.rule, problems=self.problems)


class OutOfRange(NeuroavError, OverflowError):
    """An integer left the range its register holds."""


class ProfileError(NeuroavError, ValueError):
    """A hardware profile is missing, malformed or unsuited to the task."""


class FileFormatError(NeuroavError, ValueError):
    """A file is damaged, of a newer version, or not of the expected kind."""


class TrainingError(NeuroavError, RuntimeError):
    """Training or evaluation met values it cannot go on with."""


class ExecutorError(NeuroavError, RuntimeError):
    """An executor stopped, hung or lost one of its processes."""


def unknown_name(kind: str, name: str, allowed: Iterable[str], error: type[NeuroavError]):
    """Return ``error`` saying that ``name`` is no known ``kind``, with near matches."""
    allowed = sorted(allowed)
    near = get_close_matches(name, allowed, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return error(f"unknown {kind} {name!r}: allowed are {', '.join(allowed)}{hint}")
