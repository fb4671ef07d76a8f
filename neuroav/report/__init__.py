"""Reports: accuracy, events, energy and latency of deployments as JSON, Markdown and one HTML page.

``write_report`` is what to call for files, ``report_samples`` for one deployment on samples at
hand. ``report.json`` of one file priced once is the report
itself; of several files or profiles it is ``{"reports": [...]}``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuroav.deployment import Deployment
from neuroav.errors import ConfigError
from neuroav.files import written_whole
from neuroav.hardware import load_profile
from neuroav.report.build import report_object
from neuroav.report.format import labels
from neuroav.report.measure import measure, measure_samples
from neuroav.report.render import Group, html_page, markdown
from neuroav.simulate import Progress, Samples

__all__ = ["report_samples", "write_report"]


def write_report(
    paths: Sequence[str | Path],
    *,
    out: Path,
    samples: int | None = None,
    split: str | None = None,
    profiles: Sequence[str] = (),
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write report.html, report.json and report.md about ``paths`` into the folder ``out``.

    samples, split: as ``simulate.load_samples`` takes them; the deployed network and its
    real-valued twin run on the same samples. profiles: ids or .toml files that price the events,
    by default each file's own. Returns what report.json holds, plus ``path``, that of the page.
    Nothing is written unless everything could be made. Raises ConfigError, FileFormatError,
    ProfileError, DataError, MissingDependency.
    """
    out, names = _folder(out), list(dict.fromkeys(map(str, paths)))
    if not names:
        raise ConfigError("no file to report on: give one or more FILE.nav")
    prices = [load_profile(name) for name in dict.fromkeys(profiles)]
    groups = []
    for name, label in zip(names, labels(names), strict=True):
        run = measure(
            name,
            label,
            profiles=prices,
            samples=samples,
            split=split,
            cache_dir=cache_dir,
            data_root=data_root,
            progress=progress,
        )
        groups.append(Group(run, [report_object(run, placed) for placed in run.placed]))
    return _write(groups, out)


def report_samples(
    deployment: Deployment,
    data: Samples,
    *,
    out: Path,
    label: str,
    profiles: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the report of one deployment on ``data``; label: what it is called there.

    All else as for ``write_report``.
    """
    out, prices = _folder(out), [load_profile(name) for name in dict.fromkeys(profiles)]
    run = measure_samples(deployment, data, label, profiles=prices, progress=progress)
    return _write([Group(run, [report_object(run, placed) for placed in run.placed])], out)


def _folder(out: Path) -> Path:
    if Path(out).exists() and not Path(out).is_dir():
        raise ConfigError(f"{out}: is a file, the report needs a folder; choose another name")
    return Path(out)


def _write(groups: Sequence[Group], out: Path) -> dict[str, Any]:
    """Write the three pages about ``groups`` into ``out``; return what ``write_report`` returns."""
    reports = [report for group in groups for report in group.reports]
    found = reports[0] if len(reports) == 1 else {"reports": reports}
    pages = {
        "report.json": json.dumps(found, indent=1, allow_nan=False) + "\n",
        "report.md": markdown(groups),
        "report.html": html_page(groups),
    }
    for page, text in pages.items():
        with written_whole(out / page) as part:
            part.write_text(text, encoding="utf-8")
    return {**found, "path": str(out / "report.html")}
