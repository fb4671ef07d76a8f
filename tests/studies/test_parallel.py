"""Work in processes: results, failures and deaths one by one, and none that outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import parallel_tasks
import pytest

from neuroav.errors import ConfigError, ExecutorError
from neuroav.studies.parallel import carry_out


def outcomes(tasks, jobs):
    return dict(carry_out(parallel_tasks.work, tasks, jobs))


def test_one_job_works_here():
    found = outcomes([2, "fail", 3], 1)
    assert [found[2], found[3]] == [(4, os.getpid()), (9, os.getpid())]
    assert isinstance(found["fail"], ConfigError)


def test_several_jobs_work_elsewhere_and_fail_one_by_one(capfd):
    found = outcomes([2, "fail", "die", 3, "defect"], 2)
    assert (found[2][0], found[3][0]) == (4, 9)
    assert len({found[2][1], found[3][1], os.getpid()}) == 3
    assert str(found["fail"]) == "as asked"
    assert isinstance(found["fail"], ConfigError)
    assert isinstance(found["die"], ExecutorError)
    assert "ended by signal 9; is there memory for as many --jobs?" in str(found["die"])
    assert "ended with exit code 1, its traceback is above" in str(found["defect"])
    assert "ZeroDivisionError: as asked" in capfd.readouterr().err


def test_a_defect_in_this_process_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        outcomes(["defect"], 1)


def test_tasks_are_taken_only_when_they_can_start():
    taken = []

    def tasks():
        for number in (1, 2, 3):
            taken.append(number)
            yield number

    for done, _ in enumerate(carry_out(parallel_tasks.work, tasks(), 1)):
        assert taken == list(range(1, done + 2))


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return "State:\tZ" not in Path(f"/proc/{number}/status").read_text()


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def lingering(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir()]


PARENT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with it ignored
sys.path[:0] = {path!r}
import parallel_tasks
from neuroav.studies.parallel import carry_out
if __name__ == "__main__":
    for _ in carry_out(parallel_tasks.linger, [{folder!r}] * 2, 2):
        pass
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_its_parent(tmp_path, number):
    folder = tmp_path / "here"
    folder.mkdir()
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(path=sys.path, folder=str(folder)))
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.DEVNULL)
    wait_for(lambda: len(lingering(folder)) == 2)
    parent.send_signal(number)
    parent.wait(30)
    wait_for(lambda: not any(map(alive, lingering(folder))))
