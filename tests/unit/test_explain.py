"""Explain: alterations are named with their cause, and a rounding is told by substitution."""

from __future__ import annotations

from dataclasses import replace

import fusion
import numpy as np
import pytest
import samples

from neuroav import integer as ig
from neuroav import navfile, simulate, verify
from neuroav.errors import FileFormatError
from neuroav.explain import explained, verify_explained
from neuroav.explain.against import altered, compare_graphs, differences
from neuroav.explain.recompute import Drive, delayed, integer_drive, lif, outputs, port_sums
from neuroav.explain.rederive import derive
from neuroav.explain.swaps import SWAPS, first_difference, sides
from neuroav.explain.twin import Twin
from neuroav.sim import fast, reference
from neuroav.sim.trace import collect
from neuroav.training.config import QuantConfig
from neuroav.training.qat import prepare_qat
from neuroav_export import compile_module

LAYER = "visual.stem.lif1"  # fed by a convolution, with a bias


@pytest.fixture(scope="module")
def inputs():
    return samples.poisson_inputs(6, 4)


@pytest.fixture(scope="module")
def deployment(inputs):
    """An untrained `add` in 4 bits, whose neurons all fire: rounding changes many spikes."""
    from neuroav.deployment import Probe

    built = compile_module(samples.warmed_model(), inputs, bits=4)
    return replace(built, probe=Probe(inputs, np.zeros(6, np.int64)))


@pytest.fixture(scope="module")
def messages(deployment, inputs):
    found = collect(reference.run(deployment, inputs))
    rate = {n: (found[n] != 0).mean() for n in found}
    neurons = [n for n, p in deployment.integer.populations.items() if isinstance(p, ig.IntLif)]
    assert len(neurons) > 6
    assert all(0.01 < rate[n] < 0.9 for n in neurons)
    return found


@pytest.fixture(scope="module")
def explanation(deployment, inputs, messages):
    return explained(deployment, inputs, {"reference": messages, "fast": messages}, None)


def changed(deployment, name, change):
    pops = dict(deployment.integer.populations)
    pops[name] = change(pops[name])
    return replace(deployment, integer=replace(deployment.integer, populations=pops))


def weight_changed(pop):
    p = pop.projections[0]
    weight = p.weight.copy()
    weight[2, 1, 0, 1] = 112 if weight[2, 1, 0, 1] <= 0 else -112
    return replace(pop, projections=(replace(p, weight=weight),))


def threshold_changed(pop):
    level = np.broadcast_to(pop.threshold, (pop.shape[0], 1, 1)).copy()
    level[3] += 40
    return replace(pop, threshold=level)


def delay_changed(pop):
    return replace(pop, projections=(replace(pop.projections[0], delay=1),))


def bias_changed(pop):
    mantissa = np.broadcast_to(pop.bias_mantissa, (pop.shape[0], 1, 1)).copy()
    mantissa[5] += 900
    return replace(pop, bias_mantissa=mantissa)


