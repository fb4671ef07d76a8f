"""Operations of PyTorch in forward: what is traced computes what torch computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from neuroav import nodes as rn
from neuroav.errors import StageError, UnsupportedModule
from neuroav.models.layers import Delay, Lif, LifParameters, PerStep, TimeMean
from neuroav.sim.real import forward
from neuroav_export.pipeline import compile_module, run_in_float64
from neuroav_export.trace import of_run, trace
from neuroav_export.tracing.values import reshaped

LIF = LifParameters(v_threshold=0.2)


class Net(nn.Module):
    """conv - lif - ``function(self, spikes)``, which returns class scores (B, K)."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        self.conv, self.lif = PerStep(nn.Conv2d(1, 4, 3, padding=1)), Lif(LIF)
        self.head = nn.Linear(4, 3)
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.function(self, self.lif(self.conv(x)))


def head(m, z):
    return m.head(z.mean((-2, -1))).mean(0)


def frames(m, z, layer):
    return layer(z.flatten(0, 1)).view(*z.shape[:2], *layer(z.flatten(0, 1)).shape[1:])


FOUND = {
    "means over places": (head, {}, "SpatialMean"),
    "sum over places": (lambda m, z: m.head(z.sum(dim=[3, 4])).mean(0), {}, "SpatialSum"),
    "adaptive pooling": (
        lambda m, z: m.head(m.pool(z.flatten(0, 1)).flatten(1)).unflatten(0, z.shape[:2]).mean(0),
        {"pool": nn.AdaptiveAvgPool2d(1)}, "SpatialMean",
    ),
    "average pooling": (
        lambda m, z: head(m, m.pool(z.flatten(0, 1)).unflatten(0, z.shape[:2])),
        {"pool": nn.AvgPool2d(2, stride=1, padding=1)}, "AvgPool2d",
    ),
    "pooling by a function": (
        lambda m, z: head(m, functional.avg_pool2d(z.flatten(0, 1), 3).unflatten(0, z.shape[:2])),
        {}, "AvgPool2d",
    ),
    "max pooling": (
        lambda m, z: head(m, functional.max_pool2d(z.flatten(0, 1), 2).unflatten(0, z.shape[:2])),
        {}, "MaxPool2d",
    ),
    "turned": (lambda m, z: m.wide(z.movedim(2, -1).flatten(2)).mean(0),
               {"wide": nn.Linear(144, 3)}, "Permute"),
    "transposed": (lambda m, z: m.wide(z.transpose(-1, -2).flatten(2)).mean(0),
                   {"wide": nn.Linear(144, 3)}, "Permute"),
    "reshaped": (
        lambda m, z: m.head(m.c(z.reshape(-1, 16, 3, 3)).view(*z.shape[:2], 4, -1)
                            .mean(3)).mean(0),
        {"c": nn.Conv2d(16, 4, 1)}, "Reshape",
    ),
    "unflattened": (
        lambda m, z: m.head(m.c(m.un(z.flatten(2).flatten(0, 1))).flatten(1)).unflatten(
            0, z.shape[:2]).mean(0),
        {"un": nn.Unflatten(1, (16, 3, 3)), "c": nn.Conv2d(16, 4, 3)}, "Reshape",
    ),
    "side by side": (
        lambda m, z: m.wide(torch.cat([z.flatten(2), m.late(z).flatten(2)], -1)).mean(0),
        {"wide": nn.Linear(288, 3), "late": Delay(2)}, "Concat",
    ),
    "upsampled": (
        lambda m, z: m.head(m.up(z.flatten(0, 1)).unflatten(0, z.shape[:2]).mean((3, 4))).mean(0),
        {"up": nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1, output_padding=1, groups=2)},
        "ConvTranspose2d",
    ),
    "grouped": (
        lambda m, z: head(m, m.c(z.flatten(0, 1)).unflatten(0, z.shape[:2])),
        {"c": nn.Conv2d(4, 4, 3, stride=2, dilation=2, padding=2, groups=2)}, "Conv2d",
    ),
    "added": (lambda m, z: head(m, z + 2.5 * m.lif2(m.c(z))),
              {"c": PerStep(nn.Conv2d(4, 4, 1)), "lif2": Lif(LIF)}, "Add"),
    "factors": (lambda m, z: (m.head(-3 * z.mean((-2, -1)) / 4) * -0.5).sum(0) / 7, {}, "Dense"),
    "multiplied": (lambda m, z: head(m, z * m.lif2(m.c(z))),
                   {"c": PerStep(nn.Conv2d(4, 4, 1)), "lif2": Lif(LIF)}, "Product"),
    "cast": (lambda m, z: head(m, z.float().to(torch.float16).contiguous()), {}, "SpatialMean"),
    "last step": (lambda m, z: m.head(z.mean((3, 4)))[-1], {}, "TimeLast"),
    "last spikes": (lambda m, z: z.mean((3, 4))[-1], {}, "Li"),
    "head of the last step": (lambda m, z: m.head(z[-1].mean((2, 3))), {}, "TimeLast"),
    "read once": (lambda m, z: m.head(z.mean((3, 4)).mean(0)), {}, "TimeMean"),
    "dropped": (lambda m, z: head(m, functional.dropout(z, 0.3, m.training)), {}, "SpatialMean"),
}  # fmt: skip
# class scores are means of currents there, without neurons
CURRENTS = ("reshaped", "unflattened", "upsampled", "grouped")
X = {"x": (np.random.default_rng(0).random((5, 3, 1, 6, 6)) < 0.4).astype(float)}


