"""How much arithmetic one sample takes in a real-valued zero-shot network, counted while it runs.

A layer whose input is spikes adds the weights of those that fired (synaptic operations); any other
layer multiplies and adds (MACs). Counted are linear layers, Tucker cores and softmax attention;
norms, activations and the distances to classes are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from neuroav.models.layers import Lif
from neuroav.models.zeroshot.fusion import Fusion
from neuroav.models.zeroshot.parts import Attention


@dataclass
class Operations:
    """Totals so far. spikes: of all LIF layers."""

    macs: float = 0.0
    synops: float = 0.0
    spikes: float = 0.0

    def linear(self, module: nn.Linear, args, output: torch.Tensor) -> None:
        """Count a linear layer: one weight per spike and output, or all of them."""
        x = args[0]
        if bool(((x == 0) | (x == 1)).all()) and bool((x == 1).any()):
            self.synops += float(x.sum()) * module.out_features
        else:
            self.macs += output.numel() * module.in_features

    def core(self, module: Fusion, args, output: torch.Tensor) -> None:
        """Count a fusion's core; its linear layers count themselves."""
        rank = module.out.in_features
        each = rank**2 + rank**3 if module.kind == "tucker" else rank
        self.macs += len(args[0]) * each

    def attention(self, module: Attention, args, output: torch.Tensor) -> None:
        """Count scores and weighted sums of a softmax attention."""
        batch, tokens, _ = args[0].shape
        self.macs += 2 * batch * tokens**2 * (module.qkv.out_features // 3)

    def neurons(self, module: Lif, args, output: torch.Tensor) -> None:
        """Count spikes."""
        self.spikes += float(output.sum())


@contextmanager
def counted(model: nn.Module) -> Iterator[Operations]:
    """Give the Operations of everything that ``model`` computes inside the context."""
    found = Operations()
    hooks: dict[type, Any] = {
        nn.Linear: found.linear,
        Fusion: found.core,
        Attention: found.attention,
    }
    with ExitStack() as stack:
        for module in model.modules():
            hook = found.neurons if isinstance(module, Lif) else hooks.get(type(module))
            if hook is not None:
                stack.enter_context(module.register_forward_hook(hook))
        yield found
