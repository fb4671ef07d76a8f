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
    head = {"id": found.id, "title": found.title, "use": found.use, "hash": found.hash}
    rows = [
        (key, "unknown" if q.value is None else q.value, q.low, q.high, q.unit, q.grade, q.source)
        for key, q in quantities(found)
    ]
    columns = ("key", "value", "low", "high", "unit", "grade", "source")
    data = found.model_dump(mode="json", by_alias=True) | {"hash": found.hash}
    shown: list[RenderableType] = [
        pairs(head),
        "",
        "numeric",
        pairs(found.numeric.model_dump()),
        "",
        table(columns, rows, right=("value", "low", "high")),
    ]
    return Outcome(data, shown)


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
        "hash": profile.hash,
    }
    counts = ", ".join(f"{n} of grade {grade}" for grade, n in sorted(grades.items()))
    return Outcome(data, [f"{file}: valid profile {profile.id!r}: {counts}, {unknown} unknown"])


def quantities(profile: Profile) -> Iterator[tuple[str, Quantity]]:
    """Yield every graded number of a profile with its dotted key, in the order of the file."""
    for section in ("topology", "core", "energy", "time"):
        for key, quantity in getattr(profile, section):
            yield f"{section}.{key}", quantity
