"""The integer graph: populations of neurons and the synapses between them.

This is what is deployed. A *population* is a node: neurons of one kind with an output (its spikes
or graded messages). A *projection* is one bundle of synapses from a source population. Everything
is an integer; shapes are per step and sample, axes (channel, row, column) or (feature,), neurons
numbered in C order.

Time: a projection takes one step, as on the chip and in Lava, so every population has a latency
(the number of projections on its longest path from an input). Where a source is closer to the input
than that path, its projection carries ``delay`` extra steps, so that all inputs of a neuron belong
to the same frame. A population's *own time frame* is time with its latency removed: frame t of
every population is the answer to frame t of the input. A population that *holds* answers with
frame 0 only when it has seen the last frame of the sample: its latency is longer by a sample.

Lag: what a projection brings belongs to the same frame unless it has a ``lag``: then frame t of the
source reaches frame t + lag of the target, and nothing reaches the target's first frames. Such
projections may close loops. Nothing crosses from one sample to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np

from neuroav.errors import StageError
from neuroav.graph import execution_groups, topological_order
from neuroav.nodes import LATER
from neuroav.projections import (
    PROJECTION_CLASSES,
    IntConv2d,
    IntConvTranspose2d,
    IntDense,
    IntIdentity,
    IntPlace,
    IntPool,
    IntSpatialSum,
    IntSpread,
    Projection,
)

__all__ = [  # with the projections, so that ``integer`` names all there is
    "ATTENTION_CLASSES",
    "FORMS",
    "POPULATION_CLASSES",
    "PRODUCT_BITS",
    "PROJECTION_CLASSES",
    "RESETS",
    "SHIFT_MAX",
    "SPIKING_CLASSES",
    "STEP_WEIGHT_MAX",
    "IntAnd",
    "IntConv2d",
    "IntConvTranspose2d",
    "IntDense",
    "IntGraph",
    "IntHostCurrent",
    "IntIdentity",
    "IntInput",
    "IntLif",
    "IntOr",
    "IntPlace",
    "IntPool",
    "IntProduct",
    "IntReadout",
    "IntSpatialAttention",
    "IntSpatialSum",
    "IntSpread",
    "IntSum",
    "IntTemporalAttention",
    "IntTimeSum",
    "IntWinner",
    "Population",
    "Projection",
    "Shape",
    "conv_windows",
    "shifted",
    "transposed_size",
]

Shape = tuple[int, ...]
PRODUCT_BITS = 31  # magnitude of a product before its shift: Lava multiplies in int32
STEP_WEIGHT_MAX = 255  # of a frame in a sum over a sample: as wide as a synapse
SHIFT_MAX = 31  # of what is rounded down into a message


# --- populations -----------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Population:
    """Neurons of one kind. ``a`` below is the sum over all projections of weight * message, and
    a0, a1, ... the sums at the ports of a population with several.

    ports: number of inputs. holds: whether it answers a sample only when it is complete.
    """

    shape: Shape
    projections: tuple[Projection, ...]
    ports: ClassVar[int] = 1
    holds: ClassVar[bool] = False

    @property
    def neurons(self) -> int:
        """Messages it can send per step."""
        return int(np.prod(self.shape))

    def state_neurons(self, steps: int) -> int:
        """Neurons on the chip; ``steps``: frames per sample."""
        return self.neurons


@dataclass(frozen=True, eq=False)
class IntInput(Population):
    """The sensor's event counts, 0..max_count; no synapses, no arithmetic."""

    max_count: int


@dataclass(frozen=True, eq=False)
class IntHostCurrent(IntInput):
    """Synaptic input of neurons, 0..max_count, that the host writes into their biases once per
    sample: the same in every frame, no messages."""


@dataclass(frozen=True, eq=False)
class IntLif(Population):
    """Leaky integrate-and-fire neurons; equation in ``fixed.lif_step``. State is 0 at frame 0.

    bias_mantissa: int64, broadcasts to ``shape``; the bias is mantissa << bias_exponent.
    threshold: int64, broadcasts to ``shape``; compared as v > threshold << 6. decay_u, decay_v: one
    number, or int64 that broadcasts to ``shape``. reset: a spike sets v to 0 ('zero') or takes
    threshold << 6 off ('subtract'). Without projections they are driven by their bias alone.
    """

    bias_mantissa: np.ndarray
    bias_exponent: int
    threshold: np.ndarray
    decay_u: int | np.ndarray
    decay_v: int | np.ndarray
    reset: str = field(default="zero", metadata={LATER: 3})


@dataclass(frozen=True, eq=False)
class IntOr(Population):
    """Memoryless neurons that spike when any message arrives: s = a > 0."""


