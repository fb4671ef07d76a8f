"""Data sets read from files as published; each module offers what ``neuroav.data.plans`` says."""

from __future__ import annotations

from types import ModuleType

MODULES: tuple[ModuleType, ...] = ()
