"""``neuroav export``: a trained run becomes one FILE.nav for a target."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import click
from rich.console import RenderableType

from neuroav.cli.common import Command, Outcome, data_options, json_option, pairs, table
from neuroav.cli.progress import Reporter
from neuroav.errors import ConfigError

_PATH = click.Path(path_type=Path)


@click.command(
    cls=Command, example="neuroav export runs/add --target loihi2 --out add.nav --bits 8"
)
@click.argument("run", type=_PATH)
@click.option(
    "--target",
    metavar="PROFILE",
    default="loihi2",
    show_default=True,
    help="A profile's id (see `neuroav profiles list`) or a .toml file.",
)
@click.option("--out", type=_PATH, required=True, metavar="FILE.nav", help="The file to write.")
@click.option(
    "--bits",
    type=click.IntRange(1, 16),
    help="Weight width.  [default: as trained if quantization-aware, else 8]",
)
@click.option(
    "--calibration",
    type=click.Choice(["max", "percentile", "mse"]),
    help="Which weights may be clipped.  [default: as trained, else mse]",
)
@click.option(
    "--per-channel/--per-tensor",
    default=None,
    help="One scale per output channel or per layer.  [default: as trained, else per layer]",
)
@click.option(
    "--layer-bits",
    multiple=True,
    metavar="NAME=N",
    help="Another width for one layer, or all in what NAME holds; repeat it for more.",
)
@click.option(
    "--accuracy-budget",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="SHARE",
    help="Give single layers fewer bits while validation accuracy falls by at most this (0.01).",
)
@click.option(
    "--place/--no-place",
    default=True,
    show_default=True,
    help="Put the neurons on cores of the target, within its limits (docs/mapping.md).",
)
@click.option(
    "--spread/--pack",
    default=True,
    show_default=True,
    help="Even the load over free cores, for short steps, or take as few cores as possible.",
)
@data_options
@json_option
def export(
    run: Path,
    target: str,
    out: Path,
    bits: int | None,
    calibration: Literal["max", "percentile", "mse"] | None,
    per_channel: bool | None,
    layer_bits: tuple[str, ...],
    accuracy_budget: float | None,
    place: bool,
    spread: bool,
    data_root: Path | None,
    cache_dir: Path,
) -> Outcome:
    """Compile the run folder RUN for one target."""
    from neuroav_export import export_run

    with Reporter() as progress:
        found = export_run(
            run,
            target=target,
            out=out,
            bits=bits,
            calibration=calibration,
            per_channel=per_channel,
            layer_bits=_widths(layer_bits) if layer_bits else None,
            accuracy_budget=accuracy_budget,
            place=place,
            spread=spread,
            cache_dir=cache_dir,
            data_root=data_root,
            progress=progress,
        )
    head = {k: v for k, v in found.items() if k not in ("layers", "utilisation", "mixed")}
    shown: list[RenderableType] = [pairs({"file": out, "target": target} | head)]
    shown += utilisation_table(found.get("utilisation"), found.get("cores"), found.get("chips"))
    if mixed := found.get("mixed"):
        shown += ["", _bought(mixed)]
    layers = found.get("layers", {})
    if layers:
        columns = list(next(iter(layers.values())))
        rows = [[name, *(layer[c] for c in columns)] for name, layer in layers.items()]
        shown += ["", table(["layer", *columns], rows, right=columns)]
    return Outcome(found, shown)


def _widths(items: tuple[str, ...]) -> dict[str, int]:
    """Return NAME=N texts as widths by layer; ConfigError for anything else."""
    found = {}
    for item in items:
        name, _, bits = item.partition("=")
        if not name or not bits.isdecimal():
            raise ConfigError(f"--layer-bits {item!r}: write NAME=N, such as audio.conv1=4")
        found[name] = int(bits)
    return found


def _bought(mixed: Mapping[str, Any]) -> RenderableType:
    """Return what an accuracy budget bought, as a table."""
    rows = [
        [name, f"{part['accuracy']:.4f}", f"{part['agreement']:.4f}", f"{part['memory_bits']:,}"]
        for name, part in (("all alike", mixed["before"]), ("by layer", mixed["after"]))
    ]
    columns = ["widths", "validation accuracy", "agreement", "bits of weights"]
    return table(columns, rows, right=columns[1:])


def utilisation_table(
    found: Mapping[str, Any] | None, cores: int | None, chips: int | None
) -> list[RenderableType]:
    """Return how full the cores are, as a table; nothing where the network was not placed."""
    if found is None:
        return []
    resources = {n: row for n, row in found.items() if n != "cores"}
    rows = [
        [name, f"{row['mean']:.1%}", f"{row['max']:.1%}", f"{row['limit']:,}"]
        for name, row in resources.items()
    ]
    share = f"{cores} cores, {found['cores']['share']:.1%} of {chips} chip{'s' * (chips != 1)}"
    columns = ["in a core", "mean", "fullest", "limit"]
    return ["", share, table(columns, rows, right=columns[1:])]
