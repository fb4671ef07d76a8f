"""What the rows of a sweep say together: means and spreads over seeds, the choice, a flat table."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from neuroav.studies.grid import FLOAT, SEED

CHOICE = (
    "chosen by the mean validation accuracy of the float network; its test accuracy is what is "
    "left to report, and choosing by it would make it worthless"
)


def spread(values: Iterable[float]) -> dict[str, float | None]:
    """Return mean and sample standard deviation (n - 1; None for one value, or none)."""
    values = list(values)
    return {
        "mean": statistics.fmean(values) if values else None,
        "sd": statistics.stdev(values) if len(values) > 1 else None,
    }


def groups(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one object per setting (the swept values without the seed), in order of the rows.

    rows: with ``values``, ``state`` and, where that is 'finished', ``sides``. Keys: values; runs
    and seeds that finished; failed; sides: by side, ``spread`` of every number of it.
    """
    settings: dict[tuple, list[Mapping[str, Any]]] = {}
    for row in rows:
        setting = tuple((k, v) for k, v in row["values"].items() if k != SEED)
        settings.setdefault(setting, []).append(row)
    found = []
    for setting, own in settings.items():
        done = [row for row in own if row["state"] == "finished"]
        found.append(
            {
                "values": dict(setting),
                "runs": len(done),
                "failed": sum(row["state"] == "failed" for row in own),
                "seeds": [row["values"][SEED] for row in done if SEED in row["values"]],
                "val_loss": spread(row["val_loss"] for row in done)["mean"],
                "sides": _sides(done),
            }
        )
    return found


def _sides(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    names = dict.fromkeys(name for row in rows for name in row["sides"])
    return {
        name: {
            key: spread(row["sides"][name][key] for row in rows)
            for key, value in rows[0]["sides"][name].items()
            if isinstance(value, (int, float))
        }
        for name in names
    }


def best(found: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the group with the highest mean validation accuracy of the float network.

    Only groups with as many finished runs as any compete; equal ones are told apart by the lower
    validation loss, then the first wins. None before any run has finished.
    """
    most = max((group["runs"] for group in found), default=0)
    if not most:
        return None
    chosen = min(
        (group for group in found if group["runs"] == most),
        key=lambda g: (-g["sides"][FLOAT]["val"]["mean"], g["val_loss"]),
    )
    return {**chosen, "why": CHOICE}


def flat(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as CSV text: one line per run, columns like ``deployed test``."""
    table = [_flat_row(row) for row in rows]
    columns = dict.fromkeys(column for row in table for column in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _flat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("state", "parameters", "epochs", "best_epoch", "seconds", "val_loss")
    line = {"name": row["name"], **row["values"]}
    line |= {key: row[key] for key in keys if key in row}
    for name, side in row.get("sides", {}).items():
        line |= {f"{name} {key}": value for key, value in side.items()}
    return line | ({"error": row["error"]} if "error" in row else {})


def as_text(item: Mapping[str, float | None]) -> str:
    """Return '0.972 ± 0.004', or '0.972' where there is no spread."""
    if item["mean"] is None:
        return "-"
    sd = item["sd"]
    return f"{item['mean']:.3f}" + ("" if sd is None or math.isnan(sd) else f" ± {sd:.3f}")


def describe(values: Mapping[str, Any]) -> str:
    """Return 'scmrl.alpha 0.5, data.steps 8', or 'the one setting' where only seeds differ."""
    return ", ".join(f"{key} {value}" for key, value in values.items()) or "the one setting"
