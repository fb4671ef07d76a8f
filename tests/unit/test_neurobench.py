"""Our numbers under NeuroBench's names are those of NeuroBench's own harness, on one network.

The network is written twice, with the same weights: in snnTorch, which the harness takes, and in
our layers, which are compiled. Its weights lie on the grid of the target, so that nothing is
rounded and both send the same spikes; that is asserted first.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import snntorch
import torch
from hypothesis import HealthCheck, given, settings
from neurobench.benchmarks import Benchmark
from neurobench.metrics import static, workload
from neurobench.models import SNNTorchModel
from strategies_intgraph import random_deployment, random_deployments
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from neuroav import integer as ig
from neuroav.counts import Counter
from neuroav.errors import DataError
from neuroav.hardware import load_profile
from neuroav.models.layers import Lif, LifParameters, PerStep, TimeMean
from neuroav.neurobench import (
    NeuroBenchCounter,
    connection_sparsity,
    container_bytes,
    footprint,
    neurobench_metrics,
    static_metrics,
    weighted,
)
from neuroav.sim import fast
from neuroav.sim.reference import synaptic_sum
from neuroav.sim.trace import collect
from neuroav_export import compile_module

ARITH = load_profile("loihi2").arithmetic
STEPS, SAMPLES, BATCH = 5, 12, 4
UNIT = 2.0**-9  # of a synapse: real input per integer weight
THRESHOLDS = {"lif1": 0.5, "lif2": 0.25}
METRICS = [
    [static.Footprint, static.ParameterCount, static.ConnectionSparsity],
    [
        workload.ActivationSparsity,
        workload.ActivationSparsityByLayer,
        workload.SynapticOperations,
        workload.MembraneUpdates,
        workload.NeuronOperations,
        workload.ClassificationAccuracy,
    ],
]


# --- one network, twice -------------------------------------------------------------------------
def layers() -> dict[str, nn.Module]:
    """Return convolutions and linear layers with weights on the grid, some of them 0."""
    found: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(2, 4, 3, padding=1),
        "conv2": nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, bias=False),
        "head": nn.Linear(6 * 2 * 2, 3),
    }
    generator = torch.Generator().manual_seed(3)
    for layer in found.values():
        level = torch.randint(-60, 90, layer.weight.shape, generator=generator)
        level[torch.rand(layer.weight.shape, generator=generator) < 0.3] = 0
        level.view(-1)[0] = 127  # the largest storable, which fixes the unit
        layer.weight.data = 2 * UNIT * level.float()
        if layer.bias is not None:
            layer.bias.data = UNIT * torch.randint(-9, 9, layer.bias.shape, generator=generator)
    return found


class InSnnTorch(nn.Module):
    """One step at a time, neurons of snnTorch; forward returns (class scores, None)."""

    def __init__(self) -> None:
        super().__init__()
        for name, layer in layers().items():
            self.add_module(name, layer)
        # a membrane in units of its input: the threshold is that of LIFBox times tau / dt
        neuron = {"beta": 0.5, "reset_mechanism": "zero", "reset_delay": False, "init_hidden": True}
        for name, threshold in THRESHOLDS.items():
            self.add_module(name, snntorch.Leaky(threshold=2 * threshold, **neuron))
        self.pool = nn.MaxPool2d(2)
        self.spikes: dict[str, list] = {name: [] for name in THRESHOLDS}

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        spikes = self.lif1(self.conv1(x))
        self.spikes["lif1"].append(spikes)
        spikes = self.lif2(self.conv2(self.pool(spikes)))
        self.spikes["lif2"].append(spikes)
        return self.head(spikes.flatten(1)), None


class InOurs(nn.Module):
    """All steps at once, Norse's neurons."""

    def __init__(self) -> None:
        super().__init__()
        parts = layers()
        self.conv1, self.conv2 = PerStep(parts["conv1"]), PerStep(parts["conv2"])
        for name, threshold in THRESHOLDS.items():
            half = LifParameters(tau_mem_s=2e-3, dt_s=1e-3, v_threshold=threshold)
            self.add_module(name, Lif(half))  # keeps 1/2 of the membrane per step
        self.pool = PerStep(nn.MaxPool2d(2))
        self.flatten, self.head = PerStep(nn.Flatten()), parts["head"]
        self.time_mean = TimeMean()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes = self.lif2(self.conv2(self.pool(self.lif1(self.conv1(x)))))
        return self.time_mean(self.head(self.flatten(spikes)))


