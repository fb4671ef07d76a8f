"""Projections as Lava's Sparse: matrices of synapses in Lava's order of neurons."""

from __future__ import annotations

import numpy as np
from lava.proc.sparse.process import Sparse
from lava.utils.weightutils import SignMode
from scipy.sparse import csr_matrix, identity, kron

from neuroav import integer as ig
from neuroav.sim.lava.layout import inner
from neuroav.sim.sanafe.unroll import unroll

GRADED = 24  # any number above 0 makes a connection pass whole integers; 0 would cast to bool


def unrolled(p: ig.Projection, source: ig.Shape, target: ig.Shape) -> csr_matrix:
    """Return a projection's synapses, (target, source) in Lava's order of neurons."""
    found = unroll(p, source, target)
    rows, columns = (
        np.argsort(inner(np.arange(int(np.prod(s))).reshape(s), len(s)).reshape(-1))[numbers]
        for s, numbers in ((target, found.target), (source, found.source))
    )
    size = (int(np.prod(target)), int(np.prod(source)))
    return csr_matrix((found.weight.astype(np.int32), (rows, columns)), shape=size)


def channel_of_place(source: ig.Shape, places: tuple[int, ...]) -> csr_matrix:
    """Return unit weights from the first axis of ``source`` to every one of ``places``."""
    channels = np.tile(np.arange(source[0]), places[0] * places[1])
    rows = np.arange(len(channels))
    return csr_matrix(
        (np.ones(len(rows), np.int32), (rows, channels)), shape=(len(rows), source[0])
    )


def places(p: ig.IntPlace, source: ig.Shape) -> csr_matrix:
    """Return one weight per source neuron, to the neuron ``offset`` further on."""
    count = int(np.prod(source))
    order = np.arange(count).reshape(source)  # our numbers of the neurons, in Lava's order
    rows = p.offset + np.ascontiguousarray(inner(order, len(source))).reshape(-1)
    return csr_matrix(
        (np.full(count, p.weight, np.int32), (rows, np.arange(count))), shape=(p.size, count)
    )


def sparse(
    name: str, weights: csr_matrix, copies: int = 1, bits: int = 8, mode: str = ""
) -> Sparse:
    """Return the process of synapses, for every copy of the network.

    mode: sign mode of weights; without it they are all the same number, and Lava stores odd ones
    only if all have the same sign.
    """
    if mode:
        sign = SignMode[mode.upper()]
    else:
        weight = int(weights.data[0])
        sign = SignMode.EXCITATORY if weight > 0 else SignMode.INHIBITORY
        if weight == -256:  # an inhibitory synapse ends at -255
            sign = SignMode.MIXED
    return Sparse(
        weights=kron(identity(copies, dtype=np.int32), weights, format="csr"),
        name=name,
        num_message_bits=GRADED,
        num_weight_bits=int(bits),
        sign_mode=sign,
    )
