"""lava-dl's own convolutional network, layer by layer: every executor gives its ground truth.

tiny.net and its arrays are lava-dl's (tests/lava/lib/dl/netx, BSD-3-Clause): three layers, the
first driven by a bias per pixel. lava-dl's frame 0 holds nothing, so ours are its frames 1 to 15.
"""

from dataclasses import replace

import numpy as np
import pytest

from neuroav import integer as ig
from neuroav.sim import fast, lava, real, reference
from neuroav.sim.trace import collect
from neuroav.stages import verify_integer
from neuroav_export.readers.netx import read_netx

FRAMES = 15
LAYERS = {"input": "layer0", "current": "current", "layer1": "layer1", "output": "layer2"}
EXECUTORS = {
    "reference": reference.run,
    "fast": fast.run,
    "lava": lambda *job: lava.run(*job),
    "lava, inline": lambda *job: lava.run(*job, engine="inline"),
    "lava, all stock": lambda *job: lava.run(*job, conv="stock", engine="inline"),
}


@pytest.fixture(scope="module")
def network(vectors):
    """Return the deployment, the picture whose biases those are, and the truth by population.

    A population that shows the synaptic input of layer 1 is added to what was read.
    """
    folder = vectors / "netx_tiny"
    arrays = {k: np.load(folder / f"{k}.npy", allow_pickle=False) for k in (*LAYERS, "input_bias")}
    deployment = read_netx(folder / "tiny.net", steps=FRAMES)
    host = deployment.host["input.current"]
    picture = (arrays.pop("input_bias").transpose(2, 1, 0) - host.bias[0]) / host.weight.flat[0]
    graph = deployment.integer
    first = graph.populations["layer1"]
    probed = {"current": ig.IntSum(first.shape, first.projections), **graph.populations}
    scales = {"current": (1, 1), **graph.scales}
    graph = replace(graph, populations=probed, scales=scales)
    verify_integer(graph, deployment.profile.arithmetic)
    truth = {LAYERS[k]: np.moveaxis(v[0], -1, 0)[1:].astype(np.int64) for k, v in arrays.items()}
    inputs = {"input": np.broadcast_to(picture, (2, FRAMES, *picture.shape))}
    return replace(deployment, integer=graph), inputs, truth


def test_what_is_read(network):
    deployment, _, _ = network
    host = deployment.host["input.current"]
    assert (host.weight.flat[0], host.bias[0]) == (36, 34)
    for name in ("layer0", "layer1", "layer2"):
        pop = deployment.integer.populations[name]
        assert (pop.threshold.item(), pop.decay_u, pop.decay_v) == (25, 4095, 1024)
    assert deployment.integer.populations["layer1"].bias_mantissa.shape == (24, 1, 1)
    assert deployment.integer.output == "scores"
    assert len(deployment.classes) == 36


def test_the_ground_truth_is_alive(network):
    _, _, truth = network
    assert {k: int((v != 0).sum()) for k, v in truth.items()} == {
        "layer0": 6783, "current": 12076, "layer1": 1633, "layer2": 92,
    }  # fmt: skip
    assert truth["current"].min() < 0
    assert all(len(v) == FRAMES for v in truth.values())


@pytest.mark.lava
@pytest.mark.parametrize("name", EXECUTORS)
def test_every_layer_has_error_0(network, name):
    deployment, inputs, truth = network
    found = collect(EXECUTORS[name](deployment, inputs))
    for sample in range(2):  # the second follows the first without a pause
        for layer, value in truth.items():
            assert int(np.abs(found[layer][sample] - value).sum()) == 0, layer
        counts = truth["layer2"].sum(axis=0).reshape(-1)
        assert np.array_equal(found["scores"][sample, -1], counts)


def test_the_real_valued_twin_spikes_alike(network):
    deployment, inputs, truth = network
    found = collect(real.run(deployment.real, inputs))
    for layer in ("layer0", "layer1", "layer2"):
        assert np.array_equal(found[layer][0], truth[layer]), layer
