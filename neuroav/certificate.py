"""A certificate: one page that says which executors gave equal spikes, of what, and on how much.

The same file, samples and versions give the same bytes: there is no date and no path in it.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import neuroav
from neuroav import digests
from neuroav.deployment import Deployment
from neuroav.errors import DataError
from neuroav.files import written_whole
from neuroav.simulate import resolve_deployment

PACKAGES = ("numpy", "numba", "torch", "lava-nc")
EXECUTORS = {
    "reference": "the specification: integers in NumPy, one sample and one step at a time",
    "fast": "the same integers for many samples at a time",
    "lava": "a Lava process graph in Lava's own runtime, on a CPU",
    "lava-inline": "the process models of that graph, without Lava's runtime",
}


def write(
    out: str | Path, path: str | Path, deployment: Deployment, found: Mapping[str, Any], split: str
) -> Path:
    """Write ``text`` to ``out``, whole or not at all; return ``out``. DataError as ``text``."""
    page = text(path, deployment, found, split)
    with written_whole(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(out)


def versions() -> dict[str, str]:
    """Return the versions of what computed, 'not installed' where a package is missing."""
    result = {"neuroav": neuroav.__version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            result[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            result[package] = "not installed"
    return result


def text(path: str | Path, deployment: Deployment, found: Mapping[str, Any], split: str) -> str:
    """Return the page as Markdown, for an equal result of ``verify.compared``.

    split: the samples are the first of this part of the data. DataError where the result is not
    equal, or where no message was sent, so that equality says nothing.
    """
    if not found["equal"]:
        raise DataError(f"{path}: the executors are not equal, there is nothing to certify")
    if not found["spikes_compared"]:
        raise DataError(
            f"{path}: no message was sent in {found['samples']} samples, so equality says nothing; "
            "certify a network that fires"
        )
    parts = [
        f"# Certificate of {Path(path).name}",
        _claim(found["backends"]),
        _table(("what", "value"), _identity(path, deployment)),
        "## Compared",
        _table(("what", "value"), _amount(deployment, found, split)),
        "## Executors",
        _table(("executor", "what it is", "digest of all its outputs"), _executors(found)),
        "The digest is sha256 over, for each sample in order and each population in execution "
        "order: its name, then its output as little-endian int32 (time, neuron).",
        _table(("software", "version"), list(versions().items())),
        *_carried(path, deployment, found),
        "## Not claimed",
        NOT_CLAIMED,
    ]
    return "\n\n".join(parts) + "\n"


def _claim(backends: Sequence[str]) -> str:
    if len(backends) == 1:  # only with digests in the file to hold it against
        return (
            f"{backends[0]} gave **again the outputs of every neuron, in every step of every "
            "sample** counted here, whose digests the file carries."
        )
    return (
        f"{_listed(backends)} gave **equal outputs of every neuron, in every step of "
        "every sample** that is counted here."
    )


def _identity(path: str | Path, deployment: Deployment) -> list[tuple[str, str]]:
    return [
        ("file", Path(path).name),
        ("content hash (sha256)", f"`{deployment.content_hash}`"),
        ("target profile", deployment.profile.id),
        ("populations", str(len(deployment.integer.order))),
        ("synapses", f"{deployment.synapses:,}"),
    ]


def _amount(deployment: Deployment, found: Mapping[str, Any], split: str) -> list[tuple[str, str]]:
    values = found["samples"] * found["steps"] * found["neurons"]
    rows = [
        ("samples", f"{found['samples']:,}, {_samples(found, split)}"),
        ("steps per sample", f"{found['steps']:,}"),
        ("neurons and inputs", f"{found['neurons']:,}"),
        ("outputs compared, per executor", f"{values:,}"),
        ("of these messages (not 0)", f"{found['spikes_compared']:,}"),
        ("silent populations (rate below 0.1 %)", _listed(found["silent"])),
        ("saturated populations (rate above 90 %)", _listed(found["saturated"])),
    ]
    data_hash = deployment.provenance.get("data_hash")
    named = data_hash and "carried" not in found
    return rows + ([("data (content hash)", f"`{data_hash}`")] if named else [])


def _samples(found: Mapping[str, Any], split: str) -> str:
    if probe := found.get("carried"):
        return f"the fixed probe set (generator {probe['probe']['generator']}), which needs no data"
    return f"the first of the part '{split}'"


def _carried(path: str | Path, deployment: Deployment, found: Mapping[str, Any]) -> list[str]:
    """Return the part about the digests that the file carries, nothing where it carries none."""
    if "carried" in found:
        entries, probe = found["carried"]["entries"], found["carried"]["probe"]
    elif in_file := digests.load(resolve_deployment(path), deployment):
        entries, probe = [asdict(e) for e in in_file.entries], asdict(in_file.probe)
    else:
        return []
    packages = ("neuroav", *PACKAGES)
    rows = [
        (
            e["executor"],
            *(e["versions"].get(p, "not stated") for p in packages),
            f"`{e['digest']}`",
            {True: "equal", None: "not computed"}[e.get("equal")],
        )
        for e in entries
    ]
    levels = ", ".join(f"{n} {level}" for n, level in probe["levels"].items())
    return [
        "## Digests carried in the file",
        f"Of {probe['samples']} samples of {probe['steps']} steps of the fixed probe set "
        f"(generator {probe['generator']}; levels: {levels}), which `neuroav verify FILE.nav "
        "--digests check` computes again.",
        _table(("executor", *packages, "digest of all its outputs", "now"), rows),
    ]


def _executors(found: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [(b, EXECUTORS.get(b, ""), f"`{found['digests'][b]}`") for b in found["backends"]]


def _listed(names: Any) -> str:
    return ", ".join(names) or "none"


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


NOT_CLAIMED = """\
- That a chip gives these spikes. Nothing here ran on silicon: the executors compute the published
  integer equations of the target, and Lava's is a simulation of it too.
- That other samples are equal. A population that is silent or saturated above was hardly tested.
- That the network equals the float network it was made from, or that its answers are right.
  Rounding changes spikes; `neuroav verify --explain` says where and why.
- Anything about time, energy or memory on a chip."""
