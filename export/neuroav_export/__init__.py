"""The compiler: PyTorch module -> traced graph -> lowered graph -> integer graph -> deployment.

Read in this order: ``trace``, ``pipeline``, ``passes/fold_norm``, ``passes/lower``,
``passes/quantize``, ``run``; ``linting`` is the same without its stop at the first error.
"""

from __future__ import annotations

from neuroav_export.linting import Finding, lint
from neuroav_export.mixed import choose_bits, sensitivity
from neuroav_export.pipeline import compile_module
from neuroav_export.prepare import prepare
from neuroav_export.run import export_run, lint_run

__all__ = [
    "Finding",
    "choose_bits",
    "compile_module",
    "export_run",
    "lint",
    "lint_run",
    "prepare",
    "sensitivity",
]
