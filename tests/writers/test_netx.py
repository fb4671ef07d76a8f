"""What netx loads from the file spikes as the fast executor does, layer by layer."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import samples
from strategies_intgraph import make_deployment

from neuroav import integer as ig
from neuroav import navfile
from neuroav.errors import ConfigError, UnsupportedNode
from neuroav.fixed import weight_step
from neuroav_export.writers import netx

SCRIPT = Path(__file__).with_name("run_netx.py")


def run_netx(folder: Path, frames: np.ndarray, timeout: float = 240.0) -> list[np.ndarray]:
    """Run FOLDER/network.net on (frames, *shape) in a process group of its own.

    Returns the spikes of every layer, (frames, *shape) in our axis order and its own time frame.
    """
    np.save(folder / "frames.npy", frames)
    paths = [str(samples.ROOT), str(samples.ROOT / "export")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder)],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        process.wait(timeout)
    finally:  # a hanging Lava leaves its children behind: TERM frees shared memory, KILL the rest
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
                time.sleep(0.5)
        process.wait()
    assert process.returncode == 0, (folder / "log").read_text()
    files = sorted(folder.glob("layer*.npy"))
    return [
        np.load(file).transpose()[1 + number : 1 + number + len(frames)]
        for number, file in enumerate(files)
    ]


def assert_same_spikes(folder: Path, done, inputs: dict, expected: dict) -> None:
    """All nodes carried: netx's spikes equal ``expected``; none silent, none saturated."""
    name, *nodes = done.nodes
    counts = inputs[name]
    found = run_netx(folder, counts.reshape(-1, *counts.shape[2:]))
    assert len(found) == len(nodes)
    for node, spikes in zip(nodes, found, strict=True):
        wanted = expected[node].reshape(spikes.shape)
        assert 0.001 < wanted.mean() < 0.95, node
        assert np.array_equal(spikes, wanted), node


@pytest.mark.lava
def test_chain_with_every_setting(chain, tmp_path, fast_outputs):
    """Rectangular strides, padding, dilation, groups, pooling, flatten, dense, biases."""
    deployment, inputs = chain
    done = netx.write(deployment, tmp_path / "network.net", round_bias=True)
    assert done.nodes == ("eye", "lif0", "pool", "lif1", "lif2")
    assert set(done.left_out) == {"head"}
    assert set(done.notes["rounded_biases"]) == {"lif0", "lif2"}
    rounded, _ = netx.round_biases(deployment)
    assert_same_spikes(tmp_path, done, inputs, fast_outputs(rounded, inputs))


@pytest.mark.lava
@pytest.mark.parametrize(("branch", "nodes"), [("audio", 5), ("visual", 6)])
def test_branch_of_the_realistic_network(realistic, tmp_path, fast_outputs, branch, nodes):
    deployment, inputs, _ = realistic
    assert len(inputs[branch]) == 32
    done = netx.write(deployment, tmp_path / "network.net", branch=branch, round_bias=True)
    assert len(done.nodes) == nodes
    assert len(done.nodes) + len(done.left_out) == len(deployment.integer.populations)
    rounded, _ = netx.round_biases(deployment)
    assert_same_spikes(tmp_path, done, inputs, fast_outputs(rounded, inputs))


