"""How much arithmetic one sample takes in a real-valued zero-shot network, counted while it runs.

A layer whose input is spikes adds the weights of those that fired (synaptic operations); any other
layer multiplies and adds (MACs). Counted are linear layers, Tucker cores and softmax attention;
norms, activations and the distances to classes are not.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import nn

from neuroav.models.layers import Lif
from neuroav.models.zeroshot.fusion import Fusion
from neuroav.models.zeroshot.parts import Attention


class Operations:
    """Context that counts while a model runs. macs, synops, spikes: totals so far."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.macs = self.synops = self.spikes = 0.0
        self._handles: list = []

    def __enter__(self) -> Operations:
        hooks: dict[type, Any] = {
            nn.Linear: self._linear,
            Fusion: self._core,
            Attention: self._attention,
        }
        for module in self.model.modules():
            hook = self._neurons if isinstance(module, Lif) else hooks.get(type(module))
            if hook is not None:
                self._handles.append(module.register_forward_hook(hook))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _linear(self, module: nn.Linear, args, output: torch.Tensor) -> None:
        x = args[0]
        if bool(((x == 0) | (x == 1)).all()) and bool((x == 1).any()):
            self.synops += float(x.sum()) * module.out_features
        else:
            self.macs += output.numel() * module.in_features

    def _core(self, module: Fusion, args, output: torch.Tensor) -> None:
        rank = module.out.in_features
        each = rank**2 + rank**3 if module.kind == "tucker" else rank
        self.macs += len(args[0]) * each

    def _attention(self, module: Attention, args, output: torch.Tensor) -> None:
        batch, tokens, _ = args[0].shape
        width = module.qkv.out_features // 3
        self.macs += 2 * batch * tokens**2 * width

    def _neurons(self, module: Lif, args, output: torch.Tensor) -> None:
        self.spikes += float(output.sum())
