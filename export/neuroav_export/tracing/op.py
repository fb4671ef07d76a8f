"""One operation of a running forward, and the site it becomes where it needs a node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from neuroav import nodes as rn
from neuroav.errors import UnsupportedModule
from neuroav_export.tracing.kinds import KINDS
from neuroav_export.tracing.values import Value, refuse

if TYPE_CHECKING:
    from neuroav_export.tracing.steps import Recorder


@dataclass(frozen=True)
class Op:
    """One operation. name: without underscores; args, kwargs: as called; out: what it gave;
    inputs: (tensor, value) of the tensors it reads that stand for something."""

    rec: Recorder
    name: str
    func: Callable[..., Any]
    args: tuple
    kwargs: dict[str, Any]
    out: Any
    inputs: list[tuple[torch.Tensor, Value]]

    def argument(self, index: int, name: str, default: Any = None) -> Any:
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)

    @property
    def source(self) -> Value:
        return self.inputs[0][1]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.inputs[0][0].shape)

    def no(self, text: str = "", rule: str = "") -> UnsupportedModule:
        """Return the error that refuses this operation."""
        where = self.rec.place or "the network"
        said = text or "has no neuron and no synapse on a chip"
        rule = rule or KINDS.get(self.name, "operation")
        return refuse(f"{where}: {self.name} in forward {said}", rule)


def as_site(
    op: Op,
    node: rn.Node,
    lead: tuple[str, ...],
    inputs: list[tuple[torch.Tensor, Value]] | None = None,
    shape: tuple[int, ...] | None = None,
    extra: tuple = (),
) -> Value:
    """Return the output of an operation that becomes a node, one for the same of every step."""
    inputs = op.inputs if inputs is None else inputs
    values = [v for _, v in inputs]
    out = op.out[0] if isinstance(op.out, (tuple, list)) else op.out
    steps = [at for v in values if v.terms and not v.sequence for _, at in v.terms]
    now = max(steps, default=0)
    key = (op.name, op.rec.place, extra, *(_current(v, now) for v in values))
    calls = op.rec.keys.setdefault(key, [])
    name = next((n for n in calls if _open(op, n, now)), None)
    if name is None:
        name = op.rec.unused(op.name)
        calls.append(name)
    where = op.rec.place or "the network"
    tensors = [t for t, _ in inputs]
    return op.rec.site(name, f"{where}: {op.name}", node, values, tensors, out, lead, shape)


def _current(value: Value, now: int) -> frozenset:
    """Return what a value is made of in its own step, which is the same in every step."""
    if value.sequence:
        return frozenset(value.terms.items())
    return frozenset((site, c) for (site, at), c in value.terms.items() if at == now)


def _open(op: Op, name: str, now: int) -> bool:
    """Return whether a site waits for its call of step ``now``."""
    return op.rec.sites[name].calls[-1][0] == now - 1
