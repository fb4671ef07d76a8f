"""PyTorch module -> SpikingGraph[traced], by torch.fx.

The module works on time-first tensors (T, B, ...) and is built from the layers of
``neuroav.models.layers`` and ``torch.nn``. Every module class has one converter in ``CONVERTERS``;
anything else is an UnsupportedModule with its qualified name. Time constants become seconds here
and nowhere else.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from neuroav import nodes as rn
from neuroav.errors import StageError, UnsupportedModule
from neuroav.graph import SpikingGraph
from neuroav.models import layers
from neuroav.models.quantized import QatLif, QatReadout, QatSynapses
from neuroav.models.tracing import StepTracer
from neuroav.stages import output_shape, verify_graph


def _array(value: torch.Tensor) -> np.ndarray:
    return value.detach().cpu().to(torch.float64).numpy().copy()


def _bias(module: nn.Module) -> np.ndarray | None:
    return None if module.bias is None else _array(module.bias)  # type: ignore[arg-type]


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


# --- converters: module -> node, or None for a module that passes its input on ----------------
def _conv2d(m: nn.Conv2d) -> rn.Conv2d:
    if isinstance(m.padding, str) or m.padding_mode != "zeros":
        raise UnsupportedModule(
            f"padding {m.padding!r} ({m.padding_mode}); use numbers and zeros", rule="padding"
        )
    return rn.Conv2d(
        _array(m.weight),
        _bias(m),
        _pair(m.stride),
        _pair(m.padding),
        _pair(m.dilation),
        m.groups,
    )


def _batch_norm(m: nn.BatchNorm1d | nn.BatchNorm2d) -> rn.BatchNorm:
    if m.running_mean is None or m.running_var is None:
        raise UnsupportedModule(
            "batch norm without running statistics; train with track_running_stats=True",
            rule="batch-norm-statistics",
        )
    inverse = 1.0 / np.sqrt(_array(m.running_var) + m.eps)
    scale = inverse if m.weight is None else inverse * _array(m.weight)
    shift = -_array(m.running_mean) * scale
    return rn.BatchNorm(scale, shift if m.bias is None else shift + _array(m.bias))


def _lif(m: layers.Lif) -> rn.Lif:
    p = m.norse
    for name in ("tau_mem_inv", "v_th", "v_reset", "v_leak"):
        count = torch.as_tensor(getattr(p, name)).numel()
        if count != 1:
            raise UnsupportedModule(
                f"{name} holds {count} values; the neurons of a layer share one",
                rule="neuron-parameters",
            )
    return rn.Lif(
        tau_mem_s=1.0 / float(p.tau_mem_inv),
        v_threshold=float(p.v_th),
        v_reset=float(p.v_reset),
        v_leak=float(p.v_leak),
        inclusive=m.parameters_.inclusive,
    )


def _max_pool(m: nn.MaxPool2d) -> rn.MaxPool2d:
    if _pair(m.dilation) != (1, 1) or m.ceil_mode or m.return_indices:
        raise UnsupportedModule(
            "max pooling with dilation, ceil_mode or indices; use none of them",
            rule="max-pool-form",
        )
    return rn.MaxPool2d(_pair(m.kernel_size), _pair(m.stride or m.kernel_size), _pair(m.padding))


def _qat_synapses(m: QatSynapses) -> rn.Conv2d | rn.Dense:
    least = _array(m.least_unit) if m.least_unit.any() else None
    if m.convolution is None:
        return rn.Dense(_array(m.weight), _array(m.bias), least)
    return rn.Conv2d(_array(m.weight), _array(m.bias), *m.convolution, least)


CONVERTERS: dict[type[nn.Module], Callable[[Any], rn.Node | None]] = {
    nn.Conv2d: _conv2d,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.Linear: lambda m: rn.Dense(_array(m.weight), _bias(m)),
    nn.MaxPool2d: _max_pool,
    nn.Flatten: lambda m: rn.Flatten(),
    nn.Identity: lambda m: None,
    nn.Dropout: lambda m: None,
    layers.Lif: _lif,
    QatSynapses: _qat_synapses,
    QatLif: _lif,
    QatReadout: lambda m: rn.Dense(_array(m.weight), _array(m.bias)),
    layers.Add: lambda m: rn.Add(),
    layers.SpatialMean: lambda m: rn.SpatialMean(),
    layers.Gain: lambda m: rn.Scale(m.factor),
    layers.TimeMean: lambda m: rn.TimeMean(),
    layers.Concat: lambda m: rn.Concat(),
    layers.HeadSum: lambda m: rn.HeadSum(m.heads),
    layers.MaskAttention: lambda m: rn.Mask(),
    layers.SpatialAttention: lambda m: rn.SpatialAttention(m.heads, m.scale),
    layers.TemporalAttention: lambda m: rn.TemporalAttention(m.heads, m.scale, m.scrambled),
    layers.MeanProduct: lambda m: rn.MeanProduct(),
    layers.TimeWeightedSum: lambda m: rn.TimeSum(_array(m.step_weights())),
    layers.Multiply: lambda m: rn.Product(),
}
FUNCTIONS = {operator.add, torch.add, operator.iadd}
# These take frames (N, C, ...); those count axes from the front, where time is.
FRAME_LAYERS = (nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d, nn.MaxPool2d)
TIME_LAYERS = (
    layers.Lif,
    layers.TimeMean,
    layers.Concat,
    layers.HeadSum,
    layers.MaskAttention,
    layers.SpatialAttention,
    layers.TemporalAttention,
    layers.MeanProduct,
    layers.TimeWeightedSum,
)


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


def convert(qualified: str, module: nn.Module) -> rn.Node | None:
    """Return the node of a module, None if it passes its input on.

    Raises UnsupportedModule or StageError with its qualified name.
    """
    converter = CONVERTERS.get(type(module))
    if converter is None:
        allowed = ", ".join(sorted(c.__name__ for c in CONVERTERS))
        raise UnsupportedModule(
            f"{qualified}: {type(module).__name__} cannot be compiled; "
            f"supported are {allowed}, inside PerStep where stateless",
            rule="module",
        )
    try:
        return converter(module)
    except (UnsupportedModule, StageError) as error:
        raise error.at(qualified) from None


def trace(
    module: nn.Module,
    sample: Mapping[str, np.ndarray],
    max_count: Mapping[str, int] | None = None,
    static: Collection[str] = (),
) -> SpikingGraph:
    """Return the traced graph of ``module`` in evaluation mode.

    sample: event counts (T, B, *shape) by input name, in the order of forward's arguments.
    max_count: largest count each input can send, 255 where it is not given. static: inputs of real
    values, the same in every step.
    Raises UnsupportedModule with the qualified name, StageError where shapes do not join.
    """
    builder = Builder(module, sample, max_count, static)
    for node in fx_graph(module, StepTracer()).nodes:
        builder.add(node)
    return verify_graph(builder.finish())


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
        if isinstance(leaf.module, layers.Lif):
            self.dt_s[leaf.name] = leaf.module.parameters_.dt_s
        return self._put(leaf.name, node, sources)

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
