"""Losses of zero-shot networks: triplets in the common space, regression, reconstruction.

'stft' (equations 16-18 as a third party states them), theta the mean of the queries' embeddings:

    L_t = 0.5 [tri(theta, w, w-) + tri(w, theta, theta-)]
    L_p = 0.5 sum_m MSE(theta_m, w)
    L_r = mean of MSE(rec_m(theta_m), phi_m) and MSE(D(x), text) for x = theta_m, w
    L   = 0.5 L_t + 0.5 (L_p + L_r)

'avca' (its released code, all weights 1), m over queries, rho = D(theta):

    3 x MSE(rho, text) + tri(rho_w, rho_m, rho_m-)
    + tri(w, m, m-) + tri(m, w, w-) + tri(m, w, m-) + tri(w, m, w-)
    + MSE(rec_m, phi_m) + MSE(m, w)

tri(a, p, n) = mean max(0, |a - p| - |a - n| + margin). A minus marks the negative sample or class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import mse_loss, triplet_margin_loss

from neuroav.models.zeroshot.parts import Embedded, ZeroShotNet
from neuroav.training.config import ZeroShotConfig


@dataclass(frozen=True, eq=False)
class Batch:
    """Anchors and negatives, one of each per row. inputs (T, 2 B, D) by modality, anchors first;
    text, text_negative (B, W): the class texts of the anchors and of the negatives."""

    inputs: Mapping[str, torch.Tensor]
    text: torch.Tensor
    text_negative: torch.Tensor


@dataclass(frozen=True, eq=False)
class _Terms:
    """theta, negative (B, E), phi and rebuilt (B, D) by query; w, w_negative (B, E)."""

    theta: Mapping[str, torch.Tensor]
    negative: Mapping[str, torch.Tensor]
    phi: Mapping[str, torch.Tensor]
    rebuilt: Mapping[str, torch.Tensor]
    w: torch.Tensor
    w_negative: torch.Tensor


def zero_shot_loss(net: ZeroShotNet, batch: Batch, config: ZeroShotConfig) -> torch.Tensor:
    """Return the loss of a batch; ``net`` offers embed, rebuild and text."""
    count = len(batch.text)
    both: Embedded = net.embed(batch.inputs)
    projected = net.text.project(torch.cat([batch.text, batch.text_negative]))
    theta = {q: x[:count] for q, x in both.theta.items()}
    terms = _Terms(
        theta,
        {q: x[count:] for q, x in both.theta.items()},
        {m: x[:count] for m, x in both.phi.items()},
        net.rebuild(theta),
        projected[:count],
        projected[count:],
    )
    return _LOSSES[config.loss](terms, net.text.decode, batch.text, config.margin)


def _stft(t: _Terms, decode: nn.Module, text: torch.Tensor, margin: float) -> torch.Tensor:
    def tri(a, p, n):
        return triplet_margin_loss(a, p, n, margin=margin)

    joint = torch.stack(list(t.theta.values())).mean(0)
    joint_negative = torch.stack(list(t.negative.values())).mean(0)
    triplets = 0.5 * (tri(joint, t.w, t.w_negative) + tri(t.w, joint, joint_negative))
    projection = 0.5 * sum(mse_loss(x, t.w) for x in t.theta.values())
    rebuilt = [mse_loss(t.rebuilt[m], x) for m, x in t.phi.items()]
    decoded = [mse_loss(decode(x), text) for x in (*t.theta.values(), t.w)]
    reconstruction = torch.stack([*rebuilt, *decoded]).mean()
    return 0.5 * triplets + 0.5 * (projection + reconstruction)


def _avca(t: _Terms, decode: nn.Module, text: torch.Tensor, margin: float) -> torch.Tensor:
    def tri(a, p, n):
        return triplet_margin_loss(a, p, n, margin=margin)

    rho_w = decode(t.w)
    loss = mse_loss(rho_w, text)
    for query, theta in t.theta.items():
        negative, rho = t.negative[query], decode(theta)
        loss = loss + mse_loss(rho, text) + tri(rho_w, rho, decode(negative))
        loss = loss + tri(t.w, theta, negative) + tri(theta, t.w, t.w_negative)
        loss = loss + tri(theta, t.w, negative) + tri(t.w, theta, t.w_negative)
        loss = loss + mse_loss(theta, t.w)
    return loss + sum(mse_loss(t.rebuilt[m], x) for m, x in t.phi.items())


_LOSSES = {"stft": _stft, "avca": _avca}
