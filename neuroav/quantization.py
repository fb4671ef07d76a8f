"""From real weights, biases and thresholds to the integers a population holds.

The compiler and quantization-aware training call the same functions, so a network is trained with
the very integers it is deployed with. A population has one synaptic unit, the real input that one
integer weight stands for, or one per output channel where the target's thresholds are per neuron.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import gcd
from typing import Any, Literal

import numpy as np

from neuroav import nodes as rn
from neuroav.errors import UnsupportedNode, unknown_name
from neuroav.fixed import Arithmetic, sign_mode, weight_levels, weight_step

Calibration = Literal["max", "percentile", "mse"]
CALIBRATIONS: tuple[Calibration, ...] = ("max", "percentile", "mse")
_MSE_RATIOS = np.linspace(1.0, 0.3, 36)


@dataclass(frozen=True)
class Options:
    """How to choose integers.

    bits: weight width, 2..weight_bits of the target. calibration: the largest weight that is not
    clipped is the largest ('max'), the given percentile ('percentile'), or the one that minimises
    the squared error of the weights ('mse'). per_channel: one unit per output channel. layer_bits:
    width of single layers, by name; the name of what holds layers stands for all of them, and the
    longest name counts.
    """

    bits: int = 8
    calibration: Calibration = "max"
    percentile: float = 99.7
    per_channel: bool = False
    layer_bits: Mapping[str, int] = field(default_factory=dict, hash=False)

    def check(self, arith: Arithmetic) -> Options:
        """Return self; UnsupportedNode where the target cannot do it."""
        for place, bits in {"": self.bits, **self.layer_bits}.items():
            if not 2 <= bits <= arith.weight_bits:
                raise UnsupportedNode(
                    f"{place}{': ' * bool(place)}weights of {bits} bits: "
                    f"allowed are 2..{arith.weight_bits}"
                )
        if self.calibration not in CALIBRATIONS:
            raise UnsupportedNode(
                f"calibration {self.calibration!r}: allowed are {', '.join(CALIBRATIONS)}"
            )
        if not 50 < self.percentile <= 100:
            raise UnsupportedNode(f"percentile {self.percentile}: allowed are above 50 to 100")
        return self

    def at(self, layer: str) -> Options:
        """Return the options of one layer: its own width, and no other layer's."""
        if not self.layer_bits:
            return self
        holders = [n for n in self.layer_bits if layer == n or layer.startswith(f"{n}.")]
        bits = self.layer_bits[max(holders, key=len)] if holders else self.bits
        return replace(self, bits=bits, layer_bits={})

    def check_layers(self, layers: Collection[str]) -> None:
        """Raise UnsupportedNode for a width of a layer that there is not."""
        for name in self.layer_bits:
            if not any(layer == name or layer.startswith(f"{name}.") for layer in layers):
                raise unknown_name("layer with weights", name, layers, UnsupportedNode)


@dataclass(frozen=True)
class Grid:
    """Storable weights of one projection: k * step for low <= k <= high."""

    step: int
    low: int
    high: int
    mode: str

    @property
    def largest(self) -> int:
        """Largest magnitude storable in both directions the mode needs."""
        return self.step * min(-self.low or self.high, self.high or -self.low)


def grid_for(weight: np.ndarray, bits: int, arith: Arithmetic) -> Grid:
    """Return the grid for a real weight array: its sign mode and width decide."""
    mode = sign_mode(weight)
    return Grid(weight_step(bits, mode, arith.weight_bits), *weight_levels(bits, mode), mode)


RANGE_MARGIN = 2.0  # assumed: unseen input drives a membrane at most this much further
# Validation samples that the membrane is measured on. The largest of few is no guide: in a trained
# scmrl that of 4 samples was a fifth of that of 450.
RANGE_SAMPLES = 256


def least_unit(peak: np.ndarray, fraction: float, arith: Arithmetic) -> np.ndarray:
    """Return the smallest synaptic units at which the registers hold the membranes, with a margin.

    peak: largest |synaptic input| seen, real, (channels,); fraction: dt / tau_mem, so that a
    membrane stays within peak / fraction.
    """
    limit = (1 << (min(arith.current_bits, arith.voltage_bits) - 1)) - 1
    return RANGE_MARGIN * peak / fraction * (1 << arith.input_shift) / limit


