"""Real-valued nodes: what a traced and lowered spiking network is made of.

Nodes are frozen data and never compute; ``neuroav.sim.real`` says what they mean. Shapes are per
time step and per sample, axes (channel, row, column) or (feature,). Arrays are float64 unless said
otherwise. A node checks its own parameters; ``neuroav.stages`` checks how nodes fit together.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from neuroav.errors import StageError

Pair = tuple[int, int]
# Marks fields that the first version of FILE.nav lacks, with the first version that has them; not
# written at default.
LATER = "later"


def _need(condition: bool, node: object, message: str, rule: str = "") -> None:
    if not condition:
        raise StageError(f"{type(node).__name__}: {message}", rule=rule)


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


def _peak(node: TimeSum | Product | Li) -> None:
    value = node.peak
    fits = value is None or (isinstance(value, float) and 0 <= value < float("inf"))
    _need(fits, node, f"peak is {value!r}, must be a finite number from 0")


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
        _need(self.weight.ndim == 4, self, f"weight has {self.weight.ndim} axes, needs 4")
        _need(
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
        _need(self.weight.ndim == 2, self, f"weight has {self.weight.ndim} axes, needs 2")
        _need(
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
        _need(
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
        _need(self.weight.ndim == 4, self, f"weight has {self.weight.ndim} axes, needs 4")
        out = self.weight.shape[1] * self.groups
        _need(self.bias is None or self.bias.shape == (out,), self, "bias must be (out,)")
        _finite(self)


Number = float | np.ndarray  # one for all neurons, or float64 that broadcasts to their shape


@dataclass(frozen=True, eq=False)
class Lif:
    """Leaky integrate-and-fire (Norse ``LIFBox``), with synaptic current where tau_syn_s is given.

    i' = i - (dt / tau_syn) i + x     (i' = x without tau_syn_s)
    v' = v + (dt / tau_mem) * ((v_leak - v) + i');  spike = v' > v_threshold
    v = v_reset where it spiked, else v'.   dt is the graph's ``dt_s``. i is not reset.

    tau_mem_s, tau_syn_s: time constants in seconds. Others in units of the membrane variable. All
    four of one value or one per neuron. inclusive: v_threshold is the largest float32 below the
    level at which the neuron spikes. reset: 'value', or 'subtract' for v' - v_threshold in place of
    v_reset.
    """

    tau_mem_s: Number
    v_threshold: Number = 1.0
    v_reset: Number = 0.0
    v_leak: Number = 0.0
    inclusive: bool = False
    tau_syn_s: Number | None = field(default=None, metadata={LATER: 3})
    reset: str = field(default="value", metadata={LATER: 3})

    def __post_init__(self) -> None:
        values = (self.tau_mem_s, self.v_threshold, self.v_reset, self.v_leak)
        _neuron(self, (*values, 1.0 if self.tau_syn_s is None else self.tau_syn_s))
        for what in ("tau_mem_s", "tau_syn_s"):
            value = getattr(self, what)
            positive = value is None or bool(np.all(np.asarray(value) > 0))
            _need(positive, self, f"{what} is {value}, must be positive", "time-constant")


@dataclass(frozen=True, eq=False)
class If:
    """Integrate-and-fire without leak: v' = v + x; spike = v' > v_threshold, then the reset.

    v_threshold, v_reset: one value or one per neuron; reset: as for ``Lif``, rest being 0.
    inclusive: as for ``Lif``.
    """

    v_threshold: Number = 1.0
    v_reset: Number = 0.0
    inclusive: bool = False
    reset: str = "value"

    def __post_init__(self) -> None:
        _neuron(self, (self.v_threshold, self.v_reset))


def _neuron(node: Lif | If, values: tuple[Number, ...]) -> None:
    finite = all(bool(np.isfinite(v).all()) for v in values)
    _need(finite, node, f"parameters must be finite, found {values}", "not-finite")
    known = node.reset in ("value", "subtract")
    _need(known, node, f"reset is {node.reset!r}, must be 'value' or 'subtract'", "reset")


@dataclass(frozen=True, eq=False)
class Delay:
    """What came ``steps`` steps ago, 0 in the first ones of a sample. A loop closes here."""

    steps: int

    def __post_init__(self) -> None:
        whole = type(self.steps) is int and self.steps >= 1
        _need(whole, self, f"steps is {self.steps!r}, must be a whole number from 1", "delay")


@dataclass(frozen=True, eq=False)
class Reshape:
    """The same values in C order on other axes: ``shape``."""

    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Permute:
    """Axes of (C, H, W) in another order: axis i of the result is ``axes[i]`` of the input."""

    axes: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class SumPool2d:
    """Sum over windows, zero padded."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)


@dataclass(frozen=True, eq=False)
class AvgPool2d(SumPool2d):
    """Mean over windows; padded places count as 0."""


@dataclass(frozen=True, eq=False)
class MaxPool2d:
    """Maximum over windows; padding never wins."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)


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
        _need(
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
        _need(
            self.weight.ndim == 2 and self.bias.shape == (self.weight.shape[0],),
            self,
            "weight must be (classes, in) and bias (classes,)",
        )
        _finite(self)


@dataclass(frozen=True, eq=False)
class Li:
    """Leaky membrane without threshold: ``Lif``'s v' at every step. Parameters as there.

    peak: largest |(v - v_leak) tau_mem / dt|, or sum of those over the steps so far, seen on the
    compiler's sample; it decides how fine the registers count. None where it was not measured.
    """

    tau_mem_s: float
    v_leak: float = 0.0
    tau_syn_s: float | None = None
    peak: float | None = None

    def __post_init__(self) -> None:
        _peak(self)
        for what in ("tau_mem_s", "tau_syn_s"):
            value = getattr(self, what)
            fits = value is None or (bool(np.isfinite(value)) and value > 0)
            _need(fits, self, f"{what} is {value}, must be positive and finite", "time-constant")


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
        _peak(self)
        if self.weights is None:
            return
        vector = isinstance(self.weights, np.ndarray) and self.weights.ndim == 1
        _need(vector and self.weights.dtype.kind == "f", self, "weights must be (steps,) numbers")
        _finite(self)
        _need(bool(self.weights.any()), self, "weights are all 0: no step counts")


@dataclass(frozen=True, eq=False)
class Product:
    """Product of two values of one shape, element by element, or of a value per channel (C,) and
    one per place (C, H, W). peak: as for TimeSum."""

    peak: float | None = field(default=None, metadata={LATER: 2})

    def __post_init__(self) -> None:
        _peak(self)


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
