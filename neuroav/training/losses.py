"""Training losses: cross-entropy, and S-CMRL's alignment of cross-modal residuals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from neuroav.models.rivals import Cmci
from neuroav.models.scmrl import CrossModal
from neuroav.training.config import RunConfig

Outputs = tuple[torch.Tensor, Mapping[str, torch.Tensor], tuple[torch.Tensor, ...]]


class TrainingOutputs(nn.Module):
    """What the losses read of a network. forward(*inputs) -> (logits (B, classes), the residuals to
    align, r (T, B, D, H, W) by pair, the scores of each modality's own head)."""

    def __init__(self, model: nn.Module, config: RunConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, *inputs: torch.Tensor) -> Outputs:
        return _outputs(self.model, inputs, self.config)


def training_loss(
    model: nn.Module,
    inputs: Sequence[torch.Tensor],
    labels: torch.Tensor,
    config: RunConfig,
    gather: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (logits, loss) of a batch.

    Cross-modal networks add ``alignment_loss``, ``cmci`` the losses of each modality's own head.
    model: the network, or ``TrainingOutputs`` of it. gather: makes values (B, ...) of the whole
    batch, which ``labels`` are of, from those of the samples in ``inputs``.
    """
    gather = gather or _as_is
    with autocast(inputs[0].device, config.train.precision):
        found = model(*inputs) if _gives_all(model) else _outputs(model, inputs, config)
    logits, own = gather(found[0]), [gather(scores) for scores in found[2]]
    rates = {pair: gather(r.mean(dim=(0, 3, 4))) for pair, r in found[1].items()}
    smoothing = config.train.label_smoothing
    loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    for scores in own:
        loss = loss + functional.cross_entropy(scores, labels, label_smoothing=smoothing)
    if rates:
        weight, temperature = config.scmrl.alignment_weight, config.scmrl.temperature
        loss = loss + weight * alignment_of_rates(rates, labels, temperature)
    return logits, loss


def _as_is(x: torch.Tensor) -> torch.Tensor:
    return x


def _gives_all(model: nn.Module) -> bool:
    """Whether a module is ``TrainingOutputs``, wrapped for several processes or not."""
    return isinstance(getattr(model, "module", model), TrainingOutputs)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context in which a network computes with ``precision`` ('float32', 'bfloat16').

    Neurons stay in float32 (``neuroav.models.fused``); what they read comes rounded to bfloat16.
    """
    lower = precision == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=lower, cache_enabled=False)


def _outputs(model: nn.Module, inputs: Sequence[torch.Tensor], config: RunConfig) -> Outputs:
    """Return logits, the residuals to align and the scores of each modality's own head."""
    if isinstance(model, Cmci):
        logits, own = model.logits_and_own(*inputs)
        return logits.float(), {}, tuple(scores.float() for scores in own)
    if isinstance(model, CrossModal) and config.scmrl.alignment_weight:
        logits, residuals = model.logits_and_residuals(*inputs)
        return logits.float(), residuals, ()
    return model(*inputs).float(), {}, ()


def mean_alignment_loss(
    residuals: Mapping[str, torch.Tensor], labels: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return the mean of ``alignment_loss`` over all pairs of modalities.

    residuals: r (T, B, D, H, W) by 'RECEIVER_from_SOURCE'; those of one receiver are averaged.
    """
    rates = {pair: r.mean(dim=(0, 3, 4)) for pair, r in residuals.items()}
    return alignment_of_rates(rates, labels, temperature)


def alignment_of_rates(
    found: Mapping[str, torch.Tensor], labels: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return ``mean_alignment_loss`` of residuals' means over steps and places, (B, D) by pair."""
    means: dict[str, list[torch.Tensor]] = {}
    for pair, rate in found.items():
        means.setdefault(pair.split("_from_")[0], []).append(rate)
    rates = [torch.stack(parts).mean(0) for parts in means.values()]
    losses = [
        alignment_loss(u, w, labels, temperature)
        for i, u in enumerate(rates)
        for w in rates[i + 1 :]
    ]
    return torch.stack(losses).mean()


def alignment_loss(
    u: torch.Tensor, w: torch.Tensor, labels: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Return S-CMRL's semantic alignment loss, as in its released code.

    -(1 / B^2) sum_ij [y_i = y_j] log softmax_j(<u_i, w_j> / temperature), in one direction only;
    u, w: (B, D) rates of the residuals, not normalised.
    """
    scores = functional.log_softmax(u @ w.T / temperature, dim=1)
    same = labels[:, None] == labels[None, :]
    return -(scores * same).sum() / len(labels) ** 2
