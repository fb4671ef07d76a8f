"""Write a deployment in the formats of other tools. ``docs/formats.md`` says what each carries.

A format is one module here: ``write(deployment, path)``, ``CONSUMES`` (the integer graph or its
real-valued twin), ``CARRIES`` and ``UNSUPPORTED`` (node class -> how, or why not). A file is
written whole or not at all; ``sanafe`` and ``lava`` write a folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from neuroav.deployment import Deployment
from neuroav.errors import ConfigError, unknown_name
from neuroav_export.writers import lava, netx, nir, onnx, sanafe
from neuroav_export.writers.base import Written

FORMATS: dict[str, ModuleType] = {
    "onnx": onnx,
    "netx": netx,
    "nir": nir,
    "sanafe": sanafe,
    "lava": lava,
}
WRITERS: dict[str, Callable[..., Written]] = {
    "onnx": onnx.write,
    "netx": netx.write,
    "nir": nir.write,
    "sanafe": sanafe.write,
    "lava": lava.write,
}


def convert(deployment: Deployment, to: str, path: str | Path, **options: Any) -> dict[str, Any]:
    """Write ``deployment`` to ``path`` in format ``to``; return the summary.

    options: of the format's ``write``. Keys: format, path, nodes (names carried), left_out
    (name -> reason), hash (of the deployment), and the format's notes.
    Raises ConfigError, UnsupportedNode, OutOfRange, MissingDependency.
    """
    if to not in WRITERS:
        raise unknown_name("format", to, WRITERS, ConfigError)
    done = WRITERS[to](deployment, Path(path), **options)
    return {
        "format": done.format,
        "path": str(done.path),
        "nodes": list(done.nodes),
        "left_out": dict(done.left_out),
        "hash": done.hash,
        **done.notes,
    }


def carries_table(to: str) -> str:
    """Return the Markdown tables of what a format carries, as ``docs/formats.md`` shows them.

    One for its graph, and one for every further module in its ``ALSO``.
    """
    tables = []
    for module in (FORMATS[to], *getattr(FORMATS[to], "ALSO", ())):
        rows = [f"| `{name}` | {how} |" for name, how in module.CARRIES.items()]
        rows += [
            f"| `{name}` | **not carried**: {why} |" for name, why in module.UNSUPPORTED.items()
        ]
        tables.append("\n".join([f"| {module.CONSUMES} class | in the file |", "|---|---|", *rows]))
    return "\n\n".join(tables)
