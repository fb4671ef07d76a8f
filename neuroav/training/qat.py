"""Turn a trained float network into its quantization-aware twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import torch
from torch import fx, nn

from neuroav.errors import UnsupportedModule
from neuroav.fixed import Arithmetic
from neuroav.hardware import load_profile
from neuroav.models import layers
from neuroav.models.layers import Lif, PerStep, TimeMean
from neuroav.models.quantized import QatLif, QatReadout, QatSynapses, synaptic_layer
from neuroav.models.tracing import StepTracer
from neuroav.quantization import Options, common_scale, exact_fraction, least_unit
from neuroav.training.config import QuantConfig

COUNTING = (layers.SpatialAttention, layers.TemporalAttention, layers.HeadSum)


@dataclass(frozen=True)
class Messages:
    """What the integer 1 of a layer's output is worth: ``value``, divided ``means`` times by the
    steps and places of the tensor."""

    value: Fraction
    means: int = 0


def prepare_qat(model: nn.Module, config: QuantConfig) -> nn.Module:
    """Replace, in place, every synaptic layer and its neurons by their quantized forms; return it.

    Batch norms are folded with their running statistics. Neurons that count spikes (attention,
    sums of heads) stay as they are: with a leak of one half and up to eight steps their real
    numbers are the deployed integers. UnsupportedModule names a neuron layer that neither counts
    nor reads one convolution or linear layer of its own.
    """
    arith = load_profile(config.target).arithmetic
    options = Options(
        config.bits,
        config.calibration,
        per_channel=config.per_channel,
        layer_bits=config.layer_bits,
    )
    graph = StepTracer().trace(model)
    modules = dict(model.named_modules())
    options.check_layers([_weights_name(n, m) for n, m in modules.items() if synaptic_layer(m)])
    messages: dict[fx.Node, Messages | None] = {}
    for node in graph.nodes:
        module = modules.get(str(node.target)) if node.op == "call_module" else None
        messages[node] = _messages(node, module, messages)
        if isinstance(module, Lif):
            _quantize_layer(model, node, module, modules, messages, options, arith)
        elif isinstance(module, nn.Linear) and _feeds_output(node, modules):
            own = options.at(str(node.target))
            model.set_submodule(str(node.target), QatReadout(module, own, arith))
    return model


def _messages(
    node: fx.Node, module: nn.Module | None, known: Mapping[fx.Node, Messages | None]
) -> Messages | None:
    """Return what a node's integers are worth, None where it sends real numbers."""
    sources = [known[a] for a in node.args if isinstance(a, fx.Node)]
    given = [s for s in sources if s is not None]
    if node.op == "placeholder" or isinstance(module, (Lif, layers.MaskAttention)):
        return Messages(Fraction(1))
    if len(given) != len(sources) or not given:
        return None
    if isinstance(module, (layers.Add, layers.Concat)) and len({g.means for g in given}) == 1:
        return Messages(common_scale([g.value for g in given]), given[0].means)
    if isinstance(module, layers.MeanProduct):
        return Messages(given[0].value * given[1].value, 1)
    if isinstance(module, layers.Gain):
        return replace(given[0], value=given[0].value * exact_fraction(module.factor))
    if isinstance(module, PerStep) and isinstance(module.layer, nn.MaxPool2d):
        return given[0]
    return given[0] if isinstance(module, (nn.Identity, nn.Dropout)) else None


def _quantize_layer(
    model: nn.Module,
    node: fx.Node,
    lif: Lif,
    modules: Mapping[str, nn.Module],
    messages: Mapping[fx.Node, Messages | None],
    options: Options,
    arith: Arithmetic,
) -> None:
    """Replace one neuron layer and the synapses it reads."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    layer = modules.get(str(source.target), nn.Identity())
    if isinstance(layer, COUNTING):
        return
    found = synaptic_layer(layer)
    arriving = messages[source.args[0]] if found and source.args else None  # type: ignore[index]
    if found is None or len(source.users) != 1 or arriving is None:
        raise UnsupportedModule(
            f"{node.target}: quantization-aware training needs every neuron layer to read one "
            f"convolution or linear layer of its own, it reads {source.target}"
        )
    p = lif.parameters_
    threshold = float(lif.norse.v_th) * p.tau_mem_s / p.dt_s
    scale = float(arriving.value), arriving.means
    own = options.at(_weights_name(str(source.target), layer))
    synapses = QatSynapses(*found, threshold, own, arith, *scale)
    model.set_submodule(str(source.target), synapses)
    model.set_submodule(str(node.target), QatLif(lif, synapses))


def _weights_name(name: str, layer: nn.Module) -> str:
    """Return the name that the weights of a synaptic layer have in a float network's graph."""
    found = synaptic_layer(layer)
    assert found is not None
    inner = layer.layer if isinstance(layer, PerStep) else layer
    own = next(n for n, m in inner.named_modules() if m is found[0])
    return f"{name}.{own}" if own else name


def trained_bits(model: nn.Module, bits: int) -> dict[str, int]:
    """Return the widths of the layers of a prepared network that are not ``bits`` wide, by name."""
    return {
        name: module.options.bits
        for name, module in model.named_modules()
        if isinstance(module, (QatSynapses, QatReadout)) and module.options.bits != bits
    }


def calibrate_range(model: nn.Module, inputs: Sequence[torch.Tensor]) -> None:
    """Fix, on inputs (T, B, ...) of the float network, the least synaptic unit of every layer.

    As the compiler does for a float network (``quantization.least_unit``), so that wide messages
    cannot overflow a register in the deployment.
    """
    neurons = [m for m in model.modules() if isinstance(m, QatLif)]
    layers_ = [m for m in model.modules() if isinstance(m, (QatSynapses, QatReadout))]
    peaks: dict[nn.Module, np.ndarray] = {}

    def keep(module: nn.Module, args: tuple[torch.Tensor]) -> None:
        by_channel = args[0].abs().transpose(0, 2).flatten(1)
        peaks[module] = by_channel.amax(1).double().numpy()

    handles = [m.register_forward_pre_hook(keep) for m in neurons]
    was_training = model.training
    for layer in layers_:
        layer.quantize = False
    with torch.no_grad():
        model.eval()(*inputs)
    for layer in layers_:
        layer.quantize = True
    for handle in handles:
        handle.remove()
    model.train(was_training)
    for lif in neurons:
        synapses, p = lif.synapses, lif.parameters_
        least = least_unit(peaks[lif], p.dt_s / p.tau_mem_s, synapses.arith)
        synapses.least_unit.copy_(torch.from_numpy(least))


def _feeds_output(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a layer's output goes to the mean over time, so that it gives class scores."""
    return all(isinstance(modules.get(str(user.target)), TimeMean) for user in node.users)
