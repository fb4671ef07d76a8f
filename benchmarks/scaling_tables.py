"""Tables and the figure of ``benchmarks/scaling.py``, from its numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from neuroav.studies.plots import COLOURS, style

MEBI = 1 << 20
Found = Mapping[str, list[dict[str, Any]]]


def _table(head: str, rows: Iterable[Iterable[object]]) -> str:
    columns = head.split(" | ")
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _ms(times: Mapping[str, float], per: int = 1) -> str:
    low, middle, high = (1e3 * times[k] / per for k in ("min_s", "median_s", "max_s"))
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def tables(found: Found) -> str:
    """Return everything measured as Markdown."""
    parts = []
    if rows := found.get("size"):
        parts += ["Export, and simulation of one sample and of eight:", _sizes(rows)]
    if rows := found.get("steps"):
        parts += ["Steps per sample (batch 4):", _table(
            "steps | ms per sample | ms per sample and step | rate | peak MiB",
            ((r["steps"], _ms(r, r["batch"]),
              f"{1e3 * r['median_s'] / r['batch'] / r['steps']:.3g}",
              f"{100 * r['rate']:.1f} %", r["peak_bytes"] // MEBI) for r in rows))]  # fmt: skip
    if rows := found.get("batch"):
        parts += ["Samples at a time:", _table(
            "batch | ms per sample | peak MiB",
            ((r["batch"], _ms(r, r["batch"]), r["peak_bytes"] // MEBI) for r in rows))]  # fmt: skip
    if rows := found.get("rate"):
        parts += ["One layer at a share of messages that are not 0, 32 frames:", _table(
            "share | whole products, ms | events, ms | as chosen, ms",
            ((f"{100 * r['rate']:g} %", *(_ms(r[w]) for w in ("whole", "events", "chosen")))
             for r in rows))]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _sizes(rows: list[dict[str, Any]]) -> str:
    head = (
        "D | input | neurons | synapses | export s | file MiB | export's peak MiB | one sample, ms "
        "| peak MiB | eight, ms per sample | peak MiB | rate"
    )
    return _table(
        head,
        (
            (
                r["width"],
                f"{r['rows']} x {r['rows']}",
                f"{r['neurons']:,}",
                f"{r['synapses']:,}",
                f"{r['export_s'] + r['save_s']:.2f}",
                f"{r['file_bytes'] / MEBI:.1f}",
                r["export_peak_bytes"] // MEBI,
                _ms(r["one"]),
                r["one"]["peak_bytes"] // MEBI,
                _ms(r["eight"], 8),
                r["eight"]["peak_bytes"] // MEBI,
                f"{100 * r['eight']['rate']:.1f} %",
            )
            for r in rows
        ),
    )


def figure(found: Found, path: Path) -> None:
    """Write four panels: time against neurons, steps, batch and the share of messages."""
    with style():
        drawn = Figure(figsize=(9, 6.2), layout="constrained")
        size, steps, batch, rate = drawn.subplots(2, 2).flat
        rows = found["size"]
        neurons = [r["neurons"] for r in rows]
        lines = (
            ("one sample", [1e3 * r["one"]["median_s"] for r in rows]),
            ("eight, per sample", [1e3 * r["eight"]["median_s"] / 8 for r in rows]),
            ("export", [1e3 * (r["export_s"] + r["save_s"]) for r in rows]),
        )
        _panel(size, "Size of the network", "neurons", "ms", neurons, lines)
        rows = found["steps"]
        lines = (("", [1e3 * r["median_s"] / r["batch"] for r in rows]),)
        title = "Steps per sample, 4 samples at a time"
        _panel(steps, title, "steps", "ms per sample", [r["steps"] for r in rows], lines)
        rows = found["batch"]
        lines = (("", [1e3 * r["median_s"] / r["batch"] for r in rows]),)
        title = "Samples at a time"
        _panel(batch, title, "batch", "ms per sample", [r["batch"] for r in rows], lines)
        rows, ways = found["rate"], ("whole products", "events alone", "as chosen")
        lines = tuple(
            (way, [1e3 * r[key]["median_s"] for r in rows])
            for way, key in zip(ways, ("whole", "events", "chosen"), strict=True)
        )
        title, share = "Synapses of one layer", "messages that are not 0, %"
        _panel(rate, title, share, "ms, 32 frames", [100 * r["rate"] for r in rows], lines)
        drawn.savefig(path, dpi=130)


def _panel(axes, title: str, x_label: str, y_label: str, x, lines) -> None:
    looks = zip(COLOURS, ("o", "s", "^"), ("-", "-", "--"), strict=False)
    for (label, y), (colour, marker, line) in zip(lines, looks, strict=False):
        axes.plot(x, y, line, color=colour, marker=marker, label=label)
    axes.set(title=title, xlabel=x_label, ylabel=y_label, xscale="log", yscale="log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
        axis.set_minor_locator(NullLocator())
    if len(lines) > 1:
        axes.legend()


def _short(value: float) -> str:
    for least, letter in ((1e6, "M"), (1e3, "k")):
        if value >= least:
            return f"{value / least:g}{letter}"
    return f"{value:g}"
