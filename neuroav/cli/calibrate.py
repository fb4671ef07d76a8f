"""``neuroav calibrate``: the energy and time model against published measurements."""

from __future__ import annotations

from pathlib import Path

import click

from neuroav.cli.common import Command, Outcome, json_option


@click.command(cls=Command, example="neuroav calibrate --out calibration")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder to write."
)
@json_option
def calibrate(out: Path) -> Outcome:
    """Hold the energy and time model against published measurements.

    DIR receives calibration.html, calibration.json and calibration.md: every result we know of,
    what the model predicts for it and how far off that is, or what a prediction lacks."""
    from neuroav.report.calibration import FILES, write_calibration

    found = write_calibration(out)
    return Outcome(found, [str(out / name) for name in FILES])
