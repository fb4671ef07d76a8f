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
    """Does something to a worker's children when the first samples are done."""

    def __init__(self, processes, number: int, *, whole: bool = False) -> None:
        self._processes, self._number, self._whole = processes, number, whole
        self.family: list[int] = []
        self.segments: set[str] = set()
        self.at = 0.0

    def __call__(self, done: int, total: int) -> None:
        if self.family:
            return
        (worker,) = self._processes.workers(os.getpid())
        children = self._processes.children(worker)
        self.family = [worker, *children]
        self.segments = set().union(*map(self._processes.segments, children))
        assert done < total
        assert len(children) >= 7
        assert self.segments
        self.at = time.monotonic()
        victim = worker if self._whole else children[len(children) // 2]
        os.kill(victim, self._number)

    def nothing_left(self) -> None:
        assert self.family, "the run was over before it could be disturbed"
        assert not [pid for pid in self.family if self._processes.alive(pid)]
        assert not [s for s in self.segments if Path(s).exists()]
        assert not list(Path(tempfile.gettempdir()).glob("neuroav-lava-*"))


@pytest.fixture(autouse=True)
def own_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


NAMED = r"(Lava process '(eye|edges|scores|edges from eye|scores from edges|recorder 0)'|Lava's "


@pytest.mark.parametrize(
    ("number", "whole", "message"),
    [
        (signal.SIGKILL, False, NAMED + r"runtime service) died with exit code -9"),
        (signal.SIGSTOP, False, r"no progress for 3 s .*" + NAMED + r"runtime service) does not"),
        (signal.SIGKILL, True, r"the Lava worker ended with exit code -9"),
    ],
    ids=["child killed", "child stopped", "worker killed"],
)
def test_a_disturbed_run_ends_in_an_error(small_network, processes, number, whole, message):
    sabotage = _Sabotage(processes, number, whole=whole)
    deployment, inputs = small_network(2000)
    with pytest.raises(ExecutorError, match=message):
        list(lava.run(deployment, inputs, timeout_s=3, progress=sabotage))
    assert time.monotonic() - sabotage.at < 20
    sabotage.nothing_left()


def test_an_error_in_the_callers_code_ends_the_run(small_network, processes):
    sabotage = _Sabotage(processes, signal.SIGCONT)

    def interrupted(done: int, total: int) -> None:
        sabotage(done, total)
        raise KeyboardInterrupt

    deployment, inputs = small_network(2000)
    with pytest.raises(KeyboardInterrupt):
        list(lava.run(deployment, inputs, progress=interrupted))
    sabotage.nothing_left()


CALLER = """
import sys
sys.path.insert(0, {folder!r})
import conftest
from neuroav.sim import lava
deployment, inputs = conftest.make_small_network(2000)
list(lava.run(deployment, inputs, progress=lambda done, total: print(done, flush=True)))
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
