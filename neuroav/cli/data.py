"""``neuroav data``: the data sets, prepared once into the cache folder."""

from __future__ import annotations

from pathlib import Path

import click

from neuroav.cli.common import Group, Outcome, data_options, json_option, pairs, table
from neuroav.cli.progress import Reporter


@click.group(cls=Group, example="neuroav data list")
def data() -> None:
    """List, prepare and show data sets."""


@data.command("list", example="neuroav data list")
@json_option
def list_() -> Outcome:
    """List the data sets, their presets and licences."""
    from neuroav.data import DATASETS

    columns = ("name", "title", "presets", "classes", "licence", "limits")
    found = [{c: getattr(info, c) for c in columns} for info in DATASETS.values()]
    rows = [[len(row[c]) if c == "classes" else row[c] for c in columns] for row in found]
    return Outcome({"datasets": found}, [table(columns, rows)])


_preset = click.option("--preset", default="default", show_default=True, help="Variant of the set.")
_seed = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of synthesised data.",
)


@data.command("prepare", example="neuroav data prepare av-digits --preset default")
@click.argument("name")
@_preset
@_seed
@click.option("--force", is_flag=True, help="Make it again even if the cache holds it.")
@data_options
@json_option
def prepare(
    name: str, preset: str, seed: int, force: bool, data_root: Path | None, cache_dir: Path
) -> Outcome:
    """Make or convert the data set NAME and keep it in the cache folder."""
    from neuroav.data import prepare as prepare_data

    with Reporter() as progress:
        path = prepare_data(
            name,
            preset=preset,
            data_seed=seed,
            cache_dir=cache_dir,
            data_root=data_root,
            force=force,
            progress=progress,
        )
    found = {"name": name, "preset": preset, "seed": seed, "path": path}
    return Outcome(found, [f"{name} ({preset}, seed {seed}): {path}"])


@data.command("show", example="neuroav data show av-digits")
@click.argument("name")
@_preset
@_seed
@data_options
@json_option
def show(name: str, preset: str, seed: int, data_root: Path | None, cache_dir: Path) -> Outcome:
    """Show what the data set NAME holds."""
    from neuroav.data import describe

    found = describe(name, preset=preset, data_seed=seed, cache_dir=cache_dir, data_root=data_root)
    return Outcome(found, [pairs(found)])
