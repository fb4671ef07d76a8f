"""``neuroav robustness``: accuracy of deployments under disturbances, float and deployed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType

from neuroav.cli.common import (
    PROBE_SPLITS,
    Command,
    Outcome,
    SomeOf,
    chosen_workers,
    data_options,
    jobs_option,
    json_option,
    sample_options,
    table,
    workers_options,
)
from neuroav.cli.progress import Reporter

KINDS = ("noise", "drop", "jitter", "missing")


@click.command(
    cls=Command, example="neuroav robustness add.nav audio.nav visual.nav --out robustness"
)
@click.argument("files", metavar="FILE.nav...", nargs=-1, required=True)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder to write."
)
@click.option(
    "--disturbances",
    "kinds",
    type=SomeOf("disturbance", KINDS, minimum=1),
    help=f"Which of {', '.join(KINDS)}.  [default: all that the samples allow]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the disturbances.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Samples computed together; changes the time, never the result.",
)
@jobs_option("Processes that share the conditions.")
@workers_options
@sample_options(PROBE_SPLITS, split=None)
@data_options
@json_option
def robustness(
    files: tuple[str, ...],
    out: Path,
    kinds: list[str] | None,
    seed: int,
    batch: int,
    jobs: int,
    workers: int | None,
    ray: str | None,
    samples: int | None,
    split: str | None,
    data_root: Path | None,
    cache_dir: Path,
) -> Outcome:
    """Disturb the test samples and measure accuracy.

    Noise on the event counts, events lost, jitter of their times, one input silent; every file and
    its real-valued twin get the same samples. DIR receives robustness.json, robustness.svg and
    robustness.png. Files must be of one data set.
    """
    from neuroav.studies.robustness import FILES, run_robustness

    with Reporter() as progress:
        found = run_robustness(
            files,
            out,
            kinds=kinds,
            samples=samples,
            split=split,
            seed=seed,
            batch=batch,
            jobs=jobs,
            workers=chosen_workers(workers, ray, jobs),
            cache_dir=cache_dir,
            data_root=data_root,
            progress=progress,
        )
    return Outcome(found, [*_shown(found), "", *(str(out / name) for name in FILES)])


def _shown(found: Mapping[str, Any]) -> list[RenderableType]:
    """Return one table per disturbance, accuracies in percent, and what they do not tell."""
    shown: list[RenderableType] = [
        f"accuracy in percent on {found['samples']} samples of split {found['split']}"
    ]
    for kind in KINDS:
        panels = [panel for panel in found["panels"] if panel["kind"] == kind]
        if panels:
            shown += ["", _table(kind, panels)]
    refused = sorted({text for p in found["panels"] for c in p["curves"] for text in c["refused"]
                      if text})  # fmt: skip
    return [*shown, "", *(f"-: no answer, {text}" for text in refused), *found["notes"]]


def _table(kind: str, panels: Sequence[Mapping[str, Any]]) -> RenderableType:
    unit, levels = panels[0]["unit"], panels[0]["levels"]
    heads = ["clean", *(f"{v:g} {unit}" if unit else f"no {v}" for v in levels[1:]), "mean"]
    rows = [
        [panel["on"], curve["file"], side, *map(_percent, curve[side]),
         _percent(curve["mean"][side])]
        for panel in panels
        for curve in panel["curves"]
        for side in ("float", "deployed")
    ]  # fmt: skip
    return table([kind, "file", "side", *heads], rows, right=heads)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}"
