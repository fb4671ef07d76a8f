"""What stands in place of a layer that was refused, and what is inside one that is not entered."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from neuroav import nodes as rn
from neuroav.errors import StageError, UnsupportedModule
from neuroav.models.layers import Lif
from neuroav.shapes import output_shape
from neuroav_export.linting.findings import Findings
from neuroav_export.linting.rules import KINDS, NEURON_PACKAGES
from neuroav_export.linting.watch import Seen, Shape, is_foreign_neuron
from neuroav_export.passes.neurons import neuron_problems
from neuroav_export.trace import CONVERTERS, convert


@dataclass(frozen=True, eq=False)
class StandIn(rn.Lif):
    """Neurons of this ``shape``, because they may read and feed anything."""

    shape: Shape = ()


@output_shape.register
def _(node: StandIn, sources):
    return node.shape


def kind_of(module: nn.Module) -> str:
    """Return the rule that an unsupported module breaks."""
    if is_foreign_neuron(module):
        return "neuron"
    if type(module).__module__.startswith("torch."):
        return KINDS.get(type(module).__name__.lower(), "module")
    return "block" if any(True for _ in module.children()) else "module"  # its name says nothing


def mended(module: nn.Module, rule: str) -> nn.Module | None:
    """Return a copy of a layer without its fault, None where there is no such layer."""
    fixed = copy.deepcopy(module)
    if rule == "padding" and isinstance(fixed, nn.Conv2d):
        rows, columns = (
            d * (k - 1) // 2 for k, d in zip(fixed.kernel_size, fixed.dilation, strict=True)
        )
        if isinstance(fixed.padding, str):
            fixed.padding = (rows, columns) if fixed.padding == "same" else (0, 0)
        fixed.padding_mode = "zeros"
    elif rule == "batch-norm-statistics" and isinstance(fixed, (nn.BatchNorm1d, nn.BatchNorm2d)):
        fixed.running_mean = torch.zeros(fixed.num_features).double()
        fixed.running_var = torch.ones(fixed.num_features).double()
    elif rule == "max-pool-form" and isinstance(fixed, nn.MaxPool2d):
        fixed.dilation, fixed.ceil_mode, fixed.return_indices = 1, False, False
    elif rule == "not-finite" and not isinstance(fixed, Lif):
        for value in (*fixed.parameters(), *fixed.buffers()):
            value.data = torch.nan_to_num(value.data, 0.0, 0.0, 0.0)
    else:
        return None
    return fixed


def inside_of(
    place: str,
    modules: Mapping[str, nn.Module],
    seen: Seen,
    visited: set[str],
    findings: Findings,
) -> None:
    """Check the layers that were called inside a module that was not entered, each by itself.

    place: its qualified name, '' for the network. How they are joined is not known.
    """
    for name, module in modules.items():
        inside = name and (not place or name.startswith(f"{place}."))
        below = any(name.startswith(f"{other}.") for other in visited - {place})
        if not inside or below or name in visited or (seen.ran and name not in seen.called):
            continue
        if type(module) in CONVERTERS or _is_layer(module):
            visited.add(name)
            _check_layer(name, module, findings)


def _is_layer(module: nn.Module) -> bool:
    """Return whether an unsupported module is one layer, not the user's own block of some."""
    container = isinstance(module, (nn.Sequential, nn.ModuleList, nn.ModuleDict))
    package = type(module).__module__.partition(".")[0]
    return not container and package in {"torch", *NEURON_PACKAGES}


def _check_layer(name: str, module: nn.Module, findings: Findings) -> None:
    try:
        node = convert(name, module)
    except (UnsupportedModule, StageError) as error:
        rule = kind_of(module) if error.rule == "module" else error.rule
        findings.error(name, error, rule=rule)
        return
    if isinstance(node, rn.Lif) and isinstance(module, Lif):
        for problem in neuron_problems(name, node, module.parameters_.dt_s):
            findings.error(name, problem)
