"""Batches: what reaches a network in training."""

from __future__ import annotations

import numpy as np
import torch

from neuroav.training.batches import drop_modalities


def test_a_share_of_the_samples_lacks_exactly_one_modality():
    inputs = [torch.ones(4, 200, 2, 3), torch.ones(4, 200, 5)]
    audio, visual = drop_modalities(inputs, 0.5, np.random.default_rng(0))
    heard, seen = audio.flatten(2).amin(dim=(0, 2)), visual.amin(dim=(0, 2))
    assert (audio.flatten(2).amax(dim=(0, 2)) == heard).all()  # whole samples, all steps
    assert (heard + seen >= 1).all()
    lost = (heard == 0).sum(), (seen == 0).sum()
    assert 30 < lost[0] < 70
    assert 30 < lost[1] < 70


def test_one_modality_or_no_share_changes_nothing():
    rng = np.random.default_rng(0)
    one = [torch.ones(2, 8, 3)]
    two = [*one, torch.ones(2, 8, 3)]
    assert drop_modalities(one, 1.0, rng) is one
    assert drop_modalities(two, 0.0, rng) is two
    assert rng.random() == np.random.default_rng(0).random()
