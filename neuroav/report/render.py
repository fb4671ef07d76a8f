"""The report as a page and as Markdown: Jinja templates over the JSON objects and the figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from neuroav.report import figures, sample, tables
from neuroav.report import format as fmt
from neuroav.report.measure import Measured

MAX_CONFUSION = 40  # classes; a larger matrix is in report.json only


@dataclass(frozen=True, eq=False)
class Group:
    """One file: what its runs gave, and a report per profile. ``first`` stands for all that the
    profile does not change."""

    run: Measured
    reports: list[dict[str, Any]]

    @property
    def first(self) -> dict[str, Any]:
        return self.reports[0]

    @cached_property
    def accuracy_chart(self) -> figures.Chart:
        return figures.accuracy_chart(self.first["accuracy"])

    @cached_property
    def energy_chart(self) -> figures.Chart | None:
        return figures.energy_chart(self.reports, fmt.BASELINES)

    @cached_property
    def sample(self) -> sample.SampleView:
        return sample.sample_view(self.run)

    @property
    def show_confusion(self) -> bool:
        return len(self.first["classes"]) <= MAX_CONFUSION


def html_page(groups: Sequence[Group]) -> str:
    """Return the whole page; it loads nothing from outside and runs no script."""
    return _environment().get_template("report.html.j2").render(_context(groups))


def markdown(groups: Sequence[Group]) -> str:
    """Return the report as Markdown that also reads well in a terminal."""
    text = _environment().get_template("report.md.j2").render(_context(groups))
    return text.replace(fmt.NARROW, " ")


def _context(groups: Sequence[Group]) -> dict[str, Any]:
    rows = [(group, report) for group in groups for report in group.reports]
    return {
        "groups": groups,
        "rows": rows,
        "same_samples": len({_sample_key(report) for _, report in rows}) == 1,
        "comparison": _comparison_chart(rows) if len(rows) > 1 else None,
    }


def _sample_key(report: dict[str, Any]) -> tuple[Any, ...]:
    """Return what two reports on the same samples have in common."""
    origin = report["provenance"]
    data = origin["deployment"].get("data_hash", origin["content_hash"])
    return data, origin["split"], origin["samples"]


def _comparison_chart(rows: list[tuple[Group, dict[str, Any]]]) -> figures.Chart | None:
    """Return the dynamic energies of all reports on one axis, without baselines."""
    return figures.estimates_chart(
        [
            (
                r["provenance"]["file"],
                r["provenance"]["profile"]["id"],
                r["energy"]["dynamic"],
                "deployed",
            )
            for _, r in rows
        ]
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("neuroav.report"),
        autoescape=select_autoescape(("html.j2",), default=False),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "count": fmt.count,
        "percent": fmt.percent,
        "estimate": fmt.estimate,
        "band": fmt.band,
        "si": fmt.si,
        "kind": fmt.kind_name,
        "short": fmt.short,
        "clean": fmt.clean,
        "plain": fmt.plain,
        "wbr": _breakable,
    }
    environment.globals |= {
        "tables": tables,
        "flatten": fmt.flatten,
        "interval": fmt.interval,
        "layer_chart": figures.layer_chart,
        "NODE_KINDS": fmt.NODE_KINDS,
        "BASELINES": fmt.BASELINES,
        "GRADE_MEANING": fmt.GRADE_MEANING,
    }
    return environment


def _breakable(name: str) -> Markup:
    """Return a name that may break after its dots and underscores."""
    parts = re.split(r"(?<=[._])", fmt.clean(name))
    return Markup("<wbr>").join(map(escape, parts))
