"""Quick start-up: the package and every ``--help`` load none of the heavy libraries."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "norse", "lava", "h5py", "tonic", "scipy", "sklearn", "tensorboard", "numpy",
         "optuna", "matplotlib"}  # fmt: skip

EVERY_HELP = """
from click.testing import CliRunner
from neuroav.cli.group import COMMANDS, cli
for args in ([], *([name] for name in COMMANDS), ["data", "prepare"], ["profiles", "show"]):
    result = CliRunner().invoke(cli, [*args, "--help"])
    assert result.exit_code == 0, result.output
"""


def loaded_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after ``code``."""
    tell = "import json, sys; print(json.dumps([m.partition('.')[0] for m in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{tell}"], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_after("import neuroav") & (HEAVY | {"click", "rich", "pydantic"})


def test_help_of_every_command_loads_nothing_heavy():
    loaded = loaded_after(EVERY_HELP)
    assert "click" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("args", [["profiles", "list"], ["data", "list"]])
def test_listing_loads_neither_torch_nor_lava(args):
    code = f"""
from click.testing import CliRunner
from neuroav.cli.group import cli
assert CliRunner().invoke(cli, {args!r}).exit_code == 0
"""
    assert not loaded_after(code) & {"torch", "norse", "lava", "tonic", "tensorboard"}


def test_the_check_sees_a_heavy_import():
    assert "numpy" in loaded_after("import numpy")
