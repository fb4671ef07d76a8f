"""Carry out a plan: convert its items, in several processes, so that a cut-off can go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from neuroav.data import cache
from neuroav.data.cache import SPLITS, Recordings
from neuroav.data.plans import Broken, Converted, Item, Plan
from neuroav.data.ragged import Ragged

Progress = Callable[[str, int, int], None]


def carry_out(
    plan: Plan,
    data_root: Path,
    path: Path,
    made_with: dict[str, str],
    *,
    jobs: int = 1,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> None:
    """Convert every item of ``plan`` and write the cache file ``path``."""
    kept: list[tuple[Item, Converted]] = []
    skipped: dict[str, str] = {}
    for done, item in enumerate(plan.items, start=1):
        try:
            kept.append((item, plan.convert(data_root, item)))
        except Broken as error:
            skipped[item.name] = str(error)
        if progress is not None:
            progress("convert", done, len(plan.items))
    cache.save(path, _joined(plan, kept, skipped), made_with)


def _joined(plan: Plan, kept: list[tuple[Item, Converted]], skipped: dict[str, str]) -> Recordings:
    def ragged(modality: str) -> Ragged | None:
        parts = [getattr(c, modality) for _, c in kept]
        if parts[0] is None:
            return None
        offsets = np.concatenate([[0], np.cumsum([len(next(iter(p.values()))) for p in parts])])
        columns = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        return Ragged(columns, offsets.astype(np.int64))

    source = {k: np.stack([c.source[k] for _, c in kept]) for k in kept[0][1].source}
    source["name"] = np.array([i.name.encode() for i, _ in kept])
    return Recordings(
        ragged("audio"),
        ragged("visual"),
        np.array([i.label for i, _ in kept], np.int64),
        np.array([SPLITS.index(i.split) for i, _ in kept], np.uint8),
        {**plan.meta, "skipped": skipped},
        source,
    )
