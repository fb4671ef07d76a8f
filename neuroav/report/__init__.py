"""Reports: accuracy, events, energy and latency of deployments as JSON, Markdown and one HTML page.

``write_report`` is all there is to call. ``report.json`` of one file priced once is the report
itself; of several files or profiles it is ``{"reports": [...]}``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neuroav.errors import ConfigError
from neuroav.files import written_whole
from neuroav.hardware import load_profile
from neuroav.report.build import report_object
from neuroav.report.format import labels
from neuroav.report.measure import measure
from neuroav.report.render import Group, html_page, markdown
from neuroav.simulate import Progress

__all__ = ["write_report"]


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
    out, names = Path(out), list(dict.fromkeys(map(str, paths)))
    if not names:
        raise ConfigError("no file to report on: give one or more FILE.nav")
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is a file, the report needs a folder; choose another --out")
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
