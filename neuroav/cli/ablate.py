"""``neuroav ablate``: from the published zero-shot network to the deployed one, step by step."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import RenderableType

from neuroav.cli.common import Command, Outcome, data_options, json_option, table
from neuroav.cli.progress import Reporter
from neuroav.cli.train import overrides_of

_PATH = click.Path(path_type=Path)


@click.command(cls=Command, example="neuroav ablate --data av-attributes --out runs/ablation")
@click.option("--data", default="av-attributes", show_default=True, help="A zero-shot data set.")
@click.option("--out", type=_PATH, required=True, help="Folder of the runs and the table.")
@click.option(
    "--seeds", default="0,1,2", show_default=True, metavar="N,N,...", help="Seeds of every step."
)
@click.option("--steps", metavar="NAME,...", help="Only these steps.  [default: all]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="For every step.")
@click.option("--target", default="loihi2", show_default=True, help="Profile to deploy for.")
@data_options
@json_option
def ablate(
    data: str,
    out: Path,
    seeds: str,
    steps: str | None,
    settings: tuple[str, ...],
    target: str,
    data_root: Path | None,
    cache_dir: Path,
) -> Outcome:
    """Measure every step from stft to stft-chip.

    Trains stft, takes it apart step by step, and trains and deploys stft-chip. After each step:
    accuracy on seen and unseen classes, spikes, operations and energy. OUT receives
    ablation.json, ablation.md, ablation.svg and ablation.png; runs that are finished there are
    not trained again.
    """
    words = seeds.split(",")
    if not all(w.strip().isdecimal() for w in words):
        raise click.BadParameter(f"found {seeds!r}, needs whole numbers", param_hint="'--seeds'")

    from neuroav.studies.zeroshot import FILES, MEASURES, run_ablation

    with Reporter() as progress:
        found = run_ablation(
            out,
            data=data,
            seeds=[int(w) for w in words],
            overrides=overrides_of(settings),
            target=target,
            steps=steps.split(",") if steps else None,
            cache_dir=cache_dir,
            data_root=data_root,
            progress=progress,
        )
    columns = ["step", *MEASURES, "spikes", "synops", "macs"]
    rows = [
        [
            row["title"],
            *(f"{row['mean'][k]:.3f} +- {row['sd'][k]:.3f}" for k in MEASURES),
            *(f"{row['mean'][k]:,.0f}" for k in ("spikes", "synops", "macs")),
        ]
        for row in found["rows"]
    ]
    shown: list[RenderableType] = [table(columns, rows, right=columns[1:]), ""]
    return Outcome(found, [*shown, *(str(out / name) for name in FILES)])
