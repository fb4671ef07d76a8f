"""Run a deployment and its real-valued twin on the same samples; keep only what a report needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from neuroav import integer as ig
from neuroav import navfile
from neuroav.counts import mean_messages
from neuroav.deployment import Deployment
from neuroav.errors import DataError, DoesNotFit
from neuroav.hardware import Profile
from neuroav.loads import LoadCounter, Loads
from neuroav.mapping.mapper import map_graph, unmapped
from neuroav.neurobench import NeuroBenchCounter
from neuroav.placement import Placement
from neuroav.sim import fast, real
from neuroav.simulate import (
    UNKNOWN,
    Outcome,
    Progress,
    Samples,
    load_samples,
    resolve_deployment,
    run_backend,
    zero_shot_measures,
)

BACKEND = "fast"
SHOWN = 0  # the sample that is drawn: the first, so that none is picked for its looks
TRAFFIC_SAMPLES = 8  # that a placement is made from, where the file holds none for a profile
_MAX_BATCH = 64
_BATCH_VALUES = 16_000_000  # values of all nodes that may be held at once


@dataclass(frozen=True, eq=False)
class FloatSide:
    """The real-valued network: class scores (samples, classes) and, by node, the number of
    non-zero outputs of every sample (samples,)."""

    scores: np.ndarray
    spikes: Mapping[str, np.ndarray]

    @property
    def predictions(self) -> np.ndarray:
        """Class with the highest score, int64 (samples,)."""
        return self.scores.argmax(axis=1)


@dataclass(frozen=True, eq=False)
class ShownSample:
    """One sample in full: outputs (steps, *shape) of every population, raw events if there are.

    label: its class, -1 where that is unknown.
    """

    index: int
    label: int
    outputs: Mapping[str, np.ndarray]
    raw: Mapping[str, Any] | None


@dataclass(frozen=True, eq=False)
class Placed:
    """The network on one target: its placement and the events there, or why there are none."""

    profile: Profile
    placement: Placement | None
    loads: Loads | None
    why: str


@dataclass(frozen=True, eq=False)
class Measured:
    """What the runs of one file gave; ``label`` names the file in the report, ``placed`` has one
    entry per profile."""

    label: str
    deployment: Deployment
    split: str
    labels: np.ndarray
    outcome: Outcome
    real: FloatSide
    shown: ShownSample
    placed: tuple[Placed, ...]
    neurobench: Mapping[str, Any]
    zero_shot: dict[str, dict[str, float]] | None = None


def measure(
    path: str | Path,
    label: str,
    *,
    profiles: Sequence[Profile] = (),
    samples: int | None,
    split: str | None,
    cache_dir: Path,
    data_root: Path | None,
    progress: Progress | None,
) -> Measured:
    """Load a file and samples of its data, place it on every profile and run both networks.

    profiles: by default the file's own. Raises FileFormatError, DataError, ConfigError,
    MissingDependency.
    """
    deployment = navfile.load(resolve_deployment(path))
    data = load_samples(
        deployment,
        split=split,
        samples=samples,
        cache_dir=cache_dir,
        data_root=data_root,
        progress=progress,
    )
    return measure_samples(deployment, data, label, profiles=profiles, progress=progress)


def measure_samples(
    deployment: Deployment,
    data: Samples,
    label: str,
    *,
    profiles: Sequence[Profile] = (),
    progress: Progress | None = None,
) -> Measured:
    """Place a deployment on every profile and run both networks on ``data``; as ``measure``."""
    _check_labels(deployment, data, label)
    graph = deployment.integer
    values = graph.steps * sum(p.neurons for p in graph.populations.values())
    targets = list(profiles) or [deployment.profile]
    seats = placements(deployment, targets, data.inputs)
    counters = [LoadCounter(graph, seat) if isinstance(seat, Placement) else None for seat in seats]
    bench = NeuroBenchCounter(graph, deployment.profile.arithmetic)
    outcome = run_backend(
        deployment,
        data,
        BACKEND,
        batch=_batch(values),
        observers=[counter for counter in counters if counter] + [bench],
        states=True,  # NeuroBench counts changes of the membrane voltage
        progress=progress,
    )
    floating = _run_float(deployment, data, progress)
    return Measured(
        label=label,
        deployment=deployment,
        split=data.split,
        labels=np.asarray(data.labels),
        outcome=outcome,
        real=floating,
        shown=_show(deployment, data),
        placed=tuple(
            Placed(target, seat, counter.loads(), "")
            if isinstance(seat, Placement) and counter
            else Placed(target, None, None, str(seat))
            for target, seat, counter in zip(targets, seats, counters, strict=True)
        ),
        neurobench=bench.metrics(),
        zero_shot=_zero_shot(data, {"float": floating.scores, "deployed": outcome.scores}),
    )


def placements(
    deployment: Deployment, targets: Sequence[Profile], inputs: Mapping[str, np.ndarray]
) -> list[Placement | str]:
    """Return the placement on every target, or why there is none.

    The file's own holds where a target is the one it was compiled for; others are made from the
    traffic of the first of ``inputs``.
    """
    first = {n: v[:TRAFFIC_SAMPLES] for n, v in inputs.items()}
    messages: dict[str, np.ndarray] = {}
    found: list[Placement | str] = []
    for target in targets:
        if problem := unmapped(target):
            found.append(problem)
            continue
        if deployment.placement and target.hash == deployment.profile.hash:
            found.append(deployment.placement)
            continue
        messages = messages or mean_messages(deployment.integer, fast.run(deployment, first))
        try:
            found.append(map_graph(deployment.integer, target, messages))
        except DoesNotFit as error:
            found.append(str(error))
    return found


def _zero_shot(data: Samples, scores: dict[str, np.ndarray]) -> dict[str, dict[str, float]] | None:
    """Return seen, unseen, hm and zsl of both networks, None where no class was held out."""
    found = {side: zero_shot_measures(data, values) for side, values in scores.items()}
    return found if all(found.values()) else None


def _check_labels(deployment: Deployment, data: Samples, where: str) -> None:
    if not len(data):
        raise DataError(f"{where}: split {data.split!r} holds no samples; choose another split")
    graph = deployment.integer
    classes = graph.populations[graph.output].neurons
    if len(deployment.classes) != classes:
        raise DataError(
            f"{where}: names {len(deployment.classes)} classes, its network gives {classes} "
            "scores; export it again"
        )
    low, high = int(data.labels.min()), int(data.labels.max())
    if low < UNKNOWN or high >= classes:
        raise DataError(
            f"{where}: labels of split {data.split!r} span {low}..{high}, the network's "
            f"{classes} classes allow 0..{classes - 1}, and -1 for unknown; choose the data it was "
            "trained on"
        )


def _batch(values_per_sample: int) -> int:
    """Return how many samples may be computed together."""
    return max(1, min(_MAX_BATCH, _BATCH_VALUES // max(values_per_sample, 1)))


def _run_float(deployment: Deployment, data: Samples, progress: Progress | None) -> FloatSide:
    graph, integer = deployment.real, deployment.integer
    compared = [
        n
        for n in integer.order
        if n in graph.nodes
        and not isinstance(integer.populations[n], (ig.IntReadout, ig.IntHostCurrent))
    ]
    values = graph.steps * sum(int(np.prod(shape)) for shape in graph.shapes.values())
    spikes: dict[str, list[np.ndarray]] = {n: [] for n in compared}
    scores = []
    for trace in real.run(
        graph,
        data.inputs,
        batch=_batch(values),
        progress=progress
        and (lambda done, total: progress("running the float network", done, total)),
    ):
        for name in compared:
            active = trace.outputs[name].reshape(trace.samples, -1) != 0
            spikes[name].append(active.sum(axis=1, dtype=np.int64))
        scores.append(trace.outputs[graph.output].reshape(trace.samples, -1).astype(np.float64))
    return FloatSide(np.concatenate(scores), {n: np.concatenate(v) for n, v in spikes.items()})


def _show(deployment: Deployment, data: Samples) -> ShownSample:
    one = {n: v[SHOWN : SHOWN + 1] for n, v in data.inputs.items()}
    (trace,) = fast.run(deployment, one)
    raw = None if data.source is None else data.source.raw_events(SHOWN)
    return ShownSample(
        SHOWN, int(data.labels[SHOWN]), {n: v[0] for n, v in trace.outputs.items()}, raw
    )
