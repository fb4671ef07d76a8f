"""Files of lava-dl become deployments: SLAYER's networks, ours read back, and what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
import samples
from click.testing import CliRunner
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strategies_intgraph import random_deployment

from neuroav import integer as ig
from neuroav import navfile
from neuroav import nodes as rn
from neuroav.cli import import_
from neuroav.cli.group import cli
from neuroav.errors import (
    ConfigError,
    DataError,
    FileFormatError,
    NeuroavError,
    OutOfRange,
    UnsupportedNode,
)
from neuroav.fixed import shift_left
from neuroav.sim import fast, real, reference
from neuroav.sim.trace import collect
from neuroav_export.readers import READERS, import_file, read_file
from neuroav_export.readers.netx import READS, read_netx
from neuroav_export.readers.netx_layers import UNSUPPORTED, storage
from neuroav_export.writers import netx as writer

SCRIPT = Path(__file__).with_name("run_slayer.py")
KINDS = {"conv": (2, 9, 8), "recurrent": (12,), "delay": (12,)}
STEPS = 9


@dataclass(frozen=True)
class Ran:
    """What a run of the command line left."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture
def run():
    """Run ``neuroav`` with these arguments."""

    def invoke(*words) -> Ran:
        done = CliRunner().invoke(
            cli, [str(w) for w in words], env={"COLUMNS": "160"}, prog_name="neuroav"
        )
        return Ran(done.exit_code, done.stdout, done.stderr)

    return invoke


# --- SLAYER -----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def slayer(tmp_path_factory) -> Path:
    """Run the script in a process group of its own; return the folder with a folder per kind."""
    folder = tmp_path_factory.mktemp("slayer")
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
        process.wait(400)
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        process.wait()
    assert process.returncode == 0, (folder / "log").read_text()
    return folder


@pytest.mark.lava
@pytest.mark.parametrize("kind", KINDS)
def test_spikes_are_those_of_slayer_and_of_netx(kind, slayer):
    """SLAYER's quantized forward, every sample; netx in Lava, samples it does not mix."""
    folder = slayer / kind
    frames = np.load(folder / "frames.npy")
    deployment = read_netx(folder / "network.net", steps=STEPS, input_shape=KINDS[kind])
    found = collect(reference.run(deployment, {"input": frames}))
    assert np.array_equal(
        found["scores" if kind != "delay" else "layer2"],
        collect(fast.run(deployment, {"input": frames}))[deployment.integer.output],
    )
    spiking = [n for n, p in deployment.integer.populations.items() if isinstance(p, ig.IntLif)]
    # netx takes spikes under way over into the next sample, so only its first is one
    whole = len(frames) if kind == "conv" else 1
    assert len(spiking) == (2 if kind == "delay" else 3)
    for number, name in enumerate(spiking):
        ours = found[name]
        assert 0.02 < ours.mean() < 0.7, name
        assert np.array_equal(ours, np.load(folder / f"slayer{number}.npy").reshape(ours.shape))
        lava = np.load(folder / f"layer{number}.npy").transpose()[1 + number :]
        lava = lava[: whole * STEPS].reshape(whole, *ours.shape[1:])
        assert np.array_equal(ours[:whole], lava), name


@pytest.mark.lava
def test_what_slayer_learned_is_all_there(slayer):
    """Norms give biases, delays and recurrence lags, an affine end the readout."""
    read = {
        kind: read_netx(slayer / kind / "network.net", steps=STEPS, input_shape=shape).integer
        for kind, shape in KINDS.items()
    }
    conv = read["conv"].populations
    assert conv["layer1"].bias_mantissa.any()
    assert not conv["layer0"].bias_mantissa.any()
    assert conv["layer1"].projections[0].groups == 2
    recurrent = read["recurrent"]
    assert [p.lag for p in recurrent.populations["layer1"].projections] == [0, 1]
    assert recurrent.loops(("layer1",))
    delay = read["delay"].populations
    assert [p.lag for p in delay["layer0"].projections] == [0, 1, 2]
    assert read["delay"].output == "layer2"
    assert isinstance(delay["layer2"], ig.IntReadout)


