"""Run a FILE.nav on a split of its data with one executor, and sum up what happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from neuroav import navfile
from neuroav.counts import Counter, Counts
from neuroav.deployment import Deployment
from neuroav.errors import ConfigError, DataError, unknown_name
from neuroav.loads import LoadCounter
from neuroav.recordfile import open_record
from neuroav.sim.trace import Executor, SpikeDigest, Trace

if TYPE_CHECKING:
    from neuroav.data.zeroshot import ZeroShotData

Progress = Callable[[str, int, int], None]
SHIPPED = "shipped:"
PROBE = "probe"
GIVEN = "given"  # in place of a split: samples that a caller brought
UNKNOWN = -1  # the label of a sample whose class nobody said


def _reference() -> Executor:
    from neuroav.sim import reference

    return reference.run


def _fast() -> Executor:
    from neuroav.sim import fast

    return fast.run


def _lava() -> Executor:
    from neuroav.sim import lava

    return lava.run


def _lava_inline() -> Executor:
    from neuroav.sim import lava

    return partial(lava.run, engine="inline")


BACKENDS: dict[str, Callable[[], Executor]] = {
    "reference": _reference,
    "fast": _fast,
    "lava": _lava,
    "lava-inline": _lava_inline,
}


def executor(backend: str) -> Callable[..., Iterator[Trace]]:
    """Return the run function of a backend; ConfigError for an unknown name."""
    if backend not in BACKENDS:
        raise unknown_name("backend", backend, BACKENDS, ConfigError)
    return BACKENDS[backend]()


def resolve_deployment(name: str | Path) -> Path:
    """Return the path of a deployment; ``shipped:tiny.nav`` names one inside the package."""
    text = str(name)
    if not text.startswith(SHIPPED):
        return Path(name)
    folder = Path(str(resources.files("neuroav") / "shipped"))
    names = sorted(p.name for p in folder.glob("*.nav"))
    if text[len(SHIPPED) :] not in names:
        raise unknown_name("shipped deployment", text[len(SHIPPED) :], names, ConfigError)
    return folder / text[len(SHIPPED) :]


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and labels of the first samples of a split; ``source`` gives raw events for plots.

    labels: (samples,) int64, ``UNKNOWN`` where nobody said which class it is. zero_shot: the data
    they are of, where classes were held out and the split is the test.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray
    split: str
    source: Any = None
    zero_shot: ZeroShotData | None = None

    def __len__(self) -> int:
        return len(self.labels)


def load_samples(
    deployment: Deployment,
    *,
    split: str | None,
    samples: int | None,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> Samples:
    """Return the first ``samples`` samples of a split of the data the network was trained on.

    split: 'train', 'val', 'test', or 'probe' for the samples inside the file; None means 'test', or
    'probe' for a file that names no data set. DataError where data or hash do not fit.
    """
    run = deployment.provenance.get("run")
    split = split or ("test" if run else PROBE)
    if samples is not None and samples < 1:
        raise ConfigError(f"samples is {samples}, needs at least 1")
    if split == PROBE:
        return probe_samples(deployment, samples)
    if not isinstance(run, dict):
        raise DataError(
            f"the file names no data set, so it has no split {split!r}; use --split {PROBE}"
        )
    from neuroav.data.zeroshot import ZeroShotData, data_labels

    data = _run_data(run["data"], cache_dir, data_root, progress)
    if data.content_hash != deployment.provenance["data_hash"]:
        raise DataError(
            f"{data.name}: its content hash is {data.content_hash[:12]}..., the network "
            f"was trained on {str(deployment.provenance['data_hash'])[:12]}...; prepare "
            "the data with the version that trained it, or train again"
        )
    part = data.split(split)
    count = len(part) if samples is None else min(samples, len(part))
    frames = part.frames(np.arange(count))
    inputs = {n: getattr(frames, n) for n in deployment.fed}
    if not isinstance(data, ZeroShotData):
        return Samples(inputs, frames.labels, split, part if part.has_events else None)
    held_out = data if split == "test" else None
    return Samples(inputs, data_labels(data, frames.labels), split, zero_shot=held_out)


def _run_data(
    config: Mapping[str, Any], cache_dir: Path, data_root: Path | None, progress: Progress | None
) -> Any:
    """Return the data set that a network was trained on."""
    from neuroav.data import frame_spec, is_zero_shot, load, load_zero_shot

    common: dict[str, Any] = {
        "preset": config["preset"],
        "data_seed": config["seed"],
        "cache_dir": cache_dir,
        "data_root": data_root,
        "progress": progress,
    }
    if is_zero_shot(config["name"]):
        return load_zero_shot(config["name"], steps=config["steps"], **common)
    name, sizes = config["name"], {k: config[k] for k in ("steps", "visual_size")}
    return load(name, spec=frame_spec(name, **sizes), **common)


def probe_samples(deployment: Deployment, samples: int | None = None) -> Samples:
    """Return the first of the samples that the file carries; DataError where it carries none."""
    probe = deployment.probe
    if probe is None:
        raise DataError("the file carries no probe samples; choose a split of its data set")
    count = len(probe.labels) if samples is None else min(samples, len(probe.labels))
    return Samples({n: v[:count] for n, v in probe.inputs.items()}, probe.labels[:count], PROBE)


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float | None:
    """Return the share of right answers among samples with a label, None where none has one."""
    known = labels != UNKNOWN
    return float((predictions == labels)[known].mean()) if known.any() else None


class Observer(Protocol):
    """Takes in the traces of a run, in sample order."""

    def add(self, trace: Trace) -> None: ...


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run gave: class scores (samples, classes) int64, counts, digest, seconds."""

    scores: np.ndarray
    counts: Counts
    digest: str
    seconds: float

    @property
    def predictions(self) -> np.ndarray:
        """Class with the highest score, the first of equals; int64 (samples,)."""
        return self.scores.argmax(axis=1)


