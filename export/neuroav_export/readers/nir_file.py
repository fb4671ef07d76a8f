"""NIR as plain primitives: from an HDF5 file of any version of the ``nir`` package, or a graph.

Nothing of the ``nir`` package is used: it checks by assertions, and its newer versions do not read
the files of its older ones. A value counts only if it lies in the file itself, is a number or text,
and is as large as its bytes allow. Names, nesting and sizes are bounded. Fields that a version
lacks are simply absent here; ``nir_nodes`` knows their defaults.
Source: Pedersen et al., Nat. Commun. 15, 8122 (2024); file layout of nir 1.0.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuroav.errors import FileFormatError
from neuroav_export.readers.hdf5 import require_survived

MOST_VALUES = 1 << 27  # of all arrays of a file
MOST_NODES = 10_000
MOST_DEPTH = 16  # graphs in graphs
NAME_MOST = 200  # characters
TEXT_MOST = 1 << 20  # characters of a text
_MAX_RATIO = 1100  # deflate cannot do better than 1032:1; more is a declared size without values
_GRAPHS = ("NIRGraph", "NIR")  # the second in the first versions
_OWN = ("type", "metadata", "nodes", "edges")
Edge = tuple[str, str]


@dataclass(frozen=True, eq=False)
class Primitive:
    """One node: its kind as NIR names it, its fields, and for a graph its nodes and edges.

    values: arrays, texts, or mappings of them, by field; a field that is absent or None is not in.
    """

    kind: str
    values: Mapping[str, Any]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    nodes: Mapping[str, Primitive] = field(default_factory=dict)
    edges: tuple[Edge, ...] = ()

    @property
    def is_graph(self) -> bool:
        return self.kind in _GRAPHS


def load(source: Any) -> Primitive:
    """Return what a file (a path) or a ``nir.NIRGraph`` holds; FileFormatError says why not."""
    if isinstance(source, (str, Path)):
        return _load_file(Path(source))
    if hasattr(source, "nodes") and hasattr(source, "edges"):
        return _from_object(source, "graph", [0], 0)
    raise FileFormatError(
        f"{type(source).__name__} is no NIR graph; give the path of a .nir file or a nir.NIRGraph"
    )


def as_wrapped(root: Primitive) -> Primitive:
    """Return a graph: the root itself, or one around a single primitive."""
    if root.is_graph:
        return root
    name = root.kind.lower()
    return Primitive("NIRGraph", {}, {}, {name: root}, ())


def check_name(name: str, place: str) -> str:
    """Return a node's name; FileFormatError for one that could not name a node of ours."""
    fits = 0 < len(name) <= NAME_MOST and name.isprintable() and "/" not in name
    if not fits or name in (".", ".."):
        raise FileFormatError(
            f"{place}: a node is called {name[:40]!r}; names are 1 to {NAME_MOST} printable "
            "characters without '/'; rename it"
        )
    return name


# --- files -----------------------------------------------------------------------------------
def _load_file(path: Path) -> Primitive:
    if not path.is_file():
        raise FileFormatError(f"{path}: no such file; give the path of a .nir file")
    require_survived(path)
    try:
        with h5py.File(path, "r") as file:
            return as_wrapped(_File(path).primitive(file, "node", 0))
    except FileFormatError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, OverflowError) as error:
        raise FileFormatError(
            f"{path}: cannot be read as a NIR file ({error}); it is cut, damaged or of another "
            "kind; write it again with nir.write"
        ) from None