@pytest.mark.lava
def test_scores_are_the_membranes_that_slayer_computes(slayer):
    """block.cuba.Affine gives its membranes, each worth 2^12 of our units."""
    folder = slayer / "delay"
    deployment = read_netx(folder / "network.net", steps=STEPS, input_shape=(12,))
    frames = np.load(folder / "frames.npy")
    found = collect(reference.run(deployment, {"input": frames}))["layer2"]
    assert len(np.unique(found)) > 20
    assert np.array_equal(found, np.load(folder / "slayer2.npy") * (1 << 12))


def test_weights_of_one_sign_that_only_mixed_synapses_hold():
    assert storage(np.array([[-256]])) == (1, "mixed")
    assert storage(np.array([[-255, 0]])) == (8, "inhibitory")
    assert storage(np.array([[-255, -256]])) is None


# --- ours read back ---------------------------------------------------------------------------
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.integers(0, 2**32 - 1), st.sampled_from(("eye", "ear")))
def test_what_we_write_is_read_back(tmp_path_factory, seed, branch):
    """Equal spikes of every node carried, equal integers of its neurons and synapses."""
    deployment, inputs = random_deployment(seed, hidden=5, steps=4, samples=2)
    deployment, _ = writer.round_biases(deployment)
    path = tmp_path_factory.mktemp("net") / "a.net"
    try:
        done = writer.write(deployment, path, branch=branch)
        expected = collect(reference.run(deployment, inputs))
    except (UnsupportedNode, OutOfRange):
        assume(False)
    read = read_netx(path)
    found = collect(reference.run(read, {branch: inputs[branch]}))
    assert read.integer.steps == 4
    assert read.integer.dt_s == deployment.integer.dt_s
    assert list(found)[:-1] == list(read.integer.order[:-1]) == list(done.nodes)
    for name in done.nodes:
        assert np.array_equal(found[name].reshape(expected[name].shape), expected[name]), name
        same_integers(deployment.integer.populations[name], read.integer.populations[name])
    last = expected[done.nodes[-1]]
    assert np.array_equal(found["scores"][:, -1], last.sum(axis=1).reshape(len(last), -1))


def same_integers(written: ig.Population, read: ig.Population) -> None:
    if not isinstance(written, ig.IntLif):
        return
    assert isinstance(read, ig.IntLif)
    for one, other in (
        (written.threshold, read.threshold),
        (written.decay_u, read.decay_u),
        (written.decay_v, read.decay_v),
    ):
        assert np.array_equal(*np.broadcast_arrays(one, other))
    biases = [
        np.broadcast_to(shift_left(p.bias_mantissa, p.bias_exponent), p.shape).reshape(-1)
        for p in (written, read)
    ]
    assert np.array_equal(*biases)
    before, after = written.projections[0], read.projections[0]
    if isinstance(before, (ig.IntConv2d, ig.IntDense)):
        assert type(before) is type(after)
        assert np.array_equal(before.weight, after.weight)


# --- files by hand ----------------------------------------------------------------------------
NEURON = {"type": "CUBA", "iDecay": 4096, "vDecay": 512, "vThMant": 40, "refDelay": 1,
          "gradedSpike": False}  # fmt: skip


def dense(weight, /, **more):
    weight = np.asarray(weight, np.float32)
    return {"type": "dense", "shape": [len(weight)], "weight": weight, "neuron": NEURON} | more


def conv(**more):
    weight = np.full((3, 2, 2, 2, 1), 20, np.float32)
    form = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1], "groups": 1}
    return {"type": "conv", "shape": [3, 3, 4], "weight": weight, "neuron": NEURON} | form | more


INPUT = {"type": "input", "shape": [2, 4, 5]}
WEIGHT = [[30, -8, 44, 0], [2, 60, -6, 10], [50, 2, 2, 2]]


