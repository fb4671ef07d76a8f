"""The loops of ``neuroav.models.fused``, compiled by numba: imported at their first use only.

No fast-math: every operation is rounded to float32 as Norse's own are. Compiled once per machine
and kept beside this file, or in the user's cache where that cannot be written.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float32, jit, void

_REAL = float32[:, ::1]
ONE = np.float32(1)


@jit(
    void(_REAL, _REAL, _REAL, float32, float32, float32, float32),
    nopython=True,
    nogil=True,
    cache=True,
    error_model="numpy",
)
def forward(x, spikes, membrane, factor, v_leak, v_threshold, v_reset):
    """Fill spikes and membrane (before the reset), (T, M) each, from input x (T, M)."""
    steps, size = x.shape
    v = np.full(size, v_leak, np.float32)
    for t in range(steps):
        for i in range(size):
            u = v[i] + factor * ((x[t, i] + v_leak) - v[i])
            z = np.float32(u > v_threshold)
            membrane[t, i] = u
            spikes[t, i] = z
            v[i] = (ONE - z) * u + z * v_reset


@jit(
    void(_REAL, _REAL, _REAL, _REAL, float32, float32, boolean, boolean),
    nopython=True,
    nogil=True,
    cache=True,
    error_model="numpy",
)
def backward(grad, spikes, membrane, slope, factor, v_reset, detach_reset, detach_state):
    """Turn ``grad`` (T, M), of the spikes, into that of the input, in place."""
    steps, size = grad.shape
    through_reset = np.float32(0 if detach_reset else 1)
    keep = np.float32(0) if detach_state else ONE - factor
    carried = np.zeros(size, np.float32)
    for t in range(steps - 1, -1, -1):
        for i in range(size):
            to_spike = grad[t, i] + through_reset * (carried[i] * (v_reset - membrane[t, i]))
            to_membrane = carried[i] * (ONE - spikes[t, i]) + to_spike * slope[t, i]
            grad[t, i] = factor * to_membrane
            carried[i] = keep * to_membrane
