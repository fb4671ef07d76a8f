"""Runs a Lava network so that every failure ends it.

Left alone, Lava waits for ever, silently, when one of its OS processes dies, raises or stalls. Here
the parent polls its children; a dead, failed or stuck one becomes an ExecutorError with the name of
the Lava process and its traceback, all children are killed and the shared memory is given back.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import multiprocessing
import os
import re
import select
import signal
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from lava.magma.core.process.message_interface_enum import ActorType
from lava.magma.core.run_conditions import RunSteps
from lava.magma.runtime import runtime as lavas
from lava.magma.runtime.mgmt_token_enums import MGMT_RESPONSE, enum_equal

from neuroav.errors import ExecutorError, OutOfRange
from neuroav.sim.lava.channels import DirectMultiProcessing, wait_directly
from neuroav.sim.lava.compiling import compile_processes

POLL_S = 0.02
SETTLE_S = 0.3  # after the first failure: let others report theirs, so that the cause is among them
# a frame of a process that waits for others
_WAITING = re.compile(r'/(lava/channels|pypychannel)\.py", line \d+ in (send|recv|wait|_?select)')
SERVICE = "runtime service"


class GuardedRuntime(lavas.Runtime):
    """Lava's runtime, that also notices processes dying while they are constructed.

    names: of the Lava processes in the order their OS processes are started.
    stacks: folder for the stack of each child, asked for when nothing moves. own_channels: Lava's
    own, with their threads, instead of ``neuroav.sim.lava.channels``.
    """

    exception_q: list  # a queue per child, for its report on its construction

    def __init__(
        self, executable, stacks: Path, timeout_s: float, *, own_channels: bool = False
    ) -> None:
        super().__init__(executable, ActorType.MultiProcessing)
        self._own_channels = own_channels
        self._names = [process.name for process in executable.proc_builders]
        self._stacks, self._timeout_s = stacks, timeout_s
        self._ends: Any = None
        self._tracker: int | None = None

    def _build_processes(self) -> None:
        gc.freeze()  # else every child copies most of the memory it shares with this process
        # Lava wants a queue for one message of every child: the simple kind needs no thread
        lavas.Queue, queue = multiprocessing.SimpleQueue, lavas.Queue
        try:
            super()._build_processes()
        finally:
            lavas.Queue = queue

    def _build_message_infrastructure(self) -> None:
        if self._own_channels:
            super()._build_message_infrastructure()
            return
        self._messaging_infrastructure = DirectMultiProcessing([*self._names, SERVICE])
        self._messaging_infrastructure.start()

    def _start_ports(self) -> None:
        """Hook between starting the children and waiting for their reports without a limit."""
        gc.unfreeze()
        super()._start_ports()
        self._watch_children()
        deadline = time.monotonic() + self._timeout_s
        for index, queue in enumerate(self.exception_q):
            while queue.empty():
                self.refuse_dead()
                if time.monotonic() > deadline:
                    raise ExecutorError(
                        f"{self.name_of(index)} did not start within {self._timeout_s:g} s"
                    )
                self.pause(POLL_S)
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
        return f"Lava process {self._names[index]!r}" if named else f"Lava's {SERVICE}"

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

    def _watch_children(self) -> None:
        """Have the system say when a child ends or sends what it raised: asking each takes long."""
        self._ends = select.epoll()
        for actor in self.actors:
            self._ends.register(actor.sentinel, select.EPOLLIN)
            self._ends.register(actor._pconn, select.EPOLLIN)
        manager = self._messaging_infrastructure.smm._manager._process
        self._helpers: dict[int, str] = {manager.sentinel: "Lava's shared memory manager"}
        with contextlib.suppress(OSError, AttributeError):  # kernels before 5.3: nobody can tell
            tracker: Any = resource_tracker._resource_tracker
            self._tracker = os.pidfd_open(tracker._pid)
            self._helpers[self._tracker] = "Python's tracker of shared memory"
        for descriptor in self._helpers:
            self._ends.register(descriptor, select.EPOLLIN)

    def pause(self, longest_s: float) -> None:
        """Sleep, until a child ends at the longest."""
        self._ends.poll(longest_s, 1)

    def refuse_dead(self) -> None:
        """Raise for children that failed or died; the first in the order of the network."""
        ended = [descriptor for descriptor, _ in self._ends.poll(0)]
        if not ended:
            return
        helpers = [self._helpers[d] for d in ended if d in self._helpers]
        if helpers:
            raise ExecutorError(f"{helpers[0]} died")
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
            elif not _WAITING.search(text):
                stuck.append(f"{self.name_of(index)} is busy or blocked in\n{text}")
        return "; ".join(stuck) or "every process waits for another"

    def stop(self) -> None:
        """End all children in good order."""
        self._unwatch()
        super().stop()

    def _unwatch(self) -> None:
        if self._ends is not None:
            self._ends.close()
        if self._tracker is not None:
            os.close(self._tracker)
        self._ends = self._tracker = None

    def kill(self) -> None:
        """End all children at once and free the shared memory."""
        self._unwatch()
        self._is_started = False
        if self._messaging_infrastructure is None:
            return
        for actor in self.actors:
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(actor.pid, signal.SIGKILL)
        self.join()  # lets go of the ports of this process
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
    own_channels: bool = False,
) -> None:
    """Run all processes connected to ``root`` for ``steps`` time steps.

    models: process class -> model class, for those not to be chosen by Lava. stacks: the folder
    given to ``dump_stacks_on_request``. timeout_s: longest time without a finished step.
    steps_done: returns the number of finished steps. alive: called at every poll; may raise.
    own_channels: messages go through Lava's own channels.
    Raises ExecutorError, or the OutOfRange a process raised.
    """
    executable = compile_processes(root, models)
    alive()
    if not own_channels:
        wait_directly()
    runtime = GuardedRuntime(executable, stacks, timeout_s, own_channels=own_channels)
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
        runtime.pause(POLL_S)


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
