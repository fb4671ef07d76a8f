"""PyTorch module -> SpikingGraph[traced].

The module works on time-first tensors (T, B, ...). One that is built from the layers of
``neuroav.models.layers`` alone is read by torch.fx without running it (``Builder``). Any other one,
with Norse's neurons, loops over steps, states and moved axes, is run once on the sample
(``steps``). Every module class has one converter (``modules``, ``norse``);
anything else is an UnsupportedModule with its qualified name.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx, nn

from neuroav import nodes as rn
from neuroav.errors import NeuroavError, StageError, UnsupportedModule
from neuroav.graph import SpikingGraph
from neuroav.models import layers
from neuroav.models.tracing import StepTracer
from neuroav.shapes import output_shape
from neuroav.stages import verify_graph
from neuroav_export.tracing.graph import check_membranes
from neuroav_export.tracing.modules import (
    CONVERTERS,
    FRAME_LAYERS,
    INPUT,
    TIME_LAYERS,
    Parts,
    convert,
    step_length,
)
from neuroav_export.tracing.steps import record

__all__ = [
    "CONVERTERS",
    "FRAME_LAYERS",
    "FUNCTIONS",
    "Builder",
    "Leaf",
    "check_place",
    "convert",
    "fx_graph",
    "leaves",
    "running_module",
    "trace",
]

FUNCTIONS = {operator.add, torch.add, operator.iadd}


@dataclass(frozen=True)
class Leaf:
    """A module that becomes one node. qualified: its name in the module tree; name: the node's,
    which leaves out PerStep's own ``.layer``; per_step: whether it is inside PerStep."""

    qualified: str
    name: str
    module: nn.Module
    per_step: bool


def leaves(
    qualified: str, module: nn.Module, name: str | None = None, per_step: bool = False
) -> list[Leaf]:
    """Return what is inside PerStep and Sequential, in order, or the module itself."""
    name = qualified if name is None else name
    if isinstance(module, layers.PerStep):
        return leaves(f"{qualified}.layer", module.layer, name, True)
    if isinstance(module, nn.Sequential):
        return [
            leaf
            for child, m in module.named_children()
            for leaf in leaves(f"{qualified}.{child}", m, f"{name}.{child}", per_step)
        ]
    return [Leaf(qualified, name, module, per_step)]


def check_place(leaf: Leaf) -> None:
    """Raise UnsupportedModule for a layer of frames outside PerStep, or one of sequences inside."""
    kind = type(leaf.module).__name__
    if isinstance(leaf.module, FRAME_LAYERS) and not leaf.per_step:
        raise UnsupportedModule(
            f"{leaf.qualified}: {kind} takes the frames of one step; use PerStep({kind}(...))",
            rule="per-step",
        )
    if isinstance(leaf.module, TIME_LAYERS) and leaf.per_step:
        raise UnsupportedModule(
            f"{leaf.qualified}: {kind} needs all steps in order, PerStep mixes them with the "
            "samples; take it out of PerStep",
            rule="per-step",
        )


def trace(
    module: nn.Module,
    sample: Mapping[str, np.ndarray],
    max_count: Mapping[str, int] | None = None,
    static: Collection[str] = (),
) -> SpikingGraph:
    """Return the traced graph of ``module`` in evaluation mode, in float64.

    sample: event counts (T, B, *shape) by input name, in the order of forward's arguments.
    max_count: largest count each input can send, 255 where it is not given. static: inputs of real
    values, the same in every step.
    Raises UnsupportedModule with the qualified name, StageError where shapes do not join.
    """
    try:
        return of_layers(module, sample, max_count, static)
    except (UnsupportedModule, StageError) as error:
        try:
            return of_run(module, sample, max_count, static)
        except NeuroavError as other:
            raise (error if of_our_layers(module) else other) from None


def of_layers(
    module: nn.Module,
    sample: Mapping[str, np.ndarray],
    max_count: Mapping[str, int] | None = None,
    static: Collection[str] = (),
) -> SpikingGraph:
    """Return the traced graph of a module of the layers of ``neuroav.models.layers``; as trace."""
    builder = Builder(module, sample, max_count, static)
    for node in fx_graph(module, StepTracer()).nodes:
        builder.add(node)
    return verify_graph(check_membranes(builder.finish()))


def of_run(
    module: nn.Module,
    sample: Mapping[str, np.ndarray],
    max_count: Mapping[str, int] | None = None,
    static: Collection[str] = (),
) -> SpikingGraph:
    """Return the traced graph of any module, by running it; as trace."""
    return verify_graph(record(module, sample, input_nodes(sample, max_count, static)))


def input_nodes(
    sample: Mapping[str, np.ndarray],
    max_count: Mapping[str, int] | None = None,
    static: Collection[str] = (),
) -> dict[str, rn.Input]:
    """Return the node of every input of a sample (T, B, *shape)."""
    limits = max_count or {}
    return {
        name: rn.Input(tuple(np.shape(value)[2:]), limits.get(name, 255), name in static)
        for name, value in sample.items()
    }


def of_our_layers(module: nn.Module) -> bool:
    """Return whether a network is one of our layers, so that fx tells what is wrong with it."""
    ours = any(isinstance(m, (layers.Lif, layers.PerStep)) for m in module.modules())
    return ours and not uses_norse(module)


def uses_norse(module: nn.Module) -> bool:
    """Return whether a network has modules of Norse, which torch.fx does not follow."""
    return any(type(m).__module__.split(".")[0] == "norse" for m in module.modules())


