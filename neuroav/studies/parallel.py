"""Do pieces of work one after the other in this process, or each in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from neuroav.errors import ExecutorError, NeuroavError

Task = TypeVar("Task")
Result = TypeVar("Result")


def carry_out(
    work: Callable[[Task], Result], tasks: Iterable[Task], jobs: int
) -> Iterator[tuple[Task, Result | NeuroavError]]:
    """Yield every task with its result, or with the expected error it ended in, as they finish.

    tasks is advanced only when a piece of work can start at once. jobs: 1 works in this process;
    more start that many processes, one per task, so that one that runs out of memory takes no other
    with it (its error is an ExecutorError). Then ``work`` and the tasks must be importable and
    picklable. Whatever ends this generator ends its processes, even a kill of this process.
    """
    if jobs > 1:
        yield from _in_processes(work, iter(tasks), jobs)
        return
    for task in tasks:
        try:
            result: Result | NeuroavError = work(task)
        except NeuroavError as error:
            result = error
        yield task, result


def _in_processes(work, tasks: Iterator[Any], jobs: int) -> Iterator[tuple[Any, Any]]:
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    running: dict[Any, tuple[Any, Any]] = {}
    try:
        while True:
            while len(running) < jobs:
                try:
                    task = next(tasks)
                except StopIteration:
                    break
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(work, task, theirs), daemon=True)
                process.start()
                theirs.close()  # so that the pipe ends when the process does
                running[ours] = process, task
            if not running:
                return
            for pipe in wait(list(running)):
                process, task = running.pop(pipe)
                result = _receive(pipe, process)  # type: ignore[arg-type]
                yield task, result
    finally:
        for pipe, (process, _) in running.items():
            process.terminate()
            process.join()
            pipe.close()


def _receive(pipe: Connection, process) -> Any:
    """Return what a process sent before it left, or an error saying that it died."""
    try:
        result = pipe.recv()
    except EOFError:
        process.join()
        code = process.exitcode
        why = f"by signal {-code}" if code < 0 else f"with exit code {code}, its traceback is above"
        hint = "; is there memory for as many --jobs?" if code == -signal.SIGKILL else ""
        result = ExecutorError(f"a process of this command ended {why}{hint}")
    pipe.close()
    process.join()
    return result


def _work(work, task, pipe: Connection) -> None:
    """Do one task inside a process of its own and send what came of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the parent ends its processes
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        result = work(task)
    except NeuroavError as error:
        result = error
    pipe.send(result)


def _leave_with_parent() -> None:
    """End this process as soon as its parent is gone, however that ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
