"""The compiler's passes without their stop at the first error: every node that they refuse.

What was refused is replaced by a ``StandIn``, as in ``collect``.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.errors import NeuroavError, StageError
from neuroav.fixed import Arithmetic
from neuroav.graph import SpikingGraph
from neuroav.quantization import Options
from neuroav.stages import ALLOWED, delay_problems, message_problems
from neuroav_export.linting.findings import Findings
from neuroav_export.linting.recover import StandIn
from neuroav_export.passes.fold_norm import fold_node
from neuroav_export.passes.lower import lower_node, lower_output
from neuroav_export.passes.neurons import neuron_problems
from neuroav_export.passes.quantize import Current, Quantizer, Value, align
from neuroav_export.pipeline import graded_messages

Named = Callable[[str], str]  # node -> qualified name of its layer


def fold_and_lower(graph: SpikingGraph, named: Named, findings: Findings) -> SpikingGraph:
    """Return the graph as far as it can be lowered."""
    for name in graph.order:
        try:
            graph = fold_node(graph, name)
        except NeuroavError as error:
            source = graph.inputs[name][0]
            if not isinstance(graph.nodes[source], StandIn):
                findings.error(named(name), error, name)
            graph = graph.with_nodes(remove=[name], rewire={name: source})
    for name in graph.order:
        try:
            graph = lower_node(graph, name)
        except NeuroavError as error:
            findings.error(named(name), error, name)
            stand_in = StandIn(1.0, shape=graph.shapes[name])
            graph = graph.with_nodes(nodes={name: stand_in})
    return _lower_end(graph, named, findings)


def _lower_end(graph: SpikingGraph, named: Named, findings: Findings) -> SpikingGraph:
    last = graph.output
    if last in graph.nodes and not _replaced(graph, last):
        try:
            graph = lower_output(graph)
        except NeuroavError as error:
            place = str(error).partition(": ")[0]
            findings.error(named(place), error, place)
    for name in graph.order:
        node = graph.nodes[name]
        if type(node) in ALLOWED["lowered"] or isinstance(node, StandIn):
            continue
        if not (findings.has("end") or name == last):
            text = f"{type(node).__name__} is before the end of the network"
            findings.add(named(name), "end", text)
        graph = graph.with_nodes(nodes={name: StandIn(1.0, shape=graph.shapes[name])})
    return graph


def _replaced(graph: SpikingGraph, last: str) -> bool:
    """Return whether the end of the network, or what it averages, is nothing that was there."""
    node = graph.nodes[last]
    mean = isinstance(node, rn.TimeMean)
    return isinstance(graph.nodes[graph.inputs[last][0]] if mean else node, StandIn)


def quantize(
    graph: SpikingGraph, arith: Arithmetic, options: Options, named: Named, findings: Findings
) -> ig.IntGraph:
    """Return the integer graph as far as it can be made; its delays are set."""
    work = Quantizer(graph, arith, options)
    for name in graph.order:
        node = graph.nodes[name]
        if isinstance(node, StandIn):
            _put_stand_in(work, name)
            continue
        try:
            work.visit(name)
        except NeuroavError as error:
            findings.error(named(name), error, name)
            if type(node) is rn.Lif:  # visit raises the first of these only
                for problem in neuron_problems(name, node, graph.dt_s):
                    findings.error(named(name), problem, name)
            _put_stand_in(work, name)
    scales = {n: (s.numerator, s.denominator) for n, s in work.scales.items()}
    return align(ig.IntGraph(work.populations, graph.output, graph.steps, graph.dt_s, scales))


def _put_stand_in(work: Quantizer, name: str) -> None:
    """Put spiking neurons that read what ``name`` reads, so that latencies stay as they are."""
    sources: list[str] = []
    for source in work.graph.inputs[name]:
        value = work.values.get(source)
        if value is None:  # later in a loop
            continue
        if isinstance(value, Current):
            sources += [t.source for t in value.terms]
        elif isinstance(value, Value):
            sources.append(value.name)
        else:  # a static input, or a layer of the host: the chip has nothing of it
            sources.append(work.put(f"{name}.host", ig.IntInput((1,), (), 1), Fraction(1)).name)
    projections = tuple(ig.IntIdentity(source, 0, 1) for source in dict.fromkeys(sources))
    neurons = ig.IntOr(work.graph.shapes[name], projections)
    work.values[name] = work.put(name, neurons, Fraction(1))


def check_messages(
    graph: ig.IntGraph, arith: Arithmetic, graded_spikes: bool, named: Named, findings: Findings
) -> None:
    """Find what the target's messages and delays cannot do."""
    for name in graph.order:
        for rule, problems in (
            ("spikes-needed", message_problems(graph, name)),
            ("delay", delay_problems(graph, name, arith)),
        ):
            for problem in problems:
                text = problem.removeprefix(f"{name} ")  # "NAME from SOURCE: ..."
                findings.error(named(name), StageError(text, rule=rule), name)
    if not graded_spikes:
        for name, what in graded_messages(graph).items():
            findings.add(named(name), "graded", f"{what}, the target takes single spikes")


def note_latency(graph: ig.IntGraph, named: Named, findings: Findings) -> None:
    """Note every population that holds its answer back until the sample is complete."""
    for name in graph.order:
        if graph.populations[name].holds:
            findings.add(
                named(name),
                "non-causal",
                f"answers when all {graph.steps} frames are there, {graph.latency[name]} steps "
                "after the first",
            )
