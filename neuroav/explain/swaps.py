"""Which rounding changed a spike: the float part of a neuron swapped in, one by one.

A population runs on the messages it received, with its integer weights, threshold, bias or decay
replaced by the twin's real ones. What brings the float spike back is what lost it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.deployment import Deployment
from neuroav.explain.recompute import Drive, integer_drive, lif, port_sums
from neuroav.explain.rederive import Derived, per_channel
from neuroav.explain.twin import Twin
from neuroav.quantization import neuron_threshold

ROUNDED = ("weight", "threshold", "bias", "decay")  # parameters
SWAPS = (*ROUNDED, "truncation")  # and the leak, cut to whole numbers


@dataclass(frozen=True, eq=False)
class Sides:
    """Neurons on the same messages: integer, and as the float twin has them, in registers' units.

    worth: real synaptic input of 1 in a register, it broadcasts to the shape.
    """

    integer: Drive
    float: Drive
    worth: np.ndarray

    def with_float(self, parts: Iterable[str]) -> Drive:
        """Return the integer neurons with these parts (of ``SWAPS``) from the float side."""
        drive, other = self.integer, self.float
        for part in parts:
            if part == "weight":
                drive = replace(drive, current=other.current)
            elif part == "threshold":
                drive = replace(drive, level=other.level)
            elif part == "bias":
                drive = replace(drive, bias=other.bias)
            elif part == "decay":
                drive = replace(drive, keep=other.keep, keep_current=other.keep_current)
            else:
                drive = replace(drive, whole=False)
        return drive

    def untruncated(self) -> Sides:
        """Return the same with the neurons of the fake-quantized network on the integer side."""
        return replace(self, integer=self.with_float(["truncation"]))

    def only(self, sample: int, index: tuple[int, ...]) -> Sides:
        """Return the same for one neuron in one sample."""
        shape = self.integer.current.shape[2:]
        worth = np.broadcast_to(self.worth, shape)[index]
        return Sides(self.integer.only(sample, index), self.float.only(sample, index), worth)


def kept(node: rn.Lif | rn.If, dt_s: float) -> dict[str, Any]:
    """Return what a step leaves of membrane and current, and the reset, as ``Drive`` takes them."""
    current = node.tau_syn_s if isinstance(node, rn.Lif) else None
    return {
        "keep": 1 - dt_s / node.tau_mem_s if isinstance(node, rn.Lif) else 1.0,
        "keep_current": 0.0 if current is None else 1 - dt_s / current,
        "subtract": node.reset == "subtract",
    }


def sides(deployment: Deployment, name: str, twin: Twin, derived: Derived, messages: Any) -> Sides:
    """Return both sides of a population of leaky neurons (an IntLif with a Lif as twin)."""
    graph, arith = deployment.integer, deployment.profile.arithmetic
    pop, node = graph.populations[name], deployment.real.nodes[name]
    assert isinstance(pop, ig.IntLif)
    assert isinstance(node, (rn.Lif, rn.If))
    worth = per_channel(derived.unit, pop.shape) / (1 << arith.input_shift)
    bias = twin.bias(name)
    if isinstance(node, rn.Lif) and node.tau_syn_s is not None:
        bias = np.zeros(1)  # part of the synaptic current, on the chip by synapses of its own
    real = Drive(
        current=(twin.input(name) - bias) / worth,
        bias=bias / worth,
        level=np.asarray(neuron_threshold(node, deployment.real.dt_s) / worth),
        **kept(node, deployment.real.dt_s),
        whole=False,
    )
    whole = integer_drive(pop, port_sums(graph, name, pop, messages)[0], arith)
    return Sides(whole, real, worth)


def recovered(both: Sides, expected: np.ndarray, agree: np.ndarray) -> dict[str, float]:
    """Return by swap the share of places it brings to the float spike, less those it takes away.

    expected: float spikes; agree: where the integer neurons give them already. Negative where a
    swap alone does harm.
    """
    found = {}
    for part in SWAPS:
        spikes = lif(both.with_float([part]))[0]
        found[part] = float((spikes == expected).mean() - agree.mean())
    return found


def first_difference(
    both: Sides, place: tuple[int, int, tuple[int, ...]], expected: bool
) -> dict[str, Any]:
    """Return quantities of both sides at one place, their difference, and the rounding behind it.

    place: sample, step, index. expected: the float spike. Numbers under ``integer`` and
    ``difference`` are in registers' units, under ``real`` in the twin's synaptic input.
    """
    sample, step, index = place
    one = both.only(sample, index)
    (sent, whole), (_, real) = at(one.integer, step), at(one.float, step)
    restoring = [
        parts
        for count in range(1, len(SWAPS) + 1)
        for parts in combinations(SWAPS, count)
        if at(one.with_float(parts), step)[0] == expected
    ]
    alone = [parts[0] for parts in restoring if len(parts) == 1]
    fewest = [p for p in restoring if len(p) == len(restoring[0])] if restoring else []
    margin = _margin(whole)
    moved = {p: abs(_margin(at(one.with_float(p), step)[1]) - margin) for p in fewest}
    best: tuple[str, ...] = max(fewest, key=lambda p: moved[p]) if fewest else ()
    return {
        "deployed": int(sent),
        "float": int(expected),
        "integer": {k: int(v) for k, v in whole.items()},
        "real": {k: float(v * one.worth) for k, v in real.items()},
        "difference": {k: float(real[k] - whole[k]) for k in whole},
        "restored_by": alone,
        "cause": cause_of(best),
    }


def cause_of(parts: Sequence[str]) -> str:
    """Return parts (of ``SWAPS``) in words, 'order' for none."""
    rounded = " and ".join(p for p in parts if p in ROUNDED)
    words = [f"rounding of {rounded}"] if rounded else []
    words += ["truncation"] if "truncation" in parts else []
    return " and ".join(words) or "order"


def at(drive: Drive, step: int) -> tuple[bool, dict[str, float]]:
    """Return (spike, quantities) of one neuron at a step."""
    spikes, membranes = lif(drive)
    found = {
        "synaptic_sum": drive.current[0, step],
        "bias": drive.bias,
        "membrane": membranes[0, step],
        "threshold": drive.level,
    }
    return bool(spikes[0, step]), {k: float(v) for k, v in found.items()}


def _margin(quantities: dict[str, float]) -> float:
    return quantities["membrane"] - quantities["threshold"]
