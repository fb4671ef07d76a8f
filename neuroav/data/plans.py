"""What a published data set consists of, before anything of it is read.

A data set made of files is described by a ``Plan``: its items, each with the files it is made of,
its label, split and group, and the function that converts one item. ``neuroav.data.preparing``
carries plans out; it knows nothing of formats, and the data sets know nothing of caches.

A module of a data set (``neuroav.data.published``) offers

- ``INFO``: its ``DatasetInfo``.
- ``parameters(preset, data_seed, limit, data_root) -> dict``: everything the result depends on
  besides the content of the files, JSON values; DataError for what is not allowed. Holds
  ``generator_version``.
- ``canonical(preset) -> str``: the preset that another name of it stands for, or itself.
- ``plan(preset, data_seed, limit, data_root) -> Plan``: DataError where files are missing.
- ``made_with() -> dict``: versions of the packages that the result depends on.
- ``spec(steps, visual_size)``: how its recordings are laid out as network input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from neuroav.errors import DataError


@dataclass(frozen=True)
class Source:
    """Where one modality of an item is: a file below the data root, and a key for a recording
    within a file that holds many ('' for a file of one)."""

    file: str
    key: str = ""


@dataclass(frozen=True)
class Item:
    """One sample. name: unique in its set. sources: by modality, 'audio' and 'visual' or one of
    them. label: index into the classes. split: 'train', 'val' or 'test'. groups: what must not be
    in two splits of a clean protocol, by kind ('speaker', 'actor', 'recording')."""

    name: str
    label: int
    split: str
    sources: Mapping[str, Source]
    groups: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Converted:
    """An item as arrays: the columns of each modality (``Ragged.columns`` of one item), and facts
    of fixed shape, equal for all items of a set, that become ``Recordings.source``."""

    audio: Mapping[str, np.ndarray] | None
    visual: Mapping[str, np.ndarray] | None
    source: Mapping[str, np.ndarray] = field(default_factory=dict)


class Broken(DataError):
    """An item that its publishers name as broken: skipped and reported, never an error."""


@dataclass(frozen=True, eq=False)
class Plan:
    """items in manifest order. meta: as ``Recordings.meta``, with ``layout`` ('windowed', 'binned'
    or 'stills'), ``protocol``, ``defects`` (of the protocol as published) and ``notes``;
    ``collection`` 'root' where every data root holds a data set of its own; ``lists`` (file below
    the data root -> [bytes, sha256]) where files say what items there are, or their splits.
    convert(data_root, item): what one item becomes; a function of a module, so that other
    processes find it. Raises ``Broken`` for items known to be broken, and DataError or
    FileFormatError, naming the file, for any other that cannot be read."""

    items: tuple[Item, ...]
    meta: Mapping[str, Any]
    convert: Callable[[Path, Item], Converted]

    def __post_init__(self) -> None:
        names = [item.name for item in self.items]
        if len(set(names)) != len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise DataError(f"{self.meta.get('name')}: two items are called {twice!r}")
