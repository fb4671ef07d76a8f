"""The compiler: PyTorch module -> traced graph -> lowered graph -> integer graph -> deployment.

Read in this order: ``trace``, ``pipeline``, ``passes/fold_norm``, ``passes/lower``,
``passes/quantize``, ``run``.
"""

from __future__ import annotations

from neuroav_export.pipeline import compile_module
from neuroav_export.run import export_run

__all__ = ["compile_module", "export_run"]
