"""Explain a verification: where spikes change, from the float twin to the last executor, and why.

``docs/exactness.md`` says what the words mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuroav import navfile
from neuroav.deployment import Deployment
from neuroav.explain.against import altered, compare_graphs, plain, quantities
from neuroav.explain.layers import explain_layers
from neuroav.simulate import Progress, resolve_deployment
from neuroav.verify import Outputs, compared, prepare, run_all


def verify_explained(
    path: str | Path,
    *,
    backends: list[str],
    explain: bool = True,
    against: str | Path | None = None,
    certificate: str | Path | None = None,
    samples: int | None = None,
    split: str | None = None,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return what ``verify.verify`` does, and why what is unequal is so.

    explain: add ``explain``, the stages by population. against: another deployment, whose integer
    graph is held against this one under ``against``; ``equal`` is then true only if both are the
    same. certificate: file for ``certificate.text``, written only where all is equal. Raises as
    ``verify.verify``.
    """
    deployment, data = prepare(
        path,
        backends=backends,
        samples=samples,
        split=split,
        cache_dir=cache_dir,
        data_root=data_root,
        progress=progress,
    )
    outputs = run_all(deployment, data, backends, progress)
    found = compared(deployment, len(data), outputs)
    if explain:
        found["explain"] = explained(deployment, data.inputs, outputs, found["first_divergence"])
    if against is not None:
        # another delay breaks the rules of its stage, and is to be explained all the same
        other = navfile.load(resolve_deployment(against), rules=False)
        result = compare_graphs(deployment, other.integer, outputs[backends[0]], explain)
        found["against"] = {"content_hash": other.content_hash, **result}
        found["equal"] = found["equal"] and result["equal"]
    if certificate is not None:
        from neuroav.certificate import write

        found["certificate"] = None
        if found["equal"]:
            found["certificate"] = str(write(certificate, path, deployment, found, data.split))
    return found


def explained(
    deployment: Deployment,
    fed: Outputs,
    outputs: Mapping[str, Outputs],
    first: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the value of ``explain``: layers, their ranking, what was altered, the first spike.

    fed: what was fed, by the names of ``Deployment.fed``. first: the first difference between
    executors, as ``verify.first_divergence`` gives it.
    """
    result = explain_layers(deployment, fed, outputs)
    found = altered(deployment)
    result["altered"] = [plain(d) for d in found]
    for row in result["layers"]:
        if row.get("advice") and row["name"] in {d.node for d in found}:
            row["advice"] = "another export: these are not the integers of the network in the file"
    result["first_divergence"] = None
    if first is not None:
        result["first_divergence"] = _with_quantities(deployment, outputs, first)
    return result


def _with_quantities(
    deployment: Deployment, outputs: Mapping[str, Outputs], first: dict[str, Any]
) -> dict[str, Any]:
    """Return a first difference with what the specification computes there, by inputs of each."""
    graph, name = deployment.integer, first["node"]
    pop, arith = graph.populations[name], deployment.profile.arithmetic
    if not pop.projections:
        return {**first, "quantities": None}
    place = (first["sample"], first["step"], *first["index"])
    both = [quantities(graph, name, pop, outputs[b], arith, place) for b in first["backends"]]
    return {**first, "quantities": both}
