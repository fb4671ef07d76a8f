"""Runs SANA-FE in a process of its own and reads what it counted.

SANA-FE is GPL-3.0 software: it is never imported into this process. The child runs ``run.py`` of a
folder with this interpreter, in its own process group, and is gone when ``replay`` returns or
raises; it also ends by itself when its parent has gone.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from neuroav.errors import ConfigError, ExecutorError, MissingDependency

Timing = Literal["simple", "detailed"]
TIMEOUT_S = 600.0
INSTALL = "pip install 'neuroav[sanafe]'"


@dataclass(frozen=True, eq=False)
class Replay:
    """What SANA-FE counted in every step, (steps,) each.

    synapse_j, soma_j, network_j: energy in J. hops, packets, synops, fired, updated: events.
    seconds: time of the step on the chip, by ``timing``. version: of SANA-FE.
    """

    version: str
    timing: Timing
    synapse_j: np.ndarray
    soma_j: np.ndarray
    network_j: np.ndarray
    hops: np.ndarray
    packets: np.ndarray
    synops: np.ndarray
    fired: np.ndarray
    updated: np.ndarray
    seconds: np.ndarray


def require() -> None:
    """Raise MissingDependency, with the line that installs it, if sanafe is not there."""
    if importlib.util.find_spec("sanafe") is None:
        raise MissingDependency(f"sanafe is not installed; install it with: {INSTALL}")


def replay(folder: Path, *, timing: Timing = "simple", timeout_s: float = TIMEOUT_S) -> Replay:
    """Return what SANA-FE counts for a folder made by ``write_folder``.

    timing: SANA-FE's model of a step's time; 'detailed' knows of queues in the network, and is slow
    for many messages. Raises MissingDependency; ExecutorError when the process fails or takes more
    than ``timeout_s`` seconds; ConfigError.
    """
    if timing not in get_args(Timing):
        raise ConfigError(f"timing is {timing!r}, allowed are {', '.join(get_args(Timing))}")
    if not timeout_s > 0:
        raise ConfigError(f"timeout_s is {timeout_s}, it must be positive")
    require()
    with tempfile.TemporaryDirectory(prefix="neuroav-sanafe-") as path:
        result = Path(path) / "result.json"
        command = [sys.executable, str(Path(folder).resolve() / "run.py"), "--timing", timing,
                   "--out", str(result), "--parent", str(os.getpid())]  # fmt: skip
        _run(command, Path(path), timeout_s)
        found = json.loads(result.read_text(encoding="utf-8"))
    return _replay(found, timing)


def _run(command: list[str], cwd: Path, timeout_s: float) -> None:
    log = cwd / "log"
    with open(log, "wb") as output:
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        code = child.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise ExecutorError(
            f"SANA-FE took more than {timeout_s:g} s; give it fewer samples or more time, "
            f"its last output:\n{_tail(log)}"
        ) from None
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if code != 0:
        raise ExecutorError(f"SANA-FE ended with exit code {code}; its last output:\n{_tail(log)}")


def _tail(log: Path, characters: int = 2000) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-characters:]


def _replay(found: dict, timing: Timing) -> Replay:
    steps = {name: np.array(values) for name, values in found["per_step"].items()}
    return Replay(
        version=found["sanafe"],
        timing=timing,
        synapse_j=steps["synapse_energy"],
        soma_j=steps["soma_energy"],
        network_j=steps["network_energy"],
        hops=steps["hops"],
        packets=steps["packets"],
        synops=steps["spikes"],
        fired=steps["fired"],
        updated=steps["updated"],
        seconds=steps["sim_time"],
    )
