"""lava-dl's own convolutional network, layer by layer: every executor gives its ground truth.

tiny.net and its arrays are lava-dl's (tests/lava/lib/dl/netx, BSD-3-Clause): three layers, fed by
a bias per pixel. lava-dl's frame 0 holds nothing, so ours are its frames 1 to 15. Its parameters
become ours as in lava-dl's netx: du = iDecay - 1, dv = vDecay, vth = vThMant, biases times 2^6.
"""

import h5py
import numpy as np
import pytest
from strategies_intgraph import make_deployment

from neuroav import integer as ig
from neuroav.sim import fast, lava, reference
from neuroav.sim.trace import collect

FRAMES = 15
EXECUTORS = {
    "reference": reference.run,
    "fast": fast.run,
    "lava": lambda *job: lava.run(*job),
    "lava, inline": lambda *job: lava.run(*job, engine="inline"),
    "lava, all stock": lambda *job: lava.run(*job, conv="stock", engine="inline"),
}


def _lif(shape, file, number: int, bias, projection) -> ig.IntLif:
    neuron = file[f"layer/{number}/neuron"]
    decay_u, decay_v, threshold = (int(neuron[k][()]) for k in ("iDecay", "vDecay", "vThMant"))
    per_neuron = np.asarray(bias, np.int64).reshape(-1, 1, 1) if np.ndim(bias) == 1 else bias
    return ig.IntLif(shape, (projection,), per_neuron, 6, np.array(threshold), decay_u - 1, decay_v)


def _conv(file, number: int, source: str) -> ig.IntConv2d:
    layer = file[f"layer/{number}"]
    stride, padding, dilation = (
        tuple(int(x) for x in layer[k]) for k in ("stride", "padding", "dilation")
    )
    weight = layer["weight"][..., 0].astype(np.int64)
    return ig.IntConv2d(source, 0, weight, stride, padding, dilation, 1, 8, "mixed")


@pytest.fixture(scope="module")
def network(vectors):
    """Return the deployment, its inputs, which are silent, and the ground truth by population."""
    folder = vectors / "netx_tiny"
    arrays = {
        k: np.load(folder / f"{k}.npy", allow_pickle=False)
        for k in ("input", "current", "layer1", "output", "input_bias")
    }
    bias = arrays.pop("input_bias").transpose(2, 1, 0).astype(np.int64)
    with h5py.File(folder / "tiny.net") as file:
        shapes = [tuple(int(n) for n in file[f"layer/{i}/shape"]) for i in range(3)]
        first, second = (file[f"layer/{i}/bias"][()] for i in (1, 2))
        nothing = ig.IntIdentity("silence", 0, 1)
        populations = {
            "silence": ig.IntInput(shapes[0], (), 1),
            "input": _lif(shapes[0], file, 0, bias, nothing),
            "current": ig.IntSum(shapes[1], (_conv(file, 1, "input"),)),
            "layer1": _lif(shapes[1], file, 1, first, _conv(file, 1, "input")),
            "output": _lif(shapes[2], file, 2, second, _conv(file, 2, "layer1")),
            "end": ig.IntReadout(shapes[2], (ig.IntIdentity("output", 0, 1),), np.array([0])),
        }
    truth = {k: np.moveaxis(v[0], -1, 0)[1:].astype(np.int64) for k, v in arrays.items()}
    inputs = {"silence": np.zeros((2, FRAMES, *shapes[0]), np.int64)}
    return make_deployment(populations, "end", FRAMES), inputs, truth


def test_the_ground_truth_is_alive(network):
    _, _, truth = network
    assert {k: int((v != 0).sum()) for k, v in truth.items()} == {
        "input": 6783, "current": 12076, "layer1": 1633, "output": 92,
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
