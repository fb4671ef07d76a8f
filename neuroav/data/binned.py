"""Events of unequal recordings in equal spans of each one's own duration (stub, see below)."""

from __future__ import annotations

from dataclasses import dataclass

from neuroav.data.avsplit import AVSplit


@dataclass(frozen=True)
class BinnedSpec:
    """steps: bins per recording."""

    steps: int = 16


@dataclass(frozen=True)
class BinnedSplit(AVSplit):
    """One split of recordings laid out so."""
