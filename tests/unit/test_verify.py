"""Verify: equal executors are equal; a changed one is caught where it first differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import samples

from neuroav import navfile, simulate, verify
from neuroav.errors import ConfigError
from neuroav.sim import reference


@pytest.fixture(scope="module")
def deployment():
    """The tiny example with one threshold that sums of its weights can equal exactly."""
    built = samples.tiny_example().build()
    pops = dict(built.integer.populations)
    weight = int(pops["audio_lif"].projections[0].weight.max())
    pops["audio_lif"] = replace(pops["audio_lif"], threshold=np.array([2 * weight]))
    return replace(built, integer=replace(built.integer, populations=pops))


@pytest.fixture
def path(deployment, tmp_path):
    navfile.save(deployment, tmp_path / "net.nav")
    return tmp_path / "net.nav"


def test_equal_executors(path):
    found = verify.verify(path, backends=["reference", "fast"], cache_dir=path.parent)
    assert found["equal"] is True
    assert found["first_divergence"] is None
    assert found["silent"] == found["saturated"] == []
    assert found["samples"] == 12
    assert found["spikes_compared"] > 1000
    assert len(set(found["digests"].values())) == 1


def altered_executor(name, change):
    """An executor that makes one mistake: population ``name`` is another one."""

    def run(deployment, inputs, **options):
        pops = dict(deployment.integer.populations)
        pops[name] = change(pops[name])
        wrong = replace(deployment, integer=replace(deployment.integer, populations=pops))
        return reference.run(wrong, inputs)

    return run


def flipped(pop):
    p = pop.projections[0]
    weight = p.weight.copy()
    weight[0, 0, 0, 0] = -weight[0, 0, 0, 0]
    return replace(pop, projections=(replace(p, weight=weight),))


@pytest.mark.parametrize(
    ("name", "change", "cause"),
    [
        ("audio_lif", lambda p: replace(p, threshold=p.threshold - 1), "threshold"),
        ("visual_lif", lambda p: replace(p, decay_v=0), "decay"),
        ("audio_lif", lambda p: replace(p, decay_v=4096), "decay"),
        ("head", lambda p: replace(p, bias=0 * p.bias), "bias"),
        ("audio_lif", flipped, "parameter"),
    ],
)
def test_first_difference_is_named(path, monkeypatch, name, change, cause):
    wrong = altered_executor(name, change)
    monkeypatch.setitem(simulate.BACKENDS, "fast", lambda: wrong)
    found = verify.verify(path, backends=["reference", "fast"], cache_dir=path.parent)
    first = found["first_divergence"]
    assert found["equal"] is False
    assert first["node"] == name
    assert first["cause"] == cause
    assert first["values"][0] != first["values"][1]


def test_first_difference_is_the_earliest_in_sample_step_and_order(deployment):
    expected = {n: np.concatenate([t.outputs[n] for t in
                                   reference.run(deployment, deployment.probe.inputs)])
                for n in deployment.integer.order}  # fmt: skip
    found = {n: v.copy() for n, v in expected.items()}
    found["join"][3, 2, 1, 0, 0] += 1
    found["audio_lif"][3, 4, 0, 0, 0] ^= 1
    found["audio_lif"][5, 0, 0, 0, 0] ^= 1
    first = verify.first_divergence(deployment, expected, found)
    place = (first["node"], first["sample"], first["step"], first["index"])
    assert place == ("join", 3, 2, [1, 0, 0])
    assert verify.first_divergence(deployment, expected, expected) is None


def test_a_late_executor_is_a_delay(path, monkeypatch):
    def late(deployment, inputs, **options):
        for trace in reference.run(deployment, inputs):
            outputs = dict(trace.outputs)
            outputs["audio_lif"] = np.concatenate(
                [0 * outputs["audio_lif"][:, :1], outputs["audio_lif"][:, :-1]], axis=1
            )
            yield replace(trace, outputs=outputs)

    monkeypatch.setitem(simulate.BACKENDS, "fast", lambda: late)
    first = verify.verify(path, backends=["reference", "fast"], cache_dir=path.parent)[
        "first_divergence"
    ]
    assert (first["node"], first["cause"]) == ("audio_lif", "delay")


def test_silent_and_saturated_populations_are_listed(deployment, tmp_path):
    pops = dict(deployment.integer.populations)
    pops["audio_lif"] = replace(pops["audio_lif"], threshold=np.array([2**17 - 1]))
    pops["visual_lif"] = replace(pops["visual_lif"], bias_mantissa=np.array([4095]),
                                 bias_exponent=7)  # fmt: skip
    changed = replace(deployment, integer=replace(deployment.integer, populations=pops))
    navfile.save(changed, tmp_path / "n.nav")
    found = verify.verify(tmp_path / "n.nav", backends=["reference", "fast"], cache_dir=tmp_path)
    assert found["silent"] == ["audio_lif", "audio_pool"]
    assert found["saturated"] == ["visual_lif", "visual_pool"]


@pytest.mark.parametrize("backends", [["fast"], ["fast", "fast"], []])
def test_needs_two_backends(path, backends):
    with pytest.raises(ConfigError, match="give two or more different names"):
        verify.verify(path, backends=backends, cache_dir=path.parent)
