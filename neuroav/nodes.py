"""Real-valued nodes: what a traced and lowered spiking network is made of.

Nodes are frozen data and never compute; ``neuroav.sim.real`` says what they mean. Shapes are per
time step and per sample, axes (channel, row, column) or (feature,). Arrays are float64 unless said
otherwise. A node checks its own parameters; ``neuroav.stages`` checks how nodes fit together.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from neuroav.errors import StageError
from neuroav.neuron_nodes import LATER, Delay, If, Li, Lif, Pair, check_peak, need
from neuroav.neuron_nodes import Number as Number  # ``nodes`` names all there is


def _finite(node: object) -> None:
    for part in fields(node):  # type: ignore[arg-type]
        value = getattr(node, part.name)
        if isinstance(value, np.ndarray) and not np.isfinite(value).all():
            count = int((~np.isfinite(value)).sum())
            raise StageError(
                f"{type(node).__name__}.{part.name}: {count} of {value.size} values are NaN or "
                "infinite; allowed are finite numbers; train or load the network again",
                rule="not-finite",
            )


@dataclass(frozen=True, eq=False)
class Input:
    """Event counts that enter the network: non-negative integers of ``shape``, at most
    ``max_count`` each. static: real values instead, the same in every step of a sample."""

    shape: tuple[int, ...]
    max_count: int = 255
    static: bool = False


@dataclass(frozen=True, eq=False)
class Conv2d:
    """Cross-correlation y[o] = sum_i weight[o, i] * x[i] + bias[o], zero padded.

    weight: (out, in / groups, rows, columns); bias: (out,) or None. least_unit: smallest real
    input that an integer weight may stand for, (out,), None for any.
    """

    weight: np.ndarray
    bias: np.ndarray | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    least_unit: np.ndarray | None = None

    def __post_init__(self) -> None:
        need(self.weight.ndim == 4, self, f"weight has {self.weight.ndim} axes, needs 4")
        need(
            self.bias is None or self.bias.shape == (self.weight.shape[0],),
            self,
            "bias must be (out,)",
        )
        _finite(self)


@dataclass(frozen=True, eq=False)
class Dense:
    """Affine map y = weight @ flatten(x) + bias; weight: (out, in), bias: (out,) or None.

    least_unit: as for Conv2d.
    """

    weight: np.ndarray
    bias: np.ndarray | None = None
    least_unit: np.ndarray | None = None

    def __post_init__(self) -> None:
        need(self.weight.ndim == 2, self, f"weight has {self.weight.ndim} axes, needs 2")
        need(
            self.bias is None or self.bias.shape == (self.weight.shape[0],),
            self,
            "bias must be (out,)",
        )
        _finite(self)


@dataclass(frozen=True, eq=False)
class BatchNorm:
    """Evaluation-mode batch norm as an affine map per channel: y = scale * x + shift, both (C,)."""

    scale: np.ndarray
    shift: np.ndarray

    def __post_init__(self) -> None:
        need(
            self.scale.shape == self.shift.shape and self.scale.ndim == 1,
            self,
            "scale and shift must both be (channels,)",
        )
        _finite(self)


@dataclass(frozen=True, eq=False)
class ConvTranspose2d:
    """Transposed cross-correlation, as ``torch.nn.ConvTranspose2d``.

    weight: (in, out / groups, rows, columns); bias: (out,) or None. output_padding: rows and
    columns added at the far end. least_unit: as for Conv2d, (out,).
    """

    weight: np.ndarray
    bias: np.ndarray | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    output_padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    least_unit: np.ndarray | None = None

    def __post_init__(self) -> None:
        need(self.weight.ndim == 4, self, f"weight has {self.weight.ndim} axes, needs 4")
        out = self.weight.shape[1] * self.groups
        need(self.bias is None or self.bias.shape == (out,), self, "bias must be (out,)")
        _finite(self)


@dataclass(frozen=True, eq=False)
class Reshape:
    """The same values in C order on other axes: ``shape``."""

    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Permute:
    """Axes of (C, H, W) in another order: axis i of the result is ``axes[i]`` of the input."""

    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class _Pool2d:
    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)


@dataclass(frozen=True, eq=False)
class SumPool2d(_Pool2d):
    """Sum over windows, zero padded."""


@dataclass(frozen=True, eq=False)
class AvgPool2d(SumPool2d):
    """Mean over windows; padded places count as 0."""


@dataclass(frozen=True, eq=False)
class MaxPool2d(_Pool2d):
    """Maximum over windows; padding never wins."""


@dataclass(frozen=True, eq=False)
class OrPool2d(MaxPool2d):
    """Maximum over windows of binary spikes, hence a logical OR."""


@dataclass(frozen=True, eq=False)
class Add:
    """Sum of all inputs, element by element."""


@dataclass(frozen=True, eq=False)
class Scale:
    """Product with one constant: y = factor * x."""

    factor: float

    def __post_init__(self) -> None:
        need(
            bool(np.isfinite(self.factor)) and self.factor > 0,
            self,
            f"factor is {self.factor}, must be positive and finite",
            "gain",
        )


@dataclass(frozen=True, eq=False)
class SpatialMean:
    """Mean over rows and columns: (C, H, W) -> (C,)."""


@dataclass(frozen=True, eq=False)
class SpatialSum:
    """Sum over rows and columns: (C, H, W) -> (C,)."""


@dataclass(frozen=True, eq=False)
class Flatten:
    """Reshape to one axis in C order."""


@dataclass(frozen=True, eq=False)
class TimeMean:
    """Mean over the time steps of a sample."""


@dataclass(frozen=True, eq=False)
class Readout:
    """Class scores: y = (1 / T) * sum_t (weight @ x[t] + bias); weight (classes, in).

    With tau_mem_s they are what a leaky membrane without threshold holds after the last step:
    i' = i - (dt / tau_syn) i + weight @ x[t] + bias  (without i where tau_syn_s is None)
    v' = v + (dt / tau_mem) * ((v_leak - v) + i'). least_unit: as for Conv2d, (classes,).
    """

    weight: np.ndarray
    bias: np.ndarray
    least_unit: np.ndarray | None = field(default=None, metadata={LATER: 2})
    tau_mem_s: float | None = field(default=None, metadata={LATER: 3})
    tau_syn_s: float | None = field(default=None, metadata={LATER: 3})
    v_leak: float = field(default=0.0, metadata={LATER: 3})

    def __post_init__(self) -> None:
        need(
            self.weight.ndim == 2 and self.bias.shape == (self.weight.shape[0],),
            self,
            "weight must be (classes, in) and bias (classes,)",
        )
        _finite(self)


@dataclass(frozen=True, eq=False)
class TimeLast:
    """The value after the last step of a sample."""


@dataclass(frozen=True, eq=False)
class Concat:
    """All inputs, one after the other along the first axis."""


@dataclass(frozen=True, eq=False)
class HeadSum:
    """Sum over the channels of each head: (C, H, W) -> (heads, H, W)."""

    heads: int


@dataclass(frozen=True, eq=False)
class Mask:
    """Product of a binary mask (heads, H, W) with binary channels (C, H, W), head by head."""


@dataclass(frozen=True, eq=False)
class SpatialAttention:
    """y = scale * q (k^T v) over the places of a step, per head; inputs q, k, v (C, H, W)."""

    heads: int
    scale: float


@dataclass(frozen=True, eq=False)
class TemporalAttention:
    """y = scale * q (k^T v) over the steps of a place, per head; inputs q, k, v (C, H, W).

    scrambled: the result (heads, T, C / heads) of a place is read as (T, C) as it lies.
    """

    heads: int
    scale: float
    scrambled: bool


@dataclass(frozen=True, eq=False)
class MeanProduct:
    """Mean of the first input over places times mean of the second over steps: (C, H, W)."""


@dataclass(frozen=True, eq=False)
class TimeSum:
    """Sum over the steps of a sample, at every step: y = sum_t weights[t] * x[t].

    weights: (steps,), None for ones. peak: largest |y| seen on the compiler's sample, which decides
    how many bits a message drops; None where it was not measured and nothing is dropped.
    """

    weights: np.ndarray | None = field(default=None, metadata={LATER: 2})
    peak: float | None = field(default=None, metadata={LATER: 2})

    def __post_init__(self) -> None:
        check_peak(self)
        if self.weights is None:
            return
        vector = isinstance(self.weights, np.ndarray) and self.weights.ndim == 1
        need(vector and self.weights.dtype.kind == "f", self, "weights must be (steps,) numbers")
        _finite(self)
        need(bool(self.weights.any()), self, "weights are all 0: no step counts")


@dataclass(frozen=True, eq=False)
class Product:
    """Product of two values of one shape, element by element, or of a value per channel (C,) and
    one per place (C, H, W). peak: as for TimeSum."""

    peak: float | None = field(default=None, metadata={LATER: 2})

    def __post_init__(self) -> None:
        check_peak(self)


NODE_CLASSES: tuple[type, ...] = (
    Input,
    Conv2d,
    ConvTranspose2d,
    Dense,
    BatchNorm,
    Lif,
    If,
    Li,
    Delay,
    Reshape,
    Permute,
    MaxPool2d,
    OrPool2d,
    SumPool2d,
    AvgPool2d,
    Add,
    Scale,
    SpatialMean,
    SpatialSum,
    Flatten,
    TimeMean,
    TimeLast,
    Readout,
    Concat,
    HeadSum,
    Mask,
    SpatialAttention,
    TemporalAttention,
    MeanProduct,
    TimeSum,
    Product,
)
Node = (
    Input
    | Conv2d
    | ConvTranspose2d
    | Dense
    | BatchNorm
    | Lif
    | If
    | Li
    | Delay
    | Reshape
    | Permute
    | MaxPool2d
    | SumPool2d
    | Add
    | Scale
    | SpatialMean
    | SpatialSum
    | Flatten
    | TimeMean
    | TimeLast
    | Readout
    | Concat
    | HeadSum
    | Mask
    | SpatialAttention
    | TemporalAttention
    | MeanProduct
    | TimeSum
    | Product
)
