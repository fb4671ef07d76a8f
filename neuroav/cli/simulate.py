"""``neuroav simulate`` and ``neuroav verify``: run a deployment, and compare executors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import RenderableType
from rich.table import Table

from neuroav.cli.common import (
    PROBE_SPLITS,
    Command,
    OneOf,
    Outcome,
    SomeOf,
    chosen_workers,
    data_options,
    json_option,
    pairs,
    sample_options,
    table,
    workers_options,
)
from neuroav.cli.explained import explanation
from neuroav.cli.progress import Reporter

BACKENDS = ("reference", "fast", "lava", "lava-inline")
DIGEST_TASKS = ("store", "check")
_BY_NODE = ("spikes_per_sample", "synops_per_sample")


@click.command(cls=Command, example="neuroav simulate shipped:tiny.nav --backend reference --json")
@click.argument("file", metavar="FILE.nav")
@click.option(
    "--backend",
    type=OneOf("backend", BACKENDS),
    default="fast",
    show_default=True,
    help="Which executor; lava-inline runs Lava's process models without Lava's runtime.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Samples computed together; changes the time, never the result.",
)
@click.option(
    "--memory-mb",
    type=click.IntRange(min=1),
    help="Compute fewer samples together where their arrays would take more (fast only).",
)
@click.option(
    "--device",
    metavar="cpu|cuda",
    help="Where fast computes; a GPU gives the same integers.  [default: cpu]",
)
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    metavar="FILE.h5",
    help="Write the spikes of every node.",
)
@workers_options
@click.option(
    "--resume",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="With --workers or --ray: keep finished parts there until the run is whole, and go on "
    "from those of a run that was cut off.",
)
@sample_options(PROBE_SPLITS, split=None)
@data_options
@json_option
def simulate(
    file: str,
    backend: str,
    batch: int | None,
    memory_mb: int | None,
    device: str | None,
    record: Path | None,
    workers: int | None,
    ray: str | None,
    resume: Path | None,
    samples: int | None,
    split: str | None,
    data_root: Path | None,
    cache_dir: Path,
) -> Outcome:
    """Run a deployment and count its events.

    FILE.nav may be `shipped:NAME`, a file that comes with the package."""
    from neuroav.simulate import resolve_deployment
    from neuroav.simulate import simulate as simulate_file

    path = resolve_deployment(file)
    special: dict[str, Any] = {}
    if chosen := chosen_workers(workers, ray):
        from functools import partial

        from neuroav.studies.workers import run_on_workers

        special["run"] = partial(run_on_workers, chosen, path, resume=resume)
    elif resume:
        raise click.UsageError("--resume is for --workers and --ray: give one, or leave it out")
    with Reporter() as progress:
        found = simulate_file(
            path,
            **special,
            backend=backend,
            samples=samples,
            split=split,
            batch=batch,
            memory_mb=memory_mb,
            device=device,
            record=record,
            cache_dir=cache_dir,
            data_root=data_root,
            progress=progress,
        )
    head = {k: v for k, v in found.items() if k not in (*_BY_NODE, "predictions")}
    return Outcome(found, [pairs({"file": file} | head), "", _node_table(found)])


def _node_table(found: dict[str, Any]) -> Table:
    """Return spikes and synaptic operations per sample by node."""
    spikes, synops = (found.get(key, {}) for key in _BY_NODE)
    rows = [
        (name, spikes.get(name), synops.get(name)) for name in dict.fromkeys([*spikes, *synops])
    ]
    columns = ("node", "spikes/sample", "synops/sample")
    return table(columns, rows, right=columns[1:])


@click.command(
    cls=Command, example="neuroav verify add.nav --backends reference,fast,lava --samples 20"
)
@click.argument("file", metavar="FILE.nav")
@click.option(
    "--backends",
    type=SomeOf("backend", BACKENDS, minimum=1),
    default="reference,fast",
    show_default=True,
    help="Which executors to compare, separated by commas; with --digests one is enough.",
)
@click.option(
    "--explain",
    is_flag=True,
    help="Say where spikes change, from the float network to the last executor, and why.",
)
@click.option(
    "--run",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="With --explain: the run folder, to compare the network before its norms are folded too.",
)
@click.option(
    "--against",
    metavar="OTHER.nav",
    help="Also hold the integer graph against another file's, field by field.",
)
@click.option(
    "--certificate",
    type=click.Path(path_type=Path),
    metavar="FILE.md",
    help="Write a page that says what was found equal; only where all is.",
)
@click.option(
    "--digests",
    type=OneOf("task", DIGEST_TASKS),
    help="Run a fixed probe set, which needs no data: store digests in FILE.nav, or check those.",
)
@sample_options(PROBE_SPLITS, split=None, samples="16")
@data_options
@json_option
def verify(
    file: str,
    backends: list[str],
    explain: bool,
    run: Path | None,
    against: str | None,
    certificate: Path | None,
    digests: Any,
    samples: int | None,
    split: str | None,
    data_root: Path | None,
    cache_dir: Path,
) -> Outcome:
    """Compare executors spike by spike; exit 1 if unequal."""
    from neuroav.simulate import resolve_deployment

    _check_usage(file, backends, explain, run, digests, samples or split)
    path = resolve_deployment(file)
    with Reporter() as progress:
        common: dict[str, Any] = {
            "backends": backends,
            "samples": samples,
            "split": split,
            "cache_dir": cache_dir,
            "data_root": data_root,
            "progress": progress,
        }
        if explain or against or certificate or digests:
            from neuroav.explain import verify_explained

            special = {"against": against, "certificate": certificate, "digests": digests}
            if run:
                special["unfolded"] = _unfolded(run, cache_dir, data_root, progress)
            found = verify_explained(path, explain=explain, **special, **common)
        else:
            from neuroav.verify import verify as verify_file

            found = verify_file(path, **common)
    hidden = ("equal", "backends", "nodes", "digests", "explain", "against", "certificate")
    head = {k: v for k, v in found.items() if k not in (*hidden, "carried")}
    other = against and found["first_divergence"] is None  # then only the other file is unequal
    verdict = "equal" if found["equal"] or other else "NOT EQUAL"
    sides = [*backends, "digests in the file"] if digests else backends
    shown: list[RenderableType] = [
        f"{', '.join(sides)}: {verdict}",
        pairs({"file": file} | head),
        *explanation(found),
    ]
    if certificate:
        shown += ["", f"certificate: {found['certificate'] or 'not written'}"]
    return Outcome(found, shown, ok=bool(found["equal"]))


def _check_usage(
    file: str, backends: list[str], explain: bool, run: Path | None, digests: Any, chosen: Any
) -> None:
    """Raise UsageError for options that do not go together; chosen: --samples or --split."""
    if run and not explain:
        raise click.UsageError("--run is for --explain: give both, or leave --run out")
    if digests and chosen:
        raise click.UsageError(
            "--digests runs its own samples: leave --samples and --split out, or --digests"
        )
    if digests == "store" and file.startswith("shipped:"):
        raise click.UsageError(
            f"{file} belongs to the package: copy it, and store digests in the copy"
        )
    if not digests and len(backends) < 2:
        raise click.UsageError(
            f"Invalid value for '--backends': found {', '.join(backends)!r}, needs at least 2 "
            f"different names of {', '.join(BACKENDS)}, separated by commas"
        )


def _unfolded(run: Path, cache_dir: Path, data_root: Path | None, progress: Any) -> Any:
    """Return what runs the network of a run folder on what is fed to its deployment."""
    from functools import partial

    from neuroav_export.unfolded import run_outputs

    return partial(run_outputs, run, cache_dir=cache_dir, data_root=data_root, progress=progress)
