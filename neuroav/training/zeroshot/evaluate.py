"""S, U, HM and ZSL of a trained zero-shot network."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from neuroav.data import zeroshot as zs
from neuroav.data.zeroshot_scores import GzslScores, Trial
from neuroav.models.zeroshot.search import ZeroShotClassifier
from neuroav.training.zeroshot.batches import inputs_of

_CHUNK = 512  # samples in memory at a time


def distances(model: ZeroShotClassifier, features: zs.Features) -> dict[str, np.ndarray]:
    """Return distances of samples to every class by query, (N, C) float64, in evaluation mode."""
    was_training = model.training
    model.eval()
    parts: dict[str, list[np.ndarray]] = {}
    with torch.no_grad():
        for first in range(0, max(len(features), 1), _CHUNK):
            rows = np.arange(first, min(first + _CHUNK, len(features)))
            for query, found in model.distances(inputs_of(features, rows)).items():
                parts.setdefault(query, []).append(found.double().numpy())
    model.train(was_training)
    return {query: np.concatenate(found) for query, found in parts.items()}


def trials(
    model: ZeroShotClassifier,
    features: zs.Features,
    seen: np.ndarray | None = None,
    unseen: np.ndarray | None = None,
) -> dict[str, Trial]:
    """Return a trial by query; none where no classes are given, for the spike rates alone."""
    found = distances(model, features)
    if seen is None or unseen is None:
        return {}
    return {q: Trial(d, features.labels, seen, unseen) for q, d in found.items()}


def test_trials(model: ZeroShotClassifier, data: zs.ZeroShotData) -> dict[str, Trial]:
    """Return the trials of the test by query."""
    return trials(model, data.split("test").features, data.seen, data.unseen)


def score_zero_shot(
    model: ZeroShotClassifier, data: zs.ZeroShotData, split: str, samples: int | None = None
) -> dict[str, Any]:
    """Return samples, accuracy, loss, confusion of a split; for the test also S, U, HM, ZSL.

    accuracy: share of right answers among all classes of the test. loss: mean distance to the true
    class. On splits that were trained on, and where samples are of one kind of class only, seen,
    unseen, hm and zsl are None. by_query: the four measures for every query; other_alignment: with
    the texts of the other alignment, same weights.
    """
    part = data.split(split).features
    if samples is not None:
        part = part.take(np.arange(min(samples, len(part))))
    both = all(np.isin(part.labels, c).any() for c in (data.seen, data.unseen))
    found = trials(model, part, data.seen, data.unseen) if split == "test" and both else None
    plain = distances(model, part)[model.query]
    answers = _answers(model, plain, data)
    labels, classes = part.labels, len(data.classes)
    confusion = multiclass_confusion_matrix(
        torch.from_numpy(answers), torch.from_numpy(labels), classes
    )
    result: dict[str, Any] = {
        "samples": len(labels),
        "accuracy": float((answers == labels).mean()),
        "loss": float(plain[np.arange(len(labels)), labels].mean()),
        "confusion": confusion.tolist(),
        **dict.fromkeys(("seen", "unseen", "hm", "zsl", "empty")),
        "seen_bias": model.bias_of(model.query),
        "query": model.query,
        "seen_classes": len(data.seen),
        "unseen_classes": len(data.unseen),
        "misaligned_classes": len(data.misaligned),
        "notes": list(data.notes),
    }
    if found is None:
        return result
    by_query = {q: t.scores(model.bias_of(q)) for q, t in found.items()}
    result |= asdict(by_query[model.query])
    result["by_query"] = {q: asdict(s) for q, s in by_query.items()}
    result["other_alignment"] = _other_alignment(model, data, part)
    return result


def _answers(model: ZeroShotClassifier, plain: np.ndarray, data: zs.ZeroShotData) -> np.ndarray:
    """Return the nearest class of every sample, seen ones farther by the bias."""
    shifted = plain.copy()
    shifted[:, data.seen] += model.bias_of(model.query)
    return data.sought[shifted[:, data.sought].argmin(axis=1)]


def _other_alignment(
    model: ZeroShotClassifier, data: zs.ZeroShotData, part: zs.Features
) -> dict[str, Any] | None:
    """Return the measures with the class texts the other way, None where there is one way only."""
    if data.text_compat is None:
        return None
    mine = model.text.numpy()
    other = next(a for a in zs.ALIGNMENTS if not np.array_equal(data.embeddings(a), mine))
    kept = model.text
    try:
        model.text = torch.from_numpy(np.array(data.embeddings(other)))
        trial = trials(model, part, data.seen, data.unseen)[model.query]
        scores: GzslScores = trial.scores(model.bias_of(model.query))
    finally:
        model.text = kept
    return {"text_alignment": other, **asdict(scores)}
