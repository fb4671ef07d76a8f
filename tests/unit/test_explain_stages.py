"""The chain float -> folded -> fake-quantized -> integer: what each stage changes, and why."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import fusion
import numpy as np
import pytest
import samples
import torch

from neuroav import integer as ig
from neuroav import nodes as rn
from neuroav.errors import ConfigError
from neuroav.explain import explained
from neuroav.explain.fake import fake_outputs
from neuroav.explain.rederive import derive
from neuroav.explain.stages import NOT_COMPARED, Chain
from neuroav.sim import fast, real, reference
from neuroav.sim.trace import collect
from neuroav_export import compile_module, unfolded
from neuroav_export.unfolded import Outputs, module_outputs

LAYER = "visual.stem.lif1"  # fed by a convolution, with a bias


@pytest.fixture(scope="module")
def inputs():
    return samples.poisson_inputs(6, 4)


@pytest.fixture(scope="module")
def module():
    return samples.warmed_model()


@pytest.fixture(scope="module")
def deployment(module, inputs):
    """An untrained `add` in 4 bits, whose neurons all fire: rounding changes many spikes."""
    return compile_module(module, inputs, bits=4)


def alive(deployment, found) -> None:
    for name, pop in deployment.integer.populations.items():
        if isinstance(pop, ig.IntLif):
            assert 0.01 < (found[name] != 0).mean() < 0.95, name


def stages(deployment, inputs, trained=None):
    found = collect(reference.run(deployment, inputs))
    alive(deployment, found)
    result = explained(deployment, inputs, {"reference": found, "fast": found}, None, trained)
    return result, {s["stage"]: s for s in result["stages"]}


def changed(deployment, change):
    """Return the deployment with every layer of leaky neurons changed."""
    pops = {
        n: change(p) if isinstance(p, ig.IntLif) else p
        for n, p in deployment.integer.populations.items()
    }
    return replace(deployment, integer=replace(deployment.integer, populations=pops))


# --- what the fake-quantized network is --------------------------------------------------------
def dequantized(deployment, name):
    """Return the twin with the weights, bias and threshold of one layer put back from integers."""
    pop, node = deployment.integer.populations[name], deployment.real.nodes[name]
    unit, graph = derive(deployment, name).unit, deployment.real
    source = graph.inputs[name][0]
    d = (1 << 12) - int(pop.decay_v)
    tau = graph.dt_s / (1 - d / (1 << 12))
    conv = graph.nodes[source]
    along = unit.reshape(-1, 1, 1, 1)
    bias = (pop.bias_mantissa << pop.bias_exponent).reshape(-1) / 64 * unit.reshape(-1)
    top = float(np.asarray(pop.threshold).reshape(-1)[0] * unit[0] * graph.dt_s / tau)
    return graph.with_nodes(
        nodes={
            source: replace(conv, weight=pop.projections[0].weight * along, bias=bias),
            name: replace(node, tau_mem_s=tau, v_threshold=top),
        }
    )


def test_fake_neurons_are_the_twin_with_its_parameters_rounded(deployment, inputs):
    """One layer dequantized by hand, on the messages of the integer network."""
    found = collect(reference.run(deployment, inputs))
    chain = Chain(deployment, found, inputs, None)
    graph = dequantized(deployment, LAYER)
    source = graph.inputs[graph.inputs[LAYER][0]][0]
    x = torch.from_numpy(np.moveaxis(chain.twin.deployed(source), 1, 0).astype(np.float64))
    for name in (graph.inputs[LAYER][0], LAYER):
        x = real.evaluate(graph.nodes[name], [x], graph.dt_s)
    expected = np.moveaxis(x.numpy(), 0, 1)
    values = chain.values(LAYER)
    assert 0.01 < expected.mean() < 0.9
    assert (values.own_folded != expected).sum() > 50  # another network than the twin
    assert (values.own_fake != expected).mean() < 1e-4  # but for the order of float additions


def test_nothing_is_truncated_without_memory(deployment, inputs):
    """Neurons that forget everything have no leak to truncate: fake-quantized is integer."""
    built = changed(deployment, lambda p: replace(p, decay_v=4096))
    found = collect(reference.run(built, inputs))
    assert found[LAYER].any()
    chain = Chain(built, found, inputs, None)
    for name in built.integer.order:
        np.testing.assert_array_equal(chain.fake[name], found[name])


def test_all_outputs_of_every_kind_but_truncation_are_the_integers():
    """Attention, sums, products: on the same messages only the leak and dropped bits differ."""
    x = samples.poisson_inputs(4, 4)
    built = compile_module(samples.awake_scmrl(), x)
    found = collect(fast.run(built, x))
    chain = Chain(built, found, x, None)
    kinds = {type(p).__name__ for p in built.integer.populations.values()}
    assert {"IntSpatialAttention", "IntTemporalAttention", "IntProduct", "IntTimeSum"} <= kinds
    for name, pop in built.integer.populations.items():
        if pop.projections and not isinstance(pop, ig.IntLif):
            np.testing.assert_array_equal(chain.values(name).own_fake, chain.twin.deployed(name))


@pytest.mark.parametrize("host", ["current", "spikes"])
def test_host_layers_and_dropped_bits(host):
    x = fusion.features(16)
    built = compile_module(
        fusion.awake_fusion(), x, bits=4, winner=True, static=("audio", "visual"), host=host
    )
    found = collect(fast.run(built, x))
    result = explained(built, x, {"reference": found, "fast": found}, None)
    rows = {r["name"]: r for r in result["layers"]}
    dropped = [n for n, p in built.integer.populations.items() if getattr(p, "shift", 0)]
    assert dropped
    assert all(found[n].any() for n in dropped)
    # rounded down by half a unit on average, so never more than half a unit off
    assert {rows[n]["stages"]["integer"]["own_agreement"] for n in dropped} == {1.0}
    hosted = rows["audio.first" if host == "current" else next(iter(built.host))]["stages"]
    assert hosted["fake_quantized"]["agreement"] > 0.95
    assert rows["search.winner"]["stages"]["fake_quantized"] == {
        "agreement": None,
        "own_agreement": None,
    }
    assert rows["search.winner"]["stages"]["integer"]["own_agreement"] > 0.9


# --- what the stages say -----------------------------------------------------------------------
def test_four_bits_lose_by_rounding_and_next_to_nothing_by_truncation(deployment, inputs):
    result, found = stages(deployment, inputs)
    assert list(found) == ["folded", "fake_quantized", "integer", "fast"]
    assert found["fake_quantized"]["agreement"] < 0.99
    assert found["fake_quantized"]["own_agreement"] > found["fake_quantized"]["agreement"]
    assert 0.995 < found["integer"]["own_agreement"] <= 1
    rows = {r["name"]: r["stages"] for r in result["layers"]}
    first, second = rows["visual.stem.lif0"], rows[LAYER]
    assert first["fake_quantized"]["agreement"] == first["fake_quantized"]["own_agreement"]
    assert second["fake_quantized"]["agreement"] < second["fake_quantized"]["own_agreement"] < 1


def test_a_slow_leak_shows_what_truncation_takes(deployment):
    """With small thresholds the half unit that a leak loses on average changes spikes."""
    inputs = samples.poisson_inputs(6, 4)

    def coarse(pop):
        parts = []
        for p in pop.projections:
            single = isinstance(p, ig.IntIdentity)
            parts.append(p if single else replace(p, weight=p.weight // 64))
        level = np.maximum(pop.threshold // 64, 1)
        return replace(pop, projections=tuple(parts), threshold=level, decay_v=1365,
                       bias_mantissa=pop.bias_mantissa // 64)  # fmt: skip

    built = changed(deployment, coarse)
    found = collect(reference.run(built, inputs))
    assert 0 < (found[LAYER] != 0).mean() < 1
    result = explained(built, inputs, {"reference": found, "fast": found}, None)
    stage = result["stages"][2]
    assert stage["stage"] == "integer"
    assert stage["own_agreement"] < 1
    first = stage["first"]
    assert first["cause"] == "truncation"
    before, after = first["quantities"]
    assert before["threshold"] == after["threshold"]
    assert before["synaptic_sum"] == after["synaptic_sum"]
    assert 0 < abs(before["membrane"] - after["membrane"]) < built.integer.steps


@pytest.mark.parametrize("stage", ["fake_quantized", "integer"])
def test_both_sides_quantities_decide_the_first_spike(deployment, inputs, stage):
    built = changed(deployment, lambda p: replace(p, decay_v=1000))
    _, found = stages(built, inputs)
    first = found[stage]["first"]
    assert first is not None
    assert sorted(first["values"]) == [0, 1]
    for side, value in zip(first["quantities"], first["values"], strict=True):
        assert (side["membrane"] > side["threshold"]) == bool(value)
    assert set(first) >= {"node", "sample", "step", "index", "cause", "unit"}


def test_the_first_change_is_the_earliest_of_all_layers(deployment, inputs):
    found = collect(reference.run(deployment, inputs))
    chain = Chain(deployment, found, inputs, None)
    first = stages(deployment, inputs)[1]["fake_quantized"]["first"]
    place = (first["sample"], first["step"])
    for name, pop in deployment.integer.populations.items():
        if isinstance(pop, ig.IntLif):
            values = chain.values(name)
            other = np.argwhere(values.own_fake != values.own_folded)
            assert not len(other) or tuple(other[0][:2]) >= place


def test_fake_outputs_run_on_their_own(deployment, inputs):
    """Each layer gets the fake messages of its sources, not those of the integer network."""
    found = collect(reference.run(deployment, inputs))
    chain = Chain(deployment, found, inputs, None)
    again = fake_outputs(deployment, chain.twin, inputs, chain.folded)
    slow = changed(deployment, lambda p: replace(p, decay_v=1000))
    other = Chain(slow, collect(reference.run(slow, inputs)), inputs, None)
    assert all(np.array_equal(again[n], chain.fake[n]) for n in deployment.integer.order)
    assert (other.fake[LAYER] != chain.fake[LAYER]).any()


# --- the network before its norms are folded ---------------------------------------------------
def test_without_a_run_the_stage_says_so(deployment, inputs):
    _, found = stages(deployment, inputs)
    folded = found["folded"]
    assert (folded["compared"], folded["why_not"]) == (False, NOT_COMPARED)
    assert folded["agreement"] is folded["first"] is None


def trained(module, deployment, inputs) -> Outputs:
    twin = unfolded.real_valued(module)
    exact, _ = module_outputs(twin, deployment, inputs, torch.float64)
    return Outputs(*_swap(module_outputs(twin.float(), deployment, inputs, torch.float32), exact))


def _swap(single, exact):
    return single[0], exact, single[1]


def test_the_module_as_trained_is_the_folded_network(module, deployment, inputs):
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in module.modules())
    result, found = stages(deployment, inputs, trained(module, deployment, inputs))
    assert found["folded"]["compared"] is True
    assert found["folded"]["agreement"] == 1
    assert found["folded"]["first"] is None
    shares = {r["name"]: r["stages"]["folded"]["agreement"] for r in result["layers"]}
    assert set(shares.values()) == {1.0}  # means and class scores too


def test_other_weights_are_told_from_float32_arithmetic(module, deployment, inputs):
    other = samples.warmed_model(seed=3)
    _, found = stages(deployment, inputs, trained(other, deployment, inputs))
    first = found["folded"]["first"]
    assert found["folded"]["agreement"] < 0.99
    assert first["cause"] == "other weights"
    for side, value in zip(first["quantities"], first["values"], strict=True):
        assert (side["membrane"] > side["threshold"]) == bool(value)
    same = trained(module, deployment, inputs)
    flipped = same.outputs[LAYER].copy()
    flipped[2, 1, 0, 0, 0] = 1 - flipped[2, 1, 0, 0, 0]
    near = replace(same, outputs={**same.outputs, LAYER: flipped})
    first = stages(deployment, inputs, near)[1]["folded"]["first"]
    assert (first["node"], first["sample"], first["step"]) == (LAYER, 2, 1)
    assert first["cause"] == "float32 arithmetic"


def test_a_layer_that_the_module_does_not_have_is_left_open(module, deployment, inputs):
    same = trained(module, deployment, inputs)
    fewer = replace(same, outputs={n: v for n, v in same.outputs.items() if n != LAYER})
    result, _ = stages(deployment, inputs, fewer)
    rows = {r["name"]: r["stages"]["folded"]["agreement"] for r in result["layers"]}
    assert rows.pop(LAYER) is None
    assert set(rows.values()) == {1.0}


def test_one_spike_lost_to_float32_in_a_network_with_attention():
    """In float64 the module is the twin in every layer; in float32 one spike starts others."""
    x = samples.poisson_inputs(4, 4)
    model = samples.awake_scmrl()
    built = compile_module(model, x)
    found = collect(fast.run(built, x))
    ours = trained(model, built, x)
    assert any(isinstance(built.real.nodes[n], rn.Product) for n in ours.outputs)
    outputs = {"fast": found, "reference": found}
    exact = explained(built, x, outputs, None, replace(ours, outputs=ours.exact))
    shares = {r["name"]: r["stages"]["folded"]["agreement"] for r in exact["layers"]}
    missing = {n for n, s in shares.items() if s is None}
    assert missing == {n for n in shares if n.endswith((".frames", ".places"))}
    assert {s for n, s in shares.items() if n not in missing} == {1.0}
    stage = explained(built, x, outputs, None, ours)["stages"][0]
    assert 0.99 < stage["agreement"] <= 1
    if stage["first"]:  # which sums float32 rounds the other way depends on the machine
        assert stage["first"]["cause"] == "float32 arithmetic"
        for side, value in zip(stage["first"]["quantities"], stage["first"]["values"], strict=True):
            assert (side["membrane"] > side["threshold"]) == bool(value)
            assert side["membrane"] == pytest.approx(side["threshold"], abs=1e-5)


class Config:
    """Stands for a run's configuration."""

    train = SimpleNamespace(threads=1)

    def model_dump(self, by_alias):
        return {"train": {"seed": 1, "rates": (1, 2)}, "model": {"name": "add"}}


def test_run_outputs_loads_the_run_and_checks_it(module, deployment, inputs, monkeypatch, tmp_path):
    given = (module, None, Config())
    monkeypatch.setattr(unfolded, "load_run", lambda run, **options: given)
    network = SimpleNamespace(module=module)
    monkeypatch.setattr(unfolded, "deployed_network", lambda model, data: network)
    stated = {"train": {"seed": 1, "rates": [1, 2], "gone": 3}, "model": {"name": "add"}}

    def found(run):
        named = replace(deployment, provenance={"run": run} if run else {})
        return unfolded.run_outputs(tmp_path, named, inputs, cache_dir=tmp_path)

    ours = found(stated)
    assert ours.outputs[LAYER].dtype == np.float32
    assert ours.exact[LAYER].dtype == np.float64
    np.testing.assert_array_equal(ours.outputs[LAYER], ours.exact[LAYER])
    with pytest.raises(ConfigError, match=r"train\.seed is 1, the file says 2; give that run"):
        found({"train": {"seed": 2}})
    with pytest.raises(ConfigError, match="names no run it was made from"):
        found(None)