def events() -> tuple[np.ndarray, np.ndarray]:
    """Return event counts (samples, steps, 2, 8, 8) and labels.

    At most 1 in every other step and in every batch's first sample, at most 2 in another step.
    """
    rng = np.random.default_rng(5)
    x = rng.poisson(0.5, (SAMPLES, STEPS, 2, 8, 8))
    x[:, 1::2] = np.minimum(x[:, 1::2], 1)
    x[::BATCH] = np.minimum(x[::BATCH], 1)
    x[:, 2] = np.minimum(x[:, 2], 2)
    return x, rng.integers(0, 3, SAMPLES)


@pytest.fixture(scope="module")
def harness():
    """Results of NeuroBench, and the spikes of its run, by layer (samples, steps, ...)."""
    x, labels = events()
    net = InSnnTorch()
    data = TensorDataset(torch.from_numpy(x).float(), torch.from_numpy(labels))
    benchmark = Benchmark(
        SNNTorchModel(net),
        DataLoader(data, batch_size=BATCH),
        [],
        [lambda scores: scores.mean(1).argmax(1)],
        METRICS,
    )
    with torch.no_grad():
        results = benchmark.run(quiet=True)
    spikes = {
        name: torch.cat(
            [torch.stack(sent[i : i + STEPS], 1) for i in range(0, len(sent), STEPS)]
        ).numpy()
        for name, sent in net.spikes.items()
    }
    return results, spikes


@pytest.fixture(scope="module")
def deployment():
    return compile_module(InOurs(), {"x": events()[0]}, classes=("a", "b", "c"))


@pytest.fixture(scope="module")
def traces(deployment):
    return list(fast.run(deployment, {"x": events()[0]}, batch=BATCH, states=True))


@pytest.fixture(scope="module")
def ours(deployment, traces):
    return neurobench_metrics(deployment.integer, ARITH, traces)


def test_both_networks_send_the_same_spikes(harness, deployment, traces):
    for name, p in weighted(deployment.integer):
        layer = layers()[{"lif1": "conv1", "lif2": "conv2"}.get(name, "head")]
        assert np.array_equal(p.weight * UNIT, layer.weight.detach().numpy()), name
    for name, spikes in harness[1].items():
        assert 0.05 < spikes.mean() < 0.7, name
        assert np.array_equal(spikes, np.concatenate([t.outputs[name] for t in traces])), name


def test_metrics_of_a_run_equal_neurobenchs(harness, ours):
    theirs = harness[0]
    operations = theirs["SynapticOperations"]
    assert min(operations.values()) > 0
    assert operations["Effective_ACs"] + operations["Effective_MACs"] < operations["Dense"]
    for name in ("SynapticOperations", "MembraneUpdates", "NeuronOperations"):
        assert ours[name] == theirs[name], name
    # their mean over batches against our ratio of sums
    assert ours["ActivationSparsity"] == pytest.approx(theirs["ActivationSparsity"], rel=1e-12)
    assert ours["ActivationSparsityByLayer"] == theirs["ActivationSparsityByLayer"]
    assert 0 < ours["MembraneUpdates"] < STEPS * (4 * 8 * 8 + 6 * 2 * 2)


def test_class_scores_are_those_the_harness_saw(harness, deployment, traces):
    labels = events()[1]
    scores = np.concatenate([t.outputs[deployment.integer.output][:, -1] for t in traces])
    assert harness[0]["ClassificationAccuracy"] == pytest.approx(
        float((scores.argmax(1) == labels).mean())
    )


