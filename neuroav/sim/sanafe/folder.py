"""The folder that SANA-FE runs: architecture, network, recorded spikes, and the script for them.

| file | what it is |
|---|---|
| `arch.yaml` | SANA-FE's architecture: the mesh of the profile, and what its events cost |
| `network.yaml` | SANA-FE's network: groups, one edge per non-zero synapse, core of every neuron |
| `spikes.npz` | `spikes` int32 (spikes, 3): step, group, neuron; `groups`: names; `steps` |
| `run.py` | replays the spikes; needs sanafe and numpy only |
| `neuroav.json` | where it comes from, what is left out |
| `README.txt` | how to run it |
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TextIO

import numpy as np

import neuroav
from neuroav.deployment import Deployment
from neuroav.errors import ConfigError, DataError
from neuroav.hardware import Profile
from neuroav.placement import Placement, verify_placement
from neuroav.sim.sanafe.arch import architecture, coefficients, latencies
from neuroav.sim.sanafe.network import Group, Network, bundles, chip_steps, network, spikes

FORMAT, VERSION = "neuroav-sanafe", 1
FACTS = "neuroav.json"
DRIVER = Path(__file__).with_name("driver.py")
THRESHOLD = 2**39  # no synaptic sum reaches it; the bias that makes a neuron fire is twice that
ATTRIBUTES = f"{{threshold: {THRESHOLD}.0, leak_decay: 0.0, reset: 0.0, force_update: true}}"
README = """\
{title}

Made by NeuroAV {version} for SANA-FE 2.2.9 (GPL-3.0, pip install sanafe), which is not part of it.

    python run.py                     print the energy of the replay
    python run.py --out result.json   what every step costs

