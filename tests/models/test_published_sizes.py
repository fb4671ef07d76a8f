"""The three published configurations compile; neurons and synapses are those worked out by hand.

Stem and pool neurons of both modalities, attention state per direction, from the shapes of S-CMRL's
released configurations (arXiv 2502.12488): spatial state D d in key-value form, temporal state
N H min(d^2, T^2), d = D / 16 channels per head; 4 N D d synapses of spatial attention.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neuroav import integer as ig
from neuroav.models import build_model
from neuroav.synapses import attention_forms, synapse_count
from neuroav.training.config import ModelConfig, ScmrlConfig
from neuroav_export import compile_module

STATIC = {"audio": (1, 128, 128), "visual": (3, 128, 128)}
EVENTS = {"audio": (1, 28, 28), "visual": (2, 28, 28)}
PUBLISHED = {
    # D, T, stem, inputs, classes; stem neurons, pool neurons, spatial state, its synapses,
    # temporal state and its form
    "CREMA-D": (256, 4, "deep", STATIC, 6, 1_998_848, 491_520, 4096, 1_048_576, 16_384, "score"),
    "UrbanSound8K-AV": (
        64, 4, "deep", STATIC, 10, 499_712, 122_880, 256, 65_536, 16_384, "key-value",
    ),
    "MNISTDVS-NTIDIGITS, D=64": (
        64, 16, "shallow", EVENTS, 10, 81_536, 18_816, 256, 50_176, 12_544, "key-value",
    ),
}  # fmt: skip
COINCIDENCE = {  # 2 N D d + D d
    "CREMA-D": 528_384,
    "UrbanSound8K-AV": 33_024,
    "MNISTDVS-NTIDIGITS, D=64": 25_344,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_counts_of_the_published_configurations(name):
    width, steps, stem, shapes, classes, *expected = PUBLISHED[name]
    torch.manual_seed(0)
    config = ModelConfig(name="scmrl", stem=stem, embed_dim=width)
    switches = ScmrlConfig(mode="faithful", heads=16)
    model = build_model(config, shapes, classes, switches).eval()
    rng = np.random.default_rng(0)
    inputs = {n: rng.poisson(0.5, (1, steps, *s)).astype(np.int32) for n, s in shapes.items()}
    graph = compile_module(model, inputs).integer

    def state(kind, where):
        return sum(p.state_neurons(steps) for n, p in graph.populations.items()
                   if type(p) is kind and n.startswith(where))  # fmt: skip

    attentions = {n: p for n, p in graph.populations.items() if isinstance(p, ig.ATTENTION_CLASSES)}
    assert len(attentions) == 4
    spatial = next(n for n in attentions if n.endswith("spatial.attention"))
    temporal = next(n for n in attentions if n.endswith("temporal.attention"))
    found = [
        state(ig.IntLif, "stem"),
        state(ig.IntOr, "stem"),
        attentions[spatial].state_neurons(steps),
        synapse_count(graph, spatial),
        attentions[temporal].state_neurons(steps),
        attentions[temporal].form,
    ]
    assert found == expected
    for attention in attentions.values():
        forms = attention_forms(attention, steps)
        assert attention.state_neurons(steps) == min(forms.values())
    forms = attention_forms(attentions[spatial], steps)
    assert forms["coincidence"] == COINCIDENCE[name]
    assert all(p.cap == 8 for p in attentions.values())  # threshold 1, scale 0.25, leak one half


# stem neurons and pool neurons without the first convolution, its neurons and their pooling (32 or
# 8 channels of 128 x 128 and 64 x 64, twice), and the whole network in millions
WITHOUT_THE_FIRST_STAGE = {
    "CREMA-D": (950_272, 229_376, 1.81),
    "UrbanSound8K-AV": (237_568, 57_344, 0.48),
}


@pytest.mark.parametrize("name", WITHOUT_THE_FIRST_STAGE)
def test_first_stage_on_the_host(name):
    width, steps, stem, shapes, classes, *_ = PUBLISHED[name]
    torch.manual_seed(0)
    config = ModelConfig(name="scmrl", stem=stem, embed_dim=width)
    model = build_model(config, shapes, classes, ScmrlConfig(mode="faithful", heads=16)).eval()
    rng = np.random.default_rng(0)
    pictures = {n: np.repeat(rng.normal(size=(1, 1, *s)), steps, 1) for n, s in shapes.items()}
    deployment = compile_module(model, pictures, static=tuple(shapes), host="spikes")
    graph = deployment.integer
    found = [
        sum(p.neurons for n, p in graph.populations.items() if type(p) is kind and "stem" in n)
        for kind in (ig.IntLif, ig.IntOr)
    ]
    *expected, millions = WITHOUT_THE_FIRST_STAGE[name]
    assert found == expected
    relays = sum(p.neurons for p in graph.populations.values() if type(p) is ig.IntSum)
    # relays of sums are neurons here, and were not counted there
    assert (deployment.neurons - relays) / 1e6 == pytest.approx(millions, abs=0.006)
    channels = width // 8
    assert deployment.host_macs == channels * 128 * 128 * 9 * (1 + 3)
    assert {p.shape for p in graph.inputs.values()} == {(channels, 64, 64)}
