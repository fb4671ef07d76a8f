"""Networks and helpers of the Lava tests."""

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from strategies_intgraph import make_deployment

from neuroav import integer as ig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def script():
    """Return a function that runs Python with the project on its path; output must be clean."""

    def run(*arguments: str, timeout: float = 120) -> str:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env=script_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            output, errors = process.communicate(timeout=timeout)
        finally:  # a script that hangs in Lava leaves its children behind
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        assert process.returncode == 0, output + errors
        return output

    return run


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    return script_environment()


def script_environment() -> dict[str, str]:
    paths = [str(ROOT), str(ROOT / "tests" / "support")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}


class Processes:
    """The processes of the machine, as /proc lists them."""

    @staticmethod
    def children(parent: int) -> list[int]:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, ppid = stat.read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if int(ppid) == parent and state != "Z":
                found.append(int(stat.parent.name))
        return sorted(found)

    @classmethod
    def workers(cls, parent: int) -> list[int]:
        return [
            pid
            for pid in cls.children(parent)
            if b"neuroav.sim.lava.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]

    @classmethod
    def named(cls, worker: int) -> dict[str, int]:
        """Return a worker and its children by name: 'worker', 'tracker' and 'manager' of shared
        memory, and the first 15 characters of the names of Lava's processes."""
        found = {"worker": worker}
        for pid in cls.children(worker):
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                name = "tracker"
            elif name == Path(f"/proc/{worker}/comm").read_text().strip():
                name = "manager"
            assert name not in found
            found[name] = pid
        return found

    @staticmethod
    def segments(pid: int) -> set[str]:
        """Return the shared memory files a process has mapped."""
        try:
            return set(re.findall(r"/dev/shm/psm_\w+", Path(f"/proc/{pid}/maps").read_text()))
        except OSError:
            return set()

    @staticmethod
    def alive(pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        return stat.rpartition(")")[2].split()[0] != "Z"


@pytest.fixture(scope="session")
def processes() -> type[Processes]:
    return Processes


@pytest.fixture(scope="session")
def small_network():
    return make_small_network


def make_small_network(samples: int):
    """Return deployment and inputs of a network that runs for a while."""
    rng = np.random.default_rng(3)
    weight = rng.integers(-20, 60, (4, 1, 3, 3)) * 2
    deployment = make_deployment(
        {
            "eye": ig.IntInput((1, 5, 5), (), 3),
            "edges": ig.IntLif(
                (4, 5, 5),
                (ig.IntConv2d("eye", 0, weight, (1, 1), (1, 1), (1, 1), 1, 8, "mixed"),),
                np.array(5),
                2,
                np.array(90),
                4095,
                2048,
            ),
            "scores": ig.IntReadout(
                (3,),
                (ig.IntDense("edges", 0, rng.integers(-60, 60, (3, 100)) * 2, 8, "mixed"),),
                np.arange(3),
            ),
        },
        "scores",
        8,
    )
    frames = rng.random((samples, 8, 1, 5, 5)) < 0.3
    return deployment, {"eye": frames * rng.integers(1, 4, frames.shape)}


@pytest.fixture(scope="session")
def networks():
    """Return the hand-made networks with inputs, by name."""
    spec = importlib.util.spec_from_file_location(
        "networks", Path(__file__).with_name("networks.py")
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.all_networks()
