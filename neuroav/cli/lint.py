"""``neuroav lint``: what in a trained run's network cannot be deployed, why, and the rewrite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from neuroav.cli.common import Command, Outcome, data_options, json_option
from neuroav.cli.progress import Reporter


@click.command(cls=Command, example="neuroav lint runs/add --target loihi1")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--target",
    metavar="PROFILE",
    default="loihi2",
    show_default=True,
    help="A profile's id (see `neuroav profiles list`) or a .toml file.",
)
@data_options
@json_option
def lint(run: Path, target: str, data_root: Path | None, cache_dir: Path) -> Outcome:
    """Say what in RUN cannot be deployed, why, and the rewrite.

    Lists everything at once, by layer; nothing is written. Exits 1 if anything stands against the
    target. docs/lint.md lists all rules and how to check a network of your own."""
    from neuroav_export import lint_run

    with Reporter() as progress:
        found = lint_run(
            run, target=target, cache_dir=cache_dir, data_root=data_root, progress=progress
        )
    return Outcome(found, [*_lines(found["findings"]), _verdict(found)], ok=found["deployable"])


def _lines(findings: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the findings by layer; why and rewrite stand where a rule is met first."""
    layer = ""
    first: dict[tuple[str, str], str] = {}
    for found in findings:
        if found["layer"] != layer:
            layer = found["layer"]
            yield layer
        rule = found["rule"], found["rewrite"]
        again = f" (see {first[rule]})" if rule in first else ""
        yield f"  {found['severity']}: {found['problem']}{again}"
        if rule not in first:
            first[rule] = layer
            yield f"    why: {found['why']}"
            yield f"    rewrite: {found['rewrite']}"


def _verdict(found: dict[str, Any]) -> str:
    if found["deployable"]:
        return f"deployable on {found['target']}"
    errors = sum(f["severity"] == "error" for f in found["findings"])
    word = "finding" if errors == 1 else "findings"
    return f"{errors} {word}, not deployable on {found['target']}"
