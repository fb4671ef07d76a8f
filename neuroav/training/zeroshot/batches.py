"""Class-balanced batches with a negative for every anchor, as in the AVCA benchmark."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from neuroav.data.zeroshot import Features
from neuroav.errors import DataError
from neuroav.models.zeroshot.parts import MODALITIES
from neuroav.training.zeroshot.losses import Batch


class BalancedBatches:
    """Draws anchors evenly over classes, then over a class's samples; negatives likewise from the
    other classes. text: (classes, W) float32."""

    def __init__(self, features: Features, text: np.ndarray, batch_size: int) -> None:
        self.features, self.text, self.batch_size = features, text, batch_size
        self.classes = np.unique(features.labels)
        if len(self.classes) < 2:
            raise DataError(
                f"training needs samples of two classes and more, found {len(self.classes)}"
            )
        self.members = [np.flatnonzero(features.labels == c) for c in self.classes]

    def epoch(self, count: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Yield ``count`` batches; deterministic given the state of ``rng``."""
        total = len(self.classes)
        for _ in range(count):
            anchor = rng.integers(total, size=self.batch_size)
            other = (anchor + rng.integers(1, total, size=self.batch_size)) % total
            rows = np.concatenate([self._draw(anchor, rng), self._draw(other, rng)])
            yield Batch(
                inputs_of(self.features, rows),
                torch.from_numpy(self.text[self.classes[anchor]]),
                torch.from_numpy(self.text[self.classes[other]]),
            )

    def _draw(self, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return one sample of every given class, by its place in ``self.classes``."""
        place = rng.random(len(classes))
        mine = [self.members[c] for c in classes]
        return np.array([rows[int(p * len(rows))] for rows, p in zip(mine, place, strict=True)])


def inputs_of(features: Features, rows: np.ndarray) -> dict[str, torch.Tensor]:
    """Return (T, B, D) float32 by modality; T = 1 for vectors, which do not change."""
    found = {}
    for modality in MODALITIES:
        part = torch.from_numpy(getattr(features, modality)[rows])
        found[modality] = part[None] if part.ndim == 2 else part.transpose(0, 1)
    return found
