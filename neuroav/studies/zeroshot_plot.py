"""The figure of an ablation: HM and ZSL after every step, and the arithmetic that is left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from neuroav.studies.plots import COLOURS, save, style

# key, label, colour, marker
_ACCURACY = (("hm", "HM", COLOURS[0], "o"), ("zsl", "ZSL", COLOURS[1], "s"))
_OPERATIONS = (
    ("macs", "multiply-accumulates, real-valued", COLOURS[4], "D"),
    ("synops", "synaptic operations, by spikes or messages", COLOURS[2], "^"),
)


def draw(found: Mapping[str, Any], out: Path) -> None:
    """Write ablation.svg and ablation.png into ``out``."""
    rows = found["rows"][::-1]
    several = len(found["seeds"]) > 1
    with style():
        figure = Figure(figsize=(9.6, 0.36 * len(rows) + 1.4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        left.set_title(f"Accuracy, {'mean and deviation over seeds' if several else 'one seed'}")
        right.set_title("Operations per sample")
        for axes, kinds in ((left, _ACCURACY), (right, _OPERATIONS)):
            for key, label, colour, marker in kinds:
                axes.errorbar(
                    [r["mean"][key] for r in rows],
                    range(len(rows)),
                    xerr=[r["sd"][key] for r in rows] if several else None,
                    fmt=marker,
                    color=colour,
                    label=label,
                    capsize=2,
                )
            axes.grid(axis="both")
        left.set_yticks(range(len(rows)), [r["title"] for r in rows])
        right.set_xscale("log")
        handles = [h for axes in (left, right) for h in axes.get_legend_handles_labels()[0]]
        labels = [t for axes in (left, right) for t in axes.get_legend_handles_labels()[1]]
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        save(figure, out, "ablation")