@dataclass(frozen=True, eq=False)
class IntSum(Population):
    """Memoryless graded relays: the message is a itself (a signed integer, 0 sends nothing)."""


@dataclass(frozen=True, eq=False)
class IntReadout(Population):
    """Accumulators without threshold, 0 at frame 0: v' = v + a + bias; the message is v'.

    The class scores of a sample are the values of its last frame. bias: int64, broadcasts to
    ``shape``. Leaky ones, of one decay each, compute

    u' = truncate(u (2^12 - (decay_u + 1)), 12) + (a << input_shift) + bias
    v' = truncate(v (2^12 - decay_v), 12) + u'

    decay_u: None where u is not kept, as 4095 would say. bias is not shifted.
    """

    bias: np.ndarray
    decay_u: int | None = field(default=None, metadata={LATER: 3})
    decay_v: int = field(default=0, metadata={LATER: 3})
    input_shift: int = field(default=0, metadata={LATER: 3})

    @property
    def leaky(self) -> bool:
        """Whether it forgets or shifts anything; False for a plain sum."""
        return bool(self.decay_v or self.input_shift or self.decay_u is not None)


@dataclass(frozen=True, eq=False)
class IntAnd(Population):
    """Memoryless neurons that spike when two unit messages arrive: s = a > 1."""


@dataclass(frozen=True, eq=False)
class IntProduct(Population):
    """Memoryless graded neurons: the message is (a0 * a1) >> shift, rounded down (-1 >> 1 is -1).

    shift: bits of the product that the message drops. The product fits ``PRODUCT_BITS``.
    """

    shift: int = field(default=0, metadata={LATER: 2})
    ports: ClassVar[int] = 2


@dataclass(frozen=True, eq=False)
class IntTimeSum(Population):
    """Accumulators over a sample: the message of every frame is

    (sum over frames t of weights[t] * a[t]) >> shift, rounded down (-1 >> 1 is -1).

    weights: one per frame of a sample, magnitude up to ``STEP_WEIGHT_MAX``; empty for ones. shift:
    bits of the sum that the message drops. The whole sum fits the register of a message.
    """

    weights: tuple[int, ...] = field(default=(), metadata={LATER: 2})
    shift: int = field(default=0, metadata={LATER: 2})
    holds: ClassVar[bool] = True

    def step_weights(self, steps: int) -> np.ndarray:
        """Return the weight of every frame of a sample, int64 (steps,)."""
        return np.array(self.weights or (1,) * steps, np.int64)


@dataclass(frozen=True, eq=False)
class IntWinner(Population):
    """Memoryless neurons of which one spikes in every frame: the one with the largest a, the first
    in C order among equals."""


@dataclass(frozen=True, eq=False)
class _Attention(Population):
    """Linear attention by binary queries a0, keys a1 and values a2, channels (head, i) in C order.

    heads: number of heads; cap: counts saturate here, 0 for no cap. A cap changes no spike where
    the only reader is a neuron that starts at 0, gets nothing else, spikes at this count and is
    reset: any larger count spikes too. form: what the chip keeps, 'key-value' sums or 'score'
    counts, whichever needs fewer neurons; the messages are the same.
    """

    heads: int
    cap: int
    form: Literal["key-value", "score"]
    ports: ClassVar[int] = 3

    @property
    def tokens(self) -> int:
        return int(np.prod(self.shape[1:]))

    @property
    def head_channels(self) -> int:
        return self.shape[0] // self.heads

    def summed(self, steps: int) -> int:
        """Return how many places a sum runs over: the frames of a sample, or the tokens."""
        return steps if self.holds else self.tokens

    def fan(self, steps: int) -> int:
        """Return how many synapses of the state a spike of q, k or v meets.

        Key-value sums: k and v each reach the d sums of their channel, q lets d of them through
        (d = channels per head). Score counts: every spike meets all places.
        """
        return self.head_channels if self.form == "key-value" else self.summed(steps)

    def reach(self, steps: int) -> int:
        """Return how many neurons a state neuron sends its count to."""
        return self.summed(steps) if self.form == "key-value" else self.head_channels


@dataclass(frozen=True, eq=False)
class IntSpatialAttention(_Attention):
    """Over the tokens of a frame: the message of neuron (head, j) at token n is

    c[n, j] = min(cap, sum_i q[n, i] min(cap, sum_m k[m, i] v[m, j])).
    """

    def state_neurons(self, steps: int) -> int:
        if self.form == "key-value":
            return self.shape[0] * self.head_channels
        return self.heads * self.tokens**2


