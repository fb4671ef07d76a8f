"""Event lists of unequal length, held as flat columns and offsets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """``columns[name][offsets[i]:offsets[i + 1]]`` are the events of item i.

    offsets is (items + 1,) int64; every column has ``offsets[-1]`` entries.
    """

    columns: dict[str, np.ndarray]
    offsets: np.ndarray

    @classmethod
    def build(cls, item: np.ndarray, items: int, **columns: np.ndarray) -> Ragged:
        """Group events, already in order of time, by their ``item`` number, keeping that order."""
        order = np.argsort(item, kind="stable")
        counts = np.bincount(item, minlength=items)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls({name: column[order] for name, column in columns.items()}, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, name: str) -> np.ndarray:
        return self.columns[name]

    @property
    def counts(self) -> np.ndarray:
        """Events per item, (items,) int64."""
        return np.diff(self.offsets)

    @property
    def item(self) -> np.ndarray:
        """Item number of every event, (events,) int64."""
        return np.repeat(np.arange(len(self)), self.counts)

    def one(self, i: int) -> dict[str, np.ndarray]:
        """The columns of item i."""
        part = slice(self.offsets[i], self.offsets[i + 1])
        return {name: column[part] for name, column in self.columns.items()}

    def take(self, indices: np.ndarray) -> Ragged:
        """The items at ``indices``, in that order; an item may come more than once."""
        counts = self.counts[indices]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        # Where each event lies: its item's start, plus its place within the item.
        source = np.repeat(self.offsets[indices] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Ragged({name: column[source] for name, column in self.columns.items()}, offsets)

    def keep(self, mask: np.ndarray) -> Ragged:
        """Only the events where ``mask`` (events,) is true; every item stays, perhaps empty."""
        running = np.concatenate([[0], np.cumsum(mask)])
        columns = {name: column[mask] for name, column in self.columns.items()}
        return Ragged(columns, running[self.offsets].astype(np.int64))

    @classmethod
    def join(cls, parts: list[Ragged]) -> Ragged:
        """The items of all parts, one part after the other."""
        counts = np.concatenate([part.counts for part in parts])
        columns = {
            name: np.concatenate([part[name] for part in parts]) for name in parts[0].columns
        }
        return cls(columns, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
