"""How torch.fx walks our networks: the layers below are taken whole, everything else is entered."""

from __future__ import annotations

from torch import fx, nn

from neuroav.models import layers
from neuroav.models.quantized import QatLif, QatReadout, QatSynapses

LEAVES = (
    layers.Lif,
    layers.PerStep,
    layers.Add,
    layers.SpatialMean,
    layers.Gain,
    layers.TimeMean,
    layers.Concat,
    layers.HeadSum,
    layers.MaskAttention,
    layers.SpatialAttention,
    layers.TemporalAttention,
    layers.MeanProduct,
    layers.TimeWeightedSum,
    layers.Multiply,
    layers.Delay,
    layers.Li,
    layers.TimeLast,
    layers.RecurrentLif,
    QatSynapses,
    QatLif,
    QatReadout,
)


class StepTracer(fx.Tracer):
    """torch.fx tracer that keeps the layers of ``neuroav.models.layers`` whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, LEAVES) or super().is_leaf_module(m, module_qualified_name)
