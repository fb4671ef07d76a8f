"""Attention of the batched executor: counts of coincidences over all steps of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuroav import integer as ig
from neuroav.sim.currents import import_loops
from neuroav.sim.real import from_heads, import_torch

if TYPE_CHECKING:
    import torch


def attention(
    pop: ig.IntSpatialAttention | ig.IntTemporalAttention,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
) -> torch.Tensor:
    """Return the counts of linear attention for binary (T, B, C, *places), exact in float32.

    ``stages.verify_integer`` refuses networks whose counts, channels per head times tokens or
    steps, could exceed a message; messages have at most 24 signed bits.
    """
    compiled = q.device.type == "cpu"
    return (attention_compiled if compiled else attention_products)(pop, q, k, v)


def attention_compiled(pop, q, k, v) -> torch.Tensor:
    """As ``attention_products``, by one compiled loop on a CPU."""
    torch, loops = import_torch(), import_loops()
    out = torch.empty(q.shape, dtype=torch.float32)
    planes = (x.to(out.dtype).contiguous().flatten(3).numpy() for x in (q, k, v))
    cap, found = np.float32(pop.cap or np.inf), out.flatten(3).numpy()
    if isinstance(pop, ig.IntTemporalAttention):
        loops.temporal_attention(*planes, pop.heads, cap, pop.scrambled, found)
    else:
        loops.spatial_attention(*planes, pop.heads, cap, found)
    return out


def attention_products(pop, q, k, v) -> torch.Tensor:
    """Return the counts as products of whole tensors, on any device."""
    einsum = import_torch().einsum
    q, k, v = (x.flatten(3).unflatten(2, (pop.heads, -1)) for x in (q, k, v))
    if isinstance(pop, ig.IntTemporalAttention):
        state = _capped(einsum("tbhin,tbhjn->bhijn", k, v), pop.cap)
        found = _capped(einsum("tbhin,bhijn->bhtjn", q, state), pop.cap)
        return from_heads(found, pop.scrambled).unflatten(3, pop.shape[1:])
    state = _capped(einsum("tbhim,tbhjm->tbhij", k, v), pop.cap)
    found = _capped(einsum("tbhin,tbhij->tbhjn", q, state), pop.cap)
    return found.flatten(2, 3).unflatten(3, pop.shape[1:])


def _capped(counts: torch.Tensor, cap: int) -> torch.Tensor:
    return counts.clamp(max=cap) if cap else counts
