"""The Lava executor: a deployment as Lava processes on the CPU, bit for bit the reference.

Importing this does not import Lava; ``run`` does so in a process of its own.
"""

from neuroav.sim.lava.client import TIMEOUT_S, run, run_many, trace_many

__all__ = ["TIMEOUT_S", "run", "run_many", "trace_many"]
