"""Compare executors of one deployment spike by spike and name the first difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neuroav import fixed, navfile
from neuroav import integer as ig
from neuroav.counts import Counter, silent_and_saturated
from neuroav.deployment import Deployment
from neuroav.errors import ConfigError
from neuroav.fixed import Arithmetic
from neuroav.sim import reference
from neuroav.sim.trace import SpikeDigest, Trace
from neuroav.simulate import Progress, Samples, executor, load_samples, resolve_deployment

DEFAULT_SAMPLES = 16
Outputs = Mapping[str, np.ndarray]


def verify(
    path: str | Path,
    *,
    backends: list[str],
    samples: int | None = None,
    split: str | None = None,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return whether all backends give equal outputs at every population, step and sample.

    backends: two or more names; the first is what the others are held against. samples: default 16.
    Keys as docs/file-format.md lists for ``verify --json``.
    """
    deployment, data = prepare(
        path,
        backends=backends,
        samples=samples,
        split=split,
        cache_dir=cache_dir,
        data_root=data_root,
        progress=progress,
    )
    return compare(deployment, data, backends, progress)


def prepare(
    path: str | Path,
    *,
    backends: list[str],
    samples: int | None = None,
    split: str | None = None,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Deployment, Samples]:
    """Return the deployment and the samples that ``verify`` runs; ConfigError for backends."""
    if len(backends) < 2 or len(set(backends)) != len(backends):
        raise ConfigError(
            f"backends are {','.join(backends)}: give two or more different names, "
            "e.g. --backends reference,fast,lava"
        )
    for backend in backends:
        executor(backend)
    deployment = navfile.load(resolve_deployment(path))
    data = load_samples(
        deployment,
        split=split,
        samples=samples or DEFAULT_SAMPLES,
        cache_dir=cache_dir,
        data_root=data_root,
        progress=progress,
    )
    return deployment, data


def compare(
    deployment: Deployment, data: Samples, backends: list[str], progress: Progress | None = None
) -> dict[str, Any]:
    """Run all backends on ``data`` and compare them; see ``verify``."""
    return compared(deployment, len(data), run_all(deployment, data, backends, progress))


def run_all(
    deployment: Deployment, data: Samples, backends: list[str], progress: Progress | None = None
) -> dict[str, dict[str, np.ndarray]]:
    """Return all outputs of every backend, (samples, steps, *shape) int32 by population."""
    return {b: _collect(deployment, data, b, progress) for b in backends}


def compared(
    deployment: Deployment, samples: int, outputs: Mapping[str, Outputs]
) -> dict[str, Any]:
    """Return what ``verify`` says of outputs by backend, the first held against the others."""
    graph, backends = deployment.integer, list(outputs)
    first = outputs[backends[0]]
    counter = Counter(graph)
    counter.add(Trace(0, first))
    silent, saturated = silent_and_saturated(graph, counter.counts().rates)
    found = None
    for backend in backends[1:]:
        found = first_divergence(deployment, first, outputs[backend])
        if found:
            found["backends"] = [backends[0], backend]
            break
    return {
        "equal": found is None,
        "backends": backends,
        "samples": samples,
        "steps": graph.steps,
        "neurons": sum(p.neurons for p in graph.populations.values()),
        "nodes": list(graph.order),
        "spikes_compared": int(sum((v != 0).sum() for v in first.values())),
        "silent": silent,
        "saturated": saturated,
        "first_divergence": found,
        "digests": {b: _digest(graph, v) for b, v in outputs.items()},
    }


def _collect(
    deployment: Deployment, data: Samples, backend: str, progress: Progress | None
) -> dict[str, np.ndarray]:
    """Return all outputs of a backend, (samples, steps, *shape) int32."""
    options: dict[str, Any] = {}
    if progress:
        options["progress"] = lambda done, total: progress(f"running {backend}", done, total)
    traces = list(executor(backend)(deployment, data.inputs, **options))
    return {n: np.concatenate([t.outputs[n] for t in traces]) for n in deployment.integer.order}


def _digest(graph: ig.IntGraph, outputs: Outputs) -> str:
    digest = SpikeDigest(graph)
    digest.add(Trace(0, outputs))
    return digest.hexdigest()


