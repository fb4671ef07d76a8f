"""The integer arithmetic against independent formulas, edge integers and third-party traces."""

from __future__ import annotations

import csv
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroav import fixed
from neuroav.errors import OutOfRange
from neuroav.hardware import load_profile

ARITH = load_profile("loihi2").arithmetic
EDGES = sorted({s * (2**k + d) for k in range(24) for d in (-1, 0, 1) for s in (-1, 1)} | {0})


def toward_zero(x: Fraction) -> int:
    return int(x)  # int() of a Fraction truncates toward zero


@pytest.mark.parametrize("amount", [0, 1, 163, 2048, 4095, 4096])
def test_decay_is_exact_division_rounded_toward_zero(amount):
    expected = [toward_zero(Fraction(x * (4096 - amount), 4096)) for x in EDGES]
    assert [fixed.decay(x, amount) for x in EDGES] == expected
    assert fixed.decay(np.array(EDGES), amount).tolist() == expected


@given(st.integers(-(2**23) + 1, 2**23 - 1), st.integers(0, 4096))
def test_decay_scalar_equals_array(x, amount):
    assert fixed.decay(x, amount) == fixed.decay(np.array([x]), amount)[0]


def test_lif_compares_strictly_and_resets_to_zero():
    def step(a):
        return fixed.lif_step(0, 0, a, 0, decay_u=4095, decay_v=2048, threshold=5, arith=ARITH)

    assert step(5) == (320, 320, False)  # equal to the threshold does not fire
    assert step(6) == (384, 0, True)


def test_lif_keeps_current_and_adds_bias():
    u, v, spike = fixed.lif_step(
        1000, -7, 2, 3, decay_u=1023, decay_v=0, threshold=10_000, arith=ARITH
    )
    assert (u, v, spike) == (750 + 128, -7 + 878 + 3, False)


@pytest.mark.parametrize("a", [ARITH.sum_max + 1, -ARITH.sum_max - 1])
def test_current_overflow_names_the_layer(a):
    with pytest.raises(OutOfRange, match=r"deep\.lif: the synaptic current reached -?\d+"):
        fixed.lif_step(
            0, 0, a, 0, decay_u=4095, decay_v=0, threshold=1, arith=ARITH, where="deep.lif"
        )


def test_voltage_overflow_raises_for_arrays():
    v = np.array([0, 2**23 - 1])
    with pytest.raises(OutOfRange, match="membrane voltage reached 8388608"):
        fixed.lif_step(
            0 * v, v, 0 * v, 1, decay_u=4095, decay_v=0, threshold=2**17 - 1, arith=ARITH
        )


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("mode", fixed.SIGN_MODES)
def test_weight_levels_are_exactly_the_storable_weights(bits, mode):
    low, high = fixed.weight_levels(bits, mode)
    levels = np.arange(low, high + 1) * fixed.weight_step(bits, mode)
    assert np.array_equal(fixed.truncate_weights(levels, bits, mode), levels)
    everything = fixed.truncate_weights(np.arange(-300, 300), bits, mode)
    inside = everything[(everything >= levels.min()) & (everything <= levels.max())]
    assert set(np.unique(inside)) == set(levels.tolist())


def test_mixed_weights_truncate_to_even_toward_minus_infinity():
    stored = fixed.truncate_weights(np.array([-1, 1, -3, 255, 300, -300]), 8, "mixed")
    assert stored.tolist() == [-2, 0, -4, 254, 254, -256]


def read_trace(path):
    with path.open() as file:
        return [tuple(float(x) for x in row) for row in csv.reader(file) if row]


def test_integer_lif_equals_lava_cpu_and_silicon_traces(vectors):
    """weight 10, du 4095, dv 163, vth 25, input one step late: every row of the CPU model's trace;
    the silicon trace too, but for the read-out at its four spike steps (128 instead of 0)."""
    cpu = read_trace(vectors / "nir_lif" / "lif_lava_cpu_fixed.csv")
    silicon = read_trace(vectors / "nir_lif" / "lif_lava_loihi_fixed.csv")
    assert len(cpu) == len(silicon) == 1000
    u = v = late = 0
    ours = []
    for row in cpu:
        u, v, spike = fixed.lif_step(
            u, v, 10 * late, 0, decay_u=4095, decay_v=163, threshold=25, arith=ARITH
        )
        late = int(row[0])
        ours.append((row[0], float(v), float(spike)))
    spikes = [i for i, row in enumerate(ours) if row[2]]
    assert spikes == [461, 511, 711, 761]
    assert ours == cpu
    different = [i for i in range(1000) if ours[i] != silicon[i]]
    assert different == spikes
    assert [silicon[i][1:] for i in spikes] == [(128.0, 1.0)] * 4