def run_backend(
    deployment: Deployment,
    samples: Samples,
    backend: str,
    *,
    batch: int | None = None,
    memory_bytes: int | None = None,
    device: str | None = None,
    record: Path | None = None,
    states: bool = False,
    observers: Sequence[Observer] = (),
    progress: Progress | None = None,
) -> Outcome:
    """Run one executor over all samples in chunks, shown to ``observers``; return the outcome.

    memory_bytes, device: bound on the arrays of a chunk, and 'cpu' or 'cuda', for the executor
    ``fast``; ConfigError for others.
    """
    run, graph = executor(backend), deployment.integer
    counter, digest, scores = Counter(graph), SpikeDigest(graph), []
    options: dict[str, Any] = {} if batch is None else {"batch": batch}
    options |= _fast_options(backend, memory_bytes, device)
    if progress:
        options["progress"] = lambda done, total: progress(f"simulating ({backend})", done, total)
    target = (
        open_record(record, {"backend": backend, "deployment_hash": deployment.content_hash})
        if record
        else nullcontext()
    )
    placement = deployment.placement if record else None
    loads = LoadCounter(graph, placement) if placement else None
    start = time.perf_counter()
    with target as writer:
        for trace in run(deployment, samples.inputs, states=states, **options):
            counter.add(trace)
            digest.add(trace)
            scores.append(trace.outputs[graph.output][:, -1].astype(np.int64))
            for observer in (*observers, *([loads] if loads else [])):
                observer.add(trace)
            if writer:
                writer.add(trace)
        outcome = Outcome(
            np.concatenate(scores),
            counter.counts(),
            digest.hexdigest(),
            time.perf_counter() - start,
        )
        if writer:
            writer.finish(
                outcome.counts,
                outcome.predictions,
                samples.labels,
                outcome.digest,
                loads.loads() if loads else None,
            )
    return outcome


def _fast_options(backend: str, memory_bytes: int | None, device: str | None) -> dict[str, Any]:
    """Return what only the executor ``fast`` takes; ConfigError where another was asked for."""
    given = {"memory_bytes": memory_bytes, "device": device}
    given = {name: value for name, value in given.items() if value is not None}
    if given and backend != "fast":
        what, instead = (
            ("a bound on memory", ", or bound the run by --batch")
            if "memory_bytes" in given
            else ("a device", "; the others run on the CPU")
        )
        raise ConfigError(f"{what} is for --backend fast, found {backend}; leave it out{instead}")
    return given


def simulate(
    path: str | Path,
    *,
    backend: str = "fast",
    samples: int | None = None,
    split: str | None = None,
    batch: int | None = None,
    memory_mb: int | None = None,
    device: str | None = None,
    record: Path | None = None,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Progress | None = None,
    run: Callable[..., Outcome] = run_backend,
) -> dict[str, Any]:
    """Return the summary of a run; keys as docs/file-format.md lists for ``simulate --json``.

    run: what stands in for ``run_backend``, with its parameters.
    """
    executor(backend)
    if batch is not None and batch < 1:
        raise ConfigError(f"batch is {batch}, needs at least 1")
    deployment = navfile.load(resolve_deployment(path))
    data = load_samples(
        deployment,
        split=split,
        samples=samples,
        cache_dir=cache_dir,
        data_root=data_root,
        progress=progress,
    )
    outcome = run(
        deployment,
        data,
        backend,
        batch=batch,
        memory_bytes=None if memory_mb is None else memory_mb << 20,
        device=device,
        record=record,
        progress=progress,
    )
    return {
        "backend": backend,
        "split": data.split,
        "samples": len(data),
        "steps_per_sample": deployment.integer.steps,
        "accuracy": accuracy(outcome.predictions, data.labels),
        "predictions": outcome.predictions.tolist(),
        "spikes_per_sample": outcome.counts.spikes_per_sample(),
        "synops_per_sample": outcome.counts.synops_per_sample(),
        "seconds": outcome.seconds,
        "samples_per_second": len(data) / outcome.seconds,
        "spike_digest": outcome.digest,
        **zero_shot_measures(data, outcome.scores),
    }


def zero_shot_measures(data: Samples, scores: np.ndarray) -> dict[str, float]:
    """Return seen, unseen, hm and zsl of a test with held-out classes, nothing of another.

    scores: (samples, classes), the largest is the answer.
    """
    from neuroav.data.zeroshot_scores import deployed_scores

    found = data.zero_shot and deployed_scores(scores, data.labels, data.zero_shot)
    return {k: getattr(found, k) for k in ("seen", "unseen", "hm", "zsl")} if found else {}
