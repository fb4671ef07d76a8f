"""``neuroav import``: a network that another tool wrote becomes one FILE.nav for a target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from neuroav.cli.common import Command, OneOf, Outcome, json_option, pairs, table
from neuroav.cli.export import utilisation_table

FORMATS = ("netx", "nir")
_OPTIONS = {
    "input_shape": "--input-shape",
    "input_message_bits": "--input-bits",
    "dt_s": "--dt",
    "unit_s": "--time-unit",
    "decode": "--decode",
    "reset": "--reset",
    "decay": "--decay",
    "output": "--output",
    "bits": "--bits",
    "calibration": "--calibration",
}
_TAKEN = {  # of _OPTIONS, by format
    "netx": ("input_shape", "input_message_bits", "dt_s"),
    "nir": ("dt_s", "unit_s", "decode", "reset", "decay", "output", "bits", "calibration"),
}


class Shape(click.ParamType):
    """Whole numbers from 1, separated by commas."""

    name = "shape"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        try:
            shape = tuple(int(part) for part in value.split(","))
        except ValueError:
            shape = ()
        if len(shape) not in (1, 3) or min(shape) < 1:
            self.fail(f"found {value!r}, needs CHANNELS,ROWS,COLUMNS or NEURONS", param, ctx)
        return shape


@click.command(
    "import",
    cls=Command,
    example="neuroav import trained.net --from netx --steps 32 --out trained.nav",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--from",
    "form",
    type=OneOf("format", FORMATS),
    required=True,
    help="netx: what lava-dl's SLAYER exports (export_hdf5). nir: NIR files, which need --samples.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE.nav",
    help="The file to write.",
)
@click.option(
    "--target",
    metavar="PROFILE",
    default="loihi2",
    show_default=True,
    help="A profile's id (see `neuroav profiles list`) or a .toml file.",
)
@click.option(
    "--samples",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Arrays (samples, steps, *shape) by input name, and labels if there are: the first 8 go "
    "into the file.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Steps of a sample.  [default: those of the samples, or what the file says]",
)
@click.option(
    "--classes", metavar="NAME,...", help="Names of the classes, in order.  [default: numbers]"
)
@click.option(
    "--input-shape",
    type=Shape(),
    metavar="C,ROWS,COLUMNS",
    help="netx: shape of the input, where the file has no input layer.",
)
@click.option(
    "--input-bits",
    "input_message_bits",
    type=click.IntRange(0, 16),
    help="netx: width of an event count, 0 for spikes.  [default: as in the file, else 0]",
)
@click.option(
    "--dt",
    "dt_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Length of a step.  [default: as in the file; netx: else 0.001]",
)
@click.option(
    "--time-unit",
    "unit_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="nir: the unit of the file's times.  [default: 1]",
)
@click.option(
    "--decode",
    type=OneOf("decoding", ("rate", "last")),
    help="nir: class scores are the mean over time or the last value.  [default: the mean of "
    "spikes, the last of membranes]",
)
@click.option(
    "--reset",
    type=OneOf("reset", ("value", "subtract", "subtract-late")),
    help="nir: what a spike does; the file cannot say 'subtract', at once or in the next step.  "
    "[default: value]",
)
@click.option(
    "--decay",
    type=OneOf("decay", ("euler", "exponential")),
    help="nir: per step 1 - dt / tau or exp(-dt / tau).  [default: euler]",
)
@click.option("--output", metavar="NODE", help="nir: which Output node, if there are several.")
@click.option("--bits", type=click.IntRange(2, 8), help="nir: width of weights.  [default: 8]")
@click.option(
    "--calibration",
    type=OneOf("calibration", ("mse", "percentile", "max")),
    help="nir: how the unit of weights is chosen.  [default: mse]",
)
@click.option(
    "--place/--no-place",
    default=True,
    show_default=True,
    help="Put the neurons on cores of the target, within its limits (docs/mapping.md).",
)
@json_option
def import_(
    file: Path,
    form: str,
    out: Path,
    target: str,
    samples: Path | None,
    steps: int | None,
    classes: str | None,
    place: bool,
    **options: Any,
) -> Outcome:
    """Read another tool's network into a FILE.nav.

    docs/formats.md says what each format may hold."""
    given = {name: value for name, value in options.items() if value is not None}
    wrong = [_OPTIONS[name] for name in given if name not in _TAKEN[form]]
    if wrong:
        raise click.UsageError(f"{' and '.join(wrong)}: not with --from {form}")
    if out.is_dir():
        raise click.BadParameter(f"File {str(out)!r} is a directory.", param_hint="'--out'")
    from neuroav_export.readers import import_file

    names = [name.strip() for name in classes.split(",")] if classes else []
    found = import_file(
        file,
        form,
        out,
        target=target,
        samples=samples,
        steps=steps,
        classes=names,
        place=place,
        **given,
    )
    head = {k: v for k, v in found.items() if k not in ("layers", "utilisation")}
    shown: list[RenderableType] = [pairs({"file": out, "target": target} | head)]
    shown += utilisation_table(found["utilisation"], found["cores"], found["chips"])
    columns = list(next(iter(found["layers"].values())))
    rows = [[name, *(layer[c] for c in columns)] for name, layer in found["layers"].items()]
    return Outcome(found, [*shown, "", table(["layer", *columns], rows, right=columns)])
