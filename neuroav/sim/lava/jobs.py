"""The folder through which a run is handed to its own process and its results come back.

Plain files only: the network as a deployment file, arrays as ``.npy`` without pickled objects,
settings and result as JSON. Outputs are written in Lava's axis order, one row per time step.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from neuroav import integer as ig
from neuroav import navfile
from neuroav.deployment import Deployment
from neuroav.sim.lava.layout import canonical


@dataclass(frozen=True)
class Settings:
    """parent: process id of the caller, without whom the run ends. jobs: number of networks.
    Others as in ``neuroav.sim.lava.run``."""

    parent: int
    jobs: int
    conv: str
    states: bool
    timeout_s: float
    engine: str
    batch: int


class Folder:
    """The whole run. beat: counts polls of the worker; it stands still only if the worker hangs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stacks = path / "stacks"
        self.beat = path / "beat.npy"
        self.result = path / "result.json"
        self.log = path / "log.txt"

    def write(self, settings: Settings) -> None:
        self.stacks.mkdir()
        np.save(self.beat, np.zeros(1, np.int64))
        (self.path / "settings.json").write_text(json.dumps(asdict(settings)))

    def settings(self) -> Settings:
        return Settings(**json.loads((self.path / "settings.json").read_text()))

    def job(self, index: int) -> Job:
        return Job(self.path / str(index))

    def fail(self, error: str, message: str) -> None:
        """Leave word of what went wrong: the name of an error class and its message."""
        self.result.write_text(json.dumps({"error": error, "message": message}))

    def failure(self) -> dict[str, str] | None:
        return json.loads(self.result.read_text()) if self.result.exists() else None


class Job:
    """One network with its inputs. Populations are numbered in execution order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.network = path / "network.nav"
        self.steps = path / "steps.npy"

    def file(self, kind: str, graph: ig.IntGraph, name: str) -> Path:
        """Return the path of an array. kind: 'input', 'output' or 'voltage'."""
        return self.path / f"{kind}-{graph.order.index(name)}.npy"

    def write(self, deployment: Deployment, inputs: dict[str, np.ndarray]) -> None:
        self.path.mkdir()
        navfile.save(deployment, self.network)
        for name, value in inputs.items():
            np.save(self.file("input", deployment.integer, name), value, allow_pickle=False)
        np.save(self.steps, np.zeros(1, np.int64))

    def inputs(self, graph: ig.IntGraph) -> dict[str, np.ndarray]:
        return {n: np.load(self.file("input", graph, n), allow_pickle=False) for n in graph.inputs}

    def steps_done(self) -> int:
        return int(np.load(self.steps, allow_pickle=False)[0])

    def read(
        self, kind: str, graph: ig.IntGraph, name: str, first: int, last: int, copies: int
    ) -> np.ndarray:
        """Return samples first..last-1 of a recording in canonical order: int32
        (samples, steps, *shape), in the population's own time frame."""
        rows = np.load(self.file(kind, graph, name), mmap_mode="r", allow_pickle=False)
        begin, end = first // copies, -(-last // copies)  # rounds: a sample of every copy
        start = graph.latency[name] + begin * graph.steps
        part = rows[start : start + (end - begin) * graph.steps]
        shape = graph.populations[name].shape
        part = canonical(part, len(shape)).reshape(end - begin, graph.steps, copies, *shape)
        part = part.swapaxes(1, 2).reshape(-1, graph.steps, *shape)
        return np.ascontiguousarray(part[first - begin * copies : last - begin * copies], np.int32)
