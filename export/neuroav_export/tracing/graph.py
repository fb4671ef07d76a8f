"""Recorded calls -> SpikingGraph: one node per layer, however many steps called it.

A layer that was called once per step becomes one node if all its calls are the same apart from the
step: the last call says which layers it reads and how many steps late, and every earlier call must
be that without what would lie before step 0. What arrives late comes through a Delay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from neuroav import nodes as rn
from neuroav.errors import StageError, UnsupportedModule
from neuroav.graph import SpikingGraph
from neuroav.shapes import output_shape
from neuroav_export.tracing.modules import INPUT, Parts
from neuroav_export.tracing.values import Shape, Terms, begun, canonical, relative

SYNAPSES = (rn.Conv2d, rn.ConvTranspose2d, rn.Dense)
_MOVED = (rn.Dense, rn.Conv2d, rn.ConvTranspose2d, rn.BatchNorm)  # a factor goes into their weights


@dataclass
class Site:
    """One layer or operation, and its calls.

    name: its node's; where: qualified name for errors; converted: node or parts; takes: features of
    every input as the layer sees them; gives: features of its output; calls: (step, terms of every
    input), step None where the whole sequence came at once. shape: of the node, where it is not
    that of ``gives``.
    """

    name: str
    where: str
    converted: rn.Node | Parts
    takes: tuple[Shape, ...]
    gives: Shape
    shape: Shape
    calls: list[tuple[int | None, tuple[Terms, ...]]] = field(default_factory=list)
    dt_s: float | None = None

    @property
    def sequence(self) -> bool:
        return bool(self.calls) and self.calls[0][0] is None


Reads = tuple[dict[tuple[str, int], float], ...]  # by input: factor by (site, lag)


class GraphMaker:
    """Makes the nodes that the output needs, each once."""

    def __init__(self, sites: Mapping[str, Site], steps: int) -> None:
        self.sites, self.steps = sites, steps
        self.nodes: dict[str, rn.Node] = {}
        self.inputs: dict[str, tuple[str, ...]] = {}
        self.shapes: dict[str, Shape] = {}
        self.made: dict[Any, str] = {}
        self.taken = {s.name for s in sites.values()}
        self.dt_s: dict[str, float] = {}
        self.where: dict[str, str] = {}

    # --- what a site reads -------------------------------------------------------------------
    def reduced(self, site: Site) -> bool:
        """Return whether a site was called once for the whole sample, after time was summed up.

        One without state that reads the last step alone does in every step what it does there.
        """
        step, inputs = site.calls[0]
        if self.steps == 1 or len(site.calls) > 1 or step is None:
            return False
        only_last = all(at == self.steps - 1 for terms in inputs for _, at in terms)
        return not only_last or site.dt_s is not None

    def reads(self, site: Site) -> Reads:
        """Return what every input of a site is at every step; UnsupportedModule if it varies."""
        step, last = site.calls[-1]
        if step is None:
            return tuple(dict(terms) for terms in last)
        steady = tuple(relative(terms, step) for terms in last)
        for at, inputs in site.calls:
            assert at is not None
            for terms, lags in zip(inputs, steady, strict=True):
                if relative(terms, at) != begun(lags, at):
                    raise UnsupportedModule(
                        f"{site.where}: reads something else in step {at} than in step {step}; a "
                        "chip does the same at every step",
                        rule="control-flow",
                    )
        return steady

    # --- nodes -------------------------------------------------------------------------------
    def put(self, name: str, node: rn.Node, sources: tuple[str, ...], shape: Shape) -> str:
        self.nodes[name], self.inputs[name], self.shapes[name] = node, sources, shape
        return name

    def free(self, name: str) -> str:
        """Return ``name``, or it with a number where it is taken."""
        number, found = 1, name
        while found in self.nodes or found in self.taken:
            found, number = f"{name}_{number}", number + 1
        return found

    def once(self, key: Any, name: str, node: rn.Node, sources: tuple[str, ...], shape: Shape):
        """Return the name of a node that is made at most once for ``key``."""
        if key not in self.made:
            self.made[key] = self.put(self.free(name), node, sources, shape)
        return self.made[key]

    def site(self, name: str, factor: float = 1.0, lag: int = 0) -> str:
        """Return the node that is ``factor`` times a site's output, ``lag`` steps late."""
        site = self.sites[name]
        if (name, factor, lag) in self.made:
            return self.made[name, factor, lag]
        if lag and not self._takes_delay(site):
            if isinstance(site.converted, SYNAPSES):
                raise UnsupportedModule(
                    f"{site.where}: is read {lag} steps late and has a bias, which a chip adds in "
                    "every step; let it read zeros at first (z = torch.zeros(...)), or bias=False",
                    rule="delay-bias",
                )
            source = self.site(name, factor)
            return self._late(source, lag)
        if factor != 1.0 and not isinstance(site.converted, _MOVED):
            return self._scaled(site, factor)
        chosen = site.name if site.name not in self.nodes else self.free(f"{site.name}.copy")
        self.made[name, factor, lag] = chosen
        self.nodes[chosen] = rn.Add()  # the name is taken before its sources are made
        self.shapes[chosen], self.where[chosen] = site.shape, site.where
        self._make(site, chosen, factor, lag)
        return chosen

    def _takes_delay(self, site: Site) -> bool:
        """Return whether a delay may stand before a site: without input it gives nothing."""
        node = site.converted
        return isinstance(node, SYNAPSES) and (node.bias is None or not node.bias.any())

    def _late(self, source: str, lag: int) -> str:
        shape = self.shapes[source]
        return self.once(("late", source, lag), f"{source}.delay", rn.Delay(lag), (source,), shape)

    def _scaled(self, site: Site, factor: float) -> str:
        if factor <= 0:
            raise UnsupportedModule(
                f"{site.where}: its output times {factor:g}; messages are worth a positive number, "
                "take the sign into the weights",
                rule="gain",
            )
        source = self.site(site.name)
        key = ("times", source, factor)
        return self.once(key, f"{source}.times", rn.Scale(factor), (source,), site.shape)

    def _make(self, site: Site, name: str, factor: float, lag: int) -> None:
        if isinstance(site.converted, rn.Input):
            self.put(name, site.converted, (), site.shape)
            return
        node, found = site.converted, self.reads(site)
        if isinstance(node, SYNAPSES):
            found, common = _without_factor(found)
            node = _times(node, factor * common, factor)
        elif factor != 1.0:
            assert isinstance(node, rn.BatchNorm)
            node = replace(node, scale=node.scale * factor, shift=node.shift * factor)
        gather = self.over_time if self.reduced(site) else self.sum_of
        sources = tuple(
            self.shaped(gather(terms, site, lag), _needs(node, takes))
            for terms, takes in zip(found, site.takes, strict=True)
        )
        if site.dt_s is not None:
            self.dt_s[name] = site.dt_s
        if isinstance(node, Parts):
            self._put_parts(site, name, node, sources[0])
        else:
            self.put(name, settled(node, site.takes), sources, site.shape)
            self._check(name)

    def _put_parts(self, site: Site, name: str, parts: Parts, source: str) -> None:
        def full(part: str) -> str:
            return source if part == INPUT else f"{name}.{part}" if part else name

        self.shapes[name] = site.shape
        for part in parts.parts:
            sources = tuple(full(p) for p in part.reads)
            shape = self.shapes[full(part.like)] if part.like else self._shape(part.node, sources)
            self.put(full(part.name), part.node, sources, shape)

    def _shape(self, node: rn.Node, sources: tuple[str, ...]) -> Shape:
        return output_shape(node, [self.shapes[s] for s in sources])

    def _check(self, name: str) -> None:
        """Raise StageError where the node's own shape is not what forward gave."""
        try:
            shape = self._shape(self.nodes[name], self.inputs[name])
        except StageError as error:
            raise StageError(f"{self.where.get(name, name)}: {error}", rule="shape") from None
        if shape != self.shapes[name]:
            raise StageError(
                f"{name}: forward gives {self.shapes[name]}, the layer {shape}", rule="shape"
            )

    def shaped(self, source: str, shape: Shape) -> str:
        """Return a node with the values of ``source`` on the axes that its reader takes."""
        if self.shapes[source] == shape:
            return source
        flat = len(shape) == 1
        node = rn.Flatten() if flat else rn.Reshape(shape)
        name = f"{source}.{'flatten' if flat else 'reshape'}"
        return self.once(("shape", source, shape), name, node, (source,), shape)

    # --- sums --------------------------------------------------------------------------------
    def sum_of(self, lags: Terms, reader: Site, late: int = 0) -> str:
        """Return the node that is the sum of ``lags``."""
        if not lags:
            raise UnsupportedModule(
                f"{reader.where}: reads zeros only; give it spikes", rule="constants"
            )
        if any(lag < 0 for _, lag in lags):
            raise UnsupportedModule(
                f"{reader.where}: reads a later step than its own; a chip knows no later one",
                rule="control-flow",
            )
        terms = sorted((s, lag + late, c) for (s, lag), c in lags.items())
        return self._added([self.site(s, c, lag) for s, lag, c in terms], tuple(terms))

    def _added(self, sources: list[str], key: Any) -> str:
        if len(sources) == 1:
            return sources[0]
        shape = self.shapes[sources[0]]
        level = tuple(self.shaped(s, shape) for s in sources)
        return self.once(("add", key), "add", rn.Add(), level, shape)

    def over_time(self, lags: Terms, reader: Site | None, late: int = 0) -> str:
        """Return the node that is a sum of outputs at several steps, one value per sample.

        lags: as far before the last step of a sample.
        """
        by_site: dict[str, dict[int, float]] = {}
        for (s, lag), c in lags.items():
            by_site.setdefault(s, {})[lag] = c
        means: dict[str, float] = {}
        single: list[str] = []
        for s, factors in sorted(by_site.items()):
            kind, factor = self._kind(s, factors, reader)
            if kind == "mean":
                means[s] = factor
            else:
                node = self.site(s, factor)
                single.append(node if kind == "done" else self._last(node))
        if means:
            key = tuple(sorted(means.items()))
            added = self._added([self.site(s, c) for s, c in key], ("mean", key))
            name, shape = f"{added}.mean", self.shapes[added]
            single.insert(0, self.once(("mean", key), name, rn.TimeMean(), (added,), shape))
        return self._added(single, ("over time", tuple(single)))

    def _last(self, source: str) -> str:
        """Return a value after the last step, which is held by a membrane.

        What is no leaky membrane is read by one that forgets all of the step before.
        """
        if not isinstance(self.nodes[source], rn.Li):
            source = self._held(source)
        shape = self.shapes[source]
        return self.once(("last", source), f"{source}.last", rn.TimeLast(), (source,), shape)

    def _held(self, source: str) -> str:
        dt_s = next((s.dt_s for s in self.sites.values() if s.dt_s is not None), 1.0)
        if not isinstance(self.nodes[source], rn.Dense):
            size = prod(self.shapes[source])
            flat = self.shaped(source, (size,))
            node = rn.Dense(np.eye(size))
            source = self.once(("scores", source), f"{source}.scores", node, (flat,), (size,))
        shape = self.shapes[source]
        return self.once(("held", source), f"{source}.held", rn.Li(dt_s), (source,), shape)

    def _kind(self, s: str, factors: dict[int, float], reader: Site | None) -> tuple[str, float]:
        """Return how outputs of one site are summed over time, and the factor."""
        site = self.sites[s]
        if self.reduced(site) and list(factors) == [0]:
            return "done", factors[0]
        values = set(factors.values())
        if len(factors) == self.steps and min(factors) == 0 and len(_near(values)) == 1:
            return "mean", _near(values)[0] * self.steps
        if list(factors) == [0]:
            return "last", factors[0]
        where = "the network" if reader is None else reader.where
        raise UnsupportedModule(
            f"{where}: takes {s} at {len(factors)} of {self.steps} steps; class scores are the "
            "mean, the sum or the last of all steps: scores.mean(0), scores.sum(0), scores[-1]",
            rule="end",
        )

    def finish(self, output: str, dt_s: float) -> SpikingGraph:
        """Return the graph; every input is in it, read or not."""
        for site in self.sites.values():
            if isinstance(site.converted, rn.Input):
                self.site(site.name)
        return SpikingGraph(self.nodes, self.inputs, self.shapes, output, dt_s, self.steps)


