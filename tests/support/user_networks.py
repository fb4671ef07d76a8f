"""Networks as users of Norse and PyTorch write them, and what their neurons did."""

from __future__ import annotations

from collections.abc import Callable

import norse.torch as norse
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from neuroav.models.layers import (
    BatchFirst,
    Delay,
    Li,
    Lif,
    LifParameters,
    PerStep,
    RecurrentLif,
    SpatialMean,
    Steps,
    TimeLast,
    TimeMean,
    WholeSample,
)

QUICK = norse.LIFParameters(tau_mem_inv=torch.tensor(400.0), v_th=torch.tensor(0.3))
BOX = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(300.0), v_th=torch.tensor(0.4))
SOFT = BOX._replace(reset_method=norse.reset_subtract)
EACH = BOX._replace(v_th=torch.linspace(0.1, 0.45, 8))
RATES = norse.LIParameters(tau_mem_inv=torch.tensor(150.0), tau_syn_inv=torch.tensor(250.0))


class ConvLoop(nn.Module):
    """The convolutional network of Norse's own examples, with its buffer of voltages."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.lif0 = nn.Conv2d(1, 3, 3), norse.LIFCell(p=QUICK)
        self.conv2, self.lif1 = nn.Conv2d(3, 4, 3), norse.LIFBoxCell(p=BOX)
        self.fc1, self.lif2 = nn.Linear(16, 8), norse.LIFCell(p=QUICK)
        self.out = norse.LILinearCell(8, 5, RATES)

    def forward(self, x):
        steps, samples, *_ = x.shape
        s0 = s1 = s2 = so = None
        voltages = torch.zeros(steps, samples, 5, device=x.device, dtype=x.dtype)
        for ts in range(steps):
            z, s0 = self.lif0(2 * self.conv1(x[ts, :]), s0)
            z = functional.max_pool2d(z, 2, 2)
            z = 10 * self.conv2(z)
            z, s1 = self.lif1(z, s1)
            z = self.fc1(z.view(-1, 16))
            z, s2 = self.lif2(z, s2)
            v, so = self.out(functional.relu(z), so)
            voltages[ts, :, :] = v
        return voltages[-1]


class OwnLoop(nn.Module):
    """Recurrence by hand: spikes of the step before through weights of their own."""

    def __init__(self, started: bool = True, bias: bool = True) -> None:
        super().__init__()
        self.started = started
        self.fc, self.rec = nn.Linear(6, 8), nn.Linear(8, 8, bias=bias)
        self.lif, self.head = norse.LIFBoxCell(p=BOX), nn.Linear(8, 4)

    def forward(self, x):
        z = torch.zeros(x.shape[1], 8, dtype=x.dtype) if self.started else None
        state, total = None, 0
        for frame in x:
            current = self.fc(frame)
            if z is not None:
                current = current + self.rec(z)
            z, state = self.lif(current, state)
            total = total + self.head(z)
        return total / len(x)


class TwoBefore(OwnLoop):
    """What spikes two steps ago, kept in a list."""

    def forward(self, x):
        none = torch.zeros(x.shape[1], 8, dtype=x.dtype)
        spikes, state, scores = [none, none], None, []
        for t in range(x.size(0)):
            z, state = self.lif(self.fc(x[t]) + self.rec(spikes[-2]), state)
            spikes.append(z)
            scores += [self.head(z).unsqueeze(0)]
        return torch.cat(scores, dim=0).mean(0)


class Batched(nn.Module):
    """Samples first, frames folded into the batch for the convolution, two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif = nn.Conv2d(1, 4, 3, stride=2, padding=1), norse.LIF(p=QUICK)
        self.norm = nn.BatchNorm2d(4)
        self.left, self.right = nn.Linear(64, 8), nn.Linear(64, 8)
        self.lif2, self.head = norse.LIF(p=QUICK), nn.Linear(8, 3)

    def forward(self, x):
        samples, steps = x.shape[:2]
        y = self.norm(self.conv(x.reshape(samples * steps, *x.shape[2:])))
        y = y.view(samples, steps, *y.shape[1:]).permute(1, 0, 2, 3, 4)
        z, _ = self.lif(3 * y)
        z = z.flatten(2)
        z, _ = self.lif2(self.left(z) + 0.5 * self.right(z))
        return self.head(z.transpose(0, 1)).sum(dim=1)


class Rows(nn.Module):
    """One axis: Conv1d, and per-neuron thresholds."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif = nn.Conv1d(2, 4, 3, padding=1, groups=2), norse.LIFBoxCell(p=BOX)
        self.fc, self.each = nn.Linear(24, 8), norse.LIFBoxCell(p=EACH)
        self.fc2, self.readout = nn.Linear(8, 3), norse.LIBoxCell()

    def forward(self, x):
        s1 = s2 = s3 = None
        for step in x.unbind(0):
            z, s1 = self.lif(3 * self.conv(step), s1)
            z, s2 = self.each(self.fc(2 * torch.flatten(z, 1)), s2)
            v, s3 = self.readout(self.fc2(z), s3)
        return v


class Joined(nn.Module):
    """Two paths side by side, one turned, and means over places."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(1, 3, 3, padding=1)
        self.lifs = nn.ModuleList([norse.LIFBoxCell(p=BOX), norse.LIFBoxCell(p=SOFT)])
        self.mix, self.lif = nn.Conv2d(6, 4, 1), norse.LIFBoxCell(p=BOX)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        states, state, out = [None, None], None, []
        for t in range(len(x)):
            joined = []
            for i, conv in enumerate((self.a, self.b)):
                z, states[i] = self.lifs[i](3 * conv(x[t]), states[i])
                joined.append(z.transpose(2, 3) if i else z)
            z, state = self.lif(self.mix(torch.cat(joined, 1)), state)
            out.append(self.head(z.mean(dim=(2, 3))))
        return torch.stack(out, dim=1).mean(1)


