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
    IntLif,
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
from neuroav_export.prepared import Prepared
from neuroav_export.trace import trace
from neuroav_export.tracing.as_float64 import plain_tensors_to_float64, run_in_float64

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
    bits: int | None = None,
    calibration: Calibration | None = None,
    per_channel: bool | None = None,
    layer_bits: Mapping[str, int] | None = None,
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
    of every register is taken from all of it: give 100 and more where there are. bits (8),
    calibration ('max'), per_channel (False), layer_bits: see ``quantization.Options``; what
    ``prepare`` returned has its own, and other ones are refused. max_count: largest count each
    input can send (255).
    static: inputs of real values, the same in every step (a picture, a spectrogram); their first
    layer is computed on the host, which sends ``host``, see ``neuroav.host``. winner: whether the
    chip looks for the largest class score too; ``with_winner``.
    Raises UnsupportedModule, UnsupportedNode, StageError, ProfileError, DataError.
    """
    options = chosen_options(module, bits, calibration, per_channel, layer_bits)
    profile = checked_target(target, options)  # before any work
    if isinstance(module, Prepared):
        graph = module.deployed_graph(sample, profile, max_count, static)
        quantized = quantize(graph, profile.arithmetic, options, host)
    else:
        _, graph = lowered_graph(module, sample, max_count, static)
        whole = time_first(sample)
        graph, quantized = in_range(graph, whole, profile.arithmetic, options, host)
    return finish(graph, quantized, profile, classes, probe, provenance, winner)


def lowered_graph(
    module: nn.Module,
    sample: Mapping[str, np.ndarray],
    max_count: Mapping[str, int] | None = None,
    static: Collection[str] = (),
) -> tuple[SpikingGraph, SpikingGraph]:
    """Return a module's graph as traced and as lowered; the arguments are ``compile_module``'s."""
    twin, whole = real_valued(module), time_first(sample)
    frames = {n: v[:, :CHECKED] for n, v in whole.items()}
    check_static(sample, static)
    graph = trace(twin, frames, max_count, static)
    tensors = {n: torch.from_numpy(v.astype(np.float64)) for n, v in frames.items()}
    expected = run_in_float64(twin, tensors.values())
    check_scores(graph, tensors, expected, "trace")
    return graph, lowered(graph, tensors)


def lowered(graph: SpikingGraph, inputs: Mapping[str, torch.Tensor]) -> SpikingGraph:
    """Return a traced graph after all ``PASSES``, each checked against the graph's class scores.

    inputs: event counts (T, B, *shape) by input, float64.
    """
    with torch.no_grad():
        expected = forward(verify_graph(graph), inputs)[graph.output][0]
    for apply in PASSES:
        graph = verify_graph(apply(graph))
        check_scores(graph, inputs, expected, apply.__name__)
    return graph


def compile_graph(
    graph: SpikingGraph,
    sample: Mapping[str, np.ndarray],
    *,
    target: str = "loihi2",
    bits: int = 8,
    calibration: Calibration = "max",
    per_channel: bool = False,
    layer_bits: Mapping[str, int] | None = None,
    classes: tuple[str, ...] = (),
    probe: Probe | None = None,
    provenance: Mapping[str, object] | None = None,
    host: Sends = "current",
    winner: bool = False,
) -> Deployment:
    """Return the deployment of a traced graph, whoever made it.

    graph: at stage 'traced'. sample, and the rest: as for ``compile_module``; every pass is checked
    against the class scores of the graph itself. Raises as ``compile_module``.
    """
    options = Options(bits, calibration, per_channel=per_channel, layer_bits=dict(layer_bits or {}))
    profile, whole = checked_target(target, options), time_first(sample)
    tensors = {n: torch.from_numpy(v[:, :CHECKED].astype(np.float64)) for n, v in whole.items()}
    graph = lowered(graph, tensors)
    graph, quantized = in_range(graph, whole, profile.arithmetic, options, host)
    return finish(graph, quantized, profile, classes, probe, provenance, winner)


def finish(
    graph: SpikingGraph,
    quantized: Quantized,
    profile: Profile,
    classes: tuple[str, ...] = (),
    probe: Probe | None = None,
    provenance: Mapping[str, object] | None = None,
    winner: bool = False,
) -> Deployment:
    """Return the deployment of a lowered graph and what it is quantized to, verified."""
    integer, saturations, hosts, _ = quantized
    integer = with_winner(integer) if winner else integer
    verify_integer(integer, profile.arithmetic)
    verify_host(hosts, integer, profile.arithmetic)
    check_target(integer, profile)
    names = classes or tuple(map(str, range(integer.populations[integer.output].neurons)))
    return Deployment(
        integer, graph, profile, names, saturations, dict(provenance or {}), probe, host=hosts
    )


def chosen_options(
    module: nn.Module,
    bits: int | None = None,
    calibration: Calibration | None = None,
    per_channel: bool | None = None,
    layer_bits: Mapping[str, int] | None = None,
) -> Options:
    """Return how a module's integers are chosen: as given, else by default, 8 bits and 'max'.

    A prepared network was trained with its own: UnsupportedNode where others are given.
    """
    wanted = {
        "bits": bits,
        "calibration": calibration,
        "per_channel": per_channel,
        "layer_bits": None if layer_bits is None else dict(layer_bits),
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    if not isinstance(module, Prepared):
        return Options(**given)  # type: ignore[arg-type]
    for name, value in given.items():
        own = getattr(module.options, name)
        if value != own:
            raise UnsupportedNode(
                f"{name} is {value!r}, but the network was prepared and trained with {own!r}; "
                "leave it out, or prepare the float network again"
            )
    return module.options


def checked_target(target: str, options: Options) -> Profile:
    """Return the target's profile; ProfileError or UnsupportedNode where options do not fit it."""
    profile = hardware.load_profile(target)
    problems = target_problems(profile, options)
    if problems:
        raise problems[0]
    options.check(profile.arithmetic)
    return profile


def check_target(graph: IntGraph, profile: Profile) -> None:
    """Raise UnsupportedNode for what the target's neurons and messages cannot do."""
    if not profile.rules.graded_spikes:
        check_single_spikes(graph, profile.id)
    subtracting = [
        n
        for n, pop in graph.populations.items()
        if isinstance(pop, IntLif) and pop.reset == "subtract"
    ]
    if subtracting and not profile.rules.reset_by_subtraction:
        raise UnsupportedNode(
            f"{profile.id}: neurons reset to 0 (numeric.reset_by_subtraction), but "
            f"{', '.join(subtracting)} subtract the threshold; train with a reset to 0, or take a "
            "target such as loihi2",
            rule="reset",
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
    plain_tensors_to_float64(twin)
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
