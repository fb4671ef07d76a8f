"""Seats on a mesh of routers, and how far the messages between them travel.

Seats are int64 (cores, 4): chip, column and row of the router on its chip, slot at the router. A
message goes from router to router, first along a row, then along a column (XY routing). Each step
is one hop, from one chip to the next as well: the routers of all chips form one grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from neuroav.errors import StageError
from neuroav.placement import Mesh


def row_major(count: int, mesh: Mesh) -> np.ndarray:
    """Return the seats of ``count`` cores in order: router by router, row by row, chip by chip."""
    number = np.arange(count)
    return seats_of(number // mesh.usable, number % mesh.usable // mesh.cores_per_router, mesh)


def seats_of(chip: np.ndarray, router: np.ndarray, mesh: Mesh) -> np.ndarray:
    """Return the seats of cores on given routers, numbered row by row; slots in order of cores."""
    place = chip * mesh.routers_x * mesh.routers_y + router
    order = np.argsort(place, kind="stable")
    ordered = place[order]
    slot = np.empty_like(place)
    slot[order] = np.arange(len(place)) - np.searchsorted(ordered, ordered)
    return np.stack([chip, router % mesh.routers_x, router // mesh.routers_x, slot], 1)


def positions(seats: np.ndarray, mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Return column and row of every seat's router on the whole board, int64 (cores,)."""
    chip_x, chip_y = chip_positions(seats[:, 0], mesh)
    return chip_x * mesh.routers_x + seats[:, 1], chip_y * mesh.routers_y + seats[:, 2]


def chip_positions(chip: np.ndarray, mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Return column and row of every chip on the board."""
    return chip % mesh.chips_x, chip // mesh.chips_x


def hops(traffic: Any, seats: np.ndarray, mesh: Mesh) -> tuple[float, float]:
    """Return the hops of all messages per sample: (along x, from column to column; along y).

    traffic: messages per sample from core i to core j, (cores, cores), an array or scipy.sparse.
    """
    return _travelled(traffic, *positions(seats, mesh))


def total_hops(traffic: Any, seats: np.ndarray, mesh: Mesh) -> float:
    """Return the hops of all messages per sample; see ``hops``."""
    return sum(hops(traffic, seats, mesh))


def chip_crossings(traffic: Any, seats: np.ndarray, mesh: Mesh) -> float:
    """Return how often messages cross from a chip to the next one, per sample; see ``hops``."""
    return sum(_travelled(traffic, *chip_positions(seats[:, 0], mesh)))


def _travelled(traffic: Any, x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    messages = sparse.coo_array(traffic)
    source, target = messages.row, messages.col
    return (
        float(messages.data @ np.abs(x[source] - x[target])),
        float(messages.data @ np.abs(y[source] - y[target])),
    )


def exchanged(traffic: Any) -> sparse.csr_array:
    """Return the messages between every two cores, both ways added: symmetric, float64, sparse.

    What a core sends to itself is left out. StageError unless ``traffic`` is square, finite and
    nowhere negative.
    """
    given = sparse.coo_array(traffic)
    if given.shape[0] != given.shape[1]:
        raise StageError(
            f"traffic between cores: found shape {given.shape}, allowed is (cores, cores)",
        )
    messages = given.data.astype(np.float64)
    if not (np.isfinite(messages).all() and (messages >= 0).all()):
        raise StageError(
            "traffic between cores: found a number that is negative or not finite, allowed are "
            "messages per sample, 0 or more",
        )
    counted = (given.row != given.col) & (messages > 0)
    row, column, messages = given.row[counted], given.col[counted], messages[counted]
    ends = np.concatenate([row, column]), np.concatenate([column, row])
    both = sparse.csr_array((np.tile(messages, 2), ends), shape=given.shape)
    both.sum_duplicates()
    return both
