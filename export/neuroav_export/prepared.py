"""The network that ``prepare`` returns: deployed integers forward, straight-through backward.

Every forward pass quantizes the present weights with the compiler's own pass and computes with what
comes out (``neuroav.models.straight``). So the messages in training are those of the deployment,
bit for bit, for whatever the compiler takes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.errors import DataError, UnsupportedNode
from neuroav.fixed import Arithmetic, weight_levels, weight_step
from neuroav.graph import SpikingGraph
from neuroav.hardware import Profile
from neuroav.models.straight import Learned, Surrogate, messages, rounded
from neuroav.quantization import Options
from neuroav_export.passes.quantize import Quantized, quantize
from neuroav_export.passes.values import SYNAPSES


class Weights(nn.Module):
    """Real weights and bias of one layer, as folded: what is trained."""

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.from_numpy(weight).float())
        self.bias = None if bias is None else nn.Parameter(torch.from_numpy(bias).float())


class _Template:
    """The lowered graph and its settings; shared by copies of a module, as nothing changes it."""

    def __init__(self, graph: SpikingGraph, profile: Profile, options: Options) -> None:
        self.graph, self.profile, self.options = graph, profile, options

    def __deepcopy__(self, memo: dict[int, Any]) -> _Template:
        return self


class Prepared(nn.Module):
    """A network that computes with its deployed integers and passes gradients straight through.

    forward: event counts (T, B, ...) in the order of ``inputs`` to class scores (B, classes), the
    deployment's times the unit of a score. ``layers``: the trained weights, by the names of the
    deployment. Training and evaluation mode are the same.
    """

    def __init__(
        self,
        graph: SpikingGraph,
        trained: Collection[str],
        profile: Profile,
        options: Options,
        surrogates: Mapping[str, Surrogate],
    ) -> None:
        super().__init__()
        self._template = _Template(graph, profile, options)
        self.inputs = tuple(n for n in graph.nodes if isinstance(graph.nodes[n], rn.Input))
        self.surrogates = dict(surrogates)
        self.layers = nn.Module()
        for name in trained:
            node = graph.nodes[name]
            assert isinstance(node, (*SYNAPSES, rn.Readout))
            _put(self.layers, name, Weights(node.weight, node.bias))
        self.trained = tuple(trained)

    @property
    def profile(self) -> Profile:
        """The target it was prepared for."""
        return self._template.profile

    @property
    def options(self) -> Options:
        """How integers are chosen, in training and in the deployment."""
        return self._template.options

    @property
    def graph(self) -> SpikingGraph:
        """The lowered graph with the present weights."""
        changed = {}
        for name in self.trained:
            layer, node = self.layer(name), self._template.graph.nodes[name]
            assert isinstance(node, (*SYNAPSES, rn.Readout))
            bias: Any = None if layer.bias is None else _array(layer.bias)
            changed[name] = replace(node, weight=_array(layer.weight), bias=bias)
        return self._template.graph.with_nodes(nodes=changed)

    def deployed_graph(
        self,
        sample: Mapping[str, np.ndarray],
        profile: Profile,
        max_count: Mapping[str, int] | None = None,
        static: Collection[str] = (),
    ) -> SpikingGraph:
        """Return ``graph`` as ``compile_module`` takes it; its arguments are checked.

        DataError for a sample of other inputs, shapes or steps, UnsupportedNode for a target with
        another arithmetic than the one it was prepared for.
        """
        graph = self.graph
        if profile.arithmetic != self.profile.arithmetic:
            raise UnsupportedNode(
                f"{profile.id}: computes with other integers than {self.profile.id}, which the "
                "network was prepared for; prepare it for this target"
            )
        if static or set(sample) != set(self.inputs):
            named = f"static {sorted(static)}" if static else f"{sorted(sample)}"
            raise DataError(f"the sample holds {named}, the network takes {sorted(self.inputs)}")
        for name, value in sample.items():
            _check_shape(name, np.shape(value)[1:], (graph.steps, *graph.shapes[name]))
        limits = {}
        for name, most in (max_count or {}).items():
            node = graph.nodes.get(name)
            if isinstance(node, rn.Input):
                limits[name] = replace(node, max_count=most)
        return graph.with_nodes(nodes=limits)

    def layer(self, name: str) -> Weights:
        """Return the trained weights of one layer."""
        found = self.layers.get_submodule(name)
        assert isinstance(found, Weights)
        return found

    def quantized(self) -> Quantized:
        """Return what the present weights are deployed as."""
        return quantize(self.graph, self.profile.arithmetic, self.options)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Return class scores (B, classes)."""
        quantized = self.quantized()
        output = quantized.integer.output
        last = self._messages(quantized, inputs)[output][-1]
        above, below = quantized.integer.scales[output]
        return (last * (above / below)).to(inputs[0].dtype)

    def messages(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what every population of the deployment sends, whole numbers (T, B, *shape)."""
        return self._messages(self.quantized(), inputs)

    def _messages(
        self, quantized: Quantized, inputs: tuple[torch.Tensor, ...]
    ) -> dict[str, torch.Tensor]:
        graph = quantized.integer
        if len(inputs) != len(self.inputs):
            raise DataError(f"got {len(inputs)} inputs, the network takes {', '.join(self.inputs)}")
        for name, x in zip(self.inputs, inputs, strict=True):
            found = (x.shape[0], *x.shape[2:])
            _check_shape(name, found, (graph.steps, *graph.populations[name].shape))
        fed = {n: x.float() for n, x in zip(self.inputs, inputs, strict=True)}
        return messages(graph, self._learned(quantized), fed, self.profile.arithmetic)

    def _learned(self, quantized: Quantized) -> dict[str, Learned]:
        found = {}
        for name, pop in quantized.integer.populations.items():
            if isinstance(pop, (ig.IntLif, ig.IntReadout, ig.IntTimeSum)):
                found[name] = learned(self, quantized, name)
        return found


def _check_shape(name: str, found: tuple[int, ...], needed: tuple[int, ...]) -> None:
    if tuple(found) != needed:
        raise DataError(
            f"input {name!r}: (steps, *shape) is {tuple(found)}, the network was prepared for "
            f"{needed}; prepare it again for other steps"
        )


def _put(root: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer below ``root`` at its dotted name."""
    *holders, last = name.split(".")
    for part in holders:
        if part not in dict(root.named_children()):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    for child, module in root.get_submodule(last).named_children() if last in root._modules else ():
        layer.add_module(child, module)
    root.add_module(last, layer)


def _array(value: torch.Tensor) -> np.ndarray:
    return value.detach().cpu().to(torch.float64).numpy().copy()


# --- integers with gradients ---------------------------------------------------------------------
def learned(net: Prepared, quantized: Quantized, name: str) -> Learned:
    """Return the integers of one population with the gradients of the weights they stand for."""
    graph, pop = net._template.graph, quantized.integer.populations[name]
    if name not in graph.nodes:  # neurons that always spike, in place of a bias
        return Learned(())
    terms = synaptic_terms(graph, quantized.integer, name)
    if not any(layer in net.trained for layer, _ in terms):
        weights: tuple[torch.Tensor | None, ...] = (None,) * len(pop.projections)
        return Learned(weights, None, _span(graph, name), net.surrogates.get(name, Surrogate()))
    unit = quantized.units[name]
    own, added = pop.projections[: len(terms)], pop.projections[len(terms) :]
    weights = tuple(
        _weight(net, quantized, p, layer, factor, unit) if layer in net.trained else None
        for p, (layer, factor) in zip(own, terms, strict=True)
    )
    bias = None
    if added:
        weights += tuple(_bias_synapses(net, p, terms, unit) for p in added)
    elif not isinstance(pop, ig.IntTimeSum):
        bias = _bias(net, pop, terms, unit)
    return Learned(weights, bias, _span(graph, name), net.surrogates.get(name, Surrogate()))


def synaptic_terms(graph: SpikingGraph, integer: ig.IntGraph, name: str) -> list[tuple[str, float]]:
    """Return for every projection of a population the layer whose weights it has, and a factor.

    '' for synapses of bare messages. In the order in which ``quantize`` puts them.
    """
    if isinstance(graph.nodes[name], rn.Readout):
        return [(name, 1.0)]

    def walk(source: str, factor: float) -> list[tuple[str, float]]:
        node = graph.nodes[source]
        if isinstance(node, SYNAPSES):
            return [(source, factor)]
        if source in integer.populations:
            return [("", factor)]
        if isinstance(node, rn.Scale):
            factor *= node.factor
        return [term for s in graph.inputs[source] for term in walk(s, factor)]

    return walk(graph.inputs[name][0], 1.0)


def _message_scale(graph: SpikingGraph, integer: ig.IntGraph, source: str) -> float:
    """Return what 1 is worth of the messages that a layer reads from ``source``."""
    factor = 1.0
    while source not in integer.populations:
        node = graph.nodes[source]
        factor *= node.factor if isinstance(node, rn.Scale) else 1.0
        source = graph.inputs[source][0]
    above, below = integer.scales[source]
    return factor * above / below


def _weight(
    net: Prepared,
    quantized: Quantized,
    p: ig.Projection,
    layer: str,
    factor: float,
    unit: np.ndarray,
) -> torch.Tensor:
    """Return the stored integers of a projection with the gradient of the layer's weights."""
    assert isinstance(p, (ig.IntConv2d, ig.IntConvTranspose2d, ig.IntDense))
    graph, arith = net._template.graph, net.profile.arithmetic
    weight = net.layer(layer).weight
    scale = factor * _message_scale(graph, quantized.integer, graph.inputs[layer][0])
    worth = torch.from_numpy(scale / unit).to(weight)
    if isinstance(p, ig.IntConvTranspose2d) and worth.numel() > 1:
        # output channels are the second axis, group by group
        inputs = len(weight) // p.groups
        worth = (
            worth.reshape(p.groups, 1, -1).expand(-1, inputs, -1).reshape(*weight.shape[:2], 1, 1)
        )
    else:
        worth = worth.reshape(-1, *[1] * (weight.ndim - 1))
    return _stored(weight * worth, p, arith)


def _stored(
    real: torch.Tensor, p: ig.IntConv2d | ig.IntConvTranspose2d | ig.IntDense, arith: Arithmetic
) -> torch.Tensor:
    """Return a projection's integers with the gradient of ``real``, none where it is clipped."""
    low, high = weight_levels(p.weight_bits, p.sign_mode)
    step = weight_step(p.weight_bits, p.sign_mode, arith.weight_bits)
    return rounded(real.clamp(low * step, high * step), torch.from_numpy(p.weight).to(real))


def _total_bias(net: Prepared, terms: list[tuple[str, float]]) -> torch.Tensor | None:
    """Return the sum of the layers' biases, real (channels,); None where none has any."""
    parts = [
        own * factor
        for layer, factor in terms
        if layer in net.trained and (own := net.layer(layer).bias) is not None
    ]
    return torch.stack(parts).sum(0) if parts else None


def _bias_synapses(
    net: Prepared, p: ig.Projection, terms: list[tuple[str, float]], unit: np.ndarray
) -> torch.Tensor | None:
    """Return synapses that stand for a bias, with the gradient of the layers' biases."""
    assert isinstance(p, (ig.IntConv2d, ig.IntDense))
    total = _total_bias(net, terms)
    if total is None:
        return None
    real = (total * torch.from_numpy(1.0 / unit).to(total)).reshape(p.weight.shape)
    return _stored(real, p, net.profile.arithmetic)


def _bias(
    net: Prepared, pop: ig.Population, terms: list[tuple[str, float]], unit: np.ndarray
) -> torch.Tensor | None:
    """Return the bias in the register's unit, with the gradient of the layers' biases."""
    assert isinstance(pop, (ig.IntLif, ig.IntReadout))
    total = _total_bias(net, terms)
    if total is None:
        return None
    spiking = isinstance(pop, ig.IntLif)
    shift = net.profile.arithmetic.input_shift if isinstance(pop, ig.IntLif) else pop.input_shift
    whole = pop.bias_mantissa << pop.bias_exponent if isinstance(pop, ig.IntLif) else pop.bias
    real = total * torch.from_numpy((1 << shift) / unit).to(total)
    real = real.reshape(-1, *[1] * (len(pop.shape) - 1)) if spiking else real
    return rounded(real, torch.from_numpy(np.broadcast_to(whole, real.shape).copy()))


def _span(graph: SpikingGraph, name: str) -> float | np.ndarray:
    """Return how far the threshold of a layer of neurons lies above rest, real."""
    node = graph.nodes[name]
    if isinstance(node, rn.Lif):
        return node.v_threshold - node.v_leak
    return node.v_threshold if isinstance(node, rn.If) else 1.0
