"""Synaptic sums of the batched executor: every projection over all steps of a batch, in torch.

Sums are floating-point sums of integers; the caller proves them exact and so their order is free.
On a CPU there are two ways: whole matrix products and convolutions (oneDNN's direct algorithm, no
Winograd or FFT), or, where few messages are not 0, the weights of these alone. On a GPU
convolutions are unrolled matrix products (cuDNN, which may transform, is not asked).
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroav import integer as ig
from neuroav.errors import MissingDependency
from neuroav.sim.real import import_torch
from neuroav.synapses import row_sum

if TYPE_CHECKING:
    import torch

# Nanoseconds of one core, measured (docs/speed.md). They choose the way, never the result.
CHANNEL_NS, LOOK_NS, TURN_NS, START_NS, ADD_NS, PRODUCT_NS = 3.0, 0.5, 0.6, 3.0, 0.14, 0.025
IDLE = 12  # channels: with so many a product takes twice as long


def import_loops() -> Any:
    """Return the compiled loops; MissingDependency without numba."""
    try:
        from neuroav.sim import _loops
    except ModuleNotFoundError as error:
        if error.name != "numba":
            raise
        raise MissingDependency(
            "numba is not installed; the fast executor needs it: pip install 'neuroav[train]' "
            "(or use --backend reference)"
        ) from None
    return _loops


def float32_is_exact() -> bool:
    """Whether torch multiplies float32 as such here; a user may have allowed bfloat16 or TF32."""
    torch = import_torch()
    backend = torch.backends.mkldnn
    parts = (getattr(backend, name, None) for name in ("conv", "matmul"))  # torch >= 2.9 only
    switches = {getattr(part, "fp32_precision", "none") for part in parts}
    return torch.get_float32_matmul_precision() == "highest" and switches <= {"none", "ieee"}


@dataclass(frozen=True, eq=False)
class Messages:
    """What a population sent: value (T, B, *shape) real, largest: the largest magnitude in it."""

    value: torch.Tensor
    largest: int

    @cached_property
    def density(self) -> float:
        """Share of messages that are not 0, estimated from every eighth sample."""
        part = self.value[:, ::8]
        return int(part.count_nonzero()) / part.numel()


class Synapses:
    """One projection: how to apply it, and the largest sum of |weight| any target receives."""

    def __init__(
        self, p: ig.Projection, source: tuple[int, ...], target: tuple[int, ...], device: str
    ) -> None:
        self.projection, self.source, self.target = p, p.source, target
        self.gain = row_sum(p, source)
        self._device = device
        self._kernels: dict[torch.dtype, torch.Tensor] = {}
        self.events = Events.of(p, source, target) if device == "cpu" else None

    def apply(self, messages: Messages, dtype: torch.dtype) -> torch.Tensor:
        """Return the synaptic sums (T, B, *target), as ``dtype``."""
        x = messages.value.to(dtype)
        if self.events and self.events.pay(messages.density):
            return self._late(self.events.apply(x, self.target))
        return self._late(self.whole(x))

    def _late(self, sums: torch.Tensor) -> torch.Tensor:
        """Return the sums in the frames that the projection's lag brings them to."""
        lag = self.projection.lag
        if not lag:
            return sums
        late = sums.new_zeros(sums.shape)
        late[lag:] = sums[: len(sums) - lag] if lag < len(sums) else 0
        return late

    def whole(self, x: torch.Tensor) -> torch.Tensor:
        """Return the synaptic sums of messages (T, B, *source), frame by frame, by one product."""
        p, dtype = self.projection, x.dtype
        if isinstance(p, ig.IntDense):
            return x.flatten(2) @ self._kernel(p, dtype).T
        if isinstance(p, ig.IntIdentity):
            y = x if p.weight == 1 else x * p.weight
            return y.reshape(*x.shape[:2], *self.target)
        if isinstance(p, ig.IntSpatialSum):
            return x.sum(dim=(-2, -1))
        if isinstance(p, ig.IntSpread):
            return x[..., None, None].expand(*x.shape, *p.places)
        if isinstance(p, ig.IntPlace):
            y = x.new_zeros(*x.shape[:2], p.size)
            y[..., p.offset : p.offset + x[0, 0].numel()] = x.flatten(2) * p.weight
            return y
        functional, flat = import_torch().nn.functional, x.flatten(0, 1)
        if isinstance(p, ig.IntPool):
            y = _window_sums(flat, p, self.target[1:])
        else:
            assert isinstance(p, (ig.IntConv2d, ig.IntConvTranspose2d))
            kernel, form = self._kernel(p, dtype), (p.stride, p.padding)
            cudnn = import_torch().backends.cudnn
            with cudnn.flags(enabled=False) if flat.is_cuda else nullcontext():
                if isinstance(p, ig.IntConv2d):
                    y = functional.conv2d(flat, kernel, None, *form, p.dilation, p.groups)
                else:
                    rest = (p.output_padding, p.groups, p.dilation)
                    y = functional.conv_transpose2d(flat, kernel, None, *form, *rest)
        return y.unflatten(0, x.shape[:2])

    def _kernel(
        self, p: ig.IntConv2d | ig.IntConvTranspose2d | ig.IntDense, dtype: torch.dtype
    ) -> torch.Tensor:
        if dtype not in self._kernels:
            weight = import_torch().from_numpy(p.weight.astype(np.float64))
            self._kernels[dtype] = weight.to(self._device, dtype)
        return self._kernels[dtype]


