"""``neuroav demo``: the whole pipeline once, with the shipped ``demo`` configuration."""

from __future__ import annotations

from pathlib import Path

import click

from neuroav.cli.common import Command, Outcome, data_options, json_option
from neuroav.cli.progress import Reporter


@click.command(cls=Command, example="neuroav demo --out runs/demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default="runs/demo",
    show_default=True,
    help="Folder for the runs, the deployment and the report.",
)
@data_options
@json_option
def demo(out: Path, data_root: Path | None, cache_dir: Path) -> Outcome:
    """Run the whole pipeline once, from data to report.

    Prepares data, trains three small networks, compiles, simulates and reports: a few minutes."""
    from neuroav.demo import run_demo

    with Reporter() as progress:
        found = run_demo(out, cache_dir=cache_dir, data_root=data_root, progress=progress)
    shown = [
        f"audio alone: {found['audio']:.3f}",
        f"visual alone: {found['visual']:.3f}",
        f"audio-visual, float: {found['av_float']:.3f}",
        f"audio-visual, deployed: {found['av_deployed']:.3f}",
        f"report: {found['report']}",
    ]
    return Outcome(found, shown)