ALTERATIONS = [
    (weight_changed, "weight", [2, 1, 0, 1], "weight"),
    (threshold_changed, "threshold", [3, 0, 0], "threshold"),
    (lambda p: replace(p, decay_v=p.decay_v // 2), "decay_v", None, "decay"),
    (delay_changed, "delay", None, "delay"),
    (bias_changed, "bias_mantissa", [5, 0, 0], "bias"),
]  # fmt: skip
NAMES = [a[1] for a in ALTERATIONS]


def test_a_wrong_delay_is_refused_by_name_before_anything_runs(deployment, tmp_path):
    navfile.save(changed(deployment, LAYER, delay_changed), tmp_path / "b.nav")
    with pytest.raises(
        FileFormatError, match=rf"{LAYER} from \S+: delay is 1, branches align at 0"
    ):
        navfile.load(tmp_path / "b.nav")
    assert navfile.load(tmp_path / "b.nav", rules=False).content_hash


# --- another graph --------------------------------------------------------------------------------
@pytest.mark.parametrize(("change", "field", "index", "cause"), ALTERATIONS, ids=NAMES)
def test_an_altered_file_is_named_by_node_field_index_and_cause(
    deployment, tmp_path, change, field, index, cause
):
    navfile.save(deployment, tmp_path / "a.nav")
    navfile.save(changed(deployment, LAYER, change), tmp_path / "b.nav")
    found = verify_explained(
        tmp_path / "a.nav",
        against=tmp_path / "b.nav",
        explain=False,
        backends=["reference", "fast"],
        cache_dir=tmp_path,
    )
    assert found["first_divergence"] is None  # the executors of one file are equal
    assert found["equal"] is found["against"]["equal"] is False
    (difference,) = found["against"]["differences"]
    assert (difference["node"], difference["field"]) == (LAYER, field)
    assert (difference["index"], difference["cause"]) == (index, cause)
    assert difference["expected"] != difference["found"]
    first = found["against"]["first_divergence"]
    assert (first["node"], first["cause"]) == (LAYER, cause)
    assert sorted(first["values"]) == [0, 1]
    if index is not None:
        assert first["index"][0] == index[0]  # a neuron of the channel that was changed


@pytest.mark.parametrize(("change", "field", "index", "cause"), ALTERATIONS, ids=NAMES)
def test_an_altered_file_is_found_by_its_own_twin(deployment, change, field, index, cause):
    assert altered(deployment) == []
    (difference,) = altered(changed(deployment, LAYER, change))
    assert (difference.node, difference.field) == (LAYER, field)
    assert (difference.index, difference.cause) == (index and tuple(index), cause)


def test_the_first_other_spike_is_the_one_of_a_full_run(deployment, inputs, messages):
    other = changed(deployment, LAYER, threshold_changed)
    full = verify.first_divergence(deployment, messages, collect(fast.run(other, inputs)))
    first = compare_graphs(deployment, other.integer, messages, explain=True)["first_divergence"]
    place = ("node", "sample", "step", "index", "values")
    assert [first[k] for k in place] == [full[k] for k in place]
    before, after = first["quantities"]
    assert after["threshold"] - before["threshold"] == 40 * 64
    assert before["membrane"] > before["threshold"]
    assert after["membrane"] <= after["threshold"]


def test_two_alterations_have_a_spike_each_and_the_cause_that_gives_it(deployment, messages):
    other = changed(deployment, LAYER, lambda p: threshold_changed(delay_changed(p)))
    other = changed(other, "audio.stem.lif0", lambda p: replace(p, decay_v=0))
    found = compare_graphs(deployment, other.integer, messages, explain=True)
    by_node = {f["node"]: f["cause"] for f in found["first_by_node"]}
    assert by_node == {LAYER: "delay", "audio.stem.lif0": "decay"}  # messages are late at once
    assert len(found["differences"]) == 3


def test_a_register_that_overflows_is_its_own_cause(deployment, messages):
    other = changed(
        deployment, LAYER, lambda p: replace(p, bias_mantissa=np.full((1, 1, 1), 4095),
                                             bias_exponent=12, threshold=p.threshold)
    )  # fmt: skip
    first = compare_graphs(deployment, other.integer, messages, explain=False)["first_divergence"]
    assert first["cause"] == "overflow"
    assert "register holds" in first["message"]


def test_what_is_missing_or_of_another_kind_is_named(deployment):
    graph = deployment.integer
    pops = {n: p for n, p in graph.populations.items() if n != graph.output}
    (gone,) = differences(graph, replace(graph, populations=pops))
    assert (gone.node, gone.field, gone.found) == (graph.output, "population", "absent")
    tokens = graph.populations["audio.stem.tokens"]
    other = changed(
        deployment, "audio.stem.tokens", lambda p: ig.IntOr(p.shape, tokens.projections)
    )
    (kind,) = differences(graph, other.integer)
    assert (kind.field, kind.expected, kind.found) == ("class", "IntSum", "IntOr")
    residual = graph.populations["audio.mlp.residual"]
    assert len(residual.projections) == 2
    other = changed(
        deployment, "audio.mlp.residual",
        lambda p: replace(p, projections=p.projections[::-1]),
    )  # fmt: skip
    found = differences(graph, other.integer)
    assert {d.cause for d in found if d.field == "source"} == {"order"}


# --- one population alone -----------------------------------------------------------------------
def test_a_population_alone_gives_what_the_network_gives(deployment, messages):
    graph, arith = deployment.integer, deployment.profile.arithmetic
    for name in graph.order:
        pop = graph.populations[name]
        if isinstance(pop, ig.IntInput):
            continue
        np.testing.assert_array_equal(outputs(graph, name, pop, messages, arith), messages[name])
        if isinstance(pop, ig.IntLif):
            drive = integer_drive(pop, port_sums(graph, name, pop, messages)[0], arith)
            np.testing.assert_array_equal(lif(drive)[0], messages[name])


def test_truncation_goes_toward_zero_and_a_real_leak_does_not_truncate():
    current = np.array([[[-5.0], [0.0]]])
    drive = Drive(current, np.zeros(1), np.full(1, 100.0), keep=0.5)
    assert lif(drive)[1].ravel().tolist() == [-5.0, -2.0]
    assert lif(replace(drive, whole=False))[1].ravel().tolist() == [-5.0, -2.5]


def test_delayed():
    x = np.arange(1, 5)[None, :, None]
    assert delayed(x, 1).ravel().tolist() == [0, 1, 2, 3]
    assert delayed(x, -1).ravel().tolist() == [2, 3, 4, 0]


# --- float against integer ------------------------------------------------------------------------
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bits": 4, "per_channel": True, "calibration": "mse"},
        {"bits": 6, "calibration": "percentile"},
    ],
)
def test_the_twin_gives_back_the_integers_of_every_setting(inputs, settings):
    built = compile_module(samples.warmed_model(), inputs, **settings)
    assert altered(built) == []
    derived = derive(built, LAYER)
    assert derived.settings is not None
    assert derived.unit.size == (8 if settings.get("per_channel") else 1)


