"""Accuracy, loss and confusion of a float model on one split."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from neuroav.models import build_model
from neuroav.training.batches import input_shapes, iterate, load_data
from neuroav.training.checkpoint import WEIGHTS, load_weights
from neuroav.training.config import ZERO_SHOT, RunConfig, load_run_config
from neuroav.training.qat import prepare_qat

if TYPE_CHECKING:
    from neuroav.data import Frames
    from neuroav.data.zeroshot import ZeroShotData


def score(model: nn.Module, frames: Frames, classes: int, batch_size: int = 128) -> dict[str, Any]:
    """Return samples, accuracy (fraction), loss (nats), confusion [label][predicted].

    The model computes where its parameters are.
    """
    device = next(model.parameters()).device
    # of this process alone: the others of a training in several wait meanwhile
    accuracy = MulticlassAccuracy(classes, average="micro", sync_on_compute=False)
    confusion = MulticlassConfusionMatrix(classes, sync_on_compute=False)
    loss, model_was_training = 0.0, model.training
    model.eval()
    with torch.no_grad():
        for inputs, labels in iterate(frames, model.inputs, batch_size):  # type: ignore[arg-type]
            logits = model(*(x.to(device) for x in inputs)).cpu()
            accuracy.update(logits, labels)
            confusion.update(logits, labels)
            loss += float(functional.cross_entropy(logits, labels, reduction="sum"))
    model.train(model_was_training)
    samples = len(frames.labels)
    return {
        "samples": samples,
        "accuracy": float(accuracy.compute()),
        "loss": loss / samples,
        "confusion": confusion.compute().tolist(),
    }


def load_run(
    run: Path, *, cache_dir: Path, data_root: Path | None = None, progress: Any = None
) -> tuple[nn.Module, Any, RunConfig]:
    """Return the trained model of a run folder (evaluation mode), its data and configuration.

    The data are an ``AVData``, or a ``ZeroShotData`` for networks that classify by text.
    """
    config = load_run_config(run)
    data = load_data(config.data, cache_dir=cache_dir, data_root=data_root, progress=progress)
    if config.model.name in ZERO_SHOT:
        return _load_zero_shot(Path(run), config, data), data, config
    shapes = input_shapes(data.split("val").frames(np.arange(1)))
    model = build_model(config.model, shapes, len(data.classes), config.scmrl)
    if config.quant.aware:
        prepare_qat(model, config.quant)
    load_weights(model, Path(run) / WEIGHTS)
    return model.eval(), data, config


def _load_zero_shot(run: Path, config: RunConfig, data: ZeroShotData) -> nn.Module:
    from neuroav.models.zeroshot.parts import MODALITIES
    from neuroav.models.zeroshot.registry import build_zero_shot

    train = data.split("train").features
    dims = {m: getattr(train, m).shape[-1] for m in MODALITIES}
    text = data.embeddings(config.zsl.text_alignment)
    model = build_zero_shot(config, dims, text, data.seen)
    load_weights(model, run / WEIGHTS)
    return model.eval()


def evaluate(
    run: Path,
    *,
    split: str = "test",
    samples: int | None = None,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Any = None,
) -> dict[str, Any]:
    """Return ``score`` of a run's best weights on the first ``samples`` samples of a split.

    For networks that classify by text ``zeroshot.evaluate.score_zero_shot``.
    """
    model, data, config = load_run(run, cache_dir=cache_dir, data_root=data_root, progress=progress)
    torch.set_num_threads(config.train.threads)
    if config.model.name in ZERO_SHOT:
        from neuroav.training.zeroshot.evaluate import score_zero_shot

        return score_zero_shot(model, data, split, samples)  # type: ignore[arg-type]
    part = data.split(split)
    count = len(part) if samples is None else min(samples, len(part))
    return score(model, part.frames(np.arange(count)), len(data.classes))
