"""What is said of a data set before any of it is read."""

from __future__ import annotations

from dataclasses import dataclass

from neuroav.data.augment import Augmentation


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about a data set.

    name, title, presets, classes (() where its files list them), licence; limits: what it cannot
    show; augmentation: what to alter its training recordings by. features: feature vectors and
    class texts (``neuroav.data.zeroshot``), not events. steps, visual_size: of its frames, unless
    something else is asked for. needs_files: read from the data root, not made here.
    """

    name: str
    title: str
    presets: tuple[str, ...]
    classes: tuple[str, ...]
    licence: str
    limits: tuple[str, ...]
    augmentation: Augmentation
    features: bool = False
    steps: int = 8
    visual_size: int = 16
    needs_files: bool = True
