"""Data sets read from files as published; each module offers what ``neuroav.data.plans`` says."""

from __future__ import annotations

from typing import Any

from neuroav.data.published import (
    cremad,
    folder,
    heidelberg,
    mnistdvs_ntidigits,
    single,
    urbansound8k,
)

# Modules, and objects that offer the same, of modules that hold several sets.
MODULES: tuple[Any, ...] = (
    mnistdvs_ntidigits,
    cremad,
    urbansound8k,
    *single.SETS,
    *heidelberg.SETS,
    folder,
)