@pytest.mark.lava
def test_exact_biases_relays_and_a_flat_start(tmp_path, fast_outputs):
    """Without rounding: biases per neuron in 64/64, graded counts, relays, inhibitory weights."""
    rng = np.random.default_rng(2)

    def dense(source, out, inputs, low, high, mode):
        weight = rng.integers(low, high, (out, inputs)) * weight_step(8, mode)
        return ig.IntDense(source, 0, weight, 8, mode)

    lif = {"decay_u": 2048, "decay_v": 700, "bias_exponent": 6}
    populations = {
        "in": ig.IntInput((2, 2, 3), (), 3),
        "a": ig.IntLif((10,), (dense("in", 10, 12, -40, 80, "mixed"),),
                       rng.integers(-20, 40, 10), threshold=np.array([400]), **lif),
        "b": ig.IntLif((10,), (ig.IntIdentity("a", 0, 96),),
                       np.array([7]), threshold=np.array([150]), **lif),
        "c": ig.IntOr((4,), (dense("b", 4, 10, 0, 2, "excitatory"),)),
        "d": ig.IntLif((6,), (dense("c", 6, 4, -250, 0, "inhibitory"),),
                       np.array([3200]), 2, np.array([150]), 4095, 2048),
        "out": ig.IntReadout((2,), (dense("d", 2, 6, -9, 9, "mixed"),), np.zeros(1, int)),
    }  # fmt: skip
    deployment = make_deployment(populations, "out", 5)
    inputs = {"in": rng.integers(0, 4, (9, 5, 2, 2, 3))}
    done = netx.write(deployment, tmp_path / "network.net")
    assert done.nodes == ("in", "a", "b", "c", "d")
    assert done.notes["input_message_bits"] == 2
    assert_same_spikes(tmp_path, done, inputs, fast_outputs(deployment, inputs))


def test_file_says_what_it_holds(realistic, tmp_path):
    deployment = navfile.save(realistic[0], tmp_path / "net.nav")
    done = netx.write(deployment, tmp_path / "a.net", branch="audio", round_bias=True)
    with h5py.File(tmp_path / "a.net", "r") as file:
        facts = dict(file.attrs)
        kinds = [file[f"layer/{i}/type"][0] for i in range(len(file["layer"]))]
    assert facts["format"] == "neuroav-netx"
    assert facts["deployment_hash"] == deployment.content_hash == done.hash
    assert json.loads(facts["nodes"]) == list(done.nodes)
    assert json.loads(facts["left_out"]) == done.left_out
    assert json.loads(facts["rounded_biases"]) == done.notes["rounded_biases"]
    assert facts["values"].endswith("biases of rounded_biases rounded to 64/64")
    assert (facts["input"], facts["reset_interval"], facts["reset_offset"]) == ("audio", 6, 1)
    assert facts["input_message_bits"] == 8
    assert kinds == [b"input"] + [b"conv"] * (len(done.nodes) - 1)


def test_rounding_moves_no_bias_by_more_than_half_an_input(realistic):
    before = realistic[0].integer.populations
    rounded, changed = netx.round_biases(realistic[0])
    assert set(changed) == {n for n, p in before.items() if isinstance(p, ig.IntLif)}
    for name in changed:
        old, new = before[name], rounded.integer.populations[name]
        moved = np.abs(
            (old.bias_mantissa << old.bias_exponent) - (new.bias_mantissa << new.bias_exponent)
        )
        assert 0 < moved.max() <= 32
        assert changed[name] == (np.broadcast_to(moved, old.shape) != 0).sum()
    assert netx.round_biases(rounded)[1] == {}


# --- refusals --------------------------------------------------------------------------------
def test_two_branches_are_refused_with_every_node_left_out(realistic, tmp_path):
    graph = realistic[0].integer
    with pytest.raises(UnsupportedNode, match="--branch audio or visual") as refused:
        netx.write(realistic[0], tmp_path / "a.net", round_bias=True)
    kept = netx.find_chain(netx.round_biases(realistic[0])[0].integer,
                           realistic[0].profile.arithmetic, "visual")[0]  # fmt: skip
    for name in graph.order:
        assert (f"{name} (" in str(refused.value)) == (name not in kept and name != graph.output)
    assert not list(tmp_path.iterdir())


def test_unknown_branch_offers_the_inputs(realistic, tmp_path):
    with pytest.raises(ConfigError, match="unknown branch 'visuel'.*did you mean 'visual'"):
        netx.write(realistic[0], tmp_path / "a.net", branch="visuel")


def test_biases_between_inputs_are_refused_with_the_way_out(realistic, tmp_path):
    with pytest.raises(UnsupportedNode, match="visual: nothing behind it fits netx") as refused:
        netx.write(realistic[0], tmp_path / "a.net", branch="visual")
    assert "biases are no multiple of 64/64 input units; --round-bias rounds" in str(refused.value)


