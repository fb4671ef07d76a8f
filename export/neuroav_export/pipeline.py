"""The compiler's order of work, one literal list, every real-valued step checked by running it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from neuroav import hardware
from neuroav.deployment import Deployment, Probe
from neuroav.errors import DataError, ProfileError, StageError, UnsupportedNode, unknown_name
from neuroav.fixed import Arithmetic
from neuroav.graph import SpikingGraph
from neuroav.hardware import Profile
from neuroav.host import Sends, constant, verify_host
from neuroav.integer import (
    ATTENTION_CLASSES,
    SPIKING_CLASSES,
    IntGraph,
    IntHostCurrent,
    IntIdentity,
    IntInput,
    IntProduct,
    IntReadout,
    IntSum,
    IntTimeSum,
    IntWinner,
)
from neuroav.models.quantized import QatReadout, QatSynapses
from neuroav.quantization import Calibration, Options
from neuroav.sim.real import forward
from neuroav.stages import verify_graph, verify_integer
from neuroav.synapses import mute
from neuroav_export.passes.fold_norm import fold_norm
from neuroav_export.passes.limit_range import limit_range
from neuroav_export.passes.lower import lower
from neuroav_export.passes.prove_range import prove_range
from neuroav_export.passes.quantize import Quantized, quantize
from neuroav_export.trace import trace

Pass = Callable[[SpikingGraph], SpikingGraph]

PASSES: tuple[Pass, ...] = (
    fold_norm,  # first: later passes expect every neuron to read synapses directly
    lower,  # last real-valued step: only nodes that have a neuron or synapse are left
)
CHECKED = 8  # samples that every pass is checked on
TOLERANCE = 1e-9  # of class scores in float64; a wrong pass is off by far more, rounding by 1e-13


def compile_module(
    module: nn.Module,
    sample: Mapping[str, np.ndarray],
    *,
    target: str = "loihi2",
    bits: int = 8,
    calibration: Calibration = "max",
    per_channel: bool = False,
    classes: tuple[str, ...] = (),
    probe: Probe | None = None,
    provenance: Mapping[str, object] | None = None,
    max_count: Mapping[str, int] | None = None,
    static: Collection[str] = (),
    host: Sends = "current",
    winner: bool = False,
) -> Deployment:
    """Return the deployment of a trained module.

    sample: event counts (samples, steps, *shape) by input name, in the order of forward's
    arguments; it fixes shapes and steps, every pass is checked on its first samples, and the range
    of every register is taken from all of it: give 100 and more where there are. bits, calibration,
    per_channel: see ``quantization.Options``. max_count: largest count each input can send (255).
    static: inputs of real values, the same in every step (a picture, a spectrogram); their first
    layer is computed on the host, which sends ``host``, see ``neuroav.host``. winner: whether the
    chip looks for the largest class score too; ``with_winner``.
    Raises UnsupportedModule, UnsupportedNode, StageError, ProfileError, DataError.
    """
    profile = hardware.load_profile(target)
    options = Options(bits, calibration, per_channel=per_channel)
    problems = target_problems(profile, options)
    if problems:
        raise problems[0]
    options.check(profile.arithmetic)
    twin, whole = real_valued(module), time_first(sample)
    frames = {n: v[:, :CHECKED] for n, v in whole.items()}
    check_static(sample, static)
    graph = trace(twin, frames, max_count, static)
    tensors = {n: torch.from_numpy(v.astype(np.float64)) for n, v in frames.items()}
    with torch.no_grad():
        expected = twin(*tensors.values())
    check_scores(graph, tensors, expected, "trace")
    for apply in PASSES:
        graph = verify_graph(apply(graph))
        check_scores(graph, tensors, expected, apply.__name__)
    graph, quantized = in_range(graph, whole, profile.arithmetic, options, host)
    integer, saturations, hosts, _ = quantized
    integer = with_winner(integer) if winner else integer
    verify_integer(integer, profile.arithmetic)
    verify_host(hosts, integer, profile.arithmetic)
    if not profile.rules.graded_spikes:
        check_single_spikes(integer, profile.id)
    names = classes or tuple(map(str, range(integer.populations[integer.output].neurons)))
    return Deployment(
        integer, graph, profile, names, saturations, dict(provenance or {}), probe, host=hosts
    )


def in_range(
    graph: SpikingGraph,
    sample: Mapping[str, np.ndarray],
    arith: Arithmetic,
    options: Options,
    host: Sends,
) -> tuple[SpikingGraph, Quantized]:
    """Return the lowered graph with the units its registers ask for, and what it is quantized to.

    sample: as ``time_first`` gives it. A unit that training fixed is kept.
    """
    tensors = {n: torch.from_numpy(v.astype(np.float64)) for n, v in sample.items()}
    fixed = [n for n in graph.order if getattr(graph.nodes[n], "least_unit", None) is not None]
    graph = verify_graph(limit_range(graph, tensors, arith))
    graph, found = prove_range(graph, fixed, arith, lambda g: quantize(g, arith, options, host))
    return verify_graph(graph), found


def with_winner(graph: IntGraph) -> IntGraph:
    """Return the graph with neurons ``OUTPUT.winner`` that read the class scores.

    The one with the largest score so far spikes in every frame; in a sample's last frame that is
    the class the host would take. The output stays the scores. StageError where the name is taken.
    """
    name, output = f"{graph.output}.winner", graph.populations[graph.output]
    if name in graph.populations:
        raise StageError(f"{name}: is the name of a layer, the winner needs it; rename the layer")
    search = IntWinner(output.shape, (IntIdentity(graph.output, 0, 1),))
    populations = {**graph.populations, name: search}
    return replace(graph, populations=populations, scales={**graph.scales, name: (1, 1)})


def target_problems(profile: Profile, options: Options) -> list[ProfileError]:
    """Return why no network at all can be exported for a target with these options."""
    problems = []
    if not profile.deployable:
        problems.append(profile.not_ours())
    elif options.per_channel and not profile.rules.thresholds_per_neuron:
        text = (
            f"{profile.id}: has one threshold per layer (numeric.thresholds_per_neuron), and "
            "scales per output channel need one per neuron; export per tensor"
        )
        problems.append(ProfileError(text, rule="per-channel"))
    return problems


def real_valued(module: nn.Module) -> nn.Module:
    """Return a copy of ``module`` in float64 and evaluation mode, as it is without quantization."""
    twin = copy.deepcopy(module).double().eval()
    for layer in twin.modules():
        if isinstance(layer, (QatSynapses, QatReadout)):
            layer.quantize = False  # trace the real-valued network that the integers stand for
    return twin


def graded_messages(graph: IntGraph) -> dict[str, str]:
    """Return what they send, for every population that sends anything but single spikes.

    Not a readout that only the host reads: its values are not sent to neurons.
    """
    quiet, found = mute(graph), {}
    for name in graph.order:
        pop = graph.populations[name]
        if isinstance(pop, IntInput):
            if pop.max_count > 1 and not isinstance(pop, IntHostCurrent):
                found[name] = f"sends counts up to {pop.max_count}"
        elif not isinstance(pop, SPIKING_CLASSES) and name not in quiet:
            found[name] = f"sends {_GRADED[type(pop)]}"
    return found


_GRADED = {
    IntSum: "sums",
    IntTimeSum: "sums over a sample",
    IntProduct: "products",
    IntReadout: "class scores",
} | dict.fromkeys(ATTENTION_CLASSES, "counts")


def check_single_spikes(graph: IntGraph, target: str) -> None:
    """Raise UnsupportedNode listing every population that sends integers, on a chip that cannot."""
    graded = [f"{name} {what}" for name, what in graded_messages(graph).items()]
    if graded:
        raise UnsupportedNode(
            f"{target}: messages are single spikes (numeric.graded_spikes), but "
            f"{', '.join(graded)}; use inputs of 0 and 1 and a network without residual sums, "
            "or a target with graded spikes such as loihi2",
            rule="graded",
        )


def time_first(sample: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a sample (samples, steps, ...) as the module takes it, (steps, samples, ...).

    Raises DataError where an entry has no such axes, is empty or is not finite, or there is none.
    """
    if not sample:
        raise DataError(
            "the sample holds no input; give event counts (samples, steps, ...) by name"
        )
    for name, value in sample.items():
        value = np.asarray(value)
        if value.ndim < 3 or 0 in value.shape:
            raise DataError(
                f"sample {name!r}: shape is {value.shape}, needs (samples, steps, ...) "
                "with at least one of each"
            )
        if not np.isfinite(value).all():
            raise DataError(f"sample {name!r}: holds NaN or infinite values")
    return {n: np.moveaxis(np.asarray(v), 1, 0) for n, v in sample.items()}


def check_static(sample: Mapping[str, np.ndarray], static: Collection[str]) -> None:
    """Raise DataError for static inputs that the sample does not hold, or that change."""
    for name in static:
        if name not in sample:
            raise unknown_name("static input", name, sample, DataError)
        value = np.asarray(sample[name])
        constant(value, value.shape[1:], name)


def check_scores(
    graph: SpikingGraph, inputs: Mapping[str, torch.Tensor], expected: torch.Tensor, step: str
) -> None:
    """Raise StageError unless the graph's output equals the module's class scores."""
    with torch.no_grad():
        found = forward(graph, inputs)[graph.output][0]
    if not torch.isfinite(expected).all():
        raise StageError(
            f"{step}: the module's class scores are NaN or infinite on the sample; "
            "train again or check the input",
            rule="not-finite",
        )
    worst = float((found - expected).abs().max())
    if not worst <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise StageError(
            f"{step}: class scores differ from the module's by {worst:.3g}, allowed "
            f"{TOLERANCE:g}; this is a defect of the compiler, please report it",
            rule="scores",
        )
