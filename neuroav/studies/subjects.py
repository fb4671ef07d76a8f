"""What a robustness study is made on: deployments with their samples, and disturbances by panel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from neuroav import navfile
from neuroav.deployment import Deployment
from neuroav.errors import DataError
from neuroav.simulate import Progress, Samples, load_samples
from neuroav.studies.conditions import BOTH, CLEAN, LEVELS, RAW, Condition


@dataclass(frozen=True, eq=False)
class File:
    """One deployment and its samples, undisturbed."""

    path: Path
    label: str
    deployment: Deployment
    data: Samples

    @property
    def inputs(self) -> list[str]:
        return list(self.deployment.fed)

    def felt(self, condition: Condition) -> Condition:
        """Return what a condition is to this network: clean where it disturbs no input of it."""
        hit = [name for name in self.inputs if condition.hits(name)]
        if not hit:
            return CLEAN
        return replace(condition, on=hit[0]) if len(hit) < 2 else condition

    def check_same_samples(self, other: File) -> None:
        """Raise DataError unless both files are run on the same recordings."""
        own, others = (f.deployment.provenance.get("data_hash") for f in (self, other))
        same = own == others and np.array_equal(self.data.labels, other.data.labels)
        if not same:
            raise DataError(
                f"{self.label}: was trained on other data than {other.label}, so they cannot be "
                "run on the same samples; compare files of one data set, preset and seed"
            )


def open_file(
    path: Path,
    label: str,
    split: str | None,
    samples: int | None,
    places: dict[str, Any],
    progress: Progress | None,
) -> File:
    deployment = navfile.load(path)
    if deployment.static:
        raise DataError(
            f"{path}: reads real values ({', '.join(sorted(deployment.static))}), and every "
            "disturbance here is one of events; use a network that reads events"
        )
    data = load_samples(deployment, split=split, samples=samples, progress=progress, **places)
    return File(path, label, deployment, data)


@dataclass(frozen=True)
class Panel:
    """One disturbance of one input, over its levels."""

    kind: str
    on: str
    conditions: tuple[Condition, ...]


def panels_of(files: Sequence[File], kinds: Sequence[str] | None) -> list[Panel]:
    """Return the panels, in order of ``LEVELS``; DataError for kinds that the samples forbid."""
    inputs = list(dict.fromkeys(name for file in files for name in file.inputs))
    raw = files[0].data.source is not None
    if not raw and kinds and any(kind in RAW for kind in kinds):
        raise DataError(
            f"split {files[0].data.split!r}: holds event counts, and "
            f"{' and '.join(k for k in kinds if k in RAW)} needs the events before binning; "
            "choose a split of the data set, or leave it out"
        )
    places = inputs + [BOTH] * any(len(file.inputs) > 1 for file in files)
    panels = []
    for kind, levels in LEVELS.items():
        if kind not in (kinds or LEVELS) or (kind in RAW and not raw):
            continue
        if kind == "missing":
            panels.append(Panel(kind, "", tuple(Condition(kind, name) for name in inputs)))
            continue
        for on in places:
            conditions = tuple(Condition(kind, on, level) for level in levels)
            panels.append(Panel(kind, on, conditions))
    return panels
