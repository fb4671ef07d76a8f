"""What is known before a run: the largest values that can occur, and whether Lava can hold them."""

from __future__ import annotations

import numpy as np

from neuroav import integer as ig
from neuroav.errors import UnsupportedNode
from neuroav.fixed import Arithmetic
from neuroav.hardware import Profile
from neuroav.synapses import row_sum

ACCUMULATOR_BITS = 32  # Lava adds synaptic sums in int32 and wraps silently
_ACCUMULATOR_MAX = (1 << (ACCUMULATOR_BITS - 1)) - 1
# Lava's processes of these compare every message with its bound
_CHECKED = (ig.IntSum, ig.IntProduct, ig.IntTimeSum, ig.IntReadout)


def check_profile(profile: Profile) -> None:
    """Raise UnsupportedNode unless Lava's fixed point models follow the profile's arithmetic.

    Lava's widths are hard-wired; narrower registers are fine, because the range checks use the
    profile's and refuse a run before Lava's are reached.
    """
    arith = profile.arithmetic
    exact = {"input_shift": 6, "decay_bits": 12, "weight_bits": 8}
    largest = {"current_bits": 24, "voltage_bits": 24, "payload_bits": 24}
    wrong = [
        f"{k} is {getattr(arith, k)}, Lava has {v}"
        for k, v in exact.items()
        if getattr(arith, k) != v
    ]
    wrong += [
        f"{k} is {getattr(arith, k)}, Lava holds {v}"
        for k, v in largest.items()
        if getattr(arith, k) > v
    ]
    if wrong:
        raise UnsupportedNode(
            f"profile {profile.id!r} cannot run on the Lava executor: "
            f"{'; '.join(wrong)}; use the reference executor"
        )


def message_bounds(graph: ig.IntGraph, arith: Arithmetic) -> dict[str, int]:
    """Return for every population the largest magnitude its message can have.

    A graded message beyond its bound (its worst case, what its payload holds, or what the 32-bit
    sums of its readers have room for) is refused when it occurs. Raises UnsupportedNode where
    messages that nothing checks, counts of inputs for instance, could exceed those sums.
    """
    payload = (1 << (arith.payload_bits - 1)) - 1
    bounds: dict[str, int] = {}
    for group in graph.groups:
        for name in group if graph.loops(group) else ():  # not known before what feeds back is
            spiking = isinstance(graph.populations[name], ig.SPIKING_CLASSES)
            bounds[name] = 1 if spiking else payload
    for name in graph.order:
        pop = graph.populations[name]
        if isinstance(pop, ig.IntInput):
            bounds[name] = pop.max_count
            continue
        totals = [_largest_sum(graph, name, port, bounds) for port in range(pop.ports)]
        bounds[name] = _message_bound(pop, totals, graph.steps, payload)
    return bounds


def _largest_sum(graph: ig.IntGraph, name: str, port: int, bounds: dict[str, int]) -> int:
    """Return the largest synaptic sum at a port; lower ``bounds`` of its sources until it fits."""
    gains = [
        (p.source, row_sum(p, graph.populations[p.source].shape))
        for p in graph.populations[name].projections
        if p.port == port
    ]
    total = sum(bounds[source] * gain for source, gain in gains)
    if total <= _ACCUMULATOR_MAX:
        return total
    checked = {s for s, _ in gains if isinstance(graph.populations[s], _CHECKED)}
    fixed = sum(bounds[source] * gain for source, gain in gains if source not in checked)
    share = (_ACCUMULATOR_MAX - fixed) // max(1, sum(g for s, g in gains if s in checked))
    if not checked or share < 1:
        raise UnsupportedNode(
            f"{name}: its synaptic sum can reach {total}, Lava's accumulators hold "
            f"{_ACCUMULATOR_MAX}; use the reference executor or fewer weight bits"
        )
    for source in checked:
        bounds[source] = min(bounds[source], share)
    return sum(bounds[source] * gain for source, gain in gains)


def _message_bound(pop: ig.Population, totals: list[int], steps: int, payload: int) -> int:
    """Return the largest message of a population whose sums reach ``totals`` at its ports; a
    readout's grows with time, but it and every other graded message is checked to stay inside the
    payload."""
    if isinstance(pop, ig.SPIKING_CLASSES):
        return 1
    if isinstance(pop, ig.ATTENTION_CLASSES):
        return pop.cap or min(pop.summed(steps) * pop.head_channels, payload)
    if isinstance(pop, ig.IntReadout):
        return payload
    total = totals[0]
    if isinstance(pop, ig.IntProduct):
        total = ig.shifted(totals[0] * totals[1], pop.shift)
    elif isinstance(pop, ig.IntTimeSum):
        total = ig.shifted(totals[0] * int(np.abs(pop.step_weights(steps)).sum()), pop.shift)
    return min(total, payload)
