"""What is known before a run: the largest values that can occur, and whether Lava can hold them."""

from __future__ import annotations

from neuroav import integer as ig
from neuroav.errors import UnsupportedNode
from neuroav.fixed import Arithmetic
from neuroav.hardware import Profile
from neuroav.synapses import row_sum

ACCUMULATOR_BITS = 32  # Lava adds synaptic sums in int32 and wraps silently


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

    Raises UnsupportedNode where a worst case synaptic sum exceeds Lava's 32-bit accumulators.
    """
    payload = (1 << (arith.payload_bits - 1)) - 1
    bounds: dict[str, int] = {}
    for name in graph.order:
        pop = graph.populations[name]
        if isinstance(pop, ig.IntInput):
            bounds[name] = pop.max_count
            continue
        totals = [_largest_sum(graph, pop, port, bounds) for port in range(pop.ports)]
        if isinstance(pop, ig.IntProduct):
            totals.append(totals[0] * totals[1])
        elif isinstance(pop, ig.IntTimeSum):
            totals.append(totals[0] * graph.steps)
        if max(totals) >= 1 << (ACCUMULATOR_BITS - 1):
            raise UnsupportedNode(
                f"{name}: its synaptic sum can reach {max(totals)}, Lava's accumulators hold "
                f"{(1 << (ACCUMULATOR_BITS - 1)) - 1}; use the reference executor or fewer "
                "weight bits"
            )
        bounds[name] = _message_bound(pop, totals[-1], graph.steps, payload)
    return bounds


def _largest_sum(graph: ig.IntGraph, pop: ig.Population, port: int, bounds: dict[str, int]) -> int:
    return sum(
        bounds[p.source] * row_sum(p, graph.populations[p.source].shape)
        for p in pop.projections
        if p.port == port
    )


def _message_bound(pop: ig.Population, total: int, steps: int, payload: int) -> int:
    """Return the largest message of a population; a readout's grows with time, but it and every
    other graded message is checked to stay inside the payload."""
    if isinstance(pop, ig.SPIKING_CLASSES):
        return 1
    if isinstance(pop, ig.ATTENTION_CLASSES):
        return pop.cap or min(pop.summed(steps) * pop.head_channels, payload)
    return payload if isinstance(pop, ig.IntReadout) else min(total, payload)