def first_divergence(
    deployment: Deployment, expected: Outputs, found: Outputs
) -> dict[str, Any] | None:
    """Return the first difference by sample, then step, then execution order; None if equal.

    Keys: node, sample, step, index (in the population's shape), values [expected, found], cause.
    """
    graph = deployment.integer
    best: tuple | None = None
    for rank, name in enumerate(graph.order):
        different = np.argwhere(
            (expected[name] != found[name]).reshape(*expected[name].shape[:2], -1)
        )
        if len(different):
            sample, step, neuron = (int(i) for i in different[0])
            best = min(best, (sample, step, rank, neuron)) if best else (sample, step, rank, neuron)
    if best is None:
        return None
    sample, step, rank, neuron = best
    name = graph.order[rank]
    place = np.unravel_index(neuron, graph.populations[name].shape)
    index = tuple(int(i) for i in place)
    values = [int(v[name][(sample, step, *index)]) for v in (expected, found)]
    cause = likely_cause(
        deployment, name, {n: v[sample] for n, v in expected.items()}, found[name][sample]
    )
    return {
        "node": name,
        "sample": sample,
        "step": step,
        "index": list(index),
        "values": values,
        "cause": cause,
    }


# --- what kind of mistake gives these outputs? -----------------------------------------------
def likely_cause(deployment: Deployment, name: str, expected: Outputs, found: np.ndarray) -> str:
    """Return which single mistake in population ``name`` would give ``found``, else 'parameter'.

    Each hypothesis recomputes the population from the expected messages of its sources with one
    rule changed, and is accepted if it gives ``found`` in every step of the sample.
    """
    graph, arith = deployment.integer, deployment.profile.arithmetic
    pop = graph.populations[name]
    shifted = np.concatenate([np.zeros_like(expected[name][:1]), expected[name][:-1]])
    if np.array_equal(shifted, found):
        return "delay"
    for cause, change in _HYPOTHESES:
        altered = change(pop, arith)
        if altered is None:
            continue
        outputs = _recompute(graph, name, altered, expected, arith)
        if np.array_equal(outputs, found):
            return cause
    return "parameter"


def _recompute(
    graph: ig.IntGraph, name: str, pop: ig.Population, expected: Outputs, arith: Arithmetic
) -> np.ndarray:
    sums = [np.zeros((graph.steps, *pop.shape), np.int64) for _ in range(pop.ports)]
    for p in pop.projections:
        messages = expected[p.source].astype(np.int64)
        for t in range(graph.steps):
            sums[p.port][t] += reference.synaptic_sum(p, messages[t], pop.shape)
    try:
        return reference.all_steps(name, pop, sums, arith)[0]
    except fixed.OutOfRange:
        return np.zeros(0, np.int64)


def _no_bias(pop: ig.Population, arith: Arithmetic) -> ig.Population | None:
    if isinstance(pop, ig.IntLif):
        return replace(pop, bias_mantissa=np.zeros_like(pop.bias_mantissa))
    return replace(pop, bias=np.zeros_like(pop.bias)) if isinstance(pop, ig.IntReadout) else None


def _threshold(change: int) -> Callable[[ig.Population, Arithmetic], ig.Population | None]:
    def alter(pop: ig.Population, arith: Arithmetic) -> ig.Population | None:
        return (
            replace(pop, threshold=pop.threshold + change) if isinstance(pop, ig.IntLif) else None
        )

    return alter


def _decay_v(amount: int | None) -> Callable[[ig.Population, Arithmetic], ig.Population | None]:
    def alter(pop: ig.Population, arith: Arithmetic) -> ig.Population | None:
        if not isinstance(pop, ig.IntLif):
            return None
        return replace(pop, decay_v=1 << arith.decay_bits if amount is None else amount)

    return alter


def _swapped_weights(pop: ig.Population, arith: Arithmetic) -> ig.Population | None:
    """Kernels flipped in both axes: the classic confusion of convolution and correlation."""
    parts = [
        replace(p, weight=p.weight[:, :, ::-1, ::-1]) if isinstance(p, ig.IntConv2d) else p
        for p in pop.projections
    ]
    return replace(pop, projections=tuple(parts))


_HYPOTHESES: tuple[tuple[str, Callable[[ig.Population, Arithmetic], ig.Population | None]], ...] = (
    ("bias", _no_bias),
    ("threshold", _threshold(-1)),
    ("threshold", _threshold(1)),
    ("decay", _decay_v(0)),
    ("decay", _decay_v(None)),
    ("weight", _swapped_weights),
)