def put(path: Path, *layers) -> Path:
    def write(group, tree):
        for key, value in tree.items():
            if isinstance(value, dict):
                write(group.create_group(key), value)
            elif isinstance(value, str):
                group[key] = np.array([value.encode()])
            elif value is not None:
                group[key] = value

    with h5py.File(path, "w") as file:
        for number, layer in enumerate(layers):
            write(file.create_group(f"layer/{number}"), layer)
    return path


def spikes(*shape, rate=0.5, seed=0):
    return (np.random.default_rng(seed).random(shape) < rate).astype(np.int32)


def test_a_recurrent_layer_by_hand(tmp_path):
    """Its own spikes come back one frame later, in every sample from an empty start."""
    back = [[0, 90, 0], [0, 0, 90], [90, 0, 0]]
    layer = dense([[90, 0, 0, 0], [0] * 4, [0] * 4], weight_rec=back) | {"type": "dense_rec"}
    layer["neuron"] = NEURON | {"vDecay": 4096}
    deployment = read_netx(put(tmp_path / "a.net", layer), steps=6)
    frames = np.zeros((2, 6, 4), np.int32)
    frames[:, 0, 0] = 1
    found = collect(fast.run(deployment, {"input": frames}))["layer0"]
    assert [int(f.argmax()) for f in found[0]] == [0, 2, 1, 0, 2, 1]
    assert (found[0].sum(axis=1) == 1).all()
    assert np.array_equal(found[0], found[1])
    twin = collect(real.run(deployment.real, {"input": frames}))["layer0"]
    assert np.array_equal(twin, found)


@pytest.mark.parametrize(
    ("delay", "by_row"),
    [
        (3, [3, 3, 3]),
        ([0, 2, 1], [0, 2, 1]),
        ([4.0], [4, 4, 4]),
        ([[1] * 4, [0] * 4, [2] * 4], [1, 0, 2]),
    ],
)
def test_delays_shift_frames(tmp_path, delay, by_row):
    plain = read_netx(put(tmp_path / "a.net", dense(WEIGHT)), steps=8)
    late = read_netx(put(tmp_path / "b.net", dense(WEIGHT, delay=delay)), steps=8)
    frames = {"input": spikes(3, 8, 4)}
    before, after = (collect(reference.run(d, frames))["layer0"] for d in (plain, late))
    assert before.any()
    for neuron, steps in enumerate(by_row):
        expected = np.zeros_like(before[:, :, neuron])
        expected[:, steps:] = before[:, : 8 - steps, neuron]
        assert np.array_equal(after[:, :, neuron], expected)
    twin = collect(real.run(late.real, frames))["layer0"]
    assert np.array_equal(twin, after)


def test_decays_per_channel_and_biases_in_every_form(tmp_path):
    rng = np.random.default_rng(3)
    neuron = NEURON | {"iDecay": np.array([4096, 1000, 0]), "vDecay": np.array([100, 4096, 300])}
    biases = rng.integers(-9, 9, (4, 3, 3))
    first = put(tmp_path / "a.net", INPUT, conv(neuron=neuron, bias=biases))
    second = put(tmp_path / "b.net", INPUT, conv(neuron=neuron, bias=[1.0, -3, 2]))
    one, other = (read_netx(p, steps=5) for p in (first, second))
    pop = one.integer.populations["layer1"]
    assert np.array_equal(pop.bias_mantissa, biases.transpose())
    assert pop.decay_u.reshape(-1).tolist() == [4095, 999, -1]
    assert pop.decay_v.shape == (3, 1, 1)
    assert other.integer.populations["layer1"].bias_mantissa.reshape(-1).tolist() == [1, -3, 2]
    frames = {"input": spikes(2, 5, 2, 4, 5, rate=0.2)}
    for deployment in (one, other):
        slow, quick = (collect(e.run(deployment, frames)) for e in (reference, fast))
        assert 0.05 < slow["layer1"].mean() < 0.9
        assert all(np.array_equal(slow[n], quick[n]) for n in slow)
        assert collect(real.run(deployment.real, frames))["layer1"].any()