def test_so_it_does_after_training_with_the_deployed_integers(inputs):
    quant = QuantConfig(aware=True, bits=3, calibration="mse", per_channel=True)
    model = prepare_qat(samples.warmed_model(), quant).eval()
    built = compile_module(model, inputs, bits=3, calibration="mse", per_channel=True)
    assert altered(built) == []
    assert derive(built, LAYER).settings.calibration == "mse"


def test_currents_of_the_host_and_wide_messages():
    """Static inputs, sums and products whose messages drop bits, and a winner without a twin."""
    x = fusion.features(16)
    built = compile_module(
        fusion.awake_fusion(), x, bits=4, winner=True, static=("audio", "visual")
    )
    found = collect(fast.run(built, x))
    assert {"IntHostCurrent", "IntTimeSum", "IntProduct"} <= {
        type(p).__name__ for p in built.integer.populations.values()
    }
    result = explained(built, x, {"reference": found, "fast": found}, None)
    rows = {r["name"]: r for r in result["layers"]}
    assert result["altered"] == []
    assert result["without_twin"] == ["search.winner"]
    assert found["audio.first"].any()
    assert rows["audio.first"]["own_agreement"] == 1  # rounded, and cut where no spike changes
    assert rows["pair_a.left_sum"]["first"]["cause"] == "rounding of weight"
    assert rows["search"]["recovers"]["weight"] > 0.99  # the dropped bits count as bias
    assert rows["search"]["mean_difference"] > 100


def test_capped_counts_of_attention_are_compared_as_capped():
    x = samples.poisson_inputs(4, 4)
    built = compile_module(samples.awake_scmrl(), x)
    found = collect(fast.run(built, x))
    capped = {n: p.cap for n, p in built.integer.populations.items() if getattr(p, "cap", 0)}
    assert len(capped) == 4
    assert all((found[n] == cap).mean() > 0.1 for n, cap in capped.items())
    rows = explained(built, x, {"reference": found, "fast": found}, None)["layers"]
    assert {r["own_agreement"] for r in rows if r["name"] in capped} == {1.0}


def test_all_floats_swapped_in_are_the_float_neuron(deployment, inputs, messages):
    twin = Twin(deployment, messages, inputs)
    both = sides(deployment, LAYER, twin, derive(deployment, LAYER), messages)
    own = twin.own(LAYER)
    assert (own != messages[LAYER]).sum() > 50
    np.testing.assert_array_equal(lif(both.with_float(SWAPS))[0], own)
    np.testing.assert_array_equal(lif(both.with_float([]))[0], messages[LAYER])


def test_layers_lose_by_themselves_and_by_what_comes_in(explanation):
    rows = {r["name"]: r for r in explanation["layers"]}
    first, second = rows["visual.stem.lif0"], rows[LAYER]
    assert first["own_agreement"] == first["float_agreement"] < 1  # its inputs are the same
    assert second["float_agreement"] < second["own_agreement"] < 1
    pool = rows["visual.stem.pool0"]
    assert pool["float_agreement"] < pool["own_agreement"] == 1  # exact, on other inputs
    assert all(r["executors"] == {"fast": 1.0} for r in explanation["layers"])
    assert explanation["without_twin"] == explanation["altered"] == []


def test_layers_are_ranked_by_their_own_loss(explanation):
    rows = {r["name"]: r for r in explanation["layers"]}
    spiking = [n for n in explanation["ranked"] if rows[n]["spiking"]]
    lost = [1 - rows[n]["own_agreement"] for n in spiking]
    assert len(spiking) > 6
    assert lost == sorted(lost, reverse=True)
    assert explanation["ranked"][len(spiking) :] == ["head.linear"]  # graded values come last
    assert rows["head.linear"]["recovers"]["weight"] > 0.9


