"""The deployed integers inside a NIR file: metadata next to the real numbers, and back.

NIR has no integers; ``nir.write`` and ``nir.read`` keep metadata. Every population of the integer
graph is one JSON text ``neuroav`` in the metadata of the node of its name (of the graph, under
``populations``, where there is none): its class and fields as ``neuroav.integer`` has them, scale
and latency. Arrays lie beside it as ``neuroav.FIELD``, flat, their shapes in the text. The integer
weights of a layer lie at the layer, next to its real ones: ``neuroav.weight``. The graph's
``neuroav`` holds steps, step length, output and the register widths of the target.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.deployment import Deployment
from neuroav.errors import FileFormatError, NeuroavError
from neuroav.fixed import Arithmetic
from neuroav.graph import SpikingGraph
from neuroav.stages import verify_integer
from neuroav_export.readers.nir_file import Primitive, load

KEY = "neuroav"
REST = "populations"  # in the graph's metadata: those without a node
_CLASSES = {c.__name__: c for c in (*ig.POPULATION_CLASSES, *ig.PROJECTION_CLASSES)}
_LAYERS = (rn.Conv2d, rn.ConvTranspose2d, rn.Dense)
Tables = dict[str, dict[str, Any]]  # metadata by node


def annotate(deployment: Deployment) -> tuple[Tables, dict[str, Any]]:
    """Return the metadata of every node of the twin, and the graph's; values texts or arrays."""
    graph, real = deployment.integer, deployment.real
    tables: Tables = {}
    for name, population in graph.populations.items():
        _annotate(tables, name, population, homes_of(deployment, name))
        text = json.loads(tables[name][KEY])
        text |= {"scale": list(graph.scales[name]), "latency": graph.latency[name]}
        tables[name][KEY] = json.dumps(text)
    own = {
        KEY: json.dumps(
            {
                "output": graph.output,
                "steps": graph.steps,
                "dt_s": graph.dt_s,
                "arithmetic": asdict(deployment.profile.arithmetic),
                "host": sorted(deployment.host),
            }
        )
    }
    rest = {n: table for n, table in tables.items() if n not in real.nodes}
    return {n: t for n, t in tables.items() if n in real.nodes}, own | (
        {REST: rest} if rest else {}
    )


def homes_of(deployment: Deployment, name: str) -> list[str | None]:
    """Return the layer whose weights a projection stands for, or None, for each of a population."""
    graph, real = deployment.integer, deployment.real
    layers = _layers(real, name) if name in real.nodes else []
    homes: list[str | None] = []
    for projection in graph.populations[name].projections:
        found = None
        for layer in layers:
            node = real.nodes[layer]
            assert isinstance(node, (*_LAYERS, rn.Readout))
            alike = np.shape(getattr(projection, "weight", ())) == node.weight.shape
            if alike and _origin(deployment, layer) == projection.source:
                found = layer
                break
        homes.append(found)
        layers = [layer for layer in layers if layer != found]
    return homes


def _origin(deployment: Deployment, name: str) -> str:
    """Return the population whose messages a node reads."""
    (name, *_) = deployment.real.inputs[name]
    while name not in deployment.integer.populations and deployment.real.inputs[name]:
        (name, *_) = deployment.real.inputs[name]
    return name


def _layers(graph: SpikingGraph, name: str) -> list[str]:
    """Return the layers of weights whose sums the node ``name`` reads, first to last."""
    if isinstance(graph.nodes[name], rn.Readout):
        return [name]
    found = []
    for source in graph.inputs[name]:
        node = graph.nodes[source]
        if isinstance(node, _LAYERS):
            found.append(source)
        elif isinstance(node, (rn.Scale, rn.Delay, rn.Add)) and _current(graph, source):
            found += _layers(graph, source)
    return found


def _current(graph: SpikingGraph, name: str) -> bool:
    """Whether a node holds synaptic input, not messages."""
    node = graph.nodes[name]
    if isinstance(node, (rn.Scale, rn.Delay, rn.Add)):
        return any(_current(graph, s) for s in graph.inputs[name])
    return isinstance(node, _LAYERS)


def _annotate(
    tables: Tables, name: str, population: ig.Population, homes: list[str | None]
) -> None:
    own = tables.setdefault(name, {})
    text = _fields(population, own, "")
    for number, projection in enumerate(population.projections):
        home = homes[number]
        table = own if home is None else tables.setdefault(home, {})
        taken = f"{KEY}.weight" in table
        part = _fields(projection, table, f".{number}" if home is None or taken else "")
        if home is not None:
            part["at"] = home
        text.setdefault("projections", []).append(part)
    own[KEY] = json.dumps(text)


def _fields(value: Any, table: dict[str, Any], suffix: str) -> dict[str, Any]:
    """Return the fields of a population or projection; arrays go into ``table``."""
    found: dict[str, Any] = {"class": type(value).__name__}
    for field in fields(value):
        item = getattr(value, field.name)
        if field.name == "projections":
            continue
        if isinstance(item, np.ndarray):
            key = f"{KEY}.{field.name}{suffix}"
            table[key] = item.reshape(-1)
            found[field.name] = {"array": key, "shape": list(item.shape)}
        elif item is not None:
            found[field.name] = item
    return found


# --- back ------------------------------------------------------------------------------------
def integers_of(source: Any) -> ig.IntGraph:
    """Return the integer graph in a .nir file (a path) or ``nir.NIRGraph`` of ours, as deployed.

    FileFormatError where there is none, or the annotation is damaged.
    """
    root = load(source)
    if KEY not in root.metadata:
        raise FileFormatError(
            "the NIR file holds no integers (metadata 'neuroav' is missing); only files written "
            "by `neuroav convert --to nir` do"
        )
    try:
        return _rebuilt(root)
    except NeuroavError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise FileFormatError(
            f"the integers in the NIR file's metadata cannot be read ({error!r}); they are damaged "
            "or of another version; write the file again"
        ) from None


def _rebuilt(root: Primitive) -> ig.IntGraph:
    head = json.loads(str(root.metadata[KEY]))
    tables: dict[str, Mapping[str, Any]] = {n: p.metadata for n, p in root.nodes.items()}
    tables |= root.metadata.get(REST, {})
    populations, scales = {}, {}
    for name, table in tables.items():
        if KEY in table:
            text = json.loads(str(table[KEY]))
            populations[name] = _object(text, table, tables)
            scales[name] = (int(text["scale"][0]), int(text["scale"][1]))
    graph = ig.IntGraph(
        populations, str(head["output"]), int(head["steps"]), float(head["dt_s"]), scales
    )
    return verify_integer(graph, Arithmetic(**head["arithmetic"]))


def _object(text: dict, table: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> Any:
    cls = _CLASSES[text["class"]]
    values: dict[str, Any] = {}
    for field in fields(cls):
        if field.name == "projections":
            values["projections"] = tuple(
                _object(part, tables[part["at"]] if "at" in part else table, tables)
                for part in text.get("projections", [])
            )
        elif field.name in text:
            values[field.name] = _plain(text[field.name], table)
    return cls(**values)


def _plain(item: Any, table: Mapping[str, Any]) -> Any:
    if isinstance(item, dict):
        return np.asarray(table[item["array"]], np.int64).reshape(item["shape"])
    return tuple(item) if isinstance(item, list) else item
