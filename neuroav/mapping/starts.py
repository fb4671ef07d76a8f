"""First seatings of cores on the spots of a grid: in order, by bisection, by convex relaxation."""

from __future__ import annotations

from collections import deque

import numpy as np
import pymetis
from scipy import sparse
from scipy.optimize import quadratic_assignment

from neuroav.mapping.swaps import Task

_INDEX = pymetis.zero_copy_dtype()
_HEAVIEST = 2**30  # METIS may be built with 32-bit weights, which it sums up


def in_order(task: Task) -> np.ndarray:
    """Return the spots of the cores in order: spot by spot, row by row."""
    return np.repeat(np.arange(len(task.room)), task.room)[: task.cores]


def compact(room: np.ndarray, columns: int, cores: int) -> np.ndarray:
    """Return the spots of a block near a square that just takes ``cores``, in order.

    All spots of ``room`` that are not 0 take the same number of cores.
    """
    rows = len(room) // columns
    needed = -(-cores // int(room.max()))
    width = min(
        (w for w in range(1, columns + 1) if -(-needed // w) <= rows),
        key=lambda w: (w + -(-needed // w), abs(2 * w - columns)),
    )
    block = np.arange(needed)
    return block // width * columns + block % width


def partitioned(
    messages: sparse.csr_array, parts: int, largest: int, seed: int, *, evenly: bool
) -> np.ndarray:
    """Return the part of every core, few messages between parts, none larger than ``largest``.

    METIS, k-way; it keeps to the size roughly, so cores whose move costs least then leave parts
    that are too large. evenly: parts of nearly equal size even where there is room to spare.
    """
    cores = messages.shape[0]
    spare = 1000 * (largest * parts - cores) // cores
    ufactor = min(30, spare) if evenly else spare
    part = _metis(messages, parts, seed, recursive=False, ufactor=max(1, ufactor))
    return _evened(messages, part, np.full(parts, largest))


def bisected(task: Task, seed: int) -> np.ndarray:
    """Return spots by halving cores and spots again and again, few messages between the halves.

    Recursive min-cut bisection (Breuer 1977); which half of the cores goes to which half of the
    spots is chosen by what lies outside (Dunlop and Kernighan 1985).
    """
    cores, result = np.arange(task.cores), np.empty(task.cores, np.int64)
    region, regions = np.zeros(task.cores, np.int64), 0
    x, y = np.zeros(task.cores), np.zeros(task.cores)
    todo = deque([(cores, task.messages, compact(task.room, task.columns, task.cores))])
    while todo:
        cores, messages, spots = todo.popleft()
        if len(spots) == 1:
            result[cores] = spots[0]
            continue
        halves = _halved(task, spots)
        room = [int(task.room[half].sum()) for half in halves]
        left = int(np.clip(round(len(cores) * room[0] / sum(room)), len(cores) - room[1], room[0]))
        first = _first_half(messages, left, seed)
        centres = [_centre(task, half) for half in halves]
        if len(cores) - left <= room[0] and left <= room[1]:
            gain = _nearer(task, cores, region, x, y, centres)
            if gain[first].sum() > gain[~first].sum():
                first = ~first
        for chosen, half, centre in zip((first, ~first), halves, centres, strict=True):
            inside = np.flatnonzero(chosen)
            regions += 1
            region[cores[inside]] = regions
            x[cores[inside]], y[cores[inside]] = centre
            if len(inside):
                todo.append((cores[inside], messages[inside][:, inside], half))
    return result


def relaxed(task: Task, rng: np.random.Generator | None) -> np.ndarray:
    """Return spots by the quadratic assignment problem over doubly stochastic matrices.

    FAQ (Vogelstein et al. 2015) as in SciPy, from the barycentre, or from a random matrix where
    there is ``rng``. Every seat is an item of its own: for dozens to a few hundred seats, those of
    a block twice as large as the cores need. Columns and rows join as fixed items that pull.
    """
    spots = compact(task.room, task.columns, min(2 * task.cores, int(task.room.sum())))
    seats = np.repeat(spots, task.room[spots])
    fixed = task.columns + task.rows
    size = len(seats) + fixed
    messages, apart = np.zeros((size, size)), np.zeros((size, size))
    pulls = np.concatenate([task.pull_x, task.pull_y], 1)
    messages[fixed : fixed + task.cores, fixed : fixed + task.cores] = task.messages.toarray()
    messages[fixed : fixed + task.cores, :fixed] = 2 * pulls
    x, y = seats % task.columns, seats // task.columns
    apart[fixed:, fixed:] = np.abs(x[:, None] - x) + np.abs(y[:, None] - y)
    apart[fixed:, : task.columns] = np.abs(x[:, None] - np.arange(task.columns))
    apart[fixed:, task.columns : fixed] = np.abs(y[:, None] - np.arange(task.rows))
    pinned = np.arange(fixed)
    options = {
        "partial_match": np.stack([pinned, pinned], 1),
        "P0": "barycenter" if rng is None else "randomized",
        "rng": np.random.default_rng(0) if rng is None else rng,
    }
    found = quadratic_assignment(messages, apart, method="faq", options=options)
    return seats[found.col_ind[fixed : fixed + task.cores] - fixed]


def _metis(
    messages: sparse.csr_array,
    parts: int,
    seed: int,
    recursive: bool,
    ufactor: int,
    shares: list[float] | None = None,
) -> np.ndarray:
    """Return the part of every core as METIS has it; sizes may be off by ufactor thousandths."""
    scale = _HEAVIEST / max(float(messages.data.sum()), 1e-300)
    weights = np.maximum(1, np.floor(messages.data * scale)).astype(_INDEX)
    found = pymetis.part_graph(
        parts,
        pymetis.CSRAdjacency(messages.indptr.astype(_INDEX), messages.indices.astype(_INDEX)),
        eweights=weights,
        tpwgts=shares,
        recursive=recursive,
        options=pymetis.Options(seed=seed, ufactor=ufactor),
    )
    return np.array(found.vertex_part, np.int64)


def _first_half(messages: sparse.csr_array, left: int, seed: int) -> np.ndarray:
    """Return which ``left`` cores form the first of two halves, bool (cores,)."""
    cores = messages.shape[0]
    if left in (0, cores) or not messages.nnz:
        return np.arange(cores) < left
    shares = [left / cores, 1 - left / cores]
    part = _metis(messages, 2, seed, recursive=True, ufactor=1, shares=shares)
    return _evened(messages, part, np.array([left, cores - left])) == 0


def _evened(messages: sparse.csr_array, part: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Return the parts after the cheapest moves out of those larger than they may be."""
    part = part.copy()
    size = np.bincount(part, minlength=len(largest))
    while (size > largest).any():
        crowded, open_ = size > largest, np.flatnonzero(size < largest)
        movable = np.flatnonzero(crowded[part])
        one_hot = sparse.csr_array(
            (np.ones(len(part)), (np.arange(len(part)), part)), shape=(len(part), len(largest))
        )
        linked = (messages[movable] @ one_hot).toarray()
        gain = linked[:, open_] - linked[np.arange(len(movable)), part[movable]][:, None]
        core, target = np.unravel_index(gain.argmax(), gain.shape)
        size[part[movable[core]]] -= 1
        part[movable[core]] = open_[target]
        size[open_[target]] += 1
    return part


def _halved(task: Task, spots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the spots in two halves, cut across the longer side."""
    x, y = spots % task.columns, spots // task.columns
    keys = (y, x) if np.ptp(x) >= np.ptp(y) else (x, y)
    ordered = spots[np.lexsort(keys)]
    return ordered[: len(spots) // 2], ordered[len(spots) // 2 :]


def _centre(task: Task, spots: np.ndarray) -> tuple[float, float]:
    return float((spots % task.columns).mean()), float((spots // task.columns).mean())


def _nearer(
    task: Task,
    cores: np.ndarray,
    region: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    centres: list[tuple[float, float]],
) -> np.ndarray:
    """Return the hops that each core would save outside its region at the second centre."""
    rows = task.messages[cores]
    owner = np.repeat(np.arange(len(cores)), np.diff(rows.indptr))
    outside = region[rows.indices] != region[cores[0]]
    partner, weight = rows.indices[outside], rows.data[outside]
    saved = np.zeros(len(cores))
    for place, pull, line in ((x, task.pull_x, 0), (y, task.pull_y, 1)):
        first, second = centres[0][line], centres[1][line]
        apart = np.abs(place[partner] - first) - np.abs(place[partner] - second)
        saved += np.bincount(owner[outside], weight * apart, len(cores))
        steps = np.arange(pull.shape[1])
        saved += pull[cores] @ (np.abs(steps - first) - np.abs(steps - second))
    return saved
