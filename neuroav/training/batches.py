"""From frames of event counts to the tensors a model reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neuroav.errors import ConfigError
from neuroav.training.config import ZERO_SHOT, DataConfig

if TYPE_CHECKING:
    from neuroav.data import Frames


def load_data(
    config: DataConfig, *, cache_dir: Path, data_root: Path | None = None, progress: Any = None
) -> Any:
    """Return the data set a run's configuration names, prepared if need be.

    An ``AVData``, or a ``ZeroShotData`` for networks that classify by text.
    """
    from neuroav.data import frame_spec, is_zero_shot, load, load_zero_shot

    if is_zero_shot(config.name):
        return load_zero_shot(
            config.name,
            preset=config.preset,
            steps=config.steps,
            data_seed=config.seed,
            cache_dir=cache_dir,
            data_root=data_root,
            progress=progress,
        )
    spec = frame_spec(config.name, steps=config.steps, visual_size=config.visual_size)
    return load(
        config.name,
        preset=config.preset,
        data_seed=config.seed,
        cache_dir=cache_dir,
        data_root=data_root,
        spec=spec,
        progress=progress,
    )


def check_kinds(model: str, data: str) -> None:
    """Raise ConfigError for a network that classifies by text and data without, or vice versa."""
    from neuroav.data import DATASETS, is_zero_shot

    by_text = model in ZERO_SHOT
    if by_text != is_zero_shot(data):
        fitting = sorted(n for n in DATASETS if is_zero_shot(n) == by_text)
        raise ConfigError(
            f"model {model!r} {'classifies by text' if by_text else 'reads events'}, data "
            f"{data!r} {'have none' if by_text else 'are feature vectors'}; with this model use "
            f"--data {' or '.join(fitting)}"
        )


def input_shapes(frames: Frames) -> dict[str, tuple[int, int, int]]:
    """Return (channels, rows, columns) per step of every input that the data have."""
    given = {name: getattr(frames, name) for name in ("audio", "visual")}
    return {name: tuple(v.shape[2:]) for name, v in given.items() if v is not None}


def to_tensors(frames: Frames, names: Sequence[str], index) -> list[torch.Tensor]:
    """Return float32 (T, B, C, H, W) tensors of the chosen samples, one per input name."""
    return [
        torch.from_numpy(np.ascontiguousarray(np.moveaxis(getattr(frames, n)[index], 1, 0))).to(
            torch.float32
        )
        for n in names
    ]


def iterate(
    frames: Frames, names: Sequence[str], batch_size: int, order: np.ndarray | None = None
) -> Iterator[tuple[list[torch.Tensor], torch.Tensor]]:
    """Yield (inputs, labels) batches in ``order`` (default: as stored)."""
    if order is None:
        order = np.arange(len(frames.labels))
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        yield to_tensors(frames, names, index), torch.from_numpy(frames.labels[index])


def drop_modalities(
    inputs: list[torch.Tensor], share: float, rng: np.random.Generator
) -> list[torch.Tensor]:
    """Return inputs (T, B, ...) in which a random ``share`` of the samples lacks one modality.

    Which one is drawn evenly. With one modality, or a share of 0, nothing changes.
    """
    if len(inputs) < 2 or not share:
        return inputs
    count = inputs[0].shape[1]
    gone = np.where(rng.random(count) < share, rng.integers(len(inputs), size=count), -1)
    kept = [torch.from_numpy(gone != number) for number in range(len(inputs))]
    return [x * k.reshape(1, -1, *[1] * (x.ndim - 2)) for x, k in zip(inputs, kept, strict=True)]
