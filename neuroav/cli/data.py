"""``neuroav data``: the data sets, prepared once into the cache folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from neuroav.cli.common import (
    Group,
    Outcome,
    data_options,
    jobs_option,
    json_option,
    pairs,
    table,
)
from neuroav.cli.progress import Reporter

_SHOWN_SKIPPED = 10  # items


@click.group(cls=Group, example="neuroav data list")
def data() -> None:
    """List, prepare, show and check data sets."""


@data.command("list", example="neuroav data list")
@json_option
def list_() -> Outcome:
    """List the data sets, their presets and whether they need files of yours."""
    from neuroav.data import DATASETS

    columns = ("name", "title", "presets", "classes", "licence", "limits", "needs_files")
    found = [{c: getattr(info, c) for c in columns} for info in DATASETS.values()]
    rows = [
        [row["name"], row["title"], row["presets"], "yours" if row["needs_files"] else "none"]
        for row in found
    ]
    hint = "licences and limits: neuroav data show NAME; where files must lie: docs/data.md"
    return Outcome(
        {"datasets": found}, [table(("name", "title", "presets", "files"), rows), "", hint]
    )


_preset = click.option("--preset", default="default", show_default=True, help="Variant of the set.")
_seed = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of synthesised data.",
)
_manifest = click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A list (CSV: file, bytes, sha256) that the source files must agree with.",
)


@data.command("prepare", example="neuroav data prepare av-digits --preset default")
@click.argument("name")
@_preset
@_seed
@click.option("--force", is_flag=True, help="Make it again even if the cache holds it.")
@jobs_option("Processes that convert files, of data sets that are read from files.")
@click.option("--skip-broken", is_flag=True, help="Leave out, and list, what cannot be read.")
@click.option(
    "--accept-changed",
    is_flag=True,
    help="Take source files as they are now, though they were others when first prepared.",
)
@_manifest
@data_options
@json_option
def prepare(
    name: str,
    preset: str,
    seed: int,
    force: bool,
    jobs: int,
    skip_broken: bool,
    accept_changed: bool,
    manifest: Path | None,
    data_root: Path | None,
    cache_dir: Path,
) -> Outcome:
    """Make or convert the data set NAME and keep it in the cache folder.

    Cut off, it goes on where it was when started again.
    """
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
            jobs=jobs,
            skip_broken=skip_broken,
            accept_changed=accept_changed,
            manifest=manifest,
        )
    found = {"name": name, "preset": preset, "seed": seed, "path": path}
    return Outcome(found, [f"{name} ({preset}, seed {seed}): {path}", *_left_out(path)])


def _left_out(path: Path) -> list[str]:
    """A line about what a prepared file lacks, none where it is whole."""
    from neuroav.data import cache

    if not path.is_file():
        return []
    meta = cache.read(path, "run again with --force", verify=False).meta
    counts = {"skipped": "skipped", "orphans": "without a partner", "left_out": "left out"}
    said = [f"{len(meta[key])} {what}" for key, what in counts.items() if meta.get(key)]
    return [f"{', '.join(said)}; neuroav data show lists them"] if said else []


@data.command("show", example="neuroav data show av-digits")
@click.argument("name")
@_preset
@_seed
@data_options
@json_option
def show(name: str, preset: str, seed: int, data_root: Path | None, cache_dir: Path) -> Outcome:
    """Show what the data set NAME holds, and what of it was skipped."""
    from neuroav.data import describe

    found = describe(name, preset=preset, data_seed=seed, cache_dir=cache_dir, data_root=data_root)
    lists = {"skipped_items": "skipped item", "left_out_items": "left out"}
    shown: list[Any] = [pairs({k: v for k, v in found.items() if k not in lists})]
    for key, title in lists.items():
        items = found.get(key) or {}
        if items:
            shown.append(table((title, "why"), list(items.items())[:_SHOWN_SKIPPED]))
        if len(items) > _SHOWN_SKIPPED:
            shown.append(f"and {len(items) - _SHOWN_SKIPPED} more; --json lists them all")
    return Outcome(found, shown)


@data.command("check", example="neuroav data check av-digits")
@click.argument("name")
@_preset
@_seed
@jobs_option("Threads that hash source files.")
@_manifest
@data_options
@json_option
def check(
    name: str,
    preset: str,
    seed: int,
    jobs: int,
    manifest: Path | None,
    data_root: Path | None,
    cache_dir: Path,
) -> Outcome:
    """Read all prepared data of NAME again, and with a data root its source files.

    Exits 1 when anything is not as it was when it was prepared, and says what.
    """
    from neuroav.data.catalogue import check as check_data

    with Reporter() as progress:
        found = check_data(
            name,
            preset=preset,
            data_seed=seed,
            cache_dir=cache_dir,
            data_root=data_root,
            manifest=manifest,
            progress=progress,
            jobs=jobs,
        )
    problems = found["problems"]
    rows = {**found, "problems": len(problems)}
    return Outcome(found, [pairs(rows), *problems], ok=not problems)