def check_membranes(graph: SpikingGraph) -> SpikingGraph:
    """Return ``graph``; UnsupportedModule where a leaky membrane is no class scores."""
    for name in graph.order:
        if not isinstance(graph.nodes[name], rn.Li):
            continue
        readers = graph.consumers(name)
        while len(readers) == 1 and isinstance(graph.nodes[readers[0]], rn.Scale):
            readers = graph.consumers(readers[0])
        ends = [isinstance(graph.nodes[n], (rn.TimeLast, rn.TimeMean)) for n in readers]
        if ends != [True]:
            raise UnsupportedModule(
                f"{name}: its membrane is read in every step; a membrane without threshold gives "
                "the class scores: their mean, sum or last value over the steps",
                rule="end",
            )
    return graph


def _near(values: set[float]) -> list[float]:
    """Return the values that differ by more than the rounding of a sum."""
    found: list[float] = []
    for v in sorted(values):
        if not found or abs(v - found[-1]) > 1e-12 * abs(v):
            found.append(v)
    return found


def _without_factor(found: Reads) -> tuple[Reads, float]:
    """Return what synapses read without the factor that all of it shares, and that factor."""
    factors = {c for terms in found for c in terms.values()}
    if len(factors) != 1:
        return found, 1.0
    (common,) = factors
    return tuple(dict.fromkeys(terms, 1.0) for terms in found), common


