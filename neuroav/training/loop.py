"""The training loop: seeds, validation apart from test, checkpoints, bit-identical resumption.

Every random choice of epoch e comes from ``numpy.random.default_rng([seed, e])``, and the learning
rate from the step number, so a run resumed from the last finished epoch repeats exactly what the
uninterrupted run would have done (same machine, same number of threads). Several processes, started
by torchrun, share out every batch (``neuroav.training.distributed``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
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
from neuroav.training.distributed import Alone, Ranks, joined
from neuroav.training.evaluate import score
from neuroav.training.losses import TrainingOutputs, training_loss
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
    ranks: Ranks | None = None,
) -> dict[str, Any]:
    """Train into the folder ``out`` and return what ``metrics.json`` holds.

    resume: go on from ``out/last.ckpt``; init_from: start from the weights in this file, a run's or
    the released S-CMRL's. ranks: this process is one of several that train together; all of them
    call this with the same arguments, only the first reads and writes ``out`` and ``init_from``,
    and with ``resume`` a folder that holds no run yet is begun, so that the same call can be
    repeated after a failure. Raises ConfigError (folder in use, other configuration),
    FileFormatError (weights that do not fit), TrainingError (loss not finite), ExecutorError
    (another process is lost).
    """
    out = Path(out)
    if config.quant.aware and init_from is None and not resume:
        raise ConfigError(
            "quantization-aware training starts from a trained float network: give its weights, "
            "--init-from RUN/model.safetensors"
        )
    check_model_name(config.model.name)  # before data are prepared and the folder is claimed
    check_kinds(config.model.name, config.data.name)
    if ranks is not None and config.model.name in ZERO_SHOT:
        raise ConfigError(
            f"{config.model.name!r} trains in one process: its triplets are drawn from whole "
            "batches; start it without torchrun"
        )
    with joined(ranks, training_device(config)) as group:
        places = {"cache_dir": cache_dir, "data_root": data_root, "progress": progress}
        return _train(config, out, resume, init_from, places, group)


def _train(
    config: RunConfig,
    out: Path,
    resume: bool,
    init_from: Path | None,
    places: dict[str, Any],
    group: Alone,
) -> dict[str, Any]:
    """Train in this process, or in this and others."""

    def begun() -> bool:
        going_on = resume and (group.size == 1 or (out / ck.CONFIG).exists())
        _check_folder(out, config, going_on)
        return going_on

    resume = group.from_first(begun)
    torch.set_num_threads(config.train.threads)
    data = group.first_on_machine(lambda: load_data(config.data, **places))
    progress = places["progress"]
    if config.model.name in ZERO_SHOT:
        return _train_zero_shot(config, out, data, resume, init_from, progress)
    torch.manual_seed(config.train.seed)
    shapes = input_shapes(data.split("val").frames(np.arange(1)))
    model = build_model(config.model, shapes, len(data.classes), config.scmrl)
    if init_from is not None and not resume:
        group.from_first(lambda: _start_from(init_from, model, config, shapes, len(data.classes)))
    if config.quant.aware:
        prepare_qat(model, config.quant)
        if not resume:
            first = data.split("val").frames(np.arange(min(RANGE_SAMPLES, len(data.split("val")))))
            names = model.inputs
            calibrate_range(model, to_tensors(first, names, slice(None)))  # type: ignore[arg-type]
    group.same(model)
    # a quarter faster on a CPU (benchmarks/training_step.py); torch does not declare the argument
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    set_recompute(model, config.train.recompute)
    run = _Run(config, out, model, data, group)
    if resume:
        run.restore()
    elif group.first:
        run.claim()
    with kept_memory():
        return run.fit(progress if group.first else None)


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
    """State of one training run between epochs. group: the processes that share it."""

    def __init__(
        self,
        config: RunConfig,
        out: Path,
        model: nn.Module,
        data: AVData,
        group: Alone | None = None,
    ) -> None:
        self.config, self.out, self.data = config, out, data
        self.group = group or Alone()
        self.device = self.group.device(training_device(config))
        # before the optimizer takes its parameters
        self.model = self.group.prepare(model.to(self.device))
        self.outputs = self.group.parallel(TrainingOutputs(self.model, config))
        self.optimizer = make_optimizer(self.model, config.train)
        self.train_split: AVSplit = data.split("train")
        self.val_frames = data.split("val").frames()
        self.steps_per_epoch = math.ceil(len(self.train_split) / config.train.batch_size)
        self.history: list[dict[str, Any]] = []

    def claim(self) -> None:
        """Write what a run killed in its first epoch goes on from: weights that were given, and
        what was measured of them. The configuration comes last: where it is, the state is."""
        self.out.mkdir(parents=True, exist_ok=True)
        self._save_last()
        ck.write_text(self.out / ck.CONFIG, dump_config(self.config))

    def restore(self) -> None:
        """Take up the last finished epoch, or the beginning."""
        state = self.group.from_first(lambda: ck.load_last(self.out / ck.LAST))
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]

    def fit(self, progress: Progress | None) -> dict[str, Any]:
        from torch.utils.tensorboard import SummaryWriter

        epochs, first = self.config.train.epochs, self.group.first
        writing = SummaryWriter(str(self.out), purge_step=len(self.history)) if first else None
        with writing or nullcontext() as writer:
            for epoch in range(len(self.history), epochs):
                record = self._epoch(epoch)
                best = min((h["val_loss"] for h in self.history), default=math.inf)
                self.history.append(record)
                if first:
                    self._log(writer, record)
                    self._save(better=record["val_loss"] < best)
                if progress:
                    progress(
                        f"training {self.config.model.name}, validation "
                        f"{record['val_accuracy']:.3f}",
                        epoch + 1,
                        epochs,
                    )
        metrics = self._metrics()
        if first:
            ck.write_json(self.out / ck.METRICS, metrics)
        return metrics

    def _save(self, better: bool) -> None:
        """Write the state after an epoch, and the weights where they are the best so far."""
        if better:
            ck.save_weights(self.model, self.out / ck.WEIGHTS)
        self._save_last()

    def _save_last(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
        }
        ck.save_last(self.out / ck.LAST, state)

    def _epoch(self, epoch: int) -> dict[str, Any]:
        start = time.perf_counter()
        loss_sum, correct, samples = 0.0, 0, 0
        self.model.train()
        for index, (inputs, labels) in enumerate(self._batches(epoch)):
            loss, hits = self._step(epoch * self.steps_per_epoch + index, inputs, labels)
            loss_sum, correct = loss_sum + loss * len(labels), correct + hits
            samples += len(labels)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"epoch {epoch}, batch {index}: the loss is {loss}; lower "
                    "train.learning_rate or check the input for NaN"
                )
        val, rates = self.group.from_first(self._validate)
        return {
            "epoch": epoch,
            "loss": loss_sum / samples,
            "accuracy": correct / samples,
            "val_loss": val["loss"],
            "val_accuracy": val["accuracy"],
            "rates": rates,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": time.perf_counter() - start,
        }

    def _validate(self) -> tuple[dict[str, Any], dict[str, float]]:
        with SpikeRates(self.model) as rates:
            return score(self.model, self.val_frames, len(self.data.classes)), rates.rates()

    def _batches(self, epoch: int) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
        """Yield an epoch's batches: inputs (T, b, ...) of this process's share, labels (B,) of all.

        What is random is drawn for whole batches, so it does not depend on who has which share.
        """
        config, names = self.config.train, list(self.model.inputs)  # type: ignore[arg-type]
        rng = np.random.default_rng([config.seed, epoch])
        frames = (
            self.train_split.augmented(self.data.augmentation, rng)
            if self.config.data.augment
            else self.train_split.frames()
        )
        order = rng.permutation(len(frames.labels))
        lost = np.random.default_rng([config.seed, epoch, 1])  # apart, so that 0 changes nothing
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            own = self.group.share(len(batch))
            inputs = to_tensors(frames, names, batch[own])
            if config.modality_dropout and len(names) > 1:
                whole = [torch.ones(1, len(batch)) for _ in names]
                kept = drop_modalities(whole, config.modality_dropout, lost)
                inputs = [
                    x * k[:, own].reshape(1, -1, 1, 1, 1) for x, k in zip(inputs, kept, strict=True)
                ]
            yield inputs, torch.from_numpy(frames.labels[batch])

    def _step(self, step: int, inputs, labels) -> tuple[float, int]:
        """Learn from one batch and return its loss and right answers, of all shares together."""
        config, group = self.config.train, self.group
        factor = learning_rate_factor(
            step,
            warmup=round(config.warmup_epochs * self.steps_per_epoch),
            total=config.epochs * self.steps_per_epoch,
        )
        for param_group in self.optimizer.param_groups:
            param_group["lr"] = config.learning_rate * factor
        inputs, labels = [x.to(self.device) for x in inputs], labels.to(self.device)
        logits, loss = training_loss(
            self.outputs, inputs, labels, self.config, lambda x: group.gather(x, len(labels))
        )
        self.optimizer.zero_grad(set_to_none=True)
        (loss * group.size).backward()  # of which the processes then take the mean
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
