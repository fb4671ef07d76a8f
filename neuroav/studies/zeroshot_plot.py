"""The figure of an ablation: HM and ZSL after every step, and the arithmetic that is left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from neuroav.studies.plots import COLOURS, save, style


def draw(found: Mapping[str, Any], out: Path) -> None:
    """Write ablation.svg and ablation.png into ``out``."""
    rows = found["rows"][::-1]
    places = range(len(rows))
    with style():
        figure = Figure(figsize=(9.6, 0.42 * len(rows) + 1.3), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for key, label, colour, shift in (
            ("hm", "HM", COLOURS[0], 0.14),
            ("zsl", "ZSL", COLOURS[1], -0.14),
        ):
            left.errorbar(
                [r["mean"][key] for r in rows],
                [p + shift for p in places],
                xerr=[r["sd"][key] for r in rows],
                fmt="o",
                color=colour,
                label=label,
                capsize=2,
            )
        left.set_yticks(list(places), [r["title"] for r in rows])
        left.set_title("Accuracy, mean and deviation over seeds")
        left.legend(loc="lower left")
        left.grid(axis="x")
        for key, label, colour, shift in (
            ("macs", "multiply-accumulates, real-valued", COLOURS[4], 0.18),
            ("synops", "synaptic operations, by spikes or messages", COLOURS[2], -0.18),
        ):
            right.barh(
                [p + shift for p in places],
                [max(r["mean"][key], 1) for r in rows],
                height=0.34,
                color=colour,
                label=label,
            )
        right.set_xscale("log")
        right.set_title("Operations per sample")
        right.legend(loc="lower center", bbox_to_anchor=(0.5, -0.28))
        right.grid(axis="x")
        save(figure, out, "ablation")