@pytest.mark.parametrize("case", FOUND)
def test_an_operation_computes_what_torch_computes(case):
    torch.manual_seed(1)
    function, more, kind = FOUND[case]
    net = Net(function, **more).double().eval()
    graph = trace(net, X)
    assert kind in {type(n).__name__ for n in graph.nodes.values()}
    x = torch.from_numpy(X["x"])
    with torch.no_grad():
        found = forward(graph, {"x": x})
    assert 0.1 < found["lif"].mean() < 0.9
    expected = run_in_float64(net, [x])
    assert expected.std() > 0
    torch.testing.assert_close(found[graph.output][0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", [c for c in FOUND if c not in CURRENTS])
def test_what_is_traced_compiles(case):
    function, more, _ = FOUND[case]
    sample = {"x": np.moveaxis(X["x"], 1, 0).astype(np.int64)}
    torch.manual_seed(1)
    deployment = compile_module(Net(function, **more), sample, max_count={"x": 1})
    assert deployment.integer.populations[deployment.integer.output].neurons in (3, 4)


def test_a_sequence_of_plain_layers_needs_no_layer_of_ours_but_neurons():
    net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(), Lif(LIF), nn.Linear(8, 3), TimeMean())
    graph = trace(net.double().eval(), {"x": np.ones((4, 2, 6))})
    assert [type(graph.nodes[n]).__name__ for n in graph.order] == [
        "Input", "Dense", "Lif", "Dense", "TimeMean",
    ]  # fmt: skip


def test_both_ways_of_tracing_agree():
    torch.manual_seed(0)
    net = nn.Sequential(
        PerStep(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4))), Lif(LIF),
        PerStep(nn.MaxPool2d(2)), nn.Flatten(2), nn.Linear(16, 3), TimeMean(),
    ).double().eval()  # fmt: skip
    x = torch.from_numpy(X["x"])
    one, two = trace(net, X), of_run(net, X)
    kinds = [sorted(type(n).__name__ for n in g.nodes.values()) for g in (one, two)]
    assert kinds[0] == kinds[1]
    with torch.no_grad():
        a, b = (forward(g, {"x": x})[g.output] for g in (one, two))
    assert torch.equal(a, b)
    assert {"1", "0.0", "0.1", "4"} <= set(one.nodes) & set(two.nodes)


REFUSED = {
    "activation": (lambda m, z: head(m, torch.sigmoid(z)), "activation", UnsupportedModule),
    "softmax": (lambda m, z: head(m, z).log_softmax(1), "softmax", UnsupportedModule),
    "samples mixed": (lambda m, z: head(m, z).mean(0, keepdim=True), "mean", UnsupportedModule),
    "steps torn": (lambda m, z: m.head(z.view(z.shape[0], -1, 4).mean(0)), "layout",
                   UnsupportedModule),
    "part of it": (lambda m, z: head(m, z[:, :, :, 1:]), "index", UnsupportedModule),
    "written": (lambda m, z: head(m, z.index_fill(2, torch.tensor([0]), 0.0)), "operation",
                UnsupportedModule),
    "sigma": (lambda m, z: head(m, z * torch.rand(4, 6, 6)), "product", UnsupportedModule),
    "uneven windows": (
        lambda m, z: head(m, functional.avg_pool2d(
            z.flatten(0, 1), 3, 2, 1, count_include_pad=False).unflatten(0, z.shape[:2])),
        "average-pool", UnsupportedModule,
    ),
    "places kept": (lambda m, z: m.other(z).mean((0, 2, 3)), "layout", UnsupportedModule),
    "as a number": (lambda m, z: head(m, z) * float(z.mean()), "control-flow", UnsupportedModule),
    "other steps": (lambda m, z: head(m, torch.stack([*z.unbind()[1:], z[0]])), "concat",
                    UnsupportedModule),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_chip_has_not_is_refused_by_its_rule(case):
    function, rule, error = REFUSED[case]
    net = Net(function, other=nn.Linear(6, 3)).double().eval()
    with pytest.raises(error) as caught:
        of_run(net, X)
    assert caught.value.rule == rule, str(caught.value)


def test_shapes_of_weights_must_fit():
    class Wrong(nn.Conv2d):
        def forward(self, x):
            return super().forward(x)

    net = Net(head, more=Wrong(4, 4, 1))
    net.function = lambda m, z: head(m, m.more(z.flatten(0, 1)).unflatten(0, z.shape[:2]))
    with pytest.raises((UnsupportedModule, StageError)):
        trace(net.double(), X)


@pytest.mark.parametrize(
    ("axes", "sizes", "new", "expected"),
    [
        ("TBF", (5, 3, 8), (15, 8), ("TB", "F")),
        ("BTFFF", (3, 5, 4, 6, 6), (15, 4, 36), ("BT", "F", "F")),
        (("TB", "F", "F"), (15, 4, 6), (5, 3, 24), ("T", "B", "F")),
        ("TBFF", (5, 3, 6, 4), (5, 3, 4, 6), ("T", "B", "F", "F")),
        ("TBF", (5, 3, 8), (5, 1, 3, 8, 1), ("T", "F", "B", "F", "F")),
        ("BF", (3, 8), (24,), None),
        ("TBF", (5, 3, 8), (3, 5, 8), None),
        ("TBF", (5, 3, 8), (5, 24), None),
    ],
)
def test_axes_after_a_reshape(axes, sizes, new, expected):
    assert reshaped(tuple(axes), sizes, new, 5, 3) == expected


def test_delay_and_neurons_of_a_layer_keep_their_own_parameters():
    net = nn.Sequential(
        nn.Linear(6, 8, bias=False), Delay(2), Lif(LIF), nn.Linear(8, 3), TimeMean()
    )
    graph = trace(net.double().eval(), {"x": np.ones((5, 2, 6))})
    assert isinstance(graph.nodes["1"], rn.Delay)
    assert graph.nodes["1"].steps == 2
