"""Turn a trained float network into its quantization-aware twin."""

from __future__ import annotations

from torch import fx, nn

from neuroav.errors import UnsupportedModule
from neuroav.hardware import load_profile
from neuroav.models.layers import Lif, TimeMean
from neuroav.models.quantized import QatLif, QatReadout, QatSynapses, synaptic_layer
from neuroav.models.tracing import StepTracer
from neuroav.quantization import Options
from neuroav.training.config import QuantConfig


def prepare_qat(model: nn.Module, config: QuantConfig) -> nn.Module:
    """Replace, in place, every synaptic layer and its neurons by their quantized forms; return it.

    Batch norms are folded with their running statistics. UnsupportedModule names a neuron layer
    that does not read one convolution or linear layer of its own.
    """
    arith = load_profile(config.target).arithmetic
    options = Options(config.bits, config.calibration, per_channel=config.per_channel)
    graph = StepTracer().trace(model)
    modules = dict(model.named_modules())
    for node in graph.nodes:
        if node.op != "call_module":
            continue
        name, module = str(node.target), modules[str(node.target)]
        if isinstance(module, Lif):
            source = node.args[0]
            assert isinstance(source, fx.Node)
            found = synaptic_layer(modules.get(str(source.target), nn.Identity()))
            if found is None or len(source.users) != 1:
                raise UnsupportedModule(
                    f"{name}: quantization-aware training needs every neuron layer to read one "
                    f"convolution or linear layer of its own, it reads {source.target}"
                )
            p = module.parameters_
            synapses = QatSynapses(*found, p.v_threshold * p.tau_mem_s / p.dt_s, options, arith)
            model.set_submodule(str(source.target), synapses)
            model.set_submodule(name, QatLif(module, synapses))
        elif isinstance(module, nn.Linear) and _feeds_output(node, modules):
            model.set_submodule(name, QatReadout(module, options, arith))
    return model


def _feeds_output(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a layer's output goes to the mean over time, so that it gives class scores."""
    return all(isinstance(modules.get(str(user.target)), TimeMean) for user in node.users)
