"""Counts, loads and prices at random, and a profile whose every number can be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuroav.counts import Counts
from neuroav.hardware import Energy, Profile, Quantity, Timing, load_profile
from neuroav.loads import LayerLoads, Loads

PRICES = {k: "pJ" for k in Energy.model_fields if k != "scope"} | {
    "core_step": "nJ",
    "static_chip": "mW",
}
TIMES = {k: "ns" for k in Timing.model_fields if k != "combine"}
Number = float | tuple[float, float, float] | Quantity | None


def quantity(key: str, unit: str, number: Number, grade: str = "B") -> Quantity:
    """Return a number of a profile; number: value, (low, value, high) or None for unknown."""
    low, value, high = number if isinstance(number, tuple) else (None, number, None)
    return Quantity(
        value=value, low=low, high=high, unit=unit, grade=grade, source=f"source of {key}"
    )


def priced_profile(
    seed: int = 0,
    *,
    scope: str = "per_event",
    combine: str = "additive",
    energy: Mapping[str, Number] | None = None,
    time: Mapping[str, Number] | None = None,
) -> Profile:
    """Return a profile whose prices and times are random with bands, but for those given."""
    rng = np.random.default_rng(seed)

    def table(units: Mapping[str, str], given: Mapping[str, Number] | None) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, unit in units.items():
            number: Number = tuple(sorted(rng.uniform(1, 50, 3).tolist()))
            if given and key in given:
                number = given[key]
            whole = isinstance(number, Quantity)
            found[key] = number if whole else quantity(key, unit, number)
        return found

    update = {
        "id": "test",
        "energy": Energy(scope=scope, **table(PRICES, energy)),
        "time": Timing(combine=combine, **table(TIMES, time)),
    }
    return load_profile("loihi2").model_copy(update=update)


def random_run(seed: int, *, chips: int = 2) -> tuple[Counts, Loads]:
    """Return counts and loads of 3 samples, 4 steps: an input, two layers, a mute readout."""
    rng = np.random.default_rng(seed)
    samples, steps, run_steps, cores = 3, 4, int(rng.integers(4, 10)), int(rng.integers(1, 6))

    def some(*shape: int) -> np.ndarray:
        return rng.integers(1, 200, shape).astype(np.int64)

    none = np.zeros(samples, np.int64)
    counts = Counts(
        samples=samples,
        steps=steps,
        spikes={"in": some(samples), "a": some(samples), "b": some(samples), "out": none},
        synops={"in": {}, "a": {"conv": some(samples), "sparse": some(samples)},
                "b": {"dense": some(samples)}, "out": {"dense": some(samples)}},
        updates={"in": 0, "a": 24 * steps, "b": 11 * steps, "out": 5 * steps},
        rates={"in": 0.1, "a": 0.1, "b": 0.1, "out": 0.0},
    )  # fmt: skip
    layers = {n: LayerLoads(*some(4, samples)) for n in ("a", "b")}
    layers["out"] = LayerLoads(none, none, none, none)
    events = [rng.integers(0, 300, (samples, run_steps, cores)).astype(np.int64) for _ in range(3)]
    loads = Loads(
        steps=steps,
        layers=layers,
        inputs={"in": some(samples)},
        synops=events[0],
        spikes=events[1],
        messages_in=events[2],
        neurons=some(cores),
        links={},
        link_peak=0,
        chips=chips,
    )
    return counts, loads
