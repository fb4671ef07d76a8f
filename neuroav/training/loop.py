"""The training loop: seeds, validation apart from test, checkpoints, bit-identical resumption.

Every random choice of epoch e comes from ``numpy.random.default_rng([seed, e])``, and the learning
rate from the step number, so a run resumed from the last finished epoch repeats exactly what the
uninterrupted run would have done (same machine, same number of threads).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from neuroav.errors import ConfigError, TrainingError
from neuroav.memory import kept_memory
from neuroav.models import build_model, check_model_name, released
from neuroav.models.registry import InputShapes
from neuroav.models.segments import set_recompute
from neuroav.quantization import RANGE_SAMPLES
from neuroav.training import checkpoint as ck
from neuroav.training.batches import (
    check_kinds,
    drop_modalities,
    input_shapes,
    iterate,
    load_data,
    to_tensors,
)
from neuroav.training.config import (
    SECTIONS,
    ZERO_SHOT,
    RunConfig,
    TrainConfig,
    dump_config,
    load_run_config,
)
from neuroav.training.evaluate import score
from neuroav.training.losses import training_loss
from neuroav.training.qat import calibrate_range, prepare_qat
from neuroav.training.rates import SpikeRates, warnings_for

if TYPE_CHECKING:
    from neuroav.data import AVData, AVSplit
    from neuroav.data.zeroshot import ZeroShotData

Progress = Callable[[str, int, int], None]


def train(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    init_from: Path | None = None,
    cache_dir: Path,
    data_root: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train into the folder ``out`` and return what ``metrics.json`` holds.

    resume: go on from ``out/last.ckpt``; init_from: start from the weights in this file, a run's or
    the released S-CMRL's. Raises ConfigError (folder in use, other configuration), FileFormatError
    (weights that do not fit), TrainingError (loss not finite).
    """
    out = Path(out)
    if config.quant.aware and init_from is None and not resume:
        raise ConfigError(
            "quantization-aware training starts from a trained float network: give its weights, "
            "--init-from RUN/model.safetensors"
        )
    check_model_name(config.model.name)  # before data are prepared and the folder is claimed
    check_kinds(config.model.name, config.data.name)
    training_device(config)
    _check_folder(out, config, resume)
    torch.set_num_threads(config.train.threads)
    data = load_data(config.data, cache_dir=cache_dir, data_root=data_root, progress=progress)
    if config.model.name in ZERO_SHOT:
        return _train_zero_shot(config, out, data, resume, init_from, progress)
    torch.manual_seed(config.train.seed)
    shapes = input_shapes(data.split("val").frames(np.arange(1)))
    model = build_model(config.model, shapes, len(data.classes), config.scmrl)
    if init_from is not None:
        _start_from(init_from, model, config, shapes, len(data.classes))
    if config.quant.aware:
        prepare_qat(model, config.quant)
        if not resume:
            first = data.split("val").frames(np.arange(min(RANGE_SAMPLES, len(data.split("val")))))
            names = model.inputs
            calibrate_range(model, to_tensors(first, names, slice(None)))  # type: ignore[arg-type]
    # a quarter faster on a CPU (benchmarks/training_step.py); torch does not declare the argument
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_recompute(model, config.train.recompute)
    out.mkdir(parents=True, exist_ok=True)
    ck.write_text(out / ck.CONFIG, dump_config(config))
    run = _Run(config, out, model, data)
    if resume:
        run.restore()
    with kept_memory():
        return run.fit(progress)


def _train_zero_shot(
    config: RunConfig,
    out: Path,
    data: ZeroShotData,
    resume: bool,
    init_from: Path | None,
    progress: Progress | None,
) -> dict[str, Any]:
    """Train a network that classifies by text, in two stages (``neuroav.training.zeroshot``)."""
    from neuroav.training.zeroshot.loop import ZeroShotRun

    if init_from is not None:
        raise ConfigError(
            "--init-from: zero-shot networks start afresh in both stages, so that no test class "
            "has been seen; train without it"
        )
    options = config.train
    if options.recompute or options.precision != "float32" or options.device != "cpu":
        raise ConfigError(
            f"train.recompute, train.precision and train.device are for networks that read events, "
            f"{config.model.name!r} classifies by text; leave them as they are by default"
        )
    run = ZeroShotRun(config, out, data)
    out.mkdir(parents=True, exist_ok=True)
    ck.write_text(out / ck.CONFIG, dump_config(config))
    if resume:
        run.restore()
    return run.fit(progress)


def _start_from(
    path: Path, model: nn.Module, config: RunConfig, shapes: InputShapes, classes: int
) -> None:
    """Fill ``model`` from a file of its own weights, or of those of the released S-CMRL."""
    state = ck.read_weights(path)
    if released.looks_released(state):
        layout = released.layout_for(config.model, config.scmrl, shapes, classes)
        state = released.from_released(state, layout, str(path))
    ck.fill(model, state, path)


def _check_folder(out: Path, config: RunConfig, resume: bool) -> None:
    """Raise ConfigError unless ``out`` is free, or holds this very run to resume."""
    if resume:
        stored = load_run_config(out)
        if stored != config:
            changed = [
                f"{s}.{k}"
                for s in SECTIONS
                for k, v in getattr(config, s)
                if getattr(getattr(stored, s), k) != v
            ]
            raise ConfigError(
                f"{out}: was started with another configuration, {changed} differ; "
                "resume with the stored config.toml or train into another folder"
            )
        return
    if (out / ck.CONFIG).exists():
        raise ConfigError(
            f"{out}: already holds a run; add --resume to go on with it, or choose another folder"
        )


