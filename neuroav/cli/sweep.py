"""``neuroav sweep``: train and measure every combination of configuration values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from neuroav.cli.common import (
    Command,
    Outcome,
    chosen_workers,
    configuration_options,
    data_options,
    jobs_option,
    json_option,
    table,
    workers_options,
)
from neuroav.cli.progress import Reporter
from neuroav.cli.train import overrides_of

_PATH = click.Path(path_type=Path)


class _Over(click.ParamType):
    """``KEY=V1,V2,...``: a configuration key and its values."""

    name = "values"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, list[str]]:
        if isinstance(value, tuple):
            return value
        key, equals, texts = value.partition("=")
        values = [text.strip() for text in texts.split(",")]
        if not key or not equals or "" in values:
            self.fail(
                f"found {value!r}, needs KEY=V1,V2,..., for example scmrl.alpha=0,0.5,1", param, ctx
            )
        return key.strip(), values


class _Widths(click.ParamType):
    """Weight widths, separated by commas or blanks."""

    name = "widths"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[int]:
        if isinstance(value, list):
            return value
        words = value.replace(",", " ").split()
        if not words or not all(w.isdecimal() and 2 <= int(w) <= 16 for w in words):
            self.fail(f"found {value!r}, needs widths of 2 to 16 bits such as 8,4", param, ctx)
        return list(dict.fromkeys(map(int, words)))


class _SweepCommand(Command):
    """Also takes ``--export-bits 8 4``: options of click have a fixed number of values."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        joined: list[str] = []
        for word in args:
            if word.isdecimal() and len(joined) > 1 and joined[-2] == "--export-bits":
                joined[-1] += f",{word}"
            else:
                joined.append(word)
        return super().parse_args(ctx, joined)


@click.command(
    cls=_SweepCommand,
    example="neuroav sweep --model scmrl --data av-digits --over scmrl.alpha=0,1,2 "
    "--over train.seed=0,1,2 --out sweeps/alpha",
)
@configuration_options("Change one key of the configuration for all runs; may be repeated.")
@click.option(
    "--over",
    type=_Over(),
    multiple=True,
    required=True,
    metavar="KEY=V1,V2,...",
    help="A key to sweep and its values; repeated, every combination is run.",
)
@click.option("--out", type=_PATH, required=True, metavar="SWEEP", help="Folder of the sweep.")
@click.option(
    "--export-bits",
    type=_Widths(),
    metavar="BITS",
    help="Weight widths to deploy at, such as 8,4.  [default: as trained, else 8]",
)
@click.option("--no-deploy", is_flag=True, help="Measure the float networks only.")
@click.option(
    "--target",
    metavar="PROFILE",
    default="loihi2",
    show_default=True,
    help="Hardware profile to deploy for.",
)
@click.option("--init-from", type=_PATH, metavar="FILE", help="Start every run from these weights.")
@jobs_option("Runs at a time, each a process of its own.")
@workers_options
@data_options
@json_option
def sweep(
    model: str | None,
    data: str | None,
    config: Path | None,
    settings: tuple[str, ...],
    over: tuple[tuple[str, list[str]], ...],
    out: Path,
    export_bits: list[int] | None,
    no_deploy: bool,
    target: str,
    init_from: Path | None,
    jobs: int,
    workers: int | None,
    ray: str | None,
    data_root: Path | None,
    cache_dir: Path,
) -> Outcome:
    """Train every combination of configuration values.

    Each is a run folder inside SWEEP, measured on validation and test, deployed and run by the
    fast executor. SWEEP receives results.json, results.csv, sweep.svg and sweep.png. The same
    command again goes on where a killed one stopped. Choose by validation: the table names the
    best there and its test accuracy.
    """
    swept = dict(over)
    if len(swept) < len(over):
        raise click.BadParameter("one key comes twice; give all its values at once",
                                 param_hint="'--over'")  # fmt: skip
    if no_deploy and export_bits:
        raise click.UsageError("--no-deploy and --export-bits exclude each other")

    from neuroav.studies.sweep import FILES, run_sweep

    with Reporter() as progress:
        found = run_sweep(
            swept,
            out,
            model=model,
            data=data,
            file=config,
            overrides=overrides_of(settings),
            deploy=not no_deploy,
            export_bits=export_bits or (),
            target=target,
            init_from=init_from,
            jobs=jobs,
            workers=chosen_workers(workers, ray, jobs),
            cache_dir=cache_dir,
            data_root=data_root,
            progress=progress,
        )
    shown = [*_shown(found), "", *(str(out / name) for name in FILES if (out / name).exists())]
    return Outcome(found, shown, ok=not found["failed"])


def _shown(found: Mapping[str, Any]) -> list[RenderableType]:
    """Return the table of settings, the choice, and what failed."""
    from neuroav.studies.summary import as_text, describe

    keys = [k for k in found["keys"] if any(k in g["values"] for g in found["groups"])]
    sides = found["sides"]
    columns = [*keys, "runs", *(f"{s} val" for s in sides), *(f"{s} test" for s in sides),
               *(f"{s} agreement" for s in sides[1:])]  # fmt: skip
    wanted = [(s, k) for k in ("val", "test") for s in sides] + [
        (s, "agreement") for s in sides[1:]
    ]
    rows = [
        [
            *(str(group["values"][k]) for k in keys),
            group["runs"],
            *(as_text(group["sides"][s][k]) if s in group["sides"] else "-" for s, k in wanted),
        ]
        for group in found["groups"]
    ]
    shown: list[RenderableType] = [table(columns, rows, right=columns[len(keys) :])]
    if best := found["best"]:
        tests = [f"{s} {as_text(best['sides'][s]['test'])}" for s in sides]
        val = as_text(best["sides"][sides[0]]["val"])
        shown += [
            "",
            f"best on validation ({val}): {describe(best['values'])}; its test accuracy: "
            f"{', '.join(tests)}",
            f"({best['why']})",
        ]
    failed = [row for row in found["rows"] if row["state"] == "failed"]
    return shown + [f"failed: {row['name']}: {row['error']}" for row in failed]
