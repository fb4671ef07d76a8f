"""The calibration page: the model against published measurements, as HTML, Markdown and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from neuroav import __version__
from neuroav.costs.calibration import calibrate
from neuroav.errors import ConfigError
from neuroav.files import written_whole
from neuroav.report import format as fmt
from neuroav.report.figures import Axis, Chart, Mark, Row, linear_axis
from neuroav.report.render import environment

FILES = ("calibration.html", "calibration.json", "calibration.md")
PARTS = {
    "synapse": "synaptic operations",
    "neuron": "neuron updates",
    "spike": "spikes, messages and hops",
    "core": "active cores",
}
PART_OF = {"neuron_update": "neuron", "core_step": "core"} | dict.fromkeys(
    ("synop_conv", "synop_dense", "synop_sparse"), "synapse"
)
QUANTITIES = {
    "dynamic_energy_per_step": "dynamic energy per step",
    "static_energy_per_step": "static energy per step",
    "time_per_step": "time per step",
    "total_power": "power",
    "total_power_few_cores": "power on 5 cores",
    "total_power_many_cores": "power on 69 cores",
    "board_power": "power of the board",
    "idle_power": "power at idle",
    "static_power": "static power",
    "total_energy": "energy per inference",
    "dynamic_energy": "dynamic energy per inference",
    "time": "time per inference",
}
TERMS = {
    "neuron_update": "neuron updates",
    "synop": "synaptic operations",
    "spike_out": "spikes generated",
    "message_in": "messages received",
    "barrier": "barrier",
    "step_floor": "shortest step",
}
READ = {
    "primary": "the publication",
    "figures": "its figures",
    "quoted": "quoted elsewhere, the publication was not read",
}
MINUS = "\u2212"
ROUNDING = 0.05  # of a value: a narrower band is not shown
FAR = 0.5  # of a residual


def write_calibration(out: Path) -> dict[str, Any]:
    """Write calibration.html, calibration.json and calibration.md into the folder ``out``.

    Returns what calibration.json holds, plus ``path``, that of the page. ConfigError where ``out``
    is a file.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file, the page needs a folder; choose another --out")
    found = calibrate() | {"neuroav": __version__}
    texts = {
        "calibration.html": html_page(found),
        "calibration.json": json.dumps(found, indent=1, allow_nan=False) + "\n",
        "calibration.md": markdown(found),
    }
    for name, text in texts.items():
        with written_whole(out / name) as part:
            part.write_text(text, encoding="utf-8")
    return {**found, "path": str(out / "calibration.html")}


def html_page(found: Mapping[str, Any]) -> str:
    """Return the whole page; it loads nothing from outside and runs no script."""
    return _render("calibration.html.j2", found)


def markdown(found: Mapping[str, Any]) -> str:
    """Return the page as Markdown that also reads well in a terminal."""
    return _render("calibration.md.j2", found).replace(fmt.NARROW, " ")


def _render(template: str, found: Mapping[str, Any]) -> str:
    made = environment()
    made.filters |= {"signed": signed, "told": told, "quantity": lambda key: QUANTITIES[key]}
    made.globals |= {"PARTS": PARTS, "READ": READ, "TERMS": TERMS, "table": fmt.table}
    chart = destinations_chart(found["anchor"])
    measured = found["anchor"]["measured"]["dynamic_energy_per_step"]["value"]
    return made.get_template(template).render(
        found=found,
        anchor=found["anchor"],
        one=found["anchor"]["destinations"][0],
        partition=found["anchor"]["partition"],
        stacks=stacks(found["anchor"]),
        destinations=chart,
        truth=chart.axis.place(measured * 1e6),
        hops=found["anchor"]["hops"]["value"],
        statics=static_chart(found["static_power"]),
        later=[r for r in found["static_power"] if _far_below(r, found["profile"]["id"])],
        predicted=sum(bool(p["predicted"]) for p in found["points"]),
        **_tables(found),
    )  # fmt: skip


def _tables(found: Mapping[str, Any]) -> dict[str, list[Sequence[str]]]:
    """Return the rows of the Markdown tables."""
    anchor = found["anchor"]
    cores = sorted([*anchor["destinations"], anchor["partition"]], key=lambda r: r["destinations"])
    return {
        "rows_of_sets": [
            (r["name"], *(fmt.si(r[k], "uJ") for k in ("synapse", "neuron", "spike", "total")),
             signed(r["residual"]))
            for r in anchor["sets"]
        ],
        "rows_of_destinations": [
            (f"{r['destinations']:.3g}", fmt.estimate(r["dynamic"]), fmt.band(r["dynamic"]),
             signed(r["residual"]))
            for r in cores
        ],
        "rows_of_time": [
            (r["profile"], r["reading"].replace("_", "-"), fmt.estimate(r["predicted"]),
             fmt.band(r["predicted"]), signed(r["residual"]), r["note"])
            for r in anchor["time"]
        ],
        "rows_of_static": [
            (r["point"], fmt.estimate(r["measured"]), fmt.band(r["measured"]), r["profile"],
             fmt.estimate(r["predicted"]), signed(r["residual"]), r["note"])
            for r in found["static_power"]
        ],
    }  # fmt: skip


def _far_below(row: Mapping[str, Any], profile: str) -> bool:
    """Return whether a result of others implies far less static power than the profile says."""
    return row["independent"] and row["profile"] == profile and row["residual"] > FAR


