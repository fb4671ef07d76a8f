"""Cores on the spots of a grid, improved by swaps and moves until none of them helps.

A spot is a router with its cores, or a chip with its cores. What a core costs in every column and
every row is kept and mended after each move, so that all partners of a swap are judged at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy import sparse

NEGLIGIBLE = 1e-9  # of all hops: what rounding can feign
BLOCK = 2**17  # pairs of cores judged at once: they stay in the cache


@dataclass(frozen=True, eq=False)
class Task:
    """Cores that need spots on a grid.

    messages: symmetric (cores, cores) without diagonal, what two cores exchange per sample.
    columns, rows: the grid; spot s lies in column s % columns, row s // columns.
    room: int64 (spots,), cores that each spot takes.
    pull_x, pull_y: float64 (cores, columns) and (cores, rows), what a core exchanges with others
    that stay where they are, by their column and row. What lies outside the grid counts at its
    edge, since the way from there on is the same for all spots.
    """

    messages: sparse.csr_array
    columns: int
    rows: int
    room: np.ndarray
    pull_x: np.ndarray
    pull_y: np.ndarray

    @property
    def cores(self) -> int:
        return self.messages.shape[0]

    @cached_property
    def owner(self) -> np.ndarray:
        """Row of every entry of ``messages``."""
        return np.repeat(np.arange(self.cores), np.diff(self.messages.indptr))

    def hops(self, spots: np.ndarray) -> float:
        """Return the hops of a seating, int64 (cores,)."""
        x, y = spots % self.columns, spots // self.columns
        partner, owner = self.messages.indices, self.owner
        inside = np.abs(x[owner] - x[partner]) + np.abs(y[owner] - y[partner])
        pulled = (self.pull_x * np.abs(np.arange(self.columns) - x[:, None])).sum()
        pulled += (self.pull_y * np.abs(np.arange(self.rows) - y[:, None])).sum()
        return float(self.messages.data @ inside / 2 + pulled)


def unpulled(messages: sparse.csr_array, columns: int, rows: int, room: np.ndarray) -> Task:
    """Return a task in which nothing outside it matters."""
    cores = messages.shape[0]
    nothing = np.broadcast_to(0.0, (cores, columns)), np.broadcast_to(0.0, (cores, rows))
    return Task(messages, columns, rows, room, *nothing)


def swapped(task: Task, spots: np.ndarray, passes: int = 100) -> np.ndarray:
    """Return ``spots`` after swaps and moves, each the best of one core, until none helps."""
    search = _Search(task, spots)
    search.descend(passes)
    return search.spots


def kicked(
    task: Task, spots: np.ndarray, rounds: int, rng: np.random.Generator, strength: int = 5
) -> np.ndarray:
    """Return the best of ``rounds`` times: exchange a few cores at random, then ``swapped``.

    Iterated local search: each round starts from the best seating so far.
    """
    best, fewest = spots, task.hops(spots)
    for _ in range(rounds):
        search = _Search(task, best)
        search.kick(min(strength, task.cores), rng)
        search.descend(100)
        hops = task.hops(search.spots)
        if hops < fewest * (1 - NEGLIGIBLE):
            best, fewest = search.spots, hops
    return best


class _Search:
    """A seating under change.

    x, y: column and row of every core. cost_x[i, c]: hops along x if core i were in column c and
    all others stayed; cost_y alike. own: hops of every core where it is. free_x, free_y: seats that
    no core has.
    """

    def __init__(self, task: Task, spots: np.ndarray) -> None:
        messages = task.messages
        self.start, self.partner, self.weight = messages.indptr, messages.indices, messages.data
        self.columns, self.rows = np.arange(task.columns), np.arange(task.rows)
        self.x, self.y = spots % task.columns, spots // task.columns
        taken = np.bincount(spots, minlength=len(task.room))
        free = np.repeat(np.arange(len(task.room)), task.room - taken)
        self.free_x, self.free_y = free % task.columns, free // task.columns
        self.cost_x = _line(messages, self.x, self.columns, task.pull_x)
        self.cost_y = _line(messages, self.y, self.rows, task.pull_y)
        cores = np.arange(task.cores)
        self.own = self.cost_x[cores, self.x] + self.cost_y[cores, self.y]
        self.least = NEGLIGIBLE * max(float(self.own.sum()), 1e-300)

    @property
    def spots(self) -> np.ndarray:
        return self.y * len(self.columns) + self.x

    def descend(self, passes: int) -> None:
        """Swap or move every core that this helps, most helpful first, until it helps none."""
        for _ in range(passes):
            saved = self.savings()
            helped = np.flatnonzero(saved > self.least)
            if not len(helped):
                return
            for core in helped[np.argsort(-saved[helped], kind="stable")]:
                self.improve(core)

    def savings(self) -> np.ndarray:
        """Return the hops that the best swap or move of every core saves."""
        cores = len(self.x)
        block = max(1, BLOCK // cores)
        return np.concatenate(
            [self.block_savings(first, first + block) for first in range(0, cores, block)]
        )

    def block_savings(self, first: int, last: int) -> np.ndarray:
        """Return ``savings`` of the cores first, ..., last - 1."""
        some = slice(first, last)
        x, y, own = self.x[some], self.y[some], self.own[some]
        change = np.take(self.cost_x[some], self.x, 1) + np.take(self.cost_y[some], self.y, 1)
        change += np.take(self.cost_x, x, 1).T
        change += np.take(self.cost_y, y, 1).T
        change -= self.own
        start = self.start[first : last + 1]
        owner = np.repeat(np.arange(len(x)), np.diff(start))
        partner, weight = (a[start[0] : start[-1]] for a in (self.partner, self.weight))
        apart = np.abs(self.x[partner] - x[owner]) + np.abs(self.y[partner] - y[owner])
        change[owner, partner] += 2 * weight * apart
        best = change.min(1)
        if len(self.free_x):
            there = np.take(self.cost_x[some], self.free_x, 1)
            there += np.take(self.cost_y[some], self.free_y, 1)
            best = np.minimum(best, there.min(1))
        return own - best

    def improve(self, core: int) -> bool:
        """Do what saves most hops: swap the core with another, or move it to a free seat."""
        x, y = self.x[core], self.y[core]
        change = self.cost_x[core, self.x] + self.cost_y[core, self.y]
        change += self.cost_x[:, x]
        change += self.cost_y[:, y]
        change -= self.own
        ends = slice(self.start[core], self.start[core + 1])
        partner = self.partner[ends]
        # Two that exchange messages are as far apart after their swap as before it.
        apart = np.abs(self.x[partner] - x) + np.abs(self.y[partner] - y)
        change[partner] += 2 * self.weight[ends] * apart
        other = int(change.argmin())
        best = change[other] - self.own[core]
        if len(self.free_x):
            there = self.cost_x[core, self.free_x] + self.cost_y[core, self.free_y]
            seat = int(there.argmin())
            if there[seat] - self.own[core] <= min(best, -self.least):
                self.move_to_free(core, seat)
                return True
        if best < -self.least:
            self.swap(core, other)
            return True
        return False

    def kick(self, strength: int, rng: np.random.Generator) -> None:
        """Exchange ``strength`` cores at random; one of them may get a free seat."""
        chosen = rng.choice(len(self.x), strength, replace=False)
        for core, other in pairwise(chosen):
            self.swap(core, other)
        if len(self.free_x):
            self.move_to_free(chosen[0], int(rng.integers(len(self.free_x))))

    def move_to_free(self, core: int, seat: int) -> None:
        x, y = self.free_x[seat], self.free_y[seat]
        self.free_x[seat], self.free_y[seat] = self.x[core], self.y[core]
        self.move(core, x, y)

    def swap(self, core: int, other: int) -> None:
        x, y = self.x[core], self.y[core]
        self.move(core, self.x[other], self.y[other])
        self.move(other, x, y)

    def move(self, core: int, x: int, y: int) -> None:
        ends = slice(self.start[core], self.start[core + 1])
        partner, weight = self.partner[ends], self.weight[ends, None]
        step_x = np.abs(self.columns - x) - np.abs(self.columns - self.x[core])
        step_y = np.abs(self.rows - y) - np.abs(self.rows - self.y[core])
        self.cost_x[partner] += weight * step_x
        self.cost_y[partner] += weight * step_y
        self.x[core], self.y[core] = x, y
        own = self.cost_x[partner, self.x[partner]] + self.cost_y[partner, self.y[partner]]
        self.own[partner] = own
        self.own[core] = self.cost_x[core, x] + self.cost_y[core, y]


def _line(
    messages: sparse.csr_array, place: np.ndarray, line: np.ndarray, pull: np.ndarray
) -> np.ndarray:
    """Return the hops along one axis of every core at every place of the line."""
    apart = np.abs(line[:, None] - line).astype(np.float64)
    return messages @ apart[place] + pull @ apart
