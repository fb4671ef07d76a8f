"""Projections: bundles of synapses onto a population of the integer graph (``neuroav.integer``)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from neuroav.nodes import LATER, Pair


@dataclass(frozen=True, eq=False)
class Projection:
    """Synapses from ``source``, delivered ``1 + delay`` steps after they are sent.

    port: which input of the population they reach, for those with several. lag: frames by which
    the target sees the source late; a loop needs some.
    """

    source: str
    delay: int
    port: int = field(default=0, kw_only=True)
    lag: int = field(default=0, kw_only=True, metadata={LATER: 3})


@dataclass(frozen=True, eq=False)
class IntConv2d(Projection):
    """Convolution synapses (cross-correlation, zero padded).

    weight: (out, in / groups, rows, columns) int64, already in the form the synapse memory holds.
    sign_mode: 'mixed', 'excitatory' or 'inhibitory'; weight_bits: width they were truncated to.
    """

    weight: np.ndarray
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    weight_bits: int
    sign_mode: str


@dataclass(frozen=True, eq=False)
class IntConvTranspose2d(Projection):
    """Transposed convolution synapses: input place y reaches the outputs y * stride - padding +
    tap * dilation that exist; what a convolution with these kernels sends back.

    weight: (in, out / groups, rows, columns) int64, as the synapse memory holds it; output_padding:
    rows and columns added at the far end. weight_bits, sign_mode: as for ``IntConv2d``.
    """

    weight: np.ndarray
    stride: Pair
    padding: Pair
    output_padding: Pair
    dilation: Pair
    groups: int
    weight_bits: int
    sign_mode: str


@dataclass(frozen=True, eq=False)
class IntDense(Projection):
    """All-to-all synapses on the source's neurons in C order; weight: (out, in) int64."""

    weight: np.ndarray
    weight_bits: int
    sign_mode: str


@dataclass(frozen=True, eq=False)
class IntIdentity(Projection):
    """One synapse per neuron, to the neuron of the same number, all with the same weight.

    The target may have other axes, of as many neurons.
    """

    weight: int


@dataclass(frozen=True, eq=False)
class IntPool(Projection):
    """Unit synapses from the neurons of a window, channel by channel."""

    kernel: Pair
    stride: Pair
    padding: Pair


@dataclass(frozen=True, eq=False)
class IntSpatialSum(Projection):
    """Unit synapses from all neurons of a channel to one neuron: (C, H, W) -> (C,)."""


@dataclass(frozen=True, eq=False)
class IntSpread(Projection):
    """Unit synapses from one neuron to all neurons of its channel: (C,) -> (C, *places)."""

    places: Pair


@dataclass(frozen=True, eq=False)
class IntPlace(Projection):
    """One synapse per neuron, all with the same weight, from neuron i to neuron i + offset of
    ``size``: one part of a concatenation."""

    weight: int
    offset: int
    size: int


PROJECTION_CLASSES = (
    IntConv2d,
    IntConvTranspose2d,
    IntDense,
    IntIdentity,
    IntPool,
    IntSpatialSum,
    IntSpread,
    IntPlace,
)