@dataclass(frozen=True, eq=False)
class IntTemporalAttention(_Attention):
    """Over the frames of a token: the message of neuron (head, j) in frame t is

    c[t, j] = min(cap, sum_i q[t, i] min(cap, sum_u k[u, i] v[u, j])).

    scrambled: the counts (head, t, j) of a token, numbered in C order, are read as (t, channel).
    """

    scrambled: bool
    holds: ClassVar[bool] = True

    def state_neurons(self, steps: int) -> int:
        if self.form == "key-value":
            return self.shape[0] * self.head_channels * self.tokens
        return self.heads * self.tokens * steps**2


RESETS = ("zero", "subtract")
FORMS: tuple[Literal["key-value", "score"], ...] = ("key-value", "score")
POPULATION_CLASSES = (
    IntInput,
    IntHostCurrent,
    IntLif,
    IntOr,
    IntSum,
    IntReadout,
    IntAnd,
    IntProduct,
    IntTimeSum,
    IntWinner,
    IntSpatialAttention,
    IntTemporalAttention,
)
SPIKING_CLASSES = (IntLif, IntOr, IntAnd, IntWinner)  # binary output
ATTENTION_CLASSES = (IntSpatialAttention, IntTemporalAttention)


@dataclass(frozen=True, eq=False)
class IntGraph:
    """The deployed network.

    populations: by name. output: name of the IntReadout. steps: frames per sample.
    dt_s: length of a frame in seconds (of the recording, not of the chip).
    scales: for every population the (numerator, denominator) of the real value of integer 1.
    """

    populations: Mapping[str, Population]
    output: str
    steps: int
    dt_s: float
    scales: Mapping[str, tuple[int, int]]

    def __post_init__(self) -> None:
        for table in ("populations", "scales"):
            object.__setattr__(self, table, MappingProxyType(dict(getattr(self, table))))

    @cached_property
    def _sources(self) -> dict[str, tuple[str, ...]]:
        return {n: tuple(p.source for p in pop.projections) for n, pop in self.populations.items()}

    @cached_property
    def _late(self) -> frozenset[tuple[str, str]]:
        """(population, source) pairs between which every projection has a lag."""
        prompt = {
            (n, p.source) for n, q in self.populations.items() for p in q.projections if not p.lag
        }
        every = {(n, p.source) for n, q in self.populations.items() for p in q.projections}
        return frozenset(every - prompt)

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Names in execution order: sources first, ties alphabetical; lags close loops."""
        return topological_order(self._sources, self._late)

    @cached_property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Names in execution order, those of one loop together (``graph.execution_groups``)."""
        return execution_groups(self._sources, self._late)

    def loops(self, group: tuple[str, ...]) -> bool:
        """Whether the populations of a group must be run frame by frame."""
        return len(group) > 1 or group[0] in self._sources[group[0]]

    @property
    def inputs(self) -> dict[str, IntInput]:
        return {n: p for n in self.order if isinstance(p := self.populations[n], IntInput)}

    @cached_property
    def latency(self) -> dict[str, int]:
        """Steps from the input: 1 + the largest of a population's sources', 0 for inputs; a
        sample more where it holds. A lag gives its projection as many steps more time.

        StageError for a loop of more projections than frames of lag.
        """
        steps = dict.fromkeys(self.order, 0)
        for _ in range(len(steps) + 1):
            before = dict(steps)
            for name in self.order:
                pop = self.populations[name]
                if pop.projections:
                    arrival = max(1 + steps[p.source] - p.lag for p in pop.projections)
                    steps[name] = max(1, arrival) + self.held(name)
            if steps == before:
                return steps
        grown = sorted(n for n, found in steps.items() if found != before[n])
        raise StageError(
            f"the loop through {', '.join(grown[:4])} has more projections than frames of lag; "
            "every projection takes a step, so what is fed back needs one frame of lag for each"
        )

    def held(self, name: str) -> int:
        """Steps between the arrival of a frame and the message that answers it."""
        return self.steps if self.populations[name].holds else 0

    def aligned_delay(self, target: str, source: str, lag: int = 0) -> int:
        """Return the extra delay that makes ``source`` arrive ``lag`` frames after its own."""
        return self.latency[target] - self.held(target) - 1 - self.latency[source] + lag


def shifted(largest: int, shift: int) -> int:
    """Return the largest magnitude of x >> shift where |x| is at most ``largest``."""
    return -(-largest >> shift)


def transposed_size(
    size: int, kernel: int, stride: int, padding: int, dilation: int, extra: int
) -> int:
    """Return how many places a transposed convolution gives along one axis."""
    return (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1


def conv_windows(size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Return how many windows fit along one axis."""
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
