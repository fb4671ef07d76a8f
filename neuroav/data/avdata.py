"""A prepared data set as networks see it: its splits, classes and what identifies it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroav.data.augment import Augmentation
from neuroav.data.avsplit import AVSplit
from neuroav.data.binned import BinnedSpec, BinnedSplit
from neuroav.data.cache import SPLITS, Recordings
from neuroav.data.frames import FrameSpec
from neuroav.data.stills import StillSpec, StillSplit
from neuroav.errors import DataError, unknown_name


@dataclass(frozen=True)
class OpenSpec:
    """Sizes wanted of a data set whose layout its recordings alone say (``meta["layout"]``)."""

    steps: int
    visual_size: int

    def of(self, layout: str) -> FrameSpec | BinnedSpec | StillSpec:
        """The layout named, at these sizes; ConfigError where it cannot be of them."""
        if layout == "binned":
            return BinnedSpec(self.steps)
        if layout == "stills":
            return StillSpec(self.steps, self.visual_size)
        return FrameSpec(steps=self.steps, visual_size=self.visual_size)


Spec = FrameSpec | BinnedSpec | StillSpec | OpenSpec
_SPLIT_TYPES: dict[type, type[AVSplit]] = {
    FrameSpec: AVSplit,
    BinnedSpec: BinnedSplit,
    StillSpec: StillSplit,
}


@dataclass(frozen=True)
class AVData:
    """A data set ready for use. content_hash identifies its events; see ``neuroav.data.cache``.

    augmentation: what to alter its training recordings by, unless something else is wanted.
    spec: never an ``OpenSpec``.
    """

    name: str
    preset: str
    data_seed: int
    content_hash: str
    classes: tuple[str, ...]
    spec: Spec
    splits: dict[str, AVSplit]
    augmentation: Augmentation

    @classmethod
    def of(
        cls, recordings: Recordings, spec: Spec, augmentation: Augmentation | None = None
    ) -> AVData:
        """The recordings seen through ``spec``, with the augmentation recommended for them.

        What ``meta["augmentation"]`` says goes before ``augmentation``.
        """
        meta = recordings.meta
        if isinstance(spec, OpenSpec):
            spec = spec.of(meta["layout"])
        if "augmentation" in meta:
            augmentation = Augmentation(**meta["augmentation"])
        splits = {}
        chosen_by_test = meta.get("validation") == "test"
        for code, name in enumerate(SPLITS):
            wanted = SPLITS.index("test") if name == "val" and chosen_by_test else code
            rows = np.flatnonzero(recordings.split == wanted)
            splits[name] = _SPLIT_TYPES[type(spec)](
                name, recordings.labels[rows], recordings, rows, spec
            )
        classes = tuple(meta["classes"])
        content_hash = recordings.content_hash
        return cls(
            meta["name"],
            meta["preset"],
            meta["data_seed"],
            content_hash,
            classes,
            spec,
            splits,
            augmentation or Augmentation(),
        )

    def split(self, name: str) -> AVSplit:
        """The split ``train``, ``val`` or ``test``; DataError for another name."""
        if name not in self.splits:
            raise unknown_name("split", name, self.splits, DataError)
        return self.splits[name]
