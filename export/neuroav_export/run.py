"""A run folder compiled: load the trained model, write FILE.nav, or say what stands against it."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

import neuroav
from neuroav import hardware, navfile
from neuroav.bounds import bounds, unproven
from neuroav.counts import mean_messages
from neuroav.data.stills import StillSpec
from neuroav.data.zeroshot import ZeroShotData, data_labels
from neuroav.deployment import Deployment, Probe
from neuroav.errors import ConfigError, DoesNotFit, OutOfRange
from neuroav.integer import ATTENTION_CLASSES
from neuroav.mapping.mapper import map_graph, unmapped, utilisation
from neuroav.quantization import RANGE_SAMPLES, Calibration, Options
from neuroav.sim import fast
from neuroav.synapses import attention_forms, synapse_count
from neuroav.training.config import RunConfig
from neuroav.training.evaluate import load_run
from neuroav.training.qat import trained_bits
from neuroav_export.linting import deployable, lint
from neuroav_export.mixed import WIDTHS, BitChoice, choose_bits
from neuroav_export.pipeline import compile_module
from neuroav_export.zeroshot import chip_network

if TYPE_CHECKING:
    from neuroav.data import AVData

PROBE_SAMPLES = 8


def export_run(
    run: Path,
    *,
    target: str = "loihi2",
    out: Path,
    bits: int | None = None,
    calibration: Calibration | None = None,
    per_channel: bool | None = None,
    layer_bits: Mapping[str, int] | None = None,
    accuracy_budget: float | None = None,
    place: bool = True,
    spread: bool = True,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Any = None,
) -> dict[str, Any]:
    """Compile the best weights of ``run`` for ``target`` into ``out``; return the summary.

    bits, calibration, per_channel, layer_bits: see ``quantization.Options``; by default what a
    quantization-aware run was trained with, else 8 bits, 'mse', per tensor. accuracy_budget: lower
    the width of single layers as long as the validation accuracy falls by at most so much, a share
    (``mixed.choose_bits``). place: whether to put
    the neurons on cores of the target (``mapping.mapper``), with the rates of a few calibration
    samples; DoesNotFit says what is too large. spread: over free cores, or on as few as possible.

    Keys: neurons, synapses, weight_bits, layer_bits (widths of the layers that have another one),
    mixed (with a budget: ``memory_bits``, ``accuracy`` and ``agreement`` on the validation set
    before and after, ``table``; else None), saturations, hash, unproven (accumulators that some
    input could overflow, by population), attention (by population the form chosen and the state
    neurons of every exact form), host_macs (multiply-accumulates per sample that the host
    computes), cores, chips, utilisation (these three None without a placement;
    ``docs/file-format.md``).
    """
    model, data, config = load_run(run, cache_dir=cache_dir, data_root=data_root, progress=progress)
    torch.set_num_threads(config.train.threads)
    if layer_bits is None and config.quant.aware:
        layer_bits = trained_bits(model, config.quant.bits)
    options = run_options(config, bits, calibration, per_channel, layer_bits)
    check = data.split("val").frames(np.arange(min(RANGE_SAMPLES, len(data.split("val")))))
    test = data.split("test").frames(np.arange(min(PROBE_SAMPLES, len(data.split("test")))))
    what = deployed_network(model, data)
    names: tuple[str, ...] = model.inputs  # type: ignore[assignment]
    mixed = None
    if accuracy_budget is not None:
        mixed = widths_within(accuracy_budget, what, check, data, options, target, progress)
        options = replace(options, layer_bits=mixed.layer_bits)
    probe = Probe({n: getattr(test, n) for n in names}, data_labels(data, test.labels))
    origin = provenance(config, data.content_hash, options)
    frames = {n: getattr(check, n) for n in names}
    deployment = compiled(what, frames, target, options, provenance=origin, probe=probe)
    if place:
        first = {n: v[:PROBE_SAMPLES] for n, v in frames.items()}
        deployment = on_cores(deployment, first, spread=spread)
    return summary(navfile.save(deployment, out), options.bits, options.layer_bits, mixed)


def compiled(
    what: RunNetwork, frames: Mapping[str, np.ndarray], target: str, options: Options, **more: Any
) -> Deployment:
    """Return the deployment of a run's network; more: as for ``compile_module``."""
    return compile_module(
        what.module,
        frames,
        target=target,
        bits=options.bits,
        calibration=options.calibration,
        per_channel=options.per_channel,
        layer_bits=options.layer_bits,
        classes=what.classes,
        max_count=what.max_count,
        static=what.static,
        winner=what.winner,
        **more,
    )


