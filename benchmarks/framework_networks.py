"""Small spiking networks in Norse, snnTorch, SpikingJelly and Sinabs, behind one interface.

Every framework trains with its own surrogate gradient, in its own loop, and exports by its own NIR
exporter; Norse's network is traced as it is. ``CASES`` lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

DT = 1e-3  # s; the step that SpikingJelly's, Norse's and Sinabs' networks are read with
SHAPE = (2, 12, 12)  # of the events: polarity, row, column
CLASSES = 8
HIDDEN = 64  # of the dense networks
CHANNELS = (6, 12)  # of the convolutional ones


@dataclass(frozen=True, eq=False)
class Made:
    """A network of one framework.

    module: all its parameters. spikes: what its neurons send for events (steps, samples, *shape),
    layer by layer, the last being the output. graph: what is deployed, a ``nir.NIRGraph`` or, where
    it is traced, None. neurons: its neuron modules in order. decay: what a membrane keeps per step.
    threshold: sets a neuron module's. decay_input: whether the input of a membrane is multiplied by
    1 - decay. inclusive: whether neurons spike at the threshold too. average: whether it pools by
    means.
    """

    module: nn.Module
    spikes: Callable[[torch.Tensor], list[torch.Tensor]]
    graph: Callable[[torch.Tensor], Any]
    neurons: list[nn.Module]
    decay: float
    threshold: Callable[[Any, float], None]
    decay_input: bool = False
    inclusive: bool = False
    average: bool = False


@dataclass(frozen=True)
class Case:
    """One row. neuron: the class and settings that matter. options: for ``import_nir``."""

    framework: str
    network: str
    neuron: str
    make: Callable[[], Made]
    options: Mapping[str, Any] = field(default_factory=dict)
    package: str = ""

    @property
    def tested(self) -> bool:
        """Whether the tests use its trained weights: one class of neurons per framework."""
        return self.neuron in (
            "LIFBoxCell",
            "Leaky",
            "LIFNode",
            "LIFSqueeze, SingleSpike",
            "RSynaptic",
        )

    @property
    def name(self) -> str:
        return f"{self.framework} {self.network} {self.neuron}"


def _layers(
    kind: str,
    neuron: Callable[[tuple[int, ...]], nn.Module],
    pool: Callable[[], nn.Module],
    m: Any = nn,
) -> list[nn.Module]:
    """Return the layers of a network. neuron: makes neurons of a shape; m: has the layers."""
    size, out = int(np.prod(SHAPE)), (CLASSES,)
    if kind == "dense":
        hidden = neuron((HIDDEN,))
        return [m.Flatten(), m.Linear(size, HIDDEN), hidden, m.Linear(HIDDEN, CLASSES), neuron(out)]
    (first, second), rows = CHANNELS, SHAPE[1]
    return [
        m.Conv2d(2, first, 3, padding=1), neuron((first, rows, rows)), pool(),
        m.Conv2d(first, second, 3, padding=1), neuron((second, rows // 2, rows // 2)), pool(),
        m.Flatten(), m.Linear(second * rows * rows // 16, CLASSES), neuron(out),
    ]  # fmt: skip


# --- Norse -----------------------------------------------------------------------------------
class _NorseLoop(nn.Module):
    """A network as Norse's examples write it: a loop over steps, states handed on."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack(self.spikes(x)[-1]).mean(0)

    def spikes(self, x: torch.Tensor) -> list[list[torch.Tensor]]:
        states: list[Any] = [None] * len(self.layers)
        sent: list[list[torch.Tensor]] = [[] for _ in self.layers]
        for t in range(len(x)):
            value = x[t]
            for i, layer in enumerate(self.layers):
                if hasattr(layer, "p"):
                    value, states[i] = layer(value, states[i])
                    sent[i].append(value)
                else:
                    value = layer(value)
        return [s for s in sent if s]


def norse(kind: str, cell: str, keeps: float = 0.9) -> Made:
    """Return a network of ``LIFBoxCell`` or ``LIFCell`` (with synaptic current)."""
    import norse.torch as snn

    rate = torch.tensor((1 - keeps) / DT)
    if cell == "LIFBoxCell":
        p: Any = snn.LIFBoxParameters(tau_mem_inv=rate, alpha=torch.tensor(2.0))
    else:
        p = snn.LIFParameters(
            tau_mem_inv=rate, tau_syn_inv=torch.tensor(0.5 / DT), alpha=torch.tensor(2.0)
        )
    net = _NorseLoop(
        _layers(kind, lambda _: getattr(snn, cell)(p=p, dt=DT), lambda: nn.MaxPool2d(2))
    )
    neurons = [layer for layer in net.layers if hasattr(layer, "p")]

    def threshold(neuron: Any, level: float) -> None:
        neuron.p = neuron.p._replace(v_th=torch.tensor(level))

    def spikes(x: torch.Tensor) -> list[torch.Tensor]:
        return [torch.stack(s) for s in net.spikes(x)]

    return Made(net, spikes, lambda x: None, neurons, keeps, threshold, True)


