"""Events of every core in every step x profile -> time per step, latency and throughput.

A step ends when the slowest core is done and all cores have agreed on it (the barrier). How the
terms of a core meet is not settled for Loihi 2, so both published readings are computed:

    additive     step = barrier + max over cores of (neurons t_n + synops t_s + spikes t_sp
                                                     + messages in t_m)
    max-affine   step = barrier + max over cores and over these four terms

and no step is shorter than the floor of the profile. ``profile.time.combine`` says which one is
the headline. A band comes from all low and all high coefficients; it holds no error of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from neuroav import integer as ig
from neuroav.costs.energy import NOT_PLACED, Estimate, quantity_dict, unknown, worst
from neuroav.hardware import Profile, Quantity
from neuroav.loads import Loads

TO_NS = {"ns": 1.0, "us": 1e3}
NS_PER_S = 1e9
Reading = Literal["additive", "max_affine"]
TERMS = ("neuron_update", "synop", "spike_out", "message_in")
NEEDED = ("neuron_update", "synop", "barrier")  # no time without these
_FIXED = ("barrier", "step_floor")


@dataclass(frozen=True)
class Bottleneck:
    """What the steps of streaming wait for.

    core: number of the core that is slowest in the most steps. term: the part that takes most of
    the mean step. parts: that mean by part in ns, of the slowest core of every step; the part
    ``step_floor`` is what is left up to the floor. They add up to the mean step.
    """

    core: int
    term: str
    parts: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        return {"core": self.core, "term": self.term, "parts_ns": dict(self.parts)}


@dataclass(frozen=True)
class Times:
    """Run time under one reading; unknown Estimates say why.

    step: mean and longest step while samples follow one another without a gap, in ns. period:
    seconds from one sample to the next then, throughput its inverse in 1/s. seconds: of one sample
    alone, from its first frame to its last message; pipeline: what of that is after its last frame.
    """

    reading: Reading
    step_mean: Estimate
    step_max: Estimate
    period: Estimate
    throughput: Estimate
    seconds: Estimate
    pipeline: Estimate
    bottleneck: Bottleneck | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "seconds": self.seconds.as_dict(),
            "pipeline_seconds": self.pipeline.as_dict(),
            "period": self.period.as_dict(),
            "throughput": self.throughput.as_dict(),
            "step": {"mean": self.step_mean.as_dict(), "max": self.step_max.as_dict()},
            "bottleneck": None if self.bottleneck is None else self.bottleneck.as_dict(),
        }


@dataclass(frozen=True)
class RunTime:
    """Both readings. left_out: terms that occur but whose time is unknown, and why."""

    headline: Times
    readings: Mapping[Reading, Times]
    left_out: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "combine": self.headline.reading,
            **self.headline.as_dict(),
            **{reading: times.as_dict() for reading, times in self.readings.items()},
            "left_out": [{"term": term, "why": why} for term, why in self.left_out.items()],
        }


def time(loads: Loads | None, profile: Profile, *, why: str = NOT_PLACED) -> RunTime:
    """Return the run time of the samples in ``loads`` on a profile.

    All is unknown without a placement (``why`` says why there is none), and where the time of a
    synaptic operation, of a neuron update or of the barrier is unknown.
    """
    reason = why if loads is None else _unknown_needed(profile)
    if loads is None or reason:
        times = {reading: _no_times(reading, reason) for reading in get_args(Reading)}
        return RunTime(times[profile.time.combine], times, {})
    quantities = {k: q for k, q in profile.time if isinstance(q, Quantity) and _occurs(loads, k)}
    left_out = {key: q.source for key, q in quantities.items() if q.value is None}
    grade = worst(q.grade for q in quantities.values() if q.value is not None)
    runs = _Events.of(loads, streaming=True), _Events.of(loads, streaming=False)
    times = {reading: _times(*runs, profile, reading, grade) for reading in get_args(Reading)}
    return RunTime(times[profile.time.combine], times, left_out)


def latency_dict(graph: ig.IntGraph, run_time: RunTime, profile: Profile) -> dict[str, Any]:
    """Return steps and times of a sample as plain JSON values, with the coefficients used."""
    pipeline = graph.latency[graph.output]
    return {
        "pipeline_steps": pipeline,
        "steps_per_sample": graph.steps,
        "steps_to_answer": pipeline + graph.steps,
        **run_time.as_dict(),
        "coefficients": {
            key: quantity_dict(getattr(profile.time, key)) for key in (*TERMS, *_FIXED)
        },
    }


def _occurs(loads: Loads, key: str) -> bool:
    events = {"spike_out": loads.spikes, "message_in": loads.messages_in, "synop": loads.synops}
    return bool(events[key].any()) if key in events else True


def _unknown_needed(profile: Profile) -> str:
    """Return why there is no time on a profile, '' if there is."""
    lacking = [key for key in NEEDED if getattr(profile.time, key).value is None]
    return "; ".join(
        f"the time of {key} is unknown: {getattr(profile.time, key).source}" for key in lacking
    )


def _no_times(reading: Reading, why: str) -> Times:
    ns, s = unknown("ns", why), unknown("s", why)
    return Times(reading, ns, ns, s, unknown("1/s", why), s, s, None)


# --- one reading -----------------------------------------------------------------------------
def _coefficients(profile: Profile, end: int) -> dict[str, float]:
    """Return all times in ns at the low (0), stated (1) or high (2) end; 0 where unknown."""
    found = {}
    for key in (*TERMS, *_FIXED):
        quantity = getattr(profile.time, key)
        found[key] = quantity.band[end] * TO_NS[quantity.unit] if quantity.band else 0.0
    return found


@dataclass(frozen=True, eq=False)
class _Events:
    """What every core does in every step, (samples, steps, cores); neurons (cores,).

    frames: steps of input per sample.
    """

    frames: int
    neuron_update: np.ndarray
    synop: np.ndarray
    spike_out: np.ndarray
    message_in: np.ndarray

    @classmethod
    def of(cls, loads: Loads, *, streaming: bool) -> _Events:
        events = loads.synops, loads.spikes, loads.messages_in
        if streaming:
            events = tuple(map(loads.streaming, events))  # type: ignore[assignment]
        return cls(loads.steps, loads.neurons, *events)

    def times(self, cost: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Return the time of every term in ns."""
        return {key: getattr(self, key) * cost[key] for key in TERMS}