def widths_within(
    budget: float, what: RunNetwork, check: Any, data: Any, options: Options, target: str,
    progress: Any,
) -> BitChoice:  # fmt: skip
    """Return widths of single layers that cost a run at most ``budget`` of validation accuracy.

    check: frames that fix the ranges. ConfigError where widths were given, or where classes are
    held out: there is no validation accuracy to spend.
    """
    if options.layer_bits:
        raise ConfigError("give widths of layers, or a budget that chooses them, not both")
    if isinstance(data, ZeroShotData):
        raise ConfigError("an accuracy budget is for networks that read events, without text")
    val, names = data.split("val").frames(), (*what.max_count, *what.static)
    return choose_bits(
        what.module,
        {n: getattr(check, n) for n in names},
        val.labels,
        tuple(b for b in WIDTHS if b <= options.bits),
        budget=budget,
        held_out={n: getattr(val, n) for n in names},
        target=target,
        calibration=options.calibration,
        per_channel=options.per_channel,
        max_count=what.max_count,
        static=what.static,
        progress=progress,
    )


def on_cores(
    deployment: Deployment, inputs: Mapping[str, np.ndarray] | None, *, spread: bool = True
) -> Deployment:
    """Return the deployment with its neurons on cores; unchanged for a target without a grid.

    inputs: samples to take rates from, by the names of ``deployment.fed``. Without any, and where
    a network overflows on them, it is placed as if all neurons sent equally often. spread: over
    free cores of the chips in use, which makes steps shorter, or on as few cores as possible.
    """
    if unmapped(deployment.profile):
        return deployment
    graph = deployment.integer
    messages: dict[str, np.ndarray] | None = None
    with suppress(OutOfRange):  # what simulates the deployment reports it, with the layer's name
        if inputs is not None:
            messages = mean_messages(graph, fast.run(deployment, inputs, batch=1))
    try:
        placement = map_graph(graph, deployment.profile, messages, balance=spread)
    except DoesNotFit as error:
        raise DoesNotFit(
            f"{error}\n`--no-place` exports it all the same, without a placement",
            problems=error.problems,
        ) from None
    return replace(deployment, placement=placement)


@dataclass(frozen=True, eq=False)
class RunNetwork:
    """What of a run is compiled, and the arguments of ``compile_module`` that go with it."""

    module: nn.Module
    classes: tuple[str, ...]
    max_count: dict[str, int]
    static: tuple[str, ...] = ()
    winner: bool = False


def deployed_network(model: nn.Module, data: Any) -> RunNetwork:
    """Return a run's network as it is deployed; UnsupportedModule where it cannot be."""
    names: tuple[str, ...] = model.inputs  # type: ignore[assignment]
    if isinstance(data, ZeroShotData):
        classes = tuple(data.classes[c] for c in data.sought)
        return RunNetwork(chip_network(model, data), classes, {}, names, True)
    if isinstance(data.spec, StillSpec):
        return RunNetwork(model, data.classes, {}, names)
    return RunNetwork(model, data.classes, {n: count_limit(data, n) for n in names})


def summary(
    deployment: Deployment,
    bits: int,
    layer_bits: Mapping[str, int] | None = None,
    mixed: BitChoice | None = None,
) -> dict[str, Any]:
    """Return what ``export_run`` does about a deployment with weights of ``bits`` bits."""
    graph = deployment.integer
    return {
        "neurons": deployment.neurons,
        "synapses": deployment.synapses,
        "weight_bits": bits,
        "layer_bits": dict(layer_bits or {}),
        "mixed": None if mixed is None else _mixed(mixed),
        "saturations": dict(deployment.saturations),
        "hash": deployment.content_hash,
        "unproven": unproven(bounds(graph, deployment.profile.arithmetic)),
        "attention": {
            n: {"form": pop.form, "neurons": attention_forms(pop, graph.steps)}
            for n in graph.order
            if isinstance(pop := graph.populations[n], ATTENTION_CLASSES)
        },
        "host_macs": deployment.host_macs,
        **_placement(deployment),
        "layers": {
            n: {
                "neurons": graph.populations[n].state_neurons(graph.steps),
                "synapses": synapse_count(graph, n),
                "latency": graph.latency[n],
            }
            for n in graph.order
        },
    }


