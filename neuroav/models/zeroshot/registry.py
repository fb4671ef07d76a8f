"""Zero-shot models by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from neuroav.models.registry import neuron_of
from neuroav.models.zeroshot.avca import Avca
from neuroav.models.zeroshot.chip import StftChip
from neuroav.models.zeroshot.parts import ZeroShotNet
from neuroav.models.zeroshot.search import ZeroShotClassifier
from neuroav.models.zeroshot.stft import Stft
from neuroav.training.config import RunConfig


def build_zero_shot(
    config: RunConfig, dims: Mapping[str, int], text: np.ndarray, seen: np.ndarray
) -> ZeroShotClassifier:
    """Return a freshly initialised network for features of ``dims`` and classes of ``text``.

    text: (classes, W) float32; seen: indices of the classes trained on.
    """
    width, steps, neuron = text.shape[1], config.data.steps, neuron_of(config.model)
    net: ZeroShotNet
    if config.model.name == "avca":
        net = Avca(dims, width, config.zsl)
    elif config.model.name == "stft":
        net = Stft(dims, width, steps, neuron, config.zsl, config.stft)
    else:
        net = StftChip(dims, width, steps, neuron, config.zsl, config.stft.rank)
    return ZeroShotClassifier(net, text, seen, config.zsl.query)
