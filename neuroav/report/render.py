"""The report as a page and as Markdown: Jinja templates over the JSON objects and the figures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from neuroav.report import chip, curves, figures, process_graph, sample, tables
from neuroav.report import format as fmt
from neuroav.report.measure import Measured
from neuroav.simulate import GIVEN

# of the rows of ``baselines`` those that are drawn
SHOWN_BASELINES = ("snn_int8", "snn_int8_7nm", "int8_ann_one_pass", "int8_ann_one_pass_7nm",
                   "int8_ann", "int8_ann_7nm", "fp32_ann_one_pass", "fp32_ann")  # fmt: skip
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
    def accuracy_chart(self) -> figures.Chart | None:
        return figures.accuracy_chart(self.first["accuracy"])

    @cached_property
    def energy_chart(self) -> figures.Chart | None:
        return figures.energy_chart(self.reports, SHOWN_BASELINES)

    @cached_property
    def sets_chart(self) -> figures.Chart | None:
        return figures.sets_chart(self.first)

    @cached_property
    def by_rate(self) -> curves.Curves | None:
        return curves.by_rate(self.first["break_even"])

    @cached_property
    def by_steps(self) -> curves.Curves | None:
        return curves.by_steps(self.first["break_even"])

    @cached_property
    def drawing(self) -> process_graph.Drawing:
        layers = {layer["name"]: layer for layer in self.first["layers"]}
        return process_graph.draw(self.run.deployment.integer, layers)

    @cached_property
    def maps(self) -> list[chip.ChipMap | None]:
        """The map of the chip for every report, None where there is none or it is too large."""
        return [
            chip.chip_map(p.placement, p.loads) if p.placement and p.loads else None
            for p in self.run.placed
        ]

    @cached_property
    def sample(self) -> sample.SampleView:
        return sample.sample_view(self.run)

    @property
    def show_confusion(self) -> bool:
        return len(self.first["classes"]) <= MAX_CONFUSION

    @property
    def split(self) -> str:
        """The word for its samples before ``samples``: ``test ``, nothing for those of a caller."""
        return "" if self.run.split == GIVEN else f"{self.run.split} "


def html_page(groups: Sequence[Group]) -> str:
    """Return the whole page; it loads nothing from outside and runs no script."""
    return environment().get_template("report.html.j2").render(_context(groups))


def markdown(groups: Sequence[Group]) -> str:
    """Return the report as Markdown that also reads well in a terminal."""
    text = environment().get_template("report.md.j2").render(_context(groups))
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
    """Return the energies of all reports on one axis, without baselines."""
    return figures.estimates_chart(
        [
            (
                r["provenance"]["file"],
                r["provenance"]["profile"]["id"]
                + ("" if r["energy"]["complete"] else ", known part"),
                figures.whole(r["energy"]),
                "deployed",
            )
            for _, r in rows
        ]
    )


def environment() -> Environment:
    """Return what the pages are made with: templates, filters and words."""
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
        "counted": fmt.counted,
        "percent": fmt.percent,
        "estimate": fmt.estimate,
        "band": fmt.band,
        "si": fmt.si,
        "kind": fmt.kind_name,
        "resource": fmt.resource_name,
        "set_term": fmt.set_term,
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
        "energy_terms": figures.energy_terms,
        "neurobench_rows": tables.neurobench_rows,
        "NODE_KINDS": fmt.NODE_KINDS,
        "GRADE_MEANING": fmt.GRADE_MEANING,
    }
    return environment


def _breakable(name: str) -> Markup:
    """Return a name that may break after its dots and underscores."""
    parts = re.split(r"(?<=[._])", fmt.clean(name))
    return Markup("<wbr>").join(map(escape, parts))
