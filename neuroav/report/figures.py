"""Where every mark of the page's charts goes: axes, layers, accuracy and energy.

Charts are drawn by the templates as SVG with places in percent and text outside, so that they
stretch to any width without shrinking letters. Nothing here knows HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuroav.report.format import counted, estimate, kind_name, percent, si


# --- axes -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Tick:
    place: float  # percent of the width
    text: str


@dataclass(frozen=True)
class Axis:
    """Maps values to percent of the width."""

    low: float
    high: float
    log: bool
    ticks: tuple[Tick, ...]

    def place(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        return round(100 * (value - low) / (high - low), 2)


def linear_axis(largest: float, text: Callable[[float], str]) -> Axis:
    """Return an axis from 0 to a round number above ``largest`` with two to four ticks."""
    largest = largest or 1.0
    power = 10.0 ** math.floor(math.log10(largest))
    step = next(s * power for s in (0.25, 0.5, 1, 2.5, 5) if largest <= 4 * s * power)
    count = math.ceil(round(largest / step, 9))
    high = count * step
    ticks = tuple(Tick(round(100 * i / count, 2), text(i * step)) for i in range(count + 1))
    return Axis(0.0, high, False, ticks)


def log_axis(values: Sequence[float], text: Callable[[float], str]) -> Axis:
    """Return an axis of whole decades that holds all ``values`` (positive)."""
    low = math.floor(math.log10(min(values)))
    high = max(math.ceil(math.log10(max(values))), low + 1)
    ticks = tuple(
        Tick(round(100 * (power - low) / (high - low), 2), text(10.0**power))
        for power in range(low, high + 1)
    )
    return Axis(10.0**low, 10.0**high, True, ticks)


@dataclass(frozen=True)
class Mark:
    """A value on an axis with its band, in percent; low and high None where there is none."""

    value: float
    low: float | None
    high: float | None


def _mark(axis: Axis, item: Mapping[str, Any]) -> Mark | None:
    if item["value"] is None:
        return None
    ends = item["low"], item["high"]
    if None in ends or ends[0] == ends[1]:
        return Mark(axis.place(item["value"]), None, None)
    return Mark(axis.place(item["value"]), axis.place(ends[0]), axis.place(ends[1]))


# --- layers -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class LayerRow:
    layer: Mapping[str, Any]
    rate_float: float | None
    rate_deployed: float | None
    synops: float | None
    share: float
    energy: Mark | None


@dataclass(frozen=True)
class LayerChart:
    rate: Axis
    synops: Axis
    energy: Axis
    rows: tuple[LayerRow, ...]


def layer_chart(report: Mapping[str, Any]) -> LayerChart:
    """Return rates, shares of synaptic operations and energies of all layers on common axes."""
    layers, total = report["layers"], report["counts"]["synops"] or 1.0
    rates = [v for x in layers for v in (x["rate_float"], x["rate_deployed"]) if v is not None]
    costs = [v for x in layers for v in (x["energy"]["value"], x["energy"]["high"]) if v]
    rate = linear_axis(max(rates), lambda v: _short_percent(v))
    synops = linear_axis(max(x["synops"] / total for x in layers), lambda v: _short_percent(v))
    energy = linear_axis(max(costs, default=1.0), lambda v: si(v, "pJ") if v else "0")
    rows = []
    for layer in layers:
        sends, receives = layer["kind"] != "readout", layer["kind"] != "input"
        share = layer["synops"] / total
        floating, deployed = layer["rate_float"], layer["rate_deployed"]
        rows.append(
            LayerRow(
                layer,
                None if floating is None else rate.place(floating),
                rate.place(deployed) if sends and deployed is not None else None,
                synops.place(share) if receives else None,
                share,
                _mark(energy, layer["energy"]),
            )
        )
    return LayerChart(rate, synops, energy, tuple(rows))


def _short_percent(value: float) -> str:
    return f"{100 * value:.3g}\u202f%"


# --- accuracy and energy ----------------------------------------------------------------------
@dataclass(frozen=True)
class Row:
    """One line of a chart of marks on a common axis."""

    label: str
    note: str
    mark: Mark | None
    text: str
    grade: str
    style: str


@dataclass(frozen=True)
class Chart:
    axis: Axis
    rows: tuple[Row, ...]


def accuracy_chart(accuracy: Mapping[str, Any]) -> Chart | None:
    """Return float and deployed accuracy with their 95 % intervals, on an axis cut to fit; None
    where no sample has a label."""
    if not accuracy["labelled"]:
        return None
    lowest = min(low for low, _ in accuracy["interval_95"].values())
    start = max(0.0, math.floor(lowest * 10 - 0.2) / 10)
    step = next(s for s in (0.02, 0.05, 0.1, 0.2, 0.25) if (1 - start) / s <= 5)
    steps = math.ceil(round((1 - start) / step, 9))
    start = 1 - steps * step if 1 - steps * step >= 0 else 0.0
    ticks = [1 - i * step for i in range(steps, -1, -1) if 1 - i * step >= -1e-9]
    marks = tuple(
        Tick(round(100 * (t - start) / (1 - start), 2), _short_percent(max(t, 0.0))) for t in ticks
    )
    axis = Axis(start, 1.0, False, marks)
    rows = []
    for key, label in (("float", "Float network"), ("deployed", "Deployed network")):
        low, high = accuracy["interval_95"][key]
        mark = Mark(axis.place(accuracy[key]), axis.place(low), axis.place(high))
        rows.append(Row(label, "", mark, percent(accuracy[key]), "", key))
    return Chart(axis, tuple(rows))


def whole(energy: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the total energy, the known part of it where a charged term is unknown."""
    return energy["total"] if energy["complete"] else energy["known_part"]


