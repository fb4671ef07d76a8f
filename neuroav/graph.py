"""The real-valued graph: named nodes, who feeds whom, and the length of a time step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType

from neuroav.errors import StageError
from neuroav.nodes import Input, Node

STAGES = ("traced", "folded", "lowered")


def topological_order(inputs: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return all names so that sources come first, ties in alphabetical order.

    inputs: for every node the names that feed it. The one place where an order is computed.
    """
    sorter = TopologicalSorter({name: set(sources) for name, sources in inputs.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        loop = " -> ".join(error.args[1])
        raise StageError(
            f"the graph has a loop: {loop}; only feed-forward graphs compile"
        ) from None
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order.extend(ready)
        sorter.done(*ready)
    return tuple(order)


@dataclass(frozen=True, eq=False)
class SpikingGraph:
    """An immutable spiking network on real numbers.

    nodes: node by name. inputs: names feeding each node, in argument order.
    dt_s: length of one time step in seconds. steps: time steps per sample.
    shapes: output shape of every node, per step and sample. stage: one of ``STAGES``.
    output: name of the node whose value is the network's answer.
    """

    nodes: Mapping[str, Node]
    inputs: Mapping[str, tuple[str, ...]]
    shapes: Mapping[str, tuple[int, ...]]
    output: str
    dt_s: float
    steps: int
    stage: str = "traced"

    def __post_init__(self) -> None:
        for field in ("nodes", "inputs", "shapes"):
            object.__setattr__(self, field, MappingProxyType(dict(getattr(self, field))))

    @property
    def order(self) -> tuple[str, ...]:
        """Names in execution order."""
        return topological_order(self.inputs)

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(name for name in self.order if isinstance(self.nodes[name], Input))

    def consumers(self, name: str) -> tuple[str, ...]:
        """Return the names of the nodes that read ``name``, in execution order."""
        return tuple(other for other in self.order if name in self.inputs[other])

    def with_nodes(
        self,
        *,
        nodes=None,
        inputs=None,
        shapes=None,
        remove=(),
        rewire=None,
        output=None,
        stage=None,
    ) -> SpikingGraph:
        """Return a new graph with nodes added or replaced, removed, and readers rewired.

        rewire: {old source: new source}, applied to every node's inputs and to ``output``.
        """
        new_nodes = {**self.nodes, **(nodes or {})}
        new_inputs = {**self.inputs, **(inputs or {})}
        new_shapes = {**self.shapes, **(shapes or {})}
        for name in remove:
            for table in (new_nodes, new_inputs, new_shapes):
                table.pop(name)
        swap = rewire or {}
        new_inputs = {
            n: tuple(swap.get(s, s) for s in sources) for n, sources in new_inputs.items()
        }
        answer = output or swap.get(self.output, self.output)
        return replace(
            self,
            nodes=new_nodes,
            inputs=new_inputs,
            shapes=new_shapes,
            output=answer,
            stage=stage or self.stage,
        )