def fx_graph(module: nn.Module, tracer: fx.Tracer) -> fx.Graph:
    """Return the operations of forward; UnsupportedModule with the module that stopped fx."""
    try:
        return tracer.trace(module)
    except Exception as error:  # whatever forward raises when its tensors are placeholders
        place = running_module(tracer) or "the network"
        raise UnsupportedModule(
            f"{place}: forward cannot be traced ({' '.join(str(error).split())}); it must do the "
            "same operations whatever the data, use the layers of neuroav.models.layers",
            rule="control-flow",
        ) from error


def running_module(tracer: fx.Tracer) -> str:
    """Return the qualified name of the module whose forward ``tracer`` is in, '' for the root."""
    return next(reversed(tracer.module_stack.values()), ("",))[0]


class Builder:
    """Collects nodes while walking the fx graph."""

    def __init__(
        self,
        module: nn.Module,
        sample: Mapping[str, np.ndarray],
        max_count: Mapping[str, int] | None,
        static: Collection[str] = (),
    ) -> None:
        self.modules = dict(module.named_modules())
        self.pending = list(sample.items())
        self.steps = len(self.pending[0][1])
        self.max_count, self.static = max_count or {}, static
        self.names: dict[fx.Node, str] = {}
        self.nodes: dict[str, rn.Node] = {}
        self.inputs: dict[str, tuple[str, ...]] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dt_s: dict[str, float] = {}
        self.called: set[str] = set()
        self.output = ""

    def add(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.names[node] = self._input(node)
        elif node.op == "call_module":
            self.names[node] = self._module(node)
        elif node.op == "call_function" and node.target in FUNCTIONS:
            self.names[node] = self._put(node.name, rn.Add(), self._sources(node, node.name))
        elif node.op == "output":
            if not isinstance(node.args[0], fx.Node):
                raise UnsupportedModule(
                    "the module returns several values; return class scores only", rule="outputs"
                )
            self.output = self.names[node.args[0]]
        else:
            raise UnsupportedModule(
                f"{node.name}: {node.op} {getattr(node.target, '__name__', node.target)} in "
                "forward cannot be traced; use the layers of neuroav.models.layers, e.g. Add, "
                "SpatialMean, TimeMean, PerStep(...)",
                rule="operation",
            )

    def _input(self, node: fx.Node) -> str:
        if not self.pending:
            raise UnsupportedModule(
                f"forward takes an argument {node.name!r} that the sample "
                "does not hold; give one entry per argument",
                rule="inputs",
            )
        name, value = self.pending.pop(0)
        limit = self.max_count.get(name, 255)
        return self._put(name, rn.Input(tuple(value.shape[2:]), limit, name in self.static), ())

    def _sources(self, node: fx.Node, where: str) -> tuple[str, ...]:
        if node.kwargs or not all(isinstance(a, fx.Node) for a in node.args):
            raise UnsupportedModule(
                f"{where}: is called with constants or keywords; only tensors can be traced",
                rule="constants",
            )
        return tuple(self.names[a] for a in node.args)  # type: ignore[index]

    def _module(self, node: fx.Node) -> str:
        target, before = str(node.target), len(self.nodes)
        self._check_call(target)
        sources = self._sources(node, target)
        for leaf in self._leaves(target):
            sources = (self._convert(leaf, sources),)
        if len(self.nodes) > before:  # what only passes its input on may be called again
            self.called.add(target)
        return sources[0]

    def _leaves(self, target: str) -> list[Leaf]:
        return leaves(target, self.modules[target])

    def _check_call(self, target: str) -> None:
        if target in self.called:
            raise UnsupportedModule(
                f"{target}: is called twice; neurons and synapses on a chip "
                "cannot be shared, make a second module",
                rule="twice",
            )
        if target in self.nodes:
            raise UnsupportedModule(
                f"{target}: is the name of a layer and of an input or operation; rename one",
                rule="names",
            )

    def _convert(self, leaf: Leaf, sources: tuple[str, ...]) -> str:
        check_place(leaf)
        node = convert(leaf.qualified, leaf.module)
        if node is None:
            return sources[0]
        dt_s = step_length(leaf.module)
        if dt_s is not None:
            self.dt_s[leaf.name] = dt_s
        return self._put_all(leaf.name, node, sources)

    def _put_all(self, name: str, node: rn.Node | Parts, sources: tuple[str, ...]) -> str:
        """Put a node, or all parts of a module that becomes several."""
        if not isinstance(node, Parts):
            return self._put(name, node, sources)

        def full(part: str) -> str:
            return sources[0] if part == INPUT else f"{name}.{part}" if part else name

        for part in node.parts:
            if part.like:
                self.shapes[full(part.reads[0])] = self.shapes[full(part.like)]
            self._put(full(part.name), part.node, tuple(full(p) for p in part.reads))
        return name

    def _put(self, name: str, node: rn.Node, sources: tuple[str, ...]) -> str:
        try:
            shape = output_shape(node, [self.shapes[s] for s in sources])
        except StageError as error:
            raise StageError(f"{name}: {error}", rule="shape") from None
        self.nodes[name], self.inputs[name], self.shapes[name] = node, sources, shape
        return name

    def finish(self) -> SpikingGraph:
        self._check_inputs()
        dt_s = self._common_dt()
        return SpikingGraph(self.nodes, self.inputs, self.shapes, self.output, dt_s, self.steps)

    def _check_inputs(self) -> None:
        if self.pending:
            raise UnsupportedModule(
                f"the sample holds {self.pending[0][0]!r}, which forward does not take; give one "
                "entry per argument",
                rule="inputs",
            )

    def _common_dt(self) -> float:
        if len(set(self.dt_s.values())) != 1:
            raise UnsupportedModule(
                f"neuron layers need one common dt, found {self.dt_s or 'none'}", rule="time-step"
            )
        return next(iter(self.dt_s.values()))
