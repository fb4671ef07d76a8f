"""An integer graph on the cores of a profile: split, pack, arrange, check."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neuroav import integer as ig
from neuroav.errors import ProfileError
from neuroav.hardware import Profile
from neuroav.mapping.fit import board_excess, check_placement, does_not_fit, network_excess
from neuroav.mapping.flows import Flows, Messages, flows
from neuroav.mapping.needs import PROGRAMS
from neuroav.mapping.pack import Items, pack
from neuroav.mapping.split import Split, Splitter, nanoseconds, prices
from neuroav.mapping.usage import utilisation as utilisation
from neuroav.placement import Core, Mesh, Placement, Slice, verify_placement

EVEN = 1.02  # the busiest core's load is found to this factor
TOPOLOGY = ("routers_x", "routers_y", "cores_per_router", "chips", "chips_x")


def map_graph(
    graph: ig.IntGraph,
    profile: Profile,
    messages: Messages | None = None,
    *,
    seed: int = 0,
    balance: bool = True,
) -> Placement:
    """Return where the neurons of a graph lie on the target; every limit of the profile is kept.

    messages: population -> mean messages per sample of each neuron, float of its shape, from a
    recording; None takes one of each. balance: cut layers further, while that evens the load and
    cores of the chips in use are free. Deterministic. Raises DoesNotFit with every exceeded limit,
    ProfileError where the profile does not say what its chip looks like.
    """
    from neuroav.mapping.arrange import arrange  # scipy, which planning does without

    mesh = mesh_of(profile)
    cores = plan(graph, profile, messages, balance=balance)
    found = flows(graph, cores, messages)
    seats = arrange(traffic(found, len(cores)), mesh, seed=seed)
    placement = Placement(
        profile.id,
        mesh,
        tuple(Core(slices, *seat) for slices, seat in zip(cores, seats.tolist(), strict=True)),
        seed,
    )
    check_placement(graph, placement, profile, found)
    return verify_placement(graph, placement)


def mesh_of(profile: Profile) -> Mesh:
    """Return the target's grid of routers; ProfileError where the profile does not know it."""
    if problem := unmapped(profile):
        raise ProfileError(problem)
    sizes = {n: int(getattr(profile.topology, n).value or 0) for n in TOPOLOGY}
    if sizes["chips"] % sizes["chips_x"]:
        raise ProfileError(
            f"{profile.id}: topology.chips is {sizes['chips']}, in rows of topology.chips_x "
            f"{sizes['chips_x']}; a board needs full rows"
        )
    return Mesh(
        sizes["routers_x"],
        sizes["routers_y"],
        sizes["cores_per_router"],
        sizes["chips_x"],
        sizes["chips"] // sizes["chips_x"],
        usable_cores(profile),
    )


def unmapped(profile: Profile) -> str:
    """Return why nothing can be placed on a target, '' where something can."""
    missing = [f"topology.{n}" for n in TOPOLOGY if getattr(profile.topology, n).value is None]
    if not missing:
        return ""
    return (
        f"{profile.id}: {', '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} unknown, a placement needs the grid of routers; "
        "take a profile that has it, such as loihi2, or export with --no-place"
    )


def usable_cores(profile: Profile) -> int:
    """Return how many cores of a chip a network may take, at most all of them."""
    topology = profile.topology
    seats = math.prod(int(getattr(topology, n).value or 0) for n in TOPOLOGY[:3])
    known = topology.cores_usable.value or topology.cores_total.value or seats
    return min(int(known), seats) if seats else int(known)


