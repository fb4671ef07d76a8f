"""Fixtures for all tests: one torch thread per process, data and vectors from the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def _one_torch_thread():
    import torch

    torch.set_num_threads(1)


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set; it names a folder with third-party recordings")
    return Path(value)


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Folder of third-party reference vectors, named by NEUROAV_VECTORS."""
    return _folder("NEUROAV_VECTORS")