def test_input_neurons_round_and_cut_no_spike(tmp_path):
    """gain * value + offset as a bias, in every step, against the neuron's own equations."""
    given = {"type": "input", "shape": [6], "weight": [20.0], "bias": [3.0],
             "neuron": NEURON | {"iDecay": 700, "vThMant": 30}}  # fmt: skip
    deployment = read_netx(put(tmp_path / "a.net", given, dense(np.full((2, 6), 40))), steps=7)
    values = np.repeat(np.random.default_rng(1).normal(0.2, 1, (4, 1, 6, 1, 1)), 7, axis=1)
    found = collect(fast.run(deployment, {"input": values}))["layer0"][..., 0, 0]
    bias, v = np.rint(20 * values[:, 0, :, 0, 0] + 3).astype(int) << 6, 0
    assert bias.min() < 0 < 31 << 6 < bias.max()
    for t in range(7):
        v = np.sign(v) * (np.abs(v) * (4096 - 512) >> 12) + bias
        assert np.array_equal(found[:, t], v > 30 << 6)
        v = np.where(v > 30 << 6, 0, v)
    assert deployment.static == {"input"}


@pytest.mark.parametrize(
    ("neuron", "bias", "leaky"),
    [
        (None, None, False),
        (NEURON | {"vDecay": 0, "vThMant": (1 << 18) - 1}, [3, -4, 5], False),
        (NEURON | {"vDecay": 700, "vThMant": (1 << 18) - 1}, [30, 0, 2], True),
        (NEURON | {"iDecay": 900, "vThMant": (1 << 18) - 1}, None, True),
    ],
)
def test_a_last_layer_that_never_spikes_is_the_readout(tmp_path, neuron, bias, leaky):
    path = put(tmp_path / "a.net", dense(WEIGHT, neuron=neuron, bias=bias))
    deployment = read_netx(path, steps=6, classes=("a", "b", "c"))
    pop = deployment.integer.populations["layer0"]
    assert isinstance(pop, ig.IntReadout)
    assert pop.leaky == leaky
    frames = spikes(2, 6, 4)
    found = collect(reference.run(deployment, {"input": frames}))["layer0"]
    decay_i, decay_v = (neuron["iDecay"], neuron["vDecay"]) if neuron else (0, 4096)
    u, v = np.zeros((2, 2, 3), int)
    for t in range(6):
        u = np.sign(u) * (np.abs(u) * (4096 - decay_i) >> 12) + (
            frames[:, t] @ np.transpose(WEIGHT) << 6
        )
        v = np.sign(v) * (np.abs(v) * (4096 - decay_v) >> 12) + u + (np.array(bias or 0) << 6)
        assert np.array_equal(found[:, t] << (0 if leaky else 6), v)
    assert len(np.unique(found)) > 4
    scale = np.divide(*deployment.integer.scales["layer0"])
    twin = collect(real.run(deployment.real, {"input": frames}))["layer0"][:, -1]
    assert np.allclose(twin, found[:, -1] * scale, rtol=0.02, atol=0.1)


def test_without_an_input_layer_a_convolution_needs_its_shape(tmp_path):
    path = put(tmp_path / "a.net", conv())
    with pytest.raises(UnsupportedNode, match="layer 0: is a convolution.*--input-shape"):
        read_netx(path, steps=3)
    read = read_netx(path, steps=3, input_shape=(2, 4, 5))
    assert read.integer.inputs["input"].shape == (2, 4, 5)


def test_flatten_stands_between_rows_and_a_dense_layer(tmp_path):
    flatten, last = {"type": "flatten", "shape": [36, 1, 1]}, dense(np.full((2, 36), 20))
    read_netx(put(tmp_path / "a.net", INPUT, conv(), flatten, last), steps=3)
    with pytest.raises(UnsupportedNode, match=r"layer 2: reads neurons \(3, 3, 4\) with no layer"):
        read_netx(put(tmp_path / "b.net", INPUT, conv(), last), steps=3)


