"""Zero-shot networks on a chip: the network with its class search, and classes added to it later.

The search is the readout: row c holds w_c, the bias -|w_c|^2 / 2 - b [c is seen]. A class that
nobody trained on is one more row, computed from its text on the host; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from neuroav.deployment import Deployment
from neuroav.errors import DataError, UnsupportedModule
from neuroav.integer import IntDense, IntReadout, IntTimeSum, IntWinner, Population
from neuroav.models.zeroshot.chip import ChipNetwork, StftChip, class_rows
from neuroav.models.zeroshot.search import ZeroShotClassifier
from neuroav.nodes import Readout
from neuroav.quantization import Options, integer_weights
from neuroav.stages import verify_integer

if TYPE_CHECKING:
    from neuroav.data.zeroshot import ZeroShotData


def chip_network(model: nn.Module, data: ZeroShotData) -> ChipNetwork:
    """Return what is deployed of a trained ``stft-chip``: forward(audio, visual) -> class scores.

    Classes are ``data.sought``, in this order. UnsupportedModule for the float networks.
    """
    if not isinstance(model, ZeroShotClassifier) or not isinstance(model.net, StftChip):
        kind = type(getattr(model, "net", model)).__name__.lower()
        raise UnsupportedModule(
            f"{kind}: its encoders, softmax attention and distances are real-valued and have no "
            "neurons; train --model stft-chip, its twin of spiking layers",
            rule="module",
        )
    with torch.no_grad():
        embeddings = model.class_embeddings()[torch.from_numpy(data.sought)].double().numpy()
    seen = np.flatnonzero(np.isin(data.sought, data.seen))
    return ChipNetwork(model.net, class_rows(embeddings, seen, model.bias_of("both"))).eval()


def project_text(model: ZeroShotClassifier, text: np.ndarray) -> np.ndarray:
    """Return the embeddings (C, E) float64 of class texts (C, W), computed by the host."""
    expected = model.text.shape[1]
    if text.ndim != 2 or text.shape[1] != expected or not np.isfinite(text).all():
        raise DataError(
            f"class texts: found {text.shape}, needs (classes, {expected}) finite numbers"
        )
    with torch.no_grad():
        return model.net.text.project(torch.from_numpy(text.astype(np.float32))).double().numpy()


def add_classes(deployment: Deployment, names: Sequence[str], embeddings: np.ndarray) -> Deployment:
    """Return the deployment with unseen classes added: one row each, in the scale of the others.

    embeddings: (classes, E) as ``project_text`` gives them. DataError for names that exist or a
    wrong shape. Class scores of the classes before do not change. A placement is dropped.
    """
    graph, real = deployment.integer, deployment.real
    readout, twin = graph.populations[graph.output], real.nodes[real.output]
    assert isinstance(readout, IntReadout)
    assert isinstance(twin, Readout)
    (synapses,) = readout.projections
    assert isinstance(synapses, IntDense)
    taken = sorted(set(names) & set(deployment.classes))
    if taken or len(set(names)) != len(names):
        raise DataError(f"classes {taken or list(names)}: exist already or are named twice")
    if embeddings.shape != (len(names), twin.weight.shape[1]):
        raise DataError(
            f"embeddings of {len(names)} classes: found {embeddings.shape}, needs "
            f"({len(names)}, {twin.weight.shape[1]})"
        )
    offset = -0.5 * (embeddings**2).sum(axis=1)
    numerator, denominator = graph.scales[graph.output]
    unit = np.array([numerator / denominator * graph.steps])  # real score per integer and step
    source = np.divide(*graph.scales[synapses.source])
    arith = deployment.profile.arithmetic
    options = Options(synapses.weight_bits)
    rows, grid, clipped = integer_weights(embeddings * source, unit, options, arith)
    weight = np.concatenate([synapses.weight, rows])
    sums = graph.populations[synapses.source]
    assert isinstance(sums, IntTimeSum)
    lost = source * ((1 << sums.shift) - 1) / (2 << sums.shift)  # half of what the shift drops
    wanted = (offset + embeddings.sum(axis=1) * lost) / unit
    bias = np.concatenate([readout.bias, np.rint(wanted).astype(np.int64)])
    mode = synapses.sign_mode if grid.mode == synapses.sign_mode else "mixed"
    grown = replace(
        readout,
        shape=(len(bias),),
        projections=(replace(synapses, weight=weight, sign_mode=mode),),
        bias=bias,
    )
    grown_by_name: dict[str, Population] = {graph.output: grown}
    for name, pop in graph.populations.items():
        if isinstance(pop, IntWinner):
            grown_by_name[name] = replace(pop, shape=grown.shape)
    integer = replace(graph, populations={**graph.populations, **grown_by_name})
    whole = Readout(np.concatenate([twin.weight, embeddings]), np.concatenate([twin.bias, offset]))
    saturations = dict(deployment.saturations)
    if clipped:
        saturations[graph.output] = saturations.get(graph.output, 0) + clipped
    return replace(
        deployment,
        integer=verify_integer(integer, arith),
        real=real.with_nodes(nodes={real.output: whole}, shapes={real.output: (len(bias),)}),
        classes=(*deployment.classes, *names),
        saturations=saturations,
        content_hash="",
        placement=None,  # it has no place for the new neurons
    )
