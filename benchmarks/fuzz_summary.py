"""The summary of ``benchmarks/fuzz.py``, as JSON values and as a page."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

import neuroav
from neuroav import integer as ig
from neuroav.counts import SATURATED, SILENT

if TYPE_CHECKING:
    from fuzz import State


def summary(state: State) -> dict[str, Any]:
    """Return the figures of a run as plain JSON values."""
    counts = state.tally.counts
    sizes = [int(size) for size in counts["neurons"].elements()]
    kinds = {"nodes": ig.POPULATION_CLASSES, "projections": ig.PROJECTION_CLASSES}
    total, spiking = counts["total"], counts["total"]["spiking populations"]
    return {
        "neuroav": neuroav.__version__,
        "seed": state.seed,
        "graphs": state.done,
        "seconds": round(state.seconds, 1),
        "compared_with_fast": total["compared with fast"],
        "compared_with_lava": total["compared with lava"],
        "refused": total["refused"],
        "outputs": total["values"],
        "messages": total["messages"],
        "voltages": total["voltages"],
        "neurons": spread(sizes) if sizes else None,
        **{key: {c.__name__: counts[key][c.__name__] for c in kinds[key]} for key in kinds},
        **{key: in_order(counts[key]) for key in ("steps", "samples", "inputs")},
        "ways": dict(sorted(counts["ways"].items())),
        "spiking_populations": spiking,
        "silent_share": total["silent"] / spiking if spiking else None,
        "saturated_share": total["saturated"] / spiking if spiking else None,
        "rates": in_order(counts["rates"]),
        "differences": [{"file": name, "first": text} for name, text in state.tally.failures],
    }


def spread(sizes: list[int]) -> dict[str, int]:
    """Return the smallest, the median and the largest."""
    return {"min": min(sizes), "median": int(np.median(sizes)), "max": max(sizes)}


def in_order(counts: Counter[str]) -> dict[str, int]:
    """Return the counts by number, the smallest first; 'own' is none and comes last."""
    return dict(sorted(counts.items(), key=lambda item: float(item[0].replace("own", "inf"))))


def markdown(found: dict[str, Any]) -> str:
    """Return the summary as a page."""

    def percent(share: float | None) -> str:
        return "unknown" if share is None else f"{share:.1%}"

    head = [
        ("graphs", f"{found['graphs']:,}"),
        ("compared with fast (outputs and voltages)", f"{found['compared_with_fast']:,}"),
        ("compared with lava (outputs)", f"{found['compared_with_lava']:,}"),
        ("refused by all that ran them: a register overflows", f"{found['refused']:,}"),
        ("outputs; messages among them", f"{found['outputs']:,}; {found['messages']:,}"),
        ("voltages", f"{found['voltages']:,}"),
        ("neurons of a graph: " + ", ".join(found["neurons"] or ()),
         ", ".join(f"{v:,}" for v in (found["neurons"] or {}).values())),
        ("spiking populations", f"{found['spiking_populations']:,}"),
        (f"silent (rate < {SILENT:.1%})", percent(found["silent_share"])),
        (f"saturated (rate > {SATURATED:.0%})", percent(found["saturated_share"])),
        ("differences", f"{len(found['differences'])}"),
        ("seconds", f"{found['seconds']:,.0f}"),
    ]  # fmt: skip
    lines = [f"# Fuzz of the executors, neuroav {found['neuroav']}, seed {found['seed']}", ""]
    lines += ["| | |", "|---|--:|", *(f"| {name} | {value} |" for name, value in head), ""]
    for key in ("nodes", "projections", "steps", "samples", "inputs", "ways", "rates"):
        rows = found[key].items()
        lines += [f"## {key}", "", "| | count |", "|---|--:|"]
        lines += [*(f"| {name} | {value:,} |" for name, value in rows), ""]
    lines += ["## differences", ""]
    lines += [f"- `failures/{d['file']}`: {d['first']}" for d in found["differences"]] or ["none"]
    return "\n".join(lines) + "\n"