# A neuron shifts the sum of its synapses left by 6 into a register of 24 bits, so 17 bits are for
# the sum: a message of 8 bits times a weight of 8 bits leaves room for signs that cancel.
MESSAGE_BITS = 8  # magnitude of a sum over a sample, or a product, that synapses read
OPERAND_BITS = 11  # of what a product reads: the product of two stays below 2^22 of 24 bits
# Of the weights of the steps. The accumulator of 24 bits adds synaptic sums (8-bit weights of many
# spikes, some 13 bits) of up to 64 steps, which leaves 4 bits.
STEP_WEIGHT_BITS = 4


def accumulator_unit(peak: np.ndarray, arith: Arithmetic) -> np.ndarray:
    """Return the smallest units at which an accumulator without threshold holds ``peak``.

    With the margin. peak: largest |sum| seen, real, (channels,); a unit is what 1 is worth.
    """
    return RANGE_MARGIN * peak / ((1 << (arith.payload_bits - 1)) - 1)


def even(weights: np.ndarray | None) -> bool:
    """Return whether all steps count alike, so that no weight of a step is needed."""
    return weights is None or bool((weights == weights[0]).all() and weights[0] > 0)


def integer_step_weights(weights: np.ndarray | None) -> tuple[tuple[int, ...], Fraction]:
    """Return integer weights of the steps, of ``STEP_WEIGHT_BITS``, and what 1 is worth.

    weights: real (steps,), not all 0, or None for ones. No integers where all steps count alike.
    """
    if weights is None or even(weights):
        return (), Fraction(1) if weights is None else exact_fraction(float(weights[0]))
    unit = exact_fraction(float(np.abs(weights).max())) / ((1 << STEP_WEIGHT_BITS) - 1)
    return tuple(round(w) for w in (weights / float(unit)).tolist()), unit


def message_shift(peak: float | None, unit: Fraction, bits: int) -> int:
    """Return how many bits a message drops so that ``peak`` fits ``bits``, with the margin.

    peak: largest |value| seen, real; unit: what 1 is worth before the shift. 0 without a peak.
    """
    most = Fraction(peak or 0.0) * Fraction(RANGE_MARGIN) / unit
    shift = 0
    while most > ((1 << bits) - 1) << shift:
        shift += 1
    return shift


def choose_unit(
    weights: Sequence[np.ndarray],
    threshold: float,
    options: Options,
    arith: Arithmetic,
    least: np.ndarray | None = None,
    bits: Sequence[int] | None = None,
) -> np.ndarray:
    """Return the synaptic unit of a population, shape (1,) or (channels,).

    weights: real weights of every projection onto it, (out, ...) each. threshold: its real
    threshold, which must fit the mantissa in the same unit (0 for accumulators). least: as
    ``least_unit`` gives it, None for no limit. bits: width of each projection's weights, those of
    ``options`` where None.
    """
    if options.per_channel:
        rows = [w.reshape(w.shape[0], -1) for w in weights]
    else:
        rows = [w.reshape(1, -1) for w in weights]
    widths = bits or [options.bits] * len(weights)
    grids = [grid_for(w, b, arith) for w, b in zip(weights, widths, strict=True)]
    unit = np.max([_covering(r, g, options) for r, g in zip(rows, grids, strict=True)], axis=0)
    if options.calibration == "mse":
        unit = _least_squares(rows, grids, unit)
    unit = np.maximum(unit, threshold / arith.threshold_max)
    if least is not None:
        unit = np.maximum(unit, least if options.per_channel else least.max(initial=0.0))
    return np.where(unit > 0, unit, 1.0)


def _covering(rows: np.ndarray, grid: Grid, options: Options) -> np.ndarray:
    """Return the unit at which the largest (or the percentile's) weight of a row is just stored."""
    if rows.shape[1] == 0:
        return np.zeros(len(rows))
    if options.calibration == "percentile":
        return np.percentile(np.abs(rows), options.percentile, axis=1) / grid.largest
    return np.abs(rows).max(axis=1) / grid.largest