def _times(node: Any, weight: float, bias: float) -> Any:
    if weight == bias == 1.0:
        return node
    shift = None if node.bias is None else node.bias * bias
    return replace(node, weight=node.weight * weight, bias=shift)


def _needs(node: rn.Node | Parts, takes: Shape) -> Shape:
    """Return the shape on which a node reads its input."""
    first = node.parts[0].node if isinstance(node, Parts) else node
    # the neurons that join lie in one row, so what reads them on other axes gets a Reshape
    return (prod(takes),) if isinstance(first, (rn.Dense, rn.Concat)) else canonical(takes)


def settled(node: rn.Node, takes: tuple[Shape, ...]) -> rn.Node:
    """Return a node with its parameters per neuron on the axes of the node."""
    if not isinstance(node, (rn.Lif, rn.If)):
        return node
    names = ("tau_mem_s", "tau_syn_s", "v_threshold", "v_reset", "v_leak")
    several: dict[str, Any] = {}
    for name in names:
        value = getattr(node, name, None)
        if isinstance(value, np.ndarray):
            try:
                spread = np.broadcast_to(value, takes[0])
            except ValueError:
                raise StageError(
                    f"{name} of shape {value.shape} does not fit neurons {takes[0]}", rule="shape"
                ) from None
            several[name] = spread.reshape(canonical(takes[0])).copy()
    return replace(node, **several) if several else node
