"""Which axes every layer may read."""

from __future__ import annotations

import torch
from torch import nn

from neuroav.errors import UnsupportedModule
from neuroav_export.tracing import norse as of_norse
from neuroav_export.tracing.modules import TIME_LAYERS
from neuroav_export.tracing.values import BATCH, FEATURE, TIME, Value


def check_layout(
    where: str, module: nn.Module, values: list[Value], tensors: list[torch.Tensor]
) -> None:
    """Raise UnsupportedModule where a layer would take steps or samples for something else."""
    value, kind = values[0], type(module).__name__
    lead = [a for a in value.axes if a != FEATURE]
    behind = value.axes[len(lead) :]
    wrong = ""
    if of_norse.is_cell(module) and value.sequence:
        wrong = "takes one step: call it with x[t] in a loop, or use neuroav.models.layers.Steps"
    elif type(module) in of_norse.SEQUENCES or isinstance(module, TIME_LAYERS):
        if value.axes[:2] != (TIME, BATCH) or FEATURE in lead:
            wrong = "takes all steps: (steps, samples, ...)"
    elif isinstance(module, nn.Linear):
        wide = [n for a, n in zip(value.axes, tensors[0].shape, strict=True) if a == FEATURE]
        if value.axes[-1] != FEATURE or any(n > 1 for n in wide[:-1]):
            wrong = "takes features on the last axis alone; flatten the others: x.flatten(-3)"
    elif len(lead) != 1 and _is_frame_layer(module):
        wrong = "takes frames (samples, ...); use PerStep, or a loop over steps"
    if not wrong and any(a != FEATURE for a in behind):
        wrong = "takes steps and samples first"
    if wrong:
        raise UnsupportedModule(
            f"{where}: {kind} {wrong}; its input has axes {_spelled(value.axes)}", rule="layout"
        )


def _is_frame_layer(module: nn.Module) -> bool:
    return not isinstance(module, nn.Linear) and type(module).__module__.startswith("torch")


def _spelled(axes: tuple[str, ...]) -> str:
    words = {TIME: "steps", BATCH: "samples", FEATURE: "features"}
    return ", ".join(words.get(a, "steps and samples") for a in axes)
