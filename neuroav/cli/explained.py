"""What ``neuroav verify --explain``, ``--against`` and ``--digests`` show to people."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from neuroav.cli.common import show, table

_SHOWN = 20  # differences between two graphs that are listed; the JSON has all
_RANKED = 10  # layers that are listed under one setting
_STAGES = {"fake_quantized": "fake-quantized"}  # other stages are called as in the JSON


def explanation(found: Mapping[str, Any]) -> list[RenderableType]:
    """Return the tables of ``explain``, ``against`` and ``carried``, nothing of what is absent."""
    shown: list[RenderableType] = []
    if explained := found.get("explain"):
        shown += _stages(explained["stages"])
        shown += _layers(explained)
    if against := found.get("against"):
        shown += _against(against)
    if carried := found.get("carried"):
        shown += _carried(carried)
    return shown


# --- stages ------------------------------------------------------------------------------------
def _stages(stages: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """Return the chain of stages, and for each the first output that it changes."""
    columns = ("stage", "held against", "equal spikes %", "its own part %", "first change by")
    lines = [
        (
            _title(s["stage"]),
            _title(s["against"]),
            _share(s["agreement"]),
            _share(s["own_agreement"]),
            (s["first"] or {}).get("cause"),
        )
        for s in stages
    ]
    shown: list[RenderableType] = ["", table(columns, lines, right=columns[2:4])]
    shown += [f"{s['stage']}: {s['why_not']}" for s in stages if not s["compared"]]
    for stage in stages:
        if stage["first"]:
            shown += _first(stage)
    return shown


def _first(stage: Mapping[str, Any]) -> list[RenderableType]:
    """Return the first output that a stage changes, with both sides' quantities."""
    first = stage["first"]
    sides = _title(stage["against"]), _title(stage["stage"])
    old, new = map(show, first["values"])
    lead = f"First output that {sides[1]} changes (cause: {show(first['cause'])}):"
    shown = ["", lead, f"  {first['node']}, {_place(first)}: {old} -> {new}"]
    if not first.get("quantities"):
        return [*shown]
    before, after = first["quantities"]
    digits = "{:.9g}".format  # a spike may hang on the last one
    lines = [(n, digits(before[n]), digits(after[n]), after[n] - before[n]) for n in before]
    columns = ("quantity", *sides, "difference")
    return [*shown, table(columns, lines, right=columns[1:])]


def _title(stage: str) -> str:
    return _STAGES.get(stage, stage)


# --- layers ------------------------------------------------------------------------------------
def _layers(explained: Mapping[str, Any]) -> list[RenderableType]:
    """Return the share of equal outputs by layer and stage, and what would bring them back."""
    rows = explained["layers"]
    used = [s["stage"] for s in explained["stages"] if s["compared"]]
    stages = [s for s in ("folded", "fake_quantized", "integer") if s in used]
    differ = [b for b in rows[0]["executors"] if any(r["executors"][b] < 1 for r in rows)]
    heads = {"folded": "folded", "fake_quantized": "fake", "integer": "integer"}
    keys = [(s, k) for s in stages for k in ("agreement", "own_agreement")]
    keys.remove(("folded", "own_agreement")) if "folded" in stages else None
    columns = [f"{heads[s]}\n{'own' if k.startswith('own') else 'all'}" for s, k in keys]
    lines = [
        (
            r["name"],
            *(_share(r["stages"][s][k]) for s, k in keys),
            *(_share(r["executors"][b]) for b in differ),
        )
        for r in rows
    ]
    lead = "Outputs equal to those of the stage before, in %: all of it, and its own part"
    shown: list[RenderableType] = ["", lead]
    shown += [table(("layer", *columns, *differ), lines, right=(*columns, *differ))]
    equal = [b for b in rows[0]["executors"] if b not in differ]
    if equal:
        shown.append(f"In every layer equal to the integer network: {', '.join(equal)}")
    shown += _settings(explained["ranked"], {r["name"]: r for r in rows})
    if explained["altered"]:
        lead = "Not as the float network in the file gives it:"
        shown += ["", lead, _differences(explained["altered"])]
    return shown


def _settings(ranked: Sequence[str], rows: Mapping[str, Any]) -> list[RenderableType]:
    """Return the layers that lose by themselves, most first, under what would bring most back."""
    groups: dict[str, list[str]] = {}
    for name in ranked:
        advice = rows[name].get("advice") or "no single setting"
        groups.setdefault(advice, []).append(name)
    shown: list[RenderableType] = []
    columns = ("rank", "layer", "lost %", "rounding of", "brought back %")
    for setting, names in groups.items():
        lines = [(ranked.index(n) + 1, n, *_lost(rows[n])) for n in names[:_RANKED]]
        lead = [
            "",
            "What loses most by itself, and would get most of it back by",
            *_folded(setting),
        ]
        shown += [*lead, table(columns, lines, right=("rank", *columns[2::2]))]
        if len(names) > _RANKED:
            shown.append(f"... and {len(names) - _RANKED} more layers (--json lists all)")
    return shown


def _folded(setting: str) -> list[str]:
    """Return a setting as lines of a terminal."""
    return textwrap.wrap(f"{setting}:", 96, initial_indent="  ", subsequent_indent="  ")


def _lost(row: Mapping[str, Any]) -> tuple[str, str | None, str | None]:
    """Return what a layer loses itself, by what, and which part of it the float value recovers."""
    lost, most = 1 - row["own_agreement"], row.get("dominant")
    if most is None:
        return f"{100 * lost:.3f}", None, None
    # of class scores the share of the mean difference is known, of others that of all places
    back = row["recovers"][most] if row["kind"] == "IntReadout" else row["recovers"][most] / lost
    return f"{100 * lost:.3f}", most, f"{100 * back:.1f}"


# --- other files and digests -------------------------------------------------------------------
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


def _carried(carried: Mapping[str, Any]) -> list[RenderableType]:
    """Return the digests in the file, and whether they were given again."""
    entries = carried["entries"]
    packages = dict.fromkeys(p for e in entries for p in e["versions"])
    columns = ("executor", "digest", "now", *packages)
    lines = [
        (
            e["executor"],
            e["digest"][:12],
            "equal" if e["equal"] else "DIFFERENT",
            *(e["versions"].get(p) for p in packages),
        )
        for e in entries
    ]
    verdict = "all equal" if carried["equal"] else "NOT EQUAL"
    lead = f"digests carried in the file: {verdict}, {carried['stored']} stored now"
    return ["", lead, table(columns, lines)]


def _where(first: Mapping[str, Any]) -> str:
    if "sample" not in first:
        return f"{first['node']}: {first['message']} (cause: {first['cause']})"
    before, after = map(show, first["values"])
    return f"{first['node']}, {_place(first)}: {before} -> {after} (cause: {show(first['cause'])})"


def _place(first: Mapping[str, Any]) -> str:
    return f"sample {first['sample']} step {first['step']} index {show(first['index'])}"


def _share(value: float | None) -> str | None:
    """Return a share in percent, 100 only where all agree."""
    if value is None:
        return None
    text = f"{100 * value:.3f}"
    return "100" if value == 1 else "99.999" if text == "100.000" else text