# --- refusals ---------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", [*UNSUPPORTED, "nonsense"])
def test_layers_that_netx_refuses_are_named(tmp_path, kind):
    path = put(tmp_path / "a.net", INPUT, conv(), {"type": kind, "shape": [1]})
    with pytest.raises(UnsupportedNode, match=f"layer 2 is of type '{kind}': .* carried are"):
        read_netx(path, steps=3)


def neuron_with(**more):
    return dense(WEIGHT, neuron=NEURON | more)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (neuron_with(type="SDNN"), "neurons are 'SDNN'.*not sigma-delta.*slayer.block.cuba"),
        (neuron_with(type="RF_PHASE"), "neurons are 'RF_PHASE'"),
        (neuron_with(refDelay=2), "refDelay is 2, allowed is 1"),
        (neuron_with(gradedSpike=True), "gradedSpike is 1, allowed is 0"),
        (neuron_with(wgtExp=3), "wgtExp is 3"),
        (neuron_with(weight_exp=2.0), "weight_exp is 2.*MeanOnlyBatchNorm"),
        (dense([[3, -200, 8, 8]]), "layer 0: 1 of 4 weights are odd"),
        (dense(WEIGHT, weight={"real": WEIGHT, "imag": WEIGHT}), "complex synapses"),
        (
            dense(WEIGHT, delay=[1, 0, 0], weight_rec=np.eye(3)) | {"type": "dense_rec"},
            "recurrent with delays",
        ),
        (conv(delay=[0, 1, 0]), "delays of a convolution are ignored"),
        (conv(neuron=NEURON | {"vThMant": 1 << 17}), "threshold 131072 is above"),
        (dense(WEIGHT, neuron=None, bias=[1, 2, 3]), "class scores have biases behind a synaptic"),
    ],
)
def test_what_would_be_another_network_is_refused(tmp_path, layer, message):
    with pytest.raises(UnsupportedNode, match=message):
        read_netx(put(tmp_path / "a.net", layer), steps=3, input_shape=(2, 4, 5)
                  if layer["type"] == "conv" else None)  # fmt: skip


def test_a_silent_layer_inside_is_refused(tmp_path):
    path = put(tmp_path / "a.net", dense(WEIGHT, neuron=None), dense(np.full((2, 3), 4)))
    with pytest.raises(UnsupportedNode, match="layer 0: its threshold 131072.*only a last dense"):
        read_netx(path, steps=3)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (dense(np.full((3, 4), np.nan)), "layer/0/weight holds 12 of 12 values NaN"),
        (dense(np.full((3, 4), 0.5)), "weight holds 12 of 12 fractions"),
        (dense(np.full((3, 4), 300)), "weight spans 300..300, allowed is -256..255"),
        (dense(np.full((5, 4), 2), shape=[3]), "weight has shape .5, 4., allowed is 3 rows"),
        (dense(WEIGHT, shape=None), "layer/0/shape is missing"),
        (dense(WEIGHT, shape=[-3]), "shape spans -3..-3"),
        (dense(WEIGHT, bias=[1, 2]), "bias has shape"),
        (dense(WEIGHT, delay=[63] * 3), "delay spans 63..63, allowed is 0..62"),
        (dense(WEIGHT, delay=[1] * 7), "delay has shape"),
        (dense(WEIGHT, type=3), "type holds 1 of int64, allowed is one short text"),
        (dense(WEIGHT, weight="text"), "weight holds .S4, allowed is numbers"),
        (neuron_with(iDecay=5000), "iDecay spans 5000..5000, allowed is 0..4096"),
        (neuron_with(vDecay=[1, 2]), "vDecay holds 2 numbers, allowed is 1 or 3"),
        (neuron_with(vThMant=None), "vThMant is missing"),
        (conv(neuron=7), "layer/0/neuron is no group"),
        (conv(shape=[3, 4, 4]), "shape is .3, 4, 4., allowed is .3, 3, 4."),
        (conv(stride=[0, 1]), "stride spans 0..1"),
        (conv(groups=[1, 1]), "groups holds 2 values"),
    ],
)
def test_values_that_cannot_be_are_named(tmp_path, layer, message):
    shape = (2, 4, 5) if layer["type"] == "conv" else None
    with pytest.raises(FileFormatError, match=message) as refused:
        read_netx(put(tmp_path / "a.net", layer), steps=3, input_shape=shape)
    assert str(tmp_path / "a.net") in str(refused.value)


