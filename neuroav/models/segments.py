"""Parts of a network whose inner tensors are computed again in the backward pass, not kept.

Activation checkpointing (Chen et al., arXiv 1604.06174) by ``torch.utils.checkpoint``: what is
kept of a part is its input. Batch norms keep their running statistics of the first time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


class Segmented(nn.Module):
    """A module that runs its parts by ``part``. recompute: compute them twice, keep less."""

    recompute = False

    def part(self, function: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
        """Return function(*inputs), with the same gradients whether recomputed or not.

        function uses no modules but those of this one, and no random numbers.
        """
        if not (self.recompute and self.training and torch.is_grad_enabled()):
            return function(*inputs)

        def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
            return nullcontext(), frozen_statistics(self)

        return checkpoint(
            function, *inputs, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
        )


def set_recompute(model: nn.Module, recompute: bool = True) -> nn.Module:
    """Return ``model``, whose parts are computed again in the backward pass from now on."""
    for module in model.modules():
        if isinstance(module, Segmented):
            module.recompute = recompute
    return model


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let batch norms work as in training, with running statistics that stay as they are."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    before = [(m.momentum, m.num_batches_tracked) for m in norms]
    for norm in norms:  # not track_running_stats: torch wants as many tensors kept both times
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
