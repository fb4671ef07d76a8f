"""What does not fit: every limit of every shipped profile, exceeded once, with the whole message.

The messages are in ``does_not_fit.txt``. To write it anew after a change of profiles or texts, and
to read what changed:

    PYTHONPATH=tests/support python tests/mapping/test_fit.py && git diff tests/mapping
"""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from pathlib import Path

import numpy as np
import pytest
from limits import changed, graph_of

from neuroav import integer as ig
from neuroav.errors import DoesNotFit
from neuroav.hardware import Profile, list_profiles, load_profile
from neuroav.mapping.fit import check_placement
from neuroav.mapping.mapper import map_graph, mesh_of, plan, unmapped
from neuroav.mapping.needs import Costs
from neuroav.placement import Core, Placement, Slice

GOLDEN = Path(__file__).with_name("does_not_fit.txt")
LOIHI2 = load_profile("loihi2")


# --- networks that are too large ---------------------------------------------------------------
def lif(shape, *projections) -> ig.IntLif:
    one = np.ones((1,) * len(shape), np.int64)
    return ig.IntLif(shape, projections, 0 * one, 0, one, 4095, 2048)


def relay(source: str, delay: int = 0) -> ig.IntIdentity:
    return ig.IntIdentity(source, delay, 1)


def dense(source: str, inputs: int, outputs: int = 1) -> ig.IntDense:
    weight = np.ones((outputs, inputs), np.int64)
    return ig.IntDense(source, 0, weight=weight, weight_bits=8, sign_mode="mixed")


def many_inputs(count: int) -> ig.IntGraph:
    """One neuron that reads ``count`` others."""
    return graph_of(
        {"eye": ig.IntInput((count,), (), 1), "sees": lif((1,), dense("eye", count))}, "sees"
    )


def many_outputs(count: int) -> ig.IntGraph:
    """One neuron that ``count`` others read."""
    return graph_of(
        {
            "eye": ig.IntInput((1,), (), 1),
            "sends": lif((1,), relay("eye")),
            "reads": lif((count,), dense("sends", 1, count)),
        },
        "reads",
    )


def two_readers() -> ig.IntGraph:
    return graph_of(
        {
            "eye": ig.IntInput((1,), (), 1),
            "sends": lif((1,), relay("eye")),
            **{name: ig.IntOr((1,), (relay("sends"),)) for name in ("left", "right")},
        },
        "left",
    )


def one_head(channels: int) -> ig.IntGraph:
    """Attention over one token, with channels x channels sums."""
    shape = (channels, 1, 1)
    parts = tuple(ig.IntIdentity("eye", 0, 1, port=port) for port in range(3))
    attention = ig.IntSpatialAttention(shape, parts, 1, 0, "key-value")
    return graph_of({"eye": ig.IntInput(shape, (), 1), "attention": attention}, "attention")


def long_wait(steps: int) -> ig.IntGraph:
    """A branch that waits ``steps`` for the other."""
    return graph_of(
        {
            "eye": ig.IntInput((3,), (), 1),
            "spikes": ig.IntOr((3,), (relay("eye"),)),
            "join": ig.IntSum((3,), (relay("spikes", steps), relay("spikes"))),
        },
        "join",
    )


def many_neurons(rows: int, columns: int) -> ig.IntGraph:
    shape = (rows, columns, 1)
    return graph_of(
        {"eye": ig.IntInput(shape, (), 1), "spikes": ig.IntOr(shape, (relay("eye"),))}, "spikes"
    )


def case(profile: Profile, key: str) -> tuple[ig.IntGraph, Profile]:
    """Return a network that exceeds a limit, and the profile, its limit lowered where it is far."""
    table, _, name = key.partition(".")
    most = int(
        getattr(getattr(profile, table), name).value
        if table != "numeric"
        else profile.rules.delay_max
    )
    if key == "topology.chips":
        profile = changed(profile, topology__chips=1)
        columns = int(profile.core.neurons.value or 8192)
        return many_neurons(int(profile.topology.cores_usable.value) + 1, columns), profile
    if key == "core.neurons":
        return one_head(isqrt(most) + 1), profile
    if key in ("core.memory_synapse", "core.memory_total", "core.axons_in", "core.fan_in"):
        return many_inputs(most + 1), profile
    if key == "core.fan_out":
        return many_outputs(most + 1), profile
    if key == "core.axons_out":
        return two_readers(), changed(profile, core__axons_out=1)
    if key == "core.state_bytes":
        return many_outputs(1), changed(
            profile, core__state_bytes=profile.layout.neuron_bytes.value - 1
        )
    if key == "core.programs":
        return many_outputs(1), changed(profile, core__programs=0)
    assert key == "numeric.delay_max", key
    return long_wait(most + 1), profile


