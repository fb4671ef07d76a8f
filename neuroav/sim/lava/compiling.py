"""Lava's compiler: which process model computes each process, and which channels join them."""

from __future__ import annotations

from typing import Any

from lava.magma.core.run_configs import Loihi2SimCfg

_CHANNEL_SIZE = 2  # messages; Lava's 64 take 32 times the shared memory and are no faster


def compile_processes(root: Any, models: dict) -> Any:
    """Return Lava's executable of all processes connected to ``root``.

    models: process class -> model class, for those not to be chosen by Lava.
    """
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
    return root.compile(config, {"pypy_channel_size": _CHANNEL_SIZE})
