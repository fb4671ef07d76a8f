"""``neuroav doctor``: what is installed, what is missing, and the line that installs it."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import RenderableType

from neuroav.cli.common import Command, Outcome, data_options, json_option, pairs, table


@click.command(cls=Command, example="neuroav doctor --json")
@click.option(
    "--vectors",
    type=click.Path(path_type=Path),
    envvar="NEUROAV_VECTORS",
    show_envvar=True,
    help="Folder with third-party reference vectors, only read.",
)
@data_options
@json_option
def doctor(vectors: Path | None, data_root: Path | None, cache_dir: Path) -> Outcome:
    """Show versions and what is missing.

    Exits with 1 when something that reading, simulating and reporting a deployment needs is
    missing; a missing optional part is no failure.
    """
    from neuroav.doctor import examine

    found = examine(data_root=data_root, vectors=vectors, cache_dir=cache_dir)
    parts = found["parts"]
    machine = {k: v for k, v in found.items() if k not in ("parts", "ok", "memory_free_bytes")}
    memory = found["memory_free_bytes"]
    machine["memory_free"] = None if memory is None else f"{memory / 2**30:.1f} GiB"
    columns = ("name", "version", "state", "extra", "used_for")
    shown: list[RenderableType] = [
        pairs(machine),
        "",
        table(columns, [[p[c] for c in columns] for p in parts]),
    ]
    for part in parts:
        if part["state"] != "present":
            problem = f" ({part['problem']})" if part["problem"] else ""
            shown.append(f"{part['name']} is {part['state']}{problem}: {part['install']}")
    return Outcome(found, shown, ok=found["ok"])
