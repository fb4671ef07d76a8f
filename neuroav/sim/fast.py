"""Batched exact integers: the reference's results for whole test sets, in torch.

Synaptic sums are floating-point products of integers. A bound computed from the weights and the
largest message proves every partial sum exact: float32 below 2^24, float64 below 2^53, else the
layer is refused; so sums may be taken in any order, by whole products or by the events alone
(``neuroav.sim.currents``), on one core, several or a GPU. Neuron states are integers held in
float64 (products with 12-bit decays stay below 2^53), or in float32 where the decay is a power of
two and the same bound keeps every state below 2^24 (``neuroav.sim.populations``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from neuroav import integer as ig
from neuroav.deployment import Deployment
from neuroav.errors import ConfigError
from neuroav.memory import kept_memory
from neuroav.sim.currents import Messages, import_loops
from neuroav.sim.loops import run_loop
from neuroav.sim.populations import Layer
from neuroav.sim.real import import_torch
from neuroav.sim.trace import Progress, Trace, batches

if TYPE_CHECKING:
    import torch

DEVICES = ("cpu", "cuda")


def run(
    deployment: Deployment,
    inputs: Mapping[str, np.ndarray],
    *,
    batch: int = 64,
    memory_bytes: int | None = None,
    threads: int | None = None,
    device: str = "cpu",
    states: bool = False,
    progress: Progress | None = None,
) -> Iterator[Trace]:
    """Yield a Trace per batch of samples; equal to ``reference.run`` bit for bit.

    inputs: event counts (samples, steps, *shape) by input name. batch: samples computed at a time,
    at most. threads: batches computed at the same time on a CPU, by default torch's number of
    threads. memory_bytes: takes smaller batches, and fewer at a time, where that keeps their arrays
    below it; one sample at least. device: 'cpu', or 'cuda' with an optional number for a GPU.
    states: also record the membrane voltage of every IntLif. Raises OutOfRange, DataError,
    ConfigError, MissingDependency.
    """
    torch = import_torch()
    graph, arith = deployment.integer, deployment.profile.arithmetic
    _check_device(device)
    checked = deployment.counts(inputs)
    largest = {n: int(v.max(initial=0)) for n, v in checked.items()}
    layers = {n: Layer(graph, n, arith, device) for n in graph.order if n not in graph.inputs}
    total = len(next(iter(checked.values())))
    threads = (threads or torch.get_num_threads()) if device == "cpu" else 1
    batch, threads = _share(graph, total, batch, threads, memory_bytes, states)

    def trace(first: int, part: Mapping[str, np.ndarray]) -> Trace:
        with torch.inference_mode():
            return Trace(first, *run_batch(graph, layers, part, largest, device, states))

    for found in _in_order(trace, batches(checked, batch), threads):
        yield found
        if progress:
            progress(found.first + found.samples, total)


def _check_device(device: str) -> None:
    """Raise ConfigError unless torch has this device and it computes in whole float64."""
    kind = device.partition(":")[0]
    if kind not in DEVICES:
        raise ConfigError(f"device is {device!r}; the fast executor runs on {' or '.join(DEVICES)}")
    if kind == "cuda" and not import_torch().cuda.is_available():
        raise ConfigError(
            "device is 'cuda', but torch finds no GPU here; install torch for CUDA or use 'cpu'"
        )


def _share(
    graph: ig.IntGraph,
    total: int,
    batch: int,
    threads: int,
    memory_bytes: int | None,
    states: bool,
) -> tuple[int, int]:
    """Return samples per batch and batches at a time: all threads busy, memory kept."""
    if memory_bytes is not None:
        fit = max(1, memory_bytes // sample_bytes(graph, states=states))
        threads = min(threads, fit)
        batch = min(batch, fit // threads)
    batch = max(1, min(batch, -(-total // threads)))
    return batch, min(threads, max(1, -(-total // batch)))


def _in_order(trace, parts, threads: int) -> Iterator[Trace]:
    """Yield the traces of the parts in their order, computing ``threads`` of them at a time."""
    if threads == 1:
        for part in parts:
            yield trace(*part)
        return
    torch = import_torch()
    import_loops()  # here: a missing package is said before threads start
    before = torch.get_num_threads()
    waiting: deque[Future[Trace]] = deque()
    with kept_memory(shared=True):
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            for part in parts:
                waiting.append(pool.submit(trace, *part))
                if len(waiting) == threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)  # what later threads start with


def sample_bytes(graph: ig.IntGraph, *, states: bool = False) -> int:
    """Return an upper estimate of the bytes that one sample of a batch takes while it is computed.

    Messages of all populations as float32 and int32, voltages likewise, and for the layer that
    takes most: sums of several projections in float64, and the input unrolled for its kernels.
    """
    kept = sum(p.neurons for p in graph.populations.values()) * (16 if states else 8)
    unrolled = max(
        (
            p.weight[0].size * p.groups * _places(graph, p, pop)
            for pop in graph.populations.values()
            for p in pop.projections
            if isinstance(p, (ig.IntConv2d, ig.IntConvTranspose2d))
        ),
        default=0,
    )
    widest = max(p.neurons for p in graph.populations.values())
    return graph.steps * (kept + 4 * 8 * widest) + 8 * unrolled


def _places(graph: ig.IntGraph, p: ig.IntConv2d | ig.IntConvTranspose2d, pop: ig.Population) -> int:
    """Return the places that a kernel is applied to."""
    source = graph.populations[p.source].shape
    return int(np.prod((pop.shape if isinstance(p, ig.IntConv2d) else source)[1:]))


def run_batch(
    graph: ig.IntGraph,
    layers: dict[str, Layer],
    part: Mapping[str, np.ndarray],
    largest: Mapping[str, int],
    device: str,
    states: bool,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return outputs and voltages (B, T, *shape) int32; layer by layer, all steps at once.

    Messages are recorded as soon as they are there and dropped after their last reader, so that the
    next layer finds its input, and memory to write to, in the cache.
    """
    from_numpy = import_torch().from_numpy
    sent: dict[str, Messages] = {}
    outputs: dict[str, np.ndarray] = {}
    voltages: dict[str, np.ndarray] = {}
    last = _last_readers(graph)
    like = from_numpy(np.zeros((graph.steps, len(next(iter(part.values()))), 0))).to(device)
    for group in graph.groups:
        if graph.loops(group):
            found, seen = run_loop({n: layers[n] for n in group}, sent, like, states)
            sent |= found
            voltages |= {n: _record(v) for n, v in seen.items()}
        elif (name := group[0]) in part:
            value = from_numpy(np.moveaxis(part[name], 1, 0).astype(np.float32)).to(device)
            sent[name] = Messages(value, largest[name])
        else:
            sent[name], voltage = layers[name].output(sent, like, states)
            if voltage is not None:
                voltages[name] = _record(voltage)
        outputs |= {n: _record(sent[n].value) for n in group}
        for done in last.get(group, ()):
            del sent[done]
    return {name: outputs[name] for name in graph.order}, voltages


def _last_readers(graph: ig.IntGraph) -> dict[tuple[str, ...], list[str]]:
    """Return by group the sources that nothing after it reads, its own if nothing does."""
    group_of = {name: group for group in graph.groups for name in group}
    last = dict(group_of)
    for group in graph.groups:
        for name in group:
            last |= {p.source: group for p in graph.populations[name].projections}
    found: dict[tuple[str, ...], list[str]] = {}
    for source, reader in last.items():
        found.setdefault(reader, []).append(source)
    return found


def _record(value: torch.Tensor) -> np.ndarray:
    return np.moveaxis(value.to(import_torch().int32).cpu().numpy(), 0, 1)
