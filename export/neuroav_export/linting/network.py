"""Lint: everything in a network that a target cannot have, in one go."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import numpy as np
import torch
from torch import nn

from neuroav import hardware
from neuroav.errors import DoesNotFit, NeuroavError
from neuroav.graph import SpikingGraph
from neuroav.hardware import Profile
from neuroav.integer import IntGraph
from neuroav.mapping.fit import BOARD
from neuroav.mapping.mapper import plan
from neuroav.quantization import Calibration, Options
from neuroav_export.linting import descend
from neuroav_export.linting.collect import Collector
from neuroav_export.linting.findings import NETWORK, Finding, Findings
from neuroav_export.linting.recover import inside_of
from neuroav_export.linting.running import collected
from neuroav_export.linting.watch import run, trace_around
from neuroav_export.pipeline import compile_module, real_valued, target_problems, time_first
from neuroav_export.trace import of_layers, of_our_layers, uses_norse


def lint(
    module: nn.Module,
    sample: Mapping[str, np.ndarray],
    *,
    target: str = "loihi2",
    bits: int = 8,
    calibration: Calibration = "max",
    per_channel: bool = False,
    max_count: Mapping[str, int] | None = None,
    static: Collection[str] = (),
) -> list[Finding]:
    """Return everything in ``module`` that keeps it from being deployed, and notes on what does.

    The arguments are those of ``compile_module``: sample holds event counts (samples, steps,
    *shape) by input name, in the order of forward's arguments. A list without findings of severity
    'error' means that ``compile_module`` takes the network, which has been called, and that it fits
    the target (rule 'fit'). What has a fault is judged further as if the proposed rewrite were
    made. The module is not changed.

        from neuroav_export import lint
        for finding in lint(net, {"audio": counts, "visual": events}, target="loihi2"):
            print(finding.layer, finding.problem, finding.rewrite, sep=": ")

    Raises ProfileError for an unknown target, UnsupportedNode for bits that it has not, DataError
    for a bad sample.
    """
    profile = hardware.load_profile(target)
    options = Options(bits, calibration, per_channel=per_channel)
    findings = Findings()
    for problem in target_problems(profile, options):
        findings.error(NETWORK, problem, profile.id)
    if profile.deployable:
        options.check(profile.arithmetic)
    time_first(sample)  # refuses a bad one before any work
    graph, qualified = _trace(real_valued(module), sample, max_count, static, findings)
    refused: NeuroavError | None = None
    integer: IntGraph | None = None
    if not findings.errors:
        try:
            integer = compile_module(
                module, sample, target=target, bits=bits, calibration=calibration,
                per_channel=per_channel, max_count=max_count, static=static,
            ).integer  # fmt: skip
        except NeuroavError as error:
            refused = error
    named = _namer(qualified)
    if integer is None and graph is not None:
        integer = _descend(graph, profile, options, named, findings)
    if refused and not findings.errors:
        place = str(refused).partition(": ")[0]
        findings.error(named(place) if place in qualified else NETWORK, refused, place)
    elif integer is not None and not findings.errors:
        _check_fit(integer, profile, named, findings)
    if integer is not None:
        descend.note_latency(integer, named, findings)
    return findings.sorted(qualified.values())


def _trace(
    twin: nn.Module,
    sample: Mapping[str, np.ndarray],
    max_count: Mapping[str, int] | None,
    static: Collection[str],
    findings: Findings,
) -> tuple[SpikingGraph | None, Mapping[str, str]]:
    """Return as much of the traced graph as there is, and qualified names by node.

    A network that torch.fx cannot follow, or of other layers than ours, is judged by a run of it;
    but one of ours with a fault, or one that does not run, operation by operation all the same.
    """
    frames = time_first(_distinct(sample))
    if not _is_traced(twin, frames, max_count, static):
        ran = Findings()
        found = collected(twin, frames, max_count, static, ran)
        if not ran.errors or uses_norse(twin) or not (of_our_layers(twin) or ran.has("fails")):
            findings.take(ran)
            return found
    tensors = {n: torch.from_numpy(v.astype(np.float64)) for n, v in frames.items()}
    operations, whole = trace_around(twin, findings)
    seen = run(twin, operations, tensors)
    modules = dict(twin.named_modules())
    if operations is None:
        if seen.error:
            findings.add(NETWORK, "fails", f"fails on the sample: {seen.error}")
        inside_of("", modules, seen, set(), findings)
        return None, {name: name for name in modules}
    collector = Collector(twin, frames, max_count, static, whole, seen, findings)
    for node in operations.nodes:
        collector.add(node)
    for place in sorted(whole):
        inside_of(place, modules, seen, collector.visited, findings)
    return collector.finish(), collector.qualified


def _is_traced(
    twin: nn.Module,
    frames: Mapping[str, np.ndarray],
    max_count: Mapping[str, int] | None,
    static: Collection[str],
) -> bool:
    """Return whether torch.fx can follow a network and every layer of it has a node."""
    try:
        of_layers(twin, frames, max_count, static)
    except NeuroavError:
        return False
    return True


def _distinct(sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the sample with another number of samples than steps, so that axes can be told."""
    found = {n: np.asarray(v) for n, v in sample.items()}
    if any(v.shape[0] == v.shape[1] for v in found.values()):
        found = {n: np.concatenate([v, v[:1]]) for n, v in found.items()}
    return found


def _namer(qualified: Mapping[str, str]) -> descend.Named:
    """Return the function from a node's name to its layer's; passes add parts to a name."""

    def named(name: str) -> str:
        start = name
        while start not in qualified and "." in start:
            start = start.rpartition(".")[0]
        return qualified.get(start, name)

    return named


def _descend(
    graph: SpikingGraph,
    profile: Profile,
    options: Options,
    named: descend.Named,
    findings: Findings,
) -> IntGraph | None:
    """Find what the passes refuse; return the integer graph where the target has integers."""
    lowered = descend.fold_and_lower(graph, named, findings)
    if not profile.deployable:
        return None
    arith = profile.arithmetic
    integer = descend.quantize(lowered, arith, options, named, findings)
    graded = profile.rules.graded_spikes
    descend.check_messages(integer, arith, graded, named, findings)
    return integer


def _check_fit(graph: IntGraph, profile: Profile, named: descend.Named, findings: Findings) -> None:
    """Find every limit of the target that a network exceeds which the compiler takes."""
    try:
        plan(graph, profile, balance=False)
    except DoesNotFit as error:
        for excess in error.problems:
            layer = NETWORK if excess.layer == BOARD else named(excess.layer)
            findings.add(layer, "fit", f"{excess.key}: {excess.problem}", excess.remedy)


def deployable(findings: Iterable[Finding]) -> bool:
    """Return whether nothing that was found keeps the network from being deployed."""
    return all(f.severity != "error" for f in findings)
