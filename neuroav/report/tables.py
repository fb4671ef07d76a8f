"""The tables of the Markdown report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neuroav.report.format import (
    BASELINES,
    NODE_KINDS,
    band,
    count,
    estimate,
    flatten,
    kind_name,
    percent,
    table,
)

Report = Mapping[str, Any]


def comparison(reports: Sequence[Report]) -> str:
    """Return one line per file and profile."""
    columns = ("file", "profile", "samples", "float", "deployed", "agreement", "spikes", "synops",
               "energy, modelled", "band", "grade")  # fmt: skip
    rows = []
    for report in reports:
        origin, accuracy = report["provenance"], report["accuracy"]
        dynamic = report["energy"]["dynamic"]
        rows.append(
            (
                origin["file"],
                origin["profile"]["id"],
                f"{accuracy['samples']} {origin['split']}",
                *(percent(accuracy[key]) for key in ("float", "deployed", "agreement")),
                *(count(report["counts"][key]) for key in ("spikes", "synops")),
                estimate(dynamic),
                band(dynamic),
                dynamic["grade"],
            )
        )
    return table(columns, rows, "lllrrrrrrrl")


def layers(report: Report) -> str:
    """Return one line per layer in execution order."""
    columns = ("layer", "kind", "neurons", "synapses", "spikes float", "deployed", "rate", "synops",
               "updates", "energy", "band", "grade")  # fmt: skip
    keys = ("neurons", "synapses", "spikes_float", "spikes_deployed")
    rows = [
        (
            layer["name"],
            NODE_KINDS[layer["kind"]],
            *(count(layer[key]) for key in keys),
            percent(layer["rate_deployed"]),
            count(layer["synops"]),
            count(layer["updates"]),
            estimate(layer["energy"]),
            band(layer["energy"]),
            layer["energy"]["grade"],
        )
        for layer in report["layers"]
    ]
    return table(columns, rows, "llrrrrrrrrrl")


def energy(report: Report) -> str:
    """Return one line per event kind, those without a count last."""
    columns = ("event", "count", "each", "energy", "band", "grade of the cost")
    rows = [
        (
            kind_name(kind),
            count(row["count"]) if row["modelled"] else "left out",
            estimate(row["unit_cost"]),
            estimate(row["energy"]),
            band(row["energy"]),
            row["unit_cost"]["grade"],
        )
        for kind, row in report["energy"]["by_source"].items()
    ]
    return table(columns, rows, "lrrrrl")


def baselines(report: Report) -> str:
    """Return the float network's dense arithmetic at each precision."""
    rows = [
        (name, count(row["macs"]), estimate(row["energy"]), row["energy"]["grade"],
         row["energy"]["source"])
        for key, name in BASELINES.items()
        for row in (report["baselines"][key],)
    ]  # fmt: skip
    return table(("baseline", "MAC", "energy", "grade", "source"), rows, "lrrll")


def provenance(reports: Sequence[Report]) -> str:
    """Return everything needed to make the report again."""
    return table(("what", "value"), list(_origins(reports)))


def _origins(reports: Sequence[Report]) -> Iterator[tuple[str, str]]:
    first = reports[0]["provenance"]
    for key in ("file", "content_hash", "compiled_for", "split", "samples"):
        yield key, first[key]
    for report in reports:
        profile = report["provenance"]["profile"]
        yield f"profile {profile['id']}", profile["hash"]
    for key in ("executor", "spike_digest", "neuroav"):
        yield key, first[key]
    yield from flatten(first["deployment"])
