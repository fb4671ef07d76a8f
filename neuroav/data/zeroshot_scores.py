"""Seen, unseen, their harmonic mean, and zero-shot accuracy, from distances to classes.

With distances d (samples, classes), classes S seen and U unseen, and a bias b:

    answer   = argmin_c d[., c] + b [c in S]          over c in S and U
    recall_c = share of the samples of c with answer c
    S, U     = mean of recall_c over the classes of S, of U;  HM = 2 S U / (S + U)
    ZSL      = mean of recall_c over U with the answer sought in U alone

as in the AVCA benchmark (its ``utils.py``). A class without samples has no recall: it is left out
of the mean and counted, where the released code divides by zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from neuroav.data.zeroshot import ZeroShotData
from neuroav.errors import DataError


@dataclass(frozen=True)
class GzslScores:
    """Fractions; empty: classes without a sample, left out of the means."""

    seen: float
    unseen: float
    hm: float
    zsl: float
    empty: int = 0


@dataclass(frozen=True, eq=False)
class Trial:
    """Distances to compare answers of. distances (N, C) float, smaller is nearer; labels (N,)
    int64; seen, unseen: the classes sought, ascending int64, disjoint."""

    distances: np.ndarray
    labels: np.ndarray
    seen: np.ndarray
    unseen: np.ndarray

    def __post_init__(self) -> None:
        if self.distances.ndim != 2 or len(self.distances) != len(self.labels):
            raise DataError(
                f"distances {self.distances.shape} do not fit {len(self.labels)} labels"
            )
        if not np.isfinite(self.distances).all():
            raise DataError("distances to classes are NaN or infinite; train again")
        both = np.intersect1d(self.seen, self.unseen)
        if len(both):
            raise DataError(f"classes {both.tolist()} are both seen and unseen")
        for kind, classes in (("seen", self.seen), ("unseen", self.unseen)):
            if not np.isin(self.labels, classes).any():
                raise DataError(f"there is no sample of any {kind} class, so no accuracy on them")

    def answers(self, bias: float) -> np.ndarray:
        """Return the class of every sample, sought among seen and unseen ones, (N,) int64."""
        shifted = self.distances.astype(np.float64)
        shifted[:, self.seen] += bias
        sought = np.union1d(self.seen, self.unseen)
        return sought[shifted[:, sought].argmin(axis=1)]

    def scores(self, bias: float) -> GzslScores:
        """Return all four measures at a bias of the seen classes."""
        answers = self.answers(bias)
        seen, none_seen = _mean_recall(answers, self.labels, self.seen)
        unseen, none_unseen = _mean_recall(answers, self.labels, self.unseen)
        alone = self.unseen[self.distances[:, self.unseen].argmin(axis=1)]
        zsl, _ = _mean_recall(alone, self.labels, self.unseen)
        hm = 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0
        return GzslScores(seen, unseen, hm, zsl, none_seen + none_unseen)


def _mean_recall(answers: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> tuple[float, int]:
    """Return (mean recall over the classes that have samples, number of classes without)."""
    recalls = [
        float((answers[mine] == c).mean())
        for c in classes
        if len(mine := np.flatnonzero(labels == c))
    ]
    return float(np.mean(recalls)), len(classes) - len(recalls)


def deployed_scores(
    scores: np.ndarray, labels: np.ndarray, data: ZeroShotData
) -> GzslScores | None:
    """Return the measures of a deployment's class scores (N, sought), larger is better.

    labels: places among ``data.sought``. The bias of the seen classes is in the scores already.
    None where no sample of a seen, or of an unseen class is among them.
    """
    seen = np.flatnonzero(np.isin(data.sought, data.seen))
    unseen = np.flatnonzero(np.isin(data.sought, data.unseen))
    if not (np.isin(labels, seen).any() and np.isin(labels, unseen).any()):
        return None
    return Trial(-scores.astype(np.float64), labels, seen, unseen).scores(0.0)


def largest_bias(trial: Trial) -> float:
    """Return the bias above which no sample is given to a seen class any more."""
    nearest = trial.distances[:, trial.unseen].min(axis=1) - trial.distances[:, trial.seen].min(
        axis=1
    )
    return max(float(nearest.max()), 0.0)


def calibrate(validation: Trial, levels: int) -> tuple[float, GzslScores]:
    """Return the bias with the best HM of a validation trial, the smallest of equals, and scores.

    Tried are ``levels`` values from 0 to ``largest_bias``; the published grid is 16 from 0 to 3.
    """
    tried = np.linspace(0.0, largest_bias(validation), levels)
    found = [validation.scores(float(b)) for b in tried]
    best = int(np.argmax([s.hm for s in found]))
    return float(tried[best]), found[best]