def plan(
    graph: ig.IntGraph,
    profile: Profile,
    messages: Messages | None = None,
    *,
    balance: bool = True,
) -> tuple[tuple[Slice, ...], ...]:
    """Return the slices of every core, without seats; arguments and errors as ``map_graph``."""
    splitter = Splitter.of(graph, prices(graph, profile, _rates(graph, messages)))
    least, usable = splitter.split(), usable_cores(profile)
    problems = network_excess(graph, profile, splitter, least)
    packer = _Packer.of(splitter)
    cores = [] if least.unfit else packer.pack(least)
    problems += board_excess(profile, len(cores), usable)
    if problems:
        raise does_not_fit(profile, problems)
    if balance and usable:
        room = -(-len(cores) // usable) * usable
        least, cores = _balanced(splitter, packer, least, cores, room, _shortest(splitter, profile))
    return packer.slices(least, cores)


def _rates(graph: ig.IntGraph, messages: Messages | None) -> dict[str, float]:
    """Return the mean messages per neuron and sample of every population."""
    if messages is None:
        return dict.fromkeys(graph.order, 1.0)
    return {n: float(np.mean(messages[n])) for n in graph.order}


@dataclass(frozen=True, eq=False)
class _Packer:
    """Packs the slices of splits of one graph."""

    splitter: Splitter
    programs: tuple[int, ...]
    near: Mapping[int, tuple[int, ...]]

    @classmethod
    def of(cls, splitter: Splitter) -> _Packer:
        names = list(splitter.choices)
        number = {n: i for i, n in enumerate(names)}
        kinds: dict[tuple[object, ...], int] = {}
        layers = [splitter.choices[n].layer for n in names]
        programs = tuple(kinds.setdefault(layer.program, len(kinds)) for layer in layers)
        near: dict[int, list[int]] = {i: [] for i in range(len(names))}
        for layer in layers:
            for link in layer.links:
                if link.source in number:
                    near[number[layer.name]].append(number[link.source])
                    near[number[link.source]].append(number[layer.name])
        return cls(splitter, programs, {i: tuple(dict.fromkeys(v)) for i, v in near.items()})

    def pack(self, split: Split, most: float = np.inf) -> list[list[int]]:
        """Return the slices of every core, numbered layer by layer; loads up to ``most``."""
        parts = [grid.parts for grid in split.grids.values()]
        needs = np.array([[*split.needs[n], split.loads[n]] for n in split.grids])
        layer = np.repeat(np.arange(len(parts)), parts)
        limits = np.append(self.splitter.prices.limits, most)
        programs = limits[PROGRAMS]
        limits[PROGRAMS] = np.inf  # counted by kind
        return pack(Items(layer, needs[layer], self.programs, self.near), limits, programs)

    @staticmethod
    def slices(split: Split, cores: list[list[int]]) -> tuple[tuple[Slice, ...], ...]:
        """Return the slices of every core as such."""
        every = [
            Slice(name, tuple((first, last) for first, last in box))
            for name, grid in split.grids.items()
            for box in grid.boxes().tolist()
        ]
        return tuple(tuple(every[i] for i in core) for core in cores)


def _balanced(
    splitter: Splitter,
    packer: _Packer,
    least: Split,
    cores: list[list[int]],
    room: int,
    shortest: float,
) -> tuple[Split, list[list[int]]]:
    """Return the split and its cores with the smallest load of the busiest core that was found, on
    at most ``room`` cores. Loads below ``shortest`` are all the same."""
    loads = np.concatenate([np.full(g.parts, least.loads[n]) for n, g in least.grids.items()])
    high = max(float(loads[core].sum()) for core in cores)
    low = max(float(loads.sum()) / room, shortest)
    found = least, cores
    while low * EVEN < high:
        middle = math.sqrt(low * high)
        split = splitter.split(middle)
        packed = None if split.unfit else packer.pack(split, middle)
        if packed is None or len(packed) > room:
            low = middle
        else:
            found, high = (split, packed), middle
    return found


def _shortest(splitter: Splitter, profile: Profile) -> float:
    """Return the load of a core per sample that fills the target's shortest step, at least 1."""
    times = [nanoseconds(q) for q in (profile.time.step_floor, profile.time.barrier)]
    known = [t for t in times if t is not None]
    synop = nanoseconds(profile.time.synop)
    comparable = known and synop is not None and nanoseconds(profile.time.neuron_update) is not None
    return max(1.0, max(known) * splitter.prices.steps if comparable else 1.0)


def traffic(found: Flows, cores: int):
    """Return messages per sample from core to core, scipy.sparse (cores, cores)."""
    from scipy import sparse

    pairs = (found.source, found.target)
    return sparse.coo_array((found.messages, pairs), (cores, cores)).tocsr()
