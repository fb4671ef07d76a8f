"""``neuroav report``: accuracy, events, energy and latency of deployments on profiles."""

from __future__ import annotations

from pathlib import Path

import click

from neuroav.cli.common import (
    PROBE_SPLITS,
    Command,
    Outcome,
    data_options,
    json_option,
    sample_options,
)
from neuroav.cli.progress import Reporter

FILES = ("report.html", "report.json", "report.md")


@click.command(
    cls=Command, example="neuroav report add.nav --out report --samples 100 --profile loihi2"
)
@click.argument("files", metavar="FILE.nav...", nargs=-1, required=True)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder to write."
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="ID",
    help="Price the events on this profile; may be repeated.  [default: the file's own]",
)
@sample_options(PROBE_SPLITS, split=None)
@data_options
@json_option
def report(
    files: tuple[str, ...],
    out: Path,
    profiles: tuple[str, ...],
    samples: int | None,
    split: str | None,
    data_root: Path | None,
    cache_dir: Path,
) -> Outcome:
    """Write accuracy, events and energy as a report.

    DIR receives report.html, report.json and report.md about all files given."""
    from neuroav.report import write_report
    from neuroav.simulate import resolve_deployment

    with Reporter() as progress:
        found = write_report(
            [resolve_deployment(file) for file in files],
            out=out,
            samples=samples,
            split=split,
            profiles=list(profiles),
            cache_dir=cache_dir,
            data_root=data_root,
            progress=progress,
        )
    return Outcome(found, [str(out / name) for name in FILES])
