"""Lava: a folder with a script that builds the deployed network of Lava's processes and runs it.

| file | what it is |
|---|---|
| `run.py` | the network, a commented block per population; runs samples, prints a digest |
| `compat.py` | what lava-nc 0.10.0 needs on current Python and NumPy |
| `processes/__init__.py` | the processes that the network needs and Lava lacks |
| `weights.npz` | weights, thresholds, biases, in Lava's axis order |
| `samples.npz` | event counts of the first probe samples |
| `neuroav.json` | where it comes from |

It needs lava-nc and what that brings. `compat.py` and `processes/` are copied, definition by
definition, from the modules that the Lava executor runs (``writers.extract``).
"""

from __future__ import annotations

import builtins
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

import neuroav
from neuroav import integer as ig
from neuroav.deployment import Deployment, Inputs
from neuroav.errors import DataError
from neuroav.sim import fast
from neuroav.sim.lava.bounds import check_profile, message_bounds
from neuroav.sim.sanafe.folder import folder_written_whole
from neuroav.sim.trace import SpikeDigest
from neuroav_export.writers.base import Written, facts
from neuroav_export.writers.extract import extract, implementing, module_text
from neuroav_export.writers.lava_blocks import NEURON, STOCK, Blocks, literal

FORMAT, VERSION = "neuroav-lava", 1
CONSUMES = "integer"
SAMPLES = 4  # of the probe
_SPARSE = "`Sparse`, one entry per synapse"
CARRIES = {
    "IntInput": "`RingBuffer` that sends the event counts",
    "IntHostCurrent": "`RingBuffer` that sends what `Deployment.counts` gives",
    "IntLif": "`LIFReset`, cleared at frame 0 of every sample; with decays by neuron or a reset "
    "that subtracts its heir `NeuronLif`, in `processes/`",
    "IntOr": "`LIFReset` without memory, vth 0",
    "IntSum": "`GradedVec`, vth 0",
    "IntReadout": "`Accumulator`, in `processes/`",
    "IntAnd": "`LIFReset` without memory, vth 1",
    "IntProduct": "`ProdNeuron`, vth 0, exp = shift",
    "IntTimeSum": "`TimeSum`, in `processes/`",
    "IntWinner": "`Winner`, in `processes/`",
    "IntSpatialAttention": "`SpatialAttention`, in `processes/`",
    "IntTemporalAttention": "`TemporalAttention`, in `processes/`",
    "IntConv2d": "`MatrixConv`, in `processes/`: Lava's `Conv` gives the same sums, slower",
    "IntConvTranspose2d": _SPARSE,
    "IntDense": "`Dense`",
    "IntIdentity": _SPARSE,
    "IntPool": "`MatrixConv` of ones, in `processes/`",
    "IntSpatialSum": _SPARSE,
    "IntSpread": _SPARSE,
    "IntPlace": _SPARSE,
}
UNSUPPORTED: dict[str, str] = {}
_PROCESSES = "neuroav.sim.lava.processes"
_NEURON_MODULE = "neuroav_export.writers.lava_neuron"
_OUT_OF_RANGE = '''\
class OutOfRange(ArithmeticError):
    """A value left the register that holds it."""'''
_REQUIRE = '''\
def require_lava() -> None:
    """End with the line that installs lava-nc if it is not there."""
    if importlib.util.find_spec("lava") is None:
        sys.exit(
            "lava-nc is not installed: pip install lava-nc==0.10.0 (Python 3.10), or "
            "pip install --no-deps --ignore-requires-python lava-nc==0.10.0 && pip install "
            "asteval networkx numpy scikit-learn scipy (newer Python)"
        )'''


