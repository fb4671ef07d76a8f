"""Networks with one fault each, by the rule of ``docs/lint.md`` that they break."""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import torch
from norse.torch import LIFBoxCell, LIFCell, LIFRefracCell
from torch import nn
from torch.nn import functional

from neuroav.errors import NeuroavError
from neuroav.models.layers import (
    Add,
    Delay,
    Gain,
    Lif,
    LifParameters,
    PerStep,
    SpatialAttention,
    SpatialMean,
    TemporalAttention,
    TimeMean,
    TimeWeightedSum,
)
from neuroav_export import compile_module, lint
from neuroav_export.linting import deployable
from neuroav_export.linting.findings import NETWORK

RNG = np.random.default_rng(0)
X = {"x": RNG.poisson(1.0, (2, 3, 1, 6, 6)).astype(np.int32)}


def conv(inputs=1, outputs=4, **options):
    return PerStep(nn.Conv2d(inputs, outputs, 3, **{"padding": 1, **options}))


def chain(**layers):
    """Return these layers in sequence, by name."""
    return nn.Sequential(OrderedDict(layers))


def net(**layers):
    """Return conv - lif - head - time_mean with layers replaced, put after ``lif`` or left out."""
    middle = {n: m for n, m in layers.items() if n not in ("conv", "lif", "head", "end")}
    parts = {
        "conv": layers.get("conv") or conv(),
        "lif": layers.get("lif") or Lif(),
        **middle,
        "head": layers.get("head") or nn.Sequential(SpatialMean(), nn.Linear(4, 3)),
        "end": layers.get("end") or TimeMean(),
    }
    return chain(**{n: m for n, m in parts.items() if m is not None})


class Calls(nn.Module):
    """conv - lif - ``function(self, x)`` - mean - linear - time_mean, with more layers to call."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        self.conv, self.lif = conv(), Lif()
        self.mean, self.linear, self.time_mean = SpatialMean(), nn.Linear(4, 3), TimeMean()
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        x = self.function(self, self.lif(self.conv(x)))
        return self.time_mean(self.linear(self.mean(x)))


class Two(Calls):
    def forward(self, x, y):
        return super().forward(x + y)


class Pair(Calls):
    def forward(self, x):
        scores = super().forward(x)
        return scores, x


class Named(nn.Module):
    """A layer with the name of the input."""

    def __init__(self):
        super().__init__()
        self.x, self.rest = conv(), nn.Sequential(Lif(), SpatialMean(), nn.Linear(4, 3), TimeMean())

    def forward(self, x):
        return self.rest(self.x(x))


class Branch(nn.Module):
    """Does what its data say."""

    def __init__(self):
        super().__init__()
        self.act = nn.ReLU()

    def forward(self, x):
        if x.sum() > 3:
            x = x + x
        return self.act(x)


class Block(nn.Module):
    """A block that PerStep does not enter."""

    def __init__(self):
        super().__init__()
        self.act = nn.GELU()

    def forward(self, x):
        return self.act(x) + x


def altered(module, **norse):
    """Return neurons with these of Norse's parameters set."""
    module.norse = module.norse._replace(**{n: torch.tensor(v) for n, v in norse.items()})
    return module


def broken(layer):
    with torch.no_grad():
        layer.layer.weight.view(-1)[0] = math.nan
    return layer


def hooked(module):
    module.register_forward_hook(lambda _m, _x, out: 1 - out)
    return module


def joined(function, **layers):
    """Return a network whose q, k, v are neurons on three projections of the first spikes."""
    for name in "qkv":
        layers[f"{name}_conv"], layers[f"{name}_lif"] = conv(4, 4), Lif()

    def attend(m, x):
        q, k, v = (getattr(m, f"{n}_lif")(getattr(m, f"{n}_conv")(x)) for n in "qkv")
        return function(m, q, k, v)

    return Calls(attend, **layers)


def temporal():
    """Attention over the steps beside a residual that waits for it."""
    return joined(
        lambda m, q, k, v: m.add(m.out(m.attention(q, k, v)), v),
        attention=TemporalAttention(2), out=Lif(), add=Add(),
    )  # fmt: skip


def multi_head(m, x):
    tokens = m.mean_tokens(x)
    return m.attention(tokens, tokens, tokens, need_weights=False)[0]


def attention_net():
    net_ = Calls(lambda m, x: x, mean_tokens=SpatialMean())
    net_.function, net_.attention = multi_head, nn.MultiheadAttention(4, 2)
    net_.mean = nn.Identity()
    return net_


def in_time(m, x):
    return m.over(x.permute(1, 2, 0, 3, 4)).permute(2, 0, 1, 3, 4)


def forgetful(m, x):
    return torch.stack([m.cell(frame)[0] for frame in x])


