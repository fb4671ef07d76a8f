"""S, U, HM and ZSL against a transcription of the protocol in plain loops; guards; calibration."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroav.data.zeroshot_scores import Trial, calibrate, largest_bias
from neuroav.errors import DataError


def plain(distances, labels, seen, unseen, bias):
    """The protocol written out: one sample and one class at a time."""
    hits: dict[tuple[str, int], list[bool]] = {}
    for row, label in zip(distances, labels, strict=True):
        best, best_value = None, None
        for c in sorted([*seen, *unseen]):
            value = row[c] + (bias if c in seen else 0.0)
            if best_value is None or value < best_value:
                best, best_value = c, value
        hits.setdefault(("all", int(label)), []).append(best == label)
        alone = min(unseen, key=lambda c: (row[c], c))
        hits.setdefault(("alone", int(label)), []).append(alone == label)
    mean = lambda kind, classes: float(  # noqa: E731
        np.mean([np.mean(hits[kind, c]) for c in classes if (kind, c) in hits])
    )
    s, u, z = mean("all", seen), mean("all", unseen), mean("alone", unseen)
    return s, u, (2 * s * u / (s + u) if s + u else 0.0), z


@st.composite
def trials(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    classes = draw(st.integers(2, 9))
    order = rng.permutation(classes)
    cut = draw(st.integers(1, classes - 1))
    last = draw(st.integers(cut + 1, classes))
    seen, unseen = np.sort(order[:cut]), np.sort(order[cut:last])
    extra = rng.choice(np.concatenate([seen, unseen]), draw(st.integers(0, 30)))
    labels = np.concatenate([[seen[0], unseen[0]], extra]).astype(np.int64)
    # small integers make ties
    distances = rng.integers(0, 6, (len(labels), classes)) * 0.25
    return Trial(distances, labels, seen, unseen)


@given(trials(), st.floats(0, 2))
def test_scores_equal_the_plain_protocol(trial, bias):
    found = trial.scores(bias)
    expected = plain(trial.distances, trial.labels, trial.seen, trial.unseen, bias)
    assert (found.seen, found.unseen, found.hm, found.zsl) == pytest.approx(expected)
    present = np.unique(trial.labels)
    assert found.empty == len(trial.seen) + len(trial.unseen) - len(present)


@given(trials(), st.integers(2, 20))
def test_calibration_takes_the_best_level_and_the_smallest_of_equals(trial, levels):
    bias, scores = calibrate(trial, levels)
    tried = np.linspace(0, largest_bias(trial), levels)
    found = [trial.scores(float(b)).hm for b in tried]
    assert scores.hm == max(found)
    assert bias == tried[found.index(max(found))]
    above = trial.scores(largest_bias(trial) + 1e-6)
    assert above.seen == 0.0


def test_hm_is_0_where_one_side_is():
    trial = Trial(
        np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([0, 1]), np.array([0]), np.array([1])
    )
    scores = trial.scores(0.0)
    assert (scores.seen, scores.unseen, scores.hm, scores.zsl) == (1.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"distances": np.full((2, 3), np.nan)}, "NaN or infinite"),
        ({"labels": np.array([0])}, "do not fit 1 labels"),
        ({"unseen": np.array([0, 2])}, "both seen and unseen"),
        ({"labels": np.array([0, 0])}, "no sample of any unseen class"),
        ({"labels": np.array([2, 2])}, "no sample of any seen class"),
    ],
)
def test_what_cannot_be_measured_is_an_error(change, words):
    good = {
        "distances": np.zeros((2, 3)),
        "labels": np.array([0, 2]),
        "seen": np.array([0, 1]),
        "unseen": np.array([2]),
    }
    Trial(**good)
    with pytest.raises(DataError, match=words):
        Trial(**{**good, **change})
