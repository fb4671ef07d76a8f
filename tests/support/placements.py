"""Placements at random: populations cut into slices, slices dealt to cores, cores to seats."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from neuroav import integer as ig
from neuroav.placement import Core, Mesh, Placement, Slice, placed, verify_placement

MESH = Mesh(routers_x=3, routers_y=2, cores_per_router=2, chips_x=2, chips_y=2, cores_usable=11)


def boxes(rng: np.random.Generator, pop: ig.Population):
    """Return boxes that cover a population, cut along random axes where it may be cut."""
    found = [tuple((0, size) for size in pop.shape)]
    for axis, size in enumerate(pop.shape):
        edges = {0, size, *rng.integers(0, size + 1, 2).tolist()}
        if isinstance(pop, ig.ATTENTION_CLASSES):
            if axis == 0:
                edges = {e - e % pop.head_channels for e in edges} | {0, size}
            if isinstance(pop, ig.IntSpatialAttention) if axis else getattr(pop, "scrambled", 0):
                edges = {0, size}
        spans = list(pairwise(sorted(edges)))
        found = [(*b[:axis], span, *b[axis + 1 :]) for b in found for span in spans]
    return found


def random_placement(graph: ig.IntGraph, seed: int, mesh: Mesh = MESH) -> Placement:
    """Return a valid placement of a graph on some of the seats of a mesh."""
    rng = np.random.default_rng(seed)
    parts = [Slice(n, box) for n in placed(graph) for box in boxes(rng, graph.populations[n])]
    count = int(rng.integers(1, min(len(parts), 24) + 1))
    taken: list[list[Slice]] = [[] for _ in range(count)]
    for number, part in enumerate(parts):  # every core gets one, the rest anywhere
        taken[number if number < count else int(rng.integers(count))].append(part)
    size = (mesh.chips, mesh.routers_x, mesh.routers_y, mesh.cores_per_router)
    seats = rng.permutation(int(np.prod(size)))[:count]
    cores = tuple(
        Core(tuple(inside), *(int(v) for v in np.unravel_index(seat, size)))
        for inside, seat in zip(taken, seats, strict=True)
    )
    return verify_placement(graph, Placement("test", mesh, cores, seed))
