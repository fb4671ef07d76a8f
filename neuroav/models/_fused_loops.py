"""The loops of ``neuroav.models.fused``, compiled by numba: imported at their first use only.

No fast-math: every operation is rounded to float32 as Norse's own are. Neurons are taken in blocks
through all steps, so that a block's state stays in the first cache. Compiled once per machine and
kept beside this file, or in the user's cache where that cannot be written.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float32, int32, int64, jit, void
from numba.extending import intrinsic

_REAL = float32[:, ::1]
BLOCK = 2048  # neurons: some arrays of 8 KiB
ONE, TWO, HALF = np.float32(1), np.float32(2), np.float32(0.5)
LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
ROUND = np.float32(12582912.0)  # 1.5 * 2^23: a sum with it is a whole number in its low bits
LOWEST = np.float32(-87.0)
TWO_OVER_ROOT_PI = np.float32(2 / np.sqrt(np.pi))
SURROGATES = {"tanh": 0, "super": 1, "triangle": 2, "heavi_erfc": 3, "circ": 4}


def _same_bits(context, builder, signature, args):
    return builder.bitcast(args[0], context.get_value_type(signature.return_type))


@intrinsic
def _bits(typing, x):
    return int32(float32), _same_bits


@intrinsic
def _from_bits(typing, x):
    return float32(int32), _same_bits


@jit(float32(float32), nopython=True, cache=True, fastmath={"contract"}, error_model="numpy")
def exp_negative(x):
    """Return exp(x) of x <= 0 to 2 units in the last place, in operations that vectorise.

    Cephes's expf: x = n ln 2 + r, a polynomial of r and n in the exponent.
    """
    x = max(x, LOWEST)
    shifted = x * LOG2_E + ROUND
    n = shifted - ROUND
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + HALF
    p = (p * r) * r + r + ONE
    power = (_bits(shifted) << np.int32(23)) + np.int32(127 << 23)  # type: ignore[call-arg]
    return p * _from_bits(power)


@jit(
    void(_REAL, _REAL, _REAL, int64, int64, boolean, float32, float32, float32, float32),
    nopython=True,
    nogil=True,
    cache=True,
    error_model="numpy",
)
def forward(x, spikes, membrane, first, last, keep, factor, v_leak, v_threshold, v_reset):
    """Fill spikes (T, M), and membrane before the reset if ``keep``, of neurons first to last."""
    steps = len(x)
    v = np.empty(BLOCK, np.float32)
    for start in range(first, last, BLOCK):
        size = min(BLOCK, last - start)
        v[:] = v_leak
        for t in range(steps):
            into, out = x[t, start : start + size], spikes[t, start : start + size]
            if keep:
                kept = membrane[t, start : start + size]
                for i in range(size):
                    u = v[i] + factor * ((into[i] + v_leak) - v[i])
                    z = np.float32(u > v_threshold)
                    kept[i] = u
                    out[i] = z
                    v[i] = (ONE - z) * u + z * v_reset
            else:
                for i in range(size):
                    u = v[i] + factor * ((into[i] + v_leak) - v[i])
                    z = np.float32(u > v_threshold)
                    out[i] = z
                    v[i] = (ONE - z) * u + z * v_reset


@jit(
    void(float32[::1], float32[::1], int64, float32, int32, float32),
    nopython=True,
    nogil=True,
    cache=True,
    fastmath={"contract"},
    error_model="numpy",
)
def slopes(membrane, slope, size, v_threshold, surrogate, alpha):
    """Fill the derivative that Norse's threshold function takes at membrane - v_threshold."""
    if surrogate == 0:  # 1 - tanh(a d)^2 = 4 e / (1 + e)^2, e = exp(-2 a |d|)
        for i in range(size):
            e = exp_negative(-TWO * alpha * abs(membrane[i] - v_threshold))
            slope[i] = (np.float32(4) * e) / ((ONE + e) * (ONE + e))
    elif surrogate == 1:
        for i in range(size):
            width = abs(membrane[i] - v_threshold) + ONE
            slope[i] = ONE / (width * width)
    elif surrogate == 2:
        for i in range(size):
            slope[i] = alpha * max(ONE - abs(membrane[i] - v_threshold), np.float32(0))
    elif surrogate == 3:
        for i in range(size):
            d = alpha * (membrane[i] - v_threshold)
            slope[i] = TWO_OVER_ROOT_PI * exp_negative(-d * d)
    else:  # a (1 / q - d^2 / q^3) = a^3 / q^3, q^2 = a^2 + d^2
        for i in range(size):
            d = membrane[i] - v_threshold
            square = alpha * alpha + d * d
            slope[i] = (alpha * alpha * alpha) / (square * np.sqrt(square))


@jit(
    void(
        _REAL,
        _REAL,
        _REAL,
        int64,
        int64,
        float32,
        float32,
        float32,
        boolean,
        boolean,
        int32,
        float32,
    ),
    nopython=True,
    nogil=True,
    cache=True,
    error_model="numpy",
)
def backward(
    grad, membrane, out, first, last, factor, v_threshold, v_reset, detach_reset, detach_state,
    surrogate, alpha,
):  # fmt: skip
    """Fill ``out`` (T, M) with the input's gradient, from ``grad``, that of the spikes.

    Neurons first to last; ``out`` may be ``grad``.
    """
    through_reset = np.float32(0 if detach_reset else 1)
    keep = np.float32(0) if detach_state else ONE - factor
    carried, slope = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    for start in range(first, last, BLOCK):
        size = min(BLOCK, last - start)
        carried[:] = np.float32(0)
        for t in range(len(grad) - 1, -1, -1):
            u, g = membrane[t, start : start + size], grad[t, start : start + size]
            result = out[t, start : start + size]
            slopes(u, slope, size, v_threshold, surrogate, alpha)
            for i in range(size):
                z = np.float32(u[i] > v_threshold)
                to_spike = g[i] + through_reset * (carried[i] * (v_reset - u[i]))
                to_membrane = carried[i] * (ONE - z) + to_spike * slope[i]
                result[i] = factor * to_membrane
                carried[i] = keep * to_membrane
