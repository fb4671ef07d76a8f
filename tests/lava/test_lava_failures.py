"""Whatever happens to a Lava process: an error that names it, soon, and nothing left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from neuroav.errors import ConfigError, ExecutorError
from neuroav.sim import lava
from neuroav.sim.lava import client

pytestmark = pytest.mark.lava

FAULTS = {
    "none": "",
    "raise": r"'culprit raise' failed: ZeroDivisionError: deliberate\n.*run_spk",
    "raise late": r"'culprit raise late' failed: ZeroDivisionError: after sending\n.*run_spk",
    "shape": r"'culprit shape' failed: AssertionError: .*Mismatch",
    "kill": r"'culprit kill' died with exit code -9",
    "sleep": r"no progress for 2 s after step 4: .*'culprit sleep' is busy or .*run_spk",
    "spin": r"no progress for 2 s after step 4: .*'culprit spin' is busy or .*run_spk",
    "construction": r"'culprit construction' failed: ValueError: no such weights",
    "exit in construction": r"'culprit exit in construction' died with exit code 3",
}


@pytest.fixture(scope="module")
def outcomes(script, tmp_path_factory):
    output = script(
        str(Path(__file__).parent / "run_faulty.py"),
        str(tmp_path_factory.mktemp("faulty")),
        "runtime",
        *FAULTS,
    )
    lines = re.findall(r"^OUTCOME (.*)$", output, re.MULTILINE)
    return {outcome["fault"]: outcome for outcome in map(json.loads, lines)}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failing_process_is_named_and_all_is_cleaned_up(outcomes, fault):
    outcome = outcomes[fault]
    if fault == "none":
        assert outcome["error"] == ""
        assert outcome["rows"][19] == [19, 39, 59]
    else:
        assert outcome["error"] == "ExecutorError"
        assert re.search(FAULTS[fault], outcome["message"], re.DOTALL), outcome["message"]
    assert outcome["seconds"] < 15
    assert outcome["segments"] > 0
    assert outcome["left"] == []
    assert outcome["children"] == 0


class _Sabotage:
    """Does something to one of a run's processes when the first samples are done."""

    def __init__(self, processes, number: int, victim: str) -> None:
        self._processes, self._number, self._victim = processes, number, victim
        self.family: list[int] = []
        self.segments: set[str] = set()
        self.at = 0.0

    def __call__(self, done: int, total: int) -> None:
        if self.family:
            return
        (worker,) = self._processes.workers(os.getpid())
        named = self._processes.named(worker)
        self.family = list(named.values())
        self.segments = set().union(*map(self._processes.segments, self.family))
        assert done < total
        assert len(named) == 10  # six processes of the network, the service, and those below
        assert self.segments
        self.at = time.monotonic()
        os.kill(named[self._victim], self._number)

    def nothing_left(self) -> None:
        assert self.family, "the run was over before it could be disturbed"
        assert not [pid for pid in self.family if self._processes.alive(pid)]
        assert not [s for s in self.segments if Path(s).exists()]
        assert not list(Path(tempfile.gettempdir()).glob("neuroav-lava-*"))


@pytest.fixture(autouse=True)
def own_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


KILLED = {
    "eye": "Lava process 'eye' died with exit code -9",
    "edges from eye": "Lava process 'edges from eye' died with exit code -9",
    "edges": "Lava process 'edges' died with exit code -9",
    "scores from edg": "Lava process 'scores from edges' died with exit code -9",
    "scores": "Lava process 'scores' died with exit code -9",
    "recorder 0": "Lava process 'recorder 0' died with exit code -9",
    "runtime service": "Lava's runtime service died with exit code -9",
    "manager": "Lava's shared memory manager died",
    "tracker": "Python's tracker of shared memory died",
    "worker": "the Lava worker ended with exit code -9",
}


@pytest.mark.parametrize("victim", KILLED)
def test_whichever_process_is_killed_the_error_names_it(small_network, processes, victim):
    """A source, a convolution, a neuron layer, a dense connection, a readout, a recorder, and all
    that run no part of the network."""
    sabotage = _Sabotage(processes, signal.SIGKILL, victim)
    deployment, inputs = small_network(2000)
    with pytest.raises(ExecutorError) as caught:
        list(lava.run(deployment, inputs, batch=1, progress=sabotage))
    assert str(caught.value).startswith(KILLED[victim])
    assert time.monotonic() - sabotage.at < 20
    sabotage.nothing_left()


@pytest.mark.parametrize("victim", ["edges", "runtime service"])
def test_a_process_that_stands_still_is_named(small_network, processes, victim):
    sabotage = _Sabotage(processes, signal.SIGSTOP, victim)
    deployment, inputs = small_network(2000)
    with pytest.raises(ExecutorError, match=rf"no progress for 3 s .*{victim}'? does not respond"):
        list(lava.run(deployment, inputs, batch=1, timeout_s=3, progress=sabotage))
    assert time.monotonic() - sabotage.at < 20
    sabotage.nothing_left()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_the_one_process_of_an_inline_run(small_network, processes, monkeypatch, number):
    monkeypatch.setattr(client, "_GRACE_S", 1.0)
    disturbed: list[int] = []

    def disturb(done: int, total: int) -> None:
        if not disturbed:
            disturbed.extend(processes.workers(os.getpid()))
            assert done < total
            assert processes.children(*disturbed) == []
            os.kill(disturbed[0], number)

    message = "ended with exit code -9" if number == signal.SIGKILL else "not responded for 4 s"
    options = {"batch": 1, "engine": "inline", "timeout_s": 3, "progress": disturb}
    with pytest.raises(ExecutorError, match=message):
        list(lava.run(*small_network(2000), **options))
    assert not processes.alive(disturbed[0])
    assert not list(Path(tempfile.gettempdir()).glob("neuroav-lava-*"))


def test_an_error_in_the_callers_code_ends_the_run(small_network, processes):
    sabotage = _Sabotage(processes, signal.SIGCONT, "worker")

    def interrupted(done: int, total: int) -> None:
        sabotage(done, total)
        raise KeyboardInterrupt

    deployment, inputs = small_network(2000)
    with pytest.raises(KeyboardInterrupt):
        list(lava.run(deployment, inputs, batch=1, progress=interrupted))
    sabotage.nothing_left()


CALLER = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
sys.path.insert(0, {folder!r})
import conftest
from neuroav.sim import lava
from neuroav.sim.lava import client
deployment, inputs = conftest.make_small_network(2000)
list(lava.run(deployment, inputs, batch=1, progress=lambda done, total: print(done, flush=True)))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
def test_a_caller_that_ends_takes_its_run_along(environment, processes, number, tmp_path):
    code = CALLER.format(folder=str(Path(__file__).parent))
    with subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as caller:
        assert caller.stdout is not None
        assert caller.stdout.readline()  # the first sample is done
        (worker,) = processes.workers(caller.pid)
        family = [caller.pid, worker, *processes.children(worker)]
        segments = set().union(*map(processes.segments, family))
        assert segments
        caller.send_signal(number)
        assert caller.wait(timeout=20) != 0
        deadline = time.monotonic() + 20
        while any(map(processes.alive, family)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [pid for pid in family if processes.alive(pid)]
        assert not [s for s in segments if Path(s).exists()]
        assert not list(tmp_path.glob("neuroav-lava-*"))


@pytest.mark.parametrize("options", [{"conv": "fast"}, {"timeout_s": 0}], ids=str)
def test_unknown_options_are_refused(small_network, options):
    deployment, inputs = small_network(1)
    with pytest.raises(ConfigError, match=next(iter(options))):
        list(lava.run(deployment, inputs, **options))
