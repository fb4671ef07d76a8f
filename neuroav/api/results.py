"""What running a network gives: recordings, comparisons of executors, reports, energy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.costs.energy import Estimate
from neuroav.counts import Counts
from neuroav.sim.trace import Trace
from neuroav.simulate import accuracy


@dataclass(frozen=True, eq=False)
class Recording:
    """What the deployed network did on some samples.

    scores: class scores after the last step, int64 (samples, classes); one is worth ``scale``.
    labels: int64 (samples,), -1 where unknown. spikes: messages of every node that was kept, int32
    (samples, steps, *shape): 0 and 1, or the integers of graded messages. states: membrane voltages
    and the like, where they were asked for. counts: events by node. digest: equal for equal spikes.

    >>> import neuroav
    >>> found = neuroav.load("shipped:tiny.nav").simulate()
    >>> found.answers[:3]
    ['sound', 'light', 'both']
    >>> found.accuracy
    1.0
    >>> found.spikes["audio_lif"].shape
    (12, 6, 2, 3, 3)
    >>> round(found.spikes_per_sample["audio_lif"], 2)
    23.42
    """

    backend: str
    classes: tuple[str, ...]
    scores: np.ndarray
    scale: float
    labels: np.ndarray
    spikes: Mapping[str, np.ndarray]
    states: Mapping[str, np.ndarray]
    counts: Counts
    digest: str
    seconds: float

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        right = "" if self.accuracy is None else f", accuracy {self.accuracy:.3f}"
        return f"<neuroav.Recording of {len(self)} samples by {self.backend}{right}>"

    @property
    def predictions(self) -> np.ndarray:
        """Class with the highest score, the first of equals; int64 (samples,)."""
        return self.scores.argmax(axis=1)

    @property
    def answers(self) -> list[str]:
        """Names of the predicted classes."""
        return [self.classes[i] for i in self.predictions]

    @property
    def accuracy(self) -> float | None:
        """Share of right answers among samples with a label, None where none has one."""
        return accuracy(self.predictions, self.labels)

    @property
    def spikes_per_sample(self) -> dict[str, float]:
        """Mean messages per sample, by node."""
        return self.counts.spikes_per_sample()

    @property
    def synops_per_sample(self) -> dict[str, float]:
        """Mean synaptic operations per sample, by the node that receives them."""
        return self.counts.synops_per_sample()

    @property
    def rate(self) -> dict[str, float]:
        """Share of (neuron, step) places with a message, by node."""
        return dict(self.counts.rates)


class Keeper:
    """Keeps outputs and states of chosen nodes while a run goes by."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._outputs: dict[str, list[np.ndarray]] = {}
        self._states: dict[str, list[np.ndarray]] = {}

    def add(self, trace: Trace) -> None:
        """Take in the next samples."""
        for kept, arrays in ((self._outputs, trace.outputs), (self._states, trace.states)):
            for name in self._names & set(arrays):
                kept.setdefault(name, []).append(np.array(arrays[name]))

    @property
    def outputs(self) -> dict[str, np.ndarray]:
        """Outputs by node, (samples, steps, *shape)."""
        return {n: np.concatenate(v) for n, v in sorted(self._outputs.items())}

    @property
    def states(self) -> dict[str, np.ndarray]:
        """States by node, likewise; only where the run recorded them."""
        return {n: np.concatenate(v) for n, v in sorted(self._states.items())}


@dataclass(frozen=True)
class Verification:
    """Whether executors gave equal outputs at every node, step and sample; true if they did.

    compared: messages that are not 0 in the first executor. silent, saturated: nodes that hardly
    ever, or nearly always, sent: equality says little there. first_divergence: node, sample, step,
    index, values and likely cause, None where all is equal. digests: by executor.

    >>> import neuroav
    >>> found = neuroav.load("shipped:tiny.nav").verify()
    >>> bool(found), found.compared > 1000, found.silent
    (True, True, ())
    """

    equal: bool
    backends: tuple[str, ...]
    samples: int
    compared: int
    silent: tuple[str, ...]
    saturated: tuple[str, ...]
    first_divergence: Mapping[str, Any] | None
    digests: Mapping[str, str]

    def __bool__(self) -> bool:
        return self.equal


@dataclass(frozen=True)
class Energy:
    """What one sample costs on a profile; every number is an estimate with its band and source.

    total, static, dynamic: in pJ, samples following one another without a gap. known_part: sum of
    the events whose price is known; missing: the events that ``total`` lacks, unknown then.
    by_event: dynamic energy and static energy by kind of event. seconds: time of one sample alone.

    >>> import neuroav
    >>> cost = neuroav.load("shipped:tiny.nav").energy()
    >>> cost.profile, cost.total.unit, cost.missing
    ('loihi2', 'pJ', ())
    >>> cost.total.low < cost.total.value < cost.total.high
    True
    """

    profile: str
    total: Estimate
    static: Estimate
    dynamic: Estimate
    known_part: Estimate
    missing: tuple[str, ...]
    by_event: Mapping[str, Estimate]
    seconds: Estimate


@dataclass(frozen=True)
class Report:
    """A report that was written: ``path`` of its page, ``data`` as report.json holds it.

    >>> import neuroav
    >>> page = neuroav.load("shipped:tiny.nav").report("out")
    >>> page.path.name, page.data["accuracy"]["deployed"]
    ('report.html', 1.0)
    """

    path: Path
    data: Mapping[str, Any] = field(repr=False)
