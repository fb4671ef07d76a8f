"""Export a run folder: load the trained model, compile it, write FILE.nav, say what was made."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

import neuroav
from neuroav import navfile
from neuroav.deployment import Probe
from neuroav.integer import synapse_count
from neuroav.training.config import RunConfig
from neuroav.training.evaluate import load_run
from neuroav_export.pipeline import compile_module

PROBE_SAMPLES = 8


def export_run(
    run: Path,
    *,
    target: str = "loihi2",
    out: Path,
    bits: int = 8,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Any = None,
) -> dict[str, Any]:
    """Compile the best weights of ``run`` for ``target`` into ``out``; return the summary.

    Keys: neurons, synapses, weight_bits, saturations, hash, cores, chips, utilisation (the last
    three null: placement is not modelled yet).
    """
    model, data, config = load_run(run, cache_dir=cache_dir, data_root=data_root, progress=progress)
    torch.set_num_threads(config.train.threads)
    check = data.split("val").frames(np.arange(PROBE_SAMPLES))
    test = data.split("test").frames(np.arange(PROBE_SAMPLES))
    names: tuple[str, ...] = model.inputs  # type: ignore[assignment]
    deployment = compile_module(
        model,
        {n: getattr(check, n) for n in names},
        target=target,
        bits=bits,
        classes=data.classes,
        provenance=provenance(config, data.content_hash, bits),
        probe=Probe({n: getattr(test, n) for n in names}, test.labels),
    )
    deployment = navfile.save(deployment, out)
    graph = deployment.integer
    return {
        "neurons": deployment.neurons,
        "synapses": deployment.synapses,
        "weight_bits": bits,
        "saturations": dict(deployment.saturations),
        "hash": deployment.content_hash,
        "cores": None,
        "chips": None,
        "utilisation": None,
        "layers": {
            n: {
                "neurons": graph.populations[n].neurons,
                "synapses": synapse_count(graph, n),
                "latency": graph.latency[n],
            }
            for n in graph.order
        },
    }


def provenance(config: RunConfig, data_hash: str, bits: int) -> dict[str, Any]:
    """Return versions, seeds, configuration and data hash as plain JSON values."""
    versions = {"python": platform.python_version(), "neuroav": neuroav.__version__}
    for package in ("numpy", "torch", "norse", "h5py"):
        versions[package] = metadata.version(package)
    return {
        "versions": versions,
        "run": config.model_dump(by_alias=True),
        "data_hash": data_hash,
        "weight_bits": bits,
        "git": git_revision(),
    }


def git_revision() -> str | None:
    """Return the revision of the checkout this program runs from, None outside a checkout."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            timeout=10,
            capture_output=True,
            text=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