def fed_back(m, x):
    z, state, spikes = torch.zeros(x.shape[1], 4, 3, 3, dtype=x.dtype), None, []
    for frame in x:
        spike, state = m.cell(frame + m.up(z), state)
        z = functional.max_pool2d(spike, 2)
        spikes.append(spike)
    return torch.stack(spikes)


WIDE = {"x": RNG.poisson(0.1, (1, 2, 1, 33, 33)).astype(np.int32)}
LONG = {"x": RNG.poisson(1.0, (1, 70, 1, 4, 4)).astype(np.int32)}

# rule -> network, layer that is named, part of the problem, options of lint
CASES = {
    "activation": (lambda: net(act=nn.Tanh()), "act", "Tanh cannot be compiled", {}),
    "softmax": (lambda: net(head=chain(mean=SpatialMean(), fc=nn.Linear(4, 3), p=nn.Softmax(-1))),
                "head.p", "Softmax cannot be", {}),
    "normalisation": (lambda: net(conv=PerStep(nn.Sequential(nn.Conv2d(1, 4, 1),
                                                             nn.GroupNorm(2, 4)))),
                      "conv.layer.1", "GroupNorm cannot be", {}),
    "attention": (attention_net, "attention", "MultiheadAttention cannot be", {}),
    "average-pool": (lambda: net(pool=PerStep(nn.AvgPool2d(4, ceil_mode=True))), "pool.layer",
                     "average pooling with ceil_mode", {}),
    "max-pool-form": (lambda: net(pool=PerStep(nn.MaxPool2d(4, ceil_mode=True))), "pool.layer",
                      "ceil_mode", {}),
    "batch-norm-form": (lambda: net(norm=PerStep(nn.SyncBatchNorm(4))), "norm.layer",
                        "SyncBatchNorm", {}),
    "convolution-form": (lambda: Calls(in_time, over=nn.Conv3d(4, 4, 1)), "over",
                         "Conv3d cannot", {}),
    "recurrent": (lambda: Calls(lambda m, x: m.lstm(m.places(x))[0], lstm=nn.LSTM(4, 4),
                                places=SpatialMean(), mean=nn.Identity()), "lstm", "LSTM", {}),
    "neuron": (lambda: Calls(lambda m, x: m.cell(x)[0], cell=LIFRefracCell()), "cell",
               "LIFRefracCell has no neuron", {}),
    "state": (lambda: Calls(forgetful, cell=LIFCell()), "cell", "no state after its first", {}),
    "dropout": (lambda: Calls(lambda m, x: functional.dropout(x, 0.5, True)), NETWORK,
                "dropout in forward", {}),
    "block": (lambda: net(block=PerStep(Block())), "block.layer", "Block cannot be", {}),
    "module": (lambda: net(up=PerStep(nn.Upsample(scale_factor=2))), "up.layer", "Upsample", {}),
    "product": (lambda: Calls(lambda m, x: x**3), NETWORK, "pow in forward cannot be", {}),
    "mean": (lambda: Calls(lambda m, x: x.mean(dim=2, keepdim=True).expand_as(x)), NETWORK,
             "mean in forward", {}),
    "concat": (lambda: Calls(lambda m, x: torch.cat([x[:, :, :2], x[:, :, 2:]], 2)), NETWORK,
               "cat in forward", {}),
    "reshape": (lambda: Calls(lambda m, x: x.roll(1, 3)), NETWORK, "roll in forward", {}),
    "index": (lambda: Calls(lambda m, x: x[..., 1:]), NETWORK, "getitem in forward", {}),
    "parameter": (lambda: Calls(lambda m, x: x + m.place, place=nn.Parameter(torch.ones(4, 1, 1))),
                  NETWORK, "place is used in forward (", {}),
    "operation": (lambda: Calls(lambda m, x: x.cummax(0)[0]), NETWORK, "cummax in forward", {}),
    "cast": (lambda: Calls(lambda m, x: x.int().double()), NETWORK, "int in forward", {}),
    "control-flow": (lambda: net(branch=Branch()), "branch", "if x.sum() > 3:", {}),
    "constants": (lambda: Calls(lambda m, x: x + 1), "add", "called with constants", {}),
    "twice": (lambda: Calls(lambda m, x: m.again_lif(m.again(m.again(x))), again=conv(4, 4),
                            again_lif=Lif()), "again", "is called twice", {}),
    "per-step": (lambda: net(conv=nn.Conv2d(1, 4, 3)), "conv", "Conv2d takes the frames", {}),
    "layout": (lambda: net(head=nn.Sequential(nn.Flatten(), nn.Linear(144, 3))), "head.0",
               "gives a tensor of shape (3, 288)", {}),
    "shape": (lambda: net(head=nn.Sequential(SpatialMean(), nn.Linear(5, 3))), "head.1",
              "weight is (3, 5), its source", {}),
    "names": (Named, "x", "is the name of a layer and of an input", {}),
    "inputs": (lambda: Two(lambda m, x: x), NETWORK, "argument 'y'", {}),
    "outputs": (lambda: Pair(lambda m, x: x), NETWORK, "returns several values", {}),
    "fails": (lambda: net(head=nn.Linear(144, 3)), "head", "fails on the sample: mat1", {}),
    "padding": (lambda: net(conv=conv(padding_mode="circular")), "conv.layer", "circular", {}),
    "batch-norm-statistics": (lambda: net(conv=PerStep(nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)))), "conv.layer.1",
        "without running statistics", {}),
    "batch-norm-place": (lambda: net(norm=PerStep(nn.BatchNorm2d(4))), "norm.layer",
                         "batch norm follows lif (Lif)", {}),
    "max-pool-place": (lambda: net(conv=PerStep(nn.Sequential(nn.Conv2d(1, 4, 1),
                                                              nn.MaxPool2d(2)))),
                       "conv.layer.1", "not binary", {}),
    "current": (lambda: net(conv=nn.Sequential(conv(), conv(4, 4))), "conv.1.layer",
                "reads synaptic currents", {}),
    "time-sum-bias": (lambda: net(head=chain(mean=SpatialMean(), embed=nn.Linear(4, 5),
                                             theta=TimeWeightedSum(3), fc=nn.Linear(5, 3))),
                      "head.theta", "a bias over the sample", {}),
    "spikes-needed": (lambda: joined(lambda m, q, k, v: m.out(m.attention(m.add(q, k), k, v)),
                                     attention=SpatialAttention(2), add=Add(), out=Lif()),
                      "attention", "needs spikes, ['add'] send integers", {}),
    "static-input": (lambda: net(conv=Lif(), lif=Lif()), "conv", "reads x, real values",
                     {"sample": {"x": np.ones((2, 3, 4, 6, 6))}, "static": ("x",)}),
    "reset": (lambda: net(lif=altered(Lif(), v_reset=0.5)), "lif", "v_reset is 0.5 and v_leak 0",
              {}),
    "threshold": (lambda: net(lif=altered(Lif(), v_th=-1.0)), "lif", "v_threshold is -1", {}),
    "time-constant": (lambda: net(lif=Lif(LifParameters(tau_mem_s=5e-4))), "lif",
                      "dt / tau_mem is 2", {}),
    "neuron-parameters": (lambda: net(lif=altered(Lif(), v_th=np.ones((4, 1, 1)))), "lif",
                          "v_th holds 4 values", {}),
    "time-step": (lambda: net(more=conv(4, 4), slow=Lif(LifParameters(dt_s=5e-4))), "slow",
                  "dt is 0.0005 s, that of other layers is 0.001 s", {}),
    "gain": (lambda: net(gain=Gain(-1.0)), "gain", "factor is -1.0", {}),
    "not-finite": (lambda: net(conv=broken(conv())), "conv.layer", "1 of 36 values are NaN", {}),
    "end": (lambda: net(end=nn.Identity()), "head.1", "never averaged over time", {}),
    "scales": (lambda: joined(lambda m, q, k, v: m.add(m.gain(q), k), gain=Gain(1000.0), add=Add()),
               "add", "needs a synapse of 1000", {}),
    "scores": (lambda: net(lif=hooked(Lif())), NETWORK, "class scores differ", {}),
    "graded": (net, "x", "sends counts up to 255", {"target": "loihi1"}),
    "loop": (lambda: Calls(fed_back, cell=LIFBoxCell(), up=nn.ConvTranspose2d(4, 4, 2, 2)), NETWORK,
             "feeds back max_pool2d", {}),
    "delay-bias": (lambda: net(conv=nn.Sequential(conv(), Delay(1))), "conv.1",
                   "delays currents with a bias", {}),
    "permute": (lambda: Calls(lambda m, x: m.out(m.again(x.transpose(3, 4))), again=conv(4, 4),
                              out=Lif()), NETWORK, "permutes", {"sample": WIDE}),
    "delay": (temporal, "add", "from v_lif: delay 72 exceeds the target's 62", {"sample": LONG}),
    "per-channel": (net, NETWORK, "one threshold per layer", {"target": "loihi1",
                                                              "per_channel": True}),
    "non-causal": (temporal, "attention", "answers when all 3 frames are there", {}),
}  # fmt: skip


def found_in(network, sample=X, **options):
    """Return the findings; the network must be deployable exactly if the compiler takes it."""
    found = lint(network, sample, **options)
    try:
        compile_module(network, sample, **options)
        compiles = True
    except (NeuroavError, RuntimeError):  # RuntimeError: torch's own, of a forward that cannot run
        compiles = False
    assert deployable(found) is compiles
    return found
