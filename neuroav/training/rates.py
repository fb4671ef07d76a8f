"""Spike rates of every neuron layer, and the warning about layers that learn nothing."""

from __future__ import annotations

from types import TracebackType

import torch
from torch import nn

from neuroav.models.layers import Lif

SILENT, SATURATED = 0.001, 0.9


class SpikeRates:
    """Context that counts the spikes of all Lif layers of a model while it runs.

    rates(): by qualified name, spikes / (neurons * steps * samples), in [0, 1]; layers that did not
    run, such as heads for training alone, have none.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = {n: m for n, m in model.named_modules() if isinstance(m, Lif)}
        self._spikes = dict.fromkeys(self._layers, 0.0)
        self._places = dict.fromkeys(self._layers, 0)
        self._handles: list = []

    def __enter__(self) -> SpikeRates:
        for name, layer in self._layers.items():

            def count(module, args, output: torch.Tensor, name: str = name) -> None:
                self._spikes[name] += float(output.detach().sum())
                self._places[name] += output.numel()

            self._handles.append(layer.register_forward_hook(count))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def rates(self) -> dict[str, float]:
        return {n: self._spikes[n] / places for n, places in self._places.items() if places}


def warnings_for(rates: dict[str, float]) -> list[str]:
    """Return one sentence per silent or saturated layer."""
    found = []
    for name, rate in rates.items():
        if rate < SILENT:
            found.append(f"{name} is silent: rate {rate:.3%}, below {SILENT:.1%}")
        elif rate > SATURATED:
            found.append(f"{name} is saturated: rate {rate:.1%}, above {SATURATED:.0%}")
    return found
