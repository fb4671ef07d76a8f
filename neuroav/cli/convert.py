"""``neuroav convert``: a deployment in another tool's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from neuroav.cli.common import Command, OneOf, Outcome, json_option, pairs, table

FORMATS = ("onnx", "netx", "nir", "sanafe")


@click.command(cls=Command, example="neuroav convert shipped:tiny.nav --to onnx --out tiny.onnx")
@click.argument("file", metavar="FILE.nav")
@click.option(
    "--to",
    type=OneOf("format", FORMATS),
    required=True,
    help="onnx: one time step of the integers, exact. netx: one chain for lava-dl, exact. "
    "nir: the real-valued network before quantization. sanafe: the placed network with recorded "
    "spikes, for SANA-FE.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="The file to write; for sanafe a folder.",
)
@click.option("--branch", metavar="INPUT", help="netx: write only the chain behind this input.")
@click.option(
    "--round-bias",
    is_flag=True,
    help="netx: round biases to whole synaptic inputs, which changes the network.",
)
@json_option
def convert(file: str, to: str, out: Path, branch: str | None, round_bias: bool) -> Outcome:
    """Write a deployment for another tool.

    docs/formats.md says what each format carries. FILE.nav may be `shipped:NAME`, a file that
    comes with the package."""
    options: dict[str, Any] = {}
    if to != "sanafe" and out.is_dir():
        raise click.BadParameter(f"File {str(out)!r} is a directory.", param_hint="'--out'")
    if to == "netx":
        options = {"branch": branch, "round_bias": round_bias}
    elif branch is not None or round_bias:
        raise click.UsageError(f"--branch and --round-bias go with --to netx, not with --to {to}")
    from neuroav.navfile import load
    from neuroav.simulate import resolve_deployment
    from neuroav_export.writers import convert as convert_deployment

    found = convert_deployment(load(resolve_deployment(file)), to, out, **options)
    head = {k: v for k, v in found.items() if k not in ("nodes", "left_out")}
    shown: list[RenderableType] = [pairs({"file": file} | head | {"nodes": len(found["nodes"])})]
    if found["left_out"]:
        shown += ["", table(("left out", "because"), list(found["left_out"].items()))]
    return Outcome(found, shown)
