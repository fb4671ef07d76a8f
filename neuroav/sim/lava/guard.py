"""Runs a Lava network so that every failure ends it.

Left alone, Lava waits for ever, silently, when one of its OS processes dies, raises or stalls. Here
the parent polls its children; a dead, failed or stuck one becomes an ExecutorError with the name of
the Lava process and its traceback, all children are killed and the shared memory is given back.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from lava.magma.core.process.message_interface_enum import ActorType
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.magma.runtime.mgmt_token_enums import MGMT_RESPONSE, enum_equal
from lava.magma.runtime.runtime import Runtime

from neuroav.errors import ExecutorError, OutOfRange

POLL_S = 0.005
SETTLE_S = 0.3  # after the first failure: let others report theirs, so that the cause is among them
_WAITING = ("pypychannel.py", "runtime_service.py")  # frames of a process that waits for others


class GuardedRuntime(Runtime):
    """Lava's runtime, that also notices processes dying while they are constructed.

    names: of the Lava processes in the order their OS processes are started.
    stacks: folder for the stack of each child, asked for when nothing moves.
    """

    exception_q: list  # a queue per child, for its report on its construction

    def __init__(self, executable, stacks: Path, timeout_s: float) -> None:
        super().__init__(executable, ActorType.MultiProcessing)
        self._names = [process.name for process in executable.proc_builders]
        self._stacks, self._timeout_s = stacks, timeout_s

    def _start_ports(self) -> None:
        """Hook between starting the children and waiting for their reports without a limit."""
        super()._start_ports()
        deadline = time.monotonic() + self._timeout_s
        for index, queue in enumerate(self.exception_q):
            while queue.empty():
                self.refuse_dead()
                if time.monotonic() > deadline:
                    raise ExecutorError(
                        f"{self.name_of(index)} did not start within {self._timeout_s:g} s"
                    )
                time.sleep(POLL_S)
            error = queue.get()
            if error is not None:
                time.sleep(SETTLE_S)
                self.refuse_dead()
                raise ExecutorError(f"{self.name_of(index)} failed: {error}\n{error.trace}")
        self.exception_q = []

    @property
    def actors(self) -> list:
        return self._messaging_infrastructure.actors

    def name_of(self, index: int) -> str:
        named = index < len(self._names)
        return f"Lava process {self._names[index]!r}" if named else "Lava's runtime service"

    @property
    def finished(self) -> bool:
        """True once, when the steps asked for are done; raises if they ended in an error."""
        port = self.service_to_runtime[0]
        if not port.probe():
            return False
        if enum_equal(port.peek(), MGMT_RESPONSE.DONE):
            port.recv()
            self._is_running = False
            return True
        time.sleep(SETTLE_S)
        self.refuse_dead()
        raise ExecutorError("Lava's runtime service reported an error without a cause")

    def refuse_dead(self) -> None:
        """Raise for children that failed or died; the first in the order of the network."""
        if not any(a.exception or not a.is_alive() for a in self.actors):
            return
        time.sleep(SETTLE_S)
        failed = [
            (self.name_of(i), a)
            for i, a in enumerate(self.actors)
            if a.exception or not a.is_alive()
        ]
        raised = [(name, a.exception) for name, a in failed if a.exception]
        for _, (error, _) in raised:
            if isinstance(error, OutOfRange):
                raise error
        if raised:
            name, (error, trace) = raised[0]
            raise ExecutorError(f"{name} failed: {type(error).__name__}: {error}\n{trace}")
        raise ExecutorError(
            "; ".join(f"{name} died with exit code {a.exitcode}" for name, a in failed)
        )

    def describe_stuck(self) -> str:
        """Ask every child for its stack; name those that wait for no other process."""
        for actor in self.actors:
            with contextlib.suppress(ProcessLookupError):
                os.kill(actor.pid, signal.SIGUSR1)
        time.sleep(SETTLE_S)
        stuck = []
        for index, actor in enumerate(self.actors):
            text = _main_thread(self._stacks / str(actor.pid))
            if not text:
                stuck.append(f"{self.name_of(index)} does not respond")
            elif not any(file in text for file in _WAITING):
                stuck.append(f"{self.name_of(index)} is busy or blocked in\n{text}")
        return "; ".join(stuck) or "every process waits for another"

    def kill(self) -> None:
        """End all children at once and free the shared memory."""
        self._is_started = False
        if self._messaging_infrastructure is None:
            return
        for actor in self.actors:
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(actor.pid, signal.SIGKILL)
        self._messaging_infrastructure.stop()


def execute(
    root,
    steps: int,
    models: dict,
    stacks: Path,
    *,
    timeout_s: float,
    steps_done: Callable[[], int],
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Run all processes connected to ``root`` for ``steps`` time steps.

    models: process class -> model class, for those not to be chosen by Lava. stacks: the folder
    given to ``dump_stacks_on_request``. timeout_s: longest time without a finished step.
    steps_done: returns the number of finished steps. alive: called at every poll; may raise.
    Raises ExecutorError, or the OutOfRange a process raised.
    """
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
    executable = root.compile(config, {"pypy_channel_size": 2})
    alive()
    runtime = GuardedRuntime(executable, stacks, timeout_s)
    try:
        runtime.initialize()
        runtime.start(RunSteps(steps, blocking=False))
        _watch(runtime, timeout_s, steps_done, alive)
    except BaseException:
        runtime.kill()
        raise
    runtime.stop()


def _watch(
    runtime: GuardedRuntime,
    timeout_s: float,
    steps_done: Callable[[], int],
    alive: Callable[[], None],
) -> None:
    seen, since = -1, time.monotonic()
    while not runtime.finished:
        runtime.refuse_dead()
        alive()
        done = steps_done()
        if done != seen:
            seen, since = done, time.monotonic()
        elif time.monotonic() - since > timeout_s:
            raise ExecutorError(
                f"no progress for {timeout_s:g} s after step {done}: {runtime.describe_stuck()}"
            )
        time.sleep(POLL_S)


def dump_stacks_on_request(stacks: Path) -> None:
    """Make every child forked from now on write its stacks to stacks/PID on SIGUSR1."""

    def register() -> None:
        file = open(stacks / str(os.getpid()), "w")  # noqa: SIM115 - open as long as the child
        faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)

    os.register_at_fork(after_in_child=register)


def _main_thread(path: Path) -> str:
    """Return the last stack in a dump: faulthandler lists the oldest thread last."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    return text.rpartition("(most recent call first):\n")[2].strip("\n")
