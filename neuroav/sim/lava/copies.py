"""How many copies of a network run side by side in the same Lava processes.

A step of a Lava process costs about the same for one sample as for several: messages and commands
are what takes the time. So samples are dealt out to copies of the network.
"""

from __future__ import annotations

import math

from neuroav import integer as ig

COPIES = 16  # by default: with more the steps before the first and after the last sample cost more
_NEURONS = 1 << 21  # of all copies: every message is held twice in shared memory
_WEIGHTS = 1 << 22  # of a Dense process, which also stores the zeros between copies


def side_by_side(graph: ig.IntGraph, samples: int, conv: str, batch: int) -> int:
    """Return the number of copies: at most ``batch`` (0 for 16), as many as there are samples, and
    what fits. Lava's own Conv has no room for copies, so it is 1 with ``conv`` 'stock'."""
    if conv == "stock":
        return 1
    neurons = sum(p.neurons for p in graph.populations.values())
    dense = [
        p.weight.size
        for pop in graph.populations.values()
        for p in pop.projections
        if isinstance(p, ig.IntDense)
    ]
    fitting = min(_NEURONS // neurons, math.isqrt(_WEIGHTS // max(dense, default=1)))
    return max(1, min(batch or COPIES, samples, fitting))
