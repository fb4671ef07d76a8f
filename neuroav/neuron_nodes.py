"""Real-valued nodes that remember: neurons, membranes, delays. Part of ``neuroav.nodes``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuroav.errors import StageError

Pair = tuple[int, int]
# Marks fields that the first version of FILE.nav lacks, with the first version that has them; not
# written at default.
LATER = "later"


def need(condition: bool, node: object, message: str, rule: str = "") -> None:
    """Raise StageError with the node's class and ``message`` unless ``condition``."""
    if not condition:
        raise StageError(f"{type(node).__name__}: {message}", rule=rule)


def check_peak(node: Any) -> None:
    """Raise StageError unless ``node.peak`` is None or a finite number from 0."""
    value = node.peak
    fits = value is None or (isinstance(value, float) and 0 <= value < float("inf"))
    need(fits, node, f"peak is {value!r}, must be a finite number from 0")


Number = float | np.ndarray  # one for all neurons, or float64 that broadcasts to their shape


@dataclass(frozen=True, eq=False)
class Lif:
    """Leaky integrate-and-fire (Norse ``LIFBox``), with synaptic current where tau_syn_s is given.

    i' = i - (dt / tau_syn) i + x     (i' = x without tau_syn_s)
    v' = v + (dt / tau_mem) * ((v_leak - v) + i');  spike = v' > v_threshold
    v = v_reset where it spiked, else v'.   dt is the graph's ``dt_s``. i is not reset.

    tau_mem_s, tau_syn_s: time constants in seconds. Others in units of the membrane variable. All
    four of one value or one per neuron. inclusive: v_threshold is the largest float32 below the
    level at which the neuron spikes. reset: 'value', or 'subtract' for v' - v_threshold in place of
    v_reset.
    """

    tau_mem_s: Number
    v_threshold: Number = 1.0
    v_reset: Number = 0.0
    v_leak: Number = 0.0
    inclusive: bool = False
    tau_syn_s: Number | None = field(default=None, metadata={LATER: 3})
    reset: str = field(default="value", metadata={LATER: 3})

    def __post_init__(self) -> None:
        values = (self.tau_mem_s, self.v_threshold, self.v_reset, self.v_leak)
        _neuron(self, (*values, 1.0 if self.tau_syn_s is None else self.tau_syn_s))
        for what in ("tau_mem_s", "tau_syn_s"):
            value = getattr(self, what)
            positive = value is None or bool(np.all(np.asarray(value) > 0))
            need(positive, self, f"{what} is {value}, must be positive", "time-constant")


@dataclass(frozen=True, eq=False)
class If:
    """Integrate-and-fire without leak: v' = v + x; spike = v' > v_threshold, then the reset.

    v_threshold, v_reset: one value or one per neuron; reset: as for ``Lif``, rest being 0.
    inclusive: as for ``Lif``.
    """

    v_threshold: Number = 1.0
    v_reset: Number = 0.0
    inclusive: bool = False
    reset: str = "value"

    def __post_init__(self) -> None:
        _neuron(self, (self.v_threshold, self.v_reset))


def _neuron(node: Lif | If, values: tuple[Number, ...]) -> None:
    finite = all(bool(np.isfinite(v).all()) for v in values)
    need(finite, node, f"parameters must be finite, found {values}", "not-finite")
    known = node.reset in ("value", "subtract")
    need(known, node, f"reset is {node.reset!r}, must be 'value' or 'subtract'", "reset")


@dataclass(frozen=True, eq=False)
class Delay:
    """What came ``steps`` steps ago, 0 in the first ones of a sample. A loop closes here."""

    steps: int

    def __post_init__(self) -> None:
        whole = type(self.steps) is int and self.steps >= 1
        need(whole, self, f"steps is {self.steps!r}, must be a whole number from 1", "delay")


@dataclass(frozen=True, eq=False)
class Li:
    """Leaky membrane without threshold: ``Lif``'s v' at every step. Parameters as there.

    peak: largest |(v - v_leak) tau_mem / dt|, or sum of those over the steps so far, seen on the
    compiler's sample; it decides how fine the registers count. None where it was not measured.
    """

    tau_mem_s: float
    v_leak: float = 0.0
    tau_syn_s: float | None = None
    peak: float | None = None

    def __post_init__(self) -> None:
        check_peak(self)
        for what in ("tau_mem_s", "tau_syn_s"):
            value = getattr(self, what)
            fits = value is None or (bool(np.isfinite(value)) and value > 0)
            need(fits, self, f"{what} is {value}, must be positive and finite", "time-constant")
