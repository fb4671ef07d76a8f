"""The real-valued graph: named nodes, who feeds whom, and the length of a time step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType

from neuroav.errors import StageError
from neuroav.nodes import Delay, Input, Node

STAGES = ("traced", "folded", "lowered")


def topological_order(
    inputs: Mapping[str, tuple[str, ...]], late: Collection[tuple[str, str]] = ()
) -> tuple[str, ...]:
    """Return all names so that sources come first, ties in alphabetical order.

    inputs: for every node the names that feed it. late: (node, source) pairs of which the node
    reads an earlier frame, so that they may close a loop; those inside a loop do not count. The one
    place where an order is computed. StageError for a loop without any.
    """
    together = _loops(inputs) if late else {}
    edges = {
        name: {s for s in sources if not _closes(name, s, late, together)}
        for name, sources in inputs.items()
    }
    sorter = TopologicalSorter(edges)
    try:
        sorter.prepare()
    except CycleError as error:
        loop = " -> ".join(error.args[1])
        raise StageError(
            f"the graph has a loop without a delay: {loop}; a loop needs a step in which what it "
            "feeds back is late"
        ) from None
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order.extend(ready)
        sorter.done(*ready)
    return tuple(order)


def execution_groups(
    inputs: Mapping[str, tuple[str, ...]], late: Collection[tuple[str, str]] = ()
) -> tuple[tuple[str, ...], ...]:
    """Return names in execution order, those of one loop together, in the order within a frame.

    A node in no loop is a group of its own; one that reads itself is a group of one too. Without
    loops this is ``topological_order`` name by name.
    """
    order = topological_order(inputs, late)
    together = _loops(inputs) if late else {}
    group_of = {name: together.get(name, name) for name in order}
    members: dict[str, list[str]] = {}
    for name in order:
        members.setdefault(group_of[name], []).append(name)
    if len(members) == len(order):
        return tuple((name,) for name in order)
    outer = {
        group: tuple({group_of[s] for name in names for s in inputs[name]} - {group})
        for group, names in members.items()
    }
    return tuple(tuple(members[group]) for group in topological_order(outer))


def _closes(
    name: str, source: str, late: Collection[tuple[str, str]], together: Mapping[str, str]
) -> bool:
    """Whether an edge may be left out of the order: late, and inside a loop."""
    inside = name in together and together.get(source) == together[name]
    return inside and (name, source) in late


def _loops(inputs: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return for every name on a loop the first name of all that share its loops.

    Strongly connected components by two depth-first walks (Kosaraju), without recursion.
    """
    readers: dict[str, list[str]] = {name: [] for name in inputs}
    for name, sources in inputs.items():
        for source in sources:
            readers.setdefault(source, []).append(name)
    finished = _finishing_order(readers)
    component: dict[str, str] = {}
    for start in reversed(finished):
        waiting = [start]
        while waiting:
            name = waiting.pop()
            if name not in component:
                component[name] = start
                waiting.extend(s for s in inputs.get(name, ()) if s not in component)
    members: dict[str, list[str]] = {}
    for name, start in component.items():
        members.setdefault(start, []).append(name)
    return {
        name: min(names)
        for names in members.values()
        for name in names
        if len(names) > 1 or name in inputs.get(name, ())
    }


def _finishing_order(readers: Mapping[str, list[str]]) -> list[str]:
    """Return all names in the order in which a depth-first walk along ``readers`` leaves them."""
    seen: set[str] = set()
    finished: list[str] = []
    for start in sorted(readers):
        walk = [] if start in seen else [(start, iter(readers[start]))]
        seen.add(start)
        while walk:
            name, rest = walk[-1]
            step = next((r for r in rest if r not in seen), None)
            if step is None:
                finished.append(name)
                walk.pop()
            else:
                seen.add(step)
                walk.append((step, iter(readers[step])))
    return finished


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
    def late(self) -> frozenset[tuple[str, str]]:
        """(node, source) pairs of the delays: where a loop may close."""
        return frozenset(
            (n, s)
            for n, node in self.nodes.items()
            if isinstance(node, Delay)
            for s in self.inputs[n]
        )

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Names in execution order; in a loop, the delays come first."""
        return topological_order(self.inputs, self.late)

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Names in execution order, those of one loop together (``execution_groups``)."""
        return execution_groups(self.inputs, self.late)

    def loops(self, group: tuple[str, ...]) -> bool:
        """Whether the nodes of a group must be run frame by frame."""
        return len(group) > 1 or group[0] in self.inputs[group[0]]

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
