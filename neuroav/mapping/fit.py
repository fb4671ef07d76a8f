"""Every limit of a profile that a network or a placement exceeds, and what would fit instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from neuroav import integer as ig
from neuroav.errors import DoesNotFit
from neuroav.hardware import Profile, list_profiles, load_profile
from neuroav.mapping import remedies
from neuroav.mapping.flows import Flows, flows
from neuroav.mapping.needs import (
    AXONS_IN,
    AXONS_OUT,
    NEURONS,
    PROGRAMS,
    RESOURCES,
    SYNAPSE,
    TOTAL,
    Costs,
    Layer,
    fan_in,
    fans_out,
    layer_of,
    limits,
)
from neuroav.mapping.split import Split, Splitter, prices
from neuroav.mapping.usage import usage
from neuroav.placement import Placement, Slice

UNITS = {  # of what is not counted in bytes
    "neurons": "neuron",
    "axons_in": "source",
    "axons_out": "destination",
    "programs": "program",
    "fan_in": "synapse",
    "fan_out": "synapse",
}
BOARD = "board"  # the layer of what is exceeded by the network as a whole


@dataclass(frozen=True)
class Excess:
    """One exceeded limit.

    layer: name of the population, or several joined by commas, or 'board'. key: of the limit in
    the profile. problem: found, allowed and the profile. remedy: what would fit, with its cost.
    """

    layer: str
    key: str
    problem: str
    remedy: str

    @property
    def text(self) -> str:
        start = f"{self.layer}: " if self.layer == BOARD else f"{self.key}: {self.layer} "
        return f"{start}{self.problem}; {self.remedy}"


def does_not_fit(profile: Profile, found: Sequence[Excess]) -> DoesNotFit:
    """Return the error that lists every exceeded limit."""
    texts = [excess.text for excess in found]
    if len(texts) == 1:
        return DoesNotFit(texts[0], problems=found)
    lines = "".join(f"\n({i}) {text}" for i, text in enumerate(texts, 1))
    return DoesNotFit(f"{profile.id}: {len(texts)} limits are exceeded:{lines}", problems=found)


# --- what no split mends -----------------------------------------------------------------------
def network_excess(
    graph: ig.IntGraph, profile: Profile, splitter: Splitter, split: Split
) -> list[Excess]:
    """Return the limits that the network exceeds however it is split."""
    found = _neurons(graph, profile, {n: c.layer for n, c in splitter.choices.items()})
    for name, needs in split.unfit.items():
        layer = splitter.choices[name].layer
        for resource in np.flatnonzero(needs > splitter.prices.limits):
            found.append(_unit(layer, int(resource), needs, splitter, profile))
    return found


def _neurons(graph: ig.IntGraph, profile: Profile, layers: Mapping[str, Layer]) -> list[Excess]:
    """Return what single neurons exceed."""
    core, found = profile.core, []
    graded = _graded(profile)
    fans = fans_out(graph) if core.fan_out.value is not None else {}
    for name, layer in layers.items():
        pop = layer.pop
        if (most := core.fan_in.value) is not None and (need := fan_in(layer)) > most:
            remedy = remedies.fewer_inputs(name, pop, need, most, graded)
            found.append(_excess(name, "fan_in", need, most, profile, " for one neuron", remedy))
        if (most := core.fan_out.value) is not None and (need := fans[name]) > most:
            remedy = remedies.copies(name, layer.state, need, most, "its synapses")
            found.append(_excess(name, "fan_out", need, most, profile, " for one neuron", remedy))
        found += _state(layer, profile)
        found += _delays(graph, layer, profile)
    return found


def _state(layer: Layer, profile: Profile) -> list[Excess]:
    need, most = profile.layout.neuron_bytes.value, profile.core.state_bytes.value
    if need is None or most is None or need <= most:
        return []
    name, remedy = layer.name, remedies.HOPELESS
    return [_excess(name, "state_bytes", need, most, profile, " for one neuron", remedy)]


def _delays(graph: ig.IntGraph, layer: Layer, profile: Profile) -> list[Excess]:
    if profile.numeric is None:
        return []
    most, found = profile.numeric.delay_max, []
    for p in layer.pop.projections:
        if p.delay > most:
            remedy = remedies.relays(p.source, graph.populations[p.source].neurons, p.delay, most)
            problem = (
                f"gets messages of {p.source} with a delay of {p.delay:,} steps, allowed "
                f"{most:,} ({profile.id})"
            )
            found.append(Excess(layer.name, "numeric.delay_max", problem, remedy))
    return found


def _unit(
    layer: Layer, resource: int, needs: np.ndarray, splitter: Splitter, profile: Profile
) -> Excess:
    """Return what the smallest possible slice of a layer exceeds."""
    what = f" in one core for {remedies.unit_name(layer.pop, layer.units)}"
    remedy = _unit_remedy(layer, resource, needs, splitter, _graded(profile))
    most = splitter.prices.limits[resource]
    return _excess(layer.name, RESOURCES[resource], needs[resource], most, profile, what, remedy)


def _unit_remedy(
    layer: Layer, resource: int, needs: np.ndarray, splitter: Splitter, graded: bool
) -> str:
    """Return what would make the smallest possible slice of a layer fit."""
    name, pop, costs = layer.name, layer.pop, splitter.prices.costs
    shares = {  # of a resource, by what would have to shrink
        "inputs": needs[SYNAPSE] + needs[AXONS_IN] * costs.axon_in_bytes,
        "readers": needs[AXONS_OUT] * costs.axon_out_bytes,
        "state": needs[NEURONS] * layer.state_bytes,
    }
    cause = {SYNAPSE: "inputs", AXONS_IN: "inputs", AXONS_OUT: "readers", NEURONS: "state"}.get(
        resource, max(shares, key=lambda k: shares[k])
    )
    need = shares[cause] if resource == TOTAL else needs[resource]
    room = splitter.prices.limits[resource] - (needs[resource] - need)
    if resource == PROGRAMS or room <= 0:
        return remedies.HOPELESS
    if isinstance(pop, ig.IntWinner):
        return "leave the winner to the host; it costs nothing on the chip"
    if cause == "readers":
        return remedies.copies(name, layer.state, need, room, "the cores that read it")
    if isinstance(pop, ig.ATTENTION_CLASSES):
        return remedies.smaller_heads(pop, need, room)
    if cause == "inputs":
        return remedies.fewer_inputs(name, pop, need, room, graded)
    return remedies.HOPELESS


def _graded(profile: Profile) -> bool:
    """Return whether neurons of the target can send sums."""
    return profile.numeric is not None and profile.numeric.graded_spikes


def _excess(
    layer: str, limit: str, need: float, most: float, profile: Profile, what: str, remedy: str
) -> Excess:
    found, allowed = int(np.ceil(need)), int(np.floor(most))
    amount = remedies.counted(found, UNITS[limit]) if limit in UNITS else f"{found:,} byte"
    problem = f"needs {amount}{what}, allowed {allowed:,} ({profile.id})"
    return Excess(layer, f"core.{limit}", problem, remedy)


# --- the board ---------------------------------------------------------------------------------
def board_excess(profile: Profile, cores: int, usable: int) -> list[Excess]:
    """Return whether a network needs more cores than the target has; usable: per chip."""
    chips = profile.topology.chips.value
    if not usable or chips is None or cores <= usable * chips:
        return []
    problem = (
        f"needs {cores:,} cores on {remedies.counted(-(-cores // usable), 'chip')}, allowed "
        f"{usable * int(chips):,} on {remedies.counted(int(chips), 'chip')} ({profile.id}: "
        "topology.cores_usable, topology.chips)"
    )
    return [Excess(BOARD, "topology.chips", problem, _larger(profile, cores, usable * int(chips)))]


def _larger(profile: Profile, cores: int, allowed: int) -> str:
    """Return the smallest shipped target of the same cores that holds a network, or what goes."""
    boards = []
    for other in (load_profile(name) for name in list_profiles()):
        chips, usable = other.topology.chips.value, other.topology.cores_usable.value
        same = (other.core, other.layout, other.numeric) == (
            profile.core,
            profile.layout,
            profile.numeric,
        )
        if same and chips and usable and cores <= chips * usable:
            boards.append((chips * usable, other.id, int(chips)))
    if boards:
        room, name, chips = min(boards)
        return (
            f"{name} has {remedies.counted(chips, 'chip')} and would hold it at {cores / room:.0%}"
        )
    more = remedies.counted(cores - allowed, "core")
    return f"what takes {more} has to go: fewer channels, or the first layer on the host"


# --- a placement that is given -----------------------------------------------------------------
def check_placement(
    graph: ig.IntGraph, placement: Placement, profile: Profile, found: Flows | None = None
) -> None:
    """Raise DoesNotFit with every limit of ``profile`` that a placement exceeds.

    found: its flows, where they are known.
    """
    cores = [core.slices for core in placement.cores]
    costs, most = Costs.of(profile), limits(profile)
    layers = {name: layer_of(graph, name, costs) for name in placement.of}
    needs = usage(layers, cores, costs, found or flows(graph, cores)).needs
    problems = _neurons(graph, profile, layers)
    if (needs > most).any():
        problems += _Full(graph, cores, needs, profile, layers).problems()
    if problems:
        raise does_not_fit(profile, problems)


@dataclass(frozen=True, eq=False)
class _Full:
    """The cores that exceed a limit."""

    graph: ig.IntGraph
    cores: Sequence[Sequence[Slice]]
    needs: np.ndarray
    profile: Profile
    layers: Mapping[str, Layer]

    def problems(self) -> list[Excess]:
        """Return the worst core for every set of layers and every limit."""
        most = limits(self.profile)
        worst: dict[tuple[str, int], int] = {}
        for core, resource in np.argwhere(self.needs > most).tolist():
            names = ", ".join(dict.fromkeys(s.population for s in self.cores[core]))
            before = worst.setdefault((names, resource), core)
            if self.needs[core, resource] > self.needs[before, resource]:
                worst[names, resource] = core
        alone = self._alone(set(worst.values()))
        rates = dict.fromkeys(self.graph.order, 1.0)
        splitter = Splitter.of(self.graph, prices(self.graph, self.profile, rates))
        split = splitter.split()
        return [
            _excess(
                names,
                RESOURCES[resource],
                self.needs[core, resource],
                most[resource],
                self.profile,
                " in one core",
                self._remedy(core, resource, alone[core], splitter, split),
            )
            for (names, resource), core in worst.items()
        ]

    def _alone(self, full: Set[int]) -> dict[int, np.ndarray]:
        """Return by core what each of its slices needs on a core of its own."""
        parts = [
            [[s] for s in slices] if n in full else [list(slices)]
            for n, slices in enumerate(self.cores)
        ]
        cores = [core for part in parts for core in part]
        costs = Costs.of(self.profile)
        needs = usage(self.layers, cores, costs, flows(self.graph, cores)).needs
        ends = np.cumsum([len(part) for part in parts])
        return {n: needs[ends[n] - len(parts[n]) : ends[n]] for n in full}

    def _remedy(
        self, core: int, resource: int, alone: np.ndarray, splitter: Splitter, split: Split
    ) -> str:
        slices = self.cores[core]
        largest = int(alone[:, resource].argmax())
        if alone[largest, resource] <= splitter.prices.limits[resource]:
            more = remedies.counted(len(slices) - 1, "core")
            return f"a core for each of its {len(slices)} slices would fit, and takes {more} more"
        name = slices[largest].population
        found = self.layers[name]
        if name in split.unfit:
            return _unit(found, resource, split.unfit[name], splitter, self.profile).remedy
        grid = split.grids[name]
        before = [s.box for part in self.cores for s in part if s.population == name]
        text = f"splitting {remedies.axes_text(found.shape, grid.parts_along)} would fit"
        if not found.links:
            return text
        times = [_copies(found, np.array(b, np.int64)) for b in (grid.boxes(), before)]
        return (
            f"{text}, and sends every message of its source to {times[0]} cores instead of "
            f"{times[1]}"
        )


def _copies(found: Layer, boxes: np.ndarray) -> str:
    """Return to how many of these slices a source's message goes in the mean."""
    whole = np.array([[(0, size) for size in found.shape]], np.int64)
    sent = sum(int(link.axons(boxes).sum()) for link in found.links)
    mean = sent / sum(int(link.axons(whole).sum()) for link in found.links)
    return f"{mean:.3g}"
