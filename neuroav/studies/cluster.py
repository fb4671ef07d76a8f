"""Do pieces of work on the workers of Ray: those of this machine, or of a cluster by its address.

The counterpart of ``neuroav.studies.parallel``: the same pieces of work, the same results, an
expected error as the result of its piece. A piece whose worker is killed, or whose machine is lost,
is given out again, ``RETRIES`` times at most; one that ends in a defect is not. Pieces and what
they share travel by value, so a cluster needs no files of this machine; it needs the same version
of this package on all of its machines.

A cluster that is started here keeps its files in a temporary folder, reports nothing to anybody,
and ends with the work, however that ends. Ray listens on the machine's network addresses; a token
made for the run lets only our own processes in.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cache
from typing import Any

from neuroav import __version__
from neuroav.errors import ConfigError, ExecutorError, MissingDependency, NeuroavError

RETRIES = 3  # of a piece of work whose worker was lost
AHEAD = 2  # pieces per worker that are under way or wait for their turn: a bound on memory
_STORE_BYTES = 256 << 20  # of memory that a cluster of this machine shares; more goes to disk
_LONGEST_FOLDER = 24  # characters of the temporary folder's path: sockets lie below it, paths of
# sockets have 107 at most


@dataclass(frozen=True)
class Workers:
    """Where to work. count: pieces at a time, by default one for every CPU of the cluster.

    address: of a running cluster, 'HOST:PORT' or 'auto'; None starts one on this machine.
    """

    count: int | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.count < 1:
            raise ConfigError(f"workers are {self.count}, needs at least 1")
        if self.count is None and self.address is None:
            raise ConfigError("say how many workers, or the address of a cluster")


def import_ray() -> Any:
    """Return Ray; MissingDependency where it is not installed."""
    try:
        import ray
    except ImportError:
        raise MissingDependency(
            "work on several workers needs ray; install it with: pip install 'neuroav[scale]'"
        ) from None
    return ray


@contextmanager
def cluster(workers: Workers) -> Iterator[Cluster]:
    """Yield the cluster, which is left, or ended where it was started here, when the block ends.

    In the block what is printed to ``sys.stdout`` goes to ``sys.stderr``.
    ExecutorError where there is none at the address, or where this process uses one already.
    """
    ray = import_ray()
    if ray.is_initialized():
        raise ExecutorError("this process is part of a Ray cluster already; leave that first")
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    # Ray tells of lost workers on stdout, which belongs to results
    with _surroundings(workers) as folder, redirect_stdout(sys.stderr):
        try:
            if workers.address is None:
                ray.init(
                    address="local",
                    num_cpus=workers.count,
                    include_dashboard=False,
                    object_store_memory=_STORE_BYTES,
                    _temp_dir=folder,
                    **quiet,
                )
            else:
                ray.init(address=workers.address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            ray.shutdown()
            where = f"at {workers.address}" if workers.address else "on this machine"
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ExecutorError(f"no Ray cluster {where}: {first}") from error
        try:
            count = workers.count or max(1, int(ray.cluster_resources().get("CPU", 1)))
            yield Cluster(ray, count, here=workers.address is None)
        finally:
            ray.shutdown()


@contextmanager
def _surroundings(workers: Workers) -> Iterator[str]:
    """Yield a temporary folder; until the end Ray's processes find what they are told this way."""
    told = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    if workers.address is None:
        told["RAY_AUTH_TOKEN"] = _token()  # without it Ray writes one into the home folder
        told["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))  # workers import as we do
    before = {name: os.environ.get(name) for name in (*told, "RAY_AUTH_MODE")}  # which Ray sets
    os.environ.update(told)
    logger = logging.getLogger("ray")
    level = logger.level
    logger.setLevel(logging.ERROR)
    short = len(tempfile.gettempdir()) <= _LONGEST_FOLDER
    try:
        with tempfile.TemporaryDirectory(
            prefix="nav-", dir=None if short else "/tmp", ignore_cleanup_errors=True
        ) as folder:
            yield folder
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@cache
def _token() -> str:
    """Return what lets a process into our clusters: Ray reads it once in a process."""
    return secrets.token_hex(32)


class Cluster:
    """Workers of Ray; made by ``cluster``. count: pieces at a time; here: all on this machine."""

    def __init__(self, ray: Any, count: int, here: bool) -> None:
        self._ray, self.count, self.here = ray, count, here
        self._attempt = ray.remote(num_cpus=1, max_retries=0)(_attempt)

    def share(self, value: Any) -> Any:
        """Return what stands for a value in ``shared``: it travels to a machine once."""
        return self._ray.put(value)

    def as_finished(
        self, work: Callable[..., Any], tasks: Iterable[Any], shared: Callable[[Any], tuple]
    ) -> Iterator[tuple[Any, Any]]:
        """Yield every task with ``work(task, *shared(task))``, or its error, as they finish.

        tasks is advanced only when a piece of work can start at once.
        """
        for _, task, result in self._work(work, tasks, shared, self.count, lambda: 0):
            yield task, result

    def in_order(
        self, work: Callable[..., Any], tasks: Iterable[Any], shared: tuple = ()
    ) -> Generator[Any, None, None]:
        """Yield the results in the order of the tasks; raise the first error in that order."""
        waiting: dict[int, Any] = {}
        following, window = 0, AHEAD * self.count
        found = self._work(work, tasks, lambda _: shared, window, lambda: len(waiting))
        for number, _, result in found:
            waiting[number] = result
            while following in waiting:
                done = waiting.pop(following)
                following += 1
                if isinstance(done, NeuroavError):
                    raise done
                yield done

    def _work(self, work, tasks, shared, most: int, held: Callable[[], int]):
        """Yield (number, task, result) as they finish; at most ``most`` are under way or held."""
        running: dict[Any, tuple[int, Any, int]] = {}
        left, number = iter(tasks), 0
        try:
            while True:
                while len(running) + held() < most:
                    try:
                        task = next(left)
                    except StopIteration:
                        break
                    reference = self._attempt.remote(__version__, work, task, *shared(task))
                    running[reference] = number, task, 0
                    number += 1
                if not running:
                    return
                (reference, *_), _ = self._ray.wait(list(running), num_returns=1)
                own, task, tries = running.pop(reference)
                result = self._result(reference, tries)
                if result is _LOST:
                    again = self._attempt.remote(__version__, work, task, *shared(task))
                    running[again] = own, task, tries + 1
                else:
                    yield own, task, result
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def _result(self, reference: Any, tries: int) -> Any:
        """Return what a piece gave, its error, or ``_LOST`` where it is to be given out again."""
        failed = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except failed.RayTaskError as error:
            print(error, file=sys.stderr)
            return ExecutorError(
                f"a worker ended in {type(error.cause).__name__}: {error.cause}; its traceback is "
                "above"
            )
        except failed.RayError as error:
            if tries < RETRIES:
                return _LOST
            first = str(error).splitlines()[0]
            return ExecutorError(
                f"lost its worker {tries + 1} times ({first}); is there memory for as many workers?"
            )


_LOST = object()


def _attempt(version: str, work: Callable[..., Any], task: Any, *shared: Any) -> Any:
    """Do one piece of work on a worker; an expected error is a result."""
    try:
        if version != __version__:
            raise ConfigError(
                f"a worker has neuroav {__version__}, this machine has {version}; install one "
                "version on all machines of the cluster"
            )
        return work(task, *shared)
    except NeuroavError as error:
        return error
