"""Lava's channels without their threads.

Lava's channel waits with a thread at either end: a message wakes the receiver's thread, which wakes
the receiver, whose answer wakes the sender's thread. Here sender and receiver wait on the channel's
two semaphores themselves, so that a message wakes its receiver and nothing else. What is sent, in
which order, how many messages a channel holds and what blocks are Lava's. The semaphores are the
ones that Lava's channel makes; the memory of many channels lies in one shared segment.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lava.magma.compiler.channels.interfaces import ChannelType
from lava.magma.compiler.channels.pypychannel import (
    CspRecvPort,
    CspSelector,
    CspSendPort,
    PyPyChannel,
)
from lava.magma.runtime.message_infrastructure.multiprocessing import MultiProcessing
from lava.magma.runtime.message_infrastructure.shared_memory_manager import SharedMemoryManager

_ALIGN = 64
_SEGMENT = 1 << 22  # bytes of shared memory asked for at a time
_LONGEST_S = 1e-3  # between looks at several channels


class DirectSendPort(CspSendPort):
    """Sends as long as the channel has room; then every message waits for one to be taken out."""

    _room: int
    _idx: int

    def start(self) -> None:
        self._array = _slots(self)
        self._room = self._size

    def probe(self) -> bool:
        return self._room > 0 or not self._ack._semlock._is_zero()

    def send(self, data: np.ndarray) -> None:
        if data.shape != self._shape:
            raise AssertionError(f"{data.shape=} {self._shape=} Mismatch")
        if self._room:
            self._room -= 1
        else:
            self._ack.acquire()
        self._array[self._idx][...] = data
        self._idx = (self._idx + 1) % self._size
        self._req.release()

    def join(self) -> None:
        self._done, self._array = True, []


class DirectRecvPort(CspRecvPort):
    """Waits for the next message on the channel's semaphore."""

    _idx: int

    def start(self) -> None:
        self._array = _slots(self)

    def probe(self) -> bool:
        return not self._req._semlock._is_zero()

    def wait(self) -> None:
        """Return when there is a message."""
        self._req.acquire()
        self._req.release()

    def peek(self) -> np.ndarray:
        self.wait()
        return self._array[self._idx].copy()

    def recv(self) -> np.ndarray:
        self._req.acquire()
        data = self._array[self._idx].copy()
        self._idx = (self._idx + 1) % self._size
        self._ack.release()
        return data

    def join(self) -> None:
        self._done, self._array = True, []


def _slots(port: CspSendPort | CspRecvPort) -> list[np.ndarray]:
    """Return the places of a channel's messages in its shared memory."""
    size = port._nbytes
    return [
        np.ndarray(port._shape, port._dtype, port._shm.buf[size * i : size * (i + 1)])
        for i in range(port._size)
    ]


class DirectChannel(PyPyChannel):
    """Lava's channel between two Python processes, its ends exchanged for ours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._src_port.__class__ = DirectSendPort
        self._dst_port.__class__ = DirectRecvPort


class _Part:
    """A piece of a shared segment; the one thing of it that ports use is ``buf``."""

    def __init__(self, buf: memoryview) -> None:
        self.buf = buf


class Segments(SharedMemoryManager):
    """Lava's shared memory, in few segments: each costs a file and a message to its manager."""

    def __init__(self) -> None:
        super().__init__()
        self._free = memoryview(b"")
        self._views: list[memoryview] = []

    def create_shared_memory(self, size: int) -> Any:
        need = max(_ALIGN, -(-size // _ALIGN) * _ALIGN)
        if len(self._free) < need:
            self._free = super().create_shared_memory(max(need, _SEGMENT)).buf
        part, self._free = self._free[:need], self._free[need:]
        self._views += [part, self._free]
        return _Part(part)

    def shutdown(self) -> None:
        for view in self._views:  # a segment with views on it cannot be closed
            view.release()
        self._views.clear()
        super().shutdown()


class DirectMultiProcessing(MultiProcessing):
    """Lava's one OS process per Lava process, with the channels of this module.

    names: of the OS processes, in the order in which Lava starts them; ``ps`` and ``top`` show the
    first 15 characters.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self._names = names

    def start(self) -> None:
        self._smm = Segments()
        self._smm.start()

    def channel_class(self, channel_type: ChannelType) -> type:
        known = channel_type == ChannelType.PyPy
        return DirectChannel if known else super().channel_class(channel_type)

    def build_actor(self, target_fn: Callable, builder: Any, exception_q: Any = None) -> Any:
        target = functools.partial(_named, self._names[len(self._actors)], target_fn)
        return super().build_actor(target, builder, exception_q)


def _named(name: str, target: Callable, **options: Any) -> None:
    """Call ``target`` as an OS process of that name."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)
    target(**options)


def wait_directly() -> None:
    """Make Lava's processes wait for their next command on the channel that brings it."""
    if CspSelector.select is not _select:
        CspSelector.select = _select


def _select(self: CspSelector, *channel_actions: Any) -> Any:
    """As Lava's: run the action of the first channel that has a message, and return its result."""
    if not all(isinstance(channel, DirectRecvPort) for channel, _ in channel_actions):
        return _lavas_select(self, *channel_actions)
    if len(channel_actions) == 1:
        channel_actions[0][0].wait()
    pause = 2e-5
    while True:
        for channel, action in channel_actions:
            if channel.probe():
                return action()
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_S)


_lavas_select = CspSelector.select
