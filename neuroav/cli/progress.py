"""Progress on stderr: bars on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.progress import TaskID as RichTask

_REFRESH_S = 0.1  # between two redraws of the bars
_LINE_S = 10.0  # between two lines where stderr is no terminal


class Reporter:
    """Show ``(stage, done, total)`` calls of the library; use as a context manager.

    Text after the first comma of ``stage`` may change from call to call ("training, loss 0.3")
    without starting a new bar. Nothing is drawn before the first call.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, markup=False, highlight=False, emoji=False)
        self._bars: Progress | None = None
        self._tasks: dict[str, RichTask] = {}
        self._drawn = 0.0
        self._lined = time.monotonic()

    def __enter__(self) -> Reporter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Tell that ``done`` of ``total`` units of ``stage`` are finished."""
        if self._console.is_terminal:
            self._draw(stage, done, total)
        elif time.monotonic() - self._lined >= _LINE_S:
            self._lined = time.monotonic()
            print(f"neuroav: {stage} {done}/{total}", file=sys.stderr, flush=True)

    def _draw(self, stage: str, done: int, total: int) -> None:
        if self._bars is None:
            # No refresh thread: Lava forks processes, and a fork taken while that thread holds
            # stderr's lock would leave the child waiting for it for ever.
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                console=self._console,
                auto_refresh=False,
                transient=True,
            )
            self._bars.start()
        key = stage.partition(",")[0]
        if key not in self._tasks:
            self._tasks[key] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[key], description=stage, completed=done, total=total)
        if done >= total or time.monotonic() - self._drawn >= _REFRESH_S:
            self._drawn = time.monotonic()
            self._bars.refresh()
