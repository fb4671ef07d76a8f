"""Networks of Norse, snnTorch, SpikingJelly and Sinabs give the same spikes deployed.

``trained.npz`` holds the weights that ``benchmarks/frameworks.py --save`` trained in each
framework, float16. The same networks are in docs/frameworks.md.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import samples

pytestmark = pytest.mark.filterwarnings("ignore")  # of the frameworks, not of ours
bench = samples.load_script(samples.ROOT / "benchmarks" / "frameworks.py")
TRAINED = [case for case in bench.CASES if case.tested]


def needs(case):
    module = {"Norse": "norse"}.get(case.framework, case.package)
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed (extra `frameworks`)")


@pytest.fixture(scope="module")
def trained():
    with np.load(Path(__file__).with_name("trained.npz")) as saved:
        return {name: saved[name] for name in saved.files}


def test_each_framework_has_both_kinds_and_one_recurs():
    for framework in ("Norse", "snnTorch", "SpikingJelly", "Sinabs"):
        for cases in (TRAINED, bench.GRID_CASES):
            assert {"dense", "conv"} <= {c.network for c in cases if c.framework == framework}
    assert "recurrent" in {c.network for c in TRAINED}


@pytest.mark.parametrize("case", TRAINED, ids=lambda c: c.name)
def test_a_trained_network_predicts_the_same_at_8_bits(case, trained):
    needs(case)
    made = case.make()
    own = {n.split("/", 1)[1]: v for n, v in trained.items() if n.startswith(f"{case.name}/")}
    assert own.keys() == bench.weights(made).keys()
    bench.restore(made, own)
    found = bench.measure(case, made, samples=256)
    assert found.accuracy > 0.9  # of 8 classes
    assert all(0.02 < rate < 0.5 for rate in found.rates)
    assert found.agreement >= 0.99
    assert min(found.equal_layers) > 0.96
    assert found.equal_layers[0] > 0.985


@pytest.mark.parametrize("case", bench.GRID_CASES, ids=lambda c: c.name)
def test_on_the_grid_every_spike_of_every_layer_is_the_same(case):
    needs(case)
    found = bench.measure_on_grid(case, samples=64, epochs=0)
    assert all(0.005 < rate < 0.6 for rate in found.rates)
    assert found.equal_layers == (1.0,) * len(found.rates)
    assert found.equal_samples == found.agreement == 1.0
