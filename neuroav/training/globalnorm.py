"""Batch norm over a batch in several processes on CPUs; torch's SyncBatchNorm is for GPUs.

Forward, per channel, over the N values of the whole batch (all samples, steps and places):

    m = sum x / N,   v = sum (x - m)^2 / N,   y = w (x - m) / sqrt(v + eps) + b

Each process takes the mean and the squared distances of its own share in two passes, and the shares
are put together in float64 (Chan, Golub, LeVeque 1983), by one sum over all processes forward and
one backward. With h = (x - m) / sqrt(v + eps) and g the gradient of y:

    g_x = w / sqrt(v + eps) (g - sum g / N - h sum (g h) / N)

A process without a sample takes part with zeros. Names and running statistics are those of
``torch.nn.BatchNorm2d``, so weights are saved and read as without these modules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

Sum = Callable[[torch.Tensor], torch.Tensor]  # over all processes, in place


class GlobalNorm(_BatchNorm):
    """Batch norm whose moments, in training, are those of all processes' shares together.

    forward: (B, C, ...) real, B 0 and more, the same C in every process. In evaluation it is the
    norm of one process.
    """

    def __init__(self, norm: _BatchNorm, total: Sum) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        if not norm.affine or not norm.track_running_stats:
            raise ValueError("only norms with weights and running statistics are trained here")
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self.num_batches_tracked = norm.num_batches_tracked
        self.training, self._total = norm.training, total

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """Take any number of axes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(x)
        with torch.no_grad():
            count, mean, var = moments(x.detach(), self._total)
            self._remember(count, mean, var)
        return _Normed.apply(x, self.weight, self.bias, mean, var, count, self.eps, self._total)

    def _remember(self, count: int, mean: torch.Tensor, var: torch.Tensor) -> None:
        """Move the running statistics towards these, as ``torch.nn.BatchNorm2d`` does."""
        share = self.momentum
        if self.num_batches_tracked is not None:  # None while a part is computed again
            self.num_batches_tracked.add_(1)
            if share is None:
                share = 1.0 / float(self.num_batches_tracked)
        assert self.running_mean is not None
        assert self.running_var is not None
        share = 0.0 if share is None else share
        self.running_mean.mul_(1 - share).add_(mean, alpha=share)
        self.running_var.mul_(1 - share).add_(var, alpha=share * count / max(count - 1, 1))


def moments(x: torch.Tensor, total: Sum) -> tuple[int, torch.Tensor, torch.Tensor]:
    """Return (values per channel, mean, variance) of all shares; x: own share (B, C, ...).

    Mean and variance are float32 (C,), the variance divided by the number of values.
    """
    channels, axes = x.shape[1], [0, *range(2, x.ndim)]
    packed = torch.zeros(2 * channels + 1, dtype=torch.float64)
    if count := x.numel() // channels:
        real = x.float()
        mean = real.mean(axes)
        squares = (real - _along(mean, x.ndim)).square_().sum(axes).double()
        mean = mean.double()
        packed[0] = count
        packed[1 : channels + 1] = count * mean
        packed[channels + 1 :] = squares + count * mean.square()
    packed = total(packed)
    count = int(packed[0])
    mean = packed[1 : channels + 1] / count
    var = (packed[channels + 1 :] / count - mean.square()).clamp_(min=0)
    return count, mean.float(), var.float()


def _along(values: torch.Tensor, axes: int) -> torch.Tensor:
    """Return (C,) so that it broadcasts along axis 1 of ``axes`` axes."""
    return values.reshape(-1, *[1] * (axes - 2))


class _Normed(torch.autograd.Function):
    """y of the equations above, for moments that are given."""

    @staticmethod
    def forward(ctx: Any, x, weight, bias, mean, var, count, eps, total) -> torch.Tensor:
        ctx.save_for_backward(x, weight, mean, var)
        ctx.count, ctx.eps, ctx.total = count, eps, total
        if not x.numel():
            return torch.empty_like(x)
        return functional.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        x, weight, mean, var = ctx.saved_tensors
        if x.numel():  # as in evaluation: torch's own loops give w g / sqrt(v + eps) and both sums
            own, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
                grad, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
            )
        else:
            own = torch.empty_like(x)
            to_weight, to_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        sums = ctx.total(torch.stack((to_weight, to_bias)).double())
        inverse = 1.0 / (var.double() + ctx.eps).sqrt()
        scale = -weight.double() * inverse / ctx.count
        slope = scale * sums[0] * inverse
        offset = scale * sums[1] - slope * mean.double()
        slope, offset = (_along(v.to(x.dtype), x.ndim) for v in (slope, offset))
        to_x = own.addcmul_(x, slope).add_(offset)
        return to_x, to_weight, to_bias, None, None, None, None, None


def with_global_norms(model: nn.Module, total: Sum) -> nn.Module:
    """Replace every batch norm of ``model``, in place, by a ``GlobalNorm``; return the model."""
    found = [(name, m) for name, m in model.named_modules() if isinstance(m, _BatchNorm)]
    for name, norm in found:
        model.set_submodule(name, GlobalNorm(norm, total))
    return model