def stated(profile: Profile) -> list[str]:
    """Keys of the limits that a profile knows."""
    keys = [f"core.{n}" for n in type(profile.core).model_fields]
    keys = [k for k in keys if getattr(profile.core, k[5:]).value is not None]
    keys += ["topology.chips"] * (profile.topology.cores_usable.value is not None)
    return keys + ["numeric.delay_max"] * (profile.numeric is not None)


CASES = [(name, key) for name in list_profiles() for key in stated(load_profile(name))]


def refusal(profile: Profile, graph: ig.IntGraph) -> DoesNotFit:
    with pytest.raises(DoesNotFit) as caught:
        plan(graph, profile)
    return caught.value


def golden() -> dict[tuple[str, str], str]:
    """Return the stored messages by profile and key."""
    found = {}
    for block in GOLDEN.read_text(encoding="utf-8").split("\n\n"):
        head, _, text = block.strip().partition("\n")
        name, key = head.strip("[]").split(" ")
        found[name, key] = text
    return found


def test_golden_file_has_every_limit_of_every_profile():
    assert list(golden()) == CASES
    assert len(CASES) > 50


@pytest.mark.parametrize(("name", "key"), CASES)
def test_every_limit_exceeded_gives_its_golden_message(name, key):
    graph, profile = case(load_profile(name), key)
    error = refusal(profile, graph)
    assert error.rule == "fit"
    assert key in {excess.key for excess in error.problems}
    assert str(error) == golden()[name, key]


# --- the remedies hold -------------------------------------------------------------------------
def test_every_exceeded_limit_is_listed_at_once():
    graph = graph_of(
        {
            "eye": ig.IntInput((200_000,), (), 1),
            "wide": lif((2,), dense("eye", 200_000, 2)),
            "join": ig.IntSum((2,), (relay("wide", 70),)),
            "best": ig.IntWinner((9000,), (ig.IntPlace("join", 0, 1, 0, 9000),)),
        },
        "best",
    )
    error = refusal(LOIHI2, graph)
    assert [(e.layer, e.key) for e in error.problems] == [
        ("join", "numeric.delay_max"),
        ("wide", "core.memory_synapse"),
        ("wide", "core.memory_total"),
        ("best", "core.neurons"),
    ]
    assert str(error).startswith("loihi2: 4 limits are exceeded:\n(1) numeric.delay_max: join ")
    assert error.at("run").problems == error.problems


def test_sums_before_a_neuron_of_many_inputs_fit():
    (excess,) = refusal(changed(LOIHI2, core__axons_in=300), many_inputs(1000)).problems
    assert "4 layers of sums" in excess.remedy
    assert "4 neurons" in excess.remedy
    whole = many_inputs(1000).populations["eye"]
    sums = {}
    for i in range(4):
        weight = np.zeros((1, 1000), np.int64)
        weight[:, 250 * i : 250 * (i + 1)] = 1
        p = ig.IntDense("eye", 0, weight=weight, weight_bits=8, sign_mode="mixed")
        sums[f"sum{i}"] = ig.IntSum((1,), (p,))
    joined = lif((1,), *(relay(name) for name in sums))
    plan(
        graph_of({"eye": whole, **sums, "sees": joined}, "sees"),
        changed(LOIHI2, core__axons_in=300),
    )


def test_groups_fit_where_sums_cannot_be_sent():
    weight = np.ones((8, 64, 3, 3), np.int64)
    p = ig.IntConv2d("eye", 0, weight=weight, weight_bits=8, sign_mode="mixed", stride=(1, 1),
                     padding=(1, 1), dilation=(1, 1), groups=1)  # fmt: skip
    graph = graph_of({"eye": ig.IntInput((64, 4, 4), (), 1), "sees": lif((8, 4, 4), p)}, "sees")
    profile = changed("loihi1", core__fan_in=200)
    (excess,) = refusal(profile, graph).problems
    assert excess.problem == "needs 576 synapses for one neuron, allowed 200 (loihi1-nahuku-fit)"
    assert "a convolution in 4 groups would fit" in excess.remedy
    grouped = replace(p, weight=weight[:, :16], groups=4)
    plan(graph_of({**graph.populations, "sees": lif((8, 4, 4), grouped)}, "sees"), profile)


def test_more_heads_fit():
    (excess, *_) = refusal(LOIHI2, one_head(96)).problems
    assert "2 heads instead of 1" in excess.remedy
    graph = one_head(96)
    halves = replace(graph.populations["attention"], heads=2)
    plan(graph_of({**graph.populations, "attention": halves}, "attention"), LOIHI2)