arch.yaml and network.yaml are SANA-FE's own files. spikes.npz holds the spikes of {samples}
sample(s), recorded by NeuroAV, as {steps} chip steps. neuroav.json says what is left out.
"fired" and "updated" count silent neurons too: those that only stand for inputs and attentions.
"""


@dataclass(frozen=True, eq=False)
class Written:
    """What a folder holds.

    nodes: names carried. left_out: name -> what of it has no counterpart. steps: chip steps.
    synapses: edges in the file. silent_neurons, silent_spikes: of groups whose soma is free.
    """

    nodes: tuple[str, ...]
    left_out: Mapping[str, str]
    steps: int
    synapses: int
    silent_neurons: int
    silent_spikes: int


def write_folder(
    deployment: Deployment,
    placement: Placement,
    outputs: Mapping[str, np.ndarray],
    path: Path,
    *,
    costs: Profile | None = None,
) -> Written:
    """Write a placed network with recorded outputs for SANA-FE; the folder is whole or not there.

    outputs: by population, integers (samples, steps, *shape). costs: whose prices are written, the
    deployment's profile by default. An empty folder, or one written by this function, is replaced.
    Raises ConfigError where ``path`` is anything else, StageError for a
    placement that does not fit the network, DataError for outputs that do not.
    """
    graph = deployment.integer
    verify_placement(graph, placement)
    samples = _samples(deployment, outputs)
    net = network(graph, placement)
    recorded, steps = spikes(graph, net, outputs), chip_steps(graph, samples)
    costs = costs or deployment.profile
    groups = net.groups.values()
    silent = np.array([group.silent for group in groups])
    with folder_written_whole(path) as folder:
        text = architecture(net, coefficients(costs), latencies(costs), costs.id)
        (folder / "arch.yaml").write_text(text, encoding="utf-8")
        with open(folder / "network.yaml", "w", encoding="utf-8") as file:
            synapses = _write_network(deployment, net, file)
        np.savez_compressed(
            folder / "spikes.npz", groups=np.array(list(net.groups)), steps=steps, spikes=recorded
        )
        shutil.copyfile(DRIVER, folder / "run.py")
        done = Written(
            nodes=tuple(n for n in graph.order if n in {group.population for group in groups}),
            left_out=dict(net.left_out),
            steps=steps,
            synapses=synapses,
            silent_neurons=sum(len(group.numbers) for group in groups if group.silent),
            silent_spikes=int(silent[recorded[:, 1]].sum()),
        )
        _write_facts(deployment, placement, done, samples, costs, folder)
    return done


def _samples(deployment: Deployment, outputs: Mapping[str, np.ndarray]) -> int:
    graph = deployment.integer
    for name in graph.order:
        expected = (graph.steps, *graph.populations[name].shape)
        if name not in outputs or outputs[name].shape[1:] != expected:
            found = outputs[name].shape if name in outputs else "nothing"
            raise DataError(
                f"outputs of {name}: found {found}, needed is (samples, "
                f"{', '.join(map(str, expected))}); record a run of this deployment"
            )
    counts = {len(outputs[name]) for name in graph.order}
    if len(counts) > 1 or not min(counts):
        raise DataError(f"outputs hold {sorted(counts)} samples, needed is one number, at least 1")
    return counts.pop()


def _write_facts(
    deployment: Deployment,
    placement: Placement,
    done: Written,
    samples: int,
    costs: Profile,
    folder: Path,
) -> None:
    facts = {
        "format": FORMAT,
        "format_version": VERSION,
        "neuroav_version": neuroav.__version__,
        "deployment_hash": deployment.content_hash,
        "profile": deployment.profile.id,
        "classes": list(deployment.classes),
        "steps": deployment.integer.steps,
        "dt_s": deployment.integer.dt_s,
        "output": deployment.integer.output,
        "values": "weights as deployed; spikes as recorded, any message is one spike",
        "samples": samples,
        "chip_steps": done.steps,
        "cores": len(placement.cores),
        "synapses": done.synapses,
        "nodes": list(done.nodes),
        "left_out": dict(done.left_out),
        "costs": costs.id,
        "energy_pj": asdict(coefficients(costs)),
    }
    (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    title = f"A spiking network on {len(placement.cores)} cores of {deployment.profile.title}"
    text = README.format(
        title=title, version=neuroav.__version__, samples=samples, steps=done.steps
    )
    (folder / "README.txt").write_text(text, encoding="utf-8")


# --- network.yaml ----------------------------------------------------------------------------
def _write_network(deployment: Deployment, net: Network, file: TextIO) -> int:
    """Write the network file and return its number of edges."""
    file.write(f"network:\n  name: {FORMAT}\n  groups:\n")
    for group in net.groups.values():
        file.write(
            f"    - name: {group.name}\n      attributes: {ATTRIBUTES}\n"
            f"      neurons:\n        - 0..{len(group.numbers) - 1}: {{}}\n"
        )
    file.write("  edges:\n")
    edges = 0
    for bundle in bundles(deployment.integer, net):
        found, (start, to) = bundle.synapses, (bundle.source, bundle.target)
        edges += len(found)
        columns = (found.source.tolist(), found.target.tolist(), found.weight.tolist())
        file.writelines(
            f"    - {start}.{s} -> {to}.{t}: {{w: {w}}}\n" for s, t, w in zip(*columns, strict=True)
        )
    file.write("mappings:\n")
    for group in net.groups.values():
        file.writelines(_mapping(group))
    return edges


def _mapping(group: Group) -> Iterator[str]:
    """Yield the core of every neuron of a group, runs on one core as a range."""
    seats = np.stack([group.tile, group.core, group.unit])
    changes = np.flatnonzero((np.diff(seats, axis=1) != 0).any(axis=0)) + 1
    edges = [0, *changes.tolist(), len(group.numbers)]
    for first, last in pairwise(edges):
        tile, core, unit = seats[:, first].tolist()
        yield (
            f"  - {group.name}.{first}..{last - 1}: {{core: {tile}.{core}, synapse: "
            f'{group.synapse}, dendrite: "sum[{unit}]", soma: '
            f'"{"silent" if group.silent else "neuron"}[{unit}]"}}\n'
        )


# --- the folder itself -----------------------------------------------------------------------
@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; put it there on success, remove it on failure.

    ConfigError where ``path`` is a file, or a folder with anything but our own files.
    """
    path = Path(path)
    ours = path.is_dir() and ((path / FACTS).is_file() or not any(path.iterdir()))
    if path.exists() and not ours:
        raise ConfigError(
            f"{path} exists and is no folder written by neuroav; name one that does not exist"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as holder:
        made, old = Path(holder) / "new", Path(holder) / "old"
        made.mkdir()
        yield made
        if ours:
            os.replace(path, old)
        os.replace(made, path)
