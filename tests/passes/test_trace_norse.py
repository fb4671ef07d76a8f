"""Networks as users write them: what is traced runs as the network itself, spike by spike."""

from __future__ import annotations

import norse.torch as norse
import numpy as np
import pytest
import torch
from torch import nn
from user_networks import BOX, NETWORKS, SOFT, OwnLoop, built, events, spikes_of

from neuroav import nodes as rn
from neuroav.errors import UnsupportedModule
from neuroav.models.layers import BatchFirst, Li, Lif, Steps, TimeMean, WholeSample
from neuroav.sim import reference
from neuroav.sim.fast import run as run_fast
from neuroav.sim.real import forward
from neuroav.sim.real import run as run_real
from neuroav.sim.trace import collect
from neuroav_export.pipeline import compile_module, real_valued, time_first
from neuroav_export.trace import trace


def as_tensor(sample):
    return torch.from_numpy(time_first(sample)["x"].astype(np.float64))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_traced_graph_runs_as_the_network(name):
    net, x = real_valued(built(name)), as_tensor(events(name))
    graph = trace(net, {"x": x.numpy()})
    scores, spikes = spikes_of(net, x)
    with torch.no_grad():
        found = forward(graph, {"x": x})
    assert spikes
    for layer, expected in spikes.items():
        assert 0.01 < expected.mean() < 0.95, layer
        assert torch.equal(found[layer].reshape(expected.shape), expected), layer
    assert scores.std() > 0
    torch.testing.assert_close(found[graph.output][0], scores, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_deployment_predicts_as_the_network(name):
    net, sample = built(name), events(name, samples=48)
    deployment = compile_module(net, sample, max_count={"x": 1})
    scores, _ = spikes_of(real_valued(net), as_tensor(sample))
    (found,) = run_fast(deployment, sample, batch=48)
    answer = found.outputs[deployment.integer.output][:, -1]
    assert len(np.unique(answer, axis=0)) > 4
    assert np.mean(answer.argmax(1) == scores.argmax(1).numpy()) > 0.8
    (first,) = run_fast(deployment, {"x": sample["x"][:1]})
    (same,) = reference.run(deployment, {"x": sample["x"][:1]})
    for layer, sent in same.outputs.items():
        assert np.array_equal(first.outputs[layer], sent), layer


# --- exact where every number is on the chip's grid --------------------------------------------
HALF = norse.LIFBoxParameters(tau_mem_inv=torch.tensor(500.0))  # decays by 2048 / 4096


class Exact(OwnLoop):
    """Recurrent neurons, then others, whose weights are whole numbers of the chip's unit."""

    def __init__(self, hidden, last):
        super().__init__(bias=False)
        self.lif, self.next, self.last = hidden, nn.Linear(8, 8, bias=False), last

    def forward(self, x):
        z, one, two, total = torch.zeros(x.shape[1], 8, dtype=x.dtype), None, None, 0
        for frame in x:
            z, one = self.lif(self.fc(frame) + self.rec(z), one)
            spikes, two = self.last(self.next(z), two)
            total = total + self.head(spikes)
        return total / len(x)


CELLS = {
    "to a value": lambda: norse.LIFBoxCell(p=HALF),
    "by subtraction": lambda: norse.LIFBoxCell(p=HALF._replace(reset_method=norse.reset_subtract)),
    "without leak": norse.IAFCell,
    "own thresholds": lambda: norse.LIFBoxCell(
        p=HALF._replace(v_th=torch.tensor([0.5, 0.75, 1.0, 1.25, 0.5, 0.75, 1.0, 1.25]))
    ),
}


@pytest.mark.parametrize("last", CELLS)
@pytest.mark.parametrize("hidden", CELLS)
def test_weights_and_decays_on_the_grid_give_the_same_spikes(hidden, last):
    torch.manual_seed(3)
    net = Exact(CELLS[hidden](), CELLS[last]())
    nn.init.zeros_(net.fc.bias)
    for layer in (net.fc, net.rec, net.next):
        whole = torch.randint(-60, 128, layer.weight.shape).float()
        whole[0, 0] = 127.0
        layer.weight.data = whole / 128
    sample = {"x": np.random.default_rng(0).integers(0, 2, (10, 5, 6))}
    deployment = compile_module(net, sample, max_count={"x": 1})
    _, spikes = spikes_of(real_valued(net), as_tensor(sample))
    found = list(reference.run(deployment, sample))
    for layer, expected in spikes.items():
        assert 0.05 < expected.mean() < 0.95, layer
        sent = np.concatenate([t.outputs[layer] for t in found])
        assert np.array_equal(sent, np.moveaxis(expected.numpy(), 0, 1)), layer


# --- what a graph says -----------------------------------------------------------------------
def test_recurrence_closes_behind_the_neurons():
    net = real_valued(built("recurrence by hand"))
    graph = trace(net, time_first(events("recurrence by hand")))
    assert graph.nodes["lif.delay"].steps == 1
    assert graph.inputs["rec"] == ("lif.delay",)
    assert graph.inputs["lif.delay"] == ("lif",)
    assert graph.inputs["lif"] == ("add",)
    assert set(graph.inputs["add"]) == {"fc", "rec"}
    late = trace(real_valued(built("two steps before")), time_first(events("two steps before")))
    assert late.nodes["lif.delay"].steps == 2


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (norse.LIFBoxCell(p=BOX), rn.Lif(1 / 300, 0.4)),
        (norse.LIFBoxCell(p=SOFT), rn.Lif(1 / 300, 0.4, reset="subtract")),
        (norse.LIFCell(), rn.Lif(1e-2, 1.0, tau_syn_s=5e-3)),
        (norse.IAFCell(norse.IAFParameters(v_reset=torch.tensor(0.25))), rn.If(0.75)),
        (norse.LICell(), rn.Li(1e-2, 0.0, 5e-3)),
        (norse.LIBoxCell(dt=2e-3), rn.Li(1e-2)),
    ],
)
def test_parameters_become_seconds(cell, expected):
    net = Steps(norse.SequentialState(nn.Linear(6, 4), cell), "last")
    graph = trace(net.double(), {"x": np.ones((4, 2, 6))})
    node = graph.nodes["network.1"]
    assert type(node) is type(expected)
    for name in vars(expected):
        value = getattr(expected, name)
        near = pytest.approx(value, rel=1e-6) if isinstance(value, float) else value
        assert getattr(node, name) == near, name
    assert graph.dt_s == cell.dt


