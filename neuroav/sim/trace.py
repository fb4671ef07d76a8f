"""What an executor yields: every population's output, in its own time frame."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from neuroav.deployment import Deployment
from neuroav.integer import IntGraph

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Trace:
    """Outputs of consecutive samples.

    first: number of the first sample. outputs: by population, integers (samples, steps, *shape);
    spikes are 0 or 1, graded messages any integer. states: chosen inner states, same layout.
    """

    first: int
    outputs: Mapping[str, np.ndarray]
    states: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        return len(next(iter(self.outputs.values())))


Executor = Callable[[Deployment, Mapping[str, np.ndarray]], Iterator[Trace]]


def batches(inputs: Mapping[str, np.ndarray], size: int) -> Iterator[tuple[int, dict]]:
    """Yield (first sample, slice of every input) in runs of ``size`` samples."""
    total = len(next(iter(inputs.values())))
    for first in range(0, total, size):
        yield first, {name: value[first : first + size] for name, value in inputs.items()}


class SpikeDigest:
    """sha256 over, for each sample and each population in execution order: name, then output.

    The output is in the population's own time frame (latency removed), C-ordered little-endian
    int32 (time, neuron). Equal digests mean equal spikes.
    """

    def __init__(self, graph: IntGraph) -> None:
        self._order = graph.order
        self._hash = hashlib.sha256()

    def add(self, trace: Trace) -> None:
        """Take in the next samples; traces must come in sample order."""
        outputs = {n: np.ascontiguousarray(trace.outputs[n], "<i4") for n in self._order}
        for sample in range(trace.samples):
            for name in self._order:
                self._hash.update(name.encode("utf-8"))
                self._hash.update(outputs[name][sample].tobytes())

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def collect(traces: Iterable[Trace]) -> dict[str, np.ndarray]:
    """Return all outputs of a run, concatenated over samples (for small runs and tests)."""
    parts = list(traces)
    return {n: np.concatenate([t.outputs[n] for t in parts]) for n in parts[0].outputs}
