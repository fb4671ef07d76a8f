"""A trained network made ready for training with the integers it will be deployed with.

Three calls: ``prepared = prepare(net, sample, bits=4)``, train ``prepared`` as any module, then
``compile_module(prepared, sample)``. What is trained is the lowered graph: batch norms are folded,
means are constant factors, dropout is gone.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from neuroav import nodes as rn
from neuroav.errors import UnsupportedModule
from neuroav.graph import SpikingGraph
from neuroav.models.straight import Surrogate
from neuroav.quantization import Calibration, Options
from neuroav_export.passes.values import SYNAPSES
from neuroav_export.pipeline import checked_target, in_range, lowered_graph, time_first
from neuroav_export.prepared import Prepared

LAYERS = (*SYNAPSES, rn.Readout)


def surrogates_of(module: nn.Module, graph: SpikingGraph) -> dict[str, Surrogate]:
    """Return by layer of neurons the surrogate of the module that they come from.

    ``layers.Lif`` and Norse's modules say theirs; the default of ``Surrogate`` for others.
    """
    modules = dict(module.named_modules())
    found = {}
    for name in graph.nodes:
        if not isinstance(graph.nodes[name], (rn.Lif, rn.If)):
            continue
        parts = name.split(".")
        holders = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
        own = [s for h in holders if h in modules and (s := _surrogate(modules[h])) is not None]
        found[name] = own[0] if own else Surrogate()
    return found


def _surrogate(module: nn.Module) -> Surrogate | None:
    p = getattr(module, "parameters_", None)
    if p is not None and hasattr(p, "surrogate"):
        return Surrogate(p.surrogate, p.alpha, p.detach_reset, p.detach_state)
    p = getattr(module, "p", None)  # Norse's cells
    if p is not None and hasattr(p, "method") and hasattr(p, "alpha"):
        return Surrogate(str(p.method), float(torch.as_tensor(p.alpha)))
    return None


def layers_of(traced: SpikingGraph, lowered: SpikingGraph) -> list[str]:
    """Return the names of the lowered layers whose weights are the network's own.

    Not the ones that only count: sums over heads, a mean of spikes as class scores.
    """
    own = {n for n, node in traced.nodes.items() if isinstance(node, LAYERS)}
    if own - set(lowered.nodes):  # a linear layer that became part of the readout
        own.add(lowered.output)
    return [n for n in lowered.order if n in own]


def prepare(
    module: nn.Module,
    sample: Mapping[str, np.ndarray],
    *,
    target: str = "loihi2",
    bits: int = 8,
    calibration: Calibration = "mse",
    per_channel: bool = False,
    layer_bits: Mapping[str, int] | None = None,
    max_count: Mapping[str, int] | None = None,
) -> Prepared:
    """Return a copy of a trained network for training with the integers of its deployment.

    sample: event counts (samples, steps, *shape) by input name, in the order of forward's
    arguments, as for ``compile_module``; it fixes shapes, steps and the units of wide messages:
    give 100 samples and more. bits, calibration, per_channel, layer_bits: see
    ``quantization.Options``. max_count: largest count each input can send (255). The module is not
    changed.

        prepared = prepare(net, sample, bits=4)
        ...  # train prepared(audio, visual) as net was
        deployment = compile_module(prepared, sample)

    Raises as ``compile_module``, with the layer's name and the rewrite; UnsupportedModule for a
    network without weights to train.
    """
    options = Options(bits, calibration, per_channel=per_channel, layer_bits=dict(layer_bits or {}))
    profile = checked_target(target, options)
    if isinstance(module, Prepared):
        raise UnsupportedModule("is prepared already; prepare the network that was trained")
    traced, lowered = lowered_graph(module, sample, max_count)
    graph, _ = in_range(lowered, time_first(sample), profile.arithmetic, options, "current")
    trained = layers_of(traced, graph)
    if not trained:
        raise UnsupportedModule(
            "the network has no convolution or linear layer, so there is nothing to train"
        )
    return Prepared(graph, trained, profile, options, surrogates_of(module, graph))
