"""Slices packed into cores: first-fit decreasing by the scarcest resource, connected ones first."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

OPEN = 256  # newest cores that are tried for a slice; keeps the work in proportion to the slices
NEAR = 16  # newest cores of every connected layer, tried before


@dataclass(frozen=True, eq=False)
class Items:
    """What is packed: slices of layers, in the order of layers and of their parts.

    layer: number of each slice's layer, int64 (slices,). needs: float64 (slices, resources), the
    last column the load. programs: number of each layer's program. near: layers connected to each.
    """

    layer: np.ndarray
    needs: np.ndarray
    programs: Sequence[int]
    near: Mapping[int, Sequence[int]]


def pack(items: Items, limits: np.ndarray, programs: float = np.inf) -> list[list[int]]:
    """Return the slices of every core, numbers into ``items``; all fit ``limits`` (resources,).

    programs: how many a core holds. A slice beyond a limit gets a core of its own. Cores and the
    slices in them are in the order of ``items``.
    """
    with np.errstate(invalid="ignore"):
        share = np.where(np.isfinite(limits), items.needs / limits, 0.0).max(axis=1, initial=0.0)
    used = np.empty_like(items.needs)
    cores: list[list[int]] = []
    kinds: list[set[int]] = []
    near: dict[int, deque[int]] = defaultdict(lambda: deque(maxlen=NEAR))
    newest: deque[int] = deque(maxlen=OPEN)
    for item in np.lexsort((np.arange(len(share)), -share)).tolist():
        need, layer = items.needs[item], int(items.layer[item])
        kind = items.programs[layer]
        tried = [c for n in (layer, *items.near[layer]) for c in near[n]]
        core = _first(tried, used, need, limits, kinds, kind, programs)
        if core is None:
            core = _first(list(newest), used, need, limits, kinds, kind, programs)
        if core is None:
            core = len(cores)
            cores.append([])
            kinds.append(set())
            used[core] = 0
            newest.append(core)
        cores[core].append(item)
        kinds[core].add(kind)
        used[core] += need
        if not near[layer] or near[layer][-1] != core:
            near[layer].append(core)
    return sorted(sorted(core) for core in cores)


def _first(tried, used, need, limits, kinds, kind, programs) -> int | None:
    """Return the first of the cores ``tried`` that has room for ``need``."""
    if not tried:
        return None
    room = (used[tried] + need <= limits).all(axis=1)
    for place in np.flatnonzero(room):
        core = tried[place]
        if kind in kinds[core] or len(kinds[core]) < programs:
            return core
    return None
