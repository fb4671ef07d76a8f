"""FILE.nav: one HDF5 file that holds a deployment. ``docs/file-format.md`` lists every group.

Readable with h5py alone. Loading checks the seal before the file is opened, format, version and
content hash before anything is decoded, and the stage rules after; a damaged, newer or foreign file
is a FileFormatError.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.deployment import Deployment, Probe
from neuroav.errors import FileFormatError, NeuroavError
from neuroav.files import SEAL_BYTES, note, seal, seal_problem, with_note, written_whole
from neuroav.fixed import Arithmetic
from neuroav.graph import SpikingGraph
from neuroav.hardware import parse_profile
from neuroav.host import HostLayer, verify_host
from neuroav.placement import Core, Mesh, Placement, Slice, verify_placement
from neuroav.stages import verify_graph, verify_integer

FORMAT = "neuroav-deployment"
VERSION = 3  # a file is of the first that has the classes and fields (``nodes.LATER``) it uses
NOTE_MOST = 1 << 20  # characters
_CLASSES = {
    c.__name__: c
    for c in (*rn.NODE_CLASSES, *ig.POPULATION_CLASSES, *ig.PROJECTION_CLASSES, HostLayer)
}

_OF_VERSION_3 = (
    rn.ConvTranspose2d,
    rn.If,
    rn.Li,
    rn.Delay,
    rn.Reshape,
    rn.Permute,
    rn.SumPool2d,
    ig.IntConvTranspose2d,
)
# numbers of neurons that were one for a layer before
_ONE_BEFORE_3 = ("tau_mem_s", "v_threshold", "v_reset", "v_leak", "decay_u", "decay_v")


def save(deployment: Deployment, path: str | Path) -> Deployment:
    """Write ``deployment`` to ``path`` whole or not at all; return it with its content hash."""
    with written_whole(path) as temporary:
        with h5py.File(temporary, "w", userblock_size=SEAL_BYTES) as file:
            _write(deployment, file)
            digest = content_hash(file)
            file.attrs["content_hash"] = digest
        seal(temporary)
    return replace(deployment, content_hash=digest)


def load(path: str | Path, *, rules: bool = True) -> Deployment:
    """Return the deployment in ``path``; FileFormatError says why a file is refused.

    rules: False also reads a network that breaks the rules of its stage, to say where it does.
    """
    path = Path(path)
    if not path.is_file():
        raise FileFormatError(
            f"{path}: no such file; write one with `neuroav export RUN --out {path}`"
        )
    try:
        if problem := seal_problem(path):
            raise FileFormatError(f"{path}: {problem}; export it again")
        with h5py.File(path, "r") as file:
            digest = _check_header(file, path)
            return replace(_read(file, rules), content_hash=digest)
    except FileFormatError:
        raise
    except NeuroavError as error:
        raise FileFormatError(f"{path}: holds an invalid network: {error}") from None
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError) as error:
        raise FileFormatError(
            f"{path}: cannot be read as a deployment ({error}); the file is cut, damaged or of "
            "another kind; export it again"
        ) from None


def load_note(path: str | Path) -> str | None:
    """Return the note in a file (``neuroav.digests``), None where it has none.

    It is no part of the deployment, nor of its content hash. FileFormatError as ``load``.
    """
    path = Path(path)
    try:
        if problem := seal_problem(path):
            raise FileFormatError(f"{path}: {problem}; export it again")
        return note(path)
    except FileFormatError:
        raise
    except (OSError, ValueError) as error:
        raise FileFormatError(
            f"{path}: its note cannot be read ({error}); export it again"
        ) from None


def save_note(path: str | Path, text: str) -> None:
    """Put a note into a file instead of the one it has, whole or not at all.

    FileFormatError where the file is no deployment, or would not be the same one afterwards.
    """
    path = Path(path)
    before = load(path, rules=False).content_hash
    if len(text) > NOTE_MOST or "\0" in text:
        raise FileFormatError(
            f"{path}: its note would have {len(text)} characters, allowed are {NOTE_MOST} without "
            "zero bytes; export it again and store digests of fewer versions"
        )
    with written_whole(path) as temporary:
        with_note(path, text, temporary)
        after = load(temporary, rules=False).content_hash
        if (before, text) != (after, load_note(temporary)):
            raise FileFormatError(f"{path}: could not be written again as the same deployment")


def content_hash(file: h5py.File) -> str:
    """Return sha256 over all paths, attributes and data, except the hash attribute itself."""
    digest = hashlib.sha256()

    def add(name: str, item) -> None:
        digest.update(f"\0{name}\0".encode())
        for key in sorted(item.attrs):
            if key != "content_hash":
                value = item.attrs[key]
                plain = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
                digest.update(f"{key}={json.dumps(plain)}\0".encode())
        if isinstance(item, h5py.Dataset):
            data = item[()]
            if isinstance(data, bytes):
                digest.update(data)
            else:
                data = np.ascontiguousarray(data)
                digest.update(f"{data.dtype.str}{data.shape}".encode() + data.tobytes())
        else:
            for key in sorted(item):
                add(f"{name}/{key}", item[key])

    add("", file)
    return digest.hexdigest()


def _check_header(file: h5py.File, path: Path) -> str:
    if file.attrs.get("format") != FORMAT:
        raise FileFormatError(
            f"{path}: is HDF5 but no NeuroAV deployment (attribute 'format' is "
            f"{file.attrs.get('format')!r}, needs {FORMAT!r})"
        )
    version = int(file.attrs["version"])
    if not 1 <= version <= VERSION:
        raise FileFormatError(
            f"{path}: format version {version}, this program reads 1..{VERSION}; "
            + ("update neuroav" if version > VERSION else "export it again")
        )
    stored, found = file.attrs.get("content_hash"), content_hash(file)
    if stored != found:
        raise FileFormatError(
            f"{path}: content hash is {found[:12]}..., the file says "
            f"{str(stored)[:12]}...; it was changed or damaged; export it again"
        )
    return found


# --- writing ---------------------------------------------------------------------------------
def _write(d: Deployment, file: h5py.File) -> None:
    file.attrs["format"] = FORMAT
    parts = (*d.integer.populations.values(), *d.real.nodes.values())
    file.attrs["version"] = max((_first_version(p) for p in parts), default=1)
    _write_text(file, "profile", d.profile.text)
    for name, value in (
        ("classes", list(d.classes)),
        ("saturations", dict(d.saturations)),
        ("provenance", dict(d.provenance)),
    ):
        _write_text(file, name, json.dumps(value, sort_keys=True))
    group = file.create_group("integer")
    group.attrs.update(
        {"output": d.integer.output, "steps": d.integer.steps, "dt_s": d.integer.dt_s}
    )
    for name, population in d.integer.populations.items():
        item = _write_object(group.create_group(name), population)
        item.attrs["scale"] = json.dumps(list(d.integer.scales[name]))
        item.attrs["latency"] = d.integer.latency[name]
    group = file.create_group("real")
    group.attrs.update(
        {"output": d.real.output, "steps": d.real.steps, "dt_s": d.real.dt_s, "stage": d.real.stage}
    )
    for name, node in d.real.nodes.items():
        item = _write_object(group.create_group(name), node)
        item.attrs["inputs"] = json.dumps(d.real.inputs[name])
        item.attrs["shape"] = np.array(d.real.shapes[name], np.int64)
    for name, layer in d.host.items():
        _write_object(file.create_group(f"host/{name}"), layer)
    if d.probe is not None:
        group = file.create_group("probe")
        group["labels"] = d.probe.labels.astype(np.int64)
        for name, fed in d.probe.inputs.items():
            kind = np.float32 if name in d.static else np.int32
            group.create_dataset(f"inputs/{name}", data=fed.astype(kind), compression="gzip")
    if d.placement is not None:
        _write_placement(file.create_group("placement"), d.placement)


def _write_placement(group: h5py.Group, placement: Placement) -> None:
    """Write cores as rows of numbers: a seat each, and one row per slice."""
    group.attrs["profile"], group.attrs["seed"] = placement.profile, placement.seed
    for field in fields(Mesh):
        group.attrs[field.name] = getattr(placement.mesh, field.name)
    names = list(placement.of)
    _write_text(group, "populations", json.dumps(names))
    seats = [(core.chip, core.x, core.y, core.slot) for core in placement.cores]
    slices = [(n, s) for n, core in enumerate(placement.cores) for s in core.slices]
    axes = max((len(s.box) for _, s in slices), default=0)
    rows = np.full((len(slices), 2 + 2 * axes), -1, np.int32)
    number = {name: i for i, name in enumerate(names)}
    for row, (core, part) in zip(rows, slices, strict=True):
        row[: 2 + 2 * len(part.box)] = core, number[part.population], *sum(part.box, ())
    for name, table in (("seats", np.array(seats, np.int32).reshape(-1, 4)), ("slices", rows)):
        group.create_dataset(name, data=table, compression="gzip" if table.size > 64 else None)


def _write_text(file: h5py.Group, name: str, text: str) -> None:
    file[name] = np.frombuffer(text.encode("utf-8"), np.uint8)


def _is_default(item: Any, default: Any) -> bool:
    return item is default or (not isinstance(item, np.ndarray) and item == default)


def _first_version(value: Any) -> int:
    """Return the first version of the format that says all there is of a node or population."""
    found = 3 if type(value) in _OF_VERSION_3 else 1
    for field in fields(value):
        item = getattr(value, field.name)
        if rn.LATER in field.metadata and not _is_default(item, field.default):
            found = max(found, field.metadata[rn.LATER])
        elif field.name in _ONE_BEFORE_3 and isinstance(item, np.ndarray):
            found = 3
        elif field.name == "projections":
            found = max(found, *map(_first_version, item), 1)
    return found


def _write_object(group: h5py.Group, value: Any) -> h5py.Group:
    """Write a dataclass: arrays as datasets, projections as sub-groups, the rest as attributes."""
    group.attrs["class"] = type(value).__name__
    for field in fields(value):
        item = getattr(value, field.name)
        if rn.LATER in field.metadata and _is_default(item, field.default):
            continue
        if isinstance(item, np.ndarray):
            group.create_dataset(
                field.name, data=item, compression="gzip" if item.size > 64 else None
            )
        elif field.name == "projections":
            for index, projection in enumerate(item):
                _write_object(group.create_group(f"projections/{index}"), projection)
        elif item is not None:
            group.attrs[field.name] = item
    return group


# --- reading ---------------------------------------------------------------------------------
def _read(file: h5py.File, rules: bool) -> Deployment:
    profile = parse_profile(_read_text(file, "profile"), "profile inside the file")
    integer = _read_integer(file["integer"])
    if rules:
        verify_integer(integer, profile.arithmetic)
    probe = placement = None
    if "placement" in file:
        placement = verify_placement(integer, _read_placement(file["placement"]))
    if "probe" in file:
        group = file["probe"]
        probe = Probe({n: v[()] for n, v in group["inputs"].items()}, group["labels"][()])
    return Deployment(
        integer=integer,
        real=verify_graph(_read_real(file["real"])),
        profile=profile,
        classes=tuple(json.loads(_read_text(file, "classes"))),
        saturations=json.loads(_read_text(file, "saturations")),
        provenance=json.loads(_read_text(file, "provenance")),
        probe=probe,
        host=_read_host(file.get("host", {}), integer, profile.arithmetic),
        placement=placement,
    )


def _read_placement(group: h5py.Group) -> Placement:
    names = json.loads(_read_text(group, "populations"))
    seats, rows = group["seats"][()].tolist(), group["slices"][()]
    if (rows[:, :2] < 0).any() or (rows[:, :2] >= (len(seats), len(names))).any():
        raise ValueError("placement/slices: a core or population that is not there")
    parts: list[list[Slice]] = [[] for _ in seats]
    for core, population, *edges in rows.tolist():
        box = tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a >= 0)
        parts[core].append(Slice(names[population], box))
    return Placement(
        profile=str(group.attrs["profile"]),
        mesh=Mesh(**{field.name: int(group.attrs[field.name]) for field in fields(Mesh)}),
        cores=tuple(Core(tuple(p), *seat) for p, seat in zip(parts, seats, strict=True)),
        seed=int(group.attrs["seed"]),
    )


def _read_text(file: h5py.Group, name: str) -> str:
    return file[name][()].tobytes().decode("utf-8")


def _read_integer(group: h5py.Group) -> ig.IntGraph:
    return ig.IntGraph(
        populations={n: _read_object(g) for n, g in group.items()},
        output=str(group.attrs["output"]),
        steps=int(group.attrs["steps"]),
        dt_s=float(group.attrs["dt_s"]),
        scales={n: tuple(json.loads(g.attrs["scale"])) for n, g in group.items()},
    )


def _read_host(group, integer: ig.IntGraph, arith: Arithmetic) -> dict[str, HostLayer]:
    host = {n: _read_object(g) for n, g in group.items()}
    verify_host(host, integer, arith)
    return host


def _read_real(group: h5py.Group) -> SpikingGraph:
    return SpikingGraph(
        nodes={n: _read_object(g) for n, g in group.items()},
        inputs={n: tuple(json.loads(g.attrs["inputs"])) for n, g in group.items()},
        shapes={n: tuple(int(v) for v in g.attrs["shape"]) for n, g in group.items()},
        output=str(group.attrs["output"]),
        dt_s=float(group.attrs["dt_s"]),
        steps=int(group.attrs["steps"]),
        stage=str(group.attrs["stage"]),
    )


def _read_object(group: h5py.Group):
    cls = _CLASSES[str(group.attrs["class"])]
    values: dict[str, Any] = {}
    for field in fields(cls):
        if field.name == "projections":
            parts = group.get("projections", {})
            values["projections"] = tuple(_read_object(parts[str(i)]) for i in range(len(parts)))
        elif field.name in group:
            values[field.name] = group[field.name][()]
        elif field.name in group.attrs:
            values[field.name] = _plain(group.attrs[field.name])
    return cls(**values)


def _plain(value):
    """Return an attribute as the Python value it was written from."""
    if isinstance(value, np.ndarray):
        return tuple(v.item() for v in value)
    return value.item() if isinstance(value, np.generic) else value
