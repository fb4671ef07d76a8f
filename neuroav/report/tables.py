"""The tables of the Markdown report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from neuroav.report.curves import meets, steps_text
from neuroav.report.figures import whole
from neuroav.report.format import (
    NODE_KINDS,
    band,
    count,
    counted,
    estimate,
    flatten,
    kind_name,
    percent,
    resource_name,
    set_term,
    table,
)

Report = Mapping[str, Any]


def comparison(reports: Sequence[Report]) -> str:
    """Return one line per file and profile."""
    columns = ("file", "profile", "samples", "float", "deployed", "agreement", "spikes", "synops",
               "cores", "chips", "energy", "band", "grade", "one sample")  # fmt: skip
    rows = []
    for report in reports:
        origin, accuracy, place = report["provenance"], report["accuracy"], report["placement"]
        energy = whole(report["energy"])
        rows.append(
            (
                origin["file"],
                origin["profile"]["id"],
                f"{accuracy['samples']} {origin['split']}",
                *(percent(accuracy[key]) for key in ("float", "deployed", "agreement")),
                *(count(report["counts"][key]) for key in ("spikes", "synops")),
                *(count(place[key]) for key in ("cores", "chips")),
                estimate(energy) + ("" if report["energy"]["complete"] else " known part"),
                band(energy),
                energy["grade"],
                estimate(report["latency"]["seconds"]),
            )
        )
    return table(columns, rows, "lllrrrrrrrrrlr")


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
    """Return one line per event kind."""
    columns = ("event", "count", "each", "energy", "band", "grade of the cost")
    rows = [
        (
            kind_name(kind),
            counted(row),
            estimate(row["unit_cost"]),
            estimate(row["energy"]),
            band(row["energy"]),
            row["unit_cost"]["grade"],
        )
        for kind, row in report["energy"]["by_source"].items()
    ]
    return table(columns, rows, "lrrrrl")


def modes(report: Report) -> str:
    """Return dynamic, static and total energy, streaming and of one sample alone."""
    found = report["energy"]
    rows = [
        (
            name,
            *(estimate(sums[key]) for key in ("dynamic", "static", "total")),
            band(sums["total"]),
            sums["total"]["grade"],
        )
        for name, sums in (
            ("samples one after the other", found),
            ("one sample alone", found["one_at_a_time"]),
        )
    ]
    return table(("", "dynamic", "static", "total", "band", "grade"), rows, "lrrrrl")


def resources(report: Report) -> str:
    """Return how full the cores are, by limited resource."""
    rows = [
        (resource_name(name), percent(row["mean"]), percent(row["max"]), count(row["limit"]))
        for name, row in report["placement"]["utilisation"]["resources"].items()
    ]
    return table(("resource of a core", "mean", "fullest core", "limit"), rows, "lrrr")


def sets(report: Report) -> str:
    """Return the counts under every published set of coefficients."""
    rows = [
        (x["title"], estimate(x["total"]), band(x["total"]),
         ", ".join(map(set_term, x["lacks"])) or "–", x["grade"])
        for x in report["coefficient_sets"]
    ]  # fmt: skip
    return table(("set", "energy", "band", "leaves out", "grade"), rows, "lrrll")


def baselines(report: Report) -> str:
    """Return the network on conventional hardware, memory traffic included."""
    rows = [
        (x["title"], count(x["macs"]), count(x["acs"]), estimate(x["energy"]),
         estimate(x["memory_energy"]), estimate(x["total"]), band(x["total"]), x["total"]["grade"])
        for x in report["baselines"].values()
    ]  # fmt: skip
    columns = ("execution", "MAC", "AC", "arithmetic", "memory", "total", "band", "grade")
    return table(columns, rows, "lrrrrrrl")


def break_even(report: Report) -> str:
    """Return where the network meets every INT8 baseline."""
    rows = []
    for key, found in report["break_even"].items():
        title = report["baselines"][key]["title"]
        if found["by_rate"] is None:
            rows.append((title, found["why"], found["why"]))
            continue
        rate, steps = (found[k]["crossing"]["value"] for k in ("by_rate", "by_steps"))
        rows.append((title, meets(rate, percent), meets(steps, steps_text)))
    return table(("against", "mean spike rate", "steps per sample"), rows)


def neurobench(report: Report) -> str:
    """Return NeuroBench's metrics."""
    return table(("metric", "value"), list(neurobench_rows(report["neurobench"])), "lr")


def neurobench_rows(metrics: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (NeuroBench's name, value) of the metrics of a report."""
    yield "Footprint", f"{count(metrics['Footprint'])} byte"
    yield "ParameterCount", count(metrics["ParameterCount"])
    for key in ("ConnectionSparsity", "ActivationSparsity"):
        yield key, f"{metrics[key]:.4f}"
    for group in ("SynapticOperations", "NeuronOperations"):
        for key, value in metrics[group].items():
            yield f"{group}, {key.replace('_', ' ')}", count(value)
    yield "MembraneUpdates", count(metrics["MembraneUpdates"])


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
