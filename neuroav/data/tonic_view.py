"""A split as a data set of the tonic library, so that tonic's transforms and caches apply to it.

tonic is GPL-3.0; it is imported only when a view is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from neuroav.data.avdata import AVSplit
from neuroav.errors import DataError, MissingDependency, unknown_name

MODALITIES = ("audio", "visual")


def tonic_dataset(
    split: AVSplit,
    modality: str,
    transform: Callable | None = None,
    target_transform: Callable | None = None,
) -> Any:
    """A ``tonic.dataset.Dataset`` whose item i is (events, label) of one modality of pair i.

    Events are a structured array as tonic's own data sets give them: audio t, x (cochlear
    channel), p (always 1) like SHD; visual x, y, t, p like NMNIST; t in us. ``sensor_size`` is
    (64, 1, 1) for audio and (34, 34, 2) for visual. Pairs are fixed and in manifest order.
    DataError for an unknown modality, MissingDependency without tonic.
    """
    if modality not in MODALITIES:
        raise unknown_name("modality", modality, MODALITIES, DataError)
    try:
        return _view(split, modality, transform, target_transform)
    except ImportError as err:
        raise MissingDependency(
            f"tonic cannot be imported ({err}): pip install 'neuroav[train]'"
        ) from None


def _view(
    split: AVSplit, modality: str, transform: Callable | None, target_transform: Callable | None
) -> Any:
    from tonic.dataset import Dataset
    from tonic.io import make_structured_array

    meta = split.recordings.meta
    audio = modality == "audio"
    names = ("t", "x", "p") if audio else ("x", "y", "t", "p")

    class View(Dataset):
        sensor_size = (meta["audio_channels"], 1, 1) if audio else (meta["sensor"],) * 2 + (2,)
        ordering = names
        dtype = np.dtype([(name, np.int64) for name in names])

        def __len__(self) -> int:
            return len(split)

        def __getitem__(self, index: int) -> tuple[Any, Any]:
            columns = _columns(split, modality, index)
            events = make_structured_array(*map(columns.get, names), dtype=self.dtype)
            label = int(split.labels[index])
            return (
                self.transform(events) if self.transform else events,
                self.target_transform(label) if self.target_transform else label,
            )

    return View("", transform, target_transform)


def _columns(split: AVSplit, modality: str, index: int) -> dict[str, np.ndarray]:
    """Events of one recording under tonic's names; IndexError past the end ends a for loop."""
    if not 0 <= index < len(split):
        raise IndexError(index)
    part = split.raw_events(index)[modality]
    if modality == "audio":
        return {"t": part["time"], "x": part["channel"], "p": np.ones(len(part["time"]))}
    return {"t": part["time"], "x": part["x"], "y": part["y"], "p": part["p"]}
