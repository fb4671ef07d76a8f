"""Lint: what in a network cannot be deployed on a target, why, and the rewrite.

Read in this order: ``rules``, ``findings``, ``network``, ``watch``, ``recover``, ``collect``,
``descend``.
"""

from __future__ import annotations

from neuroav_export.linting.findings import Finding
from neuroav_export.linting.network import deployable, lint

__all__ = ["Finding", "deployable", "lint"]
