"""The two stages of zero-shot training.

1. Train on stage_1_train. After every epoch, measure on seen and unseen validation classes, with
   the seen-class bias calibrated on them. The epoch with the best HM fixes the number of epochs
   and the biases; the learning rate falls where HM stops rising.
2. Train afresh on all of stage 1 (validation samples and classes included) for as many epochs, at
   the rates of stage 1. Its weights and the biases of stage 1 are the result.

Test samples are never asked for: ``_Stage`` is given features and classes of stage 1 alone. Every
random choice follows from (seed, stage, epoch), so that a resumed run repeats an undisturbed one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuroav.data import zeroshot as zs
from neuroav.data.zeroshot_scores import calibrate
from neuroav.errors import TrainingError
from neuroav.models.zeroshot.parts import MODALITIES
from neuroav.models.zeroshot.registry import build_zero_shot
from neuroav.models.zeroshot.search import QUERIES, ZeroShotClassifier
from neuroav.training import checkpoint as ck
from neuroav.training.config import RunConfig
from neuroav.training.rates import SpikeRates, warnings_for
from neuroav.training.zeroshot.batches import BalancedBatches
from neuroav.training.zeroshot.evaluate import trials
from neuroav.training.zeroshot.losses import zero_shot_loss

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Stage:
    """What one stage may see. number 1 or 2; train: its samples; seen: their classes; val: samples
    that choose an epoch, None in stage 2; unseen: classes among them that are not trained on."""

    number: int
    train: zs.Features
    seen: np.ndarray
    val: zs.Features | None
    unseen: np.ndarray


def first_stage(data: zs.ZeroShotData) -> Stage:
    """Return stage 1 of a data set."""
    return Stage(
        1,
        data.stages[zs.STAGE_1_TRAIN],
        data.stage_classes[zs.STAGE_1_TRAIN],
        data.split("val").features,
        data.stage_classes[zs.STAGE_1_VAL_UNSEEN],
    )


def second_stage(data: zs.ZeroShotData) -> Stage:
    """Return stage 2 of a data set: train on everything of stage 1."""
    return Stage(2, data.split("train").features, data.seen, None, np.zeros(0, np.int64))


class ZeroShotRun:
    """State of a run between epochs; ``fit`` carries it through both stages."""

    def __init__(self, config: RunConfig, out: Path, data: zs.ZeroShotData) -> None:
        self.config, self.out = config, out
        self.text = data.embeddings(config.zsl.text_alignment)
        self.facts = {
            "data": data.name,
            "data_hash": data.content_hash,
            "misaligned_classes": len(data.misaligned),
            "notes": list(data.notes),
        }
        self.stages = {1: first_stage(data), 2: second_stage(data)}
        self.history: list[dict[str, Any]] = []
        self._begin(1)

    def _begin(self, number: int) -> None:
        """Start a stage with fresh weights, the same in both."""
        self.stage = self.stages[number]
        train, config = self.stage.train, self.config
        torch.manual_seed(config.train.seed)
        dims = {m: getattr(train, m).shape[-1] for m in MODALITIES}
        self.model = build_zero_shot(config, dims, self.text, self.stage.seen)
        self.model.net.fit_scale({m: getattr(train, m) for m in MODALITIES}, config.zsl.scaling)
        self.batches = BalancedBatches(train, self.text, config.train.batch_size)
        self.optimizer = torch.optim.Adam(
            [p for p in self.model.parameters() if p.requires_grad],
            lr=config.train.learning_rate,
            weight_decay=config.train.weight_decay,
        )
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self.optimizer, mode="max", patience=config.zsl.patience
        )

    def restore(self) -> None:
        """Take up the last finished epoch; a run killed in its first epoch starts over."""
        if not (self.out / ck.LAST).exists():
            return
        state = ck.load_last(self.out / ck.LAST)
        self.history = state["history"]
        self._begin(self.history[-1]["stage"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.plateau.load_state_dict(state["plateau"])

    def fit(self, progress: Progress | None) -> dict[str, Any]:
        """Finish both stages, write weights and metrics, and return the metrics."""
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(self.out), purge_step=len(self.history)) as writer:
            while len(self._done(1)) < self.config.train.epochs:
                self._log(writer, self._epoch(progress))
            if self.stage.number == 1:
                self._begin(2)
            while len(self._done(2)) <= self.best["epoch"]:
                self._log(writer, self._epoch(progress))
        for query, bias in self.best["bias"].items():
            self.model.seen_bias[QUERIES.index(query)] = bias
        ck.save_weights(self.model, self.out / ck.WEIGHTS)
        metrics = self._metrics()
        ck.write_json(self.out / ck.METRICS, metrics)
        return metrics

    def _done(self, stage: int) -> list[dict[str, Any]]:
        return [record for record in self.history if record["stage"] == stage]

    @property
    def best(self) -> dict[str, Any]:
        """The epoch of stage 1 with the best validation HM, the first of equals."""
        return max(self._done(1), key=lambda record: record["val_hm"])

    def _epoch(self, progress: Progress | None) -> dict[str, Any]:
        stage, config, start = self.stage.number, self.config, time.perf_counter()
        epoch = len(self._done(stage))
        if stage == 2:
            for group in self.optimizer.param_groups:
                group["lr"] = self._done(1)[epoch]["learning_rate"]
        rate = self.optimizer.param_groups[0]["lr"]
        rng = np.random.default_rng([config.train.seed, stage, epoch])
        torch.manual_seed(int(rng.integers(1 << 31)))  # dropout
        self.model.train()
        total = 0.0
        for index, batch in enumerate(self.batches.epoch(config.zsl.batches, rng)):
            loss = zero_shot_loss(self.model.net, batch, config.zsl)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(
                    f"stage {stage}, epoch {epoch}, batch {index}: the loss is {value}; "
                    "lower train.learning_rate or check the features for outliers"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += value
        record = {
            "stage": stage,
            "epoch": epoch,
            "loss": total / config.zsl.batches,
            "learning_rate": rate,
            **self._validate(),
            "seconds": time.perf_counter() - start,
        }
        self.history.append(record)
        self._save()
        if progress:
            done = len(self.history)
            whole = config.train.epochs + (self.best["epoch"] + 1 if stage == 2 else 0)
            progress(f"training {config.model.name}, stage {stage}", done, max(whole, done))
        return record

    def _validate(self) -> dict[str, Any]:
        """Return spike rates, and in stage 1 the measures on validation."""
        stage = self.stage
        if stage.val is None:
            part = stage.train.take(np.arange(min(512, len(stage.train))))
            with SpikeRates(self.model) as rates:
                trials(self.model, part)
            return {"rates": rates.rates()}
        with SpikeRates(self.model) as rates:
            found = trials(self.model, stage.val, stage.seen, stage.unseen)
        chosen = {q: calibrate(t, self.config.zsl.bias_levels) for q, t in found.items()}
        scores = chosen[self.config.zsl.query][1]
        self.plateau.step(scores.hm)
        return {
            "rates": rates.rates(),
            "bias": {q: bias for q, (bias, _) in chosen.items()},
            **{f"val_{k}": v for k, v in asdict(scores).items()},
        }

    def _save(self) -> None:
        ck.save_last(
            self.out / ck.LAST,
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "plateau": self.plateau.state_dict(),
                "history": self.history,
            },
        )

    def _log(self, writer, record: dict[str, Any]) -> None:
        step = len(self.history) - 1
        for key in ("loss", "learning_rate", "val_seen", "val_unseen", "val_hm", "val_zsl"):
            if key in record:
                writer.add_scalar(key, record[key], step)
        for name, rate in record["rates"].items():
            writer.add_scalar(f"rate/{name}", rate, step)

    def _metrics(self) -> dict[str, Any]:
        best, last = self.best, self.history[-1]
        config = self.config
        return {
            "model": config.model.name,
            **self.facts,
            "text_alignment": config.zsl.text_alignment,
            "epochs": len(self._done(1)),
            "best_epoch": best["epoch"],
            "bias": best["bias"],
            **{k: best[k] for k in ("val_seen", "val_unseen", "val_hm", "val_zsl", "val_empty")},
            "rates": last["rates"],
            "warnings": warnings_for(last["rates"]),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "parameters_spiking": spiking_parameters(self.model),
            "seconds": sum(h["seconds"] for h in self.history),
            "history": self.history,
        }


def spiking_parameters(model: ZeroShotClassifier) -> int:
    """Return the number of parameters of layers that neurons read or belong to."""
    from neuroav.models.zeroshot.chip import StftChip
    from neuroav.models.zeroshot.stft import Stft

    net = model.net
    if isinstance(net, StftChip):
        parts = (net.branch, net.mix, net.hidden, net.embedding)
        return sum(p.numel() for part in parts for p in part.parameters())
    if isinstance(net, Stft) and net.spiking is not None:
        return sum(p.numel() for p in net.spiking.parameters())
    return 0
