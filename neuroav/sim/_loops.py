"""The integer neuron loops of the batched executor, compiled by numba: imported at first use only.

Whole numbers in floating point, as ``neuroav.sim.fast`` proves them exact. No fast-math. Compiled
once per machine and kept beside this file, or in the user's cache where that cannot be written.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float32, float64, jit


def _signature(real):
    row, cube = real[::1], real[:, :, ::1]
    return row(cube, float32[:, :, ::1], cube, row, row, real, real, real, boolean, boolean)


@jit(
    [_signature(float32), _signature(float64)],
    nopython=True,
    nogil=True,
    cache=True,
    error_model="numpy",
)
def lif(a, spikes, voltages, bias, threshold, keep_u, keep_v, gain, keep_states, look):
    """Fill spikes (T, B, M) and voltages (the same, or empty) from synaptic sums a (T, B, M).

    u' = trunc(keep_u u) + gain a;  v' = trunc(keep_v v) + u' + bias;  spike where v' > threshold,
    and v' = 0 there. bias, threshold: (M,). Returns the smallest and largest u and v before the
    reset, zeros where not to ``look``.
    """
    steps, samples, size = a.shape
    found = np.zeros(4, a.dtype)
    zero = a.dtype.type(0)
    u, v = np.empty(size, a.dtype), np.empty(size, a.dtype)
    for sample in range(samples):
        u[:] = zero
        v[:] = zero
        for t in range(steps):
            for i in range(size):
                u[i] = np.trunc(u[i] * keep_u) + a[t, sample, i] * gain
                v[i] = np.trunc(v[i] * keep_v) + u[i] + bias[i]
            if look:
                found[0] = min(found[0], u.min())
                found[1] = max(found[1], u.max())
                found[2] = min(found[2], v.min())
                found[3] = max(found[3], v.max())
            for i in range(size):
                fired = v[i] > threshold[i]
                spikes[t, sample, i] = np.float32(fired)
                v[i] = zero if fired else v[i]
            if keep_states:
                voltages[t, sample, :] = v
    return found