# --- snnTorch --------------------------------------------------------------------------------
def snntorch(kind: str, beta: float = 0.9, **settings: Any) -> Made:
    """Return a network of ``Leaky`` with ``settings``.

    Its exporter wants a beta and a threshold for every neuron: with one number for a layer
    ``nir``'s check of types fails.
    """
    import snntorch as snn

    def neuron(shape: tuple[int, ...]) -> nn.Module:
        one = torch.ones(shape)
        return snn.Leaky(beta=beta * one, threshold=one, init_hidden=True, **settings)

    net = nn.Sequential(*_layers(kind, neuron, lambda: nn.AvgPool2d(2)))
    return _snntorch_made(net, [m for m in net if isinstance(m, snn.Leaky)], beta)


def snntorch_recurrent(alpha: float = 0.6, beta: float = 0.9, **settings: Any) -> Made:
    """Return Linear - ``RSynaptic`` (a recurrent CubaLIF) - Linear - ``Leaky``."""
    import snntorch as snn

    width = 48
    loop = snn.RSynaptic(
        alpha=alpha, beta=beta, linear_features=width, init_hidden=True, **settings
    )
    one = torch.ones(CLASSES)
    last = snn.Leaky(beta=beta * one, threshold=one, init_hidden=True, **settings)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(int(np.prod(SHAPE)), width), loop, nn.Linear(width, CLASSES), last
    )
    return _snntorch_made(net, [loop, last], beta)


def _snntorch_made(net: nn.Sequential, neurons: list[nn.Module], beta: float) -> Made:
    from snntorch.export_nir import export_to_nir

    def spikes(x: torch.Tensor) -> list[torch.Tensor]:
        for module in neurons:
            module.reset_mem()
        sent: list[list[torch.Tensor]] = [[] for _ in neurons]
        for frame in x:
            for layer in net:
                frame = layer(frame)
                if layer in neurons:
                    sent[neurons.index(layer)].append(frame)
        return [torch.stack(s) for s in sent]

    def graph(x: torch.Tensor) -> Any:
        for module in neurons:
            module.reset_mem()
        return export_to_nir(net, x[0, :1], ignore_dims=[0])

    def threshold(neuron: Any, level: float) -> None:
        neuron.threshold.fill_(level)

    return Made(net, spikes, graph, neurons, beta, threshold, average=True)


# --- SpikingJelly ----------------------------------------------------------------------------
def spikingjelly(kind: str, neuron: str, **settings: Any) -> Made:
    """Return a network of ``IFNode`` or ``LIFNode`` with ``settings``, in multi-step mode."""
    from spikingjelly.activation_based import functional, layer
    from spikingjelly.activation_based import neuron as neurons_of
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    cls = getattr(neurons_of, neuron)
    net = nn.Sequential(
        *_layers(kind, lambda _: cls(**settings), lambda: layer.AvgPool2d(2), layer)
    )
    functional.set_step_mode(net, "m")
    decay_input = neuron == "LIFNode" and settings.get("decay_input", True)
    neurons = [m for m in net if isinstance(m, cls)]

    def spikes(x: torch.Tensor) -> list[torch.Tensor]:
        functional.reset_net(net)
        sent = []
        for module in net:
            x = module(x)
            if module in neurons:
                sent.append(x)
        return sent

    def graph(x: torch.Tensor) -> Any:
        functional.reset_net(net)
        return export_to_nir(net, x[:, :1], dt=DT)

    decay = 1.0 if neuron == "IFNode" else 1 - 1 / settings.get("tau", 2.0)

    def threshold(module: Any, level: float) -> None:
        module.v_threshold = level

    return Made(net, spikes, graph, neurons, decay, threshold, decay_input, True, True)


