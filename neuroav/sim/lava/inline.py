"""Runs a compiled Lava network in the present OS process, without Lava's runtime.

Lava's compiler has chosen the process models and described the channels between them. Here its own
builders make the same model objects, joined by queues in place of shared memory, and every time
step calls Lava's own handler of the spiking phase, each process after those it receives from. So
what is computed is Lava's; who waits for whom is settled beforehand, and a failing process is an
ordinary traceback. Learning, management phases, ports to variables of other processes and feedback
within a step need the runtime.
"""

from __future__ import annotations

import contextlib
import heapq
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
from lava.magma.compiler.builders.py_builder import PyProcessBuilder
from lava.magma.compiler.channels.interfaces import AbstractCspRecvPort, AbstractCspSendPort
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.process.ports.ports import create_port_id
from lava.magma.runtime.mgmt_token_enums import enum_equal

from neuroav.errors import ExecutorError, OutOfRange

_NEEDS_RUNTIME = "use the engine 'runtime'"


def execute_inline(
    executable: Any,
    steps: int,
    *,
    timeout_s: float,
    alive: Callable[[], None] = lambda: None,
) -> None:
    """Run all processes of a compiled network for ``steps`` time steps.

    timeout_s: longest time for one step, in seconds. alive: called before every step; may raise.
    Only the main thread may call this. Raises ExecutorError with the name of the Lava process that
    failed or is stuck, or the OutOfRange it raised; ExecutorError for a network this cannot run.
    """
    order = _order(executable)
    _connect(executable)
    here = _Here(timeout_s)
    with here.watched():
        models = []
        for process in order:
            here.process = process.name
            models.append((process.name, _model(executable.proc_builders[process])))
        for here.step in range(1, steps + 1):
            here.restart_clock()
            here.process = ""
            alive()
            for here.process, model in models:
                model._spike()


# --- wiring ----------------------------------------------------------------------------------
class _Port:
    """One end of a queue, with what Lava's models ask of a port."""

    def __init__(self, initializer: Any, queue: deque[np.ndarray]) -> None:
        self._initializer, self._queue = initializer, queue

    @property
    def name(self) -> str:
        return self._initializer.name

    @property
    def shape(self) -> tuple[int, ...]:
        return self._initializer.shape

    @property
    def d_type(self) -> Any:
        return self._initializer.d_type

    @property
    def size(self) -> int:
        return self._initializer.size

    def start(self) -> None:
        """Nothing to start: there is no thread and no shared memory."""

    def join(self) -> None:
        """Nothing to end."""


class _SendPort(_Port, AbstractCspSendPort):
    def send(self, data: np.ndarray) -> None:
        if data.shape != self.shape:
            raise AssertionError(f"{data.shape=} {self.shape=} Mismatch")
        # a copy of the channel's type, as shared memory would hold it
        self._queue.append(np.array(data, self.d_type, order="C"))


class _RecvPort(_Port, AbstractCspRecvPort):
    def probe(self) -> bool:
        return bool(self._queue)

    def peek(self) -> np.ndarray:
        return self._queue[0].copy()

    def recv(self) -> np.ndarray:
        if not self._queue:
            raise RuntimeError("it waits for a message that nobody has sent in this step")
        return self._queue.popleft()


class _Responses:
    """Takes the answer of a process to a command, in place of Lava's runtime service."""

    def send(self, response: np.ndarray) -> None:
        if not enum_equal(response, PyLoihiProcessModel.Response.STATUS_DONE):
            raise RuntimeError(f"it asks for more than the spiking phase; {_NEEDS_RUNTIME}")


def _connect(executable: Any) -> None:
    """Give the builders the ends of every channel, as Lava's runtime does."""
    for channel in executable.channel_builders:
        queue: deque[np.ndarray] = deque()
        source, target = (
            executable.proc_builders[p] for p in (channel.src_process, channel.dst_process)
        )
        receiver = _RecvPort(channel.dst_port_initializer, queue)
        source.set_csp_ports([_SendPort(channel.src_port_initializer, queue)])
        target.set_csp_ports([receiver])
        name = channel.src_port_initializer.name
        target.add_csp_port_mapping(create_port_id(channel.src_process.id, name), receiver)


def _model(builder: PyProcessBuilder) -> PyLoihiProcessModel:
    model = builder.build()
    model.process_to_service = _Responses()
    return model


def _order(executable: Any) -> list[Any]:
    """Return the processes, senders before receivers, otherwise as they were created."""
    waits: dict[Any, set] = {process: set() for process in executable.proc_builders}
    for process, builder in executable.proc_builders.items():
        if not issubclass(builder.proc_model, PyLoihiProcessModel) or builder.ref_ports:
            raise ExecutorError(
                f"Lava process {process.name!r} cannot run inline: only models in Python that "
                f"follow Loihi's phases and read no other's variables can; {_NEEDS_RUNTIME}"
            )
    readers: dict[Any, list] = {process: [] for process in executable.proc_builders}
    for channel in executable.channel_builders:
        waits[channel.dst_process].add(channel.src_process)
        readers[channel.src_process].append(channel.dst_process)
    ready = [(process.id, process) for process, sources in waits.items() if not sources]
    heapq.heapify(ready)
    order: list[Any] = []
    while ready:
        _, process = heapq.heappop(ready)
        order.append(process)
        for reader in dict.fromkeys(readers[process]):
            waits[reader].discard(process)
            if not waits[reader]:
                heapq.heappush(ready, (reader.id, reader))
    if len(order) < len(waits):
        raise ExecutorError(
            f"Lava processes that wait for each other cannot run inline: {_cycle(waits)}; "
            f"{_NEEDS_RUNTIME}"
        )
    return order


def _cycle(waits: dict[Any, set]) -> str:
    """Return the names along a cycle, in the direction of the messages. Each process that is left
    waits for one that is left, so going back from any of them ends in a cycle."""
    process = next(p for p, sources in waits.items() if sources)
    path: list[Any] = []
    while process not in path:
        path.append(process)
        process = min(waits[process], key=lambda p: p.id)
    cycle = [*path[path.index(process) :], process]
    return " -> ".join(repr(p.name) for p in reversed(cycle))


# --- failures --------------------------------------------------------------------------------
class _Here:
    """Where a run is, for messages: the number of the step (0: construction), and the process."""

    def __init__(self, timeout_s: float) -> None:
        self.step, self.process = 0, ""
        self._timeout_s = timeout_s

    def restart_clock(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._timeout_s)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Turn what a process raises, and a step that lasts too long, into an ExecutorError."""
        before = signal.signal(signal.SIGALRM, self._stuck)
        self.restart_clock()
        try:
            yield
        except (ExecutorError, OutOfRange):
            raise
        except Exception as error:
            if not self.process:
                raise
            raise ExecutorError(
                f"Lava process {self.process!r} failed: {type(error).__name__}: {error}\n"
                f"{traceback.format_exc()}"
            ) from error
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _stuck(self, number: int, frame: FrameType | None) -> None:
        last = max(0, self.step - 1)
        raise ExecutorError(
            f"no progress for {self._timeout_s:g} s after step {last}: Lava process "
            f"{self.process!r} is busy or blocked in\n{''.join(traceback.format_stack(frame))}"
        )
