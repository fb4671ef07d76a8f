"""Run the command line in process, and stand-ins for the functions its commands call."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from unittest.mock import NonCallableMock, create_autospec

import pytest
from click.testing import CliRunner

from neuroav.cli.group import cli


@dataclass(frozen=True)
class Ran:
    """What a run of the command line left."""

    code: int
    out: str
    err: str
    exception: BaseException | None

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout; fails where there is anything else."""
        assert self.out.endswith("}\n")
        assert self.out.count("\n") == 1
        return json.loads(self.out)


@pytest.fixture
def run() -> Callable[..., Ran]:
    """Run ``neuroav`` with these arguments, with no variable of ours in the environment."""
    clean = {"NEUROAV_DATA": None, "NEUROAV_VECTORS": None, "COLUMNS": "160"}

    def invoke(*args: object, **env: str) -> Ran:
        words = list(map(str, args))
        done = CliRunner().invoke(cli, words, env=clean | env, prog_name="neuroav")
        return Ran(done.exit_code, done.stdout, done.stderr, done.exception)

    return invoke


@pytest.fixture
def stand_in(monkeypatch) -> Callable[..., NonCallableMock]:
    """Replace ``module:function`` by a mock that accepts only the real function's arguments."""

    def replace(target: str, **behaviour: Any) -> NonCallableMock:
        module, _, name = target.partition(":")
        loaded = import_module(module)
        mock = create_autospec(getattr(loaded, name), **behaviour)
        monkeypatch.setattr(loaded, name, mock)
        return mock

    return replace