# --- Sinabs ----------------------------------------------------------------------------------
def sinabs(kind: str, neuron: str, **settings: Any) -> Made:
    """Return a network of ``IAFSqueeze`` or ``LIFSqueeze`` with ``settings``, one spike a step."""
    import sinabs as of_sinabs
    import sinabs.layers as sl
    from sinabs.activation import SingleSpike
    from sinabs.nir import to_nir

    cls = getattr(sl, neuron)

    def made(_: tuple[int, ...]) -> nn.Module:
        return cls(batch_size=1, spike_fn=SingleSpike, **settings)

    net = nn.Sequential(*_layers(kind, made, lambda: sl.SumPool2d(2)))
    neurons = [m for m in net if isinstance(m, cls)]

    def spikes(x: torch.Tensor) -> list[torch.Tensor]:
        """Sinabs takes samples and steps on one axis, samples first."""
        steps, samples = x.shape[:2]
        of_sinabs.reset_states(net)
        for module in neurons:
            module.batch_size = samples
        value, sent = x.transpose(0, 1).flatten(0, 1), []
        for module in net:
            value = module(value)
            if module in neurons:
                sent.append(value.unflatten(0, (samples, steps)).transpose(0, 1))
        return sent

    def graph(x: torch.Tensor) -> Any:
        spikes(x[:, :1])
        return to_nir(net, x[:, 0])

    decay = float(np.exp(-1 / settings["tau_mem"])) if neuron == "LIFSqueeze" else 1.0

    def threshold(module: Any, level: float) -> None:
        module.spike_threshold.data.fill_(level)

    return Made(net, spikes, graph, neurons, decay, threshold, neuron == "LIFSqueeze", True)


# --- all of them -----------------------------------------------------------------------------
SNN = {"dt_s": 1e-4}  # the step that snnTorch writes its files for
SJ = {"dt_s": DT}
STEPWISE = {"dt_s": DT, "unit_s": DT}  # Sinabs counts time in steps
EXACT = {**STEPWISE, "decay": "exponential", "reset": "subtract"}


def _both(framework, package, neuron, make, options=None) -> list[Case]:
    """Return the dense and the convolutional network of one class of neurons."""
    return [
        Case(framework, kind, neuron, (lambda k=kind: make(k)), options or {}, package)
        for kind in ("dense", "conv")
    ]


CASES = (
    *_both("Norse", "norse", "LIFBoxCell", lambda k: norse(k, "LIFBoxCell")),
    *_both("Norse", "norse", "LIFCell", lambda k: norse(k, "LIFCell")),
    *_both("snnTorch", "snntorch", "Leaky", snntorch, {**SNN, "reset": "subtract-late"}),
    *_both(
        "snnTorch", "snntorch", "Leaky, reset_mechanism='zero'",
        lambda k: snntorch(k, reset_mechanism="zero"), SNN,
    ),
    Case(
        "snnTorch", "recurrent", "RSynaptic", snntorch_recurrent,
        {**SNN, "reset": "subtract-late"}, "snntorch",
    ),
    *_both("SpikingJelly", "spikingjelly", "LIFNode",
           lambda k: spikingjelly(k, "LIFNode"), SJ),
    *_both("SpikingJelly", "spikingjelly", "LIFNode, decay_input=False, tau=5",
           lambda k: spikingjelly(k, "LIFNode", decay_input=False, tau=5.0), SJ),
    *_both("SpikingJelly", "spikingjelly", "IFNode",
           lambda k: spikingjelly(k, "IFNode"), SJ),
    *_both("Sinabs", "sinabs", "LIFSqueeze, SingleSpike",
           lambda k: sinabs(k, "LIFSqueeze", tau_mem=10.0), EXACT),
    *_both("Sinabs", "sinabs", "IAFSqueeze, SingleSpike",
           lambda k: sinabs(k, "IAFSqueeze"), {**STEPWISE, "reset": "subtract"}),
)  # fmt: skip
TIES = {"inclusive": True}  # exact without leak, where a spike resets to a value
GRID_CASES = (
    *_both("Norse", "norse", "LIFBoxCell", lambda k: norse(k, "LIFBoxCell", 0.5)),
    *_both("snnTorch", "snntorch", "Leaky",
           lambda k: snntorch(k, 0.5), {**SNN, "reset": "subtract-late"}),
    *_both("snnTorch", "snntorch", "Leaky, reset_mechanism='zero'",
           lambda k: snntorch(k, 0.5, reset_mechanism="zero"), SNN),
    *_both("SpikingJelly", "spikingjelly", "LIFNode", lambda k: spikingjelly(k, "LIFNode"), SJ),
    *_both("SpikingJelly", "spikingjelly", "IFNode",
           lambda k: spikingjelly(k, "IFNode"), {**SJ, **TIES}),
    *_both("Sinabs", "sinabs", "LIFSqueeze, SingleSpike",
           lambda k: sinabs(k, "LIFSqueeze", tau_mem=1 / np.log(2)), EXACT),
    *_both("Sinabs", "sinabs", "IAFSqueeze, SingleSpike",
           lambda k: sinabs(k, "IAFSqueeze"), {**STEPWISE, "reset": "subtract"}),
)  # fmt: skip