def test_copies_fit():
    profile = changed(LOIHI2, core__fan_out=100)
    (excess,) = refusal(profile, many_outputs(250)).problems
    assert (
        "3 copies of sends would fit, each for 1/3 of its synapses; they take 2 neurons more"
        in (excess.remedy)
    )
    copies = {f"sends{i}": lif((1,), relay("eye")) for i in range(3)}
    readers = {f"reads{i}": lif((84,), dense(f"sends{i}", 1, 84)) for i in range(3)}
    plan(graph_of({"eye": ig.IntInput((1,), (), 1), **copies, **readers}, "reads0"), profile)


@pytest.mark.parametrize("delay", [63, 125, 126, 300])
def test_relays_fit(delay):
    (excess,) = refusal(LOIHI2, long_wait(delay)).problems
    count = int(excess.remedy.split()[0])
    assert f"{3 * count} neurons more" in excess.remedy
    assert count * 63 < delay + 1 <= (count + 1) * 63  # steps that so many hops can take
    hops = [(delay + 1) // (count + 1)] * (count + 1)
    hops[0] += (delay + 1) % (count + 1)
    assert max(hops) - 1 <= 62


def test_a_larger_board_is_named_and_holds_it():
    graph = many_neurons(200, 8192)
    error = refusal(LOIHI2, graph)
    assert "needs 200 cores on 2 chips, allowed 120 on 1 chip" in str(error)
    assert "loihi2-kapoho-point has 8 chips and would hold it at 21%" in str(error)
    assert len(plan(graph, load_profile("loihi2-kapoho-point"), balance=False)) == 200


# --- a placement that is given -----------------------------------------------------------------
def on_cores(graph, *cores) -> Placement:
    seats = [(0, n // 4 % 8, n // 32, n % 4) for n in range(len(cores))]
    return Placement(
        "mine", mesh_of(LOIHI2),
        tuple(Core(tuple(slices), *seat) for slices, seat in zip(cores, seats, strict=True)), 0,
    )  # fmt: skip


def whole(graph, name: str) -> Slice:
    return Slice(name, tuple((0, size) for size in graph.populations[name].shape))


@pytest.fixture
def deep() -> ig.IntGraph:
    weight = np.ones((256, 128, 3, 3), np.int64)
    p = ig.IntConv2d("eye", 0, weight=weight, weight_bits=8, sign_mode="mixed", stride=(1, 1),
                     padding=(1, 1), dilation=(1, 1), groups=1)  # fmt: skip
    return graph_of(
        {
            "eye": ig.IntInput((128, 4, 4), (), 1),
            "conv": lif((256, 4, 4), p),
            "pool": ig.IntOr((256, 2, 2), (ig.IntPool("conv", 0, (2, 2), (2, 2), (0, 0)),)),
        },
        "pool",
    )


def test_a_core_that_holds_too_much_names_the_split_that_fits_with_its_cost(deep):
    placement = on_cores(deep, [whole(deep, "conv")], [whole(deep, "pool")])
    with pytest.raises(DoesNotFit) as caught:
        check_placement(deep, placement, LOIHI2)
    synapse, total = caught.value.problems
    assert synapse.text == (
        "core.memory_synapse: conv needs 300,811 byte in one core, allowed 131,072 (loihi2); "
        "splitting its 256 output channels over 3 cores would fit, and sends every message of its "
        "source to 3 cores instead of 1"
    )
    assert total.key == "core.memory_total"
    thirds = [
        [Slice("conv", (channels, (0, 4), (0, 4)))] for channels in ((0, 85), (85, 170), (170, 256))
    ]
    check_placement(deep, on_cores(deep, *thirds, [whole(deep, "pool")]), LOIHI2)


def test_a_crowded_core_names_its_slices(deep):
    placement = on_cores(deep, [whole(deep, "conv"), whole(deep, "pool")])
    profile = changed(
        LOIHI2, core__memory_synapse=None, core__memory_total=None, core__neurons=4500
    )
    with pytest.raises(DoesNotFit) as caught:
        check_placement(deep, placement, profile)
    (excess,) = caught.value.problems
    assert excess.text == (
        "core.neurons: conv, pool needs 5,120 neurons in one core, allowed 4,500 (loihi2); "
        "a core for each of its 2 slices would fit, and takes 1 core more"
    )


@pytest.mark.parametrize("name", ["loihi2", "loihi1-nahuku-fit", "truenorth"])
def test_a_placement_of_the_mapper_has_nothing_to_say(name):
    profile = load_profile(name)
    assert not unmapped(profile)
    graph = many_neurons(30, 40)
    check_placement(graph, map_graph(graph, profile), profile)
    assert Costs.of(profile).unknown["memory_total"] or name == "loihi2"


if __name__ == "__main__":
    blocks = [f"[{n} {k}]\n{refusal(*reversed(case(load_profile(n), k)))}" for n, k in CASES]
    GOLDEN.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
