"""What all writers share: their result, the facts every file states, optional packages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import neuroav
from neuroav.deployment import Deployment
from neuroav.errors import MissingDependency


@dataclass(frozen=True)
class Written:
    """What a writer has written.

    nodes: names carried, in execution order. left_out: name -> why it is not in the file.
    hash: content hash of the deployment the file was made from, '' for one never saved.
    notes: what else the user must know, plain JSON values.
    """

    format: str
    path: Path
    nodes: tuple[str, ...]
    left_out: Mapping[str, str]
    hash: str
    notes: Mapping[str, object] = field(default_factory=dict)


def facts(deployment: Deployment, name: str, version: int) -> dict[str, str]:
    """Return the metadata that every file carries, as text; lists and objects are JSON."""
    return {
        "format": name,
        "format_version": str(version),
        "neuroav_version": neuroav.__version__,
        "deployment_hash": deployment.content_hash,
        "profile": deployment.profile.id,
        "classes": json.dumps(list(deployment.classes)),
        "steps": str(deployment.integer.steps),
        "dt_s": repr(deployment.integer.dt_s),
        "output": deployment.integer.output,
    }


def missing(package: str) -> MissingDependency:
    """Return the error for an absent optional package, with the line that installs it."""
    return MissingDependency(
        f"{package} is not installed; this format needs it: pip install 'neuroav[train]'"
    )