def training_device(config: RunConfig) -> torch.device:
    """Return the device that ``train.device`` names; ConfigError where it cannot be used."""
    device = torch.device(config.train.device)
    if device.type == "cuda" and config.quant.aware:
        raise ConfigError(
            "train.device is 'cuda', but training aware of quantization rounds on the CPU; use "
            "'cpu'"
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "train.device is 'cuda', but torch finds no GPU here; install torch for CUDA or use "
            "'cpu'"
        )
    return device


def learning_rate_factor(step: int, *, warmup: int, total: int) -> float:
    """Return the share of the peak rate at ``step``: linear warm-up, then half a cosine to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return AdamW that decays matrices and kernels only, not biases and norms."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )


class _Run:
    """State of one training run between epochs."""

    def __init__(self, config: RunConfig, out: Path, model: nn.Module, data: AVData) -> None:
        self.config, self.out, self.data = config, out, data
        self.device = training_device(config)
        self.model = model.to(self.device)  # before the optimizer takes its parameters
        self.optimizer = make_optimizer(model, config.train)
        self.train_split: AVSplit = data.split("train")
        self.val_frames = data.split("val").frames()
        self.steps_per_epoch = math.ceil(len(self.train_split) / config.train.batch_size)
        self.history: list[dict[str, Any]] = []

    def restore(self) -> None:
        """Take up the last finished epoch; a run killed in its first epoch starts over."""
        if not (self.out / ck.LAST).exists():
            return
        state = ck.load_last(self.out / ck.LAST)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]

    def fit(self, progress: Progress | None) -> dict[str, Any]:
        from torch.utils.tensorboard import SummaryWriter

        epochs = self.config.train.epochs
        with SummaryWriter(str(self.out), purge_step=len(self.history)) as writer:
            for epoch in range(len(self.history), epochs):
                record = self._epoch(epoch, progress)
                self._log(writer, record)
                best = min((h["val_loss"] for h in self.history), default=math.inf)
                self.history.append(record)
                if record["val_loss"] < best:
                    ck.save_weights(self.model, self.out / ck.WEIGHTS)
                ck.save_last(
                    self.out / ck.LAST,
                    {
                        "model": self.model.state_dict(),
                        "optimizer": self.optimizer.state_dict(),
                        "history": self.history,
                    },
                )
                if progress:
                    progress(
                        f"training {self.config.model.name}, validation "
                        f"{record['val_accuracy']:.3f}",
                        epoch + 1,
                        epochs,
                    )
        metrics = self._metrics()
        ck.write_json(self.out / ck.METRICS, metrics)
        return metrics

    def _epoch(self, epoch: int, progress: Progress | None) -> dict[str, Any]:
        config, start = self.config.train, time.perf_counter()
        rng = np.random.default_rng([config.seed, epoch])
        frames = (
            self.train_split.augmented(self.data.augmentation, rng)
            if self.config.data.augment
            else self.train_split.frames()
        )
        order = rng.permutation(len(frames.labels))
        loss_sum, correct = 0.0, 0
        self.model.train()
        lost = np.random.default_rng([config.seed, epoch, 1])  # apart, so that 0 changes nothing
        batches = iterate(frames, self.model.inputs, config.batch_size, order)  # type: ignore[arg-type]
        for index, (inputs, labels) in enumerate(batches):
            inputs = drop_modalities(inputs, config.modality_dropout, lost)
            loss, hits = self._step(epoch * self.steps_per_epoch + index, inputs, labels)
            loss_sum, correct = loss_sum + loss * len(labels), correct + hits
            if not math.isfinite(loss):
                raise TrainingError(
                    f"epoch {epoch}, batch {index}: the loss is {loss}; lower "
                    "train.learning_rate or check the input for NaN"
                )
        with SpikeRates(self.model) as rates:
            val = score(self.model, self.val_frames, len(self.data.classes))
        return {
            "epoch": epoch,
            "loss": loss_sum / len(order),
            "accuracy": correct / len(order),
            "val_loss": val["loss"],
            "val_accuracy": val["accuracy"],
            "rates": rates.rates(),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": time.perf_counter() - start,
        }

    def _step(self, step: int, inputs, labels) -> tuple[float, int]:
        config = self.config.train
        factor = learning_rate_factor(
            step,
            warmup=round(config.warmup_epochs * self.steps_per_epoch),
            total=config.epochs * self.steps_per_epoch,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        inputs, labels = [x.to(self.device) for x in inputs], labels.to(self.device)
        logits, loss = training_loss(self.model, inputs, labels, self.config)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return float(loss.detach()), int((logits.argmax(1) == labels).sum())

    def _log(self, writer, record: dict[str, Any]) -> None:
        for key in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"):
            writer.add_scalar(key, record[key], record["epoch"])
        for name, rate in record["rates"].items():
            writer.add_scalar(f"rate/{name}", rate, record["epoch"])

    def _metrics(self) -> dict[str, Any]:
        best = min(self.history, key=lambda h: h["val_loss"])
        return {
            "model": self.config.model.name,
            "data": self.data.name,
            "data_hash": self.data.content_hash,
            "epochs": len(self.history),
            "best_epoch": best["epoch"],
            "val_accuracy": best["val_accuracy"],
            "val_loss": best["val_loss"],
            "rates": best["rates"],
            "warnings": warnings_for(best["rates"]),
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "seconds": sum(h["seconds"] for h in self.history),
            "history": self.history,
        }