def _by_core(terms: Mapping[str, np.ndarray], reading: Reading) -> np.ndarray:
    """Return the time of every core in ns, (samples, steps, cores)."""
    join = np.add if reading == "additive" else np.maximum
    found = join(terms["neuron_update"], terms["synop"])
    return join(join(found, terms["spike_out"]), terms["message_in"])


def _steps(events: _Events, cost: Mapping[str, float], reading: Reading) -> np.ndarray:
    """Return the time of every step, float64 (samples, steps) in ns."""
    slowest = _by_core(events.times(cost), reading).max(axis=2)
    return np.maximum(slowest + cost["barrier"], cost["step_floor"])


def _times(
    streaming: _Events, alone: _Events, profile: Profile, reading: Reading, grade: str
) -> Times:
    source = f"{profile.id}: {reading.replace('_', '-')} model of the busiest core of every step"
    costs = [_coefficients(profile, end) for end in range(3)]
    stream = [_steps(streaming, cost, reading) for cost in costs]
    single = [_steps(alone, cost, reading) for cost in costs]

    def estimate(numbers: list[float], unit: str) -> Estimate:
        low, value, high = numbers
        return Estimate(value, low, high, unit, grade, source)

    def seconds(steps: list[np.ndarray]) -> Estimate:
        return estimate([float(x.sum(axis=1).mean()) / NS_PER_S for x in steps], "s")

    period = seconds(stream)
    return Times(
        reading=reading,
        step_mean=estimate([float(x.mean()) for x in stream], "ns"),
        step_max=estimate([float(x.max()) for x in stream], "ns"),
        period=period,
        throughput=_inverse(period),
        seconds=seconds(single),
        pipeline=seconds([x[:, alone.frames :] for x in single]),
        bottleneck=_bottleneck(streaming, costs[1], reading),
    )


def _inverse(period: Estimate) -> Estimate:
    """Return samples per second; an end of the band is None where no time passes."""
    if not period.value:
        return unknown("1/s", f"no time passes: {period.source}")
    low, high = (1 / end if end else None for end in (period.high, period.low))
    return Estimate(1 / period.value, low, high, "1/s", period.grade, period.source)


def _bottleneck(events: _Events, cost: Mapping[str, float], reading: Reading) -> Bottleneck:
    terms = events.times(cost)
    cores = _by_core(terms, reading)
    slowest = cores.argmax(axis=2)
    of_slowest = {
        key: np.take_along_axis(np.broadcast_to(v, cores.shape), slowest[..., None], 2)[..., 0]
        for key, v in terms.items()
    }
    if reading == "max_affine":  # only the longest term counts
        longest = np.stack([of_slowest[key] for key in TERMS]).argmax(axis=0)
        of_slowest = {
            key: np.where(longest == i, of_slowest[key], 0.0) for i, key in enumerate(TERMS)
        }
    busy = cores.max(axis=2) + cost["barrier"]
    parts = {key: float(v.mean()) for key, v in of_slowest.items()}
    parts["barrier"] = cost["barrier"]
    parts["step_floor"] = float(np.maximum(cost["step_floor"] - busy, 0.0).mean())
    core = int(np.bincount(slowest.reshape(-1)).argmax())
    return Bottleneck(core, max(parts, key=parts.__getitem__), parts)