def write(deployment: Deployment, path: str | Path, *, inputs: Inputs | None = None) -> Written:
    """Write a deployment as a folder with a Lava script; the folder is whole or not there.

    inputs: the samples that the folder shall hold, by the names of ``Deployment.fed``; by default
    the first of the probe, and none without one. Raises UnsupportedNode where the profile's
    arithmetic is not Lava's or a sum has no room in Lava, DataError for inputs that misfit,
    OutOfRange where they drive a register out of its range, ConfigError where ``path`` is
    no folder of this program.
    """
    check_profile(deployment.profile)
    if inputs is None and deployment.probe is not None:
        inputs = {n: v[:SAMPLES] for n, v in deployment.probe.inputs.items()}
    counts = {} if inputs is None else deployment.counts(inputs)
    samples = len(next(iter(counts.values()))) if counts else 0
    if counts and not samples:
        raise DataError("lava: the inputs hold no sample; give at least one, or none at all")
    digest = _digest(deployment, inputs) if inputs else None
    blocks = _blocks(deployment)
    notes = {"samples": samples, "spike_digest": digest, "lava_processes": _processes(blocks)}
    with folder_written_whole(Path(path)) as folder:
        (folder / "processes").mkdir()
        for name, text in {
            "run.py": _run(deployment, blocks, digest),
            "compat.py": _compat(),
            "processes/__init__.py": _own(blocks),
            "neuroav.json": json.dumps(_facts(deployment) | notes, indent=2) + "\n",
        }.items():
            (folder / name).write_text(text, encoding="utf-8")
        save(folder / "weights.npz", blocks.arrays)
        if counts:
            save(folder / "samples.npz", counts)
    nodes = deployment.integer.order
    return Written("lava", Path(path), nodes, {}, deployment.content_hash, notes)


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz file; unlike ``np.savez``, with any names."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, value, allow_pickle=False)


def _facts(deployment: Deployment) -> dict[str, Any]:
    values = "integers as deployed, in Lava's axis order (row, column, channel)"
    return {**facts(deployment, FORMAT, VERSION), "values": values}


def _digest(deployment: Deployment, inputs: Inputs) -> str:
    """Return the spike digest of a run of the fast executor."""
    digest = SpikeDigest(deployment.integer)
    for trace in fast.run(deployment, inputs):
        digest.add(trace)
    return digest.hexdigest()


def _blocks(deployment: Deployment) -> Blocks:
    arith = deployment.profile.arithmetic
    bounds = message_bounds(deployment.integer, arith)
    blocks = Blocks(deployment.integer, bounds, arith, _reserved())
    blocks.write()
    return blocks


def _reserved() -> set[str]:
    """Return every name that means something in ``build``."""
    used = {
        "inputs",
        "w",
        "frames",
        "populations",
        "source",
        "sparse",
        "load",
        "np",
        "HERE",
        "name",
        "process",
    }
    return {*used, "STEPS", "GRADED", "SignMode", *STOCK, *_own_processes(), *dir(builtins)}


def _own_processes() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return process class -> module and names of it and its model."""
    return implementing(_PROCESSES) | {NEURON: (_NEURON_MODULE, (NEURON, f"Py{NEURON}Model"))}


def _processes(blocks: Blocks) -> int:
    """Return how many Lava processes run, without recorders."""
    populations = blocks.graph.populations.values()
    late = sum(p.lag > 0 for pop in populations for p in pop.projections)
    return sum(len(pop.projections) + 1 for pop in populations) + len(blocks.delayed) + late


# --- the texts -------------------------------------------------------------------------------
def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("neuroav_export.writers", "lava_templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template(name)


def _run(deployment: Deployment, blocks: Blocks, digest: str | None) -> str:
    """Return the script. Names come from outside: they enter it as literals alone."""
    graph = deployment.integer
    populations = [
        (literal(n), pop.shape, graph.latency[n], isinstance(pop, ig.SPIKING_CLASSES))
        for n, pop in ((n, graph.populations[n]) for n in graph.order)
    ]
    return _template("run.py.j2").render(
        version=neuroav.__version__,
        imports=sorted(f"from {STOCK[name]} import {name}" for name in blocks.stock),
        own=sorted(blocks.own),
        steps=graph.steps,
        dt_s=repr(graph.dt_s),
        inputs=[(literal(n), pop.shape, pop.max_count) for n, pop in graph.inputs.items()],
        hosted=[literal(n) for n in sorted(deployment.host)],
        populations=populations,
        output=literal(graph.output),
        classes=f"[{', '.join(literal(str(c)) for c in deployment.classes)}]",
        digest=literal(digest) if digest else None,
        blocks="\n".join(f"    {line}" if line else "" for line in blocks.lines),
    )


def _compat() -> str:
    code = extract({"neuroav.sim.lava.shim": ["prepare"]}, {"require_lava": _REQUIRE})
    return _template("compat.py.j2").render(code=code)


def _own(blocks: Blocks) -> str:
    """Return the module of the own processes in use, with their models."""
    found, roots = _own_processes(), dict[str, list[str]]()
    for process in sorted(blocks.own):
        module, names = found[process]
        roots.setdefault(module, []).extend(names)
    return _template("processes.py.j2").render(
        version=neuroav.__version__,
        notes=[module_text(module) for module in roots],
        code=extract(roots, {"OutOfRange": _OUT_OF_RANGE}),
    )