def energy_terms(energy: Mapping[str, Any]) -> Chart | None:
    """Return the energy of every kind of event that costs anything, largest first, on an axis
    from 0."""
    rows = [
        (kind, row)
        for kind, row in energy["by_source"].items()
        if row["modelled"] and row["energy"]["value"]
    ]
    if not rows:
        return None
    rows.sort(key=lambda item: -item[1]["energy"]["value"])
    axis = linear_axis(
        max(r["energy"]["high"] for _, r in rows), lambda v: si(v, "pJ") if v else "0"
    )
    return Chart(
        axis,
        tuple(
            Row(
                kind_name(kind),
                _each(row),
                _mark(axis, row["energy"]),
                estimate(row["energy"]),
                row["energy"]["grade"],
                "deployed",
            )
            for kind, row in rows
        ),
    )


def _each(row: Mapping[str, Any]) -> str:
    """Return count x price in words."""
    if row["unit_cost"]["value"] is None:
        return ""
    return f"{counted(row)} × {estimate(row['unit_cost'])}"


def energy_chart(reports: Sequence[Mapping[str, Any]], shown: Sequence[str]) -> Chart | None:
    """Return the estimates on every profile beside conventional hardware, on a logarithmic axis.

    shown: keys of the baselines. None if nothing is known.
    """
    items = [
        (
            r["provenance"]["profile"]["title"],
            "total" if r["energy"]["complete"] else "known part",
            whole(r["energy"]),
            "deployed",
        )
        for r in reports
    ]
    for key in shown:
        base = reports[0]["baselines"][key]
        items.append((base["title"], "", base["total"], "baseline"))
    return estimates_chart(items)


def sets_chart(report: Mapping[str, Any]) -> Chart | None:
    """Return the counts of a run under every published set of coefficients."""
    return estimates_chart(
        [
            (x["title"], x["node"], x["total"], "deployed" if x["complete"] else "float")
            for x in report["coefficient_sets"]
        ]
    )


def estimates_chart(items: Sequence[tuple[str, str, Mapping[str, Any], str]]) -> Chart | None:
    """Return (label, note, estimate, style) on a logarithmic axis; None if no value is known."""
    numbers = [v for _, _, e, _ in items for v in (e["low"], e["value"], e["high"]) if v]
    if not numbers:
        return None
    axis = log_axis(numbers, lambda v: si(v, "pJ"))
    rows = tuple(
        Row(name, note, _mark(axis, e) if e["value"] else None, estimate(e), e["grade"], style)
        for name, note, e, style in items
    )
    return Chart(axis, rows)
