"""SANA-FE: the placed network as its architecture and network files, with recorded spikes.

PATH is a folder; ``neuroav.sim.sanafe.folder`` says what is in it, ``network`` how every part is
represented, ``docs/sanafe.md`` what of it SANA-FE charges. ``python PATH/run.py`` replays the
spikes of the probe samples on the placement; it needs sanafe and numpy only. Nothing here needs
sanafe.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from neuroav.deployment import Deployment
from neuroav.errors import DataError
from neuroav.mapping.mapper import map_graph
from neuroav.placement import Placement
from neuroav.sim import fast
from neuroav.sim.sanafe.folder import write_folder
from neuroav.sim.trace import collect
from neuroav_export.writers.base import Written

CONSUMES = "integer"
SAMPLES = 2  # of the probe: enough to see, and SANA-FE is done within a minute
_NEURON = "a group; each neuron fires when it did in the recording"
_EDGES = "an edge for every non-zero synapse"
CARRIES = {
    "IntInput": "silent neurons at no cost, on one more core of every tile that they reach",
    "IntLif": _NEURON,
    "IntOr": _NEURON,
    "IntSum": f"{_NEURON}; a graded message is one spike",
    "IntReadout": f"{_NEURON}, if any neuron reads it; else it is only updated",
    "IntAnd": _NEURON,
    "IntProduct": f"{_NEURON}; a graded message is one spike",
    "IntTimeSum": f"{_NEURON}; a graded message is one spike",
    "IntWinner": _NEURON,
    "IntSpatialAttention": "its messages, and the synapses onto its state; no state neurons",
    "IntTemporalAttention": "its messages, and the synapses onto its state; no state neurons",
    "IntConv2d": f"{_EDGES}, on `conv` synapse hardware",
    "IntConvTranspose2d": f"{_EDGES}, on `conv` synapse hardware",
    "IntPool": f"{_EDGES}, on `conv` synapse hardware",
    "IntDense": f"{_EDGES}, on `dense` synapse hardware",
    "IntIdentity": f"{_EDGES}, on `sparse` synapse hardware",
    "IntSpatialSum": f"{_EDGES}, on `sparse` synapse hardware",
    "IntSpread": f"{_EDGES}, on `sparse` synapse hardware",
    "IntPlace": f"{_EDGES}, on `sparse` synapse hardware",
}
UNSUPPORTED = {"IntHostCurrent": "the host writes it into biases: no message, no synapse"}


def write(
    deployment: Deployment,
    path: str | Path,
    *,
    placement: Placement | None = None,
    outputs: Mapping[str, np.ndarray] | None = None,
) -> Written:
    """Write a placed deployment as a folder for SANA-FE.

    placement: the deployment's own by default; a network without one is placed. outputs: the
    recorded run to replay, by population, integers (samples, steps, *shape); by default the first
    probe samples are run here. Raises DataError without samples; ProfileError and DoesNotFit where
    the network cannot be placed; otherwise as ``write_folder``.
    """
    chosen = placement or deployment.placement
    chosen = chosen or map_graph(deployment.integer, deployment.profile)
    if outputs is None:
        if deployment.probe is None:
            raise DataError(
                "sanafe: the file carries no probe samples to replay; give a recorded run in "
                "Python, write(deployment, path, outputs=...)"
            )
        inputs = {n: v[:SAMPLES] for n, v in deployment.probe.inputs.items()}
        outputs = collect(fast.run(deployment, inputs))
    done = write_folder(deployment, chosen, outputs, Path(path))
    notes = {
        "samples": len(outputs[deployment.integer.output]),
        "chip_steps": done.steps,
        "cores": len(chosen.cores),
        "synapses": done.synapses,
    }
    return Written("sanafe", Path(path), done.nodes, done.left_out, deployment.content_hash, notes)
