"""One network through Lava, in the present process: build, run guarded, leave recordings behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from neuroav import integer as ig
from neuroav import navfile
from neuroav.sim.lava.bounds import check_profile, message_bounds
from neuroav.sim.lava.build import Network, build, record
from neuroav.sim.lava.compiling import compile_processes
from neuroav.sim.lava.copies import side_by_side
from neuroav.sim.lava.guard import execute
from neuroav.sim.lava.inline import execute_inline
from neuroav.sim.lava.jobs import Job, Settings


def run_job(job: Job, settings: Settings, stacks: Path, alive: Callable[[], None]) -> None:
    """Run one job; its recordings are complete when this returns.

    Raises ExecutorError, OutOfRange, UnsupportedNode.
    """
    deployment = navfile.load(job.network)
    graph, arith = deployment.integer, deployment.profile.arithmetic
    check_profile(deployment.profile)
    inputs = job.inputs(graph)
    samples = len(next(iter(inputs.values())))
    bounds = message_bounds(graph, arith)
    copies = side_by_side(graph, samples, settings.conv, settings.batch)
    network = Network(graph, arith, bounds, samples, settings.conv, copies)
    build(network, inputs)
    outputs = {
        n: _recording(job, "output", network, n) for n in graph.order if n not in graph.inputs
    }
    voltages = {
        n: _recording(job, "voltage", network, n)
        for n in graph.order
        if settings.states and isinstance(graph.populations[n], ig.IntLif)
    }
    root = record(network, outputs, voltages, str(job.steps))
    if settings.engine == "inline":
        executable = compile_processes(root, network.models)
        alive()
        execute_inline(executable, network.steps, timeout_s=settings.timeout_s, alive=alive)
        return
    execute(
        root,
        network.steps,
        network.models,
        stacks,
        timeout_s=settings.timeout_s,
        steps_done=job.steps_done,
        alive=alive,
        own_channels=settings.conv == "stock",
    )


def _recording(job: Job, kind: str, network: Network, name: str) -> str:
    """Create the empty recording of a population, a row per time step; return its path."""
    pop, path = network.graph.populations[name], job.file(kind, network.graph, name)
    binary = kind == "output" and isinstance(pop, ig.SPIKING_CLASSES)
    shape = (network.steps, *network.shape(pop.shape))
    np.lib.format.open_memmap(path, "w+", np.int8 if binary else np.int32, shape)
    return str(path)
