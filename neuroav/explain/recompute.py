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
    return [a.astype(np.int64) for a in real_sums(graph, name, pop, messages)]


def real_sums(
    graph: ig.IntGraph, name: str, pop: ig.Population, messages: Messages
) -> list[np.ndarray]:
    """Return the same for messages that may be fractions, float64."""
    lead = next(iter(messages.values())).shape[:2]
    sums = [np.zeros((*lead, *pop.shape)) for _ in range(pop.ports)]
    for p in pop.projections:
        late = p.delay - graph.aligned_delay(name, p.source)
        sums[p.port] += synaptic_sums(p, delayed(messages[p.source], late), pop.shape)
    return sums


def synaptic_sums(p: ig.Projection, messages: np.ndarray, shape: ig.Shape) -> np.ndarray:
    """Return what one projection brings to its targets, float64 (samples, steps, *shape).

    Exact for whole messages: their sums are far below 2^53.
    """
    lead = messages.shape[:2]
    if isinstance(p, ig.IntDense):
        flat = messages.reshape(*lead, -1).astype(np.float64)
        return (flat @ p.weight.T.astype(np.float64)).reshape(*lead, *shape)
    if isinstance(p, ig.IntConv2d):
        torch = import_torch()
        weight = torch.from_numpy(p.weight.astype(np.float64))
        x = torch.from_numpy(messages.astype(np.float64)).flatten(0, 1)
        conv = torch.nn.functional.conv2d
        y = conv(x, weight, None, p.stride, p.padding, p.dilation, p.groups)
        return y.numpy().reshape(*lead, *shape)
    if isinstance(p, ig.IntPlace):
        y = np.zeros((*lead, p.size))
        flat = messages.reshape(*lead, -1)
        y[..., p.offset : p.offset + flat.shape[-1]] = p.weight * flat
        return y
    # windows of a pool see spikes alone, all others only add or copy
    whole = messages.astype(np.int64) if isinstance(p, ig.IntPool) else messages
    sums = [[reference.synaptic_sum(p, x, shape) for x in steps] for steps in whole]
    return np.array(sums, np.float64)


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


def real_outputs(
    graph: ig.IntGraph, name: str, pop: ig.Population, messages: Messages, arith: Arithmetic
) -> np.ndarray:
    """Return the outputs of ``pop`` in real arithmetic, float64 (samples, steps, *shape).

    The same integers as parameters, but nothing is truncated: no leak and no bit that a message
    drops (on average a message rounds down as ``rederive.offset`` says, and so does this one).
    Messages may be fractions.
    """
    sums = real_sums(graph, name, pop, messages)
    if isinstance(pop, ig.IntLif):
        drive = integer_drive(pop, sums[0], arith)
        return lif(replace(drive, whole=False))[0].astype(np.float64)
    if isinstance(pop, ig.IntSum):
        return sums[0]
    if isinstance(pop, ig.IntReadout):
        return accumulated(pop, sums[0], readout_keeps(pop, arith))
    if isinstance(pop, ig.IntTimeSum):
        weights = pop.step_weights(graph.steps).astype(np.float64)
        total = np.einsum("t,st...->s...", weights, sums[0])[:, None]
        return np.broadcast_to(_unshifted(total, pop.shift), sums[0].shape).copy()
    if isinstance(pop, ig.IntProduct):
        return _unshifted(sums[0] * sums[1], pop.shift)
    # the others only compare, or count spikes: whatever the arithmetic, they give the same
    found = [reference.all_steps(name, pop, list(a), arith)[0] for a in zip(*sums, strict=True)]
    return np.array(found, np.float64)


Keeps = tuple[float, float]  # share of current and membrane that a step leaves


def readout_keeps(pop: ig.IntReadout, arith: Arithmetic) -> Keeps:
    """Return what a step leaves of a readout's current and of its accumulator."""
    one = 1 << arith.decay_bits
    return 0.0 if pop.decay_u is None else (one - pop.decay_u - 1) / one, (one - pop.decay_v) / one


def accumulated(pop: ig.IntReadout, sums: np.ndarray, keeps: Keeps) -> np.ndarray:
    """Return what accumulators hold at every step when nothing is truncated."""
    u, v = np.zeros((2, len(sums), *sums.shape[2:]))
    found = np.zeros(sums.shape)
    for t in range(sums.shape[1]):
        u = u * keeps[0] + sums[:, t] * (1 << pop.input_shift) + pop.bias
        v = v * keeps[1] + u
        found[:, t] = v
    return found


def _unshifted(value: np.ndarray, shift: int) -> np.ndarray:
    """Return value / 2^shift less what rounding down takes on average."""
    return value / (1 << shift) - ((1 << shift) - 1) / (2 << shift)


@dataclass(frozen=True, eq=False)
class Drive:
    """What moves leaky neurons, in registers' units; whole numbers or real ones.

    current: shifted synaptic sums (samples, steps, *shape). bias, level: bias and threshold, they
    broadcast to the shape. keep: share of the membrane that a step leaves, one or one per neuron.
    keep_current: the same of the synaptic current. whole: whether a leak is truncated to whole
    numbers. subtract: whether a spike takes the level off instead of setting the membrane to 0.
    """

    current: np.ndarray
    bias: np.ndarray
    level: np.ndarray
    keep: float | np.ndarray
    keep_current: float | np.ndarray = 0.0
    whole: bool = True
    subtract: bool = False

    def only(self, sample: int, index: tuple[int, ...]) -> Drive:
        """Return the same for one neuron in one sample: current (1, steps)."""
        shape = self.current.shape[2:]
        each = ("bias", "level", "keep", "keep_current")
        parts = {k: np.broadcast_to(getattr(self, k), shape)[index] for k in each}
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
        subtract=pop.reset == "subtract",
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
        u = leak(u * drive.keep_current) + drive.current[:, t]
        v = leak(v * drive.keep) + u + drive.bias
        membranes[:, t] = v
        spikes[:, t] = v > drive.level
        v = np.where(spikes[:, t], v - drive.level if drive.subtract else 0.0, v)
    return spikes, membranes