def test_one_sample_is_told_from_features():
    net = real_valued(built("batch first"))
    graph = trace(net, {"x": np.ones((4, 1, 1, 8, 8))})
    assert graph.shapes["network.lif"] == (4, 4, 4)


# --- what is refused -------------------------------------------------------------------------
class Loop(nn.Module):
    """fc - lif in a loop, with ``function(self, x)`` in place of it."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.fc, self.lif = nn.Linear(6, 4), norse.LIFBoxCell()
        self.head, self.more = nn.Linear(4, 3), nn.Linear(4, 4)

    def forward(self, x):
        return self.function(self, x)

    def spikes(self, x, change=lambda z, t: z):
        state, out = None, []
        for t in range(len(x)):
            z, state = self.lif(change(self.fc(x[t]), t), state)
            out.append(z)
        return torch.stack(out)


def membrane(m, x):
    _, state = m.lif(m.fc(x[0]))
    return m.head(state.v)


def started(m, x):
    state = norse.LIFBoxFeedForwardState(v=torch.ones(x.shape[1], 4))
    return m.head(torch.stack([m.lif(m.fc(frame), state)[0] for frame in x])).mean(0)


REFUSED = {
    "maximum over time": (lambda m, x: m.head(m.spikes(x)).max(0)[0], "mean", "max in forward"),
    "scores of all steps": (lambda m, x: m.head(m.spikes(x)), "end", "scores for every step"),
    "some steps": (lambda m, x: m.head(m.spikes(x))[1:].mean(0), "end", "some of the steps"),
    "one early step": (lambda m, x: m.head(m.spikes(x))[1], "end", "takes head at 1 of 4 steps"),
    "membrane": (membrane, "state", "lif: its state is read"),
    "other start": (started, "state", "lif: starts elsewhere"),
    "no state": (
        lambda m, x: m.head(torch.stack([m.lif(m.fc(f))[0] for f in x])).mean(0),
        "state", "lif: gets no state after its first step",
    ),
    "data decide": (
        lambda m, x: m.head(m.spikes(x if x.sum() > 3 else 2 * x)).mean(0),
        "control-flow", "it takes bool of a tensor",
    ),
    "steps differ": (
        lambda m, x: m.head(m.spikes(x, lambda z, t: z if t < 2 else 2 * z)).mean(0),
        "control-flow", "lif: reads something else in step 0 than in step 3",
    ),
    "activation": (
        lambda m, x: m.head(m.spikes(x, lambda z, t: torch.relu(z))).mean(0),
        "activation", "relu in forward",
    ),
    "whole sequence": (
        lambda m, x: m.head(m.lif(m.fc(x))[0]).mean(0), "layout", "LIFBoxCell takes one step",
    ),
    "shared": (
        lambda m, x: m.head(m.spikes(x, lambda z, t: m.more(m.more(z)))).mean(0),
        "twice", "more: is called twice in a step",
    ),
    "constant": (
        lambda m, x: m.head(m.spikes(x, lambda z, t: z + 0.5)).mean(0), "parameter",
        "adds a constant",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_neuron_is_refused_by_name(case):
    function, rule, message = REFUSED[case]
    with pytest.raises(UnsupportedModule, match=message) as caught:
        trace(Loop(function).double(), {"x": np.ones((4, 2, 6))})
    assert caught.value.rule == rule


def test_what_nobody_reads_is_not_refused():
    def watched(m, x):
        m.seen = [z.float().cumsum(0) for z in (x, m.fc(x[0]))]
        return m.head(m.spikes(x)).mean(0)

    net = Loop(lambda m, x: m.head(m.spikes(x)).mean(0)).double()
    plain = trace(net, {"x": np.ones((4, 2, 6))})
    net.function = lambda m, x: (m.spikes(x).cumsum(0), m.head(m.more(x[0, :, :4])))[0]
    with pytest.raises(UnsupportedModule, match="cumsum in forward"):
        trace(net, {"x": np.ones((4, 2, 6))})

    def counted(m, x):
        z = m.spikes(x)
        m.count = z.cumsum(0).amax()
        return m.head(z).mean(0)

    net.function = counted
    assert set(trace(net, {"x": np.ones((4, 2, 6))}).nodes) == set(plain.nodes)


def test_other_neurons_of_norse_are_refused_with_those_that_can_be_had():
    net = Steps(norse.SequentialState(nn.Linear(6, 4), norse.LIFRefracCell()))
    with pytest.raises(UnsupportedModule, match=r"network\.1: LIFRefracCell.*use norse") as caught:
        trace(net.double(), {"x": np.ones((4, 2, 6))})
    assert caught.value.rule == "neuron"


@pytest.mark.parametrize("over_time", ["mean", "sum", "last"])
def test_class_scores_are_membranes_over_time(over_time):
    torch.manual_seed(3)
    net = norse.SequentialState(nn.Linear(6, 24), norse.LIF(), nn.Linear(24, 3), norse.LI())
    net[0].weight.data *= 12
    net = WholeSample(net, over_time)
    x = {"x": np.random.default_rng(0).integers(0, 3, (64, 12, 6)).astype(np.int32)}
    deployment = compile_module(net, x)
    deployed, exact = (collect(run(deployment, x)) for run in (run_fast, reference.run))
    assert 0.02 < np.mean([v.mean() for n, v in deployed.items() if n.endswith(".1")]) < 0.9
    assert all(np.array_equal(deployed[n], exact[n]) for n in exact)
    output = deployment.integer.output
    scale = np.divide(*deployment.integer.scales[output])
    real_scores = collect(run_real(deployment.real, x))[deployment.real.output][:, -1]
    found = deployed[output][:, -1] * scale
    assert np.abs(real_scores).max() > 0.05
    assert np.abs(found - real_scores).max() < 0.1 * np.abs(real_scores).max()
    assert (found.argmax(1) == real_scores.argmax(1)).mean() > 0.9


def test_a_membrane_that_another_layer_reads_is_refused():
    ours = nn.Sequential(
        nn.Linear(6, 4), Lif(), nn.Linear(4, 3), Li(), nn.Linear(3, 2), Lif(), TimeMean()
    )
    with pytest.raises(UnsupportedModule, match="3: its membrane is read in every step") as caught:
        trace(ours.double(), {"x": np.ones((4, 2, 6))})
    assert caught.value.rule == "end"


def test_a_network_with_its_state_is_refused_with_the_wrapper_to_take():
    net = norse.SequentialState(nn.Linear(6, 4), norse.LIF(), nn.Linear(4, 3)).double()
    sample = {"x": np.ones((4, 2, 6))}
    with pytest.raises(UnsupportedModule, match=r"layers\.Steps\(network\).*WholeSample"):
        trace(net, sample)
    assert trace(WholeSample(net, "sum"), sample).shapes == {
        "x": (6,), "network.0": (4,), "network.1": (4,), "network.2": (3,), "network.2.mean": (3,),
    }  # fmt: skip
    with pytest.raises(UnsupportedModule, match="LIF takes all steps"):
        trace(BatchFirst(WholeSample(net)), {"x": np.ones((4, 2, 6))})
