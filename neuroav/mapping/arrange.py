"""Logical cores to seats on the mesh: few messages between chips, then few hops.

First the chips: METIS parts the cores, the parts go to chips, swaps mend both. Then the routers,
chip by chip: several first seatings (in order, recursive bisection, convex relaxation), swaps and
moves until none helps, and random kicks. Up to eight cores on one chip get an optimal seating.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from scipy import sparse

from neuroav.errors import DoesNotFit
from neuroav.mapping.exact import EXACT_CORES, fewest_hops
from neuroav.mapping.mesh import chip_positions, exchanged, row_major, seats_of, total_hops
from neuroav.mapping.starts import bisected, in_order, partitioned, relaxed
from neuroav.mapping.swaps import Task, kicked, swapped, unpulled
from neuroav.placement import Mesh

# Networks of more cores get less of what takes more than linear time.
FEW = 512  # several relaxations of each chip, whose matrices have seats x seats numbers
SOME = 2048  # several starts for the chips
MANY = 16384  # swaps between chips; above, bisection, and swaps inside each chip only
KICKED = 4000  # cores x kicks


def arrange(traffic: Any, mesh: Mesh, *, seed: int = 0) -> np.ndarray:
    """Return chip, x, y and slot of every logical core, int64 (cores, 4), all different.

    traffic: (cores, cores), an array or scipy.sparse, mean messages per sample from core i to core
    j. The fewest chips are taken. Messages between chips come first, hops second: of the seatings
    tried, the one with fewest crossings that has no more hops than ``row_major``. So there are
    never more crossings nor more hops than in ``row_major``. The same seed gives the same seats.
    DoesNotFit where there are more cores than seats.
    """
    messages = exchanged(traffic)
    cores = messages.shape[0]
    if cores > mesh.chips * mesh.usable:
        raise DoesNotFit(
            f"placement: found {cores} cores, allowed are {mesh.usable} on each of {mesh.chips} "
            "chips; make the network smaller or take a profile with more chips"
        )
    if cores == 0:
        return np.empty((0, 4), np.int64)
    if cores <= min(EXACT_CORES, mesh.usable):
        return _optimal(messages, mesh)
    rng = np.random.default_rng(seed)
    plain = row_major(cores, mesh)
    most = total_hops(messages, plain, mesh)
    for chip in _chips(messages, mesh, rng):
        seats = _on_routers(messages, chip, mesh, rng)
        if total_hops(messages, seats, mesh) <= most:
            return seats
    return plain


def _optimal(messages: sparse.csr_array, mesh: Mesh) -> np.ndarray:
    """Return seats on the first chip that no other seating beats."""
    grid = mesh.routers_x, mesh.routers_y, mesh.cores_per_router
    routers = fewest_hops(messages.toarray(), *grid)
    return seats_of(np.zeros_like(routers), routers, mesh)


def _chips(
    messages: sparse.csr_array, mesh: Mesh, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Yield the chip of every core, int64 (cores,): fewest crossings first, in order last."""
    cores = messages.shape[0]
    in_line = np.arange(cores) // mesh.usable
    if cores > mesh.usable:
        room = np.full(mesh.chips, mesh.usable)
        board = unpulled(messages, mesh.chips_x, mesh.chips_y, room)
        found = [in_line, bisected(board, _seed(rng))]
        if cores <= MANY:
            found += [_parted(messages, mesh, evenly, rng) for evenly in (True, False) * 2]
            chosen = found if cores <= SOME else [min(found, key=board.hops)]
            found += [_mended(board, chip, 0, rng) for chip in chosen]
            found.append(_mended(board, min(found, key=board.hops), _kicks(cores), rng))
        fewest = board.hops(in_line)
        yield from sorted((chip for chip in found if board.hops(chip) <= fewest), key=board.hops)
    yield in_line


