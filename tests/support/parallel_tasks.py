"""Pieces of work that processes of their own can import."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from neuroav.errors import ConfigError


def work(task):
    """Do what the task says: a number is squared, words name a way to fail."""
    if task == "fail":
        raise ConfigError("as asked")
    if task == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "defect":
        raise ZeroDivisionError("as asked")
    return task * task, os.getpid()


def linger(folder):
    """Leave this process's number in the folder and stay."""
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(120)
