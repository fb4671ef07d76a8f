"""``neuroav profiles``: the hardware profiles that limit and price a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import RenderableType

from neuroav.cli.common import Group, Outcome, json_option, pairs, table

if TYPE_CHECKING:
    from neuroav.hardware import Profile, Quantity


@click.group(cls=Group, example="neuroav profiles list")
def profiles() -> None:
    """List, show and check hardware profiles."""


@profiles.command("list", example="neuroav profiles list")
@json_option
def list_() -> Outcome:
    """List the profiles that are shipped."""
    from neuroav.hardware import list_profiles, load_profile, profile_aliases

    aliases = profile_aliases()
    found = [
        {
            "id": profile.id,
            "title": profile.title,
            "use": profile.use,
            "aliases": sorted(a for a, target in aliases.items() if target == profile.id),
        }
        for profile in map(load_profile, list_profiles())
    ]
    columns = ("id", "title", "use", "aliases")
    return Outcome({"profiles": found}, [table(columns, [[p[c] for c in columns] for p in found])])


@profiles.command("show", example="neuroav profiles show loihi2")
@click.argument("profile", metavar="ID")
@json_option
def show(profile: str) -> Outcome:
    """Show every number of the profile ID (or of a .toml file) with its grade and source."""
    from neuroav.hardware import load_profile

    found = load_profile(profile)
    data = found.model_dump(mode="json", by_alias=True) | {"hash": found.hash}
    return Outcome(data, list(_shown(found)))


def _shown(profile: Profile) -> Iterator[RenderableType]:
    """Yield what ``show`` prints: head, arithmetic, graded numbers, settings, measured points."""
    keys = ("id", "title", "use", "revision", "operating_point", "differs", "hash")
    yield pairs({key: value for key in keys if (value := getattr(profile, key))})
    if profile.numeric:
        yield from ("", "numeric", pairs(profile.numeric.model_dump()))
    rows = [
        (key, "unknown" if q.value is None else q.value, q.low, q.high, q.unit, q.grade, _said(q))
        for key, q in quantities(profile)
    ]
    columns = ("key", "value", "low", "high", "unit", "grade", "source")
    yield from ("", table(columns, rows, right=("value", "low", "high")))
    yield from ("", table(("key", "setting"), settings(profile)))
    if profile.validation:
        points = [
            (v.case, v.quantity, v.predicted, v.measured, v.unit, f"{v.error:+.1%}", v.source)
            for v in profile.validation
        ]
        columns = ("measured case", "quantity", "predicted", "measured", "unit", "error", "source")
        yield from ("", table(columns, points, right=("predicted", "measured", "error")))


def _said(quantity: Quantity) -> str:
    return f"{quantity.source} ({quantity.note})" if quantity.note else quantity.source


@profiles.command("check", example="neuroav profiles check my_chip.toml")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def check(file: Path) -> Outcome:
    """Check a profile FILE; every bad key is listed with what was found and what is allowed."""
    from neuroav.hardware import read_profile

    profile = read_profile(file)
    grades = Counter(q.grade for _, q in quantities(profile) if q.value is not None)
    unknown = sum(q.value is None for _, q in quantities(profile))
    data: dict[str, Any] = {
        "id": profile.id,
        "use": profile.use,
        "grades": dict(grades),
        "unknown": unknown,
        "validation": len(profile.validation),
        "hash": profile.hash,
    }
    counts = ", ".join(f"{n} of grade {grade}" for grade, n in sorted(grades.items()))
    shown = f"{file}: valid profile {profile.id!r}: {counts}, {unknown} unknown"
    if profile.validation:
        shown += f", held against {len(profile.validation)} measured"
    return Outcome(data, [shown])


def quantities(profile: Profile) -> Iterator[tuple[str, Quantity]]:
    """Yield every graded number of a profile with its dotted key, in the order of the file."""
    from neuroav.hardware import Quantity

    for key, value in _leaves(profile):
        if isinstance(value, Quantity):
            yield key, value


def settings(profile: Profile) -> Iterator[tuple[str, bool | str]]:
    """Yield what a profile chooses beside its numbers, with its dotted key."""
    for key, value in _leaves(profile):
        if isinstance(value, (bool, str)):
            yield key, value


def _leaves(profile: Profile) -> Iterator[tuple[str, Any]]:
    for section in ("topology", "core", "layout", "energy", "time"):
        for key, value in getattr(profile, section):
            yield f"{section}.{key}", value