def _mixed(choice: BitChoice) -> dict[str, Any]:
    """Return what a budget bought, as plain values."""
    return {
        "budget": choice.budget,
        "before": asdict(choice.before),
        "after": asdict(choice.after),
        "table": choice.table(),
    }


def _placement(deployment: Deployment) -> dict[str, Any]:
    if deployment.placement is None:
        return dict.fromkeys(("cores", "chips", "utilisation"))
    found = utilisation(deployment.integer, deployment.placement, deployment.profile)
    return {
        "cores": found["cores"],
        "chips": found["chips"],
        "utilisation": {"cores": {"share": found["cores_share"]}, **found["resources"]},
    }


def lint_run(
    run: Path,
    *,
    target: str = "loihi2",
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Any = None,
) -> dict[str, Any]:
    """Say what keeps the best weights of ``run`` from being deployed on ``target``.

    Keys: target (the profile's id), deployable, findings (list of the fields of
    ``linting.Finding``). Quantized as the run was trained to be, like ``export_run``.
    """
    profile = hardware.load_profile(target)  # refuses an unknown one before any work
    model, data, config = load_run(run, cache_dir=cache_dir, data_root=data_root, progress=progress)
    torch.set_num_threads(config.train.threads)
    options = run_options(config, None, None, None)
    check = data.split("val").frames(np.arange(min(PROBE_SAMPLES, len(data.split("val")))))
    what = deployed_network(model, data)
    names: tuple[str, ...] = model.inputs  # type: ignore[assignment]
    found = lint(
        what.module,
        {n: getattr(check, n) for n in names},
        target=target,
        bits=options.bits,
        calibration=options.calibration,
        per_channel=options.per_channel,
        max_count=what.max_count,
        static=what.static,
    )
    return {
        "target": profile.id,
        "deployable": deployable(found),
        "findings": [asdict(f) for f in found],
    }


def count_limit(data: AVData, name: str) -> int:
    """Return the largest count an input admits: 2^k - 1, at least twice what the data hold.

    Twice, so that noisier recordings still fit; the bounds of every accumulator start from it.
    """
    largest = max(int(getattr(data.split(s).frames(), name).max()) for s in data.splits)
    return (1 << (2 * max(largest, 1)).bit_length()) - 1


def run_options(
    config: RunConfig,
    bits: int | None,
    calibration: Calibration | None,
    per_channel: bool | None,
    layer_bits: Mapping[str, int] | None = None,
) -> Options:
    """Return the quantization a run asks for, with what the caller sets."""
    trained = config.quant if config.quant.aware else None
    return Options(
        bits or (trained.bits if trained else 8),
        calibration or (trained.calibration if trained else "mse"),
        per_channel=(bool(trained and trained.per_channel) if per_channel is None else per_channel),
        layer_bits=dict(layer_bits or {}),
    )


def provenance(config: RunConfig, data_hash: str, options: Options) -> dict[str, Any]:
    """Return versions, seeds, configuration and data hash as plain JSON values."""
    versions = {"python": platform.python_version(), "neuroav": neuroav.__version__}
    for package in ("numpy", "torch", "norse", "h5py"):
        versions[package] = metadata.version(package)
    return {
        "versions": versions,
        "run": config.model_dump(by_alias=True),
        "data_hash": data_hash,
        "weight_bits": options.bits,
        **({"layer_bits": dict(options.layer_bits)} if options.layer_bits else {}),
        "calibration": options.calibration,
        "per_channel": options.per_channel,
        "git": git_revision(),
    }


def git_revision() -> str | None:
    """Return the revision of the checkout this program runs from, None outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            timeout=10,
            capture_output=True,
            text=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