def _cells() -> nn.Module:
    return Steps(
        norse.SequentialState(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2),
            norse.IAFCell(norse.IAFParameters(v_th=torch.tensor(0.7))), nn.AvgPool2d(2),
            nn.Flatten(), norse.LIFRecurrentCell(18, 7, p=QUICK), nn.Linear(7, 4),
        )
    )  # fmt: skip


def _unrolled() -> nn.Module:
    return WholeSample(
        norse.SequentialState(
            norse.Lift(nn.Conv2d(1, 2, 3)), norse.LIF(p=QUICK), nn.Flatten(2),
            norse.LIFRecurrent(72, 7, p=QUICK), nn.Dropout(0.3), nn.Linear(7, 4), norse.LI(RATES),
        ),
        "last",
    )  # fmt: skip


def _upsampled() -> nn.Module:
    return nn.Sequential(
        PerStep(nn.Conv2d(1, 4, 3, stride=2, padding=1)), Lif(LifParameters(v_threshold=0.2)),
        PerStep(nn.ConvTranspose2d(4, 2, 3, stride=2, padding=1, output_padding=1)),
        Lif(LifParameters(v_threshold=0.1)), SpatialMean(), nn.Linear(2, 3), TimeMean(),
    )  # fmt: skip


def _ours() -> nn.Module:
    lif = LifParameters(tau_mem_s=4e-3, v_threshold=0.2)
    rec = RecurrentLif(nn.Linear(8, 8), lif, tau_syn_s=3e-3)
    soft = RecurrentLif(nn.Linear(8, 8, bias=False), lif, reset="subtract")
    return nn.Sequential(
        nn.Linear(6, 8), rec, Delay(2), nn.Linear(8, 8), soft, nn.Linear(8, 3),
        Li(8e-3, 4e-3), TimeLast(),
    )  # fmt: skip


def _batch_first() -> nn.Module:
    return BatchFirst(Batched())


DENSE, IMAGE, ROW = (6,), (1, 8, 8), (2, 6)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "loop with buffer": (ConvLoop, (1, 10, 10)),
    "recurrence by hand": (OwnLoop, DENSE),
    "recurrence from step 1": (lambda: OwnLoop(started=False, bias=False), DENSE),
    "recurrence without bias": (lambda: OwnLoop(bias=False), DENSE),
    "two steps before": (TwoBefore, DENSE),
    "batch first": (_batch_first, IMAGE),
    "one axis": (Rows, ROW),
    "two paths": (Joined, IMAGE),
    "cells in sequence": (_cells, IMAGE),
    "layers in sequence": (_unrolled, IMAGE),
    "upsampled": (_upsampled, IMAGE),
    "our layers": (_ours, DENSE),
}
NEURONS = (Lif, RecurrentLif, norse.LIFCell, norse.LIFBoxCell, norse.IAFCell, norse.LIF,
           norse.LIFRecurrentCell, norse.LIFRecurrent)  # fmt: skip


def built(name: str, seed: int = 0) -> nn.Module:
    """Return a network of the list in evaluation mode, with norms that do something."""
    torch.manual_seed(seed)
    net = NETWORKS[name][0]()
    for m in net.modules():
        if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose2d)):
            m.weight.data *= 2.5  # so that most neurons spike
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.uniform_(-0.2, 0.2)
            m.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(m.weight, 0.5, 1.5)
            nn.init.uniform_(m.bias, -0.2, 0.2)
    return net.eval()


def events(name: str, samples: int = 12, steps: int = 7, seed: int = 1) -> dict[str, np.ndarray]:
    """Return events (samples, steps, *shape) for a network of the list."""
    shape = NETWORKS[name][1]
    rng = np.random.default_rng(seed)
    return {"x": (rng.random((samples, steps, *shape)) < 0.4).astype(np.int64)}


def spikes_of(net: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return class scores, and spikes (T, B, ...) by qualified name of every layer of neurons."""
    calls: dict[str, list[torch.Tensor]] = {}

    def keep(name: str):
        def hook(_m, _x, out):
            calls.setdefault(name, []).append(out[0] if isinstance(out, tuple) else out)

        return hook

    handles = [
        m.register_forward_hook(keep(n)) for n, m in net.named_modules() if isinstance(m, NEURONS)
    ]
    with torch.no_grad():
        scores = net(x)
    for handle in handles:
        handle.remove()
    return scores, {n: torch.stack(z) if len(z) > 1 else z[0] for n, z in calls.items()}
