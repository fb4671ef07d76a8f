"""At which spike rate, and at how many steps, a spiking network costs what a dense one does.

Plain numbers in, curves and crossings out: it knows neither chips nor networks. The energy of a
sample is E(m) = event * m + step, where m scales all spike rates: synaptic operations, spikes and
messages grow with them, neuron updates and static energy do not. With T steps it is
E(T) = (event + step) * T / steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Interval = tuple[float, float, float]  # low, value, high

ENDS = ("low", "value", "high")
OCTAVES = 5  # of the multiplier, up and down
CHEAPER = "cheaper at every rate"
DEARER = "dearer at every rate: what no spike costs is more than the baseline"
NO_EVENTS = "no spikes, so no rate to scale"
ALIKE = "the baseline pays for every step too: no number of steps changes who is cheaper"
FREE = "the network costs nothing"


def interval(estimate: Mapping[str, Any]) -> Interval | None:
    """Return (low, value, high) of an estimate's JSON, None if unknown; an absent end is the
    value."""
    value = estimate["value"]
    if value is None:
        return None
    low, high = (value if estimate[k] is None else estimate[k] for k in ("low", "high"))
    return float(low), float(value), float(high)


def break_even(
    event: Interval | None,
    step: Interval | None,
    baseline: Interval | None,
    *,
    rate: float,
    steps: int,
    baseline_per_step: bool = False,
    points: int = 33,
) -> dict[str, Any]:
    """Return energies over spike rate and over steps beside a baseline, and where they meet.

    event, step, baseline: energy per sample in one unit, as (low, value, high): what grows with
    the spike rate, what does not, and what is compared with; None where unknown. rate: mean
    messages per neuron and step. steps: steps per sample. baseline_per_step: whether the baseline
    runs every step as well, so that it grows with them.

    Keys: rate, steps; now: {energy, baseline, ratio}; by_rate: {multiplier, rate, energy,
    baseline, crossing}; by_steps: {steps, energy, baseline, crossing}; why: what is unknown, or
    None. Curves are lists under low, value and high. A crossing is {at, why} for each of them: at
    is None, and why says so, where there is none. Its low end takes the dearest network and the
    cheapest baseline, its high end the opposite. Below a crossing the spiking network is cheaper.
    """
    given = {"event": event, "step": step, "baseline": baseline}
    lacking = [name for name, value in given.items() if value is None]
    if event is None or step is None or baseline is None:
        why = f"unknown: {', '.join(lacking)}"
        return {"rate": rate, "steps": steps, "now": None, "by_rate": None, "by_steps": None,
                "why": why}  # fmt: skip
    e, s, b = (np.array(x, np.float64) for x in (event, step, baseline))
    return {
        "rate": rate,
        "steps": steps,
        "now": {
            "energy": _named(e + s),
            "baseline": _named(b),
            "ratio": float(b[1] / (e + s)[1]) if (e + s)[1] else None,
        },
        "by_rate": _by_rate(e, s, b, rate, points),
        "by_steps": _by_steps(e + s, b, steps, baseline_per_step),
        "why": None,
    }


def _by_rate(e: np.ndarray, s: np.ndarray, b: np.ndarray, rate: float, points: int):
    multiplier = np.geomspace(2.0**-OCTAVES, 2.0**OCTAVES, points)
    multiplier = multiplier[multiplier * rate <= 1 + 1e-12]
    return {
        "multiplier": multiplier.tolist(),
        "rate": (multiplier * rate).tolist(),
        "energy": _curves(lambda i: e[i] * multiplier + s[i]),
        "baseline": _named(b),
        "crossing": {
            end: _rate_crossing(e[2 - i], s[2 - i], b[i], rate) for i, end in enumerate(ENDS)
        },
    }


def _rate_crossing(e: float, s: float, b: float, rate: float) -> dict[str, Any]:
    """Return the rate at which e * m + s = b."""
    if s >= b:
        return {"at": None, "why": DEARER}
    if e <= 0 or rate <= 0:
        return {"at": None, "why": NO_EVENTS}
    at = float((b - s) / e * rate)
    return {"at": None, "why": CHEAPER} if at > 1 else {"at": at, "why": None}


def _by_steps(total: np.ndarray, b: np.ndarray, steps: int, per_step: bool):
    count = np.arange(1, 2 * steps + 1)
    crossing = {
        end: _step_crossing(total[2 - i] / steps, b[i], per_step) for i, end in enumerate(ENDS)
    }
    grows = count / steps if per_step else np.ones(len(count))
    return {
        "steps": count.tolist(),
        "energy": _curves(lambda i: total[i] / steps * count),
        "baseline": _curves(lambda i: b[i] * grows),
        "crossing": crossing,
    }


def _step_crossing(per_step: float, b: float, alike: bool) -> dict[str, Any]:
    if alike:
        return {"at": None, "why": ALIKE}
    if per_step <= 0:
        return {"at": None, "why": FREE}
    return {"at": float(b / per_step), "why": None}


def _named(values: np.ndarray) -> dict[str, float]:
    return {end: float(v) for end, v in zip(ENDS, values, strict=True)}


def _curves(curve: Callable[[int], np.ndarray]) -> dict[str, list[float]]:
    return {end: curve(i).tolist() for i, end in enumerate(ENDS)}
