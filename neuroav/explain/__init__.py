"""Explain a verification: where spikes change, from the float twin to the last executor, and why.

``docs/exactness.md`` says what the words mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from neuroav import navfile
from neuroav.carried import Task, compare_carried, run_probe
from neuroav.deployment import Deployment
from neuroav.explain.against import altered, compare_graphs, plain, quantities
from neuroav.explain.layers import explain_layers
from neuroav.explain.stages import Unfolded
from neuroav.explain.twin import is_spiking
from neuroav.simulate import Progress, resolve_deployment
from neuroav.verify import Outputs, compared, first_divergence, prepare, run_all


def verify_explained(
    path: str | Path,
    *,
    backends: list[str],
    explain: bool = True,
    against: str | Path | None = None,
    certificate: str | Path | None = None,
    unfolded: Callable[[Deployment, Outputs], Unfolded] | None = None,
    digests: Task | None = None,
    samples: int | None = None,
    split: str | None = None,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return what ``verify.verify`` does, and why what is unequal is so.

    explain: add ``explain``, the stages by population. against: another deployment, whose integer
    graph is held against this one under ``against``; ``equal`` is then true only if both are the
    same. unfolded: what runs the network as it was trained on what is fed, for the first of the
    stages. digests: run the fixed probe set instead of samples, and 'check' the digests that the
    file carries, or 'store' these (``carried``). certificate: file for ``certificate.text``,
    written only where all is equal. Raises as ``verify.verify``.
    """
    if digests:
        probed = run_probe(path, backends=backends, task=digests, progress=progress)
        deployment, data, outputs = probed.deployment, probed.data, probed.outputs
        found = compared(deployment, len(data), outputs)
        found["carried"] = compare_carried(probed, found, digests)
        found["equal"] = found["carried"]["equal"]
    else:
        given = {"samples": samples, "split": split, "data_root": data_root}
        common: dict[str, Any] = {"backends": backends, "progress": progress, **given}
        deployment, data = prepare(path, cache_dir=cache_dir, **common)
        outputs = run_all(deployment, data, backends, progress)
        found = compared(deployment, len(data), outputs)
    if explain:
        trained = unfolded(deployment, data.inputs) if unfolded else None
        first = found["first_divergence"]
        found["explain"] = explained(deployment, data.inputs, outputs, first, trained)
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
    unfolded: Unfolded | None = None,
) -> dict[str, Any]:
    """Return the value of ``explain``: stages, layers and their ranking, alterations, first spike.

    fed: what was fed, by the names of ``Deployment.fed``. first: the first difference between
    executors, as ``verify.first_divergence`` gives it. unfolded: the network as trained.
    """
    result = explain_layers(deployment, fed, outputs, unfolded)
    result["stages"] += _executors(deployment, outputs)
    found = altered(deployment)
    result["altered"] = [plain(d) for d in found]
    for row in result["layers"]:
        if row.get("advice") and row["name"] in {d.node for d in found}:
            row["advice"] = "another export: these are not the integers of the network in the file"
    result["first_divergence"] = None
    if first is not None:
        result["first_divergence"] = _with_quantities(deployment, outputs, first)
    return result


def _executors(deployment: Deployment, outputs: Mapping[str, Outputs]) -> list[dict[str, Any]]:
    """Return the last stages: every executor but the first, held against that one."""
    graph, (before, *others) = deployment.integer, outputs
    spiking = [n for n, p in graph.populations.items() if is_spiking(p) and p.projections]
    places = sum(outputs[before][n].size for n in spiking)
    result = []
    for backend in others:
        found = first_divergence(deployment, outputs[before], outputs[backend])
        if found:
            found = found | {"backends": [before, backend]}
            found = _with_quantities(deployment, outputs, found) | {"unit": None}
        pairs = ((outputs[before][n], outputs[backend][n]) for n in spiking)
        same = sum(int((a == b).sum()) for a, b in pairs)
        result.append(
            {
                "stage": backend,
                "against": before,
                "compared": True,
                "why_not": None,
                "agreement": same / places if places else None,
                "own_agreement": None,
                "first": found,
            }
        )
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
