"""``neuroav train`` and ``neuroav evaluate``: a run folder and its accuracy."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import RenderableType

from neuroav.cli.common import (
    SPLITS,
    Command,
    Outcome,
    configuration_options,
    data_options,
    json_option,
    pairs,
    sample_options,
    table,
)
from neuroav.cli.progress import Reporter

if TYPE_CHECKING:
    from neuroav.training.config import RunConfig
    from neuroav.training.distributed import Ranks

# What torchrun says to the processes that it starts, in the order of the fields of ``Ranks``.
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATH = click.Path(path_type=Path)
_MOST_CLASSES = 20  # whose confusion fits a terminal; --json has it for any number


@click.command(
    cls=Command, example="neuroav train --model add --data av-digits --out runs/add --seed 1"
)
@configuration_options("Change one key of the configuration; may be repeated.")
@click.option("--out", type=_PATH, required=True, help="The run folder.")
@click.option("--epochs", type=click.IntRange(min=1), help="Short for --set train.epochs=N.")
@click.option("--seed", type=click.IntRange(min=0), help="Short for --set train.seed=N.")
@click.option("--threads", type=click.IntRange(min=1), help="Short for --set train.threads=N.")
@click.option("--resume", is_flag=True, help="Go on with the run in the folder --out.")
@click.option("--init-from", type=_PATH, metavar="FILE", help="Start from these weights.")
@data_options
@json_option
def train(
    model: str | None,
    data: str | None,
    out: Path,
    config: Path | None,
    settings: tuple[str, ...],
    epochs: int | None,
    seed: int | None,
    threads: int | None,
    resume: bool,
    init_from: Path | None,
    data_root: Path | None,
    cache_dir: Path,
) -> Outcome:
    """Train a network into the run folder --out.

    Values come from defaults, then --config, then the options. With --resume and without --config,
    they come from the configuration stored in the run folder, then the options.

    `torchrun --nproc-per-node N -m neuroav train ...` trains in N processes that share out every
    batch; there --resume also begins a folder that holds no run yet, so that what torchrun starts
    again goes on.
    """
    ranks = _ranks(os.environ)
    if resume and init_from is not None and ranks is None:
        raise click.UsageError("--resume and --init-from exclude each other")
    overrides = overrides_of(settings, {"epochs": epochs, "seed": seed, "threads": threads})
    file = _stored(out) if resume and config is None else config
    loaded = _load(model, data, file, overrides)

    from neuroav.training.loop import train as train_run

    first = ranks is None or ranks.rank == 0
    with Reporter() if first else nullcontext() as progress:
        metrics = train_run(
            loaded,
            out,
            resume=resume,
            init_from=init_from,
            cache_dir=cache_dir,
            data_root=data_root,
            progress=progress,
            ranks=ranks,
        )
    if not first:
        click.get_current_context().exit()  # the first process says what came of it
    summary = {k: v for k, v in metrics.items() if not isinstance(v, (list, dict))}
    warnings = [f"warning: {text}" for text in metrics.get("warnings", ())]
    return Outcome(metrics, [pairs({"run": out} | summary), *warnings])


def _ranks(environment: Mapping[str, str]) -> Ranks | None:
    """Return this process's place among those that torchrun started, None without torchrun."""
    if not all(name in environment for name in _TORCHRUN):
        return None
    from neuroav.errors import ConfigError
    from neuroav.training.distributed import Ranks

    rank, size, local, local_size, address, port = (environment[name] for name in _TORCHRUN)
    hosted = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    attempt = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    try:
        return Ranks(
            int(rank), int(size), int(local), int(local_size), address, int(port),
            hosted=hosted, attempt=int(attempt),
        )  # fmt: skip
    except ValueError as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{', '.join(_TORCHRUN)}: {error}; they are set by torchrun") from None


def overrides_of(
    settings: tuple[str, ...], train: Mapping[str, int | None] | None = None
) -> dict[str, str]:
    """Return dotted key -> text of ``--set`` and of the short options, which come last."""
    overrides: dict[str, str] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise click.BadParameter(
                f"found {setting!r}, needs KEY=VALUE, for example train.epochs=3",
                param_hint="'--set'",
            )
        overrides[key.strip()] = value.strip()
    overrides |= {f"train.{k}": str(v) for k, v in (train or {}).items() if v is not None}
    return overrides


def _stored(out: Path) -> Path | None:
    path = out / "config.toml"
    return path if path.is_file() else None


def _load(
    model: str | None, data: str | None, file: Path | None, overrides: dict[str, str]
) -> RunConfig:
    from neuroav.training.config import load_config

    return load_config(model=model, data=data, file=file, overrides=overrides)


@click.command(cls=Command, example="neuroav evaluate runs/add --split test --json")
@click.argument("run", type=_PATH)
@sample_options(SPLITS)
@data_options
@json_option
def evaluate(
    run: Path, samples: int | None, split: str, data_root: Path | None, cache_dir: Path
) -> Outcome:
    """Measure the real-valued network of a run folder."""
    from neuroav.training.evaluate import evaluate as evaluate_run

    with Reporter() as progress:
        found = evaluate_run(
            run,
            split=split,
            samples=samples,
            cache_dir=cache_dir,
            data_root=data_root,
            progress=progress,
        )
    head = {k: v for k, v in found.items() if k != "confusion"}
    shown: list[RenderableType] = [pairs({"run": run, "split": split} | head)]
    confusion = found.get("confusion")
    if confusion is not None and len(confusion) <= _MOST_CLASSES:
        columns = [str(i) for i in range(len(confusion))]
        rows = [[label, *row] for label, row in enumerate(confusion)]
        shown += [
            "",
            "confusion, one row per true class",
            table(["true", *columns], rows, right=columns),
        ]
    return Outcome(found, shown)