class Events:
    """A projection by its events: weights by source channel, and where each event's sums begin.

    A dense one is a kernel of 1 by 1 on a single place, its inputs being channels.
    """

    def __init__(
        self,
        weight: np.ndarray,
        places: tuple[tuple[int, int], tuple[int, int]],
        padding: tuple[int, int],
    ) -> None:
        ((height, wide), (tall, across)), (width, channels, rows, columns) = places, weight.shape
        turned = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(1, 2, 3, 0))
        self._weight = turned.reshape(channels, rows, columns * width)
        self._row = (wide + columns - 1) * width
        self._size = (height + rows - 1) * self._row
        y, x = np.divmod(np.arange(height * wide), wide)
        self._start = y * self._row + x * width
        y, x = np.divmod(np.arange(tall * across), across)
        top, left = rows - 1 - padding[0], columns - 1 - padding[1]
        self._pick = (y + top) * self._row + (x + left) * width
        self._copies: dict[Any, np.ndarray] = {}
        inputs, outputs = height * wide * channels, tall * across * width
        self._fixed_ns = CHANNEL_NS * channels + LOOK_NS * inputs + TURN_NS * outputs
        self._event_ns = inputs * rows * (START_NS + ADD_NS * columns * width)
        # products over few channels leave most of a vector unit idle
        product_ns = PRODUCT_NS * (1 + IDLE / channels)
        self._whole_ns = product_ns * outputs * channels * rows * columns

    @classmethod
    def of(
        cls, p: ig.Projection, source: tuple[int, ...], target: tuple[int, ...]
    ) -> Events | None:
        """Return the projection's events, None where its kernels do not slide place by place."""
        if isinstance(p, ig.IntDense):
            return cls(p.weight[:, :, None, None], ((1, 1), (1, 1)), (0, 0))
        if not isinstance(p, ig.IntConv2d) or p.groups != 1:
            return None
        top, left = p.padding
        within = top < p.weight.shape[2] and left < p.weight.shape[3]
        if tuple(p.stride) != (1, 1) or tuple(p.dilation) != (1, 1) or not within:
            return None
        return cls(p.weight, (source[1:], target[1:]), (top, left))  # type: ignore[arg-type]

    def pay(self, density: float) -> bool:
        """Whether this is quicker than the whole product, at this share of messages not 0."""
        return self._fixed_ns + density * self._event_ns < self._whole_ns

    def apply(self, x: torch.Tensor, target: tuple[int, ...]) -> torch.Tensor:
        """Return the synaptic sums (T, B, *target) of messages (T, B, *source)."""
        sums = import_torch().empty((*x.shape[:2], *target), dtype=x.dtype)
        messages, *tables = self.arguments(x)
        frames, places = x.shape[0] * x.shape[1], len(self._pick)
        import_loops().scatter(
            messages.reshape(frames, *messages.shape[2:]),
            *tables,
            sums.view(frames, -1, places).numpy(),
        )
        return sums

    def arguments(self, x: torch.Tensor) -> tuple[Any, ...]:
        """Return messages (T, B, channels, inputs) and what else the compiled loops take."""
        if x.dtype not in self._copies:
            real = np.float32 if x.dtype == import_torch().float32 else np.float64
            self._copies[x.dtype] = self._weight.astype(real)
        weight = self._copies[x.dtype]
        messages = x.contiguous().view(*x.shape[:2], len(weight), -1).numpy()
        return messages, weight, self._start, self._pick, self._row, self._size


def _window_sums(x: torch.Tensor, p: ig.IntPool, places: tuple[int, ...]) -> torch.Tensor:
    """Return sums over the windows of (N, C, H, W), along rows and then along columns."""
    (top, left), functional = p.padding, import_torch().nn.functional
    x = functional.pad(x, (left, left, top, top)) if top or left else x
    for axis in (2, 3):
        stride, count = p.stride[axis - 2], places[axis - 2]
        span = (count - 1) * stride + 1
        ways = [x.narrow(axis, i, span) for i in range(p.kernel[axis - 2])]
        parts = [w[:, :, ::stride] if axis == 2 else w[..., ::stride] for w in ways]
        x = sum(parts[1:], parts[0])
    return x