def _soft(file):
    del file["layer/0/weight"]
    file["layer/0/weight"] = h5py.SoftLink("/layer/0/shape")


def _external(file):
    del file["layer/0/weight"]
    file["layer/0/weight"] = h5py.ExternalLink("/etc/other.h5", "/x")


def _outside(file):
    del file["layer/0/weight"]
    file["layer/0"].create_dataset("weight", (3, 4), "f4", external=[("/etc/hostname", 0, 48)])


def _virtual(file):
    del file["layer/0/weight"]
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "x", (3, 4))
    file["layer/0"].create_virtual_dataset("weight", layout)


def _huge(file):
    del file["layer/0/weight"]
    file["layer/0"].create_dataset("weight", (1 << 20, 1 << 20), "f4", chunks=(16, 16))


def _hollow(file):
    del file["layer/0/weight"]
    file["layer/0"].create_dataset("weight", (3, 1 << 24), "f4", chunks=(3, 1 << 10))


def _objects(file):
    del file["layer/0/weight"]
    file["layer/0"].create_dataset("weight", (3, 4), h5py.special_dtype(vlen=np.float32))


def _references(file):
    del file["layer/0/shape"]
    file["layer/0"].create_dataset("shape", (1,), h5py.ref_dtype)


def _empty(file):
    del file["layer/0/shape"]
    file["layer/0/shape"] = h5py.Empty("f4")


def _no_layers(file):
    del file["layer"]


def _gap(file):
    file.move("layer/0", "layer/7")


def _second_input(file):
    file.copy("layer/0", "layer/1")
    del file["layer/1/type"]
    file["layer/1/type"] = np.array([b"input"])


def _other_names(file):
    file.attrs.update({"format": "neuroav-netx", "nodes": json.dumps(["a", "a/b"]), "steps": "3",
                       "dt_s": "0.01", "input_message_bits": 0})  # fmt: skip


def _bad_facts(file):
    file.attrs.update({"format": "neuroav-netx", "nodes": "[[", "steps": "many"})


HOSTILE = [_soft, _external, _outside, _virtual, _huge, _hollow, _objects, _references, _empty,
           _no_layers, _gap, _second_input, _other_names, _bad_facts]  # fmt: skip


@pytest.mark.parametrize("damage", HOSTILE, ids=lambda f: f.__name__.strip("_"))
def test_hostile_files_are_one_clear_error(tmp_path, damage):
    path = put(tmp_path / "a.net", dense(WEIGHT))
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(FileFormatError, match=r"a\.net: .*allowed is") as refused:
        read_netx(path, steps=3)
    assert len(str(refused.value)) < 500


