"""Run one population alone, on given messages: exactly, and with real numbers in place of integers.

Everything here is in registers' units: a membrane, a bias and a shifted synaptic sum or threshold
count 1/64 of the synaptic unit (1 / 2^input_shift).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from neuroav import integer as ig
from neuroav.fixed import Arithmetic
from neuroav.sim import reference
from neuroav.sim.real import import_torch

Messages = Mapping[str, np.ndarray]


def port_sums(
    graph: ig.IntGraph, name: str, pop: ig.Population, messages: Messages
) -> list[np.ndarray]:
    """Return the synaptic sums at every port of ``pop``, int64 (samples, steps, *shape).

    pop: stands in for population ``name`` of ``graph``. A delay other than the aligned one brings
    messages of another frame. messages: by source, (samples, steps, *shape).
    """
    lead = next(iter(messages.values())).shape[:2]
    sums = [np.zeros((*lead, *pop.shape), np.int64) for _ in range(pop.ports)]
    for p in pop.projections:
        late = p.delay - graph.aligned_delay(name, p.source)
        sums[p.port] += synaptic_sums(p, delayed(messages[p.source], late), pop.shape)
    return sums


def synaptic_sums(p: ig.Projection, messages: np.ndarray, shape: ig.Shape) -> np.ndarray:
    """Return what one projection brings to its targets, int64 (samples, steps, *shape)."""
    if isinstance(p, ig.IntDense):
        flat = messages.reshape(*messages.shape[:2], -1).astype(np.float64)
        return (flat @ p.weight.T.astype(np.float64)).astype(np.int64)  # exact: far below 2^53
    if isinstance(p, ig.IntConv2d):
        torch = import_torch()
        lead, weight = messages.shape[:2], torch.from_numpy(p.weight.astype(np.float64))
        x = torch.from_numpy(messages.astype(np.float64)).flatten(0, 1)
        conv = torch.nn.functional.conv2d
        y = conv(x, weight, None, p.stride, p.padding, p.dilation, p.groups)
        return y.to(torch.int64).numpy().reshape(*lead, *shape)
    whole = messages.astype(np.int64)
    return np.stack([[reference.synaptic_sum(p, x, shape) for x in steps] for steps in whole])


def delayed(messages: np.ndarray, steps: int) -> np.ndarray:
    """Return messages (samples, steps, ...) that come ``steps`` later (earlier below 0)."""
    if steps == 0:
        return messages
    moved = np.zeros_like(messages)
    if steps > 0:
        moved[:, steps:] = messages[:, :-steps]
    else:
        moved[:, :steps] = messages[:, -steps:]
    return moved


def outputs(
    graph: ig.IntGraph, name: str, pop: ig.Population, messages: Messages, arith: Arithmetic
) -> np.ndarray:
    """Return the outputs of ``pop`` on these messages, int64 (samples, steps, *shape).

    Raises OutOfRange as the executors do.
    """
    sums = port_sums(graph, name, pop, messages)
    samples = range(len(sums[0]))
    return np.stack(
        [reference.all_steps(name, pop, [a[s] for a in sums], arith)[0] for s in samples]
    )


@dataclass(frozen=True, eq=False)
class Drive:
    """What moves leaky neurons, in registers' units; whole numbers or real ones.

    current: shifted synaptic sums (samples, steps, *shape). bias, level: bias and threshold, they
    broadcast to the shape. keep: share of the membrane that a step leaves. keep_current: the same
    of the synaptic current. whole: whether a leak is truncated to whole numbers.
    """

    current: np.ndarray
    bias: np.ndarray
    level: np.ndarray
    keep: float
    keep_current: float = 0.0
    whole: bool = True

    def only(self, sample: int, index: tuple[int, ...]) -> Drive:
        """Return the same for one neuron in one sample: current (1, steps)."""
        shape = self.current.shape[2:]
        parts = {k: np.broadcast_to(getattr(self, k), shape)[index] for k in ("bias", "level")}
        whole = np.moveaxis(self.current[sample], 0, -1)[index]
        return replace(self, current=whole[None], **parts)


def integer_drive(pop: ig.IntLif, sums: np.ndarray, arith: Arithmetic) -> Drive:
    """Return what moves the integer neurons that receive ``sums`` (samples, steps, *shape)."""
    one, shift = 1 << arith.decay_bits, 1 << arith.input_shift
    return Drive(
        sums.astype(np.float64) * shift,
        (pop.bias_mantissa << pop.bias_exponent).astype(np.float64),
        pop.threshold.astype(np.float64) * shift,
        (one - pop.decay_v) / one,
        (one - pop.decay_u - 1) / one,
    )


def lif(drive: Drive) -> tuple[np.ndarray, np.ndarray]:
    """Return (spikes, membranes before reset), bool and float64, both as ``drive.current``.

    The equation of ``fixed.lif_step``; exact for whole numbers, which stay below 2^53.
    """
    spikes = np.zeros(drive.current.shape, bool)
    membranes = np.zeros(drive.current.shape)
    shape = (len(drive.current), *drive.current.shape[2:])
    u, v = np.zeros(shape), np.zeros(shape)
    for t in range(drive.current.shape[1]):
        leak = np.trunc if drive.whole else np.asarray
        u = np.trunc(u * drive.keep_current) + drive.current[:, t]
        v = leak(v * drive.keep) + u + drive.bias
        membranes[:, t] = v
        spikes[:, t] = v > drive.level
        v = np.where(spikes[:, t], 0.0, v)
    return spikes, membranes