def one_layer(weight, threshold=(50,), bias=(0,), exponent=0):
    weight = np.asarray(weight)
    lif = ig.IntLif(
        (len(weight),),
        (ig.IntDense("in", 0, weight, 8, "mixed"),),
        np.array(bias),
        exponent,
        np.array(threshold),
        4095,
        2048,
    )
    readout = ig.IntReadout(
        (1,), (ig.IntDense("lif", 0, np.full((1, len(weight)), 2), 8, "mixed"),), np.zeros(1, int)
    )
    shape = (weight.shape[1],)
    return make_deployment({"in": ig.IntInput(shape, (), 1), "lif": lif, "out": readout}, "out", 3)


@pytest.mark.parametrize(
    ("deployment", "reason"),
    [
        (one_layer([[2, 4], [6, 8]], threshold=(50, 51)), "differ in threshold"),
        (one_layer([[2, 4], [6, 8]], bias=(4095,), exponent=7), "biases reach 8190 input units"),
        (one_layer([[0, 0], [0, 0]]), "do not survive lava-dl's optimize_weight_bits"),
        (one_layer([[-128, 0], [-128, 0]]), "do not survive lava-dl's optimize_weight_bits"),
    ],
)
def test_what_netx_would_distort_is_refused(deployment, reason, tmp_path):
    with pytest.raises(UnsupportedNode, match=reason):
        netx.write(deployment, tmp_path / "a.net")
    assert not list(tmp_path.iterdir())


def test_a_profile_with_other_arithmetic_is_refused(chain, tmp_path):
    profile = chain[0].profile
    other = replace(profile.arithmetic, decay_bits=10)

    class Other:
        id, arithmetic = "other", other

    with pytest.raises(UnsupportedNode, match="decay_bits is 10, Lava has 12"):
        netx.write(replace(chain[0], profile=Other()), tmp_path / "a.net")


# --- lava-dl's own weight optimisation -------------------------------------------------------
@pytest.mark.lava
def test_surviving_weights_are_those_lava_keeps():
    """``_survives`` against lava-dl's function and Lava's truncation, on 2000 matrices."""
    code = f"""
import sys; sys.path[:0] = {[str(samples.ROOT), str(samples.ROOT / "export")]!r}
import warnings; import numpy as np
from neuroav_export.writers.netx import _survives
from neuroav.sim.lava import shim; shim.import_netx()
from lava.lib.dl.netx.utils import optimize_weight_bits
from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights
from neuroav.fixed import weight_levels, weight_step
rng, kept = np.random.default_rng(0), 0
warnings.simplefilter("ignore")
for trial in range(2000):
    mode = ("mixed", "excitatory", "inhibitory")[trial % 3]
    bits = int(rng.integers(2, 9))
    low, high = np.clip(weight_levels(bits, mode), -(4 ** (trial % 5)), 4 ** (trial % 5))
    weight = rng.integers(low, high + 1, (2, 2)) * weight_step(bits, mode)
    try:
        w, num_bits, exponent, _ = optimize_weight_bits(weight.copy())
    except OverflowError:  # all weights are zero
        assert not weight.any() and not _survives(weight)
        continue
    sign = determine_sign_mode(w)
    stored = truncate_weights(clip_weights(w, sign, num_bits=8), sign, num_bits)
    same = bool((stored >> -exponent == weight).all() and (stored == w).all())
    assert same == _survives(weight), (weight, stored, exponent)
    kept += same
assert 1000 < kept < 2000, kept
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          timeout=240, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("weight", "survives"),
    [
        ([-256, 254, 2], True),
        ([0, 255, 1], True),
        ([-255, -1, -3], True),
        ([-254, 0, -2], True),
        ([-255, 0, -2], False),  # lava-dl counts a bit for the sign that Lava's Dense does not use
    ],
)
def test_extremes_of_each_sign_mode(weight, survives):
    assert netx._survives(np.array([weight])) == survives
