"""The loops of the batched executor on a CPU, compiled by numba: imported at first use only.

Whole numbers in floating point, as ``neuroav.sim.fast`` proves them exact. No fast-math, but for
sums of counts below 2^24, which are the same in any order. Each is compiled for float32 or float64
when first called with it, once per machine, and kept beside this file, or in the user's cache where
that cannot be written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import jit

OPTIONS: dict[str, Any] = {"nopython": True, "nogil": True, "cache": True, "error_model": "numpy"}
BLOCK = 16  # places turned at a time: a cache line of float32


@jit(**OPTIONS)
def _step(a, spikes, u, v, bias, threshold, keep_u, keep_v, gain, look, found):
    """Advance neurons by a step from their sums a, all (M,); see ``lif``."""
    zero = a.dtype.type(0)
    if keep_u == zero and not look:  # most networks: one pass
        for i in range(len(a)):
            now = np.trunc(v[i] * keep_v) + a[i] * gain + bias[i]
            fired = now > threshold[i]
            spikes[i] = np.float32(fired)
            v[i] = zero if fired else now
        return
    for i in range(len(a)):
        u[i] = np.trunc(u[i] * keep_u) + a[i] * gain
        v[i] = np.trunc(v[i] * keep_v) + u[i] + bias[i]
    if look:
        found[0] = min(found[0], u.min())
        found[1] = max(found[1], u.max())
        found[2] = min(found[2], v.min())
        found[3] = max(found[3], v.max())
    for i in range(len(a)):
        fired = v[i] > threshold[i]
        spikes[i] = np.float32(fired)
        v[i] = zero if fired else v[i]


@jit(**OPTIONS)
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
            sums, fired = a[t, sample], spikes[t, sample]
            _step(sums, fired, u, v, bias, threshold, keep_u, keep_v, gain, look, found)
            if keep_states:
                voltages[t, sample, :] = v
    return found


@jit(**OPTIONS)
def _frame(x, weight, start, pick, row, sums, found, out):
    """Fill the sums out (O, places) of one frame x (C, inputs); see ``scatter``."""
    channels, inputs = x.shape
    rows, run = weight.shape[1:]
    width, places = out.shape
    zero = x.dtype.type(0)
    sums[:] = zero
    for c in range(channels):
        line, events = x[c], 0
        for i in range(inputs):  # no branch: most of the time goes here at low rates
            found[events] = i
            events += line[i] != zero
        for e in range(events):
            value = line[found[e]]
            for r in range(rows):
                first = start[found[e]] + r * row
                target, kernel = sums[first : first + run], weight[c, r]
                for j in range(run):
                    target[j] += value * kernel[j]
    for first in range(0, places, BLOCK):
        last = min(first + BLOCK, places)
        for j in range(width):
            for p in range(first, last):
                out[j, p] = sums[pick[p] + j]


@jit(**OPTIONS)
def scatter(x, weight, start, pick, row, size, out):
    """Fill sums out (N, O, places) from messages x (N, C, inputs): weights of events alone.

    weight: (C, kernel rows, kernel columns x O), the kernel turned by 180 degrees. The sums of a
    frame are gathered in ``size`` numbers, ``row`` apart from one line of places to the next and
    wide enough for every place a kernel reaches; an event at i adds from ``start[i]`` on, and
    ``pick`` says where each place of ``out`` begins.
    """
    sums, found = np.empty(size, x.dtype), np.empty(x.shape[2] + 1, np.int64)
    for frame in range(len(x)):
        _frame(x[frame], weight, start, pick, row, sums, found, out[frame])


@jit(**OPTIONS)
def lif_of_events(
    x, weight, start, pick, row, size,
    spikes, voltages, bias, threshold, keep_u, keep_v, gain, keep_states, look,
):  # fmt: skip
    """``scatter`` and ``lif`` in one, frame by frame: the sums of (T, B, C, inputs) stay close."""
    steps, samples, _, inputs = x.shape
    count, places = len(bias), len(pick)
    a = np.empty((count // places, places), x.dtype)
    sums, events = np.empty(size, x.dtype), np.empty(inputs + 1, np.int64)
    found = np.zeros(4, x.dtype)
    zero = x.dtype.type(0)
    u, v = np.empty(count, x.dtype), np.empty(count, x.dtype)
    for sample in range(samples):
        u[:] = zero
        v[:] = zero
        for t in range(steps):
            _frame(x[t, sample], weight, start, pick, row, sums, events, a)
            fired = spikes[t, sample]
            _step(a.reshape(count), fired, u, v, bias, threshold, keep_u, keep_v, gain, look, found)
            if keep_states:
                voltages[t, sample, :] = v
    return found


@jit(fastmath={"reassoc"}, **OPTIONS)
def _overlap(a, b):
    """Return the number of places where both are 1."""
    count = np.float32(0)
    for i in range(len(a)):
        count += a[i] * b[i]
    return count


@jit(**OPTIONS)
def spatial_attention(q, k, v, heads, cap, out):
    """Fill out (T, B, C, N): per head, min(cap, q (min(cap, k^T v))) of binary (T, B, C, N)."""
    steps, samples, channels, _ = q.shape
    per_head = channels // heads
    for t in range(steps):
        for b in range(samples):
            for h in range(heads):
                first = h * per_head
                for j in range(first, first + per_head):
                    found = out[t, b, j]
                    found[:] = np.float32(0)
                    for i in range(first, first + per_head):
                        state = min(cap, _overlap(k[t, b, i], v[t, b, j]))
                        if state != np.float32(0):
                            for n in range(len(found)):
                                found[n] += state * q[t, b, i, n]
                    for n in range(len(found)):
                        found[n] = min(cap, found[n])


@jit(**OPTIONS)
def temporal_attention(q, k, v, heads, cap, scrambled, out):
    """Fill out (T, B, C, N): per head and token, over the steps, of binary (T, B, C, N).

    scrambled: slot (h T + t) d + j of a token is step slot // C, channel slot % C.
    """
    steps, samples, channels, tokens = q.shape
    per_head = channels // heads
    state = np.empty((per_head, tokens), np.float32)
    for b in range(samples):
        for h in range(heads):
            first = h * per_head
            for j in range(per_head):
                state[:] = np.float32(0)
                for t in range(steps):
                    for i in range(per_head):
                        for n in range(tokens):
                            state[i, n] += k[t, b, first + i, n] * v[t, b, first + j, n]
                for t in range(steps):
                    slot = (h * steps + t) * per_head + j
                    found = (
                        out[slot // channels, b, slot % channels]
                        if scrambled
                        else out[t, b, first + j]
                    )
                    found[:] = np.float32(0)
                    for i in range(per_head):
                        for n in range(tokens):
                            found[n] += q[t, b, first + i, n] * min(cap, state[i, n])
                    for n in range(tokens):
                        found[n] = min(cap, found[n])