class _File:
    """Reads groups of one file and counts what it has read."""

    def __init__(self, path: Path) -> None:
        self.path, self.values, self.nodes = path, 0, 0

    def wrong(self, group: h5py.Group, name: str, found: str, allowed: str) -> FileFormatError:
        place = f"{group.name.rstrip('/')}/{name}".lstrip("/")
        return FileFormatError(
            f"{self.path}: {place[:300]!r} {found}, allowed is {allowed}; it is no NIR file, or "
            "damaged; write it again with nir.write"
        )

    def primitive(self, parent: h5py.Group, name: str, depth: int) -> Primitive:
        """Return the node in the group ``name`` of ``parent``."""
        self.nodes += 1
        if depth > MOST_DEPTH or self.nodes > MOST_NODES:
            raise self.wrong(
                parent, name, "is nested too deep or one node too many",
                f"{MOST_DEPTH} graphs in each other, {MOST_NODES} nodes",
            )  # fmt: skip
        group = self.own(parent, name)
        if not isinstance(group, h5py.Group):
            raise self.wrong(parent, name, "is no group", "a group with a field 'type'")
        kind = self.value(group, "type")
        if not isinstance(kind, str):
            raise self.wrong(group, "type", "is no text", "the name of a NIR primitive")
        fields = {
            key: self.value(group, key)
            for key in group
            if key not in (_OWN if kind in _GRAPHS else _OWN[:2])
        }
        metadata = self.value(group, "metadata") if "metadata" in group else {}
        metadata = metadata if isinstance(metadata, dict) else {}
        if kind not in _GRAPHS:
            return Primitive(kind, fields, metadata)
        nodes = self.own(group, "nodes")
        if not isinstance(nodes, h5py.Group):
            raise self.wrong(group, "nodes", "is no group", "a group of nodes")
        made = {
            check_name(n, f"{self.path}: {nodes.name}"): self.primitive(nodes, n, depth + 1)
            for n in nodes
        }
        return Primitive(kind, fields, metadata, made, self.edges(group))

    def edges(self, group: h5py.Group) -> tuple[Edge, ...]:
        """Return pairs of names; numbers, as the first versions wrote them, become names."""
        data = self.own(group, "edges")
        if not isinstance(data, h5py.Dataset) or data.shape is None:
            raise self.wrong(group, "edges", "is no dataset", "pairs of node names")
        if data.size == 0:
            return ()
        if len(data.shape) != 2 or data.shape[1] != 2 or data.size > 4 * MOST_NODES:
            raise self.wrong(
                group, "edges", f"has shape {data.shape}", f"(up to {2 * MOST_NODES}, 2)"
            )
        if not (h5py.check_string_dtype(data.dtype) or data.dtype.kind in "iuS"):
            raise self.wrong(group, "edges", f"holds {data.dtype}", "texts")
        self.count(group, "edges", data)
        return tuple((_text(a), _text(b)) for a, b in data[()].tolist())

    def value(self, group: h5py.Group, name: str, depth: int = 0) -> Any:
        """Return a field: an array of numbers, a text, or a mapping of them."""
        item = self.own(group, name)
        if isinstance(item, h5py.Group):
            if depth > 3:
                raise self.wrong(group, name, "is nested too deep", "3 groups in each other")
            return {key: self.value(item, key, depth + 1) for key in item}
        if not isinstance(item, h5py.Dataset) or item.shape is None:
            raise self.wrong(group, name, "holds nothing", "numbers or a text")
        self.count(group, name, item)
        if h5py.check_string_dtype(item.dtype) or item.dtype.kind == "S":
            if item.size != 1:
                raise self.wrong(group, name, f"holds {item.size} texts", "one")
            text = _text(np.asarray(item[()]).reshape(-1)[0])
            if len(text) > TEXT_MOST:
                raise self.wrong(group, name, f"has {len(text)} characters", f"{TEXT_MOST}")
            return text
        if item.dtype.kind not in "biuf":
            raise self.wrong(group, name, f"holds {item.dtype}", "numbers or a text")
        return np.asarray(item[()])

    def own(self, group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
        """Return what lies under a name in this file; links to elsewhere are refused unopened."""
        link = group.get(name, getlink=True)
        if link is None:
            raise self.wrong(group, name, "is missing", "that it is there")
        if not isinstance(link, h5py.HardLink):
            raise self.wrong(group, name, f"is a {type(link).__name__}", "data of the file itself")
        return group[name]

    def count(self, group: h5py.Group, name: str, data: h5py.Dataset) -> None:
        """Refuse what is stored elsewhere or declares more than it, or the file, may hold."""
        if data.external or data.is_virtual:
            raise self.wrong(group, name, "lies in other files", "data of the file itself")
        self.values += data.size
        stored = data.id.get_storage_size()
        if self.values > MOST_VALUES:
            raise self.wrong(
                group, name, f"declares {data.size} values", f"{MOST_VALUES} in a file"
            )
        if data.size * data.dtype.itemsize > _MAX_RATIO * max(stored, 64):
            raise self.wrong(
                group, name, f"declares {data.size} values in {stored} bytes",
                "what its bytes can hold",
            )  # fmt: skip


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# --- graphs in memory ------------------------------------------------------------------------
def _from_object(node: Any, place: str, seen: list[int], depth: int) -> Primitive:
    seen[0] += 1
    if depth > MOST_DEPTH or seen[0] > MOST_NODES:
        raise FileFormatError(
            f"{place}: nested deeper than {MOST_DEPTH} graphs, or more than {MOST_NODES} nodes"
        )
    kind = type(node).__name__
    metadata = getattr(node, "metadata", None)
    metadata = metadata if isinstance(metadata, dict) else {}
    if kind in _GRAPHS:
        nodes = {
            check_name(str(n), place): _from_object(v, f"{place}.{n}", seen, depth + 1)
            for n, v in node.nodes.items()
        }
        edges = tuple((str(a), str(b)) for a, b in node.edges)
        return Primitive(kind, {}, metadata, nodes, edges)
    fields = {k: _plain(v, f"{place}: {k}") for k, v in vars(node).items() if k != "metadata"}
    return Primitive(kind, {k: v for k, v in fields.items() if v is not None}, metadata)


def _plain(value: Any, place: str) -> Any:
    """Return a field of a node as an array of numbers, text, mapping, or None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v, place) for k, v in value.items()}
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if isinstance(value, (list, tuple)) and None in value:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise FileFormatError(f"{place} holds {array.dtype}; allowed are numbers and texts")
    return array
