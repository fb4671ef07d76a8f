"""All that a run of forward refuses: the tracer of a run without its stop at the first error.

As in ``collect``, what was refused is replaced by neurons of its shape, so that what reads it is
judged too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import nn

from neuroav.errors import NeuroavError
from neuroav.graph import SpikingGraph
from neuroav_export.linting.findings import NETWORK, Findings
from neuroav_export.linting.recover import StandIn, kind_of
from neuroav_export.trace import input_nodes
from neuroav_export.tracing.as_float64 import SAMPLES, few
from neuroav_export.tracing.steps import Recorder
from neuroav_export.tracing.values import FEATURE, Refused, Value, canonical, features


class RunCollector(Recorder):
    """Recorder that makes a finding of what is refused and read, and goes on."""

    findings: Findings

    def mended(self, tensor: torch.Tensor, refused: Refused) -> Value:
        """Return neurons of the tensor's shape; the error where its axes are not known."""
        self.find(refused.error)
        if not refused.near:
            raise refused.error
        near = refused.near[0][1]
        lead = tuple(a for a in near.axes if a != FEATURE)
        sizes = tuple(refused.near[0][0].shape[: len(lead)])
        if near.axes[: len(lead)] != lead or tuple(tensor.shape[: len(lead)]) != sizes:
            raise refused.error
        shape = canonical(features((*lead, *[FEATURE] * (tensor.ndim - len(lead))), tensor.shape))
        name = f"{str(refused.error).partition(';')[0]} (refused)"
        tensors, values = [refused.near[0][0]], [near]
        if near.sequence:
            name = self.unused(name)
        stand_in, where = StandIn(1.0, shape=shape), place_of(refused.error)
        try:
            value = self.site(name, where, stand_in, values, tensors, tensor, lead)
        except NeuroavError:
            raise refused.error from None
        self.values[tensor] = value
        return value

    def complain(self, error: NeuroavError) -> None:
        """Make a finding of an error about a call that has a node all the same."""
        self.find(error)

    def find(self, error: NeuroavError) -> None:
        """Make a finding of an error."""
        place = place_of(error)
        modules = {n: m for m, n in self.qualified.items()}
        rule = error.rule
        if rule == "module" and place in modules:
            rule = kind_of(modules[place])
        layer = place if place in modules else NETWORK
        self.findings.error(layer, error, place, rule)


def place_of(error: NeuroavError) -> str:
    """Return what an error's message names first."""
    return str(error).partition(": ")[0]


def collected(
    module: nn.Module,
    sample: Mapping[str, np.ndarray],
    max_count: Mapping[str, int] | None,
    static: Collection[str],
    findings: Findings,
) -> tuple[SpikingGraph | None, dict[str, str]]:
    """Return as much of the graph of a run as there is, and qualified names by node.

    sample: (steps, samples, ...) by input name.
    """
    collector = RunCollector(module, len(next(iter(sample.values()))), SAMPLES)
    collector.findings = findings
    graph: SpikingGraph | None = None
    try:
        out = collector.run(few(sample), input_nodes(sample, max_count, static))
        graph = collector.graph(out)
    except NeuroavError as error:
        collector.find(error)
    names = {name: site.where for name, site in collector.sites.items()}
    known = set(collector.qualified.values())
    named = {n: w if w in known or n in sample else NETWORK for n, w in names.items()}
    return graph, named