def _parted(
    messages: sparse.csr_array, mesh: Mesh, evenly: bool, rng: np.random.Generator
) -> np.ndarray:
    """Return the chip of every core: METIS parts the cores, then the parts are seated on chips."""
    parts = -(-messages.shape[0] // mesh.usable)
    part = partitioned(messages, parts, mesh.usable, _seed(rng), evenly=evenly)
    one_hot = sparse.csr_array((np.ones(len(part)), (np.arange(len(part)), part)))
    between = exchanged(one_hot.T @ messages @ one_hot)
    if parts <= EXACT_CORES:
        return fewest_hops(between.toarray(), mesh.chips_x, mesh.chips_y, 1)[part]
    board = unpulled(between, mesh.chips_x, mesh.chips_y, np.ones(mesh.chips, np.int64))
    return _searched(board, in_order(board), FEW, rng)[part]


def _mended(board: Task, chip: np.ndarray, kicks: int, rng: np.random.Generator) -> np.ndarray:
    """Return the chips of the cores after swaps, and moves between the chips in use."""
    used = np.bincount(chip, minlength=len(board.room)) > 0
    task = replace(board, room=board.room * used)
    return kicked(task, swapped(task, chip), kicks, rng)


def _on_routers(
    messages: sparse.csr_array, chip: np.ndarray, mesh: Mesh, rng: np.random.Generator
) -> np.ndarray:
    """Return seats on the given chips; one chip after the other is seated, the others staying."""
    groups = np.split(np.argsort(chip, kind="stable"), np.flatnonzero(np.diff(np.sort(chip))) + 1)
    routers = np.empty(len(chip), np.int64)
    for cores in groups:
        routers[cores] = np.arange(len(cores)) // mesh.cores_per_router
    for cores in groups:
        task = _on_chip(messages, cores, chip, routers, mesh)
        routers[cores] = _searched(task, routers[cores], len(chip), rng)
    if len(groups) > 1 and len(chip) <= MANY:
        for cores in groups:
            task = _on_chip(messages, cores, chip, routers, mesh)
            routers[cores] = swapped(task, routers[cores])
    return seats_of(chip, routers, mesh)


def _on_chip(
    messages: sparse.csr_array,
    cores: np.ndarray,
    chip: np.ndarray,
    routers: np.ndarray,
    mesh: Mesh,
) -> Task:
    """Return the task of seating ``cores``, all those of one chip, the other chips staying."""
    rows = messages[cores]
    owner = np.repeat(np.arange(len(cores)), np.diff(rows.indptr))
    away = chip[rows.indices] != chip[cores[0]]
    partner, weight, owner = rows.indices[away], rows.data[away], owner[away]
    here, there = chip_positions(chip[cores[0]], mesh), chip_positions(chip[partner], mesh)
    router = routers[partner] % mesh.routers_x, routers[partner] // mesh.routers_x
    pulls = []
    for size, own, other, place in zip(
        (mesh.routers_x, mesh.routers_y), here, there, router, strict=True
    ):
        nearest = np.clip((other - own) * size + place, 0, size - 1)
        pull = np.bincount(owner * size + nearest, weight, len(cores) * size)
        pulls.append(pull.reshape(len(cores), size))
    room = np.full(mesh.routers_x * mesh.routers_y, mesh.cores_per_router)
    inner = rows[:, cores]
    inner.sort_indices()
    return Task(inner, mesh.routers_x, mesh.routers_y, room, *pulls)


def _searched(task: Task, start: np.ndarray, cores: int, rng: np.random.Generator) -> np.ndarray:
    """Return the best seating found, none worse than ``start``. cores: of the whole network."""
    starts = [start, bisected(task, _seed(rng))]
    if cores <= MANY and task.room.sum() <= FEW:
        starts.append(relaxed(task, None))
        starts += [relaxed(task, rng) for _ in range(3 if cores <= FEW else 0)]
    if cores > MANY:
        starts = [min(starts, key=task.hops)]
    if task.cores <= MANY:
        starts = [swapped(task, spots) for spots in starts]
    return kicked(task, min(starts, key=task.hops), _kicks(cores), rng)


def _kicks(cores: int) -> int:
    return min(60, KICKED // cores)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))