def _least_squares(
    rows: Sequence[np.ndarray], grids: Sequence[Grid], unit: np.ndarray
) -> np.ndarray:
    """Return the unit, between 30 % and 100 % of the covering one, with the least squared error."""
    best, least = unit, np.full(len(unit), np.inf)
    for ratio in _MSE_RATIOS:
        trial = np.where(unit > 0, unit * ratio, 1.0)
        error = np.zeros(len(unit))
        for row, grid in zip(rows, grids, strict=True):
            scale = (trial * grid.step)[:, None]
            level = np.clip(np.rint(row / scale), grid.low, grid.high)
            error += ((level * scale - row) ** 2).sum(axis=1)
        best, least = np.where(error < least, trial, best), np.minimum(error, least)
    return np.where(unit > 0, best, unit)


def along(unit: np.ndarray, axes: int) -> np.ndarray:
    """Return a unit (1,) or (channels,) so that it broadcasts along the first of ``axes`` axes."""
    return unit.reshape(-1, *[1] * (axes - 1))


def integer_weights(
    weight: np.ndarray, unit: np.ndarray, options: Options, arith: Arithmetic
) -> tuple[np.ndarray, Grid, int]:
    """Return (int64 weights as stored, their grid, how many were clipped)."""
    grid = grid_for(weight, options.bits, arith)
    level = np.rint(weight / (along(unit, weight.ndim) * grid.step)).astype(np.int64)
    clipped = np.clip(level, grid.low, grid.high)
    return clipped * grid.step, grid, int((clipped != level).sum())


def integer_bias(
    bias: np.ndarray, unit: np.ndarray, arith: Arithmetic
) -> tuple[np.ndarray, int, int]:
    """Return (mantissas, exponent, how many were clipped) of real biases, in 1/64 of a unit."""
    wanted = np.rint(bias / unit * (1 << arith.input_shift))
    exponent = 0
    while (
        np.abs(np.rint(wanted / (1 << exponent))).max(initial=0) > arith.bias_max
        and exponent < arith.bias_exponent_max
    ):
        exponent += 1
    mantissa = np.rint(wanted / (1 << exponent)).astype(np.int64)
    clipped = np.clip(mantissa, -arith.bias_max, arith.bias_max)
    return clipped, exponent, int((clipped != mantissa).sum())


def integer_threshold(
    threshold: float | np.ndarray, unit: np.ndarray, arith: Arithmetic, inclusive: bool = False
) -> np.ndarray:
    """Return threshold mantissas (int64, shape of ``unit``) of a real threshold.

    inclusive: the threshold is just below a level that counts reach exactly; rounded down, whole
    numbers above the mantissa are those at the level and above.
    """
    level = np.floor(threshold / unit) if inclusive else np.rint(threshold / unit)
    return np.minimum(level, arith.threshold_max).astype(np.int64)


def integer_decay(fraction: Any, arith: Arithmetic) -> Any:
    """Return the decay that leaks ``fraction`` of the membrane per step, by neuron for an array."""
    wanted = fraction * (1 << arith.decay_bits)
    return np.rint(wanted).astype(np.int64) if isinstance(wanted, np.ndarray) else round(wanted)


def common_scale(scales: list[Fraction]) -> Fraction:
    """Return the largest fraction of which every scale is an integer multiple."""
    common = scales[0]
    for s in scales[1:]:
        common = Fraction(
            gcd(common.numerator * s.denominator, s.numerator * common.denominator),
            common.denominator * s.denominator,
        )
    return common


def exact_fraction(factor: float) -> Fraction:
    """Return the simple fraction a float stands for (1/9, 3/2), or its exact value."""
    simple = Fraction(factor).limit_denominator(1 << 20)
    return simple if abs(float(simple) - factor) <= 1e-14 * abs(factor) else Fraction(factor)


def neuron_threshold(node: rn.Lif | rn.If, dt_s: float) -> rn.Number:
    """Return the threshold above rest in units of the synaptic input, by neuron or for all."""
    if isinstance(node, rn.If):
        return node.v_threshold
    return (node.v_threshold - node.v_leak) / (dt_s / node.tau_mem_s)


def neuron_decays(
    node: rn.Lif | rn.If, dt_s: float, arith: Arithmetic
) -> tuple[int | np.ndarray, int | np.ndarray]:
    """Return ``decay_u`` and ``decay_v`` of the chip's neuron for a real one."""
    if isinstance(node, rn.If):
        return (1 << arith.decay_bits) - 1, 0
    tau = node.tau_syn_s
    lost = integer_decay(1.0 if tau is None else dt_s / tau, arith)
    return lost - 1, integer_decay(dt_s / node.tau_mem_s, arith)