def test_no_hdf5_and_cut_files(tmp_path):
    whole = put(tmp_path / "a.net", INPUT, conv()).read_bytes()
    for number, content in enumerate((b"", b"PK\3\4", b"x" * 5000, whole[:700], whole[:-900])):
        path = tmp_path / f"{number}.net"
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=rf"{number}\.net: .*export it again"):
            read_netx(path, steps=3)
    with pytest.raises(FileFormatError, match="no such file"):
        read_netx(tmp_path / "none.net", steps=3)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_changed_bytes_never_give_anything_but_our_errors(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("flip") / "a.net"
    content = bytearray(put(path, INPUT, conv()).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    with contextlib.suppress(NeuroavError):
        read_netx(path, steps=3)


def test_steps_bits_and_classes_are_checked(tmp_path):
    path = put(tmp_path / "a.net", dense(WEIGHT))
    with pytest.raises(ConfigError, match="how many steps a sample has.*--steps N"):
        read_netx(path)
    with pytest.raises(ConfigError, match="2 class names for 3 neurons"):
        read_netx(path, steps=3, classes=("a", "b"))
    with pytest.raises(ConfigError, match="input_message_bits is 40"):
        read_netx(path, steps=3, input_message_bits=40)
    assert read_netx(path, steps=3, input_message_bits=5).integer.inputs["input"].max_count == 31
    with pytest.raises(ConfigError, match="unknown option of netx 'calibration'"):
        read_file(path, "netx", steps=3, calibration="mse")
    with pytest.raises(ConfigError, match="unknown format 'nety'.*did you mean 'netx'"):
        read_file(path, "nety")


def test_the_name_of_the_scores_does_not_collide(tmp_path):
    path = put(tmp_path / "a.net", dense(WEIGHT))
    with h5py.File(path, "r+") as file:
        facts = {"format": "neuroav-netx", "steps": "3", "dt_s": "0.01", "input_message_bits": 0}
        file.attrs.update(facts | {"nodes": json.dumps(["scores", "scores2"])})
    read = read_netx(path)
    assert read.integer.output == "scores3"
    assert set(read.real.nodes) == {"scores", "scores2", "scores2.synapses", "scores3"}


# --- the file that comes of it ----------------------------------------------------------------
@pytest.fixture
def net(tmp_path) -> tuple[Path, Path, np.ndarray]:
    """A .net file, samples for it, and their frames."""
    path = put(tmp_path / "a.net", INPUT, conv(), {"type": "flatten", "shape": [36, 1, 1]},
               dense(np.arange(72).reshape(2, 36) * 2 - 60))  # fmt: skip
    frames = spikes(10, 5, 2, 4, 5)
    np.savez(tmp_path / "s.npz", input=frames, labels=np.arange(10) % 2)
    return path, tmp_path / "s.npz", frames


def test_saved_loaded_simulated_verified_reported(net, tmp_path, run):
    path, given_samples, frames = net
    out = tmp_path / "a.nav"
    done = run("import", path, "--from", "netx", "--samples", given_samples, "--classes", "no,yes",
               "--out", out, "--json")  # fmt: skip
    assert done.code == 0, done.err
    found = done.json
    loaded = navfile.load(out)
    assert found["hash"] == loaded.content_hash
    assert (found["format"], found["inputs"], found["probe"]) == ("netx", {"input": [2, 4, 5]}, 8)
    assert (found["steps"], found["output"], found["weight_bits"]) == (5, "scores", 8)
    assert found["cores"] >= 1
    assert loaded.classes == ("no", "yes")
    read = read_netx(path, steps=5)
    expected = collect(fast.run(read, {"input": frames[:8]}))
    assert all(expected[n].any() for n in expected)
    simulated = run("simulate", out, "--json").json
    assert simulated["samples"] == 8
    assert simulated["predictions"] == expected["scores"][:, -1].argmax(axis=1).tolist()
    checked = run("verify", out, "--backends", "reference,fast", "--json").json
    assert checked["equal"]
    assert checked["spikes_compared"] > 100
    assert run("report", out, "--out", tmp_path / "report").code == 0
    shown = run("import", path, "--from", "netx", "--steps", "5", "--out", out).out
    assert "layer3" in shown
    assert navfile.load(out).probe is None


def test_without_labels_the_class_is_unknown(net, tmp_path, run):
    path, _, frames = net
    np.savez(tmp_path / "u.npz", input=frames)
    import_file(path, "netx", tmp_path / "a.nav", samples=tmp_path / "u.npz", place=False)
    loaded = navfile.load(tmp_path / "a.nav")
    assert loaded.placement is None
    assert (loaded.probe.labels == -1).all()
    assert run("simulate", tmp_path / "a.nav", "--json").json["accuracy"] is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "holds no input"),
        ({"input": np.zeros((2, 5))}, "input is float64 of shape .2, 5., needs numbers"),
        ({"input": np.array([["a"]])}, "input is <U1"),
        ({"ear": np.zeros((2, 5, 2, 4, 5))}, "inputs are .'ear'., the network needs .'input'."),
        ({"input": np.full((2, 5, 2, 4, 5), 2)}, "counts span 0..2, allowed 0..1"),
        ({"input": np.full((2, 5, 2, 4, 5), np.nan)}, "NaN"),
        ({"input": np.zeros((2, 5, 1, 4, 5))}, "shape is"),
        ({"input": np.zeros((2, 5, 2, 4, 5)), "labels": np.zeros(3, int)}, "labels are int64"),
        ({"input": np.zeros((2, 5, 2, 4, 5)), "labels": np.array([0, 9])}, "labels span 0..9"),
        (
            {"input": np.zeros((2, 5, 1)), "other": np.zeros((2, 4, 1))},
            "inputs differ in samples and steps",
        ),
    ],
)
def test_samples_that_misfit(net, tmp_path, arrays, message):
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(DataError, match=message):
        import_file(net[0], "netx", tmp_path / "a.nav", samples=tmp_path / "b.npz")
    assert not (tmp_path / "a.nav").exists()


