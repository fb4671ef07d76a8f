"""Simulate a deployment on several workers: the result of one process, whatever they are.

Samples are dealt in chunks. A worker runs the executor ``fast`` on a chunk, counts its events and
sends back class scores, counts and the outputs of all populations. The spike digest is one sha256
over all samples in their order, so this process takes it, while later chunks are being computed:
that is its share of the work, and bounds what more workers can bring (docs/scale.md has figures).
From a worker on this machine it reads the outputs where they lie in shared memory; over a network
they travel packed (``chunks``). At most ``cluster.AHEAD`` chunks per worker are under way, each of
``MOST_BYTES`` at most. Where asked, the outputs of finished chunks are kept (``finished``), and a
run that was cut off goes on from them: they are counted and hashed here, not computed again.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neuroav import navfile
from neuroav.counts import Counter, Counts
from neuroav.deployment import Deployment
from neuroav.errors import ConfigError, ExecutorError
from neuroav.integer import IntGraph
from neuroav.loads import LoadCounter
from neuroav.recordfile import open_record
from neuroav.sim import fast
from neuroav.sim.trace import SpikeDigest, Trace
from neuroav.simulate import Outcome, Progress, Samples
from neuroav.studies.chunks import Chunk, Packed, Simulated, chunks, pack, unpack
from neuroav.studies.cluster import Cluster, Workers, cluster
from neuroav.studies.finished import Finished, finished, request_of

CHUNKS = 4  # per worker at least, so that none waits long for the last one
LARGEST = 64  # samples of a chunk, and bytes of its outputs (one sample at least), unless told
MOST_BYTES = 16 << 20  # otherwise


def sent_file(path: str | Path) -> np.ndarray:
    """Return the bytes of a FILE.nav in a form that workers read without a copy."""
    return np.frombuffer(Path(path).read_bytes(), np.uint8)


_known: dict[str, Deployment] = {}  # on a worker: the deployment it read last


def received(content: np.ndarray, content_hash: str) -> Deployment:
    """Return the deployment in ``content``; ExecutorError where it is not the one of this hash."""
    if content_hash not in _known:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sent.nav"
            path.write_bytes(content.tobytes())
            deployment = navfile.load(path)
        if deployment.content_hash != content_hash:
            raise ExecutorError("the file changed while it was sent to the workers; run again")
        _known.clear()
        _known[content_hash] = deployment
    return _known[content_hash]


def own_recordings(data: Samples) -> Samples:
    """Return samples whose source holds their own recordings alone."""
    part = data.source
    if part is None:
        return data
    rows, whole = part.rows[: len(data)], part.recordings
    recordings = replace(
        whole,
        audio=whole.audio and whole.audio.take(rows),
        visual=whole.visual and whole.visual.take(rows),
        labels=np.asarray(whole.labels[rows]),
        split=np.asarray(whole.split[rows]),
        source={},
    )
    own = replace(
        part, recordings=recordings, rows=np.arange(len(rows)), labels=part.labels[: len(data)]
    )
    return replace(data, source=own)


def simulate_chunk(
    chunk: Chunk, content: np.ndarray, content_hash: str, memory_bytes: int | None, packed: bool
) -> Simulated:
    """Run one chunk on a worker, on one core."""
    deployment = received(content, content_hash)
    counter, scores, parts = Counter(deployment.integer), [], []
    samples = len(next(iter(chunk.inputs.values())))
    for trace in fast.run(
        deployment, chunk.inputs, batch=samples, threads=1, memory_bytes=memory_bytes
    ):
        counter.add(trace)
        scores.append(_scores(deployment.integer, trace))
        parts.append(trace.outputs)
    whole = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
    outputs = {n: pack(v) for n, v in whole.items()} if packed else whole
    return Simulated(chunk.first, np.concatenate(scores), counter.counts(), outputs)


def counted(graph: IntGraph, first: int, outputs: Mapping[str, Packed]) -> Simulated:
    """Return a chunk from its outputs alone."""
    trace, counter = Trace(first, {n: unpack(v) for n, v in outputs.items()}), Counter(graph)
    counter.add(trace)
    return Simulated(first, _scores(graph, trace), counter.counts(), trace.outputs)


def _scores(graph: IntGraph, trace: Trace) -> np.ndarray:
    return trace.outputs[graph.output][:, -1].astype(np.int64)


def joined_counts(graph: IntGraph, parts: Sequence[Counts]) -> Counts:
    """Return the counts of all samples from those of consecutive parts."""
    first = parts[0]
    spikes = {n: np.concatenate([p.spikes[n] for p in parts]) for n in first.spikes}
    synops = {
        n: {kind: np.concatenate([p.synops[n][kind] for p in parts]) for kind in kinds}
        for n, kinds in first.synops.items()
    }
    places = {n: graph.populations[n].neurons * graph.steps for n in spikes}
    rates = {n: float(v.mean()) / places[n] for n, v in spikes.items()}
    samples = sum(p.samples for p in parts)
    return replace(first, samples=samples, spikes=spikes, synops=synops, rates=rates)


def _chunk_size(graph: IntGraph, samples: int, count: int) -> int:
    """Return the samples of a chunk for ``count`` workers."""
    sample_bytes = 4 * graph.steps * sum(p.neurons for p in graph.populations.values())
    return max(1, min(LARGEST, -(-samples // (CHUNKS * count)), MOST_BYTES // sample_bytes))


def run_on_workers(
    workers: Workers | Cluster,
    path: str | Path,
    deployment: Deployment,
    samples: Samples,
    backend: str = "fast",
    *,
    batch: int | None = None,
    memory_bytes: int | None = None,
    device: str | None = None,
    record: Path | None = None,
    resume: Path | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Return what ``simulate.run_backend`` returns, computed by workers.

    path: the file of ``deployment``, which is sent to them. batch: samples of a chunk. With record
    this process also counts the events by core and link and writes the file, in order. resume: a
    folder that keeps finished chunks until the run is whole; where some are there already, chunks
    have the size of those. Raises the errors of ``fast.run`` and ``finished``, ConfigError for
    another executor or a device, ExecutorError for a chunk that lost its worker again and again.
    """
    if backend != "fast" or device not in (None, "cpu"):
        raise ConfigError(
            f"workers run --backend fast on CPUs, found {backend} on {device or 'cpu'}; leave "
            "--workers and --ray out"
        )
    given = {n: np.asarray(v) for n, v in samples.inputs.items()}
    with ExitStack() as stack:
        own = workers if isinstance(workers, Cluster) else stack.enter_context(cluster(workers))
        start = time.perf_counter()
        size = batch or _chunk_size(deployment.integer, len(samples), own.count)
        store = None
        if resume:
            request = request_of(deployment.content_hash, given)
            store = stack.enter_context(finished(resume, request, size))
            size = store.size
        content = own.share(sent_file(path))
        packed = store is not None or not own.here
        shared = (content, deployment.content_hash, memory_bytes, packed)
        taken = _Taken(deployment, record, start)
        writer = stack.enter_context(taken.writing())
        for found in _results(own, deployment.integer, chunks(given, size), shared, store):
            taken.add(found, writer)
            if progress:
                progress("simulating (fast, on workers)", found.first + len(found.scores),
                         len(samples))  # fmt: skip
        return taken.outcome(samples, writer)


