"""The break-even charts: energy of a sample over spike rate and over steps, beside dense networks.

Places are percent of width and of height from above; text stands outside, as in ``figures``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroav.report.figures import Axis, linear_axis, log_axis
from neuroav.report.format import NARROW, UNKNOWN, percent, si

# baseline -> words and style of its line
BASELINES = {
    "int8_ann": ("INT8, all steps, 45 nm", "dense"),
    "int8_ann_7nm": ("INT8, all steps, 7 nm", "dense dashed"),
    "int8_ann_one_pass": ("INT8, one pass, 45 nm", "once"),
    "int8_ann_one_pass_7nm": ("INT8, one pass, 7 nm", "once dashed"),
}


@dataclass(frozen=True)
class Line:
    """A baseline: its line, and where the spiking network meets it, in words."""

    name: str
    style: str
    path: str
    meets: str
    spread: str


@dataclass(frozen=True)
class Curves:
    """One chart. band and path: of the spiking network; now: place of this network, in percent."""

    x: Axis
    y: Axis
    heading: str
    band: str
    path: str
    now: tuple[float, float]
    lines: tuple[Line, ...]


def by_rate(break_even: Mapping[str, Mapping[str, Any]]) -> Curves | None:
    """Return energy over the mean spike rate; None where the network's energy is unknown."""
    some = next(iter(break_even.values()))
    if some["by_rate"] is None:
        return None
    found = {key: b["by_rate"] for key, b in break_even.items()}
    rates = next(iter(found.values()))["rate"]
    x = log_axis([r for r in rates if r], percent)
    return _curves(found, x, rates, some["rate"], "Mean spike rate", percent)


def by_steps(break_even: Mapping[str, Mapping[str, Any]]) -> Curves | None:
    """Return energy over the number of steps; None where the network's energy is unknown."""
    some = next(iter(break_even.values()))
    if some["by_steps"] is None:
        return None
    found = {key: b["by_steps"] for key, b in break_even.items()}
    steps = next(iter(found.values()))["steps"]
    x = linear_axis(float(max(steps)), lambda v: f"{v:g}")
    return _curves(found, x, steps, float(some["steps"]), "Steps per sample", steps_text)


def steps_text(value: float) -> str:
    """Return a number of steps."""
    return f"{value:.1f}{NARROW}steps"


def _curves(
    found: Mapping[str, Any], x: Axis, at: Sequence[float], now: float, heading: str, text: Any
) -> Curves:
    some = next(iter(found.values()))
    energy = some["energy"]
    bases = {key: _flat(part["baseline"], len(at)) for key, part in found.items()}
    values = [v for ends in energy.values() for v in ends]
    values += [v for base in bases.values() for v in base["value"]]
    y = log_axis([v for v in values if v > 0], lambda v: si(v, "pJ"))
    lines = tuple(
        Line(
            BASELINES[key][0],
            BASELINES[key][1],
            _path(x, y, at, base["value"]),
            meets(found[key]["crossing"]["value"], text),
            _spread(found[key]["crossing"], text),
        )
        for key, base in bases.items()
    )
    top, bottom = (_points(x, y, at, energy[end]) for end in ("high", "low"))
    nearest = min(range(len(at)), key=lambda i: abs(at[i] - now))
    return Curves(
        x,
        y,
        heading,
        f"M{'L'.join(top)}L{'L'.join(reversed(bottom))}Z",
        _path(x, y, at, energy["value"]),
        (x.place(now), 100 - y.place(energy["value"][nearest])),
        lines,
    )


def _flat(baseline: Mapping[str, Any], count: int) -> Mapping[str, list[float]]:
    """Return a baseline as one value per place."""
    value = baseline["value"]
    return baseline if isinstance(value, list) else {"value": [value] * count}


def _points(x: Axis, y: Axis, at: Sequence[float], values: Sequence[float]) -> list[str]:
    return [
        f"{x.place(a):.2f} {100 - y.place(v):.2f}" for a, v in zip(at, values, strict=True) if a > 0
    ]


def _path(x: Axis, y: Axis, at: Sequence[float], values: Sequence[float]) -> str:
    return f"M{'L'.join(_points(x, y, at, values))}"


def meets(crossing: Mapping[str, Any], text: Any) -> str:
    """Return in words where a spiking network is cheaper; ``text`` words the place."""
    if crossing["at"] is None:
        return crossing["why"]
    if text is steps_text and crossing["at"] < 1:
        return "dearer at every number of steps"
    return f"cheaper below {text(crossing['at'])}"


def _spread(crossing: Mapping[str, Any], text: Any) -> str:
    """Return the crossings at both ends of all bands."""
    ends = [crossing[end]["at"] for end in ("low", "high")]
    if ends[0] is None and ends[1] is None:
        return UNKNOWN
    return " to ".join("none" if end is None else text(end) for end in ends)
