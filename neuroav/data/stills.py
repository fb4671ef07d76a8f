"""Pictures and spectrograms, the same in every step (stub, see below)."""

from __future__ import annotations

from dataclasses import dataclass

from neuroav.data.avsplit import AVSplit


@dataclass(frozen=True)
class StillSpec:
    """steps: how often the sample is shown."""

    steps: int = 4


@dataclass(frozen=True)
class StillSplit(AVSplit):
    """One split of samples laid out so."""
