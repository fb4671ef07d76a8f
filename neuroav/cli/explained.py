"""What ``neuroav verify --explain`` and ``--against`` show to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from neuroav.cli.common import show, table

_SHOWN = 20  # differences between two graphs that are listed; the JSON has all


def explanation(found: Mapping[str, Any]) -> list[RenderableType]:
    """Return the tables of ``explain`` and ``against``, nothing where they were not asked for."""
    shown: list[RenderableType] = []
    if explained := found.get("explain"):
        shown += _layers(explained)
    if against := found.get("against"):
        shown += _against(against)
    return shown


def _layers(explained: Mapping[str, Any]) -> list[RenderableType]:
    rows, others = explained["layers"], list(explained["layers"][0]["executors"])
    columns = ("layer", "as the float network", "its own part", *others, "first at", "cause")
    lines = [
        (
            r["name"],
            _share(r["float_agreement"]),
            _share(r["own_agreement"]),
            *(_share(r["executors"][b]) for b in others),
            _place(r.get("first")),
            (r.get("first") or {}).get("cause"),
        )
        for r in rows
    ]
    shown: list[RenderableType] = ["", table(columns, lines, right=columns[1:-2])]
    by_name = {r["name"]: r for r in rows}
    advised = [
        (n, by_name[n].get("dominant"), by_name[n].get("advice")) for n in explained["ranked"]
    ]
    if advised:
        lead = "What loses most by itself, and what would bring most of it back:"
        shown += ["", lead, table(("layer", "rounding of", "setting"), advised)]
    for name in explained["ranked"][:1]:
        shown += ["", f"The first output that {name} changes:", *_sides(by_name[name]["first"])]
    if explained["altered"]:
        lead = "Not as the float network in the file gives it:"
        shown += ["", lead, _differences(explained["altered"])]
    if first := explained["first_divergence"]:
        shown += ["", f"First difference between executors: {_where(first)}"]
    return shown


def _sides(first: Mapping[str, Any]) -> list[RenderableType]:
    """Return the quantities of both sides, where there are any."""
    if "integer" not in first:
        return [f"  {_place(first)}: {show(first['deployed'])} for {show(first['float'])}"]
    columns = ("quantity", "integer", "real", "difference in integer units")
    names = first["integer"]
    lines = [(n, first["integer"][n], first["real"][n], first["difference"][n]) for n in names]
    head = f"  {_place(first)}: {first['deployed']} deployed, {first['float']} float"
    return [head, table(columns, lines, right=columns[1:])]


def _against(against: Mapping[str, Any]) -> list[RenderableType]:
    if against["equal"]:
        return ["", "against: the same integer graph"]
    differences = against["differences"]
    shown: list[RenderableType] = ["", "against: NOT THE SAME", _differences(differences)]
    if len(differences) > _SHOWN:
        shown.append(f"... and {len(differences) - _SHOWN} more (--json lists all)")
    first = against["first_divergence"]
    return [*shown, "", f"first other spike: {_where(first) if first else 'none'}"]


def _differences(differences: Sequence[Mapping[str, Any]]) -> RenderableType:
    columns = ("layer", "field", "synapses", "at", "expected", "found", "how many", "cause")
    keys = ("node", "field", "projection", "index", "expected", "found", "count", "cause")
    return table(columns, [[d[k] for k in keys] for d in differences[:_SHOWN]])


def _where(first: Mapping[str, Any]) -> str:
    if "sample" not in first:
        return f"{first['node']}: {first['message']} (cause: {first['cause']})"
    before, after = first["values"]
    return f"{first['node']}, {_place(first)}: {before} -> {after} (cause: {first['cause']})"


def _place(first: Mapping[str, Any] | None) -> str | None:
    if first is None:
        return None
    return f"sample {first['sample']} step {first['step']} index {show(first['index'])}"


def _share(value: float | None) -> str | None:
    """Return a share in percent that says 100 only where all agree."""
    if value is None:
        return None
    text = f"{100 * value:.3f}"
    return "99.999" if text == "100.000" and value < 1 else text
