"""``neuroav convert``: a deployment in another tool's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from neuroav.cli.common import Command, OneOf, Outcome, json_option, pairs, table

FORMATS = ("onnx", "netx", "nir", "sanafe", "lava")
FOLDERS = ("sanafe", "lava")  # formats that are one


@click.command(cls=Command, example="neuroav convert shipped:tiny.nav --to onnx --out tiny.onnx")
@click.argument("file", metavar="FILE.nav")
@click.option(
    "--to",
    type=OneOf("format", FORMATS),
    required=True,
    help="onnx: the integers, exact, or the float network. netx: one chain for lava-dl, exact. "
    "nir: the real-valued network before quantization. sanafe: the placed network with recorded "
    "spikes, for SANA-FE. lava: a script that runs the integers in Lava, exact.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="The file to write; for sanafe and lava a folder.",
)
@click.option(
    "--form",
    type=OneOf("form", ("step", "unrolled")),
    help="onnx: one time step with states going in and out (default), or whole samples.",
)
@click.option(
    "--numbers",
    type=OneOf("kind of numbers", ("integer", "float")),
    help="onnx: the integers as deployed (default), or the real-valued network in float32.",
)
@click.option("--branch", metavar="INPUT", help="netx: write only the chain behind this input.")
@click.option(
    "--round-bias",
    is_flag=True,
    help="netx: round biases to whole synaptic inputs, which changes the network.",
)
@json_option
def convert(
    file: str,
    to: str,
    out: Path,
    form: str | None,
    numbers: str | None,
    branch: str | None,
    round_bias: bool,
) -> Outcome:
    """Write a deployment for another tool.

    docs/formats.md says what each format carries. FILE.nav may be `shipped:NAME`, a file that
    comes with the package."""
    options: dict[str, Any] = {}
    if to not in FOLDERS and out.is_dir():
        raise click.BadParameter(f"File {str(out)!r} is a directory.", param_hint="'--out'")
    if to == "netx":
        options = {"branch": branch, "round_bias": round_bias}
    elif branch is not None or round_bias:
        raise click.UsageError(f"--branch and --round-bias go with --to netx, not with --to {to}")
    if to == "onnx":
        options = {"form": form or "step", "numbers": numbers or "integer"}
    elif form is not None or numbers is not None:
        raise click.UsageError(f"--form and --numbers go with --to onnx, not with --to {to}")
    from neuroav.navfile import load
    from neuroav.simulate import resolve_deployment
    from neuroav_export.writers import convert as convert_deployment

    found = convert_deployment(load(resolve_deployment(file)), to, out, **options)
    head = {k: v for k, v in found.items() if k not in ("nodes", "left_out")}
    shown: list[RenderableType] = [pairs({"file": file} | head | {"nodes": len(found["nodes"])})]
    if found["left_out"]:
        shown += ["", table(("left out", "because"), list(found["left_out"].items()))]
    return Outcome(found, shown)