def test_samples_that_are_no_samples(net, tmp_path):
    (tmp_path / "b.npz").write_bytes(b"PK\5\6 nothing")
    np.savez(tmp_path / "c.npz", input=np.array([{1: 2}], object))
    for name, message in (("b", "cannot be read"), ("c", "cannot be read"), ("d", "no such file")):
        with pytest.raises(DataError, match=message):
            import_file(net[0], "netx", tmp_path / "a.nav", samples=tmp_path / f"{name}.npz")
    with pytest.raises(ConfigError, match="steps is 4, the samples have 5"):
        import_file(net[0], "netx", tmp_path / "a.nav", samples=net[1], steps=4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--from", "netz", "--out", "x"], "did you mean 'netx'"),
        (["--out", "x"], "Missing option '--from'"),
        (["--from", "netx"], "Missing option '--out'"),
        (["--from", "netx", "--out", "x", "--input-shape", "2,x"], "needs CHANNELS,ROWS,COLUMNS"),
        (["--from", "netx", "--out", "x", "--steps", "0"], "--steps"),
        (["--from", "netx", "--out", "."], "is a directory"),
    ],
)
def test_wrong_usage(run, words, message):
    done = run("import", "a.net", *words)
    assert done.code == 2
    assert message in " ".join(done.err.split())


def test_failure_is_one_line(run, tmp_path):
    done = run("import", tmp_path / "a.net", "--from", "netx", "--out", tmp_path / "a.nav")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("neuroav: error:")
    assert done.err.count("\n") == 1


def test_command_offers_every_reader():
    assert set(import_.FORMATS) == set(READERS)
    for form, taken in import_._TAKEN.items():
        assert set(taken) <= set(READERS[form].options)


def test_the_page_lists_what_is_read():
    page = (samples.ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
    section = page.partition("\n## Reading netx")[2].partition("\n## ")[0]
    for kind, becomes in READS.items():
        assert f"| `{kind}` | {becomes} |" in section
    for kind, why in UNSUPPORTED.items():
        assert f"| `{kind}` | **not read**: {why} |" in section


def test_real_twin_has_the_populations_names(tmp_path):
    layer = dense(WEIGHT, weight_rec=np.eye(3) * 4) | {"type": "dense_rec"}
    read = read_netx(put(tmp_path / "a.net", layer), steps=4)
    assert set(read.integer.populations) <= set(read.real.nodes)
    assert isinstance(read.real.nodes["layer0"], rn.Lif)
    assert read.real.nodes["layer0"].tau_mem_s == pytest.approx(8e-3)
    assert read.real.output == read.integer.output