def signed(share: float | None) -> str:
    """Return a residual as a percentage with its sign."""
    if share is None:
        return fmt.UNKNOWN
    text = f"{100 * abs(share):.1f}" if abs(share) < 1 else f"{100 * abs(share):.0f}"
    sign = "+" if share > 0 else MINUS if share < 0 else ""
    return f"{sign}{text}{fmt.NARROW}%"


def told(item: Mapping[str, Any]) -> str:
    """Return a measured number, with its band where that is more than rounding."""
    low, high = item["low"], item["high"]
    text = fmt.estimate(item).replace("-", MINUS)
    if low is None or high - low < ROUNDING * abs(item["value"]):
        return text
    return f"{text} ({fmt.band(item).replace('-', MINUS)})"


# --- charts ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Stack:
    """A bar of parts: (style, start, width) in percent of the width."""

    label: str
    note: str
    parts: tuple[tuple[str, float, float], ...]
    text: str


@dataclass(frozen=True)
class Stacks:
    axis: Axis
    measured: float
    rows: tuple[Stack, ...]


def stacks(anchor: Mapping[str, Any]) -> Stacks:
    """Return the energy per step by part, with the prices of others and with the profile's."""
    rows = [(r["name"], "", {k: r[k] for k in PARTS if k in r}, r["residual"])
            for r in anchor["sets"]]  # fmt: skip
    one, implied = anchor["destinations"][0], anchor["partition"]
    notes = {"one destination core": one, f"{implied['destinations']:.2f} cores": implied}
    for note, found in notes.items():
        parts: dict[str, float] = {}
        for kind, value in found["by_kind_pj"].items():
            part = PART_OF.get(kind, "spike")
            parts[part] = parts.get(part, 0.0) + value * 1e-6
        rows.append(("This project, loihi2", note, parts, found["residual"]))
    measured = anchor["measured"]["dynamic_energy_per_step"]["value"]
    axis = linear_axis(max(sum(parts.values()) for _, _, parts, _ in rows), _microjoules)
    return Stacks(axis, axis.place(measured), tuple(_stack(axis, *row) for row in rows))


def _microjoules(value: float) -> str:
    return f"{value:.3g}{fmt.NARROW}µJ" if value else "0"


def _stack(axis: Axis, label: str, note: str, parts: Mapping[str, float], residual: float) -> Stack:
    placed, start = [], 0.0
    for part in PARTS:
        if part in parts:
            end = start + parts[part]
            placed.append((part, axis.place(start), round(axis.place(end) - axis.place(start), 2)))
            start = end
    return Stack(
        label, note, tuple(placed), f"{fmt.digits(start)}{fmt.NARROW}µJ, {signed(residual)}"
    )


def destinations_chart(anchor: Mapping[str, Any]) -> Chart:
    """Return the predicted energy with its band against the number of cores a spike goes to."""
    rows = [anchor["partition"], *anchor["destinations"]]
    rows.sort(key=lambda row: row["destinations"])
    axis = linear_axis(
        max(r["dynamic"]["high"] for r in rows), lambda v: fmt.si(v, "pJ") if v else "0"
    )
    return Chart(axis, tuple(_destinations_row(axis, row) for row in rows))


def _destinations_row(axis: Axis, row: Mapping[str, Any]) -> Row:
    cores, energy = row["destinations"], row["dynamic"]
    note = "as the compiler's partition implies" if "layers" in row else ""
    label = f"{cores:.2f} cores" if "layers" in row else f"{cores:.0f} core{'s' * (cores > 1)}"
    text = f"{fmt.estimate(energy)}, {signed(row['residual'])}"
    style = "deployed" if cores < 2 else "float"
    return Row(label, note, _mark(axis, energy), text, "", style)


def static_chart(rows: Sequence[Mapping[str, Any]]) -> Chart:
    """Return the static power per chip that publications imply, and the profiles' own."""
    items: list[tuple[str, str, Mapping[str, Any], float, str, str]] = []
    for profile in dict.fromkeys(row["profile"] for row in rows):
        own = [row for row in rows if row["profile"] == profile]
        for row in own:
            note = row["point"] + ("" if row["independent"] else ", source of the profile")
            words = row["workload"].partition(",")[0].partition(" on ")[0]
            items.append((words, note, row["measured"], row["chips"], "float",
                          signed(row["residual"])))  # fmt: skip
        items.append((f"profile {profile}", "predicted", own[0]["predicted"], own[0]["chips"],
                      "deployed", ""))  # fmt: skip
    axis = linear_axis(
        max((e["high"] or e["value"]) / chips for _, _, e, chips, _, _ in items),
        lambda v: fmt.si(v, "mW") if v else "0",
    )
    return Chart(axis, tuple(_static_row(axis, *item) for item in items))


def _static_row(
    axis: Axis, label: str, note: str, power: Mapping[str, Any], chips: float, style: str, off: str
) -> Row:
    each = {k: None if power[k] is None else power[k] / chips for k in ("value", "low", "high")}
    text = fmt.si(each["value"], "mW") + (f", {off}" if off else "")
    return Row(label, note, _mark(axis, each), text, "", style)


def _mark(axis: Axis, number: Mapping[str, Any]) -> Mark:
    if number["low"] is None or number["low"] == number["high"]:
        return Mark(axis.place(number["value"]), None, None)
    return Mark(*(axis.place(number[k]) for k in ("value", "low", "high")))