def test_metrics_of_the_graph_equal_neurobenchs(harness, ours):
    theirs = harness[0]
    assert ours["ConnectionSparsity"] == theirs["ConnectionSparsity"] > 0.2
    assert ours["ParameterCount"] == theirs["ParameterCount"]
    leaky = 20  # bytes of snnTorch's own: three float32 and an int64
    assert theirs["Footprint"] == 4 * ours["ParameterCount"] + leaky * len(THRESHOLDS)


class Stored(nn.Module):
    """Everything that is deployed, as tensors of the integers that hold it."""

    def __init__(self, graph: ig.IntGraph) -> None:
        super().__init__()
        for number, (_, p) in enumerate(weighted(graph)):
            weight = torch.from_numpy((p.weight // 2).astype(np.int8))
            self.register_parameter(f"w{number}", nn.Parameter(weight, requires_grad=False))
        for number, pop in enumerate(graph.populations.values()):
            stored = {}
            if isinstance(pop, ig.IntLif):
                stored = {
                    "bias": pop.bias_mantissa.astype(np.int16),
                    "exponent": np.int8([pop.bias_exponent]),
                    "threshold": pop.threshold.astype(np.int32),
                    "decays": np.int16([pop.decay_u, pop.decay_v]),
                }
            elif isinstance(pop, ig.IntReadout):
                stored = {"bias": pop.bias.astype(np.int32)}
            for name, value in stored.items():
                if name != "bias" or value.any():
                    self.register_buffer(f"{name}{number}", torch.from_numpy(value))


def test_footprint_equals_neurobenchs_for_the_deployed_widths(deployment):
    graph = deployment.integer
    theirs = static.Footprint()(SNNTorchModel(Stored(graph)))
    found = footprint(graph, ARITH)
    assert sum(found.values()) == theirs == static_metrics(graph, ARITH)["Footprint"]
    # 4 + 3 biases; two layers, each a threshold, two decays and an exponent
    assert found == {"weights": 72 + 108 + 72, "biases": 4 * 2 + 3 * 4, "neurons": 2 * (4 + 4 + 1)}


# --- on its own ---------------------------------------------------------------------------------
def test_the_split_depends_on_the_batch_and_the_sum_does_not(deployment):
    found = {}
    for batch in (1, SAMPLES):
        run = fast.run(deployment, {"x": events()[0]}, batch=batch)
        found[batch] = neurobench_metrics(deployment.integer, ARITH, run)["SynapticOperations"]
    assert found[1]["Effective_ACs"] > found[SAMPLES]["Effective_ACs"]
    sums = {b: f["Effective_ACs"] + f["Effective_MACs"] for b, f in found.items()}
    assert sums[1] == pytest.approx(sums[SAMPLES])
    sample = events()[0][:1].copy()
    sample[sample > 1] = 1  # binary in every step: nothing is multiplied
    alone = neurobench_metrics(deployment.integer, ARITH, fast.run(deployment, {"x": sample}))
    assert alone["SynapticOperations"]["Effective_MACs"] == 0
    assert alone["SynapticOperations"]["Effective_ACs"] > 0


def test_membrane_updates_are_unknown_without_voltages(deployment):
    run = fast.run(deployment, {"x": events()[0]}, batch=BATCH)
    found = neurobench_metrics(deployment.integer, ARITH, run)
    assert found["MembraneUpdates"] is None
    assert found["NeuronOperations"]["Effective Neuron Ops"] is None
    assert found["NeuronOperations"]["Neuron Dense Ops"] == 4 * STEPS * (4 * 8 * 8 + 6 * 2 * 2)


def test_no_samples_and_no_weights_are_errors(deployment):
    with pytest.raises(DataError, match="no samples were counted"):
        NeuroBenchCounter(deployment.integer, ARITH).metrics()
    graph = deployment.integer
    relay = ig.IntSum((2, 8, 8), (ig.IntIdentity("x", 0, 1),))
    bare = ig.IntGraph({"x": graph.populations["x"], "y": relay}, "y", 1, 1.0, {})
    with pytest.raises(DataError, match="no weights"):
        connection_sparsity(bare)


def test_copies_of_a_mask_are_no_layer():
    gate, value = ig.IntInput((1, 2, 2), (), 1), ig.IntInput((2, 2, 2), (), 1)
    copies = ig.IntConv2d("gate", 0, np.ones((2, 1, 1, 1), np.int64), (1, 1), (0, 0), (1, 1), 1, 8,
                          "excitatory")  # fmt: skip
    both = ig.IntAnd((2, 2, 2), (copies, ig.IntIdentity("value", 0, 1)))
    head = ig.IntReadout((3,), (ig.IntDense("both", 0, np.full((3, 8), 2), 8, "mixed"),),
                         np.zeros(3, np.int64))  # fmt: skip
    populations = {"gate": gate, "value": value, "both": both, "head": head}
    graph = ig.IntGraph(populations, "head", 2, 1.0, dict.fromkeys(populations, (1, 1)))
    assert [name for name, _ in weighted(graph)] == ["head"]
    assert static_metrics(graph, ARITH)["ParameterCount"] == 24


@pytest.mark.parametrize(("bits", "size"), [(1, 1), (8, 1), (9, 2), (13, 2), (17, 4), (33, 8)])
def test_container(bits, size):
    assert container_bytes(bits) == size


@settings(max_examples=25, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.too_slow])  # fmt: skip
@given(random_deployments())
def test_effective_operations_are_our_synaptic_operations_of_weighted_layers(case):
    deployment, inputs = case
    graph = deployment.integer
    counter, bench = Counter(graph), NeuroBenchCounter(graph, ARITH)
    for trace in fast.run(deployment, inputs, batch=2, states=True):
        counter.add(trace)
        bench.add(trace)
    found = bench.metrics()
    operations = found["SynapticOperations"]
    effective = operations["Effective_ACs"] + operations["Effective_MACs"]
    synops = counter.counts().synops_per_sample()
    assert effective <= operations["Dense"]
    assert effective <= sum(synops.values()) + 1e-6
    plain = {
        n for n, pop in graph.populations.items()
        if all(isinstance(p, (ig.IntConv2d, ig.IntDense)) for p in pop.projections)
        and not isinstance(pop, ig.IntAnd)
    }  # fmt: skip
    assert effective >= sum(synops[n] for n in plain) - 1e-6
    dense = 4 * graph.steps * sum(
        pop.neurons for pop in graph.populations.values() if isinstance(pop, ig.IntLif)
    )  # fmt: skip
    assert found["NeuronOperations"]["Neuron Dense Ops"] == dense
    assert found["NeuronOperations"]["Effective Neuron Ops"] <= dense


def test_operations_by_hand():
    """Every weight that is not 0 meets every message that is not 0, by the reference's synapses."""
    deployment, inputs = random_deployment(8, hidden=4, steps=3, samples=2)
    graph = deployment.integer
    outputs = collect(fast.run(deployment, inputs))
    layers = list(weighted(graph))
    assert {type(p) for _, p in layers} == {ig.IntConv2d, ig.IntDense}
    expected = {"acs": 0, "macs": 0}
    for name, p in layers:
        ones = replace(p, weight=(p.weight != 0).astype(np.int64))
        for step in range(3):
            sent = outputs[p.source][:, step].astype(np.int64)
            meets = [
                synaptic_sum(ones, (x != 0).astype(np.int64), graph.populations[name].shape).sum()
                for x in sent
            ]
            expected["macs" if np.abs(sent).max() > 1 else "acs"] += int(sum(meets))
    assert min(expected.values()) > 0
    found = neurobench_metrics(graph, ARITH, fast.run(deployment, inputs))["SynapticOperations"]
    assert 2 * found["Effective_ACs"] == expected["acs"]
    assert 2 * found["Effective_MACs"] == expected["macs"]
