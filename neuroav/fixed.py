"""The target's integer arithmetic: one function per equation.

Every function takes Python integers or int64 NumPy arrays and gives the same numbers for both. The
quantizer, the reference executor and quantization-aware training all call these; nothing else in
the project restates them. The named reference is lava-nc 0.10.0, ``Loihi2SimCfg("fixed_pt")``:
``PyLifModelBitAcc``, ``PyDenseModelBitAcc`` and ``PyConvModelFixed``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from neuroav.errors import OutOfRange

SIGN_MODES = ("mixed", "excitatory", "inhibitory")


@dataclass(frozen=True)
class Arithmetic:
    """Register widths and rules of one target, read from its profile's ``[numeric]`` table.

    weight_bits: largest weight width the synapse memory holds.
    current_bits, voltage_bits: width of the signed state registers ``u`` and ``v``.
    input_shift: left shift of the synaptic sum as it enters ``u`` (also of the threshold).
    decay_bits: fraction bits of both decays.
    threshold_bits: unsigned mantissa bits of the threshold (before ``input_shift``).
    bias_bits, bias_exponent_max: signed mantissa bits and largest left shift of the bias.
    payload_bits: signed width of a graded message and of an accumulator without threshold.
    delay_max: largest extra delay of one synapse, in steps.
    """

    weight_bits: int
    current_bits: int
    voltage_bits: int
    input_shift: int
    decay_bits: int
    threshold_bits: int
    bias_bits: int
    bias_exponent_max: int
    payload_bits: int
    delay_max: int

    @property
    def threshold_max(self) -> int:
        return (1 << self.threshold_bits) - 1

    @property
    def bias_max(self) -> int:
        return (1 << (self.bias_bits - 1)) - 1

    @property
    def sum_max(self) -> int:
        """Largest synaptic sum whose shifted value still fits ``u``: 2^17 - 1 on Loihi."""
        return (1 << (self.current_bits - 1 - self.input_shift)) - 1


def truncate_shift(x, bits: int):
    """Divide by 2^bits, rounding toward zero: ``sign(x) * (|x| >> bits)``."""
    if isinstance(x, np.ndarray):
        return np.sign(x) * (np.abs(x) >> bits)
    return (abs(x) >> bits) * (1 if x >= 0 else -1)


def decay(x: Any, amount: Any, bits: int = 12) -> Any:
    """Leak ``x`` by ``amount`` / 2^bits: ``truncate(x * (2^bits - amount), bits)``."""
    return truncate_shift(x * ((1 << bits) - amount), bits)


def check_range(x, limit: int, where: str, what: str):
    """Return ``x``; raise OutOfRange naming ``where`` unless ``-limit <= x <= limit``."""
    low, high = (x.min(initial=0), x.max(initial=0)) if isinstance(x, np.ndarray) else (x, x)
    if low < -limit or high > limit:
        found = int(low) if low < -limit else int(high)
        raise OutOfRange(
            f"{where}: {what} reached {found}, the register holds -{limit}..{limit}; "
            "use fewer weight bits or smaller input counts for this layer"
        )
    return x


def shift_left(mantissa: Any, exponent: int) -> Any:
    """Return ``mantissa * 2^exponent``, exponent >= 0: the bias as the chip adds it."""
    return mantissa << exponent


def lif_step(
    u: Any,
    v: Any,
    a_in: Any,
    bias: Any,
    *,
    decay_u: Any,
    decay_v: Any,
    threshold: Any,
    arith: Arithmetic,
    where: str = "lif",
    reset: str = "zero",
) -> tuple[Any, Any, Any]:
    """Advance leaky integrate-and-fire neurons by one step; return ``(u, v, spike)``.

    u' = truncate(u * (2^12 - (decay_u + 1)), 12) + (a_in << 6)
    v' = truncate(v * (2^12 - decay_v), 12) + u' + bias
    spike = v' > (threshold << 6);  u' is not reset
    v' = 0 where it spiked (reset 'zero'), or v' - (threshold << 6) ('subtract')

    u, v, a_in, bias, threshold: integers or int64 arrays that broadcast to the layer's shape;
    bias in units of 1/64 input unit. Source: lava-nc 0.10.0 ``PyLifModelBitAcc``. Raises OutOfRange
    where Lava would wrap (u) or saturate (v): a network that needs either is refused. Lava has no
    reset by subtraction; neurons that Loihi 2 runs as programs can have it.
    """
    u = decay(u, decay_u + 1, arith.decay_bits) + a_in * (1 << arith.input_shift)
    check_range(u, (1 << (arith.current_bits - 1)) - 1, where, "the synaptic current")
    v = decay(v, decay_v, arith.decay_bits) + u + bias
    check_range(v, (1 << (arith.voltage_bits - 1)) - 1, where, "the membrane voltage")
    level = threshold * (1 << arith.input_shift)
    spike = v > level
    after = v - level if reset == "subtract" else 0
    v = np.where(spike, after, v) if isinstance(v, np.ndarray) else (after if spike else v)
    return u, v, spike


def sign_mode(weights: np.ndarray) -> str:
    """Return the sign mode Lava infers: all >= 0, all <= 0, or mixed."""
    if weights.min(initial=0) >= 0:
        return "excitatory"
    return "inhibitory" if weights.max(initial=0) <= 0 else "mixed"


def weight_step(bits: int, mode: str, weight_bits: int = 8) -> int:
    """Return the spacing of representable weights: 2^(8 - bits), twice that for mixed signs."""
    return 1 << (weight_bits - bits + (mode == "mixed"))


def truncate_weights(weights: np.ndarray, bits: int, mode: str, weight_bits: int = 8) -> np.ndarray:
    """Return ``weights`` (int64) as Lava's Dense stores them.

    w' = -w if inhibitory; clip to [-256 if mixed else 0, 255]; drop the low bits toward -inf;
    undo the sign. Source: lava-nc 0.10.0 ``PyDenseModelBitAcc``.
    """
    sign = -1 if mode == "inhibitory" else 1
    step = weight_step(bits, mode, weight_bits)
    top = 1 << weight_bits
    clipped = np.clip(sign * weights.astype(np.int64), -top if mode == "mixed" else 0, top - 1)
    return sign * (clipped // step * step)


def weight_levels(bits: int, mode: str) -> tuple[int, int]:
    """Return the smallest and largest integer k such that ``k * weight_step`` is storable."""
    if mode == "mixed":
        return -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return (0, (1 << bits) - 1) if mode == "excitatory" else (-((1 << bits) - 1), 0)