def _results(
    own: Cluster, graph: IntGraph, pieces: Iterable[Chunk], shared: tuple, store: Finished | None
) -> Iterator[Simulated]:
    """Yield what the chunks gave, in order: of those in the store what is there, others anew."""
    if store is None:
        yield from own.in_order(simulate_chunk, pieces, shared)
        return
    pieces = list(pieces)
    missing = [c for c in pieces if c.first not in store.known]
    with closing(own.in_order(simulate_chunk, missing, shared)) as computed:
        for chunk in pieces:
            if chunk.first in store.known:
                yield counted(graph, chunk.first, store.get(chunk.first))
            else:
                found = next(computed)
                store.add(found.first, found.outputs)
                yield found


class _Taken:
    """Takes in chunks in order: digest, counts, scores and, where recorded, loads."""

    def __init__(self, deployment: Deployment, record: Path | None, start: float) -> None:
        graph = deployment.integer
        self._graph, self._hash, self._record = graph, deployment.content_hash, record
        self._digest, self._start = SpikeDigest(graph), start
        self._scores: list[np.ndarray] = []
        self._counts: list[Counts] = []
        placement = deployment.placement if record else None
        self._loads = LoadCounter(graph, placement) if placement else None

    def writing(self) -> Any:
        if self._record is None:
            return nullcontext()
        return open_record(self._record, {"backend": "fast", "deployment_hash": self._hash})

    def add(self, found: Simulated, writer: Any) -> None:
        outputs = {n: unpack(found.outputs[n]) for n in self._graph.order}
        trace = Trace(found.first, outputs)
        self._digest.add(trace)
        # copies: an array that is kept would keep the whole chunk in shared memory
        self._scores.append(found.scores.copy())
        self._counts.append(deepcopy(found.counts))
        if self._loads:
            self._loads.add(trace)
        if writer:
            writer.add(trace)

    def outcome(self, samples: Samples, writer: Any) -> Outcome:
        made = Outcome(
            np.concatenate(self._scores),
            joined_counts(self._graph, self._counts),
            self._digest.hexdigest(),
            time.perf_counter() - self._start,
        )
        if writer:
            loads = self._loads.loads() if self._loads else None
            writer.finish(made.counts, made.predictions, samples.labels, made.digest, loads)
        return made
