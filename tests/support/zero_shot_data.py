"""A small zero-shot data set: features are a fixed function of the class text, plus noise."""

from __future__ import annotations

import numpy as np

from neuroav.data import zeroshot as zs
from neuroav.training.config import RunConfig, load_config

CLASSES, TEXT, AUDIO, VISUAL, STEPS = 9, 6, 14, 10, 4
STAGE_CLASSES = {
    zs.STAGE_1_TRAIN: [0, 1, 2, 3],
    zs.STAGE_1_VAL_SEEN: [0, 1, 2, 3],
    zs.STAGE_1_VAL_UNSEEN: [4, 5],
    zs.STAGE_2_TEST_SEEN: [0, 1, 2, 3, 4, 5],
    zs.STAGE_2_TEST_UNSEEN: [6, 7],  # class 8 is in no stage
}
SIZES = {
    "zsl.hidden_dim": "24",
    "zsl.embed_dim": "16",
    "zsl.output_dim": "8",
    "zsl.batches": "6",
    "zsl.dropout_encoder": "0",
    "zsl.dropout_projection": "0",
    "stft.rank": "5",
    "stft.heads": "2",
    "train.epochs": "3",
    "train.batch_size": "16",
    "data.steps": str(STEPS),
}


def make(
    seed: int = 0, per_class: int = 8, test_seed: int | None = None, steps: int = STEPS
) -> zs.ZeroShotData:
    """Return the data; ``test_seed`` draws other test samples, all else equal."""
    text = np.random.default_rng(7).normal(size=(CLASSES, TEXT))
    text = (text / np.linalg.norm(text, axis=1, keepdims=True)).astype(np.float32)
    maps = {
        k: np.random.default_rng(n).normal(size=(TEXT, n)) for k, n in (("a", AUDIO), ("v", VISUAL))
    }
    stages = {}
    for index, (stage, classes) in enumerate(STAGE_CLASSES.items()):
        other = test_seed is not None and stage.startswith("stage_2")
        rng = np.random.default_rng([test_seed if other else seed, index])
        labels = np.repeat(classes, per_class).astype(np.int64)
        parts = [
            np.maximum(text[labels] @ maps[k] + 0.2 * rng.normal(size=(len(labels), n)), 0)
            for k, n in (("a", AUDIO), ("v", VISUAL))
        ]
        names = np.array([f"{stage}-{i}" for i in range(len(labels))])
        stages[stage] = zs.Features(*(p.astype(np.float32) for p in parts), labels, names)
    return zs.ZeroShotData(
        "av-attributes",
        "made-up",
        tuple(f"class {i}" for i in range(CLASSES)),
        stages,
        {k: np.array(v, np.int64) for k, v in STAGE_CLASSES.items()},
        text,
        np.roll(text, 1, axis=0),
        steps,
    )


def config(model: str, **changes: str) -> RunConfig:
    """Return a small configuration of a zero-shot model."""
    return load_config(model=model, overrides={**SIZES, **changes})
