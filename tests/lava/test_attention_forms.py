"""Every form of cross-modal attention: the same spikes in reference, fast and Lava's runtime."""

from __future__ import annotations

import numpy as np
import pytest
import samples

from neuroav import integer as ig
from neuroav.counts import silent_and_saturated
from neuroav.deployment import Deployment
from neuroav.sim import fast, lava, reference
from neuroav.sim.trace import collect
from neuroav_export import compile_module

pytestmark = pytest.mark.lava

FORMS = {  # embed_dim, steps, switches of ScmrlConfig
    "spatial": (32, 4, {"form": "spatial"}),
    "temporal": (32, 4, {"form": "temporal"}),
    "spatiotemporal, faithful": (
        32, 4, {"form": "spatiotemporal", "mode": "faithful", "attention_threshold": 0.5,
                "residual_threshold": 0.3},
    ),
    "spatiotemporal, correct": (32, 4, {"form": "spatiotemporal", "residual_threshold": 0.3}),
    "spatiotemporal, gain and norm": (
        32, 4, {"form": "spatiotemporal", "residual_gain": 16.0, "residual_norm": True},
    ),
    "mask": (32, 4, {"form": "mask", "attention_threshold": 2.0}),
    "spatiotemporal, D=64": (64, 4, {"form": "spatiotemporal", "residual_threshold": 0.3}),
    "spatiotemporal, T=10": (32, 10, {"form": "spatiotemporal", "residual_threshold": 0.3}),
}  # fmt: skip
THREE = "three modalities"


def deploy(name: str) -> tuple[Deployment, dict[str, np.ndarray]]:
    """Return a network in which everything fires, and 32 samples for it."""
    if name == THREE:
        example = samples.load_script(samples.ROOT / "examples" / "three_modalities.py")
        model = samples.wake_inputs(example.network(), inputs := example.events(32, seed=3)[0])
    else:
        width, steps, switches = FORMS[name]
        model = samples.awake_scmrl(steps, embed_dim=width, **switches)
        inputs = samples.poisson_inputs(32, steps, seed=5)
    return compile_module(model, {n: v[:4] for n, v in inputs.items()}), inputs


@pytest.fixture(scope="module")
def networks():
    return {name: deploy(name) for name in (*FORMS, THREE)}


@pytest.fixture(scope="module")
def by_lava(networks):
    jobs = [(d, {n: v[:8] for n, v in x.items()}) for d, x in networks.values()]
    return dict(zip(networks, lava.run_many(jobs), strict=True))


@pytest.fixture(scope="module")
def by_fast(networks):
    return {name: collect(fast.run(d, x)) for name, (d, x) in networks.items()}


@pytest.mark.parametrize("name", [*FORMS, THREE])
def test_every_node_fires_and_lava_gives_the_same(networks, by_fast, by_lava, name):
    graph, outputs = networks[name][0].integer, by_fast[name]
    rates = {n: float((v[:8] != 0).mean()) for n, v in outputs.items()}
    assert silent_and_saturated(graph, rates) == ([], []), rates
    places = int(
        np.prod(graph.populations[next(n for n in rates if n.endswith("tokens"))].shape[1:])
    )
    assert places <= 16
    assert set(by_lava[name]) == set(outputs)
    for node, value in by_lava[name].items():
        assert np.array_equal(value, outputs[node][:8]), node


@pytest.mark.parametrize("name", [*FORMS, THREE])
def test_fast_is_the_reference_on_all_samples(networks, by_fast, name):
    expected = collect(reference.run(*networks[name]))
    for node, value in expected.items():
        assert np.array_equal(value, by_fast[name][node]), node


def test_a_sample_takes_two_passes_and_streams(networks):
    """What needs the whole sample adds its length to the latency once, not to the throughput."""
    causal, whole = (networks[n][0].integer for n in ("spatial", "spatiotemporal, correct"))
    assert whole.latency[whole.output] > causal.latency[causal.output] + 2 * whole.steps
    holding = [p for p in whole.populations.values() if p.holds]
    assert {type(p) for p in holding} == {ig.IntTimeSum, ig.IntTemporalAttention}
    assert not [p for p in causal.populations.values() if p.holds]