def test_four_bits_lose_by_their_weights_and_eight_bring_most_back(explanation, inputs):
    rows = {r["name"]: r for r in explanation["layers"]}
    row = rows[LAYER]
    assert row["dominant"] == "weight"
    assert "--bits 8" in row["advice"]
    wider = compile_module(samples.warmed_model(), inputs, bits=8)
    found = collect(reference.run(wider, inputs))
    again = explained(wider, inputs, {"reference": found, "fast": found}, None)
    after = next(r for r in again["layers"] if r["name"] == LAYER)
    assert 1 - after["own_agreement"] < 0.3 * (1 - row["own_agreement"])
    assert "--per-channel" in after["advice"]


def coarse(part):
    """Neurons whose only inexact part is this one."""

    def change(pop, derived):
        exact = derived.population
        if part == "threshold":
            return replace(exact, threshold=exact.threshold + 25)
        if part == "bias":
            return replace(exact, bias_mantissa=exact.bias_mantissa + 1500)
        return replace(exact, decay_v=exact.decay_v - 900)

    return change


@pytest.mark.parametrize("part", ["threshold", "bias", "decay"])
def test_the_rounding_behind_a_spike_is_found_by_substitution(inputs, part):
    """In 8 bits little is lost; one part is set wrong, and putting the float one in mends it."""
    built = compile_module(samples.warmed_model(), inputs)
    derived = derive(built, LAYER)
    built = changed(built, LAYER, lambda p: coarse(part)(p, derived))
    found = collect(reference.run(built, inputs))
    assert 0.01 < (found[LAYER] != 0).mean() < 0.9
    result = explained(built, inputs, {"reference": found, "fast": found}, None)
    row = next(r for r in result["layers"] if r["name"] == LAYER)
    assert result["ranked"][0] == LAYER
    assert row["dominant"] == part
    assert {d["cause"] for d in result["altered"]} == {part}


def test_the_first_difference_names_both_sides(explanation):
    row = next(r for r in explanation["layers"] if r["name"] == LAYER)
    first = row["first"]
    assert first["cause"] == "rounding of weight"
    assert {first["deployed"], first["float"]} == {0, 1}
    whole, real, apart = (first[k] for k in ("integer", "real", "difference"))
    assert (whole["membrane"] > whole["threshold"]) == bool(first["deployed"])
    assert (real["membrane"] > real["threshold"]) == bool(first["float"])
    worth = real["threshold"] / (whole["threshold"] + apart["threshold"])
    for name in whole:
        assert real[name] == pytest.approx(worth * (whole[name] + apart[name]))


def test_a_place_that_no_swap_explains_is_an_order(deployment, inputs, messages):
    twin = Twin(deployment, messages, inputs)
    both = sides(deployment, LAYER, twin, derive(deployment, LAYER), messages)
    agreed = np.argwhere((lif(both.integer)[0] == lif(both.float)[0]) & lif(both.float)[0])[0]
    place = (int(agreed[0]), int(agreed[1]), tuple(map(int, agreed[2:])))
    assert first_difference(both, place, True)["cause"] != "order"
    never = replace(both, integer=both.float)
    assert first_difference(never, place, False)["cause"] == "order"


# --- executors ---------------------------------------------------------------------------------
def test_an_executor_that_errs_is_shown_with_what_it_should_have_computed(
    deployment, tmp_path, monkeypatch
):
    def wrong(deployment, inputs, **options):
        return reference.run(changed(deployment, LAYER, lambda p: replace(p, decay_v=0)), inputs)

    monkeypatch.setitem(simulate.BACKENDS, "fast", lambda: wrong)
    navfile.save(deployment, tmp_path / "a.nav")
    found = verify_explained(
        tmp_path / "a.nav", backends=["reference", "fast"], samples=2, cache_dir=tmp_path
    )
    assert found["equal"] is False
    first = found["explain"]["first_divergence"]
    assert (first["node"], first["cause"]) == (LAYER, "decay")
    expected, same = first["quantities"]
    assert expected == same  # same inputs: the executor itself is wrong
    assert (expected["membrane"] > expected["threshold"]) == bool(first["values"][0])
    shares = {r["name"]: r["executors"]["fast"] for r in found["explain"]["layers"]}
    assert shares["visual.stem.lif0"] == 1
    assert shares[LAYER] < 1


def test_equal_files_are_equal_and_plain_verify_has_no_new_keys(deployment, tmp_path):
    navfile.save(deployment, tmp_path / "a.nav")
    common = {"backends": ["reference", "fast"], "samples": 1, "cache_dir": tmp_path}
    plain = verify.verify(tmp_path / "a.nav", **common)
    both = verify_explained(tmp_path / "a.nav", against=tmp_path / "a.nav", **common)
    assert both["against"]["equal"] is both["equal"] is True
    assert both["against"]["first_divergence"] is None
    assert set(both) - set(plain) == {"explain", "against"}
    assert {k: both[k] for k in plain} == plain
