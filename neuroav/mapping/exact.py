"""Up to eight cores on one grid: a seating with the fewest hops there is.

Columns and rows cost apart: the hops along x depend on the columns of the cores alone, and closing
an empty column lengthens no way. So some optimum puts the cores into columns 0, 1, ..., m - 1, each
with a core, and the same holds for rows. A seating is then a partition of the cores into columns
and one into rows, each with an order of its blocks; it fits where no column shares more cores with
a row than a router takes. The best order of the blocks of a partition is found over all subsets of
blocks (the hops are the sum, over the gaps between columns, of the messages that cross the gap). Of
all pairs of partitions the cheapest that fits is the optimum. Eight cores have 4,140 partitions.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations

import numpy as np

EXACT_CORES = 8


def fewest_hops(messages: np.ndarray, columns: int, rows: int, room: int) -> np.ndarray:
    """Return the spot of every core, int64 (cores,), so that no seating has fewer hops.

    messages: float64 (cores, cores), symmetric, at most 8 cores. Spots are numbered row by row,
    ``columns`` in each of ``rows``, and each takes ``room`` cores; the cores must fit.
    """
    labels, crowded = _partitions(len(messages)), _crowded(len(messages), room)
    cuts = _cuts(messages)
    cost = _line_costs(labels, cuts)
    order = np.argsort(cost, kind="stable")
    blocks = labels.max(1) + 1
    wide, high = order[blocks[order] <= columns], order[blocks[order] <= rows]
    best, found = np.inf, (0, 0)
    for first in wide:
        near = high[: np.searchsorted(cost[high], best - cost[first])]
        if not len(near):
            break
        fits = crowded[near] @ crowded[first] == 0
        if fits.any():
            second = near[fits.argmax()]
            best, found = cost[first] + cost[second], (first, second)
    x, y = (_line(labels[number], cuts) for number in found)
    return y * columns + x


@cache
def _partitions(count: int) -> np.ndarray:
    """Return all partitions of ``count`` cores: the block of each, int64 (partitions, cores)."""
    grown = [[0]]
    for _ in range(count - 1):
        grown = [[*labels, block] for labels in grown for block in range(max(labels) + 2)]
    return np.array(grown)


@cache
def _crowded(count: int, room: int) -> np.ndarray:
    """Return float32 (partitions, subsets): 1 where room + 1 cores lie in one block together."""
    labels = _partitions(count)
    subsets = np.array(list(combinations(range(count), room + 1)), np.int64).reshape(-1, room + 1)
    chosen = labels[:, subsets]
    return (chosen == chosen[:, :, :1]).all(2).astype(np.float32)


def _cuts(messages: np.ndarray) -> np.ndarray:
    """Return the messages between every set of cores, a bit mask, and the others."""
    count = len(messages)
    inside = (np.arange(2**count)[:, None] >> np.arange(count) & 1).astype(np.float64)
    return ((inside @ messages) * (1 - inside)).sum(1)


def _line_costs(labels: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Return the fewest hops of every partition whose blocks lie in line, one step apart."""
    cost = np.empty(len(labels))
    blocks = labels.max(1) + 1
    for count in np.unique(blocks):
        chosen = blocks == count
        cost[chosen] = _prefix_costs(labels[chosen], int(count), cuts)[:, -1]
    return cost


def _prefix_costs(labels: np.ndarray, blocks: int, cuts: np.ndarray) -> np.ndarray:
    """Return the fewest hops up to the end of every set of blocks put first, a bit mask."""
    bits = 1 << np.arange(labels.shape[1])
    members = np.stack([(labels == b) @ bits for b in range(blocks)], 1)
    held = np.zeros((len(labels), 2**blocks), np.int64)
    cost = np.zeros((len(labels), 2**blocks))
    for first in range(1, 2**blocks):
        inside = [b for b in range(blocks) if first >> b & 1]
        held[:, first] = held[:, first ^ 1 << inside[0]] | members[:, inside[0]]
        before = np.min([cost[:, first ^ 1 << b] for b in inside], axis=0)
        cost[:, first] = before + cuts[held[:, first]]
    return cost


def _line(labels: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Return the place in line of every core, its blocks in the cheapest order."""
    blocks = int(labels.max()) + 1
    cost = _prefix_costs(labels[None], blocks, cuts)[0]
    place, first = np.empty(blocks, np.int64), 2**blocks - 1
    for end in reversed(range(blocks)):
        last = min((b for b in range(blocks) if first >> b & 1), key=lambda b: cost[first ^ 1 << b])
        place[last] = end
        first ^= 1 << last
    return place[labels]
